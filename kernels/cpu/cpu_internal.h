/* SPDX-License-Identifier: Apache-2.0 */
/* cpu_internal.h - what the files of the CPU backend share.
 *
 * One struct per open backend: the instruction set that was chosen at open, and from it the tables of
 * micro-kernels (vec: norms, attention, sampling; the matrix product keeps its own).  Operations are written once,
 * in plain C around those tables; only files named *_avx2.c, *_avx512.c, *_amx.c contain instructions that not
 * every x86-64 has, and they are reached only through a table.
 *
 * Threads: an operation is shared by the backend's team (team.h) when its work repays the microsecond that this
 * costs (kern_cpu_share).  How work is cut never changes a result.
 */
#ifndef KERN_CPU_INTERNAL_H
#define KERN_CPU_INTERNAL_H

#include "kernels/cpu/team.h"
#include "kernels/cpu/weight_slab.h"
#include "kernels/kern.h"

typedef enum kern_cpu_isa { /* in ascending order: each one implies those before it */
                            KERN_CPU_GENERIC = 0, /* plain C, the compiler's baseline */
                            KERN_CPU_AVX2 = 1,    /* AVX2, FMA, F16C */
                            KERN_CPU_AVX512 = 2,  /* AVX-512 F, BW, DQ, VL, BF16, VNNI */
                            KERN_CPU_AMX =
                                3 /* the same and AMX tiles of BF16 and INT8, granted by the kernel */
} kern_cpu_isa;

#define KERN_CPU_ISA_COUNT 4
#define KERN_CPU_ALIGN     64 /* of every block that the backend allocates */

typedef struct kern_cpu_vec kern_cpu_vec; /* vec.h */

typedef struct kern_cpu_backend {
    kern_backend base; /* first: a kern_backend * is a kern_cpu_backend * */
    kern_cpu_isa isa;
    const kern_cpu_vec *vec;
    kern_team *team;     /* owned */
    kern_cpu_slab *slab; /* where the next weight's memory comes from; its weights own it */
    uint8_t *late; /* owned; [n_threads][late_bytes]: panels of weights that are not loaded yet */
    size_t late_bytes;
    int n_late; /* weights that need it */
} kern_cpu_backend;

static inline kern_cpu_backend *kern_cpu_of(kern_backend *be)
{
    return (kern_cpu_backend *)be;
}

/* One operation whose work is some number of units; the team helps from `min_work` units on. */
static inline void kern_cpu_share(kern_backend *be, const kern_team_work *w, int64_t work,
                                  int64_t min_work)
{
    kern_team_run(kern_cpu_of(be)->team, w, work < min_work);
}

/* ---- cpuid.c ---- */
const char *kern_cpu_isa_name(kern_cpu_isa isa);
/* Can this machine and its operating system run it?  For AMX this also asks the kernel for the permission. */
bool kern_cpu_isa_available(kern_cpu_isa isa);

/* ---- weights and matrix product: weight*.c, late.c, gemm*.c, embed.c ---- */
size_t kern_cpu_weight_bytes(const kern_backend *be, const kern_weight_desc *d);
tp_status kern_cpu_weight_create(kern_backend *be, const kern_weight_desc *d, kern_weight **out);
tp_status kern_cpu_weight_put(kern_backend *be, kern_weight *w, const kern_weight_rows *rows);
void kern_cpu_weight_destroy(kern_backend *be, kern_weight *w);
tp_status kern_cpu_weight_late(kern_backend *be, kern_weight *w, const kern_weight_source *s);
void kern_cpu_weight_settle(kern_backend *be, kern_weight *w);
size_t kern_cpu_gemm_scratch_bytes(const kern_backend *be, int m_max, int64_t n_max, int64_t k_max);
tp_status kern_cpu_gemm(kern_backend *be, const kern_gemm_args *a);
tp_status kern_cpu_embed(kern_backend *be, const kern_embed_args *a);

/* ---- kv.c ---- */
size_t kern_cpu_kv_block_bytes(const kern_backend *be, const kern_kv_desc *d);
tp_status kern_cpu_kv_create(kern_backend *be, const kern_kv_desc *d, kern_kv **out);
void kern_cpu_kv_destroy(kern_backend *be, kern_kv *kv);
tp_status kern_cpu_kv_copy_block(kern_backend *be, kern_kv *kv, int32_t dst, int32_t src);

/* ---- one file per operation ---- */
tp_status kern_cpu_rmsnorm(kern_backend *be, const kern_rmsnorm_args *a);
tp_status kern_cpu_rope_table(kern_backend *be, const kern_rope_table_args *a);
tp_status kern_cpu_qkv(kern_backend *be, const kern_qkv_args *a);
size_t kern_cpu_attn_scratch_bytes(const kern_backend *be, int n_q, int head_dim, int64_t ctx_max,
                                   int seqs_max);
tp_status kern_cpu_attn(kern_backend *be, const kern_attn_args *a);
tp_status kern_cpu_silu_mul(kern_backend *be, const kern_silu_mul_args *a);
tp_status kern_cpu_gather(kern_backend *be, const kern_gather_args *a);
tp_status kern_cpu_adjust(kern_backend *be, const kern_adjust_args *a);
tp_status kern_cpu_topk(kern_backend *be, const kern_topk_args *a);
tp_status kern_cpu_chunk_stats(kern_backend *be, const kern_chunk_args *a);

#endif
