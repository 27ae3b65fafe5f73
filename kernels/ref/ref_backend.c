/* SPDX-License-Identifier: Apache-2.0 */
/* ref_backend.c - opening the scalar backend, and its table. */
#include <string.h>

#include "base/mem.h"
#include "kernels/kern_host.h"
#include "kernels/ref/ref_internal.h"

static tp_status ref_open(kern_backend **out, const kern_open_args *a)
{
    kern_backend *be;

    TP_TRY(kern_check_open(a));
    if (a->isa != NULL && strcmp(a->isa, "scalar") != 0)
        return TP_FAIL(TP_ERR_UNSUPPORTED,
                       "the ref backend has no instruction set \"%s\", only \"scalar\"", a->isa);
    be = tp_calloc(1, sizeof *be);
    if (be == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "out of memory opening the ref backend");
    be->ops = kern_ref_ops();
    be->n_threads = 1;
    be->isa = "scalar";
    be->tree = true;
    be->parallel_put = true;
    *out = be;
    return TP_OK;
}

static void ref_close(kern_backend *be)
{
    tp_free(be);
}

static bool ref_isa_supported(const char *isa)
{
    return strcmp(isa, "scalar") == 0;
}

const kern_ops *kern_ref_ops(void)
{
    static const kern_ops ops = {
        .abi = KERN_ABI,
        .name = "ref",
        .open = ref_open,
        .close = ref_close,
        .isa_supported = ref_isa_supported,
        .alloc = kern_host_alloc,
        .free = kern_host_free,
        .put = kern_host_put,
        .get = kern_host_get,
        .memory = kern_host_memory,
        .weight_bytes = kern_ref_weight_bytes,
        .weight_create = kern_ref_weight_create,
        .weight_put = kern_ref_weight_put,
        .weight_destroy = kern_ref_weight_destroy,
        .kv_block_bytes = kern_ref_kv_block_bytes,
        .kv_create = kern_ref_kv_create,
        .kv_destroy = kern_ref_kv_destroy,
        .kv_copy_block = kern_ref_kv_copy_block,
        .gemm_scratch_bytes = kern_ref_gemm_scratch_bytes,
        .attn_scratch_bytes = kern_ref_attn_scratch_bytes,
        .embed = kern_ref_embed,
        .rmsnorm = kern_ref_rmsnorm,
        .gemm = kern_ref_gemm,
        .rope_table = kern_ref_rope_table,
        .qkv = kern_ref_qkv,
        .attn = kern_ref_attn,
        .silu_mul = kern_ref_silu_mul,
        .take = kern_host_take,
        .scatter = kern_host_scatter,
        .gather = kern_ref_gather,
        .adjust = kern_ref_adjust,
        .topk = kern_ref_topk,
        .chunk_stats = kern_ref_chunk_stats,
        .draw = kern_ref_draw,
    };

    return &ops;
}
