/* SPDX-License-Identifier: Apache-2.0 */
/* segtree.c - see segtree.h for the rule. */
#include "base/segtree.h"

int tp_seg_count(int n_ranks)
{
    int n = TP_SEG_DEFAULT;

    TP_ASSERT(n_ranks >= 1 && n_ranks <= TP_SEG_MAX);
    while (n < n_ranks)
        n *= 2;
    return n;
}

void tp_seg_run(int n_seg, int n_ranks, int rank, int *first, int *n)
{
    int each = n_seg / n_ranks, rest = n_seg % n_ranks;

    TP_ASSERT(rank >= 0 && rank < n_ranks && n_ranks <= n_seg);
    *first = rank * each + (rank < rest ? rank : rest);
    *n = each + (rank < rest ? 1 : 0);
}

void tp_seg_units(int64_t n_units, int n_seg, int seg, int64_t *begin, int64_t *end)
{
    int64_t lo = 0, hi = n_units;

    TP_ASSERT(n_units >= 0 && seg >= 0 && seg < n_seg && (n_seg & (n_seg - 1)) == 0);
    for (int half = n_seg / 2; half >= 1; half /= 2) {
        int64_t mid = lo + (hi - lo + 1) / 2;

        if ((seg & half) != 0)
            lo = mid;
        else
            hi = mid;
    }
    *begin = lo;
    *end = hi;
}

bool tp_seg_siblings(tp_seg_node a, tp_seg_node b, tp_seg_node *out)
{
    if (a.len != b.len || a.first + a.len != b.first || a.first % (2 * a.len) != 0)
        return false;
    out->first = a.first;
    out->len = (int16_t)(2 * a.len);
    return true;
}

int tp_seg_roots(int first, int n, tp_seg_node roots[TP_SEG_ROOTS_MAX])
{
    tp_seg_node stack[TP_SEG_ROOTS_MAX + 1];
    int depth = 0;

    for (int seg = first; seg < first + n; seg++) {
        TP_ASSERT(depth <= TP_SEG_ROOTS_MAX);
        stack[depth++] = (tp_seg_node){.first = (int16_t)seg, .len = 1};
        while (depth >= 2 && tp_seg_siblings(stack[depth - 2], stack[depth - 1], &stack[depth - 2]))
            depth--;
    }
    TP_ASSERT(depth <= TP_SEG_ROOTS_MAX);
    for (int i = 0; i < depth; i++)
        roots[i] = stack[i];
    return depth;
}
