/* SPDX-License-Identifier: Apache-2.0 */
/* generate.c - from a checked body to engine requests, and from their events to bytes. */
#include "api/generate.h"

#include <math.h>
#include <string.h>

#include "api/errors.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"

#define TEXT_MAX (64u << 20) /* of one choice's buffers */
#define HEAD_MAX (64u << 10)
/* Bytes of a stream that are printed ahead of the socket.  What else waits for a slow client stays in the outbox, which
 * is smaller there and bounded. */
#define AHEAD_BYTES (32u << 10)

/* ---- life ---- */

bool api_gen_knows_model(const api_server *s, const char *name, api_problem *problem)
{
    if (name == NULL || *name == '\0')
        return true;
    for (int i = 0; i < s->opt.n_model_names; i++)
        if (strcmp(name, s->opt.model_names[i]) == 0)
            return true;
    return api_refuse(problem, 404, "model_not_found", "model",
                      "The model `%.200s` does not exist. This server offers `%s`.", name,
                      s->opt.model_names[0]);
}

static void reply_problem(api_exchange *x, const api_problem *p)
{
    api_reply_error(x, p->status, p->code, p->param[0] != '\0' ? p->param : NULL, p->message);
}

api_gen *api_gen_create(api_server *s, api_exchange *x, bool chat)
{
    rt_engine *e = api_need_engine(s, x);
    api_problem problem = {0};
    const char *text;
    size_t len;
    api_gen *g;

    if (e == NULL)
        return NULL;
    if (!api_may_queue(s, x, e)) {
        api_reply_queue_full(s, x);
        return NULL;
    }
    g = tp_calloc(1, sizeof *g);
    if (g == NULL) {
        api_reply_status(s, x, TP_ERR_NOMEM, NULL);
        return NULL;
    }
    g->server = s;
    g->exchange = x;
    g->engine = e;
    g->tokenizer = rt_engine_tokenizer(e);
    g->created = tp_unix_seconds();
    tp_buf_init(&g->head, HEAD_MAX);
    text = api_body(x, &len);
    g->body = api_parse_body(text, len, &problem);
    if (g->body != NULL &&
        api_params_read(&g->params, g->body, chat, rt_engine_get_info(e), &problem))
        (void)api_gen_knows_model(s, g->params.model, &problem);
    if (problem.status != 0) {
        api_gen_refuse(g, &problem);
        return NULL;
    }
    g->model = g->params.model != NULL && g->params.model[0] != '\0' ? g->params.model
                                                                     : s->opt.model_names[0];
    api_make_id(s, chat ? "chatcmpl" : "cmpl", g->id);
    return g;
}

static void release_choice(api_choice *c)
{
    tp_buf_release(&c->text);
    tp_buf_release(&c->lp);
    tp_buf_release(&c->lp_values);
    tp_buf_release(&c->lp_tops);
    tp_buf_release(&c->lp_offsets);
    tp_buf_release(&c->ids);
    tp_buf_release(&c->prompt_lp);
}

void api_gen_destroy(api_gen *g)
{
    if (g == NULL)
        return;
    for (int i = 0; i < g->n_prompts; i++) {
        if (g->prompts[i].request != NULL)
            rt_request_release(g->prompts[i].request);
        rt_tokens_release(&g->prompts[i].tokens);
        tp_buf_release(&g->prompts[i].text);
    }
    for (int i = 0; i < g->n_choices; i++)
        release_choice(&g->choices[i]);
    if (g->counted)
        atomic_fetch_sub(&g->server->n_inference, 1);
    if (g->submitted)
        api_admission_done(&g->server->admission);
    tp_buf_release(&g->head);
    tp_free(g->prompts);
    tp_free(g->choices);
    tp_json_free(g->body);
    tp_free(g);
}

void api_gen_refuse(api_gen *g, const api_problem *problem)
{
    reply_problem(g->exchange, problem);
    api_gen_destroy(g);
}

