/* SPDX-License-Identifier: Apache-2.0 */
/* group.c - the public face of a group: which kind, argument checks, the dead mark, the end.
 *
 * A call on a dead group returns TP_ERR_COMM at once, without a log line: the failure that killed it has been said.
 * Misuse by the caller (a root that does not exist, a payload beyond the window) is TP_ERR_INVALID and leaves the
 * group alive: all ranks pass the same arguments, so all refuse alike.
 */
#include "comm/group.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/pulse.h"
#include "comm/boot.h"
#include "comm/device/side.h"
#include "comm/life.h"

#define GROUPS_MAX 8 /* alive at once */

static atomic_bool g_abort_said; /* comm_abort() has spoken in this process, or need not */

static struct {
    pthread_mutex_t lock;
    comm_group *group[GROUPS_MAX];
    bool given_up;
} g_alive = {.lock = PTHREAD_MUTEX_INITIALIZER};

void comm_group_init(comm_group *g, const comm_ops *ops, int rank, int size,
                     const comm_options *opt)
{
    g->ops = ops;
    g->rank = rank;
    g->size = size;
    g->window_bytes = opt->window_bytes;
    g->plan_bytes_max = opt->plan_bytes_max;
    g->timeout_ms = opt->timeout_ms;
}

void comm_slice(int64_t count, int size, int rank, int64_t *begin, int64_t *end)
{
    const int64_t line = COMM_ALIGN / (int64_t)sizeof(float);
    int64_t lines = (count + line - 1) / line;
    int64_t lo = lines * rank / size * line, hi = lines * (rank + 1) / size * line;

    *begin = lo < count ? lo : count;
    *end = hi < count ? hi : count;
}

/* ---- making ---- */

static tp_status check_options(int size, const comm_options *opt)
{
    TP_ASSERT(opt != NULL && opt->kind != NULL);
    if (size < 1 || size > COMM_RANKS_MAX)
        return TP_FAIL(TP_ERR_UNSUPPORTED, "%d ranks; 1 to %d can share a model", size,
                       COMM_RANKS_MAX);
    if (opt->window_bytes == 0 || opt->plan_bytes_max == 0 || opt->plan_bytes_max > UINT32_MAX)
        return TP_FAIL(TP_ERR_INVALID, "group with a window of %zu and plans of %zu bytes",
                       opt->window_bytes, opt->plan_bytes_max);
    if (opt->timeout_ms < 0)
        return TP_FAIL(TP_ERR_INVALID, "timeout of %lld ms", (long long)opt->timeout_ms);
    return TP_OK;
}

static tp_status create_auto(comm_group **out, const comm_world *world, const comm_options *opt)
{
    tp_status st;

    if (world->size == 1)
        return comm_self_create(out, opt);
    if (world->n_hosts > 1)
        return comm_mpi_create(out, world, opt);
    st = comm_shm_create(out, world, opt); /* the same verdict on every rank */
    if (st == TP_OK)
        return TP_OK;
    if (world->rank == 0)
        tp_warn("comm", "shared memory between ranks failed; using MPI, which is slower");
    return comm_mpi_create(out, world, opt);
}

/* The lifeline gives up the groups that are remembered here when a rank is lost; one that is not would wait for ever. */
static void remember_alive(comm_group *g)
{
    bool too_late;
    int i = 0;

    pthread_mutex_lock(&g_alive.lock);
    while (i < GROUPS_MAX && g_alive.group[i] != NULL)
        i++;
    TP_ASSERT(i < GROUPS_MAX);
    g_alive.group[i] = g;
    too_late = g_alive.given_up;
    pthread_mutex_unlock(&g_alive.lock);
    if (too_late)
        comm_request_abort(g);
}

/* Groups between threads were never remembered. */
static void forget_alive(const comm_group *g)
{
    pthread_mutex_lock(&g_alive.lock);
    for (int i = 0; i < GROUPS_MAX; i++) {
        if (g_alive.group[i] == g)
            g_alive.group[i] = NULL;
    }
    pthread_mutex_unlock(&g_alive.lock);
}

void comm_give_up_all(void)
{
    pthread_mutex_lock(&g_alive.lock);
    g_alive.given_up = true;
    for (int i = 0; i < GROUPS_MAX; i++) {
        if (g_alive.group[i] != NULL)
            comm_request_abort(g_alive.group[i]);
    }
    pthread_mutex_unlock(&g_alive.lock);
}

