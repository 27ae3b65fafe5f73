/* SPDX-License-Identifier: Apache-2.0 */
/* fake_device.c - see fake_device.h. */
#include "tests/model/fake_device.h"

#include <string.h>
#include <sys/mman.h>

#include "base/mem.h"

#define ARENA_BYTES ((size_t)1 << 30) /* of addresses; pages come when they are used */
#define GRAIN       4096

typedef struct device {
    kern_backend base; /* first: what the host sees */
    kern_backend *ref; /* owned: who does the work */
    char *arena;       /* owned; [ARENA_BYTES] */
    size_t used;
    unsigned char *mail[KERN_FETCHES]; /* owned; [KERN_FETCH_BYTES] */
} device;

static device *device_of(kern_backend *be)
{
    return (device *)(void *)be;
}

static void allow(const device *d, int access)
{
    TP_ASSERT(d->used == 0 || mprotect(d->arena, d->used, access) == 0);
}

static kern_backend *enter(kern_backend *be)
{
    allow(device_of(be), PROT_READ | PROT_WRITE);
    return device_of(be)->ref;
}

static tp_status leave(kern_backend *be, tp_status st)
{
    allow(device_of(be), PROT_NONE);
    return st;
}

/* An array of n elements, or nothing. */
static void check(kern_backend *be, const void *p, int64_t n, size_t size)
{
    const device *d = device_of(be);
    const char *at = p;

    if (p == NULL || n <= 0)
        return;
    TP_ASSERT(at >= d->arena && at + (size_t)n * size <= d->arena + d->used);
}

/* ---- life, memory ---- */
static void fd_close(kern_backend *be)
{
    device *d = device_of(be);

    if (d == NULL)
        return;
    if (d->ref != NULL)
        d->ref->ops->close(d->ref);
    if (d->arena != NULL)
        (void)munmap(d->arena, ARENA_BYTES);
    for (int i = 0; i < KERN_FETCHES; i++)
        tp_free(d->mail[i]);
    tp_free(d);
}

