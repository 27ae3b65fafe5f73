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

/* One token per row out of what the ranks gathered, on every rank the same: what kern_topk and kern_chunk_stats said of
 * each rank's shard, drawn from in FP64, in the order of the vocabulary or of the sorted list.
 *
 *   greedy    the best candidate
 *   plain     temperature only: the token of one chunk, chosen in proportion to the chunks' masses
 *   filtered  temperature, then min_p, top_k, top_p on the merged candidates.  At most KERN_DRAW_LIST / n_ranks of a
 *             rank are looked at.  A row with 0 < top_k <= that and <= k is always decided.
 */
#define KERN_DRAW_LIST 2048 /* candidates of all ranks */

#define KERN_DRAW_NONE (-1) /* token: no logit of the row is finite */
#define KERN_DRAW_OPEN (-2) /* token: the candidates do not decide; the whole row is needed */

typedef enum kern_draw_kind {
    KERN_DRAW_GREEDY = 0,
    KERN_DRAW_PLAIN = 1,
    KERN_DRAW_FILTERED = 2
} kern_draw_kind;

typedef struct kern_draw_rank {
    int32_t n_local, n_chunks; /* of its shard */
} kern_draw_rank;

/* val, id and stats are bytes from the start of each rank's message: multiples of 4. */
typedef struct kern_draw_row {
    int32_t kind;      /* kern_draw_kind */
    int32_t k;         /* candidates per rank; 0 for plain rows */
    int64_t val, id;   /* this row's k candidates as kern_topk left them */
    int64_t stats;     /* where statistics of rows begin, [.., n_chunks of the rank]; -1 = none */
    int32_t stats_row; /* which of those is this row: plain, and filtered with top_p alone */
    int32_t top_k;     /* 0 = off */
    float temperature, top_p, min_p;
    uint64_t seed, counter;
} kern_draw_row;

typedef struct kern_draw_args {
    const void *gathered; /* [n_ranks, message_bytes] */
    int64_t message_bytes;
    const kern_draw_rank *ranks; /* [n_ranks] */
    const kern_draw_row *rows;   /* [n_rows] */
    int n_ranks, n_rows;
    int32_t *token; /* [n_rows] */
    float *logit;   /* [n_rows] the token's; -inf when there is none or it is open */
} kern_draw_args;

#endif
