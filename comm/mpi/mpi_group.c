/* SPDX-License-Identifier: Apache-2.0 */
/* mpi_group.c - the group over whatever transport MPI has: ranks on several hosts.
 *
 * Everything is nonblocking point-to-point plus one wait loop, because blocking MPI calls have no deadline, hear no
 * abort and, in Open MPI 4, never return when a peer is gone.  With at most 64 ranks, all-to-all exchanges of the
 * direct kind are also the fewest steps.
 *
 * Reduce, small: all roots go to all ranks, each finishes the tree.  Large (COMM_TWO_SHOT): slice p of all roots
 * goes to rank p, which finishes it and sends the result to all.  The bits are the same: each element runs the same
 * steps of the same join.
 *
 * Abort: an empty message on the control communicator.  Only the engine thread may call MPI, so another thread's
 * comm_request_abort() sets a flag; the engine thread passes it on at its next look, in a wait or a call.
 * Control: one Isend per peer out of a ring of slots; receivers keep one receive posted and test it, with sleeps
 * that grow from 20 us to 1 ms, so an idle rank costs a few per cent of a core.
 *
 * After a failed wait requests may still be under way: a dead group is not taken apart, its memory stays until the
 * process ends.  Lost ranks: not looked for here; the lifeline (comm/life.h) requests an abort.
 */
#include <mpi.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "base/clock.h"
#include "base/cores.h"
#include "base/log.h"
#include "base/mem.h"
#include "comm/group.h"
#include "comm/mpi/mpi_boot.h"
#include "comm/mpi/mpi_try.h"

#define TAG_DATA     1
#define TAG_CTL      2
#define TAG_ABORT    3
#define POLLS_A_LOOK 64                /* tests between two looks at clock and abort */
#define BUSY_NS      (2 * 1000 * 1000) /* then sleep between tests */
#define NAP_US       50
#define CTL_BUSY_NS  (100 * 1000)
#define CTL_NAP_US   20
#define CTL_NAP_MAX  1000
#define LAST_WORD_US (300 * 1000)

typedef struct mpi_group {
    comm_group base;
    MPI_Comm data, ctl;    /* owned; own communicators keep our tags from everybody else's */
    float *window;         /* owned */
    float *scratch;        /* owned; peers' roots, see scratch_floats() */
    char *slots;           /* owned; rank 0: [COMM_CTL_SLOTS][plan], others: one plan */
    MPI_Request *requests; /* owned; [n_requests_max] */
    int *peers;            /* owned; of each request */
    int n_requests;
    MPI_Request ctl_requests[COMM_CTL_SLOTS][COMM_RANKS_MAX]; /* rank 0: sends out of each slot */
    MPI_Request ctl_recv;                                     /* others: the posted receive */
    MPI_Request abort_recv;                                   /* posted from the start */
    struct mpi_group *next_dead;
    uint32_t n_ctl;
    bool yield; /* more ranks than cores here */
    bool abort_sent, told_by_peer;
    atomic_bool abort, said;
} mpi_group;

static mpi_group *g_dead; /* groups that could not be taken apart */

static mpi_group *self_of(comm_group *g)
{
    return (mpi_group *)g;
}

/* ---- waiting ---- */

/* Hears and passes on aborts.  True: give up. */
static bool look_for_abort(mpi_group *m)
{
    int came = 0;

    if (m->abort_recv != MPI_REQUEST_NULL &&
        MPI_Test(&m->abort_recv, &came, MPI_STATUS_IGNORE) == MPI_SUCCESS && came)
        m->told_by_peer = !atomic_exchange(&m->abort, true);
    if (!atomic_load_explicit(&m->abort, memory_order_relaxed))
        return false;
    if (!m->abort_sent) {
        m->abort_sent = true;
        for (int r = 0; r < m->base.size; r++) {
            MPI_Request req;

            if (r != m->base.rank &&
                MPI_Isend(NULL, 0, MPI_BYTE, r, TAG_ABORT, m->ctl, &req) == MPI_SUCCESS)
                (void)MPI_Request_free(&req);
        }
    }
    return true;
}

static int first_pending(const mpi_group *m)
{
    for (int i = 0; i < m->n_requests; i++) {
        if (m->requests[i] != MPI_REQUEST_NULL)
            return m->peers[i];
    }
    return -1;
}

