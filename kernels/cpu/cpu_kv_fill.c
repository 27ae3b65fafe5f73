/* SPDX-License-Identifier: Apache-2.0 */
/* cpu_kv_fill.c - the pages of a large KV cache, taken behind the back of a server that has just started.
 *
 * A fresh cache is address space: the kernel finds and clears a page when it is first written, which costs a second
 * per GiB and more where a virtual machine has to get the memory from its host.  Taking all pages before the port opens
 * would make every start wait for pages that the first request does not need; taking none would make steps wait, and
 * would find out late that the memory is not there.  So a thread takes them soon after the start, at the lowest
 * priority: MADV_POPULATE_WRITE makes pages present without changing what they hold, so it may run beside the steps
 * that write them.  Kernels before 5.14 do not know it; there the pages come when they are used.
 */
#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "kernels/cpu/cpu_kv.h"

#ifndef MADV_POPULATE_WRITE
#    define MADV_POPULATE_WRITE 23
#endif

#define WAIT_NS     (2 * TP_NS_PER_S)  /* for the weights and the first requests */
#define PIECE_BYTES ((size_t)16 << 20) /* at a time: how long a stop may have to wait */
#define LOW         19                 /* of nice */

struct kern_kv_filler {
    char *data; /* borrowed */
    size_t bytes;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stop; /* under lock */
};

/* Waits; false when told to stop. */
static bool wait_for_stop(kern_kv_filler *f, int64_t ns)
{
    int64_t until = tp_now_ns() + ns;
    struct timespec t = {.tv_sec = until / TP_NS_PER_S, .tv_nsec = until % TP_NS_PER_S};
    bool stop;

    pthread_mutex_lock(&f->lock);
    while (!f->stop && tp_now_ns() < until)
        (void)pthread_cond_timedwait(&f->changed, &f->lock, &t);
    stop = f->stop;
    pthread_mutex_unlock(&f->lock);
    return !stop;
}

static void *fill(void *arg)
{
    kern_kv_filler *f = arg;
    int64_t wait = WAIT_NS;

    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), LOW);
    for (size_t at = 0; at < f->bytes && wait_for_stop(f, wait); at += PIECE_BYTES, wait = 0) {
        size_t n = f->bytes - at < PIECE_BYTES ? f->bytes - at : PIECE_BYTES;

        while (madvise(f->data + at, n, MADV_POPULATE_WRITE) != 0) {
            if (errno == EAGAIN || errno == EINTR)
                continue;
            if (errno == ENOMEM)
                tp_warn("kernels",
                        "no memory for the KV cache beyond %zu of %zu MiB: lower "
                        "--kv-cache-memory-bytes",
                        at >> 20, f->bytes >> 20);
            return NULL;
        }
    }
    return NULL;
}

kern_kv_filler *kern_cpu_kv_fill(void *data, size_t bytes)
{
    kern_kv_filler *f = tp_calloc(1, sizeof *f);
    pthread_condattr_t monotonic;

    if (f == NULL)
        return NULL;
    f->data = data;
    f->bytes = bytes;
    (void)pthread_mutex_init(&f->lock, NULL);
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&f->changed, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    if (pthread_create(&f->thread, NULL, fill, f) == 0)
        return f;
    tp_free(f);
    return NULL;
}

void kern_cpu_kv_fill_stop(kern_kv_filler *f)
{
    if (f == NULL)
        return;
    pthread_mutex_lock(&f->lock);
    f->stop = true;
    pthread_cond_signal(&f->changed);
    pthread_mutex_unlock(&f->lock);
    (void)pthread_join(f->thread, NULL);
    pthread_cond_destroy(&f->changed);
    pthread_mutex_destroy(&f->lock);
    tp_free(f);
}
