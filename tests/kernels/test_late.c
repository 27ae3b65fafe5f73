/* SPDX-License-Identifier: Apache-2.0 */
/* test_late.c - weights that are used before they are all there (kern_ops.weight_late): gemm and embed give the bits of
 * the whole weight, whatever part of the rows was put, for every type of source and weight, from one to three sources,
 * with and without a split of k, also while puts run; and a source that fails is an error with its text. */
#include <pthread.h>
#include <string.h>

#include "base/mem.h"
#include "kern_testing.h"
#include "kernels/convert.h"

static const kern_dtype g_types[] = {KERN_DTYPE_F32, KERN_DTYPE_BF16, KERN_DTYPE_F16};

typedef struct shape {
    int64_t n, k;
} shape;

/* Rows of a matrix in memory, which stands for the file. */
typedef struct rows_in_memory {
    const uint8_t *first; /* row 0 of the source */
    size_t row_bytes;
    bool broken;
} rows_in_memory;

static tp_status read_memory(const void *owner, int64_t first, int64_t n, void *dst)
{
    const rows_in_memory *r = owner;

    if (r->broken)
        return TP_REJECT(TP_ERR_IO, "the disk is gone");
    memcpy(dst, r->first + (size_t)first * r->row_bytes, (size_t)n * r->row_bytes);
    return TP_OK;
}

typedef struct matrix {
    kern_weight_desc desc;
    kern_dtype from;
    uint8_t *src; /* [n, k] */
    rows_in_memory sources[3];
} matrix;

static matrix matrix_make(kt_rng *rng, shape s, kern_dtype from, kern_dtype to, kern_layout layout)
{
    matrix x = {.desc = {.n = s.n, .k = s.k, .dtype = to, .layout = layout}, .from = from};
    size_t size = kern_dtype_bytes(from);

    x.src = kt_zeros((size_t)(s.n * s.k) * size);
    for (int64_t i = 0; i < s.n * s.k; i++)
        kern_store_f32(x.src + (size_t)i * size, from, kt_unit(rng));
    return x;
}

static void put_rows(kern_backend *be, kern_weight *w, const matrix *x, int64_t row, int64_t n)
{
    size_t row_bytes = (size_t)x->desc.k * kern_dtype_bytes(x->from);

    KT_OK(be->ops->weight_put(be, w,
                              &(kern_weight_rows){.row = row,
                                                  .n_rows = n,
                                                  .src = x->src + (size_t)row * row_bytes,
                                                  .src_stride = row_bytes,
                                                  .src_dtype = x->from}));
}

static kern_weight *whole_weight(kern_backend *be, const matrix *x)
{
    kern_weight *w = NULL;

    KT_OK(be->ops->weight_create(be, &x->desc, &w));
    put_rows(be, w, x, 0, x->desc.n);
    return w;
}

/* n_sources pieces of the rows, of different sizes. */
static kern_weight *late_weight(kern_backend *be, matrix *x, int n_sources)
{
    size_t row_bytes = (size_t)x->desc.k * kern_dtype_bytes(x->from);
    kern_weight *w = NULL;
    int64_t row = 0;

    KT_OK(be->ops->weight_create(be, &x->desc, &w));
    for (int i = 0; i < n_sources; i++) {
        int64_t end = i == n_sources - 1 ? x->desc.n : row + (x->desc.n - row) * 2 / 3;

        x->sources[i] = (rows_in_memory){x->src + (size_t)row * row_bytes, row_bytes, false};
        KT_OK(be->ops->weight_late(be, w,
                                   &(kern_weight_source){.row = row,
                                                         .n_rows = end - row,
                                                         .dtype = x->from,
                                                         .read = read_memory,
                                                         .owner = &x->sources[i]}));
        row = end;
    }
    return w;
}

/* The product of m rows, or the embedding of m tokens; from the heap. */
static float *result_of(kern_backend *be, const kern_weight *w, const matrix *x, int m, bool split)
{
    static const kern_ksplit halves = {.seg_first = 2, .n_seg = 3, .k_end = {1, 1, 0}};
    kern_dtype act = kern_act_dtype(be, x->desc.dtype);
    kern_ksplit s = halves;
    kt_rng rng = {.state = 77};
    size_t roots = split ? 3 : 1;
    float *out = kt_zeros(roots * (size_t)m * (size_t)(x->desc.n + x->desc.k) * sizeof *out);
    uint8_t *in = kt_zeros((size_t)(m * x->desc.k) * kern_dtype_bytes(act));
    void *scratch =
        kt_zeros(be->ops->gemm_scratch_bytes(be, m, x->desc.n, x->desc.k) + sizeof(float));
    int32_t *ids = kt_zeros((size_t)m * sizeof *ids);

    s.k_end[2] = (int32_t)x->desc.k;
    s.k_end[1] = (int32_t)(x->desc.k / 2 > 1 ? x->desc.k / 2 : 1);
    for (int64_t i = 0; i < m * x->desc.k; i++)
        kern_store_f32(in + (size_t)i * kern_dtype_bytes(act), act, kt_unit(&rng));
    for (int i = 0; i < m; i++)
        ids[i] = kt_below(&rng, (int)x->desc.n);
    if (x->desc.layout == KERN_LAYOUT_PACKED)
        KT_OK(kern_gemm(be, &(kern_gemm_args){.out = out,
                                              .in = in,
                                              .w = w,
                                              .m = m,
                                              .split = split ? &s : NULL,
                                              .scratch = scratch}));
    KT_OK(kern_embed(be, &(kern_embed_args){.out = out + roots * (size_t)m * (size_t)x->desc.n,
                                            .table = w,
                                            .ids = ids,
                                            .m = m}));
    kt_free(in);
    kt_free(scratch);
    kt_free(ids);
    return out;
}

