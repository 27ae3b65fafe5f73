/* SPDX-License-Identifier: Apache-2.0 */
/* listen.c - see listen.h. */
#include "api/listen.h"

#include <dirent.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define UNSENT_MAX      (64 * 1024) /* bytes that the kernel takes beyond what the peer has room for */
#define USER_TIMEOUT_MS 30000       /* a peer that acknowledges nothing for so long is gone */
#define PROBE_AFTER_S   15          /* of silence, as a stream's comment */
#define PROBE_EVERY_S   5
#define FILES_RESERVED  16 /* for the engine, MPI and libmicrohttpd's threads */
#define FILES_LEAST     8

static void set_int(int fd, int level, int name, int value)
{
    (void)setsockopt(fd, level, name, &value, sizeof value);
}

/* Connections inherit these.  A peer that vanished without a word is noticed, and a slow reader cannot hide behind
 * megabytes of kernel buffer. */
static void set_for_connections(int fd)
{
    set_int(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT_MAX);
    set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS);
    set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, PROBE_AFTER_S);
    set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, PROBE_EVERY_S);
}

static int bind_one(const struct addrinfo *a)
{
    int one = 1, fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);

    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    set_for_connections(fd);
    if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, 4096) == 0)
        return fd;
    one = errno;
    close(fd);
    errno = one;
    return -1;
}

tp_status api_listen_open(const char *host, int port, int *out_fd, int *out_port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list;
    struct sockaddr_storage bound = {0};
    socklen_t len = sizeof bound;
    char service[16];
    int fd = -1, failure;

    snprintf(service, sizeof service, "%d", port);
    failure = getaddrinfo(host, service, &hints, &list);
    if (failure != 0)
        return TP_FAIL(TP_ERR_IO, "--host %s: %s", host, gai_strerror(failure));
    for (const struct addrinfo *a = list; a != NULL && fd < 0; a = a->ai_next)
        fd = bind_one(a);
    failure = errno;
    freeaddrinfo(list);
    if (fd < 0)
        return TP_FAIL(
            TP_ERR_IO,
            "cannot listen on %s port %d: %s; choose another --port, or stop what uses it", host,
            port, strerror(failure));
    getsockname(fd, (struct sockaddr *)(void *)&bound, &len);
    *out_port =
        ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)(void *)&bound)->sin6_port
                                          : ((struct sockaddr_in *)(void *)&bound)->sin_port);
    *out_fd = fd;
    return TP_OK;
}

static int open_files(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = 0;

    if (dir == NULL)
        return 0;
    while (readdir(dir) != NULL)
        n++;
    closedir(dir);
    return n;
}

int api_listen_files_left(void)
{
    struct rlimit lim;
    int64_t left;

    if (getrlimit(RLIMIT_NOFILE, &lim) != 0)
        return FILES_LEAST;
    if (lim.rlim_cur < lim.rlim_max) {
        lim.rlim_cur = lim.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &lim);
        (void)getrlimit(RLIMIT_NOFILE, &lim);
    }
    left = lim.rlim_cur > INT32_MAX ? INT32_MAX : (int64_t)lim.rlim_cur;
    left -= open_files() + FILES_RESERVED;
    return left < FILES_LEAST ? FILES_LEAST : (int)left;
}
