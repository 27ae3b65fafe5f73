/* SPDX-License-Identifier: Apache-2.0 */
/* sim.h - one episode of the simulator: real scheduler, plan writer, pipe and block pool between two things that are made
 * up, clients with their requests and ranks with their caches.  README.md is the guide.
 *
 *   sim_world.c   what an episode is like: sizes, clients, what their texts will be
 *   sim_engine.c  the virtual clock, and the engine's part: requests, rounds, results, endings
 *   sim_ranks.c   what ranks do with the bytes of a plan; a key in the cache stands for the whole text up to its token
 *   sim_audit.c   what a plan must be like, from outside of the scheduler
 *   sim_cache.c   what must be found in the prefix cache, and what may be thrown out of it
 *
 * Everything follows from the seed: no clock, no address, no other source of chance decides anything.  One thread.
 */
#ifndef SIM_H
#define SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/sched/pipe.h"
#include "runtime/sched/sched.h"

#define SIM_SLOTS_MAX    32
#define SIM_BLOCKS_MAX   256
#define SIM_BLOCK_TOKENS 16 /* most */
#define SIM_TEXT_MAX     384
#define SIM_CHOICES_MAX  6
#define SIM_OPEN_MAX     80 /* requests */
#define SIM_LIVE_MAX     (SIM_OPEN_MAX * SIM_CHOICES_MAX)
#define SIM_PAST_MAX     8 /* texts of requests that have ended */
#define SIM_NEVER        INT64_MAX

/* What may happen, counted; a long run must have seen each of these. */
#define SIM_COUNTERS(X)                                                                            \
    X(plans, "plans")                                                                              \
    X(tokens, "tokens computed")                                                                   \
    X(requests, "requests")                                                                        \
    X(choices, "choices")                                                                          \
    X(refused, "requests refused: queue full")                                                     \
    X(ended_eos, "choices ended by a token")                                                       \
    X(ended_length, "choices ended by length")                                                     \
    X(ended_prefill, "prompts computed only")                                                      \
    X(prompt_rows, "rows of prompts")                                                              \
    X(cancelled_waiting, "cancelled before they began")                                            \
    X(cancelled_prefill, "cancelled in the prompt")                                                \
    X(cancelled_decode, "cancelled in the answer")                                                 \
    X(cancelled_preempted, "cancelled while preempted")                                            \
    X(cancelled_planned, "cancelled with the last row planned")                                    \
    X(cut_off, "requests of slow readers cut off")                                                 \
    X(paused, "plans with a paused sequence")                                                      \
    X(shut_down, "requests ended by a drain")                                                      \
    X(ranks_lost, "episodes ended by a lost rank")                                                 \
    X(admissions, "admissions")                                                                    \
    X(preemptions, "preemptions")                                                                  \
    X(forks_shared, "forks that share blocks")                                                     \
    X(cached_admissions, "admissions behind blocks of the prefix cache")                           \
    X(cached_again, "of them after a preemption")                                                  \
    X(cached_answers, "of them behind tokens that were drawn")                                     \
    X(cached_tokens, "tokens found in the prefix cache")                                           \
    X(evictions, "blocks thrown out of it")                                                        \
    X(copies, "blocks copied")                                                                     \
    X(rows_wasted, "parts of steps computed for nothing")                                          \
    X(drafts, "drafts")                                                                            \
    X(drafts_true, "drafts that came true as a whole")                                             \
    X(drafts_false, "drafts of which nothing came true")                                           \
    X(draft_tokens_true, "tokens of drafts that came true")                                        \
    X(drafts_ahead, "drafts behind a token under way")                                             \
    X(drafts_over_the_end, "drafts in which a text ended")                                         \
    X(waits, "plans that waited for drafts")                                                       \
    X(slots_unopened, "plans with a slot held that is not open yet")                               \
    X(plans_full, "plans without room for more")                                                   \
    X(cache_full, "plans that leave no block free")                                                \
    X(two_under_way, "plans made while a step was under way")

typedef struct sim_totals {
#define X(name, text) int64_t name;
    SIM_COUNTERS(X)
#undef X
} sim_totals;

