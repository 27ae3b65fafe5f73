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

/* bench_step.c: layers of a decode step as one graph, beside the sum of its kernels. */
void bench_step(const bench *b, const model_shape *s, int tp, int m, int ctx);

#endif
