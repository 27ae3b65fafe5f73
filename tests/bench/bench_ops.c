/* SPDX-License-Identifier: Apache-2.0 */
/* bench_ops.c - the operations other than the matrix product, at the shapes of a 0.5B model (896 wide, 14 query and
 * 2 KV heads of 64, 4864 intermediate, 151,936 tokens) and attention at a few more.
 *
 *   bench_ops [--backend cpu|ref] [--isa I] [--threads N]
 *
 * Attention walks through layers, so that the cache comes from memory when it is larger than the last cache.  Time is
 * the best of several short runs; GB/s counts what must be read and written, GFLOP/s the causal half of q k^T and p v.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "bench_limits.h"
#include "kernels/kern.h"

#define RUN_NS   (TP_NS_PER_MS / 4) /* of one run, at least: short, to fall between other work */
#define TOTAL_NS (150 * TP_NS_PER_MS)

typedef struct bench {
    kern_backend *be;
    uint32_t seed;
} bench;

/* One timed operation. */
typedef struct work {
    void (*run)(bench *b, void *args, int64_t round);
    void *args;
} work;

static void *zeros(size_t bytes)
{
    void *p = tp_aligned_alloc(64, bytes);

    TP_ASSERT(p != NULL);
    return p;
}

static float *floats(bench *b, size_t n)
{
    float *p = zeros(n * sizeof *p);

    for (size_t i = 0; i < n; i++) {
        b->seed = b->seed * 1664525u + 1013904223u;
        p[i] = (float)(int32_t)b->seed * 0x1p-30f;
    }
    return p;
}

static double best_seconds(bench *b, const work *w)
{
    double best = 1e30;
    int64_t round = 0, end = tp_now_ns() + TOTAL_NS;

    while (tp_now_ns() < end || round < 4) {
        int64_t start = tp_now_ns(), n = 0, now;

        do {
            w->run(b, w->args, round++);
            n++;
            now = tp_now_ns();
        } while (now - start < RUN_NS);
        if ((double)(now - start) / (double)n * 1e-9 < best)
            best = (double)(now - start) / (double)n * 1e-9;
    }
    return best;
}

static void report(bench *b, const char *name, work w, double bytes, double flops)
{
    double s = best_seconds(b, &w);

    printf("%-44s %10.2f us", name, s * 1e6);
    if (bytes > 0.0)
        printf(" %8.1f GB/s", bytes / s * 1e-9);
    if (flops > 0.0)
        printf(" %8.1f GFLOP/s", flops / s * 1e-9);
    printf("\n");
    fflush(stdout);
}

