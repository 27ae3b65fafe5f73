/* SPDX-License-Identifier: Apache-2.0 */
/* launch.h - one launcher per kernel: chooses grid, block and template instance and launches on a stream.
 *
 * Implemented in .cu files, called from C.  Args structs are those of kern.h; every pointer in them is device memory.
 * A launcher never waits and never allocates; it returns INVALID for a shape that the kernel cannot do (its text says
 * which) and DEVICE when the launch itself fails.  Empty sizes launch nothing.
 */
#ifndef KERN_CUDA_LAUNCH_H
#define KERN_CUDA_LAUNCH_H

#include "kernels/cuda/dev.h"
#include "kernels/kern.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A weight as the device holds it: row-major [n, k] of dtype, rows ld elements apart (ld >= k, a multiple of 8). */
struct kern_weight {
    kern_weight_desc desc;
    void *data;
    int64_t ld;
};

/* The paged cache: [layer][block][K, V][n_kv][block_tokens][head_dim] of dtype.  A tile of one head in one block is
 * contiguous; every tile starts 16-byte aligned when head_dim is a multiple of 8. */
struct kern_kv {
    kern_kv_desc desc;
    void *data;
    int64_t layer_stride, block_stride, v_offset, head_stride; /* elements */
};

tp_status kern_cuda_embed(const kern_embed_args *a, kern_stream s);
tp_status kern_cuda_rmsnorm(const kern_rmsnorm_args *a, kern_stream s);
tp_status kern_cuda_rope_table(const kern_rope_table_args *a, kern_stream s);
tp_status kern_cuda_qkv(const kern_qkv_args *a, kern_stream s);
tp_status kern_cuda_silu_mul(const kern_silu_mul_args *a, kern_stream s);
tp_status kern_cuda_gather(const kern_gather_args *a, kern_stream s);
tp_status kern_cuda_take(const kern_take_args *a, kern_stream s);
tp_status kern_cuda_scatter(const kern_scatter_args *a, kern_stream s);
/* data[row * ld + col] of n x k elements := src, converted; for loading.  src [n_rows, k] packed, device memory. */
tp_status kern_cuda_convert(void *dst, kern_dtype dst_dtype, int64_t dst_ld, const void *src,
                            kern_dtype src_dtype, int64_t n_rows, int64_t k, kern_stream s);

/* Attention.  n_sm sizes the split of long contexts; it is the same in both calls.  Scratch is zeroed once, by who
 * allocates it, and belongs to attention. */
size_t kern_cuda_attn_scratch_bytes(int n_q, int head_dim, int64_t ctx_max, int seqs_max, int n_sm);
bool kern_cuda_attn_supports(int head_dim, kern_dtype kv);
tp_status kern_cuda_attn(const kern_attn_args *a, int n_sm, kern_stream s);

tp_status kern_cuda_adjust(const kern_adjust_args *a, kern_stream s);
tp_status kern_cuda_topk(const kern_topk_args *a, kern_stream s);
tp_status kern_cuda_chunk_stats(const kern_chunk_args *a, kern_stream s);
tp_status kern_cuda_draw(const kern_draw_args *a, kern_stream s);

/* Programmatic launches, on sm_90 and later: a kernel's blocks may start while those of the kernel before still run, and
 * wait (tp_grid_wait) before they read.  Off until a GPU has shown what they gain (bench_gpu step).  Between launches;
 * a recorded graph keeps what was set when it was recorded. */
void kern_cuda_set_programmatic(bool on);

/* Sets what a kernel may use beyond the defaults (dynamic shared memory); once per device, before the first launch. */
tp_status kern_cuda_prepare(const kern_dev_props *p);

#ifdef __cplusplus
}
#endif

#endif
