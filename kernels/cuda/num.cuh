/* SPDX-License-Identifier: Apache-2.0 */
/* num.cuh - numbers on the device: element types, vectors, reductions over a warp and over a block.
 *
 * Reductions have one order: lanes by butterfly, then warps by index; every thread gets the same bits.
 */
#ifndef KERN_CUDA_NUM_CUH
#define KERN_CUDA_NUM_CUH

#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"

/* ---- element types ---- */
template <kern_dtype D> struct tp_num;
template <> struct tp_num<KERN_DTYPE_F32> {
    typedef float type;
};
template <> struct tp_num<KERN_DTYPE_BF16> {
    typedef __nv_bfloat16 type;
};
template <> struct tp_num<KERN_DTYPE_F16> {
    typedef __half type;
};

TP_DEV float tp_to_float(float x)
{
    return x;
}

TP_DEV float tp_to_float(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}

TP_DEV float tp_to_float(__half x)
{
    return __half2float(x);
}

TP_DEV void tp_from_float(float *to, float x)
{
    *to = x;
}

TP_DEV void tp_from_float(__nv_bfloat16 *to, float x)
{
    *to = __float2bfloat16(x);
}

TP_DEV void tp_from_float(__half *to, float x)
{
    *to = __float2half(x);
}

/* ---- vectors: up to 16 bytes that are moved at once ---- */
template <typename T, int N> struct alignas(sizeof(T) * N) tp_vec {
    T x[N];
};

template <typename T, int N> TP_DEV tp_vec<T, N> tp_vec_load(const T *p)
{
    return *reinterpret_cast<const tp_vec<T, N> *>(p);
}

template <typename T, int N> TP_DEV void tp_vec_store(T *p, const tp_vec<T, N> &v)
{
    *reinterpret_cast<tp_vec<T, N> *>(p) = v;
}

/* N numbers (a multiple of 4) as FP32, from and to memory of any element type. */
template <int N, typename T> TP_DEV void tp_read(float to[N], const T *p)
{
    constexpr int each = sizeof(T) == 4 || N == 4 ? 4 : 8;

    for (int i = 0; i < N; i += each) {
        tp_vec<T, each> v = tp_vec_load<T, each>(p + i);

        for (int j = 0; j < each; j++)
            to[i + j] = tp_to_float(v.x[j]);
    }
}

template <int N, typename T> TP_DEV void tp_write(T *p, const float from[N])
{
    constexpr int each = sizeof(T) == 4 || N == 4 ? 4 : 8;

    for (int i = 0; i < N; i += each) {
        tp_vec<T, each> v;

        for (int j = 0; j < each; j++)
            tp_from_float(&v.x[j], from[i + j]);
        tp_vec_store<T, each>(p + i, v);
    }
}

/* ---- reductions ---- */
TP_DEV float tp_warp_sum(float v)
{
    for (int o = 16; o > 0; o >>= 1)
        v += __shfl_xor_sync(TP_WARP_ALL, v, o);
    return v;
}

TP_DEV float tp_warp_max(float v)
{
    for (int o = 16; o > 0; o >>= 1)
        v = fmaxf(v, __shfl_xor_sync(TP_WARP_ALL, v, o));
    return v;
}

/* Over the block; part is shared, [32], and free again after the caller's next __syncthreads. */
TP_DEV float tp_block_sum(float v, float *part)
{
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;

    v = tp_warp_sum(v);
    if (lane == 0)
        part[warp] = v;
    __syncthreads();
    return tp_warp_sum(lane < (int)blockDim.x / 32 ? part[lane] : 0.0f);
}

TP_DEV float tp_block_max(float v, float *part)
{
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;

    v = tp_warp_max(v);
    if (lane == 0)
        part[warp] = v;
    __syncthreads();
    return tp_warp_max(part[lane < (int)blockDim.x / 32 ? lane : 0]);
}

TP_DEV double tp_warp_sum(double v)
{
    for (int o = 16; o > 0; o >>= 1)
        v += __shfl_xor_sync(TP_WARP_ALL, v, o);
    return v;
}

TP_DEV uint64_t tp_warp_max(uint64_t v)
{
    for (int o = 16; o > 0; o >>= 1) {
        uint64_t other = __shfl_xor_sync(TP_WARP_ALL, v, o);

        v = other > v ? other : v;
    }
    return v;
}

/* ---- host side ---- */
static inline bool tp_aligned(const void *p, size_t bytes)
{
    return (uintptr_t)p % bytes == 0;
}

static inline unsigned tp_blocks_of(int64_t n, int64_t each)
{
    return (unsigned)((n + each - 1) / each);
}

/* What a launcher returns. */
static inline tp_status tp_launched(const char *kernel)
{
    int e = TP_LAUNCH_STATUS();

    return e == 0
               ? TP_OK
               : TP_FAIL(TP_ERR_DEVICE, "launch of kernel %s: %s", kernel, TP_LAUNCH_ERROR_NAME(e));
}

static inline tp_status tp_no_dtype(const char *kernel, kern_dtype t)
{
    return TP_FAIL(TP_ERR_INVALID, "%s: unknown element type %d", kernel, (int)t);
}

#endif
