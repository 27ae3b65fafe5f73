/* SPDX-License-Identifier: Apache-2.0 */
/* repr.c - str() and repr() of values, and HTML escaping. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/template/interp.h"

static tp_status repr_deep(rt_render *r, rt_val v, int depth);

/* Shortest digits that read back as f, laid out as Python does: exponent form from 1e16 and below 1e-4. */
size_t rt_float_repr(double f, char out[40])
{
    char digits[40], *mantissa = digits;
    int exp, n_digits = 0, precision;
    size_t n = 0;

    if (isnan(f) || isinf(f))
        return (size_t)snprintf(out, 40, "%s", isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
    for (precision = 0; precision < 17; precision++) {
        (void)snprintf(digits, sizeof digits, "%.*e", precision, f);
        if (strtod(digits, NULL) == f)
            break;
    }
    exp = (int)strtol(strchr(digits, 'e') + 1, NULL, 10);
    if (*mantissa == '-') {
        out[n++] = '-';
        mantissa++;
    }
    for (const char *p = mantissa; *p != 'e'; p++) /* drop the point */
        if (*p != '.')
            mantissa[n_digits++] = *p;
    while (n_digits > 1 && mantissa[n_digits - 1] == '0')
        n_digits--;
    if (exp < -4 || exp >= 16) {
        out[n++] = mantissa[0];
        if (n_digits > 1)
            n += (size_t)snprintf(out + n, 40 - n, ".%.*s", n_digits - 1, mantissa + 1);
        return n + (size_t)snprintf(out + n, 40 - n, "e%c%02d", exp < 0 ? '-' : '+', abs(exp));
    }
    if (exp < 0)
        return n +
               (size_t)snprintf(out + n, 40 - n, "0.%.*s%.*s", -exp - 1, "000", n_digits, mantissa);
    for (int i = 0; i <= exp; i++)
        out[n++] = i < n_digits ? mantissa[i] : '0';
    out[n++] = '.';
    if (n_digits <= exp + 1)
        out[n++] = '0';
    for (int i = exp + 1; i < n_digits; i++)
        out[n++] = mantissa[i];
    out[n] = 0;
    return n;
}

/* ---- repr ---- */

static tp_status repr_char(rt_render *r, const rt_str *s, size_t at, size_t next, uint32_t cp,
                           char quote)
{
    bool user = rt_str_user_at(s, at);
    char text[16];

    if (cp == (uint32_t)quote || cp == '\\')
        (void)snprintf(text, sizeof text, "\\%c", (char)cp);
    else if (cp == '\n')
        (void)snprintf(text, sizeof text, "\\n");
    else if (cp == '\r')
        (void)snprintf(text, sizeof text, "\\r");
    else if (cp == '\t')
        (void)snprintf(text, sizeof text, "\\t");
    else if (rt_cp_is_printable(cp))
        return rt_out_bytes(r, s->s + at, next - at, user);
    else
        (void)snprintf(text, sizeof text,
                       cp <= 0xFF     ? "\\x%02x"
                       : cp <= 0xFFFF ? "\\u%04x"
                                      : "\\U%08x",
                       (unsigned)cp);
    return rt_out_bytes(r, text, strlen(text), user);
}

static tp_status repr_str(rt_render *r, const rt_str *s)
{
    bool single = memchr(s->s, '\'', s->n) != NULL, dbl = memchr(s->s, '"', s->n) != NULL;
    const char *quote = single && !dbl ? "\"" : "'";

    TP_TRY(rt_tmpl_charge(r, s->n >> 5));
    TP_TRY(rt_out_puts(r, s->safe ? "Markup(" : ""));
    TP_TRY(rt_out_puts(r, quote));
    for (size_t at = 0; at < s->n;) {
        uint32_t cp;
        size_t next = rt_utf8_next(s->s, s->n, at, &cp);

        TP_TRY(repr_char(r, s, at, next, cp, *quote));
        at = next;
    }
    TP_TRY(rt_out_puts(r, quote));
    return rt_out_puts(r, s->safe ? ")" : "");
}

static tp_status repr_items(rt_render *r, const rt_list *l, const char *open, const char *close,
                            int depth)
{
    TP_TRY(rt_out_puts(r, open));
    for (size_t i = 0; i < l->n; i++) {
        TP_TRY(rt_out_puts(r, i > 0 ? ", " : ""));
        TP_TRY(repr_deep(r, l->items[i], depth + 1));
    }
    return rt_out_puts(r, close);
}

static tp_status repr_dict(rt_render *r, const rt_dict *d, int depth)
{
    TP_TRY(rt_out_puts(r, "{"));
    for (size_t i = 0; i < d->n; i++) {
        TP_TRY(rt_out_puts(r, i > 0 ? ", " : ""));
        TP_TRY(repr_deep(r, d->items[i].key, depth + 1));
        TP_TRY(rt_out_puts(r, ": "));
        TP_TRY(repr_deep(r, d->items[i].val, depth + 1));
    }
    return rt_out_puts(r, "}");
}

static tp_status repr_range(rt_render *r, const rt_range *range)
{
    char text[96];
    long long stop = range->stop;

    if (range->step == 1)
        (void)snprintf(text, sizeof text, "range(%lld, %lld)", (long long)range->start, stop);
    else
        (void)snprintf(text, sizeof text, "range(%lld, %lld, %lld)", (long long)range->start, stop,
                       (long long)range->step);
    return rt_out_puts(r, text);
}

static tp_status repr_object(rt_render *r, rt_val v)
{
    TP_TRY(rt_out_puts(r, "<"));
    TP_TRY(rt_out_puts(r, rt_val_type_name(v)));
    if (v.kind == RT_MACRO) {
        TP_TRY(rt_out_puts(r, " "));
        TP_TRY(repr_str(r, v.u.macro->node->name));
    }
    return rt_out_puts(r, v.kind == RT_MACRO ? ">" : " object>");
}

static tp_status repr_number(rt_render *r, rt_val v)
{
    char text[40];

    if (v.kind == RT_FLOAT)
        return rt_out_bytes(r, text, rt_float_repr(v.u.f, text), false);
    (void)snprintf(text, sizeof text, "%lld", (long long)v.u.i);
    return rt_out_puts(r, text);
}

static tp_status repr_deep(rt_render *r, rt_val v, int depth)
{
    TP_TRY(rt_tmpl_charge(r, 1));
    if (depth > RT_VALUE_DEPTH_MAX)
        return rt_tmpl_error(r, "a value that nests deeper than %d is printed", RT_VALUE_DEPTH_MAX);
    switch (v.kind) {
    case RT_MISSING:
    case RT_UNDEFINED: return rt_out_puts(r, "Undefined");
    case RT_NONE: return rt_out_puts(r, "None");
    case RT_BOOL: return rt_out_puts(r, v.u.b ? "True" : "False");
    case RT_INT:
    case RT_FLOAT: return repr_number(r, v);
    case RT_BIGINT: return rt_out_str(r, v.u.str);
    case RT_STR: return repr_str(r, v.u.str);
    case RT_LIST: return repr_items(r, v.u.list, "[", "]", depth);
    case RT_TUPLE: return repr_items(r, v.u.list, "(", v.u.list->n == 1 ? ",)" : ")", depth);
    case RT_DICT: return repr_dict(r, v.u.dict, depth);
    case RT_NAMESPACE:
        TP_TRY(rt_out_puts(r, "<Namespace "));
        TP_TRY(repr_dict(r, v.u.dict, depth));
        return rt_out_puts(r, ">");
    case RT_RANGE: return repr_range(r, v.u.range);
    case RT_VIEW:
        TP_TRY(rt_out_puts(r, v.u.list->name));
        return repr_items(r, v.u.list, "([", "])", depth);
    case RT_LOOP:
    case RT_GENERATOR:
    case RT_MACRO:
    case RT_METHOD:
    case RT_FUNCTION: return repr_object(r, v);
    }
    return TP_OK;
}

tp_status rt_out_repr(rt_render *r, rt_val v)
{
    return repr_deep(r, v, 0);
}

/* ---- str ---- */

tp_status rt_out_value(rt_render *r, rt_val v)
{
    if (v.kind == RT_STR)
        return rt_out_str(r, v.u.str);
    if (v.kind == RT_UNDEFINED) /* even one that the sandbox hides prints as nothing */
        return TP_OK;
    return rt_out_repr(r, v);
}

tp_status rt_val_to_str(rt_render *r, rt_val v, rt_str **out)
{
    size_t mark = rt_out_mark(r);
    rt_val built;

    if (v.kind == RT_STR) {
        *out = v.u.str;
        return TP_OK;
    }
    TP_TRY(rt_out_value(r, v));
    TP_TRY(rt_out_cut(r, mark, &built));
    *out = built.u.str;
    return TP_OK;
}

/* ---- HTML ---- */

tp_status rt_out_escaped(rt_render *r, const rt_str *s)
{
    size_t done = 0;

    for (size_t i = 0; i < s->n; i++) {
        const char *to = NULL;

        switch (s->s[i]) {
        case '&': to = "&amp;"; break;
        case '<': to = "&lt;"; break;
        case '>': to = "&gt;"; break;
        case '"': to = "&#34;"; break;
        case '\'': to = "&#39;"; break;
        default: continue;
        }
        TP_TRY(rt_out_part(r, s, done, i));
        TP_TRY(rt_out_bytes(r, to, strlen(to), rt_str_user_at(s, i)));
        done = i + 1;
    }
    return rt_out_part(r, s, done, s->n);
}

tp_status rt_val_escape(rt_render *r, rt_val v, rt_val *out)
{
    size_t mark = rt_out_mark(r);
    rt_str *s;

    TP_TRY(rt_val_to_str(r, v, &s));
    if (s->safe) {
        *out = rt_val_str(s);
        return TP_OK;
    }
    TP_TRY(rt_out_escaped(r, s));
    TP_TRY(rt_out_cut(r, mark, out));
    out->u.str->safe = true;
    return TP_OK;
}
