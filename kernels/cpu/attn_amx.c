/* SPDX-License-Identifier: Apache-2.0 */
/* attn_amx.c - the two products of attention with AMX-BF16 tiles, for prefill and for single rows alike.
 *
 *   scores   Query vectors are rounded to BF16 and laid in tiles of 16 vectors x 32 dimensions.  Keys lie in the cache
 *            as pairs of dimensions (vec_attn_body.h): 32 dimensions of a group are the other tile as they are.
 *   values   Weights are rounded to BF16, in tiles of 16 vectors x 32 tokens.  The values of 32 tokens, two groups, are
 *            copied to pairs of tokens.  A token outside [begin, end) is zeros on both sides: what the cache holds
 *            there may be NaN.
 *
 * The 32 tokens begin at multiples of 32 in a tile of positions, and adding zeros changes no bit of a sum that began
 * at +0: so a row's bits depend on its position only, not on the block that it came in, and decoding takes this way
 * too.  A single row fills a sixteenth of its tiles, which costs nothing: it waits for memory.
 *
 * Every result is 32 columns: two groups of scores, or 32 dimensions.
 */
#include "kernels/cpu/tiles_amx.h"
#include "kernels/cpu/vec.h"

#define TOKENS_MAX 256 /* cpu_attn.c's tile of positions */
#define STEPS_MAX  (TOKENS_MAX / TILE_K)
#define ROWS_MAX   KERN_CPU_ATTN_BLOCK

enum {
    PAIRS = TILE_K / 2,
    PAIR_NUMBERS = 2 * TILE_K
}; /* of tokens in a step; of 32 dimensions of a pair */

_Static_assert(ROWS_MAX == 2 * TILE_ROWS, "one or two tiles of query vectors");
_Static_assert(KERN_CPU_AMX_HEAD_MAX / TILE_K <= STEPS_MAX, "a head fits a left side");

typedef uint16_t numbers __attribute__((vector_size(TILE_BYTES)));

/* The left side of a product: up to 32 rows x `steps` runs of 32 numbers, [row tile][step][16 rows][32]. */
typedef struct left_side {
    uint16_t tiles[ROWS_MAX / TILE_ROWS * STEPS_MAX * TILE_ROWS * TILE_K]
        __attribute__((aligned(64)));
    int row_tiles, steps;
} left_side;

/* The right side: two tiles per step, side by side. */
typedef struct right_side {
    const uint8_t *first, *second; /* of step 0 */
    size_t stride;                 /* bytes between pairs of rows */
    size_t step;                   /* bytes from step to step */
} right_side;

/* Rows rounded to left->tiles; columns outside [begin, end) and missing rows become zeros.  Columns are counted from
 * step 0 on. */
static void lay_left(left_side *left, kern_cpu_rows rows, int begin, int end)
{
    left->row_tiles = rows.n > TILE_ROWS ? 2 : 1;
    left->steps = (end + TILE_K - 1) / TILE_K;
    for (int r = 0; r < left->row_tiles * TILE_ROWS; r++) {
        int tile = r / TILE_ROWS * left->steps;
        uint16_t *out = left->tiles + (tile * TILE_ROWS + r % TILE_ROWS) * TILE_K;
        const float *x = rows.x + (ptrdiff_t)r * rows.ld;

        for (int c = 0; c < end; c += TILE_K, out += TILE_ROWS * TILE_K) {
            int from = begin > c ? begin - c : 0, to = end - c < TILE_K ? end - c : TILE_K;

            if (r < rows.n && from == 0 && to == TILE_K) {
                tile_round(out, x + c);
                continue;
            }
            memset(out, 0, TILE_BYTES);
            for (int i = from; r < rows.n && i < to; i++)
                out[i] = kern_f32_to_bf16(x[c + i]);
        }
    }
}

