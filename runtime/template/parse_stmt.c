/* SPDX-License-Identifier: Apache-2.0 */
/* parse_stmt.c - statements, and the parser's small tools. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "runtime/template/parser.h"

static tp_status parse_body(rt_parser *p, const char *const *ends, rt_node **out);

/* ---- tools ---- */

static tp_status reject(const rt_parser *p, tp_status st, const char *fmt, va_list ap)
{
    char text[256];

    (void)vsnprintf(text, sizeof text, fmt, ap);
    return TP_REJECT(st, "chat template, line %d: %s", p->tok->line, text);
}

tp_status rt_parse_fail(const rt_parser *p, const char *fmt, ...)
{
    va_list ap;
    tp_status st;

    va_start(ap, fmt);
    st = reject(p, TP_ERR_FORMAT, fmt, ap);
    va_end(ap);
    return st;
}

tp_status rt_parse_unsupported(const rt_parser *p, const char *fmt, ...)
{
    va_list ap;
    tp_status st;

    va_start(ap, fmt);
    st = reject(p, TP_ERR_UNSUPPORTED, fmt, ap);
    va_end(ap);
    return st;
}

tp_status rt_parse_node(rt_parser *p, rt_node_kind kind, rt_node **out)
{
    rt_node *e = tp_arena_calloc(&p->ast->arena, 1, sizeof *e);

    if (e == NULL)
        return TP_REJECT(TP_ERR_NOMEM, "chat template: no memory for its syntax tree");
    e->kind = kind;
    e->line = p->tok->line;
    *out = e;
    return TP_OK;
}

/* Everything that is computed lazily is computed now: several threads will read it. */
tp_status rt_parse_str(rt_parser *p, const char *s, size_t n, rt_str **out)
{
    rt_str *str = tp_arena_alloc(&p->ast->arena, sizeof *str);

    if (str == NULL)
        return TP_REJECT(TP_ERR_NOMEM, "chat template: no memory");
    *str = (rt_str){.s = s, .n = n, .n_chars = SIZE_MAX};
    (void)rt_str_chars(str);
    (void)rt_str_hash(str);
    *out = str;
    return TP_OK;
}

tp_status rt_parse_symbol(rt_parser *p, const rt_token *name, rt_node *node)
{
    rt_ast *ast = p->ast;

    for (int i = 0; i < ast->n_symbols; i++) {
        if (ast->symbols[i]->n == name->n && memcmp(ast->symbols[i]->s, name->s, name->n) == 0) {
            node->sym = i;
            node->name = ast->symbols[i];
            return TP_OK;
        }
    }
    if (ast->n_symbols == ast->cap_symbols) {
        int cap = ast->cap_symbols == 0 ? 32 : 2 * ast->cap_symbols;
        rt_str **symbols = tp_arena_calloc(&ast->arena, (size_t)cap, sizeof *symbols);
        const rt_builtin **globals = tp_arena_calloc(&ast->arena, (size_t)cap, sizeof *globals);

        if (symbols == NULL || globals == NULL)
            return TP_REJECT(TP_ERR_NOMEM, "chat template: no memory");
        for (int i = 0; i < ast->n_symbols; i++) {
            symbols[i] = ast->symbols[i];
            globals[i] = ast->globals[i];
        }
        ast->symbols = symbols;
        ast->globals = globals;
        ast->cap_symbols = cap;
    }
    node->sym = ast->n_symbols;
    TP_TRY(rt_parse_str(p, name->s, name->n, &node->name));
    ast->symbols[node->sym] = node->name;
    ast->globals[node->sym] = rt_tmpl_find_global(name->s, name->n);
    ast->n_symbols++;
    return TP_OK;
}

tp_status rt_parse_enter(rt_parser *p)
{
    if (++p->depth > RT_PARSE_DEPTH_MAX)
        return TP_REJECT(TP_ERR_LIMIT, "chat template, line %d: nested deeper than %d levels",
                         p->tok->line, RT_PARSE_DEPTH_MAX);
    return TP_OK;
}

