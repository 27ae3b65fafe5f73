/* SPDX-License-Identifier: Apache-2.0 */
/* status.c - the newest failure of each thread, and the end of the process on a bug.
 *
 * The text is formatted into a scratch buffer first: an argument may be tp_last_error() itself.
 */
#include "base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

#define ERROR_TEXT_BYTES 1024

static _Thread_local char g_last_error[ERROR_TEXT_BYTES];

const char *tp_status_name(tp_status st)
{
    switch (st) {
    case TP_OK: return "ok";
    case TP_ERR_INVALID: return "invalid";
    case TP_ERR_NOMEM: return "out of memory";
    case TP_ERR_IO: return "input/output error";
    case TP_ERR_NOT_FOUND: return "not found";
    case TP_ERR_FORMAT: return "damaged format";
    case TP_ERR_UNSUPPORTED: return "unsupported";
    case TP_ERR_FULL: return "full";
    case TP_ERR_TIMEOUT: return "timed out";
    case TP_ERR_CANCELLED: return "cancelled";
    case TP_ERR_COMM: return "communication failed";
    case TP_ERR_DEVICE: return "device failed";
    case TP_ERR_LIMIT: return "limit exceeded";
    case TP_ERR_DRAINING: return "draining";
    case TP_ERR_EXIT: return "exit";
    }
    return "unknown status";
}

const char *tp_last_error(void)
{
    return g_last_error;
}

static void keep_text(const char *fmt, va_list ap) __attribute__((format(printf, 1, 0)));

static void keep_text(const char *fmt, va_list ap)
{
    char text[ERROR_TEXT_BYTES];

    (void)vsnprintf(text, sizeof text, fmt, ap);
    memcpy(g_last_error, text, sizeof text);
}

/* "/src/runtime/model/safetensors.c" -> "safetensors.c". */
static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash != NULL ? slash + 1 : path;
}

tp_status tp_fail_at(const char *file, int line, tp_status st, const char *fmt, ...)
{
    const char *name = base_name(file);
    char component[32];
    va_list ap;

    va_start(ap, fmt);
    keep_text(fmt, ap);
    va_end(ap);
    (void)snprintf(component, sizeof component, "%.*s", (int)strcspn(name, "."), name);
    tp_error(component, "%s (%s:%d)", g_last_error, name, line);
    return st;
}

tp_status tp_reject(tp_status st, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    keep_text(fmt, ap);
    va_end(ap);
    return st;
}

void tp_assert_fail(const char *file, int line, const char *expr)
{
    tp_log_write(TP_LOG_ERROR, "assert", "bug: %s does not hold (%s:%d)", expr, base_name(file),
                 line);
    abort();
}
