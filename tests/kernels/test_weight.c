/* SPDX-License-Identifier: Apache-2.0 */
/* test_weight.c - weights: what was put comes back out through embed with the bits of kernels/convert.h, for every
 * backend, layout, source and weight type, in blocks of rows, from columns of a wider matrix, at odd addresses.
 * And the same weights and activations through gemm on every instruction set and on the scalar backend. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "kern_testing.h"
#include "kernels/convert.h"

static const kern_dtype g_types[] = {KERN_DTYPE_F32, KERN_DTYPE_BF16, KERN_DTYPE_F16};

typedef struct shape {
    int64_t n, k;
} shape;

/* Numbers of every kind: large and small, rounding ties, infinities, NaN, subnormals of each type. */
static float odd_number(kt_rng *r)
{
    static const uint32_t bits[] = {0x00000000u, 0x80000000u, 0x7f800000u, 0xff800000u, 0x7fc00000u,
                                    0x3f808000u, 0x3f818000u, 0x3f801000u, 0x3f803000u, 0x00000001u,
                                    0x33800000u, 0x33000000u, 0x477ff000u, 0x477fefffu, 0x7f7fffffu,
                                    0x387fffffu, 0x38000000u, 0x00400000u};
    int i = kt_below(r, 64);

    return i < (int)TP_ARRAY_LEN(bits) ? kern_bits_f32(bits[i]) : kt_unit(r) * 4.0f;
}

/* What a source element becomes in the table, as FP32. */
static float through(const uint8_t *p, kern_dtype from, kern_dtype to)
{
    uint8_t stored[4];

    if (from == to)
        return kern_load_f32(p, to);
    kern_store_f32(stored, to, kern_load_f32(p, from));
    return kern_load_f32(stored, to);
}

/* Puts columns [skip, skip + k) of a wider matrix in blocks of rows, then reads all rows back, shuffled. */
static void put_and_read(kern_backend *be, shape s, kern_layout layout, kern_dtype from,
                         kern_dtype to)
{
    enum { skip = 3, first = 1000, m = 200 };
    kt_rng rng = {.state = (uint64_t)(s.n * 1000 + s.k)};
    size_t size = kern_dtype_bytes(from), stride = (size_t)(s.k + 2 * skip) * size + 1;
    uint8_t *src = kt_zeros((size_t)s.n * stride + 1);
    float *out = kt_zeros((size_t)(m * s.k) * sizeof *out);
    int32_t *ids = kt_zeros(m * sizeof *ids);
    kern_weight_desc d = {.n = s.n, .k = s.k, .dtype = to, .layout = layout};
    kern_weight *w = NULL;

    for (int64_t r = 0; r < s.n; r++)
        for (int64_t c = 0; c < s.k + 2 * skip; c++)
            kern_store_f32(src + (size_t)r * stride + (size_t)c * size, from, odd_number(&rng));
    KT_OK(be->ops->weight_create(be, &d, &w));
    for (int64_t row = 0; row < s.n;) {
        int64_t n = 1 + kt_below(&rng, 90);

        n = n < s.n - row ? n : s.n - row;
        KT_OK(
            be->ops->weight_put(be, w,
                                &(kern_weight_rows){.row = row,
                                                    .n_rows = n,
                                                    .src = src + (size_t)row * stride + skip * size,
                                                    .src_stride = stride,
                                                    .src_dtype = from}));
        row += n;
    }
    for (int i = 0; i < m; i++)
        ids[i] = first - 5 + kt_below(&rng, (int)s.n + 10);
    KT_OK(kern_embed(
        be, &(kern_embed_args){.out = out, .table = w, .ids = ids, .m = m, .vocab_first = first}));
    for (int i = 0; i < m; i++) {
        int64_t row = ids[i] - first;

        for (int64_t c = 0; c < s.k; c++) {
            const uint8_t *p = src + (size_t)row * stride + (size_t)(c + skip) * size;
            float want = row < 0 || row >= s.n ? 0.0f : through(p, from, to);
            float got = out[i * s.k + c];

            if (kern_f32_bits(want) != kern_f32_bits(got) && !(isnan(want) && isnan(got)))
                fail_msg("%s to %s, layout %d, [%lld, %lld]: element [%lld, %lld] is %.9g, "
                         "expected %.9g",
                         kern_dtype_name(from), kern_dtype_name(to), (int)layout, (long long)s.n,
                         (long long)s.k, (long long)row, (long long)c, (double)got, (double)want);
        }
    }
    be->ops->weight_destroy(be, w);
    kt_free(src);
    kt_free(out);
    kt_free(ids);
}

static void test_put(void **state)
{
    static const shape shapes[] = {{1, 1}, {3, 2}, {64, 128}, {65, 129}, {200, 300}, {130, 7}};
    kern_backend *be = kt_open(state, 2);

    for (size_t s = 0; s < TP_ARRAY_LEN(shapes); s++)
        for (size_t i = 0; i < 9; i++) {
            put_and_read(be, shapes[s], KERN_LAYOUT_PACKED, g_types[i / 3], g_types[i % 3]);
            put_and_read(be, shapes[s], KERN_LAYOUT_ROWS, g_types[i / 3], g_types[i % 3]);
        }
    kt_close(be);
}

/* Only whole panels and a page or two come on top of the elements. */
static void test_bytes(void **state)
{
    kern_backend *be = kt_open(state, 1);

    for (size_t t = 0; t < TP_ARRAY_LEN(g_types); t++) {
        kern_weight_desc d = {.n = 1000, .k = 777, .dtype = g_types[t]};
        size_t size = kern_dtype_bytes(g_types[t]);

        assert_true(be->ops->weight_bytes(be, &d) >= 1000 * 777 * size);
        assert_true(be->ops->weight_bytes(be, &d) <= 1024 * 778 * size + 16384);
        d.layout = KERN_LAYOUT_ROWS;
        assert_true(be->ops->weight_bytes(be, &d) <= 1000 * 777 * size + 16384);
    }
    kt_close(be);
}

