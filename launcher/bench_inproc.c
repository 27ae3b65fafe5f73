/* SPDX-License-Identifier: Apache-2.0 */
/* bench_inproc.c - the loads of bench.h against an engine in this job, without HTTP: requests are submitted by one thread,
 * which reads their events as an API thread would.
 *
 * Rank 0's main thread is the engine thread, as in a server; the client is another.  Seats are what slots are in
 * bench_http.c.  Seats with news wait in a list, so a turn costs what has happened, not what is open.
 */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "launcher/bench.h"
#include "launcher/ranks.h"
#include "launcher/serve.h"

#define SEQS_MAX     4096 /* in progress, unless --max-num-seqs says more */
#define SLACK_TOKENS 16   /* of the context, beyond the longest request */

typedef struct client client;

typedef struct seat {
    client *client;
    rt_request *request; /* owned; NULL = free */
    const launch_ask *ask;
    launch_done done;
    int64_t last_ns;
    int pieces;
    rt_finish finish;
    const char *error_code;
    atomic_bool queued; /* in the list of news */
    int next_news;      /* whoever set queued writes it */
    int next_free;
} seat;

struct client {
    rt_engine *engine;
    const launch_load *load;
    launch_result *result;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    atomic_int news;  /* first seat with news; -1 = none */
    seat *seats;      /* owned */
    launch_ask *asks; /* owned */
    int n_seats, free, next, open;
    int32_t *prompt; /* owned; the longest */
    int64_t begin_ns;
};

/* ---- one request ---- */

/* Any number at once; the client sleeps only when the list is empty, and is woken only then. */
static void notify(void *ctx)
{
    seat *s = ctx;
    client *c = s->client;
    int head;

    if (atomic_exchange(&s->queued, true))
        return;
    head = atomic_load(&c->news);
    do
        s->next_news = head;
    while (!atomic_compare_exchange_weak(&c->news, &head, (int)(s - c->seats)));
    if (head >= 0)
        return;
    pthread_mutex_lock(&c->lock);
    pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->lock);
}

static void submit(client *c, seat *s)
{
    int index = c->next++;
    tp_status st;
    const launch_ask *a = &c->asks[index];
    rt_request_desc d = {.prompt = c->prompt,
                         .n_prompt = a->input_len,
                         .n = 1,
                         .sampling = rt_sampling_default(),
                         .notify = notify,
                         .ctx = s};

    for (int i = 0; i < a->input_len; i++)
        c->prompt[i] = launch_prompt_id(c->load, index, i);
    d.sampling.max_tokens = a->output_len;
    d.sampling.ignore_eos = true;
    s->ask = a;
    s->done = (launch_done){.start_ns = tp_now_ns(), .input_tokens = a->input_len};
    s->pieces = 0;
    s->finish = RT_FINISH_NONE;
    s->error_code = NULL;
    st = rt_engine_submit(c->engine, &d, &s->request);
    if (st != TP_OK) {
        launch_count_failure(c->result, st == TP_ERR_FULL ? "queue full" : tp_last_error());
        s->request = NULL;
        return;
    }
    c->free = s->next_free;
    c->open++;
    if (c->open > c->result->in_flight_max)
        c->result->in_flight_max = c->open;
}

static void take_token(client *c, seat *s, int64_t now_ns)
{
    s->done.output_tokens++;
    if (s->pieces++ == 0) {
        s->done.first_ns = now_ns;
    } else {
        launch_samples_add(&c->result->itl_ms,
                           (double)(now_ns - s->last_ns) / (double)TP_NS_PER_MS);
    }
    s->last_ns = now_ns;
}

static void conclude(client *c, seat *s)
{
    s->done.end_ns = tp_now_ns();
    if (s->finish == RT_FINISH_NONE || s->finish == RT_FINISH_ABORT)
        c->result->left++;
    else if (s->finish == RT_FINISH_ERROR)
        launch_count_failure(c->result, s->error_code);
    else
        launch_count_done(c->result, &s->done);
    rt_request_release(s->request);
    s->request = NULL;
    s->next_free = c->free;
    c->free = (int)(s - c->seats);
    c->open--;
}

