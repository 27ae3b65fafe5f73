/* SPDX-License-Identifier: Apache-2.0 */
/* test_gemm.c - the matrix product on every instruction set; what this machine lacks is skipped, and says so.
 *
 * The functions of the backend are called directly with a backend struct of our own, so that the set can be chosen
 * freely.
 *
 * Judge: float64 sums.  The error allowed per element is (8 + sqrt(k)) * 2^-24 * sum |a w|.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "kernels/convert.h"
#include "kernels/cpu/gemm_internal.h"

#ifdef KERN_AMX_EMULATED /* tests/kernels/CMakeLists.txt */
#    define KT_FIRST_ISA KERN_CPU_AMX
#else
#    define KT_FIRST_ISA KERN_CPU_GENERIC
#endif

static const kern_dtype g_dtypes[] = {KERN_DTYPE_F32, KERN_DTYPE_BF16, KERN_DTYPE_F16};

/* One product's data.  All blocks are ours. */
typedef struct product {
    int64_t n, k;
    int m;
    kern_dtype dtype;
    uint8_t *w_rows; /* [n, k] of dtype */
    uint8_t *in;     /* [m, k] of the activations' type */
    float *bias;     /* [n] */
} product;

static uint64_t g_seed = 1;

static float random_float(void)
{
    g_seed = g_seed * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(g_seed >> 32) * 0x1p-31f;
}

static uint8_t *random_block(int64_t count, kern_dtype t)
{
    size_t size = kern_dtype_bytes(t);
    uint8_t *p = tp_malloc((size_t)count * size);

    assert_non_null(p);
    for (int64_t i = 0; i < count; i++)
        kern_store_f32(p + (size_t)i * size, t, random_float());
    return p;
}

static product product_make(int64_t n, int64_t k, int m, kern_dtype t)
{
    product p = {.n = n, .k = k, .m = m, .dtype = t};

    p.w_rows = random_block(n * k, t);
    p.in = random_block(m * k, gemm_act_dtype(t));
    p.bias = (float *)(void *)random_block(n, KERN_DTYPE_F32);
    return p;
}

static void product_free(product *p)
{
    tp_free(p->w_rows);
    tp_free(p->in);
    tp_free(p->bias);
}

static kern_cpu_backend backend(kern_cpu_isa isa, int n_threads)
{
    static kern_team *teams[9]; /* by size; they last as long as the program */

    TP_ASSERT(n_threads < (int)TP_ARRAY_LEN(teams));
    if (teams[n_threads] == NULL)
        TP_ASSERT(kern_team_create(&teams[n_threads], n_threads) == TP_OK);
    return (kern_cpu_backend){
        .base = {.n_threads = n_threads, .isa = "test"}, .isa = isa, .team = teams[n_threads]};
}

/* Columns [k0, k1) of the product's matrix, as a weight. */
static kern_weight *weight_of(kern_cpu_backend *be, const product *p, int64_t k0, int64_t k1)
{
    size_t size = kern_dtype_bytes(p->dtype);
    kern_weight_desc d = {.n = p->n, .k = k1 - k0, .dtype = p->dtype, .layout = KERN_LAYOUT_PACKED};
    kern_weight_rows rows = {.row = 0,
                             .n_rows = p->n,
                             .src = p->w_rows + (size_t)k0 * size,
                             .src_stride = (size_t)p->k * size,
                             .src_dtype = p->dtype};
    kern_weight *w = NULL;

    assert_int_equal(kern_cpu_weight_create(&be->base, &d, &w), TP_OK);
    assert_int_equal(kern_cpu_weight_put(&be->base, w, &rows), TP_OK);
    return w;
}

/* Columns [k0, k1) of rows [m0, m0 + m) of the activations, contiguous, with nothing readable behind the last. */
static uint8_t *input_of(const product *p, int m0, int m, int64_t k0, int64_t k1)
{
    size_t size = kern_dtype_bytes(gemm_act_dtype(p->dtype));
    uint8_t *in = tp_malloc((size_t)m * (size_t)(k1 - k0) * size);

    assert_non_null(in);
    for (int r = 0; r < m; r++)
        memcpy(in + (size_t)r * (size_t)(k1 - k0) * size,
               p->in + ((size_t)(m0 + r) * (size_t)p->k + (size_t)k0) * size,
               (size_t)(k1 - k0) * size);
    return in;
}