static void compare(kern_backend *be, const kern_weight *late, const kern_weight *whole,
                    const matrix *x, const char *when)
{
    static const int ms[] = {1, 3, 17, 70};

    for (size_t i = 0; i < 2 * TP_ARRAY_LEN(ms); i++) {
        int m = ms[i / 2];
        bool split = i % 2 != 0;
        float *a = result_of(be, late, x, m, split), *b = result_of(be, whole, x, m, split);

        if (memcmp(a, b, (split ? 3u : 1u) * (size_t)m * (size_t)(x->desc.n + x->desc.k) * 4) != 0)
            fail_msg("%s: %s to %s, layout %d, [%lld, %lld], m %d: other bits than the whole's",
                     when, kern_dtype_name(x->from), kern_dtype_name(x->desc.dtype),
                     (int)x->desc.layout, (long long)x->desc.n, (long long)x->desc.k, m);
        kt_free(a);
        kt_free(b);
    }
}

static void one_matrix(kern_backend *be, kt_rng *rng, matrix *x, int n_sources)
{
    kern_weight *whole = whole_weight(be, x), *late = late_weight(be, x, n_sources);
    int64_t third = x->desc.n / 3;

    compare(be, late, whole, x, "nothing put");
    put_rows(be, late, x, third, x->desc.n - 2 * third); /* the middle: panels in part and whole */
    compare(be, late, whole, x, "the middle put");
    for (int64_t row = 0; row < third;) {
        int64_t n = 1 + kt_below(rng, 40);

        n = n < third - row ? n : third - row;
        put_rows(be, late, x, row, n);
        row += n;
    }
    compare(be, late, whole, x, "the end missing");
    put_rows(be, late, x, x->desc.n - third, third);
    compare(be, late, whole, x, "all put");
    be->ops->weight_settle(be, late);
    compare(be, late, whole, x, "settled");
    be->ops->weight_destroy(be, late);
    be->ops->weight_destroy(be, whole);
}

static void test_bits(void **state)
{
    static const shape shapes[] = {{1, 1}, {64, 128}, {65, 129}, {200, 300}, {130, 7}};
    kern_backend *be = kt_open(state, 2);
    kt_rng rng = {.state = 5};

    for (size_t s = 0; s < TP_ARRAY_LEN(shapes); s++)
        for (size_t i = 0; i < 18; i++) {
            matrix x = matrix_make(&rng, shapes[s], g_types[i / 3 % 3], g_types[i % 3],
                                   i < 9 ? KERN_LAYOUT_PACKED : KERN_LAYOUT_ROWS);

            one_matrix(be, &rng, &x, 1 + (int)(i % 3));
            kt_free(x.src);
        }
    kt_close(be);
}

typedef struct putter {
    kern_backend *be;
    kern_weight *w;
    const matrix *x;
} putter;

static void *put_all(void *arg)
{
    const putter *p = arg;

    for (int64_t row = 0; row < p->x->desc.n; row += 48)
        put_rows(p->be, p->w, p->x, row, p->x->desc.n - row < 48 ? p->x->desc.n - row : 48);
    return NULL;
}

static void test_beside_puts(void **state)
{
    kern_backend *be = kt_open(state, 2);
    kt_rng rng = {.state = 6};
    matrix x =
        matrix_make(&rng, (shape){1000, 700}, KERN_DTYPE_BF16, KERN_DTYPE_BF16, KERN_LAYOUT_PACKED);
    kern_weight *whole = whole_weight(be, &x);

    for (int round = 0; round < 10; round++) {
        kern_weight *late = late_weight(be, &x, 2);
        putter p = {be, late, &x};
        pthread_t thread;

        assert_int_equal(pthread_create(&thread, NULL, put_all, &p), 0);
        compare(be, late, whole, &x, "while puts run");
        assert_int_equal(pthread_join(thread, NULL), 0);
        compare(be, late, whole, &x, "after the puts");
        be->ops->weight_destroy(be, late);
    }
    be->ops->weight_destroy(be, whole);
    kt_free(x.src);
    kt_close(be);
}

static void test_failing_source(void **state)
{
    kern_backend *be = kt_open(state, 2);
    kt_rng rng = {.state = 7};
    matrix x =
        matrix_make(&rng, (shape){300, 64}, KERN_DTYPE_BF16, KERN_DTYPE_BF16, KERN_LAYOUT_PACKED);
    kern_weight *w = late_weight(be, &x, 3);
    float in[64] = {0}, out[300];
    int32_t id = 299;
    void *scratch = kt_zeros(be->ops->gemm_scratch_bytes(be, 1, 300, 64));

    x.sources[2].broken = true;
    assert_int_equal(
        kern_gemm(be, &(kern_gemm_args){.out = out, .in = in, .w = w, .m = 1, .scratch = scratch}),
        TP_ERR_IO);
    assert_non_null(strstr(tp_last_error(), "the disk is gone"));
    assert_int_equal(kern_embed(be, &(kern_embed_args){.out = out, .table = w, .ids = &id, .m = 1}),
                     TP_ERR_IO);
    assert_int_equal(be->ops->weight_late(be, w, &(kern_weight_source){.row = 299, .n_rows = 2}),
                     TP_ERR_INVALID);
    be->ops->weight_destroy(be, w); /* without settle */
    kt_free(scratch);
    kt_free(x.src);
    kt_close(be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {KT_EACH_CPU(test_bits), KT_EACH_CPU(test_beside_puts),
                                       KT_EACH_CPU(test_failing_source)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
