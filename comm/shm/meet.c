/* SPDX-License-Identifier: Apache-2.0 */
/* meet.c - see meet.h.
 *
 * A sleep is never longer than SLICE_MS: an alarm that rings between a waiter's look at the abort word and its
 * sleep is noticed then.
 */
#include "comm/shm/meet.h"

#include <sched.h>

#include "base/clock.h"
#include "base/futex.h"

#define SLICE_MS     100
#define YIELDS_MAX   10
#define YIELDS_NS    100000
#define SPINS_A_LOOK 32 /* loads of the word between two looks at the clock */

void comm_bell_ring(comm_bell *b, uint32_t value)
{
    atomic_store(&b->word, value);
    if (atomic_load(&b->sleepers) != 0)
        tp_futex_wake_all(&b->word);
}

void comm_bell_alarm(comm_bell *b)
{
    tp_futex_wake_all(&b->word);
}

static bool told_to_stop(const comm_patience *p)
{
    return atomic_load_explicit(p->abort, memory_order_acquire) != 0;
}

/* True when the word came while we looked.  Without a core for every rank, looking on would only keep the awaited
 * rank from running: giving it this core is twice as fast as a sleep and a wake-up when it has little left to do.
 * When something else took the core (the clock tells), it is time to sleep: a wake-up gets the core back sooner. */
static bool look_first(const comm_bell *b, uint32_t target, const comm_patience *p)
{
    int64_t start = tp_now_ns(), now = start;

    for (int n_yields = 0; p->spin_ns <= 0; n_yields++) {
        if (n_yields == YIELDS_MAX || now - start > YIELDS_NS)
            return false;
        sched_yield();
        if (comm_bell_reached(b, target))
            return true;
        now = tp_now_ns();
    }
    do {
        for (int i = 0; i < SPINS_A_LOOK; i++) {
            if (comm_bell_reached(b, target))
                return true;
            tp_relax();
        }
    } while (tp_now_ns() - start < p->spin_ns && !told_to_stop(p));
    return false;
}

tp_status comm_bell_wait(comm_bell *b, uint32_t target, const comm_patience *p)
{
    int64_t deadline;

    if (comm_bell_reached(b, target) || look_first(b, target, p))
        return TP_OK;
    deadline = p->timeout_ms > 0 ? tp_now_ns() + p->timeout_ms * TP_NS_PER_MS : INT64_MAX;
    for (;;) {
        uint32_t seen = atomic_load_explicit(&b->word, memory_order_acquire);
        int64_t left;

        if ((int32_t)(seen - target) >= 0)
            return TP_OK;
        if (told_to_stop(p))
            return TP_ERR_COMM;
        left = deadline - tp_now_ns();
        if (left <= 0)
            return TP_ERR_TIMEOUT;
        atomic_fetch_add(&b->sleepers, 1);
        tp_futex_wait(&b->word, seen,
                      left < SLICE_MS * TP_NS_PER_MS ? left : SLICE_MS * TP_NS_PER_MS);
        atomic_fetch_sub(&b->sleepers, 1);
    }
}