bool api_gen_alloc_prompts(api_gen *g, int n, api_problem *problem)
{
    const api_options *o = &g->server->opt;

    if (n < 1 || n > o->max_prompts_per_request)
        return api_refuse(problem, 400, "invalid_value", "prompt",
                          "prompt: expected 1 to %d prompts, found %d", o->max_prompts_per_request,
                          n);
    if (n * g->params.n > o->max_seqs_per_request)
        return api_refuse(problem, 400, "invalid_value", "n",
                          "n: %d prompts times n = %d exceeds %d sequences per request", n,
                          g->params.n, o->max_seqs_per_request);
    g->prompts = tp_calloc((size_t)n, sizeof *g->prompts);
    g->choices = tp_calloc((size_t)n * (size_t)g->params.n, sizeof *g->choices);
    if (g->prompts == NULL || g->choices == NULL)
        return api_refuse_memory(problem);
    g->n_prompts = n;
    g->n_choices = n * g->params.n;
    for (int i = 0; i < n; i++)
        tp_buf_init(&g->prompts[i].text, TEXT_MAX);
    for (int i = 0; i < g->n_choices; i++) {
        api_choice *c = &g->choices[i];

        tp_buf_init(&c->text, TEXT_MAX);
        tp_buf_init(&c->lp, TEXT_MAX);
        tp_buf_init(&c->lp_values, TEXT_MAX);
        tp_buf_init(&c->lp_tops, TEXT_MAX);
        tp_buf_init(&c->lp_offsets, TEXT_MAX);
        tp_buf_init(&c->ids, TEXT_MAX);
        tp_buf_init(&c->prompt_lp, TEXT_MAX);
    }
    return true;
}

/* ---- submission ---- */

/* Three reasons, three remedies; all begin with the words that clients look for. */
static bool refuse_length(const api_gen *g, int64_t n_prompt, api_problem *problem)
{
    long long most = rt_engine_get_info(g->engine)->max_model_len, n = n_prompt;
    const char *name = g->params.chat ? "messages" : "prompt";

    if (n > most)
        return api_refuse(problem, 400, "context_length_exceeded", name,
                          "This model's maximum context length is %lld tokens. However, your "
                          "request has %lld tokens in the prompt (the prompt is longer than the "
                          "model's context length by %lld)",
                          most, n, n - most);
    if (n == most)
        return api_refuse(problem, 400, "context_length_exceeded", name,
                          "This model's maximum context length is %lld tokens. However, your "
                          "request has %lld tokens in the prompt (there is no room for an answer; "
                          "the prompt must be shorter by as many tokens as the answer may take)",
                          most, n);
    name = g->params.max_tokens_name;
    return api_refuse(problem, 400, "context_length_exceeded", name,
                      "This model's maximum context length is %lld tokens. However, your request "
                      "has %lld tokens in the prompt and asks for %lld (%s is too large; it can be "
                      "%lld at most)",
                      most, n, (long long)g->params.max_tokens, name, most - n);
}

/* Settles max_tokens for one prompt against the context. */
static bool settle_length(api_gen *g, const api_prompt *p, api_problem *problem)
{
    const rt_engine_info *info = rt_engine_get_info(g->engine);
    int64_t n = (int64_t)p->tokens.n, cap = g->server->opt.max_output_tokens;
    int64_t want = g->params.max_tokens, room = info->max_model_len - n;
    const char *prompt_name = g->params.chat ? "messages" : "prompt";

    if (n == 0)
        return api_refuse(problem, 400, "invalid_value", prompt_name,
                          "%s: the prompt is empty: it has no tokens", prompt_name);
    if (want < 0)
        want = g->params.chat ? room : API_TEXT_MAX_TOKENS;
    if (g->params.max_tokens < 0 && !g->params.chat && want > room && room > 0)
        want = room;
    if (cap > 0 && want > cap)
        want = cap;
    if (room < 0 || (room == 0 && g->params.max_tokens != 0) || want > room)
        return refuse_length(g, n, problem);
    g->params.sampling.max_tokens = (int32_t)want;
    return true;
}

/* What an idle server would refuse as well is no matter of coming back. */
static bool fits_queue(const api_gen *g, api_problem *problem)
{
    const rt_engine_info *info = rt_engine_get_info(g->engine);
    const char *name = g->params.chat ? "messages" : "prompt";
    int64_t n = 0;

    if (g->n_prompts > info->max_open)
        return api_refuse(problem, 400, "invalid_value", name,
                          "prompt: %d prompts are more than the %d requests that may be open at a "
                          "time (--max-num-seqs and --max-num-queued-reqs); send fewer at once",
                          g->n_prompts, info->max_open);
    for (int i = 0; i < g->n_prompts; i++)
        n += (int64_t)g->prompts[i].tokens.n;
    if (info->max_queued_tokens > 0 && n > info->max_queued_tokens)
        return api_refuse(problem, 400, "invalid_value", name,
                          "%s: %lld tokens are more than the %lld that all open requests may have "
                          "(--max-num-queued-tokens); send fewer at once",
                          name, (long long)n, (long long)info->max_queued_tokens);
    return true;
}

