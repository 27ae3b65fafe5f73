/* SPDX-License-Identifier: Apache-2.0 */
/* attn.cuh - what the attention kernels share: the cache as they see it, tiles in shared memory, products, softmax.
 *
 * The unit of the cache is a group: 16 tokens of one head, K or V, 16 * head_dim contiguous numbers.  block_tokens is a
 * multiple of 16, so a group never leaves its block, and one number (its unit) finds it.
 *
 * The tensor-core kernels compute with the numbers of the cache (BF16 or F16): q is rounded to them with
 * scale * log2(e) folded in, so that what follows is exp2; weights are rounded to them before they meet V.  Sums,
 * maxima and results are FP32.
 */
#ifndef KERN_CUDA_ATTN_CUH
#define KERN_CUDA_ATTN_CUH

#include <math.h>
#include <string.h>

#include "kernels/cuda/num.cuh"

#define ATTN_GROUP   16  /* tokens */
#define ATTN_THREADS 128 /* of every attention kernel */
#define ATTN_WARPS   4
#define ATTN_LOG2_E  1.4426950408889634f
#define ATTN_HIDDEN  (-INFINITY) /* the score of a key that may not be seen */

/* kern_attn_args and the cache behind it, by value for a kernel. */
struct attn_view {
    void *out;
    const float *q;
    const void *cache; /* of this layer: block 0, K, head 0, token 0 */
    const kern_attn_seq *seqs;
    const int32_t *block_tables, *kv_of_q;
    float *parts; /* decode's partial results, and how many of them have arrived */
    uint32_t *counters;
    int64_t q_stride, block_stride, v_offset, head_stride; /* elements */
    int n_seqs, n_q, head_dim, window;
    int groups_per_block,
        units_per_block; /* a unit is 16 * head_dim elements; a block has both K and V of all heads */
    float scale;
    kern_dtype out_dtype;
    bool q_even; /* every row of q starts 8-byte aligned */
};

/* The first key that position pos sees. */
TP_DEV int attn_first_key(int pos, int window)
{
    return window > 0 && pos >= window ? pos - window + 1 : 0;
}

/* Where a group of a sequence lies, in units from the head's first. */
TP_DEV int32_t attn_unit(const attn_view &a, const int32_t *table, int group)
{
    if (a.groups_per_block == 1)
        return table[group] * a.units_per_block;
    return table[group / a.groups_per_block] * a.units_per_block + group % a.groups_per_block;
}

TP_DEV uint32_t attn_pack_bf16(float lo, float hi)
{
    __nv_bfloat162 v = __floats2bfloat162_rn(lo, hi);
    uint32_t bits;

    memcpy(&bits, &v, sizeof bits);
    return bits;
}

TP_DEV uint32_t attn_pack_f16(float lo, float hi)
{
    __half2 v = __floats2half2_rn(lo, hi);
    uint32_t bits;

    memcpy(&bits, &v, sizeof bits);
    return bits;
}

/* Stores N (2 or 4) neighbours of a row of out; `at` in elements, a multiple of N. */
template <int N> TP_DEV void attn_store(const attn_view &a, int64_t at, const float v[N])
{
    if (a.out_dtype == KERN_DTYPE_F32) {
        float2 *to = reinterpret_cast<float2 *>(static_cast<float *>(a.out) + at);

#pragma unroll
        for (int i = 0; i < N / 2; i++)
            to[i] = make_float2(v[2 * i], v[2 * i + 1]);
    } else {
        uint32_t *to = reinterpret_cast<uint32_t *>(static_cast<uint16_t *>(a.out) + at);

#pragma unroll
        for (int i = 0; i < N / 2; i++)
            to[i] = a.out_dtype == KERN_DTYPE_BF16 ? attn_pack_bf16(v[2 * i], v[2 * i + 1])
                                                   : attn_pack_f16(v[2 * i], v[2 * i + 1]);
    }
}

/* ---- the numbers of the cache ---- */
template <typename T> struct attn_number {
    static constexpr bool bf16 = false;
};
template <> struct attn_number<__nv_bfloat16> {
    static constexpr bool bf16 = true;
};

template <typename T> TP_DEV uint32_t attn_pack(float lo, float hi)
{
    if constexpr (attn_number<T>::bf16)
        return attn_pack_bf16(lo, hi);
    else
        return attn_pack_f16(lo, hi);
}

template <typename T> TP_DEV void attn_mma(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    if constexpr (attn_number<T>::bf16)
        tp_mma_bf16(d, a, b);
    else
        tp_mma_f16(d, a, b);
}

/* ---- rows of D numbers in shared memory ----
 * Eight rows at the same column lie in eight different groups of four banks, so ldmatrix has no conflicts: where a row
 * is a multiple of 128 bytes its 16-byte chunks are permuted, else it is lengthened to an odd number of chunks. */
template <int D> struct attn_rows {
    static constexpr bool swizzled = D % 64 == 0;
    static constexpr int chunks = D / 8;
    static constexpr int stride = swizzled ? chunks : chunks + 1; /* chunks from row to row */
};

template <int D> constexpr int attn_rows_bytes(int rows)
{
    return rows * attn_rows<D>::stride * 16;
}

template <int D> TP_DEV uint4 *attn_chunk(uint4 *tile, int row, int chunk)
{
    return tile + row * attn_rows<D>::stride + (attn_rows<D>::swizzled ? chunk ^ (row & 7) : chunk);
}

