/* SPDX-License-Identifier: Apache-2.0 */
/* gemm.h - matrix products on the device: out[m, n] = in[m, k] * w[n, k]^T (+ bias[n]).
 *
 * Two implementations: gemm_cublaslt.c and emu/gemm_emu.c, which computes in FP32 on the host and refuses what
 * cuBLASLt refuses on the architecture it plays.  Rows of every matrix are contiguous.
 *
 * The algorithm of a shape is chosen once: the first heuristics are timed and the winner kept in a cache file that is
 * keyed by device, driver and cuBLAS version (kern_dev_gemm_tune).  FP32 inputs are multiplied in FP32, never TF32.
 */
#ifndef KERN_CUDA_GEMM_H
#define KERN_CUDA_GEMM_H

#include "kernels/cuda/dev.h"
#include "kernels/kern.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kern_dev_gemm kern_dev_gemm;

typedef struct kern_dev_gemm_call {
    void *out;         /* [m, n] of out_dtype */
    const void *in;    /* [m, k] of dtype */
    const void *w;     /* [n, k] of dtype, rows ldw elements apart */
    const float *bias; /* [n] or NULL */
    int m, n, k;
    int64_t ldw;
    kern_dtype dtype, out_dtype; /* out: F32, or dtype */
} kern_dev_gemm_call;

/* cache_file: where chosen algorithms are read from and written to; NULL = neither. */
TP_MUST_USE tp_status kern_dev_gemm_create(kern_dev_gemm **out, kern_dev *d,
                                           const char *cache_file);
void kern_dev_gemm_destroy(kern_dev_gemm *g);
/* Device memory that create takes (32 MiB on Hopper). */
size_t kern_dev_gemm_workspace_bytes(const kern_dev_props *p);
/* Chooses the algorithm for a shape by timing it; not while a graph is recorded.  Shapes that were never tuned run on
 * the first heuristic. */
TP_MUST_USE tp_status kern_dev_gemm_tune(kern_dev_gemm *g, const kern_dev_gemm_call *c,
                                         kern_stream s);
TP_MUST_USE tp_status kern_dev_gemm_run(kern_dev_gemm *g, const kern_dev_gemm_call *c,
                                        kern_stream s);

#ifdef __cplusplus
}
#endif

#endif
