/* SPDX-License-Identifier: Apache-2.0 */
/* attn_generic.cu - attention for any head dimension up to 256 and any numbers in the cache, all in FP32.
 *
 * The path of caches in FP32 and of small head dimensions: made to be right, not to be fast.  One warp per row and
 * head.  Scores: a lane has a key.  Values: a lane has every 32nd dimension.  Keys go by in 32s with the softmax
 * carried along, so a row's order of additions depends on its position and window only.
 *
 * grid (max_rows, ceil(n_q / 4), sequences), block 4 warps, 5.6 KiB of shared memory.
 */
#include "kernels/cuda/attn_kernels.h"

#define KEYS 32

TP_DEV void store(const attn_view &a, int64_t at, float v)
{
    if (a.out_dtype == KERN_DTYPE_F32)
        static_cast<float *>(a.out)[at] = v;
    else if (a.out_dtype == KERN_DTYPE_BF16)
        tp_from_float(static_cast<__nv_bfloat16 *>(a.out) + at, v);
    else
        tp_from_float(static_cast<__half *>(a.out) + at, v);
}

template <typename T> TP_DEV float dot(const float *q, const T *k, int n)
{
    float sum = 0.0f;

    for (int d = 0; d < n; d++)
        sum = fmaf(q[d], tp_to_float(k[d]), sum);
    return sum;
}

template <typename T> TP_KERNEL(ATTN_THREADS) kern_attn_generic(attn_view a)
{
    TP_SHARED(float, q_of, ATTN_WARPS *KERN_ATTN_DIM_MAX);
    TP_SHARED(float, weight_of, ATTN_WARPS *KEYS);
    TP_SHARED(int64_t, place_of, ATTN_WARPS * KEYS);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int head = blockIdx.y * ATTN_WARPS + warp, row = blockIdx.x, dim = a.head_dim;
    float *q = q_of + warp * KERN_ATTN_DIM_MAX, *weight = weight_of + warp * KEYS;
    int64_t *place = place_of + warp * KEYS;
    float acc[KERN_ATTN_DIM_MAX / 32] = {0.0f}, max = ATTN_HIDDEN, sum = 0.0f;

    tp_grid_wait();
    tp_grid_trigger();
    const kern_attn_seq seq = a.seqs[blockIdx.z];
    if (row >= seq.n_rows || head >= a.n_q)
        return;
    int pos = seq.ctx - seq.n_rows + row; /* -1 in an empty place: nothing to see */
    const T *k = static_cast<const T *>(a.cache) + a.kv_of_q[head] * a.head_stride;
    const float *q_row = a.q + (seq.row + row) * a.q_stride + head * dim;

    for (int d = lane; d < dim; d += 32)
        q[d] = q_row[d] * a.scale;
    for (int base = attn_first_key(pos, a.window); base <= pos; base += KEYS) {
        int key = base + lane;
        int64_t at = 0;
        float score = ATTN_HIDDEN, top, rescale;

        __syncwarp();
        if (key <= pos) {
            int64_t unit = attn_unit(a, a.block_tables + seq.table, key / ATTN_GROUP);

            at = (unit * ATTN_GROUP + key % ATTN_GROUP) * dim;
            score = dot(q, k + at, dim);
        }
        top = fmaxf(max, tp_warp_max(score)); /* base is seen: finite */
        rescale = expf(max - top);
        score = expf(score - top);
        sum = sum * rescale + score;
        max = top;
        weight[lane] = score;
        place[lane] = at + a.v_offset;
        __syncwarp();
#pragma unroll
        for (int i = 0; i < KERN_ATTN_DIM_MAX / 32; i++)
            acc[i] *= rescale;
        for (int j = 0; j < KEYS && base + j <= pos; j++)
#pragma unroll
            for (int i = 0; i < KERN_ATTN_DIM_MAX / 32; i++)
                if (i * 32 + lane < dim)
                    acc[i] = fmaf(weight[j], tp_to_float(k[place[j] + i * 32 + lane]), acc[i]);
    }
    sum = tp_warp_sum(sum);
#pragma unroll
    for (int i = 0; i < KERN_ATTN_DIM_MAX / 32; i++)
        if (i * 32 + lane < dim)
            store(a, ((int64_t)(seq.row + row) * a.n_q + head) * dim + i * 32 + lane,
                  sum > 0.0f ? acc[i] / sum : 0.0f);
}

void kern_attn_generic_launch(const attn_view *a, kern_dtype kv, int n, int max_rows, kern_stream s)
{
    dim3 grid(max_rows, (a->n_q + ATTN_WARPS - 1) / ATTN_WARPS, n);

    if (kv == KERN_DTYPE_F32)
        TP_LAUNCH((kern_attn_generic<float>), grid, ATTN_THREADS, 0, s, *a);
    else if (kv == KERN_DTYPE_BF16)
        TP_LAUNCH((kern_attn_generic<__nv_bfloat16>), grid, ATTN_THREADS, 0, s, *a);
    else
        TP_LAUNCH((kern_attn_generic<__half>), grid, ATTN_THREADS, 0, s, *a);
}
