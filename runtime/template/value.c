/* SPDX-License-Identifier: Apache-2.0 */
/* value.c - truth, equality, order, length and membership, as Python defines them. */
#include <math.h>
#include <string.h>

#include "runtime/template/interp.h"

const char *rt_val_type_name(rt_val v)
{
    switch (v.kind) {
    case RT_MISSING: return "missing";
    case RT_UNDEFINED: return "Undefined";
    case RT_NONE: return "NoneType";
    case RT_BOOL: return "bool";
    case RT_INT: return "int";
    case RT_BIGINT: return "int";
    case RT_FLOAT: return "float";
    case RT_STR: return v.u.str->safe ? "Markup" : "str";
    case RT_LIST: return "list";
    case RT_TUPLE: return "tuple";
    case RT_DICT: return "dict";
    case RT_NAMESPACE: return "Namespace";
    case RT_RANGE: return "range";
    case RT_LOOP: return "LoopContext";
    case RT_GENERATOR: return v.u.list->name;
    case RT_VIEW: return v.u.list->name;
    case RT_MACRO: return "Macro";
    case RT_METHOD: return "builtin_function_or_method";
    case RT_FUNCTION: return "function";
    }
    return "?";
}

tp_status rt_val_view(rt_render *r, rt_kind kind, const char *name, const rt_val *items, size_t n,
                      rt_val *out)
{
    rt_list *l;

    TP_TRY(rt_tmpl_alloc(r, sizeof *l, &l));
    *l = (rt_list){.items = items, .n = n, .name = name};
    *out = (rt_val){.kind = kind, .u.list = l};
    return TP_OK;
}

tp_status rt_val_list(rt_render *r, rt_kind kind, const rt_val *items, size_t n, rt_val *out)
{
    return rt_val_view(r, kind, kind == RT_GENERATOR ? "generator" : NULL, items, n, out);
}

bool rt_val_truth(rt_val v)
{
    switch (v.kind) {
    case RT_MISSING:
    case RT_UNDEFINED:
    case RT_NONE: return false;
    case RT_BOOL: return v.u.b;
    case RT_INT: return v.u.i != 0;
    case RT_FLOAT: return v.u.f != 0.0;
    case RT_STR: return v.u.str->n > 0;
    case RT_LIST:
    case RT_TUPLE:
    case RT_VIEW: return v.u.list->n > 0;
    case RT_DICT: return v.u.dict->n > 0;
    case RT_RANGE: return v.u.range->n > 0;
    case RT_BIGINT:
    case RT_NAMESPACE:
    case RT_LOOP:
    case RT_GENERATOR:
    case RT_MACRO:
    case RT_METHOD:
    case RT_FUNCTION: return true;
    }
    return false;
}

static long double as_number(rt_val v)
{
    if (v.kind == RT_FLOAT)
        return (long double)v.u.f;
    return v.kind == RT_BOOL ? (long double)v.u.b : (long double)v.u.i;
}

static rt_val list_at(rt_val v, size_t i)
{
    if (v.kind == RT_RANGE)
        return rt_val_int(v.u.range->start + (int64_t)i * v.u.range->step);
    return v.u.list->items[i];
}

static size_t list_len(rt_val v)
{
    return v.kind == RT_RANGE ? v.u.range->n : v.u.list->n;
}

static tp_status equal_deep(rt_render *r, rt_val a, rt_val b, int depth, bool *out);

static tp_status equal_items(rt_render *r, rt_val a, rt_val b, int depth, bool *out)
{
    bool same = list_len(a) == list_len(b);

    for (size_t i = 0; same && i < list_len(a); i++)
        TP_TRY(equal_deep(r, list_at(a, i), list_at(b, i), depth, &same));
    *out = same;
    return TP_OK;
}

static tp_status equal_dicts(rt_render *r, const rt_dict *a, const rt_dict *b, int depth, bool *out)
{
    bool same = a->n == b->n;

    for (size_t i = 0; same && i < a->n; i++) {
        const rt_val *other;

        TP_TRY(rt_dict_find(r, b, a->items[i].key, &other));
        same = other != NULL;
        if (same)
            TP_TRY(equal_deep(r, a->items[i].val, *other, depth, &same));
    }
    *out = same;
    return TP_OK;
}

