/* SPDX-License-Identifier: Apache-2.0 */
/* eval_stmt.c - runs statements: scopes, loops, macros.
 *
 * A `for` body, a macro and every block that is a scope get a chain of bindings whose parent is where they stand
 * in the text.  An iteration starts with an empty chain: what a body sets is gone in the next round.
 */
#include <string.h>

#include "runtime/template/interp.h"

/* ---- binding ---- */

tp_status rt_tmpl_bind(rt_render *r, rt_scope *sc, int sym, rt_val v)
{
    rt_binding *b;

    if (sc->parent == NULL) {
        r->top[sym] = v;
        return TP_OK;
    }
    for (b = sc->first; b != NULL; b = b->next) {
        if (b->sym == sym) {
            b->val = v;
            return TP_OK;
        }
    }
    if (r->spare != NULL) {
        b = r->spare;
        r->spare = b->next;
    } else {
        TP_TRY(rt_tmpl_alloc(r, sizeof *b, &b));
    }
    *b = (rt_binding){.next = sc->first, .val = v, .sym = sym};
    sc->first = b;
    return TP_OK;
}

static tp_status hide_owned(rt_render *r, rt_scope *sc, const rt_syms *owned)
{
    for (int i = 0; i < owned->n; i++) {
        rt_val v;

        TP_TRY(rt_tmpl_make_undefined(r, r->ast->symbols[owned->at[i]], NULL, false, &v));
        TP_TRY(rt_tmpl_bind(r, sc, owned->at[i], v));
    }
    return TP_OK;
}

/* Empties a scope that nothing refers to any more. */
static void recycle(rt_render *r, rt_scope *sc)
{
    while (sc->first != NULL) {
        rt_binding *b = sc->first;

        sc->first = b->next;
        b->next = r->spare;
        r->spare = b;
    }
}

static tp_status assign_attr(rt_render *r, rt_scope *sc, const rt_node *t, rt_val v)
{
    rt_node name = {.kind = RT_N_NAME, .sym = t->sym, .name = r->ast->symbols[t->sym]};
    rt_val ns;

    r->line = t->line;
    TP_TRY(rt_tmpl_lookup(r, sc, &name, &ns));
    if (ns.kind != RT_NAMESPACE)
        return rt_tmpl_error(r, "cannot assign attribute on non-namespace object");
    if (t->name->n > 0 && t->name->s[0] == '_')
        return rt_tmpl_error(r, "namespace attributes must not begin with an underscore");
    return rt_dict_put(r, ns.u.dict, rt_val_str(t->name), v);
}

static tp_status unpack(rt_render *r, rt_scope *sc, const rt_node *t, rt_val v)
{
    const rt_val *items;
    size_t n, wanted = 0, i = 0;

    for (const rt_node *c = t->a; c != NULL; c = c->next)
        wanted++;
    r->line = t->line;
    TP_TRY(rt_val_items(r, v, &items, &n));
    if (n != wanted)
        return rt_tmpl_error(r, "%zu values are unpacked into %zu names", n, wanted);
    for (const rt_node *c = t->a; c != NULL; c = c->next)
        TP_TRY(rt_tmpl_assign(r, sc, c, items[i++]));
    return TP_OK;
}

tp_status rt_tmpl_assign(rt_render *r, rt_scope *sc, const rt_node *target, rt_val v)
{
    if (target->kind == RT_N_NAME)
        return rt_tmpl_bind(r, sc, target->sym, v);
    if (target->kind == RT_N_NSREF)
        return assign_attr(r, sc, target, v);
    return unpack(r, sc, target, v);
}

/* ---- loops ---- */

/* The items of a loop; those that pass the filter if there is one. */
static tp_status loop_items(rt_render *r, rt_scope *sc, const rt_node *e, rt_loop *l)
{
    rt_scope inner = {.parent = sc};
    const rt_val *items;
    rt_val *kept;
    size_t n, n_kept = 0;

    TP_TRY(rt_tmpl_eval(r, sc, e->b, &l->iterable));
    r->line = e->line;
    if (l->iterable.kind == RT_RANGE && e->e == NULL) {
        l->n = l->iterable.u.range->n;
        return TP_OK;
    }
    TP_TRY(rt_val_items(r, l->iterable, &items, &n));
    l->items = items;
    l->n = n;
    if (e->e == NULL)
        return TP_OK;
    TP_TRY(rt_tmpl_array(r, n, &kept));
    for (size_t i = 0; i < n; i++) {
        rt_val passes;

        TP_TRY(rt_tmpl_assign(r, &inner, e->a, items[i]));
        TP_TRY(rt_tmpl_eval(r, &inner, e->e, &passes));
        if (rt_val_truth(passes))
            kept[n_kept++] = items[i];
    }
    recycle(r, &inner);
    l->items = kept;
    l->n = n_kept;
    return TP_OK;
}

