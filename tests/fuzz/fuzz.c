/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz.c - see fuzz.h.  A scratch file is a link to /proc/self/fd/N of a memfd: opening it by name yields a file of its own
 * offset, and writing it touches no disk. */
#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"

#define FILES_MAX 16
#define NAME_MAX_ 64
#define SEPARATOR "----"

static char g_dir[64];
static struct {
    char name[NAME_MAX_];
    int fd;
} g_files[FILES_MAX];
static int g_n_files;

void fuzz_init(void)
{
    static bool done;

    if (done)
        return;
    done = true;
    tp_log_set_level(TP_LOG_NONE);
    TP_ASSERT(tp_hash_init() == TP_OK);
}

/* ---- files ---- */

static void path_of(const char *name, char out[128])
{
    (void)snprintf(out, 128, "%.60s/%.60s", fuzz_dir(), name);
}

static void remove_dir(void)
{
    char path[128];

    for (int i = 0; i < g_n_files; i++) {
        path_of(g_files[i].name, path);
        (void)unlink(path);
    }
    (void)rmdir(g_dir);
}

const char *fuzz_dir(void)
{
    const char *tmp = getenv("TMPDIR");

    if (g_dir[0] == '\0') {
        (void)snprintf(g_dir, sizeof g_dir, "%.40s/tp-fuzz-XXXXXX", tmp != NULL ? tmp : "/tmp");
        TP_ASSERT(mkdtemp(g_dir) != NULL);
        TP_ASSERT(atexit(remove_dir) == 0);
    }
    return g_dir;
}

/* The index of a file, which is made when it is new. */
static int find_file(const char *name)
{
    int i = 0;

    while (i < g_n_files && strcmp(g_files[i].name, name) != 0)
        i++;
    if (i < g_n_files)
        return i;
    TP_ASSERT(i < FILES_MAX && strlen(name) < NAME_MAX_);
    memcpy(g_files[i].name, name, strlen(name) + 1);
    g_files[i].fd = memfd_create(name, MFD_CLOEXEC);
    TP_ASSERT(g_files[i].fd >= 0);
    g_n_files++;
    return i;
}

void fuzz_sparse_file(const char *name, const void *data, size_t n_data, uint64_t n)
{
    int fd = g_files[find_file(name)].fd;
    char path[128], target[64];

    TP_ASSERT(ftruncate(fd, 0) == 0);
    TP_ASSERT(n_data == 0 || pwrite(fd, data, n_data, 0) == (ssize_t)n_data);
    TP_ASSERT(ftruncate(fd, (off_t)n) == 0);
    path_of(name, path);
    (void)snprintf(target, sizeof target, "/proc/self/fd/%d", fd);
    if (access(path, F_OK) != 0)
        TP_ASSERT(symlink(target, path) == 0);
}

void fuzz_file(const char *name, const void *data, size_t n)
{
    fuzz_sparse_file(name, data, n, n);
}

void fuzz_no_file(const char *name)
{
    char path[128];

    path_of(name, path);
    (void)unlink(path);
}

void fuzz_link(const char *name, const char *path)
{
    char link[128];

    (void)find_file(name);
    path_of(name, link);
    (void)unlink(link);
    TP_ASSERT(symlink(path, link) == 0);
}

/* ---- parts of an input ---- */

bool fuzz_next_line(fuzz_part *rest, fuzz_part *out)
{
    const char *end = rest->n > 0 ? memchr(rest->text, '\n', rest->n) : NULL;

    if (rest->n == 0)
        return false;
    *out = (fuzz_part){rest->text, end != NULL ? (size_t)(end - rest->text) : rest->n};
    rest->text += out->n + (end != NULL);
    rest->n -= out->n + (end != NULL);
    return true;
}

bool fuzz_next_part(fuzz_part *rest, fuzz_part *out)
{
    fuzz_part line;

    if (rest->n == 0)
        return false;
    *out = (fuzz_part){rest->text, 0};
    while (fuzz_next_line(rest, &line)) {
        if (line.n == strlen(SEPARATOR) && memcmp(line.text, SEPARATOR, line.n) == 0)
            return true;
        out->n = (size_t)(rest->text - out->text);
    }
    return true;
}

tp_json *fuzz_json(fuzz_part part)
{
    tp_json *root = NULL;

    return tp_json_parse(&root, part.text, part.n, NULL) == TP_OK ? root : NULL;
}
