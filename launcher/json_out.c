/* SPDX-License-Identifier: Apache-2.0 */
/* json_out.c - see json_out.h. */
#include "launcher/json_out.h"

#include <inttypes.h>
#include <math.h>

#include "base/json.h"

void launch_json_init(launch_json *j)
{
    tp_buf_init(&j->text, SIZE_MAX);
    j->comma = false;
}

static void begin(launch_json *j, const char *key)
{
    if (j->comma)
        tp_buf_puts(&j->text, ", ");
    if (key != NULL) {
        tp_json_put_cstring(&j->text, key);
        tp_buf_puts(&j->text, ": ");
    }
    j->comma = true;
}

void launch_json_open(launch_json *j, const char *key, char kind)
{
    begin(j, key);
    tp_buf_putc(&j->text, kind);
    j->comma = false;
}

void launch_json_close(launch_json *j, char kind)
{
    tp_buf_putc(&j->text, kind);
    j->comma = true;
}

void launch_json_text(launch_json *j, const char *key, const char *value)
{
    begin(j, key);
    if (value == NULL)
        tp_buf_puts(&j->text, "null");
    else
        tp_json_put_cstring(&j->text, value);
}

void launch_json_int(launch_json *j, const char *key, int64_t value)
{
    begin(j, key);
    tp_buf_printf(&j->text, "%" PRId64, value);
}

void launch_json_real(launch_json *j, const char *key, double value)
{
    begin(j, key);
    if (isfinite(value))
        tp_buf_printf(&j->text, "%.6g", value);
    else
        tp_buf_puts(&j->text, "null");
}

void launch_json_bool(launch_json *j, const char *key, bool value)
{
    begin(j, key);
    tp_buf_puts(&j->text, value ? "true" : "false");
}

bool launch_json_print(launch_json *j, FILE *out)
{
    bool ok = !j->text.failed;

    if (ok)
        fprintf(out, "%s\n", tp_buf_str(&j->text));
    tp_buf_release(&j->text);
    return ok;
}
