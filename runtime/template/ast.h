/* SPDX-License-Identifier: Apache-2.0 */
/* ast.h - tokens and syntax tree of a template.
 *
 * One node type for everything; what its fields hold is listed per kind.  Nodes live in the arena of the
 * template and never change after parsing, so any number of threads may evaluate them.
 */
#ifndef RT_TEMPLATE_AST_H
#define RT_TEMPLATE_AST_H

#include "base/arena.h"
#include "runtime/template/value.h"

/* ---- tokens ---- */

typedef enum rt_token_kind {
    RT_TOK_EOF,
    RT_TOK_DATA,        /* template text */
    RT_TOK_PRINT_BEGIN, /* {{ */
    RT_TOK_PRINT_END,
    RT_TOK_BLOCK_BEGIN, /* {% */
    RT_TOK_BLOCK_END,
    RT_TOK_NAME,
    RT_TOK_STRING, /* decoded */
    RT_TOK_INT,
    RT_TOK_FLOAT,
    RT_TOK_OP /* op: the characters, e.g. '+' or '*' << 8 | '*' */
} rt_token_kind;

typedef struct rt_token {
    rt_token_kind kind;
    int line;
    int op;
    const char *s; /* DATA, NAME, STRING, INT, FLOAT */
    size_t n;
} rt_token;

#define RT_OP2(a, b) ((a) << 8 | (b))

typedef struct rt_tokens {
    const rt_token *items; /* ends with EOF */
    size_t n;
} rt_tokens;

/* Cuts the source, all whitespace rules applied.  The tokens point into src or the arena. */
TP_MUST_USE tp_status rt_tmpl_lex(tp_arena *arena, const char *src, size_t n, rt_tokens *out);

/* ---- tree ---- */

typedef enum rt_node_kind {
    /* expressions */
    RT_N_CONST,  /* value */
    RT_N_NAME,   /* sym, name */
    RT_N_LIST,   /* a = first item, chained by next */
    RT_N_TUPLE,  /* the same */
    RT_N_DICT,   /* a = first key, each key chained to its value, that to the next key */
    RT_N_ATTR,   /* a . name; attr */
    RT_N_ITEM,   /* a [ b ] */
    RT_N_SLICE,  /* a [ b : c : d ], each of b, c, d may be NULL */
    RT_N_CALL,   /* a ( b... ): arguments chained by next; see RT_N_KWARG */
    RT_N_KWARG,  /* name = a, in an argument chain */
    RT_N_SPREAD, /* * a, in an argument chain; op = 2 for ** */
    RT_N_FILTER, /* a | name ( b... ); builtin.  a == NULL: the captured body */
    RT_N_TEST,   /* a is name ( b... ); builtin */
    RT_N_NOT,
    RT_N_NEG,
    RT_N_POS,
    RT_N_AND,
    RT_N_OR,
    RT_N_COND,    /* b if a else c; c may be NULL */
    RT_N_COMPARE, /* a, then operands chained from b, each with its op */
    RT_N_OPERAND, /* op a */
    RT_N_BINARY,  /* a op b */
    RT_N_CONCAT,  /* a ~ b ~ ..., chained from a */
    /* statements, chained by next */
    RT_N_TEXT,  /* value = string */
    RT_N_PRINT, /* a */
    RT_N_IF, /* a = condition, b = body, c = else branch (a chain, or the IF of an elif; flag: is one) */
    RT_N_FOR, /* a = target, b = iterable, c = body, d = else, e = filter; flag: body may be captured */
    RT_N_SET,        /* a = target, b = value */
    RT_N_SET_BLOCK,  /* a = target, b = filter or NULL, c = body */
    RT_N_NSREF,      /* target: sym . name */
    RT_N_MACRO,      /* sym, name, a = parameters (NAME, default in b), c = body; op: RT_MACRO_* */
    RT_N_CALL_BLOCK, /* a = call, b = MACRO that becomes `caller` */
    RT_N_FILTER_BLOCK, /* b = filter, c = body */
    RT_N_WITH,         /* a = SET chain, c = body */
    RT_N_SCOPE,        /* c = body: {% generation %} */
    RT_N_BREAK,
    RT_N_CONTINUE
} rt_node_kind;

enum { RT_MACRO_VARARGS = 1, RT_MACRO_KWARGS = 2, RT_MACRO_CALLER = 4 };

/* What an attribute name can mean, found once when the template is parsed. */
typedef struct rt_attr {
    const rt_builtin *str_fn, *dict_fn, *list_fn; /* methods of that name; NULL = none */
    bool str_has, dict_has, list_has; /* Python's type has it, even if we do not call it */
    bool private_name;                /* begins with __ : the sandbox hides it */
    int loop_field;                   /* RT_LOOP_*, 0 = none */
} rt_attr;

/* Variables, as symbols. */
typedef struct rt_syms {
    const int *at;
    int n;
} rt_syms;

typedef struct rt_node {
    rt_node_kind kind;
    int line;
    int op;
    int sym; /* NAME, MACRO, NSREF: interned variable; index into a render's variables */
    bool flag;
    struct rt_node *a, *b, *c, *d, *e;
    struct rt_node *next;
    rt_str *name;
    const rt_attr *attr;
    const rt_builtin *builtin; /* NULL when the name is unknown: an error once it is reached */
    rt_val value;
    rt_syms owned,
        owned_else; /* what a body (FOR: and its else) hides before it sets it: see scopes.c */
} rt_node;

typedef struct rt_ast {
    tp_arena arena; /* nodes, literals, names */
    rt_node *body;
    rt_syms owned;              /* of the template itself */
    rt_str **symbols;           /* interned variable names */
    const rt_builtin **globals; /* per symbol: the function of that name, or NULL */
    int n_symbols, cap_symbols;
} rt_ast;

/* Errors as rt_template_compile. */
TP_MUST_USE tp_status rt_tmpl_parse(rt_ast *ast, const char *src, size_t n);
/* Fills in the owned names of all scopes.  Errors: LIMIT, NOMEM. */
TP_MUST_USE tp_status rt_tmpl_find_scopes(rt_ast *ast);
int rt_ast_symbol(const rt_ast *ast, const char *name); /* -1 when the template never uses it */

/* ---- tables of builtins; NULL when unknown ---- */

const rt_builtin *rt_tmpl_find_filter(const char *name, size_t n);
const rt_builtin *rt_tmpl_find_test(const char *name, size_t n);
const rt_builtin *rt_tmpl_find_global(const char *name, size_t n);
const rt_builtin *rt_tmpl_find(const rt_builtin *table, size_t n_table, const char *name, size_t n);
void rt_tmpl_find_attr(const char *name, size_t n, rt_attr *out);

/* Fields of `loop`. */
enum {
    RT_LOOP_INDEX = 1,
    RT_LOOP_INDEX0,
    RT_LOOP_REVINDEX,
    RT_LOOP_REVINDEX0,
    RT_LOOP_FIRST,
    RT_LOOP_LAST,
    RT_LOOP_LENGTH,
    RT_LOOP_DEPTH,
    RT_LOOP_DEPTH0,
    RT_LOOP_PREVITEM,
    RT_LOOP_NEXTITEM,
    RT_LOOP_CYCLE,
    RT_LOOP_CHANGED
};

#endif
