/* SPDX-License-Identifier: Apache-2.0 */
/* agree.h - ranks that were started differently are refused before they do anything together. */
#ifndef LAUNCH_AGREE_H
#define LAUNCH_AGREE_H

#include "comm/comm.h"
#include "launcher/options.h"

/* Collective.  Compares version and options of all ranks with those of rank 0, which prints one line per rank that
 * differs; then INVALID on all. */
TP_MUST_USE tp_status launch_agree(const launch_options *opt, const comm_world *world);

#endif
