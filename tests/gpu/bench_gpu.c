/* SPDX-License-Identifier: Apache-2.0 */
/* bench_gpu.c - single operations at the shapes of real shards, beside the device's own limits in the same run.
 *
 *     bench_gpu [--smoke] [STAGE...]      stages: limits gemm decode prefill step small sample; default all
 *
 * One JSON object per line: op, its sizes, microseconds, what it moved (GB/s) or computed (TFLOP/s), and `percent` of
 * the limit that binds it, measured first: copying device memory, and a BF16 product of 8192^3.  `predicted_us` is
 * what `tpserve plan` would say.  Each figure is the best of three replays of a graph of N launches over rotating
 * weights that do not fit the L2 cache together.
 * --smoke: tiny sizes, once: proves on the emulated device that the program runs; its figures mean nothing.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "tests/gpu/bench_gpu.h"

#define PATTERN_BYTES (16u << 20)
#define ROTATE_MAX    16
#define REPEATS       3

void bench_check(tp_status st)
{
    if (st != TP_OK) {
        (void)fprintf(stderr, "bench_gpu: %s\n", tp_last_error());
        exit(1);
    }
}

/* ---- memory with numbers in it ---- */

void *bench_bytes(const bench *b, size_t bytes)
{
    static uint16_t *pattern;
    size_t piece = bytes < PATTERN_BYTES ? bytes : PATTERN_BYTES;
    void *p;

    if (pattern == NULL) {
        uint32_t x = 1;

        bench_check(kern_dev_alloc_pinned(b->dev, PATTERN_BYTES, (void **)&pattern));
        for (size_t i = 0; i < PATTERN_BYTES / 2; i++) {
            x = x * 1664525u + 1013904223u;
            /* sign, exponent 120 .. 127, seven bits of fraction */
            pattern[i] =
                (uint16_t)((x >> 16 & 0x8000u) | (120u + (x >> 24 & 6u)) << 7 | (x >> 9 & 127u));
        }
    }
    bench_check(kern_dev_alloc(b->dev, bytes, &p));
    bench_check(kern_dev_copy_in(b->dev, p, pattern, piece, b->s));
    for (size_t done = piece; done < bytes; done += piece) {
        size_t n = bytes - done < piece ? bytes - done : piece;

        bench_check(kern_dev_copy(b->dev, (char *)p + done, p, n, b->s));
    }
    bench_check(kern_dev_sync(b->dev, b->s));
    return p;
}

void *bench_copy(const bench *b, const void *host, size_t bytes)
{
    void *pinned, *p;

    bench_check(kern_dev_alloc_pinned(b->dev, bytes, &pinned));
    memcpy(pinned, host, bytes);
    bench_check(kern_dev_alloc(b->dev, bytes, &p));
    bench_check(kern_dev_copy_in(b->dev, p, pinned, bytes, b->s));
    bench_check(kern_dev_sync(b->dev, b->s));
    kern_dev_free_pinned(b->dev, pinned);
    return p;
}

/* ---- timing ---- */

double bench_time_us(const bench *b, bench_launch_fn *launch, void *arg)
{
    kern_dev_graph *g;
    double best = 1e30;
    float ms;

    bench_check(launch(b, arg, 0));
    bench_check(kern_dev_sync(b->dev, b->s));
    bench_check(kern_dev_graph_begin(b->dev, b->s));
    for (int i = 0; i < b->n_launches; i++)
        bench_check(launch(b, arg, i));
    bench_check(kern_dev_graph_end(b->dev, b->s, &g));
    bench_check(kern_dev_graph_launch(b->dev, g, b->s));
    for (int r = 0; r < (b->smoke ? 1 : REPEATS); r++) {
        bench_check(kern_dev_event_record(b->dev, b->from, b->s));
        bench_check(kern_dev_graph_launch(b->dev, g, b->s));
        bench_check(kern_dev_event_record(b->dev, b->to, b->s));
        bench_check(kern_dev_event_wait(b->dev, b->to));
        bench_check(kern_dev_event_ms(b->dev, b->from, b->to, &ms));
        if ((double)ms < best)
            best = (double)ms;
    }
    kern_dev_graph_destroy(b->dev, g);
    return best * 1e3 / b->n_launches;
}