static void read_events(client *c, seat *s)
{
    rt_event ev;

    while (s->request != NULL && rt_request_next(s->request, &ev)) {
        if (ev.kind == RT_EVENT_TOKEN)
            take_token(c, s, tp_now_ns());
        if (ev.kind == RT_EVENT_FINISH) {
            s->finish = ev.finish;
            s->error_code = ev.error_code;
        }
        if (s->ask->leave_after >= 0 && s->pieces >= s->ask->leave_after) {
            conclude(c, s); /* releasing cancels */
            return;
        }
    }
    if (s->request != NULL && rt_request_done(s->request))
        conclude(c, s);
}

/* ---- a load ---- */

static int64_t start_time(const client *c, int index)
{
    return c->begin_ns + (int64_t)(c->asks[index].start_s * (double)TP_NS_PER_S);
}

/* Starts what is due; when the next is, INT64_MAX: when a seat gets free. */
static int64_t start_due(client *c)
{
    while (c->next < c->load->n_requests) {
        if (c->free < 0)
            return INT64_MAX;
        if (start_time(c, c->next) > tp_now_ns())
            return start_time(c, c->next);
        submit(c, &c->seats[c->free]);
    }
    return INT64_MAX;
}

/* Takes the list of seats with news; -1 when there is none until then. */
static int take_news(client *c, int64_t until_ns)
{
    struct timespec ts = {.tv_sec = until_ns / TP_NS_PER_S, .tv_nsec = until_ns % TP_NS_PER_S};
    int list = atomic_exchange(&c->news, -1);

    if (list >= 0)
        return list;
    pthread_mutex_lock(&c->lock);
    while (atomic_load(&c->news) < 0) {
        if (until_ns == INT64_MAX)
            pthread_cond_wait(&c->wake, &c->lock);
        else if (pthread_cond_timedwait(&c->wake, &c->lock, &ts) != 0)
            break;
    }
    pthread_mutex_unlock(&c->lock);
    return atomic_exchange(&c->news, -1);
}

static void run_load(client *c)
{
    int64_t next_start_ns;

    c->begin_ns = tp_now_ns();
    next_start_ns = start_due(c);
    while (c->open > 0 || c->next < c->load->n_requests) {
        for (int at = take_news(c, next_start_ns), next; at >= 0; at = next) {
            next = c->seats[at].next_news;
            atomic_store(&c->seats[at].queued, false); /* what comes from here on is news again */
            read_events(c, &c->seats[at]);
        }
        next_start_ns = start_due(c);
    }
    c->result->duration_s = (double)(tp_now_ns() - c->begin_ns) / (double)TP_NS_PER_S;
}

static void release(client *c)
{
    tp_free(c->seats);
    tp_free(c->asks);
    tp_free(c->prompt);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->wake);
}

static tp_status prepare(client *c)
{
    const launch_load *l = c->load;
    pthread_condattr_t attr;
    int longest = 1;

    pthread_mutex_init(&c->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&c->wake, &attr);
    pthread_condattr_destroy(&attr);
    c->n_seats =
        l->concurrency > 0 && l->concurrency < l->n_requests ? l->concurrency : l->n_requests;
    c->seats = tp_calloc((size_t)c->n_seats, sizeof *c->seats);
    c->asks = tp_calloc((size_t)l->n_requests, sizeof *c->asks);
    if (c->seats == NULL || c->asks == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "out of memory for %d requests", l->n_requests);
    launch_plan_asks(c->asks, l);
    for (int i = 0; i < l->n_requests; i++)
        longest = c->asks[i].input_len > longest ? c->asks[i].input_len : longest;
    c->prompt = tp_calloc((size_t)longest, sizeof *c->prompt);
    if (c->prompt == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "out of memory for a prompt of %d tokens", longest);
    for (int i = 0; i < c->n_seats; i++) {
        c->seats[i].client = c;
        c->seats[i].next_free = i + 1 < c->n_seats ? i + 1 : -1;
    }
    return TP_OK;
}

