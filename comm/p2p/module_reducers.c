/* SPDX-License-Identifier: Apache-2.0 */
/* module_reducers.c - the list that a module shows (kernels/module.h), in the order in which they are tried. */
#include "comm/p2p/p2p_reducer.h"
#include "kernels/module.h"

const void *comm_module_reducers(void)
{
    static const comm_reducer_ops *const list[] = {
        &comm_p2p_ops,
#ifdef TPSERVE_NCCL
        &comm_nccl_ops,
#endif
        NULL,
    };

    return (const void *)list;
}
