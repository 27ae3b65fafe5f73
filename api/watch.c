/* SPDX-License-Identifier: Apache-2.0 */
/* watch.c - one epoll loop over an eventfd (wake-ups) and the sockets of all connections; scans of them for the slow.
 *
 * A socket is only shut down, never closed, here, and only while its link is in the list: the owner takes the link out
 * before the descriptor is closed, under the same lock.  So no descriptor that was reused is ever touched.
 *
 * An event that epoll_wait() has just returned may name a link that is being removed.  So a removed link is marked and
 * put aside; it is freed after the events at hand were looked at, when no later wait can return it any more.
 */
#include "api/watch.h"

#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#define TICK_MS    250
#define EVENTS_MAX 128
#define RATE_TICKS 4   /* readers are looked at, and cuts logged, once in so many ticks */
#define SLACK_MIN  256 /* connections that have gone, before the heap is asked for what they took */

struct api_watch {
    pthread_mutex_t lock;
    pthread_t thread;
    bool started, ending;
    int epoll_fd, event_fd;
    api_link *links;
    api_link *wakes; /* stack of links to resume */
    api_link *dead;  /* removed, not yet released; linked by next */
    int64_t next_scan_ns;
    unsigned n_scans;
    int n_links, n_peak, n_before; /* now; most since the last trim; a second ago */
    bool trim_due;
    atomic_int excess; /* idle connections to close */
    uint64_t cuts[API_N_PHASES], logged[API_N_PHASES];
};

static void wake_all(api_watch *w)
{
    api_link *list = w->wakes;

    w->wakes = NULL;
    while (list != NULL) {
        api_link *l = list;

        list = l->wake_next;
        l->wake_due = false;
        l->resume(l, false);
    }
}

/* ---- scans: O(connections), a few times a second ---- */

static void cut_off(api_watch *w, api_link *l)
{
    /* what a slow reader has not taken would stay in the kernel for minutes: a reset drops it */
    static const struct linger drop = {.l_onoff = 1};

    w->cuts[l->phase]++;
    l->deadline_ns = l->rate_ns = 0;
    l->sending = false;
    if (l->phase == API_PHASE_ANSWER)
        (void)setsockopt(l->fd, SOL_SOCKET, SO_LINGER, &drop, sizeof drop);
    (void)shutdown(l->fd, SHUT_RDWR);
}

/* Bytes not yet sent for want of room at the peer, and bytes that it has taken so far. */
static uint32_t unsent(const api_link *l, uint64_t *taken)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof info;

    if (getsockopt(l->fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0 ||
        len < offsetof(struct tcp_info, tcpi_notsent_bytes) + sizeof info.tcpi_notsent_bytes)
        return 0;
    *taken = info.tcpi_bytes_acked;
    return info.tcpi_notsent_bytes;
}

static bool too_slow(api_link *l, int64_t now)
{
    uint64_t taken = 0;

    if (unsent(l, &taken) == 0) {
        l->rate_ns = 0;
        return false;
    }
    if (l->rate_ns != 0 && now - l->rate_ns < API_RATE_WINDOW_NS)
        return false;
    if (l->rate_ns != 0 &&
        taken - l->rate_bytes <
            (uint64_t)(l->held_back(l) ? API_FULL_WINDOW_BYTES : API_RATE_WINDOW_BYTES))
        return true;
    l->rate_ns = now;
    l->rate_bytes = taken;
    return false;
}

/* Idle for long enough to be closed when others want in. */
static bool can_be_shed(const api_link *l, int64_t now)
{
    return l->phase == API_PHASE_IDLE && l->deadline_ns != 0 &&
           l->deadline_ns - now <= API_IDLE_DEADLINE_NS - API_CROWDED_IDLE_NS;
}