static tp_status say_late(const mpi_group *m, const char *what)
{
    return TP_FAIL(TP_ERR_TIMEOUT, "rank %d waited %lld ms in %s %lld for rank %d", m->base.rank,
                   (long long)m->base.timeout_ms, what, (long long)m->base.n_calls,
                   first_pending(m));
}

static tp_status say_aborted(const mpi_group *m, const char *what)
{
    return TP_REJECT(TP_ERR_COMM, "rank %d left %s %lld: the group was told to abort", m->base.rank,
                     what, (long long)m->base.n_calls);
}

/* Waits for m->requests and empties the list. */
static tp_status wait_all(mpi_group *m, const char *what)
{
    int64_t start = 0;

    for (int64_t poll = 1;; poll++) {
        int done = 0;
        int64_t now;

        COMM_MPI_TRY(MPI_Testall(m->n_requests, m->requests, &done, MPI_STATUSES_IGNORE));
        if (done) {
            m->n_requests = 0;
            return TP_OK;
        }
        if (m->yield || start != 0)
            sched_yield();
        if (poll % POLLS_A_LOOK != 0)
            continue;
        if (look_for_abort(m))
            return say_aborted(m, what);
        now = tp_now_ns();
        if (start == 0)
            start = now;
        if (m->base.timeout_ms > 0 && now - start >= m->base.timeout_ms * TP_NS_PER_MS)
            return say_late(m, what);
        if (now - start >= BUSY_NS) {
            tp_sleep_us(NAP_US);
            poll = POLLS_A_LOOK - 1; /* from now on each test looks and naps */
        }
    }
}

static tp_status post_send(mpi_group *m, const void *buf, size_t bytes, int peer)
{
    TP_ASSERT(bytes <= INT32_MAX);
    m->peers[m->n_requests] = peer;
    COMM_MPI_TRY(MPI_Isend(buf, (int)bytes, MPI_BYTE, peer, TAG_DATA, m->data,
                           &m->requests[m->n_requests++]));
    return TP_OK;
}

static tp_status post_recv(mpi_group *m, void *buf, size_t bytes, int peer)
{
    TP_ASSERT(bytes <= INT32_MAX);
    m->peers[m->n_requests] = peer;
    COMM_MPI_TRY(MPI_Irecv(buf, (int)bytes, MPI_BYTE, peer, TAG_DATA, m->data,
                           &m->requests[m->n_requests++]));
    return TP_OK;
}

/* ---- collectives ---- */

static float *mpi_window(comm_group *g)
{
    return self_of(g)->window;
}

static int n_roots_of(const comm_join *join, int rank)
{
    return join->first_leaf[rank + 1] - join->first_leaf[rank];
}

static tp_status reduce_one_shot(mpi_group *m, const comm_reduce_args *a, const comm_join *join)
{
    const float *leaf[TP_SEG_MAX];
    float *at = m->scratch;

    for (int r = 0; r < m->base.size; r++) {
        int n = n_roots_of(join, r);
        const float *roots = r == m->base.rank ? a->roots : at;

        for (int i = 0; i < n; i++)
            leaf[join->first_leaf[r] + i] = roots + i * a->count;
        if (r == m->base.rank)
            continue;
        TP_TRY(post_recv(m, at, (size_t)(n * a->count) * sizeof(float), r));
        at += n * a->count;
    }
    for (int i = 1; i < m->base.size; i++) { /* each rank starts with another peer */
        int r = (m->base.rank + i) % m->base.size;
        size_t bytes = (size_t)(n_roots_of(join, m->base.rank) * a->count) * sizeof(float);

        TP_TRY(post_send(m, a->roots, bytes, r));
    }
    TP_TRY(wait_all(m, "reduce"));
    comm_join_run(join, leaf, a->count, a->out);
    return TP_OK;
}

/* Slices of all roots to their finishers. */
static tp_status exchange_slices(mpi_group *m, const comm_reduce_args *a, const comm_join *join,
                                 const float **leaf)
{
    int64_t lo, hi;
    float *at = m->scratch;

    comm_slice(a->count, m->base.size, m->base.rank, &lo, &hi);
    for (int r = 0; r < m->base.size; r++) {
        for (int i = 0; i < n_roots_of(join, r); i++) {
            int l = join->first_leaf[r] + i;

            leaf[l] = r == m->base.rank ? a->roots + i * a->count + lo : at;
            if (r == m->base.rank)
                continue;
            TP_TRY(post_recv(m, at, (size_t)(hi - lo) * sizeof(float), r));
            at += hi - lo;
        }
    }
    for (int k = 1; k < m->base.size; k++) {
        int r = (m->base.rank + k) % m->base.size;

        comm_slice(a->count, m->base.size, r, &lo, &hi);
        for (int i = 0; i < n_roots_of(join, m->base.rank); i++)
            TP_TRY(
                post_send(m, a->roots + i * a->count + lo, (size_t)(hi - lo) * sizeof(float), r));
    }
    return wait_all(m, "reduce");
}

