/* SPDX-License-Identifier: Apache-2.0 */
/* tokenize.c - POST /tokenize, POST /detokenize, GET /tokenizer_info. */
#include <string.h>

#include "api/errors.h"
#include "api/messages.h"
#include "base/mem.h"

#define ANSWER_MAX (256u << 20)

static void put_tokens(api_gen *g, const rt_tokens *t, bool strings, tp_buf *out)
{
    tp_buf_printf(out, "{\"count\":%zu,\"max_model_len\":%lld,\"tokens\":[", t->n,
                  (long long)rt_engine_get_info(g->engine)->max_model_len);
    for (size_t i = 0; i < t->n; i++)
        tp_buf_printf(out, "%s%d", i > 0 ? "," : "", t->ids[i]);
    tp_buf_puts(out, "],\"token_strs\":");
    if (!strings)
        tp_buf_puts(out, "null");
    for (size_t i = 0; strings && i < t->n; i++) {
        const char *piece = rt_tokenizer_piece(g->tokenizer, t->ids[i]);

        tp_buf_putc(out, i > 0 ? ',' : '[');
        tp_json_put_cstring(out, piece != NULL ? piece : "");
    }
    if (strings)
        tp_buf_puts(out, t->n > 0 ? "]" : "[]");
    tp_buf_putc(out, '}');
}

/* "prompt" or "messages", and what goes with each. */
static bool read_request(api_gen *g, rt_tokens *out, bool *strings, api_problem *problem)
{
    const tp_json *prompt = tp_json_get(g->body, "prompt");
    const tp_json *want = tp_json_get(g->body, "return_token_strs");
    bool chat = tp_json_is_null(prompt);
    tp_status st;

    if (!tp_json_is_null(want) && !api_read_bool(want, "return_token_strs", strings, problem))
        return false;
    if (chat && tp_json_is_null(tp_json_get(g->body, "messages")))
        return api_refuse(problem, 400, "missing_required_parameter", "prompt",
                          "prompt or messages is required");
    if (!api_params_read(&g->params, g->body, chat, rt_engine_get_info(g->engine), problem))
        return false;
    if (chat)
        return api_chat_prompt(g->engine, &g->params, g->params.add_special_tokens, g, out,
                               problem);
    if (tp_json_string(prompt) == NULL)
        return api_refuse(problem, 400, "invalid_type", "prompt",
                          "prompt: expected a string, found %s",
                          tp_json_kind_name(tp_json_kind(prompt)));
    st = rt_tokenizer_encode(g->tokenizer, tp_json_string(prompt), strlen(tp_json_string(prompt)),
                             g->params.add_special_tokens, true, 0, out);
    if (st == TP_ERR_NOMEM)
        return api_refuse_memory(problem);
    return st == TP_OK ||
           api_refuse(problem, 400, "invalid_value", "prompt", "%s", tp_last_error());
}

/* A bare api_gen: engine, tokenizer and body only. */
static bool begin(api_gen *g, api_server *s, api_exchange *x, api_problem *problem)
{
    const tp_json *model;
    const char *text;
    size_t len;

    memset(g, 0, sizeof *g);
    g->server = s;
    g->exchange = x;
    g->engine = api_need_engine(s, x);
    if (g->engine == NULL)
        return false;
    g->tokenizer = rt_engine_tokenizer(g->engine);
    text = api_body(x, &len);
    g->body = api_parse_body(text, len, problem);
    if (g->body == NULL)
        return false;
    model = tp_json_get(g->body, "model");
    if (!tp_json_is_null(model) && tp_json_string(model) == NULL)
        return api_refuse(problem, 400, "invalid_type", "model",
                          "model: expected a string, found %s",
                          tp_json_kind_name(tp_json_kind(model)));
    return api_gen_knows_model(s, tp_json_string(model), problem);
}

static void answer(api_server *s, api_exchange *x, const api_problem *problem, tp_buf *out)
{
    if (problem->status != 0)
        api_reply_error(x, problem->status, problem->code,
                        problem->param[0] != '\0' ? problem->param : NULL, problem->message);
    else if (out->failed)
        api_reply_status(s, x, TP_ERR_NOMEM, NULL);
    else
        api_reply(x, 200, "application/json", tp_buf_str(out), out->len);
    tp_buf_release(out);
}

