/* SPDX-License-Identifier: Apache-2.0 */
/* attributes.c - what a.b, a[b] and a[b:c:d] mean, under the rules of Jinja's immutable sandbox.
 *
 * a.b is the attribute b of the Python object, else its item; a['b'] is the item, else the attribute.  Names
 * with two leading underscores, and methods that would change a list or dict, are hidden: they read as an
 * undefined value whose use is a security error.
 */
#include <string.h>

#include "runtime/template/interp.h"

tp_status rt_tmpl_make_undefined(rt_render *r, const rt_str *name, const char *owner, bool unsafe,
                                 rt_val *out)
{
    rt_undef *u;

    TP_TRY(rt_tmpl_alloc(r, sizeof *u, &u));
    *u = (rt_undef){.name = name, .owner = owner, .unsafe = unsafe};
    *out = (rt_val){.kind = RT_UNDEFINED, .u.undef = u};
    return TP_OK;
}

static tp_status missing(rt_render *r, rt_val obj, const rt_str *name, rt_val *out)
{
    return rt_tmpl_make_undefined(r, name, rt_val_type_name(obj), false, out);
}

rt_val rt_loop_at(const rt_loop *l, size_t i)
{
    if (l->items == NULL)
        return rt_val_int(l->iterable.u.range->start + (int64_t)i * l->iterable.u.range->step);
    return l->items[i];
}

extern const rt_builtin rt_loop_cycle, rt_loop_changed;

static tp_status bind_method(rt_render *r, rt_val obj, const rt_builtin *fn, rt_val *out)
{
    rt_method *m;

    TP_TRY(rt_tmpl_alloc(r, sizeof *m, &m));
    *m = (rt_method){obj, fn};
    *out = (rt_val){.kind = RT_METHOD, .u.method = m};
    return TP_OK;
}

static tp_status loop_field(rt_render *r, rt_val v, int field, rt_val *out)
{
    const rt_loop *l = v.u.loop;
    int64_t pos = (int64_t)l->pos, n = (int64_t)l->n;

    switch (field) {
    case RT_LOOP_INDEX: *out = rt_val_int(pos + 1); return TP_OK;
    case RT_LOOP_INDEX0: *out = rt_val_int(pos); return TP_OK;
    case RT_LOOP_REVINDEX: *out = rt_val_int(n - pos); return TP_OK;
    case RT_LOOP_REVINDEX0: *out = rt_val_int(n - pos - 1); return TP_OK;
    case RT_LOOP_FIRST: *out = rt_val_bool(pos == 0); return TP_OK;
    case RT_LOOP_LAST: *out = rt_val_bool(pos == n - 1); return TP_OK;
    case RT_LOOP_LENGTH: *out = rt_val_int(n); return TP_OK;
    case RT_LOOP_DEPTH: *out = rt_val_int(l->depth); return TP_OK;
    case RT_LOOP_DEPTH0: *out = rt_val_int(l->depth - 1); return TP_OK;
    case RT_LOOP_PREVITEM:
        *out = pos > 0 ? rt_loop_at(l, l->pos - 1) : rt_val_undefined();
        return TP_OK;
    case RT_LOOP_NEXTITEM:
        *out = pos + 1 < n ? rt_loop_at(l, l->pos + 1) : rt_val_undefined();
        return TP_OK;
    case RT_LOOP_CYCLE: return bind_method(r, v, &rt_loop_cycle, out);
    case RT_LOOP_CHANGED: return bind_method(r, v, &rt_loop_changed, out);
    default: *out = rt_val_undefined(); return TP_OK;
    }
}

