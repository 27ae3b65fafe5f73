/* SPDX-License-Identifier: Apache-2.0 */
/* attn_kernels.h - the attention kernels as attn.cu launches them; each family has a file. */
#ifndef KERN_CUDA_ATTN_KERNELS_H
#define KERN_CUDA_ATTN_KERNELS_H

#include "kernels/cuda/attn.cuh"

/* Head dimensions that the tensor-core kernels are compiled for. */
#define KERN_ATTN_EACH_DIM(F) F(64) F(80) F(96) F(128) F(192) F(256)
/* The largest of the generic kernel. */
#define KERN_ATTN_DIM_MAX 256
/* Blocks per KV head that decode splits its work over, at most. */
#define KERN_ATTN_BLOCKS_MAX 512
/* Keys of the smallest share of that work. */
#define KERN_ATTN_TILE 64

extern "C" {

/* Any head_dim and any numbers: seqs [0, n), up to max_rows rows each. */
void kern_attn_generic_launch(const attn_view *a, kern_dtype kv, int n, int max_rows,
                              kern_stream s);

/* seqs [0, n), one row each; needs parts and counters. */
void kern_attn_decode_launch(const attn_view *a, kern_dtype kv, int n, int n_kv, int n_blocks,
                             kern_stream s);
int64_t kern_attn_decode_parts(int n_q, int head_dim, int n_blocks); /* floats */
int64_t kern_attn_decode_counters(int n_q, int n_blocks);

/* seqs [0, n), up to max_rows rows each. */
void kern_attn_prefill_launch(const attn_view *a, kern_dtype kv, int n, int max_rows,
                              kern_stream s);

/* Lets the instances use the shared memory that they need; 0 or a launch status. */
int kern_attn_decode_prepare(void);
int kern_attn_prefill_prepare(void);
}

#endif
