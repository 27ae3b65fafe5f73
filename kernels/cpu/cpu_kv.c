/* SPDX-License-Identifier: Apache-2.0 */
/* cpu_kv.c - the paged cache: making it, copying blocks, writing tokens. */
#include "kernels/cpu/cpu_kv.h"

#include <string.h>

#include "base/mem.h"
#include "kernels/convert.h"
#include "kernels/kern_check.h"

#define FILL_BYTES_MIN ((size_t)64 << 20) /* from here on pages are taken ahead of their use */

size_t kern_cpu_kv_block_bytes(const kern_backend *be, const kern_kv_desc *d)
{
    (void)be;
    return (size_t)d->n_layers * 2 * (size_t)d->n_kv * (size_t)d->block_tokens *
           (size_t)kern_cpu_kv_pad(d->head_dim) * kern_dtype_bytes(d->dtype);
}

tp_status kern_cpu_kv_create(kern_backend *be, const kern_kv_desc *d, kern_kv **out)
{
    kern_kv *kv;
    size_t bytes;

    TP_TRY(kern_check_kv_desc(d));
    bytes = kern_cpu_kv_block_bytes(be, d) * (size_t)d->n_blocks;
    kv = tp_calloc(1, sizeof *kv);
    if (kv != NULL)
        kv->data = tp_aligned_alloc(KERN_CPU_ALIGN, bytes);
    if (kv == NULL || kv->data == NULL) {
        kern_cpu_kv_destroy(be, kv);
        return TP_FAIL(TP_ERR_NOMEM,
                       "out of memory: kv cache of %zu bytes; lower --kv-cache-memory-bytes",
                       bytes);
    }
    kv->desc = *d;
    kv->hd = kern_cpu_kv_pad(d->head_dim);
    kv->groups = d->block_tokens / KERN_CPU_GROUP;
    kv->group_bytes = (size_t)KERN_CPU_GROUP * (size_t)kv->hd * kern_dtype_bytes(d->dtype);
    if (bytes >= FILL_BYTES_MIN)
        kv->filler = kern_cpu_kv_fill(kv->data, bytes);
    *out = kv;
    return TP_OK;
}

void kern_cpu_kv_destroy(kern_backend *be, kern_kv *kv)
{
    (void)be;
    if (kv == NULL)
        return;
    kern_cpu_kv_fill_stop(kv->filler);
    tp_free(kv->data);
    tp_free(kv);
}

tp_status kern_cpu_kv_copy_block(kern_backend *be, kern_kv *kv, int32_t dst, int32_t src)
{
    size_t bytes = 2 * (size_t)kv->desc.n_kv * (size_t)kv->groups * kv->group_bytes;

    (void)be;
    TP_TRY(kern_check_kv_blocks(&kv->desc, dst, src));
    for (int layer = 0; layer < kv->desc.n_layers && dst != src && bytes > 0; layer++)
        memcpy(kern_cpu_kv_at(kv, layer, dst, 0), kern_cpu_kv_at(kv, layer, src, 0), bytes);
    return TP_OK;
}

void kern_cpu_kv_put(const kern_cpu_vec *vec, kern_kv *kv, int layer, int32_t slot, int head,
                     const float *k, const float *v)
{
    int hd = kv->desc.head_dim, offset = slot % kv->desc.block_tokens;
    int lane = offset % KERN_CPU_GROUP;
    unsigned char *base = kern_cpu_kv_at(kv, layer, slot / kv->desc.block_tokens, head) +
                          (size_t)(offset / KERN_CPU_GROUP) * kv->group_bytes;
    unsigned char *vbase = base + (size_t)kv->groups * kv->group_bytes;
    size_t v_at = (size_t)lane * (size_t)kv->hd;

    if (kv->desc.dtype == KERN_DTYPE_F32) {
        float *kf = (float *)(void *)base;

        for (int d = 0; d < hd; d++)
            kf[d * KERN_CPU_GROUP + lane] = k[d];
        memcpy((float *)(void *)vbase + v_at, v, (size_t)hd * sizeof *v);
    } else if (kv->desc.dtype == KERN_DTYPE_BF16) {
        uint16_t *kh = (uint16_t *)(void *)base;
        uint16_t *vh = (uint16_t *)(void *)vbase + lane / 2 * 2 * kv->hd + lane % 2;

        for (int d = 0; d < hd; d += 2) {
            kh[d * KERN_CPU_GROUP + 2 * lane] = kern_f32_to_bf16(k[d]);
            kh[d * KERN_CPU_GROUP + 2 * lane + 1] = kern_f32_to_bf16(k[d + 1]);
        }
        for (int d = 0; d < hd; d++)
            vh[2 * d] = kern_f32_to_bf16(v[d]);
    } else {
        uint16_t *kh = (uint16_t *)(void *)base;

        for (int d = 0; d < hd; d++)
            kh[d * KERN_CPU_GROUP + lane] = kern_f32_to_f16(k[d]);
        vec->to_f16((uint16_t *)(void *)vbase + v_at, v, hd);
    }
}
