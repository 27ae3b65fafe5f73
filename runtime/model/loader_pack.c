/* SPDX-License-Identifier: Apache-2.0 */
/* loader_pack.c - one block: reading it (or making noise), looking for NaN, packing it. */
#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "kernels/convert.h"
#include "runtime/model/loader_impl.h"

/* ---- reading ---- */

static tp_status read_block(const rt_loader *ld, rt_load_slot *s)
{
    const rt_param *p = s->b->param;
    const rt_st_tensor *t = s->b->tensor;
    size_t element = rt_load_element_bytes(t), row = (size_t)rt_load_row_len(p) * element;
    uint64_t at = t->offset + (uint64_t)s->b->row * row;

    s->dtype = (kern_dtype)t->dtype;
    if (!rt_load_reads_slices(p, element)) {
        s->stride = row;
        s->skip = (size_t)p->col_first * element;
        return rt_st_read(&ld->st, t->file, at, s->data, (size_t)s->b->n_rows * row);
    }
    s->stride = (size_t)p->n_cols * element;
    s->skip = 0;
    for (int64_t i = 0; i < s->b->n_rows; i++)
        TP_TRY(rt_st_read(&ld->st, t->file,
                          at + (uint64_t)i * row + (uint64_t)p->col_first * element,
                          s->data + (size_t)i * s->stride, s->stride));
    return TP_OK;
}

/* Norm weights 1, biases 0, matrices uniform with a variance of 1 / columns. */
static void make_noise(const rt_loader *ld, rt_load_slot *s)
{
    const rt_param *p = s->b->param;
    float *out = (float *)(void *)s->data;
    float constant = strstr(p->name, "norm") != NULL ? 1 : 0;
    float scale = (float)sqrt(3.0 / (double)rt_load_row_len(p));
    uint32_t seed = (uint32_t)tp_hash_fnv(p->name, strlen(p->name));
    int64_t n_cols = p->cols == 0 ? 1 : p->n_cols;

    s->dtype = KERN_DTYPE_F32;
    s->stride = (size_t)n_cols * sizeof *out;
    s->skip = 0;
    for (int64_t i = 0; i < s->b->n_rows; i++) {
        uint32_t at = tp_mix32(seed ^ (uint32_t)(s->b->row + i)) + (uint32_t)p->col_first;

        for (int64_t j = 0; j < n_cols; j++)
            out[i * n_cols + j] =
                p->cols == 0 ? constant
                             : scale * ld->noise[(at + (uint32_t)j) & (RT_LOAD_NOISE_LEN - 1)];
    }
}

/* An exponent of all ones is NaN or infinity in every format: adding its lowest bit carries into the sign's place, and
 * nowhere else.  Eight bytes at a time; the block was just written, so this runs in cache. */
static bool has_not_finite(const rt_load_slot *s)
{
    static const uint64_t ones[] = {0x7f8000007f800000U, 0x7f807f807f807f80U, 0x7c007c007c007c00U};
    static const uint64_t lowest[] = {0x0080000000800000U, 0x0080008000800080U,
                                      0x0400040004000400U};
    static const uint64_t sign[] = {0x8000000080000000U, 0x8000800080008000U, 0x8000800080008000U};
    size_t n = (size_t)s->b->n_rows * s->stride;
    uint64_t mask = ones[s->dtype], one = lowest[s->dtype], v, bad = 0;

    for (size_t i = 0; i + sizeof v <= n; i += sizeof v) {
        memcpy(&v, s->data + i, sizeof v);
        bad |= (v & mask) + one;
    }
    v = 0;
    memcpy(&v, s->data + n / sizeof v * sizeof v, n % sizeof v);
    bad |= (v & mask) + one;
    return (bad & sign[s->dtype]) != 0;
}

/* ---- packing ---- */

/* Elements [from, from + n) of a vector's block. */
static void unpack_vector(float *out, const rt_load_slot *s, int64_t from, int64_t n)
{
    int64_t size = (int64_t)kern_dtype_bytes(s->dtype);

    for (int64_t i = 0; i < n; i++)
        out[i] = kern_load_f32(s->data + (from + i) * size, s->dtype);
}

static tp_status put_vector(rt_load_worker *w, float *dst)
{
    kern_backend *be = w->loader->m->be;
    const rt_load_slot *s = &w->slot;

    for (int64_t at = 0; at < s->b->n_rows; at += RT_LOAD_VECTOR_PIECE) {
        int64_t n =
            s->b->n_rows - at < RT_LOAD_VECTOR_PIECE ? s->b->n_rows - at : RT_LOAD_VECTOR_PIECE;

        unpack_vector(w->piece, s, at, n);
        TP_TRY(be->ops->put(be, dst + at, w->piece, (size_t)n * sizeof *w->piece));
    }
    return TP_OK;
}

static tp_status put(rt_load_worker *w)
{
    const rt_load_slot *s = &w->slot;
    const rt_param *p = s->b->param;
    kern_backend *be = w->loader->m->be;
    int64_t done = s->b->row - p->row_first;

    if (p->vector != NULL)
        return put_vector(w, p->vector + done);
    return be->ops->weight_put(be, p->weight,
                               &(kern_weight_rows){.row = p->dst_row + done,
                                                   .n_rows = s->b->n_rows,
                                                   .src = s->data + s->skip,
                                                   .src_stride = s->stride,
                                                   .src_dtype = s->dtype});
}

/* ---- a block ---- */

static void warn_not_finite(rt_loader *ld, const rt_param *p)
{
    bool told;

    pthread_mutex_lock(&ld->lock);
    told = ld->warned == p;
    ld->warned = p;
    pthread_mutex_unlock(&ld->lock);
    if (!told)
        tp_warn("model", "tensor %s holds NaN or infinity", p->name);
}

tp_status rt_load_one_block(rt_load_worker *w, const rt_load_block *b)
{
    rt_loader *ld = w->loader;
    tp_status st;

    w->slot.b = b;
    if (b->tensor == NULL)
        make_noise(ld, &w->slot);
    else
        TP_TRY(read_block(ld, &w->slot));
    if (has_not_finite(&w->slot))
        warn_not_finite(ld, b->param);
    if (ld->m->be->parallel_put)
        return put(w);
    pthread_mutex_lock(&ld->put_lock);
    st = put(w);
    pthread_mutex_unlock(&ld->put_lock);
    return st;
}
