/* SPDX-License-Identifier: Apache-2.0 */
/* format.c - pieces of a response that chat and completions share. */
#include <math.h>
#include <string.h>

#include "api/generate.h"

#define LOGPROB_FLOOR -9999.0

void api_put_head(api_gen *g, tp_buf *out, const char *object)
{
    tp_buf *h = &g->head;

    if (h->len == 0) {
        tp_buf_printf(h, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", g->id,
                      object, (long long)g->created);
        tp_json_put_cstring(h, g->model);
        tp_buf_printf(h, ",\"system_fingerprint\":\"%s\"",
                      rt_engine_get_info(g->engine)->fingerprint);
    }
    out->failed |= h->failed;
    tp_buf_put(out, h->data, h->len);
}

void api_put_usage(const api_gen *g, tp_buf *out)
{
    int64_t cached = 0;

    for (int i = 0; i < g->n_prompts; i++)
        cached += g->prompts[i].n_cached;
    tp_buf_printf(out,
                  "{\"prompt_tokens\":%lld,\"completion_tokens\":%lld,\"total_tokens\":%lld,"
                  "\"prompt_tokens_details\":{\"cached_tokens\":%lld}}",
                  (long long)g->prompt_tokens, (long long)g->completion_tokens,
                  (long long)(g->prompt_tokens + g->completion_tokens), (long long)cached);
}

void api_put_chunk_end(const api_gen *g, tp_buf *out)
{
    if (g->params.continuous_usage) {
        tp_buf_puts(out, ",\"usage\":");
        api_put_usage(g, out);
    } else if (g->params.include_usage) {
        tp_buf_puts(out, ",\"usage\":null");
    }
    tp_buf_puts(out, "}\n\n");
}

void api_put_prompt_ids(const api_prompt *p, tp_buf *out)
{
    tp_buf_puts(out, ",\"prompt_token_ids\":[");
    for (size_t i = 0; i < p->tokens.n; i++)
        tp_buf_printf(out, "%s%d", i > 0 ? "," : "", p->tokens.ids[i]);
    tp_buf_putc(out, ']');
}

const char *api_finish_word(const api_choice *c)
{
    return c->end.finish == RT_FINISH_LENGTH ? "length" : "stop";
}

void api_put_stop_reason(const api_gen *g, const api_choice *c, tp_buf *out)
{
    tp_buf_puts(out, ",\"stop_reason\":");
    if (c->end.stop_string >= 0)
        tp_json_put_cstring(out, g->params.stop[c->end.stop_string]);
    else if (c->end.stop_token >= 0)
        tp_buf_printf(out, "%d", c->end.stop_token);
    else
        tp_buf_puts(out, "null");
}

void api_put_logprob(tp_buf *out, float logprob)
{
    if (isnan(logprob))
        tp_buf_puts(out, "null");
    else
        tp_json_put_double(out, (double)logprob < LOGPROB_FLOOR ? LOGPROB_FLOOR : (double)logprob);
}

void api_put_token_text(const api_gen *g, tp_buf *out, int32_t id)
{
    tp_utf8_stream utf8 = {0};
    size_t n, len;
    const char *bytes = rt_tokenizer_bytes(g->tokenizer, id, &n);
    tp_buf text;

    tp_buf_init(&text, SIZE_MAX);
    if (tp_buf_reserve(&text, 3 * (n + 3) + 3)) {
        len = tp_utf8_stream_push(&utf8, bytes, n, text.data);
        len += tp_utf8_stream_finish(&utf8, text.data + len);
        tp_json_put_string(out, text.data, len);
    } else {
        tp_buf_puts(out, "\"\"");
    }
    tp_buf_release(&text);
}

void api_reset_choice(api_choice *c)
{
    tp_buf_reset(&c->text);
    tp_buf_reset(&c->lp);
    tp_buf_reset(&c->lp_values);
    tp_buf_reset(&c->lp_tops);
    tp_buf_reset(&c->lp_offsets);
    tp_buf_reset(&c->ids);
    c->n_lp = 0;
}
