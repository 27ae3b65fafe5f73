/* SPDX-License-Identifier: Apache-2.0 */
/* bind.h - which cores a rank runs on, and how many threads it has. */
#ifndef LAUNCH_BIND_H
#define LAUNCH_BIND_H

#include "comm/comm.h"
#include "launcher/options.h"

/* Cores (not hardware threads) that this job may use on this host: the cgroup's cpuset and quota count. */
int launch_usable_cores(void);

/* Binds the process as --bind says and returns the number of threads of its team.  pci: the rank's GPU ("0000:3b:00.0"),
 * whose near cores are preferred; "" = none.  Never fails: a host that refuses binding is only slower (warned). */
int launch_bind(const launch_options *opt, const comm_world *world, const char *pci);

/* Cores near a PCI device, as a list such as "0-31,64-95", and its NUMA node (-1 = none or all alike); false when the
 * system does not say. */
bool launch_near_device(const char *pci, char *cores, int cap, int *numa);

#endif
