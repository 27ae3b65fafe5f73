/* SPDX-License-Identifier: Apache-2.0 */
/* kern_check.h - argument checks shared by all backends, so that a wrong shape fails with the same text everywhere.
 *
 * They cost tens of nanoseconds and are always on.  What lies behind an opaque handle is passed as its description.
 * The _items checks read arrays, so they are for backends whose memory is the host's; call them after the others.
 */
#ifndef KERN_CHECK_H
#define KERN_CHECK_H

#include "kernels/kern.h"

tp_status kern_check_open(const kern_open_args *a);
tp_status kern_check_weight_desc(const kern_weight_desc *d);
tp_status kern_check_weight_rows(const kern_weight_rows *rows, const kern_weight_desc *d);
tp_status kern_check_kv_desc(const kern_kv_desc *d);
tp_status kern_check_kv_blocks(const kern_kv_desc *d, int32_t dst, int32_t src);
tp_status kern_check_embed(const kern_embed_args *a, const kern_weight_desc *d);
tp_status kern_check_gemm(const kern_gemm_args *a, const kern_weight_desc *d);
tp_status kern_check_rmsnorm(const kern_rmsnorm_args *a);
tp_status kern_check_rope_table(const kern_rope_table_args *a);
tp_status kern_check_qkv(const kern_qkv_args *a, const kern_kv_desc *d);
tp_status kern_check_qkv_items(const kern_qkv_args *a, const kern_kv_desc *d);
tp_status kern_check_attn(const kern_attn_args *a, const kern_kv_desc *d);
tp_status kern_check_attn_items(const kern_attn_args *a, const kern_kv_desc *d);
tp_status kern_check_silu_mul(const kern_silu_mul_args *a);
tp_status kern_check_gather(const kern_gather_args *a);
/* take ("take") and scatter */
tp_status kern_check_words(const char *op, const void *out, const void *in, const int32_t *idx,
                           int n);
tp_status kern_check_adjust(const kern_adjust_args *a);
tp_status kern_check_adjust_items(const kern_adjust_args *a);
tp_status kern_check_topk(const kern_topk_args *a);
tp_status kern_check_chunk(const kern_chunk_args *a);
tp_status kern_check_draw(const kern_draw_args *a);

#endif
