/* SPDX-License-Identifier: Apache-2.0 */
/* bench_gpu.h - what the files of the benchmark share: a device, data with numbers in it, and the clock. */
#ifndef TESTS_GPU_BENCH_GPU_H
#define TESTS_GPU_BENCH_GPU_H

#include "kernels/cuda/gemm.h"
#include "kernels/cuda/launch.h"

typedef struct bench {
    kern_dev *dev;
    kern_stream s;
    kern_dev_gemm *gemm;
    kern_event from, to;
    const kern_dev_props *props;
    bool smoke;
    int n_launches; /* per replay */
    double copy_gbps, peak_tflops;
} bench;

typedef struct model_shape {
    const char *name;
    int hidden, heads, kv_heads, head_dim, inter, vocab;
} model_shape;

/* A failure ends the program. */
void bench_check(tp_status st);
/* Device memory: random BF16 in (-1, 1), as zeros would draw less power and clock higher; a copy of the host's. */
void *bench_bytes(const bench *b, size_t bytes);
void *bench_copy(const bench *b, const void *host, size_t bytes);
/* Microseconds of one launch: the best of some replays of a graph of n_launches of them. */
typedef tp_status bench_launch_fn(const bench *b, void *arg, int i);
double bench_time_us(const bench *b, bench_launch_fn *launch, void *arg);

/* bench_attn.c: a call of attention for n_seqs sequences of ctx tokens, n_rows new ones each, whose blocks are scattered
 * over the cache.  The caller adds out, q and q_stride.  Not to be moved: args.kv points into it. */
typedef struct bench_attn {
    kern_attn_args args;
    struct kern_kv kv;
    int32_t *last_places; /* device: [n_seqs], where in the cache each sequence's last token lies */
    void *taken[8];       /* device memory */
    int n_taken;
} bench_attn;

void bench_attn_make(bench_attn *t, const bench *b, const model_shape *s, int tp, int n_seqs,
                     int ctx, int n_rows);
void bench_attn_release(bench_attn *t, const bench *b);

/* bench_step.c: layers of a decode step as one graph, beside the sum of its kernels. */
void bench_step(const bench *b, const model_shape *s, int tp, int m, int ctx);

#endif
