/* SPDX-License-Identifier: Apache-2.0 */
/* shm.c - the group of ranks that share one host (or, in tests, one process).
 *
 * Memory: one region, all sizes rounded to pages:
 *     head | stage [n][2] | window [n][2] | result | control slots [COMM_CTL_SLOTS]
 * A rank writes only its own stage and windows, its slice of the result, and (rank 0) the control slots.
 *
 * Meeting.  Call number s of the group: every rank finishes its writes, notes s in arrived[rank] (for messages
 * only) and adds 1 to `count` (acq_rel).  Who brings it to n * s is last: it has acquired everybody's writes through
 * the chain of additions, and rings `go` with s (release); the others wait for go >= s (acquire).  So whatever any
 * rank wrote before the meeting is visible to all after it.  One word to wait for means one sleep and one wake-up
 * per rank and meeting, which is what decides when there are more ranks than cores.
 *
 * One-shot reduce (small): roots lie in window[rank][k & 1] for the k-th reduce; meet; every rank reads all windows
 * and finishes the whole tree.  No second meeting: buffer k & 1 is written again for reduce k + 2, at the earliest
 * after this rank has left the meeting of reduce k + 1, and every rank entered that one after it had finished
 * reading for k.  comm_window() hands out the buffer of the coming reduce, so the caller may fill it as soon as the
 * last reduce has returned.  Other collectives use the stage, with the same argument and a counter of their own.
 *
 * Two-shot reduce (from COMM_TWO_SHOT bytes per root): meet; each rank finishes its slice into `result`; meet; all
 * copy the result.  `result` is written again after the first meeting of the next large reduce, which everybody
 * enters after copying.  Of n ranks, each reads (n - 1) / n of a vector from others twice, instead of n - 1 whole
 * ones; at two ranks that saves nothing, so they always take one shot.  Which rank adds does not matter: each
 * element runs the same steps of the same join.
 *
 * Control channel: a ring of slots.  Rank 0 fills slot head % COMM_CTL_SLOTS and rings `head`; a receiver copies and
 * rings its own `tail`; rank 0 waits for the slowest tail before it reuses a slot.
 *
 * Abort: one word, set by anyone, seen by every wait at the latest one slice (100 ms) later.
 * Lost ranks: not looked for here; the lifeline (comm/life.h) sets that word.
 */
#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cores.h"
#include "base/log.h"
#include "base/mem.h"
#include "comm/group.h"
#include "comm/mpi/mpi_boot.h"
#include "comm/shm/meet.h"
#include "comm/shm/region.h"

#define PAGE        4096u
#define STAGE_BYTES (128u * 1024) /* larger all-gathers and broadcasts go in pieces */
#define SPIN_NS     (60 * 1000)   /* about a sleep and a wake-up of a virtual machine */
#define MASK_WORDS  16            /* CPUs 0..1023 */

typedef struct shm_seat {
    _Alignas(COMM_LINE) _Atomic uint32_t arrived; /* last call of this rank, for messages */
    _Atomic int32_t cpu;                          /* where this rank ran when it arrived */
    _Atomic uint32_t pid;
    comm_bell tail; /* control messages taken by this rank */
} shm_seat;

typedef struct shm_head {
    _Alignas(COMM_LINE) uint64_t token; /* region.c's, zero by now */
    _Atomic uint32_t abort;
    _Atomic uint32_t exit_code;        /* of the first comm_abort(); 0 = none yet */
    _Atomic uint32_t users;            /* threads that still hold the region */
    _Atomic uint64_t cpus[MASK_WORDS]; /* union of the ranks' affinity masks */
    _Alignas(COMM_LINE) _Atomic uint32_t count;
    comm_bell go;
    comm_bell ctl_head;
    _Atomic uint32_t ctl_bytes[COMM_CTL_SLOTS];
    shm_seat seat[COMM_RANKS_MAX];
} shm_head;

typedef struct shm_group {
    comm_group base;
    comm_region region;
    bool threads; /* the region belongs to n groups of this process */
    shm_head *head;
    char *stage;  /* [n][2][STAGE_BYTES] */
    char *window; /* [n][2][window_bytes rounded] */
    float *result;
    char *ctl; /* [COMM_CTL_SLOTS][plan_bytes rounded] */
    size_t window_stride, ctl_stride;
    int64_t spin_ns;
    uint32_t seq;      /* meetings so far */
    uint32_t n_reduce; /* parity picks the window */
    uint32_t n_stage;  /* parity picks the stage */
    uint32_t n_ctl;    /* rank 0: sent; others: taken */
} shm_group;

