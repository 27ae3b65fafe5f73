/* SPDX-License-Identifier: Apache-2.0 */
/* test_kernels_sampling.c - kernels over a shard of the vocabulary, against the scalar backend.
 *
 * adjust and topk have equal bits.  chunk_stats: equal maxima; sums within the last bits of exp; the token drawn is
 * the scalar backend's, or (where the device's exp differs in its last bit) lies where the target falls within 2e-6
 * of the sum.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "device_testing.h"
#include "kernels/philox.h"

static int g_other_picks; /* tokens that differ from the scalar backend's */

static int close_all(void **state)
{
    print_message("tokens drawn unlike the scalar backend: %d\n", g_other_picks);
    return dt_teardown(state);
}

/* ---- adjust ---- */
enum { LIST_MAX = 600 };

typedef struct adjust_lists {
    int32_t history[LIST_MAX], bias_ids[LIST_MAX], forbidden[LIST_MAX], allowed[LIST_MAX];
    float bias[LIST_MAX];
} adjust_lists;

/* Ids on either side of the shard too; many twice. */
static void random_ids(kt_rng *rng, int32_t *ids, int32_t first, int32_t n_local)
{
    for (int i = 0; i < LIST_MAX; i++)
        ids[i] = i % 3 == 0 ? first + kt_below(rng, n_local < 50 ? n_local + 1 : 50)
                            : kt_below(rng, first + n_local + 20000);
}

static void random_row(kt_rng *rng, int i, adjust_lists *l, kern_adjust_row *r, int32_t first,
                       int32_t n_local)
{
    random_ids(rng, l->history, first, n_local);
    random_ids(rng, l->bias_ids, first, n_local);
    random_ids(rng, l->forbidden, first, n_local);
    random_ids(rng, l->allowed, first, n_local);
    for (int j = 0; j < LIST_MAX; j++)
        l->bias[j] = kt_unit(rng) * 50.0f;
    *r = (kern_adjust_row){.row = i,
                           .repetition = 1.0f + 0.3f * (float)(i % 3),
                           .frequency = 0.1f * (float)(i % 2),
                           .presence = i == 4 ? 0.0f : 0.2f,
                           .history = l->history,
                           .n_prompt = 130 * (i % 4),
                           .n_history = i == 5 ? 130 : LIST_MAX,
                           .bias_ids = l->bias_ids,
                           .bias = l->bias,
                           .n_bias = i == 2 ? 0 : 300,
                           .forbidden = l->forbidden,
                           .n_forbidden = 10 * i,
                           .allowed = i % 3 == 0 ? l->allowed : NULL,
                           .n_allowed = i == 3 ? 0 : 500};
}

static void adjust_case(kt_rng *rng, int32_t first, int32_t n_local, int n_rows)
{
    int64_t ld = n_local + 5;
    size_t bytes = (size_t)(n_rows * ld) * 4, scratch_bytes = (size_t)n_local * 4;
    float *want = kt_floats(rng, (size_t)(n_rows * ld), 8.0f), *got = kt_zeros(bytes);
    int32_t *scratch = kt_zeros(scratch_bytes), *scratch_got = kt_zeros(scratch_bytes);
    adjust_lists *lists = kt_zeros((size_t)n_rows * sizeof *lists);
    kern_adjust_row rows[8], dev_rows[8];
    kern_adjust_args a = {.ld = ld, .vocab_first = first, .n_local = n_local, .n_rows = n_rows},
                     ref;
    const char *what = dt_case("adjust: %d rows, %d tokens from %d", n_rows, n_local, first);
    const adjust_lists *dev;

    for (int i = 0; i < n_rows; i++)
        random_row(rng, i, &lists[i], &rows[i], first, n_local);
    dev = dt_in(lists, (size_t)n_rows * sizeof *lists, 0);
    for (int i = 0; i < n_rows; i++) {
        dev_rows[i] = rows[i];
        dev_rows[i].history = dev[i].history;
        dev_rows[i].bias_ids = dev[i].bias_ids;
        dev_rows[i].bias = dev[i].bias;
        dev_rows[i].forbidden = dev[i].forbidden;
        dev_rows[i].allowed = rows[i].allowed != NULL ? dev[i].allowed : NULL;
    }
    a.logits = dt_in(want, bytes, 0);
    a.rows = dt_in(dev_rows, (size_t)n_rows * sizeof *rows, 0);
    a.scratch = dt_in(scratch, scratch_bytes, 0);
    KT_OK(kern_cuda_adjust(&a, dt_stream()));
    dt_read(got, a.logits, bytes);
    dt_read(scratch_got, a.scratch, scratch_bytes);
    ref = a;
    ref.logits = want;
    ref.rows = rows;
    ref.scratch = scratch;
    KT_OK(kern_adjust(dt_ref, &ref));
    dt_same_bits("adjust", what, got, want, bytes);
    dt_same_bits("adjust scratch", what, scratch_got, scratch, scratch_bytes);
    kt_free(want), kt_free(got), kt_free(scratch), kt_free(scratch_got), kt_free(lists);
    dt_release();
}

