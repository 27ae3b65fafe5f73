/* SPDX-License-Identifier: Apache-2.0 */
/* join.c - see join.h.
 *
 * Elements are taken in blocks so that the open subtrees (temps) stay in the first-level cache; the usual shapes,
 * two leaves and four, need no temps and have loops of their own.  All loops add the same operands in the same
 * order, so which loop runs does not show in the bits; nor does the vector width, as there is nothing but addition.
 * The inner loops have 16 iterations for the compiler to turn into vectors.
 */
#include "comm/join.h"

#include <string.h>

#define BLOCK 512 /* floats; COMM_JOIN_TEMPS blocks are 16 KiB */
#define LANES 16

/* ---- loops over vectors ---- */

#if defined(__x86_64__)
#    define WIDE __attribute__((target("avx2")))
#else
#    define WIDE
#endif
#define BODY static inline __attribute__((always_inline)) void

typedef void add_fn(const float *a, const float *b, int64_t n, float *out);
typedef void add_pairs_fn(const float *const *leaf, int64_t n, float *out);

BODY add_body(const float *restrict a, const float *restrict b, int64_t n, float *restrict out)
{
    int64_t i = 0;

    for (; i + LANES <= n; i += LANES) {
        for (int l = 0; l < LANES; l++)
            out[i + l] = a[i + l] + b[i + l];
    }
    for (; i < n; i++)
        out[i] = a[i] + b[i];
}

/* (leaf 0 + leaf 1) + (leaf 2 + leaf 3) */
BODY add_pairs_body(const float *const *leaf, int64_t n, float *restrict out)
{
    const float *restrict a = leaf[0], *restrict b = leaf[1];
    const float *restrict c = leaf[2], *restrict d = leaf[3];
    int64_t i = 0;

    for (; i + LANES <= n; i += LANES) {
        for (int l = 0; l < LANES; l++)
            out[i + l] = (a[i + l] + b[i + l]) + (c[i + l] + d[i + l]);
    }
    for (; i < n; i++)
        out[i] = (a[i] + b[i]) + (c[i] + d[i]);
}

static void add(const float *a, const float *b, int64_t n, float *out)
{
    add_body(a, b, n, out);
}

WIDE static void add_wide(const float *a, const float *b, int64_t n, float *out)
{
    add_body(a, b, n, out);
}

static void add_pairs(const float *const *leaf, int64_t n, float *out)
{
    add_pairs_body(leaf, n, out);
}

WIDE static void add_pairs_wide(const float *const *leaf, int64_t n, float *out)
{
    add_pairs_body(leaf, n, out);
}

static bool cpu_is_wide(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx2") != 0;
#else
    return false;
#endif
}

/* ---- the list of steps ---- */

typedef struct name_node {
    tp_seg_node node;
    int8_t operand;
} name_node;

static int8_t free_temp(const name_node *stack, int depth)
{
    for (int8_t t = 0; t < COMM_JOIN_TEMPS; t++) {
        bool used = false;

        for (int i = 0; i < depth; i++)
            used = used || stack[i].operand == -1 - t;
        if (!used)
            return t;
    }
    TP_ASSERT(!"the segment tree is deeper than COMM_JOIN_TEMPS");
    return 0;
}

