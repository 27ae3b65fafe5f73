/* SPDX-License-Identifier: Apache-2.0 */
/* gemm_avx512.c - micro-kernels for AVX-512 with BF16: 6 rows x 64 columns in 24 of the 32 registers.
 *
 * vdpbf16ps adds the two products of a pair in an order of its own (odd first) and flushes denormals; both are the
 * same for every row and every M.
 */
#include <immintrin.h>

#define vec         __m512
#define VEC_LANES   16
#define pair        __m512bh
#define GEMM_MR     6
#define GEMM_NV(mr) 4

#define vec_zero()          _mm512_setzero_ps()
#define vec_load(p)         _mm512_loadu_ps(p)
#define vec_store(p, v)     _mm512_storeu_ps(p, v)
#define vec_add(a, b)       _mm512_add_ps(a, b)
#define vec_fma(a, b, c)    _mm512_fmadd_ps(a, b, c)
#define vec_set(x)          _mm512_set1_ps(x)
#define vec_load_f16(p)     _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(p)))
#define pair_load(p)        ((__m512bh)_mm512_loadu_si512(p))
#define pair_set(x)         ((__m512bh)_mm512_set1_epi32((int)(x)))
#define pair_dot(acc, w, a) _mm512_dpbf16_ps(acc, w, a)

#include "kernels/cpu/gemm_kernel.h"

#define TILES(type, w_bytes, line_bytes)                                                           \
    GEMM_TILE_ROW(type, w_bytes, line_bytes, 1)                                                    \
    GEMM_TILE_ROW(type, w_bytes, line_bytes, 2)                                                    \
    GEMM_TILE_ROW(type, w_bytes, line_bytes, 3)                                                    \
    GEMM_TILE_ROW(type, w_bytes, line_bytes, 4)                                                    \
    GEMM_TILE_ROW(type, w_bytes, line_bytes, 5)                                                    \
    GEMM_TILE_ROW(type, w_bytes, line_bytes, 6)

TILES(f32, 4, 256)
TILES(f16, 2, 128)
TILES(bf16, 4, 256)

#define TABLE(type)                                                                                \
    .mr = GEMM_MR, .k_step = 2, .row_step = 1, .store = store_rows,                                \
    .tile = {GEMM_TILE_ENTRY(type, 1), GEMM_TILE_ENTRY(type, 2), GEMM_TILE_ENTRY(type, 3),         \
             GEMM_TILE_ENTRY(type, 4), GEMM_TILE_ENTRY(type, 5), GEMM_TILE_ENTRY(type, 6)}

const gemm_kernels kern_cpu_gemm_avx512[3] = {
    [KERN_DTYPE_F32] = {TABLE(f32)},
    [KERN_DTYPE_F16] = {TABLE(f16)},
    [KERN_DTYPE_BF16] = {TABLE(bf16)},
};
