/* SPDX-License-Identifier: Apache-2.0 */
/* cuda_memory.c - bytes between host and device, weights, the KV cache.
 *
 * Host memory is copied into a pinned ring first, so that the caller has it back when put() returns and the copy to the
 * device runs beside the next one.  Weights take the same way, a few rows at a time, with the threads of the backend
 * reading (their source is a mapped file, so reading means page faults); rows of another type are converted on the
 * device.
 */
#include <string.h>

#include "base/mem.h"
#include "kernels/cuda/cuda_internal.h"
#include "kernels/kern_check.h"

#define LD_ELEMENTS    8 /* rows of a weight start on 16 bytes */
#define DEVICE_GRAIN   256
#define TEAM_BYTES_MIN ((size_t)256 << 10) /* less is not worth waking threads */

static size_t round_up(size_t n, size_t grain)
{
    return (n + grain - 1) / grain * grain;
}

tp_status kern_cuda_not_recording(cuda_backend *b, const char *what)
{
    if (TP_LIKELY(!b->recording))
        return TP_OK;
    b->spoilt = true;
    return TP_FAIL(TP_ERR_INVALID, "%s while a graph is recorded: only operations can be", what);
}

/* ---- the ring ---- */
tp_status kern_cuda_ring_create(cuda_backend *b)
{
    void *p;

    for (int i = 0; i < CUDA_CHUNKS; i++) {
        TP_TRY(kern_dev_alloc_pinned(b->dev, CUDA_CHUNK_BYTES, &p));
        b->ring.chunk[i] = p;
        TP_TRY(kern_dev_event_create(b->dev, false, &b->ring.free[i]));
    }
    TP_TRY(kern_dev_alloc_pinned(b->dev, CUDA_CHUNK_BYTES, &p));
    b->bounce = p;
    for (int i = 0; i < KERN_FETCHES; i++) {
        TP_TRY(kern_dev_alloc_pinned(b->dev, KERN_FETCH_BYTES, &p));
        b->mail[i].data = p;
        TP_TRY(kern_dev_event_create(b->dev, false, &b->mail[i].arrived));
    }
    return TP_OK;
}

static void free_device_chunks(cuda_backend *b)
{
    for (int i = 0; i < CUDA_CHUNKS; i++) {
        kern_dev_free(b->dev, b->ring.device_chunk[i]);
        b->ring.device_chunk[i] = NULL;
    }
}

void kern_cuda_ring_destroy(cuda_backend *b)
{
    free_device_chunks(b);
    for (int i = 0; i < CUDA_CHUNKS; i++) {
        kern_dev_event_destroy(b->dev, b->ring.free[i]);
        kern_dev_free_pinned(b->dev, b->ring.chunk[i]);
    }
    kern_dev_free_pinned(b->dev, b->bounce);
    for (int i = 0; i < KERN_FETCHES; i++) {
        kern_dev_event_destroy(b->dev, b->mail[i].arrived);
        kern_dev_free_pinned(b->dev, b->mail[i].data);
    }
}

/* Goes on to the next chunk, and waits until it is free. */
static tp_status next_chunk(cuda_backend *b)
{
    cuda_ring *r = &b->ring;

    TP_TRY(kern_dev_event_record(b->dev, r->free[r->at], b->stream));
    r->at = (r->at + 1) % CUDA_CHUNKS;
    r->used = 0;
    return kern_dev_event_wait(b->dev, r->free[r->at]); /* at once when it was never recorded */
}

/* At least `least` and at most `*bytes` bytes of pinned memory; *bytes becomes what there is. */
static tp_status take_room(cuda_backend *b, size_t least, size_t *bytes, unsigned char **out)
{
    cuda_ring *r = &b->ring;

    if (CUDA_CHUNK_BYTES - r->used < least)
        TP_TRY(next_chunk(b));
    if (*bytes > CUDA_CHUNK_BYTES - r->used)
        *bytes = CUDA_CHUNK_BYTES - r->used;
    *out = r->chunk[r->at] + r->used;
    r->used = round_up(r->used + *bytes, 16);
    return TP_OK;
}

tp_status kern_cuda_put(kern_backend *be, void *dst, const void *src, size_t bytes)
{
    cuda_backend *b = cuda_of(be);
    const unsigned char *from = src;
    unsigned char *to = dst;

    TP_TRY(kern_cuda_not_recording(b, "put"));
    while (bytes > 0) {
        size_t n = bytes;
        unsigned char *room;

        TP_TRY(take_room(b, bytes < CUDA_CHUNK_BYTES ? bytes : CUDA_CHUNK_BYTES, &n, &room));
        memcpy(room, from, n);
        TP_TRY(kern_dev_copy_in(b->dev, to, room, n, b->stream));
        from += n;
        to += n;
        bytes -= n;
    }
    return TP_OK;
}

