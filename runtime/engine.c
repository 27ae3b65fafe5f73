/* SPDX-License-Identifier: Apache-2.0 */
/* engine.c - life of the engine, and what API threads may call; the step loop is in engine_loop.c. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "comm/life.h"
#include "runtime/engine_impl.h"

/* ---- start ---- */

void rt_engine_set_state(rt_engine *e, rt_engine_state s)
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
                           .watermark = s->watermark,
                           .namer = e->prefix_caching ? &e->namer : NULL,
                           .draft = s->speculation.max_tokens > 0 ? rt_engine_draft : NULL,
                           .draft_max = s->speculation.max_tokens,
                           .draft_seqs_max = s->speculation.max_seqs};

    rt_block_namer_init(&e->namer, s->block_tokens);
    TP_TRY(rt_sched_create(&e->sched, &so));
    TP_TRY(rt_plan_writer_init(&e->writer, e->plan_bytes_max, (uint32_t)s->max_num_seqs));
    TP_TRY(rt_plan_writer_init(&e->order, sizeof(rt_plan_header), 1));
    return rt_pipe_init(&e->pipe, e->overlapped ? RT_PIPE_STEPS : 1, e->writer.cap, s->max_num_seqs,
                        s->max_num_batched_tokens + s->max_num_seqs);
}

static tp_status create_plan_buffer(rt_engine *e)
{
    e->plan_buf = tp_malloc(e->plan_bytes_max);
    return e->plan_buf != NULL ? TP_OK
                               : TP_FAIL(TP_ERR_NOMEM, "step plan of %zu bytes", e->plan_bytes_max);
}

/* Rank 0 watches the steps of all ranks; who has neither peers nor a device waits for nobody. */
static tp_status create_watchdog(rt_engine *e)
{
    rt_watchdog_options o = {.group = e->group,
                             .timeout_ms = e->settled.step_timeout_ms,
                             .on_late = rt_engine_give_up,
                             .owner = e};

    if (comm_rank(e->group) != 0 || (comm_size(e->group) == 1 && !e->be->device))
        return TP_OK;
    return rt_watchdog_start(&e->watchdog, &o);
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
                            .n_blocks = s->n_blocks,
                            .ahead = s->ahead,
                            .draft_max = s->speculation.max_tokens,
                            .n_capture = s->n_capture};
    tp_status st = e->be->ops->kv_create(e->be, &kd, &e->kv);

    TP_TRY(rt_settle_agree(e->group, st, "allocating the KV cache"));
    TP_TRY(rt_model_load(&e->model, &s->config, &e->shard, e->be, e->group, &mo));
    memcpy(wo.capture, s->capture, sizeof wo.capture);
    st = rt_worker_create(&e->worker, &wo, &s->config, &e->shard, e->model, e->be, e->kv, e->group);
    if (st == TP_OK)
        st = comm_rank(e->group) == 0 ? create_scheduler(e) : create_plan_buffer(e);
    if (st == TP_OK)
        st = create_watchdog(e);
    TP_TRY(rt_settle_agree(e->group, st, "creating the scheduler"));
    return rt_settle_agree(e->group, rt_worker_capture(e->worker), "recording graphs");
}