static void test_adjust(void **state)
{
    static const int32_t sizes[] = {1, 30, 1000, 8191, 8192, 8193, 20000, 40000};
    kt_rng rng = {11};

    (void)state;
    for (size_t i = 0; i < TP_ARRAY_LEN(sizes); i++)
        adjust_case(&rng, (int32_t)i * 3000, sizes[i], 1 + (int)i % 8);
    adjust_case(&rng, 0, 0, 2);
    adjust_case(&rng, 64, 300, 0);
}

/* ---- topk ---- */
static float topk_value(kt_rng *rng, int pattern, int i, int n)
{
    switch (pattern) {
    case 0: return kt_unit(rng) * 10.0f;
    case 1: return (float)kt_below(rng, 7) - 3.0f; /* many equals, and -0 */
    case 2: return (float)i;
    case 3: return (float)(n - i);
    case 4: return i % 5 == 0 ? NAN : i % 7 == 0 ? -INFINITY : kt_unit(rng);
    case 5: return i == n / 2 ? INFINITY : -INFINITY;
    case 6: return i % 4096 < 4 ? kt_unit(rng) + 10.0f : kt_unit(rng); /* one thread has the best */
    case 7: return i % 4096 < 4 ? 5.0f : i % 2 == 0 ? 0.0f : -0.0f;
    default: return -0.0f;
    }
}

static void topk_case(const float *l, int n, int64_t ld, int n_rows, int k, const char *what)
{
    enum { FIRST = 700 };
    size_t count = (size_t)(n_rows * k);
    int32_t rows[4] = {2, 0, 1, 2}, *id = kt_zeros(count * 4), *id_want = kt_zeros(count * 4);
    float *val = kt_zeros(count * 4), *val_want = kt_zeros(count * 4);
    kern_topk_args a = {.ld = ld, .n_rows = n_rows, .k = k, .vocab_first = FIRST, .n_local = n},
                   ref;

    a.logits = dt_in(l, (size_t)(3 * ld) * 4, 0);
    a.rows = dt_in(rows, sizeof rows, 0);
    a.val = dt_out(count * 4, 0);
    a.id = dt_out(count * 4, 0);
    KT_OK(kern_cuda_topk(&a, dt_stream()));
    dt_read(val, a.val, count * 4);
    dt_read(id, a.id, count * 4);
    ref = a;
    ref.logits = l;
    ref.rows = rows;
    ref.val = val_want;
    ref.id = id_want;
    KT_OK(kern_topk(dt_ref, &ref));
    dt_same_bits("topk ids", what, id, id_want, count * 4);
    dt_same_bits("topk values", what, val, val_want, count * 4);
    kt_free(id), kt_free(id_want), kt_free(val), kt_free(val_want);
    dt_release();
}

static void test_topk(void **state)
{
    static const int sizes[] = {0, 1, 5, 63, 127, 1000, 2047, 2048, 2049, 4097, 19008};
    static const int ks[] = {1, 2, 20, 64, 256, 1000, 1024};
    kt_rng rng = {12};

    (void)state;
    for (size_t s = 0; s < TP_ARRAY_LEN(sizes); s++) {
        for (int pattern = 0; pattern < 9; pattern++) {
            int n = sizes[s], ld = pattern % 2 == 0 ? (n + 3) / 4 * 4 : n + 1; /* vectors or not */
            float *l = kt_zeros((size_t)(3 * ld) * sizeof *l);

            for (int i = 0; i < 3 * ld; i++)
                l[i] = topk_value(&rng, pattern, i % (ld + 1), n);
            for (size_t k = 0; k < TP_ARRAY_LEN(ks); k++)
                if (n < 4097 || (k + (size_t)pattern) % 3 == 0 || k == 4)
                    topk_case(l, n, ld, n < 4097 ? 2 : 1, ks[k],
                              dt_case("topk n %d pattern %d k %d", n, pattern, ks[k]));
            kt_free(l);
        }
    }
    topk_case(NULL, 0, 0, 0, 5, "topk of no rows");
    assert_int_equal(
        kern_cuda_topk(&(kern_topk_args){.n_rows = 1, .k = KERN_TOPK_MAX + 1}, dt_stream()),
        TP_ERR_INVALID);
}

