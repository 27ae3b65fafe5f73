/* SPDX-License-Identifier: Apache-2.0 */
/* bench_prefix.c - what the prefix cache is worth: time to the first token of a prompt, and of a second one that begins
 * with the same tokens.
 *
 *     [mpirun -np N] bench_prefix DIR [shared tokens, default 4096 [tokens behind them, default 64 [threads per rank,
 *     default 2 [rounds, default 3 [dummy]]]]]
 *
 * A round takes a prefix that nobody has seen, and sends it three times with different ends: first, second (which finds
 * it), and under another salt (which must not).  The times are those of the engine, from submission to the event, without
 * HTTP.  A prompt that is too long for the model is cut to what fits.  With "dummy" the weights are random numbers, and
 * DIR needs no others.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "tests/bench/engine_job.h"

#define ROUNDS_MAX 100
#define PROMPT_MAX 131072

typedef struct client {
    bench_client base;
    int n_shared, n_tail, n_rounds;
} client;

typedef struct reply {
    double seconds; /* to the first token */
    int32_t n_cached;
} reply;

/* One token of a prompt whose first part depends on the round, and whose end on `end` too. */
static reply ask(client *c, uint32_t round, uint32_t end, uint8_t salt)
{
    static int32_t prompt[PROMPT_MAX];
    rt_request_desc d = {.prompt = prompt, .n = 1, .sampling = rt_sampling_default()};
    int64_t start = tp_now_ns();
    reply out = {0};
    rt_request *r;
    rt_event ev;

    d.n_prompt = c->n_shared + c->n_tail;
    for (int i = 0; i < d.n_prompt; i++)
        prompt[i] = 300 + (int32_t)(tp_mix32(round << 24 ^ (uint32_t)i ^
                                             (i < c->n_shared ? 0 : (end + 1) << 20)) %
                                    2000);
    d.cache_salt[0] = salt;
    d.sampling.max_tokens = 1;
    d.sampling.ignore_eos = true;
    r = bench_submit(&c->base, &d);
    while (!rt_request_done(r)) {
        bench_wait(&c->base);
        while (rt_request_next(r, &ev)) {
            if (ev.kind == RT_EVENT_TOKEN)
                out.seconds = (double)(tp_now_ns() - start) / (double)TP_NS_PER_S;
            out.n_cached = ev.n_cached;
        }
    }
    rt_request_release(r);
    return out;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void warm(client *c)
{
    int n_shared = c->n_shared;

    c->n_shared = 0;
    (void)ask(c, 0, 0, 0); /* the weights are in memory now */
    c->n_shared = n_shared;
}

static void *run_client(void *ctx)
{
    client *c = ctx;
    double ratio[ROUNDS_MAX];
    int64_t room = rt_engine_get_info(c->base.engine)->max_model_len - 1 - c->n_tail;

    if (c->n_shared > room) {
        (void)printf("the context holds %lld shared tokens, not %d\n", (long long)room,
                     c->n_shared);
        c->n_shared = (int)room;
    }
    warm(c);
    for (int i = 0; i < c->n_rounds; i++) {
        uint32_t round = (uint32_t)i + 1;
        reply first = ask(c, round, 1, 0), second = ask(c, round, 2, 0),
              stranger = ask(c, round, 2, 1);

        ratio[i] = second.seconds / first.seconds;
        (void)printf(
            "first %8.1f ms   second %8.1f ms, %d of %d tokens found   other salt %8.1f ms, %d found   "
            "second / first %.4f\n",
            first.seconds * 1e3, second.seconds * 1e3, second.n_cached, c->n_shared + c->n_tail,
            stranger.seconds * 1e3, stranger.n_cached, ratio[i]);
    }
    qsort(ratio, (size_t)c->n_rounds, sizeof *ratio, ascending);
    (void)printf(
        "median of %d: a second prompt with %d shared tokens and %d of its own has its first token after "
        "%.2f %% of the time\n",
        c->n_rounds, c->n_shared, c->n_tail, 100 * ratio[c->n_rounds / 2]);
    rt_engine_drain(c->base.engine, 0);
    return NULL;
}

static tp_status run(const comm_world *world, int argc, char **argv)
{
    client c = {.base = BENCH_CLIENT_INIT,
                .n_shared = bench_number(argc, argv, 2, 4096),
                .n_tail = bench_number(argc, argv, 3, 64),
                .n_rounds = bench_number(argc, argv, 5, 3)};
    kern_open_args args = {.n_threads = bench_number(argc, argv, 4, 2)};
    rt_engine_options opt = {.model_dir = argv[1],
                             .dtype = "auto",
                             .comm = "auto",
                             .watermark = -1,
                             .max_num_seqs = 4,
                             .dummy_weights = argc > 6 && strcmp(argv[6], "dummy") == 0};
    kern_backend *be;
    tp_status st;

    if (c.n_shared < 1 || c.n_tail < 1 || c.n_shared > PROMPT_MAX - c.n_tail || c.n_rounds < 1 ||
        c.n_rounds > ROUNDS_MAX)
        return TP_FAIL(TP_ERR_INVALID,
                       "at least one token shared and one behind, %d at most, in 1 to %d rounds",
                       PROMPT_MAX, ROUNDS_MAX);
    TP_TRY(kern_cpu_ops()->open(&be, &args));
    st = bench_run_engine(&c.base, &opt, be, world, run_client, &c);
    be->ops->close(be);
    return st;
}

int main(int argc, char **argv)
{
    return bench_job(run, "bench_prefix DIR [shared [tail [threads [rounds [dummy]]]]]", argc,
                     argv);
}
