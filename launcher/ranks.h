/* SPDX-License-Identifier: Apache-2.0 */
/* ranks.h - starting our own ranks: `tpserve --tensor-parallel-size 4` outside mpirun. */
#ifndef LAUNCH_RANKS_H
#define LAUNCH_RANKS_H

#include "launcher/options.h"

/* Rank that the process manager gave us, -1 when there is none in sight (before MPI is up). */
int launch_env_rank(void);
/* True when mpirun or srun started this process. */
bool launch_under_launcher(void);

/* Runs mpirun with n ranks of this program and the same arguments; SIGTERM, SIGINT and SIGUSR1 become the drain signal
 * of mpirun, a second one its hard stop.  Returns mpirun's exit code. */
int launch_own_ranks(int n, char **argv);

#endif