static size_t round_up(size_t n, size_t unit)
{
    return (n + unit - 1) / unit * unit;
}

static shm_group *self_of(comm_group *g)
{
    return (shm_group *)g;
}

static float *window_of(const shm_group *s, int rank)
{
    size_t index = (size_t)rank * 2 + (s->n_reduce & 1);

    return (float *)(void *)(s->window + index * s->window_stride);
}

static char *stage_of(const shm_group *s, int rank)
{
    return s->stage + ((size_t)rank * 2 + (s->n_stage & 1)) * STAGE_BYTES;
}

/* ---- meeting ---- */

static tp_status say_aborted(const shm_group *s, const char *what)
{
    return TP_REJECT(TP_ERR_COMM, "rank %d left %s %lld: the group was told to abort", s->base.rank,
                     what, (long long)s->base.n_calls);
}

/* Names the ranks that are missing at meeting `seq`. */
static tp_status say_late(const shm_group *s, uint32_t seq, const char *what)
{
    char who[128] = "";
    size_t len = 0;

    for (int r = 0; r < s->base.size && len < sizeof who - 32; r++) {
        const shm_seat *seat = &s->head->seat[r];

        if ((int32_t)(atomic_load(&seat->arrived) - seq) < 0)
            len += (size_t)snprintf(who + len, sizeof who - len, "%s%d (pid %u)",
                                    len > 0 ? ", " : "", r, atomic_load(&seat->pid));
    }
    return TP_FAIL(TP_ERR_TIMEOUT, "rank %d waited %lld ms in %s %lld for rank %s", s->base.rank,
                   (long long)s->base.timeout_ms, what, (long long)s->base.n_calls, who);
}

static comm_patience patience_of(const shm_group *s)
{
    return (comm_patience){
        .abort = &s->head->abort, .spin_ns = s->spin_ns, .timeout_ms = s->base.timeout_ms};
}

/* True when a rank that is still missing was last seen on our core: a busy machine's scheduler may put ranks together
 * even when there is a core for each, and spinning would then keep the missing one from running. */
static bool shares_core(const shm_group *s, uint32_t seq, int cpu)
{
    for (int r = 0; r < s->base.size; r++) {
        const shm_seat *seat = &s->head->seat[r];

        if ((int32_t)(atomic_load_explicit(&seat->arrived, memory_order_relaxed) - seq) < 0 &&
            atomic_load_explicit(&seat->cpu, memory_order_relaxed) == cpu)
            return true;
    }
    return false;
}

/* Returns when every rank has called it as often as this one. */
static tp_status meet(shm_group *s, const char *what)
{
    shm_head *h = s->head;
    uint32_t seq = ++s->seq;
    int cpu = sched_getcpu();
    comm_patience p;
    tp_status st;

    atomic_store_explicit(&h->seat[s->base.rank].cpu, cpu, memory_order_relaxed);
    atomic_store_explicit(&h->seat[s->base.rank].arrived, seq, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&h->count, 1, memory_order_acq_rel) + 1 ==
        (uint32_t)s->base.size * seq) {
        comm_bell_ring(&h->go, seq);
        return TP_OK;
    }
    p = patience_of(s);
    if (shares_core(s, seq, cpu))
        p.spin_ns = 0;
    st = comm_bell_wait(&h->go, seq, &p);
    if (TP_LIKELY(st == TP_OK))
        return TP_OK;
    return st == TP_ERR_TIMEOUT ? say_late(s, seq, what) : say_aborted(s, what);
}

/* ---- collectives ---- */

static float *shm_window(comm_group *g)
{
    return window_of(self_of(g), g->rank);
}

/* Each rank finishes a slice; all copy the whole. */
static tp_status reduce_two_shot(shm_group *s, const comm_reduce_args *a, const comm_join *join,
                                 const float **leaf)
{
    int64_t lo, hi;

    comm_slice(a->count, s->base.size, s->base.rank, &lo, &hi);
    for (int l = 0; l < join->n_leaf; l++)
        leaf[l] += lo;
    comm_join_run(join, leaf, hi - lo, s->result + lo);
    TP_TRY(meet(s, "reduce (second half)"));
    memcpy(a->out, s->result, (size_t)a->count * sizeof(float));
    return TP_OK;
}

