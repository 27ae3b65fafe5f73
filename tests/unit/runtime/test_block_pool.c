/* SPDX-License-Identifier: Apache-2.0 */
/* test_block_pool.c - ids are handed out once, counted, and come back. */
#include "tests/unit/base/base_testing.h"

#include "runtime/cache/block_pool.h"

static void test_every_id_once(void **state)
{
    rt_block_pool *p;
    bool seen[64] = {false};
    int32_t id = -1;

    (void)state;
    assert_int_equal(rt_block_pool_create(&p, 64), TP_OK);
    for (int i = 0; i < 64; i++) {
        assert_int_equal(rt_block_pool_take(p, &id), TP_OK);
        assert_in_range(id, 0, 63);
        assert_false(seen[id]);
        seen[id] = true;
    }
    assert_int_equal(rt_block_pool_free_count(p), 0);
    id = 77;
    assert_int_equal(rt_block_pool_take(p, &id), TP_ERR_FULL);
    assert_int_equal(id, 77);
    for (int32_t i = 0; i < 64; i++)
        rt_block_pool_unref(p, i);
    assert_int_equal(rt_block_pool_free_count(p), 64);
    assert_int_equal(rt_block_pool_total(p), 64);
    rt_block_pool_destroy(p);
}

static void test_shared_block_lives_until_the_last(void **state)
{
    rt_block_pool *p;
    int32_t a, b;

    (void)state;
    assert_int_equal(rt_block_pool_create(&p, 2), TP_OK);
    assert_int_equal(rt_block_pool_take(p, &a), TP_OK);
    rt_block_pool_ref(p, a);
    rt_block_pool_unref(p, a);
    assert_int_equal(rt_block_pool_free_count(p), 1);
    rt_block_pool_unref(p, a);
    assert_int_equal(rt_block_pool_free_count(p), 2);
    assert_int_equal(rt_block_pool_take(p, &b), TP_OK);
    assert_int_equal(b, a); /* the newest freed one is warm */
    rt_block_pool_destroy(p);
}

static int32_t take(rt_block_pool *p)
{
    int32_t id = -1;

    assert_int_equal(rt_block_pool_take(p, &id), TP_OK);
    rt_block_pool_check(p);
    return id;
}

static void test_idle_blocks_go_last_and_oldest_first(void **state)
{
    rt_block_pool *p;

    (void)state;
    assert_int_equal(rt_block_pool_create(&p, 4), TP_OK);
    for (int32_t i = 0; i < 3; i++)
        assert_int_equal(take(p), i);
    rt_block_pool_keep(p, 0);
    rt_block_pool_keep(p, 2);
    for (int32_t i = 2; i >= 0; i--)
        rt_block_pool_unref(p, i);
    rt_block_pool_check(p);
    assert_int_equal(rt_block_pool_free_count(p), 4);
    assert_true(rt_block_pool_is_idle(p, 0) && rt_block_pool_is_idle(p, 2));
    assert_false(rt_block_pool_is_idle(p, 1));
    assert_int_equal(take(p), 1);
    assert_int_equal(take(p), 3);
    assert_int_equal(take(p), 2); /* idle for longer than 0 */
    assert_false(rt_block_pool_is_kept(p, 2));
    rt_block_pool_unref(p, 2); /* like any other now */
    assert_false(rt_block_pool_is_idle(p, 2));
    assert_int_equal(take(p), 2);
    assert_int_equal(take(p), 0);
    assert_int_equal(rt_block_pool_free_count(p), 0);
    rt_block_pool_destroy(p);
}

static void test_idle_block_is_used_again(void **state)
{
    rt_block_pool *p;
    int32_t id;

    (void)state;
    assert_int_equal(rt_block_pool_create(&p, 3), TP_OK);
    for (int32_t i = 0; i < 3; i++) {
        (void)take(p);
        rt_block_pool_keep(p, i);
    }
    for (int32_t i = 0; i < 3; i++)
        rt_block_pool_unref(p, i);
    rt_block_pool_ref(p, 1); /* out of the middle of the list */
    rt_block_pool_ref(p, 1);
    rt_block_pool_check(p);
    assert_int_equal(rt_block_pool_free_count(p), 2);
    rt_block_pool_unref(p, 1);
    assert_false(rt_block_pool_is_idle(p, 1));
    rt_block_pool_unref(p, 1);
    assert_int_equal(take(p), 0);
    assert_int_equal(take(p), 2);
    assert_int_equal(take(p), 1); /* it was used last */
    assert_int_equal(rt_block_pool_take(p, &id), TP_ERR_FULL);
    rt_block_pool_destroy(p);
}

static void test_create_fails_cleanly(void **state)
{
    rt_block_pool *p = NULL;
    int failures;

    (void)state;
    assert_int_equal(rt_block_pool_create(&p, 0), TP_ERR_INVALID);
    assert_null(p);
    FAIL_EACH_ALLOCATION(failures, p != NULL, (void)!rt_block_pool_create(&p, 8));
    assert_int_equal(failures, 3);
    rt_block_pool_destroy(p);
    rt_block_pool_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_id_once),
        cmocka_unit_test(test_shared_block_lives_until_the_last),
        cmocka_unit_test(test_idle_blocks_go_last_and_oldest_first),
        cmocka_unit_test(test_idle_block_is_used_again),
        cmocka_unit_test(test_create_fails_cleanly),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
