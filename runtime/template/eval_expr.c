/* SPDX-License-Identifier: Apache-2.0 */
/* eval_expr.c - evaluates expressions by walking the tree; calls. */
#include <string.h>

#include "runtime/template/interp.h"

/* ---- variables ---- */

tp_status rt_tmpl_lookup(rt_render *r, const rt_scope *sc, const rt_node *name, rt_val *out)
{
    for (; sc->parent != NULL; sc = sc->parent) {
        for (const rt_binding *b = sc->first; b != NULL; b = b->next) {
            if (b->sym == name->sym) {
                *out = b->val;
                return TP_OK;
            }
        }
    }
    if (r->top[name->sym].kind != RT_MISSING) {
        *out = r->top[name->sym];
        return TP_OK;
    }
    if (r->ast->globals[name->sym] != NULL) {
        *out = (rt_val){.kind = RT_FUNCTION, .u.fn = r->ast->globals[name->sym]};
        return TP_OK;
    }
    return rt_tmpl_make_undefined(r, name->name, NULL, false, out);
}

/* ---- literals ---- */

static tp_status eval_items(rt_render *r, rt_scope *sc, const rt_node *e, rt_val *out)
{
    size_t n = 0, i = 0;
    rt_val *items;

    for (const rt_node *c = e->a; c != NULL; c = c->next)
        n++;
    TP_TRY(rt_tmpl_array(r, n, &items));
    for (const rt_node *c = e->a; c != NULL; c = c->next)
        TP_TRY(rt_tmpl_eval(r, sc, c, &items[i++]));
    return rt_val_list(r, e->kind == RT_N_LIST ? RT_LIST : RT_TUPLE, items, n, out);
}

static tp_status eval_dict(rt_render *r, rt_scope *sc, const rt_node *e, rt_val *out)
{
    rt_dict *d = rt_dict_make(r, 4);

    if (d == NULL)
        return rt_tmpl_no_memory(r, sizeof *d);
    for (const rt_node *c = e->a; c != NULL; c = c->next->next) {
        rt_val key, val;

        TP_TRY(rt_tmpl_eval(r, sc, c, &key));
        TP_TRY(rt_tmpl_eval(r, sc, c->next, &val));
        TP_TRY(rt_dict_put(r, d, key, val));
    }
    *out = (rt_val){.kind = RT_DICT, .u.dict = d};
    return TP_OK;
}

/* ---- calls ---- */

static tp_status count_args(rt_render *r, const rt_node *first, size_t *n, size_t *n_kw)
{
    *n = *n_kw = 0;
    for (const rt_node *a = first; a != NULL; a = a->next) {
        if (a->kind == RT_N_SPREAD)
            return rt_tmpl_error(r, "* and ** in a call are not supported in chat templates");
        if (a->kind == RT_N_KWARG)
            (*n_kw)++;
        else
            (*n)++;
    }
    return TP_OK;
}

tp_status rt_tmpl_eval_args(rt_render *r, rt_scope *sc, const rt_node *first, rt_args *out)
{
    size_t n, n_kw, i = 0, k = 0;
    rt_kwarg *kw = NULL;
    rt_val *v = NULL;

    *out = (rt_args){0};
    if (first == NULL)
        return TP_OK;
    TP_TRY(count_args(r, first, &n, &n_kw));
    TP_TRY(rt_tmpl_array(r, n, &v));
    if (n_kw > 0)
        TP_TRY(rt_tmpl_alloc(r, n_kw * sizeof *kw, &kw));
    for (const rt_node *a = first; a != NULL; a = a->next) {
        if (a->kind == RT_N_KWARG) {
            kw[k].name = a->name;
            TP_TRY(rt_tmpl_eval(r, sc, a->a, &kw[k++].val));
        } else {
            TP_TRY(rt_tmpl_eval(r, sc, a, &v[i++]));
        }
    }
    *out = (rt_args){v, n, kw, n_kw};
    return TP_OK;
}

#define PARAMS_MAX 6

/* Index of a name in a blank-separated list; -1 when absent. */
static int param_index(const char *params, const rt_str *name)
{
    int index = 0;

    for (const char *p = params; *p != 0; index++) {
        size_t n = strcspn(p, " ");

        if (n == name->n && memcmp(p, name->s, n) == 0)
            return index;
        p += n;
        p += *p == ' ';
    }
    return -1;
}