static tp_status reduce_two_shot(mpi_group *m, const comm_reduce_args *a, const comm_join *join)
{
    const float *leaf[TP_SEG_MAX];
    int64_t my_lo, my_hi;

    TP_TRY(exchange_slices(m, a, join, leaf));
    comm_slice(a->count, m->base.size, m->base.rank, &my_lo, &my_hi);
    comm_join_run(join, leaf, my_hi - my_lo, a->out + my_lo);
    for (int k = 1; k < m->base.size; k++) {
        int r = (m->base.rank + k) % m->base.size;
        int64_t lo, hi;

        comm_slice(a->count, m->base.size, r, &lo, &hi);
        TP_TRY(post_recv(m, a->out + lo, (size_t)(hi - lo) * sizeof(float), r));
    }
    for (int k = 1; k < m->base.size; k++)
        TP_TRY(post_send(m, a->out + my_lo, (size_t)(my_hi - my_lo) * sizeof(float),
                         (m->base.rank + k) % m->base.size));
    return wait_all(m, "reduce (second half)");
}

static tp_status mpi_reduce(comm_group *g, const comm_reduce_args *a, const comm_join *join)
{
    if ((size_t)a->count * sizeof(float) >= COMM_TWO_SHOT)
        return reduce_two_shot(self_of(g), a, join);
    return reduce_one_shot(self_of(g), a, join);
}

static tp_status mpi_allgather(comm_group *g, const void *send, void *recv, size_t bytes)
{
    mpi_group *m = self_of(g);

    memcpy((char *)recv + (size_t)g->rank * bytes, send, bytes);
    for (int k = 1; k < g->size; k++) {
        int r = (g->rank + k) % g->size;

        TP_TRY(post_recv(m, (char *)recv + (size_t)r * bytes, bytes, r));
    }
    for (int k = 1; k < g->size; k++)
        TP_TRY(post_send(m, send, bytes, (g->rank + k) % g->size));
    return wait_all(m, "allgather");
}

/* Binomial tree over ranks counted from the root: who has the data at step d sends it d further. */
static tp_status mpi_broadcast(comm_group *g, void *buf, size_t bytes, int root)
{
    mpi_group *m = self_of(g);
    int me = (g->rank - root + g->size) % g->size;
    int step = 1;

    while (step <= me)
        step *= 2;
    if (me > 0) { /* step / 2 is my highest bit: my parent has it cleared */
        TP_TRY(post_recv(m, buf, bytes, (me - step / 2 + root) % g->size));
        TP_TRY(wait_all(m, "broadcast"));
    }
    for (; me + step < g->size; step *= 2)
        TP_TRY(post_send(m, buf, bytes, (me + step + root) % g->size));
    return wait_all(m, "broadcast");
}

/* Dissemination: after step d everybody has heard, directly or not, of the 2 d ranks before it. */
static tp_status mpi_barrier(comm_group *g)
{
    mpi_group *m = self_of(g);

    for (int step = 1; step < g->size; step *= 2) {
        TP_TRY(post_recv(m, NULL, 0, (g->rank - step + g->size) % g->size));
        TP_TRY(post_send(m, NULL, 0, (g->rank + step) % g->size));
        TP_TRY(wait_all(m, "barrier"));
    }
    return TP_OK;
}

/* ---- control channel ---- */

static tp_status mpi_ctl_send(comm_group *g, const void *msg, size_t bytes)
{
    mpi_group *m = self_of(g);
    uint32_t slot = m->n_ctl % COMM_CTL_SLOTS;
    char *copy = m->slots + slot * g->plan_bytes_max;

    if (m->n_ctl >= COMM_CTL_SLOTS) { /* the messages that left from this slot before */
        for (int r = 1; r < g->size; r++) {
            m->peers[m->n_requests] = r;
            m->requests[m->n_requests++] = m->ctl_requests[slot][r];
        }
        TP_TRY(wait_all(m, "control message"));
    }
    memcpy(copy, msg, bytes);
    for (int r = 1; r < g->size; r++)
        COMM_MPI_TRY(
            MPI_Isend(copy, (int)bytes, MPI_BYTE, r, TAG_CTL, m->ctl, &m->ctl_requests[slot][r]));
    m->n_ctl++;
    return TP_OK;
}