static tp_status equal_deep(rt_render *r, rt_val a, rt_val b, int depth, bool *out)
{
    TP_TRY(rt_tmpl_charge(r, 1));
    if (depth > RT_VALUE_DEPTH_MAX)
        return rt_tmpl_error(r, "values that nest deeper than %d are compared", RT_VALUE_DEPTH_MAX);
    if (rt_val_is_number(a) && rt_val_is_number(b)) {
        if (a.kind == RT_BIGINT || b.kind == RT_BIGINT)
            *out = a.kind == b.kind && rt_str_same(a.u.str, b.u.str);
        else
            *out = as_number(a) == as_number(b);
        return TP_OK;
    }
    if (a.kind != b.kind) {
        *out = false;
        return TP_OK;
    }
    switch (a.kind) {
    case RT_STR:
        TP_TRY(rt_tmpl_charge(r, a.u.str->n >> 12));
        *out = rt_str_same(a.u.str, b.u.str);
        return TP_OK;
    case RT_LIST:
    case RT_TUPLE:
    case RT_RANGE: return equal_items(r, a, b, depth + 1, out);
    case RT_DICT: return equal_dicts(r, a.u.dict, b.u.dict, depth + 1, out);
    case RT_METHOD:
        *out = a.u.method->fn == b.u.method->fn && a.u.method->self.u.str == b.u.method->self.u.str;
        return TP_OK;
    case RT_MISSING:
    case RT_UNDEFINED:
    case RT_NONE: *out = true; return TP_OK;
    case RT_VIEW: /* only views of the same dict can be equal here, as far as templates go */
    case RT_NAMESPACE:
    case RT_LOOP:
    case RT_GENERATOR:
    case RT_MACRO: *out = a.u.list == b.u.list; return TP_OK;
    case RT_FUNCTION: *out = a.u.fn == b.u.fn; return TP_OK;
    case RT_BOOL:
    case RT_INT:
    case RT_BIGINT:
    case RT_FLOAT: break; /* handled above */
    }
    *out = false;
    return TP_OK;
}

tp_status rt_val_equal(rt_render *r, rt_val a, rt_val b, bool *out)
{
    return equal_deep(r, a, b, 0, out);
}

static int compare_bytes(const rt_str *a, const rt_str *b)
{
    size_t n = a->n < b->n ? a->n : b->n;
    int c = n > 0 ? memcmp(a->s, b->s, n) : 0; /* UTF-8 sorts as its code points */

    return c != 0 ? (c > 0) - (c < 0) : (a->n > b->n) - (a->n < b->n);
}

static tp_status compare_deep(rt_render *r, rt_val a, rt_val b, int depth, int *out)
{
    TP_TRY(rt_tmpl_charge(r, 1));
    if (rt_val_is_number(a) && rt_val_is_number(b)) {
        long double x, y;

        if (a.kind == RT_BIGINT || b.kind == RT_BIGINT)
            return rt_tmpl_error(r, "integers beyond 64 bits can be printed, not compared");
        x = as_number(a);
        y = as_number(b);
        *out = isnan(x) || isnan(y) ? 2 : (x > y) - (x < y); /* 2: unordered, no comparison holds */
        return TP_OK;
    }
    if (a.kind == RT_STR && b.kind == RT_STR) {
        *out = compare_bytes(a.u.str, b.u.str);
        return rt_tmpl_charge(r, a.u.str->n >> 12);
    }
    if (a.kind == b.kind && (a.kind == RT_LIST || a.kind == RT_TUPLE) &&
        depth < RT_VALUE_DEPTH_MAX) {
        const rt_list *x = a.u.list, *y = b.u.list;

        for (size_t i = 0; i < x->n && i < y->n; i++) {
            bool same;

            TP_TRY(equal_deep(r, x->items[i], y->items[i], depth + 1, &same));
            if (!same)
                return compare_deep(r, x->items[i], y->items[i], depth + 1, out);
        }
        *out = (x->n > y->n) - (x->n < y->n);
        return TP_OK;
    }
    if (a.kind == RT_UNDEFINED || b.kind == RT_UNDEFINED)
        return rt_tmpl_undefined_error(r, a.kind == RT_UNDEFINED ? a : b);
    return rt_tmpl_error(r, "'%s' and '%s' cannot be ordered", rt_val_type_name(a),
                         rt_val_type_name(b));
}

tp_status rt_val_compare(rt_render *r, rt_val a, rt_val b, int *out)
{
    return compare_deep(r, a, b, 0, out);
}

tp_status rt_val_length(rt_render *r, rt_val v, size_t *out)
{
    switch (v.kind) {
    case RT_UNDEFINED:
        if (v.u.undef != NULL && v.u.undef->unsafe)
            return rt_tmpl_undefined_error(r, v);
        *out = 0;
        return TP_OK;
    case RT_STR: *out = rt_str_chars(v.u.str); return rt_tmpl_charge(r, v.u.str->n >> 12);
    case RT_LIST:
    case RT_TUPLE:
    case RT_VIEW: *out = v.u.list->n; return TP_OK;
    case RT_DICT: *out = v.u.dict->n; return TP_OK;
    case RT_RANGE: *out = v.u.range->n; return TP_OK;
    case RT_LOOP: *out = v.u.loop->n; return TP_OK;
    case RT_MISSING:
    case RT_NONE:
    case RT_BOOL:
    case RT_INT:
    case RT_BIGINT:
    case RT_FLOAT:
    case RT_NAMESPACE:
    case RT_GENERATOR:
    case RT_MACRO:
    case RT_METHOD:
    case RT_FUNCTION: break;
    }
    return rt_tmpl_error(r, "a value of type '%s' has no length", rt_val_type_name(v));
}

