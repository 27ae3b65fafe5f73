/* SPDX-License-Identifier: Apache-2.0 */
/* parse_expr.c - expressions, by recursive descent.
 *
 * Loosest first: x if c else y; or; and; not; comparisons and in; + -; ~; * / // %; **; unary + -; then filters
 * and tests, which apply to the unary expression before them; then .name [item] (call).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/template/parser.h"

static tp_status parse_or(rt_parser *p, rt_node **out);
static tp_status parse_unary(rt_parser *p, bool with_filters, rt_node **out);
static tp_status parse_call_args(rt_parser *p, rt_node **out);

/* ---- primaries ---- */

static int prefix_base(char c)
{
    return (c | 32) == 'x' ? 16 : (c | 32) == 'o' ? 8 : 2;
}

static tp_status parse_number(rt_parser *p, rt_node **out)
{
    rt_node *e;
    int64_t i;

    TP_TRY(rt_parse_node(p, RT_N_CONST, &e));
    if (p->tok->kind == RT_TOK_FLOAT) {
        e->value = rt_val_float(strtod(p->tok->s, NULL));
    } else {
        errno = 0;
        i = p->tok->n > 2 && p->tok->s[0] == '0' && p->tok->s[1] > '9'
                ? strtoll(p->tok->s + 2, NULL, prefix_base(p->tok->s[1]))
                : strtoll(p->tok->s, NULL, 10);
        e->value = rt_val_int(i);
        if (errno == ERANGE) {
            e->value.kind = RT_BIGINT;
            TP_TRY(rt_parse_str(p, p->tok->s, p->tok->n, &e->value.u.str));
        }
    }
    p->tok++;
    *out = e;
    return TP_OK;
}

/* Neighbouring literals are one string. */
static tp_status parse_string(rt_parser *p, rt_node **out)
{
    rt_node *e;
    size_t n = 0;
    char *s;

    TP_TRY(rt_parse_node(p, RT_N_CONST, &e));
    for (const rt_token *t = p->tok; t->kind == RT_TOK_STRING; t++)
        n += t->n;
    s = tp_arena_alloc(&p->ast->arena, n + 1);
    if (s == NULL)
        return TP_REJECT(TP_ERR_NOMEM, "chat template: no memory");
    n = 0;
    for (; p->tok->kind == RT_TOK_STRING; p->tok++) {
        memcpy(s + n, p->tok->s, p->tok->n);
        n += p->tok->n;
    }
    e->value.kind = RT_STR;
    TP_TRY(rt_parse_str(p, s, n, &e->value.u.str));
    *out = e;
    return TP_OK;
}

static tp_status parse_name(rt_parser *p, rt_node **out)
{
    static const struct {
        const char *name;
        rt_kind kind;
        bool b;
    } constants[] = {{"true", RT_BOOL, true},   {"True", RT_BOOL, true},  {"false", RT_BOOL, false},
                     {"False", RT_BOOL, false}, {"none", RT_NONE, false}, {"None", RT_NONE, false}};
    rt_node *e;

    TP_TRY(rt_parse_node(p, RT_N_NAME, &e));
    for (size_t i = 0; i < TP_ARRAY_LEN(constants); i++) {
        if (rt_parse_is_name(p, constants[i].name)) {
            e->kind = RT_N_CONST;
            e->value = (rt_val){.kind = constants[i].kind, .u.b = constants[i].b};
        }
    }
    if (e->kind == RT_N_NAME) {
        TP_TRY(rt_parse_symbol(p, p->tok, e));
        if (rt_parse_is_name(p, "varargs"))
            p->macro_uses |= RT_MACRO_VARARGS;
        else if (rt_parse_is_name(p, "kwargs"))
            p->macro_uses |= RT_MACRO_KWARGS;
        else if (rt_parse_is_name(p, "caller"))
            p->macro_uses |= RT_MACRO_CALLER;
    }
    p->tok++;
    *out = e;
    return TP_OK;
}

