/* SPDX-License-Identifier: Apache-2.0 */
/* test_kern_elementwise.c - rmsnorm, silu_mul, rope_table, gather: every backend against FP64, rows alone against
 * rows in a batch.
 *
 * Limits: FP32 results 1e-6 relative (rmsnorm 2e-6: a sum of up to 8192 squares); BF16 results half a unit in the
 * last place, 2^-8, and as much as FP32.
 */
#include <math.h>
#include <string.h>

#include "kern_testing.h"
#include "kernels/convert.h"

static const kern_dtype out_types[] = {KERN_DTYPE_F32, KERN_DTYPE_BF16};

static double half_ulp(kern_dtype t)
{
    return t == KERN_DTYPE_BF16 ? 0x1p-8 : 0.0;
}

/* ---- rmsnorm ---- */
static void rmsnorm_case(kern_backend *be, kt_rng *rng, int m, int dim, int with_add, kern_dtype t)
{
    size_t n = (size_t)m * (size_t)dim, eb = kern_dtype_bytes(t);
    float *x = kt_floats(rng, n, 3.0f), *add = kt_floats(rng, n, 2.0f);
    float *w = kt_floats(rng, (size_t)dim, 2.0f), *alone = kt_zeros(n * sizeof *alone);
    double *want = kt_zeros(n * sizeof *want), *sum = kt_zeros(n * sizeof *sum);
    char *out = kt_zeros(n * eb), *out1 = kt_zeros((size_t)dim * eb);
    kern_rmsnorm_args a = {.out = out,
                           .residual = x,
                           .add = with_add ? add : NULL,
                           .weight = w,
                           .m = m,
                           .dim = dim,
                           .eps = 1e-6f,
                           .out_dtype = t};

    memcpy(alone, x, n * sizeof *x);
    for (int i = 0; i < m; i++) {
        double sq = 0.0;

        for (int j = i * dim; j < (i + 1) * dim; j++) {
            sum[j] = with_add ? (double)(x[j] + add[j]) : (double)x[j];
            sq += sum[j] * sum[j];
        }
        for (int j = 0; j < dim; j++)
            want[i * dim + j] = sum[i * dim + j] / sqrt(sq / dim + 1e-6) * (double)w[j];
    }
    KT_OK(kern_rmsnorm(be, &a));
    kt_compare("rmsnorm", out, t, want, n, 2e-6 + half_ulp(t), 1e-30);
    kt_compare("rmsnorm residual", x, KERN_DTYPE_F32, sum, n, 0.0, 1e-30);
    for (int i = 0; i < m; i++) {
        a.m = 1;
        a.out = out1;
        a.residual = alone + i * dim;
        a.add = with_add ? add + i * dim : NULL;
        KT_OK(kern_rmsnorm(be, &a));
        kt_same_bits("rmsnorm of one row", out + (size_t)(i * dim) * eb, out1, (size_t)dim * eb);
    }
    kt_free(x), kt_free(add), kt_free(w), kt_free(alone), kt_free(want), kt_free(sum);
    kt_free(out), kt_free(out1);
}

static void test_rmsnorm(void **state)
{
    static const int dims[] = {1, 7, 16, 63, 64, 65, 127, 896, 1000, 4096, 8192};
    static const int rows[] = {0, 1, 2, 5, 17};
    kern_backend *be = kt_open(state, 2);
    kt_rng rng = {1};

    for (size_t d = 0; d < TP_ARRAY_LEN(dims); d++)
        for (size_t r = 0; r < TP_ARRAY_LEN(rows); r++)
            for (size_t t = 0; t < TP_ARRAY_LEN(out_types); t++)
                rmsnorm_case(be, &rng, rows[r], dims[d], (int)(d + r) % 2, out_types[t]);
    kt_close(be);
}

/* ---- silu_mul ---- */
static void silu_case(kern_backend *be, kt_rng *rng, int m, int n, kern_dtype t)
{
    size_t total = (size_t)m * (size_t)n, eb = kern_dtype_bytes(t);
    float *in = kt_floats(rng, total * 2, 30.0f);
    double *want = kt_zeros(total * sizeof *want);
    char *out = kt_zeros(total * eb), *out1 = kt_zeros((size_t)n * eb);

    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            double g = (double)in[i * 2 * n + j], u = (double)in[i * 2 * n + n + j];

            want[i * n + j] = g / (1.0 + exp(-g)) * u;
        }
    KT_OK(kern_silu_mul(
        be, &(kern_silu_mul_args){.out = out, .in = in, .m = m, .n = n, .out_dtype = t}));
    kt_compare("silu_mul", out, t, want, total, 1e-6 + half_ulp(t), 1e-30);
    for (int i = 0; i < m; i++) {
        KT_OK(kern_silu_mul(
            be, &(kern_silu_mul_args){
                    .out = out1, .in = in + i * 2 * n, .m = 1, .n = n, .out_dtype = t}));
        kt_same_bits("silu_mul of one row", out + (size_t)(i * n) * eb, out1, (size_t)n * eb);
    }
    kt_free(in), kt_free(want), kt_free(out), kt_free(out1);
}

