/* SPDX-License-Identifier: Apache-2.0 */
/* test_stats.c - values land in the bucket whose bound is the first not below them. */
#include "tests/unit/base/base_testing.h"

#include "runtime/stats.h"

static void test_buckets(void **state)
{
    rt_stats s;

    (void)state;
    rt_stats_init(&s, 4096);
    rt_hist_add(&s.params_n, 1); /* bounds 1 2 5 10 20 */
    rt_hist_add(&s.params_n, 3);
    rt_hist_add(&s.params_n, 5);
    rt_hist_add(&s.params_n, 21);
    assert_int_equal(s.params_n.n, 5);
    assert_int_equal(s.params_n.counts[0], 1);
    assert_int_equal(s.params_n.counts[1], 0);
    assert_int_equal(s.params_n.counts[2], 2);
    assert_int_equal(s.params_n.counts[5], 1); /* +Inf */
    assert_int_equal(s.params_n.total, 4);
    assert_true(s.params_n.sum > 29.999 && s.params_n.sum < 30.001);
}

static void test_bounds_ascend(void **state)
{
    rt_stats s;
    const rt_hist *all[] = {&s.ttft,
                            &s.inter_token,
                            &s.e2e,
                            &s.queue,
                            &s.inference,
                            &s.prefill,
                            &s.decode,
                            &s.per_output_token,
                            &s.prompt_len,
                            &s.params_n,
                            &s.generation_len,
                            &s.max_generation_len,
                            &s.params_max_tokens,
                            &s.iteration_tokens};

    (void)state;
    rt_stats_init(&s, 1 << 20);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        assert_in_range(all[i]->n, 1, RT_HIST_BUCKETS_MAX);
        for (int b = 1; b < all[i]->n; b++)
            assert_true(all[i]->bounds[b] > all[i]->bounds[b - 1]);
    }
}

/* Token buckets end at the context length, as vLLM's do. */
static void test_token_buckets_follow_the_context(void **state)
{
    rt_stats s;

    (void)state;
    rt_stats_init(&s, 2000);
    assert_true(s.prompt_len.bounds[s.prompt_len.n - 1] == 2000);
    rt_stats_init(&s, 1999);
    assert_true(s.prompt_len.bounds[s.prompt_len.n - 1] == 1000);
    rt_stats_init(&s, 1);
    assert_int_equal(s.prompt_len.n, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buckets),
        cmocka_unit_test(test_bounds_ascend),
        cmocka_unit_test(test_token_buckets_follow_the_context),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
