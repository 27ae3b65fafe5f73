/* SPDX-License-Identifier: Apache-2.0 */
/* vec_avx512.c - the micro-kernels with 16 lanes: AVX-512 F, BW, DQ, VL, BF16. */
#include <immintrin.h>
#include <string.h>

#include "kernels/cpu/vec.h"

#define VL        16
#define VEC_TABLE kern_cpu_vec_avx512
#define VEC_NAME  "avx512"
#define QK_M      6
#define QK_G      4
#define PV_M      6
#define PV_D      4
#define V_DOTS    1

typedef float vf __attribute__((vector_size(64)));
typedef uint32_t vu __attribute__((vector_size(64)));

static inline vf v_fma(vf a, vf b, vf c)
{
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}

static inline vf v_max(vf a, vf b)
{
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
}

static inline vf v_min(vf a, vf b)
{
    return (vf)_mm512_min_ps((__m512)a, (__m512)b);
}

static inline vf v_zero_below(vf x, vf a, float lim)
{
    __mmask16 keep = _mm512_cmp_ps_mask((__m512)a, _mm512_set1_ps(lim), _CMP_NLT_UQ);

    return (vf)_mm512_maskz_mov_ps(keep, (__m512)x);
}

static inline __mmask16 first_lanes(int n)
{
    return (__mmask16)((1u << n) - 1u);
}

static inline vf v_load_n(const float *p, int n)
{
    return (vf)_mm512_maskz_loadu_ps(first_lanes(n), p);
}

static inline void v_store_n(float *p, vf v, int n)
{
    _mm512_mask_storeu_ps(p, first_lanes(n), (__m512)v);
}

static inline void v_store_bf16(uint16_t *p, vf v)
{
    __m256bh h = _mm512_cvtneps_pbh((__m512)v);

    memcpy(p, &h, sizeof h);
}

static inline void v_store_f16(uint16_t *p, vf v)
{
    _mm256_storeu_si256((__m256i *)(void *)p,
                        _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT));
}

static inline vf v_dot(vf acc, vu a, vu b)
{
    return (vf)_mm512_dpbf16_ps((__m512)acc, (__m512bh)a, (__m512bh)b);
}

static inline vf v_load_f16(const uint16_t *p)
{
    return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

static inline vu v_word(const uint16_t *p)
{
    vu v;

    memcpy(&v, p, sizeof v);
    return v;
}

static inline unsigned v_above(vf x, float lim)
{
    return _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(lim), _CMP_GT_OQ);
}

#include "kernels/cpu/vec_body.h"

#include "kernels/cpu/vec_attn_body.h"
