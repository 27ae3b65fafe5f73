/* SPDX-License-Identifier: Apache-2.0 */
/* admission.c - see admission.h. */
#include "api/admission.h"

#include "base/clock.h"

#define WAIT_MIN_NS    (TP_NS_PER_S / 4)
#define WAIT_MAX_NS    (30 * TP_NS_PER_S) /* clients give up at about a minute */
#define FIRST_GUESS_NS TP_NS_PER_S        /* between the ends of requests, before any were seen */
#define GUESSES        4                  /* ends that tell more than the guess */
#define SMOOTHING      32
#define PAUSE_MAX_NS   (60 * TP_NS_PER_S) /* a longer silence says nothing about the rate */
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

/* Time until the next request ends, as far as one can tell: no shorter than the silence since the last. */
static double expected_ns(const api_admission *a, int64_t now)
{
    double silence = a->n_done > 0 ? (double)(now - a->done_ns) : 0;

    return silence > a->interval_ns && silence < (double)PAUSE_MAX_NS ? silence : a->interval_ns;
}

/* A place of one's own behind those given out before. */
static int64_t take_ticket(api_admission *a, int64_t now, api_caller who)
{
    int64_t first = now + (who == API_CALLER_AGAIN ? LAST_CHANCE_NS : WAIT_MIN_NS);

    if (a->ticket_ns < first)
        a->ticket_ns = first;
    a->ticket_ns += (int64_t)expected_ns(a, now);
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
    wait =
        who == API_CALLER_UNKNOWN ? clamp(expected_ns(a, now) * queue) : take_ticket(a, now, who);
    pthread_mutex_unlock(&a->lock);
    return (int)(wait / TP_NS_PER_MS);
}

void api_admission_done(api_admission *a)
{
    int64_t now = tp_now_ns();
    double since;

    pthread_mutex_lock(&a->lock);
    since = (double)(now - a->done_ns);
    if (a->n_done > 0 && since < (double)PAUSE_MAX_NS)
        a->interval_ns += (since - a->interval_ns) / (a->n_done < GUESSES     ? GUESSES
                                                      : a->n_done < SMOOTHING ? (double)a->n_done
                                                                              : SMOOTHING);
    a->n_done++;
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
