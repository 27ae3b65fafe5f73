/* SPDX-License-Identifier: Apache-2.0 */
/* template.h - chat templates: a sandboxed interpreter of the part of Jinja2 that they use.
 *
 * Renders as transformers' apply_chat_template does (trim_blocks, lstrip_blocks, tojson = json.dumps without
 * ASCII escapes, raise_exception, strftime_now).  A compiled template is immutable: any thread may render it.
 * Nothing a template or a request says can do I/O, run for ever or take unbounded memory: every render has
 * budgets of operations, output bytes, memory, recursion and time.
 */
#ifndef RT_TEMPLATE_H
#define RT_TEMPLATE_H

#include "base/buf.h"
#include "base/json.h"
#include "base/status.h"
#include "runtime/span.h"

typedef struct rt_template rt_template;

/* Compiles.  Errors (text kept with line number): FORMAT for a syntax error, UNSUPPORTED for a statement,
 * filter or test outside the subset, LIMIT, NOMEM. */
TP_MUST_USE tp_status rt_template_compile(rt_template **out, const char *source, size_t n);
void rt_template_destroy(rt_template *t);

typedef struct rt_template_limits {
    int64_t ops_max;     /* 0 = 1,000,000 evaluated nodes */
    size_t output_max;   /* 0 = 8 MiB */
    size_t memory_max;   /* 0 = 64 MiB */
    int depth_max;       /* 0 = 64 nested calls */
    int64_t time_max_ms; /* 0 = 100; processor time of the calling thread */
    int64_t now_unix;    /* clock for strftime_now; 0 = now (local time) */
} rt_template_limits;

typedef struct rt_template_input {
    const tp_json *messages; /* array; required */
    const tp_json *tools;    /* array, or NULL = None */
    const tp_json *documents;
    const tp_json *kwargs; /* object of further variables, or NULL */
    bool add_generation_prompt;
    bool
        continue_final_message; /* render up to the end of the last message's content and stop there */
    const char
        *continue_field; /* what of it to continue: NULL = "content", or "reasoning_content", ... */
    const char *bos_token, *eos_token, *pad_token,
        *unk_token; /* NULL = undefined in the template */
} rt_template_input;

/* Appends the rendered text to out.  Errors (text kept, for the client): INVALID when the template itself
 * refused (raise_exception: its words) or failed; LIMIT when a budget was overrun; NOMEM. */
TP_MUST_USE tp_status rt_template_render(const rt_template *t, const rt_template_input *in,
                                         const rt_template_limits *limits, tp_buf *out);

/* Whether the template iterates over message.content: then lists of content parts are passed as lists, else
 * their texts are joined to a string first. */
bool rt_template_wants_parts(const rt_template *t);
/* Whether the source mentions the word (used for the 'developer' role). */
bool rt_template_mentions(const rt_template *t, const char *word);

/* A span of the rendered text that came from the request rather than from the template (message content, tool
 * arguments...), so that the tokenizer can refuse to read control tokens there. */
typedef rt_span rt_template_span;

typedef struct rt_template_spans {
    rt_template_span *items; /* owned; tp_free */
    size_t n, cap;
} rt_template_spans;

/* As rt_template_render, and also lists the spans of user text in order, when `spans` is not NULL. */
TP_MUST_USE tp_status rt_template_render_marked(const rt_template *t, const rt_template_input *in,
                                                const rt_template_limits *limits, tp_buf *out,
                                                rt_template_spans *spans);

#endif
