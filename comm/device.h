/* SPDX-License-Identifier: Apache-2.0 */
/* device.h - sums over ranks whose data lie on a device, and gathers of small messages that do.
 *
 * A group of ranks with devices is an ordinary group (control channel, all-gather, broadcast and barrier are the
 * host's) with reducers attached, which answer comm_window() and comm_reduce() with device memory on a stream:
 * comm_reduce() enqueues and returns; the sum is there for whatever is issued after it.  Roots and out are device
 * memory, 16-byte aligned; there is one root per rank, and n_seg is not looked at.
 *
 * Reducers: "staged" (any group: copies to the host, sums there, copies back), "p2p" (peers' memory over CUDA IPC, own
 * kernels), "nccl".  A reducer has one or more ways to sum:
 *   p2p-1 every rank sends all to all, one exchange; p2p-2 every rank finishes a slice, two exchanges;
 *   nccl; nccl-symm (registered memory); staged.
 * Which way a sum takes depends on its size only, so all ranks choose alike (comm_device_use_table()).
 * staged and p2p add in rank order: the same bits on every rank, at every run and by either way.  NCCL has an order of
 * its own; that all ranks get the same bits from it is checked at start.
 *
 * Gathers: comm_device_allgather() enqueues like a sum, by the first reducer that can; "staged" cannot, since it would
 * wait for the device, and then there is the group's own comm_allgather() through the host.
 *
 * Failure: a sum or gather that cannot be finished leaves nonsense behind and says so in comm_device_poll(), which the caller
 * asks after it has waited for the device and before it believes what came out.
 * Threads: the engine thread, but for comm_request_abort().
 */
#ifndef COMM_DEVICE_H
#define COMM_DEVICE_H

#include "comm/comm.h"

struct kern_rmsnorm_args; /* kernels/kern.h */

/* What reducers need of the backend; all on one stream. */
typedef struct comm_device {
    void *backend; /* passed back */
    void *dev;     /* kern_dev *, for reducers of the device's own module; NULL: there are none */
    void *stream;
    tp_status (*alloc)(void *backend, size_t bytes, void **out);
    void (*free)(void *backend, void *p);
    tp_status (*put)(void *backend, void *dst, const void *src, size_t bytes);
    tp_status (*get)(void *backend, void *dst, const void *src, size_t bytes); /* waits */
} comm_device;

/* ---- using them ---- */

/* Attaches reducers to a group: `want` is "auto", "nccl", "p2p", "mpi" or "shm" (the last two: staged, over a group of
 * that kind); `module` is the list from kern_module_open() or NULL.  Every reducer sums random data first; one that
 * gets it wrong is left out with a warning (auto) or fails the start (when it was asked for by name).  auto: p2p for
 * small sums and nccl for large ones, else what works; staged always does.  Rank 0 logs which and why.  A group of one
 * rank has nothing to sum.  Collective; the backend must live until comm_group_destroy(). */
TP_MUST_USE tp_status comm_attach_device(comm_group *g, const comm_device *d, const char *want,
                                         const void *module);

/* The kind of group (comm_options.kind) that a value of --comm asks for when ranks have devices: "auto" where it names
 * a reducer. */
const char *comm_host_kind(const char *want);

/* Chooses by measured sizes: a file that comm_bench_reduce() has written.  A file for another number of ranks or
 * another device is not used, with a warning.  Format, one item a line, '#' to the end of a line is a comment:
 *     tpserve-comm 1
 *     ranks 4
 *     device NVIDIA H100 80GB HBM3
 *     upto 524288 p2p-1              sums of at most so many bytes (count * 4), ascending
 *     upto max nccl
 * Collective; rank 0 reads.  device NULL: do not compare.  NOT_FOUND, FORMAT. */
TP_MUST_USE tp_status comm_device_use_table(comm_group *g, const char *path, const char *device);

