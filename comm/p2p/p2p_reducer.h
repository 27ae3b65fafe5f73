/* SPDX-License-Identifier: Apache-2.0 */
/* p2p_reducer.h - the reducers of a module, and what tests and the fused kernel need of the p2p one. */
#ifndef COMM_P2P_REDUCER_H
#define COMM_P2P_REDUCER_H

#include "comm/device/side.h"
#include "comm/p2p/p2p.h"

extern const comm_reducer_ops comm_p2p_ops;
extern const comm_reducer_ops
    comm_nccl_ops; /* comm/nccl; in the CUDA module where NCCL was found */

/* For comm_p2p_sum_norm(): r is a p2p reducer.  Borrowed; ask before every launch. */
const comm_p2p_team *comm_p2p_get_team(comm_reducer *r);

#endif