/* out[0 .. 16 * row tiles)[0 .. 16 * col_tiles) = left * right; ld: floats between rows. */
static inline __attribute__((always_inline)) void multiply(const left_side *left, int row_tiles,
                                                           const right_side *right, int col_tiles,
                                                           float *out, int ld)
{
    const uint8_t *a = (const uint8_t *)left->tiles, *low = a + (size_t)left->steps * TILE_SIZE;
    const uint8_t *b = right->first, *b2 = right->second;
    size_t bytes = (size_t)ld * sizeof *out;
    float *out2 = out + (ptrdiff_t)TILE_ROWS * ld;

    tile_barrier();
    tile_zero(0);
    tile_zero(1);
    tile_zero(2);
    tile_zero(3);
    for (int k = 0; k < left->steps; k++) {
        tile_load(4, a, TILE_BYTES);
        tile_load(6, b, right->stride);
        tile_dot(0, 4, 6);
        if (col_tiles == 2) {
            tile_load(7, b2, right->stride);
            tile_dot(1, 4, 7);
        }
        if (row_tiles == 2) {
            tile_load(5, low, TILE_BYTES);
            tile_dot(2, 5, 6);
            if (col_tiles == 2)
                tile_dot(3, 5, 7);
        }
        a += TILE_SIZE;
        low += TILE_SIZE;
        b += right->step;
        b2 += right->step;
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

static void multiply_by(const left_side *left, const right_side *right, int col_tiles, float *out,
                        int ld)
{
    if (left->row_tiles == 1 && col_tiles == 1)
        multiply(left, 1, right, 1, out, ld);
    else if (left->row_tiles == 1)
        multiply(left, 1, right, 2, out, ld);
    else if (col_tiles == 1)
        multiply(left, 2, right, 1, out, ld);
    else
        multiply(left, 2, right, 2, out, ld);
}

static void fetch(const void *p, int bytes)
{
    for (int byte = 0; byte < bytes; byte += 64)
        __builtin_prefetch((const char *)p + byte);
}

static void qk(float *s, int s_ld, kern_cpu_rows q, const void *const *k, const void *const *ahead,
               int n, int hd)
{
    left_side left;

    lay_left(&left, q, 0, hd);
    for (int g = 0; g < n; g += 2) {
        int now = n - g < 2 ? 1 : 2;
        right_side right = {
            .first = k[g], .second = k[g + now - 1], .stride = TILE_BYTES, .step = TILE_SIZE};

        for (int i = 0; ahead != NULL && i < now; i++)
            fetch(ahead[g + i], hd * KERN_CPU_GROUP * 2);
        multiply_by(&left, &right, now, s + (ptrdiff_t)g * KERN_CPU_GROUP, s_ld);
    }
}

/* 32 dimensions of two tokens as 32 pairs. */
static void lay_pair(uint16_t *out, const uint16_t *even, const uint16_t *odd)
{
    numbers a, b, low, high;

    memcpy(&a, even, sizeof a);
    memcpy(&b, odd, sizeof b);
    low = __builtin_shufflevector(a, b, 0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39, 8,
                                  40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47);
    high =
        __builtin_shufflevector(a, b, 16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23,
                                55, 24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63);
    memcpy(out, &low, sizeof low);
    memcpy(out + TILE_K, &high, sizeof high);
}

/* Dimensions d0 .. d0 + 31 of the values of the tokens, as [step][16 pairs][32][2].  Each pair fetches its part of
 * ahead's group, so that after hd / 32 calls all of it was asked for. */
static void lay_values(uint16_t *out, const void *const *v, const void *const *ahead, int hd,
                       int d0, int begin, int end)
{
    static const uint16_t zeros[TILE_K];
    int to = (end + TILE_K - 1) / TILE_K * TILE_K;

    for (int t = begin / TILE_K * TILE_K; t < to; t += 2, out += PAIR_NUMBERS) {
        const uint16_t *row[2] = {zeros, zeros};

        for (int i = 0; i < 2; i++)
            if (t + i >= begin && t + i < end)
                row[i] = (const uint16_t *)v[(t + i) / KERN_CPU_GROUP] +
                         (ptrdiff_t)((t + i) % KERN_CPU_GROUP) * hd + d0;
        if (ahead != NULL && (row[0] != zeros || row[1] != zeros))
            fetch((const uint16_t *)ahead[t / KERN_CPU_GROUP] +
                      (ptrdiff_t)(d0 / TILE_K * KERN_CPU_GROUP / 2 + t % KERN_CPU_GROUP / 2) *
                          PAIR_NUMBERS,
                  PAIR_NUMBERS * 2);
        lay_pair(out, row[0], row[1]);
    }
}

static void pv(float *o, int hd, kern_cpu_rows p, const void *const *v, const void *const *ahead,
               int begin, int end)
{
    uint16_t values[TOKENS_MAX * TILE_K] __attribute__((aligned(64)));
    int skip = begin / TILE_K * TILE_K;
    left_side left;

    p.x += skip;
    lay_left(&left, p, begin - skip, end - skip);
    for (int d = 0; d < hd; d += TILE_K) {
        right_side right = {.first = (const uint8_t *)values,
                            .second = (const uint8_t *)values + TILE_BYTES,
                            .stride = PAIR_NUMBERS * sizeof *values,
                            .step = PAIRS * PAIR_NUMBERS * sizeof *values};

        lay_values(values, v, ahead, hd, d, begin, end);
        multiply_by(&left, &right, 2, o + d, hd);
    }
}

const kern_cpu_attn_products kern_cpu_attn_amx_bf16 = {.qk = qk,
                                                       .pv = pv,
                                                       .block = ROWS_MAX,
                                                       .begin = tiles_begin,
                                                       .end = tiles_end};
