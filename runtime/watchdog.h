/* SPDX-License-Identifier: Apache-2.0 */
/* watchdog.h - notices a step that does not end: a kernel that hangs, a sum that waits for a rank that is gone.
 *
 * The engine thread cannot: it is the one that waits.  So a thread of its own looks at a clock that the engine thread
 * winds up before each step.  When time is over it says so, lets the group's waits return, and ends the job itself if
 * the engine thread is still stuck a moment later; a wrong token is never the answer.
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
    int64_t timeout_ms; /* of one step */
    void (*on_late)(
        void *owner); /* called by the watchdog's thread, before the group is given up */
    void *owner;
} rt_watchdog_options;

#define RT_EXIT_STUCK 75 /* what the job ends with when the engine thread does not come back */

TP_MUST_USE tp_status rt_watchdog_start(rt_watchdog **out, const rt_watchdog_options *o);
void rt_watchdog_stop(rt_watchdog *w); /* NULL is fine */

/* Around each step; NULL is fine.  Two stores. */
void rt_watchdog_begin(rt_watchdog *w, uint64_t step);
void rt_watchdog_end(rt_watchdog *w);

#endif