static void test_failures(void **state)
{
    kern_backend *be = kt_open(state, 1);
    kern_weight_desc d = {.n = 10, .k = 20, .dtype = KERN_DTYPE_BF16};
    kern_weight *w = NULL;
    float src[20] = {0};
    kern_weight_rows rows = {.n_rows = 1, .src = src, .src_dtype = KERN_DTYPE_F32};

    for (int n = 0; n < 2; n++) {
        tp_mem_fail_after(n);
        assert_int_equal(be->ops->weight_create(be, &d, &w), TP_ERR_NOMEM);
        assert_null(w);
    }
    tp_mem_fail_after(-1);
    d.n = -1;
    assert_int_equal(be->ops->weight_create(be, &d, &w), TP_ERR_INVALID);
    d.n = 10;
    KT_OK(be->ops->weight_create(be, &d, &w));
    rows.row = 10;
    assert_int_equal(be->ops->weight_put(be, w, &rows), TP_ERR_INVALID);
    rows.row = -1;
    assert_int_equal(be->ops->weight_put(be, w, &rows), TP_ERR_INVALID);
    rows.row = 9;
    rows.src = NULL;
    assert_int_equal(be->ops->weight_put(be, w, &rows), TP_ERR_INVALID);
    rows.src = src;
    rows.src_dtype = (kern_dtype)7;
    assert_int_equal(be->ops->weight_put(be, w, &rows), TP_ERR_INVALID);
    rows.src_dtype = KERN_DTYPE_F32;
    KT_OK(be->ops->weight_put(be, w, &rows));
    be->ops->weight_destroy(be, w);
    be->ops->weight_destroy(be, NULL);
    kt_close(be);
}

/* ---- gemm of two backends ---- */
static float *product(kern_backend *be, const uint8_t *src, const kern_weight_desc *d,
                      const uint8_t *in, int m, const kern_ksplit *split)
{
    tp_seg_node roots[TP_SEG_ROOTS_MAX];
    int n_roots = split != NULL ? tp_seg_roots(split->seg_first, split->n_seg, roots) : 1;
    float *out = kt_zeros((size_t)(n_roots * m * d->n) * sizeof *out);
    void *scratch = kt_zeros(be->ops->gemm_scratch_bytes(be, m, d->n, d->k));
    kern_weight *w = NULL;

    KT_OK(be->ops->weight_create(be, d, &w));
    KT_OK(be->ops->weight_put(
        be, w,
        &(kern_weight_rows){.n_rows = d->n,
                            .src = src,
                            .src_stride = (size_t)d->k * kern_dtype_bytes(d->dtype),
                            .src_dtype = d->dtype}));
    KT_OK(kern_gemm(be,
                    &(kern_gemm_args){
                        .out = out, .in = in, .w = w, .m = m, .split = split, .scratch = scratch}));
    be->ops->weight_destroy(be, w);
    kt_free(scratch);
    return out;
}

static uint8_t *numbers(kt_rng *r, int64_t n, kern_dtype t)
{
    uint8_t *p = kt_zeros((size_t)n * kern_dtype_bytes(t));

    for (int64_t i = 0; i < n; i++)
        kern_store_f32(p + (size_t)i * kern_dtype_bytes(t), t, kt_unit(r));
    return p;
}

/* Against the scalar backend, root by root.  Both round k times, in different orders. */
static void test_ref(void **state)
{
    static const int ms[] = {1, 3, 8, 40};
    kern_backend *be = kt_open(state, 2), *ref = NULL;
    kern_ksplit split = {.seg_first = 2, .n_seg = 5, .k_end = {60, 60, 100, 201, 330}};
    kt_rng rng = {.state = 5};

    KT_OK(kern_ref_ops()->open(&ref, &(kern_open_args){.n_threads = 1}));
    for (size_t i = 0; i < TP_ARRAY_LEN(g_types) * TP_ARRAY_LEN(ms) * 2; i++) {
        kern_weight_desc d = {.n = 150, .k = 330, .dtype = g_types[i % TP_ARRAY_LEN(g_types)]};
        int m = ms[i / TP_ARRAY_LEN(g_types) % TP_ARRAY_LEN(ms)];
        const kern_ksplit *s = i % 2 != 0 ? &split : NULL;
        uint8_t *src = numbers(&rng, d.n * d.k, d.dtype);
        uint8_t *in = numbers(&rng, m * d.k, kern_act_dtype(be, d.dtype));
        float *got = product(be, src, &d, in, m, s), *base = product(ref, src, &d, in, m, s);
        tp_seg_node roots[TP_SEG_ROOTS_MAX];
        size_t n = (size_t)((s != NULL ? tp_seg_roots(2, 5, roots) : 1) * m * d.n);
        double *want = kt_zeros(n * sizeof *want);

        for (size_t j = 0; j < n; j++)
            want[j] = (double)base[j];
        kt_compare("gemm against ref", got, KERN_DTYPE_F32, want, n, 0.0,
                   2 * sqrt(330.0) * 0x1p-24 * 330.0 / 3.0);
        kt_free(src), kt_free(in), kt_free(got), kt_free(base), kt_free(want);
    }
    kt_close(ref);
    kt_close(be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {KT_EACH(test_put), KT_EACH(test_bytes),
                                       KT_EACH(test_failures), KT_EACH_CPU(test_ref)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
