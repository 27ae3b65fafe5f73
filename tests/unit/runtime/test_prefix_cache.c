/* SPDX-License-Identifier: Apache-2.0 */
/* test_prefix_cache.c - names that depend on all they should, and a table that finds what was entered. */
#include "tests/unit/base/base_testing.h"

#include <string.h>

#include "base/hash.h"
#include "runtime/cache/prefix_cache.h"

#define BLOCK  16
#define BLOCKS 100

static bool same(rt_block_name a, rt_block_name b)
{
    return memcmp(&a, &b, sizeof a) == 0;
}

static void fill(int32_t tokens[BLOCK], int32_t first)
{
    for (int32_t i = 0; i < BLOCK; i++)
        tokens[i] = first + i;
}

static void test_names(void **state)
{
    rt_block_namer n, other;
    int32_t a[BLOCK], b[BLOCK];
    rt_block_name root, salted, first, second;

    (void)state;
    rt_block_namer_init(&n, BLOCK);
    rt_block_namer_init(&other, BLOCK);
    fill(a, 0);
    fill(b, 1000);
    root = rt_block_namer_root(&n, "salt", 4);
    salted = rt_block_namer_root(&n, "Salt", 4);
    first = rt_block_namer_next(&n, &root, a);
    second = rt_block_namer_next(&n, &first, b);
    assert_true(same(first, rt_block_namer_next(&n, &root, a)));
    assert_false(same(root, salted));
    assert_false(same(first, rt_block_namer_next(&n, &salted, a)));
    assert_false(same(first, rt_block_namer_next(&n, &root, b)));
    assert_false(same(second, rt_block_namer_next(&n, &root, b))); /* the tokens before count */
    assert_false(same(root, rt_block_namer_root(&other, "salt", 4)));
    assert_false(same(first, rt_block_namer_next(&other, &root, a)));
    for (int i = 0; i < BLOCK; i++) {
        a[i]++;
        assert_false(same(first, rt_block_namer_next(&n, &root, a)));
        a[i]--;
    }
}

static void test_find_add_forget(void **state)
{
    rt_block_name name[BLOCKS];
    rt_prefix_cache *c;
    rt_block_namer n;
    int32_t tokens[BLOCK];

    (void)state;
    rt_block_namer_init(&n, BLOCK);
    assert_int_equal(rt_prefix_cache_create(&c, BLOCKS), TP_OK);
    name[0] = rt_block_namer_root(&n, NULL, 0);
    for (int32_t i = 0; i < BLOCKS; i++) {
        fill(tokens, i);
        name[i] = rt_block_namer_next(&n, &name[i > 0 ? i - 1 : 0], tokens);
        assert_int_equal(rt_prefix_cache_find(c, &name[i]), -1);
        assert_true(rt_prefix_cache_add(c, &name[i], BLOCKS - 1 - i));
    }
    rt_prefix_cache_check(c);
    assert_int_equal(rt_prefix_cache_count(c), BLOCKS);
    for (int32_t i = 0; i < BLOCKS; i += 2)
        rt_prefix_cache_forget(c, i);
    rt_prefix_cache_forget(c, 0); /* has no name any more */
    rt_prefix_cache_check(c);
    assert_int_equal(rt_prefix_cache_count(c), BLOCKS / 2);
    for (int32_t id = 0; id < BLOCKS; id++) {
        assert_int_equal(rt_prefix_cache_holds(c, id), id % 2 == 1);
        assert_int_equal(rt_prefix_cache_find(c, &name[BLOCKS - 1 - id]), id % 2 == 1 ? id : -1);
    }
    rt_prefix_cache_destroy(c);
}

static void test_first_block_of_a_name_stays(void **state)
{
    rt_prefix_cache *c;
    rt_block_namer n;
    rt_block_name name;

    (void)state;
    rt_block_namer_init(&n, BLOCK);
    name = rt_block_namer_root(&n, "x", 1);
    assert_int_equal(rt_prefix_cache_create(&c, 4), TP_OK);
    assert_true(rt_prefix_cache_add(c, &name, 3));
    assert_false(rt_prefix_cache_add(c, &name, 3));
    assert_false(rt_prefix_cache_add(c, &name, 1));
    assert_int_equal(rt_prefix_cache_find(c, &name), 3);
    assert_false(rt_prefix_cache_holds(c, 1));
    rt_prefix_cache_forget(c, 3);
    assert_true(rt_prefix_cache_add(c, &name, 1));
    rt_prefix_cache_destroy(c);
}

static void test_create_fails_cleanly(void **state)
{
    rt_prefix_cache *c = NULL;
    int failures;

    (void)state;
    FAIL_EACH_ALLOCATION(failures, c != NULL, (void)!rt_prefix_cache_create(&c, 8));
    assert_int_equal(failures, 3);
    rt_prefix_cache_destroy(c);
    rt_prefix_cache_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_find_add_forget),
        cmocka_unit_test(test_first_block_of_a_name_stays),
        cmocka_unit_test(test_create_fails_cleanly),
    };

    return tp_hash_init() == TP_OK ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
