/* SPDX-License-Identifier: Apache-2.0 */
/* engine_impl.h - the engine's own state, shared by engine.c (start, what API threads call), engine_loop.c (threads,
 * steps) and engine_requests.c (the requests in progress).
 *
 * Locks: plan_lock is held for a round of the scheduler (engine_loop.c), and the others are taken inside it: inbox.lock
 * (submissions, cancellations, drain), stats_lock (published snapshot), pipe.lock, and each request's own.  Of these no
 * two are held together.  None is held in a kernel or a collective.
 */
#ifndef RT_ENGINE_IMPL_H
#define RT_ENGINE_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "runtime/engine.h"
#include "runtime/output.h"
#include "runtime/request.h"
#include "runtime/sched/pipe.h"
#include "runtime/sched/worker.h"
#include "runtime/startup.h"
#include "runtime/watchdog.h"

typedef struct rt_inbox {
    pthread_mutex_t lock;
    /* The scheduler: something came, or a step is done, or the executor failed. */
    pthread_cond_t wake;
    rt_request *head, *tail; /* submitted, in order */
    rt_request *cancelled;   /* stack */
    bool rung;               /* something else is to be done */
    bool draining;
    int64_t drain_deadline_ns;
} rt_inbox;

struct rt_engine {
    rt_engine_info info;
    rt_settled settled;
    rt_shard shard;
    kern_backend *be;      /* borrowed */
    comm_group *group;     /* owned */
    rt_model *model;       /* owned */
    kern_kv *kv;           /* owned */
    rt_worker *worker;     /* owned */
    rt_watchdog *watchdog; /* owned; NULL where nobody can hang: a single rank on a CPU */
    size_t plan_bytes_max;
    uint8_t *plan_buf; /* owned; ranks other than 0 */
    uint64_t issued;   /* number of the step issued last */
    /* rank 0 */
    rt_tokenizer *tokenizer; /* owned */
    rt_template *template_;  /* owned; NULL = none */
    bool prefix_caching;
    rt_block_namer namer; /* constant after start */
    rt_sched *sched;      /* owned */
    bool overlapped;      /* a thread of its own plans ahead */
    rt_pipe pipe;
    atomic_int failed; /* tp_status of the step that could not be executed */
    /* What follows, the scheduler, and the pipe's end where steps are planned. */
    pthread_mutex_t plan_lock;
    rt_plan_writer writer;
    rt_plan_writer order; /* the engine thread's: RT_PLAN_COLLECT */
    rt_output output;
    rt_stats stats;
    rt_request *open; /* list of requests in progress */
    uint64_t step;    /* plans made */
    bool draining;    /* as the inbox said last */
    int64_t drain_deadline_ns;
    bool stopped; /* the last plan is made */
    /* rank 0, shared with API threads */
    rt_inbox inbox;
    atomic_int state;           /* rt_engine_state */
    atomic_int n_open;          /* requests submitted and not over */
    atomic_llong queued_tokens; /* prompt tokens of open requests */
    pthread_mutex_t stats_lock;
    rt_stats published; /* under stats_lock */
};

void rt_engine_set_state(rt_engine *e, rt_engine_state s);
/* No step will be executed any more: for the lifeline when a rank is lost, and for the watchdog. */
void rt_engine_give_up(void *engine);

/* ---- engine_requests.c: under the plan lock, but the first ---- */
/* Tokens, those of the prompt included, with which a choice ends at the latest. */
int32_t rt_engine_longest(const rt_settled *s, const rt_request_desc *d);
/* How a choice may go on (rt_draft_fn). */
int rt_engine_draft(const rt_seq *q, int32_t n_ahead, int most, int32_t *out);
/* A request from the inbox becomes sequences. */
void rt_engine_accept(rt_engine *e, rt_request *r);
/* Ends what is left of a request, whose memory may then be gone. */
void rt_engine_finish_all(rt_engine *e, rt_request *r, rt_finish how, const char *code);
/* An entry of the inbox's list of cancelled requests; takes its reference. */
void rt_engine_cancelled(rt_engine *e, rt_request *r);
/* Before a plan: holds back requests whose reader lets the outbox fill, and cuts off those that stay behind. */
void rt_engine_check_readers(rt_engine *e);
/* A step that is about to go under way keeps its requests, and room in their outboxes, until it is delivered or
 * forgotten. */
void rt_engine_name_in_step(rt_engine *e, const rt_step *s);
void rt_engine_forget_step(const rt_step *s);
/* Turns the results of a step into events and endings. */
void rt_engine_deliver(rt_engine *e, const rt_step *s);

#endif
