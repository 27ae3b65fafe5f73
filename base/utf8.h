/* SPDX-License-Identifier: Apache-2.0 */
/* utf8.h - strict UTF-8: validation, code point iteration, and a streaming decoder.  Threads: any. */
#ifndef TP_UTF8_H
#define TP_UTF8_H

#include <stdint.h>

#include "base/status.h"

#define TP_UTF8_REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */
#define TP_UTF8_MAX_BYTES   4

/* Well formed (no overlong forms, surrogates or values above U+10FFFF). */
bool tp_utf8_valid(const char *s, size_t n);

/* Decodes one code point at s (n > 0 bytes left): returns its length 1..4, or 0 when ill formed. */
int tp_utf8_decode(const char *s, size_t n, uint32_t *cp);
/* Writes 1..4 bytes; returns the count. */
int tp_utf8_encode(uint32_t cp, char out[TP_UTF8_MAX_BYTES]);

/* Streaming decoder.  Bytes go in as they come; only whole code points come out.  Ill-formed sequences turn
 * into one U+FFFD per maximal subpart (the WHATWG rule, as Rust's from_utf8_lossy). */
typedef struct tp_utf8_stream {
    unsigned char pending[4]; /* an unfinished but so far valid prefix */
    uint8_t n_pending;        /* 0..3 */
} tp_utf8_stream;

/* Appends the text that n bytes complete to out (room for 3 * (n + 3) bytes); returns its length. */
size_t tp_utf8_stream_push(tp_utf8_stream *u, const void *bytes, size_t n, char *out);
/* End of input: a pending prefix becomes one U+FFFD; returns 0 or 3. */
size_t tp_utf8_stream_finish(tp_utf8_stream *u, char *out);

#endif
