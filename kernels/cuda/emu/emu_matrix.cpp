/* SPDX-License-Identifier: Apache-2.0 */
/* emu_matrix.cpp - mma.m16n8k16 and ldmatrix.x4 for the registers of a whole warp.
 *
 * Fragments as in ptx.cuh.  Products of two 16-bit numbers are exact in FP32, so the sums are the same whether the host
 * fuses them or not; their order (k ascending, on top of d) is ours, the hardware's is not documented.
 */
#include "kernels/cuda/emu/emu_runtime.h"

enum { M = 16, N = 8, K = 16, PAIRS = K / 2 };

/* Eight lanes of a vector of the host. */
typedef uint32_t emu_words __attribute__((vector_size(32)));
typedef float emu_floats __attribute__((vector_size(32)));

#define EMU_INLINE static inline __attribute__((always_inline)) EMU_RAW

/* FP32 of the numbers in the upper halves of eight words. */
template <bool BF16> EMU_INLINE void decode_high(emu_floats *out, const emu_words *words)
{
    emu_words w = *words & 0xffff0000u;
    if (BF16) {
        *out = (emu_floats)w;
        return;
    }
    emu_words magnitude = (w & 0x7fff0000u) >> 3; /* as in emu_half_decode() */
    emu_words u = (emu_words)((emu_floats)magnitude * 0x1p112f);
    emu_words special = (emu_words)((w & 0x7c000000u) == 0x7c000000u);
    *out = (emu_floats)(u | (special & 0x7f800000u) | (w & 0x80000000u));
}

/* Words are pairs of numbers: a[m][k / 2], b[k / 2][n]. */
struct mma_words {
    emu_words a[M], b[PAIRS];
    emu_floats d[M];
};

EMU_INLINE void mma_gather(mma_words *w, emu_request *const request[EMU_WARP])
{
    for (int lane = 0; lane < EMU_WARP; lane++) {
        const emu_request *r = request[lane];
        int g = lane / 4, t = lane % 4;
        w->a[g][t] = r->mma.a[0];
        w->a[g + 8][t] = r->mma.a[1];
        w->a[g][t + 4] = r->mma.a[2];
        w->a[g + 8][t + 4] = r->mma.a[3];
        w->b[t][g] = r->mma.b[0];
        w->b[t + 4][g] = r->mma.b[1];
        memcpy((float *)&w->d[g] + 2 * t, r->mma.d, 8);
        memcpy((float *)&w->d[g + 8] + 2 * t, r->mma.d + 2, 8);
    }
}

template <bool BF16> EMU_INLINE void mma_compute(mma_words *w)
{
    emu_floats a[M][2], b[PAIRS][2];
    for (int i = 0; i < PAIRS; i++) {
        emu_words low = w->b[i] << 16;
        decode_high<BF16>(&b[i][0], &low);
        decode_high<BF16>(&b[i][1], &w->b[i]);
    }
    for (int m = 0; m < M; m++) {
        emu_words low = w->a[m] << 16;
        decode_high<BF16>(&a[m][0], &low);
        decode_high<BF16>(&a[m][1], &w->a[m]);
        emu_floats sum = w->d[m];
        for (int i = 0; i < PAIRS; i++) {
            sum += a[m][0][i] * b[i][0];
            sum += a[m][1][i] * b[i][1];
        }
        w->d[m] = sum;
    }
}

EMU_INLINE void mma_scatter(const mma_words *w, emu_request *const request[EMU_WARP])
{
    for (int lane = 0; lane < EMU_WARP; lane++) {
        int g = lane / 4, t = lane % 4;
        memcpy(request[lane]->mma.d, (const float *)&w->d[g] + 2 * t, 8);
        memcpy(request[lane]->mma.d + 2, (const float *)&w->d[g + 8] + 2 * t, 8);
    }
}

template <bool BF16> EMU_INLINE void mma_serve(emu_request *const request[EMU_WARP])
{
    mma_words w;
    mma_gather(&w, request);
    mma_compute<BF16>(&w);
    mma_scatter(&w, request);
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) static EMU_RAW void mma_serve_avx2(
    emu_request *const request[EMU_WARP], bool bf16)
{
    if (bf16)
        mma_serve<true>(request);
    else
        mma_serve<false>(request);
}
static EMU_RAW bool have_avx2()
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
#else
static EMU_RAW void mma_serve_avx2(emu_request *const[EMU_WARP], bool) {}
static EMU_RAW bool have_avx2()
{
    return false;
}
#endif

EMU_RAW void emu_mma_serve(emu_request *const request[EMU_WARP], bool bf16)
{
    if (have_avx2())
        mma_serve_avx2(request, bf16);
    else if (bf16)
        mma_serve<true>(request);
    else
        mma_serve<false>(request);
}

/* ---- ldmatrix ---- */

/* Eight rows of 16 bytes are read at once unless different ones lie in the same four banks. */
static EMU_RAW int wavefronts(emu_request *const request[8])
{
    uintptr_t row[8];
    uint32_t seen = 0;
    for (int i = 0; i < 8; i++) {
        row[i] = (uintptr_t)request[i]->ldmatrix.address / 16;
        seen |= 1u << (row[i] % 8);
    }
    if (seen == 0xff)
        return 1;
    int count[8] = {0}, worst = 1;
    for (int i = 0; i < 8; i++) {
        bool repeated = false;
        for (int j = 0; j < i; j++)
            repeated |= row[j] == row[i];
        int n = count[row[i] % 8] += !repeated;
        worst = n > worst ? n : worst;
    }
    return worst;
}

EMU_RAW void emu_ldmatrix_serve(emu_rt *rt, emu_request *const request[EMU_WARP], bool trans)
{
    rt->counters.ldmatrix++;
    for (int tile = 0; tile < 4; tile++) {
        emu_request *const *source = request + 8 * tile;
        rt->counters.ldmatrix_wavefronts += wavefronts(source);
        if (!trans) {
            for (int lane = 0; lane < EMU_WARP; lane++)
                request[lane]->ldmatrix.out[tile] = source[lane / 4]->ldmatrix.row[lane % 4];
            continue;
        }
        uint16_t rows[8][8];
        for (int i = 0; i < 8; i++)
            memcpy(rows[i], source[i]->ldmatrix.row, 16);
        for (int lane = 0; lane < EMU_WARP; lane++) {
            uint32_t low = rows[2 * (lane % 4)][lane / 4],
                     high = rows[2 * (lane % 4) + 1][lane / 4];
            request[lane]->ldmatrix.out[tile] = low | high << 16;
        }
    }
}