bool rt_parse_is_op(const rt_parser *p, int op)
{
    return p->tok->kind == RT_TOK_OP && p->tok->op == op;
}

bool rt_parse_is_name(const rt_parser *p, const char *name)
{
    return p->tok->kind == RT_TOK_NAME && p->tok->n == strlen(name) &&
           memcmp(p->tok->s, name, p->tok->n) == 0;
}

bool rt_parse_skip_op(rt_parser *p, int op)
{
    if (!rt_parse_is_op(p, op))
        return false;
    p->tok++;
    return true;
}

bool rt_parse_skip_name(rt_parser *p, const char *name)
{
    if (!rt_parse_is_name(p, name))
        return false;
    p->tok++;
    return true;
}

tp_status rt_parse_expect_op(rt_parser *p, int op)
{
    if (rt_parse_skip_op(p, op))
        return TP_OK;
    if (op > 0xFF)
        return rt_parse_fail(p, "'%c%c' is expected", op >> 8, op & 0xFF);
    return rt_parse_fail(p, "'%c' is expected", op);
}

tp_status rt_parse_expect_kind(rt_parser *p, rt_token_kind kind, const char *what)
{
    if (p->tok->kind != kind)
        return rt_parse_fail(p, "%s is expected", what);
    p->tok++;
    return TP_OK;
}

static tp_status expect_name(rt_parser *p, const char *name)
{
    return rt_parse_skip_name(p, name) ? TP_OK : rt_parse_fail(p, "'%s' is expected", name);
}

/* ---- assignment targets ---- */

static tp_status check_target(const rt_parser *p, const rt_node *target)
{
    if (target->kind == RT_N_NAME || target->kind == RT_N_NSREF)
        return TP_OK;
    if (target->kind != RT_N_TUPLE && target->kind != RT_N_LIST)
        return rt_parse_fail(p, "only names can be assigned to");
    for (const rt_node *t = target->a; t != NULL; t = t->next)
        TP_TRY(check_target(p, t));
    return TP_OK;
}

static tp_status parse_target(rt_parser *p, const char *end_name, rt_node **out)
{
    TP_TRY(rt_parse_tuple(p, RT_TUPLE_TARGET, end_name, out));
    return check_target(p, *out);
}

/* name.attribute, or a plain target. */
static tp_status parse_set_target(rt_parser *p, rt_node **out)
{
    rt_node *e;

    if (p->tok->kind != RT_TOK_NAME || p->tok[1].kind != RT_TOK_OP || p->tok[1].op != '.')
        return parse_target(p, NULL, out);
    TP_TRY(rt_parse_node(p, RT_N_NSREF, &e));
    TP_TRY(rt_parse_symbol(p, p->tok, e));
    p->tok += 2;
    if (p->tok->kind != RT_TOK_NAME)
        return rt_parse_fail(p, "the name of an attribute is expected");
    TP_TRY(rt_parse_str(p, p->tok->s, p->tok->n, &e->name));
    p->tok++;
    *out = e;
    return TP_OK;
}

/* ---- statements ---- */

static const char *const end_if[] = {"elif", "else", "endif", NULL};
static const char *const end_else[] = {"endif", NULL};
static const char *const end_for[] = {"endfor", "else", NULL};
static const char *const end_for_else[] = {"endfor", NULL};
static const char *const end_set[] = {"endset", NULL};
static const char *const end_macro[] = {"endmacro", NULL};
static const char *const end_call[] = {"endcall", NULL};
static const char *const end_filter[] = {"endfilter", NULL};
static const char *const end_with[] = {"endwith", NULL};
static const char *const end_generation[] = {"endgeneration", NULL};

/* A body that is a scope of its own: what is unknown in it is an error at once. */
static tp_status parse_scope(rt_parser *p, const char *const *ends, rt_node **out)
{
    bool soft = p->soft;

    p->soft = false;
    TP_TRY(parse_body(p, ends, out));
    p->soft = soft;
    return TP_OK;
}

