/* SPDX-License-Identifier: Apache-2.0 */
/* strftime.c - strftime_now(format): local time, English names, as datetime.now().strftime(format).
 *
 * The C library does the work in the C locale, which the program never leaves.  Python's naive time has no zone:
 * %z and %Z are empty; %f is the microseconds, here always zeros.
 */
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "runtime/template/interp.h"

#define FORMAT_MAX 256

tp_status rt_tmpl_strftime(rt_render *r, const rt_str *format, rt_val *out)
{
    time_t now = (time_t)(r->now_unix != 0 ? r->now_unix : tp_unix_seconds());
    size_t mark = rt_out_mark(r);
    struct tm tm;

    if (format->n > FORMAT_MAX)
        return rt_tmpl_error(r, "a time format longer than %d bytes", FORMAT_MAX);
    if (localtime_r(&now, &tm) == NULL)
        return rt_tmpl_error(r, "the time cannot be broken down");
    for (size_t i = 0; i < format->n; i++) {
        char spec[4] = {'%', 0, 0, 0}, text[128];
        size_t n;

        if (format->s[i] != '%' || i + 1 == format->n) {
            TP_TRY(rt_out_part(r, format, i, i + 1));
            continue;
        }
        spec[1] = format->s[++i];
        if (rt_one_of(spec[1], "-_0^#EO") && i + 1 < format->n) /* a flag and its letter */
            spec[2] = format->s[++i];
        if (strcmp(spec, "%f") == 0) {
            TP_TRY(rt_out_puts(r, "000000"));
        } else if (strcmp(spec, "%z") != 0 && strcmp(spec, "%Z") != 0) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            n = strftime(text, sizeof text, spec, &tm);
#pragma GCC diagnostic pop
            TP_TRY(rt_out_bytes(r, text, n, false));
        }
    }
    return rt_out_cut(r, mark, out);
}
