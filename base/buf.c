/* SPDX-License-Identifier: Apache-2.0 */
/* buf.c - growing byte strings; see buf.h for the contract.
 *
 * Invariant: data == NULL, or data holds cap bytes, len < cap and data[len] == '\0'.
 */
#include "base/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/mem.h"

#define CAP_FIRST ((size_t)64)
#define LEN_MAX   (SIZE_MAX / 2) /* leaves room for the NUL and for sums of two lengths */

void tp_buf_init(tp_buf *b, size_t max)
{
    *b = (tp_buf){.max = max < LEN_MAX ? max : LEN_MAX};
}

void tp_buf_release(tp_buf *b)
{
    tp_free(b->data);
    tp_buf_init(b, b->max);
}

void tp_buf_reset(tp_buf *b)
{
    b->len = 0;
    b->failed = b->no_memory = false;
    if (b->data != NULL)
        b->data[0] = '\0';
}

bool tp_buf_reserve(tp_buf *b, size_t n)
{
    size_t need, cap;
    char *data;

    if (n > b->max || b->len > b->max - n)
        return false;
    need = b->len + n + 1;
    if (need <= b->cap)
        return true;
    cap = b->cap < CAP_FIRST ? CAP_FIRST : b->cap;
    while (cap < need)
        cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    if (cap > b->max + 1)
        cap = b->max + 1;
    data = tp_realloc(b->data, cap);
    if (data == NULL) {
        b->no_memory = true;
        return false;
    }
    data[b->len] = '\0';
    b->data = data;
    b->cap = cap;
    return true;
}

void tp_buf_put(tp_buf *b, const void *data, size_t n)
{
    if (b->failed)
        return;
    if (!tp_buf_reserve(b, n)) {
        b->failed = true;
        return;
    }
    if (n > 0)
        memcpy(b->data + b->len, data, n);
    b->len += n;
    b->data[b->len] = '\0';
}

void tp_buf_puts(tp_buf *b, const char *s)
{
    tp_buf_put(b, s, strlen(s));
}

void tp_buf_putc(tp_buf *b, char c)
{
    tp_buf_put(b, &c, 1);
}

void tp_buf_printf(tp_buf *b, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    tp_buf_vprintf(b, fmt, ap);
    va_end(ap);
}

void tp_buf_vprintf(tp_buf *b, const char *fmt, va_list ap)
{
    size_t room = b->data != NULL ? b->cap - b->len : 0;
    va_list again;
    int n;

    if (b->failed)
        return;
    va_copy(again, ap);
    n = vsnprintf(room > 0 ? b->data + b->len : NULL, room, fmt, ap);
    if (n >= 0 && (size_t)n >= room && tp_buf_reserve(b, (size_t)n)) {
        room = b->cap - b->len;
        n = vsnprintf(b->data + b->len, room, fmt, again);
    }
    va_end(again);
    if (n < 0 || (size_t)n >= room || b->len + (size_t)n > b->max) {
        b->failed = true;
        if (b->data != NULL)
            b->data[b->len] = '\0';
        return;
    }
    b->len += (size_t)n;
}

const char *tp_buf_str(const tp_buf *b)
{
    return b->data != NULL ? b->data : "";
}

char *tp_buf_take(tp_buf *b)
{
    char *data;

    if (!b->failed && b->data == NULL)
        tp_buf_put(b, "", 0);
    if (b->failed) {
        tp_buf_release(b);
        return NULL;
    }
    data = b->data;
    tp_buf_init(b, b->max);
    return data;
}

/* Reads until the end of the file; one byte beyond max tells that the file is too large. */
static tp_status read_all(tp_buf *b, int fd, size_t size_hint, const char *path)
{
    for (;;) {
        size_t want = b->len < size_hint ? size_hint - b->len : 65536;
        size_t left = b->max - b->len;
        char probe;
        ssize_t got;

        if (want > left)
            want = left;
        if (!tp_buf_reserve(b, want))
            return TP_FAIL(TP_ERR_NOMEM, "read %s: no memory for %zu bytes", path, b->len + want);
        got = want > 0 ? read(fd, b->data + b->len, want) : read(fd, &probe, 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got >= 0 && tp_fault_hit("buf.read")) {
            errno = EIO;
            got = -1;
        }
        if (got > 1 && tp_fault_hit("buf.short")) { /* the rest comes with the next read */
            TP_ASSERT(lseek(fd, 1 - (off_t)got, SEEK_CUR) >= 0);
            got = 1;
        }
        if (got < 0)
            return TP_FAIL(TP_ERR_IO, "read %s: %m", path);
        if (got == 0)
            return TP_OK;
        if (want == 0)
            return TP_FAIL(TP_ERR_LIMIT, "read %s: larger than the limit of %zu bytes", path,
                           b->max);
        b->len += (size_t)got;
        b->data[b->len] = '\0';
    }
}

tp_status tp_buf_read_file(tp_buf *out, const char *path, size_t max)
{
    tp_buf b;
    struct stat info;
    tp_status st;
    int fd;

    tp_buf_init(out, max);
    tp_buf_init(&b, max);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        st = errno == ENOENT || errno == ENOTDIR ? TP_ERR_NOT_FOUND : TP_ERR_IO;
        return TP_FAIL(st, "open %s: %m", path);
    }
    if (fstat(fd, &info) != 0)
        info.st_size = 0;
    st = read_all(&b, fd, info.st_size > 0 ? (size_t)info.st_size : 0, path);
    (void)close(fd);
    if (st != TP_OK) {
        tp_buf_release(&b);
        return st;
    }
    *out = b;
    return TP_OK;
}
