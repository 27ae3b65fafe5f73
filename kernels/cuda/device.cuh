/* SPDX-License-Identifier: Apache-2.0 */
/* device.cuh - the dialect that our kernels are written in, so that nvcc and a host C++ compiler both take them.
 *
 * Rules (tests/lint checks them):
 *   1. Launch with TP_LAUNCH(kernel, grid, block, smem_bytes, stream, args...); put a template kernel in parentheses.
 *   2. Kernels are TP_KERNEL(max_threads) name(...), helpers TP_DEV.
 *   3. No __shared__: TP_SHARED(T, name, n) for fixed arrays, TP_DYN_SMEM(T, name) for the launch's bytes.
 *   4. No inline PTX and no cuda intrinsics beyond this header outside ptx.cuh.
 *   5. Whole warps leave a kernel; warp operations name their mask; no warp-synchronous code without __syncwarp.
 *   6. No static locals, no float atomics, no cooperative groups, no textures, no libraries.
 *   7. Spin loops call TP_SPIN_PAUSE() and look at an abort word.
 *   8. Sums have one order: partial results are joined by index, never by arrival.
 *
 * Usable as in CUDA: threadIdx, blockIdx, blockDim, gridDim, __syncthreads, __syncwarp, __shfl_xor_sync,
 * __shfl_sync, __shfl_down_sync, __ballot_sync, __any_sync, atomicAdd / atomicMax / atomicCAS on integers, __threadfence,
 * __threadfence_system, float4, uint4, int4, float2, uint2, __nv_bfloat16, __half and their conversions to and from float,
 * fmaf, fmaxf, expf, __expf, logf, sinf, cosf, rsqrtf, __float_as_uint, __uint_as_float, __popc, __clz, __ffs.
 */
#ifndef KERN_CUDA_DEVICE_CUH
#define KERN_CUDA_DEVICE_CUH

#include <stdint.h>

#ifdef __CUDACC__

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define TP_DEV                   static __device__ __forceinline__
#define TP_KERNEL(max_threads)   __global__ void __launch_bounds__(max_threads)
#define TP_KERNEL_MIN(max_threads, min_blocks) __global__ void __launch_bounds__(max_threads, min_blocks)
#define TP_SHARED(T, name, n)    __shared__ T name[n]
#define TP_DYN_SMEM(T, name)                                                                       \
    extern __shared__ __align__(128) unsigned char tp_dyn_smem[];                                  \
    T *name = reinterpret_cast<T *>(tp_dyn_smem)
#define TP_SPIN_PAUSE()          __nanosleep(20)
#define TP_LAUNCH(kernel, grid, block, smem, stream, ...)                                          \
    tp_launch(kernel, grid, block, smem, (cudaStream_t)(stream), __VA_ARGS__)
/* What the launches since the last call ran into: 0, or a code for tp_launch_error_name(). */
#define TP_LAUNCH_STATUS()       ((int)cudaGetLastError())
#define TP_LAUNCH_ERROR_NAME(e)  cudaGetErrorName((cudaError_t)(e))
/* Lets a kernel have more dynamic shared memory than 48 KiB. */
#define TP_ALLOW_SMEM(kernel, bytes)                                                               \
    ((int)cudaFuncSetAttribute((const void *)(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(bytes)))

extern "C" int kern_cuda_programmatic; /* launch.h: kern_cuda_set_programmatic */

/* Errors are for TP_LAUNCH_STATUS(). */
template <typename... P, typename... A>
static inline void tp_launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t smem, cudaStream_t stream, A &&...args)
{
    cudaLaunchAttribute attr = {};
    cudaLaunchConfig_t config = {};

    attr.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attr.val.programmaticStreamSerializationAllowed = 1;
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = smem;
    config.stream = stream;
    config.attrs = &attr;
    config.numAttrs = kern_cuda_programmatic != 0 ? 1 : 0;
    (void)cudaLaunchKernelEx(&config, kernel, static_cast<A &&>(args)...);
}

#else

#include "kernels/cuda/emu/emu.h"

#endif

#define TP_WARP_ALL 0xffffffffu

#endif