/* out: [n_roots, m, n], from the heap. */
static float *run(kern_cpu_backend *be, const kern_weight *w, const uint8_t *in, int m,
                  const float *bias, const kern_ksplit *split)
{
    tp_seg_node roots[TP_SEG_ROOTS_MAX];
    int n_roots = split != NULL ? tp_seg_roots(split->seg_first, split->n_seg, roots) : 1;
    size_t count = (size_t)n_roots * (size_t)m * (size_t)w->desc.n;
    size_t scratch_bytes = kern_cpu_gemm_scratch_bytes(&be->base, m, w->desc.n, w->desc.k);
    float *out = tp_malloc(count * sizeof *out);
    void *scratch = tp_malloc(scratch_bytes);
    kern_gemm_args a = {
        .out = out, .in = in, .w = w, .bias = bias, .m = m, .split = split, .scratch = scratch};

    assert_non_null(out);
    assert_non_null(scratch);
    memset(out, 0xff, count * sizeof *out);
    /* NaNs, as far as small products reach: what is used must have been written. */
    memset(scratch, 0xff, scratch_bytes < 262144 ? scratch_bytes : 262144);
    assert_int_equal(kern_cpu_gemm(&be->base, &a), TP_OK);
    tp_free(scratch);
    return out;
}

static float *run_rows(kern_cpu_backend *be, const kern_weight *w, const product *p, int m0, int m,
                       const kern_ksplit *split)
{
    uint8_t *in = input_of(p, m0, m, 0, p->k);
    float *out = run(be, w, in, m, split != NULL ? NULL : p->bias, split);

    tp_free(in);
    return out;
}

static void check_close(const product *p, const float *out, const float *bias, const char *what)
{
    size_t ws = kern_dtype_bytes(p->dtype), as = kern_dtype_bytes(gemm_act_dtype(p->dtype));

    for (int m = 0; m < p->m; m++) {
        for (int64_t n = 0; n < p->n; n++) {
            double sum = bias != NULL ? (double)bias[n] : 0.0, mag = fabs(sum), err;

            for (int64_t k = 0; k < p->k; k++) {
                float x = kern_load_f32(p->in + ((size_t)m * (size_t)p->k + (size_t)k) * as,
                                        gemm_act_dtype(p->dtype));
                float y = kern_load_f32(p->w_rows + ((size_t)n * (size_t)p->k + (size_t)k) * ws,
                                        p->dtype);

                sum += (double)x * (double)y;
                mag += fabs((double)x * (double)y);
            }
            err = fabs(sum - (double)out[m * p->n + n]);
            if (!(err <= (8 + sqrt((double)p->k)) * 0x1p-24 * mag))
                fail_msg("%s %s m %d n %lld k %lld: element [%d, %lld] is %.9g, expected %.9g",
                         what, kern_dtype_name(p->dtype), p->m, (long long)p->n, (long long)p->k, m,
                         (long long)n, (double)out[m * p->n + n], sum);
        }
    }
}

typedef void (*gemm_test_fn)(kern_cpu_isa isa);

/* ---- the tests ---- */
static void one_product(kern_cpu_backend *be, int64_t n, int64_t k, int m, kern_dtype t)
{
    product p = product_make(n, k, m, t);
    kern_weight *w = weight_of(be, &p, 0, k);
    float *out = run(be, w, p.in, m, p.bias, NULL);

    check_close(&p, out, p.bias, "bias");
    tp_free(out);
    out = run(be, w, p.in, m, NULL, NULL);
    check_close(&p, out, NULL, "no bias");
    tp_free(out);
    kern_cpu_weight_destroy(&be->base, w);
    product_free(&p);
}

static void test_float64(kern_cpu_isa isa)
{
    static const int64_t shapes[][2] = {{1, 1}, {1, 2},    {63, 5},   {64, 2},    {65, 7},
                                        {7, 0}, {130, 33}, {200, 96}, {64, 4101}, {30, 300}};
    kern_cpu_backend be = backend(isa, 2);

    for (size_t d = 0; d < TP_ARRAY_LEN(g_dtypes); d++) {
        for (int m = 1; m <= 70; m++)
            one_product(&be, 67, 37, m, g_dtypes[d]);
        for (size_t s = 0; s < TP_ARRAY_LEN(shapes); s++) {
            one_product(&be, shapes[s][0], shapes[s][1], 1, g_dtypes[d]);
            one_product(&be, shapes[s][0], shapes[s][1], 9, g_dtypes[d]);
            one_product(&be, shapes[s][0], shapes[s][1], 33, g_dtypes[d]);
        }
        one_product(&be, 65, 70, 512, g_dtypes[d]);
        one_product(&be, 3, 5000, 130, g_dtypes[d]);
    }
}