static void fill_info(rt_engine *e)
{
    const rt_settled *s = &e->settled;
    uint64_t hash = tp_hash_fnv(&s->config, sizeof s->config);

    e->info = (rt_engine_info){.max_model_len = s->max_model_len,
                               .vocab = s->config.vocab,
                               .n_ranks = comm_size(e->group),
                               .max_num_seqs = s->max_num_seqs,
                               .max_open = s->max_num_seqs + s->max_queued_reqs,
                               .max_queued_tokens = s->max_queued_tokens,
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
    pthread_mutex_init(&e->plan_lock, NULL);
    pthread_mutex_init(&e->stats_lock, NULL);
}

static tp_status create_in_order(rt_engine *e, const rt_engine_options *opt,
                                 const comm_world *world)
{
    rt_budget budget;
    tp_status st;

    TP_TRY(rt_settle(&e->settled, opt, world, e->be));
    e->plan_bytes_max = rt_plan_bytes_max(&e->settled);
    TP_TRY(rt_create_group(&e->group, &e->settled, opt, world, e->be));
    st = rt_shard_plan(&e->shard, &e->settled.config, world->size, world->rank, e->settled.dtype,
                       e->settled.dtype);
    TP_TRY(rt_settle_agree(e->group, st, "the shard plan"));
    TP_TRY(rt_settle_memory(&e->settled, &e->shard, e->be, e->group, world->local_size, &budget));
    st = world->rank == 0 ? load_text_side(e, opt) : TP_OK;
    TP_TRY(rt_settle_agree(e->group, st, "loading the tokenizer"));
    TP_TRY(create_compute(e, opt));
    rt_compare_memory(&budget, e->be, e->group);
    return TP_OK;
}

tp_status rt_engine_create(rt_engine **out, const rt_engine_options *opt, kern_backend *be,
                           const comm_world *world)
{
    rt_engine *e = tp_calloc(1, sizeof *e);
    tp_status st;

    if (e == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "engine");
    e->be = be;
    e->overlapped = !opt->sync_scheduling;
    e->prefix_caching = !opt->no_prefix_caching;
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
    e->output =
        (rt_output){.tokenizer = e->tokenizer, .config = &e->settled.config, .stats = &e->stats};
    rt_engine_set_state(e, RT_ENGINE_SERVING);
    comm_life_on_loss(rt_engine_give_up, e);
    *out = e;
    return TP_OK;
}

/* What API threads left after the loop had ended. */
static void drop_inbox(rt_inbox *box)
{
    for (rt_request *r = box->head, *next; r != NULL; r = next) {
        next = r->inbox_next;
        rt_request_unref(r);
    }
    for (rt_request *r = box->cancelled, *next; r != NULL; r = next) {
        next = r->cancel_next;
        rt_request_unref(r);
    }
}

void rt_engine_destroy(rt_engine *e)
{
    if (e == NULL)
        return;
    comm_life_on_loss(NULL, NULL);
    rt_watchdog_stop(e->watchdog);
    rt_pipe_release(&e->pipe);
    rt_plan_writer_release(&e->writer);
    rt_plan_writer_release(&e->order);
    rt_sched_destroy(e->sched);
    rt_worker_destroy(e->worker);
    rt_model_destroy(e->model);
    if (e->kv != NULL)
        e->be->ops->kv_destroy(e->be, e->kv);
    rt_template_destroy(e->template_);
    rt_tokenizer_destroy(e->tokenizer);
    tp_free(e->plan_buf);
    comm_group_destroy(e->group);
    drop_inbox(&e->inbox);
    pthread_cond_destroy(&e->inbox.wake);
    pthread_mutex_destroy(&e->inbox.lock);
    pthread_mutex_destroy(&e->plan_lock);
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

/* The API has checked its clients; this is the contract between it and the engine. */
static bool within_limits(const rt_engine *e, const rt_request_desc *d)
{
    const rt_sampling *p = &d->sampling;

    if (d->n_prompt < 1 || d->n < 1 || d->n > RT_CHOICES_MAX || d->n_stop < 0 ||
        d->n_stop > RT_STOP_STRINGS_MAX || d->n_stop_ids < 0 || d->n_stop_ids > RT_STOP_IDS_MAX)
        return false;
    if (d->n_bias < 0 || d->n_bias > RT_BIAS_MAX || d->n_allowed > RT_ALLOWED_MAX ||
        (d->allowed != NULL && d->n_allowed < 1) || p->max_tokens < 0 ||
        p->n_logprobs > RT_LOGPROBS_MAX || p->n_prompt_logprobs > RT_LOGPROBS_MAX)
        return false;
    /* a token is drawn when max_tokens > 0, and it needs a place */
    if ((int64_t)d->n_prompt + (p->max_tokens > 0) > e->settled.max_model_len)
        return false;
    for (int i = 0; i < d->n_stop; i++)
        if (d->stop[i][0] == '\0' || strlen(d->stop[i]) > RT_STOP_BYTES_MAX)
            return false;
    for (int32_t i = 0; i < d->n_prompt; i++)
        if (d->prompt[i] < 0 || d->prompt[i] >= e->info.vocab)
            return false;
    return true;
}

static tp_status check_desc(const rt_engine *e, const rt_request_desc *d)
{
    const rt_settled *s = &e->settled;
    int64_t longest;

    if (!within_limits(e, d))
        return TP_REJECT(TP_ERR_INVALID, "the request is outside the limits of the engine");
    longest = (int64_t)d->n_prompt + d->sampling.max_tokens;
    longest = longest < s->max_model_len ? longest : s->max_model_len;
    if ((longest + s->block_tokens - 1) / s->block_tokens > s->n_blocks)
        return TP_REJECT(TP_ERR_LIMIT,
                         "the request may need %" PRId64
                         " tokens of KV cache, which holds %" PRId64,
                         longest, (int64_t)s->n_blocks * s->block_tokens);
    return TP_OK;
}

void rt_engine_queue(const rt_engine *e, int *open, int *limit, int *queue)
{
    *open = atomic_load(&e->n_open);
    *queue = e->settled.max_queued_reqs;
    *limit = e->settled.max_num_seqs + *queue;
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
    tp_status st;

    TP_TRY(check_desc(e, d));
    TP_TRY(check_queue(e, d));
    TP_TRY(
        rt_request_create(&r, e, e->tokenizer, d,
                          (int32_t)((s->max_model_len + s->block_tokens - 1) / s->block_tokens)));
    st = e->prefix_caching ? rt_request_name_blocks(r, &e->namer) : TP_OK;
    if (st == TP_OK && s->speculation.max_tokens > 0)
        st = rt_request_index_text(r, &s->speculation.ngram, rt_engine_longest(s, d));
    if (st != TP_OK) {
        rt_request_unref(r);
        return st;
    }
    pthread_mutex_lock(&e->inbox.lock);
    /* again, as others may have come meanwhile: the limits are exact */
    st = e->inbox.draining ? TP_REJECT(TP_ERR_DRAINING, "the server is shutting down")
                           : check_queue(e, d);
    if (st != TP_OK) {
        pthread_mutex_unlock(&e->inbox.lock);
        rt_request_unref(r);
        return st;
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

void rt_request_abandon(rt_request *r)
{
    rt_engine *e = r->engine;

    if (atomic_exchange(&r->cancelled, true))
        return;
    rt_request_ref(r); /* the list's */
    pthread_mutex_lock(&e->inbox.lock);
    r->cancel_next = e->inbox.cancelled;
    e->inbox.cancelled = r;
    pthread_cond_signal(&e->inbox.wake);
    pthread_mutex_unlock(&e->inbox.lock);
}

void rt_request_cancel(rt_request *r)
{
    pthread_mutex_lock(&r->lock);
    r->desc.notify = NULL;
    pthread_mutex_unlock(&r->lock);
    rt_request_abandon(r);
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
        rt_engine_set_state(e, RT_ENGINE_DRAINING);
    e->inbox.rung = true;
    pthread_cond_signal(&e->inbox.wake);
    pthread_mutex_unlock(&e->inbox.lock);
}
