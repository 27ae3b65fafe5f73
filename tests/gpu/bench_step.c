/* SPDX-License-Identifier: Apache-2.0 */
/* bench_step.c - what lies between the kernels of a decode step: layers of one rank's shard as one graph, beside the sum
 * of what their kernels take alone; with and without programmatic launches.  Sums over ranks are not in it: they need
 * other GPUs.
 */
#include <stdio.h>

#include "tests/gpu/bench_gpu.h"

#define LAYERS 4 /* different weights, more than the L2 cache holds */

typedef enum step_op {
    OP_NORM,
    OP_QKV_PRODUCT,
    OP_QKV,
    OP_ATTENTION,
    OP_O,
    OP_GATE_UP,
    OP_SILU,
    OP_DOWN,
    OP_COUNT
} step_op;

static const step_op layer_order[] = {OP_NORM, OP_QKV_PRODUCT, OP_QKV,  OP_ATTENTION, OP_O,
                                      OP_NORM, OP_GATE_UP,     OP_SILU, OP_DOWN};

typedef struct step {
    kern_rmsnorm_args norm;
    kern_qkv_args qkv;
    bench_attn attn;
    kern_silu_mul_args silu;
    kern_dev_gemm_call product[OP_COUNT]; /* of the ops that are products */
    void *weights[OP_COUNT][LAYERS];
    int only; /* an op, or -1: all of a layer */
    void *taken[64];
    int n_taken;
} step;

/* ---- making it ---- */

static void *take(const bench *b, step *s, size_t bytes)
{
    TP_ASSERT(s->n_taken < (int)TP_ARRAY_LEN(s->taken));
    return s->taken[s->n_taken++] = bench_bytes(b, bytes);
}

static void add_product(const bench *b, step *s, step_op op, void *out, const void *in, int n,
                        int k)
{
    kern_dev_gemm_call *c = &s->product[op];

    *c = (kern_dev_gemm_call){.out = out,
                              .in = in,
                              .m = s->norm.m,
                              .n = n,
                              .k = k,
                              .ldw = k,
                              .dtype = KERN_DTYPE_BF16,
                              .out_dtype = KERN_DTYPE_F32};
    for (int i = 0; i < LAYERS; i++)
        s->weights[op][i] = take(b, s, (size_t)n * (size_t)k * 2);
    c->w = s->weights[op][0];
    bench_check(kern_dev_gemm_tune(b->gemm, c, b->s));
}

/* m sequences of ctx tokens, one new one each; their rows of q, k and v lie in wide. */
static void add_attention(const bench *b, step *s, const model_shape *shape, int tp, int ctx,
                          float *wide, void *act)
{
    int m = s->norm.m, n_freq = shape->head_dim / 2;
    kern_attn_args *a = &s->attn.args;

    bench_attn_make(&s->attn, b, shape, tp, m, ctx, 1);
    s->qkv = (kern_qkv_args){.qkv = wide,
                             .cos_sin = take(b, s, (size_t)m * (size_t)n_freq * 8),
                             .m = m,
                             .n_q = a->n_q,
                             .n_kv = s->attn.kv.desc.n_kv,
                             .head_dim = a->head_dim,
                             .n_freq = n_freq,
                             .kv = &s->attn.kv,
                             .kv_index = s->attn.last_places};
    a->out = act;
    a->q = wide;
    a->q_stride = (int64_t)(a->n_q + 2 * s->qkv.n_kv) * a->head_dim;
}

