/* SPDX-License-Identifier: Apache-2.0 */
/* keys.cuh - tokens in the order "value descending, id ascending", as integers.
 *
 * A key is the value, made an unsigned number of the same order, above the complement of the id: all keys differ, the
 * greater the better.  0 stands for what is never listed: NaN and -inf.  -0 and 0 are equal.
 */
#ifndef KERN_CUDA_KEYS_CUH
#define KERN_CUDA_KEYS_CUH

#include <math.h>

#include "kernels/cuda/num.cuh"

TP_DEV uint64_t tp_key_of(float v, int32_t id)
{
    uint32_t u = v == 0.0f ? 0u : __float_as_uint(v);

    if (!(v > -INFINITY))
        return 0;
    u = (u & 0x80000000u) != 0 ? ~u : u | 0x80000000u;
    return (uint64_t)u << 32 | (0xffffffffu - (uint32_t)id);
}

TP_DEV int32_t tp_key_id(uint64_t key)
{
    return (int32_t)(0xffffffffu - (uint32_t)key);
}

TP_DEV float tp_key_value(uint64_t key)
{
    uint32_t u = (uint32_t)(key >> 32);

    return __uint_as_float((u & 0x80000000u) != 0 ? u & 0x7fffffffu : ~u);
}

/* Sorts shared memory, greatest first (bitonic); n is a power of two.  The block enters and leaves together. */
TP_DEV void tp_sort_keys(uint64_t *list, int n)
{
    __syncthreads();
    for (int size = 2; size <= n; size *= 2) {
        for (int stride = size / 2; stride > 0; stride /= 2) {
            for (int i = (int)threadIdx.x; i < n / 2; i += (int)blockDim.x) {
                int lo = 2 * i - (i & (stride - 1)), hi = lo + stride;
                uint64_t x = list[lo], y = list[hi];

                if ((x < y) == ((lo & size) == 0)) {
                    list[lo] = y;
                    list[hi] = x;
                }
            }
            __syncthreads();
        }
    }
}

TP_DEV int tp_power_of_two(int n)
{
    int p = 1;

    while (p < n)
        p *= 2;
    return p;
}

#endif
