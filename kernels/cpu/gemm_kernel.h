/* SPDX-License-Identifier: Apache-2.0 */
/* gemm_kernel.h - the micro-kernel of the matrix product, written once over a vector type.
 *
 * An instruction set's file defines, before it includes this,
 *   vec, VEC_LANES                   a vector of floats
 *   vec_zero() vec_load(p) vec_store(p, v) vec_add(a, b)     (p: const float * / float *)
 *   vec_fma(a, b, c)                 a * b + c, fused or not: always the same in one file
 *   vec_set(x)                       broadcast of a float
 *   vec_load_f16(p)                  VEC_LANES halfs as floats
 *   pair, pair_load(p)               VEC_LANES pairs of BF16 (32 bits each)
 *   pair_set(u32)                    broadcast of a pair
 *   pair_dot(acc, w, a)              acc + w.even * a.even + w.odd * a.odd, in one fixed order
 *   GEMM_MR                          most rows of a tile
 *   GEMM_NV(mr)                      vectors of columns per pass for mr rows, so that mr * NV accumulators fit
 * and instantiates GEMM_TILES(type) below.  Rows, vectors and prefetch are constants in every instance, so the
 * accumulators stay in registers.
 *
 * Included by gemm_generic.c, gemm_avx2.c and gemm_avx512.c only.
 */
#include <string.h>

#include "kernels/cpu/gemm_internal.h"

#define GEMM_INLINE static inline __attribute__((always_inline))
#define GEMM_UNROLL _Pragma("GCC unroll 16")

/* Where one pass of a tile (all rows, nv vectors of columns) works. */
typedef struct gemm_pass {
    const uint8_t *w;
    float *acc;
    const uint8_t *prefetch;
    int lines; /* prefetched per step */
} gemm_pass;

GEMM_INLINE void fetch_lines(const uint8_t *p, int lines)
{
    GEMM_UNROLL
    for (int i = 0; i < lines; i++)
        __builtin_prefetch(p + (size_t)i * 64, 0, 2);
}

GEMM_INLINE void acc_begin(const gemm_tile *t, const float *slot, vec *acc, int mr, int nv)
{
    if (t->resume) {
        GEMM_UNROLL
        for (int r = 0; r < mr; r++)
            GEMM_UNROLL
        for (int v = 0; v < nv; v++)
            acc[r * nv + v] = vec_load(slot + (size_t)r * GEMM_NR + v * VEC_LANES);
    } else {
        GEMM_UNROLL
        for (int i = 0; i < mr * nv; i++)
            acc[i] = vec_zero();
    }
}

GEMM_INLINE void acc_end(const gemm_tile *t, float *slot, vec *acc, int mr, int nv)
{
    for (int j = 0; j < t->joins; j++) {
        slot -= t->slot_step;
        GEMM_UNROLL
        for (int r = 0; r < mr; r++)
            GEMM_UNROLL
        for (int v = 0; v < nv; v++)
            acc[r * nv + v] =
                vec_add(vec_load(slot + (size_t)r * GEMM_NR + v * VEC_LANES), acc[r * nv + v]);
    }
    GEMM_UNROLL
    for (int r = 0; r < mr; r++)
        GEMM_UNROLL
    for (int v = 0; v < nv; v++)
        vec_store(slot + (size_t)r * GEMM_NR + v * VEC_LANES, acc[r * nv + v]);
}

GEMM_INLINE void pass_f32(const gemm_tile *t, const gemm_pass *p, int mr, int nv)
{
    vec acc[GEMM_MR * 8];
    const uint8_t *w = p->w, *fetch = p->prefetch;

    acc_begin(t, p->acc, acc, mr, nv);
    for (int64_t k = 0; k < t->k; k++) {
        vec wv[8];

        fetch_lines(fetch, p->lines);
        fetch += p->lines * 64;
        GEMM_UNROLL
        for (int v = 0; v < nv; v++)
            wv[v] = vec_load((const float *)(const void *)w + v * VEC_LANES);
        w += GEMM_NR * 4;
        GEMM_UNROLL
        for (int r = 0; r < mr; r++) {
            vec a = vec_set(((const float *)(const void *)(t->a + (size_t)r * t->a_stride))[k]);

            GEMM_UNROLL
            for (int v = 0; v < nv; v++)
                acc[r * nv + v] = vec_fma(a, wv[v], acc[r * nv + v]);
        }
    }
    acc_end(t, p->acc, acc, mr, nv);
}

