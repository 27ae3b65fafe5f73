/* SPDX-License-Identifier: Apache-2.0 */
/* identity.c - see identity.h.  Within a file each piece is hashed under the digest so far; files are joined by
 * exclusive or, so that the order in which a directory lists them does not matter.
 * Fault points: "load.identity" another model is found here, "load.stall" the disk never answers. */
#include "runtime/model/identity.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/mem.h"

#define HEAD_BYTES   (1 << 20)
#define SAMPLE_BYTES (64 << 10)
#define PATH_BYTES   4352
#define STALL_US     100000

static void add(uint8_t digest[TP_HASH128_BYTES], const void *data, size_t n)
{
    uint8_t key[TP_HASH128_BYTES];

    memcpy(key, digest, sizeof key);
    tp_hash128(digest, data, n, key, sizeof key);
}

static void add_part(uint8_t digest[TP_HASH128_BYTES], int fd, char *buf, int64_t at, size_t bytes)
{
    ssize_t n = pread(fd, buf, bytes, at > 0 ? at : 0);

    if (n > 0)
        add(digest, buf, (size_t)n);
}

/* False: cannot be read. */
static bool add_file(uint8_t digest[TP_HASH128_BYTES], const char *dir, const char *name)
{
    char path[PATH_BYTES], *buf;
    struct stat sb;
    int fd;

    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    buf = fd >= 0 && fstat(fd, &sb) == 0 ? tp_malloc(HEAD_BYTES) : NULL;
    if (buf != NULL) {
        int64_t size = sb.st_size;

        add(digest, name, strlen(name));
        add(digest, &size, sizeof size);
        add_part(digest, fd, buf, 0, HEAD_BYTES);
        add_part(digest, fd, buf, size / 2, SAMPLE_BYTES);
        add_part(digest, fd, buf, size - SAMPLE_BYTES, SAMPLE_BYTES);
    }
    if (fd >= 0)
        close(fd);
    tp_free(buf);
    return buf != NULL;
}

static bool is_weights(const char *name)
{
    size_t len = strlen(name);

    return len > 12 && strcmp(name + len - 12, ".safetensors") == 0;
}

void rt_model_identity(uint8_t out[TP_HASH128_BYTES], const char *dir)
{
    uint8_t all[TP_HASH128_BYTES] = {0};
    struct dirent *e;
    DIR *d;

    memset(out, 0, TP_HASH128_BYTES);
    while (tp_fault_hit("load.stall"))
        for (;;)
            tp_sleep_us(STALL_US);
    if (tp_fault_hit("load.identity"))
        add(all, "x", 1);
    d = opendir(dir);
    if (d == NULL || !add_file(all, dir, "config.json")) {
        if (d != NULL)
            closedir(d);
        return;
    }
    while ((e = readdir(d)) != NULL) {
        uint8_t one[TP_HASH128_BYTES] = {0};

        if (!is_weights(e->d_name) || !add_file(one, dir, e->d_name))
            continue;
        for (int i = 0; i < TP_HASH128_BYTES; i++)
            all[i] ^= one[i];
    }
    closedir(d);
    memcpy(out, all, sizeof all);
}