static tp_status run_loop(rt_render *r, rt_scope *sc, const rt_node *e, rt_loop *l, int loop_sym)
{
    rt_scope *body = NULL;

    for (l->pos = 0; l->pos < l->n; l->pos++) {
        TP_TRY(rt_tmpl_charge(r, 1));
        if (body == NULL || e->flag) { /* a macro may have captured the last one */
            TP_TRY(rt_tmpl_alloc(r, sizeof *body, &body));
            *body = (rt_scope){.parent = sc};
        }
        TP_TRY(hide_owned(r, body, &e->owned));
        if (loop_sym >= 0)
            TP_TRY(rt_tmpl_bind(r, body, loop_sym, (rt_val){.kind = RT_LOOP, .u.loop = l}));
        TP_TRY(rt_tmpl_assign(r, body, e->a, rt_loop_at(l, l->pos)));
        TP_TRY(rt_tmpl_exec(r, body, e->c));
        if (!e->flag)
            recycle(r, body);
        if (r->flow == RT_FLOW_BREAK)
            break;
        r->flow = RT_FLOW_NORMAL;
    }
    r->flow = RT_FLOW_NORMAL;
    return TP_OK;
}

static tp_status exec_for(rt_render *r, rt_scope *sc, const rt_node *e)
{
    rt_scope other = {.parent = sc};
    rt_loop *l;

    TP_TRY(rt_tmpl_alloc(r, sizeof *l, &l));
    *l = (rt_loop){.depth = r->loops + 1};
    TP_TRY(loop_items(r, sc, e, l));
    if (l->n == 0) {
        TP_TRY(hide_owned(r, &other, &e->owned_else));
        return rt_tmpl_exec(r, &other, e->d);
    }
    r->loops++;
    TP_TRY(run_loop(r, sc, e, l, rt_ast_symbol(r->ast, "loop")));
    r->loops--;
    return TP_OK;
}

/* ---- macros ---- */

static tp_status define_macro(rt_render *r, rt_scope *sc, const rt_node *e, rt_val *out)
{
    rt_macro *m;

    TP_TRY(rt_tmpl_alloc(r, sizeof *m, &m));
    *m = (rt_macro){e, sc};
    *out = (rt_val){.kind = RT_MACRO, .u.macro = m};
    return TP_OK;
}

static const rt_val *find_kwarg(const rt_args *a, const rt_str *name)
{
    for (size_t i = 0; i < a->n_kw; i++)
        if (rt_str_same(a->kw[i].name, name))
            return &a->kw[i].val;
    return NULL;
}

static bool is_param(const rt_node *macro, const rt_str *name)
{
    for (const rt_node *p = macro->a; p != NULL; p = p->next)
        if (rt_str_same(p->name, name))
            return true;
    return false;
}

static tp_status bind_params(rt_render *r, rt_scope *sc, const rt_node *macro, const rt_args *a)
{
    size_t i = 0;

    for (const rt_node *p = macro->a; p != NULL; p = p->next, i++) {
        const rt_val *given = find_kwarg(a, p->name);
        rt_val v;

        if (i < a->n && given != NULL)
            return rt_tmpl_error(r, "macro '%.*s' got two values for '%.*s'", (int)macro->name->n,
                                 macro->name->s, (int)p->name->n, p->name->s);
        if (i < a->n)
            v = a->v[i];
        else if (given != NULL)
            v = *given;
        else if (p->b != NULL)
            TP_TRY(rt_tmpl_eval(r, sc, p->b, &v));
        else
            TP_TRY(rt_tmpl_make_undefined(r, p->name, NULL, false, &v));
        TP_TRY(rt_tmpl_bind(r, sc, p->sym, v));
    }
    return TP_OK;
}

