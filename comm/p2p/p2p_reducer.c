/* SPDX-License-Identifier: Apache-2.0 */
/* p2p_reducer.c - the host side of p2p.h: regions of all ranks mapped into each, and the choice of kernels.
 *
 * Ranks are processes, which exchange IPC handles, or threads of one process (virtual ranks, for tests on one device),
 * which exchange addresses.  Every step of the start ends with all ranks agreeing on how it went, so that they return
 * the same, and none maps memory that another has already freed.
 */
#include "comm/p2p/p2p_reducer.h"

#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "comm/p2p/p2p.h"

enum { WAY_ONE_SHOT, WAY_TWO_SHOT };

typedef struct p2p_reducer {
    comm_reducer base;
    comm_group *g; /* borrowed */
    kern_dev *dev;
    kern_stream stream;
    comm_p2p_team team;
    bool mapped[COMM_P2P_RANKS_MAX - 1]; /* team.peer[k] is to be unmapped */
} p2p_reducer;

/* What ranks tell each other. */
typedef struct calling_card {
    kern_dev_ipc ipc;
    void *address;
    char host[64];
    int32_t pid, status;
} calling_card;

/* ---- the end ---- */

static void unmap_peers(p2p_reducer *p)
{
    for (int k = 0; k < COMM_P2P_RANKS_MAX - 1; k++) {
        if (p->mapped[k])
            kern_dev_ipc_close(p->dev, p->team.peer[k]);
        p->mapped[k] = false;
    }
}

/* Nobody frees its region before everybody has unmapped it.  When the others do not come to that, it stays until the
 * process ends: their kernels may still push into it. */
static void p2p_destroy(comm_reducer *r)
{
    p2p_reducer *p = (p2p_reducer *)r;
    bool idle, together;

    if (p == NULL)
        return;
    idle = kern_dev_sync(p->dev, p->stream) == TP_OK;
    if (!idle)
        comm_request_abort(p->g); /* the others need not wait for us below */
    together = idle && !comm_aborted(p->g) && comm_barrier(p->g) == TP_OK;
    if (idle)
        unmap_peers(p);
    together = together && comm_barrier(p->g) == TP_OK;
    if (together)
        kern_dev_free_shared(p->dev, p->team.mine);
    if (idle)
        kern_dev_free_pinned(p->dev, p->team.report);
    tp_free(p);
}

/* ---- the start ---- */

static tp_status check_team(const comm_group *g, const comm_device *d)
{
    int n = comm_size(g);

    if (d->dev == NULL)
        return TP_REJECT(TP_ERR_UNSUPPORTED, "the backend has no device to map");
    if (n < 2 || n > COMM_P2P_RANKS_MAX)
        return TP_REJECT(TP_ERR_UNSUPPORTED, "%d ranks; peers' memory is for 2 to %d", n,
                         COMM_P2P_RANKS_MAX);
    return TP_OK;
}

static tp_status allocate(p2p_reducer *p, calling_card *own)
{
    void *region = NULL, *report = NULL;

    TP_TRY(kern_dev_alloc_shared(p->dev, COMM_P2P_REGION, &region, &own->ipc));
    p->team.mine = region;
    own->address = region;
    TP_TRY(kern_dev_alloc_pinned(p->dev, sizeof(comm_p2p_report), &report));
    memset(report, 0, sizeof(comm_p2p_report));
    p->team.report = report;
    return TP_OK;
}

static tp_status map_peer(p2p_reducer *p, int k, const calling_card *own, const calling_card *card)
{
    void *region = NULL;

    if (strcmp(own->host, card->host) != 0)
        return TP_REJECT(TP_ERR_UNSUPPORTED, "ranks on two hosts: %s and %s", own->host,
                         card->host);
    if (own->pid == card->pid) {
        p->team.peer[k] = card->address;
        return TP_OK;
    }
    if (kern_dev_ipc_open(p->dev, &card->ipc, &region) != TP_OK)
        return TP_REJECT(TP_ERR_UNSUPPORTED, "peers' memory cannot be mapped: %s", tp_last_error());
    p->team.peer[k] = region;
    p->mapped[k] = true;
    return TP_OK;
}

static tp_status map_peers(p2p_reducer *p, const calling_card *own)
{
    calling_card all[COMM_P2P_RANKS_MAX];
    int n = comm_size(p->g);
    tp_status st = TP_OK;

    TP_TRY(comm_allgather(p->g, own, all, sizeof *own));
    for (int r = 0; r < n; r++) {
        if (all[r].status != TP_OK)
            return comm_device_agree(p->g, own->status);
    }
    for (int k = 0; k < n - 1 && st == TP_OK; k++)
        st = map_peer(p, k, own, &all[(comm_rank(p->g) + 1 + k) % n]);
    return comm_device_agree(p->g, st);
}