static int param_count(const char *params)
{
    int n = params[0] != 0;

    for (; *params != 0; params++)
        n += *params == ' ';
    return n;
}

tp_status rt_tmpl_call_builtin(rt_render *r, const rt_builtin *fn, rt_val self, const rt_args *a,
                               rt_val *out)
{
    rt_val slots[PARAMS_MAX] = {{RT_MISSING, {0}}};
    size_t n_params;

    TP_TRY(rt_tmpl_charge(r, 1));
    if (fn->params == NULL)
        return fn->fn(r, self, a, out);
    n_params = (size_t)param_count(fn->params);
    TP_ASSERT(n_params <= PARAMS_MAX);
    if (a->n > n_params)
        return rt_tmpl_error(r, "%s() takes at most %zu arguments (%zu given)", fn->name, n_params,
                             a->n);
    for (size_t i = 0; i < a->n; i++)
        slots[i] = a->v[i];
    for (size_t i = 0; i < a->n_kw; i++) {
        int at = param_index(fn->params, a->kw[i].name);

        if (at < 0 || slots[at].kind != RT_MISSING)
            return rt_tmpl_error(r, "%s() %s '%.*s'", fn->name,
                                 at < 0 ? "has no parameter" : "got two values for",
                                 rt_tmpl_quote_len(a->kw[i].name), a->kw[i].name->s);
        slots[at] = a->kw[i].val;
    }
    for (int i = 0; i < fn->n_required; i++)
        if (slots[i].kind == RT_MISSING)
            return rt_tmpl_error(r, "%s() needs at least %d argument%s", fn->name, fn->n_required,
                                 fn->n_required == 1 ? "" : "s");
    return fn->fn(r, self, &(rt_args){.v = slots, .n = n_params}, out);
}

tp_status rt_tmpl_call(rt_render *r, rt_val fn, const rt_args *a, rt_val *out)
{
    if (fn.kind == RT_METHOD)
        return rt_tmpl_call_builtin(r, fn.u.method->fn, fn.u.method->self, a, out);
    if (fn.kind == RT_FUNCTION)
        return rt_tmpl_call_builtin(r, fn.u.fn, rt_val_none(), a, out);
    if (fn.kind == RT_MACRO)
        return rt_tmpl_call_macro(r, fn.u.macro, a, (rt_val){.kind = RT_MISSING}, out);
    if (fn.kind == RT_UNDEFINED)
        return rt_tmpl_undefined_error(r, fn);
    return rt_tmpl_error(r, "a value of type '%s' cannot be called", rt_val_type_name(fn));
}

static tp_status eval_call(rt_render *r, rt_scope *sc, const rt_node *e, rt_val *out)
{
    rt_args args;
    rt_val fn;

    TP_TRY(rt_tmpl_eval(r, sc, e->a, &fn));
    TP_TRY(rt_tmpl_eval_args(r, sc, e->b, &args));
    r->line = e->line;
    return rt_tmpl_call(r, fn, &args, out);
}

/* ---- filters and tests ---- */

tp_status rt_tmpl_apply_filter(rt_render *r, rt_scope *sc, const rt_node *filter, rt_val in,
                               rt_val *out)
{
    rt_args args;

    if (filter->a != NULL)
        TP_TRY(filter->a->kind == RT_N_FILTER ? rt_tmpl_apply_filter(r, sc, filter->a, in, &in)
                                              : rt_tmpl_eval(r, sc, filter->a, &in));
    r->line = filter->line;
    if (filter->builtin == NULL)
        return rt_tmpl_error(r, "no filter named '%.*s' found", rt_tmpl_quote_len(filter->name),
                             filter->name->s);
    TP_TRY(rt_tmpl_eval_args(r, sc, filter->b, &args));
    r->line = filter->line;
    return rt_tmpl_call_builtin(r, filter->builtin, in, &args, out);
}

