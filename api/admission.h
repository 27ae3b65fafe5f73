/* SPDX-License-Identifier: Apache-2.0 */
/* admission.h - who may queue when the queue is nearly full, and when those who may not should come back.
 *
 * A refused client that will come back and say so (the OpenAI SDKs do) is given the time at which a place will probably
 * be free for it: one place per request that ends, in the order of refusal.  So they come back at the rate at which they
 * can be served, and while some are awaited a part of the queue is kept for them: a half against newcomers that would
 * come back as well, a quarter against others.  Those others are told how long the queue is.
 * Threads: any.
 */
#ifndef API_ADMISSION_H
#define API_ADMISSION_H

#include <pthread.h>
#include <stdint.h>

#include "base/status.h"

typedef struct api_admission {
    pthread_mutex_t lock;
    int64_t done_ns;    /* when a request ended last */
    double interval_ns; /* between the ends of requests, smoothed */
    int64_t ticket_ns;  /* the latest time that was given to somebody */
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
/* A request has ended. */
void api_admission_done(api_admission *a);
uint64_t api_admission_refused(api_admission *a);

#endif
