/* SPDX-License-Identifier: Apache-2.0 */
/* convert.h - BF16 and F16 to and from FP32, one number at a time.
 *
 * To the short type: round to nearest, ties to even; overflow becomes infinity; a NaN stays a NaN (quiet).  These
 * are the bits that the vector instructions give, so scalar tails and vector bodies agree.  (vcvtneps2bf16 alone
 * treats FP32 subnormals as zero; we do not.)
 */
#ifndef KERN_CONVERT_H
#define KERN_CONVERT_H

#include <stdint.h>
#include <string.h>

#include "kernels/kern.h"

static inline uint32_t kern_f32_bits(float f)
{
    uint32_t u;

    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float kern_bits_f32(uint32_t u)
{
    float f;

    memcpy(&f, &u, sizeof f);
    return f;
}

static inline float kern_bf16_to_f32(uint16_t h)
{
    return kern_bits_f32((uint32_t)h << 16);
}

static inline uint16_t kern_f32_to_bf16(float f)
{
    uint32_t u = kern_f32_bits(f);

    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

static inline float kern_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, mag = h & 0x7fffu;

    if (mag >= 0x7c00u) /* infinity or NaN (made quiet, as F16C does) */
        return kern_bits_f32(sign | 0x7f800000u | (mag << 13) | (mag > 0x7c00u ? 0x400000u : 0u));
    if (mag >= 0x0400u)
        return kern_bits_f32(sign | ((mag << 13) + ((127u - 15u) << 23)));
    /* Subnormal: mag * 2^-24, exact in FP32. */
    return kern_bits_f32(sign | kern_f32_bits((float)mag * 0x1p-24f));
}

static inline uint16_t kern_f32_to_f16(float f)
{
    uint32_t u = kern_f32_bits(f), sign = (u >> 16) & 0x8000u, mag = u & 0x7fffffffu;

    if (mag > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | ((mag >> 13) & 0x3ffu));
    if (mag >= 0x47800000u) /* >= 2^16 */
        return (uint16_t)(sign | 0x7c00u);
    if (mag < 0x38800000u) { /* < 2^-14: adding 0.5 leaves mag / 2^-24, rounded, in the low bits */
        return (uint16_t)(sign | (kern_f32_bits(kern_bits_f32(mag) + 0.5f) - 0x3f000000u));
    }
    /* A carry out of the mantissa runs into the exponent, up to infinity: that is the right rounding. */
    return (uint16_t)(sign | ((mag - ((127u - 15u) << 23) + 0xfffu + ((mag >> 13) & 1u)) >> 13));
}

/* One element of an array of `t`, unaligned. */
static inline float kern_load_f32(const void *p, kern_dtype t)
{
    uint16_t h;
    float f;

    if (t == KERN_DTYPE_F32) {
        memcpy(&f, p, sizeof f);
        return f;
    }
    memcpy(&h, p, sizeof h);
    return t == KERN_DTYPE_BF16 ? kern_bf16_to_f32(h) : kern_f16_to_f32(h);
}

static inline void kern_store_f32(void *p, kern_dtype t, float f)
{
    uint16_t h;

    if (t == KERN_DTYPE_F32) {
        memcpy(p, &f, sizeof f);
        return;
    }
    h = t == KERN_DTYPE_BF16 ? kern_f32_to_bf16(f) : kern_f32_to_f16(f);
    memcpy(p, &h, sizeof h);
}

#endif