static tp_status parse_if(rt_parser *p, rt_node **out)
{
    bool soft = p->soft;
    rt_node **slot = out;

    p->soft = true;
    for (;;) {
        rt_node *e;

        TP_TRY(rt_parse_node(p, RT_N_IF, &e));
        e->flag = slot != out;
        *slot = e;
        TP_TRY(rt_parse_tuple(p, RT_TUPLE_NO_COND, NULL, &e->a));
        TP_TRY(parse_body(p, end_if, &e->b));
        slot = &e->c;
        if (!rt_parse_skip_name(p, "elif"))
            break;
    }
    if (rt_parse_skip_name(p, "else"))
        TP_TRY(parse_body(p, end_else, slot));
    p->soft = soft;
    return expect_name(p, "endif");
}

static tp_status parse_for(rt_parser *p, rt_node **out)
{
    int macros = p->n_macros;
    rt_node *e;

    TP_TRY(rt_parse_node(p, RT_N_FOR, &e));
    TP_TRY(parse_target(p, "in", &e->a));
    TP_TRY(expect_name(p, "in"));
    TP_TRY(rt_parse_tuple(p, RT_TUPLE_NO_COND, "recursive", &e->b));
    if (rt_parse_skip_name(p, "if"))
        TP_TRY(rt_parse_expr(p, &e->e));
    if (rt_parse_is_name(p, "recursive"))
        return rt_parse_unsupported(p, "recursive loops are not supported");
    TP_TRY(parse_scope(p, end_for, &e->c));
    if (rt_parse_skip_name(p, "else"))
        TP_TRY(parse_scope(p, end_for_else, &e->d));
    e->flag = p->n_macros != macros;
    *out = e;
    return expect_name(p, "endfor");
}

static tp_status parse_set(rt_parser *p, rt_node **out)
{
    rt_node *e;

    TP_TRY(rt_parse_node(p, RT_N_SET, &e));
    *out = e;
    TP_TRY(parse_set_target(p, &e->a));
    if (rt_parse_skip_op(p, '='))
        return rt_parse_tuple(p, RT_TUPLE_FULL, NULL, &e->b);
    e->kind = RT_N_SET_BLOCK;
    if (rt_parse_skip_op(p, '|'))
        TP_TRY(rt_parse_filters(p, NULL, &e->b));
    TP_TRY(parse_scope(p, end_set, &e->c));
    return expect_name(p, "endset");
}

/* (name, name=default, ...) as NAME nodes */
static tp_status parse_signature(rt_parser *p, rt_node **out)
{
    rt_node **tail = out;
    bool defaults = false;

    TP_TRY(rt_parse_expect_op(p, '('));
    while (!rt_parse_is_op(p, ')')) {
        rt_node *e;

        if (*out != NULL)
            TP_TRY(rt_parse_expect_op(p, ','));
        TP_TRY(rt_parse_node(p, RT_N_NAME, &e));
        if (p->tok->kind != RT_TOK_NAME)
            return rt_parse_fail(p, "the name of a parameter is expected");
        TP_TRY(rt_parse_symbol(p, p->tok, e));
        p->tok++;
        if (rt_parse_skip_op(p, '=')) {
            TP_TRY(rt_parse_expr(p, &e->b));
            defaults = true;
        } else if (defaults) {
            return rt_parse_fail(p, "a parameter without default behind one with a default");
        }
        *tail = e;
        tail = &e->next;
    }
    return rt_parse_expect_op(p, ')');
}

/* Parameters are parsed; the body follows. */
static tp_status parse_macro_body(rt_parser *p, const char *const *ends, rt_node *macro)
{
    int outer_uses = p->macro_uses;

    p->n_macros++;
    p->macro_uses = 0;
    TP_TRY(parse_scope(p, ends, &macro->c));
    macro->op = p->macro_uses;
    p->macro_uses = outer_uses;
    return expect_name(p, ends[0]);
}

