/* SPDX-License-Identifier: Apache-2.0 */
/* watch.h - the thread beside libmicrohttpd: clients that leave, deadlines, wake-ups.
 *
 * libmicrohttpd does not look at suspended connections and its timeout is about inactivity only; so every connection's
 * socket is also in an epoll set of ours (EPOLLRDHUP, edge-triggered), and every request has absolute deadlines.
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

typedef struct api_watch api_watch;

/* A connection, or an exchange on it, as the watcher knows it. */
typedef struct api_link {
    struct api_link *prev, *next;
    int fd;
    int64_t deadline_ns; /* shut the socket down then; 0 = none */
    int64_t quiet_ns;    /* a stream's last write: idle() is due 15 s later; 0 = no stream */
    bool gone;           /* the peer has closed or half-closed */
    bool removed;        /* waits in the list of the dead */
    bool wake_due;       /* in the wake list */
    struct api_link *wake_next;
    /* Called by the watcher thread, with its lock held: let the exchange on this connection run. idle: 15 s of silence. */
    void (*resume)(struct api_link *l, bool idle);
    /* Frees the link; called by the watcher thread some time after api_watch_remove(). */
    void (*release)(struct api_link *l);
} api_link;

TP_MUST_USE tp_status api_watch_create(api_watch **out);
void api_watch_destroy(api_watch *w); /* stops the thread; links must be gone */

void api_watch_add(api_watch *w, api_link *l);
/* After it no resume is under way; the link is the watcher's to release. */
void api_watch_remove(api_watch *w, api_link *l);
void api_watch_set_deadline(api_watch *w, api_link *l, int64_t deadline_ns);
void api_watch_set_quiet(api_watch *w, api_link *l, int64_t since_ns);
/* Any thread: the watcher will call resume soon. */
void api_watch_wake(api_watch *w, api_link *l);
/* Every connection counts as gone and is resumed: the server ends. */
void api_watch_end_all(api_watch *w);
/* Takes or gives back the lock that guards resume(): for the suspend decision. */
void api_watch_lock(api_watch *w);
void api_watch_unlock(api_watch *w);

#endif
