/* SPDX-License-Identifier: Apache-2.0 */
/* p2p.h - sums and gathers through the memory of peer devices: what the kernels (p2p.cu) and their host side
 * (p2p_reducer.c) share.
 *
 * Every rank owns a region that all others map: a head with flags, then areas.  Block b of a kernel talks only to the
 * blocks b of the other ranks, and owns two areas, used in turn:
 *     head | area [COMM_P2P_BLOCKS][2][COMM_P2P_AREA]
 * Everything is pushed to where it is needed, into the area of the receiver, except the slices of a second exchange,
 * which are pulled.
 *
 * Epochs.  head.epoch[b] counts the sums that block b took part in; it lies on the device and the kernel itself moves
 * it on, so a recorded graph can be replayed.  In epoch e the block uses its area e & 1, writes e into the peers' flags
 * after its data, and waits until its own flags have reached e.  Flags only grow and are compared as signed
 * differences: a fast peer may already have written e + 1 when we look, so "== e" would wait for ever.
 *
 * Why two areas suffice.  Whoever touches an area for epoch e + 2 has finished e + 1, so has seen the flag e + 1 of
 * every peer's block b, which that block raised after it had finished e.  So nobody touches the area for e any more.
 * The argument is about one block index at a time; sums of different sizes and kinds may follow each other freely.
 *
 * Stopping.  A waiting thread looks from time to time at the host's abort word, at head.quit, and at the clock.  When
 * it gives up it tells the host (comm_p2p_report) and sets head.quit of every rank; kernels that find it set leave at
 * once, so that what is queued behind drains.  The sums are then nonsense, which comm_device_poll() reports.
 */
#ifndef COMM_P2P_H
#define COMM_P2P_H

#include "kernels/cuda/dev.h"
#include "kernels/kern.h"

#ifdef __cplusplus
extern "C" {
#endif

#define COMM_P2P_RANKS_MAX 8
#define COMM_P2P_BLOCKS                                                                            \
    36 /* enough to fill the links, few enough to be resident together everywhere */
#define COMM_P2P_THREADS 512
#define COMM_P2P_AREA    (256 * 1024)
#define COMM_P2P_HEAD    8192

typedef struct comm_p2p_head {
    uint32_t first[COMM_P2P_BLOCKS][COMM_P2P_RANKS_MAX];  /* [block][sender]: their data are here */
    uint32_t second[COMM_P2P_BLOCKS][COMM_P2P_RANKS_MAX]; /* their slice is finished, there */
    uint32_t epoch[COMM_P2P_BLOCKS];                      /* of the owner */
    uint32_t ticket; /* where blocks are not resident together; see p2p.cu */
    uint32_t quit;   /* set by anybody */
} comm_p2p_head;

#define COMM_P2P_REGION (COMM_P2P_HEAD + (size_t)COMM_P2P_BLOCKS * 2 * COMM_P2P_AREA) /* 18 MiB */

/* Pinned host memory. */
typedef struct comm_p2p_report {
    uint32_t abort; /* host: leave */
    uint32_t late;  /* device: 1 + the rank that did not come before the deadline */
    uint32_t quit;  /* device: left because of somebody else */
} comm_p2p_report;

/* By value to the kernels. */
typedef struct comm_p2p_team {
    unsigned char *mine;                         /* this rank's region */
    unsigned char *peer[COMM_P2P_RANKS_MAX - 1]; /* of rank (rank + 1 + k) % n_ranks */
    comm_p2p_report *report;
    uint64_t timeout_ns; /* 0: none */
    int n_ranks, rank;
} comm_p2p_team;

/* Largest sum of one launch, in floats. */
int64_t comm_p2p_one_shot_max(int n_ranks);
int64_t comm_p2p_two_shot_max(int n_ranks);

/* out[i] = sum over ranks of in[i], in rank order.  in and out: device memory, 16-byte aligned; they may be the same.
 * count >= 1.  All ranks launch the same with the same sizes in the same order. */
tp_status comm_p2p_one_shot(const comm_p2p_team *t, const float *in, float *out, int64_t count,
                            kern_stream s);
tp_status comm_p2p_two_shot(const comm_p2p_team *t, const float *in, float *out, int64_t count,
                            kern_stream s);
/* out [n_ranks, bytes]: every rank's in [bytes] in rank order.  As a one-shot sum of as many bytes, without the sum; bytes
 * is a multiple of 16, and out does not overlap in. */
tp_status comm_p2p_gather(const comm_p2p_team *t, const void *in, void *out, size_t bytes,
                          kern_stream s);
/* kern_rmsnorm() with add = the sum over ranks of in [m, dim]; a->add is not looked at.  One exchange; dim is a multiple
 * of 4, at most COMM_P2P_AREA / 4 / n_ranks, and all pointers are 16-byte aligned, else INVALID. */
tp_status comm_p2p_sum_norm(const comm_p2p_team *t, const float *in, const kern_rmsnorm_args *a,
                            kern_stream s);

#ifdef __cplusplus
}
#endif

#endif
