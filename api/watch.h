/* SPDX-License-Identifier: Apache-2.0 */
/* watch.h - the thread beside libmicrohttpd: clients that leave, are slow or sit idle, and wake-ups.
 *
 * libmicrohttpd does not look at suspended connections and its timeout is about inactivity only; so every connection's
 * socket is also in an epoll set of ours (EPOLLRDHUP, edge-triggered), every request has absolute deadlines, and a
 * client that is being sent something must take it at a least rate.
 * All fields of api_link are under the watcher's lock.
 */
#ifndef API_WATCH_H
#define API_WATCH_H

#include <pthread.h>
#include <stdint.h>

#include "base/status.h"

#define API_HEADER_DEADLINE_NS (INT64_C(10) * 1000000000)
#define API_BODY_DEADLINE_NS   (INT64_C(60) * 1000000000)
#define API_IDLE_DEADLINE_NS   (INT64_C(75) * 1000000000)
#define API_KEEPALIVE_NS       (INT64_C(15) * 1000000000)
/* Least rates.  A body must come at 1 KiB/s after its first 10 s.  While bytes cannot be sent, a client must take
 * 10 KiB in 10 s, and if its request is held back because RT_OUTBOX_BYTES wait for it, as much as those. */
#define API_RATE_WINDOW_NS    (INT64_C(10) * 1000000000)
#define API_RATE_WINDOW_BYTES (10 * 1024)
#define API_FULL_WINDOW_BYTES (256 * 1024)
#define API_CROWDED_IDLE_NS   (INT64_C(2) * 1000000000) /* idle so long, closed when crowded */

typedef struct api_watch api_watch;

/* What a connection is doing when its deadline passes; why it was cut off. */
typedef enum api_phase {
    API_PHASE_IDLE,   /* between requests */
    API_PHASE_HEADER, /* the first request, or one of which the request line has come */
    API_PHASE_BODY,
    API_PHASE_ANSWER, /* no deadline; too slow a reader */
    API_N_PHASES
} api_phase;

/* A connection, or an exchange on it, as the watcher knows it. */
typedef struct api_link {
    struct api_link *prev, *next;
    int fd;
    api_phase phase;
    int64_t deadline_ns; /* shut the socket down then; 0 = none */
    int64_t quiet_ns;    /* a stream's last write: idle() is due 15 s later; 0 = no stream */
    bool sending;        /* libmicrohttpd has an answer to send */
    int64_t rate_ns;     /* bytes wait in the socket since, at least; 0 = none */
    uint64_t rate_bytes; /* acknowledged by the peer by then */
    bool gone;           /* the peer has closed or half-closed */
    bool removed;        /* waits in the list of the dead */
    bool wake_due;       /* in the wake list */
    struct api_link *wake_next;
    /* Called by the watcher thread, with its lock held: let the exchange on this connection run. idle: 15 s of silence. */
    void (*resume)(struct api_link *l, bool idle);
    /* Called likewise while `sending`: does the engine hold the request back, as too much waits for this client? */
    bool (*held_back)(struct api_link *l);
    /* Frees the link; called by the watcher thread some time after api_watch_remove(). */
    void (*release)(struct api_link *l);
} api_link;

TP_MUST_USE tp_status api_watch_create(api_watch **out);
void api_watch_destroy(api_watch *w); /* stops the thread; links must be gone */

void api_watch_add(api_watch *w, api_link *l);
/* After it no resume is under way; the link is the watcher's to release. */
void api_watch_remove(api_watch *w, api_link *l);
void api_watch_set_deadline(api_watch *w, api_link *l, api_phase phase, int64_t deadline_ns);
/* From now on, until the phase changes, the client is being sent an answer. */
void api_watch_set_sending(api_watch *w, api_link *l);
/* While there are n connections more than there should be, so many idle ones are closed. */
void api_watch_set_excess(api_watch *w, int n);
/* Connections cut off so far, by what they were doing. */
void api_watch_cuts(api_watch *w, uint64_t out[API_N_PHASES]);
void api_watch_set_quiet(api_watch *w, api_link *l, int64_t since_ns);
/* Any thread: the watcher will call resume soon. */
void api_watch_wake(api_watch *w, api_link *l);
/* Every connection counts as gone and is resumed: the server ends. */
void api_watch_end_all(api_watch *w);
/* Takes or gives back the lock that guards resume(): for the suspend decision. */
void api_watch_lock(api_watch *w);
void api_watch_unlock(api_watch *w);

#endif