static void scan_link(api_watch *w, api_link *l, int64_t now, bool rates, int *excess)
{
    if (l->deadline_ns != 0 && now >= l->deadline_ns) {
        cut_off(w, l);
    } else if (*excess > 0 && can_be_shed(l, now)) {
        --*excess;
        cut_off(w, l);
    } else if (rates && l->sending && too_slow(l, now)) {
        cut_off(w, l);
    }
    if (l->quiet_ns != 0 && now - l->quiet_ns >= API_KEEPALIVE_NS) {
        l->quiet_ns = now;
        l->resume(l, true);
    }
}

static void log_cuts(api_watch *w)
{
    const uint64_t *c = w->cuts;
    uint64_t *seen = w->logged;

    if (c[API_PHASE_HEADER] != seen[API_PHASE_HEADER] ||
        c[API_PHASE_BODY] != seen[API_PHASE_BODY] || c[API_PHASE_ANSWER] != seen[API_PHASE_ANSWER])
        tp_info("http",
                "clients cut off as too slow: %llu in headers, %llu in bodies, %llu readers",
                (unsigned long long)(c[API_PHASE_HEADER] - seen[API_PHASE_HEADER]),
                (unsigned long long)(c[API_PHASE_BODY] - seen[API_PHASE_BODY]),
                (unsigned long long)(c[API_PHASE_ANSWER] - seen[API_PHASE_ANSWER]));
    memcpy(seen, c, sizeof w->logged);
}

/* When most of many connections have gone, and no more go, free memory lies between what is left of others'. */
static bool has_slack(api_watch *w)
{
    bool settled = w->n_links >= w->n_before;

    w->n_before = w->n_links;
    if (!settled || w->n_peak - w->n_links < SLACK_MIN || w->n_links > w->n_peak / 2)
        return false;
    w->n_peak = w->n_links;
    return true;
}

static void scan(api_watch *w, int64_t now)
{
    bool rates = w->n_scans++ % RATE_TICKS == 0;
    int excess = atomic_load(&w->excess);

    for (api_link *l = w->links, *next; l != NULL; l = next) {
        next = l->next;
        scan_link(w, l, now, rates, &excess);
    }
    if (!rates)
        return;
    log_cuts(w);
    w->trim_due |= has_slack(w);
}

static void release_dead(api_watch *w)
{
    while (w->dead != NULL) {
        api_link *l = w->dead;

        w->dead = l->next;
        l->release(l);
    }
}

static void *loop(void *arg)
{
    api_watch *w = arg;
    struct epoll_event events[EVENTS_MAX];

    pthread_mutex_lock(&w->lock);
    while (!w->ending) {
        bool trim = w->trim_due;
        int n;

        w->trim_due = false;
        pthread_mutex_unlock(&w->lock);
        if (trim)
            tp_mem_trim();
        n = epoll_wait(w->epoll_fd, events, EVENTS_MAX, TICK_MS);
        pthread_mutex_lock(&w->lock);
        for (int i = 0; i < n; i++) {
            api_link *l = events[i].data.ptr;

            if (l == NULL) {
                uint64_t count;

                (void)!read(w->event_fd, &count, sizeof count);
            } else if (!l->removed) {
                l->gone = true;
                l->resume(l, false);
            }
        }
        release_dead(w);
        wake_all(w);
        if (tp_now_ns() >= w->next_scan_ns) {
            scan(w, tp_now_ns());
            w->next_scan_ns = tp_now_ns() + TICK_MS * TP_NS_PER_MS;
        }
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

tp_status api_watch_create(api_watch **out)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
    api_watch *w = tp_calloc(1, sizeof *w);

    if (w == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "connection watcher");
    pthread_mutex_init(&w->lock, NULL);
    w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    w->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (w->epoll_fd < 0 || w->event_fd < 0 ||
        epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, w->event_fd, &ev) != 0 ||
        pthread_create(&w->thread, NULL, loop, w) != 0) {
        tp_status st = TP_FAIL(TP_ERR_IO, "connection watcher: %s", strerror(errno));

        api_watch_destroy(w);
        return st;
    }
    w->started = true;
    *out = w;
    return TP_OK;
}