static tp_status post_ctl_recv(mpi_group *m)
{
    COMM_MPI_TRY(MPI_Irecv(m->slots, (int)m->base.plan_bytes_max, MPI_BYTE, 0, TAG_CTL, m->ctl,
                           &m->ctl_recv));
    return TP_OK;
}

/* Until the posted receive is done; *status then describes it. */
static tp_status await_ctl(mpi_group *m, int64_t timeout_ms, MPI_Status *status)
{
    int64_t start = 0, nap = CTL_NAP_US;

    for (;;) {
        int done = 0;
        int64_t now;

        COMM_MPI_TRY(MPI_Request_get_status(m->ctl_recv, &done, status));
        if (done)
            return TP_OK;
        if (look_for_abort(m))
            return say_aborted(m, "control channel");
        now = tp_now_ns();
        if (start == 0)
            start = now;
        if (timeout_ms > 0 && now - start >= timeout_ms * TP_NS_PER_MS)
            return TP_REJECT(TP_ERR_TIMEOUT, "no control message from rank 0 within %lld ms",
                             (long long)timeout_ms);
        if (now - start < CTL_BUSY_NS) {
            if (m->yield)
                sched_yield();
            continue;
        }
        tp_sleep_us(nap);
        nap = nap * 5 / 4 < CTL_NAP_MAX ? nap * 5 / 4 : CTL_NAP_MAX;
    }
}

static tp_status mpi_ctl_recv(comm_group *g, void *msg, size_t cap, size_t *bytes,
                              int64_t timeout_ms)
{
    mpi_group *m = self_of(g);
    MPI_Status status;
    int len = 0;

    TP_TRY(await_ctl(m, timeout_ms, &status));
    COMM_MPI_TRY(MPI_Get_count(&status, MPI_BYTE, &len));
    if ((size_t)len > cap)
        return TP_FAIL(TP_ERR_LIMIT, "control message of %d bytes for a buffer of %zu", len, cap);
    memcpy(msg, m->slots, (size_t)len);
    COMM_MPI_TRY(MPI_Wait(&m->ctl_recv, MPI_STATUS_IGNORE));
    TP_TRY(post_ctl_recv(m));
    *bytes = (size_t)len;
    return TP_OK;
}

/* ---- the end ---- */

static void mpi_request_abort(comm_group *g)
{
    atomic_store(&self_of(g)->abort, true);
}

static bool mpi_aborted(const comm_group *g)
{
    return atomic_load_explicit(&((const mpi_group *)g)->abort, memory_order_relaxed);
}

static bool mpi_give_up(comm_group *g)
{
    return look_for_abort(self_of(g));
}

/* Who was told by a peer leaves the last word, and the exit code, to it: MPI_Abort there ends us, too. */
static bool mpi_first_to_say(comm_group *g, int *exit_code)
{
    mpi_group *m = self_of(g);

    (void)exit_code;
    if (m->told_by_peer)
        tp_sleep_us(LAST_WORD_US);
    return !m->told_by_peer && !atomic_exchange(&m->said, true);
}

static void cancel(MPI_Request *r)
{
    if (*r == MPI_REQUEST_NULL)
        return;
    (void)MPI_Cancel(r);
    (void)MPI_Wait(r, MPI_STATUS_IGNORE);
}

static void free_group(mpi_group *m)
{
    tp_free(m->window);
    tp_free(m->scratch);
    tp_free(m->slots);
    tp_free(m->requests);
    tp_free(m->peers);
    tp_free(m);
}

static void mpi_destroy(comm_group *g)
{
    mpi_group *m = self_of(g);

    if (g->dead || mpi_aborted(g)) {
        m->next_dead = g_dead;
        g_dead = m;
        return;
    }
    for (int s = 0; s < COMM_CTL_SLOTS && g->rank == 0; s++)
        (void)MPI_Waitall(g->size, m->ctl_requests[s], MPI_STATUSES_IGNORE);
    (void)MPI_Barrier(m->data); /* nobody sends any more */
    cancel(&m->ctl_recv);
    cancel(&m->abort_recv);
    (void)MPI_Comm_free(&m->data);
    (void)MPI_Comm_free(&m->ctl);
    free_group(m);
}

