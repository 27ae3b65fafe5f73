/* SPDX-License-Identifier: Apache-2.0 */
/* bench_model.c - the forward pass of a checkpoint without scheduler, sampling and HTTP: prefill, decode by batch and
 * by context, and which operations the time of a step goes to.
 *
 *     [mpirun -np N] bench_model DIR [--threads N] [--ms N] [--prefill N] [--batches 1,16] [--contexts 128]
 *                                    [--dtype T] [--steps N] [--json] [--profile]
 *
 * A step is what the engine asks of a model: forward, then logits of the last row of every sequence.  The cache holds
 * zeros, which cost as much as anything else.  A sample is the mean of --steps decode steps (one of prefill); samples
 * follow each other for --ms milliseconds (at least three); "best" is the fastest, "median" the middle one: on a machine
 * with other work the best is nearest to what the code can do.
 *
 * --profile adds up the time inside each operation of rank 0 over the case's steps; what is not in any operation is
 * "rest".  With several ranks it also says of each rank how long a step of the best sample was in its operations, in
 * sums over the ranks without their waits, and in those waits, and how often the rank slept and how often it lost its
 * core.  A rank that waits longer than the others has less to do; when all wait long, their cores were taken from them
 * in turn.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "comm/shm/meet.h"
#include "kernels/cpu/gemm_internal.h"
#include "runtime/model/model.h"

#define BLOCK_TOKENS 16
#define STEPS_MAX    4096
#define LIST_MAX     16
#define PARTS_MAX    16

typedef struct settings {
    const char *dir, *dtype;
    int n_threads, ms, prefill, steps;
    int batches[LIST_MAX], contexts[LIST_MAX], n_batches, n_contexts;
    bool json, profile;
} settings;

typedef struct bench {
    settings set;
    comm_world world;
    comm_group *group;
    kern_backend *be;
    rt_config config;
    rt_shard shard;
    rt_model *model;
    kern_kv *kv;
    int32_t *ids, *pos, *kv_index, *tables, *rows;
    kern_attn_seq *seqs;
    int64_t *times;
    int n_cases;
} bench;

static void check(tp_status st)
{
    if (st != TP_OK)
        comm_abort(NULL, 70, tp_last_error());
}

static void *must(void *p)
{
    TP_ASSERT(p != NULL);
    return p;
}

/* ---- time per rank ---- */

/* Of one rank, in one sample. */
typedef struct rank_time {
    int64_t ops, sums, waits; /* ns; the waits lie inside the sums */
    int64_t n_sums, n_slept, n_preempted;
} rank_time;

static rank_time g_mine, g_best; /* since the sample began; of the best one */
static bool g_in_sum;            /* not in a broadcast */

tp_status __real_comm_reduce(comm_group *g, const comm_reduce_args *a);
tp_status __wrap_comm_reduce(comm_group *g, const comm_reduce_args *a);
tp_status __real_comm_bell_wait(comm_bell *b, uint32_t target, const comm_patience *p);
tp_status __wrap_comm_bell_wait(comm_bell *b, uint32_t target, const comm_patience *p);

tp_status __wrap_comm_reduce(comm_group *g, const comm_reduce_args *a)
{
    int64_t start = tp_now_ns();
    tp_status st;

    g_in_sum = true;
    st = __real_comm_reduce(g, a);
    g_in_sum = false;
    g_mine.sums += tp_now_ns() - start;
    g_mine.n_sums++;
    return st;
}

tp_status __wrap_comm_bell_wait(comm_bell *b, uint32_t target, const comm_patience *p)
{
    int64_t start = tp_now_ns();
    tp_status st = __real_comm_bell_wait(b, target, p);

    if (g_in_sum)
        g_mine.waits += tp_now_ns() - start;
    return st;
}

/* How often this thread slept and was preempted, with this sign added to its record. */
static void count_switches(int sign)
{
    struct rusage u;

    TP_ASSERT(getrusage(RUSAGE_THREAD, &u) == 0);
    g_mine.n_slept += sign * u.ru_nvcsw;
    g_mine.n_preempted += sign * u.ru_nivcsw;
}

