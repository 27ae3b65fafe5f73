/* SPDX-License-Identifier: Apache-2.0 */
/* test_segtree.c - the order of sums: runs tile, units tile, roots are the largest subtrees, halves join. */
#include "tests/unit/base/base_testing.h"

#include "base/segtree.h"

static void test_count(void **state)
{
    (void)state;
    for (int n = 1; n <= 8; n++)
        assert_int_equal(tp_seg_count(n), 8);
    assert_int_equal(tp_seg_count(9), 16);
    assert_int_equal(tp_seg_count(16), 16);
    assert_int_equal(tp_seg_count(17), 32);
    assert_int_equal(tp_seg_count(33), 64);
    assert_int_equal(tp_seg_count(64), 64);
}

static void test_runs_tile(void **state)
{
    (void)state;
    for (int n_seg = 8; n_seg <= TP_SEG_MAX; n_seg *= 2) {
        for (int n_ranks = 1; n_ranks <= n_seg; n_ranks++) {
            int at = 0, most = 0, least = n_seg, before = n_seg;

            for (int r = 0; r < n_ranks; r++) {
                int first = -1, n = -1;

                tp_seg_run(n_seg, n_ranks, r, &first, &n);
                assert_int_equal(first, at);
                assert_true(n >= 1 && n <= before); /* the first ranks take the odd ones */
                at += n;
                before = n;
                most = n > most ? n : most;
                least = n < least ? n : least;
            }
            assert_int_equal(at, n_seg);
            assert_true(most - least <= 1);
        }
    }
}

/* The documented example: 8 segments on 3 ranks. */
static void test_example(void **state)
{
    static const int runs[3][2] = {{0, 3}, {3, 3}, {6, 2}};
    static const tp_seg_node want[3][2] = {{{0, 2}, {2, 1}}, {{3, 1}, {4, 2}}, {{6, 2}, {0, 0}}};

    (void)state;
    for (int r = 0; r < 3; r++) {
        tp_seg_node roots[TP_SEG_ROOTS_MAX];
        int first, n, n_roots;

        tp_seg_run(8, 3, r, &first, &n);
        assert_int_equal(first, runs[r][0]);
        assert_int_equal(n, runs[r][1]);
        n_roots = tp_seg_roots(first, n, roots);
        assert_int_equal(n_roots, r == 2 ? 1 : 2);
        for (int i = 0; i < n_roots; i++) {
            assert_int_equal(roots[i].first, want[r][i].first);
            assert_int_equal(roots[i].len, want[r][i].len);
        }
    }
}

/* Recursive halving by hand: left half first, the left half takes the odd unit. */
static void halve(int64_t lo, int64_t hi, int first, int n, int64_t *begin, int64_t *end)
{
    int64_t mid = lo + (hi - lo + 1) / 2;

    if (n == 1) {
        begin[first] = lo;
        end[first] = hi;
        return;
    }
    halve(lo, mid, first, n / 2, begin, end);
    halve(mid, hi, first + n / 2, n / 2, begin, end);
}

static void test_units(void **state)
{
    static const int64_t units[] = {0, 1, 2, 3, 7, 8, 9, 28, 64, 100, 231, 29568, 1000003};

    (void)state;
    for (int n_seg = 8; n_seg <= TP_SEG_MAX; n_seg *= 2) {
        for (size_t u = 0; u < TP_ARRAY_LEN(units); u++) {
            int64_t begin[TP_SEG_MAX], end[TP_SEG_MAX], at = 0, least = INT64_MAX, most = 0;

            halve(0, units[u], 0, n_seg, begin, end);
            for (int s = 0; s < n_seg; s++) {
                int64_t lo = -1, hi = -1;

                tp_seg_units(units[u], n_seg, s, &lo, &hi);
                assert_int_equal(lo, begin[s]);
                assert_int_equal(hi, end[s]);
                assert_int_equal(lo, at);
                at = hi;
                least = hi - lo < least ? hi - lo : least;
                most = hi - lo > most ? hi - lo : most;
            }
            assert_int_equal(at, units[u]);
            assert_true(most - least <= 1);
        }
    }
}