/* Also waits when there is nothing to copy: that is how a caller waits. */
tp_status kern_cuda_get(kern_backend *be, void *dst, const void *src, size_t bytes)
{
    cuda_backend *b = cuda_of(be);
    const unsigned char *from = src;
    unsigned char *to = dst;

    TP_TRY(kern_cuda_not_recording(b, "get"));
    if (bytes == 0)
        return kern_dev_sync(b->dev, b->stream);
    while (bytes > 0) {
        size_t n = bytes < CUDA_CHUNK_BYTES ? bytes : CUDA_CHUNK_BYTES;

        TP_TRY(kern_dev_copy_out(b->dev, b->bounce, from, n, b->stream));
        TP_TRY(kern_dev_sync(b->dev, b->stream));
        memcpy(to, b->bounce, n);
        from += n;
        to += n;
        bytes -= n;
    }
    return TP_OK;
}

tp_status kern_cuda_fetch_begin(kern_backend *be, int at, const void *src, size_t bytes)
{
    cuda_backend *b = cuda_of(be);

    TP_ASSERT(at >= 0 && at < KERN_FETCHES && bytes <= KERN_FETCH_BYTES);
    TP_TRY(kern_cuda_not_recording(b, "fetch"));
    if (bytes > 0)
        TP_TRY(kern_dev_copy_out(b->dev, b->mail[at].data, src, bytes, b->stream));
    return kern_dev_event_record(b->dev, b->mail[at].arrived, b->stream);
}

tp_status kern_cuda_fetch_end(kern_backend *be, int at, void *dst, size_t bytes)
{
    cuda_backend *b = cuda_of(be);

    TP_ASSERT(at >= 0 && at < KERN_FETCHES && bytes <= KERN_FETCH_BYTES);
    TP_TRY(kern_dev_event_wait(b->dev, b->mail[at].arrived));
    if (bytes > 0)
        memcpy(dst, b->mail[at].data, bytes);
    return TP_OK;
}

/* ---- weights ---- */
static int64_t weight_ld(const kern_weight_desc *d)
{
    return (d->k + LD_ELEMENTS - 1) / LD_ELEMENTS * LD_ELEMENTS;
}

size_t kern_cuda_weight_bytes(const kern_backend *be, const kern_weight_desc *d)
{
    (void)be;
    return round_up((size_t)d->n * (size_t)weight_ld(d) * kern_dtype_bytes(d->dtype), DEVICE_GRAIN);
}

tp_status kern_cuda_weight_create(kern_backend *be, const kern_weight_desc *d, kern_weight **out)
{
    cuda_backend *b = cuda_of(be);
    kern_weight *w;
    tp_status st;

    TP_TRY(kern_check_weight_desc(d));
    if ((size_t)weight_ld(d) * sizeof(float) > CUDA_CHUNK_BYTES)
        return TP_FAIL(TP_ERR_UNSUPPORTED, "weight [%lld, %lld]: at most %zu columns are supported",
                       (long long)d->n, (long long)d->k, CUDA_CHUNK_BYTES / sizeof(float));
    w = tp_calloc(1, sizeof *w);
    if (w == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "weight [%lld, %lld]: no memory for its head", (long long)d->n,
                       (long long)d->k);
    w->desc = *d;
    w->ld = weight_ld(d);
    st = kern_dev_alloc(b->dev, kern_cuda_weight_bytes(be, d), &w->data);
    if (st != TP_OK) {
        tp_free(w);
        return st;
    }
    *out = w;
    return TP_OK;
}

void kern_cuda_weight_destroy(kern_backend *be, kern_weight *w)
{
    if (w == NULL)
        return;
    kern_dev_free(cuda_of(be)->dev, w->data);
    tp_free(w);
}

/* Rows from..from + n of the source into pinned memory, `pitch` bytes apart; what lies between is zero. */
static void pack_rows(const cuda_backend *b, unsigned char *to, size_t pitch,
                      const kern_weight_rows *rows, int64_t from, int64_t n, size_t row_bytes)
{
    const unsigned char *src = (const unsigned char *)rows->src + (size_t)from * rows->src_stride;
    int n_threads = (size_t)n * row_bytes >= TEAM_BYTES_MIN ? b->base.n_threads : 1;

#pragma omp parallel for num_threads(n_threads) schedule(static)
    for (int64_t i = 0; i < n; i++) {
        unsigned char *row = to + (size_t)i * pitch;

        memcpy(row, src + (size_t)i * rows->src_stride, row_bytes);
        memset(row + row_bytes, 0, pitch - row_bytes);
    }
}

/* Where the elements in the current chunk's pinned memory lie on the device before they are converted. */
static tp_status device_room(cuda_backend *b, const unsigned char *pinned, void **out)
{
    cuda_ring *r = &b->ring;

    if (r->device_chunk[r->at] == NULL)
        TP_TRY(kern_dev_alloc(b->dev, CUDA_CHUNK_BYTES, &r->device_chunk[r->at]));
    *out = (unsigned char *)r->device_chunk[r->at] + (pinned - r->chunk[r->at]);
    return TP_OK;
}

