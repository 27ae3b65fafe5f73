/* SPDX-License-Identifier: Apache-2.0 */
/* allreduce_checks.h - what sums over emulated devices must do; called by all ranks (threads or processes) together.
 *
 * They return NULL or a text that says what was wrong.  Expected sums are made here, in rank order.
 */
#ifndef TP_TESTS_ALLREDUCE_CHECKS_H
#define TP_TESTS_ALLREDUCE_CHECKS_H

#include "comm/p2p/p2p_reducer.h"

typedef struct sum_rank {
    comm_group *g;
    kern_dev *dev;
    kern_stream stream;
    comm_device d;
    comm_reducer *r;    /* p2p; NULL until sum_rank_open() has made it */
    float *in, *out;    /* device, [SUM_COUNT_MAX] */
    float *host, *want; /* [SUM_COUNT_MAX] */
} sum_rank;

#define SUM_COUNT_MAX 300000
#define SUM_WINDOW    (SUM_COUNT_MAX * sizeof(float))

/* A device, a stream and, with p2p, a reducer for this rank of g, whose window is SUM_WINDOW. */
const char *sum_rank_open(sum_rank *s, comm_group *g, bool p2p, int64_t timeout_ms);
void sum_rank_close(sum_rank *s);

/* n sums of random sizes by random ways, several queued before the device is waited for. */
const char *check_sums(sum_rank *s, int n, uint32_t seed, int64_t count_max);
/* A recorded graph with an odd number of sums, replayed between sums of other sizes. */
const char *check_graph(sum_rank *s, int n_launches);
/* n gathers of random sizes between sums, the last few recorded in a graph. */
const char *check_gathers(sum_rank *s, int n, uint32_t seed, int64_t count_max);
/* Sum, residual and RMSNorm in one kernel, against double precision. */
const char *check_norm(sum_rank *s, int m, int dim, kern_dtype out_dtype);
/* The last rank stays away: the others give up at the deadline and name it, and what is queued behind drains. */
const char *check_late(sum_rank *s, int64_t timeout_ms);
/* No deadline, and the last rank stays away: a thread of rank 0 asks for the end, which all hear. */
const char *check_abort(sum_rank *s);
/* comm_attach_device() with the module's list, comm_reduce() and comm_device_poll(). */
const char *check_attached(sum_rank *s, const char *want);

#endif