static tp_status parse_list(rt_parser *p, rt_node **out)
{
    rt_node *e, **tail;

    TP_TRY(rt_parse_node(p, RT_N_LIST, &e));
    p->tok++;
    tail = &e->a;
    while (!rt_parse_is_op(p, ']')) {
        if (e->a != NULL)
            TP_TRY(rt_parse_expect_op(p, ','));
        if (rt_parse_is_op(p, ']'))
            break;
        TP_TRY(rt_parse_expr(p, tail));
        tail = &(*tail)->next;
    }
    *out = e;
    return rt_parse_expect_op(p, ']');
}

static tp_status parse_dict(rt_parser *p, rt_node **out)
{
    rt_node *e, **tail;

    TP_TRY(rt_parse_node(p, RT_N_DICT, &e));
    p->tok++;
    tail = &e->a;
    while (!rt_parse_is_op(p, '}')) {
        if (e->a != NULL)
            TP_TRY(rt_parse_expect_op(p, ','));
        if (rt_parse_is_op(p, '}'))
            break;
        TP_TRY(rt_parse_expr(p, tail));
        tail = &(*tail)->next;
        TP_TRY(rt_parse_expect_op(p, ':'));
        TP_TRY(rt_parse_expr(p, tail));
        tail = &(*tail)->next;
    }
    *out = e;
    return rt_parse_expect_op(p, '}');
}

static tp_status parse_primary(rt_parser *p, rt_node **out)
{
    switch (p->tok->kind) {
    case RT_TOK_NAME: return parse_name(p, out);
    case RT_TOK_STRING: return parse_string(p, out);
    case RT_TOK_INT:
    case RT_TOK_FLOAT: return parse_number(p, out);
    case RT_TOK_OP:
        if (p->tok->op == '(') {
            p->tok++;
            TP_TRY(rt_parse_tuple(p, RT_TUPLE_PARENS, NULL, out));
            return rt_parse_expect_op(p, ')');
        }
        if (p->tok->op == '[')
            return parse_list(p, out);
        if (p->tok->op == '{')
            return parse_dict(p, out);
        break;
    case RT_TOK_EOF:
    case RT_TOK_DATA:
    case RT_TOK_PRINT_BEGIN:
    case RT_TOK_PRINT_END:
    case RT_TOK_BLOCK_BEGIN:
    case RT_TOK_BLOCK_END: break;
    }
    return rt_parse_fail(p, "an expression is expected");
}

/* ---- postfix ---- */

static bool at_slice_end(const rt_parser *p)
{
    return rt_parse_is_op(p, ']') || rt_parse_is_op(p, ',');
}

/* What stands in [ ]: an expression or a slice, whose bounds go into node. */
static tp_status parse_subscript(rt_parser *p, rt_node *node)
{
    rt_node *first = NULL;

    if (!rt_parse_is_op(p, ':')) {
        TP_TRY(rt_parse_expr(p, &first));
        if (!rt_parse_is_op(p, ':')) {
            node->b = first;
            return TP_OK;
        }
    }
    node->kind = RT_N_SLICE;
    node->b = first;
    p->tok++;
    if (!rt_parse_is_op(p, ':') && !at_slice_end(p))
        TP_TRY(rt_parse_expr(p, &node->c));
    if (rt_parse_skip_op(p, ':') && !at_slice_end(p))
        TP_TRY(rt_parse_expr(p, &node->d));
    return TP_OK;
}

static tp_status parse_item(rt_parser *p, rt_node *obj, rt_node **out)
{
    rt_node *e, *tuple;

    TP_TRY(rt_parse_node(p, RT_N_ITEM, &e));
    e->a = obj;
    p->tok++;
    if (rt_parse_is_op(p, ']')) { /* x[]: an empty tuple */
        TP_TRY(rt_parse_node(p, RT_N_TUPLE, &e->b));
        *out = e;
        return rt_parse_expect_op(p, ']');
    }
    TP_TRY(parse_subscript(p, e));
    if (rt_parse_is_op(p, ',') && e->kind == RT_N_ITEM) { /* x[1, 2]: the key is a tuple */
        rt_node **tail = &e->b->next;

        TP_TRY(rt_parse_node(p, RT_N_TUPLE, &tuple));
        tuple->a = e->b;
        e->b = tuple;
        while (rt_parse_skip_op(p, ',')) {
            TP_TRY(rt_parse_expr(p, tail));
            tail = &(*tail)->next;
        }
    }
    *out = e;
    return rt_parse_expect_op(p, ']');
}

