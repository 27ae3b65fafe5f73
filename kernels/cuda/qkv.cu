/* SPDX-License-Identifier: Apache-2.0 */
/* qkv.cu - per-head RMSNorm of q and k, RoPE, and keys and values into the paged cache.
 *
 * One warp per (row, head), eight warps per block; heads of a row are [n_q | n_kv | n_kv].  Element i of a head turns
 * with element i + n_freq, so a lane takes both.  Two forms: heads that turn as a whole, up to 256 wide, stay in
 * registers and move as pairs of numbers; all others are read twice, one number at a time.  Limit: launches in decode,
 * memory in prefill (8 bytes per number of q, 8 + the cache's per number of k and v).
 */
#include <limits.h>

#include "kernels/cuda/num.cuh"

#define QKV_WARPS 8

/* What one warp works on. */
typedef struct qkv_head {
    float *x;             /* [head_dim] */
    const float *cos_sin; /* [n_freq, 2] of the row */
    const float *norm;    /* [head_dim] or NULL */
    int64_t to;           /* element of the cache where it goes; -1: nowhere */
    bool value;           /* neither scaled nor turned */
} qkv_head;

/* The cache without its description. */
typedef struct qkv_cache {
    void *data; /* of the layer */
    int64_t block_stride, v_offset, head_stride;
    int block_tokens;
} qkv_cache;

/* False for a warp behind the last head. */
TP_DEV bool qkv_find(const kern_qkv_args &a, const qkv_cache &kv, qkv_head *h)
{
    int heads = a.n_q + 2 * a.n_kv;
    int64_t at = (int64_t)blockIdx.x * QKV_WARPS + threadIdx.x / 32, row = at / heads;
    int head = (int)(at % heads), kv_head = head - a.n_q, slot;

    if (row >= a.m)
        return false;
    slot = kv_head >= 0 ? a.kv_index[row] : -1;
    h->x = a.qkv + at * a.head_dim;
    h->cos_sin = a.cos_sin + row * a.n_freq * 2;
    h->value = kv_head >= a.n_kv;
    h->norm = h->value ? NULL : kv_head >= 0 ? a.k_norm : a.q_norm;
    h->to = -1;
    if (slot >= 0)
        h->to = slot / kv.block_tokens * kv.block_stride +
                slot % kv.block_tokens * (int64_t)a.head_dim +
                (h->value ? kv.v_offset + (kv_head - a.n_kv) * kv.head_stride
                          : kv_head * kv.head_stride);
    return true;
}

TP_DEV float qkv_scale(float sum_of_squares, int dim, float eps)
{
    return 1.0f / sqrtf(tp_warp_sum(sum_of_squares) / (float)dim + eps);
}

/* ---- a head that turns as a whole: n_freq = head_dim / 2, even, up to 64 * NP ---- */
template <typename T> TP_DEV void write_pair(T *p, const float from[2])
{
    tp_vec<T, 2> v;

    tp_from_float(&v.x[0], from[0]);
    tp_from_float(&v.x[1], from[1]);
    tp_vec_store<T, 2>(p, v);
}

TP_DEV void scale_pair(float x[2], float scale, const float *weight)
{
    tp_vec<float, 2> w = tp_vec_load<float, 2>(weight);

    for (int i = 0; i < 2; i++)
        x[i] = x[i] * scale * w.x[i];
}

TP_DEV void turn_pair(float lo[2], float hi[2], const float *cos_sin)
{
    tp_vec<float, 4> cs = tp_vec_load<float, 4>(cos_sin);

    for (int i = 0; i < 2; i++) {
        float a = lo[i], b = hi[i], c = cs.x[2 * i], s = cs.x[2 * i + 1];

        lo[i] = a * c - b * s;
        hi[i] = b * c + a * s;
    }
}

template <typename T, int NP> TP_KERNEL(32 * QKV_WARPS) qkv_pairs(kern_qkv_args a, qkv_cache kv)
{
    int half = a.head_dim / 2, lane = (int)threadIdx.x % 32;
    float lo[NP][2] = {}, hi[NP][2] = {}, sum = 0.0f;
    qkv_head h;

    tp_grid_wait();
    tp_grid_trigger();
    if (!qkv_find(a, kv, &h))
        return;
    for (int p = 0; p < NP; p++) {
        int j = 2 * lane + 64 * p;

        if (j < half) {
            tp_vec<float, 2> l = tp_vec_load<float, 2>(h.x + j);
            tp_vec<float, 2> r = tp_vec_load<float, 2>(h.x + half + j);

            for (int i = 0; i < 2; i++) {
                lo[p][i] = l.x[i];
                hi[p][i] = r.x[i];
                sum += l.x[i] * l.x[i] + r.x[i] * r.x[i];
            }
        }
    }
    if (h.norm != NULL) {
        float scale = qkv_scale(sum, a.head_dim, a.norm_eps);

        for (int p = 0; p < NP; p++) {
            int j = 2 * lane + 64 * p;

            if (j < half) {
                scale_pair(lo[p], scale, h.norm + j);
                scale_pair(hi[p], scale, h.norm + half + j);
            }
        }
    }
    for (int p = 0; p < NP; p++) {
        int j = 2 * lane + 64 * p;

        if (j >= half)
            continue;
        if (!h.value) {
            turn_pair(lo[p], hi[p], h.cos_sin + 2 * j);
            write_pair(h.x + j, lo[p]);
            write_pair(h.x + half + j, hi[p]);
        }
        if (h.to >= 0) {
            write_pair(static_cast<T *>(kv.data) + h.to + j, lo[p]);
            write_pair(static_cast<T *>(kv.data) + h.to + half + j, hi[p]);
        }
    }
}

