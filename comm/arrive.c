/* SPDX-License-Identifier: Apache-2.0 */
/* arrive.c - the alarm that runs until the ranks have found each other.
 *
 * MPI_Init returns when every rank has called it, and never when one does not.  So each rank first binds an abstract
 * Unix socket whose name is made of job and rank: a sign that it is there, which the kernel takes away with it.  When
 * the alarm goes off, it looks which signs of this host are missing, and the lowest rank that is there says so.  On other
 * hosts other ranks do the same.
 */
#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "comm/boot.h"
#include "comm/life.h"

static struct {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    bool armed, over;
    int64_t since_ns, timeout_ms;
    int rank, size, local_size, fd;
} g = {.lock = PTHREAD_MUTEX_INITIALIZER, .fd = -1};

static socklen_t sign_address(struct sockaddr_un *sa, int rank)
{
    const char *job = comm_env_job();
    int len;

    *sa = (struct sockaddr_un){.sun_family = AF_UNIX};
    len = snprintf(sa->sun_path + 1, sizeof sa->sun_path - 1, "tpserve.rank.%u.%.60s.%d",
                   (unsigned)getuid(), job, rank);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len);
}

static bool is_here(int rank)
{
    struct sockaddr_un sa;
    socklen_t len = sign_address(&sa, rank);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool here = fd >= 0 && connect(fd, (struct sockaddr *)&sa, len) == 0;

    if (fd >= 0)
        close(fd);
    return here;
}

/* "0, 2, 3" */
static int list_ranks(char *text, size_t cap, bool here)
{
    size_t len = 0;
    int n = 0;

    text[0] = '\0';
    for (int r = 0; r < g.size; r++) {
        if (is_here(r) != here)
            continue;
        n++;
        if (len < cap - 16)
            len += (size_t)snprintf(text + len, cap - len, "%s%d", len > 0 ? ", " : "", r);
    }
    return n;
}

static int lowest_here(void)
{
    int r = 0;

    while (r < g.rank && !is_here(r))
        r++;
    return r;
}

static void say_who_is_missing(void)
{
    char host[64] = "this host", list[256];
    long long s = (long long)(g.timeout_ms / 1000);
    int n = list_ranks(list, sizeof list, false);

    if (lowest_here() != g.rank)
        return;
    (void)gethostname(host, sizeof host - 1);
    if (n == 0) {
        tp_error("comm",
                 "all %d ranks are there, but the start of MPI did not end within %lld s "
                 "(--startup-timeout): one of them is stopped",
                 g.size, s);
    } else if (g.local_size == g.size) {
        tp_error("comm", "rank %s of %d did not arrive within %lld s (--startup-timeout)", list,
                 g.size, s);
    } else {
        int n_here = list_ranks(list, sizeof list, true);

        tp_error("comm",
                 "not all %d ranks arrived within %lld s (--startup-timeout); on %s there are %d "
                 "of %d: rank %s",
                 g.size, s, host, n_here, g.local_size > 0 ? g.local_size : n_here, list);
    }
}

static void *wait_for_all(void *unused)
{
    int64_t until = g.since_ns + g.timeout_ms * TP_NS_PER_MS;
    struct timespec ts = {.tv_sec = until / TP_NS_PER_S, .tv_nsec = until % TP_NS_PER_S};
    bool over;

    (void)unused;
    pthread_mutex_lock(&g.lock);
    while (!g.over && tp_now_ns() < until)
        (void)pthread_cond_timedwait(&g.wake, &g.lock, &ts);
    over = g.over;
    pthread_mutex_unlock(&g.lock);
    if (over)
        return NULL;
    say_who_is_missing();
    tp_sleep_us(500 * 1000); /* whoever has to speak on this host must not be killed before */
    _exit(COMM_EXIT_ABSENT);
}

tp_status comm_arrive(int64_t timeout_ms)
{
    pthread_condattr_t monotonic;
    struct sockaddr_un sa;
    socklen_t len;

    g.since_ns = tp_now_ns();
    g.timeout_ms = timeout_ms;
    g.rank = comm_env_rank();
    g.size = comm_env_size();
    g.local_size = comm_env_local_size();
    if (g.size < 2 || g.rank < 0)
        return TP_OK;
    len = sign_address(&sa, g.rank);
    g.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (g.fd < 0 || bind(g.fd, (struct sockaddr *)&sa, len) != 0)
        tp_debug("comm", "no sign of presence: %s",
                 strerror(errno)); /* the alarm works all the same */
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&g.wake, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    if (pthread_create(&g.thread, NULL, wait_for_all, NULL) != 0)
        return TP_FAIL(TP_ERR_NOMEM, "cannot start the thread that waits for the other ranks");
    g.armed = true;
    return TP_OK;
}

int64_t comm_arrived(void)
{
    if (g.armed) {
        pthread_mutex_lock(&g.lock);
        g.over = true;
        pthread_cond_signal(&g.wake);
        pthread_mutex_unlock(&g.lock);
        (void)pthread_join(g.thread, NULL);
        g.armed = false;
    }
    if (g.fd >= 0)
        close(g.fd);
    g.fd = -1;
    return g.since_ns != 0 ? g.since_ns : tp_now_ns();
}