static tp_status parse_attr(rt_parser *p, rt_node *obj, rt_node **out)
{
    rt_node *e;
    rt_attr *attr;

    TP_TRY(rt_parse_node(p, RT_N_ATTR, &e));
    e->a = obj;
    p->tok++;
    *out = e;
    if (p->tok->kind == RT_TOK_INT) {
        e->kind = RT_N_ITEM;
        return parse_number(p, &e->b);
    }
    if (p->tok->kind != RT_TOK_NAME)
        return rt_parse_fail(p, "a name or number is expected behind the dot");
    attr = tp_arena_calloc(&p->ast->arena, 1, sizeof *attr);
    if (attr == NULL)
        return TP_REJECT(TP_ERR_NOMEM, "chat template: no memory");
    rt_tmpl_find_attr(p->tok->s, p->tok->n, attr);
    e->attr = attr;
    TP_TRY(rt_parse_str(p, p->tok->s, p->tok->n, &e->name));
    p->tok++;
    return TP_OK;
}

static tp_status parse_call(rt_parser *p, rt_node *fn, rt_node **out)
{
    rt_node *e;

    TP_TRY(rt_parse_node(p, RT_N_CALL, &e));
    e->a = fn;
    *out = e;
    return parse_call_args(p, &e->b);
}

static tp_status parse_postfix(rt_parser *p, rt_node **e)
{
    for (;;) {
        if (rt_parse_is_op(p, '.'))
            TP_TRY(parse_attr(p, *e, e));
        else if (rt_parse_is_op(p, '['))
            TP_TRY(parse_item(p, *e, e));
        else if (rt_parse_is_op(p, '('))
            TP_TRY(parse_call(p, *e, e));
        else
            return TP_OK;
    }
}

static tp_status parse_call_arg(rt_parser *p, rt_node **out)
{
    bool star2 = rt_parse_is_op(p, RT_OP2('*', '*'));
    rt_node *e;

    if (star2 || rt_parse_is_op(p, '*')) {
        TP_TRY(rt_parse_node(p, RT_N_SPREAD, &e));
        e->op = star2 ? 2 : 1;
        p->tok++;
        *out = e;
        return rt_parse_expr(p, &e->a);
    }
    if (p->tok->kind == RT_TOK_NAME && p->tok[1].kind == RT_TOK_OP && p->tok[1].op == '=') {
        TP_TRY(rt_parse_node(p, RT_N_KWARG, &e));
        TP_TRY(rt_parse_str(p, p->tok->s, p->tok->n, &e->name));
        p->tok += 2;
        *out = e;
        return rt_parse_expr(p, &e->a);
    }
    return rt_parse_expr(p, out);
}

static tp_status parse_call_args(rt_parser *p, rt_node **out)
{
    rt_node **tail = out;
    bool named = false;

    TP_TRY(rt_parse_expect_op(p, '('));
    while (!rt_parse_is_op(p, ')')) {
        if (*out != NULL)
            TP_TRY(rt_parse_expect_op(p, ','));
        if (rt_parse_is_op(p, ')'))
            break;
        TP_TRY(parse_call_arg(p, tail));
        if ((*tail)->kind == RT_N_KWARG || (*tail)->kind == RT_N_SPREAD)
            named = true;
        else if (named)
            return rt_parse_fail(p, "a positional argument behind a named one");
        tail = &(*tail)->next;
    }
    return rt_parse_expect_op(p, ')');
}

/* ---- filters and tests ---- */

static tp_status unknown(rt_parser *p, const char *what, const rt_token *name)
{
    if (p->soft)
        return TP_OK;
    return rt_parse_unsupported(p, "there is no %s named '%.*s'", what, (int)name->n, name->s);
}

