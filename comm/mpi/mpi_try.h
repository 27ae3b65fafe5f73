/* SPDX-License-Identifier: Apache-2.0 */
/* mpi_try.h - inside comm/mpi: an MPI call's error becomes a tp_status. */
#ifndef COMM_MPI_TRY_H
#define COMM_MPI_TRY_H

#include <mpi.h>

#include "base/status.h"

/* Logs MPI's own words; yields TP_ERR_COMM. */
tp_status comm_mpi_error(const char *call, int code);

#define COMM_MPI_TRY(call)                                                                         \
    do {                                                                                           \
        int comm_rc_ = (call);                                                                     \
        if (TP_UNLIKELY(comm_rc_ != MPI_SUCCESS))                                                  \
            return comm_mpi_error(#call, comm_rc_);                                                \
    } while (0)

#endif