/* A memory-bound figure, or one bound by arithmetic, whichever limit is nearer. */
static void report(const bench *b, const char *what, double us, double bytes, double flops)
{
    double gbps = bytes / us / 1e3, tflops = flops / us / 1e6;
    double by_memory = b->copy_gbps > 0 ? gbps / b->copy_gbps : 0;
    double by_math = b->peak_tflops > 0 ? tflops / b->peak_tflops : 0;
    double memory_us = b->props->memory_gbps > 0 ? bytes / (b->props->memory_gbps * 0.85) / 1e3 : 0;
    double math_us = b->peak_tflops > 0 ? flops / b->peak_tflops / 1e6 : 0;

    (void)printf(
        "{%s, \"us\": %.2f, \"gbps\": %.1f, \"tflops\": %.2f, \"bound\": \"%s\", \"percent\": %.1f, "
        "\"predicted_us\": %.2f}\n",
        what, us, gbps, tflops, by_memory >= by_math ? "memory" : "math",
        100 * (by_memory >= by_math ? by_memory : by_math),
        memory_us > math_us ? memory_us : math_us);
    (void)fflush(stdout);
}

/* ---- stage: limits ---- */

typedef struct copying {
    void *to, *from;
    size_t bytes;
} copying;

static tp_status launch_copy(const bench *b, void *arg, int i)
{
    const copying *c = arg;

    (void)i;
    return kern_dev_copy(b->dev, c->to, c->from, c->bytes, b->s);
}

typedef struct product {
    kern_dev_gemm_call call;
    void *weights[ROTATE_MAX];
    int n_weights;
} product;

static tp_status launch_product(const bench *b, void *arg, int i)
{
    product *p = arg;

    p->call.w = p->weights[i % p->n_weights];
    return kern_dev_gemm_run(b->gemm, &p->call, b->s);
}

/* Weights enough that they are not found in the L2 cache. */
static int rotations(const bench *b, size_t bytes)
{
    size_t want = 3 * (size_t)b->props->l2_bytes / (bytes + 1) + 1;

    return want < ROTATE_MAX ? (int)want : ROTATE_MAX;
}

static double time_product(const bench *b, int m, int n, int k)
{
    product p = {.call = {.m = m,
                          .n = n,
                          .k = k,
                          .ldw = k,
                          .dtype = KERN_DTYPE_BF16,
                          .out_dtype = KERN_DTYPE_F32}};
    size_t bytes = (size_t)n * (size_t)k * 2;
    void *in = bench_bytes(b, (size_t)m * (size_t)k * 2), *out;
    double us;

    bench_check(kern_dev_alloc(b->dev, (size_t)m * (size_t)n * 4, &out));
    p.n_weights = rotations(b, bytes);
    for (int i = 0; i < p.n_weights; i++)
        p.weights[i] = bench_bytes(b, bytes);
    p.call.in = in;
    p.call.out = out;
    p.call.w = p.weights[0];
    bench_check(kern_dev_gemm_tune(b->gemm, &p.call, b->s));
    us = bench_time_us(b, launch_product, &p);
    for (int i = 0; i < p.n_weights; i++)
        kern_dev_free(b->dev, p.weights[i]);
    kern_dev_free(b->dev, in);
    kern_dev_free(b->dev, out);
    return us;
}

static void stage_limits(bench *b)
{
    copying c = {.bytes = b->smoke ? 1 << 16 : (size_t)1 << 30};
    int n = b->smoke ? 64 : 8192;
    double us;

    c.to = bench_bytes(b, c.bytes);
    c.from = bench_bytes(b, c.bytes);
    us = bench_time_us(b, launch_copy, &c);
    b->copy_gbps = 2 * (double)c.bytes / us / 1e3;
    kern_dev_free(b->dev, c.to);
    kern_dev_free(b->dev, c.from);
    us = time_product(b, n, n, n);
    b->peak_tflops = 2.0 * n * n * n / us / 1e6;
    (void)printf(
        "{\"op\": \"limits\", \"device\": \"%s\", \"cc\": %d, \"sms\": %d, \"driver\": %d, \"copy_gbps\": %.0f, "
        "\"datasheet_gbps\": %.0f, \"bf16_tflops\": %.0f}\n",
        b->props->name, b->props->cc, b->props->n_sm, b->props->driver, b->copy_gbps,
        b->props->memory_gbps, b->peak_tflops);
}

