/* SPDX-License-Identifier: Apache-2.0 */
/* ref_internal.h - the scalar backend: the definition of every operation, written to be read, and the oracle of the
 * tests.  One thread, weights row-major as they came, the cache as [token][head][head_dim], libm's functions.
 */
#ifndef KERN_REF_INTERNAL_H
#define KERN_REF_INTERNAL_H

#include "kernels/convert.h"
#include "kernels/kern_check.h"

struct kern_weight {
    kern_weight_desc desc;
    unsigned char *data; /* owned; [n, k] of desc.dtype */
};

struct kern_kv {
    kern_kv_desc desc;
    unsigned char *data; /* owned; [layer][k, v][block][token][head][head_dim] of desc.dtype */
};

/* Address of the head_dim numbers of one token. */
static inline unsigned char *kern_ref_kv_at(const kern_kv *kv, int layer, int is_v, int64_t slot,
                                            int head)
{
    const kern_kv_desc *d = &kv->desc;
    int64_t n_slots = (int64_t)d->n_blocks * d->block_tokens;
    int64_t row = ((int64_t)layer * 2 + is_v) * n_slots + slot;

    return kv->data + (size_t)((row * d->n_kv + head) * d->head_dim) * kern_dtype_bytes(d->dtype);
}

size_t kern_ref_weight_bytes(const kern_backend *be, const kern_weight_desc *d);
tp_status kern_ref_weight_create(kern_backend *be, const kern_weight_desc *d, kern_weight **out);
tp_status kern_ref_weight_put(kern_backend *be, kern_weight *w, const kern_weight_rows *rows);
void kern_ref_weight_destroy(kern_backend *be, kern_weight *w);
size_t kern_ref_gemm_scratch_bytes(const kern_backend *be, int m_max, int64_t n_max, int64_t k_max);
tp_status kern_ref_embed(kern_backend *be, const kern_embed_args *a);
tp_status kern_ref_gemm(kern_backend *be, const kern_gemm_args *a);

tp_status kern_ref_rmsnorm(kern_backend *be, const kern_rmsnorm_args *a);
tp_status kern_ref_rope_table(kern_backend *be, const kern_rope_table_args *a);
tp_status kern_ref_silu_mul(kern_backend *be, const kern_silu_mul_args *a);
tp_status kern_ref_gather(kern_backend *be, const kern_gather_args *a);

size_t kern_ref_kv_block_bytes(const kern_backend *be, const kern_kv_desc *d);
tp_status kern_ref_kv_create(kern_backend *be, const kern_kv_desc *d, kern_kv **out);
void kern_ref_kv_destroy(kern_backend *be, kern_kv *kv);
tp_status kern_ref_kv_copy_block(kern_backend *be, kern_kv *kv, int32_t dst, int32_t src);
tp_status kern_ref_qkv(kern_backend *be, const kern_qkv_args *a);
size_t kern_ref_attn_scratch_bytes(const kern_backend *be, int n_q, int head_dim, int64_t ctx_max,
                                   int seqs_max);
tp_status kern_ref_attn(kern_backend *be, const kern_attn_args *a);

tp_status kern_ref_adjust(kern_backend *be, const kern_adjust_args *a);
tp_status kern_ref_topk(kern_backend *be, const kern_topk_args *a);
tp_status kern_ref_chunk_stats(kern_backend *be, const kern_chunk_args *a);
tp_status kern_ref_draw(kern_backend *be, const kern_draw_args *a);

#endif
