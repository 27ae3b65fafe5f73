/* SPDX-License-Identifier: Apache-2.0 */
/* engine_impl.h - the engine's own state, shared by engine.c (start, what API threads call) and engine_loop.c.
 *
 * Locks: inbox.lock (submissions, cancellations, drain), stats_lock (published snapshot), and each request's own; no
 * two are held together, and none is held in a kernel or a collective.
 */
#ifndef RT_ENGINE_IMPL_H
#define RT_ENGINE_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "runtime/engine.h"
#include "runtime/output.h"
#include "runtime/request.h"
#include "runtime/sched/worker.h"
#include "runtime/startup.h"

typedef struct rt_inbox {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    rt_request *head, *tail; /* submitted, in order */
    rt_request *cancelled;   /* stack */
    bool draining;
    int64_t drain_deadline_ns;
} rt_inbox;

struct rt_engine {
    rt_engine_info info;
    rt_settled settled;
    rt_shard shard;
    kern_backend *be;  /* borrowed */
    comm_group *group; /* owned */
    rt_model *model;   /* owned */
    kern_kv *kv;       /* owned */
    rt_worker *worker; /* owned */
    size_t plan_bytes_max;
    uint8_t *plan_buf; /* owned; ranks other than 0 */
    /* rank 0 */
    rt_tokenizer *tokenizer; /* owned */
    rt_template *template_;  /* owned; NULL = none */
    rt_sched *sched;         /* owned */
    rt_plan_writer writer;
    rt_output output;
    rt_stats stats;   /* engine thread */
    rt_request *open; /* engine thread: list of requests in progress */
    uint64_t step;
    rt_inbox inbox;
    atomic_int state;           /* rt_engine_state */
    atomic_int n_open;          /* requests submitted and not over */
    atomic_llong queued_tokens; /* prompt tokens of open requests */
    pthread_mutex_t stats_lock;
    rt_stats published; /* under stats_lock */
};

void rt_engine_set_state(rt_engine *e, rt_engine_state s);

#endif
