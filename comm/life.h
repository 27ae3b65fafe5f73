/* SPDX-License-Identifier: Apache-2.0 */
/* life.h - the lifeline: who of the ranks is there, who is gone, who stands still.
 *
 * MPI notices neither a dead nor a stopped peer, so every rank keeps a connection of its own to rank 0, served by a
 * thread that never calls MPI.  When a rank dies the kernel closes its connection, which is seen within
 * milliseconds; beats over the same connection show a rank that is stopped or cut off.  Beats come from that thread,
 * so a rank is never silent because its engine is in a long step.  They say how far the engine has come, by which the
 * one who judges steps (runtime/watchdog.h) tells who is behind.
 *
 * The first loss is the only one: it is logged once, every group's waits return TP_ERR_COMM, the owner's callback runs,
 * rank 0 tells the others, and a process that is still there LEAVE_MS later ends with COMM_EXIT_LOST.
 *
 * One lifeline per process.  Threads: start and stop by the main thread; the rest by any.  Without a lifeline (one rank,
 * or not started) all calls are harmless.
 */
#ifndef COMM_LIFE_H
#define COMM_LIFE_H

#include <stdint.h>

#include "comm/comm.h"

#define COMM_EXIT_LOST   70 /* a rank was lost */
#define COMM_EXIT_ABSENT 71 /* a rank did not arrive at start */

/* Before comm_init(): from now on an alarm runs that names the ranks that are missing on this host, and ends the
 * process with COMM_EXIT_ABSENT, when comm_life_start() is not reached in time.  Nothing without a launcher. */
TP_MUST_USE tp_status comm_arrive(int64_t timeout_ms);

typedef struct comm_life_options {
    int64_t silence_ms; /* a rank that was not heard of for so long is lost */
    int64_t join_ms;    /* for all to join, from comm_arrive() on */
} comm_life_options;

/* Collective: connects all ranks.  TIMEOUT names those that did not come; nothing may follow but comm_abort(). */
TP_MUST_USE tp_status comm_life_start(const comm_world *world, const comm_life_options *opt);
/* Takes leave: the peers do not take the end of the connection for a death.  They are watched until stop.
 * comm_finalize() calls both. */
void comm_life_bye(void);
void comm_life_stop(void);

/* ---- what the engine tells ---- */
/* A step begins; its number. */
void comm_life_begin(uint64_t step);
void comm_life_end(void);

/* ---- what is known ---- */
typedef struct comm_life_view {
    uint64_t step; /* the last one begun */
    bool in_step;
    uint64_t done;  /* pulses since it began */
    uint64_t stirs; /* signs of life, ever */
} comm_life_view;

/* Of any rank, the own one included.  False: there is no lifeline. */
bool comm_life_look(int rank, comm_life_view *out);
/* "rank 2 (pid 4711) on n1", for messages. */
void comm_life_name(int rank, char *text, size_t cap);

/* Called once, by the lifeline's thread, when a rank is lost, before the groups are given up; at once when one already
 * is.  NULL takes the callback back: it is not running any more when this returns. */
void comm_life_on_loss(void (*fn)(void *owner), void *owner);
/* Has a rank been lost?  *why (may be NULL) then says it, for good. */
bool comm_life_lost(const char **why);
/* The caller has found out that the job cannot go on: treated as the loss of `rank` (-1: nobody in particular).  The
 * text is logged unless another loss came first. */
void comm_life_declare(int rank, const char *why);
/* The launcher has begun to end the job: a rank that was not heard of for some beats is lost now.  Waits for that verdict,
 * a fraction of a second at most. */
void comm_life_hurry(void);
/* Before this rank leaves because its group was given up.  Waits for the lifeline to know why, at most verdict_ms; ranks
 * other than 0 then wait until rank 0 has left, which tells its clients first, at most leader_ms; where the network may
 * be cut, all give the launcher time to notice. */
void comm_life_linger(int64_t verdict_ms, int64_t leader_ms);

#endif
