/* SPDX-License-Identifier: Apache-2.0 */
/* test_select.c - the draw against a reference that knows nothing of walks: it builds the filtered distribution as an
 * array of doubles, normalises it, and inverts its cumulative sum. */
#include "tests/unit/base/base_testing.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/sample/select.h"

#define VOCAB 300

static uint64_t g_random = 88172645463325252u;

static double uniform(void)
{
    g_random ^= g_random << 13;
    g_random ^= g_random >> 7;
    g_random ^= g_random << 17;
    return (double)(g_random >> 11) * 0x1p-53;
}

static void make_logits(rt_cand *c, int n, double spread)
{
    for (int i = 0; i < n; i++) {
        double u = uniform() + uniform() + uniform() - 1.5;

        c[i] = (rt_cand){.val = (float)(u * spread), .id = i};
    }
    for (int i = 0; i < n / 10; i++) /* ties */
        c[(int)(uniform() * n)].val = c[(int)(uniform() * n)].val;
    qsort(c, (size_t)n, sizeof *c, rt_cand_compare);
}

/* p[i] of the i-th best entry after temperature, min_p, top_k and top_p. */
static void reference(const rt_select_args *a, int n, double *p)
{
    double sum = 0, before = 0;
    double best = (double)a->cand[0].val;

    for (int i = 0; i < n; i++)
        p[i] = exp(((double)a->cand[i].val - best) / (double)a->temperature);
    for (int i = 0; i < n; i++) {
        if (p[i] < (double)a->min_p || (a->top_k > 0 && i >= a->top_k))
            p[i] = 0;
        sum += p[i];
    }
    for (int i = 0; i < n; i++) {
        double mine = p[i] / sum;

        /* kept while what lies above has not reached top_p */
        if (a->top_p < 1 && i > 0 && before >= (double)a->top_p)
            p[i] = 0;
        before += mine;
    }
    sum = 0;
    for (int i = 0; i < n; i++)
        sum += p[i];
    for (int i = 0; i < n; i++)
        p[i] /= sum;
}

static double whole_mass(const rt_select_args *a, int n)
{
    double sum = 0;

    for (int i = 0; i < n; i++)
        sum += exp(((double)a->cand[i].val - (double)a->cand[0].val) / (double)a->temperature);
    return sum;
}

static rt_select_args random_args(const rt_cand *c, int n)
{
    rt_select_args a = {.cand = c,
                        .n = n,
                        .complete = true,
                        .temperature = (float)(0.2 + 1.8 * uniform()),
                        .top_p = 1,
                        .u = uniform()};

    if (uniform() < 0.5)
        a.top_k = 1 + (int32_t)(uniform() * 60);
    if (uniform() < 0.5)
        a.top_p = (float)(0.05 + 0.94 * uniform());
    if (uniform() < 0.4)
        a.min_p = (float)(0.3 * uniform());
    a.total = whole_mass(&a, n);
    return a;
}

/* u falls into the interval that the reference gives the drawn token, but for rounding at its ends. */
static void test_exact_draws(void **state)
{
    static rt_cand c[VOCAB];
    static double p[VOCAB];

    (void)state;
    for (int round = 0; round < 4000; round++) {
        rt_select_args a;
        double from = 0;
        int32_t id = -1;
        int i = 0;

        make_logits(c, VOCAB, 1 + 12 * uniform());
        a = random_args(c, VOCAB);
        assert_true(rt_select(&a, &id));
        reference(&a, VOCAB, p);
        while (c[i].id != id)
            from += p[i++];
        assert_true(p[i] > 0);
        assert_true(a.u >= from - 1e-9 && a.u <= from + p[i] + 1e-9);
    }
}

/* A prefix of the list decides as the whole list would, or says that it cannot. */
static void test_incomplete_lists(void **state)
{
    static rt_cand c[VOCAB];
    int decided = 0, open = 0;

    (void)state;
    for (int round = 0; round < 4000; round++) {
        rt_select_args a, part;
        int32_t whole_id = -1, part_id = -1;

        make_logits(c, VOCAB, 1 + 12 * uniform());
        a = random_args(c, VOCAB);
        part = a;
        part.complete = false;
        part.n = 1 + (int)(uniform() * (VOCAB - 1));
        assert_true(rt_select(&a, &whole_id));
        if (rt_select(&part, &part_id)) {
            decided++;
            assert_int_equal(part_id, whole_id);
        } else {
            open++;
            assert_int_equal(part_id, -1);
        }
    }
    print_message("    %d decided, %d needed more\n", decided, open);
    assert_true(decided > 200 && open > 200);
}

/* Pearson's statistic over all tokens with an expected count of at least 5; the limit is 5 standard deviations above
 * its mean, and the seeds are fixed, so the test never wobbles. */
static void test_frequencies(void **state)
{
    static rt_cand c[VOCAB];
    static double p[VOCAB];
    static int counts[VOCAB];
    const int draws = 50000;

    (void)state;
    for (int round = 0; round < 6; round++) {
        rt_select_args a;
        double chi = 0;
        int cells = 0, place[VOCAB];

        make_logits(c, VOCAB, 6);
        a = random_args(c, VOCAB);
        memset(counts, 0, sizeof counts);
        for (int i = 0; i < VOCAB; i++)
            place[c[i].id] = i;
        for (int d = 0; d < draws; d++) {
            int32_t id = -1;

            a.u = uniform();
            assert_true(rt_select(&a, &id));
            counts[place[id]]++;
        }
        reference(&a, VOCAB, p);
        for (int i = 0; i < VOCAB; i++) {
            double expected = p[i] * draws;

            if (expected == 0)
                assert_int_equal(counts[i], 0);
            if (expected < 5)
                continue;
            chi += (counts[i] - expected) * (counts[i] - expected) / expected;
            cells++;
        }
        print_message("    %d cells, chi-square %.1f\n", cells, chi);
        assert_true(cells < 2 || chi < cells + 5 * sqrt(2.0 * cells));
    }
}

static void test_edges(void **state)
{
    const rt_cand c[] = {{2, 7}, {2, 9}, {1, 1}, {-INFINITY, 3}};
    rt_select_args a = {
        .cand = c, .n = 4, .complete = true, .temperature = 1, .top_p = 1, .top_k = 4};
    int32_t id;

    (void)state;
    a.u = 0;
    assert_true(rt_select(&a, &id));
    assert_int_equal(id, 7); /* of equals the lower id comes first */
    a.u = 1 - 0x1p-53;
    assert_true(rt_select(&a, &id));
    assert_int_equal(id, 1); /* never one that is masked */
    a.top_p = 0;
    assert_true(rt_select(&a, &id));
    assert_int_equal(id, 7);
    a.top_p = 1;
    a.min_p = 1;
    assert_true(rt_select(&a, &id));
    assert_int_equal(id, 9);
    a.n = 1;
    a.min_p = 0;
    a.temperature = 1e-6f;
    assert_true(rt_select(&a, &id));
    assert_int_equal(id, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact_draws),
        cmocka_unit_test(test_incomplete_lists),
        cmocka_unit_test(test_frequencies),
        cmocka_unit_test(test_edges),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
