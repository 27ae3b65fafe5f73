/* SPDX-License-Identifier: Apache-2.0 */
/* bench_engine.c - what planning ahead is worth: tokens per second of a whole engine, and how long its ranks stand still
 * between two steps, with the scheduler a step ahead and without.
 *
 *     [mpirun -np N] bench_engine DIR [sequences, default 16 [tokens each, default 200 [threads per rank, default 1]]]
 *
 * The gap runs from the end of one step on rank 0 to the begin of the next (the linker wraps its two halves), over
 * steps that follow each other within a run; without overlap it holds delivery, planning and sending, with it sending.
 * Both ways take turns, so that a busy machine disturbs them alike; the best of the rounds is the least disturbed one.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "runtime/sched/worker.h"
#include "tests/bench/engine_job.h"

#define ROUNDS     5
#define SEQS_MAX   256
#define STEPS_MAX  100000
#define PROMPT     32
#define WARM_STEPS 5 /* prompts */

tp_status __real_rt_worker_issue(rt_worker *w, const void *plan, size_t bytes, bool *stop);
tp_status __wrap_rt_worker_issue(rt_worker *w, const void *plan, size_t bytes, bool *stop);
tp_status __real_rt_worker_collect(rt_worker *w);
tp_status __wrap_rt_worker_collect(rt_worker *w);

static int64_t g_begin[STEPS_MAX], g_end[STEPS_MAX];
static int g_steps;

/* On CPU a step is collected before the next is issued. */
tp_status __wrap_rt_worker_issue(rt_worker *w, const void *plan, size_t bytes, bool *stop)
{
    g_begin[g_steps < STEPS_MAX ? g_steps : STEPS_MAX - 1] = tp_now_ns();
    return __real_rt_worker_issue(w, plan, bytes, stop);
}

tp_status __wrap_rt_worker_collect(rt_worker *w)
{
    int at = g_steps < STEPS_MAX ? g_steps++ : STEPS_MAX - 1;
    tp_status st = __real_rt_worker_collect(w);

    g_end[at] = tp_now_ns();
    return st;
}

typedef struct client {
    bench_client base;
    int n_seqs, n_tokens;
    double seconds;
} client;

typedef struct outcome {
    double tokens_per_s, gap_us, gap_p95_us, step_us;
} outcome;

static rt_request *submit(client *c, int i)
{
    int32_t prompt[PROMPT];
    rt_request_desc d = {
        .prompt = prompt, .n_prompt = PROMPT, .n = 1, .sampling = rt_sampling_default()};

    for (int k = 0; k < PROMPT; k++)
        prompt[k] = 300 + (i * 131 + k * 17) % 1000;
    d.sampling.max_tokens = c->n_tokens;
    d.sampling.ignore_eos = true;
    return bench_submit(&c->base, &d);
}

/* The API's part: submits, reads every event, ends the engine. */
static void *run_client(void *ctx)
{
    client *c = ctx;
    rt_request *r[SEQS_MAX];
    int64_t start = tp_now_ns();
    int left = c->n_seqs;
    rt_event ev;

    for (int i = 0; i < c->n_seqs; i++)
        r[i] = submit(c, i);
    while (left > 0) {
        bench_wait(&c->base);
        for (int i = 0; i < c->n_seqs; i++) {
            while (r[i] != NULL && rt_request_next(r[i], &ev))
                ;
            if (r[i] == NULL || !rt_request_done(r[i]))
                continue;
            rt_request_release(r[i]);
            r[i] = NULL;
            left--;
        }
    }
    c->seconds = (double)(tp_now_ns() - start) / (double)TP_NS_PER_S;
    rt_engine_drain(c->base.engine, 0);
    return NULL;
}

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static double quantile_us(int64_t *values, int n, double q)
{
    if (n == 0)
        return 0;
    qsort(values, (size_t)n, sizeof *values, ascending);
    return (double)values[(int)(q * (n - 1))] / (double)TP_NS_PER_US;
}

static outcome summarise(const client *c)
{
    static int64_t gaps[STEPS_MAX], steps[STEPS_MAX];
    int n = 0;
    outcome o = {.tokens_per_s = c->n_seqs * c->n_tokens / c->seconds};

    for (int i = WARM_STEPS; i + 3 < g_steps; i++, n++) { /* the last ones only close slots */
        gaps[n] = g_begin[i + 1] - g_end[i];
        steps[n] = g_end[i] - g_begin[i];
    }
    o.gap_p95_us = quantile_us(gaps, n, 0.95);
    o.gap_us = quantile_us(gaps, n, 0.5);
    o.step_us = quantile_us(steps, n, 0.5);
    return o;
}

static tp_status once(const char *dir, const comm_world *world, kern_backend *be, client *c,
                      bool sync, outcome *out)
{
    rt_engine_options opt = {.model_dir = dir,
                             .dtype = "auto",
                             .comm = "auto",
                             .watermark = -1,
                             .max_num_seqs = SEQS_MAX,
                             .max_model_len = 1024,
                             .sync_scheduling = sync};

    g_steps = 0;
    TP_TRY(bench_run_engine(&c->base, &opt, be, world, run_client, c));
    *out = summarise(c);
    return TP_OK;
}

static void print(const char *what, const outcome *o)
{
    (void)printf(
        "%-22s %8.0f tokens/s   step %8.1f us   gap between steps: median %6.1f us, p95 %7.1f us\n",
        what, o->tokens_per_s, o->step_us, o->gap_us, o->gap_p95_us);
}

static tp_status run(const comm_world *world, int argc, char **argv)
{
    client c = {.base = BENCH_CLIENT_INIT,
                .n_seqs = bench_number(argc, argv, 2, 16),
                .n_tokens = bench_number(argc, argv, 3, 200)};
    kern_open_args args = {.n_threads = bench_number(argc, argv, 4, 1)};
    outcome best[2] = {0};
    kern_backend *be;

    if (c.n_seqs < 1 || c.n_seqs > SEQS_MAX || c.n_tokens < 8 || c.n_tokens > 900)
        return TP_FAIL(TP_ERR_INVALID, "1 to %d sequences, 8 to 900 tokens", SEQS_MAX);
    TP_TRY(kern_cpu_ops()->open(&be, &args));
    for (int i = 0; i < 2 * ROUNDS; i++) {
        bool sync = i % 2 == 0;
        outcome o;

        TP_TRY(once(argv[1], world, be, &c, sync, &o));
        if (world->rank == 0)
            print(sync ? "after the step" : "ahead", &o);
        if (o.tokens_per_s > best[sync].tokens_per_s)
            best[sync] = o;
    }
    be->ops->close(be);
    if (world->rank == 0) {
        print("best after the step", &best[1]);
        print("best ahead", &best[0]);
    }
    return TP_OK;
}

int main(int argc, char **argv)
{
    return bench_job(run, "bench_engine DIR [sequences [tokens [threads]]]", argc, argv);
}