static tp_status parse_filter(rt_parser *p, rt_node *in_node, rt_node **out)
{
    const rt_token *name = p->tok;
    rt_node *e;

    TP_TRY(rt_parse_node(p, RT_N_FILTER, &e));
    TP_TRY(rt_parse_expect_kind(p, RT_TOK_NAME, "the name of a filter"));
    TP_TRY(rt_parse_str(p, name->s, name->n, &e->name));
    e->a = in_node;
    e->builtin = rt_tmpl_find_filter(name->s, name->n);
    while (rt_parse_skip_op(p, '.')) { /* Jinja allows dots in the name; no filter has one */
        TP_TRY(rt_parse_expect_kind(p, RT_TOK_NAME, "the name of a filter"));
        e->builtin = NULL;
    }
    if (e->builtin == NULL)
        TP_TRY(unknown(p, "filter", name));
    if (rt_parse_is_op(p, '('))
        TP_TRY(parse_call_args(p, &e->b));
    *out = e;
    return TP_OK;
}

tp_status rt_parse_filters(rt_parser *p, rt_node *in_node, rt_node **out)
{
    TP_TRY(parse_filter(p, in_node, out));
    while (rt_parse_skip_op(p, '|'))
        TP_TRY(parse_filter(p, *out, out));
    return TP_OK;
}

/* May the token begin the argument of "x is divisibleby 3"? */
static bool begins_test_arg(const rt_parser *p)
{
    switch (p->tok->kind) {
    case RT_TOK_STRING:
    case RT_TOK_INT:
    case RT_TOK_FLOAT: return true;
    case RT_TOK_NAME:
        return !rt_parse_is_name(p, "else") && !rt_parse_is_name(p, "or") &&
               !rt_parse_is_name(p, "and");
    case RT_TOK_OP: return p->tok->op == '[' || p->tok->op == '{';
    case RT_TOK_EOF:
    case RT_TOK_DATA:
    case RT_TOK_PRINT_BEGIN:
    case RT_TOK_PRINT_END:
    case RT_TOK_BLOCK_BEGIN:
    case RT_TOK_BLOCK_END: break;
    }
    return false;
}

static tp_status parse_test(rt_parser *p, rt_node *in_node, rt_node **out)
{
    bool negated;
    const rt_token *name;
    rt_node *e, *not_node;

    p->tok++;
    negated = rt_parse_skip_name(p, "not");
    name = p->tok;
    TP_TRY(rt_parse_node(p, RT_N_TEST, &e));
    TP_TRY(rt_parse_expect_kind(p, RT_TOK_NAME, "the name of a test"));
    TP_TRY(rt_parse_str(p, name->s, name->n, &e->name));
    e->a = in_node;
    e->builtin = rt_tmpl_find_test(name->s, name->n);
    if (e->builtin == NULL)
        TP_TRY(unknown(p, "test", name));
    if (rt_parse_is_op(p, '(')) {
        TP_TRY(parse_call_args(p, &e->b));
    } else if (begins_test_arg(p)) {
        if (rt_parse_is_name(p, "is"))
            return rt_parse_fail(p, "tests cannot be chained with 'is'");
        TP_TRY(parse_primary(p, &e->b));
        TP_TRY(parse_postfix(p, &e->b));
    }
    *out = e;
    if (negated) {
        TP_TRY(rt_parse_node(p, RT_N_NOT, &not_node));
        not_node->a = e;
        *out = not_node;
    }
    return TP_OK;
}

static tp_status parse_filter_chain(rt_parser *p, rt_node **e)
{
    for (;;) {
        if (rt_parse_skip_op(p, '|'))
            TP_TRY(parse_filter(p, *e, e));
        else if (rt_parse_is_name(p, "is"))
            TP_TRY(parse_test(p, *e, e));
        else if (rt_parse_is_op(p, '('))
            TP_TRY(parse_call(p, *e, e));
        else
            return TP_OK;
    }
}

