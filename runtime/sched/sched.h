/* SPDX-License-Identifier: Apache-2.0 */
/* sched.h - continuous batching: which sequences compute which tokens in the next step.
 *
 * One token budget per step: running decodes first (one token each), then prompts in chunks, first come first served.
 * A sequence takes blocks for all of its tokens when it is admitted, and only if a share of the cache (the watermark)
 * stays free, so preemption is rare; when a decode finds no block, the youngest sequence gives its blocks back and is
 * computed again later from the tokens that its slot has kept.
 *
 * Plans are made ahead: a plan counts as executed as soon as it is made.  A row that is sampled is taken to yield a token
 * with which its sequence goes on, whatever the token.  That holds because plans are executed in order: what a later plan
 * reads, the earlier ones have computed by then, and blocks may change hands while a step is still under way.  A sequence
 * whose last row is planned leaves at once; one that ends unforeseen (eos, a stop string) is finished by the engine when
 * its token arrives, and the row computed for it meanwhile is thrown away.
 *
 * A full block whose tokens are known is offered to the prefix cache as soon as it counts as computed, and a sequence
 * that is admitted begins behind the blocks that it finds there.  Tokens of prompts are known from the start, drawn ones
 * when their results are back (rt_sched_learn): by then their sequence may have given its blocks back, so an answer that
 * ends at its length may leave its last block unnamed.
 *
 * Speculation.  Behind a decode's one certain token the plan may put a draft, tokens that its text probably goes on with
 * (payoff.h says how many are worth it).  How many of them come true is known only from the results, so a step with drafts
 * is the last to be planned until it is settled.  Those that came true are then counted as computed; what the cache holds
 * of the others is overwritten before anybody reads it.  A draft never costs another sequence its blocks or its place.
 *
 * Pure bookkeeping: no I/O, no clock, no allocation after create.  Threads: under the plan lock of rank 0.
 */
#ifndef RT_SCHED_H
#define RT_SCHED_H

#include <stdint.h>

#include "base/status.h"
#include "runtime/cache/block_pool.h"
#include "runtime/cache/prefix_cache.h"
#include "runtime/sched/plan.h"
#include "runtime/spec/payoff.h"
#include "runtime/stats.h"

typedef enum rt_seq_state {
    RT_SEQ_NEW,     /* not known to the scheduler */
    RT_SEQ_WAITING, /* for admission; may hold a slot (preempted) but no blocks */
    RT_SEQ_RUNNING,
    RT_SEQ_FINISHED /* nothing more is planned for it; results may still be under way */
} rt_seq_state;

/* One choice of a request.  The engine owns the memory and fills the first part; the rest is the scheduler's. */
typedef struct rt_seq {
    rt_plan_open_view open; /* what the ranks are told; pointers live as long as the sequence */
    int32_t n_prompt;
    int32_t n_total_max; /* ends with so many tokens at the latest; n_prompt = prefill only */
    int32_t lp_start;    /* prompt logprobs wanted from here on; INT32_MAX = none */
    int32_t n_new_max; /* most tokens per step beside a draft; 0 = paused (its reader is behind) */
    int32_t n_draft_max;    /* most tokens of a draft */
    struct rt_seq *fork_of; /* same prompt: share its blocks once they are computed; NULL = none */
    int32_t *blocks;        /* [blocks_max] */
    /* prefix cache; names NULL = takes no part in it.  Filled for the prompt, then the scheduler's. */
    rt_block_name
        *names;    /* [blocks_max + 1] the root, then of each full block whose tokens are known */
    int32_t *tail; /* [block_tokens] known tokens behind those */
    int32_t n_named, n_tail;
    void *owner;

    rt_seq_state state;
    int32_t slot;       /* -1 = none */
    bool opened;        /* the ranks know the slot */
    int32_t n_total;    /* prompt and sampled tokens, those of planned steps included */
    int32_t n_known;    /* prompt and tokens learned: what is missing to n_total is under way */
    int32_t n_computed; /* of them in the cache when all plans are executed */
    int32_t n_blocks;
    int32_t n_blocks_sent; /* of them known to the ranks */
    int32_t n_scheduled;   /* tokens in the plan that is being made */
    int32_t n_preempted;   /* times */
    int32_t n_offered;     /* blocks that the prefix cache has been told of */
    int32_t n_cached;      /* tokens of the prompt that were found there at first */
    rt_guess_record guesses;
    struct rt_seq *prev, *next;
} rt_seq;

