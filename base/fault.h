/* SPDX-License-Identifier: Apache-2.0 */
/* fault.h - named places where tests make things go wrong.
 *
 * TPSERVE_FAULT="load.read=3,step=10" (or tp_fault_arm) lets the 3rd pass through point "load.read" fail once.
 * Without it a point costs one load.  Threads: any.
 */
#ifndef TP_FAULT_H
#define TP_FAULT_H

#include <stdint.h>

#include "base/status.h"

/* True exactly when the armed pass is reached: the caller then behaves as if the operation had failed. */
bool tp_fault_hit(const char *point);
/* Arms the n-th pass (1 = next) of a point; n = 0 disarms.  False when the table (16 points) is full. */
bool tp_fault_arm(const char *point, int64_t n);
/* Whether its pass is still to come. */
bool tp_fault_armed(const char *point);
/* Reads a list "point=n,point=n"; INVALID when it cannot be read. */
TP_MUST_USE tp_status tp_fault_arm_list(const char *list);

#endif