/* ---- operators ---- */

static tp_status parse_sign(rt_parser *p, rt_node **out)
{
    rt_node *e;

    TP_TRY(rt_parse_enter(p));
    TP_TRY(rt_parse_node(p, rt_parse_is_op(p, '-') ? RT_N_NEG : RT_N_POS, &e));
    p->tok++;
    TP_TRY(parse_unary(p, false, &e->a));
    p->depth--;
    *out = e;
    return TP_OK;
}

static tp_status parse_unary(rt_parser *p, bool with_filters, rt_node **out)
{
    if (rt_parse_is_op(p, '-') || rt_parse_is_op(p, '+'))
        TP_TRY(parse_sign(p, out));
    else
        TP_TRY(parse_primary(p, out));
    TP_TRY(parse_postfix(p, out));
    return with_filters ? parse_filter_chain(p, out) : TP_OK;
}

static tp_status parse_binary(rt_parser *p, rt_node **left, rt_node **right_slot_owner)
{
    rt_node *e;

    TP_TRY(rt_parse_node(p, RT_N_BINARY, &e));
    e->op = p->tok->op;
    e->a = *left;
    p->tok++;
    *left = e;
    *right_slot_owner = e;
    return TP_OK;
}

static tp_status parse_pow(rt_parser *p, rt_node **out)
{
    rt_node *e;

    TP_TRY(parse_unary(p, true, out));
    while (rt_parse_is_op(p, RT_OP2('*', '*'))) {
        TP_TRY(parse_binary(p, out, &e));
        TP_TRY(parse_unary(p, true, &e->b));
    }
    return TP_OK;
}

static tp_status parse_product(rt_parser *p, rt_node **out)
{
    rt_node *e;

    TP_TRY(parse_pow(p, out));
    while (rt_parse_is_op(p, '*') || rt_parse_is_op(p, '/') || rt_parse_is_op(p, '%') ||
           rt_parse_is_op(p, RT_OP2('/', '/'))) {
        TP_TRY(parse_binary(p, out, &e));
        TP_TRY(parse_pow(p, &e->b));
    }
    return TP_OK;
}

static tp_status parse_concat(rt_parser *p, rt_node **out)
{
    rt_node *e, **tail;

    TP_TRY(parse_product(p, out));
    if (!rt_parse_is_op(p, '~'))
        return TP_OK;
    TP_TRY(rt_parse_node(p, RT_N_CONCAT, &e));
    e->a = *out;
    tail = &e->a->next;
    while (rt_parse_skip_op(p, '~')) {
        TP_TRY(parse_product(p, tail));
        tail = &(*tail)->next;
    }
    *out = e;
    return TP_OK;
}

static tp_status parse_sum(rt_parser *p, rt_node **out)
{
    rt_node *e;

    TP_TRY(parse_concat(p, out));
    while (rt_parse_is_op(p, '+') || rt_parse_is_op(p, '-')) {
        TP_TRY(parse_binary(p, out, &e));
        TP_TRY(parse_concat(p, &e->b));
    }
    return TP_OK;
}

/* 'i' = in, 'n' = not in, else the operator; 0 = none.  Skips it. */
static int comparison(rt_parser *p)
{
    static const int ops[] = {RT_OP2('=', '='), RT_OP2('!', '='), '<', '>',
                              RT_OP2('<', '='), RT_OP2('>', '=')};

    for (size_t i = 0; i < TP_ARRAY_LEN(ops); i++)
        if (rt_parse_skip_op(p, ops[i]))
            return ops[i];
    if (rt_parse_skip_name(p, "in"))
        return 'i';
    if (rt_parse_is_name(p, "not") && p->tok[1].kind == RT_TOK_NAME && p->tok[1].n == 2 &&
        memcmp(p->tok[1].s, "in", 2) == 0) {
        p->tok += 2;
        return 'n';
    }
    return 0;
}

