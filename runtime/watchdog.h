/* SPDX-License-Identifier: Apache-2.0 */
/* watchdog.h - notices a step in which nothing goes on any more: a kernel that hangs, a rank that loops.
 *
 * Ranks that die, stop or are cut off are the lifeline's business (comm/life.h); those that hang still beat.  How long a
 * step may take nobody knows: a chunk of prefill on a slow CPU takes minutes.  But while it goes on, signs of it come
 * (base/pulse.h): two pulses per layer, and on a CPU one per block of a long operation.  So a step is late when for the
 * timeout neither this rank nor, as far as their beats tell, any other has got anything done.
 *
 * Rank 0 judges for all, and names the rank that has done least since the step began; a single rank with a device judges
 * itself.  It says so, calls on_late, lets the group's waits return, and ends the job itself if the engine thread is
 * still stuck a moment later; a wrong token is never the answer.
 * Threads: begin and end by the engine thread; the rest by the one that owns it.
 */
#ifndef RT_WATCHDOG_H
#define RT_WATCHDOG_H

#include <stdint.h>

#include "base/status.h"
#include "comm/comm.h"

typedef struct rt_watchdog rt_watchdog;

typedef struct rt_watchdog_options {
    comm_group *group;  /* borrowed */
    int64_t timeout_ms; /* without any progress in a step */
    void (*on_late)(
        void *owner); /* called by the watchdog's thread, before the group is given up */
    void *owner;
} rt_watchdog_options;

#define RT_EXIT_STUCK 75 /* what the job ends with when the engine thread does not come back */

TP_MUST_USE tp_status rt_watchdog_start(rt_watchdog **out, const rt_watchdog_options *o);
void rt_watchdog_stop(rt_watchdog *w); /* NULL is fine */

/* Around each step; NULL is fine.  A few stores. */
void rt_watchdog_begin(rt_watchdog *w, uint64_t step);
void rt_watchdog_end(rt_watchdog *w);

#endif
