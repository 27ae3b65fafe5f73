/* SPDX-License-Identifier: Apache-2.0 */
/* engine.c - start, the step loop, and what API threads may call.
 *
 * Rank 0's loop: take what the API threads left in the inbox, plan a step, send the plan, execute it, turn the results
 * into events.  The other ranks: receive, execute.  While no request is open nothing runs: rank 0 sleeps on the inbox,
 * the others in the control channel.
 *
 * Locks: inbox.lock (submissions, cancellations, drain), stats_lock (published snapshot), and each request's own; no
 * two are held together, and none is held in a kernel or a collective.
 */
#include "runtime/engine.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "runtime/output.h"
#include "runtime/request.h"
#include "runtime/sched/worker.h"
#include "runtime/startup.h"

#define PAUSED_WAIT_NS (2 * TP_NS_PER_MS) /* all readers are behind: look again */
#define SLOW_READER_NS                                                                             \
    (10 * TP_NS_PER_S) /* a reader that lets its box stand full this long is cut off */

typedef struct inbox {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    rt_request *head, *tail; /* submitted, in order */
    rt_request *cancelled;   /* stack */
    bool draining;
    int64_t drain_deadline_ns;
} inbox;

struct rt_engine {
    rt_engine_info info;
    rt_settled settled;
    rt_shard shard;
    kern_backend *be;  /* borrowed */
    comm_group *group; /* owned */
    rt_model *model;   /* owned */
    kern_kv *kv;       /* owned */
    rt_worker *worker; /* owned */
    size_t plan_bytes_max;
    uint8_t *plan_buf; /* owned; ranks other than 0 */
    /* rank 0 */
    rt_tokenizer *tokenizer; /* owned */
    rt_template *template_;  /* owned; NULL = none */
    rt_sched *sched;         /* owned */
    rt_plan_writer writer;
    rt_output output;
    rt_stats stats;   /* engine thread */
    rt_request *open; /* engine thread: list of requests in progress */
    uint64_t step;
    inbox inbox;
    atomic_int state;           /* rt_engine_state */
    atomic_int n_open;          /* requests submitted and not over */
    atomic_llong queued_tokens; /* prompt tokens of open requests */
    pthread_mutex_t stats_lock;
    rt_stats published; /* under stats_lock */
};

/* ---- start ---- */

static void set_state(rt_engine *e, rt_engine_state s)
{
    atomic_store_explicit(&e->state, (int)s, memory_order_release);
}

rt_engine_state rt_engine_get_state(const rt_engine *e)
{
    return (rt_engine_state)atomic_load_explicit(&e->state, memory_order_acquire);
}

static tp_status load_text_side(rt_engine *e, const rt_engine_options *opt)
{
    const char *source;

    TP_TRY(rt_tokenizer_load(&e->tokenizer, opt->model_dir));
    source = rt_tokenizer_chat_template(e->tokenizer);
    if (source == NULL) {
        tp_warn("engine", "the model has no chat template: /v1/chat/completions will answer 400");
        return TP_OK;
    }
    if (rt_template_compile(&e->template_, source, strlen(source)) != TP_OK)
        return TP_FAIL(TP_ERR_FORMAT, "chat template of %s: %s", opt->model_dir, tp_last_error());
    return TP_OK;
}

static tp_status create_scheduler(rt_engine *e)
{
    const rt_settled *s = &e->settled;
    rt_sched_options so = {.n_slots = s->max_num_seqs,
                           .max_tokens = s->max_num_batched_tokens,
                           .block_tokens = s->block_tokens,
                           .n_blocks = s->n_blocks,
                           .watermark = s->watermark};

    TP_TRY(rt_sched_create(&e->sched, &so));
    return rt_plan_writer_init(&e->writer, e->plan_bytes_max, (uint32_t)s->max_num_seqs);
}

static tp_status create_compute(rt_engine *e, const rt_engine_options *opt)
{
    const rt_settled *s = &e->settled;
    rt_model_options mo = rt_model_options_of(s, opt->progress && comm_rank(e->group) == 0);
    kern_kv_desc kd = {.n_layers = s->config.n_layers,
                       .n_kv = e->shard.n_kv_local,
                       .head_dim = s->config.head_dim,
                       .block_tokens = s->block_tokens,
                       .n_blocks = s->n_blocks,
                       .dtype = s->dtype};
    rt_worker_options wo = {.n_slots = s->max_num_seqs,
                            .max_model_len = s->max_model_len,
                            .max_tokens = s->max_num_batched_tokens,
                            .block_tokens = s->block_tokens,
                            .n_blocks = s->n_blocks};
    tp_status st = e->be->ops->kv_create(e->be, &kd, &e->kv);

    TP_TRY(rt_settle_agree(e->group, st, "allocating the KV cache"));
    TP_TRY(rt_model_load(&e->model, &s->config, &e->shard, e->be, e->group, &mo));
    TP_TRY(
        rt_worker_create(&e->worker, &wo, &s->config, &e->shard, e->model, e->be, e->kv, e->group));
    if (comm_rank(e->group) != 0) {
        e->plan_buf = tp_malloc(e->plan_bytes_max);
        st = e->plan_buf != NULL ? TP_OK : TP_FAIL(TP_ERR_NOMEM, "step plan buffer");
    } else {
        st = create_scheduler(e);
    }
    return rt_settle_agree(e->group, st, "creating the scheduler");
}

