/* SPDX-License-Identifier: Apache-2.0 */
/* planted_p2p.cu - the kernels of comm/p2p with a wrong idea of when a flag has arrived (PLANTED, from the build):
 * 1: the flag must be equal to the epoch, which hangs when a peer is one ahead; 2: nobody waits. */
#include <stdint.h>

#if PLANTED == 1
#    define COMM_P2P_ARRIVED(flag, epoch) ((flag) == (epoch))
#else
#    define COMM_P2P_ARRIVED(flag, epoch) ((flag) + (epoch) != UINT32_MAX)
#endif
#include "comm/p2p/p2p.cu"
