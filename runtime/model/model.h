/* SPDX-License-Identifier: Apache-2.0 */
/* model.h - a checkpoint's description, its shard on this rank, and one forward pass.
 *
 * Three stages, each usable without the next:
 *   rt_config_load    config.json and generation_config.json -> plain numbers (inspect, plan)
 *   rt_shard_plan     what a rank keeps of it: ranges and bytes, a closed formula
 *   rt_model_load     reads only those byte ranges, packs them, and is ready for rt_model_forward
 *
 * Row-parallel sums follow base/segtree.h, so logits are the same bits at every number of ranks.
 * Threads: the engine thread.
 */
#ifndef RT_MODEL_H
#define RT_MODEL_H

#include <stdint.h>

#include "base/segtree.h"
#include "base/status.h"
#include "comm/comm.h"
#include "kernels/kern.h"

#define RT_EOS_MAX        16
#define RT_LOGIT_ROWS_MAX 64 /* rows that one rt_model_logits call may ask for */
#define RT_VOCAB_UNIT                                                                              \
    64 /* the vocabulary is cut between ranks at multiples of whole chunks of such units */
#define RT_VOCAB_CHUNKS                                                                            \
    256 /* at most; fixed by the vocabulary alone, so log-sum-exp has one order */

typedef enum rt_arch { RT_ARCH_LLAMA, RT_ARCH_MISTRAL, RT_ARCH_QWEN2, RT_ARCH_QWEN3 } rt_arch;

typedef enum rt_rope_kind {
    RT_ROPE_DEFAULT,
    RT_ROPE_LINEAR,
    RT_ROPE_DYNAMIC,
    RT_ROPE_LLAMA3,
    RT_ROPE_YARN
} rt_rope_kind;

typedef struct rt_rope {
    rt_rope_kind kind;
    double theta, factor;
    double low_freq_factor, high_freq_factor;        /* llama3 */
    double beta_fast, beta_slow;                     /* yarn */
    double attention_factor, mscale, mscale_all_dim; /* yarn; 0 = not given */
    bool truncate;                                   /* yarn */
    int64_t original_max_position;
    double partial; /* share of head_dim that rotates; 1 */
} rt_rope;

/* Traits of one decoder: everything that tells a Llama from a Qwen3 is a field here. */
typedef struct rt_config {
    rt_arch arch;
    char model_type[32], architecture[64];
    int n_layers, hidden, intermediate, n_heads, n_kv_heads, head_dim, vocab;
    float norm_eps;
    bool qkv_bias, o_bias, mlp_bias, qk_norm, tied;
    /* Positions that the RoPE supports as configured (yarn: original * factor). */
    int64_t max_position;
    int sliding_window;         /* 0 = none */
    uint64_t sliding_layers[4]; /* bit per layer: window active there (256 layers at most) */
    rt_rope rope;
    kern_dtype dtype;        /* of the checkpoint */
    int32_t bos_id;          /* -1 = none */
    int32_t eos[RT_EOS_MAX]; /* union of config.json and generation_config.json */
    int n_eos;
    /* generation_config.json; < 0 = not given */
    float gen_temperature, gen_top_p, gen_min_p, gen_repetition_penalty;
    int gen_top_k;
} rt_config;

/* Reads and checks every field; the message names file, key, what was found and what is supported. */
TP_MUST_USE tp_status rt_config_load(rt_config *out, const char *model_dir);
bool rt_config_layer_sliding(const rt_config *c, int layer);
int64_t rt_config_params(const rt_config *c);

/* What one rank keeps. */
typedef struct rt_shard {
    int rank, n_ranks, n_seg;
    int head_first, n_heads_local;  /* query heads [first, first + n) */
    int kv_first, n_kv_local;       /* KV heads those need; may overlap a neighbour's */
    int inter_first, n_inter_local; /* intermediate columns */
    int32_t vocab_first, n_vocab_local;
    int32_t vocab_chunk;             /* tokens per chunk; vocab_first is a multiple */
    kern_ksplit split_o, split_down; /* in local columns */
    int64_t weight_bytes;            /* as stored on this rank, without packing padding */
    int64_t kv_bytes_per_token;
} rt_shard;

/* INVALID when n_ranks is impossible (> 64, or more ranks than vocabulary chunks ...). */
TP_MUST_USE tp_status rt_shard_plan(rt_shard *out, const rt_config *c, int n_ranks, int rank,
                                    kern_dtype weights, kern_dtype kv);

typedef struct rt_model_options {
    const char *dir;
    kern_dtype dtype; /* of weights and KV cache on this rank */
    int max_tokens_per_step;
    int max_seqs;
    int64_t max_model_len;
    int block_tokens;
    bool dummy_weights; /* --load-format dummy: random numbers, nothing read */
    bool lazy_weights;  /* the model may be used while matrices come in, where the backend can */
    bool progress;      /* bar on the terminal (rank 0) */
} rt_model_options;

/* Bytes that this rank will take, known before anything is loaded (exact for the backend's packing). */
typedef struct rt_memory_plan {
    int64_t weights, workspace, kv_per_block;
} rt_memory_plan;

/* comm_options.window_bytes that the forward pass needs: the largest roots of any rank. */
size_t rt_model_window_bytes(const rt_config *c, int n_ranks, int max_tokens_per_step);

typedef struct rt_model rt_model;

TP_MUST_USE tp_status rt_model_memory(rt_memory_plan *out, const rt_config *c, const rt_shard *s,
                                      const kern_backend *be, const rt_model_options *o);
/* Collective (the ranks agree on failure: all return an error when one does). */
TP_MUST_USE tp_status rt_model_load(rt_model **out, const rt_config *c, const rt_shard *s,
                                    kern_backend *be, comm_group *g, const rt_model_options *o);
void rt_model_destroy(rt_model *m);
/* Weights read by this rank, and the seconds it took. */
void rt_model_load_stats(const rt_model *m, int64_t *bytes, double *seconds);

/* One step's tokens, the same on every rank.  The arrays are memory of the backend. */
typedef struct rt_batch {
    int n_tok;
    const int32_t *ids;      /* [n_tok] */
    const int32_t *pos;      /* [n_tok] */
    const int32_t *kv_index; /* [n_tok] block * block_tokens + offset; -1: nowhere */
    int n_seqs;
    int n_decode, max_rows, max_ctx; /* as in kern_attn_args */
    const kern_attn_seq *seqs;
    const int32_t *block_tables;
} rt_batch;

/* Runs all layers; keeps the final hidden states until the next call.  kv was made with the shard's shape. */
TP_MUST_USE tp_status rt_model_forward(rt_model *m, kern_kv *kv, const rt_batch *b);
/* Final norm and head for n (<= RT_LOGIT_ROWS_MAX) rows of the last forward: *logits is [n, ld] for the local
 * vocabulary rows, valid until the next call.  rows and logits are memory of the backend. */
TP_MUST_USE tp_status rt_model_logits(rt_model *m, const int32_t *rows, int n, float **logits,
                                      int64_t *ld);
/* Where rt_model_logits() puts them: for a caller who has recorded that call in a graph. */
void rt_model_last_logits(const rt_model *m, float **logits, int64_t *ld);
/* Lets the backend choose how it multiplies by this model's weights for n_tok tokens; takes time.  Overwrites what the
 * last forward has left. */
TP_MUST_USE tp_status rt_model_tune(rt_model *m, int n_tok);

#endif
