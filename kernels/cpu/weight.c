/* SPDX-License-Identifier: Apache-2.0 */
/* weight.c - packing a matrix once, at load, into the panels of gemm_internal.h.
 *
 * A put is a transposition of 32-bit units: a float, or a pair of BF16.  It works on blocks of one panel and
 * BLOCK_K columns, small enough that source and destination stay in L1; a conversion goes through a buffer of that
 * size.  What no put has written is zero: the rounded-up part of n and k.
 *
 * Threads: puts of different rows may run side by side, each on one thread: they write different bytes.
 */
#include <string.h>

#include "base/mem.h"
#include "kernels/convert.h"
#include "kernels/cpu/gemm_internal.h"
#include "kernels/kern_check.h"

#define BLOCK_K 128

typedef uint32_t vec4 __attribute__((vector_size(16)));

static size_t packed_panel_bytes(const kern_weight_desc *d)
{
    int64_t lines = (d->k + gemm_line_k(d->dtype) - 1) / gemm_line_k(d->dtype);

    return (size_t)lines * gemm_line_bytes(d->dtype);
}

static void describe(kern_weight *w, const kern_weight_desc *d)
{
    w->desc = *d;
    if (d->layout == KERN_LAYOUT_ROWS) {
        w->n_panels = d->n;
        w->panel_bytes = (size_t)d->k * kern_dtype_bytes(d->dtype);
    } else {
        w->n_panels = (d->n + GEMM_NR - 1) / GEMM_NR;
        w->panel_bytes = packed_panel_bytes(d);
    }
    w->bytes = (size_t)w->n_panels * w->panel_bytes + GEMM_SLACK;
}

size_t kern_cpu_weight_bytes(const kern_backend *be, const kern_weight_desc *d)
{
    kern_weight w;

    (void)be;
    describe(&w, d);
    return w.bytes;
}

tp_status kern_cpu_weight_create(kern_backend *be, const kern_weight_desc *d, kern_weight **out)
{
    kern_weight *w;

    TP_TRY(kern_check_weight_desc(d));
    if (d->layout == KERN_LAYOUT_PACKED && d->k > GEMM_K_MAX)
        return TP_FAIL(TP_ERR_UNSUPPORTED, "weight [%lld, %lld]: at most %d columns are supported",
                       (long long)d->n, (long long)d->k, GEMM_K_MAX);
    w = tp_calloc(1, sizeof *w);
    if (w == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "weight [%lld, %lld]: no memory for its head", (long long)d->n,
                       (long long)d->k);
    describe(w, d);
    w->data = kern_cpu_slab_cut(&kern_cpu_of(be)->slab, w->bytes, &w->slab);
    if (w->data == NULL) {
        tp_status st =
            TP_FAIL(TP_ERR_NOMEM, "weight [%lld, %lld] of %s: no memory for %zu bytes",
                    (long long)d->n, (long long)d->k, kern_dtype_name(d->dtype), w->bytes);

        kern_cpu_weight_destroy(be, w);
        return st;
    }
    *out = w;
    return TP_OK;
}

void kern_cpu_weight_destroy(kern_backend *be, kern_weight *w)
{
    if (w == NULL)
        return;
    kern_cpu_weight_settle(be, w);
    kern_cpu_slab_release(&kern_cpu_of(be)->slab, w->slab);
    tp_free(w);
}

/* ---- conversion ---- */
#define CONVERT(dst_type, src_type, expr)                                                          \
    for (int64_t i = 0; i < n; i++) {                                                              \
        src_type x;                                                                                \
        dst_type y;                                                                                \
                                                                                                   \
        memcpy(&x, src + (size_t)i * sizeof x, sizeof x);                                          \
        y = expr;                                                                                  \
        memcpy(dst + (size_t)i * sizeof y, &y, sizeof y);                                          \
    }                                                                                              \
    break

