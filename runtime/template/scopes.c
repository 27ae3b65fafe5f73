/* SPDX-License-Identifier: Apache-2.0 */
/* scopes.c - which variables a scope hides before it sets them.
 *
 * Jinja2 decides when it compiles a template to which scope a name belongs.  A scope that sets a name outright,
 * without reading it first and without an enclosing scope that knows it, owns it from the start: until the `set`
 * has run, bodies inside that scope find it undefined, even if the caller passed a variable of that name.  A name
 * that is set on some branches of an `if` only is looked up as usual.  This pass finds the owned names.
 */
#include <string.h>

#include "runtime/template/ast.h"

#define DEPTH_MAX 1200

enum { UNKNOWN, READ, OWNED, BOUND }; /* BOUND: a parameter, or known to an enclosing scope */

typedef struct frame {
    const struct frame *parent;
    uint8_t *state;  /* by symbol */
    uint8_t *stored; /* by symbol: set somewhere in this scope */
} frame;

typedef struct pass {
    rt_ast *ast;
    tp_arena scratch;
    int loop_sym;
    int depth;
} pass;

static tp_status visit(pass *p, frame *f, rt_node *e);
static tp_status inner(pass *p, const frame *parent, rt_node *params, rt_node *body, rt_syms *out);

static tp_status new_frame(pass *p, const frame *parent, const frame *copy_of, frame *out)
{
    size_t n = (size_t)p->ast->n_symbols;
    uint8_t *bytes = tp_arena_calloc(&p->scratch, 2 * n + 1, 1);

    if (bytes == NULL)
        return TP_REJECT(TP_ERR_NOMEM, "chat template: no memory for its scopes");
    *out = (frame){parent, bytes, bytes + n};
    if (copy_of != NULL && n > 0) {
        memcpy(out->state, copy_of->state, n);
        memcpy(out->stored, copy_of->stored, n);
    }
    return TP_OK;
}

static bool known(const frame *f, int sym)
{
    for (; f != NULL; f = f->parent)
        if (f->state[sym] != UNKNOWN)
            return true;
    return false;
}

static void load(frame *f, int sym)
{
    if (!known(f, sym))
        f->state[sym] = READ;
}

static void store(frame *f, int sym)
{
    f->stored[sym] = 1;
    if (f->state[sym] == UNKNOWN)
        f->state[sym] = known(f->parent, sym) ? BOUND : OWNED;
}

/* Names of an assignment target. */
static void store_target(frame *f, const rt_node *t, bool as_param)
{
    if (t->kind == RT_N_NSREF)
        load(f, t->sym);
    else if (t->kind == RT_N_NAME && as_param)
        f->state[t->sym] = BOUND;
    else if (t->kind == RT_N_NAME)
        store(f, t->sym);
    else
        for (const rt_node *c = t->a; c != NULL; c = c->next)
            store_target(f, c, as_param);
}

static tp_status visit_all(pass *p, frame *f, rt_node *first)
{
    for (rt_node *e = first; e != NULL; e = e->next)
        TP_TRY(visit(p, f, e));
    return TP_OK;
}

static bool is_elif(const rt_node *e)
{
    return e != NULL && e->kind == RT_N_IF && e->flag;
}

/* What the three branches of an `if` (body, all elifs, else) tell about the scope around it: a name that only some
 * of them set stays open. */
static void merge(const pass *p, frame *f, const frame branch[3])
{
    for (int s = 0; s < p->ast->n_symbols; s++) {
        int n_set = 0;

        for (int i = 0; i < 3; i++) {
            n_set += branch[i].stored[s] && !f->stored[s];
            if (branch[i].state[s] != UNKNOWN)
                f->state[s] = branch[i].state[s];
        }
        for (int i = 0; i < 3; i++)
            f->stored[s] |= branch[i].stored[s];
        if (n_set > 0 && n_set < 3)
            f->state[s] = known(f->parent, s) ? BOUND : READ;
    }
}

/* Each branch sees the names as they were before.  An elif counts as an `if` of its own without elif and else, all
 * elifs together as one branch; the else belongs to the head of the chain. */
static tp_status visit_if(pass *p, frame *f, rt_node *e)
{
    frame branch[3];
    rt_node *rest = e->c;

    TP_TRY(visit(p, f, e->a));
    for (int i = 0; i < 3; i++)
        TP_TRY(new_frame(p, f->parent, f, &branch[i]));
    TP_TRY(visit_all(p, &branch[0], e->b));
    if (!is_elif(e)) {
        for (; is_elif(rest); rest = rest->c)
            TP_TRY(visit(p, &branch[1], rest));
        TP_TRY(visit_all(p, &branch[2], rest));
    }
    merge(p, f, branch);
    return TP_OK;
}

