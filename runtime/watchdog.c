/* SPDX-License-Identifier: Apache-2.0 */
/* watchdog.c - see watchdog.h.  The thread looks ten times a second; nothing wakes it in between but the end.
 *
 * What it compares is one number: all pulses that it knows of.  A look that comes late means that this process did not
 * run (it was stopped, or the host slept): that time does not count.
 */
#include "runtime/watchdog.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/pulse.h"
#include "comm/life.h"

#define LOOK_NS (100 * TP_NS_PER_MS)
#define LATE_NS (500 * TP_NS_PER_MS)
#define GRACE_NS                                                                                   \
    (2 * TP_NS_PER_S) /* for the engine thread to come back once the group's waits return */

struct rt_watchdog {
    rt_watchdog_options opt;
    atomic_bool in_step;
    atomic_ullong step;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stop; /* under lock */
};

void rt_watchdog_begin(rt_watchdog *w, uint64_t step)
{
    comm_life_begin(step);
    if (w == NULL)
        return;
    atomic_store_explicit(&w->step, step, memory_order_relaxed);
    atomic_store_explicit(&w->in_step, true, memory_order_release);
}

void rt_watchdog_end(rt_watchdog *w)
{
    comm_life_end();
    if (w != NULL)
        atomic_store_explicit(&w->in_step, false, memory_order_release);
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

static bool is_in_step(const rt_watchdog *w)
{
    return atomic_load_explicit(&w->in_step, memory_order_acquire);
}

/* Grows whenever anything is known to have been done on any rank. */
static uint64_t all_pulses(const rt_watchdog *w)
{
    uint64_t sum =
        tp_pulse_count() + tp_stir_count() + atomic_load_explicit(&w->step, memory_order_relaxed);

    for (int r = 0; r < comm_size(w->opt.group); r++) {
        comm_life_view v;

        if (r != comm_rank(w->opt.group) && comm_life_look(r, &v))
            sum += v.done + v.stirs + (v.step << 20) + (v.in_step ? 0 : 1);
    }
    return sum;
}

static bool is_behind(const comm_life_view *a, const comm_life_view *b)
{
    return a->step != b->step ? a->step < b->step : a->done < b->done;
}

/* The rank that all wait for: the one that has done less than any other; -1 when two have done the same. */
static int find_culprit(const rt_watchdog *w)
{
    comm_life_view least = {0};
    int culprit = -1;
    bool alone = false;

    for (int r = 0; r < comm_size(w->opt.group); r++) {
        comm_life_view v;

        if (!comm_life_look(r, &v))
            continue;
        if (culprit < 0 || is_behind(&v, &least)) {
            alone = true;
            culprit = r;
            least = v;
        } else if (!is_behind(&least, &v)) {
            alone = false;
        }
    }
    return alone || comm_size(w->opt.group) == 1 ? culprit : -1;
}

static void describe(const rt_watchdog *w, int culprit, char *why, size_t cap)
{
    char who[160] = "the device";

    if (comm_size(w->opt.group) > 1)
        (void)snprintf(who, sizeof who, "a rank or its device");
    if (culprit >= 0 && comm_size(w->opt.group) > 1)
        comm_life_name(culprit, who, sizeof who);
    (void)snprintf(why, cap, "step %llu made no progress for %.1f s (--step-timeout): %s hangs",
                   atomic_load(&w->step), (double)w->opt.timeout_ms / 1e3, who);
}

static void end_step(rt_watchdog *w)
{
    int64_t deadline = tp_now_ns() + GRACE_NS;
    int culprit = find_culprit(w);
    char why[320];

    if (comm_life_lost(NULL))
        return; /* known already, and by name */
    describe(w, culprit, why, sizeof why);
    if (comm_size(w->opt.group) > 1)
        comm_life_declare(culprit, why);
    else
        tp_error("watchdog", "%s", why);
    w->opt.on_late(w->opt.owner);
    comm_request_abort(w->opt.group);
    while (is_in_step(w)) {
        if (tp_now_ns() >= deadline)
            comm_abort(w->opt.group, RT_EXIT_STUCK, why);
        if (sleep_until(w, tp_now_ns() + LOOK_NS))
            return;
    }
}

static void *watch(void *arg)
{
    rt_watchdog *w = arg;
    int64_t since = tp_now_ns(), planned = since + LOOK_NS;
    uint64_t pulses = 0;

    while (!sleep_until(w, planned)) {
        int64_t now = tp_now_ns();
        uint64_t seen = all_pulses(w);

        if (!is_in_step(w) || seen != pulses)
            since = now;
        else if (now - planned > LATE_NS)
            since += now - planned;
        if (now - since > w->opt.timeout_ms * TP_NS_PER_MS) {
            end_step(w);
            return NULL; /* the group is dead: there are no more steps */
        }
        pulses = seen;
        planned = now + LOOK_NS;
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
