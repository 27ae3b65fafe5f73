/* SPDX-License-Identifier: Apache-2.0 */
/* region.h - one piece of memory shared by the ranks of a host, of which nothing stays behind. */
#ifndef COMM_SHM_REGION_H
#define COMM_SHM_REGION_H

#include "comm/comm.h"

typedef struct comm_region {
    void *addr; /* page aligned, zero at first; NULL: none */
    size_t bytes;
} comm_region;

/* Collective over MPI's world, which must be one host: rank 0 makes the memory, all map it.  The same verdict on
 * every rank. */
TP_MUST_USE tp_status comm_region_create(comm_region *out, const comm_world *world, size_t bytes);
/* For the threads of one process. */
TP_MUST_USE tp_status comm_region_create_private(comm_region *out, size_t bytes);
void comm_region_release(comm_region *r);

/* Removes what dead jobs of this user left in /dev/shm: ours, and Open MPI's segments. */
void comm_region_sweep(void);
/* Removes the names of the MPI segments that this process has mapped; the memory lives on while it is mapped. */
void comm_region_unname_mpi(void);
/* Puts empty files of these names in place, for MPI_Finalize to remove: it complains when it finds none. */
void comm_region_rename_mpi(void);

#endif