/* Every row alone, and every batch made of neighbours, has the bits that it has in the whole. */
static void batch_invariance(kern_cpu_backend *be, int64_t n, int64_t k, kern_dtype t,
                             const kern_ksplit *split)
{
    static const int sizes[] = {1, 2, 7, 16, 64};
    enum { m_all = 333 };
    product p = product_make(n, k, m_all, t);
    kern_weight *w = weight_of(be, &p, 0, k);
    float *all = run_rows(be, w, &p, 0, m_all, split);
    tp_seg_node roots[TP_SEG_ROOTS_MAX];
    int n_roots = split != NULL ? tp_seg_roots(split->seg_first, split->n_seg, roots) : 1;

    for (size_t s = 0; s < TP_ARRAY_LEN(sizes); s++) {
        for (int m0 = 0; m0 + sizes[s] <= m_all; m0 += sizes[s] * (sizes[s] == 1 ? 5 : 1)) {
            float *part = run_rows(be, w, &p, m0, sizes[s], split);

            for (int r = 0; r < n_roots; r++)
                assert_memory_equal(part + (size_t)r * (size_t)sizes[s] * (size_t)n,
                                    all + ((size_t)r * m_all + (size_t)m0) * (size_t)n,
                                    (size_t)sizes[s] * (size_t)n * sizeof *all);
            tp_free(part);
        }
    }
    tp_free(all);
    kern_cpu_weight_destroy(&be->base, w);
    product_free(&p);
}

static void test_batch_invariance(kern_cpu_isa isa)
{
    kern_cpu_backend be = backend(isa, 2);
    kern_ksplit split = {
        .seg_first = 0, .n_seg = 8, .k_end = {40, 80, 121, 121, 200, 240, 241, 300}};

    for (size_t d = 0; d < TP_ARRAY_LEN(g_dtypes); d++) {
        batch_invariance(&be, 96, 300, g_dtypes[d], NULL);
        batch_invariance(&be, 96, 300, g_dtypes[d], &split);
        batch_invariance(&be, 20, 2500, g_dtypes[d], NULL);
    }
}

/* Columns where the 8 segments of `k` columns end, in units of `unit` columns; the last may be short. */
static void cut(int64_t k, int64_t unit, int64_t ends[8])
{
    for (int s = 0; s < 8; s++) {
        int64_t begin, end;

        tp_seg_units((k + unit - 1) / unit, 8, s, &begin, &end);
        ends[s] = end * unit < k ? end * unit : k;
    }
}

/* Joins the roots of all ranks, left to right, as comm does. */
static void join_roots(float *sum, const float *root, tp_seg_node node, float *stack,
                       tp_seg_node *nodes, int *depth, size_t count)
{
    memcpy(stack + (size_t)*depth * count, root, count * sizeof *root);
    nodes[(*depth)++] = node;
    while (*depth >= 2 &&
           tp_seg_siblings(nodes[*depth - 2], nodes[*depth - 1], &nodes[*depth - 2])) {
        float *left = stack + (size_t)(*depth - 2) * count;

        for (size_t i = 0; i < count; i++)
            left[i] = left[i] + left[i + count];
        (*depth)--;
    }
    memcpy(sum, stack, count * sizeof *sum);
}

/* The product as `n_ranks` ranks make it. */
static void run_ranks(kern_cpu_backend *be, const product *p, const int64_t ends[8], int n_ranks,
                      float *sum)
{
    size_t count = (size_t)p->m * (size_t)p->n;
    float *stack = tp_malloc((TP_SEG_ROOTS_MAX + 1) * count * sizeof *stack);
    tp_seg_node nodes[TP_SEG_ROOTS_MAX + 1], roots[TP_SEG_ROOTS_MAX];
    int depth = 0;

    assert_non_null(stack);
    for (int rank = 0; rank < n_ranks; rank++) {
        kern_ksplit split = {0};
        int64_t k0;
        kern_weight *w;
        uint8_t *in;
        float *out;
        int n_roots;

        tp_seg_run(8, n_ranks, rank, &split.seg_first, &split.n_seg);
        k0 = split.seg_first > 0 ? ends[split.seg_first - 1] : 0;
        for (int s = 0; s < split.n_seg; s++)
            split.k_end[s] = (int32_t)(ends[split.seg_first + s] - k0);
        w = weight_of(be, p, k0, k0 + split.k_end[split.n_seg - 1]);
        in = input_of(p, 0, p->m, k0, k0 + split.k_end[split.n_seg - 1]);
        out = run(be, w, in, p->m, NULL, &split);
        n_roots = tp_seg_roots(split.seg_first, split.n_seg, roots);
        for (int r = 0; r < n_roots; r++)
            join_roots(sum, out + (size_t)r * count, roots[r], stack, nodes, &depth, count);
        tp_free(out);
        tp_free(in);
        kern_cpu_weight_destroy(&be->base, w);
    }
    assert_int_equal(depth, 1);
    tp_free(stack);
}

