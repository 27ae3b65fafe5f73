/* SPDX-License-Identifier: Apache-2.0 */
/* gemm_plan.c - see gemm_plan.h. */
#include "kernels/cpu/gemm_plan.h"

#include <string.h>

/* Chunks that are as long as they may be, at most; each segment may end with a shorter one. */
#define LONG_CHUNKS (GEMM_CHUNKS_MAX - TP_SEG_MAX)

static int64_t round_up(int64_t x, int64_t to)
{
    return (x + to - 1) / to * to;
}

/* Appends segment [k0, k1) in pieces of at most k_max, as equal as k_step allows; an empty one is one empty piece. */
static void add_segment(gemm_plan *p, int64_t k0, int64_t k1, int64_t k_max, int k_step)
{
    int64_t n = (k1 - k0 + k_max - 1) / k_max;
    int64_t piece = round_up((k1 - k0 + (n > 0 ? n : 1) - 1) / (n > 0 ? n : 1), k_step);
    int64_t k = k0;

    do {
        int64_t len = k1 - k < piece ? k1 - k : piece;

        TP_ASSERT(p->n_chunks < GEMM_CHUNKS_MAX);
        p->chunks[p->n_chunks++] = (gemm_chunk){.k0 = k, .k = len, .resume = k > k0};
        k += len;
    } while (k < k1);
}

static void group_chunks(gemm_plan *p, int64_t k_max)
{
    int64_t sum = 0;

    p->n_groups = 0;
    for (int c = 0; c < p->n_chunks; c++) {
        if (sum > 0 && sum + p->chunks[c].k > k_max) {
            p->group_end[p->n_groups++] = c;
            sum = 0;
        }
        sum += p->chunks[c].k;
    }
    if (p->n_chunks > 0)
        p->group_end[p->n_groups++] = p->n_chunks;
}

static void place_activations(gemm_plan *p, kern_dtype w_dtype, bool packed)
{
    size_t a_bytes = kern_dtype_bytes(gemm_act_dtype(w_dtype));

    p->k_tiles = 0;
    for (int c = 0; c < p->n_chunks; c++) {
        gemm_chunk *ch = &p->chunks[c];

        ch->repair = w_dtype == KERN_DTYPE_BF16 && ch->k0 % 2 != 0 && ch->k > 0;
        ch->a_off = packed ? (size_t)p->k_tiles * GEMM_A_TILE_BYTES : (size_t)ch->k0 * a_bytes;
        p->k_tiles += (ch->k + GEMM_A_TILE_K - 1) / GEMM_A_TILE_K;
    }
}

/* Longest chunk, by how many tiles of rows will pass over it. */
static int64_t chunk_max(const kern_gemm_args *a, const gemm_kernels *kn)
{
    kern_dtype t = a->w->desc.dtype;
    int64_t tiles = (a->m + kn->mr - 1) / kn->mr;
    int64_t bytes = tiles <= 3 ? GEMM_BLOCK_L1 : GEMM_BLOCK_L2;
    int64_t k = bytes / (int64_t)gemm_line_bytes(t) * gemm_line_k(t), least;

    if (tiles == 1) /* nothing is used twice */
        return GEMM_K_MAX;
    least = (a->w->desc.k + LONG_CHUNKS - 1) / LONG_CHUNKS;
    return round_up(k > least ? k : least, kn->k_step);
}

void kern_cpu_gemm_plan(gemm_plan *p, const kern_gemm_args *a, const gemm_kernels *kn)
{
    const kern_weight_desc *d = &a->w->desc;
    int64_t k_max = chunk_max(a, kn);
    kern_ksplit whole = {.seg_first = 0, .n_seg = 1};
    const kern_ksplit *s = a->split != NULL ? a->split : &whole;
    tp_seg_node stack[GEMM_SLOTS_MAX];
    int64_t k0 = 0;
    int depth = 0;

    p->n_chunks = p->n_slots = 0;
    for (int i = 0; i < s->n_seg; i++) {
        int64_t k1 = a->split != NULL ? s->k_end[i] : d->k;
        bool repair = d->dtype == KERN_DTYPE_BF16 && k0 % 2 != 0;
        int first = p->n_chunks, slot = depth;

        TP_ASSERT(depth < GEMM_SLOTS_MAX);
        add_segment(p, k0, k1, repair && k_max > GEMM_REPAIR_K ? GEMM_REPAIR_K : k_max, kn->k_step);
        stack[depth++] = (tp_seg_node){.first = (int16_t)(s->seg_first + i), .len = 1};
        p->n_slots = depth > p->n_slots ? depth : p->n_slots;
        while (depth >= 2 && tp_seg_siblings(stack[depth - 2], stack[depth - 1], &stack[depth - 2]))
            depth--;
        for (int c = first; c < p->n_chunks; c++)
            p->chunks[c].slot = slot;
        p->chunks[p->n_chunks - 1].joins = slot + 1 - depth;
        k0 = k1;
    }
    p->n_roots = depth;
    group_chunks(p, k_max);
    place_activations(p, d->dtype, kn->pack_a);
}

size_t kern_cpu_gemm_packed_bytes(int64_t m, int64_t k)
{
    int64_t row_tiles = (m + GEMM_A_TILE_ROWS - 1) / GEMM_A_TILE_ROWS;
    int64_t k_tiles = k / GEMM_A_TILE_K + TP_SEG_MAX; /* each segment may end with part of one */

    return (size_t)(row_tiles * k_tiles) * GEMM_A_TILE_BYTES;
}

void kern_cpu_gemm_pack_rows(uint8_t *packed, const gemm_plan *p, const kern_gemm_args *a,
                             int64_t row_tile)
{
    const uint16_t *in = a->in;
    int64_t k_all = a->w->desc.k, r0 = row_tile * GEMM_A_TILE_ROWS;
    int rows = a->m - r0 < GEMM_A_TILE_ROWS ? (int)(a->m - r0) : GEMM_A_TILE_ROWS;
    uint8_t *dst = packed + (size_t)(row_tile * p->k_tiles) * GEMM_A_TILE_BYTES;

    for (int c = 0; c < p->n_chunks; c++) {
        const gemm_chunk *ch = &p->chunks[c];

        for (int64_t k = 0; k < ch->k; k += GEMM_A_TILE_K) {
            size_t len = (size_t)(ch->k - k < GEMM_A_TILE_K ? ch->k - k : GEMM_A_TILE_K) * 2;

            if (rows < GEMM_A_TILE_ROWS || len < 64)
                memset(dst, 0, GEMM_A_TILE_BYTES);
            for (int r = 0; r < rows; r++)
                memcpy(dst + (size_t)r * 64, in + (r0 + r) * k_all + ch->k0 + k, len);
            dst += GEMM_A_TILE_BYTES;
        }
    }
}

void kern_cpu_gemm_repair(uint8_t *out, const uint8_t *panel, const gemm_chunk *c)
{
    const uint16_t *src = (const uint16_t *)(const void *)panel;
    uint16_t *dst = (uint16_t *)(void *)out;
    int64_t padded = round_up(c->k, GEMM_A_TILE_K);

    for (int64_t i = 0; i < padded; i++) {
        const uint16_t *from = src + (c->k0 + i) / 2 * (2 * GEMM_NR) + (c->k0 + i) % 2;
        uint16_t *to = dst + i / 2 * (2 * GEMM_NR) + i % 2;

        for (int n = 0; n < GEMM_NR; n++)
            to[2 * n] = i < c->k ? from[2 * n] : 0;
    }
}
