/* SPDX-License-Identifier: Apache-2.0 */
/* group.h - inside comm: what a kind of group implements, and the pieces that kinds share.
 *
 * comm_group is the first member of each kind's own struct.  group.c checks arguments once and keeps the "dead"
 * mark, so a kind sees only valid calls on a living group.  A kind describes its failures with TP_FAIL; group.c
 * marks the group dead when one comes back.
 */
#ifndef COMM_GROUP_H
#define COMM_GROUP_H

#include "comm/comm.h"
#include "comm/join.h"

#define COMM_ALIGN     64 /* windows and slices: one cache line, 16 floats */
#define COMM_CTL_SLOTS 4  /* control messages under way before the sender waits */
#define COMM_RANKS_MAX TP_SEG_MAX
#define COMM_TWO_SHOT  (32 * 1024) /* bytes of one root from which each rank finishes only a slice */

typedef struct comm_ops {
    const char *name;
    void (*destroy)(comm_group *g);
    float *(*window)(comm_group *g);
    tp_status (*reduce)(comm_group *g, const comm_reduce_args *a, const comm_join *join);
    tp_status (*allgather)(comm_group *g, const void *send, void *recv, size_t bytes);
    tp_status (*broadcast)(comm_group *g, void *buf, size_t bytes, int root);
    tp_status (*barrier)(comm_group *g);
    tp_status (*ctl_send)(comm_group *g, const void *msg, size_t bytes);
    /* A message longer than cap stays where it is: TP_ERR_LIMIT.  Nothing came in time: TP_ERR_TIMEOUT. */
    tp_status (*ctl_recv)(comm_group *g, void *msg, size_t cap, size_t *bytes, int64_t timeout_ms);
    void (*request_abort)(comm_group *g); /* any thread */
    bool (*aborted)(const comm_group *g); /* any thread */
    bool (*give_up)(comm_group *g); /* the same for the engine thread, which passes an abort on */
    /* comm_abort() came: true for the group's first caller, as far as the kind can tell.  Others get the first one's
     * exit code, so that the job ends with the code of the cause and not of a consequence. */
    bool (*first_to_say)(comm_group *g, int *exit_code);
    bool says_once; /* first_to_say() is true on one rank only, whichever asks first */
} comm_ops;

struct comm_device_side; /* comm/device/side.h */

struct comm_group {
    const comm_ops *ops;
    int rank, size;
    size_t window_bytes;
    size_t plan_bytes_max;
    int64_t timeout_ms;
    int64_t n_calls;   /* data-path calls so far: the sequence number in messages */
    bool dead;         /* a wait failed here; nothing may follow but comm_abort and destroy */
    comm_join join[7]; /* by log2(n_seg); n_seg == 0: not yet made */
    struct comm_device_side
        *device; /* owned; sums happen there: comm/device.h.  NULL: on the host */
};

/* Constructors of the kinds.  All are given checked options. */
tp_status comm_self_create(comm_group **out, const comm_options *opt);
tp_status comm_shm_create(comm_group **out, const comm_world *world, const comm_options *opt);
tp_status comm_shm_create_threads(comm_group **groups, int n, const comm_options *opt);
tp_status comm_mpi_create(comm_group **out, const comm_world *world, const comm_options *opt);

/* Fills the fields that all kinds have. */
void comm_group_init(comm_group *g, const comm_ops *ops, int rank, int size,
                     const comm_options *opt);

/* After a call on the data path: a failed wait is the end of the group, here and for the peers. */
tp_status comm_group_end(comm_group *g, tp_status st);

/* For the lifeline: every group of this process gives up its waits, the ones to come as well; any thread. */
void comm_give_up_all(void);
/* The reason for the end is known, and comm_abort() need not log it.  True: the caller is to.  Ranks that share memory
 * let the first of them speak; else `otherwise` decides. */
bool comm_may_say(bool otherwise);
/* Tells rank 0 why this rank ends the job, before the process ends; life.c. */
void comm_life_fail(int code, const char *why);
/* A rank has ended and all others know: each leaves by itself, nobody has to be killed. */
bool comm_life_all_leave(void);

/* Slice of [0, count) that `rank` finishes in a two-shot reduce: whole cache lines, as equal as possible. */
void comm_slice(int64_t count, int size, int rank, int64_t *begin, int64_t *end);

#endif