static tp_status fd_open(kern_backend **out, const kern_open_args *a)
{
    device *d = tp_calloc(1, sizeof *d);
    void *arena =
        mmap(NULL, ARENA_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    TP_ASSERT(d != NULL && arena != MAP_FAILED);
    d->arena = arena;
    for (int i = 0; i < KERN_FETCHES; i++) {
        d->mail[i] = tp_malloc(KERN_FETCH_BYTES);
        TP_ASSERT(d->mail[i] != NULL);
    }
    TP_TRY(kern_ref_ops()->open(&d->ref, a));
    d->base = *d->ref;
    d->base.ops = fd_ops();
    d->base.device = true;
    d->base.tree = false;
    d->base.parallel_put = false; /* opening pages is for all threads */
    d->base.act_f16 = d->ref->act_f16 = true;
    *out = &d->base;
    return TP_OK;
}

static bool fd_isa_supported(const char *isa)
{
    return kern_ref_ops()->isa_supported(isa);
}

/* Memory is never used again: what was freed stays closed. */
static tp_status fd_alloc(kern_backend *be, size_t bytes, void **out)
{
    device *d = device_of(be);
    size_t taken = (bytes + GRAIN - 1) / GRAIN * GRAIN;

    if (taken > ARENA_BYTES - d->used)
        return TP_FAIL(TP_ERR_NOMEM, "the fake device is full");
    *out = d->arena + d->used;
    d->used += taken;
    return TP_OK;
}

static void fd_free(kern_backend *be, void *p)
{
    check(be, p, 1, 1);
}

static tp_status fd_put(kern_backend *be, void *dst, const void *src, size_t bytes)
{
    check(be, dst, (int64_t)bytes, 1);
    return leave(be, enter(be)->ops->put(device_of(be)->ref, dst, src, bytes));
}

static tp_status fd_get(kern_backend *be, void *dst, const void *src, size_t bytes)
{
    check(be, src, (int64_t)bytes, 1);
    return leave(be, enter(be)->ops->get(device_of(be)->ref, dst, src, bytes));
}

/* What is issued has happened: only the host sees it late. */
static tp_status fd_fetch_begin(kern_backend *be, int at, const void *src, size_t bytes)
{
    TP_ASSERT(at >= 0 && at < KERN_FETCHES && bytes <= KERN_FETCH_BYTES);
    return bytes > 0 ? fd_get(be, device_of(be)->mail[at], src, bytes) : TP_OK;
}

static tp_status fd_fetch_end(kern_backend *be, int at, void *dst, size_t bytes)
{
    if (bytes > 0)
        memcpy(dst, device_of(be)->mail[at], bytes);
    return TP_OK;
}

static tp_status fd_memory(kern_backend *be, int64_t *total, int64_t *available)
{
    *total = (int64_t)ARENA_BYTES;
    *available = (int64_t)(ARENA_BYTES - device_of(be)->used);
    return TP_OK;
}

/* ---- what is opaque is the scalar backend's own ---- */
static size_t fd_weight_bytes(const kern_backend *be, const kern_weight_desc *d)
{
    return kern_ref_ops()->weight_bytes(be, d);
}

static tp_status fd_weight_create(kern_backend *be, const kern_weight_desc *d, kern_weight **out)
{
    return kern_ref_ops()->weight_create(device_of(be)->ref, d, out);
}

static tp_status fd_weight_put(kern_backend *be, kern_weight *w, const kern_weight_rows *rows)
{
    return kern_ref_ops()->weight_put(device_of(be)->ref, w, rows);
}

static void fd_weight_destroy(kern_backend *be, kern_weight *w)
{
    kern_ref_ops()->weight_destroy(device_of(be)->ref, w);
}

static size_t fd_kv_block_bytes(const kern_backend *be, const kern_kv_desc *d)
{
    return kern_ref_ops()->kv_block_bytes(be, d);
}

static tp_status fd_kv_create(kern_backend *be, const kern_kv_desc *d, kern_kv **out)
{
    return kern_ref_ops()->kv_create(device_of(be)->ref, d, out);
}

static void fd_kv_destroy(kern_backend *be, kern_kv *kv)
{
    kern_ref_ops()->kv_destroy(device_of(be)->ref, kv);
}

static tp_status fd_kv_copy_block(kern_backend *be, kern_kv *kv, int32_t dst, int32_t src)
{
    return kern_ref_ops()->kv_copy_block(device_of(be)->ref, kv, dst, src);
}

static size_t fd_gemm_scratch_bytes(const kern_backend *be, int m_max, int64_t n_max, int64_t k_max)
{
    return kern_ref_ops()->gemm_scratch_bytes(be, m_max, n_max, k_max);
}

static size_t fd_attn_scratch_bytes(const kern_backend *be, int n_q, int head_dim, int64_t ctx_max,
                                    int seqs_max)
{
    return kern_ref_ops()->attn_scratch_bytes(be, n_q, head_dim, ctx_max, seqs_max);
}

/* ---- operations ---- */
#define RUN(op, a) return leave(be, kern_##op(enter(be), (a)))

static tp_status fd_embed(kern_backend *be, const kern_embed_args *a)
{
    check(be, a->out, a->m, sizeof *a->out);
    check(be, a->ids, a->m, sizeof *a->ids);
    RUN(embed, a);
}

static tp_status fd_rmsnorm(kern_backend *be, const kern_rmsnorm_args *a)
{
    int64_t n = (int64_t)a->m * a->dim;

    check(be, a->out, n, kern_dtype_bytes(a->out_dtype));
    check(be, a->residual, n, sizeof(float));
    check(be, a->add, n, sizeof(float));
    check(be, a->weight, a->dim, sizeof(float));
    RUN(rmsnorm, a);
}

static tp_status fd_gemm(kern_backend *be, const kern_gemm_args *a)
{
    kern_gemm_args whole = *a;

    whole.split = NULL; /* one root */
    check(be, a->out, a->m, sizeof(float));
    check(be, a->in, a->m, 2);
    check(be, a->bias, 1, sizeof(float));
    RUN(gemm, &whole);
}

static tp_status fd_rope_table(kern_backend *be, const kern_rope_table_args *a)
{
    check(be, a->cos_sin, (int64_t)a->m * a->n_freq * 2, sizeof(float));
    check(be, a->pos, a->m, sizeof *a->pos);
    check(be, a->inv_freq, a->n_freq, sizeof(float));
    RUN(rope_table, a);
}

static tp_status fd_qkv(kern_backend *be, const kern_qkv_args *a)
{
    check(be, a->qkv, (int64_t)a->m * (a->n_q + 2 * a->n_kv) * a->head_dim, sizeof(float));
    check(be, a->cos_sin, (int64_t)a->m * a->n_freq * 2, sizeof(float));
    check(be, a->q_norm, a->head_dim, sizeof(float));
    check(be, a->k_norm, a->head_dim, sizeof(float));
    check(be, a->kv_index, a->m, sizeof *a->kv_index);
    RUN(qkv, a);
}

static tp_status fd_attn(kern_backend *be, const kern_attn_args *a)
{
    check(be, a->out, 1, 1);
    check(be, a->q, 1, 1);
    check(be, a->seqs, a->n_seqs, sizeof *a->seqs);
    check(be, a->block_tables, 1, sizeof *a->block_tables);
    check(be, a->kv_of_q, a->n_q, sizeof *a->kv_of_q);
    check(be, a->scratch, 1, 1);
    RUN(attn, a);
}

static tp_status fd_silu_mul(kern_backend *be, const kern_silu_mul_args *a)
{
    check(be, a->out, (int64_t)a->m * a->n, kern_dtype_bytes(a->out_dtype));
    check(be, a->in, (int64_t)a->m * a->n * 2, sizeof(float));
    RUN(silu_mul, a);
}

static tp_status fd_take(kern_backend *be, const kern_take_args *a)
{
    check(be, a->out, a->n, sizeof(int32_t));
    check(be, a->in, a->n > 0, sizeof(int32_t));
    check(be, a->idx, a->n, sizeof(int32_t));
    RUN(take, a);
}

static tp_status fd_scatter(kern_backend *be, const kern_scatter_args *a)
{
    check(be, a->out, a->n > 0, sizeof(int32_t));
    check(be, a->in, a->n, sizeof(int32_t));
    check(be, a->idx, a->n, sizeof(int32_t));
    RUN(scatter, a);
}

static tp_status fd_gather(kern_backend *be, const kern_gather_args *a)
{
    check(be, a->out, (int64_t)a->n * a->dim, sizeof(float));
    check(be, a->in, a->n > 0 ? a->dim : 0, sizeof(float));
    check(be, a->idx, a->n, sizeof *a->idx);
    RUN(gather, a);
}

static tp_status fd_adjust(kern_backend *be, const kern_adjust_args *a)
{
    kern_backend *ref = enter(be);

    check(be, a->logits, a->n_local, sizeof(float));
    check(be, a->rows, a->n_rows, sizeof *a->rows);
    check(be, a->scratch, a->n_local, sizeof *a->scratch);
    for (int i = 0; i < a->n_rows; i++) {
        const kern_adjust_row *r = &a->rows[i];

        check(be, r->history, r->n_history, sizeof *r->history);
        check(be, r->bias_ids, r->n_bias, sizeof *r->bias_ids);
        check(be, r->bias, r->n_bias, sizeof *r->bias);
        check(be, r->forbidden, r->n_forbidden, sizeof *r->forbidden);
        check(be, r->allowed, r->n_allowed, sizeof *r->allowed);
    }
    return leave(be, kern_adjust(ref, a));
}

static tp_status fd_topk(kern_backend *be, const kern_topk_args *a)
{
    int64_t n = (int64_t)a->n_rows * a->k;

    check(be, a->logits, a->n_local, sizeof(float));
    check(be, a->rows, a->n_rows, sizeof *a->rows);
    check(be, a->val, n, sizeof *a->val);
    check(be, a->id, n, sizeof *a->id);
    RUN(topk, a);
}

static tp_status fd_chunk_stats(kern_backend *be, const kern_chunk_args *a)
{
    int64_t n_chunks = ((int64_t)a->n_local + a->chunk_tokens - 1) / a->chunk_tokens;

    check(be, a->logits, a->n_local, sizeof(float));
    check(be, a->rows, a->n_rows, sizeof *a->rows);
    check(be, a->out, a->n_rows * n_chunks, sizeof *a->out);
    check(be, a->scratch, a->chunk_tokens, sizeof(float));
    RUN(chunk_stats, a);
}

static tp_status fd_draw(kern_backend *be, const kern_draw_args *a)
{
    check(be, a->gathered, a->n_ranks * a->message_bytes, 1);
    check(be, a->ranks, a->n_ranks, sizeof *a->ranks);
    check(be, a->rows, a->n_rows, sizeof *a->rows);
    check(be, a->token, a->n_rows, sizeof *a->token);
    check(be, a->logit, a->n_rows, sizeof *a->logit);
    RUN(draw, a);
}

const kern_ops *fd_ops(void)
{
    static const kern_ops ops = {
        .abi = KERN_ABI,
        .name = "fake device",
        .open = fd_open,
        .close = fd_close,
        .isa_supported = fd_isa_supported,
        .alloc = fd_alloc,
        .free = fd_free,
        .put = fd_put,
        .get = fd_get,
        .fetch_begin = fd_fetch_begin,
        .fetch_end = fd_fetch_end,
        .memory = fd_memory,
        .weight_bytes = fd_weight_bytes,
        .weight_create = fd_weight_create,
        .weight_put = fd_weight_put,
        .weight_destroy = fd_weight_destroy,
        .kv_block_bytes = fd_kv_block_bytes,
        .kv_create = fd_kv_create,
        .kv_destroy = fd_kv_destroy,
        .kv_copy_block = fd_kv_copy_block,
        .gemm_scratch_bytes = fd_gemm_scratch_bytes,
        .attn_scratch_bytes = fd_attn_scratch_bytes,
        .embed = fd_embed,
        .rmsnorm = fd_rmsnorm,
        .gemm = fd_gemm,
        .rope_table = fd_rope_table,
        .qkv = fd_qkv,
        .attn = fd_attn,
        .silu_mul = fd_silu_mul,
        .take = fd_take,
        .scatter = fd_scatter,
        .gather = fd_gather,
        .adjust = fd_adjust,
        .topk = fd_topk,
        .chunk_stats = fd_chunk_stats,
        .draw = fd_draw,
    };

    return &ops;
}
