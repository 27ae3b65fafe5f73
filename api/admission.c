/* SPDX-License-Identifier: Apache-2.0 */
/* admission.c - see admission.h. */
#include "api/admission.h"

#include "base/clock.h"

#define WAIT_MIN_NS    (TP_NS_PER_S / 4)
#define WAIT_MAX_NS    (30 * TP_NS_PER_S) /* clients give up at about a minute */
#define FIRST_GUESS_NS TP_NS_PER_S        /* between the ends of requests, before any were seen */
#define GUESSES        4                  /* ends that tell more than the guess */
#define SMOOTHING      32
#define LAST_CHANCE_NS TP_NS_PER_S /* those who were refused twice come so much later, at least */
#define GRACE_NS       (2 * TP_NS_PER_S) /* places are kept so long for those who are late */

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
    int kept = who == API_CALLER_FIRST ? queue / 2 : queue / 4; /* for those who are awaited */
    bool awaited;

    if (open >= limit || who == API_CALLER_AGAIN)
        return open < limit;
    if (open < limit - kept)
        return true;
    pthread_mutex_lock(&a->lock);
    awaited = a->ticket_ns > tp_now_ns() - GRACE_NS;
    pthread_mutex_unlock(&a->lock);
    return !awaited;
}

/* Adds up the work since the last call. */
static void advance(api_admission *a, int64_t now)
{
    if (a->open > 0 && a->slots > 0)
        a->work_ns +=
            (double)(now - a->at_ns) * (a->open < a->slots ? a->open : a->slots) / (double)a->slots;
    a->at_ns = now;
}

/* Time until the next request ends, as far as one can tell: no shorter than the work since the last. */
static double expected_ns(const api_admission *a)
{
    return a->work_ns > a->interval_ns ? a->work_ns : a->interval_ns;
}

/* A place of one's own behind those given out before. */
static int64_t take_ticket(api_admission *a, int64_t now, api_caller who)
{
    int64_t first = now + (who == API_CALLER_AGAIN ? LAST_CHANCE_NS : WAIT_MIN_NS);

    if (a->ticket_ns < first)
        a->ticket_ns = first;
    a->ticket_ns += (int64_t)expected_ns(a);
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
    advance(a, now);
    wait = who == API_CALLER_UNKNOWN ? clamp(expected_ns(a) * queue) : take_ticket(a, now, who);
    pthread_mutex_unlock(&a->lock);
    return (int)(wait / TP_NS_PER_MS);
}

void api_admission_began(api_admission *a, int slots)
{
    pthread_mutex_lock(&a->lock);
    advance(a, tp_now_ns());
    a->open++;
    a->slots = slots;
    pthread_mutex_unlock(&a->lock);
}

void api_admission_done(api_admission *a)
{
    pthread_mutex_lock(&a->lock);
    advance(a, tp_now_ns());
    a->interval_ns += (a->work_ns - a->interval_ns) / (a->n_done < GUESSES     ? GUESSES
                                                       : a->n_done < SMOOTHING ? (double)a->n_done
                                                                               : SMOOTHING);
    a->work_ns = 0;
    a->open--;
    a->n_done++;
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
