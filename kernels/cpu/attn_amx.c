/* SPDX-License-Identifier: Apache-2.0 */
/* attn_amx.c - the two products of attention with AMX-BF16 tiles, for prefill and for single rows alike.
 *
 *   left     16 query vectors x 32 dimensions, or 16 rows of weights x 32 tokens, as they lie (BF16).  Rows that are
 *            missing are whatever lies there: they make rows of results that nobody looks at.
 *   scores   keys lie in the cache as pairs of dimensions (vec_attn_body.h): 32 dimensions of a group are a tile.
 *   values   lie as pairs of tokens, but 32 tokens are two groups: their pairs are copied together.  What is outside
 *            [begin, end) becomes zeros: the cache may hold NaN there.
 *
 * The 32 tokens begin at multiples of 32 in a tile of positions, and adding zeros changes no bit of a sum that began
 * at +0: so a row's bits depend on its position only, not on the block that it came in, and decoding takes this way
 * too.  A single row fills a sixteenth of its tiles, which costs nothing: it waits for memory.
 *
 * Every result is 32 columns: two groups of scores, or 32 dimensions.
 */
#include "kernels/cpu/tiles_amx.h"
#include "kernels/cpu/vec.h"

#define TOKENS_MAX   256          /* cpu_attn.c's tile of positions */
#define PAIRS        (TILE_K / 2) /* of tokens, in a step */
#define PAIR_NUMBERS (2 * TILE_K) /* 32 dimensions of both tokens */

_Static_assert(KERN_CPU_ATTN_BLOCK == 2 * TILE_ROWS, "one or two tiles of rows");

/* rows [n, steps * 32] times columns [steps * 32, 32]. */
typedef struct product {
    const uint8_t *rows;
    size_t row_bytes; /* from row to row */
    int n, steps;
    const uint8_t *first, *second; /* two tiles of columns of step 0 */
    size_t pair_bytes;             /* from pair of rows to pair of rows of them */
    size_t step_bytes;             /* from step to step */
} product;

/* out[0 .. 16 * row_tiles)[0 .. 16 * col_tiles); ld: floats between rows. */
static inline __attribute__((always_inline)) void multiply(const product *p, const int row_tiles,
                                                           const int col_tiles, float *out, int ld)
{
    const uint8_t *a = p->rows, *low = a + TILE_ROWS * p->row_bytes;
    const uint8_t *b = p->first, *b2 = p->second;
    size_t bytes = (size_t)ld * sizeof *out;
    float *out2 = out + (ptrdiff_t)TILE_ROWS * ld;

    tile_barrier();
    tile_zero(0);
    tile_zero(1);
    tile_zero(2);
    tile_zero(3);
    for (int k = 0; k < p->steps; k++) {
        tile_load(4, a, p->row_bytes);
        tile_load(6, b, p->pair_bytes);
        tile_dot(0, 4, 6);
        if (col_tiles == 2) {
            tile_load(7, b2, p->pair_bytes);
            tile_dot(1, 4, 7);
        }
        if (row_tiles == 2) {
            tile_load(5, low, p->row_bytes);
            tile_dot(2, 5, 6);
            if (col_tiles == 2)
                tile_dot(3, 5, 7);
        }
        a += TILE_BYTES;
        low += TILE_BYTES;
        b += p->step_bytes;
        b2 += p->step_bytes;
    }
    tile_store(0, out, bytes);
    if (col_tiles == 2)
        tile_store(1, out + 16, bytes);
    if (row_tiles == 2) {
        tile_store(2, out2, bytes);
        if (col_tiles == 2)
            tile_store(3, out2 + 16, bytes);
    }
}

static void multiply_by(const product *p, int col_tiles, float *out, int ld)
{
    bool one_row = p->n <= TILE_ROWS, one_col = col_tiles == 1;

    if (one_row && one_col)
        multiply(p, 1, 1, out, ld);
    else if (one_row)
        multiply(p, 1, 2, out, ld);
    else if (one_col)
        multiply(p, 2, 1, out, ld);
    else
        multiply(p, 2, 2, out, ld);
}

