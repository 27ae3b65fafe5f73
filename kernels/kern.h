/* SPDX-License-Identifier: Apache-2.0 */
/* kern.h - the operations that a transformer step is made of, one table per backend.
 *
 * Backends: "ref" (plain scalar C, the oracle), "cpu" (own threads; the instruction set is chosen inside, at run time),
 * "cuda" (a module opened at run time), "emu" (the same CUDA sources on an emulated device) and "null" (none of it).
 *
 * Memory: every array that an args struct points to is memory of the backend, from ops->alloc().  On CPU backends that
 * is ordinary memory; on a device (kern_backend.device) the host may not touch it: ops->put() and ops->get() move
 * bytes.  Operations neither allocate nor wait for the device; they are issued in order on one stream, which put()
 * joins and get() waits for.  Args structs and the arrays that they call host memory are read before the call returns.
 *
 * Data between operations: the residual stream, GEMM results, q and logits are FP32.  What a GEMM reads ("act") has
 * the type kern_act_dtype() says.  Accumulation is FP32 everywhere.
 *
 * On CPU backends every row's result is independent of the other rows of the batch, bit for bit: one order of additions
 * per row for every m.  Sizes called _local concern this rank's shard; a size of 0 is legal and makes the operation
 * empty.
 * Threads: one thread at a time per backend (the engine thread); the backend has its own team.
 */
#ifndef KERN_H
#define KERN_H

#include <stdint.h>

#include "base/segtree.h"
#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define KERN_ABI 4

typedef enum kern_dtype { KERN_DTYPE_F32 = 0, KERN_DTYPE_BF16 = 1, KERN_DTYPE_F16 = 2 } kern_dtype;

size_t kern_dtype_bytes(kern_dtype t);
const char *kern_dtype_name(kern_dtype t); /* "float32", "bfloat16", "float16" */

typedef struct kern_ops kern_ops;
typedef struct kern_weight kern_weight; /* a matrix [n, k] in the backend's own packing; opaque */
typedef struct kern_kv kern_kv;         /* a paged key/value cache; opaque */
typedef struct kern_graph kern_graph;   /* recorded operations; opaque */

/* First member of every backend's own struct. */
typedef struct kern_backend {
    const kern_ops *ops;
    int n_threads;
    const char *isa; /* "scalar", "generic", "avx2", "avx512", "amx"; "sm_90" on a device */
    bool device;     /* memory of alloc() is not the host's */
    bool act_f16;    /* F16 weights are multiplied with F16 activations, not F32 ones */
    bool tree;       /* gemm sums follow kern_ksplit; else split is ignored and there is one root */
    /* weight_put() of different rows, and put(), may run on several threads at once. */
    bool parallel_put;
    void *stream; /* of a device: what comm needs to join it; NULL on CPU */
    void *dev;    /* kern_dev *, for reducers of the device's own module; NULL on CPU */
} kern_backend;

/* What gemm reads: BF16 -> BF16, F32 -> F32, F16 -> F16 where the backend multiplies such, else F32. */
kern_dtype kern_act_dtype(const kern_backend *be, kern_dtype weights);

typedef struct kern_open_args {
    int n_threads;   /* >= 1; host threads */
    const char *isa; /* NULL: best of this machine (TPSERVE_CPU_ISA is resolved by the launcher) */
    int device;      /* ordinal among the visible devices; CPU backends ignore it */
    const char *
        cache_dir; /* where choices that took measuring are kept for the next start; NULL: nowhere */
} kern_open_args;

#include "kernels/kern_weight.h"

/* ---- operations ---- */
typedef struct kern_embed_args {
    float *out; /* [m, k] */
    const kern_weight
        *table;         /* [n_local, k]: vocabulary rows vocab_first .. vocab_first + n_local */
    const int32_t *ids; /* [m] global token ids; a row whose id is not local becomes zeros */
    int m;
    int32_t vocab_first;
} kern_embed_args;

/* residual += add; out = residual * rsqrt(mean(residual^2) + eps) * weight.  Statistics in FP32. */
typedef struct kern_rmsnorm_args {
    void *out;           /* [m, dim] of out_dtype */
    float *residual;     /* [m, dim] in/out */
    const float *add;    /* [m, dim] or NULL */
    const float *weight; /* [dim] */
    int m, dim;
    float eps;
    kern_dtype out_dtype; /* F32, BF16, F16 */
} kern_rmsnorm_args;

/* How K is cut for a row-parallel sum (base/segtree.h): this rank's run of segments in local columns. */
typedef struct kern_ksplit {
    int seg_first, n_seg; /* global index of the first segment; segments here */
    int32_t k_end
        [TP_SEG_MAX]; /* local column where segment i ends; may repeat (empty segment = zeros) */
} kern_ksplit;

/* out = in * w^T (+ bias).  Without split: one sum over K per element, K ascending.  With split: the roots of the
 * run, out [n_roots, m, n], n_roots = tp_seg_roots(); bias must then be NULL. */
