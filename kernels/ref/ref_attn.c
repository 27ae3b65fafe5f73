/* SPDX-License-Identifier: Apache-2.0 */
/* ref_attn.c - the cache, qkv (norm, RoPE, cache write), and causal attention. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/ref/ref_internal.h"

/* ---- cache ---- */
size_t kern_ref_kv_block_bytes(const kern_backend *be, const kern_kv_desc *d)
{
    (void)be;
    return (size_t)d->n_layers * 2 * (size_t)d->block_tokens * (size_t)d->n_kv *
           (size_t)d->head_dim * kern_dtype_bytes(d->dtype);
}

tp_status kern_ref_kv_create(kern_backend *be, const kern_kv_desc *d, kern_kv **out)
{
    kern_kv *kv;
    size_t bytes;

    TP_TRY(kern_check_kv_desc(d));
    bytes = kern_ref_kv_block_bytes(be, d) * (size_t)d->n_blocks;
    kv = tp_calloc(1, sizeof *kv);
    if (kv != NULL)
        kv->data = tp_aligned_alloc(64, bytes);
    if (kv == NULL || kv->data == NULL) {
        kern_ref_kv_destroy(be, kv);
        return TP_FAIL(TP_ERR_NOMEM, "out of memory: kv cache of %zu bytes", bytes);
    }
    kv->desc = *d;
    *out = kv;
    return TP_OK;
}

void kern_ref_kv_destroy(kern_backend *be, kern_kv *kv)
{
    (void)be;
    if (kv == NULL)
        return;
    tp_free(kv->data);
    tp_free(kv);
}

tp_status kern_ref_kv_copy_block(kern_backend *be, kern_kv *kv, int32_t dst, int32_t src)
{
    const kern_kv_desc *d = &kv->desc;
    int bt = d->block_tokens;
    size_t bytes = (size_t)bt * (size_t)d->n_kv * (size_t)d->head_dim * kern_dtype_bytes(d->dtype);

    (void)be;
    TP_TRY(kern_check_kv_blocks(d, dst, src));
    for (int layer = 0; layer < d->n_layers && dst != src; layer++)
        for (int is_v = 0; is_v < 2; is_v++)
            memcpy(kern_ref_kv_at(kv, layer, is_v, (int64_t)dst * bt, 0),
                   kern_ref_kv_at(kv, layer, is_v, (int64_t)src * bt, 0), bytes);
    return TP_OK;
}

/* ---- qkv ---- */
static void head_norm(float *x, const float *weight, int dim, float eps)
{
    float sum = 0.0f, scale;

    for (int i = 0; i < dim; i++)
        sum += x[i] * x[i];
    scale = 1.0f / sqrtf(sum / (float)dim + eps);
    for (int i = 0; i < dim; i++)
        x[i] = x[i] * scale * weight[i];
}

/* Element i turns with element i + n_freq. */
static void head_rope(float *x, const float *cos_sin, int n_freq)
{
    for (int i = 0; i < n_freq; i++) {
        float c = cos_sin[2 * i], s = cos_sin[2 * i + 1];
        float a = x[i], b = x[i + n_freq];

        x[i] = a * c - b * s;
        x[i + n_freq] = b * c + a * s;
    }
}

static void kv_store(const kern_qkv_args *a, int is_v, int32_t slot, int head, const float *x)
{
    kern_dtype t = a->kv->desc.dtype;
    unsigned char *dst = kern_ref_kv_at(a->kv, a->layer, is_v, slot, head);

    for (int i = 0; i < a->head_dim; i++)
        kern_store_f32(dst + (size_t)i * kern_dtype_bytes(t), t, x[i]);
}

