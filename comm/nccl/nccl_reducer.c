/* SPDX-License-Identifier: Apache-2.0 */
/* nccl_reducer.c - sums and gathers over ranks by NCCL.
 *
 * Start: rank 0's unique id goes to all by the host group, then a non-blocking init, polled with a deadline: a rank
 * that does not come is an error with a text and not a hang.  The sums are enqueued on the backend's stream and may be
 * recorded in graphs.
 *
 * Registered memory ("nccl-symm"): the window that the GEMM writes to comes from ncclMemAlloc and is registered as a
 * symmetric window, on which ncclAllReduce picks its faster kernels.  They want both ends registered, so the sum is made
 * in place and copied out.  NCCL before 2.27, devices without virtual memory management, or a failed self-test: that
 * way is not offered, plain "nccl" is.
 *
 * Lock: `lock` guards `comm`, since comm_request_abort() comes from any thread while the engine thread may be in a call
 * or waits for a kernel that only ncclCommAbort() ends.  Leaf; calls under it do not block (the communicator is
 * non-blocking), but for the abort itself, after which nobody wants it.
 */
#include <pthread.h>
#include <stdint.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "comm/nccl/nccl_load.h"
#include "comm/p2p/p2p_reducer.h"

#define START_MS 120000 /* deadline of the start when the group has none */
#define NAP_US   100
#define GATHER   ((size_t)64 << 20) /* bytes of one rank: more is not meant to be gathered */

enum { WAY_PLAIN, WAY_SYMM };

typedef struct nccl_reducer {
    comm_reducer base;
    comm_group *g; /* borrowed */
    const comm_nccl_lib *lib;
    kern_dev *dev;
    kern_stream stream;
    pthread_mutex_t lock;
    ncclComm_t comm; /* owned; NULL after an abort */
    float *window;   /* owned: ncclMemAlloc */
    size_t window_bytes;
    bool symm; /* the window is registered, and right */
#if COMM_NCCL_HAVE_WINDOWS
    ncclWindow_t handle;
#endif
} nccl_reducer;

static nccl_reducer *self_of(comm_reducer *r)
{
    return (nccl_reducer *)r;
}

/* A failed call, in NCCL's words. */
static tp_status say(const nccl_reducer *n, const char *what, ncclResult_t rc)
{
    const char *more = n->lib->GetLastError(n->comm);

    return TP_REJECT(TP_ERR_DEVICE, "NCCL on rank %d: %s: %s%s%s", comm_rank(n->g), what,
                     n->lib->GetErrorString(rc), more != NULL && more[0] != '\0' ? ": " : "",
                     more != NULL ? more : "");
}

static void abort_locked(nccl_reducer *n)
{
    (void)pthread_mutex_lock(&n->lock);
    if (n->comm != NULL)
        (void)n->lib->CommAbort(n->comm);
    n->comm = NULL;
    (void)pthread_mutex_unlock(&n->lock);
}

/* After a call on the non-blocking communicator: until it is done, or the deadline.  rc: what the call returned. */
static tp_status settle(nccl_reducer *n, const char *what, ncclResult_t rc, int64_t timeout_ms)
{
    int64_t deadline = tp_now_ns() + timeout_ms * TP_NS_PER_MS;

    while (rc == ncclInProgress || rc == ncclSuccess) {
        ncclResult_t now = ncclSuccess;

        rc = n->lib->CommGetAsyncError(n->comm, &now);
        if (rc == ncclSuccess && now == ncclSuccess)
            return TP_OK;
        rc = rc == ncclSuccess ? now : rc;
        if (rc != ncclInProgress)
            break;
        if (comm_aborted(n->g))
            return TP_REJECT(TP_ERR_COMM, "NCCL on rank %d: %s: the group was told to abort",
                             comm_rank(n->g), what);
        if (tp_now_ns() > deadline)
            return TP_REJECT(TP_ERR_TIMEOUT, "NCCL on rank %d: %s: not done after %lld ms",
                             comm_rank(n->g), what, (long long)timeout_ms);
        tp_sleep_us(NAP_US);
    }
    return say(n, what, rc);
}

static int64_t patience(const nccl_reducer *n)
{
    return n->base.timeout_ms > 0 ? n->base.timeout_ms : START_MS;
}

/* ---- the end ---- */

static void close_window(nccl_reducer *n)
{
#if COMM_NCCL_HAVE_WINDOWS
    if (n->handle != NULL && n->comm != NULL)
        (void)n->lib->CommWindowDeregister(n->comm, n->handle);
    n->handle = NULL;
    if (n->window != NULL)
        (void)n->lib->MemFree(n->window);
#endif
    n->window = NULL;
    n->symm = false;
}

