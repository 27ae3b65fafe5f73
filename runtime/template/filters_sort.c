/* SPDX-License-Identifier: Apache-2.0 */
/* filters_sort.c - sort, dictsort, unique, min, max: stable, and blind to case unless told otherwise.
 *
 * Comparing can fail (a string against a number), which qsort cannot express: a merge sort stops at once.
 */
#include <string.h>

#include "runtime/template/filters.h"
#include "runtime/template/text_ops.h"

typedef struct keyed {
    rt_val key, val;
} keyed;

static tp_status merge_sort(rt_render *r, keyed *items, keyed *spare, size_t n, bool reverse)
{
    size_t half = n / 2, i = 0, k = half, at = 0;

    if (n < 2)
        return TP_OK;
    TP_TRY(merge_sort(r, items, spare, half, reverse));
    TP_TRY(merge_sort(r, items + half, spare, n - half, reverse));
    while (i < half && k < n) {
        int order;

        TP_TRY(rt_val_compare(r, items[k].key, items[i].key, &order));
        if (order == 2)
            order = 0;
        spare[at++] = (reverse ? order > 0 : order < 0) ? items[k++] : items[i++];
    }
    while (i < half)
        spare[at++] = items[i++];
    memcpy(items, spare, at * sizeof *items);
    return TP_OK;
}

static tp_status fold_case(rt_render *r, rt_val v, bool case_sensitive, rt_val *out)
{
    *out = v;
    return v.kind == RT_STR && !case_sensitive ? rt_text_case(r, v.u.str, RT_CASE_LOWER, out)
                                               : TP_OK;
}

/* "a,b.c" sorts by several attributes: the key is the list of them. */
static tp_status sort_key(rt_render *r, rt_val item, rt_val attribute, bool case_sensitive,
                          rt_val *out)
{
    const rt_val none = {.kind = RT_MISSING};
    rt_val parts, *keys;

    if (attribute.kind != RT_STR || memchr(attribute.u.str->s, ',', attribute.u.str->n) == NULL) {
        TP_TRY(rt_filter_path(r, item, attribute, none, out));
        return fold_case(r, *out, case_sensitive, out);
    }
    TP_TRY(rt_str_lit(r, ",", &parts));
    TP_TRY(rt_text_split(r, attribute.u.str, parts, -1, false, &parts));
    TP_TRY(rt_tmpl_array(r, parts.u.list->n, &keys));
    for (size_t i = 0; i < parts.u.list->n; i++) {
        TP_TRY(rt_filter_path(r, item, parts.u.list->items[i], none, &keys[i]));
        TP_TRY(fold_case(r, keys[i], case_sensitive, &keys[i]));
    }
    return rt_val_list(r, RT_LIST, keys, parts.u.list->n, out);
}

static tp_status sorted(rt_render *r, keyed *items, size_t n, bool reverse, rt_val *out)
{
    keyed *spare;
    rt_val *vals;

    TP_TRY(rt_tmpl_alloc(r, n * sizeof *spare, &spare));
    TP_TRY(rt_tmpl_array(r, n, &vals));
    TP_TRY(merge_sort(r, items, spare, n, reverse));
    for (size_t i = 0; i < n; i++)
        vals[i] = items[i].val;
    return rt_val_list(r, RT_LIST, vals, n, out);
}

RT_FILTER(rt_filter_sort)
{
    const rt_val *items;
    keyed *k;
    size_t n;

    TP_TRY(rt_val_items(r, in, &items, &n));
    TP_TRY(rt_tmpl_alloc(r, n * sizeof *k, &k));
    for (size_t i = 0; i < n; i++) {
        k[i].val = items[i];
        TP_TRY(sort_key(r, items[i], a->v[2], rt_val_truth(a->v[1]), &k[i].key));
    }
    return sorted(r, k, n, rt_val_truth(a->v[0]), out);
}

RT_FILTER(rt_filter_dictsort)
{
    size_t by = 0, n;
    const rt_dict *d;
    keyed *k;

    if (in.kind == RT_UNDEFINED)
        return rt_tmpl_undefined_error(r, in);
    if (in.kind != RT_DICT)
        return rt_tmpl_error(r, "dictsort: a dictionary is expected, not '%s'",
                             rt_val_type_name(in));
    if (a->v[1].kind == RT_STR && rt_str_is(a->v[1].u.str, "value"))
        by = 1;
    else if (a->v[1].kind != RT_MISSING &&
             !(a->v[1].kind == RT_STR && rt_str_is(a->v[1].u.str, "key")))
        return rt_tmpl_error(r, "dictsort sorts by \"key\" or \"value\"");
    d = in.u.dict;
    n = d->n;
    TP_TRY(rt_tmpl_alloc(r, n * sizeof *k, &k));
    for (size_t i = 0; i < n; i++) {
        rt_val *pair;

        TP_TRY(rt_tmpl_array(r, 2, &pair));
        pair[0] = d->items[i].key;
        pair[1] = d->items[i].val;
        TP_TRY(rt_val_list(r, RT_TUPLE, pair, 2, &k[i].val));
        TP_TRY(fold_case(r, pair[by], rt_val_truth(a->v[0]), &k[i].key));
    }
    return sorted(r, k, n, rt_val_truth(a->v[2]), out);
}

RT_FILTER(rt_filter_unique)
{
    rt_dict *seen = rt_dict_make(r, 8);
    const rt_val *items, *known;
    rt_val *kept;
    size_t n, n_kept = 0;

    if (seen == NULL)
        return rt_tmpl_no_memory(r, sizeof *seen);
    TP_TRY(rt_val_items(r, in, &items, &n));
    TP_TRY(rt_tmpl_array(r, n, &kept));
    for (size_t i = 0; i < n; i++) {
        rt_val key;

        TP_TRY(rt_tmpl_charge(r, 1));
        TP_TRY(rt_filter_path(r, items[i], a->v[1], (rt_val){.kind = RT_MISSING}, &key));
        TP_TRY(fold_case(r, key, rt_val_truth(a->v[0]), &key));
        TP_TRY(rt_dict_find(r, seen, key, &known));
        if (known != NULL)
            continue;
        TP_TRY(rt_dict_put(r, seen, key, rt_val_none()));
        kept[n_kept++] = items[i];
    }
    return rt_val_list(r, RT_GENERATOR, kept, n_kept, out);
}

static tp_status extreme(rt_render *r, rt_val in, const rt_args *a, int wanted, rt_val *out)
{
    const rt_val *items;
    rt_val best = rt_val_undefined(), key;
    size_t n;
    int order;

    TP_TRY(rt_val_items(r, in, &items, &n));
    *out = rt_val_undefined();
    for (size_t i = 0; i < n; i++) {
        TP_TRY(rt_tmpl_charge(r, 1));
        TP_TRY(rt_filter_path(r, items[i], a->v[1], (rt_val){.kind = RT_MISSING}, &key));
        TP_TRY(fold_case(r, key, rt_val_truth(a->v[0]), &key));
        order = wanted;
        if (i > 0)
            TP_TRY(rt_val_compare(r, key, best, &order));
        if (order == 2 || (order > 0) - (order < 0) != wanted)
            continue;
        best = key;
        *out = items[i];
    }
    return TP_OK;
}

RT_FILTER(rt_filter_min)
{
    return extreme(r, in, a, -1, out);
}
RT_FILTER(rt_filter_max)
{
    return extreme(r, in, a, 1, out);
}
