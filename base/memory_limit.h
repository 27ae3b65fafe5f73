/* SPDX-License-Identifier: Apache-2.0 */
/* memory_limit.h - how much memory this process may really use.
 *
 * What the host has and what the control groups grant (containers, Kubernetes limits) hold at once.  Threads: any.
 */
#ifndef TP_MEMORY_LIMIT_H
#define TP_MEMORY_LIMIT_H

#include <stdint.h>

/* Bytes that the control groups grant in all; INT64_MAX = no limit. */
int64_t tp_memory_limit(void);
/* Bytes that could still be had: the kernel's estimate, cut to what the groups leave; INT64_MAX = unknown. */
int64_t tp_memory_available(void);

#endif
