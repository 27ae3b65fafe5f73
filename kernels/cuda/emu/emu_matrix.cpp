/* SPDX-License-Identifier: Apache-2.0 */
/* emu_matrix.cpp - mma.m16n8k16 and ldmatrix.x4 for the registers of a whole warp.
 *
 * Fragments as in ptx.cuh.  Products of two 16-bit numbers are exact in FP32, so the sums are the same whether the host
 * fuses them or not; their order (k ascending, on top of d) is ours, the hardware's is not documented.
 */
#include "kernels/cuda/emu/emu_runtime.h"

enum { M = 16, N = 8, K = 16 };

typedef float emu_row __attribute__((vector_size(4 * N)));

template <bool BF16> static inline EMU_RAW float decode(uint32_t bits)
{
    return BF16 ? emu_bf16_decode((uint16_t)bits) : emu_half_decode((uint16_t)bits);
}

template <bool BF16> static inline EMU_RAW void mma_serve(emu_request *const request[EMU_WARP])
{
    float a[M][K];
    emu_row b[K], d[M];
    for (int lane = 0; lane < EMU_WARP; lane++) {
        const emu_request *r = request[lane];
        int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++) {
            float *to = &a[g + 8 * (i & 1)][2 * t + 8 * (i >> 1)];
            to[0] = decode<BF16>(r->a[i] & 0xffffu);
            to[1] = decode<BF16>(r->a[i] >> 16);
            d[g + 8 * (i >> 1)][2 * t + (i & 1)] = r->d[i];
        }
        for (int i = 0; i < 2; i++) {
            b[2 * t + 8 * i][g] = decode<BF16>(r->b[i] & 0xffffu);
            b[2 * t + 8 * i + 1][g] = decode<BF16>(r->b[i] >> 16);
        }
    }
    for (int m = 0; m < M; m++) {
        emu_row sum = d[m];
        for (int k = 0; k < K; k++)
            sum += a[m][k] * b[k];
        d[m] = sum;
    }
    for (int lane = 0; lane < EMU_WARP; lane++)
        for (int i = 0; i < 4; i++)
            request[lane]->d[i] = d[lane / 4 + 8 * (i >> 1)][2 * (lane % 4) + (i & 1)];
}

EMU_RAW void emu_mma_serve(emu_request *const request[EMU_WARP], bool bf16)
{
    if (bf16)
        mma_serve<true>(request);
    else
        mma_serve<false>(request);
}

/* Eight rows of 16 bytes are read at once unless two different ones lie in the same four banks. */
static EMU_RAW int wavefronts(emu_request *const request[8])
{
    int worst = 1;
    for (int i = 0; i < 8; i++) {
        uintptr_t row = (uintptr_t)request[i]->address;
        int same = 0;
        for (int j = 0; j < 8; j++) {
            uintptr_t other = (uintptr_t)request[j]->address;
            bool repeated = false;
            for (int k = 0; k < j; k++)
                repeated |= (uintptr_t)request[k]->address == other;
            same += (other / 16 - row / 16) % 8 == 0 && !repeated;
        }
        worst = same > worst ? same : worst;
    }
    return worst;
}

EMU_RAW void emu_ldmatrix_serve(emu_rt *rt, emu_request *const request[EMU_WARP], bool trans)
{
    rt->counters.ldmatrix++;
    for (int tile = 0; tile < 4; tile++) {
        rt->counters.ldmatrix_wavefronts += wavefronts(request + 8 * tile);
        uint16_t rows[8][8];
        for (int i = 0; i < 8; i++)
            memcpy(rows[i], request[8 * tile + i]->a, 16);
        for (int lane = 0; lane < EMU_WARP; lane++) {
            int i = lane / 4, j = 2 * (lane % 4);
            uint32_t low = trans ? rows[j][i] : rows[i][j];
            uint32_t high = trans ? rows[j + 1][i] : rows[i][j + 1];
            request[lane]->out[tile] = low | high << 16;
        }
    }
}
