/* SPDX-License-Identifier: Apache-2.0 */
/* bench_model.c - tokens per second of the forward pass alone, on as many ranks as mpirun started: no scheduler, no HTTP.
 *
 *     bench_model DIR [threads per rank [auto|float32|bfloat16|float16 [dummy]]]
 *
 * Medians of several steps, at a context of about 200 tokens; the head is computed as in serving.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "tests/model/model_testing.h"

#define REPEATS 9
#define CONTEXT 200

static int ascending(const void *a, const void *b)
{
    const double *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

/* Seconds of one step over the parts, the head for the last row of each included. */
static tp_status timed_step(tm_model *m, const tm_part *parts, int n, double *seconds)
{
    int32_t rows[TM_SEQS];
    int64_t start = tp_now_ns(), ld;
    float *logits, one;
    int row = 0;

    for (int i = 0; i < n; i++) {
        row += parts[i].n;
        rows[i] = row - 1;
    }
    TP_TRY(tm_step(m, parts, n));
    TP_TRY(tm_head(m, rows, n, &logits, &ld));
    TP_TRY(m->be->ops->get(m->be, &one, logits, m->shard.n_vocab_local > 0 ? sizeof one : 0));
    TP_TRY(comm_barrier(m->group));
    *seconds = (double)(tp_now_ns() - start) / (double)TP_NS_PER_S;
    return TP_OK;
}

static tp_status measure(tm_model *m, const char *what, int n_seqs, int pos, int n)
{
    int32_t ids[TM_TOKENS];
    double seconds[REPEATS];
    tm_part parts[TM_SEQS];

    for (int i = 0; i < TM_TOKENS; i++)
        ids[i] = i * 7919 % m->config.vocab;
    for (int s = 0; s < n_seqs; s++)
        parts[s] = (tm_part){.seq = s, .pos = pos, .n = n, .ids = ids + s};
    for (int i = 0; i < REPEATS; i++)
        TP_TRY(timed_step(m, parts, n_seqs, &seconds[i]));
    qsort(seconds, REPEATS, sizeof *seconds, ascending);
    if (m->shard.rank == 0)
        (void)printf("%-18s %8.2f ms per step, best %8.2f  %8.1f tokens/s\n", what,
                     seconds[REPEATS / 2] * 1e3, seconds[0] * 1e3,
                     n_seqs * n / seconds[REPEATS / 2]);
    return TP_OK;
}

static tp_status run(const comm_world *world, int argc, char **argv)
{
    const char *dtype = argc > 3 ? argv[3] : "auto";
    comm_options opt = {.kind = "auto", .plan_bytes_max = 64, .timeout_ms = 60000};
    tm_options o = {.dir = argv[1],
                    .ops = kern_cpu_ops(),
                    .n_threads = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 1,
                    .dummy = argc > 4 && strcmp(argv[4], "dummy") == 0};
    comm_group *g;
    rt_config c;
    tm_model m;
    tp_status st;

    TP_TRY(rt_config_load(&c, o.dir));
    o.dtype = c.dtype;
    for (int t = KERN_DTYPE_F32; t <= KERN_DTYPE_F16; t++) {
        if (strcmp(kern_dtype_name((kern_dtype)t), dtype) == 0)
            o.dtype = (kern_dtype)t;
    }
    opt.window_bytes = rt_model_window_bytes(&c, world->size, TM_TOKENS);
    TP_TRY(comm_group_create(&g, world, &opt));
    o.group = g;
    st = tm_open(&m, &o);
    if (st == TP_OK) {
        if (world->rank == 0)
            (void)printf("%d ranks (%s), %d threads each, %s, %s\n", world->size, comm_kind(g),
                         m.be->n_threads, m.be->isa, kern_dtype_name(o.dtype));
        st = measure(&m, "prefill 200", 1, 0, CONTEXT);
        if (st == TP_OK)
            st = measure(&m, "decode, batch 1", 1, CONTEXT, 1);
        if (st == TP_OK)
            st = measure(&m, "decode, batch 16", 16, CONTEXT, 1);
        tm_close(&m);
    }
    comm_group_destroy(g);
    return st;
}

int main(int argc, char **argv)
{
    comm_world world;
    tp_status st;

    if (argc < 2 || comm_init(&world) != TP_OK)
        return 2;
    tp_log_set_rank(world.rank, world.size);
    st = run(&world, argc, argv);
    comm_finalize();
    return st == TP_OK ? 0 : 1;
}