static tp_status visit_node(pass *p, frame *f, rt_node *e)
{
    switch ((int)e->kind) {
    case RT_N_NAME: load(f, e->sym); return TP_OK;
    case RT_N_IF: return visit_if(p, f, e);
    case RT_N_FOR: return visit(p, f, e->b);
    case RT_N_SET:
        TP_TRY(visit(p, f, e->b));
        store_target(f, e->a, false);
        return TP_OK;
    case RT_N_SET_BLOCK: store_target(f, e->a, false); return TP_OK;
    case RT_N_MACRO: store(f, e->sym); return TP_OK;
    case RT_N_CALL_BLOCK: return visit(p, f, e->a);
    case RT_N_FILTER_BLOCK: return visit(p, f, e->b);
    case RT_N_WITH:
        for (rt_node *s = e->a; s != NULL; s = s->next)
            TP_TRY(visit(p, f, s->b));
        return TP_OK;
    case RT_N_SCOPE: return TP_OK;
    default:
        TP_TRY(visit_all(p, f, e->a));
        TP_TRY(visit_all(p, f, e->b));
        TP_TRY(visit_all(p, f, e->c));
        return visit_all(p, f, e->d);
    }
}

static tp_status visit(pass *p, frame *f, rt_node *e)
{
    if (e == NULL)
        return TP_OK;
    if (++p->depth > DEPTH_MAX)
        return TP_REJECT(TP_ERR_LIMIT, "chat template, line %d: nested deeper than %d levels",
                         e->line, DEPTH_MAX);
    TP_TRY(visit_node(p, f, e));
    p->depth--;
    return TP_OK;
}

/* The scopes inside of f, once f itself is known. */
static tp_status descend(pass *p, const frame *f, rt_node *first)
{
    if (++p->depth > DEPTH_MAX)
        return TP_REJECT(TP_ERR_LIMIT, "chat template: nested deeper than %d levels", DEPTH_MAX);
    for (rt_node *e = first; e != NULL; e = e->next) {
        switch ((int)e->kind) {
        case RT_N_IF:
            TP_TRY(descend(p, f, e->b));
            TP_TRY(descend(p, f, e->c));
            break;
        case RT_N_FOR:
            TP_TRY(inner(p, f, e, e->c, &e->owned));
            TP_TRY(inner(p, f, NULL, e->d, &e->owned_else));
            break;
        case RT_N_MACRO:
        case RT_N_WITH:
        case RT_N_SET_BLOCK:
        case RT_N_FILTER_BLOCK:
        case RT_N_SCOPE: TP_TRY(inner(p, f, e, e->c, &e->owned)); break;
        case RT_N_CALL_BLOCK: TP_TRY(inner(p, f, e->b, e->b->c, &e->b->owned)); break;
        default: break;
        }
    }
    p->depth--;
    return TP_OK;
}

static tp_status bind_params(pass *p, frame *f, const rt_node *e)
{
    if (e->kind == RT_N_FOR) {
        store_target(f, e->a, true);
        if (p->loop_sym >= 0)
            f->state[p->loop_sym] = BOUND;
    } else if (e->kind == RT_N_MACRO) {
        for (const rt_node *a = e->a; a != NULL; a = a->next)
            f->state[a->sym] = BOUND;
        for (rt_node *a = e->a; a != NULL; a = a->next)
            TP_TRY(visit(p, f, a->b));
    } else if (e->kind == RT_N_WITH) {
        for (const rt_node *s = e->a; s != NULL; s = s->next)
            store_target(f, s->a, true);
    }
    return TP_OK;
}

static tp_status inner(pass *p, const frame *parent, rt_node *params, rt_node *body, rt_syms *out)
{
    frame f;
    int *syms;
    int n = 0;

    TP_TRY(new_frame(p, parent, NULL, &f));
    if (params != NULL)
        TP_TRY(bind_params(p, &f, params));
    TP_TRY(visit_all(p, &f, body));
    for (int s = 0; s < p->ast->n_symbols; s++)
        n += f.state[s] == OWNED;
    if (n > 0) {
        syms = tp_arena_alloc(&p->ast->arena, (size_t)n * sizeof *syms);
        if (syms == NULL)
            return TP_REJECT(TP_ERR_NOMEM, "chat template: no memory for its scopes");
        *out = (rt_syms){syms, n};
        for (int s = 0; s < p->ast->n_symbols; s++)
            if (f.state[s] == OWNED)
                *syms++ = s;
    }
    return descend(p, &f, body);
}

tp_status rt_tmpl_find_scopes(rt_ast *ast)
{
    pass p = {.ast = ast, .loop_sym = rt_ast_symbol(ast, "loop")};
    tp_status st;

    tp_arena_init(&p.scratch, (size_t)64 << 20);
    st = inner(&p, NULL, NULL, ast->body, &ast->owned);
    tp_arena_release(&p.scratch);
    return st;
}
