/* SPDX-License-Identifier: Apache-2.0 */
/* test_kern_sample.c - adjust, topk, chunk_stats on every backend.
 *
 * adjust and topk are exact: compared bit for bit with the scalar backend and with a full sort.  chunk_stats: maximum
 * exact, sum within 2e-6 relative of FP64, the token drawn is the one of the inverse distribution in FP64 within
 * 2e-6 of the sum, and frequencies pass a chi-square test with fixed seeds.
 */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kern_testing.h"
#include "kernels/philox.h"

/* ---- adjust ---- */
enum { VOCAB = 40000, HISTORY = 600 };

static void test_adjust_by_hand(void **state)
{
    kern_backend *be = kt_open(state, 2);
    float l[8] = {1, -1, 2, 3, 4, 5, 6, 7};
    int32_t scratch[8] = {0}, history[] = {100, 101, 102, 103, 103, 999, 3};
    int32_t bias_ids[] = {104, 104, 5}, forbidden[] = {107, 2000};
    float bias[] = {0.5f, 0.25f, 100.0f};
    float want[8] = {0.5f, -2.0f, 0.625f, 0.75f, 4.75f, 5, 6, -INFINITY};
    kern_adjust_row r = {.row = 0,
                         .repetition = 2,
                         .frequency = 0.25f,
                         .presence = 0.125f,
                         .history = history,
                         .n_prompt = 2,
                         .n_history = 7,
                         .bias_ids = bias_ids,
                         .bias = bias,
                         .n_bias = 3,
                         .forbidden = forbidden,
                         .n_forbidden = 2};
    kern_adjust_args a = {.logits = l,
                          .ld = 8,
                          .vocab_first = 100,
                          .n_local = 8,
                          .rows = &r,
                          .n_rows = 1,
                          .scratch = scratch};

    /* 102: 2 / 2 - .25 - .125; 103, twice: 3 / 2 - 2 * .25 - .125 */
    want[3] = 0.875f;
    KT_OK(kern_adjust(be, &a));
    for (int i = 0; i < 8; i++)
        assert_true(l[i] == want[i]);
    r = (kern_adjust_row){.repetition = 1, .allowed = (int32_t[]){101, 106, 50}, .n_allowed = 3};
    KT_OK(kern_adjust(be, &a));
    for (int i = 0; i < 8; i++)
        assert_true(l[i] == (i == 1 || i == 6 ? want[i] : -INFINITY));
    for (int i = 0; i < 8; i++)
        assert_int_equal(scratch[i], 0);
    kt_close(be);
}

static void random_ids(kt_rng *rng, int32_t *ids, int n)
{
    for (int i = 0; i < n; i++)
        ids[i] = kt_below(rng, i % 3 == 0 ? 50 : VOCAB + 20000); /* many twice, some not local */
}

static void test_adjust_random(void **state)
{
    enum { ROWS = 5, FIRST = 10000 };
    kern_backend *be = kt_open(state, 2), *ref = NULL;
    kt_rng rng = {20};
    float *base = kt_floats(&rng, ROWS * VOCAB, 8.0f), *want = kt_zeros(ROWS * VOCAB * 4);
    float bias[HISTORY];
    int32_t ids[ROWS][4][HISTORY], *scratch = kt_zeros(VOCAB * sizeof *scratch);
    kern_adjust_row rows[ROWS];
    kern_adjust_args a = {.ld = VOCAB,
                          .vocab_first = FIRST,
                          .n_local = VOCAB,
                          .rows = rows,
                          .n_rows = ROWS,
                          .scratch = scratch};

    KT_OK(kern_ref_ops()->open(&ref, &(kern_open_args){.n_threads = 1}));
    for (int i = 0; i < HISTORY; i++)
        bias[i] = kt_unit(&rng) * 50.0f;
    for (int i = 0; i < ROWS; i++) {
        for (int j = 0; j < 4; j++)
            random_ids(&rng, ids[i][j], HISTORY);
        rows[i] = (kern_adjust_row){.row = ROWS - 1 - i,
                                    .repetition = 1.0f + 0.3f * (float)(i % 3),
                                    .frequency = 0.1f * (float)(i % 2),
                                    .presence = 0.2f,
                                    .history = ids[i][0],
                                    .n_prompt = 100 * i,
                                    .n_history = HISTORY,
                                    .bias_ids = ids[i][1],
                                    .bias = bias,
                                    .n_bias = 300,
                                    .forbidden = ids[i][2],
                                    .n_forbidden = 10,
                                    .allowed = i == 3 ? ids[i][3] : NULL,
                                    .n_allowed = 500};
    }
    memcpy(want, base, ROWS * VOCAB * sizeof *want);
    a.logits = want;
    KT_OK(kern_adjust(ref, &a));
    a.logits = base;
    KT_OK(kern_adjust(be, &a));
    kt_same_bits("adjust", base, want, ROWS * VOCAB * sizeof *want);
    for (int i = 0; i < VOCAB; i++)
        assert_int_equal(scratch[i], 0);
    rows[0].repetition = 0.0f;
    assert_int_equal(kern_adjust(be, &a), TP_ERR_INVALID);
    kt_free(base), kt_free(want), kt_free(scratch);
    kt_close(ref), kt_close(be);
}