typedef struct kern_gemm_args {
    float *out;     /* [m, n] or [n_roots, m, n] */
    const void *in; /* [m, k] of kern_act_dtype(w) */
    const kern_weight *w;
    const float *bias; /* [n] or NULL */
    int m;
    const kern_ksplit *split; /* host memory; NULL: none */
    void *scratch;            /* kern_gemm_scratch_bytes(); may be NULL when that is 0 */
} kern_gemm_args;

/* cos and sin of pos * inv_freq, times amplitude; the product and the functions in FP32. */
typedef struct kern_rope_table_args {
    float *cos_sin;        /* [m, n_freq, 2] */
    const int32_t *pos;    /* [m] */
    const float *inv_freq; /* [n_freq] */
    int m, n_freq;
    float amplitude;
} kern_rope_table_args;

/* On each row of qkv [n_q | n_kv | n_kv heads]: per-head RMSNorm of q and k (where given), half-rotation RoPE of the
 * first 2 * n_freq elements of every q and k head, then k and v go to the cache.  q stays in place. */
typedef struct kern_qkv_args {
    float *qkv;                   /* [m, (n_q + 2 * n_kv) * head_dim] in/out; bias already added */
    const float *cos_sin;         /* [m, n_freq, 2] */
    const float *q_norm, *k_norm; /* [head_dim] or NULL */
    float norm_eps;
    int m, n_q, n_kv, head_dim, n_freq;
    kern_kv *kv;
    int layer;
    const int32_t *kv_index; /* [m] block_id * block_tokens + offset; -1: do not write */
} kern_qkv_args;

typedef struct kern_attn_seq {
    int32_t row;    /* first of its rows in q */
    int32_t n_rows; /* new tokens in this step */
    /* Tokens in the cache including the new ones: row i sees positions 0 .. ctx - n_rows + i. */
    int32_t ctx;
    int32_t table; /* its block table starts at block_tables[table] */
} kern_attn_seq;

/* Causal softmax(q k^T * scale) v over the paged cache.  Query head h (local) reads KV head kv_of_q[h] (local).  On
 * CPU backends the order of additions of a row depends on its position only: chunked, batched or recomputed, the bits are
 * equal. */
typedef struct kern_attn_args {
    void *out;        /* [m, n_q * head_dim] of out_dtype */
    const float *q;   /* row r at q + r * q_stride */
    int64_t q_stride; /* elements */
    kern_kv *kv;
    int layer;
    const kern_attn_seq *seqs;   /* [n_seqs] */
    const int32_t *block_tables; /* entries wholly before a row's window are not read */
    const int32_t *kv_of_q;      /* [n_q] */
    int n_seqs, n_q, head_dim;
    int n_decode; /* seqs[0 .. n_decode) have one row each (n_rows 1; ctx 0 = an empty place of a fixed batch) */
    int max_rows; /* at least the n_rows of every other sequence; 0 when there is none */
    int max_ctx;  /* at least every ctx */
    float scale;
    int window;           /* 0 = full; else key j is seen by position i iff i - window < j <= i */
    kern_dtype out_dtype; /* F32, BF16, F16 */
    void *scratch;        /* kern_attn_scratch_bytes() */
} kern_attn_args;

typedef struct kern_silu_mul_args {
    void *out;       /* [m, n] of out_dtype: silu(in[:, :n]) * in[:, n:] */
    const float *in; /* [m, 2 * n] gate | up */
    int m, n;
    kern_dtype out_dtype;
} kern_silu_mul_args;

/* Single 32-bit words, numbers of any kind: out[i] = in[idx[i]]; idx -1 yields -1 (all bits set). */
typedef struct kern_take_args {
    void *out;      /* [n] words; may not overlap in */
    const void *in; /* words */
    const int32_t *idx;
    int n;
} kern_take_args;

/* out[idx[i]] = in[i]; the idx differ from each other, -1 is nowhere. */
typedef struct kern_scatter_args {
    void *out; /* words */
    const void *in;
    const int32_t *idx;
    int n;
} kern_scatter_args;

typedef struct kern_gather_args {
    float *out; /* [n, dim]: row idx[i] of in */
    const float *in;
    const int32_t *idx; /* [n] */
    int n, dim;
} kern_gather_args;

/* ---- KV cache ---- */
typedef struct kern_kv_desc {
    int n_layers, n_kv, head_dim; /* n_kv: local heads */
    int block_tokens;             /* 16; a multiple of 16 */
    int32_t n_blocks;
    kern_dtype dtype;
} kern_kv_desc;

#include "kernels/kern_sampling.h"

#define KERN_FETCHES     2 /* under way at once */
#define KERN_FETCH_BYTES ((size_t)256 << 10)

struct kern_ops {
    uint32_t abi; /* KERN_ABI */
    const char *name;
    tp_status (*open)(kern_backend **out, const kern_open_args *a);
    void (*close)(kern_backend *be);
    bool (*isa_supported)(const char *isa); /* can this machine run it? */