static void fill_info(rt_engine *e)
{
    const rt_settled *s = &e->settled;
    uint64_t hash = tp_hash_fnv(&s->config, sizeof s->config);

    e->info = (rt_engine_info){.max_model_len = s->max_model_len,
                               .vocab = s->config.vocab,
                               .n_ranks = comm_size(e->group),
                               .max_num_seqs = s->max_num_seqs,
                               .block_tokens = s->block_tokens,
                               .n_blocks = s->n_blocks,
                               .dtype = s->dtype,
                               .eos = s->config.eos,
                               .n_eos = s->config.n_eos,
                               .gen_temperature = s->config.gen_temperature,
                               .gen_top_p = s->config.gen_top_p,
                               .gen_min_p = s->config.gen_min_p,
                               .gen_repetition_penalty = s->config.gen_repetition_penalty,
                               .gen_top_k = s->config.gen_top_k};
    snprintf(e->info.fingerprint, sizeof e->info.fingerprint, "fp_%d_%010" PRIx64 "_%d",
             RT_PLAN_VERSION, hash & UINT64_C(0xffffffffff), comm_size(e->group));
}

static void init_shared(rt_engine *e)
{
    pthread_condattr_t monotonic;

    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&e->inbox.wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&e->inbox.lock, NULL);
    pthread_mutex_init(&e->stats_lock, NULL);
}

static tp_status create_in_order(rt_engine *e, const rt_engine_options *opt,
                                 const comm_world *world)
{
    comm_options co = {.kind = opt->comm};
    rt_budget budget;
    tp_status st;

    TP_TRY(rt_settle(&e->settled, opt, world));
    co.window_bytes =
        rt_model_window_bytes(&e->settled.config, world->size, e->settled.max_num_batched_tokens);
    co.plan_bytes_max = e->plan_bytes_max = rt_plan_bytes_max(&e->settled);
    co.timeout_ms = 0; /* loading takes as long as it takes */
    TP_TRY(comm_group_create(&e->group, world, &co));
    st = rt_shard_plan(&e->shard, &e->settled.config, world->size, world->rank, e->settled.dtype,
                       e->settled.dtype);
    TP_TRY(rt_settle_agree(e->group, st, "the shard plan"));
    TP_TRY(rt_settle_memory(&e->settled, &e->shard, e->be, e->group, world->local_size, &budget));
    st = world->rank == 0 ? load_text_side(e, opt) : TP_OK;
    TP_TRY(rt_settle_agree(e->group, st, "loading the tokenizer"));
    return create_compute(e, opt);
}

tp_status rt_engine_create(rt_engine **out, const rt_engine_options *opt, kern_backend *be,
                           const comm_world *world)
{
    rt_engine *e = tp_calloc(1, sizeof *e);
    tp_status st;

    if (e == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "engine");
    e->be = be;
    init_shared(e);
    st = create_in_order(e, opt, world);
    if (st != TP_OK) {
        rt_engine_destroy(e);
        return st;
    }
    fill_info(e);
    rt_stats_init(&e->stats, e->settled.max_model_len);
    e->stats.blocks_total = e->settled.n_blocks;
    e->published = e->stats;
    e->output = (rt_output){.tokenizer = e->tokenizer,
                            .config = &e->settled.config,
                            .max_model_len = e->settled.max_model_len,
                            .stats = &e->stats};
    set_state(e, RT_ENGINE_SERVING);
    *out = e;
    return TP_OK;
}

void rt_engine_destroy(rt_engine *e)
{
    if (e == NULL)
        return;
    rt_plan_writer_release(&e->writer);
    rt_sched_destroy(e->sched);
    rt_worker_destroy(e->worker);
    rt_model_destroy(e->model);
    if (e->kv != NULL)
        e->be->ops->kv_destroy(e->be, e->kv);
    rt_template_destroy(e->template_);
    rt_tokenizer_destroy(e->tokenizer);
    tp_free(e->plan_buf);
    comm_group_destroy(e->group);
    pthread_cond_destroy(&e->inbox.wake);
    pthread_mutex_destroy(&e->inbox.lock);
    pthread_mutex_destroy(&e->stats_lock);
    tp_free(e);
}

comm_group *rt_engine_group(rt_engine *e)
{
    return e->group;
}

const rt_engine_info *rt_engine_get_info(const rt_engine *e)
{
    return &e->info;
}

const rt_tokenizer *rt_engine_tokenizer(const rt_engine *e)
{
    return e->tokenizer;
}

const rt_template *rt_engine_template(const rt_engine *e)
{
    return e->template_;
}

void rt_engine_stats(const rt_engine *e, rt_stats *out)
{
    pthread_mutex_t *lock = (pthread_mutex_t *)(uintptr_t)&e->stats_lock;

    pthread_mutex_lock(lock);
    *out = e->published;
    pthread_mutex_unlock(lock);
}

/* ---- what API threads call ---- */

