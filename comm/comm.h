/* SPDX-License-Identifier: Apache-2.0 */
/* comm.h - how ranks find each other, move data, and end together.
 *
 * Groups: "self" (1 rank), "mpi" (any transport Open MPI has), "shm" (ranks of one node: a shared window and futexes).
 * Results are the same bits at every run and at every number of ranks: sums follow base/segtree.h.
 * A group has a data path (collectives: every rank calls them in the same order) and a control channel (rank 0 sends
 * step plans; the others sleep without burning a core until one comes).
 * Waits spin briefly, then sleep.  Every wait has a deadline and sees the abort flag; TP_ERR_COMM or TP_ERR_TIMEOUT
 * then comes back and the group is dead: the caller leaves through comm_abort().  (Exception: comm_ctl_recv.)
 * TP_ERR_INVALID means misuse and leaves the group alive.
 * Threads: the engine thread only (MPI_THREAD_FUNNELED); comm_request_abort() may be called by any thread.
 */
#ifndef COMM_H
#define COMM_H

#include <stdint.h>

#include "base/segtree.h"
#include "base/status.h"

typedef struct comm_group comm_group;

/* Where this process stands in the job. */
typedef struct comm_world {
    int rank, size;             /* in the job */
    int local_rank, local_size; /* among the ranks of this host */
    int n_hosts;
    bool has_mpi; /* false: started without mpirun or srun, alone */
    char host[64];
} comm_world;

/* Starts MPI when the environment says that we were launched under it (OMPI_*, PMIX_*, PMI_*, SLURM_* with a task
 * count); otherwise a world of one.  Once per process. */
TP_MUST_USE tp_status comm_init(comm_world *out);
/* Before there is any group: all [size, bytes], every rank's `mine` in rank order.  Collective, without a deadline. */
TP_MUST_USE tp_status comm_world_gather(const comm_world *w, void *all, const void *mine,
                                        size_t bytes);
/* Ends MPI in order; nothing may be in flight. */
void comm_finalize(void);
/* Name and version of the MPI library ("Open MPI v4.1.4 ..."), without starting it; cut to cap bytes. */
void comm_library(char *text, size_t cap);

typedef struct comm_options {
    const char *kind;      /* "auto", "self", "mpi", "shm" */
    size_t window_bytes;   /* largest roots payload of one rank: n_roots * m_max * n_max * 4 */
    size_t plan_bytes_max; /* largest control message */
    int64_t timeout_ms;    /* deadline of data-path waits; 0 = none */
} comm_options;

/* Collective over the world.  auto = self for one rank, shm when all ranks share a host, else mpi. */
TP_MUST_USE tp_status comm_group_create(comm_group **out, const comm_world *world,
                                        const comm_options *opt);
void comm_group_destroy(comm_group *g); /* collective; NULL is fine */

/* n groups of "shm" kind for n threads of one process (tests): groups[i] is rank i. */
TP_MUST_USE tp_status comm_group_create_threads(comm_group **groups, int n,
                                                const comm_options *opt);

int comm_rank(const comm_group *g);
int comm_size(const comm_group *g);
const char *comm_kind(const comm_group *g);

/* Where this rank should write the roots of its next comm_reduce() to spare a copy: window_bytes, 64-byte aligned.
 * Ask before every reduce: the address alternates between two buffers, so that it may be filled as soon as the last
 * reduce has returned, while slower peers still read the other one. */
float *comm_window(comm_group *g);

typedef struct comm_reduce_args {
    int n_seg;          /* segments of the tree (tp_seg_count); rank r owns tp_seg_run() of them */
    const float *roots; /* [n_roots of this rank, count]; comm_window() or any memory */
    float *out;         /* [count]: the whole sum, same bits on every rank; may not overlap roots */
    int64_t count;
} comm_reduce_args;

/* Finishes the tree over all ranks. */
TP_MUST_USE tp_status comm_reduce(comm_group *g, const comm_reduce_args *a);
/* recv [size, bytes]: every rank's send [bytes] in rank order. */
TP_MUST_USE tp_status comm_allgather(comm_group *g, const void *send, void *recv, size_t bytes);
TP_MUST_USE tp_status comm_broadcast(comm_group *g, void *buf, size_t bytes, int root);
TP_MUST_USE tp_status comm_barrier(comm_group *g);

/* ---- control channel: rank 0 -> all others; messages arrive whole and in order ---- */
/* Rank 0 only.  Returns when the message may be overwritten. */
TP_MUST_USE tp_status comm_ctl_send(comm_group *g, const void *msg, size_t bytes);
/* Other ranks.  Sleeps until a message comes; timeout_ms 0 = for ever.  COMM; TIMEOUT and LIMIT (longer than cap)
 * leave the group alive, and the message waiting. */
TP_MUST_USE tp_status comm_ctl_recv(comm_group *g, void *msg, size_t cap, size_t *bytes,
                                    int64_t timeout_ms);

/* ---- the end ---- */
/* Marks the group dead for every rank that can be reached; waits return TP_ERR_COMM soon after. */
void comm_request_abort(comm_group *g);
bool comm_aborted(const comm_group *g);
/* Says why (once) and ends all ranks of the job with `exit_code` (70-79; the first caller's counts).  Any thread; g
 * may be NULL.  Does not return. */
TP_NORETURN void comm_abort(comm_group *g, int exit_code, const char *why);

#endif