/* As many rows as the ring has room for, at least one; *done goes on by that number. */
static tp_status put_some_rows(cuda_backend *b, kern_weight *w, const kern_weight_rows *rows,
                               int64_t *done)
{
    bool same = rows->src_dtype == w->desc.dtype;
    size_t row_bytes = (size_t)w->desc.k * kern_dtype_bytes(rows->src_dtype);
    size_t pitch = same ? (size_t)w->ld * kern_dtype_bytes(w->desc.dtype) : row_bytes;
    size_t bytes = (size_t)(rows->n_rows - *done) * pitch;
    unsigned char *room;
    void *staged, *dst = (unsigned char *)w->data + (size_t)(rows->row + *done) * (size_t)w->ld *
                                                        kern_dtype_bytes(w->desc.dtype);
    int64_t n;

    TP_TRY(take_room(b, pitch, &bytes, &room));
    n = (int64_t)(bytes / pitch);
    bytes = (size_t)n * pitch;
    pack_rows(b, room, pitch, rows, *done, n, row_bytes);
    *done += n;
    if (same)
        return kern_dev_copy_in(b->dev, dst, room, bytes, b->stream);
    TP_TRY(device_room(b, room, &staged));
    TP_TRY(kern_dev_copy_in(b->dev, staged, room, bytes, b->stream));
    kern_dev_enter(b->dev);
    return kern_cuda_convert(dst, w->desc.dtype, w->ld, staged, rows->src_dtype, n, w->desc.k,
                             b->stream);
}

tp_status kern_cuda_weight_put(kern_backend *be, kern_weight *w, const kern_weight_rows *rows)
{
    cuda_backend *b = cuda_of(be);
    int64_t done = 0;

    TP_TRY(kern_check_weight_rows(rows, &w->desc));
    TP_TRY(kern_cuda_not_recording(b, "weight put"));
    while (w->desc.k > 0 && done < rows->n_rows)
        TP_TRY(put_some_rows(b, w, rows, &done));
    return TP_OK;
}

/* ---- the KV cache ---- */
static size_t block_elements(const kern_kv_desc *d)
{
    return 2 * (size_t)d->n_kv * (size_t)d->block_tokens * (size_t)d->head_dim;
}

size_t kern_cuda_kv_block_bytes(const kern_backend *be, const kern_kv_desc *d)
{
    (void)be;
    return (size_t)d->n_layers * block_elements(d) * kern_dtype_bytes(d->dtype);
}

/* Loading is over by now: the memory of conversions goes back first. */
tp_status kern_cuda_kv_create(kern_backend *be, const kern_kv_desc *d, kern_kv **out)
{
    cuda_backend *b = cuda_of(be);
    kern_kv *kv;
    tp_status st;

    TP_TRY(kern_check_kv_desc(d));
    if (!kern_cuda_attn_supports(d->head_dim, d->dtype))
        return TP_FAIL(
            TP_ERR_UNSUPPORTED,
            "attention with head_dim %d and a %s cache is not supported on GPUs: expected "
            "64, 80, 96, 128, 192 or 256 (or up to 32); run this model with --device cpu",
            d->head_dim, kern_dtype_name(d->dtype));
    TP_TRY(kern_dev_sync(b->dev, b->stream));
    free_device_chunks(b);
    kv = tp_calloc(1, sizeof *kv);
    if (kv == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "kv cache: no memory for its head");
    kv->desc = *d;
    kv->head_stride = (int64_t)d->block_tokens * d->head_dim;
    kv->v_offset = d->n_kv * kv->head_stride;
    kv->block_stride = 2 * kv->v_offset;
    kv->layer_stride = d->n_blocks * kv->block_stride;
    st = kern_dev_alloc(b->dev, kern_cuda_kv_block_bytes(be, d) * (size_t)d->n_blocks, &kv->data);
    if (st != TP_OK) {
        tp_free(kv);
        return st;
    }
    *out = kv;
    return TP_OK;
}

void kern_cuda_kv_destroy(kern_backend *be, kern_kv *kv)
{
    if (kv == NULL)
        return;
    kern_dev_free(cuda_of(be)->dev, kv->data);
    tp_free(kv);
}

tp_status kern_cuda_kv_copy_block(kern_backend *be, kern_kv *kv, int32_t dst, int32_t src)
{
    cuda_backend *b = cuda_of(be);
    size_t size = kern_dtype_bytes(kv->desc.dtype), bytes = (size_t)kv->block_stride * size;

    TP_TRY(kern_check_kv_blocks(&kv->desc, dst, src));
    for (int layer = 0; layer < kv->desc.n_layers && dst != src; layer++) {
        unsigned char *base =
            (unsigned char *)kv->data + (size_t)layer * (size_t)kv->layer_stride * size;

        TP_TRY(kern_dev_copy(b->dev, base + (size_t)dst * bytes, base + (size_t)src * bytes, bytes,
                             b->stream));
    }
    return TP_OK;
}