static tp_status p2p_create(comm_reducer **out, comm_group *g, const comm_device *d,
                            size_t window_bytes, int64_t timeout_ms)
{
    p2p_reducer *p = tp_calloc(1, sizeof *p);
    calling_card own = {.pid = (int32_t)getpid()};
    tp_status st = check_team(g, d);

    (void)window_bytes; /* larger sums are cut into pieces */
    if (st == TP_OK && p == NULL)
        st = TP_FAIL(TP_ERR_NOMEM, "p2p reducer");
    st = comm_device_agree(g, st);
    if (st != TP_OK) {
        tp_free(p);
        return st;
    }
    *p = (p2p_reducer){.base = {.ops = &comm_p2p_ops, .timeout_ms = timeout_ms},
                       .g = g,
                       .dev = d->dev,
                       .stream = d->stream,
                       .team = {.n_ranks = comm_size(g), .rank = comm_rank(g)}};
    (void)gethostname(own.host, sizeof own.host - 1);
    own.status = allocate(p, &own);
    st = map_peers(p, &own);
    if (st != TP_OK) {
        p2p_destroy(&p->base);
        return st;
    }
    *out = &p->base;
    return TP_OK;
}

/* ---- sums ---- */

const comm_p2p_team *comm_p2p_get_team(comm_reducer *r)
{
    p2p_reducer *p = (p2p_reducer *)r;

    p->team.timeout_ns = (uint64_t)r->timeout_ms * 1000000u;
    return &p->team;
}

static int64_t p2p_bytes_max(const comm_reducer *r, int way)
{
    int n = ((const p2p_reducer *)r)->team.n_ranks;

    if (way == WAY_ONE_SHOT)
        return comm_p2p_one_shot_max(n) * (int64_t)sizeof(float);
    return INT64_MAX;
}

static tp_status p2p_reduce(comm_reducer *r, int way, const float *in, float *out, int64_t count)
{
    p2p_reducer *p = (p2p_reducer *)r;
    const comm_p2p_team *t = comm_p2p_get_team(r);
    int64_t most = comm_p2p_two_shot_max(t->n_ranks);

    if (way == WAY_ONE_SHOT)
        return comm_p2p_one_shot(t, in, out, count, p->stream);
    for (int64_t at = 0; at < count; at += most) {
        int64_t part = count - at < most ? count - at : most;

        TP_TRY(comm_p2p_two_shot(t, in + at, out + at, part, p->stream));
    }
    return TP_OK;
}

/* Vectors of 16 bytes; a row of every rank fits an area. */
static bool p2p_fuses_norm(const comm_reducer *r, int way, int64_t rows, int dim)
{
    int n = ((const p2p_reducer *)r)->team.n_ranks;

    (void)rows;
    return way == WAY_ONE_SHOT && dim % 4 == 0 &&
           (size_t)dim * sizeof(float) * (size_t)n <= COMM_P2P_AREA;
}

static tp_status p2p_reduce_norm(comm_reducer *r, const float *in, const kern_rmsnorm_args *a)
{
    return comm_p2p_sum_norm(comm_p2p_get_team(r), in, a, ((p2p_reducer *)r)->stream);
}

static tp_status p2p_gather(comm_reducer *r, const void *in, void *out, size_t bytes)
{
    return comm_p2p_gather(comm_p2p_get_team(r), in, out, bytes, ((p2p_reducer *)r)->stream);
}

static size_t p2p_gather_max(const comm_reducer *r)
{
    int n = ((const p2p_reducer *)r)->team.n_ranks;

    return (size_t)comm_p2p_one_shot_max(n) * sizeof(float);
}

static tp_status p2p_poll(comm_reducer *r)
{
    const p2p_reducer *p = (const p2p_reducer *)r;
    const comm_p2p_team *t = &p->team;
    uint32_t late = __atomic_load_n(&t->report->late, __ATOMIC_ACQUIRE);

    if (TP_UNLIKELY(late != 0))
        return TP_REJECT(TP_ERR_TIMEOUT, "rank %d waited %lld ms on its device for rank %u",
                         t->rank, (long long)r->timeout_ms, late - 1);
    if (TP_UNLIKELY(__atomic_load_n(&t->report->quit, __ATOMIC_ACQUIRE) != 0))
        return TP_REJECT(TP_ERR_COMM,
                         "rank %d left a sum on its device: another rank gave up, or the group "
                         "was told to abort",
                         t->rank);
    return TP_OK;
}

static void p2p_abort(comm_reducer *r)
{
    __atomic_store_n(&((p2p_reducer *)r)->team.report->abort, 1u, __ATOMIC_RELEASE);
}

static const char *const p2p_ways[] = {"p2p-1", "p2p-2", NULL};

const comm_reducer_ops comm_p2p_ops = {
    .name = "p2p",
    .ways = p2p_ways,
    .rank_order = true,
    .captures = true,
    .create = p2p_create,
    .destroy = p2p_destroy,
    .bytes_max = p2p_bytes_max,
    .reduce = p2p_reduce,
    .fuses_norm = p2p_fuses_norm,
    .reduce_norm = p2p_reduce_norm,
    .gather = p2p_gather,
    .gather_max = p2p_gather_max,
    .poll = p2p_poll,
    .abort = p2p_abort,
};
