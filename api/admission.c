/* SPDX-License-Identifier: Apache-2.0 */
/* admission.c - see admission.h. */
#include "api/admission.h"

#include "base/clock.h"

#define WAIT_MIN_NS    (TP_NS_PER_S / 4)
#define WAIT_MAX_NS    (30 * TP_NS_PER_S) /* clients give up at about a minute */
#define FIRST_GUESS_NS (50 * TP_NS_PER_MS)
#define SMOOTHING      32.0
#define PAUSE_MAX_NS   (2 * TP_NS_PER_S) /* a longer silence says nothing about the rate */
#define KEPT_SHARE     4                 /* of the queue, for those who come back */

void api_admission_init(api_admission *a)
{
    *a = (api_admission){.interval_ns = (double)FIRST_GUESS_NS};
    pthread_mutex_init(&a->lock, NULL);
}

void api_admission_release(api_admission *a)
{
    pthread_mutex_destroy(&a->lock);
}

bool api_admission_may_queue(api_admission *a, int open, int limit, int queue, api_caller who)
{
    bool awaited;

    if (open >= limit || who == API_CALLER_AGAIN)
        return open < limit;
    if (open < limit - queue / KEPT_SHARE)
        return true;
    pthread_mutex_lock(&a->lock);
    awaited = a->ticket_ns > tp_now_ns() - WAIT_MIN_NS;
    pthread_mutex_unlock(&a->lock);
    return !awaited;
}

/* A place of one's own behind those given out before. */
static int64_t take_ticket(api_admission *a, int64_t now)
{
    if (a->ticket_ns < now + WAIT_MIN_NS)
        a->ticket_ns = now + WAIT_MIN_NS;
    a->ticket_ns += (int64_t)a->interval_ns;
    if (a->ticket_ns > now + WAIT_MAX_NS)
        a->ticket_ns = now + WAIT_MAX_NS;
    return a->ticket_ns - now;
}

static int64_t clamp(double ns)
{
    return ns < (double)WAIT_MIN_NS   ? WAIT_MIN_NS
           : ns > (double)WAIT_MAX_NS ? WAIT_MAX_NS
                                      : (int64_t)ns;
}

int api_admission_refuse(api_admission *a, int queue, api_caller who)
{
    int64_t now = tp_now_ns(), wait;

    pthread_mutex_lock(&a->lock);
    a->n_refused++;
    wait = who == API_CALLER_UNKNOWN ? clamp(a->interval_ns * queue) : take_ticket(a, now);
    pthread_mutex_unlock(&a->lock);
    return (int)(wait / TP_NS_PER_MS);
}

void api_admission_done(api_admission *a)
{
    int64_t now = tp_now_ns(), since;

    pthread_mutex_lock(&a->lock);
    since = now - a->done_ns;
    if (since < PAUSE_MAX_NS)
        a->interval_ns += ((double)since - a->interval_ns) / SMOOTHING;
    a->done_ns = now;
    pthread_mutex_unlock(&a->lock);
}

uint64_t api_admission_refused(api_admission *a)
{
    uint64_t n;

    pthread_mutex_lock(&a->lock);
    n = a->n_refused;
    pthread_mutex_unlock(&a->lock);
    return n;
}
