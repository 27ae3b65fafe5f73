/* SPDX-License-Identifier: Apache-2.0 */
/* functions.c - range, namespace, dict, raise_exception, strftime_now. */
#include "runtime/template/text_ops.h"

#define FUNCTION(name)                                                                             \
    static tp_status name(rt_render *r, rt_val self, const rt_args *a, rt_val *out)

FUNCTION(g_range)
{
    int64_t bounds[3] = {0, 0, 1}, n;
    rt_range *range;

    (void)self;
    if (a->n == 0 || a->n > 3 || a->n_kw > 0)
        return rt_tmpl_error(r, "range() takes 1 to 3 integers");
    for (size_t i = 0; i < a->n; i++)
        TP_TRY(rt_arg_int(r, a->v[i], 0, &bounds[a->n == 1 ? 1 : i]));
    if (bounds[2] == 0)
        return rt_tmpl_error(r, "range() arg 3 must not be zero");
    if (__builtin_sub_overflow(bounds[1], bounds[0], &n) || n == INT64_MIN)
        return rt_tmpl_error(r, "range() beyond 64 bits");
    if ((n > 0) != (bounds[2] > 0) || n == 0) {
        n = 0;
    } else {
        int64_t step = bounds[2];

        n = n / step + (n % step != 0);
    }
    if (n > RT_RANGE_MAX)
        return rt_tmpl_error(r, "range too big: at most %d items", RT_RANGE_MAX);
    TP_TRY(rt_tmpl_alloc(r, sizeof *range, &range));
    *range = (rt_range){bounds[0], bounds[2], (size_t)n, bounds[1]};
    *out = (rt_val){.kind = RT_RANGE, .u.range = range};
    return TP_OK;
}

/* Entries of a mapping or of a sequence of pairs, then the named arguments. */
static tp_status fill_dict(rt_render *r, const rt_args *a, rt_dict *d)
{
    const rt_val *items, *pair;
    size_t n, n_pair;

    if (a->n > 1)
        return rt_tmpl_error(r, "at most one positional argument is expected");
    if (a->n == 1 && a->v[0].kind == RT_DICT) {
        for (size_t i = 0; i < a->v[0].u.dict->n; i++)
            TP_TRY(rt_dict_put(r, d, a->v[0].u.dict->items[i].key, a->v[0].u.dict->items[i].val));
    } else if (a->n == 1) {
        TP_TRY(rt_val_items(r, a->v[0], &items, &n));
        for (size_t i = 0; i < n; i++) {
            TP_TRY(rt_val_items(r, items[i], &pair, &n_pair));
            if (n_pair != 2)
                return rt_tmpl_error(r, "a sequence of pairs is expected");
            TP_TRY(rt_dict_put(r, d, pair[0], pair[1]));
        }
    }
    for (size_t i = 0; i < a->n_kw; i++) {
        rt_val key;

        TP_TRY(rt_str_slice(r, a->kw[i].name, 0, a->kw[i].name->n, &key));
        TP_TRY(rt_dict_put(r, d, key, a->kw[i].val));
    }
    return TP_OK;
}

FUNCTION(g_dict)
{
    rt_dict *d = rt_dict_make(r, a->n_kw);

    (void)self;
    if (d == NULL)
        return rt_tmpl_no_memory(r, sizeof *d);
    TP_TRY(fill_dict(r, a, d));
    *out = (rt_val){.kind = RT_DICT, .u.dict = d};
    return TP_OK;
}

FUNCTION(g_namespace)
{
    TP_TRY(g_dict(r, self, a, out));
    for (size_t i = 0; i < out->u.dict->n; i++) {
        rt_val key = out->u.dict->items[i].key;

        if (key.kind == RT_STR && key.u.str->n > 0 && key.u.str->s[0] == '_')
            return rt_tmpl_error(r, "namespace attributes must not begin with an underscore");
    }
    out->kind = RT_NAMESPACE;
    return TP_OK;
}

FUNCTION(g_raise_exception)
{
    rt_str *s;

    (void)self;
    (void)out;
    TP_TRY(rt_val_to_str(r, a->v[0], &s));
    if (s->n == 0)
        return TP_REJECT(TP_ERR_INVALID, "the template raised an exception without a message");
    return TP_REJECT(TP_ERR_INVALID, "%.*s", s->n < 4096 ? (int)s->n : 4096, s->s);
}

FUNCTION(g_strftime_now)
{
    rt_str *format;

    (void)self;
    TP_TRY(rt_arg_str(r, a->v[0], &format));
    return rt_tmpl_strftime(r, format, out);
}

static const rt_builtin functions[] = {
    {"dict", NULL, 0, g_dict},
    {"namespace", NULL, 0, g_namespace},
    {"raise_exception", "message", 1, g_raise_exception},
    {"range", NULL, 0, g_range},
    {"strftime_now", "format", 1, g_strftime_now},
};

const rt_builtin *rt_tmpl_find_global(const char *name, size_t n)
{
    return rt_tmpl_find(functions, TP_ARRAY_LEN(functions), name, n);
}
