/* SPDX-License-Identifier: Apache-2.0 */
/* ptx.cuh - the instructions that CUDA C has no name for, each with a native and an emulated body.
 *
 * Fragments are those of the PTX manual for m16n8k16 (row.col): lane l, g = l / 4, t = l % 4:
 *   A a[0] = (g, 2t..), a[1] = (g + 8, 2t..), a[2] = (g, 2t + 8..), a[3] = (g + 8, 2t + 8..)   two 16-bit numbers each
 *   B b[0] = (k 2t.., n g), b[1] = (k 2t + 8.., n g);   C c[0..1] = (g, 2t..), c[2..3] = (g + 8, 2t..)
 */
#ifndef KERN_CUDA_PTX_CUH
#define KERN_CUDA_PTX_CUH

#include "kernels/cuda/device.cuh"

#ifdef __CUDACC__

/* d += a * b in FP32. */
TP_DEV void tp_mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

TP_DEV void tp_mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

TP_DEV uint32_t tp_smem_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* Four 8x8 tiles of 16-bit numbers; lane i gives the address of row i % 8 of tile i / 8 (16 bytes, aligned). */
TP_DEV void tp_ldmatrix_x4(uint32_t r[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(tp_smem_address(row))
                 : "memory");
}

TP_DEV void tp_ldmatrix_x4_trans(uint32_t r[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(tp_smem_address(row))
                 : "memory");
}

/* 16 bytes from global to shared memory, past the registers; zeros when !valid.  Both addresses 16-byte aligned. */
TP_DEV void tp_cp_async16(void *smem, const void *global, bool valid)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(tp_smem_address(smem)), "l"(global), "r"(valid ? 16 : 0)
                 : "memory");
}

TP_DEV void tp_cp_async_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Waits until at most N of this thread's groups are under way; other threads' need a barrier too. */
template <int N> TP_DEV void tp_cp_async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

TP_DEV uint32_t tp_ld_acquire_sys(const uint32_t *p)
{
    uint32_t v;
    asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
}

TP_DEV void tp_st_release_sys(uint32_t *p, uint32_t v)
{
    asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
}

/* 16 bytes that are read once: past L1. */
TP_DEV uint4 tp_ld_once(const void *p)
{
    uint4 v;
    asm volatile("ld.global.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p)
                 : "memory");
    return v;
}

TP_DEV float tp_exp2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Programmatic dependent launch: wait until the kernels before have finished writing; let the next one start. */
TP_DEV void tp_grid_wait()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

TP_DEV void tp_grid_trigger()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

TP_DEV uint64_t tp_global_ns()
{
    uint64_t t;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(t));
    return t;
}

#else

#include "kernels/cuda/emu/emu_ptx.h"

#endif

#endif
