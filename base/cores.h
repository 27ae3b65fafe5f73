/* SPDX-License-Identifier: Apache-2.0 */
/* cores.h - how many cores this process may really use.
 *
 * Two limits hold at once: the affinity mask (taskset, mpirun --bind-to, cpusets) and the CPU quota of the control
 * group (containers, Kubernetes limits).  A container with "2 CPUs" on a 64-core host has 64 bits in its mask.
 * Threads: any.
 */
#ifndef TP_CORES_H
#define TP_CORES_H

#include "base/status.h"

/* CPUs that the control group grants in CPU-seconds per second; 0 = no quota. */
double tp_cores_quota(void);
/* CPUs in the affinity mask of the calling thread, cut to the quota (rounded up); at least 1. */
int tp_cores_usable(void);

#endif