/* A Python attribute of the object.  *found = false: there is none, look for an item. */
static tp_status python_attr(rt_render *r, rt_val obj, const rt_attr *attr, rt_str *name,
                             rt_val *out, bool *found)
{
    const rt_builtin *fn = NULL;
    bool has = false, mutates = false;
    const rt_val *v;

    *found = true;
    switch (obj.kind) {
    case RT_STR:
        fn = attr->str_fn;
        has = attr->str_has;
        break;
    case RT_DICT:
        fn = attr->dict_fn;
        has = attr->dict_has;
        mutates = has && fn == NULL;
        break;
    case RT_LIST:
        fn = attr->list_fn;
        has = attr->list_has;
        mutates = has && fn == NULL;
        break;
    case RT_NAMESPACE:
        TP_TRY(rt_dict_find(r, obj.u.dict, rt_val_str(name), &v));
        if (v != NULL) {
            *out = *v;
            return TP_OK;
        }
        break;
    case RT_LOOP:
        if (attr->loop_field != 0)
            return loop_field(r, obj, attr->loop_field, out);
        break;
    case RT_TUPLE:
    case RT_RANGE:
        fn = attr->list_fn != NULL && (rt_str_is(name, "count") || rt_str_is(name, "index"))
                 ? attr->list_fn
                 : NULL;
        break;
    case RT_MACRO:
        if (rt_str_is(name, "name")) {
            *out = rt_val_str(obj.u.macro->node->name);
            return TP_OK;
        }
        break;
    case RT_MISSING:
    case RT_UNDEFINED:
    case RT_NONE:
    case RT_BOOL:
    case RT_INT:
    case RT_BIGINT:
    case RT_FLOAT:
    case RT_GENERATOR:
    case RT_VIEW:
    case RT_METHOD:
    case RT_FUNCTION: break;
    }
    if (fn != NULL)
        return bind_method(r, obj, fn, out);
    if (attr->private_name || mutates)
        return rt_tmpl_make_undefined(r, name, rt_val_type_name(obj), true, out);
    if (has)
        return rt_tmpl_error(r, "the method '%.*s' of '%s' is not supported in chat templates",
                             rt_tmpl_quote_len(name), name->s, rt_val_type_name(obj));
    *found = false;
    return TP_OK;
}

tp_status rt_tmpl_attr(rt_render *r, rt_val obj, const rt_attr *attr, rt_str *name, rt_val *out)
{
    const rt_val *v;
    bool found;

    if (obj.kind == RT_UNDEFINED)
        return rt_tmpl_undefined_error(r, obj);
    TP_TRY(python_attr(r, obj, attr, name, out, &found));
    if (found)
        return TP_OK;
    if (obj.kind == RT_DICT) {
        TP_TRY(rt_dict_find(r, obj.u.dict, rt_val_str(name), &v));
        if (v != NULL) {
            *out = *v;
            return TP_OK;
        }
    }
    return missing(r, obj, name, out);
}

static tp_status index_item(rt_render *r, rt_val obj, int64_t i, rt_val *out)
{
    size_t n;

    TP_TRY(rt_val_length(r, obj, &n));
    if (i < 0)
        i += (int64_t)n;
    if (i < 0 || i >= (int64_t)n) {
        *out = rt_val_undefined();
        return TP_OK;
    }
    if (obj.kind == RT_STR) {
        rt_str *s = obj.u.str;
        size_t at = rt_str_offset(s, (size_t)i);
        uint32_t cp;

        TP_TRY(rt_tmpl_charge(r, s->n == s->n_chars ? 0 : s->n >> 10));
        return rt_str_slice(r, s, at, rt_utf8_next(s->s, s->n, at, &cp), out);
    }
    *out = obj.kind == RT_RANGE ? rt_val_int(obj.u.range->start + i * obj.u.range->step)
                                : obj.u.list->items[i];
    return TP_OK;
}

tp_status rt_tmpl_item(rt_render *r, rt_val obj, rt_val key, rt_val *out)
{
    const rt_val *v = NULL;
    rt_attr attr = {0};
    bool found;
    int64_t i;

    if (obj.kind == RT_UNDEFINED)
        return rt_tmpl_undefined_error(r, obj);
    if (obj.kind == RT_DICT && key.kind != RT_LIST && key.kind != RT_DICT) {
        TP_TRY(rt_dict_find(r, obj.u.dict, key, &v));
        if (v != NULL) {
            *out = *v;
            return TP_OK;
        }
    } else if ((obj.kind == RT_STR || obj.kind == RT_LIST || obj.kind == RT_TUPLE ||
                obj.kind == RT_RANGE) &&
               rt_val_as_int(key, &i)) {
        return index_item(r, obj, i, out);
    }
    if (key.kind != RT_STR) {
        *out = rt_val_undefined();
        return TP_OK;
    }
    rt_tmpl_find_attr(key.u.str->s, key.u.str->n, &attr);
    TP_TRY(python_attr(r, obj, &attr, key.u.str, out, &found));
    return found ? TP_OK : missing(r, obj, key.u.str, out);
}

/* ---- slices ---- */

typedef struct span {
    int64_t start, step;
    size_t n;
} span;

