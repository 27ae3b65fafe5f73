/* SPDX-License-Identifier: Apache-2.0 */
/* segtree.h - the fixed order in which a sum over K is made, whatever the number of ranks.
 *
 * The K range of a row-parallel matrix is cut into n_seg segments (8; more only beyond 8 ranks) by recursive
 * halving of its units (heads, groups of intermediate columns), the left half taking the odd one.  Each segment is
 * summed in FP32 in one order; segments are joined pairwise in a complete binary tree, left + right.  A rank owns a
 * contiguous run of whole segments, computes the roots of the largest subtrees inside its run, and sends those; who
 * has all roots, left to right, finishes the same tree.  So the result has the same bits at every number of ranks.
 *
 * Example, 8 segments on 3 ranks: runs {0,1,2} {3,4,5} {6,7}; roots (0-1)(2) | (3)(4-5) | (6-7).
 *
 * The join rule is a stack machine: push a node; while the two nodes on top are siblings, replace them by
 * left + right.  Both the kernel (inside a rank) and comm (across ranks) run it.
 */
#ifndef TP_SEGTREE_H
#define TP_SEGTREE_H

#include <stdint.h>

#include "base/status.h"

#define TP_SEG_DEFAULT   8  /* segments at up to 8 ranks */
#define TP_SEG_MAX       64 /* and so the largest number of ranks */
#define TP_SEG_ROOTS_MAX 12 /* roots inside one run: at most 2 * log2(TP_SEG_MAX) */

typedef struct tp_seg_node {
    int16_t first,
        len; /* segments [first, first + len); len is a power of two, first a multiple of len */
} tp_seg_node;

/* Number of segments for this many ranks: 8, or the next power of two. */
int tp_seg_count(int n_ranks);
/* The run of segments that a rank owns: as equal as possible, the first ranks taking the odd ones. */
void tp_seg_run(int n_seg, int n_ranks, int rank, int *first, int *n);
/* Units [*begin, *end) of segment `seg` when `n_units` units are halved recursively over n_seg segments.  May be
 * empty when there are fewer units than segments. */
void tp_seg_units(int64_t n_units, int n_seg, int seg, int64_t *begin, int64_t *end);
/* True when a (left) and b (right) join to one node; *out is that node. */
bool tp_seg_siblings(tp_seg_node a, tp_seg_node b, tp_seg_node *out);
/* Roots of the run [first, first + n), left to right; returns their number (<= TP_SEG_ROOTS_MAX). */
int tp_seg_roots(int first, int n, tp_seg_node roots[TP_SEG_ROOTS_MAX]);

#endif
