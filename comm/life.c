/* SPDX-License-Identifier: Apache-2.0 */
/* life.c - the lifeline's thread: beats out, frames in, and what follows from a loss.
 *
 * The ranks form a star around rank 0.  Each end of a connection sends a beat per period and judges the other's silence.
 * A rank that was itself not running (stopped, or its host asleep) has no right to judge: what it took for silence is
 * forgiven when it notices that its own rounds came late, and what lies in its sockets is read first.
 *
 * Order after a loss.  Rank 0: log, callback (the engine tells its clients), groups, then the others.  The rest: groups
 * at once; their main thread then waits for rank 0 to leave, because a launcher kills every rank soon after the first
 * has gone.  Whoever hangs is ended here: LEAVE_MS after the notice by _exit(), which needs nobody's help.
 *
 * A launcher that says farewell to a host that does not answer is kept by that for a quarter of an hour; when it notices
 * by itself that its connection is dead (docs/faults.md says how), it is not.  So where a network may be cut, ranks
 * linger for CUT_MS, and are usually ended by the launcher.  If it notices first, its SIGTERM makes this thread look
 * whom it has not heard for some beats: comm_life_hurry().
 *
 * Who speaks: of ranks that share memory the first that notices; else rank 0, or the first rank of each host that is left
 * when rank 0 is the one that is lost.
 *
 * Lock: g.lock for the wires' sending side, the views and the loss; g.callback_lock while the callback runs, taken before
 * it.  The thread alone reads from the wires and closes them.
 */
#include "comm/life.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/pulse.h"
#include "comm/boot.h"
#include "comm/group.h"
#include "comm/life_net.h"

#define BEAT_MAX_MS 1000
#define BEAT_MIN_MS 50
#define LATE_MS     500 /* a round that comes so much later than planned: this process did not run */
#define LEAVE_MS    4000 /* from the notice to the hard end; the promise is 5 s */
#define CUT_MS      2500 /* from the notice, for the launcher to find out about a cut */
#define HURRY_MS    200
#define HURRY_BEATS 3 /* missed, and the launcher ends the job: that is why */

typedef struct peer {
    comm_wire wire;
    int64_t heard_ns;
    bool left; /* took leave */
    comm_life_view view;
} peer;

typedef struct lifeline {
    bool running; /* main thread */
    comm_world world;
    comm_life_places places;
    int64_t silence_ns, beat_ns;
    pthread_t thread;
    int wake_fd;
    pthread_mutex_t lock, callback_lock;
    peer peers[COMM_RANKS_MAX]; /* [0] only, on ranks other than 0 */
    void (*on_loss)(void *owner);
    void *owner;
    bool called; /* on_loss was, under callback_lock */
    char why[320];
    int64_t lost_ns;
    int lost_rank, how;
    /* any thread, without a lock */
    atomic_bool started, stop, lost, leader_gone;
    atomic_int hurry_asked, hurry_done;
    atomic_ullong step, step_pulse;
    atomic_bool in_step;
} lifeline;

static lifeline g = {.lock = PTHREAD_MUTEX_INITIALIZER,
                     .callback_lock = PTHREAD_MUTEX_INITIALIZER,
                     .wake_fd = -1};

static void wake(void)
{
    uint64_t one = 1;

    (void)!write(g.wake_fd, &one, sizeof one);
}

static bool is_peer(int rank)
{
    return g.world.rank == 0 ? rank > 0 && rank < g.world.size : rank == 0;
}

/* ---- what the engine tells, what is known ---- */

void comm_life_begin(uint64_t step)
{
    atomic_store_explicit(&g.step, step, memory_order_relaxed);
    atomic_store_explicit(&g.step_pulse, tp_pulse_count(), memory_order_relaxed);
    atomic_store_explicit(&g.in_step, true, memory_order_release);
}

void comm_life_end(void)
{
    atomic_store_explicit(&g.in_step, false, memory_order_release);
}

static comm_life_view own_view(void)
{
    bool in_step = atomic_load_explicit(&g.in_step, memory_order_acquire);

    return (comm_life_view){.step = atomic_load_explicit(&g.step, memory_order_relaxed),
                            .in_step = in_step,
                            .done = tp_pulse_count() -
                                    atomic_load_explicit(&g.step_pulse, memory_order_relaxed)};
}

bool comm_life_look(int rank, comm_life_view *out)
{
    if (!atomic_load(&g.started) || (rank != g.world.rank && !is_peer(rank)))
        return false;
    if (rank == g.world.rank) {
        *out = own_view();
        return true;
    }
    pthread_mutex_lock(&g.lock);
    *out = g.peers[rank].view;
    pthread_mutex_unlock(&g.lock);
    return true;
}

