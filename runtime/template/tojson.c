/* SPDX-License-Identifier: Apache-2.0 */
/* tojson.c - json.dumps: separators, indent, sorted keys, ASCII escapes. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/template/interp.h"

static tp_status json_escape(rt_render *r, uint32_t cp, bool user)
{
    char text[16];

    switch (cp) {
    case '"': return rt_out_bytes(r, "\\\"", 2, user);
    case '\\': return rt_out_bytes(r, "\\\\", 2, user);
    case '\n': return rt_out_bytes(r, "\\n", 2, user);
    case '\r': return rt_out_bytes(r, "\\r", 2, user);
    case '\t': return rt_out_bytes(r, "\\t", 2, user);
    case '\b': return rt_out_bytes(r, "\\b", 2, user);
    case '\f': return rt_out_bytes(r, "\\f", 2, user);
    default: break;
    }
    if (cp > 0xFFFF)
        (void)snprintf(text, sizeof text, "\\u%04x\\u%04x",
                       0xD800 + (((unsigned)cp - 0x10000) >> 10),
                       0xDC00 + (((unsigned)cp - 0x10000) & 0x3FF));
    else
        (void)snprintf(text, sizeof text, "\\u%04x", (unsigned)cp);
    return rt_out_bytes(r, text, strlen(text), user);
}

static tp_status json_string(rt_render *r, const rt_str *s, bool ascii)
{
    size_t done = 0, at = 0;

    TP_TRY(rt_tmpl_charge(r, s->n >> 7));
    TP_TRY(rt_out_puts(r, "\""));
    while (at < s->n) {
        unsigned char c = (unsigned char)s->s[at];
        uint32_t cp = c;
        size_t next = at + 1;

        if (c >= 0x20 && c != '"' && c != '\\' && (c < 0x7F || !ascii)) {
            at++;
            continue;
        }
        if (c >= 0x80)
            next = rt_utf8_next(s->s, s->n, at, &cp);
        TP_TRY(rt_out_part(r, s, done, at));
        TP_TRY(json_escape(r, cp, rt_str_user_at(s, at)));
        at = done = next;
    }
    TP_TRY(rt_out_part(r, s, done, s->n));
    return rt_out_puts(r, "\"");
}

static tp_status new_line(rt_render *r, const rt_json_style *style, int depth)
{
    if (!style->pretty)
        return TP_OK;
    TP_TRY(rt_out_puts(r, "\n"));
    for (int i = 0; i < depth; i++)
        TP_TRY(rt_out_str(r, style->indent));
    return TP_OK;
}

static tp_status json_list(rt_render *r, const rt_list *l, const rt_json_style *style, int depth)
{
    if (l->n == 0)
        return rt_out_puts(r, "[]");
    TP_TRY(rt_out_puts(r, "["));
    for (size_t i = 0; i < l->n; i++) {
        if (i > 0)
            TP_TRY(rt_out_str(r, style->item_sep));
        TP_TRY(new_line(r, style, depth + 1));
        TP_TRY(rt_out_json(r, l->items[i], style, depth + 1));
    }
    TP_TRY(new_line(r, style, depth));
    return rt_out_puts(r, "]");
}

static tp_status json_number(rt_render *r, double f)
{
    char text[40];

    if (isnan(f))
        return rt_out_puts(r, "NaN");
    if (isinf(f))
        return rt_out_puts(r, f < 0 ? "-Infinity" : "Infinity");
    return rt_out_bytes(r, text, rt_float_repr(f, text), false);
}

static tp_status json_key(rt_render *r, rt_val key, const rt_json_style *style)
{
    if (key.kind == RT_STR)
        return json_string(r, key.u.str, style->ascii);
    if (!rt_val_is_number(key) && key.kind != RT_NONE)
        return rt_tmpl_error(r, "a key of type '%s' cannot be written as JSON",
                             rt_val_type_name(key));
    TP_TRY(rt_out_puts(r, "\""));
    TP_TRY(rt_out_json(r, key, style, 0));
    return rt_out_puts(r, "\"");
}

typedef struct sort_key {
    const rt_str *s;
    size_t at;
} sort_key;

static int by_text(const void *a, const void *b)
{
    const sort_key *x = a, *y = b;
    size_t n = x->s->n < y->s->n ? x->s->n : y->s->n;
    int c = n > 0 ? memcmp(x->s->s, y->s->s, n) : 0;

    return c != 0 ? c : (x->s->n > y->s->n) - (x->s->n < y->s->n);
}

/* Order in which the entries are written: NULL = as they are. */
static tp_status entry_order(rt_render *r, const rt_dict *d, const rt_json_style *style,
                             sort_key **out)
{
    *out = NULL;
    if (!style->sort_keys)
        return TP_OK;
    TP_TRY(rt_tmpl_charge(r, d->n));
    TP_TRY(rt_tmpl_alloc(r, d->n * sizeof **out, out));
    for (size_t i = 0; i < d->n; i++) {
        if (d->items[i].key.kind != RT_STR)
            return rt_tmpl_error(r, "tojson(sort_keys=true) wants string keys");
        (*out)[i] = (sort_key){d->items[i].key.u.str, i};
    }
    qsort(*out, d->n, sizeof **out, by_text);
    return TP_OK;
}

static tp_status json_dict(rt_render *r, const rt_dict *d, const rt_json_style *style, int depth)
{
    sort_key *order;

    if (d->n == 0)
        return rt_out_puts(r, "{}");
    TP_TRY(entry_order(r, d, style, &order));
    TP_TRY(rt_out_puts(r, "{"));
    for (size_t i = 0; i < d->n; i++) {
        const rt_entry *e = &d->items[order != NULL ? order[i].at : i];

        if (i > 0)
            TP_TRY(rt_out_str(r, style->item_sep));
        TP_TRY(new_line(r, style, depth + 1));
        TP_TRY(json_key(r, e->key, style));
        TP_TRY(rt_out_str(r, style->key_sep));
        TP_TRY(rt_out_json(r, e->val, style, depth + 1));
    }
    TP_TRY(new_line(r, style, depth));
    return rt_out_puts(r, "}");
}

tp_status rt_out_json(rt_render *r, rt_val v, const rt_json_style *style, int depth)
{
    TP_TRY(rt_tmpl_charge(r, 1));
    if (depth > RT_VALUE_DEPTH_MAX)
        return rt_tmpl_error(r, "a value that nests deeper than %d is written as JSON",
                             RT_VALUE_DEPTH_MAX);
    switch (v.kind) {
    case RT_NONE: return rt_out_puts(r, "null");
    case RT_BOOL: return rt_out_puts(r, v.u.b ? "true" : "false");
    case RT_FLOAT: return json_number(r, v.u.f);
    case RT_INT:
    case RT_BIGINT: return rt_out_repr(r, v);
    case RT_STR: return json_string(r, v.u.str, style->ascii);
    case RT_LIST:
    case RT_TUPLE: return json_list(r, v.u.list, style, depth);
    case RT_DICT: return json_dict(r, v.u.dict, style, depth);
    case RT_UNDEFINED:
    case RT_MISSING:
    case RT_NAMESPACE:
    case RT_RANGE:
    case RT_LOOP:
    case RT_GENERATOR:
    case RT_VIEW:
    case RT_MACRO:
    case RT_METHOD:
    case RT_FUNCTION: break;
    }
    return rt_tmpl_error(r, "a value of type '%s' cannot be written as JSON", rt_val_type_name(v));
}
