/* SPDX-License-Identifier: Apache-2.0 */
/* emu_launch.cpp - from TP_LAUNCH to a closure on a stream: the checks that the CUDA runtime makes, and the memory.
 *
 * Closures come from pages of their own, never from the heap: a step of the engine launches kernels and must not
 * allocate.  Freed ones are used again.
 */
#include <pthread.h>

#include "kernels/cuda/emu/emu_runtime.h"
#include "kernels/cuda/emu/emu_stream.h"

enum { CLOSURE_BYTES = 1024, CHUNK = 256 * 1024, KERNELS_MAX = 256 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of the next three */
static void *unused; /* closures, linked through their first word */
static struct {
    void (*kernel)(void);
    int64_t bytes;
} allowed[KERNELS_MAX];
static int n_allowed;

static __thread int status;

EMU_RAW int emu_launch_status(void)
{
    int s = status;
    status = EMU_OK;
    return s;
}

EMU_RAW const char *emu_error_name(int error)
{
    switch (error) {
    case EMU_OK: return "cudaSuccess";
    case EMU_ERROR_INVALID_VALUE: return "cudaErrorInvalidValue";
    case EMU_ERROR_MEMORY: return "cudaErrorMemoryAllocation";
    case EMU_ERROR_INVALID_CONFIGURATION: return "cudaErrorInvalidConfiguration";
    case EMU_ERROR_RESOURCES: return "cudaErrorLaunchOutOfResources";
    default: return "cudaErrorUnknown";
    }
}

EMU_RAW int emu_allow_smem(void (*kernel)(void), int64_t bytes)
{
    if (bytes < 0 || (uint64_t)bytes > emu_get_settings()->smem_limit)
        return EMU_ERROR_INVALID_VALUE;
    int result = EMU_OK, i = 0;
    pthread_mutex_lock(&lock);
    while (i < n_allowed && allowed[i].kernel != kernel)
        i++;
    if (i == KERNELS_MAX) {
        result = EMU_ERROR_MEMORY;
    } else {
        allowed[i].kernel = kernel;
        allowed[i].bytes = bytes;
        n_allowed += i == n_allowed;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

static EMU_RAW int64_t allowed_smem(void (*kernel)(void))
{
    int64_t bytes = EMU_SMEM_DEFAULT;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < n_allowed; i++)
        if (allowed[i].kernel == kernel && allowed[i].bytes > bytes)
            bytes = allowed[i].bytes;
    pthread_mutex_unlock(&lock);
    return bytes;
}

/* ---- TP_KERNEL's bound ---- */

/* Where the idle instructions of this module's kernels begin; the linker makes the two names. */
extern "C" {
extern const unsigned char *const __start___patchable_function_entries[]
    __attribute__((weak, visibility("hidden")));
extern const unsigned char *const __stop___patchable_function_entries[]
    __attribute__((weak, visibility("hidden")));
}

#if defined(__x86_64__)
enum { IDLE_BYTES = 1 };
#else
enum { IDLE_BYTES = 4 };
#endif

/* 0: not known. */
static EMU_RAW uint64_t threads_max(void (*kernel)(void))
{
    const unsigned char *code = (const unsigned char *)kernel;
    uint64_t nearest = UINT64_MAX;
    for (const unsigned char *const *e = __start___patchable_function_entries;
         e < __stop___patchable_function_entries; e++)
        if (*e < code && (uint64_t)(code - *e) < nearest)
            nearest = (uint64_t)(code - *e);
    uint64_t warps = nearest / IDLE_BYTES;
    return warps <= EMU_THREADS_MAX / EMU_WARP ? warps * EMU_WARP : 0;
}

static EMU_RAW int check(const emu_launch_info *l)
{
    dim3 g = l->grid, b = l->block;
    uint64_t threads = (uint64_t)b.x * b.y * b.z;
    if (g.x == 0 || g.y == 0 || g.z == 0 || threads == 0)
        return EMU_ERROR_INVALID_CONFIGURATION;
    if (g.x > 0x7fffffffu || g.y > 65535 || g.z > 65535)
        return EMU_ERROR_INVALID_CONFIGURATION;
    if (b.x > 1024 || b.y > 1024 || b.z > 64 || threads > EMU_THREADS_MAX)
        return EMU_ERROR_INVALID_CONFIGURATION;
    uint64_t bound = threads_max(l->kernel);
    if (bound > 0 && threads > bound)
        return EMU_ERROR_RESOURCES;
    if (l->smem > EMU_SMEM_DEFAULT &&
        (l->smem > emu_get_settings()->smem_limit || (int64_t)l->smem > allowed_smem(l->kernel)))
        return EMU_ERROR_INVALID_VALUE;
    return EMU_OK;
}

static EMU_RAW void *closure_take()
{
    pthread_mutex_lock(&lock);
    if (!unused) {
        unsigned char *chunk = (unsigned char *)emu_map(CHUNK);
        for (int at = 0; at < CHUNK; at += CLOSURE_BYTES) {
            *(void **)(chunk + at) = unused;
            unused = chunk + at;
        }
    }
    void *p = unused;
    unused = *(void **)p;
    pthread_mutex_unlock(&lock);
    return p;
}

static EMU_RAW void closure_drop(void *p)
{
    pthread_mutex_lock(&lock);
    *(void **)p = unused;
    unused = p;
    pthread_mutex_unlock(&lock);
}

static EMU_RAW void closure_run(void *p)
{
    emu_run_grid((const emu_launch_info *)p);
}

EMU_RAW void *emu_launch_begin(const emu_launch_info *info, size_t bytes)
{
    int error = bytes > CLOSURE_BYTES ? (int)EMU_ERROR_INVALID_VALUE : check(info);
    if (error) {
        status = error;
        return NULL;
    }
    return closure_take();
}

EMU_RAW void emu_launch_end(void *stream, emu_launch_info *closure)
{
    int error = emu_stream_enqueue(stream, closure_run, closure, closure_drop);
    if (error)
        status = error;
}

/* Where there is no device behind the emulator (tests of kernels alone), a launch runs at once. */
extern "C" __attribute__((weak)) int emu_stream_enqueue(void *stream, void (*run)(void *closure),
                                                        void *closure, void (*drop)(void *closure))
{
    (void)stream;
    run(closure);
    if (drop)
        drop(closure);
    return EMU_OK;
}