void comm_life_name(int rank, char *text, size_t cap)
{
    const char *host = rank >= 0 && rank < COMM_RANKS_MAX ? g.places.host[rank] : "";

    if (host[0] == '\0')
        (void)snprintf(text, cap, "rank %d", rank);
    else
        (void)snprintf(text, cap, "rank %d (pid %d) on %s", rank, g.places.pid[rank], host);
}

/* ---- a loss ---- */

static bool speaks(int lost_rank)
{
    bool beside_0 = strcmp(g.places.host[0], g.world.host) == 0;

    if (lost_rank != 0)
        return g.world.rank == 0;
    return g.world.local_rank == (beside_0 ? 1 : 0);
}

typedef enum loss {
    LOSS_ENDED, /* the process is no more */
    LOSS_MUTE   /* it may still be there: stopped, cut off, hanging */
} loss;

/* Tells the peers that this rank leaves, in order or not. */
static void send_last(comm_frame_kind kind, int code, const char *why)
{
    comm_frame f = {
        .magic = COMM_FRAME_MAGIC, .kind = (uint16_t)kind, .rank = g.world.rank, .code = code};

    (void)snprintf(f.text, sizeof f.text, "%s", why);
    pthread_mutex_lock(&g.lock);
    for (int r = 0; r < g.world.size; r++) {
        if (is_peer(r))
            (void)comm_wire_write(&g.peers[r].wire, &f);
    }
    pthread_mutex_unlock(&g.lock);
}

/* The first call counts.  quiet: somebody else has said it. */
static void lose(int rank, loss how, bool quiet, const char *why)
{
    pthread_mutex_lock(&g.lock);
    if (atomic_load(&g.lost)) {
        pthread_mutex_unlock(&g.lock);
        return;
    }
    (void)snprintf(g.why, sizeof g.why, "%s", why);
    g.lost_rank = rank;
    g.how = how;
    g.lost_ns = tp_now_ns();
    atomic_store(&g.lost, true);
    if (comm_may_say(speaks(rank)) && !quiet)
        tp_error("comm", "%s", why);
    pthread_mutex_unlock(&g.lock);
    pthread_mutex_lock(&g.callback_lock);
    if (g.on_loss != NULL && !g.called)
        g.on_loss(g.owner);
    g.called = g.on_loss != NULL;
    pthread_mutex_unlock(&g.callback_lock);
    comm_give_up_all();
    if (g.world.rank != 0) {
        if (rank == 0) /* stopped, not dead: when it is woken for its end, it need not wonder */
            send_last(COMM_FRAME_FAIL, COMM_EXIT_LOST, why);
        return;
    }
    pthread_mutex_lock(&g.lock);
    for (int r = 1; r < g.world.size; r++) {
        comm_frame f = {
            .magic = COMM_FRAME_MAGIC, .kind = COMM_FRAME_LOST, .rank = rank, .code = (int)how};

        (void)snprintf(f.text, sizeof f.text, "%s", why);
        (void)comm_wire_write(&g.peers[r].wire, &f);
    }
    pthread_mutex_unlock(&g.lock);
}

bool comm_life_lost(const char **why)
{
    if (!atomic_load(&g.lost))
        return false;
    if (why != NULL)
        *why = g.why;
    return true;
}

bool comm_life_all_leave(void)
{
    return atomic_load(&g.lost) && g.how == LOSS_ENDED;
}

void comm_life_declare(int rank, const char *why)
{
    if (!atomic_load(&g.started)) {
        tp_error("comm", "%s", why);
        return;
    }
    lose(rank, LOSS_MUTE, false, why);
    wake();
}

void comm_life_on_loss(void (*fn)(void *owner), void *owner)
{
    pthread_mutex_lock(&g.callback_lock);
    g.on_loss = fn;
    g.owner = owner;
    g.called = fn != NULL && atomic_load(&g.lost);
    if (g.called)
        fn(owner);
    pthread_mutex_unlock(&g.callback_lock);
}

/* "... in step 17: reason" */
static void say_where(char *text, size_t cap, int rank, const comm_life_view *v, const char *reason)
{
    char name[128];

    comm_life_name(rank, name, sizeof name);
    (void)snprintf(text, cap, "%s is lost %s step %llu: %s", name,
                   v->in_step ? "in" : "at rest after", (unsigned long long)v->step, reason);
}

/* How far the lost rank was: what it said last, or this rank's own step when that is further. */
static void lose_peer(int rank, loss how, const char *reason)
{
    comm_life_view theirs = g.peers[rank].view, mine = own_view();
    char why[320];

    say_where(why, sizeof why, rank, mine.step > theirs.step ? &mine : &theirs, reason);
    lose(rank, how, false, why);
}

/* ---- the thread ---- */

