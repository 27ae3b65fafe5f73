/* SPDX-License-Identifier: Apache-2.0 */
/* team.c - see team.h.
 *
 * Operations of a small model take tens of microseconds each, and putting a thread to sleep and waking it costs as
 * much: between operations members look at the gate for a while (SPIN_NS) before they sleep.
 *
 * The gate is one word: number of the run (16 bits) | closed (1 bit) | members inside (15 bits).
 *   open     the caller writes the work, then the gate: a new number, open, nobody inside
 *   enter    a member that finds an open gate adds itself by compare-and-swap (acquire: it sees the work)
 *   close    the caller, when no items are left, sets the closed bit; the members inside are then fixed
 *   leave    each of them adds 1 to `left` (release); the caller waits for as many as came in
 * A member that sleeps through 65536 runs may take an open gate for the one it knows and miss it: nobody waits for it.
 * Between its look and its swap the word may come around to the same value: then the gate is open all the same.
 *
 * Items go out in runs that shrink: 1 / (2 * team) of what is left, so that each thread walks through long stretches of
 * memory and all finish together.  How work is cut never changes a result.
 *
 * Two threads on one core: who waits there only keeps the other from working, so a member that saw the caller on its own
 * core sleeps at once, and a caller gives its core away.
 */
#include "kernels/cpu/team.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "base/futex.h"
#include "base/mem.h"

#define LINE         64
#define CLOSED       (UINT32_C(1) << 15)
#define INSIDE       (CLOSED - 1)
#define NUMBER       (UINT32_C(1) << 16)
#define SPIN_NS      (60 * TP_NS_PER_US) /* about a sleep and a wake-up on a virtual machine */
#define SPINS_A_LOOK 64                  /* loads of a word between two looks at the clock */

typedef struct member {
    _Alignas(LINE) _Atomic int32_t cpu; /* where it was when it came in */
    kern_team *team;
    pthread_t thread;
    int id;
} member;

struct kern_team {
    _Alignas(LINE) _Atomic uint32_t gate;
    _Atomic uint32_t sleepers;
    _Atomic int32_t cpu; /* of the caller */
    _Atomic bool stop;
    kern_team_work work;                 /* written while the gate is closed and nobody is inside */
    _Alignas(LINE) _Atomic int64_t next; /* first item that nobody has taken */
    _Alignas(LINE) _Atomic uint32_t left;
    _Atomic uint32_t caller_sleeps;
    _Alignas(LINE) atomic_flag busy;
    int n_threads, n_started;
    member *members; /* owned: [n_threads - 1] */
};

/* ---- work ---- */

static bool take(kern_team *t, int64_t *begin, int64_t *end)
{
    const kern_team_work *w = &t->work;
    int64_t at = atomic_load_explicit(&t->next, memory_order_relaxed), n;

    do {
        if (at >= w->n)
            return false;
        n = (w->n - at) / (2 * t->n_threads);
        n = n > w->step ? n - n % w->step : w->step;
        n = w->most > 0 && n > w->most ? w->most : n;
        n = n < w->n - at ? n : w->n - at;
    } while (!atomic_compare_exchange_weak_explicit(&t->next, &at, at + n, memory_order_relaxed,
                                                    memory_order_relaxed));
    *begin = at;
    *end = at + n;
    return true;
}

static void work_on(kern_team *t, int id)
{
    const kern_team_work *w = &t->work;
    int64_t begin, end;

    if (!take(t, &begin, &end))
        return;
    if (w->begin != NULL)
        w->begin();
    do
        w->run(w->args, begin, end, id);
    while (take(t, &begin, &end));
    if (w->end != NULL)
        w->end();
}

/* ---- members ---- */

static bool is_news(uint32_t gate, uint32_t known)
{
    return gate / NUMBER != known / NUMBER;
}

/* The gate, when its number is no longer the known one: looked at for a while, then slept on. */
static uint32_t wait_for_news(kern_team *t, uint32_t known)
{
    uint32_t gate = atomic_load_explicit(&t->gate, memory_order_relaxed);

    if (sched_getcpu() != atomic_load_explicit(&t->cpu, memory_order_relaxed)) {
        int64_t start = tp_now_ns();

        do {
            for (int i = 0; i < SPINS_A_LOOK; i++) {
                gate = atomic_load_explicit(&t->gate, memory_order_relaxed);
                if (is_news(gate, known))
                    return gate;
                tp_relax();
            }
        } while (tp_now_ns() - start < SPIN_NS);
    }
    atomic_fetch_add(&t->sleepers,
                     1); /* before the word is looked at: the caller rings after writing it */
    while (!is_news(gate = atomic_load(&t->gate), known) && !atomic_load(&t->stop))
        tp_futex_wait(&t->gate, gate, 0);
    atomic_fetch_sub(&t->sleepers, 1);
    return gate;
}

static bool enter(kern_team *t, uint32_t *gate)
{
    while ((*gate & CLOSED) == 0)
        if (atomic_compare_exchange_weak_explicit(&t->gate, gate, *gate + 1, memory_order_acquire,
                                                  memory_order_relaxed))
            return true;
    return false;
}

