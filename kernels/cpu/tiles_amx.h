/* SPDX-License-Identifier: Apache-2.0 */
/* tiles_amx.h - the tile instructions that gemm_amx.c and attn_amx.c use, and their emulation in plain C.
 *
 * With KERN_AMX_EMULATED the same kernels run on a machine without AMX: that is how their logic is tested there
 * (tests/kernels).  The emulation adds the even k of a pair first, then the odd one, in FP32 with two roundings each;
 * the instruction's own order is fixed as well, but its bits differ.
 *
 * All tiles are 16 rows x 64 bytes: 16 x 16 FP32, 16 rows x 32 BF16 on the left of a product, or 16 pairs of rows x
 * 16 columns of BF16 on its right.  Tile numbers are literals.
 */
#include <string.h>

#include "kernels/convert.h"

#define TILE_ROWS  16
#define TILE_BYTES 64 /* of a row */
#define TILE_K     32 /* numbers that one instruction adds up */
#define TILE_SIZE  (TILE_ROWS * TILE_BYTES)

#ifdef KERN_AMX_EMULATED

static _Thread_local uint8_t g_tiles[8][TILE_ROWS][TILE_BYTES];
static _Thread_local bool g_configured;

static inline void emulate_load(int tile, const void *p, size_t stride)
{
    TP_ASSERT(g_configured);
    for (size_t r = 0; r < TILE_ROWS; r++)
        memcpy(g_tiles[tile][r], (const uint8_t *)p + r * stride, TILE_BYTES);
}

static inline void emulate_store(int tile, void *p, size_t stride)
{
    for (size_t r = 0; r < TILE_ROWS; r++)
        memcpy((uint8_t *)p + r * stride, g_tiles[tile][r], TILE_BYTES);
}

static inline void emulate_dot(int c, int a, int b)
{
    float acc[16];
    uint16_t x[32], w[32];

    for (int r = 0; r < TILE_ROWS; r++) {
        memcpy(acc, g_tiles[c][r], sizeof acc);
        memcpy(x, g_tiles[a][r], sizeof x);
        for (int p = 0; p < 16; p++) {
            memcpy(w, g_tiles[b][p], sizeof w);
            for (int n = 0; n < 16; n++) {
                acc[n] += kern_bf16_to_f32(x[2 * p]) * kern_bf16_to_f32(w[2 * n]);
                acc[n] += kern_bf16_to_f32(x[2 * p + 1]) * kern_bf16_to_f32(w[2 * n + 1]);
            }
        }
        memcpy(g_tiles[c][r], acc, sizeof acc);
    }
}

#    define tile_barrier()           ((void)0)
#    define tile_zero(t)             memset(g_tiles[t], 0, sizeof g_tiles[t])
#    define tile_load(t, p, stride)  emulate_load(t, p, stride)
#    define tile_store(t, p, stride) emulate_store(t, p, stride)
#    define tile_dot(c, a, b)        emulate_dot(c, a, b)

static void tiles_begin(void)
{
    g_configured = true;
}

static void tiles_end(void)
{
    g_configured = false;
}

#else

#    include <immintrin.h>

/* The intrinsic of a load does not say that it reads memory: what was written just before must be there. */
#    define tile_barrier()           __asm__ volatile("" : : : "memory")
#    define tile_zero(t)             _tile_zero(t)
#    define tile_load(t, p, stride)  _tile_loadd(t, p, stride)
#    define tile_store(t, p, stride) _tile_stored(t, p, stride)
#    define tile_dot(c, a, b)        _tile_dpbf16ps(c, a, b)

/* Palette 1 and the shapes of all eight tiles, in the layout of ldtilecfg. */
typedef struct tile_config {
    uint8_t palette, start_row;
    uint8_t reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

_Static_assert(sizeof(tile_config) == 64, "the layout of ldtilecfg");

static void tiles_begin(void)
{
    tile_config c = {.palette = 1};

    for (int i = 0; i < 8; i++) {
        c.rows[i] = TILE_ROWS;
        c.row_bytes[i] = TILE_BYTES;
    }
    __asm__ volatile("" : : "r"(&c) : "memory"); /* the intrinsic names 8 of the 64 bytes as read */
    _tile_loadconfig(&c);
}

static void tiles_end(void)
{
    _tile_release();
}

#endif