static tp_status eval_filter(rt_render *r, rt_scope *sc, const rt_node *e, rt_val *out)
{
    rt_args args;
    rt_val in;

    TP_TRY(rt_tmpl_eval(r, sc, e->a, &in));
    TP_TRY(rt_tmpl_eval_args(r, sc, e->b, &args));
    r->line = e->line;
    if (e->builtin == NULL)
        return rt_tmpl_error(r, "no %s named '%.*s' found",
                             e->kind == RT_N_TEST ? "test" : "filter", rt_tmpl_quote_len(e->name),
                             e->name->s);
    return rt_tmpl_call_builtin(r, e->builtin, in, &args, out);
}

/* ---- operators ---- */

static tp_status eval_logic(rt_render *r, rt_scope *sc, const rt_node *e, rt_val *out)
{
    TP_TRY(rt_tmpl_eval(r, sc, e->a, out));
    if (rt_val_truth(*out) == (e->kind == RT_N_AND))
        return rt_tmpl_eval(r, sc, e->b, out);
    return TP_OK;
}

static tp_status eval_not(rt_render *r, rt_scope *sc, const rt_node *e, rt_val *out)
{
    TP_TRY(rt_tmpl_eval(r, sc, e->a, out));
    *out = rt_val_bool(!rt_val_truth(*out));
    return TP_OK;
}

static tp_status eval_cond(rt_render *r, rt_scope *sc, const rt_node *e, rt_val *out)
{
    TP_TRY(rt_tmpl_eval(r, sc, e->a, out));
    if (rt_val_truth(*out))
        return rt_tmpl_eval(r, sc, e->b, out);
    if (e->c != NULL)
        return rt_tmpl_eval(r, sc, e->c, out);
    *out = rt_val_undefined();
    return TP_OK;
}

static tp_status compare_one(rt_render *r, int op, rt_val a, rt_val b, bool *out)
{
    int order;

    if (op == 'i' || op == 'n') {
        TP_TRY(rt_val_contains(r, b, a, out));
        *out = *out == (op == 'i');
        return TP_OK;
    }
    if (op == RT_OP2('=', '=') || op == RT_OP2('!', '=')) {
        TP_TRY(rt_val_equal(r, a, b, out));
        *out = *out == (op == RT_OP2('=', '='));
        return TP_OK;
    }
    TP_TRY(rt_val_compare(r, a, b, &order));
    if (order == 2)
        *out = false;
    else if (op == '<')
        *out = order < 0;
    else if (op == '>')
        *out = order > 0;
    else
        *out = op == RT_OP2('<', '=') ? order <= 0 : order >= 0;
    return TP_OK;
}

static tp_status eval_compare(rt_render *r, rt_scope *sc, const rt_node *e, rt_val *out)
{
    bool holds = true;
    rt_val a, b;

    TP_TRY(rt_tmpl_eval(r, sc, e->a, &a));
    for (const rt_node *o = e->b; o != NULL && holds; o = o->next) {
        TP_TRY(rt_tmpl_eval(r, sc, o->a, &b));
        r->line = e->line;
        TP_TRY(compare_one(r, o->op, a, b, &holds));
        a = b;
    }
    *out = rt_val_bool(holds);
    return TP_OK;
}

static tp_status eval_sign(rt_render *r, rt_scope *sc, const rt_node *e, rt_val *out)
{
    int64_t i;
    rt_val v;

    TP_TRY(rt_tmpl_eval(r, sc, e->a, &v));
    r->line = e->line;
    if (v.kind == RT_FLOAT) {
        *out = rt_val_float(e->kind == RT_N_NEG ? -v.u.f : v.u.f);
        return TP_OK;
    }
    if (v.kind == RT_UNDEFINED)
        return rt_tmpl_undefined_error(r, v);
    if (!rt_val_as_int(v, &i) || i == INT64_MIN)
        return rt_tmpl_error(r, "a value of type '%s' has no sign", rt_val_type_name(v));
    *out = rt_val_int(e->kind == RT_N_NEG ? -i : i);
    return TP_OK;
}

static tp_status eval_concat(rt_render *r, rt_scope *sc, const rt_node *e, rt_val *out)
{
    TP_TRY(rt_str_lit(r, "", out));
    for (const rt_node *c = e->a; c != NULL; c = c->next) {
        rt_str *s;
        rt_val v;

        TP_TRY(rt_tmpl_eval(r, sc, c, &v));
        TP_TRY(rt_val_to_str(r, v, &s));
        TP_TRY(rt_str_concat(r, out->u.str, s, out));
    }
    return TP_OK;
}

