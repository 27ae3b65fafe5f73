/* SPDX-License-Identifier: Apache-2.0 */
/* json_write.c - JSON text out.  Failure is the buffer's: callers check b->failed once at the end. */
#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INTEGER_MAX 9007199254740992.0 /* 2^53: doubles up to here hold every integer */

/* The escape of one byte, or NULL when the byte stands for itself. */
static const char *escape_of(unsigned char c, char scratch[8])
{
    switch (c) {
    case '"': return "\\\"";
    case '\\': return "\\\\";
    case '\b': return "\\b";
    case '\f': return "\\f";
    case '\n': return "\\n";
    case '\r': return "\\r";
    case '\t': return "\\t";
    default: break;
    }
    if (c >= 0x20)
        return NULL;
    (void)snprintf(scratch, 8, "\\u%04x", c);
    return scratch;
}

void tp_json_put_string(tp_buf *b, const char *s, size_t n)
{
    size_t start = 0;
    char scratch[8];

    tp_buf_putc(b, '"');
    for (size_t i = 0; i < n; i++) {
        const char *esc = escape_of((unsigned char)s[i], scratch);

        if (esc == NULL)
            continue;
        tp_buf_put(b, s + start, i - start);
        tp_buf_puts(b, esc);
        start = i + 1;
    }
    tp_buf_put(b, s + start, n - start);
    tp_buf_putc(b, '"');
}

void tp_json_put_cstring(tp_buf *b, const char *s)
{
    tp_json_put_string(b, s, strlen(s));
}

void tp_json_put_double(tp_buf *b, double v)
{
    char text[32];

    if (!isfinite(v)) {
        tp_buf_puts(b, "null");
        return;
    }
    if (v == trunc(v) && fabs(v) <= INTEGER_MAX) {
        tp_buf_printf(b, "%.0f", v);
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        (void)snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    tp_buf_puts(b, text);
}

/* Recursion is bounded: tp_json_parse limits the depth. */
static void put_children(tp_buf *b, const tp_json *v, char open,
                         char close) // NOLINT(misc-no-recursion)
{
    bool first = true;

    tp_buf_putc(b, open);
    TP_JSON_EACH(item, v)
    {
        if (!first)
            tp_buf_putc(b, ',');
        first = false;
        if (open == '{') {
            tp_json_put_cstring(b, tp_json_key(item));
            tp_buf_putc(b, ':');
        }
        tp_json_put_value(b, item);
    }
    tp_buf_putc(b, close);
}

void tp_json_put_value(tp_buf *b, const tp_json *v) // NOLINT(misc-no-recursion)
{
    switch (tp_json_kind(v)) {
    case TP_JSON_NULL: tp_buf_puts(b, "null"); return;
    case TP_JSON_BOOL: tp_buf_puts(b, tp_json_bool(v) ? "true" : "false"); return;
    case TP_JSON_NUMBER: tp_buf_puts(b, tp_json_raw(v)); return;
    case TP_JSON_STRING: tp_json_put_cstring(b, tp_json_string(v)); return;
    case TP_JSON_ARRAY: put_children(b, v, '[', ']'); return;
    case TP_JSON_OBJECT: put_children(b, v, '{', '}'); return;
    }
}
