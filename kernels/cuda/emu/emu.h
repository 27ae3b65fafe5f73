/* SPDX-License-Identifier: Apache-2.0 */
/* emu.h - what device.cuh is for a host compiler: every thread of a block is a fiber (README.md has the whole picture).
 *
 * Functions that wait for other threads carry the caller's file and line as hidden default arguments: reports name them,
 * and warp collectives that meet must come from the same place.
 */
#ifndef KERN_EMU_H
#define KERN_EMU_H

#include <new>
#include <tuple>
#include <utility>

#include "kernels/cuda/emu/emu_control.h"
#include "kernels/cuda/emu/emu_math.h"
#include "kernels/cuda/emu/emu_types.h"

#define TP_DEV static inline
/* The bound is written where a launch can find it: as the number of idle instructions before the function, one per warp. */
#if defined(__GNUC__) && !defined(__clang__)
#    define EMU_WARPS(threads) (((threads) + 31) / 32)
#    define TP_KERNEL(max_threads)                                                                 \
        __attribute__((                                                                            \
            patchable_function_entry(EMU_WARPS(max_threads), EMU_WARPS(max_threads)))) void
#else /* clang takes no template parameter there */
#    define TP_KERNEL(max_threads) void
#endif
#define TP_KERNEL_MIN(max_threads, min_blocks) TP_KERNEL(max_threads)

