/* SPDX-License-Identifier: Apache-2.0 */
/* filters_seq.c - filters over sequences.
 *
 * map, select and their kin return what Python calls a generator: it has no length and can be walked once.
 */
#include <string.h>

#include "runtime/template/filters.h"
#include "runtime/template/text_ops.h"

RT_FILTER(rt_filter_list)
{
    const rt_val *items;
    size_t n;

    (void)a;
    TP_TRY(rt_val_items(r, in, &items, &n));
    return rt_val_list(r, RT_LIST, items, n, out);
}

RT_FILTER(rt_filter_first)
{
    const rt_val *items;
    size_t n;

    (void)a;
    if (in.kind == RT_GENERATOR) { /* takes one item and leaves the rest */
        rt_list *g = in.u.list;

        *out = g->pos < g->n ? g->items[g->pos++] : rt_val_undefined();
        return TP_OK;
    }
    if (in.kind == RT_STR && in.u.str->n > 0) {
        uint32_t cp;

        return rt_str_slice(r, in.u.str, 0, rt_utf8_next(in.u.str->s, in.u.str->n, 0, &cp), out);
    }
    TP_TRY(rt_val_items(r, in, &items, &n));
    *out = n > 0 ? items[0] : rt_val_undefined();
    return TP_OK;
}

RT_FILTER(rt_filter_last)
{
    const rt_val *items;
    size_t n;

    (void)a;
    if (in.kind == RT_GENERATOR)
        return rt_tmpl_error(r, "last: a generator cannot be reversed");
    TP_TRY(rt_val_items(r, in, &items, &n));
    *out = n > 0 ? items[n - 1] : rt_val_undefined();
    return TP_OK;
}

RT_FILTER(rt_filter_reverse)
{
    const rt_val *items;
    rt_val *reversed;
    size_t n;

    (void)a;
    if (in.kind == RT_STR)
        return rt_tmpl_slice(r, in, (rt_val[3]){rt_val_none(), rt_val_none(), rt_val_int(-1)}, out);
    TP_TRY(rt_val_items(r, in, &items, &n));
    TP_TRY(rt_tmpl_array(r, n, &reversed));
    for (size_t i = 0; i < n; i++)
        reversed[i] = items[n - 1 - i];
    TP_TRY(rt_tmpl_charge(r, n >> 4));
    return rt_val_list(r, in.kind == RT_GENERATOR ? RT_LIST : RT_GENERATOR, reversed, n, out);
}

RT_FILTER(rt_filter_items)
{
    rt_attr items;
    rt_val view;

    (void)a;
    if (in.kind == RT_UNDEFINED)
        return rt_val_list(r, RT_GENERATOR, NULL, 0, out);
    if (in.kind != RT_DICT)
        return rt_tmpl_error(r, "items: only a mapping has pairs, not '%s'", rt_val_type_name(in));
    rt_tmpl_find_attr("items", 5, &items);
    TP_TRY(items.dict_fn->fn(r, in, NULL, &view));
    return rt_val_list(r, RT_GENERATOR, view.u.list->items, view.u.list->n, out);
}

RT_FILTER(rt_filter_batch)
{
    const rt_val *items;
    int64_t size;
    rt_val *rows;
    size_t n, n_rows, width;

    TP_TRY(rt_arg_int(r, a->v[0], 1, &size));
    TP_TRY(rt_val_items(r, in, &items, &n));
    if (size <= 0)
        return rt_tmpl_error(r, "batch: the size is at least 1");
    width = (uint64_t)size > RT_RANGE_MAX ? RT_RANGE_MAX : (size_t)size;
    n_rows = (n + width - 1) / width;
    TP_TRY(rt_tmpl_array(r, n_rows, &rows));
    for (size_t i = 0; i < n_rows; i++) {
        size_t have = n - i * width < width ? n - i * width : width;
        bool fill = have < width && a->v[1].kind != RT_MISSING && a->v[1].kind != RT_NONE;
        rt_val *row;

        TP_TRY(rt_tmpl_array(r, fill ? width : have, &row));
        for (size_t k = 0; k < (fill ? width : have); k++)
            row[k] = k < have ? items[i * width + k] : a->v[1];
        TP_TRY(rt_tmpl_charge(r, 1 + (width >> 4)));
        TP_TRY(rt_val_list(r, RT_LIST, row, fill ? width : have, &rows[i]));
    }
    return rt_val_list(r, RT_GENERATOR, rows, n_rows, out);
}

