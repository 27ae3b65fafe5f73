/* SPDX-License-Identifier: Apache-2.0 */
/* template.c - compile and render; what a template tells about itself. */
#include "runtime/template/template.h"

#include <string.h>

#include "base/mem.h"
#include "runtime/template/input.h"

#define SOURCE_MAX     ((size_t)1 << 20)
#define AST_BYTES_MAX  ((size_t)256 << 20)
#define OPS_MAX        1000000
#define OUTPUT_MAX     ((size_t)8 << 20)
#define MEMORY_MAX     ((size_t)64 << 20)
#define DEPTH_MAX      64
#define TIME_MAX_MS    100
#define LOOK_DEPTH_MAX 300

struct rt_template {
    rt_ast ast;
    char *source; /* owned */
    size_t n_source;
    bool wants_parts;
};

/* ---- does it walk through message.content? ---- */

/* x, x[...], x|filter: the expression that everything else is applied to. */
static const rt_node *base_of(const rt_node *e)
{
    while (e->kind == RT_N_FILTER || e->kind == RT_N_SLICE)
        e = e->a;
    return e;
}

static bool is_content(const rt_node *e)
{
    if (e->kind == RT_N_ATTR)
        return rt_str_is(e->name, "content");
    if (e->kind == RT_N_ITEM && e->b->kind == RT_N_CONST && e->b->value.kind == RT_STR)
        return rt_str_is(e->b->value.u.str, "content");
    return e->kind == RT_N_NAME && rt_str_is(e->name, "content");
}

/* Is some variable of this name set from a content? */
static bool assigned_content(const rt_node *e, int sym, int depth)
{
    for (; e != NULL && depth < LOOK_DEPTH_MAX; e = e->next) {
        if (e->kind == RT_N_SET && e->a->kind == RT_N_NAME && e->a->sym == sym &&
            base_of(e->b) != NULL && is_content(base_of(e->b)))
            return true;
        if (e->kind >= RT_N_TEXT &&
            (assigned_content(e->c, sym, depth + 1) ||
             (e->kind == RT_N_IF && assigned_content(e->b, sym, depth + 1)) ||
             (e->kind == RT_N_FOR && assigned_content(e->d, sym, depth + 1))))
            return true;
    }
    return false;
}

static bool walks_content(const rt_ast *ast, const rt_node *e, int depth)
{
    for (; e != NULL && depth < LOOK_DEPTH_MAX; e = e->next) {
        if (e->kind == RT_N_FOR) {
            const rt_node *base = base_of(e->b);

            if (is_content(base) ||
                (base->kind == RT_N_NAME && assigned_content(ast->body, base->sym, 0)))
                return true;
        }
        if (e->kind >= RT_N_TEXT && (walks_content(ast, e->c, depth + 1) ||
                                     (e->kind == RT_N_IF && walks_content(ast, e->b, depth + 1)) ||
                                     (e->kind == RT_N_FOR && walks_content(ast, e->d, depth + 1))))
            return true;
    }
    return false;
}

/* ---- life ---- */

tp_status rt_template_compile(rt_template **out, const char *source, size_t n)
{
    tp_status st = TP_ERR_NOMEM;
    rt_template *t;

    TP_ASSERT(out != NULL && (source != NULL || n == 0));
    if (n > SOURCE_MAX)
        return TP_REJECT(TP_ERR_LIMIT, "a chat template of %zu bytes; at most %zu are read", n,
                         SOURCE_MAX);
    t = tp_calloc(1, sizeof *t);
    if (t == NULL)
        return TP_REJECT(TP_ERR_NOMEM, "chat template: no memory");
    tp_arena_init(&t->ast.arena, AST_BYTES_MAX);
    t->source = tp_malloc(n + 1);
    if (t->source == NULL) {
        st = TP_REJECT(TP_ERR_NOMEM, "chat template: no memory for %zu bytes", n);
        goto fail;
    }
    if (n > 0)
        memcpy(t->source, source, n);
    t->source[n] = '\0';
    t->n_source = n;
    TP_TRY_GOTO(st, rt_tmpl_parse(&t->ast, t->source, n), fail);
    t->wants_parts = walks_content(&t->ast, t->ast.body, 0);
    *out = t;
    return TP_OK;
fail:
    rt_template_destroy(t);
    return st;
}

void rt_template_destroy(rt_template *t)
{
    if (t == NULL)
        return;
    tp_arena_release(&t->ast.arena);
    tp_free(t->source);
    tp_free(t);
}

bool rt_template_wants_parts(const rt_template *t)
{
    return t->wants_parts;
}

bool rt_template_mentions(const rt_template *t, const char *word)
{
    return memmem(t->source, t->n_source, word, strlen(word)) != NULL;
}

