/* SPDX-License-Identifier: Apache-2.0 */
/* kern_inline.h - call forms of the table: kern_rmsnorm(be, &(kern_rmsnorm_args){ .out = x, ... }).
 * Included by kern.h only. */
#ifndef KERN_INLINE_H
#define KERN_INLINE_H

#define KERN_CALL(op, args_type)                                                                   \
    TP_MUST_USE static inline tp_status kern_##op(kern_backend *be, const args_type *a)            \
    {                                                                                              \
        return be->ops->op(be, a);                                                                 \
    }

KERN_CALL(embed, kern_embed_args)
KERN_CALL(rmsnorm, kern_rmsnorm_args)
KERN_CALL(gemm, kern_gemm_args)
KERN_CALL(rope_table, kern_rope_table_args)
KERN_CALL(qkv, kern_qkv_args)
KERN_CALL(attn, kern_attn_args)
KERN_CALL(silu_mul, kern_silu_mul_args)
KERN_CALL(take, kern_take_args)
KERN_CALL(scatter, kern_scatter_args)
KERN_CALL(gather, kern_gather_args)
KERN_CALL(adjust, kern_adjust_args)
KERN_CALL(topk, kern_topk_args)
KERN_CALL(chunk_stats, kern_chunk_args)
KERN_CALL(draw, kern_draw_args)

#undef KERN_CALL

#endif
