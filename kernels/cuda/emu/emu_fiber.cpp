/* SPDX-License-Identifier: Apache-2.0 */
/* emu_fiber.cpp - stacks and the switch between them.
 *
 * A switch saves what the calling convention makes the callee's business and swaps the stack pointers: no system call, no
 * signal mask.  Stacks are coloured: equal frames of neighbouring lanes would otherwise fall into the same cache sets,
 * which made a switch seven times slower.  Every stack ends in a page that traps.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "kernels/cuda/emu/emu_runtime.h"

__thread emu_thread *emu_self;
__thread emu_rt *emu_this;

/* Saves the registers on this stack, its pointer at *from, and continues on the other stack. */
extern "C" __attribute__((visibility("hidden"))) void emu_switch_stack(void **from, void *to);

#if defined(__x86_64__)
asm(R"(
    .text
    .p2align 4
    .globl emu_switch_stack
    .hidden emu_switch_stack
    .type emu_switch_stack, @function
emu_switch_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size emu_switch_stack, .-emu_switch_stack
)");
/* Words below the top of a new stack: six registers, where to begin, and the return address of nobody. */
enum { FRAME_WORDS = 8, FRAME_ENTRY = 6 };
#elif defined(__aarch64__)
asm(R"(
    .text
    .p2align 4
    .globl emu_switch_stack
    .hidden emu_switch_stack
    .type emu_switch_stack, %function
emu_switch_stack:
    stp x29, x30, [sp, #-160]!
    stp x19, x20, [sp, #16]
    stp x21, x22, [sp, #32]
    stp x23, x24, [sp, #48]
    stp x25, x26, [sp, #64]
    stp x27, x28, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #16]
    ldp x21, x22, [sp, #32]
    ldp x23, x24, [sp, #48]
    ldp x25, x26, [sp, #64]
    ldp x27, x28, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    ldp x29, x30, [sp], #160
    ret
    .size emu_switch_stack, .-emu_switch_stack
)");
enum { FRAME_WORDS = 20, FRAME_ENTRY = 1 };
#else
#    error "emu_switch_stack is missing for this architecture"
#endif

enum {
    PAGE = 4096,
    COLOUR_STEP = 512, /* bytes between the tops of neighbours, modulo a page */
#if EMU_ASAN || EMU_TSAN
    STACK = 256 * 1024,
#else
    STACK = 128 * 1024,
#endif
};

static pthread_key_t rt_key;
static pthread_once_t rt_once = PTHREAD_ONCE_INIT;

EMU_RAW void *emu_map(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    if (p == MAP_FAILED)
        emu_defect(__FILE__, __LINE__, "the emulator could not map %zu bytes: %m", bytes);
    return p;
}

static EMU_RAW void fiber_main()
{
    emu_rt *rt = emu_this;
    emu_fiber_begin(rt->current);
    for (;;)
        emu_thread_body(); /* once per block; comes back when the next one begins */
}

static EMU_RAW void fiber_create(emu_rt *rt, int index)
{
    emu_fiber *f = &rt->fibers[index];
    f->index = (uint16_t)index;
    f->lane = (uint16_t)(index % EMU_WARP);
    f->warp = &rt->warps[index / EMU_WARP];
    f->copies = rt->copies + (size_t)index * EMU_COPIES_MAX;
    f->self.grid = &rt->grid;

    unsigned char *base = (unsigned char *)emu_map(STACK + PAGE);
    mprotect(base, PAGE, PROT_NONE);
    unsigned char *top = base + PAGE + STACK - (size_t)index * COLOUR_STEP % PAGE;
    f->context.mapping = base;
    f->context.stack_bottom = base + PAGE;
    f->context.stack_size = STACK;
    void **frame = (void **)top - FRAME_WORDS;
    memset(frame, 0, FRAME_WORDS * sizeof(void *));
    frame[FRAME_ENTRY] = (void *)fiber_main;
    f->context.sp = frame;
#if EMU_TSAN
    f->context.tsan = __tsan_create_fiber(0);
#endif
}

/* TSan gives the number of a dead thread to a new one soon, and takes what both did for one thread's.  So a thread is kept
 * until EMU_THREADS_MAX others have died. */
static EMU_RAW void tsan_retire(emu_rt *rt, void *tsan)
{
#if EMU_TSAN
    void **slot = &rt->retired[rt->n_retired++ % EMU_THREADS_MAX];
    if (*slot)
        __tsan_destroy_fiber(*slot);
    *slot = tsan;
#else
    (void)rt, (void)tsan;
#endif
}

static EMU_RAW void fiber_destroy(emu_rt *rt, emu_fiber *f)
{
    tsan_retire(rt, f->context.tsan);
    munmap(f->context.mapping, STACK + PAGE);
    memset(&f->context, 0, sizeof(f->context));
}

static EMU_RAW void rt_destroy(void *p)
{
    emu_rt *rt = (emu_rt *)p;
    for (int i = 0; i < EMU_THREADS_MAX && rt->fibers[i].context.mapping; i++)
        fiber_destroy(rt, &rt->fibers[i]);
    for (int i = 0; i < EMU_THREADS_MAX; i++)
        tsan_retire(rt, NULL);
    munmap(rt->fibers, EMU_THREADS_MAX * sizeof(emu_fiber));
    munmap(rt->copies, sizeof(emu_copy) * EMU_COPIES_MAX * EMU_THREADS_MAX);
    emu_smem_destroy(rt);
    munmap(rt, sizeof(*rt));
    emu_this = NULL;
}

static void rt_make_key()
{
    pthread_key_create(&rt_key, rt_destroy);
}

EMU_RAW emu_rt *emu_rt_get(void)
{
    if (emu_this)
        return emu_this;
    pthread_once(&rt_once, rt_make_key);
    emu_rt *rt = (emu_rt *)emu_map(sizeof(emu_rt));
    rt->fibers = (emu_fiber *)emu_map(EMU_THREADS_MAX * sizeof(emu_fiber));
    rt->copies = (emu_copy *)emu_map(sizeof(emu_copy) * EMU_COPIES_MAX * EMU_THREADS_MAX);
    emu_smem_create(rt);
#if EMU_TSAN
    rt->main.tsan = __tsan_get_current_fiber();
#endif
    pthread_setspecific(rt_key, rt);
    emu_this = rt;
    return rt;
}

EMU_RAW void emu_fibers_prepare(emu_rt *rt, int n)
{
    for (int i = 0; i < n; i++)
        if (!rt->fibers[i].context.mapping)
            fiber_create(rt, i);
}

EMU_RAW void emu_fibers_renew(emu_rt *rt, int n)
{
    for (int i = 0; i < n && rt->fibers[i].context.mapping; i++)
        fiber_destroy(rt, &rt->fibers[i]);
    emu_fibers_prepare(rt, n);
}

/* The sanitizers must know the stack that is entered before it is, and where it came from afterwards. */
static inline EMU_RAW void context_switch(emu_context *from, emu_context *to)
{
#if EMU_ASAN
    __sanitizer_start_switch_fiber(&from->fake_stack, to->stack_bottom, to->stack_size);
#endif
#if EMU_TSAN
    __tsan_switch_to_fiber(to->tsan, __tsan_switch_to_fiber_no_sync);
#endif
    emu_switch_stack(&from->sp, to->sp);
#if EMU_ASAN
    __sanitizer_finish_switch_fiber(from->fake_stack, NULL, NULL);
#endif
}

EMU_RAW void emu_fiber_begin(emu_fiber *f)
{
#if EMU_ASAN
    emu_rt *rt = emu_this;
    const void *bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(NULL, &bottom, &size);
    if (!rt->main.stack_bottom) { /* the first fiber that ever ran came from there */
        rt->main.stack_bottom = bottom;
        rt->main.stack_size = size;
    }
#endif
    (void)f;
}

EMU_RAW void emu_enter_block(emu_rt *rt)
{
    emu_fiber *to = emu_next_ready(rt);
    rt->current = to;
    emu_self = &to->self;
    rt->counters.switches++;
    context_switch(&rt->main, &to->context);
}

EMU_RAW void emu_switch_to_next(emu_rt *rt)
{
    emu_fiber *from = rt->current, *to = emu_next_ready(rt);
    if (to == from)
        return;
    rt->current = to;
    rt->counters.switches++;
    if (to) {
        emu_self = &to->self;
        context_switch(&from->context, &to->context);
    } else {
        emu_self = NULL;
        context_switch(&from->context, &rt->main);
    }
}
