/* SPDX-License-Identifier: Apache-2.0 */
/* vec_generic.c - the micro-kernels with GCC vectors of four floats: SSE2 on x86-64, plain C elsewhere. */
#include <string.h>

#include "kernels/convert.h"
#include "kernels/cpu/vec.h"

#define VL        4
#define VEC_TABLE kern_cpu_vec_generic
#define VEC_NAME  "generic"
#define QK_M      2
#define QK_G      1
#define PV_M      2
#define PV_D      4

typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16))); /* what comparing gives: 0 or -1 */
typedef uint32_t vu __attribute__((vector_size(16)));

static inline vf v_fma(vf a, vf b, vf c)
{
    return a * b + c;
}

static inline vf v_select(vi mask, vf a, vf b)
{
    vi ai, bi, ri;
    vf r;

    memcpy(&ai, &a, sizeof ai);
    memcpy(&bi, &b, sizeof bi);
    ri = (ai & mask) | (bi & ~mask);
    memcpy(&r, &ri, sizeof r);
    return r;
}

static inline vf v_max(vf a, vf b)
{
    return v_select(a > b, a, b);
}

static inline vf v_min(vf a, vf b)
{
    return v_select(a < b, a, b);
}

static inline vf v_zero_below(vf x, vf a, float lim)
{
    return v_select(a < lim, (vf){0}, x);
}

static inline vf v_load_n(const float *p, int n)
{
    vf v = {0};

    memcpy(&v, p, (size_t)n * sizeof *p);
    return v;
}

static inline void v_store_n(float *p, vf v, int n)
{
    memcpy(p, &v, (size_t)n * sizeof *p);
}

static inline void v_store_bf16(uint16_t *p, vf v)
{
    for (int i = 0; i < VL; i++)
        p[i] = kern_f32_to_bf16(v[i]);
}

static inline void v_store_f16(uint16_t *p, vf v)
{
    for (int i = 0; i < VL; i++)
        p[i] = kern_f32_to_f16(v[i]);
}

static inline vf v_load_f16(const uint16_t *p)
{
    return (vf){kern_f16_to_f32(p[0]), kern_f16_to_f32(p[1]), kern_f16_to_f32(p[2]),
                kern_f16_to_f32(p[3])};
}

static inline vu v_word(const uint16_t *p)
{
    vu v;

    memcpy(&v, p, sizeof v);
    return v;
}

static inline unsigned v_above(vf x, float lim)
{
    vi m = x > lim;

    return ((unsigned)m[0] & 1u) | ((unsigned)m[1] & 2u) | ((unsigned)m[2] & 4u) |
           ((unsigned)m[3] & 8u);
}

#include "kernels/cpu/vec_body.h"

#include "kernels/cpu/vec_attn_body.h"
