/* SPDX-License-Identifier: Apache-2.0 */
/* dev_emu.h - the inside of the emulated device; private to kernels/cuda/emu (and to tests, for the setters).
 *
 * Device memory is mapped memory of this process with a guard page on either side.  While no stream runs it can be
 * neither read nor written, so that host code that follows a device pointer dies as it would on a machine with a GPU.
 * Work lies in queues until somebody waits (dev_stream_emu.c).
 */
#ifndef KERN_DEV_EMU_H
#define KERN_DEV_EMU_H

#include <stdatomic.h>

#include "kernels/cuda/dev.h"

/* What the emulated machine is made of; before the first kern_dev_open(). */
typedef struct emu_machine {
    int n_devices, cc, n_sm;
    int64_t memory_bytes; /* per device */
    bool open_memory; /* device memory stays readable: for debuggers, and tests that look inside */
} emu_machine;

/* Defaults: 8 devices, 90, 132, 4 GiB, false.  NULL restores them. */
void emu_set_machine(const emu_machine *m);
const emu_machine *emu_get_machine(void);

typedef void (*emu_fn)(void *closure);
typedef struct emu_stream emu_stream;

/* Queue entries; recycled, since issuing work must not use the heap (tp_mem_forbid). */
#define EMU_PAYLOAD_WORDS 8
typedef struct emu_node {
    struct emu_node *next;
    emu_fn run, drop; /* drop may be NULL */
    void *closure;    /* owned until drop; or this node's payload */
    uint64_t payload[EMU_PAYLOAD_WORDS];
} emu_node;

struct kern_dev {
    kern_dev_props props;
    emu_stream *streams;       /* owned, by kern_dev_stream_create */
    kern_dev_graph *recording; /* NULL, or what is being recorded now */
    emu_node *free_nodes;
    void *node_chunks;    /* owned; each starts with the address of the next */
    atomic_bool failed;   /* error_text is final */
    char error_text[256]; /* of the first sticky error */
};

/* A failed call, named as CUDA names it; logs. */
tp_status emu_fail(const kern_dev *d, const char *cuda_name, const char *what);
/* The same, and every later call fails with this text. */
void emu_fail_for_good(kern_dev *d, const char *cuda_name, const char *what);
/* OK, or the sticky error again (not logged). */
tp_status emu_usable(kern_dev *d);
/* OK, or: not while a graph is recorded, which is then spoilt. */
tp_status emu_not_recording(kern_dev *d, const char *what);

/* Is all of [p, p + bytes) in one allocation of the device (or of a peer), or of pinned memory? */
bool emu_is_device(const void *p, size_t bytes);
bool emu_is_pinned(const void *p, size_t bytes);
/* Around everything that runs on the device: opens and closes its memory.  Any thread; counts. */
void emu_memory_open(void);
void emu_memory_close(void);

/* Puts work on a stream; NULL runs it at once. */
tp_status emu_enqueue(kern_dev *d, kern_stream s, emu_fn run, const void *payload, size_t bytes);
/* Runs all streams empty, as what waits for the whole device; a recording is spoilt by it. */
void emu_run_all(kern_dev *d);
void emu_streams_destroy(kern_dev *d);

#endif