static tp_status bound(rt_render *r, rt_val v, int64_t dflt, int64_t low, int64_t high, int64_t n,
                       int64_t *out)
{
    int64_t i;

    *out = dflt;
    if (v.kind == RT_NONE || v.kind == RT_MISSING)
        return TP_OK;
    if (!rt_val_as_int(v, &i))
        return rt_tmpl_error(r, "slice bounds are integers or none, not '%s'", rt_val_type_name(v));
    if (i < 0)
        i += n;
    *out = i < low ? low : i > high ? high : i;
    return TP_OK;
}

static tp_status resolve(rt_render *r, const rt_val bounds[3], size_t len, span *out)
{
    int64_t n = (int64_t)len, step = 1, start, stop;

    if (bounds[2].kind != RT_NONE && bounds[2].kind != RT_MISSING &&
        !rt_val_as_int(bounds[2], &step))
        return rt_tmpl_error(r, "the step of a slice is an integer");
    if (step == 0)
        return rt_tmpl_error(r, "the step of a slice cannot be 0");
    if (step < -n - 1)
        step = -n - 1; /* one step leaves the sequence either way */
    if (step > n + 1)
        step = n + 1;
    if (step > 0) {
        TP_TRY(bound(r, bounds[0], 0, 0, n, n, &start));
        TP_TRY(bound(r, bounds[1], n, 0, n, n, &stop));
        out->n = stop > start ? (size_t)((stop - start + step - 1) / step) : 0;
    } else {
        TP_TRY(bound(r, bounds[0], n - 1, -1, n - 1, n, &start));
        TP_TRY(bound(r, bounds[1], -1, -1, n - 1, n, &stop));
        out->n = start > stop ? (size_t)((start - stop - step - 1) / -step) : 0;
    }
    out->start = start;
    out->step = step;
    return TP_OK;
}

static tp_status slice_string(rt_render *r, rt_str *s, const span *sp, rt_val *out)
{
    size_t mark = rt_out_mark(r);
    const rt_val *chars;
    size_t n;

    if (sp->n == 0)
        return rt_str_slice(r, s, 0, 0, out);
    if (sp->step == 1) {
        size_t begin = rt_str_offset(s, (size_t)sp->start);
        size_t end = rt_str_offset(s, (size_t)sp->start + sp->n);

        TP_TRY(rt_tmpl_charge(r, s->n == s->n_chars ? 0 : s->n >> 10));
        return rt_str_slice(r, s, begin, end, out);
    }
    TP_TRY(rt_val_items(r, rt_val_str(s), &chars, &n));
    for (size_t i = 0; i < sp->n; i++)
        TP_TRY(rt_out_str(r, chars[sp->start + (int64_t)i * sp->step].u.str));
    TP_TRY(rt_out_cut(r, mark, out));
    out->u.str->safe = s->safe;
    return TP_OK;
}

tp_status rt_tmpl_slice(rt_render *r, rt_val obj, const rt_val bounds[3], rt_val *out)
{
    rt_val *items;
    size_t len = 0;
    span sp = {0};

    if (obj.kind == RT_UNDEFINED)
        return rt_tmpl_undefined_error(r, obj);
    if (obj.kind != RT_STR && obj.kind != RT_LIST && obj.kind != RT_TUPLE && obj.kind != RT_RANGE)
        return rt_tmpl_error(r, "a value of type '%s' cannot be sliced", rt_val_type_name(obj));
    TP_TRY(rt_val_length(r, obj, &len));
    TP_TRY(resolve(r, bounds, len, &sp));
    if (obj.kind == RT_STR)
        return slice_string(r, obj.u.str, &sp, out);
    if (obj.kind == RT_RANGE) {
        rt_range *range;

        TP_TRY(rt_tmpl_alloc(r, sizeof *range, &range));
        *range = (rt_range){
            obj.u.range->start + sp.start * obj.u.range->step, obj.u.range->step * sp.step, sp.n,
            obj.u.range->start + (sp.start + (int64_t)sp.n * sp.step) * obj.u.range->step};
        *out = (rt_val){.kind = RT_RANGE, .u.range = range};
        return TP_OK;
    }
    if (sp.step == 1) /* lists never change: share the items */
        return rt_val_list(r, obj.kind, sp.n > 0 ? obj.u.list->items + sp.start : NULL, sp.n, out);
    TP_TRY(rt_tmpl_array(r, sp.n, &items));
    for (size_t i = 0; i < sp.n; i++)
        items[i] = obj.u.list->items[sp.start + (int64_t)i * sp.step];
    TP_TRY(rt_tmpl_charge(r, sp.n >> 4));
    return rt_val_list(r, obj.kind, items, sp.n, out);
}