static tp_status parse_macro(rt_parser *p, rt_node **out)
{
    rt_node *e;

    TP_TRY(rt_parse_node(p, RT_N_MACRO, &e));
    if (p->tok->kind != RT_TOK_NAME)
        return rt_parse_fail(p, "the name of the macro is expected");
    TP_TRY(rt_parse_symbol(p, p->tok, e));
    p->tok++;
    TP_TRY(parse_signature(p, &e->a));
    *out = e;
    return parse_macro_body(p, end_macro, e);
}

static tp_status parse_call_block(rt_parser *p, rt_node **out)
{
    rt_node *e, *macro;

    TP_TRY(rt_parse_node(p, RT_N_CALL_BLOCK, &e));
    TP_TRY(rt_parse_node(p, RT_N_MACRO, &macro));
    TP_TRY(rt_parse_str(p, "caller", 6, &macro->name));
    if (rt_parse_is_op(p, '('))
        TP_TRY(parse_signature(p, &macro->a));
    TP_TRY(rt_parse_expr(p, &e->a));
    if (e->a->kind != RT_N_CALL)
        return rt_parse_fail(p, "a call is expected");
    e->b = macro;
    *out = e;
    return parse_macro_body(p, end_call, macro);
}

static tp_status parse_filter_block(rt_parser *p, rt_node **out)
{
    rt_node *e;

    TP_TRY(rt_parse_node(p, RT_N_FILTER_BLOCK, &e));
    TP_TRY(rt_parse_filters(p, NULL, &e->b));
    TP_TRY(parse_scope(p, end_filter, &e->c));
    *out = e;
    return expect_name(p, "endfilter");
}

static tp_status parse_with(rt_parser *p, rt_node **out)
{
    rt_node *e, **tail;

    TP_TRY(rt_parse_node(p, RT_N_WITH, &e));
    tail = &e->a;
    while (p->tok->kind != RT_TOK_BLOCK_END) {
        rt_node *set;

        if (e->a != NULL)
            TP_TRY(rt_parse_expect_op(p, ','));
        TP_TRY(rt_parse_node(p, RT_N_SET, &set));
        TP_TRY(rt_parse_tuple(p, RT_TUPLE_TARGET, NULL, &set->a));
        TP_TRY(check_target(p, set->a));
        TP_TRY(rt_parse_expect_op(p, '='));
        TP_TRY(rt_parse_expr(p, &set->b));
        *tail = set;
        tail = &set->next;
    }
    TP_TRY(parse_scope(p, end_with, &e->c));
    *out = e;
    return expect_name(p, "endwith");
}

static tp_status parse_generation(rt_parser *p, rt_node **out)
{
    TP_TRY(rt_parse_node(p, RT_N_SCOPE, out));
    TP_TRY(parse_scope(p, end_generation, &(*out)->c));
    return expect_name(p, "endgeneration");
}

static tp_status parse_print(rt_parser *p, rt_node **out)
{
    rt_node **tail = out;

    while (p->tok->kind != RT_TOK_BLOCK_END) {
        rt_node *e;

        if (*out != NULL)
            TP_TRY(rt_parse_expect_op(p, ','));
        TP_TRY(rt_parse_node(p, RT_N_PRINT, &e));
        TP_TRY(rt_parse_expr(p, &e->a));
        *tail = e;
        tail = &e->next;
    }
    return TP_OK;
}

static tp_status parse_break(rt_parser *p, rt_node **out)
{
    return rt_parse_node(p, RT_N_BREAK, out);
}

static tp_status parse_continue(rt_parser *p, rt_node **out)
{
    return rt_parse_node(p, RT_N_CONTINUE, out);
}