static void nccl_destroy(comm_reducer *r)
{
    nccl_reducer *n = self_of(r);

    if (n == NULL)
        return;
    if (comm_aborted(n->g) || kern_dev_sync(n->dev, n->stream) != TP_OK)
        abort_locked(n);
    close_window(n);
    if (n->comm != NULL &&
        settle(n, "finalize", n->lib->CommFinalize(n->comm), patience(n)) == TP_OK) {
        (void)n->lib->CommDestroy(n->comm);
        n->comm = NULL;
    }
    abort_locked(n);
    (void)pthread_mutex_destroy(&n->lock);
    tp_free(n);
}

/* ---- the start ---- */

static tp_status share_id(nccl_reducer *n, ncclUniqueId *id)
{
    tp_status st = TP_OK;
    ncclResult_t rc;

    memset(id, 0, sizeof *id);
    if (comm_rank(n->g) == 0) {
        rc = n->lib->GetUniqueId(id);
        st = rc == ncclSuccess ? TP_OK : say(n, "unique id", rc);
    }
    TP_TRY(comm_device_agree(n->g, st));
    return comm_broadcast(n->g, id, sizeof *id, 0);
}

static tp_status connect(nccl_reducer *n)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclUniqueId id;
    ncclResult_t rc;
    tp_status st;

    TP_TRY(share_id(n, &id));
    config.blocking = 0;
    rc = n->lib->CommInitRankConfig(&n->comm, comm_size(n->g), id, comm_rank(n->g), &config);
    st = n->comm != NULL ? settle(n, "init", rc, patience(n)) : say(n, "init", rc);
    return comm_device_agree(n->g, st);
}

/* Without it there is still plain NCCL: only a dead group is an error. */
static tp_status open_window(nccl_reducer *n, size_t bytes)
{
#if COMM_NCCL_HAVE_WINDOWS
    size_t room = (bytes + NCCL_WIN_REQUIRED_ALIGNMENT - 1) / NCCL_WIN_REQUIRED_ALIGNMENT *
                  NCCL_WIN_REQUIRED_ALIGNMENT;
    void *p = NULL;
    ncclResult_t rc = ncclSuccess;
    tp_status st = n->lib->has_windows
                       ? TP_OK
                       : TP_REJECT(TP_ERR_UNSUPPORTED, "this NCCL has no symmetric windows");

    if (st == TP_OK) {
        rc = n->lib->MemAlloc(&p, room);
        st = rc == ncclSuccess ? TP_OK : say(n, "memory for a window", rc);
    }
    n->window = p;
    n->window_bytes = room;
    st = comm_device_agree(n->g, st);
    if (st == TP_OK) {
        rc = n->lib->CommWindowRegister(n->comm, p, room, &n->handle, NCCL_WIN_COLL_SYMMETRIC);
        st = settle(n, "register a window", rc, patience(n));
        if (st == TP_OK && n->handle == NULL)
            st = TP_REJECT(TP_ERR_UNSUPPORTED, "NCCL offers no symmetric windows here");
        st = comm_device_agree(n->g, st);
    }
    n->symm = st == TP_OK;
    if (st != TP_OK) {
        if (comm_rank(n->g) == 0)
            tp_info("comm", "no nccl-symm: %s", tp_last_error());
        close_window(n);
    }
#else
    (void)bytes;
#endif
    return comm_aborted(n->g) ? TP_ERR_COMM : TP_OK;
}

static tp_status nccl_create(comm_reducer **out, comm_group *g, const comm_device *d,
                             size_t window_bytes, int64_t timeout_ms)
{
    nccl_reducer *n = tp_calloc(1, sizeof *n);
    const comm_nccl_lib *lib = NULL;
    tp_status st = n != NULL ? TP_OK : TP_FAIL(TP_ERR_NOMEM, "NCCL reducer");

    if (st == TP_OK && d->dev == NULL)
        st = TP_REJECT(TP_ERR_UNSUPPORTED, "the backend has no device");
    if (st == TP_OK)
        st = comm_nccl_load(&lib);
    st = comm_device_agree(g, st);
    if (st != TP_OK) {
        tp_free(n);
        return st;
    }
    n->base = (comm_reducer){.ops = &comm_nccl_ops, .timeout_ms = timeout_ms};
    n->g = g;
    n->lib = lib;
    n->dev = d->dev;
    n->stream = d->stream;
    (void)pthread_mutex_init(&n->lock, NULL);
    st = connect(n);
    if (st == TP_OK)
        st = open_window(n, window_bytes);
    if (st != TP_OK) {
        abort_locked(n); /* peers may be missing: nothing to finalize */
        nccl_destroy(&n->base);
        return st;
    }
    *out = &n->base;
    return TP_OK;
}

/* ---- sums ---- */

static int64_t nccl_bytes_max(const comm_reducer *r, int way)
{
    const nccl_reducer *n = (const nccl_reducer *)r;

    if (way == WAY_PLAIN)
        return INT64_MAX;
    return n->symm ? (int64_t)n->window_bytes : 0;
}

