/* SPDX-License-Identifier: Apache-2.0 */
/* dev_ipc.c - device memory that other processes of the node map, over CUDA IPC.
 *
 * The driver carves small allocations out of 2 MiB blocks, and a handle stands for the block: shared memory is therefore
 * whole blocks, so that a peer's pointer is the allocation itself.  CUDA refuses a handle in the process that made it, so
 * those made here are remembered, for ranks that live in one process.
 *
 * Locks: g_lock guards the list; leaf.
 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/cuda/dev_cuda.h"

#define BLOCK_BYTES ((size_t)2 << 20)

_Static_assert(sizeof(cudaIpcMemHandle_t) == KERN_DEV_IPC_BYTES, "handles travel in kern_dev_ipc");

typedef struct shared {
    struct shared *next;
    void *base;
    int ordinal;
    kern_dev_ipc handle;
} shared;

static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER;
static shared *g_shared; /* owned */

tp_status kern_dev_alloc_shared(kern_dev *d, size_t bytes, void **out, kern_dev_ipc *handle)
{
    shared *s = tp_calloc(1, sizeof *s);
    cudaIpcMemHandle_t h;
    cudaError_t e;
    tp_status st;

    if (s == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "device %d: no host memory for a handle", d->props.ordinal);
    st = kern_dev_alloc(d, (bytes / BLOCK_BYTES + 1) * BLOCK_BYTES, &s->base);
    if (st != TP_OK) {
        tp_free(s);
        return st;
    }
    e = cudaIpcGetMemHandle(&h, s->base);
    if (e != cudaSuccess) {
        kern_dev_free(d, s->base);
        tp_free(s);
        return kern_dev_cuda_fail(d, e, "exporting memory to other processes");
    }
    memcpy(&s->handle, &h, sizeof h);
    s->ordinal = d->props.ordinal;
    *handle = s->handle;
    *out = s->base;
    (void)pthread_mutex_lock(&g_lock);
    s->next = g_shared;
    g_shared = s;
    (void)pthread_mutex_unlock(&g_lock);
    return TP_OK;
}

void kern_dev_free_shared(kern_dev *d, void *p)
{
    shared *found = NULL;

    if (p == NULL)
        return;
    (void)pthread_mutex_lock(&g_lock);
    for (shared **link = &g_shared; *link != NULL; link = &(*link)->next)
        if ((*link)->base == p) {
            found = *link;
            *link = found->next;
            break;
        }
    (void)pthread_mutex_unlock(&g_lock);
    tp_free(found);
    kern_dev_free(d, p);
}

/* The memory behind a handle that this process made, or NULL. */
static void *find_own(const kern_dev_ipc *handle, int *ordinal)
{
    void *p = NULL;

    (void)pthread_mutex_lock(&g_lock);
    for (const shared *s = g_shared; s != NULL && p == NULL; s = s->next)
        if (memcmp(&s->handle, handle, sizeof *handle) == 0) {
            p = s->base;
            *ordinal = s->ordinal;
        }
    (void)pthread_mutex_unlock(&g_lock);
    return p;
}

tp_status kern_dev_ipc_open(kern_dev *d, const kern_dev_ipc *handle, void **out)
{
    cudaIpcMemHandle_t h;
    int ordinal = 0;
    void *p = find_own(handle, &ordinal);

    if (p == NULL) {
        memcpy(&h, handle, sizeof h);
        CUDA_TRY(d, cudaIpcOpenMemHandle(&p, h, cudaIpcMemLazyEnablePeerAccess),
                 "mapping the memory of a peer: GPUs of one host reach each other over CUDA IPC "
                 "only inside one container");
    } else if (ordinal != d->props.ordinal) {
        cudaError_t e;

        kern_dev_enter(d);
        e = cudaDeviceEnablePeerAccess(ordinal, 0);
        if (e != cudaSuccess && e != cudaErrorPeerAccessAlreadyEnabled)
            return kern_dev_cuda_fail(d, e, "reaching the memory of another device");
        (void)cudaGetLastError();
    }
    *out = p;
    return TP_OK;
}

void kern_dev_ipc_close(kern_dev *d, void *p)
{
    bool own = false;

    if (p == NULL)
        return;
    (void)pthread_mutex_lock(&g_lock);
    for (const shared *s = g_shared; s != NULL; s = s->next)
        own = own || s->base == p;
    (void)pthread_mutex_unlock(&g_lock);
    kern_dev_enter(d);
    if (!own)
        (void)cudaIpcCloseMemHandle(p);
}