/* recv [size, bytes]: every rank's send [bytes] in rank order.  Enqueued; may be recorded where sums may.  Both are device
 * memory at multiples of 16 bytes; bytes is a multiple of 16, at most comm_device_allgather_max(). */
TP_MUST_USE tp_status comm_device_allgather(comm_group *g, const void *send, void *recv,
                                            size_t bytes);
/* The same on all ranks; 0: there is no such gather. */
size_t comm_device_allgather_max(const comm_group *g);

/* OK, or why a sum issued before could not be finished: TIMEOUT (names the rank that was waited for), COMM, DEVICE.
 * The group is dead then.  Costs a load. */
TP_MUST_USE tp_status comm_device_poll(comm_group *g);

/* What a block of the decoder leaves to the RMSNorm that follows, in one kernel where the way for this size has one:
 * residual += sum over ranks of roots [rows, dim], out = RMSNorm(residual); a->add is not looked at.  Else comm_reduce() and
 * kern_rmsnorm() do it: the same sum, and a mean of squares that may differ in its last bit.  Enqueues like
 * comm_reduce(). */
bool comm_device_fuses_norm(const comm_group *g, int64_t rows, int dim);
TP_MUST_USE tp_status comm_device_reduce_norm(comm_group *g, const float *roots, int64_t rows,
                                              int dim, const struct kern_rmsnorm_args *a);

/* Every way that the choice may take can be recorded in a graph. */
bool comm_device_captures(const comm_group *g);
/* "p2p-1 to 1 MiB, nccl above"; "" without devices. */
const char *comm_device_choice(const comm_group *g);

/* ---- making one ---- */

typedef struct comm_reducer comm_reducer;

typedef struct comm_reducer_ops {
    const char *name;
    const char *const *ways; /* NULL at the end */
    bool rank_order;         /* adds in the order of ranks: its bits are known */
    bool captures;           /* may be recorded in a graph */
    /* Collective over g, which carries the bootstrap; window_bytes: the largest sum.  UNSUPPORTED (TP_REJECT: the text
     * says why) where the ranks cannot reach each other this way: all ranks return the same. */
    tp_status (*create)(comm_reducer **out, comm_group *g, const comm_device *d,
                        size_t window_bytes, int64_t timeout_ms);
    void (*destroy)(comm_reducer *r); /* collective while the group lives */
    /* Largest sum in bytes by a way; 0: not to be had here. */
    int64_t (*bytes_max)(const comm_reducer *r, int way);
    /* Memory of window_bytes that this reducer likes best to read from; NULL or the function NULL: any will do. */
    float *(*window)(comm_reducer *r);
    /* A way failed the self-test: do not offer it any more.  NULL: the reducer fails as a whole. */
    void (*drop)(comm_reducer *r, int way);
    tp_status (*reduce)(comm_reducer *r, int way, const float *in, float *out, int64_t count);
    /* reduce() by a way and RMSNorm in one; NULL: there is no such kernel.  fuses_norm: whether this size can. */
    bool (*fuses_norm)(const comm_reducer *r, int way, int64_t rows, int dim);
    tp_status (*reduce_norm)(comm_reducer *r, const float *in, const struct kern_rmsnorm_args *a);
    /* Enqueues a gather of at most gather_max bytes per rank; NULL: cannot. */
    tp_status (*gather)(comm_reducer *r, const void *in, void *out, size_t bytes);
    size_t (*gather_max)(const comm_reducer *r);
    /* Waits for what was issued, at most timeout_ms, and stops it then; NULL where get() does that. */
    tp_status (*wait)(comm_reducer *r, int64_t timeout_ms);
    tp_status (*poll)(comm_reducer *r); /* TP_REJECT; see comm_device_poll() */
    void (*abort)(comm_reducer *r);     /* any thread: spinning kernels leave */
} comm_reducer_ops;

struct comm_reducer {
    const comm_reducer_ops *ops;
    int64_t timeout_ms; /* of sums issued from now on; 0 = none */
};

#endif
