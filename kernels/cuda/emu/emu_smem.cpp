/* SPDX-License-Identifier: Apache-2.0 */
/* emu_smem.cpp - shared memory of a block, and the copies that arrive in it later.
 *
 * One arena per OS thread: arrays of TP_SHARED from the start, the dynamic bytes of the launch at the end, before a page
 * that traps.  Every block finds it filled with 0xff, which is NaN as FP32, BF16 and FP16.  Under ASan only what a kernel
 * asked for is accessible.  Arrays get the alignment of their type and no more: code that relies on luck fails here.
 */
#include <sys/mman.h>

#include "kernels/cuda/emu/emu_runtime.h"

enum {
    PAGE = 4096,
    ARENA = (EMU_STATIC_SMEM + EMU_SMEM_MAX) / PAGE * PAGE + 2 * PAGE,
    SLACK =
        EMU_ASAN ? PAGE : 0, /* ASan says more about a poisoned byte than about a page that traps */
};

static EMU_RAW void hide(void *p, size_t bytes)
{
#if EMU_ASAN
    __asan_poison_memory_region(p, bytes);
#else
    (void)p, (void)bytes;
#endif
}
static EMU_RAW void show(void *p, size_t bytes)
{
#if EMU_ASAN
    __asan_unpoison_memory_region(p, bytes);
#else
    (void)p, (void)bytes;
#endif
}

EMU_RAW void emu_smem_create(emu_rt *rt)
{
    rt->arena = (unsigned char *)emu_map(ARENA + PAGE);
    rt->arena_end = rt->arena + ARENA;
    mprotect(rt->arena_end, PAGE, PROT_NONE);
    memset(rt->arena, 0xff, EMU_STATIC_SMEM);
    hide(rt->arena, ARENA);
}

/* For TSan: pages that no thread has touched. */
EMU_RAW void emu_smem_renew(emu_rt *rt)
{
    emu_smem_destroy(rt);
    emu_smem_create(rt);
    rt->dynamic = NULL;
    rt->static_used = rt->n_arrays = 0;
}

EMU_RAW void emu_smem_destroy(emu_rt *rt)
{
    show(rt->arena, ARENA);
    munmap(rt->arena, ARENA + PAGE);
}

EMU_RAW void emu_smem_begin_block(emu_rt *rt)
{
    emu_smem_end_grid(rt);
    size_t bytes = rt->launch->smem;
    rt->dynamic = rt->arena_end - SLACK - (bytes + 127) / 128 * 128;
    show(rt->dynamic, bytes);
    memset(rt->dynamic, 0xff, bytes);
}

/* Takes back what the last block had, and fills it for the next one. */
EMU_RAW void emu_smem_end_grid(emu_rt *rt)
{
    if (rt->dynamic)
        hide(rt->dynamic, (size_t)(rt->arena_end - rt->dynamic));
    show(rt->arena, rt->static_used);
    memset(rt->arena, 0xff, rt->static_used);
    hide(rt->arena, (rt->static_used + 15) & ~(size_t)15);
    rt->static_used = rt->n_arrays = 0;
}

EMU_RAW void *emu_shared_array(const void *tag, size_t bytes, size_t align)
{
    emu_rt *rt = emu_this;
    for (uint32_t i = 0; i < rt->n_arrays; i++)
        if (rt->arrays[i].tag == tag)
            return rt->arrays[i].p;
    size_t unit =
        align > 16 ? align : 16; /* then 8 more where 8 will do, never a multiple of 16 by luck */
    size_t at = (rt->static_used + 16 + unit - 1) / unit * unit + (align <= 8 ? 8 : 0);
    if (at + bytes > EMU_STATIC_SMEM || rt->n_arrays == EMU_ARRAYS_MAX)
        emu_defect(rt->launch->file, rt->launch->line,
                   "the TP_SHARED arrays of a kernel take more than %d bytes or are more than %d",
                   (int)EMU_STATIC_SMEM, (int)EMU_ARRAYS_MAX);
    void *p = rt->arena + at;
    rt->static_used = at + bytes;
    rt->arrays[rt->n_arrays++] = emu_array{tag, p};
    show(p, bytes); /* filled already: a thread of the kernel must not seem to write it */
    return p;
}

EMU_RAW void *emu_dynamic_smem(void)
{
    return emu_this->dynamic;
}

EMU_RAW void emu_check_address(const void *p, emu_space space, const char *what, const char *file,
                               int line)
{
    const emu_rt *rt = emu_this;
    if ((uintptr_t)p % 16)
        emu_defect(file, line, "%s: misaligned address %p, not a multiple of 16", what, p);
    bool shared = (const unsigned char *)p >= rt->arena && (const unsigned char *)p < rt->arena_end;
    if (shared != (space == EMU_SHARED))
        emu_defect(file, line, "%s: address %p is %sshared memory", what, p, shared ? "" : "not ");
}

/* ---- cp.async ---- */

EMU_RAW void emu_copy_begin(void *smem, const uint32_t data[4], const char *file, int line)
{
    emu_fiber *f = emu_this->current;
    if (f->n_copies == EMU_COPIES_MAX)
        emu_defect(file, line, "cp.async: a thread has more than %d copies under way",
                   (int)EMU_COPIES_MAX);
    emu_copy *copy = &f->copies[(f->first_copy + f->n_copies++) % EMU_COPIES_MAX];
    copy->smem = smem;
    copy->group = f->open_group;
    for (int i = 0; i < 4; i++)
        copy->data[i] = data[i];
    hide(smem, 16);
}

EMU_RAW void emu_copy_commit(void)
{
    emu_this->current->open_group++;
}

EMU_RAW void *emu_copy_land(int n, uint32_t data[4])
{
    emu_fiber *f = emu_this->current;
    if (f->n_copies == 0)
        return NULL;
    const emu_copy *copy = &f->copies[f->first_copy % EMU_COPIES_MAX];
    if (copy->group + (uint32_t)n >= f->open_group)
        return NULL;
    f->first_copy++;
    f->n_copies--;
    for (int i = 0; i < 4; i++)
        data[i] = copy->data[i];
    show(copy->smem, 16);
    return copy->smem;
}
