/* SPDX-License-Identifier: Apache-2.0 */
/* engine_requests.c - the requests in progress, under the plan lock: accepted, held back for their readers, named by
 * steps under way, given results, ended.
 *
 * A request that has ended may still be named by steps under way: its memory stays until they are back, and what they
 * say about it is thrown away.
 */
#include "base/clock.h"
#include "base/log.h"
#include "runtime/engine_impl.h"

#define SLOW_READER_NS                                                                             \
    (10 * TP_NS_PER_S) /* a reader that lets its box stand full this long is cut off */

/* ---- from a request to sequences, and back ---- */

static int forbidden_ids(const rt_engine *e, const rt_request_desc *d, int32_t *out)
{
    int n = 0;

    for (int i = 0; i < e->settled.config.n_eos && !d->sampling.ignore_eos; i++)
        out[n++] = e->settled.config.eos[i];
    for (int i = 0; i < d->n_stop_ids; i++)
        out[n++] = d->stop_ids[i];
    return n;
}

static void fill_open(rt_engine *e, rt_choice *c)
{
    const rt_request_desc *d = &c->request->desc;
    const rt_sampling *p = &d->sampling;
    rt_plan_open_view *o = &c->seq.open;

    o->head.n_prompt = d->n_prompt;
    o->head.n_bias = d->n_bias;
    o->head.n_allowed = d->n_allowed;
    o->head.has_allowed = d->allowed != NULL;
    o->head.n_forbidden = p->min_tokens > 0 ? forbidden_ids(e, d, c->request->forbidden) : 0;
    o->head.params = (rt_slot_params){.temperature = p->temperature,
                                      .top_p = p->top_p,
                                      .min_p = p->min_p,
                                      .repetition = p->repetition_penalty,
                                      .frequency = p->frequency_penalty,
                                      .presence = p->presence_penalty,
                                      .top_k = p->top_k < e->info.vocab ? p->top_k : 0,
                                      .min_tokens = p->min_tokens,
                                      .n_logprobs = p->n_logprobs,
                                      .n_prompt_logprobs = p->n_prompt_logprobs,
                                      .seed = p->seed + (uint64_t)c->index};
    o->prompt = d->prompt;
    o->bias_ids = d->bias_ids;
    o->bias = d->bias;
    o->allowed = d->allowed;
    o->forbidden = c->request->forbidden;
}

int32_t rt_engine_longest(const rt_settled *s, const rt_request_desc *d)
{
    int64_t n = (int64_t)d->n_prompt + d->sampling.max_tokens;

    return (int32_t)(n < s->max_model_len ? n : s->max_model_len);
}

int rt_engine_draft(const rt_seq *q, int32_t n_ahead, int most, int32_t *out)
{
    const rt_choice *c = q->owner;

    return rt_ngram_guess(&c->text, n_ahead, most, out);
}

void rt_engine_accept(rt_engine *e, rt_request *r)
{
    r->open_next = e->open;
    r->open_prev = NULL;
    if (e->open != NULL)
        e->open->open_prev = r;
    e->open = r;
    for (int i = 0; i < r->desc.n; i++) {
        rt_choice *c = &r->choices[i];

        fill_open(e, c);
        c->seq.owner = c;
        c->seq.n_prompt = r->desc.n_prompt;
        c->seq.n_total_max = rt_engine_longest(&e->settled, &r->desc);
        c->seq.lp_start = i == 0 && r->desc.sampling.n_prompt_logprobs >= 0 ? 0 : INT32_MAX;
        c->seq.n_new_max = INT32_MAX;
        c->seq.fork_of = i > 0 ? &r->choices[0].seq : NULL;
        rt_sched_add(e->sched, &c->seq);
    }
    e->stats.prompt_tokens += (uint64_t)r->desc.n_prompt;
    rt_hist_add(&e->stats.params_n, r->desc.n);
    rt_hist_add(&e->stats.params_max_tokens, r->desc.sampling.max_tokens);
    rt_hist_add(&e->stats.max_generation_len, r->desc.sampling.max_tokens);
}

/* Ends what this thread has to do with a request, unless steps under way still name it. */
static void let_go(rt_request *r)
{
    if (r->n_open == 0 && r->n_under_way == 0)
        rt_request_unref(r);
}

static void close_request(rt_engine *e, rt_request *r)
{
    *(r->open_prev != NULL ? &r->open_prev->open_next : &e->open) = r->open_next;
    if (r->open_next != NULL)
        r->open_next->open_prev = r->open_prev;
    atomic_fetch_sub(&e->n_open, 1);
    atomic_fetch_sub(&e->queued_tokens, r->desc.n_prompt);
    let_go(r);
}

/* Ends one choice; the last one closes the request, whose memory may then be gone. */
static void finish(rt_engine *e, rt_choice *c, const rt_ending *end)
{
    rt_request *r = c->request;

    rt_sched_finish(e->sched, &c->seq);
    rt_output_finish(&e->output, c, end);
    if (--r->n_open == 0)
        close_request(e, r);
}

void rt_engine_finish_all(rt_engine *e, rt_request *r, rt_finish how, const char *code)
{
    rt_ending end = {.finish = how, .stop_token = -1, .stop_string = -1, .error_code = code};
    int n = r->desc.n;

    rt_request_ref(r);
    for (int i = 0; i < n; i++)
        if (!r->choices[i].finished)
            finish(e, &r->choices[i], &end);
    rt_request_unref(r);
}