static void take_frame(int rank, peer *p)
{
    const comm_frame *f = &p->wire.in;

    p->heard_ns = tp_now_ns();
    switch (f->kind) {
    case COMM_FRAME_BEAT:
        pthread_mutex_lock(&g.lock);
        p->view = (comm_life_view){
            .step = f->step, .in_step = f->in_step != 0, .done = f->done, .stirs = f->stirs};
        pthread_mutex_unlock(&g.lock);
        break;
    case COMM_FRAME_LOST:
        if (rank == 0)
            lose(f->rank, f->code == LOSS_ENDED ? LOSS_ENDED : LOSS_MUTE, true, f->text);
        break;
    case COMM_FRAME_FAIL: {
        char why[360], name[128];

        comm_life_name(rank, name, sizeof name);
        (void)snprintf(why, sizeof why, "%s gave up: %s", name, f->text);
        lose(rank, LOSS_ENDED, true, why);
        break;
    }
    case COMM_FRAME_BYE: p->left = true; break;
    default: break;
    }
}

static void hear(int rank, peer *p)
{
    comm_wire_state state;

    while ((state = comm_wire_read(&p->wire)) == COMM_WIRE_FRAME)
        take_frame(rank, p);
    if (state != COMM_WIRE_CLOSED)
        return;
    pthread_mutex_lock(&g.lock);
    comm_wire_close(&p->wire);
    pthread_mutex_unlock(&g.lock);
    if (rank == 0)
        atomic_store(&g.leader_gone, true);
    if (!p->left)
        lose_peer(rank, LOSS_ENDED, "its process has ended");
}

static bool is_silent(const peer *p, int64_t now, int64_t ns)
{
    return p->wire.fd >= 0 && !p->left && now - p->heard_ns >= ns;
}

static void judge_silence(int rank, int64_t now, int64_t limit_ns)
{
    const peer *p = &g.peers[rank];
    char reason[224], others[64] = "";
    size_t len = 0;

    if (!is_silent(p, now, limit_ns))
        return;
    for (int r = rank + 1; r < g.world.size && len < sizeof others - 24; r++) {
        if (is_peer(r) && is_silent(&g.peers[r], now, limit_ns - 2 * g.beat_ns))
            len += (size_t)snprintf(others + len, sizeof others - len, "%s%d",
                                    len == 0 ? ", nor of rank " : ", ", r);
    }
    (void)snprintf(reason, sizeof reason,
                   "nothing was heard of it for %.1f s (%s)%s: stopped, or no network leads there",
                   (double)(now - p->heard_ns) / 1e9,
                   limit_ns == g.silence_ns ? "--step-timeout" : "the launcher ends the job",
                   others);
    lose_peer(rank, LOSS_MUTE, reason);
}

static void send_beats(void)
{
    comm_life_view v = own_view();
    comm_frame f = {.magic = COMM_FRAME_MAGIC,
                    .kind = COMM_FRAME_BEAT,
                    .rank = g.world.rank,
                    .in_step = v.in_step,
                    .step = v.step,
                    .done = v.done,
                    .stirs = v.stirs};

    pthread_mutex_lock(&g.lock);
    for (int r = 0; r < g.world.size; r++) {
        if (is_peer(r))
            (void)comm_wire_write(&g.peers[r].wire, &f);
    }
    pthread_mutex_unlock(&g.lock);
}

static void leave_when_over(int64_t now)
{
    if (atomic_load(&g.lost) && now - g.lost_ns >= LEAVE_MS * TP_NS_PER_MS) {
        tp_debug("comm", "not gone by itself: ending the process");
        _exit(COMM_EXIT_LOST);
    }
}

static void sleep_for_frames(int64_t until_ns)
{
    struct pollfd fds[COMM_RANKS_MAX + 1] = {{.fd = g.wake_fd, .events = POLLIN}};
    int64_t ns = until_ns - tp_now_ns();
    uint64_t count;
    int n = 1;

    for (int r = 0; r < g.world.size; r++) {
        if (is_peer(r) && g.peers[r].wire.fd >= 0)
            fds[n++] = (struct pollfd){.fd = g.peers[r].wire.fd, .events = POLLIN};
    }
    (void)poll(fds, (nfds_t)n, ns > 0 ? (int)(ns / TP_NS_PER_MS) + 1 : 0);
    if (fds[0].revents != 0)
        (void)!read(g.wake_fd, &count, sizeof count);
}