static tp_status create_kind(comm_group **out, const comm_world *world, const comm_options *opt)
{
    if (world->size > 1 && !world->has_mpi)
        return TP_FAIL(TP_ERR_INVALID, "a group of %d ranks needs MPI to find its peers",
                       world->size);
    if (strcmp(opt->kind, "auto") == 0)
        return create_auto(out, world, opt);
    if (strcmp(opt->kind, "self") == 0) {
        if (world->size != 1)
            return TP_FAIL(TP_ERR_INVALID, "comm \"self\" is for 1 rank, this job has %d",
                           world->size);
        return comm_self_create(out, opt);
    }
    if (strcmp(opt->kind, "shm") == 0) {
        if (world->n_hosts > 1)
            return TP_FAIL(TP_ERR_INVALID,
                           "comm \"shm\" needs all ranks on one host, this job has %d hosts: use "
                           "\"mpi\" or \"auto\"",
                           world->n_hosts);
        return comm_shm_create(out, world, opt);
    }
    if (strcmp(opt->kind, "mpi") == 0) {
        if (!world->has_mpi)
            return TP_FAIL(TP_ERR_INVALID,
                           "comm \"mpi\" needs a launcher: mpirun -np N ... or srun ...");
        return comm_mpi_create(out, world, opt);
    }
    return TP_FAIL(TP_ERR_INVALID, "comm \"%s\" is unknown; there are auto, self, shm and mpi",
                   opt->kind);
}

tp_status comm_group_create(comm_group **out, const comm_world *world, const comm_options *opt)
{
    comm_group *g = NULL;

    TP_ASSERT(out != NULL && world != NULL);
    TP_TRY(check_options(world->size, opt));
    TP_TRY(create_kind(&g, world, opt));
    remember_alive(g);
    *out = g;
    return TP_OK;
}

tp_status comm_group_create_threads(comm_group **groups, int n, const comm_options *opt)
{
    TP_ASSERT(groups != NULL);
    TP_TRY(check_options(n, opt));
    return comm_shm_create_threads(groups, n, opt);
}

void comm_group_destroy(comm_group *g)
{
    if (g == NULL)
        return;
    forget_alive(g);
    comm_device_detach(g);
    g->ops->destroy(g);
}

int comm_rank(const comm_group *g)
{
    return g->rank;
}

int comm_size(const comm_group *g)
{
    return g->size;
}

const char *comm_kind(const comm_group *g)
{
    return g->ops->name;
}

float *comm_window(comm_group *g)
{
    return g->device != NULL ? comm_device_window(g) : g->ops->window(g);
}

/* ---- data path ---- */

tp_status comm_group_end(comm_group *g, tp_status st)
{
    if (TP_UNLIKELY(st != TP_OK)) {
        g->dead = true;
        g->ops->request_abort(g);
        (void)g->ops->give_up(g);
    }
    return st;
}

/* Before a call: is the group alive?  Counts the call. */
static tp_status begin(comm_group *g, const char *fault_point)
{
    if (TP_UNLIKELY(g->dead))
        return TP_REJECT(TP_ERR_COMM, "the group has failed before");
    if (TP_UNLIKELY(g->ops->give_up(g))) {
        g->dead = true;
        return TP_REJECT(TP_ERR_COMM, "the group was told to abort");
    }
    g->n_calls++;
    tp_pulse();
    if (TP_UNLIKELY(tp_fault_hit(fault_point))) {
        (void)comm_group_end(g, TP_ERR_COMM);
        return TP_FAIL(TP_ERR_COMM, "injected failure at %s", fault_point);
    }
    return TP_OK;
}

static const comm_join *join_for(comm_group *g, int n_seg)
{
    comm_join *j;
    int log2_seg = 0;

    while ((1 << log2_seg) < n_seg)
        log2_seg++;
    j = &g->join[log2_seg];
    if (TP_UNLIKELY(j->n_seg == 0))
        comm_join_init(j, n_seg, g->size);
    return j;
}

/* Devices send one root each. */
static tp_status reduce_on_device(comm_group *g, const comm_reduce_args *a)
{
    if (a->count < 0 || (uint64_t)a->count > g->window_bytes / sizeof(float))
        return TP_FAIL(TP_ERR_INVALID, "reduce of %lld elements beyond the window of %zu bytes",
                       (long long)a->count, g->window_bytes);
    TP_TRY(begin(g, "comm.reduce"));
    if (a->count == 0)
        return TP_OK;
    return comm_group_end(g, comm_device_reduce(g, a->roots, a->out, a->count));
}

tp_status comm_device_reduce_norm(comm_group *g, const float *roots, int64_t rows, int dim,
                                  const struct kern_rmsnorm_args *a)
{
    if (g->device == NULL || rows < 0 ||
        (uint64_t)rows * (uint64_t)dim > g->window_bytes / sizeof(float))
        return TP_FAIL(TP_ERR_INVALID, "sum and norm of %lld rows of %d over %d ranks",
                       (long long)rows, dim, g->size);
    TP_TRY(begin(g, "comm.reduce"));
    if (rows == 0)
        return TP_OK;
    return comm_group_end(g, comm_device_sum_norm(g, roots, rows, dim, a));
}

