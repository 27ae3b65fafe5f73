/* SPDX-License-Identifier: Apache-2.0 */
/* plan.h - the step plan: what every rank does next, in one flat message.
 *
 * Rank 0 encodes it, the control channel carries it, every rank (rank 0 too) decodes and executes it.  It holds ids
 * only: slots, block ids, token ids of prompts and of drafts.  Tokens sampled in earlier steps do not travel; each rank
 * keeps them in the slot's history.
 *
 * A draft is what rank 0 guesses that a sequence will go on with.  Its tokens are computed behind the sequence's last one,
 * and every row is sampled; a row counts as long as the rows before it have drawn what the draft says.
 *
 * Bytes, all little endian, every part 8-byte aligned:
 *   header     rt_plan_header
 *   closes     int32 slot [n_close]                    slots that end; before everything else
 *   copies     {int32 dst, src} [n_copy]               KV blocks to copy before the forward pass
 *   opens      rt_plan_open, then int32 prompt[n_prompt], bias_ids[n_bias], float bias[n_bias],
 *              int32 allowed[n_allowed], forbidden[n_forbidden]           [n_open times]
 *   seqs       rt_plan_seq, then int32 blocks[n_blocks], draft[n_draft]   [n_seq times]
 */
#ifndef RT_PLAN_H
#define RT_PLAN_H

#include <stdint.h>

#include "base/status.h"
#include "runtime/spec/speculation.h"

#define RT_PLAN_MAGIC   0x50505453u
#define RT_PLAN_VERSION 4

typedef enum rt_plan_flags {
    RT_PLAN_STOP = 1,   /* the last plan: ranks leave their loop */
    RT_PLAN_COLLECT = 2 /* no step: none follows for now, so the one under way is to be collected */
} rt_plan_flags;

typedef struct rt_plan_header {
    uint32_t magic;
    uint16_t version, flags;
    uint64_t step;
    uint32_t bytes; /* of the whole plan */
    uint32_t n_close, n_copy, n_open, n_seq;
    uint32_t checksum; /* of everything else: see plan.c */
} rt_plan_header;

/* How a slot samples.  Travels once, when the slot opens. */
typedef struct rt_slot_params {
    float temperature, top_p, min_p;
    float repetition, frequency, presence;
    int32_t top_k, min_tokens;
    int32_t n_logprobs, n_prompt_logprobs; /* -1 = none */
    uint64_t seed;
} rt_slot_params;

typedef struct rt_plan_open {
    int32_t slot, n_prompt, n_bias, n_allowed, n_forbidden;
    int32_t has_allowed; /* an empty allowed list differs from none */
    rt_slot_params params;
} rt_plan_open;

typedef enum rt_seq_flags {
    RT_SEQ_SAMPLE = 1 /* the rows of the last token and of the draft yield the next tokens */
} rt_seq_flags;

typedef struct rt_plan_seq {
    int32_t slot;
    int32_t start, n_new; /* positions [start, start + n_new) are computed, a draft included */
    int32_t table_keep;   /* entries of the slot's block table that stay; the new blocks follow */
    int32_t n_blocks;
    int32_t lp_start; /* prompt logprobs are wanted from this position on; INT32_MAX = none */
    uint32_t flags;
    int32_t n_draft; /* the last of the new tokens; with them, n_new = 1 + n_draft */
} rt_plan_seq;

/* ---- writing ---- */
typedef struct rt_plan_copy {
    int32_t dst, src;
} rt_plan_copy;

/* An opening with pointers, for the writer and for the reader. */
typedef struct rt_plan_open_view {
    rt_plan_open head;
    const int32_t *prompt, *bias_ids, *allowed, *forbidden;
    const float *bias;
} rt_plan_open_view;

typedef struct rt_plan_writer {
    uint8_t *data; /* owned; [cap] */
    size_t len, cap;
    uint8_t *tail; /* owned; [cap]: sequences wait here until all openings are written */
    size_t tail_len;
    rt_plan_copy *copies; /* owned; [list_cap] */
    int32_t *closes;      /* owned; [list_cap] */
    uint8_t *opens;       /* owned; [cap] */
    size_t opens_len;
    uint32_t list_cap;
    rt_plan_header header;
} rt_plan_writer;

/* cap: bytes of the largest plan; list_cap: closes and copies per step. */
TP_MUST_USE tp_status rt_plan_writer_init(rt_plan_writer *w, size_t cap, uint32_t list_cap);
void rt_plan_writer_release(rt_plan_writer *w);
void rt_plan_begin(rt_plan_writer *w, uint64_t step, uint16_t flags);
bool rt_plan_add_close(rt_plan_writer *w, int32_t slot);
bool rt_plan_add_copy(rt_plan_writer *w, int32_t dst, int32_t src);
/* False when the plan has no room for it: leave it to the next step. */
bool rt_plan_add_open(rt_plan_writer *w, const rt_plan_open_view *o);
bool rt_plan_add_seq(rt_plan_writer *w, const rt_plan_seq *s, const int32_t *blocks,
                     const int32_t *draft);
/* Nothing to execute and no flag to tell: need not be sent. */
bool rt_plan_is_empty(const rt_plan_writer *w);
/* Assembles; the bytes stay valid until the next begin. */
const uint8_t *rt_plan_finish(rt_plan_writer *w, size_t *bytes);

/* ---- reading ---- */
typedef struct rt_plan_reader {
    const uint8_t *data;
    size_t len, at;
    rt_plan_header header;
    const int32_t *closes;
    const rt_plan_copy *copies;
} rt_plan_reader;

/* Checks header, sizes and checksum.  Then read n_open openings, then n_seq sequences. */
TP_MUST_USE tp_status rt_plan_open_reader(rt_plan_reader *r, const void *data, size_t len);
TP_MUST_USE tp_status rt_plan_read_open(rt_plan_reader *r, rt_plan_open_view *out);
/* *blocks: [n_blocks], and behind them the draft [n_draft]. */
TP_MUST_USE tp_status rt_plan_read_seq(rt_plan_reader *r, rt_plan_seq *out, const int32_t **blocks);

#endif
