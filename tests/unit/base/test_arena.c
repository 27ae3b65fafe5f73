/* SPDX-License-Identifier: Apache-2.0 */
/* test_arena.c - alignment, limits, and every allocation failing in turn. */
#include "tests/unit/base/base_testing.h"

#include <string.h>

#include "base/arena.h"

static void pieces_are_aligned_and_apart(void **state)
{
    unsigned char *pieces[200];
    tp_arena a;

    (void)state;
    tp_arena_init(&a, 0);
    for (size_t i = 0; i < 200; i++) {
        pieces[i] = tp_arena_alloc(&a, i * 37);
        assert_non_null(pieces[i]);
        assert_int_equal((uintptr_t)pieces[i] % 16, 0);
        memset(pieces[i], (int)i, i * 37);
    }
    for (size_t i = 0; i < 200; i++)
        for (size_t b = 0; b < i * 37; b++)
            assert_int_equal(pieces[i][b], i & 0xff);
    assert_true(a.used <= a.taken);
    tp_arena_release(&a);
    assert_int_equal(a.taken, 0);
    assert_non_null(tp_arena_alloc(&a, 1)); /* usable again */
    tp_arena_release(&a);
}

static void large_piece_keeps_room_of_the_newest_block(void **state)
{
    tp_arena a;
    char *small, *next;

    (void)state;
    tp_arena_init(&a, 0);
    small = tp_arena_alloc(&a, 16);
    assert_non_null(tp_arena_alloc(&a, (size_t)5 << 20));
    next = tp_arena_alloc(&a, 16);
    assert_ptr_equal(next, small + 16);
    tp_arena_release(&a);
}

static void limit_holds(void **state)
{
    tp_arena a;
    size_t n = 0;

    (void)state;
    tp_arena_init(&a, 10000);
    while (tp_arena_alloc(&a, 100) != NULL)
        n++;
    assert_true(n > 60); /* small remainders are used, too */
    assert_true(a.taken <= 10000);
    assert_null(tp_arena_alloc(&a, SIZE_MAX));
    assert_null(tp_arena_calloc(&a, SIZE_MAX / 2, 3));
    tp_arena_release(&a);
}

static void copies_end_with_nul(void **state)
{
    tp_arena a;
    const int *zeros;

    (void)state;
    tp_arena_init(&a, 0);
    assert_string_equal(tp_arena_strndup(&a, "hello", 3), "hel");
    assert_string_equal(tp_arena_strndup(&a, "hi", 30), "hi");
    zeros = tp_arena_calloc(&a, 100, sizeof *zeros);
    for (int i = 0; i < 100; i++)
        assert_int_equal(zeros[i], 0);
    tp_arena_release(&a);
}

static bool use_arena(void)
{
    tp_arena a;
    bool ok = true;

    tp_arena_init(&a, 0);
    for (size_t i = 0; i < 300; i++)
        ok = tp_arena_alloc(&a, i * 11) != NULL && ok;
    tp_arena_release(&a);
    return ok;
}

static void every_allocation_may_fail(void **state)
{
    bool ok = false;
    int n_failures;

    (void)state;
    FAIL_EACH_ALLOCATION(n_failures, ok, ok = use_arena());
    assert_true(ok);
    assert_true(n_failures > 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_are_aligned_and_apart),
        cmocka_unit_test(large_piece_keeps_room_of_the_newest_block),
        cmocka_unit_test(limit_holds),
        cmocka_unit_test(copies_end_with_nul),
        cmocka_unit_test(every_allocation_may_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