#define RUN_OP(op)                                                                                 \
    static void run_##op(bench *b, void *args, int64_t round)                                      \
    {                                                                                              \
        (void)round;                                                                               \
        TP_ASSERT(kern_##op(b->be, args) == TP_OK);                                                \
    }

RUN_OP(rmsnorm)
RUN_OP(silu_mul)
RUN_OP(rope_table)
RUN_OP(gather)
RUN_OP(adjust)
RUN_OP(topk)
RUN_OP(chunk_stats)

/* ---- rows ---- */
enum { DIM = 896, INTER = 4864, HEAD_DIM = 64, N_FREQ = 32, N_Q = 14, N_KV = 2 };

static void bench_rows(bench *b, int m)
{
    float *x = floats(b, (size_t)m * INTER * 2), *add = floats(b, (size_t)m * DIM);
    float *out = zeros((size_t)m * INTER * sizeof *out), *weight = floats(b, DIM);
    int32_t *idx = zeros((size_t)m * sizeof *idx);
    char name[64];

    memset(add, 0, (size_t)m * DIM * sizeof *add); /* the residual stays as it is, round by round */
    snprintf(name, sizeof name, "rmsnorm %d x %d, bf16 out", m, DIM);
    report(b, name,
           (work){run_rmsnorm, &(kern_rmsnorm_args){.out = out,
                                                    .residual = x,
                                                    .add = add,
                                                    .weight = weight,
                                                    .m = m,
                                                    .dim = DIM,
                                                    .eps = 1e-6f,
                                                    .out_dtype = KERN_DTYPE_BF16}},
           (double)m * DIM * 14.0, 0.0);
    snprintf(name, sizeof name, "silu_mul %d x %d, bf16 out", m, INTER);
    report(b, name,
           (work){run_silu_mul,
                  &(kern_silu_mul_args){
                      .out = out, .in = x, .m = m, .n = INTER, .out_dtype = KERN_DTYPE_BF16}},
           (double)m * INTER * 10.0, 0.0);
    snprintf(name, sizeof name, "rope_table %d x %d", m, N_FREQ);
    report(b, name,
           (work){run_rope_table, &(kern_rope_table_args){.cos_sin = out,
                                                          .pos = idx,
                                                          .inv_freq = weight,
                                                          .m = m,
                                                          .n_freq = N_FREQ,
                                                          .amplitude = 1.0f}},
           0.0, 0.0);
    snprintf(name, sizeof name, "gather %d x %d", m, DIM);
    report(b, name,
           (work){run_gather,
                  &(kern_gather_args){.out = out, .in = x, .idx = idx, .n = m, .dim = DIM}},
           (double)m * DIM * 8.0, 0.0);
    tp_free(x), tp_free(add), tp_free(out), tp_free(weight), tp_free(idx);
}

/* ---- attention ---- */
typedef struct attn_bench {
    int n_q, n_kv, head_dim, batch, ctx, n_rows, layers;
    kern_dtype dtype;
    kern_attn_args attn;
    kern_qkv_args qkv;
} attn_bench;

static void run_attn(bench *b, void *args, int64_t round)
{
    attn_bench *t = args;

    t->attn.layer = (int)(round % t->layers);
    TP_ASSERT(kern_attn(b->be, &t->attn) == TP_OK);
}

static void run_qkv(bench *b, void *args, int64_t round)
{
    attn_bench *t = args;

    t->qkv.layer = (int)(round % t->layers);
    TP_ASSERT(kern_qkv(b->be, &t->qkv) == TP_OK);
}

static void bench_attn(bench *b, attn_bench t)
{
    int bt = 16, per_seq = (t.ctx + bt - 1) / bt, m = t.batch * t.n_rows;
    int width = (t.n_q + 2 * t.n_kv) * t.head_dim;
    float *qkv = floats(b, (size_t)t.ctx * (size_t)width + (size_t)m * (size_t)width);
    float *cos_sin = floats(b, (size_t)(t.ctx + m) * (size_t)t.head_dim);
    float *out = zeros((size_t)m * (size_t)(t.n_q * t.head_dim) * sizeof *out);
    int32_t *tables = zeros((size_t)(per_seq * t.batch) * sizeof *tables);
    int32_t *slots = zeros((size_t)(t.ctx + m) * sizeof *slots);
    int32_t *kv_of_q = zeros((size_t)t.n_q * sizeof *kv_of_q);
    kern_attn_seq *seqs = zeros((size_t)t.batch * sizeof *seqs);
    double pairs = (double)t.batch * t.n_rows * ((double)t.ctx - (t.n_rows - 1) / 2.0);
    kern_kv_desc d = {.n_layers = t.layers,
                      .n_kv = t.n_kv,
                      .head_dim = t.head_dim,
                      .block_tokens = bt,
                      .n_blocks = per_seq * t.batch,
                      .dtype = t.dtype};
    double bytes =
        (double)t.batch * t.ctx * t.n_kv * t.head_dim * 2.0 * (double)kern_dtype_bytes(t.dtype);
    void *scratch;
    kern_kv *kv;
    char name[80];

    TP_ASSERT(b->be->ops->kv_create(b->be, &d, &kv) == TP_OK);
    TP_ASSERT(b->be->ops->alloc(
                  b->be, b->be->ops->attn_scratch_bytes(b->be, t.n_q, t.head_dim, t.ctx, t.batch),
                  &scratch) == TP_OK);
    for (int h = 0; h < t.n_q; h++)
        kv_of_q[h] = h * t.n_kv / t.n_q;
    for (int i = 0; i < per_seq * t.batch; i++) /* spread over the pool */
        tables[i] = (int32_t)((int64_t)i % t.batch * per_seq + i / t.batch);
    t.qkv = (kern_qkv_args){.qkv = qkv,
                            .cos_sin = cos_sin,
                            .n_q = t.n_q,
                            .n_kv = t.n_kv,
                            .head_dim = t.head_dim,
                            .n_freq = t.head_dim / 2,
                            .kv = kv,
                            .kv_index = slots};
    for (int s = 0; s < t.batch; s++) {
        seqs[s] = (kern_attn_seq){
            .row = s * t.n_rows, .n_rows = t.n_rows, .ctx = t.ctx, .table = s * per_seq};
        for (int i = 0; i < t.ctx; i++)
            slots[i] = tables[s * per_seq + i / bt] * bt + i % bt;
        t.qkv.m = t.ctx;
        for (t.qkv.layer = 0; t.qkv.layer < t.layers; t.qkv.layer++)
            TP_ASSERT(kern_qkv(b->be, &t.qkv) == TP_OK);
    }
    t.attn = (kern_attn_args){.out = out,
                              .q = qkv,
                              .q_stride = width,
                              .kv = kv,
                              .seqs = seqs,
                              .block_tables = tables,
                              .kv_of_q = kv_of_q,
                              .n_seqs = t.batch,
                              .n_decode = t.n_rows == 1 ? t.batch : 0,
                              .max_rows = t.n_rows == 1 ? 0 : t.n_rows,
                              .max_ctx = t.ctx,
                              .n_q = t.n_q,
                              .head_dim = t.head_dim,
                              .scale = 0.01f,
                              .out_dtype = KERN_DTYPE_BF16,
                              .scratch = scratch};
    snprintf(name, sizeof name, "attn %s %d/%d x %d, %d seq x %d row, ctx %d",
             kern_dtype_name(t.dtype), t.n_q, t.n_kv, t.head_dim, t.batch, t.n_rows, t.ctx);
    report(b, name, (work){run_attn, &t}, t.n_rows == 1 ? bytes : 0.0,
           4.0 * pairs * t.n_q * t.head_dim);
    if (t.n_rows > 1 || t.batch == 1) {
        t.qkv.m = m;
        snprintf(name, sizeof name, "qkv %d rows of %d", m, width);
        report(b, name, (work){run_qkv, &t}, (double)m * width * 8.0, 0.0);
    }
    b->be->ops->kv_destroy(b->be, kv);
    b->be->ops->free(b->be, scratch);
    tp_free(qkv), tp_free(cos_sin), tp_free(out), tp_free(tables), tp_free(slots);
    tp_free(kv_of_q), tp_free(seqs);
}

/* ---- sampling ---- */
enum { VOCAB = 151936, CHUNK = 4096, HISTORY = 2000 };

static void bench_sampling(bench *b, int m)
{
    float *logits = floats(b, (size_t)m * VOCAB), *val = zeros((size_t)m * 1024 * sizeof *val);
    float *scratch = zeros((size_t)b->be->n_threads * CHUNK * sizeof *scratch);
    int32_t *rows = zeros((size_t)m * sizeof *rows), *id = zeros((size_t)m * 1024 * sizeof *id);
    int32_t *count = zeros(VOCAB * sizeof *count), *history = zeros(HISTORY * sizeof *history);
    kern_chunk_row *chunk_rows = zeros((size_t)m * sizeof *chunk_rows);
    kern_chunk_stat *stats = zeros((size_t)m * (VOCAB / CHUNK + 1) * sizeof *stats);
    kern_adjust_row *adjust_rows = zeros((size_t)m * sizeof *adjust_rows);
    kern_topk_args topk = {.logits = logits,
                           .ld = VOCAB,
                           .rows = rows,
                           .n_rows = m,
                           .k = 64,
                           .n_local = VOCAB,
                           .val = val,
                           .id = id};
    char name[64];

    for (int i = 0; i < HISTORY; i++)
        history[i] = (int32_t)((int64_t)i * 7919 % VOCAB);
    for (int i = 0; i < m; i++) {
        rows[i] = i;
        chunk_rows[i] = (kern_chunk_row){.row = i, .inv_temp = 1.0f, .seed = 1};
        adjust_rows[i] = (kern_adjust_row){
            .row = i, .repetition = 1.0001f, .history = history, .n_history = HISTORY};
    }
    for (; topk.k <= 1024; topk.k *= 16) {
        snprintf(name, sizeof name, "topk %d rows of %d, k %d", m, VOCAB, topk.k);
        report(b, name, (work){run_topk, &topk}, (double)m * VOCAB * 4.0, 0.0);
    }
    snprintf(name, sizeof name, "chunk_stats %d rows of %d", m, VOCAB);
    report(b, name,
           (work){run_chunk_stats, &(kern_chunk_args){.logits = logits,
                                                      .ld = VOCAB,
                                                      .rows = chunk_rows,
                                                      .n_rows = m,
                                                      .n_local = VOCAB,
                                                      .chunk_tokens = CHUNK,
                                                      .out = stats,
                                                      .scratch = scratch}},
           (double)m * VOCAB * 4.0, 0.0);
    snprintf(name, sizeof name, "adjust %d rows, history of %d", m, HISTORY);
    report(b, name,
           (work){run_adjust, &(kern_adjust_args){.logits = logits,
                                                  .ld = VOCAB,
                                                  .n_local = VOCAB,
                                                  .rows = adjust_rows,
                                                  .n_rows = m,
                                                  .scratch = count}},
           0.0, 0.0);
    tp_free(logits), tp_free(val), tp_free(scratch), tp_free(rows), tp_free(id), tp_free(count);
    tp_free(history), tp_free(chunk_rows), tp_free(stats), tp_free(adjust_rows);
}

/* clang-format off */
#define CASE(q, kv, hd, seqs, c, rows, l, t) \
    {.n_q = q, .n_kv = kv, .head_dim = hd, .batch = seqs, .ctx = c, .n_rows = rows, .layers = l, .dtype = t}
/* clang-format on */

int main(int argc, char **argv)
{
    static const attn_bench cases[] = {
        CASE(14, 2, 64, 1, 2000, 1, 24, KERN_DTYPE_BF16),
        CASE(14, 2, 64, 16, 2000, 1, 24, KERN_DTYPE_BF16),
        CASE(14, 2, 64, 16, 2000, 1, 24, KERN_DTYPE_F16),
        CASE(14, 2, 64, 16, 2000, 1, 12, KERN_DTYPE_F32),
        CASE(28, 4, 128, 1, 4000, 1, 12, KERN_DTYPE_BF16),
        CASE(28, 4, 128, 8, 4000, 1, 6, KERN_DTYPE_BF16),
        CASE(8, 8, 128, 8, 2000, 1, 6, KERN_DTYPE_BF16),
        CASE(14, 2, 64, 1, 512, 512, 2, KERN_DTYPE_BF16),
        CASE(14, 2, 64, 1, 4096, 512, 2, KERN_DTYPE_BF16),
        CASE(28, 4, 128, 1, 2048, 512, 2, KERN_DTYPE_BF16),
    };
    kern_open_args open = {.n_threads = 2};
    const char *backend = "cpu";
    bench b = {.seed = 1};

    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--isa") == 0)
            open.isa = argv[i + 1];
        else if (strcmp(argv[i], "--threads") == 0)
            open.n_threads = (int)strtol(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--backend") == 0)
            backend = argv[i + 1];
    }
    TP_ASSERT(kern_find_ops(backend) != NULL);
    TP_ASSERT(kern_find_ops(backend)->open(&b.be, &open) == TP_OK);
    printf("%s, %s, %d threads; memory %.1f GB/s, FP32 peak %.1f GFLOP/s\n", backend, b.be->isa,
           open.n_threads, bench_read_bandwidth(open.n_threads, 256 << 20) * 1e-9,
           bench_peak(b.be->isa, BENCH_FP32, open.n_threads) * 1e-9);
    bench_rows(&b, 1);
    bench_rows(&b, 512);
    for (size_t i = 0; i < TP_ARRAY_LEN(cases); i++)
        bench_attn(&b, cases[i]);
    bench_sampling(&b, 1);
    bench_sampling(&b, 16);
    b.be->ops->close(b.be);
    return 0;
}