/* ---- rendering ---- */

static void render_init(rt_render *r, const rt_template *t, const rt_template_limits *limits,
                        bool marked)
{
    rt_template_limits l = limits != NULL ? *limits : (rt_template_limits){0};

    *r = (rt_render){
        .ast = &t->ast,
        .marked = marked,
        .ops_left = l.ops_max > 0 ? l.ops_max : OPS_MAX,
        .depth_max = l.depth_max > 0 ? l.depth_max : DEPTH_MAX,
        .time_max_ms = l.time_max_ms > 0 ? l.time_max_ms : TIME_MAX_MS,
        .now_unix = l.now_unix,
    };
    r->ops_next_look = r->ops_left; /* the first charge starts the clock */
    tp_arena_init(&r->arena, l.memory_max > 0 ? l.memory_max : MEMORY_MAX);
    tp_buf_init(&r->work, l.output_max > 0 ? l.output_max : OUTPUT_MAX);
    tp_buf_init(&r->shade, r->work.max);
}

static void render_release(rt_render *r)
{
    tp_arena_release(&r->arena);
    tp_buf_release(&r->work);
    tp_buf_release(&r->shade);
}

static tp_status run(rt_render *r, const rt_template *t, const rt_template_input *in,
                     rt_continuation *cont)
{
    size_t n = (size_t)t->ast.n_symbols;
    rt_scope top = {0};

    TP_TRY(rt_tmpl_array(r, n, &r->top));
    memset(r->top, 0, n * sizeof *r->top);
    TP_TRY(rt_input_bind(r, in, t->source, t->n_source, cont));
    for (int i = 0; i < t->ast.owned.n; i++)
        TP_TRY(rt_tmpl_make_undefined(r, t->ast.symbols[t->ast.owned.at[i]], NULL, false,
                                      &r->top[t->ast.owned.at[i]]));
    return rt_tmpl_exec(r, &top, t->ast.body);
}

static tp_status add_span(rt_template_spans *spans, size_t begin, size_t end)
{
    if (spans->n == spans->cap) {
        size_t cap = spans->cap == 0 ? 16 : 2 * spans->cap;
        rt_template_span *items = tp_realloc(spans->items, cap * sizeof *items);

        if (items == NULL)
            return TP_REJECT(TP_ERR_NOMEM, "chat template: no memory for %zu spans", cap);
        spans->items = items;
        spans->cap = cap;
    }
    spans->items[spans->n++] = (rt_template_span){begin, end};
    return TP_OK;
}

static tp_status collect_spans(const char *shade, size_t n, size_t offset, rt_template_spans *spans)
{
    size_t at = 0;

    while (at < n) {
        const char *begin = memchr(shade + at, 1, n - at), *end;

        if (begin == NULL)
            break;
        end = memchr(begin, 0, n - (size_t)(begin - shade));
        at = end != NULL ? (size_t)(end - shade) : n;
        TP_TRY(add_span(spans, offset + (size_t)(begin - shade), offset + at));
    }
    return TP_OK;
}

tp_status rt_template_render_marked(const rt_template *t, const rt_template_input *in,
                                    const rt_template_limits *limits, tp_buf *out,
                                    rt_template_spans *spans)
{
    size_t n_spans = spans != NULL ? spans->n : 0, n = 0;
    rt_continuation cont;
    tp_status st;
    rt_render r;

    TP_ASSERT(t != NULL && in != NULL && out != NULL);
    render_init(&r, t, limits, spans != NULL);
    TP_TRY_GOTO(st, run(&r, t, in, &cont), done);
    TP_TRY_GOTO(st, rt_input_cut(&cont, tp_buf_str(&r.work), r.work.len, &n), done);
    if (!tp_buf_reserve(out, n)) {
        st = out->max - out->len < n
                 ? TP_REJECT(TP_ERR_LIMIT, "the rendered chat has %zu bytes; at most %zu fit", n,
                             out->max)
                 : TP_REJECT(TP_ERR_NOMEM, "chat template: no memory for %zu bytes", n);
        goto done;
    }
    if (spans != NULL)
        TP_TRY_GOTO(st, collect_spans(tp_buf_str(&r.shade), n, out->len, spans), done);
    tp_buf_put(out, tp_buf_str(&r.work), n);
done:
    if (st != TP_OK && spans != NULL)
        spans->n = n_spans;
    render_release(&r);
    return st;
}

tp_status rt_template_render(const rt_template *t, const rt_template_input *in,
                             const rt_template_limits *limits, tp_buf *out)
{
    return rt_template_render_marked(t, in, limits, out, NULL);
}