/* ---- stage: products of a decode step and of a prefill chunk ---- */

static const model_shape models[] = {
    {"qwen2.5-72b", 8192, 64, 8, 128, 29568, 152064},
    {"llama-3.3-70b", 8192, 64, 8, 128, 28672, 128256},
};
static const model_shape tiny = {"smoke", 64, 8, 2, 64, 128, 256};

static void product_line(const bench *b, const char *model, int tp, const char *name, int m, int n,
                         int k)
{
    double us = time_product(b, m, n, k);
    char what[160];

    (void)snprintf(
        what, sizeof what,
        "\"op\": \"gemm\", \"model\": \"%s\", \"tp\": %d, \"matrix\": \"%s\", \"m\": %d, \"n\": %d, \"k\": %d",
        model, tp, name, m, n, k);
    report(b, what, us, 2.0 * n * k + 2.0 * m * k + 4.0 * m * n, 2.0 * m * n * k);
}

static void products_of(const bench *b, const model_shape *s, int tp, int m)
{
    int q = s->heads / tp * s->head_dim, kv = (s->kv_heads + tp - 1) / tp * s->head_dim;
    int groups = (s->inter + 127) / 128,
        inter = (groups + tp - 1) / tp * 128; /* cut in units of 128 */

    product_line(b, s->name, tp, "qkv", m, q + 2 * kv, s->hidden);
    product_line(b, s->name, tp, "o", m, s->hidden, q);
    product_line(b, s->name, tp, "gate_up", m, 2 * inter, s->hidden);
    product_line(b, s->name, tp, "down", m, s->hidden, inter);
    if (m <= 256)
        product_line(b, s->name, tp, "head", m, s->vocab / tp, s->hidden);
}

static void stage_gemm(bench *b)
{
    static const int rows[] = {1,    8, 32, 16, 128,
                               2048, 2, 4,  64, 256}; /* the most telling ones first */
    static const int ranks[] = {4, 8, 1, 2};

    if (b->smoke) {
        products_of(b, &tiny, 1, 3);
        return;
    }
    for (size_t r = 0; r < TP_ARRAY_LEN(rows); r++)
        for (size_t t = 0; t < TP_ARRAY_LEN(ranks); t++)
            for (size_t i = 0; i < TP_ARRAY_LEN(models); i++)
                products_of(b, &models[i], ranks[t], rows[r]);
}

/* ---- stages: attention ---- */

static tp_status launch_attention(const bench *b, void *arg, int i)
{
    (void)i;
    return kern_cuda_attn(arg, b->props->n_sm, b->s);
}

static double time_attention(const bench *b, const model_shape *s, int tp, int n_seqs, int ctx,
                             int n_rows)
{
    size_t width = (size_t)(s->heads / tp) * (size_t)s->head_dim,
           elements = (size_t)n_seqs * (size_t)n_rows * width;
    void *out = bench_bytes(b, elements * 2), *q = bench_bytes(b, elements * 4);
    bench_attn t;
    double us;

    bench_attn_make(&t, b, s, tp, n_seqs, ctx, n_rows);
    t.args.out = out;
    t.args.q = q;
    t.args.q_stride = (int64_t)width;
    us = bench_time_us(b, launch_attention, &t.args);
    bench_attn_release(&t, b);
    kern_dev_free(b->dev, q);
    kern_dev_free(b->dev, out);
    return us;
}

static void attention_line(const bench *b, const model_shape *s, int tp, int n_seqs, int ctx,
                           int n_rows)
{
    double us = time_attention(b, s, tp, n_seqs, ctx, n_rows);
    double kv = (double)((s->kv_heads + tp - 1) / tp) * s->head_dim,
           q = (double)s->heads / tp * s->head_dim;
    double seen =
        (double)n_seqs * n_rows * (ctx - (n_rows - 1) / 2.0); /* causal: keys over all rows */
    char what[160];

    (void)snprintf(
        what, sizeof what,
        "\"op\": \"%s\", \"model\": \"%s\", \"tp\": %d, \"seqs\": %d, \"ctx\": %d, \"rows\": %d",
        n_rows == 1 ? "decode_attention" : "prefill_attention", s->name, tp, n_seqs, ctx, n_rows);
    report(b, what, us, (double)n_seqs * ctx * kv * 4 + (double)n_seqs * n_rows * q * 6,
           4 * seen * q);
}