/* The same for chunk 2 * kk + odd.  kk is known to the compiler: four addresses serve all of them. */
template <int D> TP_DEV uint4 *attn_chunk_of(uint4 *tile, int row, int kk, int odd)
{
    if constexpr (!attn_rows<D>::swizzled)
        return tile + row * attn_rows<D>::stride + odd + 2 * kk;
    return tile + row * attn_rows<D>::stride + ((2 * (kk & 3) | odd) ^ (row & 7)) + 2 * (kk & ~3);
}

/* B of q k^T: 16 keys from `key` on, dimensions 16 kk..: b[0..1] of the first eight keys, b[2..3] of the others. */
template <int D> TP_DEV void attn_load_k(uint32_t b[4], uint4 *tile, int key, int kk)
{
    int lane = threadIdx.x % 32;

    tp_ldmatrix_x4(b,
                   attn_chunk_of<D>(tile, key + (lane >> 4) * 8 + (lane & 7), kk, (lane >> 3) & 1));
}

/* B of p v: 16 keys from `key` on, dimensions 16 jj..: b[0..1] of the first eight dimensions, b[2..3] of the others. */
template <int D> TP_DEV void attn_load_v(uint32_t b[4], uint4 *tile, int key, int jj)
{
    int lane = threadIdx.x % 32;

    tp_ldmatrix_x4_trans(
        b, attn_chunk_of<D>(tile, key + ((lane >> 3) & 1) * 8 + (lane & 7), jj, lane >> 4));
}

/* A of q k^T from rows of q in shared memory: 16 rows from `row` on, dimensions 16 kk... */
template <int D> TP_DEV void attn_load_q(uint32_t a[4], uint4 *tile, int row, int kk)
{
    int lane = threadIdx.x % 32;

    tp_ldmatrix_x4(a,
                   attn_chunk_of<D>(tile, row + ((lane >> 3) & 1) * 8 + (lane & 7), kk, lane >> 4));
}

/* Two neighbours of q, times factor, as one register. */
template <typename T> TP_DEV uint32_t attn_q_pair(const float *q, float factor, bool even)
{
    float2 v = even ? *reinterpret_cast<const float2 *>(q) : make_float2(q[0], q[1]);

    return attn_pack<T>(v.x * factor, v.y * factor);
}

/* Eight neighbours of q, times factor, as a chunk of a row in shared memory. */
template <typename T> TP_DEV uint4 attn_q_chunk(const float *q, float factor, bool even)
{
    return make_uint4(attn_q_pair<T>(q, factor, even), attn_q_pair<T>(q + 2, factor, even),
                      attn_q_pair<T>(q + 4, factor, even), attn_q_pair<T>(q + 6, factor, even));
}

/* A of q k^T for all dimensions straight from q; NULL is a row of zeros.  lo and hi are this lane's rows. */
template <typename T, int D>
TP_DEV void attn_fetch_q(uint32_t a[D / 16][4], const float *lo, const float *hi, float factor,
                         bool even)
{
    int t2 = (threadIdx.x & 3) * 2;

#pragma unroll
    for (int kk = 0; kk < D / 16; kk++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int at = kk * 16 + half * 8 + t2;

            a[kk][2 * half] = lo != nullptr ? attn_q_pair<T>(lo + at, factor, even) : 0;
            a[kk][2 * half + 1] = hi != nullptr ? attn_q_pair<T>(hi + at, factor, even) : 0;
        }
    }
}

/* ---- softmax over rows g and g + 8 of a fragment, tile after tile ---- */
struct attn_softmax {
    float max[2], sum[2]; /* sum: this lane's share, times exp2(-max) */
};

TP_DEV float attn_quad_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(TP_WARP_ALL, x, 1));
    return fmaxf(x, __shfl_xor_sync(TP_WARP_ALL, x, 2));
}

TP_DEV float attn_quad_sum(float x)
{
    x += __shfl_xor_sync(TP_WARP_ALL, x, 1);
    return x + __shfl_xor_sync(TP_WARP_ALL, x, 2);
}

/* Scores become weights relative to the new maximum; what was summed before is rescaled to it, in o too.  A row that
 * has seen nothing yet keeps its maximum of -inf and weighs everything 0. */
template <int NT, int DT> /* tiles of 8 keys, of 8 dimensions */
TP_DEV void attn_softmax_step(attn_softmax &m, float s[NT][4], float o[DT][4])
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float top = m.max[r], base, rescale, sum = 0.0f;

#pragma unroll
        for (int n = 0; n < NT; n++)
            top = fmaxf(top, fmaxf(s[n][2 * r], s[n][2 * r + 1]));
        top = attn_quad_max(top);
        base = top == ATTN_HIDDEN ? 0.0f : top;
        rescale = tp_exp2(m.max[r] - base);
#pragma unroll
        for (int n = 0; n < NT; n++) {
            s[n][2 * r] = tp_exp2(s[n][2 * r] - base);
            s[n][2 * r + 1] = tp_exp2(s[n][2 * r + 1] - base);
            sum += s[n][2 * r] + s[n][2 * r + 1];
        }
        m.sum[r] = m.sum[r] * rescale + sum;
        m.max[r] = top;
#pragma unroll
        for (int j = 0; j < DT; j++) {
            o[j][2 * r] *= rescale;
            o[j][2 * r + 1] *= rescale;
        }
    }
}

/* A of p v for 16 keys: the weights of two neighbouring tiles of 8. */
template <typename T>
TP_DEV void attn_weights(uint32_t a[4], const float left[4], const float right[4])
{
    a[0] = attn_pack<T>(left[0], left[1]);
    a[1] = attn_pack<T>(left[2], left[3]);
    a[2] = attn_pack<T>(right[0], right[1]);
    a[3] = attn_pack<T>(right[2], right[3]);
}

#endif