static void fetch(const void *p, int bytes)
{
    for (int byte = 0; byte < bytes; byte += 64)
        __builtin_prefetch((const char *)p + byte);
}

static void qk(float *s, int s_ld, kern_cpu_rows q, const void *const *k, const void *const *ahead,
               int n, int hd)
{
    product p = {.rows = q.x,
                 .row_bytes = (size_t)q.ld * sizeof(uint16_t),
                 .n = q.n,
                 .steps = hd / TILE_K,
                 .pair_bytes = TILE_BYTES,
                 .step_bytes = TILE_SIZE};

    for (int g = 0; g < n; g += 2) {
        int now = n - g < 2 ? 1 : 2;

        p.first = k[g];
        p.second = k[g + now - 1];
        for (int i = 0; ahead != NULL && i < now; i++)
            fetch(ahead[g + i], hd * KERN_CPU_GROUP * 2);
        multiply_by(&p, now, s + (ptrdiff_t)g * KERN_CPU_GROUP, s_ld);
    }
}

/* 32 dimensions of a pair of tokens; a token outside [begin, end) becomes zeros. */
static void lay_pair(uint16_t *out, const uint16_t *pair, int t, int begin, int end)
{
    memcpy(out, pair, PAIR_NUMBERS * sizeof *out);
    for (int i = 0; (t < begin || t + 1 >= end) && i < PAIR_NUMBERS; i++)
        if (t + i % 2 < begin || t + i % 2 >= end)
            out[i] = 0;
}

/* Dimensions d0 .. d0 + 31 of the values of the tokens, as [step][16 pairs][32][2].  Each pair fetches its part of
 * ahead's group, so that after hd / 32 calls all of it was asked for. */
static void lay_values(uint16_t *out, const void *const *v, const void *const *ahead, int hd,
                       int d0, int begin, int end)
{
    int to = (end + TILE_K - 1) / TILE_K * TILE_K;

    for (int t = begin / TILE_K * TILE_K; t < to; t += 2, out += PAIR_NUMBERS) {
        int g = t / KERN_CPU_GROUP, lane = t % KERN_CPU_GROUP;

        if (t + 1 < begin || t >= end) { /* v has no such group, perhaps */
            memset(out, 0, PAIR_NUMBERS * sizeof *out);
            continue;
        }
        if (ahead != NULL)
            fetch((const uint16_t *)ahead[g] +
                      (ptrdiff_t)(d0 / TILE_K * KERN_CPU_GROUP + lane) / 2 * PAIR_NUMBERS,
                  PAIR_NUMBERS * 2);
        lay_pair(out, (const uint16_t *)v[g] + (ptrdiff_t)lane * hd + (ptrdiff_t)2 * d0, t, begin,
                 end);
    }
}

static void pv(float *o, int hd, kern_cpu_rows p, const void *const *v, const void *const *ahead,
               int begin, int end)
{
    uint16_t values[TOKENS_MAX * TILE_K] __attribute__((aligned(64)));
    int skip = begin / TILE_K;
    product work = {.rows = (const uint8_t *)p.x + (ptrdiff_t)skip * TILE_BYTES,
                    .row_bytes = (size_t)p.ld * sizeof(uint16_t),
                    .n = p.n,
                    .steps = (end + TILE_K - 1) / TILE_K - skip,
                    .first = (const uint8_t *)values,
                    .second = (const uint8_t *)values + TILE_BYTES,
                    .pair_bytes = PAIR_NUMBERS * sizeof *values,
                    .step_bytes = PAIRS * PAIR_NUMBERS * sizeof *values};

    for (int d = 0; d < hd; d += TILE_K) {
        lay_values(values, v, ahead, hd, d, begin, end);
        multiply_by(&work, 2, o + d, hd);
    }
}

const kern_cpu_attn_products kern_cpu_attn_amx_bf16 = {.qk = qk,
                                                       .pv = pv,
                                                       .rounds = true,
                                                       .block = KERN_CPU_ATTN_BLOCK,
                                                       .begin = tiles_begin,
                                                       .end = tiles_end};