static void begin_sample(void)
{
    g_mine = (rank_time){0};
    count_switches(-1);
}

static void end_sample(bool best)
{
    count_switches(1);
    if (best)
        g_best = g_mine;
}

/* ---- time per operation ---- */

typedef struct part {
    char name[32];
    int64_t ns, calls;
} part;

static part g_parts[PARTS_MAX];
static int g_n_parts;
static const kern_ops *g_real;

static void add_time(const char *name, int64_t start)
{
    int64_t ns = tp_now_ns() - start;
    int i = 0;

    while (i < g_n_parts && strcmp(g_parts[i].name, name) != 0)
        i++;
    if (i == g_n_parts) {
        TP_ASSERT(g_n_parts < PARTS_MAX);
        (void)snprintf(g_parts[g_n_parts++].name, sizeof g_parts[0].name, "%s", name);
    }
    g_parts[i].ns += ns;
    g_mine.ops += ns;
    g_parts[i].calls++;
}

#define TIMED(op)                                                                                  \
    static tp_status timed_##op(kern_backend *be, const kern_##op##_args *a)                       \
    {                                                                                              \
        int64_t start = tp_now_ns();                                                               \
        tp_status st = g_real->op(be, a);                                                          \
                                                                                                   \
        add_time(#op, start);                                                                      \
        return st;                                                                                 \
    }

TIMED(embed)
TIMED(rmsnorm)
TIMED(rope_table)
TIMED(qkv)
TIMED(attn)
TIMED(silu_mul)
TIMED(gather)

static tp_status timed_gemm(kern_backend *be, const kern_gemm_args *a)
{
    int64_t start = tp_now_ns();
    tp_status st = g_real->gemm(be, a);
    char name[32];

    (void)snprintf(name, sizeof name, "gemm %dx%d", (int)a->w->desc.n, (int)a->w->desc.k);
    add_time(name, start);
    return st;
}

static void time_operations(kern_backend *be)
{
    static kern_ops timed;

    g_real = be->ops;
    timed = *be->ops;
    timed.embed = timed_embed;
    timed.rmsnorm = timed_rmsnorm;
    timed.gemm = timed_gemm;
    timed.rope_table = timed_rope_table;
    timed.qkv = timed_qkv;
    timed.attn = timed_attn;
    timed.silu_mul = timed_silu_mul;
    timed.gather = timed_gather;
    be->ops = &timed;
}

/* ---- cases ---- */

typedef struct a_case {
    const char *what;
    int batch, ctx,
        n_rows; /* sequences; tokens in the cache with the new ones; new tokens of each */
} a_case;

static void fill_step(bench *b, const a_case *c, rt_batch *batch)
{
    int per_seq = (c->ctx + BLOCK_TOKENS - 1) / BLOCK_TOKENS, n = 0;

    for (int s = 0; s < c->batch; s++) {
        b->seqs[s] =
            (kern_attn_seq){.row = n, .n_rows = c->n_rows, .ctx = c->ctx, .table = s * per_seq};
        b->rows[s] = n + c->n_rows - 1;
        for (int i = 0; i < per_seq; i++)
            b->tables[s * per_seq + i] = s * per_seq + i;
        for (int i = 0; i < c->n_rows; i++, n++) {
            b->pos[n] = c->ctx - c->n_rows + i;
            b->kv_index[n] = s * per_seq * BLOCK_TOKENS + b->pos[n];
            b->ids[n] = (s * 131 + i * 17 + 300) % b->config.vocab;
        }
    }
    *batch = (rt_batch){.n_tok = n,
                        .ids = b->ids,
                        .pos = b->pos,
                        .kv_index = b->kv_index,
                        .n_seqs = c->batch,
                        .n_decode = c->n_rows == 1 ? c->batch : 0,
                        .max_rows = c->n_rows == 1 ? 0 : c->n_rows,
                        .max_ctx = c->ctx,
                        .seqs = b->seqs,
                        .block_tables = b->tables};
}

static void step(bench *b, const a_case *c, const rt_batch *batch)
{
    float *logits;
    int64_t ld;

    check(rt_model_forward(b->model, b->kv, batch));
    for (int at = 0; at < c->batch; at += RT_LOGIT_ROWS_MAX) {
        int n = c->batch - at < RT_LOGIT_ROWS_MAX ? c->batch - at : RT_LOGIT_ROWS_MAX;

        check(rt_model_logits(b->model, b->rows + at, n, &logits, &ld));
    }
}

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static void json_parts(int n_steps)
{
    (void)printf(", \"parts\": {");
    for (int i = 0; i < g_n_parts; i++)
        (void)printf("%s\"%s\": {\"us\": %.2f, \"calls\": %.1f}", i > 0 ? ", " : "",
                     g_parts[i].name, (double)g_parts[i].ns / n_steps * 1e-3,
                     (double)g_parts[i].calls / n_steps);
    (void)printf("}");
}

static void print_parts(int n_steps, int64_t total)
{
    int64_t rest = total;

    for (int i = 0; i < g_n_parts; i++) {
        printf("    %-20s %9.1f us a step %5.1f %%\n", g_parts[i].name,
               (double)g_parts[i].ns / n_steps * 1e-3,
               100.0 * (double)g_parts[i].ns / (double)total);
        rest -= g_parts[i].ns;
    }
    printf("    %-20s %9.1f us a step %5.1f %%\n", "rest", (double)rest / n_steps * 1e-3,
           100.0 * (double)rest / (double)total);
}

static void report_ranks(const rank_time *all, int n_ranks, int n_steps, bool json)
{
    double per_step = 1e-3 / n_steps;

    for (int r = 0; r < n_ranks; r++)
        (void)printf(json ? "%s{\"operations_us\": %.1f, \"sums_us\": %.1f, \"waits_us\": %.1f, "
                            "\"sums\": %.0f, \"slept\": %.1f, \"preempted\": %.1f}"
                          : "%s %9.1f us in operations, %7.1f in sums, %8.1f waiting; %.0f sums, "
                            "slept %.1f times, lost its core %.1f times a step\n",
                     json ? (r > 0 ? ", " : ", \"ranks\": [") : "    each rank:",
                     (double)all[r].ops * per_step, (double)(all[r].sums - all[r].waits) * per_step,
                     (double)all[r].waits * per_step, (double)all[r].n_sums / n_steps,
                     (double)all[r].n_slept / n_steps, (double)all[r].n_preempted / n_steps);
    if (json)
        (void)printf("]");
}

/* Steps that make a sample. */
static int sample_steps(const bench *b, const a_case *c)
{
    return c->n_rows == 1 ? b->set.steps : 1;
}

static void report(bench *b, const a_case *c, int n_samples, int64_t total, const rank_time *all)
{
    int n_steps = n_samples * sample_steps(b, c);

    double tokens = (double)c->batch * c->n_rows, best, median;

    qsort(b->times, (size_t)n_samples, sizeof *b->times, ascending);
    best = (double)b->times[0] * 1e-9;
    median = (double)b->times[n_samples / 2] * 1e-9;
    if (b->set.json)
        printf(
            "%s{\"case\": \"%s\", \"batch\": %d, \"context\": %d, \"rows\": %d, \"steps\": %d, "
            "\"total_ms\": %.4f, \"best_ms\": %.4f, \"median_ms\": %.4f, \"best_tokens_per_s\": %.2f, "
            "\"median_tokens_per_s\": %.2f",
            b->n_cases > 0 ? ",\n " : "[", c->what, c->batch, c->ctx, c->n_rows, n_steps,
            (double)total * 1e-6, best * 1e3, median * 1e3, tokens / best, tokens / median);
    else
        printf("%-8s batch %4d context %6d: best %9.3f ms %9.1f tokens/s   median %9.3f ms %9.1f "
               "tokens/s   %d steps\n",
               c->what, c->batch, c->ctx, best * 1e3, tokens / best, median * 1e3, tokens / median,
               n_steps);
    if (b->set.profile && b->set.json)
        json_parts(n_steps);
    else if (b->set.profile)
        print_parts(n_steps, total);
    if (b->set.profile && b->world.size > 1)
        report_ranks(all, b->world.size, sample_steps(b, c), b->set.json);
    if (b->set.json)
        (void)printf("}");
    (void)fflush(stdout);
    b->n_cases++;
}

/* Rank 0 says after each sample whether there will be another, and whether this one was the best so far. */
enum { MORE = 1, BEST = 2 };

static void run_case(bench *b, const a_case *c)
{
    int64_t begin, now, total = 0, best = INT64_MAX;
    rank_time all[TP_SEG_MAX];
    uint32_t verdict = MORE;
    rt_batch batch;
    int n = 0;

    fill_step(b, c, &batch);
    step(b, c, &batch);
    memset(g_parts, 0, sizeof g_parts);
    g_n_parts = 0;
    for (begin = tp_now_ns(); (verdict & MORE) != 0;) {
        int64_t start = tp_now_ns();

        begin_sample();
        for (int i = 0; i < sample_steps(b, c); i++)
            step(b, c, &batch);
        now = tp_now_ns();
        verdict =
            (n < STEPS_MAX - 1 && (n < 2 || now - begin < b->set.ms * TP_NS_PER_MS) ? MORE : 0) |
            (now - start < best ? BEST : 0);
        best = now - start < best ? now - start : best;
        b->times[n++] = (now - start) / sample_steps(b, c);
        total += now - start;
        check(comm_broadcast(b->group, &verdict, sizeof verdict, 0));
        end_sample((verdict & BEST) != 0);
    }
    check(comm_allgather(b->group, &g_best, all, sizeof g_best));
    if (b->world.rank == 0)
        report(b, c, n, total, all);
}

/* ---- start ---- */

static void open_model(bench *b, int n_rows, int n_seqs, int64_t n_tokens, int64_t ctx)
{
    rt_model_options o = {.dir = b->set.dir,
                          .max_tokens_per_step = n_rows,
                          .max_seqs = n_seqs,
                          .max_model_len = ctx,
                          .block_tokens = BLOCK_TOKENS};
    comm_options comm = {.kind = "auto", .plan_bytes_max = 4096};
    kern_kv_desc kv;

    check(rt_config_load(&b->config, b->set.dir));
    o.dtype = b->config.dtype;
    for (int t = KERN_DTYPE_F32; t <= KERN_DTYPE_F16; t++)
        if (b->set.dtype != NULL && strcmp(kern_dtype_name((kern_dtype)t), b->set.dtype) == 0)
            o.dtype = (kern_dtype)t;
    comm.window_bytes = rt_model_window_bytes(&b->config, b->world.size, n_rows);
    check(rt_shard_plan(&b->shard, &b->config, b->world.size, b->world.rank, o.dtype, o.dtype));
    check(comm_group_create(&b->group, &b->world, &comm));
    check(kern_cpu_ops()->open(&b->be, &(kern_open_args){.n_threads = b->set.n_threads}));
    check(rt_model_load(&b->model, &b->config, &b->shard, b->be, b->group, &o));
    kv = (kern_kv_desc){.n_layers = b->config.n_layers,
                        .n_kv = b->shard.n_kv_local,
                        .head_dim = b->config.head_dim,
                        .block_tokens = BLOCK_TOKENS,
                        .n_blocks = (int32_t)(n_tokens / BLOCK_TOKENS),
                        .dtype = o.dtype};
    check(b->be->ops->kv_create(b->be, &kv, &b->kv));
    b->ids = must(tp_calloc((size_t)n_rows, sizeof *b->ids));
    b->pos = must(tp_calloc((size_t)n_rows, sizeof *b->pos));
    b->kv_index = must(tp_calloc((size_t)n_rows, sizeof *b->kv_index));
    b->rows = must(tp_calloc((size_t)n_seqs, sizeof *b->rows));
    b->seqs = must(tp_calloc((size_t)n_seqs, sizeof *b->seqs));
    b->tables = must(tp_calloc((size_t)kv.n_blocks, sizeof *b->tables));
    b->times = must(tp_calloc(STEPS_MAX, sizeof *b->times));
    if (b->set.profile)
        time_operations(b->be);
}

static void close_model(bench *b)
{
    if (b->set.profile)
        b->be->ops = g_real;
    b->be->ops->kv_destroy(b->be, b->kv);
    rt_model_destroy(b->model);
    b->be->ops->close(b->be);
    comm_group_destroy(b->group);
    tp_free(b->ids), tp_free(b->pos), tp_free(b->kv_index), tp_free(b->rows), tp_free(b->seqs);
    tp_free(b->tables), tp_free(b->times);
}

/* Most tokens in the cache, rows of a step, sequences, and the longest context of all cases. */
static void run(bench *b)
{
    const settings *s = &b->set;
    int n_rows = s->prefill > 0 ? s->prefill : 1, n_seqs = 1, ctx = n_rows;
    int64_t n_tokens = n_rows + BLOCK_TOKENS;

    for (int i = 0; i < s->n_batches; i++) {
        n_seqs = s->batches[i] > n_seqs ? s->batches[i] : n_seqs;
        for (int j = 0; j < s->n_contexts; j++) {
            int64_t need = (int64_t)s->batches[i] * (s->contexts[j] + BLOCK_TOKENS);

            ctx = s->contexts[j] > ctx ? s->contexts[j] : ctx;
            n_tokens = need > n_tokens ? need : n_tokens;
        }
    }
    n_rows = n_seqs > n_rows ? n_seqs : n_rows;
    open_model(b, n_rows, n_seqs, n_tokens, ctx);
    if (s->prefill > 0)
        run_case(b, &(a_case){"prefill", 1, s->prefill, s->prefill});
    for (int i = 0; i < s->n_batches; i++)
        for (int j = 0; j < s->n_contexts; j++)
            run_case(b, &(a_case){"decode", s->batches[i], s->contexts[j], 1});
    if (s->json && b->world.rank == 0)
        printf("]\n");
    close_model(b);
}

static int read_list(int *out, const char *text)
{
    int n = 0;

    while (n < LIST_MAX && *text != '\0') {
        char *end;

        out[n] = (int)strtol(text, &end, 10);
        if (end == text || out[n] < 1)
            return 0;
        n++;
        text = *end == ',' ? end + 1 : end;
    }
    return n;
}

static bool read_settings(settings *s, int argc, char **argv)
{
    if (argc < 2)
        return false;
    s->dir = argv[1];
    for (int i = 2; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";

        if (strcmp(argv[i], "--json") == 0) {
            s->json = true;
            continue;
        }
        if (strcmp(argv[i], "--profile") == 0) {
            s->profile = true;
            continue;
        }
        if (strcmp(argv[i], "--threads") == 0)
            s->n_threads = (int)strtol(value, NULL, 10);
        else if (strcmp(argv[i], "--dtype") == 0)
            s->dtype = value;
        else if (strcmp(argv[i], "--steps") == 0)
            s->steps = (int)strtol(value, NULL, 10);
        else if (strcmp(argv[i], "--ms") == 0)
            s->ms = (int)strtol(value, NULL, 10);
        else if (strcmp(argv[i], "--prefill") == 0)
            s->prefill = (int)strtol(value, NULL, 10);
        else if (strcmp(argv[i], "--batches") == 0)
            s->n_batches = read_list(s->batches, value);
        else if (strcmp(argv[i], "--contexts") == 0)
            s->n_contexts = read_list(s->contexts, value);
        else
            return false;
        i++;
    }
    return s->n_threads > 0 && s->prefill >= 0 && s->steps > 0;
}

int main(int argc, char **argv)
{
    bench b = {.set = {.n_threads = 2,
                       .ms = 1500,
                       .prefill = 512,
                       .steps = 1,
                       .batches = {1, 16},
                       .contexts = {128},
                       .n_batches = 2,
                       .n_contexts = 1}};

    if (!read_settings(&b.set, argc, argv)) {
        (void)fprintf(
            stderr,
            "usage: bench_model DIR [--threads N] [--ms N] [--prefill N] "
            "[--batches 1,16] [--contexts 128] [--dtype T] [--steps N] [--json] [--profile]\n");
        return 2;
    }
    tp_log_set_level(TP_LOG_WARN);
    check(comm_init(&b.world));
    run(&b);
    comm_finalize();
    return 0;
}
