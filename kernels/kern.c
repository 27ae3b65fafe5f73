/* SPDX-License-Identifier: Apache-2.0 */
/* kern.c - what all backends share: element types, the list of backends, argument checks (kern_check.h). */
#include <string.h>

#include "kernels/kern_check.h"

size_t kern_dtype_bytes(kern_dtype t)
{
    return t == KERN_DTYPE_F32 ? 4 : 2;
}

const char *kern_dtype_name(kern_dtype t)
{
    switch (t) {
    case KERN_DTYPE_F32: return "float32";
    case KERN_DTYPE_BF16: return "bfloat16";
    case KERN_DTYPE_F16: return "float16";
    }
    return "unknown";
}

kern_dtype kern_act_dtype(const kern_backend *be, kern_dtype weights)
{
    return weights == KERN_DTYPE_F16 && !be->act_f16 ? KERN_DTYPE_F32 : weights;
}

const kern_ops *kern_find_ops(const char *name)
{
    const kern_ops *all[] = {kern_ref_ops(), kern_cpu_ops(), kern_null_ops()};

    for (size_t i = 0; i < TP_ARRAY_LEN(all); i++)
        if (strcmp(all[i]->name, name) == 0)
            return all[i];
    return NULL;
}

/* ---- argument checks ---- */
#define CHECK(cond, ...)                                                                           \
    do {                                                                                           \
        if (TP_UNLIKELY(!(cond)))                                                                  \
            return TP_FAIL(TP_ERR_INVALID, __VA_ARGS__);                                           \
    } while (0)

static bool dtype_known(kern_dtype t)
{
    return t == KERN_DTYPE_F32 || t == KERN_DTYPE_BF16 || t == KERN_DTYPE_F16;
}

tp_status kern_check_open(const kern_open_args *a)
{
    CHECK(a->n_threads >= 1 && a->n_threads <= 4096,
          "backend open: n_threads is %d, expected 1 to 4096", a->n_threads);
    return TP_OK;
}

tp_status kern_check_weight_desc(const kern_weight_desc *d)
{
    CHECK(d->n >= 0 && d->n <= INT32_MAX && d->k >= 0 && d->k <= INT32_MAX,
          "weight: shape [%lld, %lld] is out of range", (long long)d->n, (long long)d->k);
    CHECK(dtype_known(d->dtype), "weight: unknown dtype %d", (int)d->dtype);
    CHECK(d->layout == KERN_LAYOUT_PACKED || d->layout == KERN_LAYOUT_ROWS,
          "weight: unknown layout %d", (int)d->layout);
    return TP_OK;
}

tp_status kern_check_weight_rows(const kern_weight_rows *rows, const kern_weight_desc *d)
{
    CHECK(dtype_known(rows->src_dtype), "weight put: unknown dtype %d", (int)rows->src_dtype);
    CHECK(rows->row >= 0 && rows->n_rows >= 0 && rows->row <= d->n - rows->n_rows,
          "weight put: %lld rows from row %lld do not fit a weight of %lld rows",
          (long long)rows->n_rows, (long long)rows->row, (long long)d->n);
    CHECK(rows->n_rows == 0 || d->k == 0 || rows->src != NULL, "weight put: no source");
    return TP_OK;
}

tp_status kern_check_kv_desc(const kern_kv_desc *d)
{
    CHECK(d->n_layers >= 1 && d->n_kv >= 0, "kv cache: %d layers of %d heads", d->n_layers,
          d->n_kv);
    CHECK(d->head_dim >= 2 && d->head_dim <= 1024 && d->head_dim % 2 == 0,
          "kv cache: head_dim is %d, expected an even number up to 1024", d->head_dim);
    CHECK(d->block_tokens >= 16 && d->block_tokens % 16 == 0,
          "kv cache: block_tokens is %d, expected a multiple of 16", d->block_tokens);
    CHECK(d->n_blocks >= 1 && d->n_blocks <= INT32_MAX / d->block_tokens,
          "kv cache: n_blocks is %d, expected 1 to %d", d->n_blocks, INT32_MAX / d->block_tokens);
    CHECK(dtype_known(d->dtype), "kv cache: unknown dtype %d", (int)d->dtype);
    return TP_OK;
}