/* Reference to an array that all threads of the block share.  The tag's address names it within the block. */
#define TP_SHARED(T, name, n)                                                                      \
    static const char name##_emu_tag = 0;                                                          \
    T(&name)[n] = *(T(*)[n])emu_shared_array(&name##_emu_tag, sizeof(T[n]), alignof(T))
#define TP_DYN_SMEM(T, name) T *name = reinterpret_cast<T *>(emu_dynamic_smem())

#define TP_LAUNCH(kernel, grid, block, smem, stream, ...)                                          \
    emu_launch(kernel, #kernel, __FILE__, __LINE__, grid, block, smem, stream, __VA_ARGS__)
#define TP_LAUNCH_STATUS()          emu_launch_status()
#define TP_LAUNCH_ERROR_NAME(e)     emu_error_name(e)
#define TP_ALLOW_SMEM(kernel, size) emu_allow_smem((void (*)(void))(kernel), (int64_t)(size))
#define TP_SPIN_PAUSE()             emu_spin_pause(__FILE__, __LINE__)

#define EMU_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

/* ---- where am I ---- */
struct emu_grid {
    dim3 grid_dim, block_dim;
    uint3 block_idx;
};
struct emu_thread {
    uint3 thread_idx;
    const emu_grid *grid;
    bool grid_waited; /* tp_grid_wait() was called */
};
/* The CUDA thread that runs on this OS thread.  Kernels read it often: no call for its address. */
extern __thread emu_thread *emu_self __attribute__((tls_model("initial-exec")));

#define threadIdx (emu_self->thread_idx)
#define blockIdx  (emu_self->grid->block_idx)
#define blockDim  (emu_self->grid->block_dim)
#define gridDim   (emu_self->grid->grid_dim)
#define warpSize  32

/* ---- the block ---- */
void *emu_shared_array(const void *tag, size_t bytes, size_t align);
void *emu_dynamic_smem(void);
void emu_barrier(const char *file, int line);
void emu_spin_pause(const char *file, int line);
void emu_fence(void);

#define __syncthreads()        emu_barrier(__FILE__, __LINE__)
#define __threadfence()        emu_fence()
#define __threadfence_system() emu_fence()
#define __threadfence_block()  emu_fence()
#define __nanosleep(ns)        emu_spin_pause(__FILE__, __LINE__)

/* ---- the warp ---- */
enum emu_op {
    EMU_SYNCWARP,
    EMU_SHFL,
    EMU_SHFL_UP,
    EMU_SHFL_DOWN,
    EMU_SHFL_XOR,
    EMU_BALLOT,
    EMU_LDMATRIX,
    EMU_LDMATRIX_TRANS,
    EMU_MMA_BF16,
    EMU_MMA_F16,
};

/* What a lane brings to a collective.  It lies on the lane's stack; the lane that comes last serves all. */
struct emu_request {
    emu_op op;
    uint32_t mask;
    const char *file;
    int line;
    int arg, width; /* shuffles */
    union {
        uint64_t value; /* shuffles: in and out; votes: in 0 or 1, out the lanes */
        struct {
            const uint32_t *a, *b;
            float *d;
        } mma;
        struct {
            const uint32_t *row;
            const void *address; /* where that row lies in shared memory */
            uint32_t *out;
        } ldmatrix;
    };
};
void emu_collective(emu_request *request);

static inline void __syncwarp(uint32_t mask = 0xffffffffu, EMU_PLACE)
{
    emu_request r = {EMU_SYNCWARP, mask, file, line, 0, 0, {0}};
    emu_collective(&r);
}

template <class T>
static inline T emu_shuffle(emu_op op, uint32_t mask, T v, int arg, int width, EMU_PLACE)
{
    static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
    emu_request r = {op, mask, file, line, arg, width, {0}};
    memcpy(&r.value, &v, sizeof(T));
    emu_collective(&r);
    memcpy(&v, &r.value, sizeof(T));
    return v;
}
template <class T>
static inline T __shfl_sync(uint32_t mask, T v, int source, int width = 32, EMU_PLACE)
{
    return emu_shuffle(EMU_SHFL, mask, v, source, width, file, line);
}
template <class T>
static inline T __shfl_up_sync(uint32_t mask, T v, unsigned delta, int width = 32, EMU_PLACE)
{
    return emu_shuffle(EMU_SHFL_UP, mask, v, (int)delta, width, file, line);
}
template <class T>
static inline T __shfl_down_sync(uint32_t mask, T v, unsigned delta, int width = 32, EMU_PLACE)
{
    return emu_shuffle(EMU_SHFL_DOWN, mask, v, (int)delta, width, file, line);
}
template <class T>
static inline T __shfl_xor_sync(uint32_t mask, T v, int lane_mask, int width = 32, EMU_PLACE)
{
    return emu_shuffle(EMU_SHFL_XOR, mask, v, lane_mask, width, file, line);
}

static inline uint32_t __ballot_sync(uint32_t mask, int predicate, EMU_PLACE)
{
    emu_request r = {EMU_BALLOT, mask, file, line, 0, 0, {predicate != 0}};
    emu_collective(&r);
    return (uint32_t)r.value;
}
static inline int __any_sync(uint32_t mask, int predicate, EMU_PLACE)
{
    return __ballot_sync(mask, predicate, file, line) != 0;
}
static inline int __all_sync(uint32_t mask, int predicate, EMU_PLACE)
{
    return __ballot_sync(mask, !predicate, file, line) == 0;
}

/* ---- launches ---- */
struct emu_launch_info {
    const char *name, *file;
    int line;
    dim3 grid, block;
    size_t smem;
    void (*body)(const emu_launch_info *); /* runs the kernel as one thread */
    void (*kernel)(void);
};
/* Room for `bytes` that begins with an emu_launch_info; NULL after it noted why this launch cannot be. */
void *emu_launch_begin(const emu_launch_info *info, size_t bytes);
void emu_launch_end(void *stream, emu_launch_info *closure);
int emu_launch_status(void);
int emu_allow_smem(void (*kernel)(void), int64_t bytes);

template <class... P> struct emu_closure {
    emu_launch_info info; /* first: emu_launch_begin() */
    void (*kernel)(P...);
    std::tuple<P...> args;

    static void body(const emu_launch_info *info)
    {
        ((const emu_closure *)info)->call(std::index_sequence_for<P...>());
    }
    template <size_t... I> void call(std::index_sequence<I...>) const
    {
        kernel(std::get<I>(args)...);
    }
};

/* Arguments are copied now; the kernel runs when the stream gets there, once or many times. */
template <class... P, class... A>
static inline void emu_launch(void (*kernel)(P...), const char *name, const char *file, int line,
                              dim3 grid, dim3 block, size_t smem, void *stream, A &&...args)
{
    typedef emu_closure<P...> closure;
    static_assert((__is_trivially_copyable(P) && ...), "arguments of a kernel are plain data");
    const emu_launch_info info = {name,  file, line,          grid,
                                  block, smem, closure::body, (void (*)(void))kernel};
    void *room = emu_launch_begin(&info, sizeof(closure));
    if (room)
        emu_launch_end(stream,
                       &(new (room) closure{info, kernel, std::tuple<P...>(args...)})->info);
}

#endif
