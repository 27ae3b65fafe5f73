/* SPDX-License-Identifier: Apache-2.0 */
/* emu.cpp - a grid, its blocks one after another, and the threads of a block in turns.
 *
 * The order of blocks and threads, and that in which threads go on after a barrier, is the schedule: forward, reverse, or
 * random from a seed.  A kernel without races gives the same bytes in all of them.
 *
 * TSan: the launch happens before every thread, every thread before the end of its block, all that came to a barrier
 * before all that leave it.  Shuffles and matrix operations order nothing, as on the device; __syncwarp does.  The end of a
 * block orders everything unless EMU_FRESH is set: then every block has new threads, which know nothing of other blocks.
 */
#include <sched.h>

#include "kernels/cuda/emu/emu_runtime.h"

/* ---- who is next ---- */

static EMU_RAW uint32_t random_below(emu_rt *rt, uint32_t n)
{
    uint64_t x = rt->random += 0x9e3779b97f4a7c15u; /* splitmix64 */
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    x ^= x >> 31;
    return (uint32_t)(((x >> 32) * n) >> 32);
}

static EMU_RAW void make_ready(emu_rt *rt, emu_fiber *f)
{
    f->state = EMU_READY;
    rt->ready[(rt->ready_first + rt->n_ready++) % EMU_THREADS_MAX] = f->index;
}

EMU_RAW void emu_wake_lanes(emu_rt *rt, emu_fiber *first, uint32_t lanes)
{
    while (lanes) {
        int lane =
            rt->schedule == EMU_SCHED_REVERSE ? 31 - __builtin_clz(lanes) : __builtin_ctz(lanes);
        lanes &= ~(1u << lane);
        make_ready(rt, first + lane);
    }
}

EMU_RAW emu_fiber *emu_next_ready(emu_rt *rt)
{
    if (rt->n_ready == 0) {
        if (rt->n_alive > 0)
            emu_stuck("no thread of the block can go on");
        return NULL;
    }
    uint32_t head = rt->ready_first % EMU_THREADS_MAX;
    if (rt->schedule == EMU_SCHED_RANDOM) {
        uint32_t pick = (head + random_below(rt, rt->n_ready)) % EMU_THREADS_MAX;
        uint16_t chosen = rt->ready[pick];
        rt->ready[pick] = rt->ready[head];
        rt->ready[head] = chosen;
    }
    emu_fiber *f = &rt->fibers[rt->ready[head]];
    rt->ready_first++;
    rt->n_ready--;
    if (f->state == EMU_SPINNING) {
        rt->n_spinning--;
        f->state = EMU_READY;
    }
    return f;
}

/* ---- the barrier of the block ---- */

/* All threads that are left have come: they must have come to one place, and by whole warps. */
static EMU_RAW void barrier_check(emu_rt *rt)
{
    const emu_fiber *first = NULL;
    for (uint32_t i = 0; i < rt->n_threads; i++) {
        const emu_fiber *f = &rt->fibers[i];
        if (f->state == EMU_LEFT)
            continue;
        if (f->warp->alive != f->warp->exists)
            emu_stuck(
                "barrier in divergent code: of warp %u only lanes %08x came, the others left the kernel",
                i / EMU_WARP, f->warp->alive);
        if (!first)
            first = f;
        if (f->line != first->line || (f->file != first->file && strcmp(f->file, first->file) != 0))
            emu_stuck("barrier in divergent code: threads wait at %s:%d and at %s:%d", first->file,
                      first->line, f->file, f->line);
    }
}

static EMU_RAW void barrier_open(emu_rt *rt)
{
    barrier_check(rt);
    rt->n_at_barrier = 0;
    rt->barrier_turn++;
    uint32_t n_warps = (rt->n_threads + EMU_WARP - 1) / EMU_WARP;
    for (uint32_t i = 0; i < n_warps; i++) {
        uint32_t w = rt->schedule == EMU_SCHED_REVERSE ? n_warps - 1 - i : i;
        emu_wake_lanes(rt, &rt->fibers[w * EMU_WARP], rt->warps[w].alive);
    }
}

EMU_RAW void emu_barrier(const char *file, int line)
{
    emu_rt *rt = emu_this;
    emu_fiber *f = rt->current;
    f->state = EMU_AT_BARRIER, f->file = file, f->line = line;
    /* Two addresses in turn: who leaves late must not see what others did after. */
    char *sync = &rt->barrier_sync[rt->barrier_turn & 1];
    emu_sync_release(sync);
    rt->idle_yields = 0;
    if (++rt->n_at_barrier == rt->n_alive)
        barrier_open(rt);
    emu_switch_to_next(rt);
    emu_sync_acquire(sync);
}

EMU_RAW void emu_fence(void)
{
    static char order; /* one for all threads: a fence orders more here than on the device */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    emu_sync_release(&order);
    emu_sync_acquire(&order);
}

/* ---- spinning ---- */

static EMU_RAW void spin_watch(emu_rt *rt)
{
    sched_yield();
    double limit = emu_get_settings()->hang_s;
    if (limit <= 0)
        return;
    double now = emu_seconds();
    if (rt->idle_since == 0)
        rt->idle_since = now;
    else if (now - rt->idle_since > limit)
        emu_stuck("hang: for %.1f s all threads that could run have only spun", limit);
}

