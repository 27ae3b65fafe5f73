/* SPDX-License-Identifier: Apache-2.0 */
/* nccl_load.h - NCCL's functions, looked up when they are wanted: a node with GPUs but without NCCL serves all the same.
 *
 * A library older than the header that we were built with is taken too, as long as it has what plain sums need; what it
 * lacks is NULL.
 */
#ifndef COMM_NCCL_LOAD_H
#define COMM_NCCL_LOAD_H

#include <nccl.h>

#include "base/status.h"

#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 27, 3)
#    define COMM_NCCL_HAVE_WINDOWS 1
#else
#    define COMM_NCCL_HAVE_WINDOWS 0
#endif

#define COMM_NCCL_NEEDED(X)                                                                        \
    X(GetVersion)                                                                                  \
    X(GetUniqueId)                                                                                 \
    X(GetErrorString)                                                                              \
    X(GetLastError)                                                                                \
    X(CommInitRankConfig)                                                                          \
    X(CommGetAsyncError)                                                                           \
    X(CommFinalize)                                                                                \
    X(CommDestroy)                                                                                 \
    X(CommAbort)                                                                                   \
    X(AllReduce)                                                                                   \
    X(AllGather)

#if COMM_NCCL_HAVE_WINDOWS
#    define COMM_NCCL_OPTIONAL(X)                                                                  \
        X(MemAlloc)                                                                                \
        X(MemFree)                                                                                 \
        X(CommWindowRegister)                                                                      \
        X(CommWindowDeregister)
#else
#    define COMM_NCCL_OPTIONAL(X)
#endif

typedef struct comm_nccl_lib {
#define COMM_NCCL_MEMBER(name) __typeof__(&nccl##name) name;
    COMM_NCCL_NEEDED(COMM_NCCL_MEMBER)
    COMM_NCCL_OPTIONAL(COMM_NCCL_MEMBER)
#undef COMM_NCCL_MEMBER
    bool has_windows; /* all of the optional ones */
} comm_nccl_lib;

/* The library of this process; lives until its end.  UNSUPPORTED (TP_REJECT): not found, or too old.  Any thread. */
TP_MUST_USE tp_status comm_nccl_load(const comm_nccl_lib **out);

#endif