static void convert_row(uint8_t *dst, kern_dtype to, const uint8_t *src, kern_dtype from, int64_t n)
{
    if (to == from) {
        memcpy(dst, src, (size_t)n * kern_dtype_bytes(to));
        return;
    }
    switch ((int)from * 3 + (int)to) {
    case KERN_DTYPE_BF16 * 3 + KERN_DTYPE_F32: CONVERT(float, uint16_t, kern_bf16_to_f32(x));
    case KERN_DTYPE_F16 * 3 + KERN_DTYPE_F32: CONVERT(float, uint16_t, kern_f16_to_f32(x));
    case KERN_DTYPE_F32 * 3 + KERN_DTYPE_BF16: CONVERT(uint16_t, float, kern_f32_to_bf16(x));
    case KERN_DTYPE_F32 * 3 + KERN_DTYPE_F16: CONVERT(uint16_t, float, kern_f32_to_f16(x));
    case KERN_DTYPE_F16 * 3 + KERN_DTYPE_BF16:
        CONVERT(uint16_t, uint16_t, kern_f32_to_bf16(kern_f16_to_f32(x)));
    default: CONVERT(uint16_t, uint16_t, kern_f32_to_f16(kern_bf16_to_f32(x)));
    }
}

/* ---- transposition ---- */
/* 4 rows x 4 units of 32 bits. */
static inline void turn_4x4(uint8_t *dst, const uint8_t *src, size_t stride)
{
    vec4 a, b, c, d, ab0, ab1, cd0, cd1;

    memcpy(&a, src, 16);
    memcpy(&b, src + stride, 16);
    memcpy(&c, src + 2 * stride, 16);
    memcpy(&d, src + 3 * stride, 16);
    ab0 = __builtin_shufflevector(a, b, 0, 4, 1, 5);
    ab1 = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    cd0 = __builtin_shufflevector(c, d, 0, 4, 1, 5);
    cd1 = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    a = __builtin_shufflevector(ab0, cd0, 0, 1, 4, 5);
    b = __builtin_shufflevector(ab0, cd0, 2, 3, 6, 7);
    c = __builtin_shufflevector(ab1, cd1, 0, 1, 4, 5);
    d = __builtin_shufflevector(ab1, cd1, 2, 3, 6, 7);
    memcpy(dst, &a, 16);
    memcpy(dst + GEMM_NR * 4, &b, 16);
    memcpy(dst + GEMM_NR * 8, &c, 16);
    memcpy(dst + GEMM_NR * 12, &d, 16);
}

/* Rows of `units` 32-bit units to columns of [units][64]. */
static void turn_32(uint8_t *dst, const uint8_t *src, size_t stride, int rows, int64_t units)
{
    int64_t whole = units - units % 4;
    int r = 0;

    for (; r + 4 <= rows; r += 4) {
        for (int64_t u = 0; u < whole; u += 4)
            turn_4x4(dst + (size_t)u * GEMM_NR * 4 + (size_t)r * 4,
                     src + (size_t)r * stride + (size_t)u * 4, stride);
        for (int64_t u = whole; u < units; u++)
            for (int i = r; i < r + 4; i++)
                memcpy(dst + ((size_t)u * GEMM_NR + (size_t)i) * 4,
                       src + (size_t)i * stride + (size_t)u * 4, 4);
    }
    for (; r < rows; r++)
        for (int64_t u = 0; u < units; u++)
            memcpy(dst + ((size_t)u * GEMM_NR + (size_t)r) * 4,
                   src + (size_t)r * stride + (size_t)u * 4, 4);
}

static void turn_16(uint8_t *dst, const uint8_t *src, size_t stride, int rows, int64_t k)
{
    for (int r = 0; r < rows; r++)
        for (int64_t i = 0; i < k; i++)
            memcpy(dst + ((size_t)i * GEMM_NR + (size_t)r) * 2,
                   src + (size_t)r * stride + (size_t)i * 2, 2);
}