/* ---- any head ---- */

/* Items of a head: n_freq pairs (i, i + n_freq), then the numbers that do not turn. */
template <typename T> TP_KERNEL(32 * QKV_WARPS) qkv_any(kern_qkv_args a, qkv_cache kv)
{
    int items = a.head_dim - a.n_freq, lane = (int)threadIdx.x % 32;
    float scale = 1.0f, sum = 0.0f;
    qkv_head h;

    tp_grid_wait();
    tp_grid_trigger();
    if (!qkv_find(a, kv, &h))
        return;
    if (h.norm != NULL) {
        for (int i = lane; i < a.head_dim; i += 32)
            sum += h.x[i] * h.x[i];
        scale = qkv_scale(sum, a.head_dim, a.norm_eps);
        __syncwarp(); /* all have read before one writes */
    }
    for (int i = lane; i < items; i += 32) {
        bool pair = i < a.n_freq;
        int j = pair ? i + a.n_freq : i, k = pair ? i : i + a.n_freq;
        float x = h.x[k], y = pair ? h.x[j] : 0.0f;

        if (h.norm != NULL) {
            x = x * scale * h.norm[k];
            y = pair ? y * scale * h.norm[j] : 0.0f;
        }
        if (!h.value && pair) {
            float c = h.cos_sin[2 * i], s = h.cos_sin[2 * i + 1], z = x;

            x = z * c - y * s;
            y = y * c + z * s;
        }
        if (!h.value) {
            h.x[k] = x;
            if (pair)
                h.x[j] = y;
        }
        if (h.to >= 0) {
            tp_from_float(static_cast<T *>(kv.data) + h.to + k, x);
            if (pair)
                tp_from_float(static_cast<T *>(kv.data) + h.to + j, y);
        }
    }
}

/* ---- launcher ---- */
template <typename T>
static void launch_qkv(const kern_qkv_args *a, int64_t first, unsigned grid, kern_stream s)
{
    const kern_kv *k = a->kv;
    qkv_cache kv = {static_cast<T *>(k->data) + first, k->block_stride, k->v_offset, k->head_stride,
                    k->desc.block_tokens};
    bool pairs = 2 * a->n_freq == a->head_dim && a->n_freq % 2 == 0 && a->n_freq <= 128 &&
                 k->block_stride % 2 == 0 && k->v_offset % 2 == 0 && k->head_stride % 2 == 0 &&
                 tp_aligned(kv.data, 2 * sizeof(T)) && tp_aligned(a->qkv, 8) &&
                 tp_aligned(a->cos_sin, 16) && tp_aligned(a->q_norm, 8) && tp_aligned(a->k_norm, 8);

    if (!pairs)
        TP_LAUNCH((qkv_any<T>), grid, 32 * QKV_WARPS, 0, s, *a, kv);
    else if (a->n_freq <= 64)
        TP_LAUNCH((qkv_pairs<T, 1>), grid, 32 * QKV_WARPS, 0, s, *a, kv);
    else
        TP_LAUNCH((qkv_pairs<T, 2>), grid, 32 * QKV_WARPS, 0, s, *a, kv);
}

extern "C" tp_status kern_cuda_qkv(const kern_qkv_args *a, kern_stream s)
{
    int64_t heads = (int64_t)a->m * (a->n_q + 2 * a->n_kv), first = a->layer * a->kv->layer_stride;
    unsigned grid = tp_blocks_of(heads, QKV_WARPS);

    if (heads == 0)
        return TP_OK;
    if (heads > INT_MAX)
        return TP_FAIL(TP_ERR_INVALID, "qkv: %d rows of %d heads are more than one launch can do",
                       a->m, a->n_q + 2 * a->n_kv);
    switch (a->kv->desc.dtype) {
    case KERN_DTYPE_F32: launch_qkv<float>(a, first, grid, s); break;
    case KERN_DTYPE_BF16: launch_qkv<__nv_bfloat16>(a, first, grid, s); break;
    case KERN_DTYPE_F16: launch_qkv<__half>(a, first, grid, s); break;
    default: return tp_no_dtype("qkv", a->kv->desc.dtype);
    }
    return tp_launched("qkv");
}