static void test_silu_mul(void **state)
{
    static const int sizes[] = {0, 1, 3, 16, 17, 100, 2047, 2049, 4864, 9001};
    static const int rows[] = {0, 1, 3, 9};
    kern_backend *be = kt_open(state, 2);
    kt_rng rng = {2};

    for (size_t s = 0; s < TP_ARRAY_LEN(sizes); s++)
        for (size_t r = 0; r < TP_ARRAY_LEN(rows); r++)
            for (size_t t = 0; t < TP_ARRAY_LEN(out_types); t++)
                silu_case(be, &rng, rows[r], sizes[s], out_types[t]);
    kt_close(be);
}

/* Far out the result is 0 or the gate itself; a NaN stays a NaN. */
static void test_silu_extremes(void **state)
{
    kern_backend *be = kt_open(state, 1);
    float in[10] = {-1e30f, -200.0f, 200.0f, 1e30f, NAN, 1, 1, 1, 1, 1}, out[5];

    KT_OK(kern_silu_mul(be, &(kern_silu_mul_args){.out = out, .in = in, .m = 1, .n = 5}));
    assert_true(fabsf(out[0]) < 1e-7f && fabsf(out[1]) < 1e-30f);
    assert_true(out[2] == 200.0f && out[3] == 1e30f && isnan(out[4]));
    kt_close(be);
}

/* ---- rope_table ---- */
static void test_rope_table(void **state)
{
    kern_backend *be = kt_open(state, 2);
    enum { M = 70, F = 40 };
    int32_t pos[M];
    float freq[F], *table = kt_zeros((size_t)M * F * 2 * sizeof *table);
    double *want = kt_zeros((size_t)M * F * 2 * sizeof *want);

    for (int i = 0; i < M; i++)
        pos[i] = i < 40 ? i : i * 2003;
    for (int j = 0; j < F; j++)
        freq[j] = (float)pow(10000.0, -(double)j / F);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < F; j++) {
            double angle = (double)((float)pos[i] * freq[j]);

            want[(i * F + j) * 2] = cos(angle) * 1.25;
            want[(i * F + j) * 2 + 1] = sin(angle) * 1.25;
        }
    KT_OK(kern_rope_table(be, &(kern_rope_table_args){.cos_sin = table,
                                                      .pos = pos,
                                                      .inv_freq = freq,
                                                      .m = M,
                                                      .n_freq = F,
                                                      .amplitude = 1.25f}));
    kt_compare("rope_table", table, KERN_DTYPE_F32, want, (size_t)M * F * 2, 3e-7, 1e-12);
    KT_OK(kern_rope_table(be, &(kern_rope_table_args){.m = 0, .n_freq = F}));
    KT_OK(kern_rope_table(be, &(kern_rope_table_args){.m = 3, .n_freq = 0}));
    kt_free(table), kt_free(want);
    kt_close(be);
}

/* ---- gather ---- */
static void test_gather(void **state)
{
    kern_backend *be = kt_open(state, 2);
    enum { ROWS = 50, DIM = 2500 };
    kt_rng rng = {3};
    float *in = kt_floats(&rng, ROWS * DIM, 1.0f), *out = kt_zeros(ROWS * DIM * sizeof *out);
    int32_t idx[ROWS];

    for (int i = 0; i < ROWS; i++)
        idx[i] = kt_below(&rng, ROWS);
    KT_OK(kern_gather(
        be, &(kern_gather_args){.out = out, .in = in, .idx = idx, .n = ROWS, .dim = DIM}));
    for (int i = 0; i < ROWS; i++)
        kt_same_bits("gather", out + i * DIM, in + idx[i] * DIM, DIM * sizeof *in);
    KT_OK(kern_gather(be, &(kern_gather_args){.n = 0, .dim = DIM}));
    KT_OK(kern_gather(be, &(kern_gather_args){.n = 3, .dim = 0}));
    kt_free(in), kt_free(out);
    kt_close(be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        KT_EACH(test_rmsnorm),    KT_EACH(test_silu_mul), KT_EACH(test_silu_extremes),
        KT_EACH(test_rope_table), KT_EACH(test_gather),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