tp_status comm_reduce(comm_group *g, const comm_reduce_args *a)
{
    const comm_join *join;

    if (g->device != NULL)
        return reduce_on_device(g, a);
    if (a->n_seg < g->size || a->n_seg > TP_SEG_MAX || (a->n_seg & (a->n_seg - 1)) != 0)
        return TP_FAIL(TP_ERR_INVALID,
                       "reduce over %d segments by %d ranks; a power of two from the number of "
                       "ranks to %d is needed",
                       a->n_seg, g->size, TP_SEG_MAX);
    join = join_for(g, a->n_seg);
    if (a->count < 0 || (uint64_t)a->count > SIZE_MAX / sizeof(float) / TP_SEG_ROOTS_MAX ||
        (size_t)a->count * sizeof(float) * (size_t)join->n_roots_max > g->window_bytes)
        return TP_FAIL(TP_ERR_INVALID,
                       "reduce of %lld elements with %d roots beyond the window of %zu bytes",
                       (long long)a->count, join->n_roots_max, g->window_bytes);
    TP_TRY(begin(g, "comm.reduce"));
    if (a->count == 0)
        return TP_OK;
    return comm_group_end(g, g->ops->reduce(g, a, join));
}

tp_status comm_allgather(comm_group *g, const void *send, void *recv, size_t bytes)
{
    TP_TRY(begin(g, "comm.allgather"));
    if (bytes == 0)
        return TP_OK;
    return comm_group_end(g, g->ops->allgather(g, send, recv, bytes));
}

tp_status comm_device_allgather(comm_group *g, const void *send, void *recv, size_t bytes)
{
    size_t most = comm_device_allgather_max(g);

    if (bytes > most || bytes % 16 != 0)
        return TP_FAIL(TP_ERR_INVALID,
                       "gather of %zu bytes on devices: a multiple of 16 up to %zu is needed",
                       bytes, most);
    TP_TRY(begin(g, "comm.allgather"));
    if (bytes == 0)
        return TP_OK;
    return comm_group_end(g, comm_device_gather(g, send, recv, bytes));
}

tp_status comm_broadcast(comm_group *g, void *buf, size_t bytes, int root)
{
    if (root < 0 || root >= g->size)
        return TP_FAIL(TP_ERR_INVALID, "broadcast from rank %d of %d", root, g->size);
    TP_TRY(begin(g, "comm.broadcast"));
    if (bytes == 0)
        return TP_OK;
    return comm_group_end(g, g->ops->broadcast(g, buf, bytes, root));
}

tp_status comm_barrier(comm_group *g)
{
    TP_TRY(begin(g, "comm.barrier"));
    return comm_group_end(g, g->ops->barrier(g));
}

/* ---- control channel ---- */

tp_status comm_ctl_send(comm_group *g, const void *msg, size_t bytes)
{
    if (g->rank != 0)
        return TP_FAIL(TP_ERR_INVALID, "rank %d sends a control message; only rank 0 may", g->rank);
    if (bytes > g->plan_bytes_max)
        return TP_FAIL(TP_ERR_INVALID, "control message of %zu bytes; at most %zu", bytes,
                       g->plan_bytes_max);
    TP_TRY(begin(g, "comm.ctl_send"));
    return comm_group_end(g, g->ops->ctl_send(g, msg, bytes));
}

tp_status comm_ctl_recv(comm_group *g, void *msg, size_t cap, size_t *bytes, int64_t timeout_ms)
{
    tp_status st;

    if (g->rank == 0)
        return TP_FAIL(TP_ERR_INVALID, "rank 0 sends control messages; it receives none");
    TP_TRY(begin(g, "comm.ctl_recv"));
    st = g->ops->ctl_recv(g, msg, cap, bytes, timeout_ms);
    if (st == TP_ERR_TIMEOUT || st == TP_ERR_LIMIT)
        return st; /* the channel is as it was */
    return comm_group_end(g, st);
}

/* ---- the end ---- */

void comm_request_abort(comm_group *g)
{
    comm_device_abort(g);
    g->ops->request_abort(g);
}

bool comm_aborted(const comm_group *g)
{
    return g->ops->aborted(g);
}

bool comm_may_say(bool otherwise)
{
    bool may = otherwise;
    int code = COMM_EXIT_LOST;

    if (atomic_exchange(&g_abort_said, true))
        return false;
    pthread_mutex_lock(&g_alive.lock);
    for (int i = 0; i < GROUPS_MAX; i++) {
        if (g_alive.group[i] != NULL && g_alive.group[i]->ops->says_once) {
            may = g_alive.group[i]->ops->first_to_say(g_alive.group[i], &code);
            break;
        }
    }
    pthread_mutex_unlock(&g_alive.lock);
    return may;
}

TP_NORETURN void comm_abort(comm_group *g, int exit_code, const char *why)
{
    bool first = !atomic_exchange(&g_abort_said, true);

    TP_ASSERT(exit_code > 0);
    if (g != NULL) {
        first = g->ops->first_to_say(g, &exit_code) && first;
        comm_request_abort(g);
    }
    if (first)
        tp_error("comm", "ending all ranks with code %d: %s", exit_code, why);
    else
        tp_debug("comm", "leaving with code %d: %s", exit_code, why);
    comm_life_fail(exit_code, why);
    comm_boot_abort(exit_code);
}
