/* SPDX-License-Identifier: Apache-2.0 */
/* gemm_amx.c - micro-kernels for AMX-BF16: up to 32 rows x 64 columns.
 *
 * Weights come straight from the panel: 16 pairs of k x 16 columns are 16 lines of 64 bytes, 256 bytes apart, and the
 * four such tiles of a step are one run of 4 KiB.  Activations come in tile order (gemm_plan.h): 16 rows x 32 k are
 * one run of 1 KiB, with zeros for the rows and columns that are missing; so a tile never needs another shape, and a
 * sum has the same order for 1 row and for 1000.  At the end of a chunk the weight tile may reach into what follows;
 * those weights meet the zeros.
 *
 *   up to 16 rows   1 x 4 tiles of results, each weight tile used once
 *   up to 32 rows   2 x 2 tiles twice, over the left and the right half of the panel
 *
 * thread_begin() loads the tile configuration, which belongs to a thread; thread_end() gives it back.
 */
#include "kernels/cpu/gemm_plan.h"
#include "kernels/cpu/tiles_amx.h"

#define STEP_BYTES (TILE_ROWS * GEMM_NR * 4) /* of the panel per 32 k */
#define W_STRIDE   (GEMM_NR * 4)             /* between pairs of k */
#define ACC_STRIDE (GEMM_NR * 4)             /* between rows of a slot */

typedef float lanes __attribute__((vector_size(64)));

/* One of the four parts of a step's prefetch, so that they lie evenly between the loads. */
static inline __attribute__((always_inline)) void fetch_part(const uint8_t *p, int step_bytes,
                                                             int part)
{
    for (int i = part * step_bytes / 4; i < (part + 1) * step_bytes / 4; i += 64)
        __builtin_prefetch(p + i, 0, 2);
}

/* Slot on top to the ones below: left + right. */
static void join_slots(const gemm_tile *t, int rows)
{
    float *right = t->acc;

    for (int j = 0; j < t->joins; j++) {
        float *left = right - t->slot_step;

        for (int i = 0; i < rows * GEMM_NR; i += 16) {
            lanes a, b;

            memcpy(&a, left + i, sizeof a);
            memcpy(&b, right + i, sizeof b);
            a += b;
            memcpy(left + i, &a, sizeof a);
        }
        right = left;
    }
}

static inline __attribute__((always_inline)) void run_rows16(const gemm_tile *t, int fetch_step)
{
    const uint8_t *a = t->a, *w = t->w, *fetch = t->prefetch;

    if (t->resume) {
        tile_load(0, t->acc, ACC_STRIDE);
        tile_load(1, t->acc + 16, ACC_STRIDE);
        tile_load(2, t->acc + 32, ACC_STRIDE);
        tile_load(3, t->acc + 48, ACC_STRIDE);
    } else {
        tile_zero(0);
        tile_zero(1);
        tile_zero(2);
        tile_zero(3);
    }
    for (int64_t k = 0; k < t->k; k += GEMM_A_TILE_K) {
        tile_load(4, a, TILE_BYTES);
        fetch_part(fetch, fetch_step, 0);
        tile_load(5, w, W_STRIDE);
        fetch_part(fetch, fetch_step, 1);
        tile_load(6, w + 64, W_STRIDE);
        tile_dot(0, 4, 5);
        fetch_part(fetch, fetch_step, 2);
        tile_load(7, w + 128, W_STRIDE);
        tile_dot(1, 4, 6);
        fetch_part(fetch, fetch_step, 3);
        tile_load(5, w + 192, W_STRIDE);
        tile_dot(2, 4, 7);
        tile_dot(3, 4, 5);
        fetch += fetch_step;
        a += GEMM_A_TILE_BYTES;
        w += STEP_BYTES;
    }
    tile_store(0, t->acc, ACC_STRIDE);
    tile_store(1, t->acc + 16, ACC_STRIDE);
    tile_store(2, t->acc + 32, ACC_STRIDE);
    tile_store(3, t->acc + 48, ACC_STRIDE);
    join_slots(t, TILE_ROWS);
}

