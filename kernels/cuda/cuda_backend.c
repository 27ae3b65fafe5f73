/* SPDX-License-Identifier: Apache-2.0 */
/* cuda_backend.c - opening the backend, its operations, and what the module exports.
 *
 * Operations check their arguments as all backends do and hand them to a launcher.  What lies in device memory (ids,
 * block tables) cannot be checked here.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "kernels/cuda/cuda_internal.h"
#include "kernels/kern_check.h"
#include "kernels/module.h"

#ifdef TPSERVE_EMU
#    define BACKEND_NAME "emu"
#else
#    define BACKEND_NAME "cuda"
#endif

/* Where choices of algorithms for this kind of device are kept; "" when nowhere. */
static void cache_file_name(char *out, size_t cap, const char *dir, const kern_dev_props *p)
{
    char kind[256];
    int n = snprintf(kind, sizeof kind, "%s %d", p->name, p->driver);

    out[0] = '\0';
    if (dir == NULL || n < 0)
        return;
    (void)mkdir(dir, 0755); /* it may be there; writing says if it is not */
    n = snprintf(out, cap, "%s/gemm-sm_%d-%016" PRIx64 ".txt", dir, p->cc,
                 tp_hash_fnv(kind, strlen(kind)));
    if (n < 0 || (size_t)n >= cap)
        out[0] = '\0';
}

static void cuda_close(kern_backend *be)
{
    cuda_backend *b = cuda_of(be);

    if (b == NULL)
        return;
    if (b->dev != NULL) {
        if (b->stream != NULL && kern_dev_sync(b->dev, b->stream) != TP_OK)
            tp_debug("cuda", "closing a device that failed");
        kern_dev_gemm_destroy(b->gemm);
        kern_cuda_ring_destroy(b);
        kern_dev_stream_destroy(b->dev, b->stream);
        kern_dev_close(b->dev);
    }
    tp_free(b);
}

static tp_status open_parts(cuda_backend *b, const kern_open_args *a)
{
    const kern_dev_props *p;
    char cache_file[4096];

    TP_TRY(kern_dev_open(&b->dev, a->device));
    p = kern_dev_get_props(b->dev);
    if (p->cc < 80)
        return TP_FAIL(TP_ERR_UNSUPPORTED,
                       "device %d is a %s (compute capability %d.%d), 8.0 (A100) is the oldest "
                       "that is supported",
                       p->ordinal, p->name, p->cc / 10, p->cc % 10);
    b->n_sm = p->n_sm;
    (void)snprintf(b->isa, sizeof b->isa, "sm_%d", p->cc);
    cache_file_name(cache_file, sizeof cache_file, a->cache_dir, p);
    TP_TRY(kern_dev_stream_create(b->dev, &b->stream));
    TP_TRY(kern_cuda_ring_create(b));
    kern_dev_enter(b->dev);
    TP_TRY(kern_cuda_prepare(p));
    return kern_dev_gemm_create(&b->gemm, b->dev, cache_file[0] != '\0' ? cache_file : NULL);
}

static tp_status cuda_open(kern_backend **out, const kern_open_args *a)
{
    cuda_backend *b;
    tp_status st;

    TP_TRY(kern_check_open(a));
    b = tp_calloc(1, sizeof *b);
    if (b == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "no memory for the " BACKEND_NAME " backend");
    st = open_parts(b, a);
    if (st != TP_OK) {
        cuda_close(&b->base);
        return st;
    }
    b->base = (kern_backend){.ops = kern_module_ops(),
                             .n_threads = a->n_threads,
                             .isa = b->isa,
                             .device = true,
                             .act_f16 = true,
                             .stream = b->stream,
                             .dev = b->dev};
    *out = &b->base;
    return TP_OK;
}

static bool cuda_isa_supported(const char *isa)
{
    return strncmp(isa, "sm_", 3) == 0;
}