static void stage_decode(bench *b)
{
    static const int ranks[] = {8, 4, 1, 2}, contexts[] = {8192, 1024, 32768},
                     seqs[] = {8, 32, 1, 128};

    if (b->smoke) {
        attention_line(b, &tiny, 1, 2, 40, 1);
        return;
    }
    for (size_t c = 0; c < TP_ARRAY_LEN(contexts); c++)
        for (size_t t = 0; t < TP_ARRAY_LEN(ranks); t++)
            for (size_t i = 0; i < TP_ARRAY_LEN(seqs); i++)
                if ((int64_t)contexts[c] * seqs[i] / ranks[t] <= 1 << 20) /* 4 GiB of cache */
                    attention_line(b, &models[0], ranks[t], seqs[i], contexts[c], 1);
}

static void stage_prefill(bench *b)
{
    if (b->smoke) {
        attention_line(b, &tiny, 1, 1, 40, 20);
        return;
    }
    for (int tp = 1; tp <= 8; tp *= 2) {
        attention_line(b, &models[0], tp, 1, 2048, 2048);
        attention_line(b, &models[0], tp, 1, 8192, 2048); /* the last chunk of a longer prompt */
        attention_line(b, &models[0], tp, 1, 8192, 8192);
        attention_line(b, &models[0], tp, 16, 128, 128);
    }
}

/* ---- stage: what lies between the products ---- */

typedef struct small_ops {
    kern_rmsnorm_args norm;
    kern_silu_mul_args silu;
    kern_topk_args topk;
} small_ops;

static tp_status launch_norm(const bench *b, void *arg, int i)
{
    (void)i;
    return kern_cuda_rmsnorm(&((small_ops *)arg)->norm, b->s);
}

static tp_status launch_silu(const bench *b, void *arg, int i)
{
    (void)i;
    return kern_cuda_silu_mul(&((small_ops *)arg)->silu, b->s);
}

static tp_status launch_topk(const bench *b, void *arg, int i)
{
    (void)i;
    return kern_cuda_topk(&((small_ops *)arg)->topk, b->s);
}

static void small_lines(const bench *b, int m, int dim, int inter)
{
    small_ops o = {0};
    size_t rows = (size_t)m;
    char what[128];

    o.norm = (kern_rmsnorm_args){.out = bench_bytes(b, rows * (size_t)dim * 2),
                                 .residual = bench_bytes(b, rows * (size_t)dim * 4),
                                 .add = bench_bytes(b, rows * (size_t)dim * 4),
                                 .weight = bench_bytes(b, (size_t)dim * 4),
                                 .m = m,
                                 .dim = dim,
                                 .eps = 1e-6f,
                                 .out_dtype = KERN_DTYPE_BF16};
    o.silu = (kern_silu_mul_args){.out = bench_bytes(b, rows * (size_t)inter * 2),
                                  .in = bench_bytes(b, rows * 2 * (size_t)inter * 4),
                                  .m = m,
                                  .n = inter,
                                  .out_dtype = KERN_DTYPE_BF16};
    (void)snprintf(what, sizeof what, "\"op\": \"rmsnorm\", \"m\": %d, \"dim\": %d", m, dim);
    report(b, what, bench_time_us(b, launch_norm, &o), 14.0 * m * dim, 0);
    (void)snprintf(what, sizeof what, "\"op\": \"silu_mul\", \"m\": %d, \"n\": %d", m, inter);
    report(b, what, bench_time_us(b, launch_silu, &o), 10.0 * m * inter, 0);
    kern_dev_free(b->dev, o.norm.out);
    kern_dev_free(b->dev, o.norm.residual);
    kern_dev_free(b->dev, (void *)(uintptr_t)o.norm.add);
    kern_dev_free(b->dev, (void *)(uintptr_t)o.norm.weight);
    kern_dev_free(b->dev, o.silu.out);
    kern_dev_free(b->dev, (void *)(uintptr_t)o.silu.in);
}

