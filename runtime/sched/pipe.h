/* SPDX-License-Identifier: Apache-2.0 */
/* pipe.h - steps on their way from the thread that plans to the thread that executes, and back with their results.
 *
 * A ring of two: while one step runs, the next one waits for it, and there is none beyond, so that a new request never
 * stands behind more than one step that was planned without it.  A step belongs to one side at a time:
 *   scheduler   room -> (fill) -> push                       done -> (read results) -> pop
 *   executor                        next -> (execute) -> finish            several may be taken before the first is
 *                                                                          finished; they are, in their order
 * The scheduler's side is for whoever holds the engine's plan lock, the executor too.  Waking the scheduler after
 * finish() is the caller's part: it sleeps for other things as well.
 */
#ifndef RT_PIPE_H
#define RT_PIPE_H

#include <pthread.h>
#include <stdatomic.h>

#include "runtime/sched/sched.h"
#include "runtime/sched/worker.h"

#define RT_PIPE_STEPS 2

typedef struct rt_step {
    uint8_t *plan; /* owned; [plan_bytes_max] */
    size_t plan_bytes;
    int n_tokens;
    rt_scheduled *
        seqs; /* owned; [n_slots] what the plan does, as it was when the plan was made: slots close and open
                         * again before the results are back */
    int n_seqs;
    rt_step_result *results; /* owned; [results_max] */
    int n_results;
    bool ahead;           /* issued before the step before it was collected */
    int64_t begun_ns, ns; /* when it was issued; how long it took */
} rt_step;

typedef struct rt_pipe {
    rt_step steps[RT_PIPE_STEPS];
    int n_steps; /* of them in use: 1 or RT_PIPE_STEPS */
    size_t plan_bytes_max;
    int results_max;
    pthread_mutex_t lock;
    pthread_cond_t work;
    bool closed;              /* under lock */
    uint64_t n_pushed;        /* written by the scheduler under lock */
    atomic_ullong n_finished; /* written by the executor */
    uint64_t n_popped;        /* scheduler */
    uint64_t n_taken;         /* executor */
} rt_pipe;

/* p is zeroed.  n_steps 1: a step is planned only when the one before is done. */
TP_MUST_USE tp_status rt_pipe_init(rt_pipe *p, int n_steps, size_t plan_bytes_max, int n_slots,
                                   int results_max);
void rt_pipe_release(rt_pipe *p); /* copes with one that init has not seen, or left half-built */

/* ---- scheduler: under the plan lock ---- */
/* The step to fill; NULL while all are under way. */
rt_step *rt_pipe_room(rt_pipe *p);
void rt_pipe_push(rt_pipe *p);
/* The oldest step under way, when it has been executed; else NULL. */
const rt_step *rt_pipe_done(const rt_pipe *p);
/* Pushed and not popped; there must be one for the next two calls. */
int rt_pipe_under_way(const rt_pipe *p);
const rt_step *rt_pipe_oldest(const rt_pipe *p);
void rt_pipe_pop(rt_pipe *p); /* the oldest, which is done, or never will be after a failure */

/* ---- executor ---- */
/* Takes the next step to execute.  When there is none: sleeps until there is, or yields NULL unless told to wait.  NULL,
 * too, once the pipe is closed. */
rt_step *rt_pipe_next(rt_pipe *p, bool wait);
/* No step will be executed any more: ends the executor's sleep.  Any thread. */
void rt_pipe_close(rt_pipe *p);
/* The oldest that was taken and is not finished; there must be one. */
rt_step *rt_pipe_taken(rt_pipe *p);
/* It has its results. */
void rt_pipe_finish(rt_pipe *p);

#endif