void rt_engine_cancelled(rt_engine *e, rt_request *r)
{
    if (r->n_open > 0) {
        e->stats.cancelled++;
        rt_engine_finish_all(e, r, RT_FINISH_ABORT, NULL);
    }
    rt_request_unref(r);
}

/* ---- room in the outboxes ---- */

static bool wants_prompt(const rt_choice *c)
{
    return c->index == 0 && c->request->desc.sampling.n_prompt_logprobs >= 0;
}

/* Most bytes of the records that come of one sequence's part of a step. */
static size_t record_bytes(const rt_scheduled *p)
{
    const rt_choice *c = p->seq->owner;
    size_t bytes = p->sampled ? (size_t)(1 + p->n_draft) * c->request->record_max : 0;

    if (wants_prompt(c))
        bytes += (size_t)p->n_new * rt_request_prompt_record_bytes();
    return bytes;
}

/* A token and an ending per choice, and the prompt's first token, which yields no row. */
static size_t reserve(const rt_request *r)
{
    return 2 * (size_t)r->desc.n * r->record_max + rt_request_prompt_record_bytes();
}

/* Most tokens per sequence that the next step may compute when `room` bytes are free, drafts aside. */
static int32_t rows_for(const rt_request *r, size_t room)
{
    if (room < reserve(r))
        return 0;
    if (!wants_prompt(&r->choices[0]))
        return INT32_MAX;
    return (int32_t)((room - reserve(r)) / rt_request_prompt_record_bytes());
}

/* Most tokens of a draft: each may become one more record. */
static int32_t draft_for(const rt_request *r, size_t room)
{
    if (room < reserve(r) || wants_prompt(&r->choices[0]))
        return 0;
    return (int32_t)((room - reserve(r)) / ((size_t)r->desc.n * r->record_max));
}

void rt_engine_check_readers(rt_engine *e)
{
    for (rt_request *r = e->open, *next; r != NULL; r = next) {
        size_t room = rt_request_room(r);
        int32_t most = rows_for(r, room - r->promised), draft = draft_for(r, room - r->promised);

        next = r->open_next;
        for (int i = 0; i < r->desc.n; i++) {
            r->choices[i].seq.n_new_max = most;
            r->choices[i].seq.n_draft_max = draft;
        }
        if (rows_for(r, room) > 0) { /* else it is the reader that is behind, not we */
            r->starved_ns = 0;
        } else if (r->starved_ns == 0) {
            r->starved_ns = e->output.now_ns;
        } else if (e->output.now_ns - r->starved_ns > SLOW_READER_NS) {
            tp_warn("engine", "a reader left its events unread for 10 s: its request is ended");
            rt_engine_finish_all(e, r, RT_FINISH_ERROR, "slow_client");
        }
    }
}

/* ---- steps under way ---- */

void rt_engine_name_in_step(rt_engine *e, const rt_step *s)
{
    for (int i = 0; i < s->n_seqs; i++) {
        rt_choice *c = s->seqs[i].seq->owner;

        c->request->n_under_way++;
        c->request->promised += record_bytes(&s->seqs[i]);
        if (c->started_ns == 0)
            c->started_ns = e->output.now_ns;
    }
}

void rt_engine_forget_step(const rt_step *s)
{
    for (int i = 0; i < s->n_seqs; i++) {
        rt_request *r = ((rt_choice *)s->seqs[i].seq->owner)->request;

        r->promised -= record_bytes(&s->seqs[i]);
        r->n_under_way--;
        let_go(r);
    }
}

static void deliver_result(rt_engine *e, const rt_scheduled *p, const rt_step_result *res)
{
    rt_choice *c = p->seq->owner;
    rt_ending end;

    if (c->finished)
        return; /* computed for nothing */
    if (res->is_prompt) {
        rt_output_prompt(&e->output, c, res);
        return;
    }
    if (res->token >= 0) {
        rt_sched_learn(e->sched, &c->seq, res->token);
        if (e->settled.speculation.max_tokens > 0)
            rt_ngram_append(&c->text, res->token);
    }
    end = rt_output_token(&e->output, c, res);
    TP_ASSERT(end.finish != RT_FINISH_NONE || !p->last);
    if (end.finish != RT_FINISH_NONE)
        finish(e, c, &end);
}

void rt_engine_deliver(rt_engine *e, const rt_step *s)
{
    static const rt_ending prefilled = {
        .finish = RT_FINISH_LENGTH, .stop_token = -1, .stop_string = -1};
    int at = 0;

    e->output.now_ns = tp_now_ns();
    for (int i = 0; i < s->n_seqs; i++) { /* both are in plan order */
        const rt_scheduled *p = &s->seqs[i];
        rt_choice *c = p->seq->owner;
        int first = at;

        for (; at < s->n_results && s->results[at].slot == p->slot; at++)
            deliver_result(e, p, &s->results[at]);
        if (p->n_draft > 0)
            rt_sched_settle(e->sched, p, at - first);
        if (p->last && !p->sampled && !c->finished)
            finish(e, c, &prefilled);
    }
    TP_ASSERT(at == s->n_results);
    if (!s->ahead)
        rt_sched_time(e->sched, s->n_tokens, s->ns);
    if (s->n_tokens > 0) {
        e->stats.steps++;
        rt_hist_add(&e->stats.iteration_tokens, s->n_tokens);
    }
    rt_engine_forget_step(s);
}