typedef struct session {
    rt_engine *engine;
    const launch_load *loads;
    launch_result *results;
    launch_step_cost *cost; /* or NULL */
    int n;
    tp_status status;
} session;

/* By the engine's own clock, so that a client that lags behind does not count. */
static launch_step_cost cost_between(const rt_stats *a, const rt_stats *b)
{
    double gaps = (double)(b->inter_token.total - a->inter_token.total);
    double steps = (double)(b->steps - a->steps);

    return (launch_step_cost){
        .step_us = gaps > 0 ? (b->inter_token.sum - a->inter_token.sum) / gaps * 1e6 : 0,
        .host_us =
            steps > 0 ? (double)(b->host_ns - a->host_ns) / steps / (double)TP_NS_PER_US : 0};
}

/* The client's thread: load after load, then the engine is sent home. */
static void *run_session(void *arg)
{
    session *s = arg;
    rt_stats before, after;

    for (int i = 0; i < s->n && s->status == TP_OK; i++) {
        client c = {
            .engine = s->engine, .load = &s->loads[i], .result = &s->results[i], .news = -1};

        s->status = prepare(&c);
        rt_engine_stats(s->engine, &before);
        if (s->status == TP_OK)
            run_load(&c);
        rt_engine_stats(s->engine, &after);
        if (s->cost != NULL)
            s->cost[i] = cost_between(&before, &after);
        release(&c);
    }
    rt_engine_drain(s->engine, 0);
    return NULL;
}

/* ---- an engine ---- */

tp_status launch_engine_begin(launch_engine_job *job, const launch_options *opt)
{
    *job = (launch_engine_job){.opt = opt};
    TP_TRY(tp_hash_init());
    TP_TRY(comm_init(&job->world));
    tp_log_set_rank(job->world.rank, job->world.size);
    if (launch_open_backend(&job->be, &job->device, opt, &job->world) != TP_OK)
        job->be = NULL;
    if (job->world.rank == 0) {
        job->have_model = launch_find_model(job->dir, opt) == TP_OK;
        if (!job->have_model)
            tp_error("bench", "%s", tp_last_error());
    }
    return TP_OK;
}

void launch_engine_end(launch_engine_job *job)
{
    if (job->be != NULL)
        job->be->ops->close(job->be);
    comm_finalize();
}

static double longest(const launch_load *l)
{
    double factor = l->exponential ? 8 : 1 + l->range_ratio; /* bench_asks.c */

    return l->prefix_len + ceil(l->input_len * factor) + ceil(l->output_len * factor);
}

/* Options that hold every load: nothing waits for a seat, nothing is refused. */
static rt_engine_options options_for(const launch_engine_job *job, const launch_load *loads, int n)
{
    rt_engine_options o = launch_engine_options(job->opt, job->have_model ? job->dir : NULL);
    int seqs = 1;
    double context = 0;

    for (int i = 0; i < n; i++) {
        int at_once = loads[i].concurrency > 0 && loads[i].concurrency < loads[i].n_requests
                          ? loads[i].concurrency
                          : loads[i].n_requests;

        seqs = at_once > seqs ? at_once : seqs;
        context = fmax(context, longest(&loads[i]));
    }
    o.max_num_queued_reqs = seqs + 1;
    if (o.max_num_seqs == 0)
        o.max_num_seqs = seqs < SEQS_MAX ? seqs : SEQS_MAX;
    if (o.max_model_len == 0)
        o.max_model_len = (int64_t)context + SLACK_TOKENS;
    o.reducers = job->device.reducers;
    o.comm_table = job->opt->comm_table;
    o.device_name = job->device.name[0] != '\0' ? job->device.name : job->device.kind;
    return o;
}

static tp_status run_engine(rt_engine *engine, session *s, bool leads)
{
    pthread_t thread;
    tp_status st;

    if (leads && pthread_create(&thread, NULL, run_session, s) != 0)
        return TP_FAIL(TP_ERR_NOMEM, "cannot start the client's thread");
    st = rt_engine_run(engine);
    if (leads)
        pthread_join(thread, NULL);
    return st;
}