/* A vocabulary on one rank, once. */
static void test_topk_large(void **state)
{
    enum { N = 151936 };
    kt_rng rng = {13};
    float *l = kt_floats(&rng, 3 * N, 12.0f);

    (void)state;
    topk_case(l, N, N, 4, 1, "topk of a whole vocabulary, k 1");
    topk_case(l, N, N, 1, 256, "topk of a whole vocabulary, k 256");
    kt_free(l);
}

/* ---- chunk_stats ---- */
static double weight_of(float l, float max, float inv_temp)
{
    if (!(l > -INFINITY))
        return 0.0;
    return exp(((double)fminf(l, FLT_MAX) - (double)max) * (double)inv_temp);
}

/* A token that is not the scalar backend's must be as right as that one. */
static void check_pick(const float *l, int n, const kern_chunk_row *r, int32_t first,
                       uint32_t chunk, const kern_chunk_stat *s)
{
    double sum = 0, before = 0, target;

    g_other_picks++;
    assert_true(s->pick >= first && s->pick < first + n);
    assert_true(memcmp(&s->pick_logit, &l[s->pick - first], sizeof(float)) == 0);
    for (int i = 0; i < n; i++)
        sum += weight_of(l[i], s->max, r->inv_temp);
    for (int i = 0; i < s->pick - first; i++)
        before += weight_of(l[i], s->max, r->inv_temp);
    target = kern_philox_uniform(r->seed, r->counter, chunk, 0) * sum;
    assert_true(target >= before - 2e-6 * sum);
    assert_true(target <= before + weight_of(s->pick_logit, s->max, r->inv_temp) + 2e-6 * sum);
    assert_true(weight_of(s->pick_logit, s->max, r->inv_temp) > 0);
}

static void chunk_case(kt_rng *rng, int n_local, int chunk_tokens, int n_rows)
{
    int n_chunks = (n_local + chunk_tokens - 1) / chunk_tokens, ld = n_local + 3;
    size_t n_stats = (size_t)(n_rows * n_chunks), stat_bytes = n_stats * sizeof(kern_chunk_stat);
    float *l = kt_floats(rng, (size_t)(n_rows * ld), 12.0f);
    float *scratch = kt_zeros((size_t)chunk_tokens * sizeof *scratch);
    kern_chunk_row *rows = kt_zeros((size_t)n_rows * sizeof *rows);
    kern_chunk_stat *got = kt_zeros(stat_bytes), *want = kt_zeros(stat_bytes);
    kern_chunk_args a = {.ld = ld,
                         .n_rows = n_rows,
                         .vocab_first = 4 * chunk_tokens,
                         .n_local = n_local,
                         .chunk_tokens = chunk_tokens},
                    ref;

    for (int i = 0; i < n_rows * ld; i++) {
        int kind = kt_below(rng, 40);

        l[i] = kind == 0 ? NAN : kind == 1 ? -INFINITY : l[i];
    }
    for (int i = 0; i < chunk_tokens && i < n_local && n_rows > 2; i++)
        l[i] = i % 2 == 0 ? -INFINITY : NAN; /* a chunk without tokens */
    if (n_rows > 1 && n_local > 0)
        l[ld + n_local / 2] = INFINITY;
    for (int i = 0; i < n_rows; i++)
        rows[i] = (kern_chunk_row){.row = n_rows - 1 - i,
                                   .inv_temp = 0.25f + (float)(i % 4),
                                   .seed = kt_u32(rng),
                                   .counter = ((uint64_t)kt_u32(rng) << 20) + 5};
    a.logits = dt_in(l, (size_t)(n_rows * ld) * 4, 4);
    a.rows = dt_in(rows, (size_t)n_rows * sizeof *rows, 0);
    a.out = dt_out(stat_bytes, 0);
    a.scratch = NULL;
    KT_OK(kern_cuda_chunk_stats(&a, dt_stream()));
    dt_read(got, a.out, stat_bytes);
    ref = a;
    ref.logits = l;
    ref.rows = rows;
    ref.out = want;
    ref.scratch = scratch;
    KT_OK(kern_chunk_stats(dt_ref, &ref));
    for (size_t i = 0; i < n_stats; i++) {
        int c = (int)i % n_chunks, begin = c * chunk_tokens;
        const kern_chunk_row *r = &rows[i / (size_t)n_chunks];
        const float *lc = l + r->row * ld + begin;
        const char *what = dt_case("%d tokens by %d, row %zu, chunk %d", n_local, chunk_tokens,
                                   i / (size_t)n_chunks, c);

        dt_same_bits("chunk_stats max", what, &got[i].max, &want[i].max, sizeof(float));
        dt_close_to("chunk_stats sum", what, &got[i].sum, &want[i].sum, KERN_DTYPE_F32, 1, 2e-6, 0);
        if (got[i].pick != want[i].pick)
            check_pick(lc, n_local - begin < chunk_tokens ? n_local - begin : chunk_tokens, r,
                       a.vocab_first + begin, (uint32_t)(4 + c), &got[i]);
        else
            dt_same_bits("chunk_stats token", what, &got[i].pick_logit, &want[i].pick_logit,
                         sizeof(float));
    }
    kt_free(l), kt_free(scratch), kt_free(rows), kt_free(got), kt_free(want);
    dt_release();
}

