/* SPDX-License-Identifier: Apache-2.0 */
/* interp.h - one render: scopes, budgets, output, and the evaluator's own functions.
 *
 * Everything that a render makes lives in its arena and is gone when it ends.  Text under construction (the
 * output, a macro's result, a filter's result) is always at the end of one buffer: a builder takes a mark,
 * appends, and cuts what lies behind the mark into a string.
 */
#ifndef RT_TEMPLATE_INTERP_H
#define RT_TEMPLATE_INTERP_H

#include "base/arena.h"
#include "base/buf.h"
#include "runtime/template/ast.h"
#include "runtime/template/template.h"

#define RT_LEVELS_MAX      1600 /* nested evaluations: bounds the C stack (about 500 bytes each) */
#define RT_VALUE_DEPTH_MAX 128  /* nesting of a value that is printed or compared */
#define RT_RANGE_MAX       100000 /* as Jinja's sandbox */

typedef struct rt_binding {
    struct rt_binding *next;
    rt_val val;
    int sym;
} rt_binding;

typedef struct rt_scope {
    struct rt_scope *parent; /* NULL: the template's own variables, in rt_render.top */
    rt_binding *first;
} rt_scope;

struct rt_macro {
    const rt_node *node;
    rt_scope *scope; /* where it was defined */
};

struct rt_loop {
    rt_val iterable;     /* a range is walked without being spelled out */
    const rt_val *items; /* NULL for a range */
    size_t n, pos;
    int depth;
    rt_val changed; /* last arguments of loop.changed(), a tuple; MISSING at first */
};

enum { RT_FLOW_NORMAL, RT_FLOW_BREAK, RT_FLOW_CONTINUE };

struct rt_render {
    const rt_ast *ast;
    tp_arena arena;
    tp_buf work;  /* output so far, then whatever is being built */
    tp_buf shade; /* one byte per byte of work; used when marked */
    bool marked;
    char *tip, *tip_end; /* room for new strings; shade of a byte at tip is at tip + tip_shade */
    size_t tip_shade;
    rt_val *top; /* by symbol; MISSING = not set */
    rt_binding *spare;
    int line; /* of the node evaluated last: for messages */
    int flow;
    int levels, calls, loops;
    int depth_max;
    int64_t ops_left;
    int64_t ops_next_look; /* look at the clock when ops_left falls below */
    int64_t cpu_end_ns;
    int64_t time_max_ms;
    int64_t now_unix;
};

/* ---- failure ---- */

/* "line N: ..." for the client; INVALID. */
tp_status rt_tmpl_error(rt_render *r, const char *fmt, ...) TP_PRINTF(2, 3);
/* "... is undefined", or the security error that hides behind it. */
tp_status rt_tmpl_undefined_error(rt_render *r, rt_val v);
tp_status rt_tmpl_no_memory(rt_render *r, size_t wanted);
tp_status rt_tmpl_over_budget(rt_render *r);

static inline tp_status rt_tmpl_charge(rt_render *r, size_t cost)
{
    r->ops_left -= (int64_t)cost;
    return TP_LIKELY(r->ops_left > r->ops_next_look) ? TP_OK : rt_tmpl_over_budget(r);
}

/* Text in a message: at most 100 bytes, cut between code points. */
#define RT_QUOTE_MAX 100
int rt_tmpl_quote_len(const rt_str *s);

/* ---- memory and output ---- */

/* Errors: LIMIT or NOMEM. */
tp_status rt_tmpl_alloc(rt_render *r, size_t size, void *out_pointer);
tp_status rt_tmpl_array(rt_render *r, size_t n, rt_val **out);

static inline size_t rt_out_mark(const rt_render *r)
{
    return r->work.len;
}
tp_status rt_out_bytes(rt_render *r, const char *s, size_t n, bool user);
tp_status rt_out_puts(rt_render *r, const char *s);
tp_status rt_out_str(rt_render *r, const rt_str *s);
tp_status rt_out_part(rt_render *r, const rt_str *s, size_t begin, size_t end);
/* Removes what was appended since the mark and makes a string of it. */
tp_status rt_out_cut(rt_render *r, size_t mark, rt_val *out);

/* ---- printing (repr.c, tojson.c, str_format.c, strftime.c) ---- */

