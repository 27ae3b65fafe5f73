/* SPDX-License-Identifier: Apache-2.0 */
/* format_text.c - text_completion, streamed or whole. */
#include <math.h>
#include <string.h>

#include "api/generate.h"

static int64_t code_points(const char *s, size_t n)
{
    int64_t count = 0;

    for (size_t i = 0; i < n; i++)
        count += ((unsigned char)s[i] & 0xc0) != 0x80;
    return count;
}

/* {"text": logprob, ...}: the reported best, and the token itself.  Of tokens that print alike the best stays. */
static void put_tops(api_gen *g, tp_buf *b, const rt_event *ev)
{
    tp_buf keys;
    int n_top = ev->n_top < (int)g->params.n_logprobs ? ev->n_top : (int)g->params.n_logprobs;
    bool first = true;

    tp_buf_init(&keys, SIZE_MAX); /* a newline before and behind each */
    tp_buf_putc(&keys, '\n');
    tp_buf_putc(b, '{');
    for (int i = 0; i <= n_top; i++) {
        rt_logprob t =
            i < n_top ? ev->top[i] : (rt_logprob){.id = ev->token, .logprob = ev->logprob};
        size_t at = keys.len;

        api_put_token_text(g, &keys, t.id);
        tp_buf_putc(&keys, '\n');
        if (keys.failed || memmem(keys.data, at, keys.data + at - 1, keys.len - at + 1) != NULL) {
            keys.len = at;
            continue;
        }
        tp_buf_puts(b, first ? "" : ",");
        tp_buf_put(b, keys.data + at, keys.len - at - 1);
        tp_buf_putc(b, ':');
        api_put_logprob(b, t.logprob);
        first = false;
    }
    tp_buf_putc(b, '}');
    tp_buf_release(&keys);
}

void api_text_add_token(api_gen *g, api_choice *c, const rt_event *ev)
{
    const char *comma = c->n_lp > 0 ? "," : "";
    size_t n;
    const char *bytes = rt_tokenizer_bytes(g->tokenizer, ev->token, &n);

    if (g->params.return_token_ids && ev->kind == RT_EVENT_TOKEN)
        tp_buf_printf(&c->ids, "%s%d", c->ids.len > 0 ? "," : "", ev->token);
    if (g->params.n_logprobs < 0)
        return;
    tp_buf_puts(&c->lp, comma);
    api_put_token_text(g, &c->lp, ev->token);
    tp_buf_puts(&c->lp_values, comma);
    tp_buf_puts(&c->lp_tops, comma);
    if (isnan(ev->logprob)) {
        tp_buf_puts(&c->lp_values, "null");
        tp_buf_puts(&c->lp_tops, "null");
    } else {
        api_put_logprob(&c->lp_values, ev->logprob);
        put_tops(g, &c->lp_tops, ev);
    }
    tp_buf_printf(&c->lp_offsets, "%s%lld", comma, (long long)c->n_chars);
    c->n_chars += code_points(bytes, n);
    c->n_lp++;
}

static void put_logprobs(const api_gen *g, const api_choice *c, tp_buf *out)
{
    if (g->params.n_logprobs < 0) {
        tp_buf_puts(out, ",\"logprobs\":null");
        return;
    }
    tp_buf_puts(out, ",\"logprobs\":{\"tokens\":[");
    tp_buf_put(out, c->lp.data, c->lp.len);
    tp_buf_puts(out, "],\"token_logprobs\":[");
    tp_buf_put(out, c->lp_values.data, c->lp_values.len);
    tp_buf_puts(out, "],\"top_logprobs\":[");
    tp_buf_put(out, c->lp_tops.data, c->lp_tops.len);
    tp_buf_puts(out, "],\"text_offset\":[");
    tp_buf_put(out, c->lp_offsets.data, c->lp_offsets.len);
    tp_buf_puts(out, "]}");
}

static const api_prompt *prompt_of(const api_gen *g, int index)
{
    return &g->prompts[index / g->params.n];
}

static void put_choice(api_gen *g, int index, tp_buf *out, bool first, bool last)
{
    api_choice *c = &g->choices[index];
    const api_prompt *p = prompt_of(g, index);

    tp_buf_printf(out, "{\"index\":%d,\"text\":", index);
    if (first && g->params.echo) {
        tp_buf whole;

        tp_buf_init(&whole, SIZE_MAX);
        tp_buf_put(&whole, p->text.data, p->text.len);
        tp_buf_put(&whole, c->text.data, c->text.len);
        tp_json_put_string(out, tp_buf_str(&whole), whole.len);
        tp_buf_release(&whole);
    } else {
        tp_json_put_string(out, tp_buf_str(&c->text), c->text.len);
    }
    put_logprobs(g, c, out);
    if (last) {
        tp_buf_printf(out, ",\"finish_reason\":\"%s\"", api_finish_word(c));
        api_put_stop_reason(g, c, out);
    } else {
        tp_buf_puts(out, ",\"finish_reason\":null,\"stop_reason\":null");
    }
    if (g->params.return_token_ids) {
        tp_buf_puts(out, ",\"token_ids\":[");
        tp_buf_put(out, c->ids.data, c->ids.len);
        tp_buf_putc(out, ']');
        if (first)
            api_put_prompt_ids(p, out);
    }
    if (g->params.prompt_logprobs >= 0) {
        tp_buf_puts(out, ",\"prompt_logprobs\":[");
        tp_buf_put(out, g->choices[index - index % g->params.n].prompt_lp.data,
                   g->choices[index - index % g->params.n].prompt_lp.len);
        tp_buf_putc(out, ']');
    }
    tp_buf_putc(out, '}');
}

void api_text_put_chunk(api_gen *g, int index, tp_buf *out, bool last)
{
    api_choice *c = &g->choices[index];

    tp_buf_puts(out, "data: ");
    api_put_head(g, out, "text_completion");
    tp_buf_puts(out, ",\"choices\":[");
    put_choice(g, index, out, !c->begun, last);
    tp_buf_putc(out, ']');
    api_put_chunk_end(g, out);
    c->begun = true;
    api_reset_choice(c);
}

void api_text_put_answer(api_gen *g, tp_buf *out)
{
    api_put_head(g, out, "text_completion");
    tp_buf_puts(out, ",\"choices\":[");
    for (int i = 0; i < g->n_choices; i++) {
        tp_buf_puts(out, i > 0 ? "," : "");
        put_choice(g, i, out, true, true);
    }
    tp_buf_puts(out, "],\"usage\":");
    api_put_usage(g, out);
    tp_buf_putc(out, '}');
}