static tp_status cuda_alloc(kern_backend *be, size_t bytes, void **out)
{
    TP_TRY(kern_cuda_not_recording(cuda_of(be), "alloc"));
    return kern_dev_alloc(cuda_of(be)->dev, bytes, out);
}

static void cuda_free(kern_backend *be, void *p)
{
    kern_dev_free(cuda_of(be)->dev, p);
}

static tp_status cuda_memory(kern_backend *be, int64_t *total, int64_t *available)
{
    return kern_dev_memory(cuda_of(be)->dev, total, available);
}

/* ---- operations ---- */
static size_t cuda_gemm_scratch_bytes(const kern_backend *be, int m_max, int64_t n_max,
                                      int64_t k_max)
{
    (void)be;
    (void)m_max;
    (void)n_max;
    (void)k_max;
    return 0; /* the workspace is the backend's own */
}

static size_t cuda_attn_scratch_bytes(const kern_backend *be, int n_q, int head_dim,
                                      int64_t ctx_max, int seqs_max)
{
    const cuda_backend *b = (const cuda_backend *)(const void *)be;

    return kern_cuda_attn_scratch_bytes(n_q, head_dim, ctx_max, seqs_max, b->n_sm);
}

/* An operation without a handle: check, launch. */
#define OPERATION(op, args_type, check)                                                            \
    static tp_status cuda_##op(kern_backend *be, const args_type *a)                               \
    {                                                                                              \
        cuda_backend *b = cuda_of(be);                                                             \
                                                                                                   \
        TP_TRY(check);                                                                             \
        kern_dev_enter(b->dev);                                                                    \
        return kern_cuda_##op(a, b->stream);                                                       \
    }

OPERATION(embed, kern_embed_args, kern_check_embed(a, &a->table->desc))
OPERATION(rmsnorm, kern_rmsnorm_args, kern_check_rmsnorm(a))
OPERATION(rope_table, kern_rope_table_args, kern_check_rope_table(a))
OPERATION(qkv, kern_qkv_args, kern_check_qkv(a, &a->kv->desc))
OPERATION(silu_mul, kern_silu_mul_args, kern_check_silu_mul(a))
OPERATION(take, kern_take_args, kern_check_words("take", a->out, a->in, a->idx, a->n))
OPERATION(scatter, kern_scatter_args, kern_check_words("scatter", a->out, a->in, a->idx, a->n))
OPERATION(gather, kern_gather_args, kern_check_gather(a))
OPERATION(adjust, kern_adjust_args, kern_check_adjust(a))
OPERATION(topk, kern_topk_args, kern_check_topk(a))
OPERATION(chunk_stats, kern_chunk_args, kern_check_chunk(a))
OPERATION(draw, kern_draw_args, kern_check_draw(a))

static tp_status cuda_attn(kern_backend *be, const kern_attn_args *a)
{
    cuda_backend *b = cuda_of(be);

    TP_TRY(kern_check_attn(a, &a->kv->desc));
    kern_dev_enter(b->dev);
    return kern_cuda_attn(a, b->n_sm, b->stream);
}

/* A split says only what the tree of a CPU backend needs: here the sum is one. */
static kern_dev_gemm_call call_of(const kern_gemm_args *a)
{
    const kern_weight *w = a->w;

    return (kern_dev_gemm_call){.out = a->out,
                                .in = a->in,
                                .w = w->data,
                                .bias = a->bias,
                                .m = a->m,
                                .n = (int)w->desc.n,
                                .k = (int)w->desc.k,
                                .ldw = w->ld,
                                .dtype = w->desc.dtype,
                                .out_dtype = KERN_DTYPE_F32};
}

static tp_status cuda_gemm(kern_backend *be, const kern_gemm_args *a)
{
    cuda_backend *b = cuda_of(be);
    kern_dev_gemm_call c = call_of(a);

    TP_TRY(kern_check_gemm(a, &a->w->desc));
    return kern_dev_gemm_run(b->gemm, &c, b->stream);
}

