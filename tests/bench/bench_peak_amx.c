/* SPDX-License-Identifier: Apache-2.0 */
/* bench_peak_amx.c - AMX-BF16 peak: 4 tiles of results, 2 x 2 operands, no loads. */
#include <string.h>

#include <immintrin.h>

#include "bench_limits.h"

double bench_tile_amx(int64_t n)
{
    uint8_t config[64] = {1};

    n /= 8; /* a tile product is 16 times a vector instruction */
    for (int i = 0; i < 8; i++) {
        config[16 + 2 * i] = 64; /* bytes of a row */
        config[48 + i] = 16;     /* rows */
    }
    __asm__ volatile(""
                     :
                     : "r"(config)
                     : "memory"); /* the intrinsic names 8 of the 64 bytes as read */
    _tile_loadconfig(config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
    for (int64_t r = 0; r < n; r++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
    return (double)n * 4 * 16 * 16 * 32 * 2;
}
