/* SPDX-License-Identifier: Apache-2.0 */
/* norm.cu - residual += add, then RMSNorm.
 *
 * One block per row.  Rows of up to 16,384 numbers in whole vectors stay in registers between the sum and the scaling:
 * 1 to 4 vectors of 16 bytes per thread, so a row is read once and written once.  Others are read again, one number at
 * a time.  Bytes per number: 4 read (8 with add), 4 written where there is an add, out.  Limit: memory; with a few
 * rows the latency of two barriers.
 */
#include "kernels/cuda/num.cuh"

#define NORM_THREADS 1024
#define NORM_VECS    4

/* 1 / sqrt with the bits of the scalar backend; every thread computes it. */
TP_DEV float norm_scale(float sum, int dim, float eps)
{
    return 1.0f / sqrtf(sum / (float)dim + eps);
}

template <typename T, int NV> TP_KERNEL(NORM_THREADS) rmsnorm_vec(kern_rmsnorm_args a)
{
    TP_SHARED(float, part, 32);
    int64_t row = (int64_t)blockIdx.x * a.dim;
    float x[NV][4] = {}, sum = 0.0f, scale; /* zeros behind the end of the row */

    tp_grid_wait();
    tp_grid_trigger();
    for (int i = 0; i < NV; i++) {
        int at = 4 * (int)(threadIdx.x + i * blockDim.x);

        if (at < a.dim)
            tp_read<4>(x[i], a.residual + row + at);
    }
    if (a.add != NULL) {
        float y[NV][4];

        for (int i = 0; i < NV; i++) {
            int at = 4 * (int)(threadIdx.x + i * blockDim.x);

            if (at < a.dim)
                tp_read<4>(y[i], a.add + row + at);
        }
        for (int i = 0; i < NV; i++) {
            int at = 4 * (int)(threadIdx.x + i * blockDim.x);

            if (at >= a.dim)
                continue;
            for (int j = 0; j < 4; j++)
                x[i][j] += y[i][j];
            tp_write<4>(a.residual + row + at, x[i]);
        }
    }
    for (int i = 0; i < NV; i++)
        for (int j = 0; j < 4; j++)
            sum += x[i][j] * x[i][j];
    scale = norm_scale(tp_block_sum(sum, part), a.dim, a.eps);
    for (int i = 0; i < NV; i++) {
        int at = 4 * (int)(threadIdx.x + i * blockDim.x);
        float w[4];

        if (at >= a.dim)
            continue;
        tp_read<4>(w, a.weight + at);
        for (int j = 0; j < 4; j++)
            w[j] = x[i][j] * scale * w[j];
        tp_write<4>(static_cast<T *>(a.out) + row + at, w);
    }
}

template <typename T> TP_KERNEL(NORM_THREADS) rmsnorm_any(kern_rmsnorm_args a)
{
    TP_SHARED(float, part, 32);
    int64_t row = (int64_t)blockIdx.x * a.dim;
    float *res = a.residual + row;
    T *out = static_cast<T *>(a.out) + row;
    float sum = 0.0f, scale;

    tp_grid_wait();
    tp_grid_trigger();
    for (int i = (int)threadIdx.x; i < a.dim; i += (int)blockDim.x) {
        float x = res[i];

        if (a.add != NULL) {
            x += a.add[row + i];
            res[i] = x; /* this thread reads it again below */
        }
        sum += x * x;
    }
    scale = norm_scale(tp_block_sum(sum, part), a.dim, a.eps);
    for (int i = (int)threadIdx.x; i < a.dim; i += (int)blockDim.x)
        tp_from_float(&out[i], res[i] * scale * a.weight[i]);
}

template <typename T> static void launch_rmsnorm(const kern_rmsnorm_args *a, kern_stream s)
{
    bool vec = a->dim % 4 == 0 && a->dim <= 4 * NORM_VECS * NORM_THREADS &&
               tp_aligned(a->residual, 16) && tp_aligned(a->add, 16) && tp_aligned(a->weight, 16) &&
               tp_aligned(a->out, 4 * sizeof(T));
    int vecs = tp_blocks_of(a->dim, 4 * NORM_THREADS);
    unsigned m = (unsigned)a->m;

    vecs = vecs > 2 ? NORM_VECS : vecs;
    if (!vec)
        TP_LAUNCH((rmsnorm_any<T>), m,
                  a->dim < NORM_THREADS ? 32 * tp_blocks_of(a->dim, 32) : NORM_THREADS, 0, s, *a);
    else if (vecs == 1)
        TP_LAUNCH((rmsnorm_vec<T, 1>), m, 32 * tp_blocks_of(a->dim, 128), 0, s, *a);
    else if (vecs == 2)
        TP_LAUNCH((rmsnorm_vec<T, 2>), m, 32 * tp_blocks_of(a->dim, 256), 0, s, *a);
    else
        TP_LAUNCH((rmsnorm_vec<T, NORM_VECS>), m, 32 * tp_blocks_of(a->dim, 128 * NORM_VECS), 0, s,
                  *a);
}

extern "C" tp_status kern_cuda_rmsnorm(const kern_rmsnorm_args *a, kern_stream s)
{
    if (a->m == 0 || a->dim == 0)
        return TP_OK;
    switch (a->out_dtype) {
    case KERN_DTYPE_F32: launch_rmsnorm<float>(a, s); break;
    case KERN_DTYPE_BF16: launch_rmsnorm<__nv_bfloat16>(a, s); break;
    case KERN_DTYPE_F16: launch_rmsnorm<__half>(a, s); break;
    default: return tp_no_dtype("rmsnorm", a->out_dtype);
    }
    return tp_launched("rmsnorm");
}