static void make(const bench *b, step *s, const model_shape *shape, int tp, int m, int ctx)
{
    int h = shape->hidden, q = shape->heads / tp * shape->head_dim,
        kv = (shape->kv_heads + tp - 1) / tp * shape->head_dim,
        inter = ((shape->inter + 127) / 128 + tp - 1) / tp * 128; /* cut in units of 128 */
    size_t widest = (size_t)(2 * inter > q + 2 * kv ? 2 * inter : q + 2 * kv),
           deepest = (size_t)(inter > h ? inter : h), rows = (size_t)m;
    float *wide = take(b, s, rows * widest * 4), *sum = take(b, s, rows * (size_t)h * 4);
    void *act = take(b, s, rows * (deepest > (size_t)q ? deepest : (size_t)q) * 2);

    s->norm = (kern_rmsnorm_args){.out = act,
                                  .residual = take(b, s, rows * (size_t)h * 4),
                                  .add = sum,
                                  .weight = take(b, s, (size_t)h * 4),
                                  .m = m,
                                  .dim = h,
                                  .eps = 1e-6f,
                                  .out_dtype = KERN_DTYPE_BF16};
    s->silu = (kern_silu_mul_args){
        .out = act, .in = wide, .m = m, .n = inter, .out_dtype = KERN_DTYPE_BF16};
    add_product(b, s, OP_QKV_PRODUCT, wide, act, q + 2 * kv, h);
    add_product(b, s, OP_O, sum, act, h, q);
    add_product(b, s, OP_GATE_UP, wide, act, 2 * inter, h);
    add_product(b, s, OP_DOWN, sum, act, h, inter);
    add_attention(b, s, shape, tp, ctx, wide, act);
}

/* ---- running it ---- */

static tp_status run_op(const bench *b, step *s, step_op op, int layer)
{
    switch (op) {
    case OP_NORM: return kern_cuda_rmsnorm(&s->norm, b->s);
    case OP_QKV: return kern_cuda_qkv(&s->qkv, b->s);
    case OP_ATTENTION: return kern_cuda_attn(&s->attn.args, b->props->n_sm, b->s);
    case OP_SILU: return kern_cuda_silu_mul(&s->silu, b->s);
    case OP_QKV_PRODUCT:
    case OP_O:
    case OP_GATE_UP:
    case OP_DOWN:
    case OP_COUNT: break;
    }
    s->product[op].w = s->weights[op][layer % LAYERS];
    return kern_dev_gemm_run(b->gemm, &s->product[op], b->s);
}

static tp_status launch(const bench *b, void *arg, int i)
{
    step *s = arg;

    if (s->only >= 0)
        return run_op(b, s, (step_op)s->only, i);
    for (size_t k = 0; k < TP_ARRAY_LEN(layer_order); k++)
        TP_TRY(run_op(b, s, layer_order[k], i));
    return TP_OK;
}

static double sum_of_kernels(const bench *b, step *s)
{
    double alone[OP_COUNT], sum = 0;

    for (s->only = 0; s->only < OP_COUNT; s->only++)
        alone[s->only] = bench_time_us(b, launch, s);
    s->only = -1;
    for (size_t k = 0; k < TP_ARRAY_LEN(layer_order); k++)
        sum += alone[layer_order[k]];
    return sum;
}

void bench_step(const bench *b, const model_shape *shape, int tp, int m, int ctx)
{
    step s = {.only = -1};

    make(b, &s, shape, tp, m, ctx);
    for (int on = 0; on < 2; on++) {
        double sum, us;

        kern_cuda_set_programmatic(on == 1);
        sum = sum_of_kernels(b, &s);
        us = bench_time_us(b, launch, &s);
        (void)printf("{\"op\": \"layer\", \"model\": \"%s\", \"tp\": %d, \"m\": %d, \"ctx\": %d, "
                     "\"programmatic\": %d, \"layer_us\": %.2f, \"sum_us\": %.2f, "
                     "\"overhead_percent\": %.1f}\n",
                     shape->name, tp, m, ctx, on, us, sum, 100 * (us - sum) / sum);
        (void)fflush(stdout);
    }
    kern_cuda_set_programmatic(false);
    bench_attn_release(&s.attn, b);
    while (s.n_taken > 0)
        kern_dev_free(b->dev, s.taken[--s.n_taken]);
}
