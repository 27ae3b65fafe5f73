/* SPDX-License-Identifier: Apache-2.0 */
/* gemm_avx2.c - micro-kernels for AVX2 with FMA and F16C: 16 registers, so 1 row x 64 columns, 2 x 32 or 4 x 16.
 *
 * A BF16 pair is widened to two vectors of floats by a shift and a mask; even k first, then odd.
 */
#include <immintrin.h>

#define vec         __m256
#define VEC_LANES   8
#define pair        __m256i
#define GEMM_MR     4
#define GEMM_NV(mr) ((mr) == 1 ? 8 : (mr) == 2 ? 4 : 2)

#define vec_zero()       _mm256_setzero_ps()
#define vec_load(p)      _mm256_loadu_ps(p)
#define vec_store(p, v)  _mm256_storeu_ps(p, v)
#define vec_add(a, b)    _mm256_add_ps(a, b)
#define vec_fma(a, b, c) _mm256_fmadd_ps(a, b, c)
#define vec_set(x)       _mm256_set1_ps(x)
#define vec_load_f16(p)  _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define pair_load(p)     _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define pair_set(x)      _mm256_set1_epi32((int)(x))

static inline __m256 even(__m256i p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(p, 16));
}

static inline __m256 odd(__m256i p)
{
    return _mm256_castsi256_ps(_mm256_and_si256(p, _mm256_set1_epi32((int)0xffff0000u)));
}

static inline __m256 pair_dot(__m256 acc, __m256i w, __m256i a)
{
    acc = _mm256_fmadd_ps(even(w), even(a), acc);
    return _mm256_fmadd_ps(odd(w), odd(a), acc);
}

#include "kernels/cpu/gemm_kernel.h"

#define TILES(type, w_bytes, line_bytes)                                                           \
    GEMM_TILE_ROW(type, w_bytes, line_bytes, 1)                                                    \
    GEMM_TILE_ROW(type, w_bytes, line_bytes, 2)                                                    \
    GEMM_TILE_ROW(type, w_bytes, line_bytes, 3)                                                    \
    GEMM_TILE_ROW(type, w_bytes, line_bytes, 4)

TILES(f32, 4, 256)
TILES(f16, 2, 128)
TILES(bf16, 4, 256)

#define TABLE(type)                                                                                \
    .mr = GEMM_MR, .k_step = 2, .row_step = 1, .store = store_rows,                                \
    .tile = {GEMM_TILE_ENTRY(type, 1), GEMM_TILE_ENTRY(type, 2), GEMM_TILE_ENTRY(type, 3),         \
             GEMM_TILE_ENTRY(type, 4)}

const gemm_kernels kern_cpu_gemm_avx2[3] = {
    [KERN_DTYPE_F32] = {TABLE(f32)},
    [KERN_DTYPE_F16] = {TABLE(f16)},
    [KERN_DTYPE_BF16] = {TABLE(bf16)},
};
