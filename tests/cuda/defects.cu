/* SPDX-License-Identifier: Apache-2.0 */
/* defects.cu - small kernels with a defect planted in each, and the same kernels without it.
 *
 *     defects NAME broken|sound
 *
 * The broken one must end the process with a report, the sound one must pass; defects.py runs them, built plainly and with
 * sanitizers, and holds the table of what must be reported by which build.  A line marked DEFECT name is the one that the
 * report of that case must name.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/emu/emu_control.h"
#include "kernels/cuda/ptx.cuh"

/* ---- synchronisation that is missing ---- */

template <bool BROKEN> TP_KERNEL(64) barrier_left_out(int *out)
{
    TP_SHARED(int, s, 64);
    s[threadIdx.x] = (int)threadIdx.x; /* DEFECT barrier_left_out */
    if (!BROKEN)
        __syncthreads();
    out[threadIdx.x] = s[63 - threadIdx.x];
}

template <bool BROKEN> TP_KERNEL(32) syncwarp_left_out(int *out)
{
    TP_SHARED(int, s, 32);
    s[threadIdx.x] = (int)threadIdx.x; /* DEFECT syncwarp_left_out */
    if (!BROKEN)
        __syncwarp();
    out[threadIdx.x] = s[31 - threadIdx.x];
}

/* Warp 1 tells warp 0 through a flag that its data are there. */
template <bool BROKEN> TP_KERNEL(64) fence_left_out(int *out, unsigned *flag)
{
    TP_SHARED(int, s, 1);
    if (threadIdx.x == 32) {
        s[0] = 7; /* DEFECT fence_left_out */
        if (!BROKEN)
            __threadfence();
        atomicExch(flag, 1u);
    }
    if (threadIdx.x == 0) {
        while (atomicAdd(flag, 0u) == 0)
            TP_SPIN_PAUSE();
        if (!BROKEN)
            __threadfence();
        *out = s[0];
    }
}

/* The block that comes last reads what the others left: both sides need a fence. */
template <bool BROKEN> TP_KERNEL(32) last_block_without_fence(int *out, unsigned *n_done)
{
    TP_SHARED(unsigned, is_last, 1);
    if (threadIdx.x == 0) {
        out[blockIdx.x] = 7;
        if (!BROKEN)
            __threadfence();
        is_last[0] = atomicAdd(n_done, 1u) == gridDim.x - 1;
        if (!BROKEN)
            __threadfence();
    }
    __syncthreads();
    if (is_last[0] && threadIdx.x < gridDim.x)
        out[32 + threadIdx.x] = out[threadIdx.x]; /* DEFECT last_block_without_fence */
}

/* Two tiles are under way, the first is used: one may still be missing, not both. */
template <bool BROKEN> TP_KERNEL(32) wait_one_group_short(int *out, const float *in)
{
    TP_DYN_SMEM(float, s);
    int lane = (int)threadIdx.x;
    for (int i = 0; i < 2; i++) {
        tp_cp_async16(s + 128 * i + 4 * lane, in + 128 * i + 4 * lane, true);
        tp_cp_async_commit();
    }
    if (BROKEN)
        tp_cp_async_wait<2>();
    else
        tp_cp_async_wait<1>();
    __syncwarp();
    float sum = s[lane]; /* DEFECT wait_one_group_short */
    out[lane] = sum == sum;
    tp_cp_async_wait<0>();
}

/* ---- memory that is not there ---- */

template <bool BROKEN> TP_KERNEL(32) dynamic_memory_short(int *out)
{
    TP_DYN_SMEM(int, s);
    int at = (int)threadIdx.x + (BROKEN ? 4 : 0);
    s[at] = 1; /* DEFECT dynamic_memory_short */
    out[threadIdx.x] = s[at];
}

template <bool BROKEN> TP_KERNEL(32) beyond_shared_array(int *out)
{
    TP_SHARED(int, s, 32);
    s[threadIdx.x + (BROKEN ? 1 : 0)] = 1; /* DEFECT beyond_shared_array */
    out[threadIdx.x] = s[threadIdx.x];
}

template <bool BROKEN> TP_KERNEL(32) beyond_pointer(int *out)
{
    TP_SHARED(int, first, 32);
    TP_SHARED(int, second, 32);
    int *p = first;
    second[threadIdx.x] = 0;
    p[threadIdx.x + (BROKEN ? 1 : 0)] = 1; /* DEFECT beyond_pointer */
    out[threadIdx.x] = first[threadIdx.x];
}

