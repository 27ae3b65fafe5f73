/* SPDX-License-Identifier: Apache-2.0 */
/* mpi_boot.h - inside comm: MPI as the means to meet.  The one header through which files outside comm/mpi reach MPI.
 *
 * These block without deadline: they run while a job starts, when the launcher itself watches over its ranks.
 * Threads: the one that called comm_mpi_start().
 */
#ifndef COMM_MPI_BOOT_H
#define COMM_MPI_BOOT_H

#include "comm/comm.h"

/* MPI_Init_thread and the places of this rank: rank, size, local_rank, local_size, n_hosts. */
TP_MUST_USE tp_status comm_mpi_start(comm_world *out);
void comm_mpi_stop(void);
bool comm_mpi_running(void);
TP_NORETURN void comm_mpi_abort(int exit_code);

/* Rank 0's buf reaches all. */
TP_MUST_USE tp_status comm_mpi_share(void *buf, size_t bytes);
/* all [ranks, bytes] */
TP_MUST_USE tp_status comm_mpi_gather(void *all, const void *mine, size_t bytes);
/* *all = every rank said true. */
TP_MUST_USE tp_status comm_mpi_agree(bool mine, bool *all);

#endif
