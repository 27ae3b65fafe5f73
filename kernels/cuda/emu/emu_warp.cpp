/* SPDX-License-Identifier: Apache-2.0 */
/* emu_warp.cpp - collectives of a warp: every lane leaves a request, the last one to come serves all and goes on.
 *
 * Lanes that meet must bring the same operation, mask and source line.  Groups of lanes with different masks may wait in
 * one warp at the same time.
 */
#include "kernels/cuda/emu/emu_runtime.h"

static EMU_RAW const char *op_name(emu_op op)
{
    static const char *const name[] = {
        "__syncwarp", "__shfl_sync", "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync",
        "a vote",     "ldmatrix",    "ldmatrix.trans", "mma (bf16)",       "mma (f16)",
    };
    return (size_t)op < sizeof(name) / sizeof(name[0]) ? name[op] : "?";
}

EMU_RAW const char *emu_request_name(const emu_request *r)
{
    return op_name(r->op);
}

static EMU_RAW void check_alike(const emu_warp *w, uint32_t lanes)
{
    const emu_request *a = w->request[__builtin_ctz(lanes)];
    for (uint32_t rest = lanes & (lanes - 1); rest; rest &= rest - 1) {
        const emu_request *b = w->request[__builtin_ctz(rest)];
        if (a->line == b->line && a->op == b->op && a->mask == b->mask &&
            (a->file == b->file || strcmp(a->file, b->file) == 0))
            continue;
        emu_defect(b->file, b->line,
                   "divergent collective: lane %d is in %s with mask %08x at %s:%d, lane %d in %s "
                   "with mask %08x at %s:%d",
                   __builtin_ctz(lanes), op_name(a->op), a->mask, a->file, a->line,
                   __builtin_ctz(rest), op_name(b->op), b->mask, b->file, b->line);
    }
}

/* The lane that `lane` reads from; itself where the instruction says so. */
static EMU_RAW int shuffle_source(const emu_request *r, int lane)
{
    int width = r->width, first = lane & ~(width - 1), last = first + width - 1, source;
    switch (r->op) {
    case EMU_SHFL: return first | (r->arg & (width - 1));
    case EMU_SHFL_UP: source = lane - r->arg; return source < first ? lane : source;
    case EMU_SHFL_DOWN: source = lane + r->arg; break;
    default: source = lane ^ r->arg; break;
    }
    return source > last ? lane : source;
}

static EMU_RAW void shuffle_serve(emu_warp *w, uint32_t lanes)
{
    uint64_t value[EMU_WARP];
    for (uint32_t rest = lanes; rest; rest &= rest - 1) {
        int lane = __builtin_ctz(rest);
        value[lane] = w->request[lane]->value;
    }
    for (uint32_t rest = lanes; rest; rest &= rest - 1) {
        int lane = __builtin_ctz(rest);
        emu_request *r = w->request[lane];
        if (r->width < 1 || r->width > 32 || (r->width & (r->width - 1)))
            emu_defect(r->file, r->line, "%s: width %d is no power of two up to 32", op_name(r->op),
                       r->width);
        int source = shuffle_source(r, lane);
        if (source < 0 || source > 31 || !(lanes >> source & 1))
            emu_defect(r->file, r->line,
                       "%s: lane %d reads from lane %d, which takes no part (mask %08x)",
                       op_name(r->op), lane, source, r->mask);
        r->value = value[source];
    }
}

static EMU_RAW void vote_serve(emu_warp *w, uint32_t lanes)
{
    uint32_t votes = 0;
    for (uint32_t rest = lanes; rest; rest &= rest - 1)
        votes |= (uint32_t)w->request[__builtin_ctz(rest)]->value << __builtin_ctz(rest);
    for (uint32_t rest = lanes; rest; rest &= rest - 1)
        w->request[__builtin_ctz(rest)]->value = votes;
}

static EMU_RAW void serve(emu_rt *rt, emu_warp *w, uint32_t lanes)
{
    const emu_request *r = w->request[__builtin_ctz(lanes)];
    if (r->op >= EMU_LDMATRIX && lanes != 0xffffffffu)
        emu_defect(r->file, r->line, "%s needs all 32 lanes, the warp has %08x", op_name(r->op),
                   lanes);
    switch (r->op) {
    case EMU_SYNCWARP: break;
    case EMU_BALLOT: vote_serve(w, lanes); break;
    case EMU_LDMATRIX: emu_ldmatrix_serve(rt, w->request, false); break;
    case EMU_LDMATRIX_TRANS: emu_ldmatrix_serve(rt, w->request, true); break;
    case EMU_MMA_BF16:
    case EMU_MMA_F16:
        rt->counters.mma++;
        emu_mma_serve(w->request, r->op == EMU_MMA_BF16);
        break;
    case EMU_SHFL:
    case EMU_SHFL_UP:
    case EMU_SHFL_DOWN:
    case EMU_SHFL_XOR: shuffle_serve(w, lanes); break;
    }
}

/* The address that TSan connects the lanes of one __syncwarp by.  Slots rotate: a lane that goes on late must not see what
 * the others did after. */
static EMU_RAW void *sync_address(emu_warp *w, uint32_t others, int lane)
{
    if (others)
        w->slot[lane] = w->slot[__builtin_ctz(others)];
    else
        w->slot[lane] = (uint8_t)(w->next_slot++ % EMU_SYNC_SLOTS);
    return &w->sync[w->slot[lane]];
}

EMU_RAW void emu_collective(emu_request *r)
{
    emu_rt *rt = emu_this;
    emu_fiber *f = rt->current;
    emu_warp *w = f->warp;
    uint32_t bit = 1u << f->lane, lanes = r->mask & w->exists;
    if (!(lanes & bit))
        emu_defect(r->file, r->line, "%s: lane %d is not in its own mask %08x", op_name(r->op),
                   f->lane, r->mask);
    if (lanes & ~w->alive)
        emu_defect(r->file, r->line, "%s with mask %08x: lanes %08x have left the kernel",
                   op_name(r->op), r->mask, lanes & ~w->alive);
    void *sync = sync_address(w, w->parked & lanes, f->lane);
    if (r->op == EMU_SYNCWARP)
        emu_sync_release(sync);
    rt->idle_yields = 0;
    w->request[f->lane] = r;
    w->parked |= bit;
    if ((w->parked & lanes) == lanes) {
        check_alike(w, lanes);
        serve(rt, w, lanes);
        w->parked &= ~lanes;
        emu_wake_lanes(rt, f - f->lane, lanes & ~bit);
    } else {
        f->state = EMU_IN_COLLECTIVE, f->file = r->file, f->line = r->line;
        emu_switch_to_next(rt);
    }
    if (r->op == EMU_SYNCWARP)
        emu_sync_acquire(sync);
}