tp_status kern_check_kv_blocks(const kern_kv_desc *d, int32_t dst, int32_t src)
{
    CHECK(dst >= 0 && dst < d->n_blocks && src >= 0 && src < d->n_blocks,
          "kv copy: blocks %d to %d, expected 0 to %d", src, dst, d->n_blocks - 1);
    return TP_OK;
}

tp_status kern_check_embed(const kern_embed_args *a, const kern_weight_desc *d)
{
    CHECK(a->m >= 0 && a->vocab_first >= 0, "embed: m is %d, vocab_first %d", a->m, a->vocab_first);
    CHECK(a->m == 0 || d->k == 0 || (a->out != NULL && a->ids != NULL), "embed: a pointer is NULL");
    return TP_OK;
}

static tp_status check_ksplit(const kern_ksplit *s, int64_t k)
{
    int32_t at = 0;

    CHECK(s->seg_first >= 0 && s->n_seg >= 0 && s->seg_first + s->n_seg <= TP_SEG_MAX,
          "gemm: segments %d to %d, expected within 0 to %d", s->seg_first, s->seg_first + s->n_seg,
          TP_SEG_MAX);
    for (int i = 0; i < s->n_seg; i++) {
        CHECK(s->k_end[i] >= at, "gemm: segment %d ends at %d, before it starts at %d", i,
              s->k_end[i], at);
        at = s->k_end[i];
    }
    CHECK(at == k, "gemm: segments end at %d, the weight has %lld columns", at, (long long)k);
    return TP_OK;
}

tp_status kern_check_gemm(const kern_gemm_args *a, const kern_weight_desc *d)
{
    CHECK(a->m >= 0, "gemm: m is %d", a->m);
    CHECK(d->layout == KERN_LAYOUT_PACKED, "gemm: the weight was made for embed only");
    CHECK(a->m == 0 || d->n == 0 || (a->out != NULL && (a->in != NULL || d->k == 0)),
          "gemm: a pointer is NULL");
    if (a->split != NULL) {
        CHECK(a->bias == NULL, "gemm: a split product takes no bias");
        TP_TRY(check_ksplit(a->split, d->k));
    }
    return TP_OK;
}

tp_status kern_check_rmsnorm(const kern_rmsnorm_args *a)
{
    CHECK(a->m >= 0 && a->dim >= 1, "rmsnorm: shape [%d, %d]", a->m, a->dim);
    CHECK(dtype_known(a->out_dtype), "rmsnorm: unknown out_dtype %d", (int)a->out_dtype);
    CHECK(a->m == 0 || (a->out != NULL && a->residual != NULL && a->weight != NULL),
          "rmsnorm: a pointer is NULL");
    return TP_OK;
}

tp_status kern_check_rope_table(const kern_rope_table_args *a)
{
    CHECK(a->m >= 0 && a->n_freq >= 0, "rope_table: shape [%d, %d]", a->m, a->n_freq);
    CHECK(a->m == 0 || a->n_freq == 0 ||
              (a->cos_sin != NULL && a->pos != NULL && a->inv_freq != NULL),
          "rope_table: a pointer is NULL");
    return TP_OK;
}

tp_status kern_check_qkv(const kern_qkv_args *a, const kern_kv_desc *d)
{
    CHECK(a->m >= 0 && a->n_q >= 0 && a->n_freq >= 0 && 2 * a->n_freq <= a->head_dim,
          "qkv: m %d, n_q %d, n_freq %d of head_dim %d", a->m, a->n_q, a->n_freq, a->head_dim);
    CHECK(a->n_kv == d->n_kv && a->head_dim == d->head_dim,
          "qkv: %d heads of %d, the cache has %d of %d", a->n_kv, a->head_dim, d->n_kv,
          d->head_dim);
    CHECK(a->layer >= 0 && a->layer < d->n_layers, "qkv: layer %d of %d", a->layer, d->n_layers);
    CHECK(a->m == 0 ||
              (a->qkv != NULL && a->kv_index != NULL && (a->n_freq == 0 || a->cos_sin != NULL)),
          "qkv: a pointer is NULL");
    return TP_OK;
}