/* 32 rows x 32 columns, from column c on. */
static inline __attribute__((always_inline)) void run_rows32_half(const gemm_tile *t, int c,
                                                                  int fetch_step)
{
    const uint8_t *a0 = t->a, *a1 = t->a + TILE_ROWS * t->a_stride;
    const uint8_t *w = t->w + (size_t)c * 4, *fetch = t->prefetch;
    float *top = t->acc + c, *low = top + (size_t)TILE_ROWS * GEMM_NR;

    if (t->resume) {
        tile_load(0, top, ACC_STRIDE);
        tile_load(1, top + 16, ACC_STRIDE);
        tile_load(2, low, ACC_STRIDE);
        tile_load(3, low + 16, ACC_STRIDE);
    } else {
        tile_zero(0);
        tile_zero(1);
        tile_zero(2);
        tile_zero(3);
    }
    for (int64_t k = 0; k < t->k; k += GEMM_A_TILE_K) {
        fetch_part(fetch, fetch_step, 0);
        tile_load(4, a0, TILE_BYTES);
        fetch_part(fetch, fetch_step, 1);
        tile_load(6, w, W_STRIDE);
        tile_dot(0, 4, 6);
        fetch_part(fetch, fetch_step, 2);
        tile_load(7, w + 64, W_STRIDE);
        tile_dot(1, 4, 7);
        fetch_part(fetch, fetch_step, 3);
        tile_load(5, a1, TILE_BYTES);
        tile_dot(2, 5, 6);
        tile_dot(3, 5, 7);
        fetch += fetch_step;
        a0 += GEMM_A_TILE_BYTES;
        a1 += GEMM_A_TILE_BYTES;
        w += STEP_BYTES;
    }
    tile_store(0, top, ACC_STRIDE);
    tile_store(1, top + 16, ACC_STRIDE);
    tile_store(2, low, ACC_STRIDE);
    tile_store(3, low + 16, ACC_STRIDE);
}

#define TILES(name, fetch_step)                                                                    \
    static void rows16_##name(const gemm_tile *t)                                                  \
    {                                                                                              \
        run_rows16(t, fetch_step);                                                                 \
    }                                                                                              \
    static void rows32_##name(const gemm_tile *t)                                                  \
    {                                                                                              \
        run_rows32_half(t, 0, fetch_step);                                                         \
        run_rows32_half(t, 32, 0);                                                                 \
        join_slots(t, 2 * TILE_ROWS);                                                              \
    }

TILES(none, 0)
TILES(quarter, STEP_BYTES / 4)
TILES(half, STEP_BYTES / 2)
TILES(full, STEP_BYTES)

static void store_rows(const gemm_store *s)
{
    for (int r = 0; r < s->rows; r++) {
        const float *acc = s->acc + (size_t)r * GEMM_NR;
        float *out = s->out + r * s->out_stride;

        if (s->bias == NULL) {
            memcpy(out, acc, (size_t)s->cols * sizeof *out);
            continue;
        }
        for (int c = 0; c < s->cols; c++)
            out[c] = acc[c] + s->bias[c];
    }
}

#define ROW(rows)                                                                                  \
    {                                                                                              \
        rows##_none, rows##_quarter, rows##_half, rows##_full                                      \
    }
#define ROW4(rows) ROW(rows), ROW(rows), ROW(rows), ROW(rows)

const gemm_kernels kern_cpu_gemm_amx_bf16 = {
    .mr = 2 * TILE_ROWS,
    .k_step = GEMM_A_TILE_K,
    .row_step = TILE_ROWS,
    .pack_a = true,
    .tile = {ROW4(rows16), ROW4(rows16), ROW4(rows16), ROW4(rows16), ROW4(rows32), ROW4(rows32),
             ROW4(rows32), ROW4(rows32)},
    .store = store_rows,
    .thread_begin = tiles_begin,
    .thread_end = tiles_end,
};