/* ---- attribute paths ---- */

static tp_status path_part(rt_render *r, rt_val obj, const rt_str *path, size_t begin, size_t end,
                           rt_val *out)
{
    int64_t index = 0;
    bool digits = end > begin && end - begin < 10;
    rt_val key;

    for (size_t i = begin; i < end && digits; i++) {
        digits = path->s[i] >= '0' && path->s[i] <= '9';
        index = index * 10 + (path->s[i] - '0');
    }
    if (digits)
        return rt_tmpl_item(r, obj, rt_val_int(index), out);
    TP_TRY(rt_str_slice(r, path, begin, end, &key));
    return rt_tmpl_item(r, obj, key, out);
}

tp_status rt_filter_path(rt_render *r, rt_val obj, rt_val path, rt_val dflt, rt_val *out)
{
    const rt_str *s = path.kind == RT_STR ? path.u.str : NULL;

    *out = obj;
    if (path.kind == RT_MISSING || path.kind == RT_NONE)
        return TP_OK;
    if (s == NULL) {
        TP_TRY(rt_tmpl_item(r, obj, path, out));
        if (out->kind == RT_UNDEFINED && dflt.kind != RT_MISSING)
            *out = dflt;
        return TP_OK;
    }
    for (size_t begin = 0;;) {
        size_t end = rt_str_find(s, begin, ".", 1);

        TP_TRY(path_part(r, *out, s, begin, end, out));
        if (out->kind == RT_UNDEFINED && dflt.kind != RT_MISSING)
            *out = dflt;
        if (end == s->n)
            return TP_OK;
        begin = end + 1;
    }
}

RT_FILTER(rt_filter_join)
{
    rt_str *sep = &(rt_str){.s = ""}, plain;
    const rt_val *items;
    rt_val *parts;
    size_t n;

    if (a->v[0].kind != RT_MISSING)
        TP_TRY(rt_val_to_str(r, a->v[0], &sep));
    plain = *sep; /* without autoescaping, join knows no Markup */
    plain.safe = false;
    TP_TRY(rt_val_items(r, in, &items, &n));
    if (a->v[1].kind != RT_MISSING && a->v[1].kind != RT_NONE) {
        TP_TRY(rt_tmpl_array(r, n, &parts));
        for (size_t i = 0; i < n; i++)
            TP_TRY(rt_filter_path(r, items[i], a->v[1], (rt_val){.kind = RT_MISSING}, &parts[i]));
        items = parts;
    }
    return rt_text_join(r, &plain, items, n, false, out);
}

/* ---- map, select ---- */

/* What is false (none, an empty list) has no items; anything else must be iterable. */
static tp_status items_if_true(rt_render *r, rt_val v, const rt_val **items, size_t *n)
{
    *items = NULL;
    *n = 0;
    return rt_val_truth(v) ? rt_val_items(r, v, items, n) : TP_OK;
}

static const rt_val *kwarg(const rt_args *a, const char *name)
{
    for (size_t i = 0; i < a->n_kw; i++)
        if (rt_str_is(a->kw[i].name, name))
            return &a->kw[i].val;
    return NULL;
}

