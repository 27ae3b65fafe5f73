/* SPDX-License-Identifier: Apache-2.0 */
/* cpu_backend.c - opening the CPU backend: the choice of the instruction set, and its table. */
#include <string.h>

#include "base/mem.h"
#include "kernels/cpu/vec.h"
#include "kernels/kern_check.h"
#include "kernels/kern_host.h"

/* The named set, or the best that the machine has. */
static tp_status choose_isa(const char *name, kern_cpu_isa *out)
{
    for (int i = KERN_CPU_ISA_COUNT - 1; i >= 0; i--) {
        kern_cpu_isa isa = (kern_cpu_isa)i;

        if (name != NULL && strcmp(name, kern_cpu_isa_name(isa)) != 0)
            continue;
        if (kern_cpu_isa_available(isa)) {
            *out = isa;
            return TP_OK;
        }
        if (name != NULL)
            return TP_FAIL(TP_ERR_UNSUPPORTED, "this machine cannot run instruction set \"%s\"",
                           name);
    }
    return TP_FAIL(TP_ERR_INVALID,
                   "unknown instruction set \"%s\", expected generic, avx2, avx512 or amx", name);
}

static const kern_cpu_vec *vec_of(kern_cpu_isa isa)
{
    switch (isa) {
    case KERN_CPU_AMX:
    case KERN_CPU_AVX512: return &kern_cpu_vec_avx512;
    case KERN_CPU_AVX2: return &kern_cpu_vec_avx2;
    case KERN_CPU_GENERIC: break;
    }
    return &kern_cpu_vec_generic;
}

static tp_status cpu_open(kern_backend **out, const kern_open_args *a)
{
    kern_cpu_backend *cpu;
    kern_cpu_isa isa = KERN_CPU_GENERIC;
    tp_status st;

    TP_TRY(kern_check_open(a));
    TP_TRY(choose_isa(a->isa, &isa));
    cpu = tp_calloc(1, sizeof *cpu);
    if (cpu == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "out of memory opening the cpu backend");
    st = kern_team_create(&cpu->team, a->n_threads);
    if (st != TP_OK) {
        tp_free(cpu);
        return st;
    }
    cpu->base.ops = kern_cpu_ops();
    cpu->base.n_threads = a->n_threads;
    cpu->base.isa = kern_cpu_isa_name(isa);
    cpu->base.tree = true;
    cpu->base.parallel_put = true;
    cpu->isa = isa;
    cpu->vec = vec_of(isa);
    *out = &cpu->base;
    return TP_OK;
}

static void cpu_close(kern_backend *be)
{
    kern_team_destroy(kern_cpu_of(be)->team);
    tp_free(kern_cpu_of(be)->late);
    tp_free(be);
}

static bool cpu_isa_supported(const char *name)
{
    for (int i = 0; i < KERN_CPU_ISA_COUNT; i++)
        if (strcmp(name, kern_cpu_isa_name((kern_cpu_isa)i)) == 0)
            return kern_cpu_isa_available((kern_cpu_isa)i);
    return false;
}

const kern_ops *kern_cpu_ops(void)
{
    static const kern_ops ops = {
        .abi = KERN_ABI,
        .name = "cpu",
        .open = cpu_open,
        .close = cpu_close,
        .isa_supported = cpu_isa_supported,
        .alloc = kern_host_alloc,
        .free = kern_host_free,
        .put = kern_host_put,
        .get = kern_host_get,
        .memory = kern_host_memory,
        .weight_bytes = kern_cpu_weight_bytes,
        .weight_create = kern_cpu_weight_create,
        .weight_put = kern_cpu_weight_put,
        .weight_destroy = kern_cpu_weight_destroy,
        .weight_late = kern_cpu_weight_late,
        .weight_settle = kern_cpu_weight_settle,
        .kv_block_bytes = kern_cpu_kv_block_bytes,
        .kv_create = kern_cpu_kv_create,
        .kv_destroy = kern_cpu_kv_destroy,
        .kv_copy_block = kern_cpu_kv_copy_block,
        .gemm_scratch_bytes = kern_cpu_gemm_scratch_bytes,
        .attn_scratch_bytes = kern_cpu_attn_scratch_bytes,
        .embed = kern_cpu_embed,
        .rmsnorm = kern_cpu_rmsnorm,
        .gemm = kern_cpu_gemm,
        .rope_table = kern_cpu_rope_table,
        .qkv = kern_cpu_qkv,
        .attn = kern_cpu_attn,
        .silu_mul = kern_cpu_silu_mul,
        .take = kern_host_take,
        .scatter = kern_host_scatter,
        .gather = kern_cpu_gather,
        .adjust = kern_cpu_adjust,
        .topk = kern_cpu_topk,
        .chunk_stats = kern_cpu_chunk_stats,
    };

    return &ops;
}
