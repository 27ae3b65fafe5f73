/* SPDX-License-Identifier: Apache-2.0 */
/* worker.h - executes step plans on one rank; the same code on all ranks, rank 0 included.
 *
 * A slot is a sequence as the ranks know it: its tokens (prompt and everything sampled since), its block table and how
 * it samples; they lie in the backend's memory.  Slots open and close by plan only, so they are equal on every rank.
 * Threads: engine thread.  No allocation after create.
 */
#ifndef RT_WORKER_H
#define RT_WORKER_H

#include <stdint.h>

#include "base/status.h"
#include "comm/comm.h"
#include "kernels/kern.h"
#include "runtime/engine.h"
#include "runtime/model/model.h"
#include "runtime/sched/plan.h"

typedef struct rt_worker rt_worker;

#define RT_CAPTURE_MAX  32 /* sizes of decode steps that get a graph */
#define RT_WORKER_STEPS 2  /* under way at most */

typedef struct rt_worker_options {
    int n_slots;
    int64_t max_model_len;
    int max_tokens; /* per step */
    int block_tokens;
    int32_t n_blocks;
    bool ahead;                  /* a step may be issued before the one before is collected */
    int draft_max;               /* tokens of a sequence's draft; 0: there are none */
    int n_capture;               /* 0: no graphs */
    int capture[RT_CAPTURE_MAX]; /* numbers of sequences, ascending; at most n_slots */
} rt_worker_options;

/* One row that was sampled or looked up; in plan order, a sequence's prompt rows before its sampled ones.  Of the rows of
 * a draft only those that count. */
typedef struct rt_step_result {
    int32_t slot;
    bool is_prompt; /* the logprob of prompt token `token`; else a sampled token */
    int32_t token;  /* -1: the logits were not finite */
    float logprob;
    int n_top;
    rt_logprob top[RT_LOGPROBS_MAX];
} rt_step_result;

/* What create takes: of the backend's memory, and of the host's beside it. */
int64_t rt_worker_bytes(const rt_worker_options *o);
int64_t rt_worker_host_bytes(const rt_worker_options *o);
/* Not collective.  Borrows everything it is given. */
TP_MUST_USE tp_status rt_worker_create(rt_worker **out, const rt_worker_options *o,
                                       const rt_config *c, const rt_shard *s, rt_model *m,
                                       kern_backend *be, kern_kv *kv, comm_group *g);
void rt_worker_destroy(rt_worker *w);
/* Records decode steps, where the backend has graphs.  Collective, before the first plan. */
TP_MUST_USE tp_status rt_worker_capture(rt_worker *w);

/* A step is executed in two halves.  issue: hands a plan to the backend; on CPU that is the forward pass itself.
 * collect: waits for the oldest step under way and samples what its device has not drawn.  has_room: another step may be
 * issued before a step is collected; the answer is the same on all ranks that have issued and collected the same.
 * A plan's bytes must stay until there is room again.  *stop: it was the last. */
bool rt_worker_has_room(const rt_worker *w);
int rt_worker_under_way(const rt_worker *w);
TP_MUST_USE tp_status rt_worker_issue(rt_worker *w, const void *plan, size_t bytes, bool *stop);
TP_MUST_USE tp_status rt_worker_collect(rt_worker *w);
/* Of the step collected last; valid until the next is. */
const rt_step_result *rt_worker_results(const rt_worker *w, int *n);

#endif