static const comm_ops mpi_ops = {
    .name = "mpi",
    .destroy = mpi_destroy,
    .window = mpi_window,
    .reduce = mpi_reduce,
    .allgather = mpi_allgather,
    .broadcast = mpi_broadcast,
    .barrier = mpi_barrier,
    .ctl_send = mpi_ctl_send,
    .ctl_recv = mpi_ctl_recv,
    .request_abort = mpi_request_abort,
    .aborted = mpi_aborted,
    .give_up = mpi_give_up,
    .first_to_say = mpi_first_to_say,
};

/* ---- making ---- */

/* One shot: all roots of all ranks, each below COMM_TWO_SHOT.  Two shots: one slice of them; a rank's roots together
 * fit the window, and slices are rounded up to whole lines. */
static size_t scratch_bytes(const comm_group *g)
{
    size_t one = (size_t)TP_SEG_MAX * COMM_TWO_SHOT;
    size_t two = g->window_bytes + (size_t)TP_SEG_MAX * 2 * COMM_ALIGN;

    return one > two ? one : two;
}

static mpi_group *new_group(const comm_world *world, const comm_options *opt)
{
    mpi_group *m = tp_calloc(1, sizeof *m);
    size_t n_requests_max = 2 * (size_t)world->size * TP_SEG_ROOTS_MAX;
    size_t n_slots = world->rank == 0 ? COMM_CTL_SLOTS : 1;

    if (m == NULL)
        return NULL;
    comm_group_init(&m->base, &mpi_ops, world->rank, world->size, opt);
    m->data = m->ctl = MPI_COMM_NULL;
    m->ctl_recv = m->abort_recv = MPI_REQUEST_NULL;
    for (int s = 0; s < COMM_CTL_SLOTS; s++) {
        for (int r = 0; r < COMM_RANKS_MAX; r++)
            m->ctl_requests[s][r] = MPI_REQUEST_NULL;
    }
    m->window = tp_aligned_alloc(COMM_ALIGN, opt->window_bytes);
    m->scratch = tp_aligned_alloc(COMM_ALIGN, scratch_bytes(&m->base));
    m->slots = tp_malloc(n_slots * opt->plan_bytes_max);
    m->requests = tp_calloc(n_requests_max, sizeof(MPI_Request));
    m->peers = tp_calloc(n_requests_max, sizeof(int));
    m->yield = world->local_size > tp_cores_usable();
    if (m->window == NULL || m->scratch == NULL || m->slots == NULL || m->requests == NULL ||
        m->peers == NULL) {
        free_group(m);
        return NULL;
    }
    return m;
}

/* MPI counts bytes in an int. */
static tp_status check_sizes(const comm_options *opt)
{
    if (opt->window_bytes > INT32_MAX || opt->plan_bytes_max > INT32_MAX)
        return TP_FAIL(TP_ERR_INVALID,
                       "windows of %zu and plans of %zu bytes; MPI takes up to 2 GiB",
                       opt->window_bytes, opt->plan_bytes_max);
    return TP_OK;
}

static tp_status connect_group(mpi_group *m)
{
    COMM_MPI_TRY(MPI_Comm_dup(MPI_COMM_WORLD, &m->data));
    COMM_MPI_TRY(MPI_Comm_dup(MPI_COMM_WORLD, &m->ctl));
    COMM_MPI_TRY(MPI_Comm_set_errhandler(m->data, MPI_ERRORS_RETURN));
    COMM_MPI_TRY(MPI_Comm_set_errhandler(m->ctl, MPI_ERRORS_RETURN));
    COMM_MPI_TRY(MPI_Irecv(NULL, 0, MPI_BYTE, MPI_ANY_SOURCE, TAG_ABORT, m->ctl, &m->abort_recv));
    if (m->base.rank != 0)
        TP_TRY(post_ctl_recv(m));
    return TP_OK;
}

tp_status comm_mpi_create(comm_group **out, const comm_world *world, const comm_options *opt)
{
    mpi_group *m;
    bool all = false;

    TP_TRY(check_sizes(opt));
    m = new_group(world, opt);
    TP_TRY(comm_mpi_agree(m != NULL, &all));
    if (!all) {
        if (m != NULL)
            free_group(m);
        return TP_FAIL(TP_ERR_NOMEM, "a rank has no memory for its group");
    }
    TP_TRY(connect_group(m)); /* a failure here is the end of the job; m stays */
    *out = &m->base;
    return TP_OK;
}