static float *nccl_window(comm_reducer *r)
{
    return self_of(r)->window;
}

static void nccl_drop(comm_reducer *r, int way)
{
    if (way == WAY_SYMM)
        self_of(r)->symm = false; /* the memory stays: it is as good as any */
}

/* Holds the lock afterwards in any case; COMM: the communicator is no more. */
static tp_status lock_communicator(nccl_reducer *n)
{
    (void)pthread_mutex_lock(&n->lock);
    return n->comm != NULL
               ? TP_OK
               : TP_REJECT(TP_ERR_COMM, "NCCL on rank %d was told to abort", comm_rank(n->g));
}

static tp_status all_reduce(nccl_reducer *n, const float *in, float *out, int64_t count)
{
    tp_status st = lock_communicator(n);
    ncclResult_t rc;

    if (st == TP_OK) {
        rc = n->lib->AllReduce(in, out, (size_t)count, ncclFloat32, ncclSum, n->comm,
                               (cudaStream_t)n->stream);
        st = rc == ncclSuccess ? TP_OK : settle(n, "all-reduce", rc, patience(n));
    }
    (void)pthread_mutex_unlock(&n->lock);
    return st;
}

static tp_status nccl_reduce(comm_reducer *r, int way, const float *in, float *out, int64_t count)
{
    nccl_reducer *n = self_of(r);
    size_t bytes = (size_t)count * sizeof(float);
    tp_status st;

    if (way == WAY_PLAIN) {
        st = all_reduce(n, in, out, count);
    } else {
        if (in != n->window)
            TP_TRY(kern_dev_copy(n->dev, n->window, in, bytes, n->stream));
        st = all_reduce(n, n->window, n->window, count);
        if (st == TP_OK && out != n->window)
            st = kern_dev_copy(n->dev, out, n->window, bytes, n->stream);
    }
    return st == TP_OK ? TP_OK : TP_FAIL(st, "%s", tp_last_error());
}

static tp_status nccl_gather(comm_reducer *r, const void *in, void *out, size_t bytes)
{
    nccl_reducer *n = self_of(r);
    tp_status st = lock_communicator(n);
    ncclResult_t rc;

    if (st == TP_OK) {
        rc = n->lib->AllGather(in, out, bytes, ncclUint8, n->comm, (cudaStream_t)n->stream);
        st = rc == ncclSuccess ? TP_OK : settle(n, "all-gather", rc, patience(n));
    }
    (void)pthread_mutex_unlock(&n->lock);
    return st == TP_OK ? TP_OK : TP_FAIL(st, "%s", tp_last_error());
}

static size_t nccl_gather_max(const comm_reducer *r)
{
    (void)r;
    return GATHER;
}

static tp_status nccl_poll(comm_reducer *r)
{
    nccl_reducer *n = self_of(r);
    ncclResult_t now = ncclSuccess, rc;
    tp_status st = lock_communicator(n);

    if (st == TP_OK) {
        rc = n->lib->CommGetAsyncError(n->comm, &now);
        rc = rc == ncclSuccess ? now : rc;
        if (rc != ncclSuccess && rc != ncclInProgress)
            st = say(n, "all-reduce", rc);
    }
    (void)pthread_mutex_unlock(&n->lock);
    return st;
}

static tp_status nccl_wait(comm_reducer *r, int64_t timeout_ms)
{
    nccl_reducer *n = self_of(r);
    int64_t deadline = tp_now_ns() + timeout_ms * TP_NS_PER_MS;
    bool done = false;

    for (;;) {
        TP_TRY(kern_dev_query(n->dev, n->stream, &done));
        if (done)
            return nccl_poll(r);
        TP_TRY(nccl_poll(r));
        if (timeout_ms > 0 && tp_now_ns() > deadline) {
            abort_locked(n);
            return TP_REJECT(TP_ERR_TIMEOUT, "NCCL on rank %d: a sum was not done after %lld ms",
                             comm_rank(n->g), (long long)timeout_ms);
        }
        tp_sleep_us(NAP_US);
    }
}

static void nccl_abort(comm_reducer *r)
{
    abort_locked(self_of(r));
}

static const char *const nccl_ways[] = {"nccl", "nccl-symm", NULL};

const comm_reducer_ops comm_nccl_ops = {
    .name = "nccl",
    .ways = nccl_ways,
    .rank_order = false,
    .captures = true,
    .create = nccl_create,
    .destroy = nccl_destroy,
    .bytes_max = nccl_bytes_max,
    .window = nccl_window,
    .drop = nccl_drop,
    .reduce = nccl_reduce,
    .gather = nccl_gather,
    .gather_max = nccl_gather_max,
    .wait = nccl_wait,
    .poll = nccl_poll,
    .abort = nccl_abort,
};