tp_status kern_ref_qkv(kern_backend *be, const kern_qkv_args *a)
{
    (void)be;
    TP_TRY(kern_check_qkv(a, &a->kv->desc));
    TP_TRY(kern_check_qkv_items(a, &a->kv->desc));
    for (int r = 0; r < a->m; r++) {
        float *row = a->qkv + (int64_t)r * (a->n_q + 2 * a->n_kv) * a->head_dim;
        const float *cos_sin = a->cos_sin + (int64_t)r * a->n_freq * 2;

        for (int h = 0; h < a->n_q + a->n_kv; h++) {
            float *x = row + (int64_t)h * a->head_dim;
            const float *norm = h < a->n_q ? a->q_norm : a->k_norm;

            if (norm != NULL)
                head_norm(x, norm, a->head_dim, a->norm_eps);
            head_rope(x, cos_sin, a->n_freq);
        }
        for (int h = 0; h < a->n_kv && a->kv_index[r] >= 0; h++) {
            kv_store(a, 0, a->kv_index[r], h, row + (int64_t)(a->n_q + h) * a->head_dim);
            kv_store(a, 1, a->kv_index[r], h, row + (int64_t)(a->n_q + a->n_kv + h) * a->head_dim);
        }
    }
    return TP_OK;
}

/* ---- attention ---- */
size_t kern_ref_attn_scratch_bytes(const kern_backend *be, int n_q, int head_dim, int64_t ctx_max,
                                   int seqs_max)
{
    (void)be;
    (void)n_q;
    (void)seqs_max;
    return ((size_t)ctx_max + (size_t)head_dim) * sizeof(float);
}

static int64_t slot_of(const kern_attn_args *a, const kern_attn_seq *s, int pos)
{
    int bt = a->kv->desc.block_tokens;

    return (int64_t)a->block_tables[s->table + pos / bt] * bt + pos % bt;
}

/* One query head at position `pos`: scores, softmax, weighted sum of values into acc; zeros when it sees nothing (an
 * empty place: pos -1). */
static void attend(const kern_attn_args *a, const kern_attn_seq *s, const float *q, int head,
                   int pos)
{
    float *score = a->scratch, *acc = score + s->ctx;
    kern_dtype t = a->kv->desc.dtype;
    size_t eb = kern_dtype_bytes(t);
    int first = a->window > 0 && pos >= a->window ? pos - a->window + 1 : 0;
    float max = -INFINITY, sum = 0.0f;

    for (int j = first; j <= pos; j++) {
        const unsigned char *k = kern_ref_kv_at(a->kv, a->layer, 0, slot_of(a, s, j), head);
        float dot = 0.0f;

        for (int i = 0; i < a->head_dim; i++)
            dot += q[i] * kern_load_f32(k + (size_t)i * eb, t);
        score[j] = dot * a->scale;
        max = fmaxf(max, score[j]);
    }
    for (int i = 0; i < a->head_dim; i++)
        acc[i] = 0.0f;
    for (int j = first; j <= pos; j++) {
        const unsigned char *v = kern_ref_kv_at(a->kv, a->layer, 1, slot_of(a, s, j), head);
        float p = expf(score[j] - max);

        sum += p;
        for (int i = 0; i < a->head_dim; i++)
            acc[i] += p * kern_load_f32(v + (size_t)i * eb, t);
    }
    for (int i = 0; i < a->head_dim && pos >= 0; i++)
        acc[i] /= sum;
}

tp_status kern_ref_attn(kern_backend *be, const kern_attn_args *a)
{
    size_t out_bytes = kern_dtype_bytes(a->out_dtype);

    (void)be;
    TP_TRY(kern_check_attn(a, &a->kv->desc));
    TP_TRY(kern_check_attn_items(a, &a->kv->desc));
    for (int i = 0; i < a->n_seqs; i++) {
        const kern_attn_seq *s = &a->seqs[i];
        const float *acc = (const float *)a->scratch + s->ctx;

        for (int r = 0; r < s->n_rows; r++) {
            for (int h = 0; h < a->n_q; h++) {
                int64_t row = s->row + r;
                unsigned char *out = (unsigned char *)a->out +
                                     (size_t)((row * a->n_q + h) * a->head_dim) * out_bytes;

                attend(a, s, a->q + row * a->q_stride + (int64_t)h * a->head_dim, a->kv_of_q[h],
                       s->ctx - s->n_rows + r);
                for (int d = 0; d < a->head_dim; d++)
                    kern_store_f32(out + (size_t)d * out_bytes, a->out_dtype, acc[d]);
            }
        }
    }
    return TP_OK;
}