/* What an episode is like. */
typedef struct sim_config {
    rt_sched_options sched;
    int32_t len_max;      /* of a text: prompt and answer */
    int32_t prompt_max;   /* of most prompts */
    int32_t answer_max;   /* of most answers */
    int pipe_steps;       /* 1 = a step is planned when the one before is done */
    size_t plan_bytes;    /* of the writer */
    uint32_t list_cap;    /* of the writer */
    bool caching;         /* prefixes */
    bool ample;           /* plan_bytes and list_cap never matter */
    int queue_max;        /* requests beyond the slots */
    int64_t arrive_every; /* mean, us */
    int burst_max;
    int eos_every; /* one token of so many ends its text; 0 = none does */
    int percent_fork, percent_prefill, percent_rows, percent_cancel, percent_stall, percent_known;
    int n_salts;
    int percent_true;    /* tokens of drafts, that are */
    int percent_late;    /* results that the scheduler is late to look at */
    int64_t cut_after;   /* us that a reader may stand still */
    int64_t n_plans;     /* then no more requests come */
    int64_t drain_after; /* then the open requests are ended; us, SIM_NEVER = they may run */
    int64_t lost_at;     /* the plan that ranks fail to execute; SIM_NEVER = none */
} sim_config;

typedef struct sim_request sim_request;

/* The scheduler's view of a sequence before a plan. */
typedef struct sim_before {
    int64_t look; /* when */
    rt_seq_state state;
    int32_t n_total, n_computed, n_blocks, n_new_max, lp_start, slot;
    bool waits_for_parent;
    bool scheduled;     /* it is in the plan, */
    int32_t start, end; /* which computes these positions, */
    int32_t n_draft;    /* and behind them a draft */
} sim_before;

typedef struct sim_choice {
    rt_seq seq;
    sim_request *request;
    int index;
    /* The oracle: the text as it must come, and the key of each position (all tokens up to it, and the salt). */
    int32_t *text;    /* [n_total_max] */
    uint64_t *keys;   /* [n_total_max] */
    int32_t ends_at;  /* tokens in the text when it ends, by itself or by length */
    int32_t n_seen;   /* tokens that the client has seen, prompt included */
    int32_t next_row; /* position of the prompt token whose row comes next */
    bool finished;
    /* audit */
    int64_t queue_key; /* order among those that wait */
    int64_t admit_no;  /* order among those that run */
    int64_t patience;  /* plans that may pass, with nobody paused, until it gets a token */
    int32_t *table;    /* what the plans have told the ranks */
    int32_t n_table;
    int32_t n_offered; /* blocks that others can find */

    sim_before before;
} sim_choice;

struct sim_request {
    int64_t id;
    uint64_t salt, seed; /* equal prompt, salt and seed: equal text */
    int n, n_open, n_under_way;
    bool prompt_rows;
    int64_t cancel_at;
    /* The reader and its box, in records. */
    int32_t box, used, promised;
    int64_t read_at, read_every, stall_from, stall_to, starved_at;
    int percent_true; /* of its drafts */
    int at;           /* index in the list of open requests */
    sim_choice choices[SIM_CHOICES_MAX];
};

/* What lies in one place of the cache: the key, and who wrote it when. */
typedef struct sim_cell {
    uint64_t key;
    uint64_t step;   /* + 1; 0 = nobody has */
    uint64_t writer; /* seed of the slot */
} sim_cell;

typedef struct sim_slot {
    bool open;
    uint64_t seed, salt;
    int32_t n_prompt, n_history, n_table, n_rows_wanted;
    int32_t history[SIM_TEXT_MAX + 1];
    uint64_t keys[SIM_TEXT_MAX + 1]; /* of the history */
    int32_t table[SIM_TEXT_MAX + 1];
    int32_t n_draft; /* behind the history, in this step */
    uint64_t step;   /* in which it was computed last */
} sim_slot;

typedef struct sim_ranks {
    uint64_t step;
    bool stopped;
    sim_slot slots[SIM_SLOTS_MAX];
    sim_cell cells[SIM_BLOCKS_MAX * SIM_BLOCK_TOKENS];
} sim_ranks;

typedef struct sim_past {
    uint64_t salt;
    int32_t n;
    int32_t text[SIM_TEXT_MAX];
} sim_past;