static tp_status shm_reduce(comm_group *g, const comm_reduce_args *a, const comm_join *join)
{
    shm_group *s = self_of(g);
    const float *leaf[TP_SEG_MAX];
    float *mine = window_of(s, g->rank);
    int n_roots = join->first_leaf[g->rank + 1] - join->first_leaf[g->rank];
    size_t root_bytes = (size_t)a->count * sizeof(float);

    if (a->roots != mine)
        memcpy(mine, a->roots, (size_t)n_roots * root_bytes);
    for (int r = 0; r < g->size; r++) {
        const float *roots = window_of(s, r);

        for (int l = join->first_leaf[r]; l < join->first_leaf[r + 1]; l++, roots += a->count)
            leaf[l] = roots;
    }
    s->n_reduce++;
    TP_TRY(meet(s, "reduce"));
    if (root_bytes >= COMM_TWO_SHOT && g->size > 2)
        return reduce_two_shot(s, a, join, leaf);
    comm_join_run(join, leaf, a->count, a->out);
    return TP_OK;
}

static tp_status shm_allgather(comm_group *g, const void *send, void *recv, size_t bytes)
{
    shm_group *s = self_of(g);

    for (size_t at = 0; at < bytes; at += STAGE_BYTES) {
        size_t part = bytes - at < STAGE_BYTES ? bytes - at : STAGE_BYTES;

        memcpy(stage_of(s, g->rank), (const char *)send + at, part);
        TP_TRY(meet(s, "allgather"));
        for (int r = 0; r < g->size; r++)
            memcpy((char *)recv + (size_t)r * bytes + at, stage_of(s, r), part);
        s->n_stage++;
    }
    return TP_OK;
}

static tp_status shm_broadcast(comm_group *g, void *buf, size_t bytes, int root)
{
    shm_group *s = self_of(g);

    for (size_t at = 0; at < bytes; at += STAGE_BYTES) {
        size_t part = bytes - at < STAGE_BYTES ? bytes - at : STAGE_BYTES;

        if (g->rank == root)
            memcpy(stage_of(s, root), (char *)buf + at, part);
        TP_TRY(meet(s, "broadcast"));
        if (g->rank != root)
            memcpy((char *)buf + at, stage_of(s, root), part);
        s->n_stage++;
    }
    return TP_OK;
}

static tp_status shm_barrier(comm_group *g)
{
    return meet(self_of(g), "barrier");
}

/* ---- control channel ---- */

static char *ctl_slot(const shm_group *s, uint32_t n)
{
    return s->ctl + n % COMM_CTL_SLOTS * s->ctl_stride;
}

static tp_status shm_ctl_send(comm_group *g, const void *msg, size_t bytes)
{
    shm_group *s = self_of(g);
    shm_head *h = s->head;
    comm_patience p = patience_of(s);

    for (int r = 1; r < g->size && s->n_ctl >= COMM_CTL_SLOTS; r++) {
        tp_status st = comm_bell_wait(&h->seat[r].tail, s->n_ctl - COMM_CTL_SLOTS + 1, &p);

        if (st == TP_ERR_TIMEOUT)
            return TP_FAIL(st,
                           "rank 0 waited %lld ms for rank %d (pid %u) to take a control message",
                           (long long)g->timeout_ms, r, atomic_load(&h->seat[r].pid));
        if (st != TP_OK)
            return say_aborted(s, "control message");
    }
    memcpy(ctl_slot(s, s->n_ctl), msg, bytes);
    atomic_store_explicit(&h->ctl_bytes[s->n_ctl % COMM_CTL_SLOTS], (uint32_t)bytes,
                          memory_order_relaxed);
    s->n_ctl++;
    comm_bell_ring(&h->ctl_head, s->n_ctl);
    return TP_OK;
}

