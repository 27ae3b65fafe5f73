/* SPDX-License-Identifier: Apache-2.0 */
/* cuda_internal.h - the backend over dev.h, gemm.h and launch.h; private to cuda_*.c.
 *
 * One stream.  The same text is the "cuda" backend (libtpserve_cuda.so) and the "emu" one (libtpserve_emu.so).
 */
#ifndef KERN_CUDA_INTERNAL_H
#define KERN_CUDA_INTERNAL_H

#include "kernels/cuda/dev.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/launch.h"
#include "kernels/kern.h"

#define CUDA_CHUNK_BYTES ((size_t)8 << 20)
#define CUDA_CHUNKS      4

/* Pinned memory that host data goes through.  Chunks are filled in turn, many small pieces to a chunk; an event at the
 * end of a chunk says when it may be filled again. */
typedef struct cuda_ring {
    unsigned char *chunk[CUDA_CHUNKS]; /* owned, pinned */
    kern_event free[CUDA_CHUNKS];      /* owned; reached when the chunk's copies are done */
    void *device_chunk
        [CUDA_CHUNKS]; /* owned, device: where elements wait for conversion; NULL until needed */
    int at;
    size_t used; /* of the chunk `at` */
} cuda_ring;

/* What a fetch brings, and when it is there. */
typedef struct cuda_mail {
    unsigned char *data; /* owned, pinned, KERN_FETCH_BYTES */
    kern_event arrived;  /* owned */
} cuda_mail;

typedef struct cuda_backend {
    kern_backend base; /* first */
    kern_dev *dev;
    kern_stream stream;
    kern_dev_gemm *gemm;
    cuda_ring ring;
    unsigned char *bounce; /* owned, pinned, CUDA_CHUNK_BYTES: for get */
    cuda_mail mail[KERN_FETCHES];
    bool recording, spoilt;
    int n_sm;
    char isa[16];
} cuda_backend;

static inline cuda_backend *cuda_of(kern_backend *be)
{
    return (cuda_backend *)(void *)be;
}

/* OK, or: not while a graph is recorded, which is then spoilt. */
tp_status kern_cuda_not_recording(cuda_backend *b, const char *what);

tp_status kern_cuda_ring_create(cuda_backend *b);
void kern_cuda_ring_destroy(cuda_backend *b);
tp_status kern_cuda_put(kern_backend *be, void *dst, const void *src, size_t bytes);
tp_status kern_cuda_get(kern_backend *be, void *dst, const void *src, size_t bytes);
tp_status kern_cuda_fetch_begin(kern_backend *be, int at, const void *src, size_t bytes);
tp_status kern_cuda_fetch_end(kern_backend *be, int at, void *dst, size_t bytes);

size_t kern_cuda_weight_bytes(const kern_backend *be, const kern_weight_desc *d);
tp_status kern_cuda_weight_create(kern_backend *be, const kern_weight_desc *d, kern_weight **out);
tp_status kern_cuda_weight_put(kern_backend *be, kern_weight *w, const kern_weight_rows *rows);
void kern_cuda_weight_destroy(kern_backend *be, kern_weight *w);

size_t kern_cuda_kv_block_bytes(const kern_backend *be, const kern_kv_desc *d);
tp_status kern_cuda_kv_create(kern_backend *be, const kern_kv_desc *d, kern_kv **out);
void kern_cuda_kv_destroy(kern_backend *be, kern_kv *kv);
tp_status kern_cuda_kv_copy_block(kern_backend *be, kern_kv *kv, int32_t dst, int32_t src);

#endif