/* Who holds a block, in the audit of one plan. */
typedef struct sim_holder {
    const sim_choice *choice; /* the first */
    int32_t index;            /* in its table */
    int n;
    int64_t plan;
} sim_holder;

/* A block as the prefix cache should know it. */
typedef struct sim_shadow {
    uint64_t key; /* of its last token; 0 = not all of it is computed */
    bool drawn;   /* that token came from a rank */
    bool kept, idle;
    bool taken;         /* from the pool, by the newest plan */
    int64_t idle_since; /* number of the look at which it was idle at first */
    int64_t holder;     /* the only one who had it last, 0 = there were several; and where */
    int32_t holder_index;
} sim_shadow;

typedef struct sim {
    uint64_t seed, rng;
    sim_config cfg;
    bool verbose;
    sim_totals totals; /* of all episodes */
    /* the system under test */
    rt_sched *sched;
    rt_block_namer namer;
    rt_plan_writer writer;
    rt_pipe pipe;
    /* the virtual clock, in us */
    int64_t now, next_arrival, wake_at, step_ends_at, drain_at;
    bool executing, draining, lost, stopped;
    int64_t n_plans; /* of this episode */
    /* clients */
    int64_t next_id;
    sim_request *open[SIM_OPEN_MAX];
    int n_open;
    int n_held; /* requests whose memory is still there */
    int32_t documents[4][SIM_TEXT_MAX];
    sim_past past[SIM_PAST_MAX];
    int64_t n_past;
    /* audit */
    sim_choice *live[SIM_LIVE_MAX];
    int n_live;
    int64_t last_queue_key, first_queue_key, last_admit_no;
    int32_t free_before;
    sim_holder holders[SIM_BLOCKS_MAX];
    sim_shadow shadow[SIM_BLOCKS_MAX];
    int32_t idle_before; /* of free_before */
    int64_t n_looks;
    uint64_t cache_queries, cache_hits;
    sim_ranks ranks;
} sim;

/* ---- sim_main.c ---- */
/* Ends the program: prints what is wrong, the state, and how to see it again. */
void sim_fail(const sim *m, const char *fmt, ...) __attribute__((format(printf, 2, 3), noreturn));
void sim_note(const sim *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#define SIM_CHECK(m, ok, ...)                                                                      \
    do {                                                                                           \
        if (__builtin_expect(!(ok), 0))                                                            \
            sim_fail(m, __VA_ARGS__);                                                              \
    } while (0)

/* ---- sim_world.c ---- */
uint64_t sim_mix(uint64_t x);
uint32_t sim_below(sim *m, uint32_t n); /* 0 .. n - 1 */
bool sim_percent(sim *m, int p);
void sim_configure(sim *m);
sim_request *sim_make_request(sim *m);
void sim_free_request(sim *m, sim_request *r);
void sim_remember_text(sim *m, const sim_choice *c);
/* How every text goes on: by its key and the seed of who draws. */
uint64_t sim_first_key(uint64_t salt);
uint64_t sim_next_key(uint64_t key, int32_t token);
int32_t sim_draw(uint64_t key, uint64_t seed);
/* rt_draft_fn: what a text will be, with mistakes. */
int sim_draft(const rt_seq *q, int32_t n_ahead, int most, int32_t *out);
bool sim_ends_text(const sim_config *cfg, int32_t token);

/* ---- sim_engine.c ---- */
void sim_run_episode(sim *m);

/* ---- sim_ranks.c ---- */
void sim_ranks_execute(sim *m, rt_step *s);

/* ---- sim_audit.c ---- */
void sim_audit_added(sim *m, sim_choice *c);
void sim_audit_before(sim *m);
/* After rt_sched_plan(); plan NULL: there was nothing to send. */
void sim_audit_plan(sim *m, int n_tokens, const uint8_t *plan, size_t bytes);
void sim_audit_blocks(sim *m); /* owned + free = total, when nothing has just been planned */

/* ---- sim_cache.c ---- */
void sim_cache_look(sim *m); /* at what is kept and idle; before a plan and after it */
void sim_cache_check_plan(sim *m, int n_preempted);
void sim_cache_check_offers(sim *m);
void sim_cache_check_counts(sim *m);
/* One more token of the plan's draft for c came true: it is computed. */
void sim_cache_came_true(sim *m, sim_choice *c);

#endif
