/* SPDX-License-Identifier: Apache-2.0 */
/* ranks.h - starting our own ranks: `tpserve --tensor-parallel-size 4` outside mpirun. */
#ifndef LAUNCH_RANKS_H
#define LAUNCH_RANKS_H

#include "comm/comm.h"
#include "launcher/options.h"

/* Rank that the process manager gave us, -1 when there is none in sight (before MPI is up). */
int launch_env_rank(void);
/* Whether this rank speaks when all ranks of its host have the same thing to say: rank 0, and the first on other hosts. */
bool launch_env_speaks(void);
/* True when mpirun or srun started this process. */
bool launch_under_launcher(void);

/* Runs mpirun with --tensor-parallel-size ranks of this program and the same arguments, API keys aside: they go through
 * the environment; SIGTERM, SIGINT and SIGUSR1 become the drain signal
 * of mpirun, a second one its hard stop.  Returns mpirun's exit code. */
int launch_own_ranks(const launch_options *opt, int argc, char *const *argv);

/* What every rank has to say before there is an engine: all [world->size, bytes], in rank order.  Collective. */
TP_MUST_USE tp_status launch_gather(void *all, const void *mine, size_t bytes,
                                    const comm_world *world);

#endif