static void leave(kern_team *t)
{
    atomic_fetch_add(&t->left, 1);
    if (atomic_load(&t->caller_sleeps) != 0)
        tp_futex_wake_all(&t->left);
}

static void *be_member(void *arg)
{
    member *m = arg;
    kern_team *t = m->team;
    uint32_t known = CLOSED;

    while (!atomic_load(&t->stop)) {
        known = wait_for_news(t, known);
        if (!enter(t, &known))
            continue;
        atomic_store_explicit(&m->cpu, sched_getcpu(), memory_order_relaxed);
        work_on(t, m->id);
        leave(t);
    }
    return NULL;
}

/* ---- the caller ---- */

static bool shares_core(const kern_team *t)
{
    int cpu = sched_getcpu();

    for (int i = 0; i < t->n_started; i++)
        if (atomic_load_explicit(&t->members[i].cpu, memory_order_relaxed) == cpu)
            return true;
    return false;
}

static void wait_for_leaving(kern_team *t, uint32_t inside)
{
    int64_t start;
    uint32_t left;

    if (atomic_load_explicit(&t->left, memory_order_acquire) == inside)
        return;
    start = tp_now_ns();
    do {
        for (int i = 0; i < SPINS_A_LOOK; i++) {
            if (atomic_load_explicit(&t->left, memory_order_acquire) == inside)
                return;
            tp_relax();
        }
    } while (!shares_core(t) && tp_now_ns() - start < SPIN_NS);
    atomic_store(&t->caller_sleeps, 1);
    while ((left = atomic_load(&t->left)) != inside)
        tp_futex_wait(&t->left, left, 0);
    atomic_store(&t->caller_sleeps, 0);
}

static void run_alone(const kern_team_work *w)
{
    if (w->begin != NULL)
        w->begin();
    w->run(w->args, 0, w->n, 0);
    if (w->end != NULL)
        w->end();
}

void kern_team_run(kern_team *t, const kern_team_work *w, bool alone)
{
    uint32_t gate;

    if (w->n <= 0)
        return;
    if (alone || t->n_started == 0 || w->n <= w->step ||
        atomic_flag_test_and_set_explicit(&t->busy, memory_order_acquire)) {
        run_alone(w);
        return;
    }
    t->work = *w;
    atomic_store_explicit(&t->next, 0, memory_order_relaxed);
    atomic_store_explicit(&t->left, 0, memory_order_relaxed);
    atomic_store_explicit(&t->cpu, sched_getcpu(), memory_order_relaxed);
    gate = atomic_load_explicit(&t->gate, memory_order_relaxed);
    atomic_store(&t->gate, (gate & ~(NUMBER - 1)) + NUMBER);
    if (atomic_load(&t->sleepers) != 0)
        tp_futex_wake_all(&t->gate);
    work_on(t, 0);
    gate = atomic_fetch_or_explicit(&t->gate, CLOSED, memory_order_relaxed);
    wait_for_leaving(t, gate & INSIDE);
    atomic_flag_clear_explicit(&t->busy, memory_order_release);
}

/* ---- making ---- */

int kern_team_size(const kern_team *t)
{
    return t->n_threads;
}

/* Signals are for the threads that wait for them. */
static tp_status start(kern_team *t)
{
    sigset_t all, before;
    int err = 0;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int i = 0; i < t->n_threads - 1 && err == 0; i++) {
        member *m = &t->members[i];

        m->team = t;
        m->id = i + 1;
        atomic_store(&m->cpu, -1);
        err = pthread_create(&m->thread, NULL, be_member, m);
        t->n_started += err == 0;
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err != 0)
        return TP_FAIL(TP_ERR_NOMEM, "cannot start %d threads for the cpu backend (error %d)",
                       t->n_threads - 1, err);
    return TP_OK;
}

tp_status kern_team_create(kern_team **out, int n_threads)
{
    kern_team *t;
    tp_status st;

    TP_ASSERT(n_threads >= 1 && n_threads <= (int)INSIDE);
    t = tp_aligned_alloc(LINE, sizeof *t);
    if (t == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "out of memory for a team of %d threads", n_threads);
    *t = (kern_team){.n_threads = n_threads, .gate = CLOSED, .cpu = -1};
    atomic_flag_clear(&t->busy);
    if (n_threads > 1) {
        t->members = tp_aligned_alloc(LINE, (size_t)(n_threads - 1) * sizeof *t->members);
        st = t->members != NULL
                 ? start(t)
                 : TP_FAIL(TP_ERR_NOMEM, "out of memory for a team of %d threads", n_threads);
        if (st != TP_OK) {
            kern_team_destroy(t);
            return st;
        }
    }
    *out = t;
    return TP_OK;
}

void kern_team_destroy(kern_team *t)
{
    if (t == NULL)
        return;
    atomic_store(&t->stop, true);
    atomic_fetch_add(&t->gate,
                     NUMBER); /* closed; whoever is about to sleep on the old word stays awake */
    tp_futex_wake_all(&t->gate);
    for (int i = 0; i < t->n_started; i++)
        (void)pthread_join(t->members[i].thread, NULL);
    tp_free(t->members);
    tp_free(t);
}