static void test_ranks(kern_cpu_isa isa)
{
    static const int64_t cuts[][2] = {{896, 64}, {200, 1}, {301, 7}, {5, 1}, {4864, 128}, {90, 9}};
    static const int ms[] = {1, 5, 20, 40};
    kern_cpu_backend be = backend(isa, 2);

    for (size_t d = 0; d < TP_ARRAY_LEN(g_dtypes); d++) {
        for (size_t c = 0; c < TP_ARRAY_LEN(cuts) * TP_ARRAY_LEN(ms); c++) {
            const int64_t *kc = cuts[c / TP_ARRAY_LEN(ms)];
            product p = product_make(70, kc[0], ms[c % TP_ARRAY_LEN(ms)], g_dtypes[d]);
            size_t bytes = (size_t)p.m * (size_t)p.n * sizeof(float);
            float *one = tp_malloc(bytes), *many = tp_malloc(bytes);
            int64_t ends[8];

            assert_non_null(one);
            assert_non_null(many);
            cut(kc[0], kc[1], ends);
            run_ranks(&be, &p, ends, 1, one);
            check_close(&p, one, NULL, "split");
            for (int n_ranks = 2; n_ranks <= 8; n_ranks++) {
                run_ranks(&be, &p, ends, n_ranks, many);
                assert_memory_equal(one, many, bytes);
            }
            tp_free(one);
            tp_free(many);
            product_free(&p);
        }
    }
}

/* Every root of every run of segments is the plain product of its columns, where it is one segment, and adds up. */
static void test_runs(kern_cpu_isa isa)
{
    kern_cpu_backend be = backend(isa, 1);
    enum { n_cols = 66, k_all = 131, m = 3 };

    for (size_t d = 0; d < TP_ARRAY_LEN(g_dtypes); d++) {
        for (int c = 0; c < 64; c++) {
            int first = c % 8, n_seg = c / 8 + 1;
            kern_ksplit split = {.seg_first = first, .n_seg = n_seg};
            product p = product_make(n_cols, k_all, m, g_dtypes[d]);
            kern_weight *w = weight_of(&be, &p, 0, p.k);
            tp_seg_node roots[TP_SEG_ROOTS_MAX];
            int n_roots = tp_seg_roots(first, n_seg, roots);
            float *out;

            for (int s = 0; s < n_seg; s++) /* uneven, with an empty one */
                split.k_end[s] = s == n_seg - 1 ? k_all : s == 3 ? split.k_end[2] : (s + 1) * 13;
            out = run(&be, w, p.in, m, NULL, &split);
            for (int r = 1; r < n_roots; r++)
                for (int i = 0; i < m * n_cols; i++)
                    out[i] += out[r * m * n_cols + i];
            check_close(&p, out, NULL, "run");
            tp_free(out);
            kern_cpu_weight_destroy(&be.base, w);
            product_free(&p);
        }
    }
}

static void test_threads(kern_cpu_isa isa)
{
    static const int ms[] = {1, 7, 64, 200};

    for (size_t d = 0; d < TP_ARRAY_LEN(g_dtypes); d++) {
        for (size_t i = 0; i < TP_ARRAY_LEN(ms); i++) {
            product p = product_make(300, 515, ms[i], g_dtypes[d]);
            size_t bytes = (size_t)p.m * (size_t)p.n * sizeof(float);
            kern_cpu_backend one = backend(isa, 1);
            kern_weight *w = weight_of(&one, &p, 0, p.k);
            float *want = run(&one, w, p.in, p.m, p.bias, NULL);

            for (int t = 2; t <= 3; t++) {
                kern_cpu_backend be = backend(isa, t);
                float *out = run(&be, w, p.in, p.m, p.bias, NULL);

                assert_memory_equal(out, want, bytes);
                tp_free(out);
            }
            tp_free(want);
            kern_cpu_weight_destroy(&one.base, w);
            product_free(&p);
        }
    }
}

