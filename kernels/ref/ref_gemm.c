/* SPDX-License-Identifier: Apache-2.0 */
/* ref_gemm.c - weights, embedding, matrix product: FP32 sums with K ascending, product rounded, then added. */
#include "base/mem.h"
#include "kernels/ref/ref_internal.h"

size_t kern_ref_weight_bytes(const kern_backend *be, const kern_weight_desc *d)
{
    (void)be;
    return (size_t)d->n * (size_t)d->k * kern_dtype_bytes(d->dtype);
}

tp_status kern_ref_weight_create(kern_backend *be, const kern_weight_desc *d, kern_weight **out)
{
    kern_weight *w;

    TP_TRY(kern_check_weight_desc(d));
    w = tp_calloc(1, sizeof *w);
    if (w != NULL)
        w->data = tp_aligned_alloc(64, kern_ref_weight_bytes(be, d));
    if (w == NULL || w->data == NULL) {
        kern_ref_weight_destroy(be, w);
        return TP_FAIL(TP_ERR_NOMEM, "out of memory: weight of %zu bytes",
                       kern_ref_weight_bytes(be, d));
    }
    w->desc = *d;
    *out = w;
    return TP_OK;
}

void kern_ref_weight_destroy(kern_backend *be, kern_weight *w)
{
    (void)be;
    if (w == NULL)
        return;
    tp_free(w->data);
    tp_free(w);
}

static unsigned char *element(const kern_weight *w, int64_t row, int64_t col)
{
    return w->data + (size_t)(row * w->desc.k + col) * kern_dtype_bytes(w->desc.dtype);
}

tp_status kern_ref_weight_put(kern_backend *be, kern_weight *w, const kern_weight_rows *rows)
{
    size_t src_bytes = kern_dtype_bytes(rows->src_dtype);

    (void)be;
    TP_TRY(kern_check_weight_rows(rows, &w->desc));
    for (int64_t i = 0; i < rows->n_rows; i++) {
        const unsigned char *src = (const unsigned char *)rows->src + (size_t)i * rows->src_stride;

        for (int64_t j = 0; j < w->desc.k; j++)
            kern_store_f32(element(w, rows->row + i, j), w->desc.dtype,
                           kern_load_f32(src + (size_t)j * src_bytes, rows->src_dtype));
    }
    return TP_OK;
}

tp_status kern_ref_embed(kern_backend *be, const kern_embed_args *a)
{
    int64_t k = a->table->desc.k;

    (void)be;
    TP_TRY(kern_check_embed(a, &a->table->desc));
    for (int i = 0; i < a->m; i++) {
        int64_t row = (int64_t)a->ids[i] - a->vocab_first;
        bool local = row >= 0 && row < a->table->desc.n;

        for (int64_t j = 0; j < k; j++)
            a->out[i * k + j] =
                local ? kern_load_f32(element(a->table, row, j), a->table->desc.dtype) : 0.0f;
    }
    return TP_OK;
}

size_t kern_ref_gemm_scratch_bytes(const kern_backend *be, int m_max, int64_t n_max, int64_t k_max)
{
    (void)be;
    (void)m_max;
    (void)n_max;
    (void)k_max;
    return 0;
}

/* Sum over the columns [begin, end) of row i of `in` times row j of the weight. */
static float dot(const kern_gemm_args *a, kern_dtype act, int i, int64_t j, int64_t begin,
                 int64_t end)
{
    const kern_weight_desc *d = &a->w->desc;
    const unsigned char *in =
        (const unsigned char *)a->in + (size_t)(i * d->k) * kern_dtype_bytes(act);
    float sum = 0.0f;

    for (int64_t c = begin; c < end; c++)
        sum += kern_load_f32(in + (size_t)c * kern_dtype_bytes(act), act) *
               kern_load_f32(element(a->w, j, c), d->dtype);
    return sum;
}

/* The roots of this rank's run for one output element: the stack machine of base/segtree.h. */
static int split_roots(const kern_gemm_args *a, kern_dtype act, int i, int64_t j, float *roots)
{
    const kern_ksplit *s = a->split;
    tp_seg_node node[TP_SEG_ROOTS_MAX + 1];
    int depth = 0;

    for (int seg = 0; seg < s->n_seg; seg++) {
        roots[depth] = dot(a, act, i, j, seg == 0 ? 0 : s->k_end[seg - 1], s->k_end[seg]);
        node[depth] = (tp_seg_node){.first = (int16_t)(s->seg_first + seg), .len = 1};
        depth++;
        while (depth >= 2 && tp_seg_siblings(node[depth - 2], node[depth - 1], &node[depth - 2])) {
            roots[depth - 2] += roots[depth - 1];
            depth--;
        }
    }
    return depth;
}

tp_status kern_ref_gemm(kern_backend *be, const kern_gemm_args *a)
{
    const kern_weight_desc *d = &a->w->desc;
    kern_dtype act = kern_act_dtype(be, d->dtype);

    TP_TRY(kern_check_gemm(a, d));
    for (int i = 0; i < a->m; i++) {
        for (int64_t j = 0; j < d->n; j++) {
            float roots[TP_SEG_ROOTS_MAX + 1];

            if (a->split == NULL) {
                a->out[i * d->n + j] =
                    dot(a, act, i, j, 0, d->k) + (a->bias != NULL ? a->bias[j] : 0.0f);
                continue;
            }
            for (int r = split_roots(a, act, i, j, roots) - 1; r >= 0; r--)
                a->out[((int64_t)r * a->m + i) * d->n + j] = roots[r];
        }
    }
    return TP_OK;
}