/* `rows` rows of k elements of the weight's type; dst: their first column in the panel, at the first k. */
static void turn(uint8_t *dst, kern_dtype t, const uint8_t *src, size_t stride, int rows, int64_t k)
{
    switch (t) {
    case KERN_DTYPE_F32: turn_32(dst, src, stride, rows, k); break;
    case KERN_DTYPE_F16: turn_16(dst, src, stride, rows, k); break;
    case KERN_DTYPE_BF16:
        turn_32(dst, src, stride, rows, k / 2);
        if (k % 2 != 0)
            for (int r = 0; r < rows; r++)
                memcpy(dst + ((size_t)(k / 2) * GEMM_NR + (size_t)r) * 4,
                       src + (size_t)r * stride + (size_t)(k - 1) * 2, 2);
        break;
    }
}

/* Columns [k0, k0 + k) of the part of `rows` that falls into one panel, which begins at dst. */
static void put_block(const kern_weight *w, uint8_t *dst, const kern_weight_rows *rows,
                      int64_t panel, int64_t k0, int64_t k)
{
    kern_dtype t = w->desc.dtype;
    size_t src_size = kern_dtype_bytes(rows->src_dtype), unit = t == KERN_DTYPE_F16 ? 2 : 4;
    int64_t first = panel * GEMM_NR, last = first + GEMM_NR, end = rows->row + rows->n_rows;
    const uint8_t *src;
    uint8_t buf[16 * BLOCK_K * 4];
    size_t buf_stride = BLOCK_K * kern_dtype_bytes(t);

    first = rows->row > first ? rows->row : first;
    last = end < last ? end : last;
    src = (const uint8_t *)rows->src + (size_t)(first - rows->row) * rows->src_stride +
          (size_t)k0 * src_size;
    dst += (size_t)(k0 / gemm_line_k(t)) * gemm_line_bytes(t) + (size_t)(first % GEMM_NR) * unit;
    if (rows->src_dtype == t) {
        turn(dst, t, src, rows->src_stride, (int)(last - first), k);
        return;
    }
    for (int64_t r = first; r < last; r += 16) {
        int n = last - r < 16 ? (int)(last - r) : 16;

        for (int i = 0; i < n; i++)
            convert_row(buf + (size_t)i * buf_stride, t, src + (size_t)i * rows->src_stride,
                        rows->src_dtype, k);
        turn(dst, t, buf, buf_stride, n, k);
        src += 16 * rows->src_stride;
        dst += 16 * unit;
    }
}

void kern_cpu_pack_panel(const kern_weight *w, uint8_t *to, const kern_weight_rows *rows,
                         int64_t panel)
{
    int64_t k = w->desc.k;

    if (w->desc.layout == KERN_LAYOUT_ROWS) {
        convert_row(to, w->desc.dtype,
                    (const uint8_t *)rows->src + (size_t)(panel - rows->row) * rows->src_stride,
                    rows->src_dtype, k);
        return;
    }
    for (int64_t k0 = 0; k0 < k; k0 += BLOCK_K)
        put_block(w, to, rows, panel, k0, k - k0 < BLOCK_K ? k - k0 : BLOCK_K);
}

tp_status kern_cpu_weight_put(kern_backend *be, kern_weight *w, const kern_weight_rows *rows)
{
    int64_t per_panel = w->desc.layout == KERN_LAYOUT_ROWS ? 1 : GEMM_NR;
    int64_t end = rows->row + rows->n_rows;

    (void)be;
    TP_TRY(kern_check_weight_rows(rows, &w->desc));
    if (rows->n_rows == 0 || w->desc.k == 0)
        return TP_OK;
    for (int64_t p = rows->row / per_panel; p * per_panel < end; p++)
        kern_cpu_pack_panel(w, w->data + (size_t)p * w->panel_bytes, rows, p);
    if (w->late != NULL)
        kern_cpu_late_put(w->late, w, rows);
    return TP_OK;
}