static tp_status shm_ctl_recv(comm_group *g, void *msg, size_t cap, size_t *bytes,
                              int64_t timeout_ms)
{
    shm_group *s = self_of(g);
    shm_head *h = s->head;
    comm_patience p = patience_of(s);
    size_t len;
    tp_status st;

    p.timeout_ms = timeout_ms;
    st = comm_bell_wait(&h->ctl_head, s->n_ctl + 1, &p);
    if (st == TP_ERR_TIMEOUT)
        return TP_REJECT(st, "no control message from rank 0 (pid %u) within %lld ms",
                         atomic_load(&h->seat[0].pid), (long long)timeout_ms);
    if (st != TP_OK)
        return say_aborted(s, "control channel");
    len = atomic_load_explicit(&h->ctl_bytes[s->n_ctl % COMM_CTL_SLOTS], memory_order_relaxed);
    if (len > cap)
        return TP_FAIL(TP_ERR_LIMIT, "control message of %zu bytes for a buffer of %zu", len, cap);
    memcpy(msg, ctl_slot(s, s->n_ctl), len);
    s->n_ctl++;
    comm_bell_ring(&h->seat[g->rank].tail, s->n_ctl);
    *bytes = len;
    return TP_OK;
}

/* ---- the end ---- */

static void shm_request_abort(comm_group *g)
{
    shm_head *h = self_of(g)->head;

    atomic_store(&h->abort, 1);
    comm_bell_alarm(&h->go);
    comm_bell_alarm(&h->ctl_head);
    for (int r = 1; r < g->size; r++)
        comm_bell_alarm(&h->seat[r].tail);
}

static bool shm_aborted(const comm_group *g)
{
    return atomic_load_explicit(&((const shm_group *)g)->head->abort, memory_order_relaxed) != 0;
}

static bool shm_give_up(comm_group *g)
{
    return shm_aborted(g);
}

static bool shm_first_to_say(comm_group *g, int *exit_code)
{
    uint32_t none = 0;

    if (atomic_compare_exchange_strong(&self_of(g)->head->exit_code, &none, (uint32_t)*exit_code))
        return true;
    *exit_code = (int)none;
    return false;
}

static void shm_destroy(comm_group *g)
{
    shm_group *s = self_of(g);

    if (s->head != NULL && (!s->threads || atomic_fetch_sub(&s->head->users, 1) == 1))
        comm_region_release(&s->region);
    tp_free(s);
}

static const comm_ops shm_ops = {
    .name = "shm",
    .destroy = shm_destroy,
    .window = shm_window,
    .reduce = shm_reduce,
    .allgather = shm_allgather,
    .broadcast = shm_broadcast,
    .barrier = shm_barrier,
    .ctl_send = shm_ctl_send,
    .ctl_recv = shm_ctl_recv,
    .request_abort = shm_request_abort,
    .aborted = shm_aborted,
    .give_up = shm_give_up,
    .first_to_say = shm_first_to_say,
    .says_once = true,
};

/* ---- making ---- */

/* Bytes of the region; with an address, also where its parts are. */
static size_t lay_out(shm_group *s, char *addr)
{
    size_t n = (size_t)s->base.size;
    size_t stage_at = round_up(sizeof(shm_head), PAGE);
    size_t window_at = stage_at + n * 2 * STAGE_BYTES;
    size_t result_at, ctl_at;

    s->window_stride = round_up(s->base.window_bytes, PAGE);
    s->ctl_stride = round_up(s->base.plan_bytes_max, PAGE);
    result_at = window_at + n * 2 * s->window_stride;
    ctl_at = result_at + s->window_stride;
    if (addr != NULL) {
        s->head = (shm_head *)(void *)addr;
        s->stage = addr + stage_at;
        s->window = addr + window_at;
        s->result = (float *)(void *)(addr + result_at);
        s->ctl = addr + ctl_at;
    }
    return ctl_at + COMM_CTL_SLOTS * s->ctl_stride;
}

static shm_group *new_group(int rank, int size, const comm_options *opt)
{
    shm_group *s = tp_calloc(1, sizeof *s);

    if (s != NULL)
        comm_group_init(&s->base, &shm_ops, rank, size, opt);
    return s;
}

/* Announces this rank's cores and pid. */
static void take_seat(shm_group *s)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        for (int cpu = 0; cpu < MASK_WORDS * 64 && cpu < CPU_SETSIZE; cpu++) {
            if (CPU_ISSET(cpu, &set))
                atomic_fetch_or(&s->head->cpus[cpu / 64], UINT64_C(1) << (cpu % 64));
        }
    }
    atomic_store(&s->head->seat[s->base.rank].pid, (uint32_t)getpid());
}