EMU_RAW void emu_spin_pause(const char *file, int line)
{
    emu_rt *rt = emu_this;
    emu_fiber *f = rt->current;
    f->state = EMU_SPINNING, f->file = file, f->line = line;
    if (rt->n_ready > rt->n_spinning) { /* somebody has work */
        rt->idle_yields = 0;
    } else if (rt->idle_yields++ % (rt->n_ready + 1) == rt->n_ready) { /* a round of spinners */
        if (rt->idle_yields <= rt->n_ready + 1)
            rt->idle_since = 0;
        spin_watch(rt);
    }
    make_ready(rt, f);
    f->state = EMU_SPINNING;
    rt->n_spinning++;
    emu_switch_to_next(rt);
}

/* ---- threads, blocks, grids ---- */

EMU_RAW void emu_thread_body(void)
{
    emu_rt *rt = emu_this;
    emu_fiber *f = rt->current;
    emu_sync_acquire(&rt->launch_sync);
    f->self.grid_waited = false;
    rt->launch->body(rt->launch);
    if (!f->self.grid_waited && emu_get_settings()->grid_wait)
        emu_defect(rt->launch->file, rt->launch->line,
                   "a thread left without tp_grid_wait(): under programmatic launches its block may end before "
                   "the kernels that it follows, and the next kernel does not wait for those");
    emu_sync_release(
        &rt->exit_sync); /* not launch_sync: threads that start later must not see it */

    f->state = EMU_LEFT;
    f->warp->alive &= ~(1u << f->lane);
    rt->n_alive--;
    rt->idle_yields = 0;
    if (rt->n_alive > 0 && rt->n_at_barrier == rt->n_alive)
        barrier_open(rt);
    emu_switch_to_next(rt);
}

static EMU_RAW void run_block(emu_rt *rt)
{
    uint32_t n = rt->n_threads;
    dim3 dim = rt->grid.block_dim;
    memset(rt->warps, 0, sizeof(rt->warps[0]) * ((n + EMU_WARP - 1) / EMU_WARP));
    if (emu_get_settings()->fresh) {
        emu_fibers_renew(rt, (int)n);
        emu_smem_renew(rt);
    }
    rt->n_alive = n;
    rt->n_at_barrier = rt->n_ready = rt->n_spinning = rt->ready_first = 0;
    emu_smem_begin_block(rt);
    for (uint32_t i = 0; i < n; i++) {
        emu_fiber *f = &rt->fibers[i];
        f->self.thread_idx = uint3{i % dim.x, i / dim.x % dim.y, i / dim.x / dim.y};
        f->warp->exists |= 1u << f->lane;
        f->first_copy = f->n_copies = f->open_group = 0;
        f->file = NULL;
    }
    uint32_t n_warps = (n + EMU_WARP - 1) / EMU_WARP;
    for (uint32_t i = 0; i < n_warps; i++) {
        uint32_t w = rt->schedule == EMU_SCHED_REVERSE ? n_warps - 1 - i : i;
        rt->warps[w].alive = rt->warps[w].exists;
        emu_wake_lanes(rt, &rt->fibers[w * EMU_WARP], rt->warps[w].exists);
    }
    rt->counters.blocks++;
    emu_sync_release(&rt->launch_sync);
    emu_enter_block(rt);
    if (!emu_get_settings()->fresh)
        emu_sync_acquire(&rt->exit_sync);
}

/* Block i of n in the order of the schedule; a random order is a step that shares no factor with n. */
struct block_order {
    uint64_t n, step, start;
};

static EMU_RAW block_order order_blocks(emu_rt *rt, uint64_t n)
{
    if (rt->schedule == EMU_SCHED_REVERSE)
        return block_order{n, n - 1, n - 1};
    if (rt->schedule == EMU_SCHED_FORWARD || n > UINT32_MAX)
        return block_order{n, 1, 0};
    for (;;) {
        uint64_t step = 1 + random_below(rt, (uint32_t)n), a = step, b = n;
        while (b) {
            uint64_t rest = a % b;
            a = b;
            b = rest;
        }
        if (a == 1)
            return block_order{n, step, random_below(rt, (uint32_t)n)};
    }
}

EMU_RAW void emu_run_grid(const emu_launch_info *info)
{
    emu_rt *rt = emu_rt_get();
    if (rt->current)
        emu_defect(info->file, info->line, "a kernel launches another: not supported");
    const emu_settings *s = emu_get_settings();
    rt->launch = info;
    rt->grid.grid_dim = info->grid;
    rt->grid.block_dim = info->block;
    rt->n_threads = info->block.x * info->block.y * info->block.z;
    rt->schedule = s->schedule;
    rt->random = s->seed * 0x2545f4914f6cdd1du + (uint64_t)rt->counters.launches++;
    rt->idle_yields = 0;
    emu_fibers_prepare(rt, (int)rt->n_threads);

    uint64_t n = (uint64_t)info->grid.x * info->grid.y * info->grid.z;
    block_order order = order_blocks(rt, n);
    uint64_t b = order.start;
    for (uint64_t i = 0; i < n; i++) {
        rt->grid.block_idx =
            uint3{(unsigned)(b % info->grid.x), (unsigned)(b / info->grid.x % info->grid.y),
                  (unsigned)(b / info->grid.x / info->grid.y)};
        run_block(rt);
        b = (b + order.step) % n;
    }
    emu_sync_acquire(&rt->exit_sync);
    emu_smem_end_grid(rt);
    rt->launch = NULL;
}
