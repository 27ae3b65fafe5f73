/* SPDX-License-Identifier: Apache-2.0 */
/* buf.h - a byte string that grows up to a stated maximum.
 *
 * Failure is sticky: after the first append that did not fit, `failed` stays set and later appends do nothing,
 * so that a writer may append freely and check once at the end.  data is always NUL-terminated (the NUL does
 * not count in len) once anything was appended.  Threads: one at a time.
 */
#ifndef TP_BUF_H
#define TP_BUF_H

#include <stdarg.h>
#include <stdint.h>

#include "base/status.h"

typedef struct tp_buf {
    char *data; /* owned; NULL while empty */
    size_t len;
    size_t cap;
    size_t max; /* appends beyond this fail; SIZE_MAX = no limit but memory */
    bool failed;
    bool no_memory; /* it was the heap that refused, not max */
} tp_buf;

void tp_buf_init(tp_buf *b, size_t max);
void tp_buf_release(tp_buf *b); /* frees; the buffer is empty and usable again with the same max */
void tp_buf_reset(tp_buf *b);   /* len = 0, failed = false; keeps the memory */

void tp_buf_put(tp_buf *b, const void *data, size_t n);
void tp_buf_puts(tp_buf *b, const char *s);
void tp_buf_putc(tp_buf *b, char c);
void tp_buf_printf(tp_buf *b, const char *fmt, ...) TP_PRINTF(2, 3);
void tp_buf_vprintf(tp_buf *b, const char *fmt, va_list ap);

/* Room for n more bytes without another allocation; false when that exceeds max or the heap. */
bool tp_buf_reserve(tp_buf *b, size_t n);
const char *tp_buf_str(const tp_buf *b); /* data, or "" while empty */
char *tp_buf_take(tp_buf *b);            /* ownership of data leaves (tp_free); NULL when failed */

/* Reads a whole file of at most max bytes; initialises *out first, also when it fails (then it is empty).
 * Failures are logged.  Errors: NOT_FOUND, IO, LIMIT, NOMEM. */
TP_MUST_USE tp_status tp_buf_read_file(tp_buf *out, const char *path, size_t max);

#endif
