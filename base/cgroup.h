/* SPDX-License-Identifier: Apache-2.0 */
/* cgroup.h - limits that the control groups of this process set, version 1 or 2: the least on the way up to the root.
 *
 * Threads: any.
 */
#ifndef TP_CGROUP_H
#define TP_CGROUP_H

#include <stdbool.h>

/* What the files of one group's directory say; negative = no limit there. */
typedef double (*tp_cgroup_read)(const char *dir, bool v2);

/* Least value of this process's group and its ancestors where `controller` ("cpu", "memory") acts; negative = none. */
double tp_cgroup_least(const char *controller, tp_cgroup_read read);
/* First line of dir/name; false when it cannot be read. */
bool tp_cgroup_line(const char *dir, const char *name, char *line, int cap);

#endif