static void stage_small(bench *b)
{
    static const int rows[] = {1, 32, 128, 2048};

    for (size_t i = 0; i < TP_ARRAY_LEN(rows) && !(b->smoke && i > 0); i++)
        small_lines(b, b->smoke ? 3 : rows[i], b->smoke ? 64 : 8192, b->smoke ? 128 : 7424);
}

static void stage_sample(bench *b)
{
    static const int want[] = {1, 20, 64};
    int n_rows = b->smoke ? 2 : 64, n = b->smoke ? 300 : 152064 / 4;
    int32_t *rows = tp_calloc((size_t)n_rows, sizeof *rows);
    small_ops o = {0};
    char what[128];

    TP_ASSERT(rows != NULL);
    for (int i = 0; i < n_rows; i++)
        rows[i] = i;
    o.topk = (kern_topk_args){.logits = bench_bytes(b, (size_t)n_rows * (size_t)n * 4),
                              .ld = n,
                              .rows = bench_copy(b, rows, (size_t)n_rows * sizeof *rows),
                              .n_rows = n_rows,
                              .n_local = n,
                              .val = bench_bytes(b, (size_t)n_rows * 64 * 4),
                              .id = bench_bytes(b, (size_t)n_rows * 64 * 4)};
    for (size_t i = 0; i < TP_ARRAY_LEN(want); i++) {
        o.topk.k = want[i];
        (void)snprintf(what, sizeof what,
                       "\"op\": \"topk\", \"rows\": %d, \"vocab\": %d, \"k\": %d", n_rows, n,
                       want[i]);
        report(b, what, bench_time_us(b, launch_topk, &o), 4.0 * n_rows * n, 0);
    }
    kern_dev_free(b->dev, (void *)(uintptr_t)o.topk.logits);
    kern_dev_free(b->dev, (void *)(uintptr_t)o.topk.rows);
    kern_dev_free(b->dev, o.topk.val);
    kern_dev_free(b->dev, o.topk.id);
    tp_free(rows);
}

/* ---- stage: kernels one after another ---- */

static void stage_step(bench *b)
{
    static const int ranks[] = {8, 4}, rows[] = {1, 8, 32};

    if (b->smoke) {
        bench_step(b, &tiny, 1, 2, 40);
        return;
    }
    for (size_t t = 0; t < TP_ARRAY_LEN(ranks); t++)
        for (size_t i = 0; i < TP_ARRAY_LEN(rows); i++)
            bench_step(b, &models[0], ranks[t], rows[i], 1024);
}

static const struct {
    const char *name;
    void (*run)(bench *b);
} stages[] = {{"limits", stage_limits},   {"gemm", stage_gemm}, {"decode", stage_decode},
              {"prefill", stage_prefill}, {"step", stage_step}, {"small", stage_small},
              {"sample", stage_sample}};

static bool is_wanted(const char *stage, int argc, char **argv)
{
    int named = 0;

    for (int i = 1; i < argc; i++) {
        if (argv[i][0] == '-')
            continue;
        named++;
        if (strcmp(argv[i], stage) == 0)
            return true;
    }
    return named == 0;
}

int main(int argc, char **argv)
{
    bench b = {.n_launches = 20};

    for (int i = 1; i < argc; i++)
        b.smoke |= strcmp(argv[i], "--smoke") == 0;
    if (b.smoke)
        b.n_launches = 2;
    bench_check(kern_dev_open(&b.dev, 0));
    b.props = kern_dev_get_props(b.dev);
    bench_check(kern_cuda_prepare(b.props));
    bench_check(kern_dev_stream_create(b.dev, &b.s));
    bench_check(kern_dev_event_create(b.dev, true, &b.from));
    bench_check(kern_dev_event_create(b.dev, true, &b.to));
    bench_check(kern_dev_gemm_create(&b.gemm, b.dev, NULL));
    stage_limits(&b); /* all percentages refer to it */
    for (size_t i = 1; i < TP_ARRAY_LEN(stages); i++)
        if (is_wanted(stages[i].name, argc, argv))
            stages[i].run(&b);
    kern_dev_gemm_destroy(b.gemm);
    kern_dev_event_destroy(b.dev, b.from);
    kern_dev_event_destroy(b.dev, b.to);
    kern_dev_stream_destroy(b.dev, b.s);
    kern_dev_close(b.dev);
    return 0;
}