tp_status launch_engine_loads(launch_result *results, launch_step_cost *cost,
                              launch_engine_job *job, const launch_load *loads, int n,
                              bool overlapped)
{
    bool leads = job->world.rank == 0;
    rt_engine_options o = options_for(job, loads, n);
    session s = {.loads = loads, .results = results, .cost = cost, .n = n};
    tp_status st;

    for (int i = 0; i < n; i++) {
        launch_result_init(&results[i], &loads[i]);
        results[i].label = overlapped ? "overlapped" : "in turn";
    }
    o.sync_scheduling = !overlapped;
    TP_TRY(rt_engine_create(&s.engine, &o, job->be, &job->world));
    st = run_engine(s.engine, &s, leads);
    if (st != TP_OK && job->world.size > 1)
        comm_abort(rt_engine_group(s.engine), 70, tp_last_error());
    rt_engine_destroy(s.engine);
    return st != TP_OK ? st : s.status;
}

/* ---- bench --engine ---- */

static void print_pair(launch_result *ahead, launch_result *turn)
{
    double a = (double)ahead->output_tokens / ahead->duration_s;
    double t = (double)turn->output_tokens / turn->duration_s;
    char load[24];

    (void)snprintf(load, sizeof load, ahead->load.concurrency > 0 ? "%d" : "any",
                   ahead->load.concurrency);
    printf("%11s | %9.1f %9.1f %6.3f | %8.2f %8.2f | %8.3f %8.3f | %8.2f %8.2f\n", load, a, t,
           t > 0 ? a / t : 0, launch_percentile(&ahead->ttft_ms, 50),
           launch_percentile(&turn->ttft_ms, 50), launch_percentile(&ahead->tpot_ms, 50),
           launch_percentile(&turn->tpot_ms, 50), launch_percentile(&ahead->itl_ms, 99),
           launch_percentile(&turn->itl_ms, 99));
}

static tp_status measure_both(launch_result *results, launch_engine_job *job,
                              const launch_load *loads, int n)
{
    const launch_options *opt = job->opt;
    launch_bench_head head = {.backend = "engine", .model = job->dir};

    TP_TRY(launch_engine_loads(results, NULL, job, loads, n, true));
    TP_TRY(launch_engine_loads(results + n, NULL, job, loads, n, false));
    if (job->world.rank != 0)
        return TP_OK;
    if (!opt->json) {
        printf("engine of %d rank%s with %s\n%d requests of %d + %d tokens\n\n", job->world.size,
               job->world.size == 1 ? "" : "s", job->dir, loads[0].n_requests,
               loads[0].prefix_len + loads[0].input_len, loads[0].output_len);
        printf("%11s | %26s | %17s | %17s | %17s\n", "", "output tokens/s", "TTFT p50 ms",
               "TPOT p50 ms", "ITL p99 ms");
        printf("%11s | %9s %9s %6s | %8s %8s | %8s %8s | %8s %8s\n", "concurrency", "overlap",
               "in turn", "ratio", "overlap", "in turn", "overlap", "in turn", "overlap",
               "in turn");
        for (int i = 0; i < n; i++)
            print_pair(&results[i], &results[n + i]);
    }
    return launch_tell_results(opt, &head, results, 2 * n);
}

int launch_bench_engine(const launch_options *opt)
{
    static launch_result results[LAUNCH_RESULTS_MAX];
    launch_load loads[LAUNCH_LOADS_MAX];
    static launch_engine_job job;
    tp_status st;
    int n;

    if (launch_read_loads(loads, &n, opt) != TP_OK) {
        if (launch_env_rank() <= 0)
            tp_error("bench", "%s", tp_last_error());
        return 1;
    }
    if (launch_env_rank() <= 0 && launch_check_outputs(opt) != TP_OK)
        return 1;
    if (launch_engine_begin(&job, opt) != TP_OK)
        return 1;
    st = measure_both(results, &job, loads, n);
    for (int i = 0; i < 2 * n; i++)
        launch_result_release(&results[i]);
    launch_engine_end(&job);
    return st == TP_OK ? 0 : 1;
}