GEMM_INLINE void pass_f16(const gemm_tile *t, const gemm_pass *p, int mr, int nv)
{
    vec acc[GEMM_MR * 8];
    const uint8_t *w = p->w, *fetch = p->prefetch;

    acc_begin(t, p->acc, acc, mr, nv);
    for (int64_t k = 0; k < t->k; k++) {
        vec wv[8];

        fetch_lines(fetch, p->lines);
        fetch += p->lines * 64;
        GEMM_UNROLL
        for (int v = 0; v < nv; v++)
            wv[v] = vec_load_f16(w + (size_t)v * VEC_LANES * 2);
        w += GEMM_NR * 2;
        GEMM_UNROLL
        for (int r = 0; r < mr; r++) {
            vec a = vec_set(((const float *)(const void *)(t->a + (size_t)r * t->a_stride))[k]);

            GEMM_UNROLL
            for (int v = 0; v < nv; v++)
                acc[r * nv + v] = vec_fma(a, wv[v], acc[r * nv + v]);
        }
    }
    acc_end(t, p->acc, acc, mr, nv);
}

GEMM_INLINE void dot_row(vec *acc, const pair *wv, uint32_t a, int nv)
{
    pair av = pair_set(a);

    GEMM_UNROLL
    for (int v = 0; v < nv; v++)
        acc[v] = pair_dot(acc[v], wv[v], av);
}

GEMM_INLINE void pass_bf16(const gemm_tile *t, const gemm_pass *p, int mr, int nv)
{
    vec acc[GEMM_MR * 8];
    pair wv[8];
    const uint8_t *w = p->w, *fetch = p->prefetch;
    int64_t pairs = t->k / 2;

    acc_begin(t, p->acc, acc, mr, nv);
    for (int64_t i = 0; i < pairs; i++) {
        fetch_lines(fetch, p->lines);
        fetch += p->lines * 64;
        GEMM_UNROLL
        for (int v = 0; v < nv; v++)
            wv[v] = pair_load(w + (size_t)v * VEC_LANES * 4);
        w += GEMM_NR * 4;
        GEMM_UNROLL
        for (int r = 0; r < mr; r++) {
            uint32_t a;

            memcpy(&a, t->a + (size_t)r * t->a_stride + (size_t)i * 4, 4);
            dot_row(acc + (size_t)r * nv, wv, a, nv);
        }
    }
    if (t->k % 2 != 0) { /* the last k alone: its partner in the pair counts as zero */
        GEMM_UNROLL
        for (int v = 0; v < nv; v++)
            wv[v] = pair_load(w + (size_t)v * VEC_LANES * 4);
        GEMM_UNROLL
        for (int r = 0; r < mr; r++) {
            uint16_t a;

            memcpy(&a, t->a + (size_t)r * t->a_stride + (size_t)pairs * 4, 2);
            dot_row(acc + (size_t)r * nv, wv, a, nv);
        }
    }
    acc_end(t, p->acc, acc, mr, nv);
}

/* All 64 columns, nv vectors at a time; only the first pass prefetches. */
#define GEMM_TILE(type, w_bytes, line_bytes, mr, fetch_name, parts)                                \
    static void tile_##type##_##mr##_##fetch_name(const gemm_tile *t)                              \
    {                                                                                              \
        enum { nv = GEMM_NV(mr), lines = (parts) * (line_bytes) / 256 };                           \
        gemm_pass p = {t->w, t->acc, t->prefetch, (parts) > 0 && lines == 0 ? 1 : lines};          \
                                                                                                   \
        pass_##type(t, &p, mr, nv);                                                                \
        for (int c = nv * VEC_LANES; c < GEMM_NR; c += nv * VEC_LANES) {                           \
            p = (gemm_pass){t->w + (size_t)c * (w_bytes), t->acc + c, t->w, 0};                    \
            pass_##type(t, &p, mr, nv);                                                            \
        }                                                                                          \
    }
#define GEMM_TILE_ROW(type, w_bytes, line_bytes, mr)                                               \
    GEMM_TILE(type, w_bytes, line_bytes, mr, none, 0)                                              \
    GEMM_TILE(type, w_bytes, line_bytes, mr, quarter, 1)                                           \
    GEMM_TILE(type, w_bytes, line_bytes, mr, half, 2)                                              \
    GEMM_TILE(type, w_bytes, line_bytes, mr, full, 4)
#define GEMM_TILE_ENTRY(type, mr)                                                                  \
    {                                                                                              \
        tile_##type##_##mr##_none, tile_##type##_##mr##_quarter, tile_##type##_##mr##_half,        \
            tile_##type##_##mr##_full                                                              \
    }

static void store_rows(const gemm_store *s)
{
    int whole = s->cols - s->cols % VEC_LANES;

    for (int r = 0; r < s->rows; r++) {
        const float *acc = s->acc + (size_t)r * GEMM_NR;
        float *out = s->out + r * s->out_stride;

        if (s->bias == NULL) {
            for (int c = 0; c < whole; c += VEC_LANES)
                vec_store(out + c, vec_load(acc + c));
            for (int c = whole; c < s->cols; c++)
                out[c] = acc[c];
        } else {
            for (int c = 0; c < whole; c += VEC_LANES)
                vec_store(out + c, vec_add(vec_load(acc + c), vec_load(s->bias + c)));
            for (int c = whole; c < s->cols; c++)
                out[c] = acc[c] + s->bias[c];
        }
    }
}
