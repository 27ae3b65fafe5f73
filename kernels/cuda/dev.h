/* SPDX-License-Identifier: Apache-2.0 */
/* dev.h - the device as our host code sees it: memory, one or more streams, events, graphs, peers.
 *
 * Two implementations of every function: dev_cuda.c (the CUDA runtime) and emu/dev_emu.cpp (the emulated device).
 * The emulated stream is a deferred queue that runs when somebody waits, so a missing wait shows.
 *
 * Errors: TP_ERR_DEVICE with the CUDA name of the error, what was being done, and the device; a sticky error (illegal
 * address, launch timeout...) makes every later call fail with the first message.  TP_ERR_NOMEM for memory.
 * Threads: one thread at a time per device; kern_dev_query_error() may be called by a watchdog at any time.
 */
#ifndef KERN_DEV_H
#define KERN_DEV_H

#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kern_dev kern_dev;
typedef struct kern_dev_graph kern_dev_graph;
/* A cudaStream_t, cudaEvent_t; in the emulator its own objects. */
typedef void *kern_stream;
typedef void *kern_event;

typedef struct kern_dev_props {
    char name[128], pci[32], uuid[64]; /* pci "0000:3b:00.0", uuid "GPU-..." or "MIG-..." */
    int ordinal, cc;                   /* compute capability: 80, 89, 90, 100 */
    int n_sm, max_smem_per_block;      /* opt-in bytes */
    int driver, runtime;               /* 13000 = 13.0 */
    int clock_mhz, l2_bytes;
    int64_t memory_bytes;
    /* Datasheet bandwidth in 10^9 bytes/s, from bus width and clock; 0 = unknown. */
    double memory_gbps;
    bool integrated, mig;
} kern_dev_props;

/* Devices that this process may use; 0 with TP_OK when there is a driver but no device.  DEVICE: no driver; its text
 * says what was tried. */
TP_MUST_USE tp_status kern_dev_count(int *n);
TP_MUST_USE tp_status kern_dev_open(kern_dev **out, int ordinal);
void kern_dev_close(kern_dev *d);
const kern_dev_props *kern_dev_get_props(const kern_dev *d);
TP_MUST_USE tp_status kern_dev_memory(kern_dev *d, int64_t *total, int64_t *available);
/* Makes it the calling thread's device, which launches of kernels need; every function here does so by itself. */
void kern_dev_enter(const kern_dev *d);

/* ---- memory ---- */
TP_MUST_USE tp_status kern_dev_alloc(kern_dev *d, size_t bytes,
                                     void **out); /* zeroed, 256-byte aligned */
void kern_dev_free(kern_dev *d, void *p);
/* Kernels may read and write it, too, at the same address. */
TP_MUST_USE tp_status kern_dev_alloc_pinned(kern_dev *d, size_t bytes, void **out);
void kern_dev_free_pinned(kern_dev *d, void *p);
/* Asynchronous on a stream: host memory must be pinned and stay unchanged until the stream got there. */
TP_MUST_USE tp_status kern_dev_copy_in(kern_dev *d, void *dst, const void *src, size_t bytes,
                                       kern_stream s);
TP_MUST_USE tp_status kern_dev_copy_out(kern_dev *d, void *dst, const void *src, size_t bytes,
                                        kern_stream s);
TP_MUST_USE tp_status kern_dev_copy(kern_dev *d, void *dst, const void *src, size_t bytes,
                                    kern_stream s);
TP_MUST_USE tp_status kern_dev_set(kern_dev *d, void *dst, int byte, size_t bytes, kern_stream s);

/* ---- streams, events ---- */
TP_MUST_USE tp_status kern_dev_stream_create(kern_dev *d, kern_stream *out);
void kern_dev_stream_destroy(kern_dev *d, kern_stream s);
TP_MUST_USE tp_status kern_dev_sync(kern_dev *d, kern_stream s);
/* *done: nothing is under way any more. */
TP_MUST_USE tp_status kern_dev_query(kern_dev *d, kern_stream s, bool *done);
TP_MUST_USE tp_status kern_dev_event_create(kern_dev *d, bool timing, kern_event *out);
void kern_dev_event_destroy(kern_dev *d, kern_event e);
TP_MUST_USE tp_status kern_dev_event_record(kern_dev *d, kern_event e, kern_stream s);
TP_MUST_USE tp_status kern_dev_event_wait(kern_dev *d, kern_event e); /* the host waits */
TP_MUST_USE tp_status kern_dev_stream_wait(kern_dev *d, kern_stream s,
                                           kern_event e); /* the stream waits */
TP_MUST_USE tp_status kern_dev_event_query(kern_dev *d, kern_event e, bool *done);
TP_MUST_USE tp_status kern_dev_event_ms(kern_dev *d, kern_event from, kern_event to, float *ms);

/* ---- graphs: everything issued on the stream between begin and end is recorded, not executed ---- */
TP_MUST_USE tp_status kern_dev_graph_begin(kern_dev *d, kern_stream s);
TP_MUST_USE tp_status kern_dev_graph_end(kern_dev *d, kern_stream s, kern_dev_graph **out);
TP_MUST_USE tp_status kern_dev_graph_launch(kern_dev *d, kern_dev_graph *g, kern_stream s);
void kern_dev_graph_destroy(kern_dev *d, kern_dev_graph *g);

/* ---- peers on the same node: memory of another process ---- */
#define KERN_DEV_IPC_BYTES 64
typedef struct kern_dev_ipc {
    unsigned char bytes[KERN_DEV_IPC_BYTES];
} kern_dev_ipc;

/* Memory that may be exported; zeroed.  In the emulator it is shared memory.  A handle that this process made itself
 * opens as the pointer it stands for: virtual ranks need no special case. */
TP_MUST_USE tp_status kern_dev_alloc_shared(kern_dev *d, size_t bytes, void **out,
                                            kern_dev_ipc *handle);
void kern_dev_free_shared(kern_dev *d, void *p);
TP_MUST_USE tp_status kern_dev_ipc_open(kern_dev *d, const kern_dev_ipc *handle, void **out);
void kern_dev_ipc_close(kern_dev *d, void *p);

/* The first sticky error seen, or TP_OK. */
tp_status kern_dev_query_error(kern_dev *d);

#ifdef __cplusplus
}
#endif

#endif
