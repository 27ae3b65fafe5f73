/* SPDX-License-Identifier: Apache-2.0 */
/* test_segtree.c - runs tile the segments, roots tile the runs, and joining roots gives the whole tree. */
#include "tests/unit/base/base_testing.h"

#include "base/segtree.h"

static void counts_are_powers_of_two(void **state)
{
    (void)state;
    assert_int_equal(tp_seg_count(1), 8);
    assert_int_equal(tp_seg_count(8), 8);
    assert_int_equal(tp_seg_count(9), 16);
    assert_int_equal(tp_seg_count(64), 64);
}

static void units_tile(void **state)
{
    static const int64_t UNITS[] = {0, 1, 3, 7, 8, 9, 28, 64, 1001};

    (void)state;
    for (size_t i = 0; i < TP_ARRAY_LEN(UNITS); i++) {
        int64_t at = 0, begin, end, min = INT64_MAX, max = 0;

        for (int seg = 0; seg < 8; seg++) {
            tp_seg_units(UNITS[i], 8, seg, &begin, &end);
            assert_int_equal(begin, at);
            assert_true(end >= begin);
            min = end - begin < min ? end - begin : min;
            max = end - begin > max ? end - begin : max;
            at = end;
        }
        assert_int_equal(at, UNITS[i]);
        assert_true(max - min <= 1);
    }
}

/* Pushes every rank's roots through the stack machine; the whole tree must be left. */
static void join_all(int n_ranks)
{
    tp_seg_node stack[TP_SEG_MAX];
    int n_seg = tp_seg_count(n_ranks), top = 0, at = 0;

    for (int rank = 0; rank < n_ranks; rank++) {
        tp_seg_node roots[TP_SEG_ROOTS_MAX];
        int first, n, n_roots;

        tp_seg_run(n_seg, n_ranks, rank, &first, &n);
        assert_int_equal(first, at);
        assert_true(n >= 1);
        at += n;
        n_roots = tp_seg_roots(first, n, roots);
        assert_true(n_roots >= 1 && n_roots <= TP_SEG_ROOTS_MAX);
        for (int i = 0; i < n_roots; i++) {
            tp_seg_node joined;

            assert_int_equal(roots[i].first, first);
            first += roots[i].len;
            stack[top++] = roots[i];
            while (top >= 2 && tp_seg_siblings(stack[top - 2], stack[top - 1], &joined))
                stack[--top - 1] = joined;
        }
        assert_int_equal(first, at);
    }
    assert_int_equal(at, n_seg);
    assert_int_equal(top, 1);
    assert_int_equal(stack[0].len, n_seg);
}

static void roots_join_to_the_whole(void **state)
{
    (void)state;
    for (int n_ranks = 1; n_ranks <= TP_SEG_MAX; n_ranks++)
        join_all(n_ranks);
}

static void example_of_the_header(void **state)
{
    tp_seg_node roots[TP_SEG_ROOTS_MAX];

    (void)state;
    assert_int_equal(tp_seg_roots(0, 3, roots), 2);
    assert_int_equal(roots[0].len, 2);
    assert_int_equal(roots[1].first, 2);
    assert_int_equal(tp_seg_roots(3, 3, roots), 2);
    assert_int_equal(roots[0].len, 1);
    assert_int_equal(roots[1].first, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_are_powers_of_two),
        cmocka_unit_test(units_tile),
        cmocka_unit_test(roots_join_to_the_whole),
        cmocka_unit_test(example_of_the_header),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