/* Spinning helps only when every rank has a core to itself. */
static void choose_spin(shm_group *s)
{
    double quota = tp_cores_quota();
    int n_cpus = 0;

    for (int w = 0; w < MASK_WORDS; w++)
        n_cpus += __builtin_popcountll(atomic_load(&s->head->cpus[w]));
    if (quota > 0 && quota < n_cpus)
        n_cpus = (int)quota;
    s->spin_ns = s->base.size <= n_cpus ? SPIN_NS : 0;
    if (s->base.rank == 0)
        tp_debug("comm", "shm: %d ranks on %d cores, waits %s", s->base.size, n_cpus,
                 s->spin_ns > 0 ? "spin first" : "yield first");
}

/* Advice to the kernel, not more: where it does not know it, pages come when they are first used. */
static void populate(char *from, size_t bytes, int advice)
{
    if (bytes > 0 && madvise(from, bytes, advice) != 0)
        tp_debug("comm", "memory is not made present at once: %s", strerror(errno));
}

/* Lets the memory that this rank writes come now, and to its node: what was planned is there from the start, instead of
 * growing until the largest step has run. */
static void make_present(const shm_group *s)
{
    size_t n = (size_t)s->base.size, r = (size_t)s->base.rank;
    size_t slice = round_up(s->window_stride / n, PAGE), from = r * slice;

    populate(s->stage + r * 2 * STAGE_BYTES, (size_t)2 * STAGE_BYTES, MADV_POPULATE_WRITE);
    populate(s->window + r * 2 * s->window_stride, 2 * s->window_stride, MADV_POPULATE_WRITE);
    if (from < s->window_stride)
        populate((char *)s->result + from,
                 slice < s->window_stride - from ? slice : s->window_stride - from,
                 MADV_POPULATE_WRITE);
    if (r == 0)
        populate(s->ctl, COMM_CTL_SLOTS * s->ctl_stride, MADV_POPULATE_WRITE);
}

tp_status comm_shm_create(comm_group **out, const comm_world *world, const comm_options *opt)
{
    shm_group *s = new_group(world->rank, world->size, opt);
    comm_region region = {0};
    bool all = false;
    tp_status st;

    TP_TRY_GOTO(st, comm_mpi_agree(s != NULL, &all), fail);
    if (!all) {
        st = TP_FAIL(TP_ERR_NOMEM, "a rank has no memory for its group");
        goto fail;
    }
    st = comm_region_create(&region, world, lay_out(s, NULL));
    if (st != TP_OK)
        goto fail;
    s->region = region;
    lay_out(s, region.addr);
    take_seat(s);
    make_present(s);
    st = meet(s, "start");
    if (st != TP_OK)
        goto fail;
    populate(region.addr, region.bytes, MADV_POPULATE_READ);
    choose_spin(s);
    *out = &s->base;
    return TP_OK;
fail:
    if (s != NULL)
        shm_destroy(&s->base);
    return st;
}

tp_status comm_shm_create_threads(comm_group **groups, int n, const comm_options *opt)
{
    shm_group *made[COMM_RANKS_MAX] = {NULL};
    comm_region region = {0};
    tp_status st = TP_OK;

    for (int r = 0; r < n; r++) {
        made[r] = new_group(r, n, opt);
        if (made[r] == NULL) {
            st = TP_FAIL(TP_ERR_NOMEM, "groups of %d threads", n);
            goto fail;
        }
    }
    st = comm_region_create_private(&region, lay_out(made[0], NULL));
    if (st != TP_OK)
        goto fail;
    for (int r = 0; r < n; r++) {
        made[r]->threads = true;
        made[r]->region = region;
        lay_out(made[r], region.addr);
        take_seat(made[r]);
    }
    atomic_store(&made[0]->head->users, (uint32_t)n);
    for (int r = 0; r < n; r++) {
        choose_spin(made[r]);
        groups[r] = &made[r]->base;
    }
    return TP_OK;
fail:
    for (int r = 0; r < n; r++)
        tp_free(made[r]);
    return st;
}
