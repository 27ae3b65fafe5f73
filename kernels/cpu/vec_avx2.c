/* SPDX-License-Identifier: Apache-2.0 */
/* vec_avx2.c - the micro-kernels with 8 lanes: AVX2, FMA, F16C. */
#include <immintrin.h>
#include <string.h>

#include "kernels/cpu/vec.h"

#define VL        8
#define VEC_TABLE kern_cpu_vec_avx2
#define VEC_NAME  "avx2"
#define QK_M      2
#define QK_G      2
#define PV_M      2
#define PV_D      4

typedef float vf __attribute__((vector_size(32)));
typedef uint32_t vu __attribute__((vector_size(32)));

static inline vf v_fma(vf a, vf b, vf c)
{
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}

static inline vf v_max(vf a, vf b)
{
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
}

static inline vf v_min(vf a, vf b)
{
    return (vf)_mm256_min_ps((__m256)a, (__m256)b);
}

static inline vf v_zero_below(vf x, vf a, float lim)
{
    __m256 keep = _mm256_cmp_ps((__m256)a, _mm256_set1_ps(lim), _CMP_NLT_UQ);

    return (vf)_mm256_and_ps(keep, (__m256)x);
}

static inline __m256i first_lanes(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline vf v_load_n(const float *p, int n)
{
    return (vf)_mm256_maskload_ps(p, first_lanes(n));
}

static inline void v_store_n(float *p, vf v, int n)
{
    _mm256_maskstore_ps(p, first_lanes(n), (__m256)v);
}

/* Round to nearest even in integers; a NaN is made quiet instead. */
static inline void v_store_bf16(uint16_t *p, vf v)
{
    __m256i u = _mm256_castps_si256((__m256)v);
    __m256i high = _mm256_srli_epi32(u, 16);
    __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
    __m256i r = _mm256_srli_epi32(
        _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd), 16);
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps((__m256)v, (__m256)v, _CMP_UNORD_Q));

    r = _mm256_blendv_epi8(r, _mm256_or_si256(high, _mm256_set1_epi32(0x40)), nan);
    r = _mm256_permute4x64_epi64(_mm256_packus_epi32(r, r), 0x08);
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_castsi256_si128(r));
}

static inline void v_store_f16(uint16_t *p, vf v)
{
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
}

static inline vf v_load_f16(const uint16_t *p)
{
    return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

static inline vu v_word(const uint16_t *p)
{
    vu v;

    memcpy(&v, p, sizeof v);
    return v;
}

static inline unsigned v_above(vf x, float lim)
{
    return (unsigned)_mm256_movemask_ps(_mm256_cmp_ps((__m256)x, _mm256_set1_ps(lim), _CMP_GT_OQ));
}

#include "kernels/cpu/vec_body.h"

#include "kernels/cpu/vec_attn_body.h"
