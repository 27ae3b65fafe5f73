/* SPDX-License-Identifier: Apache-2.0 */
/* test_join.c - the list of additions is the tree, for every number of ranks and segments. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "comm/group.h"

/* Random bits as floats of many magnitudes: any other order of additions shows. */
static float value(int seg, int64_t i)
{
    uint32_t h = (uint32_t)seg * 2654435761u + (uint32_t)i * 40503u + 1;

    h = (h ^ h >> 15) * 0x85ebca6bu;
    h ^= h >> 13;
    return ((float)(h & 0xffff) - 32768.0f) * (h & 1 << 20 ? 1e-3f : 1.0f);
}

static float node_sum(int first, int len, int64_t i)
{
    return len == 1 ? value(first, i)
                    : node_sum(first, len / 2, i) + node_sum(first + len / 2, len / 2, i);
}

static void check(int n_seg, int n_ranks, int64_t n)
{
    comm_join j;
    float *mem, *out;
    const float *leaf[TP_SEG_MAX];
    int l = 0;

    comm_join_init(&j, n_seg, n_ranks);
    assert_in_range(j.n_leaf, n_ranks, n_seg);
    mem = tp_malloc((size_t)(j.n_leaf * n + 1) * sizeof *mem);
    out = tp_malloc((size_t)(n + 1) * sizeof *out);
    for (int r = 0; r < n_ranks; r++) {
        tp_seg_node roots[TP_SEG_ROOTS_MAX];
        int first, run, n_roots;

        tp_seg_run(n_seg, n_ranks, r, &first, &run);
        n_roots = tp_seg_roots(first, run, roots);
        assert_int_equal(j.first_leaf[r], l);
        assert_true(n_roots <= j.n_roots_max);
        for (int k = 0; k < n_roots; k++, l++) {
            float *at = mem + l * n;

            for (int64_t i = 0; i < n; i++)
                at[i] = node_sum(roots[k].first, roots[k].len, i);
            leaf[l] = at;
        }
    }
    assert_int_equal(j.n_leaf, l);
    out[n] = 7.0f;
    comm_join_run(&j, leaf, n, out);
    for (int64_t i = 0; i < n; i++) {
        float want = node_sum(0, n_seg, i);

        assert_memory_equal(&out[i], &want, sizeof want);
    }
    assert_true(out[n] == 7.0f);
    tp_free(mem);
    tp_free(out);
}

static void test_every_split(void **state)
{
    (void)state;
    for (int n_seg = 1; n_seg <= TP_SEG_MAX; n_seg *= 2) {
        for (int n_ranks = 1; n_ranks <= n_seg; n_ranks++)
            check(n_seg, n_ranks, 21);
    }
}

static void test_lengths(void **state)
{
    static const int64_t n[] = {0, 1, 15, 16, 17, 511, 512, 513, 1025, 5000};

    (void)state;
    for (size_t i = 0; i < TP_ARRAY_LEN(n); i++) {
        for (int n_ranks = 1; n_ranks <= 8; n_ranks++)
            check(8, n_ranks, n[i]);
    }
}

static void test_slices_tile(void **state)
{
    static const int64_t counts[] = {0, 1, 15, 16, 17, 100, 1000, 65537};

    (void)state;
    for (size_t c = 0; c < TP_ARRAY_LEN(counts); c++) {
        for (int size = 1; size <= 9; size++) {
            int64_t at = 0, lo, hi;

            for (int r = 0; r < size; r++) {
                comm_slice(counts[c], size, r, &lo, &hi);
                assert_int_equal(lo, at);
                assert_true(hi >= lo && (lo % 16 == 0 || lo == counts[c]));
                at = hi;
            }
            assert_int_equal(at, counts[c]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_split),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_slices_tile),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