/* Keeps the last tokens; what is echoed is the text of those. */
static bool truncate_prompt(const api_gen *g, api_prompt *p, api_problem *problem)
{
    size_t keep = (size_t)g->params.truncate_prompt_tokens;

    if (keep == 0 || p->tokens.n <= keep)
        return true;
    memmove(p->tokens.ids, p->tokens.ids + (p->tokens.n - keep), keep * sizeof *p->tokens.ids);
    p->tokens.n = keep;
    tp_buf_reset(&p->text);
    if (g->params.echo &&
        rt_tokenizer_decode(g->tokenizer, p->tokens.ids, keep, false, &p->text) != TP_OK)
        return api_refuse_memory(problem);
    return true;
}

static void on_events(void *ctx)
{
    api_wake(((api_gen *)ctx)->exchange);
}

static tp_status submit(api_gen *g, api_prompt *p)
{
    api_params *q = &g->params;
    rt_request_desc d = {.prompt = p->tokens.ids,
                         .n_prompt = (int32_t)p->tokens.n,
                         .n = q->n,
                         .sampling = q->sampling,
                         .stop_ids = q->stop_ids,
                         .n_stop_ids = q->n_stop_ids,
                         .stop = q->stop,
                         .n_stop = q->n_stop,
                         .include_stop = q->include_stop,
                         .skip_special_tokens = q->skip_special_tokens,
                         .bias_ids = q->bias_ids,
                         .bias = q->bias,
                         .n_bias = q->n_bias,
                         .allowed = q->has_allowed ? q->allowed : NULL,
                         .n_allowed = q->n_allowed,
                         .notify = on_events,
                         .ctx = g,
                         .batched = !q->stream};

    if (d.sampling.min_tokens > d.sampling.max_tokens)
        d.sampling.min_tokens = d.sampling.max_tokens; /* capped by the rest of the context */
    api_access_salt(&g->server->access, g->exchange, q->cache_salt, d.cache_salt);
    return rt_engine_submit(g->engine, &d, &p->request);
}

static void settle_sampling(api_gen *g)
{
    rt_sampling *s = &g->params.sampling;

    if (!g->params.seed_given)
        tp_random_bytes(&s->seed, sizeof s->seed);
    s->n_logprobs = (int32_t)g->params.n_logprobs;
    s->n_prompt_logprobs = (int32_t)g->params.prompt_logprobs;
    if (g->params.echo && g->params.n_logprobs > s->n_prompt_logprobs)
        s->n_prompt_logprobs = (int32_t)g->params.n_logprobs;
    if (g->params.echo && g->params.n_logprobs == 0)
        s->n_prompt_logprobs = s->n_prompt_logprobs > 1 ? s->n_prompt_logprobs : 1;
    if (!g->params.chat && s->n_logprobs == 0)
        s->n_logprobs = 1; /* "logprobs": 0 still lists the sampled token */
}

/* ---- events ---- */

static void put_prompt_entry(api_gen *g, api_choice *c, const rt_event *ev)
{
    tp_buf *b = &c->prompt_lp;
    bool seen = false;

    tp_buf_puts(b, b->len > 0 ? "," : "");
    if (isnan(ev->logprob)) {
        tp_buf_puts(b, "null");
        return;
    }
    tp_buf_putc(b, '{');
    for (int i = 0; i <= ev->n_top; i++) {
        bool extra = i == ev->n_top;
        rt_logprob t = extra ? (rt_logprob){.id = ev->token, .logprob = ev->logprob} : ev->top[i];

        if (extra && seen)
            break;
        seen |= t.id == ev->token;
        tp_buf_printf(b, "%s\"%d\":{\"logprob\":", i > 0 ? "," : "", t.id);
        api_put_logprob(b, t.logprob);
        if (!extra)
            tp_buf_printf(b, ",\"rank\":%d", i + 1);
        tp_buf_puts(b, ",\"decoded_token\":");
        api_put_token_text(g, b, t.id);
        tp_buf_putc(b, '}');
    }
    tp_buf_putc(b, '}');
}

