/* SPDX-License-Identifier: Apache-2.0 */
/* emu_runtime.h - inside of the emulator: the state of one OS thread that runs kernels.
 *
 * One emu_rt per OS thread, made at its first launch.  It owns EMU_THREADS_MAX fibers, which are used again by every
 * block.  Exactly one fiber, or the main context (the OS thread's own stack), runs at a time; a fiber runs until it must
 * wait, and switches straight to the next one that is ready.  Nothing here is shared between OS threads.
 */
#ifndef KERN_EMU_RUNTIME_H
#define KERN_EMU_RUNTIME_H

#include "kernels/cuda/emu/emu.h"
#include "kernels/cuda/emu/emu_ptx.h"

#if defined(__SANITIZE_ADDRESS__)
#    define EMU_ASAN 1
#    include <sanitizer/asan_interface.h>
#    include <sanitizer/common_interface_defs.h>
#else
#    define EMU_ASAN 0
#endif
#if defined(__SANITIZE_THREAD__)
#    define EMU_TSAN 1
#    include <sanitizer/tsan_interface.h>
#else
#    define EMU_TSAN 0
#endif
/* The emulator's own accesses are not those of a CUDA thread: TSan shall not see them. */
#define EMU_RAW __attribute__((no_sanitize_thread))

enum {
    EMU_WARP = 32,
    EMU_THREADS_MAX = 1024,
    EMU_COPIES_MAX = 256, /* cp.async under way per thread */
    EMU_ARRAYS_MAX = 32,  /* TP_SHARED arrays per block */
    EMU_STATIC_SMEM = 48 * 1024,
    EMU_SMEM_MAX = 227 * 1024,
    EMU_SMEM_DEFAULT = 48 * 1024, /* dynamic bytes that need no TP_ALLOW_SMEM */
    EMU_SYNC_SLOTS = 32,
};

enum emu_state : uint8_t { EMU_READY, EMU_SPINNING, EMU_AT_BARRIER, EMU_IN_COLLECTIVE, EMU_LEFT };

/* Where a stack is left, and what the sanitizers must be told when it is entered. */
struct emu_context {
    void *sp;
    void *tsan;
    void *fake_stack; /* ASan's */
    void *mapping;
    const void *stack_bottom;
    size_t stack_size;
};

struct emu_warp;

struct emu_copy {
    void *smem;
    uint32_t data[4];
    uint32_t group;
};

struct emu_fiber {
    emu_thread self; /* first: emu_self points here */
    emu_context context;
    emu_warp *warp;
    uint16_t index, lane;
    emu_state state;
    const char *file; /* where it waits */
    int line;
    /* The copies of this thread, a ring: those of groups before open_group are committed. */
    emu_copy *copies;
    uint32_t first_copy, n_copies, open_group;
};

struct emu_warp {
    uint32_t exists, alive; /* lanes */
    uint32_t parked;        /* lanes in a collective that is not complete */
    emu_request *request[EMU_WARP];
    uint32_t next_slot; /* of sync: only TSan looks at their addresses */
    uint8_t slot[EMU_WARP];
    char sync[EMU_SYNC_SLOTS];
};

struct emu_array {
    const void *tag;
    void *p;
};

struct emu_rt {
    emu_context main;
    emu_fiber *fibers;
    emu_fiber *current; /* NULL: the main context */
    emu_warp warps[EMU_THREADS_MAX / EMU_WARP];
    emu_copy *copies;
    void *retired[EMU_THREADS_MAX]; /* TSan's threads of fibers that are gone, a ring */
    uint32_t n_retired;

    /* Fibers that can run, oldest first. */
    uint16_t ready[EMU_THREADS_MAX];
    uint32_t ready_first, n_ready;
    uint32_t n_spinning; /* of those that are ready */

    /* The block. */
    const emu_launch_info *launch;
    emu_grid grid;
    uint32_t n_threads, n_alive, n_at_barrier;
    uint32_t barrier_turn;
    char barrier_sync[2], launch_sync, exit_sync;

    /* Shared memory: static arrays first, the launch's bytes at the end, before a page that traps. */
    unsigned char *arena, *dynamic, *arena_end;
    size_t static_used;
    emu_array arrays[EMU_ARRAYS_MAX];
    uint32_t n_arrays;

    emu_schedule schedule;
    uint64_t random;
    uint64_t idle_yields;
    double idle_since;
    emu_counters counters;
};

extern __thread emu_rt *emu_this __attribute__((tls_model("initial-exec"), visibility("hidden")));

/* For TSan: what happened before a release happens before what follows the acquire of the same address. */
static inline EMU_RAW void emu_sync_release(void *p)
{
#if EMU_TSAN
    __tsan_release(p);
#else
    (void)p;
#endif
}
static inline EMU_RAW void emu_sync_acquire(void *p)
{
#if EMU_TSAN
    __tsan_acquire(p);
#else
    (void)p;
#endif
}

/* emu_fiber.cpp */
emu_rt *emu_rt_get(void);
void emu_fibers_prepare(emu_rt *rt, int n);
/* New stacks, and for TSan new threads, in place of the first n. */
void emu_fibers_renew(emu_rt *rt, int n);
/* From the main context to the first thread that is ready; back when all have left. */
void emu_enter_block(emu_rt *rt);
/* Leaves the current fiber, which has noted why it waits, for the next one; comes back when it is its turn again. */
void emu_switch_to_next(emu_rt *rt);
void emu_fiber_begin(emu_fiber *f); /* first thing on a new stack */
void *emu_map(size_t bytes);

/* emu.cpp */
void emu_run_grid(const emu_launch_info *info);
void emu_thread_body(void);
/* Makes the fibers first + i ready, for every bit i of lanes. */
void emu_wake_lanes(emu_rt *rt, emu_fiber *first, uint32_t lanes);
emu_fiber *emu_next_ready(emu_rt *rt);

/* emu_matrix.cpp */
const char *emu_request_name(const emu_request *r); /* emu_warp.cpp */
void emu_mma_serve(emu_request *const request[EMU_WARP], bool bf16);
void emu_ldmatrix_serve(emu_rt *rt, emu_request *const request[EMU_WARP], bool trans);

/* emu_smem.cpp */
void emu_smem_create(emu_rt *rt);
void emu_smem_renew(emu_rt *rt);
void emu_smem_destroy(emu_rt *rt);
void emu_smem_begin_block(emu_rt *rt);
void emu_smem_end_grid(emu_rt *rt);

/* emu_report.cpp */
struct emu_settings {
    emu_schedule schedule;
    uint64_t seed;
    double hang_s;
    bool fresh; /* blocks are strangers to each other */
    bool grid_wait;
    size_t smem_limit;
    emu_report_handler handler;
};
emu_settings *emu_get_settings(void);
double emu_seconds(void);
/* Reports a defect of the running kernel and ends the process. */
[[noreturn]] void emu_defect(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The same, with a list of what every thread waits for. */
[[noreturn]] void emu_stuck(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