tp_status kern_check_qkv_items(const kern_qkv_args *a, const kern_kv_desc *d)
{
    int64_t n_slots = (int64_t)d->n_blocks * d->block_tokens;

    for (int i = 0; i < a->m; i++)
        CHECK(a->kv_index[i] >= -1 && a->kv_index[i] < n_slots,
              "qkv: kv_index[%d] is %d, expected -1 to %lld", i, a->kv_index[i],
              (long long)n_slots - 1);
    return TP_OK;
}

tp_status kern_check_attn(const kern_attn_args *a, const kern_kv_desc *d)
{
    CHECK(a->n_seqs >= 0 && a->n_q >= 0 && a->window >= 0, "attn: n_seqs %d, n_q %d, window %d",
          a->n_seqs, a->n_q, a->window);
    CHECK(a->head_dim == d->head_dim, "attn: head_dim %d, the cache has %d", a->head_dim,
          d->head_dim);
    CHECK(a->layer >= 0 && a->layer < d->n_layers, "attn: layer %d of %d", a->layer, d->n_layers);
    CHECK(dtype_known(a->out_dtype), "attn: unknown out_dtype %d", (int)a->out_dtype);
    CHECK(a->n_decode >= 0 && a->n_decode <= a->n_seqs && a->max_rows >= 0 && a->max_ctx >= 0,
          "attn: %d of %d sequences decode, max_rows %d, max_ctx %d", a->n_decode, a->n_seqs,
          a->max_rows, a->max_ctx);
    if (a->n_seqs == 0 || a->n_q == 0)
        return TP_OK;
    CHECK(a->out != NULL && a->q != NULL && a->seqs != NULL && a->block_tables != NULL &&
              a->kv_of_q != NULL,
          "attn: a pointer is NULL");
    return TP_OK;
}

tp_status kern_check_attn_items(const kern_attn_args *a, const kern_kv_desc *d)
{
    for (int h = 0; h < a->n_q && a->n_seqs > 0; h++)
        CHECK(a->kv_of_q[h] >= 0 && a->kv_of_q[h] < d->n_kv,
              "attn: query head %d reads kv head %d of %d", h, a->kv_of_q[h], d->n_kv);
    for (int i = 0; i < a->n_seqs && a->n_q > 0; i++) {
        const kern_attn_seq *s = &a->seqs[i];
        bool decode = i < a->n_decode, empty = decode && s->ctx == 0;

        CHECK(s->n_rows >= 0 && (s->ctx >= s->n_rows || empty) && s->row >= 0,
              "attn: sequence %d has %d rows from row %d, ctx %d", i, s->n_rows, s->row, s->ctx);
        CHECK(decode ? s->n_rows == 1 : s->n_rows <= a->max_rows,
              "attn: sequence %d has %d rows, expected %s%d", i, s->n_rows, decode ? "" : "up to ",
              decode ? 1 : a->max_rows);
        CHECK(s->ctx <= a->max_ctx, "attn: sequence %d has ctx %d, max_ctx is %d", i, s->ctx,
              a->max_ctx);
    }
    return TP_OK;
}

tp_status kern_check_silu_mul(const kern_silu_mul_args *a)
{
    CHECK(a->m >= 0 && a->n >= 0, "silu_mul: shape [%d, %d]", a->m, a->n);
    CHECK(dtype_known(a->out_dtype), "silu_mul: unknown out_dtype %d", (int)a->out_dtype);
    CHECK(a->m == 0 || a->n == 0 || (a->out != NULL && a->in != NULL),
          "silu_mul: a pointer is NULL");
    return TP_OK;
}