tp_status rt_out_value(rt_render *r, rt_val v); /* str(v) */
tp_status rt_out_repr(rt_render *r, rt_val v);
tp_status rt_val_to_str(rt_render *r, rt_val v, rt_str **out); /* str(v); keeps Markup */
size_t rt_float_repr(double f, char out[40]);
tp_status rt_out_escaped(rt_render *r, const rt_str *s); /* HTML */
tp_status rt_val_escape(rt_render *r, rt_val v, rt_val *out);
tp_status rt_tmpl_percent(rt_render *r, rt_str *format, rt_val args, rt_val *out);
tp_status rt_tmpl_format(rt_render *r, rt_str *format, const rt_args *a, rt_val *out);
tp_status rt_tmpl_strftime(rt_render *r, const rt_str *format, rt_val *out);

typedef struct rt_json_style {
    bool ascii, sort_keys, pretty;
    rt_str *indent; /* with pretty */
    rt_str *item_sep, *key_sep;
} rt_json_style;
tp_status rt_out_json(rt_render *r, rt_val v, const rt_json_style *style, int depth);

/* ---- evaluation ---- */

tp_status rt_tmpl_eval(rt_render *r, rt_scope *sc, const rt_node *e, rt_val *out);
tp_status rt_tmpl_exec(rt_render *r, rt_scope *sc, const rt_node *first);
tp_status rt_tmpl_lookup(rt_render *r, const rt_scope *sc, const rt_node *name, rt_val *out);
tp_status rt_tmpl_bind(rt_render *r, rt_scope *sc, int sym, rt_val v);
tp_status rt_tmpl_assign(rt_render *r, rt_scope *sc, const rt_node *target, rt_val v);
tp_status rt_tmpl_binary(rt_render *r, int op, rt_val a, rt_val b, rt_val *out);
tp_status rt_tmpl_apply_filter(rt_render *r, rt_scope *sc, const rt_node *filter, rt_val in,
                               rt_val *out);
tp_status rt_tmpl_call_macro(rt_render *r, const rt_macro *m, const rt_args *a, rt_val caller,
                             rt_val *out);
tp_status rt_tmpl_call(rt_render *r, rt_val fn, const rt_args *a, rt_val *out);
tp_status rt_tmpl_call_builtin(rt_render *r, const rt_builtin *fn, rt_val self, const rt_args *a,
                               rt_val *out);
tp_status rt_tmpl_eval_args(rt_render *r, rt_scope *sc, const rt_node *first, rt_args *out);
tp_status rt_tmpl_attr(rt_render *r, rt_val obj, const rt_attr *attr, rt_str *name, rt_val *out);
tp_status rt_tmpl_item(rt_render *r, rt_val obj, rt_val key, rt_val *out);
tp_status rt_tmpl_slice(rt_render *r, rt_val obj, const rt_val bounds[3], rt_val *out);
tp_status rt_tmpl_make_undefined(rt_render *r, const rt_str *name, const char *owner, bool unsafe,
                                 rt_val *out);
rt_val rt_loop_at(const rt_loop *l, size_t i);

/* ---- characters (characters.c) ---- */

bool rt_cp_is_space(uint32_t cp); /* Python's str.isspace */
bool rt_cp_is_alpha(uint32_t cp);
bool rt_cp_is_digit(uint32_t cp);
bool rt_cp_is_decimal(uint32_t cp);
bool rt_cp_is_numeric(uint32_t cp);
bool rt_cp_is_upper(uint32_t cp);
bool rt_cp_is_lower(uint32_t cp);
bool rt_cp_is_printable(uint32_t cp);
/* Full case mapping: up to 3 code points; returns the count. */
int rt_cp_upper(uint32_t cp, uint32_t out[3]);
int rt_cp_lower(uint32_t cp, uint32_t out[3]);
int rt_cp_title(uint32_t cp, uint32_t out[3]);
/* Bounds of s without the whitespace (chars NULL) or the given characters at its ends. */
void rt_str_trim(const rt_str *s, const rt_str *chars, bool left, bool right, size_t *begin,
                 size_t *end);
size_t rt_utf8_next(const char *s, size_t n, size_t at,
                    uint32_t *cp);                           /* offset after the code point */
size_t rt_utf8_prev(const char *s, size_t at, uint32_t *cp); /* offset of the one before */

#endif
