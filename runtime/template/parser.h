/* SPDX-License-Identifier: Apache-2.0 */
/* parser.h - shared by parse_expr.c and parse_stmt.c. */
#ifndef RT_TEMPLATE_PARSER_H
#define RT_TEMPLATE_PARSER_H

#include "runtime/template/ast.h"

#define RT_PARSE_DEPTH_MAX 120 /* nested brackets, operators and blocks: bounds the C stack */

typedef struct rt_parser {
    rt_ast *ast;
    const rt_token *tok; /* current */
    int depth;
    int n_macros;   /* macros and call blocks seen so far */
    int macro_uses; /* RT_MACRO_* bits: which special names the current macro's body mentions */
    bool soft;      /* inside an if: an unknown filter is an error only once it is reached */
} rt_parser;

tp_status rt_parse_fail(const rt_parser *p, const char *fmt, ...) TP_PRINTF(2, 3);
tp_status rt_parse_unsupported(const rt_parser *p, const char *fmt, ...) TP_PRINTF(2, 3);
tp_status rt_parse_node(rt_parser *p, rt_node_kind kind, rt_node **out);
tp_status rt_parse_str(rt_parser *p, const char *s, size_t n, rt_str **out);
tp_status rt_parse_symbol(rt_parser *p, const rt_token *name,
                          rt_node *node); /* sets sym and name */
tp_status rt_parse_enter(rt_parser *p);

bool rt_parse_is_op(const rt_parser *p, int op);
bool rt_parse_is_name(const rt_parser *p, const char *name);
bool rt_parse_skip_op(rt_parser *p, int op);
bool rt_parse_skip_name(rt_parser *p, const char *name);
tp_status rt_parse_expect_op(rt_parser *p, int op);
tp_status rt_parse_expect_kind(rt_parser *p, rt_token_kind kind, const char *what);

typedef enum rt_tuple_mode {
    RT_TUPLE_FULL,
    RT_TUPLE_PARENS,  /* inside brackets: may be empty */
    RT_TUPLE_NO_COND, /* an `if` behind it belongs to the statement */
    RT_TUPLE_TARGET   /* names and literals only: what is assigned to */
} rt_tuple_mode;

tp_status rt_parse_expr(rt_parser *p, rt_node **out);
tp_status rt_parse_tuple(rt_parser *p, rt_tuple_mode mode, const char *end_name, rt_node **out);
/* One filter after another, from the first name on; in_node may be NULL (a filter block). */
tp_status rt_parse_filters(rt_parser *p, rt_node *in_node, rt_node **out);

#endif
