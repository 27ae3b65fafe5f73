/* SPDX-License-Identifier: Apache-2.0 */
/* gemm_plan.h - how one matrix product walks along k.
 *
 * k is cut into chunks.  A chunk lies in one segment (the whole of k where there is no split) and is the rest of it,
 * or is short enough that a group of chunks of one panel stays in a cache while all rows pass: in L1 for two or three
 * tiles of rows, because lines that are on their way from memory and misses of L1 compete for the same buffers of
 * the core (at M = 16 this is worth 1.3 to 1.5 times), and in L2 for more, where there is time enough.
 *
 * Partial sums live in a stack of slots; the last chunk of a segment says how many joins follow (base/segtree.h), so
 * that after the last chunk slot i holds root i.
 *
 * Plain data on the caller's stack: nothing is allocated.
 */
#ifndef KERN_CPU_GEMM_PLAN_H
#define KERN_CPU_GEMM_PLAN_H

#include "kernels/cpu/gemm_internal.h"

#define GEMM_CHUNKS_MAX   (TP_SEG_MAX + GEMM_K_MAX / GEMM_REPAIR_K)
#define GEMM_SLOTS_MAX    (TP_SEG_ROOTS_MAX + 1) /* the roots and the segment on top */
#define GEMM_BLOCK_L1     (28 * 1024)  /* of one panel, to stay in L1 while a few tiles pass */
#define GEMM_BLOCK_L2     (256 * 1024) /* and in L2 while many do */
#define GEMM_REPAIR_K     512          /* longest chunk whose pairs are made anew */
#define GEMM_A_TILE_K     32           /* columns of an activation tile in tile order */
#define GEMM_A_TILE_ROWS  16
#define GEMM_A_TILE_BYTES 1024

typedef struct gemm_chunk {
    int64_t k0, k; /* columns [k0, k0 + k) */
    size_t a_off;  /* where its activations start in a row: bytes */
    int slot;
    int joins;
    bool resume;
    bool repair; /* BF16 and k0 is odd: the pairs of the panel straddle this chunk's */
} gemm_chunk;

typedef struct gemm_plan {
    int n_chunks, n_groups, n_slots, n_roots;
    int64_t k_tiles;                /* activation tiles of a row, over all chunks */
    int group_end[GEMM_CHUNKS_MAX]; /* chunk after the last of each group */
    gemm_chunk chunks[GEMM_CHUNKS_MAX];
} gemm_plan;

void kern_cpu_gemm_plan(gemm_plan *p, const kern_gemm_args *a, const gemm_kernels *kn);
/* Bytes of the activations of m rows in tile order, at most. */
size_t kern_cpu_gemm_packed_bytes(int64_t m, int64_t k);
/* Copies rows [16 * row_tile, + 16) of the activations into tile order; rows and columns that are missing become
 * zeros. */
void kern_cpu_gemm_pack_rows(uint8_t *packed, const gemm_plan *p, const kern_gemm_args *a,
                             int64_t row_tile);
/* The chunk's pairs [ceil(k/2)][64][2], made anew from a panel whose pairs lie one k earlier; up to 15 pairs of zeros
 * follow. */
void kern_cpu_gemm_repair(uint8_t *out, const uint8_t *panel, const gemm_chunk *c);

#endif