static void poke(api_watch *w)
{
    uint64_t one = 1;

    (void)!write(w->event_fd, &one, sizeof one);
}

void api_watch_destroy(api_watch *w)
{
    if (w == NULL)
        return;
    if (w->started) {
        pthread_mutex_lock(&w->lock);
        w->ending = true;
        pthread_mutex_unlock(&w->lock);
        poke(w);
        pthread_join(w->thread, NULL);
        release_dead(w);
    }
    if (w->event_fd >= 0)
        close(w->event_fd);
    if (w->epoll_fd >= 0)
        close(w->epoll_fd);
    pthread_mutex_destroy(&w->lock);
    tp_free(w);
}

void api_watch_lock(api_watch *w)
{
    pthread_mutex_lock(&w->lock);
}

void api_watch_unlock(api_watch *w)
{
    pthread_mutex_unlock(&w->lock);
}

void api_watch_add(api_watch *w, api_link *l)
{
    struct epoll_event ev = {.events = EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLET, .data.ptr = l};

    pthread_mutex_lock(&w->lock);
    l->prev = NULL;
    l->next = w->links;
    if (w->links != NULL)
        w->links->prev = l;
    w->links = l;
    if (++w->n_links > w->n_peak)
        w->n_peak = w->n_links;
    if (epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, l->fd, &ev) != 0)
        l->gone = false; /* not watched: libmicrohttpd will still notice on the next write */
    pthread_mutex_unlock(&w->lock);
}

void api_watch_remove(api_watch *w, api_link *l)
{
    pthread_mutex_lock(&w->lock);
    epoll_ctl(w->epoll_fd, EPOLL_CTL_DEL, l->fd, NULL);
    *(l->prev != NULL ? &l->prev->next : &w->links) = l->next;
    if (l->next != NULL)
        l->next->prev = l->prev;
    w->n_links--;
    for (api_link **at = &w->wakes; l->wake_due && *at != NULL; at = &(*at)->wake_next) {
        if (*at == l) {
            *at = l->wake_next;
            break;
        }
    }
    l->removed = true;
    l->next = w->dead;
    w->dead = l;
    pthread_mutex_unlock(&w->lock);
}

void api_watch_set_deadline(api_watch *w, api_link *l, api_phase phase, int64_t deadline_ns)
{
    pthread_mutex_lock(&w->lock);
    l->phase = phase;
    l->deadline_ns = deadline_ns;
    l->sending = false;
    pthread_mutex_unlock(&w->lock);
}

void api_watch_set_sending(api_watch *w, api_link *l)
{
    pthread_mutex_lock(&w->lock);
    l->phase = API_PHASE_ANSWER;
    l->deadline_ns = l->rate_ns = 0;
    l->sending = true;
    pthread_mutex_unlock(&w->lock);
}

void api_watch_set_excess(api_watch *w, int n)
{
    atomic_store(&w->excess, n);
}

void api_watch_cuts(api_watch *w, uint64_t out[API_N_PHASES])
{
    pthread_mutex_lock(&w->lock);
    memcpy(out, w->cuts, sizeof w->cuts);
    pthread_mutex_unlock(&w->lock);
}

void api_watch_set_quiet(api_watch *w, api_link *l, int64_t since_ns)
{
    pthread_mutex_lock(&w->lock);
    l->quiet_ns = since_ns;
    pthread_mutex_unlock(&w->lock);
}

void api_watch_end_all(api_watch *w)
{
    pthread_mutex_lock(&w->lock);
    for (api_link *l = w->links; l != NULL; l = l->next) {
        l->gone = true;
        l->resume(l, false);
    }
    pthread_mutex_unlock(&w->lock);
}

void api_watch_wake(api_watch *w, api_link *l)
{
    bool first;

    pthread_mutex_lock(&w->lock);
    first = w->wakes == NULL;
    if (!l->wake_due) {
        l->wake_due = true;
        l->wake_next = w->wakes;
        w->wakes = l;
    }
    pthread_mutex_unlock(&w->lock);
    if (first)
        poke(w);
}
