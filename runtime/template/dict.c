/* SPDX-License-Identifier: Apache-2.0 */
/* dict.c - dictionaries in insertion order.
 *
 * Up to SMALL entries are searched one by one; beyond that an open-addressing index of entry numbers is kept.
 * Keys come from clients, so long probe sequences are charged to the render's budget.
 */
#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "runtime/template/interp.h"

#define SMALL ((size_t)12)

static tp_status hash_value(rt_render *r, rt_val v, int depth, uint64_t *out)
{
    int64_t i;

    if (rt_val_as_int(v, &i) || (v.kind == RT_FLOAT && v.u.f == floor(v.u.f) &&
                                 fabs(v.u.f) < 9e18 && ((i = (int64_t)v.u.f), true))) {
        *out = tp_hash_fnv(&i, sizeof i) | 1; /* 1, 1.0 and True are the same key */
    } else if (v.kind == RT_STR || v.kind == RT_BIGINT) {
        *out = rt_str_hash(v.u.str);
    } else if (v.kind == RT_FLOAT) {
        *out = tp_hash_fnv(&v.u.f, sizeof v.u.f) | 1;
    } else if (v.kind == RT_TUPLE && depth < 8) {
        uint64_t h = 3;

        for (size_t k = 0; k < v.u.list->n; k++) {
            uint64_t item;

            TP_TRY(hash_value(r, v.u.list->items[k], depth + 1, &item));
            h = (h ^ item) * UINT64_C(0x100000001b3);
        }
        *out = h | 1;
    } else if (v.kind == RT_LIST || v.kind == RT_DICT || v.kind == RT_TUPLE) {
        return rt_tmpl_error(r, "a value of type '%s' cannot be a dictionary key",
                             rt_val_type_name(v));
    } else {
        *out = (uint64_t)v.kind * 2 + 1;
    }
    return TP_OK;
}

rt_dict *rt_dict_make(rt_render *r, size_t expected)
{
    rt_dict *d;

    if (rt_tmpl_alloc(r, sizeof *d, &d) != TP_OK)
        return NULL;
    *d = (rt_dict){.cap = expected};
    if (expected > 0 && rt_tmpl_alloc(r, expected * sizeof *d->items, &d->items) != TP_OK)
        return NULL;
    return d;
}

/* Entry of a key, or d->n. */
static tp_status locate(rt_render *r, const rt_dict *d, rt_val key, uint64_t hash, size_t *at)
{
    bool same = false;

    if (d->index == NULL) {
        for (size_t i = 0; i < d->n; i++) {
            if (d->items[i].hash != hash)
                continue;
            TP_TRY(rt_val_equal(r, d->items[i].key, key, &same));
            if (same) {
                *at = i;
                return TP_OK;
            }
        }
        *at = d->n;
        return TP_OK;
    }
    for (size_t slot = hash * UINT64_C(0x9E3779B97F4A7C15) >> 20;; slot++) {
        uint32_t e = d->index[slot & (d->n_index - 1)];

        if (e == 0) {
            *at = d->n;
            return TP_OK;
        }
        if (d->items[e - 1].hash == hash) {
            TP_TRY(rt_val_equal(r, d->items[e - 1].key, key, &same));
            if (same) {
                *at = e - 1;
                return TP_OK;
            }
        }
        TP_TRY(rt_tmpl_charge(r, 1));
    }
}

static void index_entry(rt_dict *d, size_t entry)
{
    size_t slot = d->items[entry].hash * UINT64_C(0x9E3779B97F4A7C15) >> 20;

    while (d->index[slot & (d->n_index - 1)] != 0)
        slot++;
    d->index[slot & (d->n_index - 1)] = (uint32_t)entry + 1;
}

static tp_status grow(rt_render *r, rt_dict *d)
{
    size_t cap = d->cap < 4 ? 8 : 2 * d->cap;
    rt_entry *items;

    TP_TRY(rt_tmpl_alloc(r, cap * sizeof *items, &items));
    if (d->n > 0)
        memcpy(items, d->items, d->n * sizeof *items);
    d->items = items;
    d->cap = cap;
    return TP_OK;
}

static tp_status reindex(rt_render *r, rt_dict *d)
{
    size_t n_index = d->n_index == 0 ? 4 * SMALL : d->n_index;

    while ((n_index & (n_index - 1)) != 0)
        n_index &= n_index - 1;
    while (n_index < 4 * d->n)
        n_index *= 2;
    TP_TRY(rt_tmpl_alloc(r, n_index * sizeof *d->index, &d->index));
    memset(d->index, 0, n_index * sizeof *d->index);
    d->n_index = n_index;
    for (size_t i = 0; i < d->n; i++)
        index_entry(d, i);
    return TP_OK;
}

tp_status rt_dict_put(rt_render *r, rt_dict *d, rt_val key, rt_val val)
{
    uint64_t hash;
    size_t at;

    TP_TRY(hash_value(r, key, 0, &hash));
    TP_TRY(locate(r, d, key, hash, &at));
    if (at < d->n) {
        d->items[at].val = val;
        return TP_OK;
    }
    if (d->n == d->cap)
        TP_TRY(grow(r, d));
    d->items[d->n++] = (rt_entry){key, val, hash};
    if (d->n > SMALL && 2 * d->n > d->n_index)
        return reindex(r, d);
    if (d->index != NULL)
        index_entry(d, d->n - 1);
    return TP_OK;
}

tp_status rt_dict_put_str(rt_render *r, rt_dict *d, const char *key, rt_val val)
{
    rt_val k;

    TP_TRY(rt_str_lit(r, key, &k));
    return rt_dict_put(r, d, k, val);
}

tp_status rt_dict_find(rt_render *r, const rt_dict *d, rt_val key, const rt_val **out)
{
    uint64_t hash;
    size_t at;

    TP_TRY(hash_value(r, key, 0, &hash));
    TP_TRY(locate(r, d, key, hash, &at));
    *out = at < d->n ? &d->items[at].val : NULL;
    return TP_OK;
}

const rt_val *rt_dict_get_cstr(const rt_dict *d, const char *key)
{
    for (size_t i = 0; i < d->n; i++)
        if (d->items[i].key.kind == RT_STR && rt_str_is(d->items[i].key.u.str, key))
            return &d->items[i].val;
    return NULL;
}
