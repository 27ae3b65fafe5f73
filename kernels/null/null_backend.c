/* SPDX-License-Identifier: Apache-2.0 */
/* null_backend.c - a device that computes nothing, so that what is left of a step is the host's work.
 *
 * Weights and cache are descriptions without memory, operations return at once, and every row's candidates are one and
 * the same token from the middle of the shard: an answer is that word over and over.  Only words that the worker moves
 * between its own tables are moved.  For `tpserve bench --host` and for tests of everything around a model.
 */
#include <math.h>

#include "base/mem.h"
#include "kernels/kern_check.h"
#include "kernels/kern_host.h"

struct kern_weight {
    kern_weight_desc desc;
};

struct kern_kv {
    kern_kv_desc desc;
};

static tp_status null_open(kern_backend **out, const kern_open_args *a)
{
    kern_backend *be;

    TP_TRY(kern_check_open(a));
    be = tp_calloc(1, sizeof *be);
    if (be == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "out of memory opening the null backend");
    be->ops = kern_null_ops();
    be->n_threads = 1;
    be->isa = "none";
    be->tree = true;
    be->parallel_put = true;
    *out = be;
    return TP_OK;
}

static void null_close(kern_backend *be)
{
    tp_free(be);
}

static bool null_isa_supported(const char *isa)
{
    (void)isa;
    return false;
}

/* ---- weights and cache: descriptions ---- */

static size_t null_weight_bytes(const kern_backend *be, const kern_weight_desc *d)
{
    (void)be;
    (void)d;
    return 0;
}

static tp_status null_weight_create(kern_backend *be, const kern_weight_desc *d, kern_weight **out)
{
    kern_weight *w = tp_calloc(1, sizeof *w);

    (void)be;
    if (w == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "out of memory for the description of a weight");
    w->desc = *d;
    *out = w;
    return TP_OK;
}

static tp_status null_weight_put(kern_backend *be, kern_weight *w, const kern_weight_rows *rows)
{
    (void)be;
    return kern_check_weight_rows(rows, &w->desc);
}

static void null_weight_destroy(kern_backend *be, kern_weight *w)
{
    (void)be;
    tp_free(w);
}

/* As many bytes as a real cache takes, so that the usual budget makes a cache of the usual size. */
static size_t null_kv_block_bytes(const kern_backend *be, const kern_kv_desc *d)
{
    (void)be;
    return 2 * (size_t)d->n_layers * (size_t)d->n_kv * (size_t)d->head_dim *
           (size_t)d->block_tokens * kern_dtype_bytes(d->dtype);
}

static tp_status null_kv_create(kern_backend *be, const kern_kv_desc *d, kern_kv **out)
{
    kern_kv *kv = tp_calloc(1, sizeof *kv);

    (void)be;
    if (kv == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "out of memory for the description of a cache");
    kv->desc = *d;
    *out = kv;
    return TP_OK;
}

static void null_kv_destroy(kern_backend *be, kern_kv *kv)
{
    (void)be;
    tp_free(kv);
}

static tp_status null_kv_copy_block(kern_backend *be, kern_kv *kv, int32_t dst, int32_t src)
{
    (void)be;
    return kern_check_kv_blocks(&kv->desc, dst, src);
}

static size_t null_gemm_scratch_bytes(const kern_backend *be, int m_max, int64_t n_max,
                                      int64_t k_max)
{
    (void)be;
    (void)m_max;
    (void)n_max;
    (void)k_max;
    return 0;
}

static size_t null_attn_scratch_bytes(const kern_backend *be, int n_q, int head_dim,
                                      int64_t ctx_max, int seqs_max)
{
    (void)be;
    (void)n_q;
    (void)head_dim;
    (void)ctx_max;
    (void)seqs_max;
    return 0;
}

/* ---- operations: nothing ---- */

#define NOTHING(name)                                                                              \
    static tp_status null_##name(kern_backend *be, const kern_##name##_args *a)                    \
    {                                                                                              \
        (void)be;                                                                                  \
        (void)a;                                                                                   \
        return TP_OK;                                                                              \
    }

NOTHING(embed)
NOTHING(rmsnorm)
NOTHING(gemm)
NOTHING(rope_table)
NOTHING(qkv)
NOTHING(attn)
NOTHING(silu_mul)
NOTHING(gather)
NOTHING(adjust)

/* ---- the one token ---- */

static int32_t the_token(int32_t vocab_first, int32_t n_local)
{
    return vocab_first + n_local / 2;
}

static tp_status null_topk(kern_backend *be, const kern_topk_args *a)
{
    (void)be;
    TP_TRY(kern_check_topk(a));
    for (int i = 0; i < a->n_rows; i++) {
        float *val = a->val + (int64_t)i * a->k;
        int32_t *id = a->id + (int64_t)i * a->k;

        for (int j = 0; j < a->k; j++) {
            bool one = j == 0 && a->n_local > 0;

            val[j] = one ? 0.0f : -INFINITY;
            id[j] = one ? the_token(a->vocab_first, a->n_local) : -1;
        }
    }
    return TP_OK;
}

static tp_status null_chunk_stats(kern_backend *be, const kern_chunk_args *a)
{
    int n_chunks, its_chunk;

    (void)be;
    TP_TRY(kern_check_chunk(a));
    n_chunks = (int)(((int64_t)a->n_local + a->chunk_tokens - 1) / a->chunk_tokens);
    its_chunk = a->n_local / 2 / a->chunk_tokens;
    for (int64_t i = 0; i < (int64_t)a->n_rows * n_chunks; i++) {
        bool here = i % n_chunks == its_chunk;

        a->out[i] = (kern_chunk_stat){.max = here ? 0.0f : -INFINITY,
                                      .sum = here ? 1.0f : 0.0f,
                                      .pick = here ? the_token(a->vocab_first, a->n_local) : -1,
                                      .pick_logit = here ? 0.0f : -INFINITY};
    }
    return TP_OK;
}

const kern_ops *kern_null_ops(void)
{
    static const kern_ops ops = {
        .abi = KERN_ABI,
        .name = "null",
        .open = null_open,
        .close = null_close,
        .isa_supported = null_isa_supported,
        .alloc = kern_host_alloc,
        .free = kern_host_free,
        .put = kern_host_put,
        .get = kern_host_get,
        .memory = kern_host_memory,
        .weight_bytes = null_weight_bytes,
        .weight_create = null_weight_create,
        .weight_put = null_weight_put,
        .weight_destroy = null_weight_destroy,
        .kv_block_bytes = null_kv_block_bytes,
        .kv_create = null_kv_create,
        .kv_destroy = null_kv_destroy,
        .kv_copy_block = null_kv_copy_block,
        .gemm_scratch_bytes = null_gemm_scratch_bytes,
        .attn_scratch_bytes = null_attn_scratch_bytes,
        .embed = null_embed,
        .rmsnorm = null_rmsnorm,
        .gemm = null_gemm,
        .rope_table = null_rope_table,
        .qkv = null_qkv,
        .attn = null_attn,
        .silu_mul = null_silu_mul,
        .take = kern_host_take,
        .scatter = kern_host_scatter,
        .gather = null_gather,
        .adjust = null_adjust,
        .topk = null_topk,
        .chunk_stats = null_chunk_stats,
    };

    return &ops;
}