template <bool BROKEN> TP_KERNEL(32) grid_too_large(int *out)
{
    out[blockIdx.x * blockDim.x + threadIdx.x] = 1; /* DEFECT grid_too_large */
}

template <bool BROKEN> TP_KERNEL(32) shared_memory_not_filled(int *out)
{
    TP_SHARED(float, s, 32);
    if (!BROKEN || threadIdx.x != 5)
        s[threadIdx.x] = 1.0f;
    __syncwarp();
    float v = s[threadIdx.x ^ 1];
    out[threadIdx.x] = v == v;
}

/* ---- addresses that an instruction cannot take ---- */

template <bool BROKEN> TP_KERNEL(32) misaligned_vector(int *out, const float *in)
{
    const float4 *p = (const float4 *)(in + (BROKEN ? 2 : 4) * threadIdx.x);
    out[threadIdx.x] = (int)p->x; /* DEFECT misaligned_vector */
}

template <bool BROKEN> TP_KERNEL(32) misaligned_load(int *out, const float *in)
{
    const void *p = in + (BROKEN ? 2 : 4) * threadIdx.x;
    out[threadIdx.x] = (int)tp_ld_once(p).x; /* DEFECT misaligned_load */
}

template <bool BROKEN> TP_KERNEL(32) misaligned_ldmatrix(int *out)
{
    TP_DYN_SMEM(uint16_t, s);
    uint32_t r[4];
    tp_ldmatrix_x4(r, s + 8 * threadIdx.x + BROKEN); /* DEFECT misaligned_ldmatrix */
    out[threadIdx.x] = (int)r[0];
}

/* An array of floats is aligned to floats. */
template <bool BROKEN> TP_KERNEL(32) aligned_by_luck(int *out)
{
    TP_SHARED(float, narrow, 4);
    TP_SHARED(float4, wide, 1);
    float4 *p = BROKEN ? (float4 *)narrow : wide;
    if (threadIdx.x == 0)
        p->x = 1.0f; /* DEFECT aligned_by_luck */
    out[threadIdx.x] = 1;
}

template <bool BROKEN> TP_KERNEL(32) copy_to_global(int *out, const float *in)
{
    TP_DYN_SMEM(float, s);
    void *to = BROKEN ? (void *)out : s;
    if (threadIdx.x == 0)
        tp_cp_async16(to, in, true); /* DEFECT copy_to_global */
    tp_cp_async_commit();
    tp_cp_async_wait<0>();
}

/* ---- threads that do not meet ---- */

template <bool BROKEN> TP_KERNEL(32) divergent_shuffle(int *out)
{
    int lane = (int)threadIdx.x, v = lane;
    if (BROKEN && lane < 16)
        v = __shfl_xor_sync(TP_WARP_ALL, v, 1);
    else
        v = __shfl_xor_sync(TP_WARP_ALL, v, 1); /* DEFECT divergent_shuffle */
    out[lane] = v;
}

template <bool BROKEN> TP_KERNEL(64) shuffle_of_half_a_warp(int *out)
{
    int lane = (int)threadIdx.x, v = lane;
    if (!BROKEN || lane % 32 < 16)
        v = __shfl_xor_sync(TP_WARP_ALL, v, 1); /* DEFECT shuffle_of_half_a_warp */
    __syncthreads();
    out[lane] = v;
}

template <bool BROKEN> TP_KERNEL(32) mask_without_source(int *out)
{
    int lane = (int)threadIdx.x, v = lane;
    if (lane < 16)
        v = __shfl_xor_sync(0xffffu, v, BROKEN ? 16 : 8); /* DEFECT mask_without_source */
    out[lane] = v;
}

template <bool BROKEN> TP_KERNEL(32) mask_without_self(int *out)
{
    int lane = (int)threadIdx.x;
    unsigned mask = BROKEN ? 0xffffu : TP_WARP_ALL;
    out[lane] = (int)__ballot_sync(mask, 1); /* DEFECT mask_without_self */
}