/* Choice 0 reports for the prompt that all n choices share. */
static void take_prompt_event(api_gen *g, api_choice *c, const rt_event *ev)
{
    if (g->params.prompt_logprobs >= 0)
        put_prompt_entry(g, c, ev);
    if (!g->params.echo || g->params.n_logprobs < 0)
        return;
    for (int j = 0; j < g->params.n; j++)
        api_text_add_token(g, c + j, ev);
}

static bool is_short_of_memory(const api_choice *c)
{
    return c->text.failed || c->lp.failed || c->lp_values.failed || c->lp_tops.failed ||
           c->lp_offsets.failed || c->ids.failed || c->prompt_lp.failed;
}

static void take_event(api_gen *g, api_choice *c, const rt_event *ev)
{
    g->prompts[(c - g->choices) / g->params.n].n_cached = ev->n_cached;
    switch (ev->kind) {
    case RT_EVENT_PROMPT: take_prompt_event(g, c, ev); return;
    case RT_EVENT_TOKEN:
        c->n_tokens++;
        g->completion_tokens++;
        if (g->params.chat)
            api_chat_add_token(g, c, ev);
        else
            api_text_add_token(g, c, ev);
        break;
    case RT_EVENT_FINISH:
        c->end = *ev;
        c->ended = true;
        g->n_ended++;
        if (ev->finish == RT_FINISH_ERROR && g->error == NULL)
            g->error = ev->error_code;
        break;
    }
    tp_buf_put(&c->text, ev->text, ev->text_len);
    if (is_short_of_memory(c) && g->error == NULL)
        g->error = "out_of_memory";
}

/* ---- the answer in one piece ---- */

static const char *failure_text(const api_gen *g)
{
    static const struct {
        const char *code, *text;
    } k_texts[] = {
        {"out_of_memory", "The server ran out of memory for the answer."},
        {"internal_error", "The model produced no usable numbers for this request."},
        {"slow_client", "The client was too slow to take its answer."},
        {"shutdown", "The server is shutting down and had no time to finish the request."}};

    for (size_t i = 0; i < TP_ARRAY_LEN(k_texts); i++)
        if (strcmp(g->error, k_texts[i].code) == 0)
            return k_texts[i].text;
    return "The engine stopped before the request was finished.";
}

static void reply_failure(api_gen *g)
{
    int status = strcmp(g->error, "internal_error") == 0 ? 500 : 503;
    const char *code = strcmp(g->error, "shutdown") == 0 ? "draining" : g->error;

    api_reply_error(g->exchange, status, code, NULL, failure_text(g));
}

static api_progress pump_answer(void *ctx, api_exchange *x, tp_buf *out)
{
    api_gen *g = ctx;
    rt_event ev;
    tp_buf body;

    (void)out;
    for (int i = 0; i < g->n_prompts; i++)
        while (rt_request_next(g->prompts[i].request, &ev))
            take_event(g, &g->choices[i * g->params.n + ev.choice], &ev);
    if (g->n_ended < g->n_choices)
        return API_WAIT;
    if (g->error != NULL) {
        reply_failure(g);
        return API_END;
    }
    tp_buf_init(&body, SIZE_MAX);
    if (g->params.chat)
        api_chat_put_answer(g, &body);
    else
        api_text_put_answer(g, &body);
    if (body.failed)
        api_reply_status(g->server, x, TP_ERR_NOMEM, NULL);
    else
        api_reply(x, 200, "application/json", body.data, body.len);
    tp_buf_release(&body);
    return API_END;
}

/* ---- the stream ---- */

static void put_chunk(api_gen *g, int index, tp_buf *out, bool last)
{
    if (g->params.chat)
        api_chat_put_chunk(g, index, out, last);
    else
        api_text_put_chunk(g, index, out, last);
    g->choices[index].held = false;
}

/* `merge`: a token joins the chunk of the one before. */
static void stream_event(api_gen *g, int index, const rt_event *ev, bool merge, tp_buf *out)
{
    api_choice *c = &g->choices[index];

    if (ev->kind == RT_EVENT_TOKEN && c->held && !merge)
        put_chunk(g, index, out, false);
    take_event(g, c, ev);
    if (ev->kind == RT_EVENT_TOKEN)
        c->held = c->text.len > 0 || c->lp.len > 0 || c->ids.len > 0 || !c->begun;
    if (ev->kind == RT_EVENT_FINISH && g->error == NULL)
        put_chunk(g, index, out, true);
}

