/* SPDX-License-Identifier: Apache-2.0 */
/* cores.c - see cores.h.
 *
 * Version 2 of the control groups keeps the quota in cpu.max ("max 100000" or "200000 100000"), version 1 in
 * cpu.cfs_quota_us (-1: none) and cpu.cfs_period_us.
 */
#include "base/cores.h"

#include <sched.h>
#include <stdio.h>

#include "base/cgroup.h"

/* Quota of one directory in CPUs. */
static double quota_of(const char *dir, bool v2)
{
    char line[128];
    double quota = 0, period = 0;

    if (v2) {
        if (!tp_cgroup_line(dir, "cpu.max", line, sizeof line) ||
            sscanf(line, "%lf %lf", &quota, &period) != 2)
            return -1;
    } else {
        if (!tp_cgroup_line(dir, "cpu.cfs_quota_us", line, sizeof line) ||
            sscanf(line, "%lf", &quota) != 1 ||
            !tp_cgroup_line(dir, "cpu.cfs_period_us", line, sizeof line) ||
            sscanf(line, "%lf", &period) != 1)
            return -1;
    }
    return quota > 0 && period > 0 ? quota / period : -1;
}

double tp_cores_quota(void)
{
    double quota = tp_cgroup_least("cpu", quota_of);

    return quota > 0 ? quota : 0;
}

int tp_cores_usable(void)
{
    cpu_set_t set;
    double quota = tp_cores_quota();
    int n = 1;

    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        n = CPU_COUNT(&set);
    if (quota > 0 && quota < n)
        n = (int)quota + ((double)(int)quota < quota);
    return n >= 1 ? n : 1;
}