template <bool BROKEN> TP_KERNEL(64) barrier_in_branch(int *out)
{
    if (BROKEN && threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads(); /* DEFECT barrier_in_branch */
    if (!BROKEN)
        __syncthreads();
    out[threadIdx.x] = 1;
}

template <bool BROKEN> TP_KERNEL(64) barrier_after_return(int *out)
{
    out[threadIdx.x] = 1;
    if (BROKEN && threadIdx.x % 32 >= 20)
        return;
    __syncthreads(); /* DEFECT barrier_after_return */
}

template <bool BROKEN> TP_KERNEL(48) product_of_short_warp(int *out)
{
    uint32_t a[4] = {0}, b[2] = {0};
    float d[4] = {0};
    if (BROKEN || threadIdx.x < 32)
        tp_mma_bf16(d, a, b); /* DEFECT product_of_short_warp */
    out[threadIdx.x] = d[0] == 0.0f;
}

/* The peer has gone on to the next epoch before this thread looked. */
template <bool BROKEN> TP_KERNEL(32) epoch_compared_for_equality(int *out, const uint32_t *peer)
{
    const uint32_t epoch = 4;
    if (threadIdx.x == 0) {
        while (BROKEN ? tp_ld_acquire_sys(peer) != epoch : tp_ld_acquire_sys(peer) < epoch)
            TP_SPIN_PAUSE(); /* DEFECT epoch_compared_for_equality */
    }
    __syncthreads();
    out[threadIdx.x] = 1;
}

/* No mark: the launch is named. */
template <bool BROKEN> TP_KERNEL(32) block_left_early(int *out)
{
    out[threadIdx.x] = 1;
    if (BROKEN && blockIdx.x == 1)
        return;
    tp_grid_wait();
}

/* ---- running them ---- */

enum { N_OUT = 64 };

static void *pages(size_t bytes)
{
    void *p = NULL;
    if (posix_memalign(&p, 64, bytes))
        exit(2);
    memset(p, 0, bytes);
    return p;
}

template <bool BROKEN> static int run(const char *name)
{
    int *out = (int *)pages(N_OUT * sizeof(int));
    float *in = (float *)pages(256 * sizeof(float));
    uint32_t *word = (uint32_t *)pages(16);
    const char *known = "";
#define CASE(kernel, grid, block, smem, ...)                                                       \
    if (strcmp(name, #kernel) == 0) {                                                              \
        known = name;                                                                              \
        TP_LAUNCH((kernel<BROKEN>), grid, block, smem, NULL, __VA_ARGS__);                         \
    }
    CASE(barrier_left_out, 1, 64, 0, out)
    CASE(syncwarp_left_out, 1, 32, 0, out)
    CASE(fence_left_out, 1, 64, 0, out, word)
    CASE(last_block_without_fence, 3, 32, 0, out, word)
    CASE(wait_one_group_short, 1, 32, 1024, out, in)
    CASE(dynamic_memory_short, 1, 32, 128, out)
    CASE(beyond_shared_array, 1, 32, 0, out)
    CASE(beyond_pointer, 1, 32, 0, out)
    CASE(grid_too_large, BROKEN ? 3 : 2, 32, 0, out)
    CASE(shared_memory_not_filled, 1, 32, 0, out)
    CASE(misaligned_vector, 1, 32, 0, out, in)
    CASE(misaligned_load, 1, 32, 0, out, in)
    CASE(misaligned_ldmatrix, 1, 32, 1024, out)
    CASE(aligned_by_luck, 1, 32, 0, out)
    CASE(copy_to_global, 1, 32, 1024, out, in)
    CASE(divergent_shuffle, 1, 32, 0, out)
    CASE(shuffle_of_half_a_warp, 1, 64, 0, out)
    CASE(mask_without_source, 1, 32, 0, out)
    CASE(mask_without_self, 1, 32, 0, out)
    CASE(barrier_in_branch, 1, 64, 0, out)
    CASE(barrier_after_return, 1, 64, 0, out)
    CASE(product_of_short_warp, 1, 48, 0, out)
    *word = strcmp(name, "epoch_compared_for_equality") == 0 ? 5 : 0;
    CASE(epoch_compared_for_equality, 1, 32, 0, out, word)
    emu_require_grid_wait(true);
    CASE(block_left_early, 2, 32, 0, out)
#undef CASE
    int status = TP_LAUNCH_STATUS(), bad = !*known || status;
    if (strcmp(name, "wait_one_group_short") == 0 || strcmp(name, "shared_memory_not_filled") == 0)
        for (int i = 0; i < 32; i++)
            bad |= !out[i];
    if (bad)
        fprintf(stderr, "%s: %s\n", name, *known ? "NaN reached the result" : "no such case");
    free(out);
    free(in);
    free(word);
    return bad;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: defects NAME broken|sound\n");
        return 2;
    }
    return strcmp(argv[2], "broken") == 0 ? run<true>(argv[1]) : run<false>(argv[1]);
}
