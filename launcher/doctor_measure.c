/* SPDX-License-Identifier: Apache-2.0 */
/* doctor_measure.c - short measurements: memory bandwidth, the disk under a model, whether a port is free. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "launcher/doctor.h"

#define MEMORY_BYTES  (256u << 20) /* much larger than any cache, in all */
#define MEMORY_ROUNDS 4
#define THREADS_MAX   256
#define DISK_BYTES    (INT64_C(1) << 30)
#define DISK_SECONDS  3
#define BLOCK_BYTES   (8 << 20)
#define DIRECT_ALIGN  4096

static double seconds_since(int64_t start_ns)
{
    return (double)(tp_now_ns() - start_ns) / 1e9;
}

/* ---- memory ---- */

typedef struct reader {
    pthread_t thread;
    const char *at;
    size_t bytes;
    bool found; /* keeps the search from being left out */
} reader;

/* memchr() for a byte that is not there reads at the speed of the machine, on every instruction set. */
static void *read_part(void *arg)
{
    reader *r = arg;

    for (int i = 0; i < MEMORY_ROUNDS; i++)
        r->found = r->found || memchr(r->at, 1, r->bytes) != NULL;
    return NULL;
}

double launch_memory_gbps(int n_threads)
{
    int n = n_threads < THREADS_MAX ? n_threads : THREADS_MAX, started = 0;
    char *memory = tp_aligned_alloc(DIRECT_ALIGN, MEMORY_BYTES);
    reader *readers = tp_calloc((size_t)n, sizeof *readers);
    double seconds = 0;
    int64_t start;

    if (memory != NULL && readers != NULL) {
        memset(memory, 2, MEMORY_BYTES);
        start = tp_now_ns();
        for (; started < n; started++) {
            readers[started].at = memory + (size_t)started * (MEMORY_BYTES / (size_t)n);
            readers[started].bytes = MEMORY_BYTES / (size_t)n;
            if (pthread_create(&readers[started].thread, NULL, read_part, &readers[started]) != 0)
                break;
        }
        for (int i = 0; i < started; i++)
            (void)pthread_join(readers[i].thread, NULL);
        seconds = seconds_since(start);
    }
    tp_free(readers);
    tp_free(memory);
    return started > 0 && seconds > 0
               ? (double)started * MEMORY_ROUNDS * (MEMORY_BYTES / (size_t)n) / seconds / 1e9
               : 0;
}

/* ---- disk ---- */

static bool largest_file(const char *dir, char *path, size_t cap, int64_t *bytes)
{
    DIR *d = opendir(dir);
    const struct dirent *e;

    *bytes = 0;
    while (d != NULL && (e = readdir(d)) != NULL) {
        char name[4096];
        struct stat st;

        if (snprintf(name, sizeof name, "%s/%s", dir, e->d_name) < (int)sizeof name &&
            stat(name, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > *bytes &&
            strlen(name) < cap) {
            *bytes = st.st_size;
            memcpy(path, name, strlen(name) + 1);
        }
    }
    if (d != NULL)
        (void)closedir(d);
    return *bytes > 0;
}

/* GB/s of reading up to `limit` bytes of an open file from its beginning; *done is how many. */
static double read_speed(int fd, char *block, int64_t limit, int64_t *done)
{
    int64_t start = tp_now_ns();

    for (*done = 0; *done < limit && seconds_since(start) < DISK_SECONDS;) {
        ssize_t n = pread(fd, block, BLOCK_BYTES, *done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        *done += n;
    }
    return *done > 0 ? (double)*done / seconds_since(start) / 1e9 : 0;
}

static tp_status measure_file(launch_measured *m, const char *path, int64_t bytes)
{
    int64_t limit = bytes < DISK_BYTES ? bytes : DISK_BYTES, done;
    int fd = open(path, O_RDONLY | O_CLOEXEC), direct = open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
    char *block = tp_aligned_alloc(DIRECT_ALIGN, BLOCK_BYTES);
    tp_status st = TP_OK;

    if (fd < 0 || block == NULL) {
        (void)snprintf(m->model_error, sizeof m->model_error, "cannot read %.200s: %s", path,
                       fd < 0 ? strerror(errno) : "out of memory");
        st = TP_ERR_IO;
    } else {
        m->direct = direct >= 0;
        (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        m->disk_gbps = read_speed(direct >= 0 ? direct : fd, block, limit, &done);
        m->disk_bytes = done;
        (void)read_speed(fd, block, limit, &done); /* into the page cache */
        m->cache_gbps = read_speed(fd, block, done, &done);
    }
    tp_free(block);
    if (fd >= 0)
        (void)close(fd);
    if (direct >= 0)
        (void)close(direct);
    return st;
}

void launch_measure_disk(launch_measured *m, const char *dir)
{
    char path[4096];
    int64_t bytes;

    (void)snprintf(m->model, sizeof m->model, "%.255s", dir);
    if (!largest_file(dir, path, sizeof path, &bytes))
        (void)snprintf(m->model_error, sizeof m->model_error, "no file in %.200s", dir);
    else
        (void)measure_file(m, path, bytes);
}

/* ---- port ---- */

void launch_check_port(launch_measured *m, const char *host, int port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list = NULL;
    char service[16];
    int fd, one = 1, rc;

    (void)snprintf(service, sizeof service, "%d", port);
    rc = getaddrinfo(host, service, &hints, &list);
    if (rc != 0) {
        (void)snprintf(m->port_error, sizeof m->port_error, "--host %.60s: %s", host,
                       gai_strerror(rc));
        return;
    }
    fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (fd < 0 || bind(fd, list->ai_addr, list->ai_addrlen) != 0 || listen(fd, 1) != 0)
        (void)snprintf(m->port_error, sizeof m->port_error, "%.60s port %d: %s", host, port,
                       strerror(errno));
    if (fd >= 0)
        (void)close(fd);
    freeaddrinfo(list);
}
