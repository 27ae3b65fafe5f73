/* SPDX-License-Identifier: Apache-2.0 */
/* bench_peak_avx512.c - FP32 FMA, BF16 vdpbf16ps and INT8 vpdpbusd peaks of AVX-512: 24 independent sums. */
#include <immintrin.h>

#include "bench_limits.h"

#define SUMS 24

static double finish(const __m512 *acc, double operations)
{
    __m512 sum = acc[0];

    for (int i = 1; i < SUMS; i++)
        sum = _mm512_add_ps(sum, acc[i]);
    return operations + (_mm512_cvtss_f32(sum) > 1e30f ? 1 : 0);
}

double bench_fma_avx512(int64_t n)
{
    __m512 acc[SUMS], a = _mm512_set1_ps(1e-6f), b = _mm512_set1_ps(0.5f);

#pragma GCC unroll 24
    for (int i = 0; i < SUMS; i++)
        acc[i] = _mm512_set1_ps((float)i);
    for (int64_t r = 0; r < n; r++) {
#pragma GCC unroll 24
        for (int i = 0; i < SUMS; i++)
            acc[i] = _mm512_fmadd_ps(acc[i], b, a);
        __asm__ volatile("" : "+v"(a), "+v"(b));
    }
    return finish(acc, (double)n * SUMS * 16 * 2);
}

double bench_dot_avx512(int64_t n)
{
    __m512 acc[SUMS];
    __m512i a = _mm512_set1_epi32(0x3c003c00), b = _mm512_set1_epi32(0x3c003c00);

#pragma GCC unroll 24
    for (int i = 0; i < SUMS; i++)
        acc[i] = _mm512_set1_ps((float)i); /* all different, or the compiler keeps one */
    for (int64_t r = 0; r < n; r++) {
#pragma GCC unroll 24
        for (int i = 0; i < SUMS; i++)
            acc[i] = _mm512_dpbf16_ps(acc[i], (__m512bh)a, (__m512bh)b);
        __asm__ volatile("" : "+v"(a), "+v"(b));
    }
    return finish(acc, (double)n * SUMS * 32 * 2);
}

/* In assembly: the compiler makes something slower of the intrinsic here. */
double bench_int8_avx512(int64_t n)
{
    __m512i acc[SUMS], a = _mm512_set1_epi32(0x01020304), b = _mm512_set1_epi32(0x01010101);
    __m512i sum = _mm512_setzero_si512();

#pragma GCC unroll 24
    for (int i = 0; i < SUMS; i++)
        acc[i] = _mm512_set1_epi32(i);
    for (int64_t r = 0; r < n; r++) {
#pragma GCC unroll 24
        for (int i = 0; i < SUMS; i++)
            __asm__ volatile("vpdpbusd %2, %1, %0" : "+v"(acc[i]) : "v"(a), "v"(b));
    }
#pragma GCC unroll 24
    for (int i = 0; i < SUMS; i++)
        sum = _mm512_xor_si512(sum, acc[i]);
    return (double)n * SUMS * 64 * 2 + (_mm512_reduce_or_epi32(sum) == 0x12345 ? 1 : 0);
}