/* Arguments beyond the parameters: into varargs and kwargs when the body mentions them, else an error. */
static tp_status bind_rest(rt_render *r, rt_scope *sc, const rt_node *macro, const rt_args *a)
{
    size_t n_params = 0;
    rt_dict *kwargs;
    rt_val v;

    for (const rt_node *p = macro->a; p != NULL; p = p->next)
        n_params++;
    if (a->n > n_params && !(macro->op & RT_MACRO_VARARGS))
        return rt_tmpl_error(r, "macro '%.*s' takes not more than %zu argument(s)",
                             (int)macro->name->n, macro->name->s, n_params);
    if (macro->op & RT_MACRO_VARARGS) {
        size_t n = a->n > n_params ? a->n - n_params : 0;

        TP_TRY(rt_val_list(r, RT_TUPLE, n > 0 ? a->v + n_params : NULL, n, &v));
        TP_TRY(rt_tmpl_bind(r, sc, rt_ast_symbol(r->ast, "varargs"), v));
    }
    kwargs = rt_dict_make(r, a->n_kw);
    if (kwargs == NULL)
        return rt_tmpl_no_memory(r, sizeof *kwargs);
    for (size_t i = 0; i < a->n_kw; i++) {
        rt_str *key;

        if (is_param(macro, a->kw[i].name))
            continue;
        if (!(macro->op & RT_MACRO_KWARGS))
            return rt_tmpl_error(r, "macro '%.*s' takes no keyword argument '%.*s'",
                                 (int)macro->name->n, macro->name->s,
                                 rt_tmpl_quote_len(a->kw[i].name), a->kw[i].name->s);
        TP_TRY(rt_tmpl_alloc(r, sizeof *key, &key));
        *key = *a->kw[i].name;
        TP_TRY(rt_dict_put(r, kwargs, rt_val_str(key), a->kw[i].val));
    }
    if (macro->op & RT_MACRO_KWARGS)
        return rt_tmpl_bind(r, sc, rt_ast_symbol(r->ast, "kwargs"),
                            (rt_val){.kind = RT_DICT, .u.dict = kwargs});
    return TP_OK;
}

tp_status rt_tmpl_call_macro(rt_render *r, const rt_macro *m, const rt_args *a, rt_val caller,
                             rt_val *out)
{
    size_t mark = rt_out_mark(r);
    rt_scope *sc;

    if (r->calls >= r->depth_max)
        return TP_REJECT(TP_ERR_LIMIT, "line %d: macro calls nest deeper than %d", r->line,
                         r->depth_max);
    r->calls++;
    TP_TRY(rt_tmpl_alloc(r, sizeof *sc, &sc));
    *sc = (rt_scope){.parent = m->scope};
    TP_TRY(hide_owned(r, sc, &m->node->owned));
    TP_TRY(bind_params(r, sc, m->node, a));
    TP_TRY(bind_rest(r, sc, m->node, a));
    if (m->node->op & RT_MACRO_CALLER) {
        if (caller.kind == RT_MISSING)
            caller = rt_val_undefined();
        TP_TRY(rt_tmpl_bind(r, sc, rt_ast_symbol(r->ast, "caller"), caller));
    }
    TP_TRY(rt_tmpl_exec(r, sc, m->node->c));
    r->flow = RT_FLOW_NORMAL;
    r->calls--;
    return rt_out_cut(r, mark, out);
}

static tp_status exec_call_block(rt_render *r, rt_scope *sc, const rt_node *e)
{
    rt_val fn, caller, result;
    rt_args args;

    TP_TRY(define_macro(r, sc, e->b, &caller));
    TP_TRY(rt_tmpl_eval(r, sc, e->a->a, &fn));
    TP_TRY(rt_tmpl_eval_args(r, sc, e->a->b, &args));
    r->line = e->line;
    if (fn.kind != RT_MACRO)
        return rt_tmpl_error(r, "a call block wants a macro");
    if (!(fn.u.macro->node->op & RT_MACRO_CALLER))
        return rt_tmpl_error(r, "the macro does not use caller()");
    TP_TRY(rt_tmpl_call_macro(r, fn.u.macro, &args, caller, &result));
    return rt_out_str(r, result.u.str);
}