static void test_chunk_stats(void **state)
{
    static const int shapes[][2] = {{1, 1},      {10, 16},    {31, 32},     {33, 64},
                                    {64, 64},    {65, 64},    {1000, 100},  {3000, 77},
                                    {1280, 640}, {5000, 640}, {5000, 1024}, {19008, 4096}};
    kt_rng rng = {14};

    (void)state;
    for (size_t i = 0; i < TP_ARRAY_LEN(shapes); i++)
        for (int n_rows = 1; n_rows <= 7; n_rows += 3)
            chunk_case(&rng, shapes[i][0], shapes[i][1], n_rows);
    chunk_case(&rng, 0, 64, 3);
    chunk_case(&rng, 100, 64, 0);
}

/* The chunks of a row are the same wherever the row is cut: one by one, at other addresses, equal bits. */
static void test_chunks_alone(void **state)
{
    enum { N = 1500, CHUNK = 200, FIRST = 3 * CHUNK, CHUNKS = 8 };
    kt_rng rng = {15};
    float *l = kt_floats(&rng, N, 9.0f);
    kern_chunk_row row = {.inv_temp = 1.25f, .seed = 77, .counter = 12};
    kern_chunk_stat all[CHUNKS], one;
    kern_chunk_args a = {
        .ld = N, .n_rows = 1, .vocab_first = FIRST, .n_local = N, .chunk_tokens = CHUNK};

    (void)state;
    a.logits = dt_in(l, N * 4, 0);
    a.rows = dt_in(&row, sizeof row, 0);
    a.out = dt_out(sizeof all, 0);
    KT_OK(kern_cuda_chunk_stats(&a, dt_stream()));
    dt_read(all, a.out, sizeof all);
    for (int c = 0; c < CHUNKS; c++) {
        int n = N - c * CHUNK < CHUNK ? N - c * CHUNK : CHUNK;

        a.logits = dt_in(l + c * CHUNK, (size_t)n * 4, 4 * ((size_t)c % 4));
        a.vocab_first = FIRST + c * CHUNK;
        a.n_local = n;
        KT_OK(kern_cuda_chunk_stats(&a, dt_stream()));
        dt_read(&one, a.out, sizeof one);
        dt_same_bits("chunk_stats cut anywhere", "chunk alone", &one, &all[c], sizeof one);
    }
    kt_free(l);
    dt_release();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adjust),       cmocka_unit_test(test_topk),
        cmocka_unit_test(test_topk_large),   cmocka_unit_test(test_chunk_stats),
        cmocka_unit_test(test_chunks_alone),
    };

    return cmocka_run_group_tests(tests, dt_setup, close_all);
}