tp_status kern_check_gather(const kern_gather_args *a)
{
    CHECK(a->n >= 0 && a->dim >= 0, "gather: shape [%d, %d]", a->n, a->dim);
    CHECK(a->n == 0 || a->dim == 0 || (a->out != NULL && a->in != NULL && a->idx != NULL),
          "gather: a pointer is NULL");
    return TP_OK;
}

tp_status kern_check_words(const char *op, const void *out, const void *in, const int32_t *idx,
                           int n)
{
    CHECK(n >= 0, "%s: n is %d", op, n);
    CHECK(n == 0 || (out != NULL && in != NULL && idx != NULL), "%s: a pointer is NULL", op);
    return TP_OK;
}

/* What the three sampling operations have in common. */
static tp_status check_shard(const char *op, int64_t ld, int32_t vocab_first, int32_t n_local)
{
    CHECK(n_local >= 0 && ld >= n_local && vocab_first >= 0 && vocab_first <= INT32_MAX - n_local,
          "%s: vocab_first %d, n_local %d, ld %lld", op, vocab_first, n_local, (long long)ld);
    return TP_OK;
}

tp_status kern_check_adjust(const kern_adjust_args *a)
{
    TP_TRY(check_shard("adjust", a->ld, a->vocab_first, a->n_local));
    CHECK(a->n_rows >= 0, "adjust: n_rows is %d", a->n_rows);
    CHECK(a->n_rows == 0 || a->n_local == 0 ||
              (a->logits != NULL && a->rows != NULL && a->scratch != NULL),
          "adjust: a pointer is NULL");
    return TP_OK;
}

tp_status kern_check_adjust_items(const kern_adjust_args *a)
{
    for (int i = 0; i < a->n_rows; i++) {
        const kern_adjust_row *r = &a->rows[i];

        CHECK(r->repetition > 0.0f, "adjust: repetition penalty is %g, expected more than 0",
              (double)r->repetition);
        CHECK(r->n_prompt >= 0 && r->n_prompt <= r->n_history,
              "adjust: prompt of %d tokens in a history of %d", r->n_prompt, r->n_history);
    }
    return TP_OK;
}

tp_status kern_check_topk(const kern_topk_args *a)
{
    TP_TRY(check_shard("topk", a->ld, a->vocab_first, a->n_local));
    CHECK(a->n_rows >= 0 && a->k >= 0 && a->k <= KERN_TOPK_MAX,
          "topk: n_rows %d, k %d, expected k up to %d", a->n_rows, a->k, KERN_TOPK_MAX);
    CHECK(a->n_rows == 0 || a->k == 0 ||
              ((a->logits != NULL || a->n_local == 0) && a->rows != NULL && a->val != NULL &&
               a->id != NULL),
          "topk: a pointer is NULL");
    return TP_OK;
}

tp_status kern_check_chunk(const kern_chunk_args *a)
{
    TP_TRY(check_shard("chunk_stats", a->ld, a->vocab_first, a->n_local));
    CHECK(a->chunk_tokens >= 1 && a->vocab_first % a->chunk_tokens == 0,
          "chunk_stats: vocab_first %d is not a multiple of chunk_tokens %d", a->vocab_first,
          a->chunk_tokens);
    CHECK(a->n_rows >= 0, "chunk_stats: n_rows is %d", a->n_rows);
    CHECK(a->n_rows == 0 || a->n_local == 0 ||
              (a->logits != NULL && a->rows != NULL && a->out != NULL && a->scratch != NULL),
          "chunk_stats: a pointer is NULL");
    return TP_OK;
}

tp_status kern_check_draw(const kern_draw_args *a)
{
    CHECK(a->n_rows >= 0 && a->n_ranks >= 1 && a->n_ranks <= TP_SEG_MAX && a->message_bytes >= 0 &&
              a->message_bytes % 4 == 0,
          "draw: %d rows of %d ranks, messages of %lld bytes", a->n_rows, a->n_ranks,
          (long long)a->message_bytes);
    CHECK(a->n_rows == 0 || (a->gathered != NULL && a->ranks != NULL && a->rows != NULL &&
                             a->token != NULL && a->logit != NULL),
          "draw: a pointer is NULL");
    return TP_OK;
}
