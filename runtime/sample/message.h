/* SPDX-License-Identifier: Apache-2.0 */
/* message.h - what one rank tells the others of its slice of the logits, and how it gets there.
 *
 * Of a block of rows the backend computes candidates, chunk statistics and single logits into one buffer, section by
 * section; the buffer goes to the host in one copy and to all ranks in one all-gather, or to all ranks without leaving
 * the devices (on_device.c).  Sections have the same places on every rank, because all have the same rows.
 */
#ifndef RT_SAMPLE_MESSAGE_H
#define RT_SAMPLE_MESSAGE_H

#include "runtime/sample/sample.h"
#include "runtime/sample/select.h"

#define RT_CANDIDATES 256 /* per rank and filtered row */

/* Rows of one kind, in block order. */
typedef struct rt_row_set {
    int n;
    int32_t at
        [RT_LOGIT_ROWS_MAX]; /* index into the caller's rows, which is the row of the logits block */
} rt_row_set;

/* What is asked of a block, and where in the message the answers lie. */
typedef struct rt_message {
    rt_row_set raw; /* report logprobs: the best, statistics at temperature 1, the target's logit */
    rt_row_set adjusted; /* change before they are drawn from */
    rt_row_set greedy, filtered, plain;
    rt_row_set masses; /* filtered rows that need the mass of the whole vocabulary */
    int k;             /* candidates per rank of a filtered row */
    size_t raw_best, raw_stats, targets, greedy_best, filtered_best, masses_stats, plain_stats;
    size_t bytes;
} rt_message;

/* The inputs of these operations: a struct on the host, copied to the same struct on the backend. */
typedef struct rt_sample_in {
    int32_t raw[RT_LOGIT_ROWS_MAX], greedy[RT_LOGIT_ROWS_MAX], filtered[RT_LOGIT_ROWS_MAX];
    int32_t pick[RT_LOGIT_ROWS_MAX]; /* words of the logits; -1 = another rank's */
    kern_chunk_row raw_stats[RT_LOGIT_ROWS_MAX], masses[RT_LOGIT_ROWS_MAX],
        plain[RT_LOGIT_ROWS_MAX];
    /* where the device draws: on_device.c */
    kern_draw_row draw[RT_LOGIT_ROWS_MAX];
    int32_t where[RT_LOGIT_ROWS_MAX]; /* word of the histories that the token becomes; -1 = none */
    kern_adjust_row adjust[RT_LOGIT_ROWS_MAX]; /* last: mostly unused */
} rt_sample_in;

struct rt_sampler {
    kern_backend *be;
    comm_group *group;
    int n_ranks;
    int32_t vocab, vocab_first, n_local, chunk_tokens;
    int32_t n_chunks, n_chunks_max; /* of this rank; of the rank with most */
    int32_t n_local_max;
    int32_t *rank_chunks; /* owned; [n_ranks] */
    int32_t *rank_local;  /* owned; [n_ranks] vocabulary rows */
    size_t message_bytes; /* at most */
    /* memory of the backend, all in one block; where that is the host's, `in` and `send` are these */
    void *memory; /* owned */
    rt_sample_in *in_there;
    uint8_t *out;            /* [message_bytes] */
    float *chunk_scratch;    /* [n_threads, chunk_tokens] */
    int32_t *adjust_scratch; /* [n_local] zeros */
    /* where the device draws */
    size_t gathered_bytes;       /* of one rank's message there, at most */
    uint8_t *gathered;           /* [n_ranks, gathered_bytes]; one rank: out */
    kern_draw_rank *ranks_there; /* [n_ranks] */
    float *logit_there;          /* [rows] of what was drawn; nobody asks */
    bool draws;
    /* memory of the host */
    rt_sample_in *in;          /* owned on a device */
    uint8_t *send;             /* [message_bytes]; owned on a device */
    uint8_t *recv;             /* owned; [n_ranks, message_bytes] */
    rt_cand *merged;           /* owned; [max(n_ranks * RT_CANDIDATES, vocab)] */
    float *row_send, *row_all; /* owned; [n_local_max], [n_ranks * n_local_max] */
    double *raw_lse;           /* owned; [rows] */
};

bool rt_row_is_adjusted(const rt_sample_row *r);
bool rt_row_needs_mass(const rt_slot_params *p);
typedef enum rt_row_kind { RT_ROW_GREEDY, RT_ROW_FILTERED, RT_ROW_PLAIN } rt_row_kind;
rt_row_kind rt_row_kind_of(const rt_slot_params *p);

/* Bytes of the longest message. */
size_t rt_message_bytes_max(const rt_sampler *s);
/* Of a message whose rows are all drawn from, none with a mass or a logprob. */
size_t rt_message_bytes_drawn(const rt_sampler *s);
/* What is asked of these rows; k: candidates of a filtered one. */
void rt_message_plan(const rt_sampler *s, const rt_sample_row *rows, int n, int k, rt_message *m);
/* Runs the operations over a block of logits and adjusts rows in place: the answers lie in s->out. */
TP_MUST_USE tp_status rt_message_find(rt_sampler *s, float *logits, int64_t ld,
                                      const rt_sample_row *rows, const rt_message *m);
/* Both, and exchanges the answers through the host. */
TP_MUST_USE tp_status rt_message_exchange(rt_sampler *s, float *logits, int64_t ld,
                                          const rt_sample_row *rows, int n, rt_message *m);
/* The logits of the rows' tokens as they lie there: out [n] is the largest of all ranks'. */
TP_MUST_USE tp_status rt_message_tokens(rt_sampler *s, const float *logits, int64_t ld,
                                        const rt_sample_row *rows, int n, float *out);

/* ---- on_device.c ---- */
/* Last part of create: can the device draw, and what it has to know for that. */
TP_MUST_USE tp_status rt_sampler_prepare_draws(rt_sampler *s);

/* ---- reading ---- */
/* Merges the ranks' lists of the i-th row of a set of candidates, k each, into s->merged; returns how many of the first
 * entries are exact.  *complete: every rank sent all that it has. */
int rt_message_merge(rt_sampler *s, const rt_message *m, size_t section, const rt_row_set *set,
                     int i, int k, bool *complete);
/* Statistics that rank r sent for the i-th row of a set: [rank_chunks[r]]. */
const kern_chunk_stat *rt_message_stats(const rt_sampler *s, const rt_message *m, size_t section,
                                        int r, int i);
/* The target's logit of the i-th raw row, from the rank that has it. */
float rt_message_target(const rt_sampler *s, const rt_message *m, int i);

#endif