RT_FILTER(rt_filter_map)
{
    const rt_val *attribute = kwarg(a, "attribute"), *dflt = kwarg(a, "default"), *items;
    const rt_builtin *fn = NULL;
    rt_args rest = *a;
    rt_val *mapped;
    rt_str *name;
    size_t n;

    TP_TRY(items_if_true(r, in, &items, &n));
    TP_TRY(rt_tmpl_array(r, n, &mapped));
    if (n > 0 && (a->n > 0 || attribute == NULL)) {
        if (a->n == 0)
            return rt_tmpl_error(r, "map requires a filter argument");
        TP_TRY(rt_arg_str(r, a->v[0], &name));
        fn = rt_tmpl_find_filter(name->s, name->n);
        if (fn == NULL)
            return rt_tmpl_error(r, "no filter named '%.*s'", rt_tmpl_quote_len(name), name->s);
        rest.v++;
        rest.n--;
    }
    for (size_t i = 0; i < n; i++) {
        if (fn != NULL)
            TP_TRY(rt_tmpl_call_builtin(r, fn, items[i], &rest, &mapped[i]));
        else
            TP_TRY(rt_filter_path(r, items[i], *attribute,
                                  dflt != NULL ? *dflt : (rt_val){.kind = RT_MISSING}, &mapped[i]));
        TP_TRY(rt_tmpl_charge(r, 1));
    }
    return rt_val_list(r, RT_GENERATOR, mapped, n, out);
}

static tp_status choose(rt_render *r, rt_val in, const rt_args *a, bool by_attr, bool wanted,
                        rt_val *out)
{
    const rt_builtin *test = NULL;
    const rt_val *items;
    rt_args rest = *a;
    rt_val *kept;
    rt_str *name;
    size_t n, n_kept = 0;

    TP_TRY(items_if_true(r, in, &items, &n));
    TP_TRY(rt_tmpl_array(r, n, &kept));
    if (by_attr) {
        if (a->n == 0)
            return rt_tmpl_error(r, "missing parameter for attribute name");
        rest.v++;
        rest.n--;
    }
    if (rest.n > 0) {
        TP_TRY(rt_arg_str(r, rest.v[0], &name));
        test = rt_tmpl_find_test(name->s, name->n);
        if (test == NULL && n > 0)
            return rt_tmpl_error(r, "no test named '%.*s'", rt_tmpl_quote_len(name), name->s);
        rest.v++;
        rest.n--;
    }
    for (size_t i = 0; i < n; i++) {
        rt_val v = items[i];

        TP_TRY(rt_tmpl_charge(r, 1));
        if (by_attr)
            TP_TRY(rt_filter_path(r, v, a->v[0], (rt_val){.kind = RT_MISSING}, &v));
        if (test != NULL)
            TP_TRY(rt_tmpl_call_builtin(r, test, v, &rest, &v));
        if (rt_val_truth(v) == wanted)
            kept[n_kept++] = items[i];
    }
    return rt_val_list(r, RT_GENERATOR, kept, n_kept, out);
}

RT_FILTER(rt_filter_select)
{
    return choose(r, in, a, false, true, out);
}
RT_FILTER(rt_filter_reject)
{
    return choose(r, in, a, false, false, out);
}
RT_FILTER(rt_filter_selectattr)
{
    return choose(r, in, a, true, true, out);
}
RT_FILTER(rt_filter_rejectattr)
{
    return choose(r, in, a, true, false, out);
}

RT_FILTER(rt_filter_sum)
{
    const rt_val *items;
    size_t n;

    *out = a->v[1].kind == RT_MISSING ? rt_val_int(0) : a->v[1];
    if (out->kind == RT_STR)
        return rt_tmpl_error(r, "sum: strings are joined with join");
    TP_TRY(rt_val_items(r, in, &items, &n));
    for (size_t i = 0; i < n; i++) {
        rt_val v;

        TP_TRY(rt_tmpl_charge(r, 1));
        TP_TRY(rt_filter_path(r, items[i], a->v[0], (rt_val){.kind = RT_MISSING}, &v));
        TP_TRY(rt_tmpl_binary(r, '+', *out, v, out));
    }
    return TP_OK;
}