void comm_join_init(comm_join *j, int n_seg, int n_ranks)
{
    name_node stack[2 * COMM_JOIN_TEMPS];
    int depth = 0, n_step = 0;

    TP_ASSERT(n_seg >= 1 && n_seg <= TP_SEG_MAX && (n_seg & (n_seg - 1)) == 0);
    TP_ASSERT(n_ranks >= 1 && n_ranks <= n_seg);
    *j = (comm_join){.n_seg = n_seg, .n_ranks = n_ranks, .wide = cpu_is_wide()};
    for (int r = 0; r < n_ranks; r++) {
        tp_seg_node roots[TP_SEG_ROOTS_MAX];
        int first, n, n_roots;

        tp_seg_run(n_seg, n_ranks, r, &first, &n);
        n_roots = tp_seg_roots(first, n, roots);
        j->first_leaf[r] = j->n_leaf;
        if (n_roots > j->n_roots_max)
            j->n_roots_max = n_roots;
        for (int i = 0; i < n_roots; i++) {
            tp_seg_node joined;

            TP_ASSERT(depth < (int)TP_ARRAY_LEN(stack));
            stack[depth++] = (name_node){roots[i], (int8_t)j->n_leaf++};
            while (depth >= 2 &&
                   tp_seg_siblings(stack[depth - 2].node, stack[depth - 1].node, &joined)) {
                comm_join_step *s = &j->step[n_step++];

                s->a = stack[depth - 2].operand;
                s->b = stack[depth - 1].operand;
                depth -= 2;
                s->dst = free_temp(stack, depth);
                stack[depth++] = (name_node){joined, (int8_t)(-1 - s->dst)};
            }
        }
    }
    j->first_leaf[n_ranks] = j->n_leaf;
    TP_ASSERT(depth == 1 && n_step == j->n_leaf - 1);
    j->pairs = j->n_leaf == 4 && j->step[0].b == 1 && j->step[1].a == 2 && j->step[1].b == 3;
}

void comm_join_init_ranks(comm_join *j, int n_ranks)
{
    TP_ASSERT(n_ranks >= 1 && n_ranks <= TP_SEG_MAX);
    *j = (comm_join){.n_seg = n_ranks,
                     .n_ranks = n_ranks,
                     .n_leaf = n_ranks,
                     .n_roots_max = 1,
                     .wide = cpu_is_wide()};
    for (int r = 0; r <= n_ranks; r++)
        j->first_leaf[r] = r;
    for (int s = 0; s < n_ranks - 1; s++)
        j->step[s] = (comm_join_step){.a = (int8_t)(s == 0 ? 0 : -1), .b = (int8_t)(s + 1)};
}

/* ---- running it ---- */

/* One block: at most BLOCK elements from `at` on.  A step may write the temp that it reads; its result goes to the
 * spare row, which then changes places with the temp's, so that no loop's output overlaps its input. */
static void run_block(const comm_join *j, const float *const *leaf, int64_t at, int64_t n,
                      float *out)
{
    _Alignas(64) float rows[COMM_JOIN_TEMPS + 1][BLOCK];
    add_fn *sum = j->wide ? add_wide : add;
    int8_t row[COMM_JOIN_TEMPS]; /* of each temp */
    int8_t spare = COMM_JOIN_TEMPS;
    int n_step = j->n_leaf - 1;

    for (int8_t t = 0; t < COMM_JOIN_TEMPS; t++)
        row[t] = t;
    for (int s = 0; s < n_step; s++) {
        const comm_join_step *st = &j->step[s];
        const float *a = st->a >= 0 ? leaf[st->a] + at : rows[row[-1 - st->a]];
        const float *b = st->b >= 0 ? leaf[st->b] + at : rows[row[-1 - st->b]];

        if (s == n_step - 1) {
            sum(a, b, n, out + at);
        } else {
            int8_t old = row[st->dst];

            sum(a, b, n, rows[spare]);
            row[st->dst] = spare;
            spare = old;
        }
    }
}

void comm_join_run(const comm_join *j, const float *const *leaf, int64_t n, float *out)
{
    add_pairs_fn *sum_pairs = j->wide ? add_pairs_wide : add_pairs;

    if (n <= 0)
        return;
    if (j->n_leaf == 1) {
        memcpy(out, leaf[0], (size_t)n * sizeof *out);
    } else if (j->n_leaf == 2) {
        (j->wide ? add_wide : add)(leaf[0], leaf[1], n, out);
    } else if (j->pairs) {
        sum_pairs(leaf, n, out);
    } else {
        for (int64_t at = 0; at < n; at += BLOCK)
            run_block(j, leaf, at, n - at < BLOCK ? n - at : BLOCK, out);
    }
}
