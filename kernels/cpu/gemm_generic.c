/* SPDX-License-Identifier: Apache-2.0 */
/* gemm_generic.c - micro-kernels in plain C over 4-lane vectors of the compiler (SSE2 on x86-64).
 *
 * Multiply, then add: two roundings.  A BF16 pair is widened to two vectors; even k first, then odd.
 */
#include <stdint.h>
#include <string.h>

typedef float vec __attribute__((vector_size(16)));
typedef uint32_t pair __attribute__((vector_size(16)));

#define VEC_LANES   4
#define GEMM_MR     4
#define GEMM_NV(mr) ((mr) == 1 ? 8 : (mr) == 2 ? 4 : 2)

static inline vec vec_zero(void)
{
    return (vec){0};
}

static inline vec vec_load(const float *p)
{
    vec v;

    memcpy(&v, p, sizeof v);
    return v;
}

static inline void vec_store(float *p, vec v)
{
    memcpy(p, &v, sizeof v);
}

static inline vec vec_add(vec a, vec b)
{
    return a + b;
}

static inline vec vec_fma(vec a, vec b, vec c)
{
    return a * b + c;
}

static inline vec vec_set(float x)
{
    return (vec){x, x, x, x};
}

static inline pair pair_load(const uint8_t *p)
{
    pair v;

    memcpy(&v, p, sizeof v);
    return v;
}

static inline pair pair_set(uint32_t x)
{
    return (pair){x, x, x, x};
}

/* A half's exponent and mantissa, moved into place, are the value times 2^-112, subnormals included; infinities and
 * NaNs get the rest of their exponent. */
static inline vec vec_load_f16(const uint8_t *p)
{
    uint16_t h[4];
    pair bits, magnitude, special;
    vec v;

    memcpy(h, p, sizeof h);
    bits = (pair){h[0], h[1], h[2], h[3]};
    magnitude = (bits & 0x7fffu) << 13;
    special = (pair)(magnitude >= 0x0f800000u) & 0x7f800000u;
    v = (vec)magnitude * 0x1p112f;
    return (vec)((pair)v | special | (bits & 0x8000u) << 16);
}

static inline vec pair_dot(vec acc, pair w, pair a)
{
    acc = (vec)(w << 16) * (vec)(a << 16) + acc;
    return (vec)(w & 0xffff0000u) * (vec)(a & 0xffff0000u) + acc;
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

const gemm_kernels kern_cpu_gemm_generic[3] = {
    [KERN_DTYPE_F32] = {TABLE(f32)},
    [KERN_DTYPE_F16] = {TABLE(f16)},
    [KERN_DTYPE_BF16] = {TABLE(bf16)},
};
