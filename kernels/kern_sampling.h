/* SPDX-License-Identifier: Apache-2.0 */
/* kern_sampling.h - args of the operations over a shard of the vocabulary.  Included by kern.h only. */
#ifndef KERN_SAMPLING_H
#define KERN_SAMPLING_H

#include <stdint.h>

/* One row's changes to its logits, in this order: allowed list, bias, penalties, forbidden ids. */
typedef struct kern_adjust_row {
    int32_t row;
    float repetition, frequency, presence; /* 1, 0, 0 = none */
    const int32_t *history;                /* global ids: prompt, then output */
    int32_t n_prompt, n_history;
    const int32_t *bias_ids; /* [n_bias] */
    const float *bias;
    int32_t n_bias;
    const int32_t *forbidden; /* [n_forbidden]: to -inf (eos while below min_tokens, bad words) */
    int32_t n_forbidden;
    const int32_t *allowed; /* [n_allowed]: all others to -inf; NULL = all allowed */
    int32_t n_allowed;
} kern_adjust_row;

typedef struct kern_adjust_args {
    float *logits; /* [.., ld] in/out */
    int64_t ld;
    int32_t vocab_first, n_local;
    const kern_adjust_row *rows;
    int n_rows;
    int32_t *scratch; /* [n_local], zero on entry and on return */
} kern_adjust_args;

#define KERN_TOPK_MAX 1024

/* The k best of each row by (value descending, id ascending), as global ids; short rows are filled with -inf, -1.
 * NaN counts as -inf, and a token at -inf is never listed. */
typedef struct kern_topk_args {
    const float *logits; /* [.., ld] */
    int64_t ld;
    const int32_t *rows; /* [n_rows] row numbers */
    int n_rows, k;       /* k <= KERN_TOPK_MAX */
    int32_t vocab_first, n_local;
    float *val;  /* [n_rows, k] */
    int32_t *id; /* [n_rows, k] */
} kern_topk_args;

/* Per row and vocabulary chunk: max of l, sum of exp((l - max) * inv_temp) in one order, and one token drawn from the
 * chunk in proportion, by the number kern_philox_uniform(seed, counter, global chunk, 0) of kernels/philox.h.  Chunks
 * are the same at every TP size.  NaN counts as -inf, +inf as the largest finite number. */
typedef struct kern_chunk_row {
    int32_t row;
    float inv_temp;
    uint64_t seed, counter;
} kern_chunk_row;

typedef struct kern_chunk_stat {
    float max, sum;
    int32_t pick; /* global id; -1 when the whole chunk is -inf */
    float pick_logit;
} kern_chunk_stat;

typedef struct kern_chunk_args {
    const float *logits; /* [.., ld] */
    int64_t ld;
    const kern_chunk_row *rows;
    int n_rows;
    int32_t vocab_first, n_local;
    int32_t chunk_tokens; /* vocab_first is a multiple of it */
    kern_chunk_stat *out; /* [n_rows, ceil(n_local / chunk_tokens)] */
    float *scratch;       /* [n_threads, chunk_tokens] */
} kern_chunk_args;

#endif
