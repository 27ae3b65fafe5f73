/* SPDX-License-Identifier: Apache-2.0 */
/* join.h - the segment tree over all ranks' roots, as a fixed list of additions.
 *
 * base/segtree.h defines the order; who owns which segments follows from n_seg and the number of ranks.  Both are
 * fixed for a group, so the stack machine runs once, over operand names instead of numbers, and leaves n_leaf - 1
 * steps dst = a + b.  A leaf is one root of one rank; leaves stand in rank order, a rank's roots left to right.
 *
 * Example, 8 segments on 3 ranks: leaves L0..L4 = (0-1)(2) | (3)(4-5) | (6-7); steps
 *   T0 = L1 + L2,  T0 = L0 + T0,  T1 = L3 + L4,  out = T0 + T1.
 */
#ifndef COMM_JOIN_H
#define COMM_JOIN_H

#include "base/segtree.h"

#define COMM_JOIN_TEMPS 8 /* subtrees open at once: log2(TP_SEG_MAX) + 1 at most */

typedef struct comm_join_step {
    int8_t a, b; /* operand: leaf index, or -1 - temp */
    int8_t dst;  /* temp */
} comm_join_step;

typedef struct comm_join {
    int n_seg, n_ranks, n_leaf;
    int first_leaf[TP_SEG_MAX + 1];  /* of each rank; [n_ranks] = n_leaf */
    int n_roots_max;                 /* of any rank */
    comm_join_step step[TP_SEG_MAX]; /* n_leaf - 1 of them; the last one writes the result */
    bool wide;                       /* this CPU has AVX2 */
    bool pairs;                      /* 4 leaves joined as (0 + 1) + (2 + 3) */
} comm_join;

/* n_seg is a power of two, n_ranks <= n_seg <= TP_SEG_MAX. */
void comm_join_init(comm_join *j, int n_seg, int n_ranks);
/* One leaf per rank, summed in the order of ranks: ((L0 + L1) + L2) + ..., as devices do (comm/device.h). */
void comm_join_init_ranks(comm_join *j, int n_ranks);

/* out[i] = the tree over leaf[0][i], leaf[1][i], ... for i in [0, n).  out overlaps no leaf. */
void comm_join_run(const comm_join *j, const float *const *leaf, int64_t n, float *out);

#endif
