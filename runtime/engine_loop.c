/* SPDX-License-Identifier: Apache-2.0 */
/* engine_loop.c - the step loop.
 *
 * Rank 0: take what the API threads left in the inbox, plan a step, send the plan, execute it, turn the results into
 * events.  The other ranks: receive, execute.  While no request is open nothing runs: rank 0 sleeps on the inbox, the
 * others in the control channel.
 *
 * Between taking the inbox and the next one nothing is allocated; tp_mem_forbid() makes that an assertion.
 */
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "runtime/engine_impl.h"

#define PAUSED_WAIT_NS (2 * TP_NS_PER_MS) /* all readers are behind: look again */
#define SLOW_READER_NS                                                                             \
    (10 * TP_NS_PER_S) /* a reader that lets its box stand full this long is cut off */

/* ---- requests on the engine thread ---- */

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

static void accept(rt_engine *e, rt_request *r)
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
        c->seq.sample = r->desc.sampling.max_tokens > 0;
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

static void close_request(rt_engine *e, rt_request *r)
{
    *(r->open_prev != NULL ? &r->open_prev->open_next : &e->open) = r->open_next;
    if (r->open_next != NULL)
        r->open_next->open_prev = r->open_prev;
    atomic_fetch_sub(&e->n_open, 1);
    atomic_fetch_sub(&e->queued_tokens, r->desc.n_prompt);
    rt_request_unref(r);
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

static void finish_all(rt_engine *e, rt_request *r, rt_finish how, const char *code)
{
    rt_ending end = {.finish = how, .stop_token = -1, .stop_string = -1, .error_code = code};
    int n = r->desc.n;

    rt_request_ref(r);
    for (int i = 0; i < n; i++)
        if (!r->choices[i].finished)
            finish(e, &r->choices[i], &end);
    rt_request_unref(r);
}

static void cancel(rt_engine *e, rt_request *r)
{
    if (r->n_open > 0) {
        e->stats.cancelled++;
        finish_all(e, r, RT_FINISH_ABORT, NULL);
    }
    rt_request_unref(r);
}

/* ---- the loop of rank 0 ---- */

static void wait_inbox(rt_engine *e, int64_t until_ns)
{
    struct timespec ts = {.tv_sec = until_ns / TP_NS_PER_S, .tv_nsec = until_ns % TP_NS_PER_S};

    if (until_ns == INT64_MAX)
        pthread_cond_wait(&e->inbox.wake, &e->inbox.lock);
    else
        pthread_cond_timedwait(&e->inbox.wake, &e->inbox.lock, &ts);
}

/* Takes everything out of the inbox; sleeps first while there is nothing to do.  True: the loop is over. */
static bool take_inbox(rt_engine *e, bool paused)
{
    rt_request *submitted, *cancelled;
    bool draining, late;

    pthread_mutex_lock(&e->inbox.lock);
    if (paused && e->inbox.head == NULL && e->inbox.cancelled == NULL)
        wait_inbox(e, tp_now_ns() + PAUSED_WAIT_NS);
    while (e->open == NULL && e->inbox.head == NULL && e->inbox.cancelled == NULL &&
           !e->inbox.draining && !rt_sched_has_closes(e->sched))
        wait_inbox(e, INT64_MAX);
    submitted = e->inbox.head;
    cancelled = e->inbox.cancelled;
    e->inbox.head = e->inbox.tail = e->inbox.cancelled = NULL;
    draining = e->inbox.draining;
    late = draining && tp_now_ns() >= e->inbox.drain_deadline_ns;
    pthread_mutex_unlock(&e->inbox.lock);

    e->output.now_ns = tp_now_ns();
    for (rt_request *r = submitted, *next; r != NULL; r = next) {
        next = r->inbox_next;
        accept(e, r);
    }
    for (rt_request *r = cancelled, *next; r != NULL; r = next) {
        next = r->cancel_next;
        cancel(e, r);
    }
    while (late && e->open != NULL)
        finish_all(e, e->open, RT_FINISH_ERROR, "shutdown");
    return draining && e->open == NULL && !rt_sched_has_closes(e->sched);
}

/* Holds back requests whose reader lets the outbox fill, and cuts off those that stay behind. */
static void check_readers(rt_engine *e)
{
    for (rt_request *r = e->open, *next; r != NULL; r = next) {
        /* a token and an ending per choice, and the prompt's first token, which yields no row */
        size_t reserve = 2 * (size_t)r->desc.n * r->record_max + rt_request_prompt_record_bytes();
        size_t room = rt_request_room(r);
        rt_seq *first = &r->choices[0].seq;
        int32_t most = INT32_MAX;

        next = r->open_next;
        if (room < reserve)
            most = 0;
        else if (first->lp_start != INT32_MAX)
            most = (int32_t)((room - reserve) / rt_request_prompt_record_bytes());
        for (int i = 0; i < r->desc.n; i++)
            r->choices[i].seq.n_new_max = most;
        if (most > 0) {
            r->starved_ns = 0;
        } else if (r->starved_ns == 0) {
            r->starved_ns = e->output.now_ns;
        } else if (e->output.now_ns - r->starved_ns > SLOW_READER_NS) {
            tp_warn("engine", "a reader left its events unread for 10 s: its request is ended");
            finish_all(e, r, RT_FINISH_ERROR, "slow_client");
        }
    }
}

static void mark_started(rt_seq *const *scheduled, int n, int64_t now_ns)
{
    for (int i = 0; i < n; i++) {
        rt_choice *c = scheduled[i]->owner;

        if (c->started_ns == 0)
            c->started_ns = now_ns;
    }
}

/* Turns the results of a step into events and endings. */
static void deliver(rt_engine *e)
{
    const rt_step_result *res;
    rt_seq *const *scheduled;
    int n, n_res;
    static const rt_ending prefilled = {
        .finish = RT_FINISH_LENGTH, .stop_token = -1, .stop_string = -1};

    e->output.now_ns = tp_now_ns();
    scheduled = rt_sched_scheduled(e->sched, &n);
    for (int i = 0; i < n; i++)
        rt_sched_commit(e->sched, scheduled[i]);
    res = rt_worker_results(e->worker, &n_res);
    for (int i = 0; i < n_res; i++) {
        rt_choice *c = rt_sched_slot(e->sched, res[i].slot)->owner;
        rt_ending end;

        if (res[i].is_prompt) {
            rt_output_prompt(&e->output, c, &res[i]);
            continue;
        }
        end = rt_output_token(&e->output, c, &res[i]);
        if (end.finish != RT_FINISH_NONE)
            finish(e, c, &end);
    }
    for (int i = 0; i < n; i++) {
        rt_seq *q = scheduled[i];

        if (q != NULL && !q->sample && q->n_computed == q->n_total)
            finish(e, q->owner, &prefilled);
    }
}

static void publish_stats(rt_engine *e, int n_tokens)
{
    const rt_block_pool *pool = rt_sched_pool(e->sched);

    if (n_tokens > 0) {
        e->stats.steps++;
        rt_hist_add(&e->stats.iteration_tokens, n_tokens);
    }
    e->stats.running = rt_sched_running(e->sched);
    e->stats.waiting = rt_sched_waiting(e->sched);
    e->stats.preemptions = rt_sched_preemptions(e->sched);
    e->stats.blocks_used = rt_block_pool_total(pool) - rt_block_pool_free_count(pool);
    pthread_mutex_lock(&e->stats_lock);
    e->published = e->stats;
    pthread_mutex_unlock(&e->stats_lock);
}

static tp_status step(rt_engine *e, uint16_t flags, int *n_tokens)
{
    const uint8_t *plan;
    rt_seq *const *scheduled;
    size_t bytes;
    bool stop;
    int n;

    rt_plan_begin(&e->writer, e->step, flags);
    *n_tokens = flags != 0 ? 0 : rt_sched_plan(e->sched, &e->writer);
    if (rt_plan_is_empty(&e->writer))
        return TP_OK;
    plan = rt_plan_finish(&e->writer, &bytes);
    e->step++;
    TP_TRY(comm_ctl_send(e->group, plan, bytes));
    scheduled = rt_sched_scheduled(e->sched, &n);
    mark_started(scheduled, flags != 0 ? 0 : n, e->output.now_ns);
    return rt_worker_execute(e->worker, plan, bytes, &stop);
}

static tp_status lead(rt_engine *e)
{
    int n_tokens = 1;
    tp_status st = TP_OK;

    while (!take_inbox(e, n_tokens == 0 && e->open != NULL)) {
        tp_mem_forbid(true);
        check_readers(e);
        st = step(e, 0, &n_tokens);
        if (st == TP_OK && n_tokens > 0)
            deliver(e);
        publish_stats(e, n_tokens);
        tp_mem_forbid(false);
        TP_TRY(st);
    }
    return step(e, RT_PLAN_STOP, &n_tokens);
}

static tp_status follow(rt_engine *e)
{
    bool stop = false;
    size_t bytes;

    while (!stop) {
        TP_TRY(comm_ctl_recv(e->group, e->plan_buf, e->plan_bytes_max, &bytes, 0));
        tp_mem_forbid(true);
        tp_status st = rt_worker_execute(e->worker, e->plan_buf, bytes, &stop);
        tp_mem_forbid(false);
        TP_TRY(st);
    }
    return TP_OK;
}

/* The group is lost: no request may wait for it. */
static void fail_open_requests(rt_engine *e, const char *code)
{
    rt_request *submitted;

    pthread_mutex_lock(&e->inbox.lock);
    e->inbox.draining = true;
    submitted = e->inbox.head;
    e->inbox.head = e->inbox.tail = NULL;
    pthread_mutex_unlock(&e->inbox.lock);
    for (rt_request *r = submitted, *next; r != NULL; r = next) {
        next = r->inbox_next;
        accept(e, r);
    }
    while (e->open != NULL)
        finish_all(e, e->open, RT_FINISH_ERROR, code);
    publish_stats(e, 0);
}

tp_status rt_engine_run(rt_engine *e)
{
    bool leader = comm_rank(e->group) == 0;
    tp_status st = leader ? lead(e) : follow(e);
    bool lost = st == TP_ERR_COMM || st == TP_ERR_TIMEOUT;

    if (st == TP_OK) {
        rt_engine_set_state(e, RT_ENGINE_DRAINING);
        return TP_OK;
    }
    rt_engine_set_state(e, lost ? RT_ENGINE_RANK_LOST : RT_ENGINE_DEAD);
    if (leader)
        fail_open_requests(e, lost ? "rank_lost" : "engine_dead");
    return st;
}