bool rt_val_iterable(rt_val v)
{
    switch (v.kind) {
    case RT_UNDEFINED:
    case RT_STR:
    case RT_LIST:
    case RT_TUPLE:
    case RT_DICT:
    case RT_RANGE:
    case RT_GENERATOR:
    case RT_VIEW:
    case RT_LOOP: return true;
    case RT_MISSING:
    case RT_NONE:
    case RT_BOOL:
    case RT_INT:
    case RT_BIGINT:
    case RT_FLOAT:
    case RT_NAMESPACE:
    case RT_MACRO:
    case RT_METHOD:
    case RT_FUNCTION: break;
    }
    return false;
}

static tp_status string_items(rt_render *r, rt_str *s, const rt_val **items, size_t *n)
{
    size_t count = rt_str_chars(s), at = 0;
    rt_val *v;

    TP_TRY(rt_tmpl_charge(r, count >> 3));
    TP_TRY(rt_tmpl_array(r, count, &v));
    for (size_t i = 0; i < count; i++) {
        uint32_t cp;
        size_t next = rt_utf8_next(s->s, s->n, at, &cp);

        TP_TRY(rt_str_slice(r, s, at, next, &v[i]));
        v[i].u.str->safe = false;
        at = next;
    }
    *items = v;
    *n = count;
    return TP_OK;
}

tp_status rt_val_items(rt_render *r, rt_val v, const rt_val **items, size_t *n)
{
    rt_val *a;

    switch (v.kind) {
    case RT_UNDEFINED:
        if (v.u.undef != NULL && v.u.undef->unsafe)
            return rt_tmpl_undefined_error(r, v);
        *items = NULL;
        *n = 0;
        return TP_OK;
    case RT_STR: return string_items(r, v.u.str, items, n);
    case RT_LIST:
    case RT_TUPLE:
    case RT_VIEW:
        *items = v.u.list->items;
        *n = v.u.list->n;
        return TP_OK;
    case RT_GENERATOR:
        *n = v.u.list->n - v.u.list->pos;
        *items = *n > 0 ? v.u.list->items + v.u.list->pos : NULL;
        v.u.list->pos = v.u.list->n;
        return TP_OK;
    case RT_DICT:
        TP_TRY(rt_tmpl_array(r, v.u.dict->n, &a));
        for (size_t i = 0; i < v.u.dict->n; i++)
            a[i] = v.u.dict->items[i].key;
        *items = a;
        *n = v.u.dict->n;
        return rt_tmpl_charge(r, v.u.dict->n >> 4);
    case RT_RANGE:
        TP_TRY(rt_tmpl_array(r, v.u.range->n, &a));
        for (size_t i = 0; i < v.u.range->n; i++)
            a[i] = list_at(v, i);
        *items = a;
        *n = v.u.range->n;
        return rt_tmpl_charge(r, v.u.range->n >> 4);
    case RT_MISSING:
    case RT_NONE:
    case RT_BOOL:
    case RT_INT:
    case RT_BIGINT:
    case RT_FLOAT:
    case RT_NAMESPACE:
    case RT_LOOP:
    case RT_MACRO:
    case RT_METHOD:
    case RT_FUNCTION: break;
    }
    return rt_tmpl_error(r, "a value of type '%s' cannot be iterated over", rt_val_type_name(v));
}

tp_status rt_val_contains(rt_render *r, rt_val box, rt_val item, bool *out)
{
    const rt_val *items, *found;
    size_t n;

    if (box.kind == RT_STR) {
        if (item.kind != RT_STR)
            return rt_tmpl_error(
                r, "'in' with a string on its right wants a string on its left, not '%s'",
                rt_val_type_name(item));
        *out = item.u.str->n == 0 ||
               rt_str_find(box.u.str, 0, item.u.str->s, item.u.str->n) < box.u.str->n;
        return rt_tmpl_charge(r, box.u.str->n >> 10);
    }
    if (box.kind == RT_DICT) {
        TP_TRY(rt_dict_find(r, box.u.dict, item, &found));
        *out = found != NULL;
        return TP_OK;
    }
    *out = false;
    TP_TRY(rt_val_items(r, box, &items, &n));
    for (size_t i = 0; i < n && !*out; i++)
        TP_TRY(rt_val_equal(r, items[i], item, out));
    return TP_OK;
}
