/* SPDX-License-Identifier: Apache-2.0 */
/* watchdog.c - see watchdog.h.  The thread looks ten times a second; nothing wakes it in between but the end. */
#include "runtime/watchdog.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#define LOOK_NS (100 * TP_NS_PER_MS)
#define GRACE_NS                                                                                   \
    (2 * TP_NS_PER_S) /* for the engine thread to come back once the group's waits return */

struct rt_watchdog {
    rt_watchdog_options opt;
    atomic_llong since_ns; /* when the step began; 0 = none is under way */
    atomic_ullong step;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stop; /* under lock */
};

void rt_watchdog_begin(rt_watchdog *w, uint64_t step)
{
    if (w == NULL)
        return;
    atomic_store_explicit(&w->step, step, memory_order_relaxed);
    atomic_store_explicit(&w->since_ns, tp_now_ns(), memory_order_release);
}

void rt_watchdog_end(rt_watchdog *w)
{
    if (w != NULL)
        atomic_store_explicit(&w->since_ns, 0, memory_order_release);
}

/* True: the watchdog is to end. */
static bool sleep_until(rt_watchdog *w, int64_t until_ns)
{
    struct timespec ts = {.tv_sec = until_ns / TP_NS_PER_S, .tv_nsec = until_ns % TP_NS_PER_S};
    bool stop;

    pthread_mutex_lock(&w->lock);
    while (!w->stop && tp_now_ns() < until_ns)
        (void)pthread_cond_timedwait(&w->wake, &w->lock, &ts);
    stop = w->stop;
    pthread_mutex_unlock(&w->lock);
    return stop;
}

static bool is_in_step_since(rt_watchdog *w, int64_t since)
{
    return atomic_load_explicit(&w->since_ns, memory_order_acquire) == since;
}

static void end_step(rt_watchdog *w, int64_t since)
{
    int64_t deadline = tp_now_ns() + GRACE_NS;
    char why[160];

    (void)snprintf(why, sizeof why,
                   "step %llu did not end within %.1f s: the device or another rank hangs "
                   "(--step-timeout)",
                   atomic_load(&w->step), (double)w->opt.timeout_ms / 1e3);
    tp_error("watchdog", "%s", why);
    w->opt.on_late(w->opt.owner);
    comm_request_abort(w->opt.group);
    while (is_in_step_since(w, since)) {
        if (tp_now_ns() >= deadline)
            comm_abort(w->opt.group, RT_EXIT_STUCK, why);
        if (sleep_until(w, tp_now_ns() + LOOK_NS))
            return;
    }
}

static void *watch(void *arg)
{
    rt_watchdog *w = arg;

    while (!sleep_until(w, tp_now_ns() + LOOK_NS)) {
        int64_t since = atomic_load_explicit(&w->since_ns, memory_order_acquire);

        if (since != 0 && tp_now_ns() - since > w->opt.timeout_ms * TP_NS_PER_MS) {
            end_step(w, since);
            return NULL; /* the group is dead: there are no more steps */
        }
    }
    return NULL;
}

tp_status rt_watchdog_start(rt_watchdog **out, const rt_watchdog_options *o)
{
    rt_watchdog *w = tp_calloc(1, sizeof *w);
    pthread_condattr_t monotonic;

    if (w == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "watchdog");
    w->opt = *o;
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&w->wake, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    (void)pthread_mutex_init(&w->lock, NULL);
    if (pthread_create(&w->thread, NULL, watch, w) != 0) {
        tp_free(w);
        return TP_FAIL(TP_ERR_NOMEM, "cannot start the watchdog's thread");
    }
    *out = w;
    return TP_OK;
}

void rt_watchdog_stop(rt_watchdog *w)
{
    if (w == NULL)
        return;
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
    (void)pthread_join(w->thread, NULL);
    (void)pthread_cond_destroy(&w->wake);
    (void)pthread_mutex_destroy(&w->lock);
    tp_free(w);
}