/* ---- topk ---- */
typedef struct entry {
    float value;
    int32_t id;
} entry;

static int better(const void *a, const void *b)
{
    const entry *x = a, *y = b;

    if (x->value != y->value)
        return x->value > y->value ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

static void topk_case(kern_backend *be, const float *l, int n, int k)
{
    enum { FIRST = 700 };
    entry *all = kt_zeros((size_t)n * sizeof *all);
    float *val = kt_zeros((size_t)k * sizeof *val);
    int32_t *id = kt_zeros((size_t)k * sizeof *id), row = 0;
    int count = 0;

    for (int i = 0; i < n; i++)
        if (l[i] > -INFINITY)
            all[count++] = (entry){l[i], FIRST + i};
    qsort(all, (size_t)count, sizeof *all, better);
    KT_OK(kern_topk(be, &(kern_topk_args){.logits = l,
                                          .ld = n,
                                          .rows = &row,
                                          .n_rows = 1,
                                          .k = k,
                                          .vocab_first = FIRST,
                                          .n_local = n,
                                          .val = val,
                                          .id = id}));
    for (int j = 0; j < k; j++) {
        if (val[j] == (j < count ? all[j].value : -INFINITY) &&
            id[j] == (j < count ? all[j].id : -1))
            continue;
        print_error("topk n %d k %d: place %d has %g of token %d\n", n, k, j, (double)val[j],
                    id[j]);
        fail();
    }
    kt_free(all), kt_free(val), kt_free(id);
}

static float topk_value(kt_rng *rng, int pattern, int i, int n)
{
    switch (pattern) {
    case 0: return kt_unit(rng) * 10.0f;
    case 1: return (float)kt_below(rng, 7) - 3.0f; /* many equals, and -0 */
    case 2: return (float)i;                       /* ascending: every element enters */
    case 3: return (float)(n - i);
    case 4: return i % 5 == 0 ? NAN : i % 7 == 0 ? -INFINITY : kt_unit(rng);
    case 5: return i == n / 2 ? INFINITY : -INFINITY;
    default: return -0.0f;
    }
}

static void test_topk(void **state)
{
    static const int sizes[] = {0, 1, 5, 63, 64, 65, 127, 1000, 4097, 70001};
    static const int ks[] = {1, 2, 20, 64, 65, 1000, 1024};
    kern_backend *be = kt_open(state, 2);
    kt_rng rng = {21};

    for (size_t s = 0; s < TP_ARRAY_LEN(sizes); s++) {
        for (int pattern = 0; pattern < 7; pattern++) {
            float *l = kt_zeros((size_t)sizes[s] * sizeof *l);

            for (int i = 0; i < sizes[s]; i++)
                l[i] = topk_value(&rng, pattern, i, sizes[s]);
            for (size_t k = 0; k < TP_ARRAY_LEN(ks); k++)
                topk_case(be, l, sizes[s], ks[k]);
            kt_free(l);
        }
    }
    kt_close(be);
}

static void test_topk_rows(void **state)
{
    enum { ROWS = 9, N = 3001, K = 70 };
    kern_backend *be = kt_open(state, 2);
    kt_rng rng = {22};
    float *l = kt_floats(&rng, ROWS * N, 3.0f), *val = kt_zeros(ROWS * K * sizeof *val), val1[K];
    int32_t rows[ROWS] = {8, 3, 3, 0, 1, 2, 7, 6, 5}, *id = kt_zeros(ROWS * K * sizeof *id), id1[K];
    kern_topk_args a = {.logits = l,
                        .ld = N,
                        .rows = rows,
                        .n_rows = ROWS,
                        .k = K,
                        .n_local = N,
                        .val = val,
                        .id = id};

    KT_OK(kern_topk(be, &a));
    for (int i = 0; i < ROWS; i++) {
        kern_topk_args one = a;

        one.rows = rows + i;
        one.n_rows = 1;
        one.val = val1;
        one.id = id1;
        KT_OK(kern_topk(be, &one));
        kt_same_bits("topk of one row", val + i * K, val1, sizeof val1);
        kt_same_bits("topk of one row", id + i * K, id1, sizeof id1);
    }
    a.k = KERN_TOPK_MAX + 1;
    assert_int_equal(kern_topk(be, &a), TP_ERR_INVALID);
    a.k = 0;
    KT_OK(kern_topk(be, &a));
    kt_free(l), kt_free(val), kt_free(id);
    kt_close(be);
}

/* ---- chunk_stats ---- */
static double weight_of(float l, float max, float inv_temp)
{
    if (!(l > -INFINITY))
        return 0.0;
    return exp(((double)fminf(l, FLT_MAX) - (double)max) * (double)inv_temp);
}

/* One chunk against FP64. */
static void check_chunk(const float *l, int n, const kern_chunk_row *r, int32_t first,
                        uint32_t chunk, const kern_chunk_stat *s)
{
    float max = -INFINITY;
    double sum = 0.0, before = 0.0, target;

    for (int i = 0; i < n; i++)
        if (l[i] > max)
            max = fminf(l[i], FLT_MAX);
    assert_true(s->max == max);
    if (max == -INFINITY) {
        assert_true(s->sum == 0.0f && s->pick == -1 && s->pick_logit == -INFINITY);
        return;
    }
    for (int i = 0; i < n; i++)
        sum += weight_of(l[i], max, r->inv_temp);
    assert_true(fabs((double)s->sum - sum) <= 2e-6 * sum);
    assert_true(s->pick >= first && s->pick < first + n && s->pick_logit == l[s->pick - first]);
    for (int i = 0; i < s->pick - first; i++)
        before += weight_of(l[i], max, r->inv_temp);
    target = kern_philox_uniform(r->seed, r->counter, chunk, 0) * sum;
    assert_true(target >= before - 2e-6 * sum);
    assert_true(target <= before + weight_of(s->pick_logit, max, r->inv_temp) + 2e-6 * sum);
    assert_true(weight_of(s->pick_logit, max, r->inv_temp) > 0.0);
}

static void chunk_case(kern_backend *be, kt_rng *rng, int n_local, int chunk_tokens, int n_rows)
{
    int n_chunks = (n_local + chunk_tokens - 1) / chunk_tokens, ld = n_local + 3;
    int32_t first = 4 * chunk_tokens;
    float *l = kt_floats(rng, (size_t)(n_rows * ld), 12.0f);
    float *scratch = kt_zeros((size_t)(be->n_threads * chunk_tokens) * sizeof *scratch);
    kern_chunk_row *rows = kt_zeros((size_t)n_rows * sizeof *rows);
    kern_chunk_stat *out = kt_zeros((size_t)(n_rows * n_chunks) * sizeof *out), one;

    for (int i = 0; i < n_rows * ld; i++) {
        int kind = kt_below(rng, 40);

        l[i] = kind == 0 ? NAN : kind == 1 ? -INFINITY : l[i];
    }
    for (int i = 0; i < chunk_tokens && i < n_local; i++)
        l[i] = i % 2 == 0 ? -INFINITY : NAN; /* a chunk without tokens */
    if (n_rows > 1)
        l[ld + n_local / 2] = INFINITY;
    for (int i = 0; i < n_rows; i++)
        rows[i] = (kern_chunk_row){.row = i,
                                   .inv_temp = 0.25f + (float)(i % 4),
                                   .seed = kt_u32(rng),
                                   .counter = ((uint64_t)kt_u32(rng) << 20) + 5};
    KT_OK(kern_chunk_stats(be, &(kern_chunk_args){.logits = l,
                                                  .ld = ld,
                                                  .rows = rows,
                                                  .n_rows = n_rows,
                                                  .vocab_first = first,
                                                  .n_local = n_local,
                                                  .chunk_tokens = chunk_tokens,
                                                  .out = out,
                                                  .scratch = scratch}));
    for (int i = 0; i < n_rows; i++) {
        for (int c = 0; c < n_chunks; c++) {
            int begin = c * chunk_tokens;
            int n = n_local - begin < chunk_tokens ? n_local - begin : chunk_tokens;
            const float *lc = l + i * ld + begin;
            kern_chunk_row r = rows[i];

            check_chunk(lc, n, &r, first + begin, (uint32_t)(4 + c), &out[i * n_chunks + c]);
            r.row = 0; /* the same chunk as all that a rank has */
            KT_OK(kern_chunk_stats(be, &(kern_chunk_args){.logits = lc,
                                                          .ld = n,
                                                          .rows = &r,
                                                          .n_rows = 1,
                                                          .vocab_first = first + begin,
                                                          .n_local = n,
                                                          .chunk_tokens = chunk_tokens,
                                                          .out = &one,
                                                          .scratch = scratch}));
            kt_same_bits("chunk_stats of one chunk", &one, &out[i * n_chunks + c], sizeof one);
        }
    }
    kt_free(l), kt_free(scratch), kt_free(rows), kt_free(out);
}

static void test_chunk_stats(void **state)
{
    static const int sizes[][2] = {{1, 1},      {10, 16},     {63, 64},      {64, 64},  {65, 64},
                                   {1000, 100}, {5000, 1024}, {40000, 4096}, {3000, 77}};
    kern_backend *be = kt_open(state, 2);
    kt_rng rng = {23};

    for (size_t i = 0; i < TP_ARRAY_LEN(sizes); i++)
        for (int n_rows = 1; n_rows <= 7; n_rows += 3)
            chunk_case(be, &rng, sizes[i][0], sizes[i][1], n_rows);
    KT_OK(kern_chunk_stats(be, &(kern_chunk_args){.n_rows = 0, .chunk_tokens = 64}));
    KT_OK(kern_chunk_stats(be, &(kern_chunk_args){.n_rows = 3, .chunk_tokens = 64}));
    assert_int_equal(kern_chunk_stats(be, &(kern_chunk_args){.vocab_first = 3, .chunk_tokens = 64}),
                     TP_ERR_INVALID);
    kt_close(be);
}

/* 40,000 draws from 300 tokens: chi-square over the tokens that are expected at least 10 times. */
static void test_chunk_frequencies(void **state)
{
    enum { N = 300, DRAWS = 40000, BATCH = 100 };
    kern_backend *be = kt_open(state, 1);
    kt_rng rng = {24};
    float *l = kt_floats(&rng, N, 4.0f), scratch[N];
    kern_chunk_row rows[BATCH];
    kern_chunk_stat out[BATCH];
    double weight[N], sum = 0.0, chi2 = 0.0, rare = 0.0;
    int count[N] = {0}, cells = 0, rare_count = 0;

    for (int i = 0; i < N; i++) {
        weight[i] = weight_of(l[i], 4.0f, 1.3f);
        sum += weight[i];
    }
    for (int at = 0; at < DRAWS; at += BATCH) {
        for (int i = 0; i < BATCH; i++)
            rows[i] = (kern_chunk_row){.inv_temp = 1.3f, .seed = 99, .counter = (uint64_t)(at + i)};
        KT_OK(kern_chunk_stats(be, &(kern_chunk_args){.logits = l,
                                                      .ld = N,
                                                      .rows = rows,
                                                      .n_rows = BATCH,
                                                      .n_local = N,
                                                      .chunk_tokens = N,
                                                      .out = out,
                                                      .scratch = scratch}));
        for (int i = 0; i < BATCH; i++)
            count[out[i].pick]++;
    }
    for (int i = 0; i < N; i++) {
        double expected = weight[i] / sum * DRAWS;

        if (expected < 10.0) {
            rare += expected;
            rare_count += count[i];
            continue;
        }
        chi2 += (count[i] - expected) * (count[i] - expected) / expected;
        cells++;
    }
    chi2 += (rare_count - rare) * (rare_count - rare) / rare;
    /* cells degrees of freedom: mean cells, deviation sqrt(2 cells); 4 deviations */
    assert_true(cells > 100 && chi2 < cells + 4.0 * sqrt(2.0 * cells));
    kt_free(l);
    kt_close(be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        KT_EACH(test_adjust_by_hand), KT_EACH(test_adjust_random), KT_EACH(test_topk),
        KT_EACH(test_topk_rows),      KT_EACH(test_chunk_stats),   KT_EACH(test_chunk_frequencies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