    /* memory: zeroed; freed with free */
    tp_status (*alloc)(kern_backend *be, size_t bytes, void **out);
    void (*free)(kern_backend *be, void *p);
    /* Host to backend, in order with the operations; src may be reused when the call returns. */
    tp_status (*put)(kern_backend *be, void *dst, const void *src, size_t bytes);
    /* Backend to host: waits for everything issued before; the place where errors of the device come out. */
    tp_status (*get)(kern_backend *be, void *dst, const void *src, size_t bytes);
    /* get() in two halves, so that the host can issue more in between: what src holds at this place of the stream; end
     * waits no further.  at: which of KERN_FETCHES; up to KERN_FETCH_BYTES, 0 to wait only.  NULL on CPU backends. */
    tp_status (*fetch_begin)(kern_backend *be, int at, const void *src, size_t bytes);
    tp_status (*fetch_end)(kern_backend *be, int at, void *dst, size_t bytes);
    /* Bytes of the backend's memory: all of it, and what is free now.  CPU backends answer 0, 0. */
    tp_status (*memory)(kern_backend *be, int64_t *total, int64_t *available);

    size_t (*weight_bytes)(const kern_backend *be, const kern_weight_desc *d);
    tp_status (*weight_create)(kern_backend *be, const kern_weight_desc *d, kern_weight **out);
    tp_status (*weight_put)(kern_backend *be, kern_weight *w, const kern_weight_rows *rows);
    void (*weight_destroy)(kern_backend *be, kern_weight *w);
    /* A weight that may be used before all of it was put: gemm and embed read what is missing from its sources, to the
     * same bits.  late names one source, before the first put; then puts may run beside operations.  settle, between
     * operations: everything was put, the sources are not asked again.  NULL where a weight must be whole. */
    tp_status (*weight_late)(kern_backend *be, kern_weight *w, const kern_weight_source *s);
    void (*weight_settle)(kern_backend *be, kern_weight *w);

    size_t (*kv_block_bytes)(const kern_backend *be,
                             const kern_kv_desc *d); /* one block, all layers */
    tp_status (*kv_create)(kern_backend *be, const kern_kv_desc *d, kern_kv **out);
    void (*kv_destroy)(kern_backend *be, kern_kv *kv);
    tp_status (*kv_copy_block)(kern_backend *be, kern_kv *kv, int32_t dst, int32_t src);

    size_t (*gemm_scratch_bytes)(const kern_backend *be, int m_max, int64_t n_max, int64_t k_max);
    /* ctx_max: longest context; seqs_max: sequences of one call */
    size_t (*attn_scratch_bytes)(const kern_backend *be, int n_q, int head_dim, int64_t ctx_max,
                                 int seqs_max);

    tp_status (*embed)(kern_backend *be, const kern_embed_args *a);
    tp_status (*rmsnorm)(kern_backend *be, const kern_rmsnorm_args *a);
    tp_status (*gemm)(kern_backend *be, const kern_gemm_args *a);
    tp_status (*rope_table)(kern_backend *be, const kern_rope_table_args *a);
    tp_status (*qkv)(kern_backend *be, const kern_qkv_args *a);
    tp_status (*attn)(kern_backend *be, const kern_attn_args *a);
    tp_status (*silu_mul)(kern_backend *be, const kern_silu_mul_args *a);
    tp_status (*take)(kern_backend *be, const kern_take_args *a);
    tp_status (*scatter)(kern_backend *be, const kern_scatter_args *a);
    tp_status (*gather)(kern_backend *be, const kern_gather_args *a);
    tp_status (*adjust)(kern_backend *be, const kern_adjust_args *a);
    tp_status (*topk)(kern_backend *be, const kern_topk_args *a);
    tp_status (*chunk_stats)(kern_backend *be, const kern_chunk_args *a);
    tp_status (*draw)(kern_backend *be, const kern_draw_args *a); /* NULL where there is none */

    /* Graphs; NULL where the backend has none (CPU).  What is issued between begin and end is recorded, not executed;
     * launch issues it again, with the same args and pointers and whatever the memory holds then.  alloc, free, put
     * and get while recording are errors and spoil the graph, which end then reports.  One graph at a time. */
    tp_status (*graph_begin)(kern_backend *be);
    tp_status (*graph_end)(kern_backend *be, kern_graph **out);
    tp_status (*graph_launch)(kern_backend *be, kern_graph *g);
    void (*graph_destroy)(kern_backend *be, kern_graph *g);
    /* Chooses how products of this shape (m, w) are computed by timing a few ways; overwrites out.  Waits: for the start,
     * not while recording.  NULL where there is never a choice. */
    tp_status (*gemm_tune)(kern_backend *be, const kern_gemm_args *a);
};

const kern_ops *kern_ref_ops(void);
const kern_ops *kern_cpu_ops(void);
const kern_ops *kern_null_ops(void); /* computes nothing: what is left is the host's work */
/* By name; NULL when unknown.  "cuda" and "emu" are not here: kernels/module.h. */
const kern_ops *kern_find_ops(const char *name);

#include "kernels/kern_inline.h"

#ifdef __cplusplus
}
#endif

#endif