static void *live(void *unused)
{
    int64_t next_beat = tp_now_ns();

    (void)unused;
    while (!atomic_load(&g.stop)) {
        int64_t now = tp_now_ns(), limit;
        int asked;

        if (now >= next_beat) {
            send_beats();
            next_beat = now + g.beat_ns;
        }
        sleep_for_frames(next_beat);
        now = tp_now_ns();
        for (int r = 0; r < g.world.size; r++) {
            if (is_peer(r))
                hear(r, &g.peers[r]);
        }
        if (now - next_beat > LATE_MS * TP_NS_PER_MS) {
            for (int r = 0; r < g.world.size; r++)
                g.peers[r].heard_ns += now - next_beat; /* that long nobody listened */
        }
        asked = atomic_load(&g.hurry_asked);
        limit = asked != 0 && HURRY_BEATS * g.beat_ns < g.silence_ns ? HURRY_BEATS * g.beat_ns
                                                                     : g.silence_ns;
        for (int r = 0; r < g.world.size; r++) {
            if (is_peer(r))
                judge_silence(r, now, limit);
        }
        atomic_store(&g.hurry_done, asked);
        leave_when_over(now);
    }
    return NULL;
}

/* ---- life cycle ---- */

static void start_beating(const comm_life_options *opt, comm_wire *wires)
{
    int64_t beat_ms = opt->silence_ms / 8;

    beat_ms = beat_ms > BEAT_MAX_MS ? BEAT_MAX_MS : beat_ms;
    g.beat_ns = (beat_ms < BEAT_MIN_MS ? BEAT_MIN_MS : beat_ms) * TP_NS_PER_MS;
    g.silence_ns = opt->silence_ms * TP_NS_PER_MS;
    for (int r = 0; r < g.world.size; r++)
        g.peers[r] = (peer){.wire = wires[r], .heard_ns = tp_now_ns()};
}

tp_status comm_life_start(const comm_world *world, const comm_life_options *opt)
{
    comm_wire wires[COMM_RANKS_MAX];
    int64_t deadline_ns = comm_arrived() + opt->join_ms * TP_NS_PER_MS;
    tp_status st;

    TP_ASSERT(!g.running && opt->silence_ms > 0);
    if (world->size == 1)
        return TP_OK;
    if (world->size > COMM_RANKS_MAX)
        return TP_FAIL(TP_ERR_UNSUPPORTED, "%d ranks; 1 to %d can share a model", world->size,
                       COMM_RANKS_MAX);
    st = comm_life_join(wires, &g.places, world, deadline_ns);
    if (st != TP_OK) {
        (void)comm_may_say(false); /* it was said */
        return st;
    }
    g.world = *world;
    start_beating(opt, wires);
    g.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (g.wake_fd < 0 || pthread_create(&g.thread, NULL, live, NULL) != 0)
        return TP_FAIL(TP_ERR_NOMEM, "cannot start the lifeline's thread: %s", strerror(errno));
    g.running = true;
    atomic_store(&g.started, true);
    return TP_OK;
}

void comm_life_fail(int code, const char *why)
{
    if (!atomic_load(&g.started))
        return;
    pthread_mutex_lock(&g.lock); /* whoever is about to log a loss shall have done so */
    pthread_mutex_unlock(&g.lock);
    if (!atomic_load(&g.lost))
        send_last(COMM_FRAME_FAIL, code, why);
}

void comm_life_bye(void)
{
    if (g.running)
        send_last(COMM_FRAME_BYE, 0, "");
}

void comm_life_stop(void)
{
    if (!g.running)
        return;
    atomic_store(&g.started, false);
    atomic_store(&g.stop, true);
    wake();
    (void)pthread_join(g.thread, NULL);
    for (int r = 0; r < g.world.size; r++)
        comm_wire_close(&g.peers[r].wire);
    close(g.wake_fd);
    g.running = false;
}

void comm_life_hurry(void)
{
    int64_t deadline = tp_now_ns() + HURRY_MS * TP_NS_PER_MS;
    int asked;

    if (!atomic_load(&g.started))
        return;
    asked = atomic_fetch_add(&g.hurry_asked, 1) + 1;
    wake();
    while (atomic_load(&g.hurry_done) < asked && tp_now_ns() < deadline)
        tp_sleep_us(1000);
}

static void wait_until(const atomic_bool *flag, int64_t timeout_ms)
{
    int64_t deadline = tp_now_ns() + timeout_ms * TP_NS_PER_MS;

    while (!atomic_load(flag) && tp_now_ns() < deadline)
        tp_sleep_us(1000);
}

void comm_life_linger(int64_t verdict_ms, int64_t leader_ms)
{
    if (!atomic_load(&g.started))
        return;
    wait_until(&g.lost, verdict_ms);
    if (!atomic_load(&g.lost))
        return;
    while (g.world.n_hosts > 1 && g.how == LOSS_MUTE &&
           tp_now_ns() - g.lost_ns < CUT_MS * TP_NS_PER_MS)
        tp_sleep_us(5000);
    if (g.world.rank != 0 && g.lost_rank != 0)
        wait_until(&g.leader_gone, leader_ms);
}
