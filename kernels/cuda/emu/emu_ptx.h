/* SPDX-License-Identifier: Apache-2.0 */
/* emu_ptx.h - the emulated bodies of ptx.cuh.
 *
 * A lane reads and writes memory itself, in these functions, so that the sanitizers see the access where the kernel made
 * it; only what crosses lanes happens in the emulator.
 */
#ifndef KERN_EMU_PTX_H
#define KERN_EMU_PTX_H

#include <time.h>

#include "kernels/cuda/emu/emu.h"

/* What the functions below need of the emulator. */
enum emu_space { EMU_SHARED, EMU_GLOBAL };
/* Reports an address that the instruction cannot take. */
void emu_check_address(const void *p, emu_space space, const char *what, const char *file,
                       int line);
/* Notes a copy of this thread; nobody may touch its destination from here on, until the data land. */
void emu_copy_begin(void *smem, const uint32_t data[4], const char *file, int line);
void emu_copy_commit(void);
/* Where the oldest copy that is not in the last n groups goes, accessible again, and its data; NULL: no more. */
void *emu_copy_land(int n, uint32_t data[4]);

struct EMU_VECTOR(16) emu_16_bytes {
    uint32_t word[4];
};

static inline void emu_mma(emu_op op, float d[4], const uint32_t a[4], const uint32_t b[2],
                           const char *file, int line)
{
    emu_request r = {op, 0xffffffffu, file, line, 0, 0, {0}};
    r.mma = {a, b, d};
    emu_collective(&r);
}

TP_DEV void tp_mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2], EMU_PLACE)
{
    emu_mma(EMU_MMA_BF16, d, a, b, file, line);
}

TP_DEV void tp_mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2], EMU_PLACE)
{
    emu_mma(EMU_MMA_F16, d, a, b, file, line);
}

static inline void emu_ldmatrix(emu_op op, uint32_t r[4], const void *row, const char *file,
                                int line)
{
    emu_check_address(row, EMU_SHARED, "ldmatrix", file, line);
    const emu_16_bytes data = *(const emu_16_bytes *)row;
    emu_request q = {op, 0xffffffffu, file, line, 0, 0, {0}};
    q.ldmatrix = {data.word, row, r};
    emu_collective(&q);
}

TP_DEV void tp_ldmatrix_x4(uint32_t r[4], const void *row, EMU_PLACE)
{
    emu_ldmatrix(EMU_LDMATRIX, r, row, file, line);
}

TP_DEV void tp_ldmatrix_x4_trans(uint32_t r[4], const void *row, EMU_PLACE)
{
    emu_ldmatrix(EMU_LDMATRIX_TRANS, r, row, file, line);
}

/* The destination holds NaN from here to the wait that covers the copy: reading it too soon shows. */
TP_DEV void tp_cp_async16(void *smem, const void *global, bool valid, EMU_PLACE)
{
    emu_check_address(smem, EMU_SHARED, "cp.async (destination)", file, line);
    emu_check_address(global, EMU_GLOBAL, "cp.async (source)", file, line);
    emu_16_bytes data = {};
    if (valid)
        data = *(const emu_16_bytes *)global;
    *(emu_16_bytes *)smem = emu_16_bytes{{~0u, ~0u, ~0u, ~0u}};
    emu_copy_begin(smem, data.word, file, line);
}

TP_DEV void tp_cp_async_commit()
{
    emu_copy_commit();
}

template <int N> TP_DEV void tp_cp_async_wait()
{
    emu_16_bytes data;
    while (void *smem = emu_copy_land(N, data.word))
        *(emu_16_bytes *)smem = data;
}

TP_DEV uint32_t tp_ld_acquire_sys(const uint32_t *p)
{
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

TP_DEV void tp_st_release_sys(uint32_t *p, uint32_t v)
{
    __atomic_store_n(p, v, __ATOMIC_RELEASE);
}

TP_DEV uint4 tp_ld_once(const void *p, EMU_PLACE)
{
    emu_check_address(p, EMU_GLOBAL, "16-byte load", file, line);
    return *(const uint4 *)p;
}

/* Subnormal numbers count as zero, as .ftz says. */
TP_DEV float tp_exp2(float x)
{
    float y = exp2f(x);
    return y < 0x1p-126f ? 0.0f : y;
}

/* Kernels of a stream run one after another. */
TP_DEV void tp_grid_wait()
{
    emu_self->grid_waited = true;
}

TP_DEV void tp_grid_trigger() {}

TP_DEV uint64_t tp_global_ns()
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

#endif
