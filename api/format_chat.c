/* SPDX-License-Identifier: Apache-2.0 */
/* format_chat.c - chat.completion and chat.completion.chunk. */
#include <string.h>

#include "api/generate.h"

static void put_entry(api_gen *g, tp_buf *b, int32_t id, float logprob)
{
    size_t n;
    const char *bytes = rt_tokenizer_bytes(g->tokenizer, id, &n);

    tp_buf_puts(b, "{\"token\":");
    api_put_token_text(g, b, id);
    tp_buf_puts(b, ",\"logprob\":");
    api_put_logprob(b, logprob);
    tp_buf_puts(b, ",\"bytes\":[");
    for (size_t i = 0; i < n; i++)
        tp_buf_printf(b, "%s%u", i > 0 ? "," : "", (unsigned)(unsigned char)bytes[i]);
    tp_buf_putc(b, ']');
}

void api_chat_add_token(api_gen *g, api_choice *c, const rt_event *ev)
{
    int n_top = ev->n_top < (int)g->params.n_logprobs ? ev->n_top : (int)g->params.n_logprobs;

    if (g->params.return_token_ids)
        tp_buf_printf(&c->ids, "%s%d", c->ids.len > 0 ? "," : "", ev->token);
    if (!g->params.logprobs)
        return;
    tp_buf_puts(&c->lp, c->lp.len > 0 ? "," : "");
    put_entry(g, &c->lp, ev->token, ev->logprob);
    tp_buf_puts(&c->lp, ",\"top_logprobs\":[");
    for (int i = 0; i < n_top; i++) {
        tp_buf_puts(&c->lp, i > 0 ? "," : "");
        put_entry(g, &c->lp, ev->top[i].id, ev->top[i].logprob);
        tp_buf_putc(&c->lp, '}');
    }
    tp_buf_puts(&c->lp, "]}");
}

static void put_logprobs(const api_gen *g, const api_choice *c, tp_buf *out)
{
    if (!g->params.logprobs) {
        tp_buf_puts(out, ",\"logprobs\":null");
        return;
    }
    tp_buf_puts(out, ",\"logprobs\":{\"content\":[");
    tp_buf_put(out, c->lp.data, c->lp.len);
    tp_buf_puts(out, "],\"refusal\":null}");
}

static void put_ids(const api_gen *g, const api_choice *c, tp_buf *out)
{
    if (!g->params.return_token_ids)
        return;
    tp_buf_puts(out, ",\"token_ids\":[");
    tp_buf_put(out, c->ids.data, c->ids.len);
    tp_buf_putc(out, ']');
}

/* What a delta says: who speaks, what was generated, or why it ended. */
typedef enum delta { DELTA_ROLE, DELTA_CONTENT, DELTA_END } delta;

/* One `data:` line of a choice. */
static void put_delta(api_gen *g, int index, tp_buf *out, delta what)
{
    api_choice *c = &g->choices[index];

    tp_buf_puts(out, "data: ");
    api_put_head(g, out, "chat.completion.chunk");
    if (what == DELTA_ROLE && g->params.return_token_ids)
        api_put_prompt_ids(&g->prompts[0], out);
    tp_buf_printf(out, ",\"choices\":[{\"index\":%d,\"delta\":{", index);
    if (what == DELTA_ROLE)
        tp_buf_puts(out, "\"role\":\"assistant\",\"content\":\"\"");
    if (what == DELTA_CONTENT) {
        tp_buf_puts(out, "\"content\":");
        tp_json_put_string(out, tp_buf_str(&c->text), c->text.len);
    }
    tp_buf_putc(out, '}');
    if (what == DELTA_CONTENT)
        put_logprobs(g, c, out);
    else
        tp_buf_puts(out, ",\"logprobs\":null");
    if (what == DELTA_END) {
        tp_buf_printf(out, ",\"finish_reason\":\"%s\"", api_finish_word(c));
        api_put_stop_reason(g, c, out);
    } else {
        tp_buf_puts(out, ",\"finish_reason\":null");
    }
    if (what == DELTA_CONTENT)
        put_ids(g, c, out);
    tp_buf_puts(out, "}]");
    api_put_chunk_end(g, out);
}

void api_chat_put_chunk(api_gen *g, int index, tp_buf *out, bool last)
{
    api_choice *c = &g->choices[index];

    if (!c->begun)
        put_delta(g, index, out, DELTA_ROLE);
    c->begun = true;
    if (c->text.len > 0 || c->lp.len > 0 || c->ids.len > 0)
        put_delta(g, index, out, DELTA_CONTENT);
    if (last)
        put_delta(g, index, out, DELTA_END);
    api_reset_choice(c);
}

void api_chat_put_answer(api_gen *g, tp_buf *out)
{
    api_put_head(g, out, "chat.completion");
    tp_buf_puts(out, ",\"choices\":[");
    for (int i = 0; i < g->n_choices; i++) {
        const api_choice *c = &g->choices[i];

        tp_buf_printf(out, "%s{\"index\":%d,\"message\":{\"role\":\"assistant\",\"content\":",
                      i > 0 ? "," : "", i);
        tp_json_put_string(out, tp_buf_str(&c->text), c->text.len);
        tp_buf_puts(out, ",\"refusal\":null}");
        put_logprobs(g, c, out);
        tp_buf_printf(out, ",\"finish_reason\":\"%s\"", api_finish_word(c));
        api_put_stop_reason(g, c, out);
        put_ids(g, c, out);
        tp_buf_putc(out, '}');
    }
    tp_buf_puts(out, "],\"usage\":");
    api_put_usage(g, out);
    if (g->params.return_token_ids)
        api_put_prompt_ids(&g->prompts[0], out);
    if (g->params.prompt_logprobs >= 0) {
        tp_buf_puts(out, ",\"prompt_logprobs\":[");
        tp_buf_put(out, g->choices[0].prompt_lp.data, g->choices[0].prompt_lp.len);
        tp_buf_putc(out, ']');
    }
    tp_buf_putc(out, '}');
}
