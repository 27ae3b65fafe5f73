/* SPDX-License-Identifier: Apache-2.0 */
/* team.h - the threads that share the work of one operation.
 *
 * A backend has one team for as long as it is open.  Work is a row of numbered items; whoever is free takes the next
 * few, and the calling thread is one of the team.  A thread that is late (asleep, or its core is taken by something
 * else) is not waited for: the others do all the work, and the operation ends when those who came have finished.
 *
 * Threads: any; one operation at a time has the team, a second caller meanwhile works alone.
 */
#ifndef KERN_CPU_TEAM_H
#define KERN_CPU_TEAM_H

#include <stdint.h>

#include "base/status.h"

typedef struct kern_team kern_team;

/* Items [begin, end); `thread` is below the team's size, and no two threads of one run share it. */
typedef void kern_team_fn(const void *args, int64_t begin, int64_t end, int thread);

typedef struct kern_team_work {
    kern_team_fn *run;
    const void *args;
    int64_t n;    /* items */
    int64_t step; /* taken at once, at least; the last ones may be fewer */
    int64_t most; /* and at most, where some take longer than others; 0: no limit */
    void (*begin)(void), (*end)(void); /* or NULL: around all that one thread does */
} kern_team_work;

TP_MUST_USE tp_status kern_team_create(kern_team **out, int n_threads);
void kern_team_destroy(kern_team *t); /* NULL is fine */
int kern_team_size(const kern_team *t);
/* Returns when all items are done.  alone: the calling thread does them all (as thread 0). */
void kern_team_run(kern_team *t, const kern_team_work *w, bool alone);

#endif