static void test_empty(kern_cpu_isa isa)
{
    kern_cpu_backend be = backend(isa, 2);
    product p = product_make(0, 8, 2, KERN_DTYPE_BF16);
    kern_weight *w = weight_of(&be, &p, 0, 8);
    float x[4], bias[3] = {1, 2, 3};
    uint8_t scratch[64];
    kern_gemm_args a = {.out = x, .in = p.in, .w = w, .m = 2, .scratch = scratch};

    assert_int_equal(kern_cpu_gemm(&be.base, &a), TP_OK); /* n = 0 */
    kern_cpu_weight_destroy(&be.base, w);
    product_free(&p);
    p = product_make(3, 8, 1, KERN_DTYPE_BF16);
    w = weight_of(&be, &p, 0, 8);
    a = (kern_gemm_args){.out = NULL, .in = NULL, .w = w, .m = 0};
    assert_int_equal(kern_cpu_gemm_scratch_bytes(&be.base, 0, 3, 8), 0);
    assert_int_equal(kern_cpu_gemm(&be.base, &a), TP_OK); /* m = 0 */
    kern_cpu_weight_destroy(&be.base, w);
    w = weight_of(&be, &p, 0, 0);
    {
        float *out = run(&be, w, p.in, 1, bias, NULL); /* k = 0 */

        assert_memory_equal(out, bias, sizeof bias);
        tp_free(out);
    }
    kern_cpu_weight_destroy(&be.base, w);
    product_free(&p);
}

static void test_damaged(kern_cpu_isa isa)
{
    kern_cpu_backend be = backend(isa, 1);
    product p = product_make(5, 8, 2, KERN_DTYPE_F32);
    kern_weight *w = weight_of(&be, &p, 0, 8);
    kern_ksplit split = {.seg_first = 0, .n_seg = 2, .k_end = {4, 8}};
    float *out = run(&be, w, p.in, 2, NULL, &split);
    kern_gemm_args good = {.out = out, .in = p.in, .w = w, .m = 2}, a = good;

    assert_int_equal(kern_cpu_gemm(&be.base, &a), TP_ERR_INVALID); /* no scratch */
    a.scratch = out;
    a.m = -1;
    assert_int_equal(kern_cpu_gemm(&be.base, &a), TP_ERR_INVALID);
    a.m = 2;
    a.in = NULL;
    assert_int_equal(kern_cpu_gemm(&be.base, &a), TP_ERR_INVALID);
    a.in = p.in;
    a.split = &split;
    a.bias = p.bias;
    assert_int_equal(kern_cpu_gemm(&be.base, &a), TP_ERR_INVALID); /* bias and split */
    a.bias = NULL;
    split.k_end[1] = 7;
    assert_int_equal(kern_cpu_gemm(&be.base, &a), TP_ERR_INVALID); /* does not reach k */
    split.k_end[1] = 8;
    split.k_end[0] = 9;
    assert_int_equal(kern_cpu_gemm(&be.base, &a), TP_ERR_INVALID); /* runs back */
    split.n_seg = TP_SEG_MAX + 1;
    assert_int_equal(kern_cpu_gemm(&be.base, &a), TP_ERR_INVALID);
    tp_free(out);
    kern_cpu_weight_destroy(&be.base, w);
    product_free(&p);
}

/* ---- main: every test on every listed set; one that `available` denies is a skipped test ---- */
typedef struct gemm_case {
    kern_cpu_isa isa;
    gemm_test_fn fn;
    char name[48];
} gemm_case;

static void run_case(void **state)
{
    const gemm_case *c = *state;

    if (!kern_cpu_isa_available(c->isa))
        skip();
    c->fn(c->isa);
}

int main(void)
{
    static const struct {
        const char *name;
        gemm_test_fn fn;
    } tests[] = {
        {"float64", test_float64}, {"batch", test_batch_invariance}, {"ranks", test_ranks},
        {"runs", test_runs},       {"threads", test_threads},        {"empty", test_empty},
        {"damaged", test_damaged},
    };
    static gemm_case cases[KERN_CPU_ISA_COUNT * TP_ARRAY_LEN(tests)];
    struct CMUnitTest all[TP_ARRAY_LEN(cases)];
    size_t n = 0;

    for (int isa = KT_FIRST_ISA; isa < KERN_CPU_ISA_COUNT; isa++) {
        for (size_t t = 0; t < TP_ARRAY_LEN(tests); t++, n++) {
            cases[n] = (gemm_case){.isa = (kern_cpu_isa)isa, .fn = tests[t].fn};
            snprintf(cases[n].name, sizeof cases[n].name, "gemm_%s_%s",
                     kern_cpu_isa_name(cases[n].isa), tests[t].name);
            all[n] = (struct CMUnitTest){
                .name = cases[n].name, .test_func = run_case, .initial_state = &cases[n]};
        }
    }
    return _cmocka_run_group_tests("gemm", all, n, NULL, NULL);
}
