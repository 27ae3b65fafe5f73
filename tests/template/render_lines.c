/* SPDX-License-Identifier: Apache-2.0 */
/* render_lines.c - renders chat templates for a script: one JSON object per line in, one per line out.
 *
 * in:  {"template": TEXT, "input": {"messages": [...], "tools", "documents", "kwargs", "special_tokens",
 *       "add_generation_prompt", "continue_final_message" (true or the name of a field)},
 *       "now": unix seconds, "unbounded": true to lift the time budget}
 * out: {"text": TEXT, "spans": [[begin, end], ...]} or {"error": TEXT, "status": NAME}
 * Templates are compiled once per text.  With an argument N every render is repeated N times and the time of the
 * fastest goes into "us".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "runtime/template/template.h"

#define LINE_BYTES_MAX ((size_t)64 << 20)
#define CACHE_SLOTS    256

typedef struct cached {
    char *source;
    rt_template *t;
} cached;

static cached g_cache[CACHE_SLOTS];

static tp_status compiled(const char *source, rt_template **out)
{
    cached *c = &g_cache[tp_hash_fnv(source, strlen(source)) % CACHE_SLOTS];

    if (c->source == NULL || strcmp(c->source, source) != 0) {
        rt_template *t;

        TP_TRY(rt_template_compile(&t, source, strlen(source)));
        rt_template_destroy(c->t);
        tp_free(c->source);
        *c = (cached){tp_strdup(source), t};
    }
    *out = c->t;
    return TP_OK;
}

static void read_input(const tp_json *request, rt_template_input *in, rt_template_limits *limits)
{
    const tp_json *input = tp_json_get(request, "input");
    const tp_json *tokens = tp_json_get(input, "special_tokens");
    const tp_json *cont = tp_json_get(input, "continue_final_message");

    *in = (rt_template_input){
        .messages = tp_json_get(input, "messages"),
        .tools = tp_json_get(input, "tools"),
        .documents = tp_json_get(input, "documents"),
        .kwargs = tp_json_get(input, "kwargs"),
        .add_generation_prompt = tp_json_get_bool(input, "add_generation_prompt", false),
        .continue_field = tp_json_string(cont),
        .bos_token = tp_json_get_string(tokens, "bos_token", NULL),
        .eos_token = tp_json_get_string(tokens, "eos_token", NULL),
        .pad_token = tp_json_get_string(tokens, "pad_token", NULL),
        .unk_token = tp_json_get_string(tokens, "unk_token", NULL),
    };
    in->continue_final_message =
        in->continue_field != NULL || tp_json_get_bool(input, "continue_final_message", false);
    *limits = (rt_template_limits){.now_unix = tp_json_get_int(request, "now", 0)};
    if (tp_json_get_bool(request, "unbounded", false))
        limits->time_max_ms = 60000;
}

static tp_status render(const tp_json *request, int repeat, tp_buf *text, rt_template_spans *spans,
                        int64_t *best_ns)
{
    rt_template_limits limits;
    rt_template_input in;
    rt_template *t;

    TP_TRY(compiled(tp_json_get_string(request, "template", ""), &t));
    read_input(request, &in, &limits);
    for (int i = 0; i < repeat; i++) {
        int64_t begin = tp_now_ns(), took;

        tp_buf_reset(text);
        TP_TRY(rt_template_render(t, &in, &limits, text));
        took = tp_now_ns() - begin;
        if (i == 0 || took < *best_ns)
            *best_ns = took;
    }
    tp_buf_reset(text);
    return rt_template_render_marked(t, &in, &limits, text, spans);
}

static void answer(const char *line, size_t n, int repeat, tp_buf *out)
{
    const tp_json_limits json = {.depth_max = 200, .allow_duplicate_keys = true, .allow_nul = true};
    rt_template_spans spans = {0};
    tp_json *request = NULL;
    int64_t best_ns = 0;
    tp_buf text;
    tp_status st;

    tp_buf_init(&text, LINE_BYTES_MAX);
    st = tp_json_parse(&request, line, n, &json);
    if (st == TP_OK)
        st = render(request, repeat, &text, &spans, &best_ns);
    if (st == TP_OK) {
        tp_buf_puts(out, "{\"text\": ");
        tp_json_put_string(out, tp_buf_str(&text), text.len);
        tp_buf_printf(out, ", \"us\": %.1f, \"spans\": [", (double)best_ns / 1000.0);
        for (size_t i = 0; i < spans.n; i++)
            tp_buf_printf(out, "%s[%zu, %zu]", i > 0 ? ", " : "", spans.items[i].begin,
                          spans.items[i].end);
        tp_buf_puts(out, "]}");
    } else {
        tp_buf_puts(out, "{\"error\": ");
        tp_json_put_cstring(out, tp_last_error());
        tp_buf_printf(out, ", \"status\": \"%s\"}", tp_status_name(st));
    }
    tp_free(spans.items);
    tp_buf_release(&text);
    tp_json_free(request);
}

int main(int argc, char **argv)
{
    int repeat = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 0;
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;

    if (tp_hash_init() != TP_OK)
        return 1;
    while ((n = getline(&line, &cap, stdin)) > 0) {
        tp_buf out;

        tp_buf_init(&out, 2 * LINE_BYTES_MAX);
        answer(line, (size_t)n, repeat, &out);
        (void)puts(tp_buf_str(&out));
        (void)fflush(stdout);
        tp_buf_release(&out);
    }
    for (size_t i = 0; i < CACHE_SLOTS; i++) {
        rt_template_destroy(g_cache[i].t);
        tp_free(g_cache[i].source);
    }
    (free)(line); /* getline's own */
    return 0;
}