static tp_status cuda_gemm_tune(kern_backend *be, const kern_gemm_args *a)
{
    cuda_backend *b = cuda_of(be);
    kern_dev_gemm_call c = call_of(a);

    TP_TRY(kern_check_gemm(a, &a->w->desc));
    TP_TRY(kern_cuda_not_recording(b, "choosing algorithms"));
    return kern_dev_gemm_tune(b->gemm, &c, b->stream);
}

/* ---- graphs: a kern_graph is a kern_dev_graph ---- */
static tp_status cuda_graph_begin(kern_backend *be)
{
    cuda_backend *b = cuda_of(be);

    TP_TRY(kern_cuda_not_recording(b, "recording a graph"));
    TP_TRY(kern_dev_graph_begin(b->dev, b->stream));
    b->recording = true;
    b->spoilt = false;
    return TP_OK;
}

static tp_status cuda_graph_end(kern_backend *be, kern_graph **out)
{
    cuda_backend *b = cuda_of(be);
    kern_dev_graph *g;

    b->recording = false;
    TP_TRY(kern_dev_graph_end(b->dev, b->stream, &g));
    if (b->spoilt) {
        kern_dev_graph_destroy(b->dev, g);
        return TP_FAIL(TP_ERR_INVALID, "the graph was spoilt by a call that cannot be recorded");
    }
    *out = (kern_graph *)(void *)g;
    return TP_OK;
}

static tp_status cuda_graph_launch(kern_backend *be, kern_graph *g)
{
    cuda_backend *b = cuda_of(be);

    TP_TRY(kern_cuda_not_recording(b, "launching a graph"));
    return kern_dev_graph_launch(b->dev, (kern_dev_graph *)(void *)g, b->stream);
}

static void cuda_graph_destroy(kern_backend *be, kern_graph *g)
{
    kern_dev_graph_destroy(cuda_of(be)->dev, (kern_dev_graph *)(void *)g);
}

const kern_ops *kern_module_ops(void)
{
    static const kern_ops ops = {
        .abi = KERN_ABI,
        .name = BACKEND_NAME,
        .open = cuda_open,
        .close = cuda_close,
        .isa_supported = cuda_isa_supported,
        .alloc = cuda_alloc,
        .free = cuda_free,
        .put = kern_cuda_put,
        .get = kern_cuda_get,
        .fetch_begin = kern_cuda_fetch_begin,
        .fetch_end = kern_cuda_fetch_end,
        .memory = cuda_memory,
        .weight_bytes = kern_cuda_weight_bytes,
        .weight_create = kern_cuda_weight_create,
        .weight_put = kern_cuda_weight_put,
        .weight_destroy = kern_cuda_weight_destroy,
        .kv_block_bytes = kern_cuda_kv_block_bytes,
        .kv_create = kern_cuda_kv_create,
        .kv_destroy = kern_cuda_kv_destroy,
        .kv_copy_block = kern_cuda_kv_copy_block,
        .gemm_scratch_bytes = cuda_gemm_scratch_bytes,
        .attn_scratch_bytes = cuda_attn_scratch_bytes,
        .embed = cuda_embed,
        .rmsnorm = cuda_rmsnorm,
        .gemm = cuda_gemm,
        .rope_table = cuda_rope_table,
        .qkv = cuda_qkv,
        .attn = cuda_attn,
        .silu_mul = cuda_silu_mul,
        .take = cuda_take,
        .scatter = cuda_scatter,
        .gather = cuda_gather,
        .adjust = cuda_adjust,
        .topk = cuda_topk,
        .chunk_stats = cuda_chunk_stats,
        .draw = cuda_draw,
        .graph_begin = cuda_graph_begin,
        .graph_end = cuda_graph_end,
        .graph_launch = cuda_graph_launch,
        .graph_destroy = cuda_graph_destroy,
        .gemm_tune = cuda_gemm_tune,
    };

    return &ops;
}