static tp_status check_desc(const rt_engine *e, const rt_request_desc *d)
{
    const rt_settled *s = &e->settled;
    int64_t longest =
        (int64_t)d->n_prompt + (d->sampling.max_tokens > 0 ? d->sampling.max_tokens : 1);

    if (d->n_prompt < 1 || d->n_prompt > s->max_model_len || d->n < 1 || d->n > RT_CHOICES_MAX ||
        d->n_stop > RT_STOP_STRINGS_MAX || d->n_stop_ids > RT_STOP_IDS_MAX ||
        d->n_bias > RT_BIAS_MAX || d->n_allowed > RT_ALLOWED_MAX || d->sampling.max_tokens < 0)
        return TP_REJECT(TP_ERR_INVALID, "the request is outside the limits of the engine");
    longest = longest < s->max_model_len ? longest : s->max_model_len;
    if ((longest + s->block_tokens - 1) / s->block_tokens > s->n_blocks)
        return TP_REJECT(TP_ERR_LIMIT,
                         "the request may need %" PRId64
                         " tokens of KV cache, which holds %" PRId64,
                         longest, (int64_t)s->n_blocks * s->block_tokens);
    return TP_OK;
}

static tp_status check_queue(rt_engine *e, const rt_request_desc *d)
{
    const rt_settled *s = &e->settled;
    rt_engine_state state = rt_engine_get_state(e);

    if (state == RT_ENGINE_DRAINING)
        return TP_REJECT(TP_ERR_DRAINING, "the server is shutting down");
    if (state != RT_ENGINE_SERVING)
        return TP_REJECT(TP_ERR_COMM, "the engine has stopped");
    if (atomic_load(&e->n_open) >= s->max_num_seqs + s->max_queued_reqs ||
        (s->max_queued_tokens > 0 &&
         atomic_load(&e->queued_tokens) + d->n_prompt > s->max_queued_tokens))
        return TP_REJECT(TP_ERR_FULL, "too many requests are waiting");
    return TP_OK;
}

tp_status rt_engine_submit(rt_engine *e, const rt_request_desc *d, rt_request **out)
{
    const rt_settled *s = &e->settled;
    rt_request *r;

    TP_TRY(check_desc(e, d));
    TP_TRY(check_queue(e, d));
    TP_TRY(
        rt_request_create(&r, e, e->tokenizer, d,
                          (int32_t)((s->max_model_len + s->block_tokens - 1) / s->block_tokens)));
    pthread_mutex_lock(&e->inbox.lock);
    if (e->inbox.draining) {
        pthread_mutex_unlock(&e->inbox.lock);
        rt_request_unref(r);
        return TP_REJECT(TP_ERR_DRAINING, "the server is shutting down");
    }
    rt_request_ref(r); /* the engine's */
    *(e->inbox.tail != NULL ? &e->inbox.tail->inbox_next : &e->inbox.head) = r;
    e->inbox.tail = r;
    atomic_fetch_add(&e->n_open, 1);
    atomic_fetch_add(&e->queued_tokens, d->n_prompt);
    pthread_cond_signal(&e->inbox.wake);
    pthread_mutex_unlock(&e->inbox.lock);
    *out = r;
    return TP_OK;
}

void rt_request_cancel(rt_request *r)
{
    rt_engine *e = r->engine;

    pthread_mutex_lock(&r->lock);
    r->desc.notify = NULL;
    pthread_mutex_unlock(&r->lock);
    if (atomic_exchange(&r->cancelled, true))
        return;
    rt_request_ref(r); /* the list's */
    pthread_mutex_lock(&e->inbox.lock);
    r->cancel_next = e->inbox.cancelled;
    e->inbox.cancelled = r;
    pthread_cond_signal(&e->inbox.wake);
    pthread_mutex_unlock(&e->inbox.lock);
}

void rt_request_release(rt_request *r)
{
    if (!rt_request_done(r))
        rt_request_cancel(r);
    rt_request_unref(r);
}

void rt_engine_drain(rt_engine *e, int64_t timeout_ms)
{
    int64_t deadline = tp_now_ns() + timeout_ms * TP_NS_PER_MS;

    pthread_mutex_lock(&e->inbox.lock);
    if (!e->inbox.draining || deadline < e->inbox.drain_deadline_ns)
        e->inbox.drain_deadline_ns = deadline;
    e->inbox.draining = true;
    if (rt_engine_get_state(e) == RT_ENGINE_SERVING)
        set_state(e, RT_ENGINE_DRAINING);
    pthread_cond_signal(&e->inbox.wake);
    pthread_mutex_unlock(&e->inbox.lock);
}

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
        size_t reserve = 2 * (size_t)r->desc.n * r->record_max, room = rt_request_room(r);
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
    if (*n_tokens == 0 && e->writer.header.n_close == 0 && flags == 0)
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
        set_state(e, RT_ENGINE_DRAINING);
        return TP_OK;
    }
    set_state(e, lost ? RT_ENGINE_RANK_LOST : RT_ENGINE_DEAD);
    if (leader)
        fail_open_requests(e, lost ? "rank_lost" : "engine_dead");
    return st;
}
