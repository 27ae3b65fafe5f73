/* SPDX-License-Identifier: Apache-2.0 */
/* bench_peak_avx2.c - FP32 FMA peak of AVX2: 12 independent sums. */
#include <immintrin.h>

#include "bench_limits.h"

double bench_fma_avx2(int64_t n)
{
    enum { sums = 12 };
    __m256 acc[sums], a = _mm256_set1_ps(1e-6f), b = _mm256_set1_ps(0.5f);

#pragma GCC unroll 12
    for (int i = 0; i < sums; i++)
        acc[i] = _mm256_set1_ps((float)i);
    for (int64_t r = 0; r < n; r++) {
#pragma GCC unroll 12
        for (int i = 0; i < sums; i++)
            acc[i] = _mm256_fmadd_ps(acc[i], b, a);
        __asm__ volatile("" : "+x"(a), "+x"(b));
    }
#pragma GCC unroll 12
    for (int i = 1; i < sums; i++)
        acc[0] = _mm256_add_ps(acc[0], acc[i]);
    return (double)n * sums * 8 * 2 + (_mm256_cvtss_f32(acc[0]) > 1e30f ? 1 : 0);
}