/* ---- blocks ---- */

static tp_status new_scope(rt_render *r, rt_scope *parent, const rt_node *e, rt_scope **out)
{
    TP_TRY(rt_tmpl_alloc(r, sizeof **out, out));
    **out = (rt_scope){.parent = parent};
    return hide_owned(r, *out, &e->owned);
}

/* Runs a body in a scope of its own and keeps its text. */
static tp_status capture(rt_render *r, rt_scope *sc, const rt_node *e, rt_val *out)
{
    size_t mark = rt_out_mark(r);
    rt_scope *inner;

    TP_TRY(new_scope(r, sc, e, &inner));
    TP_TRY(rt_tmpl_exec(r, inner, e->c));
    return rt_out_cut(r, mark, out);
}

static tp_status exec_set_block(rt_render *r, rt_scope *sc, const rt_node *e)
{
    rt_val v;

    TP_TRY(capture(r, sc, e, &v));
    if (e->b != NULL)
        TP_TRY(rt_tmpl_apply_filter(r, sc, e->b, v, &v));
    return rt_tmpl_assign(r, sc, e->a, v);
}

static tp_status exec_filter_block(rt_render *r, rt_scope *sc, const rt_node *e)
{
    rt_val v;

    TP_TRY(capture(r, sc, e, &v));
    TP_TRY(rt_tmpl_apply_filter(r, sc, e->b, v, &v));
    return rt_out_value(r, v);
}

static tp_status exec_with(rt_render *r, rt_scope *sc, const rt_node *e)
{
    rt_scope *inner;

    TP_TRY(new_scope(r, sc, e, &inner));
    for (const rt_node *s = e->a; s != NULL; s = s->next) {
        rt_val v;

        TP_TRY(rt_tmpl_eval(r, sc, s->b, &v));
        TP_TRY(rt_tmpl_assign(r, inner, s->a, v));
    }
    return rt_tmpl_exec(r, inner, e->c);
}

static tp_status exec_node(rt_render *r, rt_scope *sc, const rt_node *e)
{
    rt_scope *inner;
    rt_val v;

    switch ((int)e->kind) {
    case RT_N_TEXT: return rt_out_str(r, e->value.u.str);
    case RT_N_PRINT: TP_TRY(rt_tmpl_eval(r, sc, e->a, &v)); return rt_out_value(r, v);
    case RT_N_IF:
        TP_TRY(rt_tmpl_eval(r, sc, e->a, &v));
        return rt_tmpl_exec(r, sc, rt_val_truth(v) ? e->b : e->c);
    case RT_N_FOR: return exec_for(r, sc, e);
    case RT_N_SET: TP_TRY(rt_tmpl_eval(r, sc, e->b, &v)); return rt_tmpl_assign(r, sc, e->a, v);
    case RT_N_SET_BLOCK: return exec_set_block(r, sc, e);
    case RT_N_MACRO: TP_TRY(define_macro(r, sc, e, &v)); return rt_tmpl_bind(r, sc, e->sym, v);
    case RT_N_CALL_BLOCK: return exec_call_block(r, sc, e);
    case RT_N_FILTER_BLOCK: return exec_filter_block(r, sc, e);
    case RT_N_WITH: return exec_with(r, sc, e);
    case RT_N_SCOPE: TP_TRY(new_scope(r, sc, e, &inner)); return rt_tmpl_exec(r, inner, e->c);
    case RT_N_BREAK: r->flow = RT_FLOW_BREAK; return TP_OK;
    case RT_N_CONTINUE: r->flow = RT_FLOW_CONTINUE; return TP_OK;
    default: return rt_tmpl_error(r, "this cannot stand as a statement");
    }
}

tp_status rt_tmpl_exec(rt_render *r, rt_scope *sc, const rt_node *first)
{
    if (++r->levels > RT_LEVELS_MAX)
        return TP_REJECT(TP_ERR_LIMIT, "line %d: the chat template nests too deeply", r->line);
    for (const rt_node *e = first; e != NULL && r->flow == RT_FLOW_NORMAL; e = e->next) {
        TP_TRY(rt_tmpl_charge(r, 1));
        r->line = e->line;
        TP_TRY(exec_node(r, sc, e));
    }
    r->levels--;
    return TP_OK;
}
