/* SPDX-License-Identifier: Apache-2.0 */
/* reduce_bench.h - how fast sums over ranks are, by size and by way; writes the selection table.
 *
 * A group without devices is measured as it is (one way, named after its kind); one with devices by every way that its
 * reducers have.  Threads: engine thread.
 */
#ifndef COMM_REDUCE_BENCH_H
#define COMM_REDUCE_BENCH_H

#include "comm/comm.h"

typedef struct comm_bench_row {
    const char *way; /* "shm", "mpi"; "p2p-1", "nccl", "staged", ... */
    int64_t bytes;   /* of the sum: count * 4 */
    double us;       /* one sum; of the slowest rank, many queued in a row, best of three rows */
    /* 2 (n - 1) / n * bytes / time, in 10^9 bytes/s: comparable over numbers of ranks. */
    double bus_gbps;
} comm_bench_row;

typedef struct comm_bench_options {
    int64_t bytes_min, bytes_max; /* powers of two between them; 0: 4 KiB, 64 MiB or the window */
    double seconds;               /* about, for each row; 0: 0.03 */
    const char *table_path;       /* written by rank 0 for comm_device_use_table(); NULL: not */
    const char *device_name;      /* goes into the table; NULL: none */
} comm_bench_options;

/* Collective.  `row` is called on rank 0, in order of size; may be NULL.  Needs two ranks: INVALID. */
TP_MUST_USE tp_status comm_bench_reduce(comm_group *g, const comm_bench_options *o,
                                        void (*row)(void *arg, const comm_bench_row *row),
                                        void *arg);

#endif