static void put_stream_end(api_gen *g, tp_buf *out)
{
    if (g->error != NULL) {
        tp_buf_puts(out, "data: ");
        api_put_error(out, 500, g->error, NULL, failure_text(g));
        tp_buf_puts(out, "\n\n");
    } else if (g->params.include_usage) {
        tp_buf_puts(out, "data: ");
        api_put_head(g, out, g->params.chat ? "chat.completion.chunk" : "text_completion");
        tp_buf_puts(out, ",\"choices\":[],\"usage\":");
        api_put_usage(g, out);
        tp_buf_puts(out, "}\n\n");
    }
    tp_buf_puts(out, "data: [DONE]\n\n");
}

static bool is_held_back(const void *ctx)
{
    const api_gen *g = ctx;

    for (int i = 0; i < g->n_prompts; i++)
        if (rt_request_held_back(g->prompts[i].request))
            return true;
    return false;
}

/* Prints what waits, as far as the socket will soon take it: the rest when `out` has been sent.  A client so far behind
 * that its request is held back gets all of it in one chunk, a tenth of the bytes, which lets it catch up. */
static api_progress pump_stream(void *ctx, api_exchange *x, tp_buf *out)
{
    api_gen *g = ctx;
    bool merge = g->params.n_logprobs < 0 && is_held_back(g);
    rt_event ev;

    (void)x;
    for (int i = 0; i < g->n_prompts; i++)
        while (g->error == NULL && out->len < AHEAD_BYTES &&
               rt_request_next(g->prompts[i].request, &ev))
            stream_event(g, i * g->params.n + ev.choice, &ev, merge, out);
    for (int i = 0; i < g->n_choices; i++)
        if (g->choices[i].held)
            put_chunk(g, i, out, false);
    if (g->error == NULL && g->n_ended < g->n_choices)
        return API_WAIT;
    put_stream_end(g, out);
    return API_END;
}

static void put_keep_alive(void *ctx, tp_buf *out)
{
    (void)ctx;
    tp_buf_puts(out, ": keep-alive\n\n");
}

static void abandon_gen(void *ctx)
{
    const api_gen *g = ctx;

    for (int i = 0; i < g->n_prompts; i++)
        rt_request_abandon(g->prompts[i].request);
}

static void close_gen(void *ctx)
{
    api_gen_destroy(ctx);
}

static const api_source k_answer = {.pump = pump_answer, .left = abandon_gen, .close = close_gen};

static const api_source k_stream = {.pump = pump_stream,
                                    .idle = put_keep_alive,
                                    .held_back = is_held_back,
                                    .left = abandon_gen,
                                    .close = close_gen};

void api_gen_start(api_gen *g)
{
    api_problem problem = {0};
    tp_status st = TP_OK;

    settle_sampling(g);
    for (int i = 0; i < g->n_prompts; i++) {
        if (!truncate_prompt(g, &g->prompts[i], &problem) ||
            !settle_length(g, &g->prompts[i], &problem)) {
            api_gen_refuse(g, &problem);
            return;
        }
    }
    if (!fits_queue(g, &problem)) {
        api_gen_refuse(g, &problem);
        return;
    }
    atomic_fetch_add(&g->server->n_inference, 1);
    g->counted = true;
    for (int i = 0; i < g->n_prompts && st == TP_OK; i++) {
        settle_length(g, &g->prompts[i],
                      &problem); /* each prompt has its own rest of the context */
        g->prompt_tokens += (int64_t)g->prompts[i].tokens.n;
        st = submit(g, &g->prompts[i]);
    }
    g->submitted = st == TP_OK;
    if (g->submitted)
        api_queue_joined(g->server);
    if (st != TP_OK) {
        api_reply_status(g->server, g->exchange, st, g->params.chat ? "messages" : "prompt");
        api_gen_destroy(g);
        return;
    }
    if (g->params.stream)
        api_stream(g->exchange, "text/event-stream; charset=utf-8", &k_stream, g);
    else
        api_defer(g->exchange, &k_answer, g);
}
