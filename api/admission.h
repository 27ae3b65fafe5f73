/* SPDX-License-Identifier: Apache-2.0 */
/* admission.h - who may queue when the queue is nearly full, and when those who may not should come back.
 *
 * A refused client that will come back and say so (the OpenAI SDKs do) is given the time at which a place will probably
 * be free for it: one place per request that ends, in the order of refusal.  So they come back at the rate at which they
 * can be served, and while some are awaited a part of the queue is kept for them: a half against newcomers that would
 * come back as well, a quarter against others.  Those others are told how long the queue is.
 * The rate is that of a server with all places at work: time in which a quarter of them is counts a quarter, idle time
 * nothing.  Else a quiet hour, or clients that were told to come one by one, would look like a slow server.
 * Threads: any.
 */
#ifndef API_ADMISSION_H
#define API_ADMISSION_H

#include <pthread.h>
#include <stdint.h>

#include "base/status.h"

typedef struct api_admission {
    pthread_mutex_t lock;
    int64_t at_ns;      /* up to when work_ns counts */
    double work_ns;     /* since the last end: time, weighed by the share of the places at work */
    double interval_ns; /* between the ends of requests when all places are at work, smoothed */
    int64_t ticket_ns;  /* the latest time that was given to somebody */
    int open, slots;    /* requests that run or wait; places to run */
    uint64_t n_done, n_refused;
} api_admission;

void api_admission_init(api_admission *a);
void api_admission_release(api_admission *a);

/* Who asks, by the header x-stainless-retry-count of the OpenAI SDKs. */
typedef enum api_caller {
    API_CALLER_UNKNOWN, /* may come back or not */
    API_CALLER_FIRST,   /* will come back when refused */
    API_CALLER_AGAIN    /* was refused before */
} api_caller;

/* May a request queue, while `open` of at most `limit` are, `queue` of which wait? */
bool api_admission_may_queue(api_admission *a, int open, int limit, int queue, api_caller who);
/* One was refused: milliseconds after which it should come back. */
int api_admission_refuse(api_admission *a, int queue, api_caller who);
/* A request was let in, where `slots` run at a time; one has ended. */
void api_admission_began(api_admission *a, int slots);
void api_admission_done(api_admission *a);
uint64_t api_admission_refused(api_admission *a);

#endif