static tp_status parse_statement(rt_parser *p, rt_node **out)
{
    static const struct {
        const char *name;
        tp_status (*parse)(rt_parser *p, rt_node **out);
    } statements[] = {{"if", parse_if},
                      {"for", parse_for},
                      {"set", parse_set},
                      {"macro", parse_macro},
                      {"call", parse_call_block},
                      {"filter", parse_filter_block},
                      {"with", parse_with},
                      {"generation", parse_generation},
                      {"print", parse_print},
                      {"break", parse_break},
                      {"continue", parse_continue}};
    static const char *const others[] = {"include", "import", "from",
                                         "extends", "block",  "autoescape"};

    for (size_t i = 0; i < TP_ARRAY_LEN(statements); i++)
        if (rt_parse_skip_name(p, statements[i].name))
            return statements[i].parse(p, out);
    for (size_t i = 0; i < TP_ARRAY_LEN(others); i++)
        if (rt_parse_is_name(p, others[i]))
            return rt_parse_unsupported(p, "{%% %s %%} is not supported in chat templates",
                                        others[i]);
    if (p->tok->kind != RT_TOK_NAME)
        return rt_parse_fail(p, "the name of a tag is expected");
    return rt_parse_fail(p, "'%.*s' is not a tag that can stand here",
                         p->tok->n < 60 ? (int)p->tok->n : 60, p->tok->s);
}

static bool at_end_name(const rt_parser *p, const char *const *ends)
{
    for (; ends != NULL && *ends != NULL; ends++)
        if (rt_parse_is_name(p, *ends))
            return true;
    return false;
}

static tp_status parse_text(rt_parser *p, rt_node **out)
{
    rt_node *e;

    TP_TRY(rt_parse_node(p, RT_N_TEXT, &e));
    e->value.kind = RT_STR;
    TP_TRY(rt_parse_str(p, p->tok->s, p->tok->n, &e->value.u.str));
    p->tok++;
    *out = e;
    return TP_OK;
}

static tp_status parse_output(rt_parser *p, rt_node **out)
{
    rt_node *e;

    TP_TRY(rt_parse_node(p, RT_N_PRINT, &e));
    p->tok++;
    TP_TRY(rt_parse_tuple(p, RT_TUPLE_FULL, NULL, &e->a));
    *out = e;
    return rt_parse_expect_kind(p, RT_TOK_PRINT_END, "'}}'");
}

/* Statements up to one of `ends` (left as the current token), or to the end of the template when NULL. */
static tp_status parse_statements(rt_parser *p, const char *const *ends, rt_node **out)
{
    rt_node **tail = out;

    for (;;) {
        switch ((int)p->tok->kind) {
        case RT_TOK_DATA: TP_TRY(parse_text(p, tail)); break;
        case RT_TOK_PRINT_BEGIN: TP_TRY(parse_output(p, tail)); break;
        case RT_TOK_BLOCK_BEGIN:
            p->tok++;
            if (at_end_name(p, ends))
                return TP_OK;
            TP_TRY(parse_statement(p, tail));
            TP_TRY(rt_parse_expect_kind(p, RT_TOK_BLOCK_END, "'%}'"));
            break;
        default: /* the lexer yields nothing else outside of tags */
            if (ends != NULL)
                return rt_parse_fail(p, "the template ends where '%s' is expected", ends[0]);
            return TP_OK;
        }
        while (*tail != NULL)
            tail = &(*tail)->next;
    }
}

/* The rest of an opening tag and what follows, up to one of the ends. */
static tp_status parse_body(rt_parser *p, const char *const *ends, rt_node **out)
{
    (void)rt_parse_skip_op(p, ':');
    TP_TRY(rt_parse_expect_kind(p, RT_TOK_BLOCK_END, "'%}'"));
    TP_TRY(rt_parse_enter(p));
    TP_TRY(parse_statements(p, ends, out));
    p->depth--;
    return TP_OK;
}

tp_status rt_tmpl_parse(rt_ast *ast, const char *src, size_t n)
{
    rt_parser p = {.ast = ast};
    rt_tokens tokens;

    TP_TRY(rt_tmpl_lex(&ast->arena, src, n, &tokens));
    p.tok = tokens.items;
    TP_TRY(parse_statements(&p, NULL, &ast->body));
    return rt_tmpl_find_scopes(ast);
}

int rt_ast_symbol(const rt_ast *ast, const char *name)
{
    for (int i = 0; i < ast->n_symbols; i++)
        if (rt_str_is(ast->symbols[i], name))
            return i;
    return -1;
}