void api_tokenize(api_server *s, api_exchange *x)
{
    api_gen *g = tp_calloc(1, sizeof *g);
    api_problem problem = {0};
    rt_tokens tokens = {0};
    bool strings = false;
    tp_buf out;

    if (g == NULL) {
        api_reply_status(s, x, TP_ERR_NOMEM, NULL);
        return;
    }
    tp_buf_init(&out, ANSWER_MAX);
    if (begin(g, s, x, &problem) && read_request(g, &tokens, &strings, &problem))
        put_tokens(g, &tokens, strings, &out);
    if (g->engine != NULL)
        answer(s, x, &problem, &out);
    rt_tokens_release(&tokens);
    tp_json_free(g->body);
    tp_free(g);
}

static bool detokenize(api_gen *g, tp_buf *out, api_problem *problem)
{
    const tp_json *list = tp_json_get(g->body, "tokens");
    size_t n = tp_json_count(list);
    int32_t *ids;
    tp_buf text;
    int got;
    bool ok;

    if (tp_json_is_null(list))
        return api_refuse(problem, 400, "missing_required_parameter", "tokens",
                          "tokens is required");
    ids = tp_calloc(n + 1, sizeof *ids);
    if (ids == NULL)
        return api_refuse_memory(problem);
    tp_buf_init(&text, ANSWER_MAX);
    ok = api_read_ids(list, "tokens", rt_engine_get_info(g->engine)->vocab, ids, (int)n, &got,
                      problem);
    if (ok && rt_tokenizer_decode(g->tokenizer, ids, (size_t)got, false, &text) != TP_OK)
        ok = api_refuse(problem, 400, "invalid_value", "tokens", "%s", tp_last_error());
    if (ok) {
        tp_buf_puts(out, "{\"prompt\":");
        tp_json_put_string(out, tp_buf_str(&text), text.len);
        tp_buf_putc(out, '}');
    }
    tp_buf_release(&text);
    tp_free(ids);
    return ok;
}

void api_detokenize(api_server *s, api_exchange *x)
{
    api_gen *g = tp_calloc(1, sizeof *g);
    api_problem problem = {0};
    tp_buf out;

    if (g == NULL) {
        api_reply_status(s, x, TP_ERR_NOMEM, NULL);
        return;
    }
    tp_buf_init(&out, ANSWER_MAX);
    if (begin(g, s, x, &problem))
        detokenize(g, &out, &problem);
    if (g->engine != NULL)
        answer(s, x, &problem, &out);
    tp_json_free(g->body);
    tp_free(g);
}

static void put_member(tp_buf *out, const char *name, const char *value)
{
    tp_buf_printf(out, "%c\"%s\":", out->len > 0 ? ',' : '{', name);
    if (value != NULL)
        tp_json_put_cstring(out, value);
    else
        tp_buf_puts(out, "null");
}

void api_tokenizer_info(api_server *s, api_exchange *x)
{
    rt_engine *e = api_need_engine(s, x);
    const rt_tokenizer *t;
    tp_buf out;

    if (e == NULL)
        return;
    t = rt_engine_tokenizer(e);
    tp_buf_init(&out, 1 << 24);
    put_member(&out, "tokenizer_class", "tpserve");
    put_member(&out, "bos_token", rt_tokenizer_bos(t));
    put_member(&out, "eos_token", rt_tokenizer_eos(t));
    put_member(&out, "pad_token", rt_tokenizer_pad(t));
    put_member(&out, "unk_token", rt_tokenizer_unk(t));
    put_member(&out, "chat_template", rt_tokenizer_chat_template(t));
    tp_buf_printf(&out, ",\"vocab_size\":%d,\"model_max_length\":%lld}", rt_tokenizer_size(t),
                  (long long)rt_engine_get_info(e)->max_model_len);
    api_reply(x, 200, "application/json", tp_buf_str(&out), out.len);
    tp_buf_release(&out);
}