/* Halving is by the top levels first, so a segment at n_seg = 8 is exactly two at 16: the tree only grows leaves. */
static void test_units_nest(void **state)
{
    (void)state;
    for (int64_t n = 0; n < 300; n++) {
        for (int s = 0; s < 8; s++) {
            int64_t lo, mid, mid2, hi, begin, end;

            tp_seg_units(n, 8, s, &begin, &end);
            tp_seg_units(n, 16, 2 * s, &lo, &mid);
            tp_seg_units(n, 16, 2 * s + 1, &mid2, &hi);
            assert_true(lo == begin && hi == end && mid == mid2);
        }
    }
}

static void test_siblings(void **state)
{
    tp_seg_node out = {-1, -1};

    (void)state;
    assert_true(tp_seg_siblings((tp_seg_node){0, 1}, (tp_seg_node){1, 1}, &out));
    assert_true(out.first == 0 && out.len == 2);
    assert_true(tp_seg_siblings((tp_seg_node){4, 2}, (tp_seg_node){6, 2}, &out));
    assert_true(out.first == 4 && out.len == 4);
    out = (tp_seg_node){-1, -1};
    assert_false(tp_seg_siblings((tp_seg_node){1, 1}, (tp_seg_node){2, 1}, &out)); /* cousins */
    assert_false(tp_seg_siblings((tp_seg_node){2, 2}, (tp_seg_node){4, 2}, &out));
    assert_false(tp_seg_siblings((tp_seg_node){0, 2}, (tp_seg_node){2, 1}, &out)); /* two sizes */
    assert_false(tp_seg_siblings((tp_seg_node){0, 1}, (tp_seg_node){2, 1}, &out)); /* a gap */
    assert_false(tp_seg_siblings((tp_seg_node){1, 1}, (tp_seg_node){0, 1}, &out)); /* right, left */
    assert_true(out.first == -1 && out.len == -1);
}

/* Roots cover the run, are aligned, few, and no two neighbours could still be joined. */
static void check_roots(int first, int n)
{
    tp_seg_node roots[TP_SEG_ROOTS_MAX], joined;
    int n_roots = tp_seg_roots(first, n, roots), at = first;

    assert_in_range(n_roots, 1, TP_SEG_ROOTS_MAX);
    for (int i = 0; i < n_roots; i++) {
        assert_int_equal(roots[i].first, at);
        assert_true(roots[i].len > 0 && (roots[i].len & (roots[i].len - 1)) == 0);
        assert_int_equal(roots[i].first % roots[i].len, 0);
        at += roots[i].len;
        if (i > 0)
            assert_false(tp_seg_siblings(roots[i - 1], roots[i], &joined));
    }
    assert_int_equal(at, first + n);
}

static void test_roots(void **state)
{
    tp_seg_node roots[TP_SEG_ROOTS_MAX];

    (void)state;
    for (int first = 0; first < TP_SEG_MAX; first++) {
        for (int n = 1; first + n <= TP_SEG_MAX; n++)
            check_roots(first, n);
    }
    assert_int_equal(tp_seg_roots(0, 8, roots), 1);
    assert_int_equal(tp_seg_roots(1, 62, roots), 10); /* the worst run: 1 2 4 8 16 | 16 8 4 2 1 */
    assert_int_equal(tp_seg_roots(3, 0, roots), 0);
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

static void test_roots_join_to_the_whole(void **state)
{
    (void)state;
    for (int n_ranks = 1; n_ranks <= TP_SEG_MAX; n_ranks++)
        join_all(n_ranks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_count),      cmocka_unit_test(test_runs_tile),
        cmocka_unit_test(test_example),    cmocka_unit_test(test_units),
        cmocka_unit_test(test_units_nest), cmocka_unit_test(test_siblings),
        cmocka_unit_test(test_roots),      cmocka_unit_test(test_roots_join_to_the_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
