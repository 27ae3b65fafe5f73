/* SPDX-License-Identifier: Apache-2.0 */
/* boot.h - what the environment says, for comm and the launcher; inside comm, the end of the process. */
#ifndef COMM_BOOT_H
#define COMM_BOOT_H

#include <stdint.h>

#include "base/status.h"

/* What the launcher has put into the environment, before MPI runs; -1 = unknown (size: 0 = no launcher). */
int comm_env_rank(void);
int comm_env_size(void);
int comm_env_local_size(void);
/* The same word on all ranks of a job, another one in every other job. */
const char *comm_env_job(void);

/* The ranks have found each other: ends the alarm of comm_arrive().  Yields the time at which that was called. */
int64_t comm_arrived(void);

/* Ends every rank of the job: MPI_Abort when MPI runs and somebody may have to be killed, else _exit.  Any thread.  This
 * process ends within a second even when the launcher does not answer. */
TP_NORETURN void comm_boot_abort(int exit_code);

#endif