/* What a plan does for one sequence. */
typedef struct rt_scheduled {
    rt_seq *seq;
    int32_t slot, n_new;
    int32_t n_draft; /* of the new tokens */
    bool sampled;    /* its last row yields a token; with a draft, 1 to 1 + n_draft tokens come */
    bool last;       /* nothing will be planned for the sequence after this */
} rt_scheduled;

/* Guesses how a sequence goes on: out [most].  The first n_ahead tokens behind the known ones are left out.  Returns the
 * number of tokens guessed. */
typedef int rt_draft_fn(const rt_seq *q, int32_t n_ahead, int most, int32_t *out);

typedef struct rt_sched rt_sched;

typedef struct rt_sched_options {
    int n_slots;
    int max_tokens; /* per step */
    int block_tokens;
    int32_t n_blocks;
    double watermark;            /* share of blocks */
    const rt_block_namer *namer; /* borrowed; NULL = no prefix cache */
    rt_draft_fn *draft;          /* NULL = no speculation */
    int draft_max;               /* tokens, at most RT_DRAFT_MAX */
    int draft_seqs_max;          /* no drafts while more sequences run; 0 = no limit */
} rt_sched_options;

TP_MUST_USE tp_status rt_sched_create(rt_sched **out, const rt_sched_options *o);
void rt_sched_destroy(rt_sched *s);

/* Queues a new sequence. */
void rt_sched_add(rt_sched *s, rt_seq *q);
/* The sequence is over: frees its blocks now and its slot with the next plan.  Any state but NEW. */
void rt_sched_finish(rt_sched *s, rt_seq *q);
/* A token that a sampled row of the sequence has yielded; in order.  Any state. */
void rt_sched_learn(rt_sched *s, rt_seq *q, int32_t token);

/* A step with a draft of this sequence is back, with so many tokens drawn; they have been learned. */
void rt_sched_settle(rt_sched *s, const rt_scheduled *p, int n_drawn);
/* A step is under way that must be settled before the next is planned. */
bool rt_sched_must_wait(const rt_sched *s);
/* What steps take, for drafts to be worth it. */
void rt_sched_time(rt_sched *s, int n_tokens, int64_t ns);

/* Fills a plan that rt_plan_begin() has started; returns the number of tokens in it.  Plans must be executed in the
 * order in which they were made. */
int rt_sched_plan(rt_sched *s, rt_plan_writer *w);
/* Whether a plan must be sent although it computes nothing (slots to close). */
bool rt_sched_has_closes(const rt_sched *s);
/* What the last plan does, in plan order; valid until the next. */
const rt_scheduled *rt_sched_scheduled(const rt_sched *s, int *n);

int rt_sched_running(const rt_sched *s);
int rt_sched_waiting(const rt_sched *s);
uint64_t rt_sched_preemptions(const rt_sched *s);
/* Tokens of prompts that were looked up in the prefix cache, and of them found. */
void rt_sched_prefix_counts(const rt_sched *s, uint64_t *queries, uint64_t *hits);
const rt_draft_counts *rt_sched_draft_counts(const rt_sched *s);
const rt_block_pool *rt_sched_pool(const rt_sched *s);
/* Aborts unless every invariant holds (tests, simulator): blocks owned + free = total, list lengths, slots. */
void rt_sched_check(const rt_sched *s);

#endif
