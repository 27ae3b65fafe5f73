/* SPDX-License-Identifier: Apache-2.0 */
/* device.h - sums over ranks whose data lie on a device.
 *
 * A group of ranks with devices is an ordinary group (control channel, all-gather, broadcast and barrier are the
 * host's) with a reducer attached, which answers comm_window() and comm_reduce() with device memory on a stream.
 * Reducers: "staged" (any group: copies to the host, sums there, copies back), "p2p" (peers' memory over CUDA IPC, own
 * kernels), "nccl".  Sums run in rank order, so they are the same bits at every run; there is one root per rank.
 */
#ifndef COMM_DEVICE_H
#define COMM_DEVICE_H

#include "comm/comm.h"

/* What staged and p2p need of the backend; all on one stream. */
typedef struct comm_device {
    void *backend; /* passed back */
    void *dev;     /* kern_dev *, for reducers of the device's own module */
    void *stream;
    tp_status (*alloc)(void *backend, size_t bytes, void **out);
    void (*free)(void *backend, void *p);
    tp_status (*put)(void *backend, void *dst, const void *src, size_t bytes);
    tp_status (*get)(void *backend, void *dst, const void *src, size_t bytes); /* waits */
} comm_device;

typedef struct comm_reducer comm_reducer;

typedef struct comm_reducer_ops {
    const char *name;
    /* Collective over g, which carries the bootstrap; window_bytes as in comm_options.  UNSUPPORTED (with a reason)
     * where the ranks cannot reach each other this way: all ranks return the same. */
    tp_status (*create)(comm_reducer **out, comm_group *g, const comm_device *d,
                        size_t window_bytes, int64_t timeout_ms);
    void (*destroy)(comm_reducer *r);
    float *(*window)(comm_reducer *r); /* device memory; alternates: ask before every reduce */
    tp_status (*reduce)(comm_reducer *r, const float *in, float *out, int64_t count); /* enqueues */
    tp_status (*poll)(
        comm_reducer *r);           /* OK, or the error that some rank or the network ran into */
    void (*abort)(comm_reducer *r); /* any thread: spinning kernels leave */
    bool captures;                  /* may be recorded in a graph */
} comm_reducer_ops;

struct comm_reducer {
    const comm_reducer_ops *ops;
};

/* Attaches a reducer to a group: `want` is "auto", "nccl", "p2p", "mpi" (staged) or "shm" (staged); `module` is the
 * list from kern_module_open(), NULL-terminated.  auto: p2p for small sums and nccl for large ones where both pass the
 * self-test, else what works; says which and why.  Collective. */
TP_MUST_USE tp_status comm_attach_device(comm_group *g, const comm_device *d, const char *want,
                                         const void *module);

#endif
