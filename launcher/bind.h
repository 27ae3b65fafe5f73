/* SPDX-License-Identifier: Apache-2.0 */
/* bind.h - which cores a rank runs on, and how many threads it has. */
#ifndef LAUNCH_BIND_H
#define LAUNCH_BIND_H

#include "comm/comm.h"
#include "launcher/options.h"

/* Cores (not hardware threads) that this job may use on this host: the cgroup's cpuset and quota count. */
int launch_usable_cores(void);

/* Binds the process as --bind says and returns the number of threads of its team.  Never fails: a host that refuses
 * binding is only slower (warned). */
int launch_bind(const launch_options *opt, const comm_world *world);

#endif