static tp_status eval_binary(rt_render *r, rt_scope *sc, const rt_node *e, rt_val *out)
{
    rt_val a, b;

    TP_TRY(rt_tmpl_eval(r, sc, e->a, &a));
    TP_TRY(rt_tmpl_eval(r, sc, e->b, &b));
    r->line = e->line;
    return rt_tmpl_binary(r, e->op, a, b, out);
}

static tp_status eval_attr(rt_render *r, rt_scope *sc, const rt_node *e, rt_val *out)
{
    rt_val obj;

    TP_TRY(rt_tmpl_eval(r, sc, e->a, &obj));
    r->line = e->line;
    return rt_tmpl_attr(r, obj, e->attr, e->name, out);
}

static tp_status eval_item(rt_render *r, rt_scope *sc, const rt_node *e, rt_val *out)
{
    rt_val obj, key;

    TP_TRY(rt_tmpl_eval(r, sc, e->a, &obj));
    TP_TRY(rt_tmpl_eval(r, sc, e->b, &key));
    r->line = e->line;
    return rt_tmpl_item(r, obj, key, out);
}

static tp_status eval_slice(rt_render *r, rt_scope *sc, const rt_node *e, rt_val *out)
{
    rt_val obj, bounds[3] = {{RT_MISSING, {0}}};

    TP_TRY(rt_tmpl_eval(r, sc, e->a, &obj));
    if (e->b != NULL)
        TP_TRY(rt_tmpl_eval(r, sc, e->b, &bounds[0]));
    if (e->c != NULL)
        TP_TRY(rt_tmpl_eval(r, sc, e->c, &bounds[1]));
    if (e->d != NULL)
        TP_TRY(rt_tmpl_eval(r, sc, e->d, &bounds[2]));
    r->line = e->line;
    return rt_tmpl_slice(r, obj, bounds, out);
}

static tp_status eval_node(rt_render *r, rt_scope *sc, const rt_node *e, rt_val *out)
{
    switch ((int)e->kind) {
    case RT_N_CONST: *out = e->value; return TP_OK;
    case RT_N_NAME: r->line = e->line; return rt_tmpl_lookup(r, sc, e, out);
    case RT_N_LIST:
    case RT_N_TUPLE: return eval_items(r, sc, e, out);
    case RT_N_DICT: return eval_dict(r, sc, e, out);
    case RT_N_ATTR: return eval_attr(r, sc, e, out);
    case RT_N_ITEM: return eval_item(r, sc, e, out);
    case RT_N_SLICE: return eval_slice(r, sc, e, out);
    case RT_N_CALL: return eval_call(r, sc, e, out);
    case RT_N_FILTER:
    case RT_N_TEST: return eval_filter(r, sc, e, out);
    case RT_N_NOT: return eval_not(r, sc, e, out);
    case RT_N_NEG:
    case RT_N_POS: return eval_sign(r, sc, e, out);
    case RT_N_AND:
    case RT_N_OR: return eval_logic(r, sc, e, out);
    case RT_N_COND: return eval_cond(r, sc, e, out);
    case RT_N_COMPARE: return eval_compare(r, sc, e, out);
    case RT_N_BINARY: return eval_binary(r, sc, e, out);
    case RT_N_CONCAT: return eval_concat(r, sc, e, out);
    default: return rt_tmpl_error(r, "this cannot stand in an expression");
    }
}

tp_status rt_tmpl_eval(rt_render *r, rt_scope *sc, const rt_node *e, rt_val *out)
{
    rt_val v; /* out may alias something that is still being read */
    tp_status st;

    TP_TRY(rt_tmpl_charge(r, 1));
    if (++r->levels > RT_LEVELS_MAX)
        return TP_REJECT(TP_ERR_LIMIT, "line %d: the chat template nests too deeply", e->line);
    st = eval_node(r, sc, e, &v);
    r->levels--;
    if (st == TP_OK)
        *out = v;
    return st;
}