static tp_status parse_compare(rt_parser *p, rt_node **out)
{
    rt_node *e = NULL, **tail = NULL;
    int op;

    TP_TRY(parse_sum(p, out));
    while ((op = comparison(p)) != 0) {
        if (e == NULL) {
            TP_TRY(rt_parse_node(p, RT_N_COMPARE, &e));
            e->a = *out;
            tail = &e->b;
            *out = e;
        }
        TP_TRY(rt_parse_node(p, RT_N_OPERAND, tail));
        (*tail)->op = op;
        TP_TRY(parse_sum(p, &(*tail)->a));
        tail = &(*tail)->next;
    }
    return TP_OK;
}

static tp_status parse_not(rt_parser *p, rt_node **out)
{
    rt_node *e;

    if (!rt_parse_is_name(p, "not"))
        return parse_compare(p, out);
    TP_TRY(rt_parse_enter(p));
    TP_TRY(rt_parse_node(p, RT_N_NOT, &e));
    p->tok++;
    TP_TRY(parse_not(p, &e->a));
    p->depth--;
    *out = e;
    return TP_OK;
}

static tp_status parse_and(rt_parser *p, rt_node **out)
{
    rt_node *e;

    TP_TRY(parse_not(p, out));
    while (rt_parse_is_name(p, "and")) {
        TP_TRY(rt_parse_node(p, RT_N_AND, &e));
        p->tok++;
        e->a = *out;
        *out = e;
        TP_TRY(parse_not(p, &e->b));
    }
    return TP_OK;
}

static tp_status parse_or(rt_parser *p, rt_node **out)
{
    rt_node *e;

    TP_TRY(parse_and(p, out));
    while (rt_parse_is_name(p, "or")) {
        TP_TRY(rt_parse_node(p, RT_N_OR, &e));
        p->tok++;
        e->a = *out;
        *out = e;
        TP_TRY(parse_and(p, &e->b));
    }
    return TP_OK;
}

tp_status rt_parse_expr(rt_parser *p, rt_node **out)
{
    rt_node *value = NULL, *e;
    bool soft = p->soft;

    TP_TRY(rt_parse_enter(p));
    TP_TRY(parse_or(p, &value));
    while (rt_parse_is_name(p, "if")) {
        TP_TRY(rt_parse_node(p, RT_N_COND, &e));
        p->tok++;
        e->b = value;
        value = e;
        p->soft = true;
        TP_TRY(parse_or(p, &e->a));
        if (rt_parse_skip_name(p, "else"))
            TP_TRY(rt_parse_expr(p, &e->c));
        p->soft = soft;
    }
    p->depth--;
    *out = value;
    return TP_OK;
}

static bool at_tuple_end(const rt_parser *p, const char *end_name)
{
    return p->tok->kind == RT_TOK_PRINT_END || p->tok->kind == RT_TOK_BLOCK_END ||
           rt_parse_is_op(p, ')') || (end_name != NULL && rt_parse_is_name(p, end_name));
}

static tp_status parse_tuple_item(rt_parser *p, rt_tuple_mode mode, rt_node **out)
{
    if (mode == RT_TUPLE_NO_COND)
        return parse_or(p, out);
    return mode == RT_TUPLE_TARGET ? parse_primary(p, out) : rt_parse_expr(p, out);
}

tp_status rt_parse_tuple(rt_parser *p, rt_tuple_mode mode, const char *end_name, rt_node **out)
{
    rt_node *first = NULL, **tail = &first, *e;
    bool is_tuple = false;

    TP_TRY(rt_parse_enter(p));
    while (!at_tuple_end(p, end_name)) {
        TP_TRY(parse_tuple_item(p, mode, tail));
        tail = &(*tail)->next;
        if (!rt_parse_skip_op(p, ','))
            break;
        is_tuple = true;
    }
    p->depth--;
    if (!is_tuple && first != NULL) {
        *out = first;
        return TP_OK;
    }
    if (!is_tuple && mode != RT_TUPLE_PARENS)
        return rt_parse_fail(p, "an expression is expected");
    TP_TRY(rt_parse_node(p, RT_N_TUPLE, &e));
    e->a = first;
    *out = e;
    return TP_OK;
}
