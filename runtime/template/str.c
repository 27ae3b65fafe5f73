/* SPDX-License-Identifier: Apache-2.0 */
/* str.c - strings that share memory.
 *
 * New bytes are written at the tip of a chunk.  When the left side of a concatenation ends exactly at the tip,
 * the right side is written behind it and the result shares the left side's bytes: building a text piece by
 * piece then costs its length once, not once per piece.  A chunk is followed by its shade, byte for byte.
 */
#include <string.h>

#include "base/hash.h"
#include "runtime/template/interp.h"

#define CHUNK_BYTES ((size_t)16384)

rt_str *rt_str_make(rt_render *r, const char *s, size_t n, bool user)
{
    rt_str *str;

    if (rt_tmpl_alloc(r, sizeof *str, &str) != TP_OK)
        return NULL;
    *str = (rt_str){.s = s, .n = n, .n_chars = SIZE_MAX, .user = user};
    return str;
}

/* Makes room for n bytes at the tip. */
static tp_status reserve(rt_render *r, size_t n)
{
    size_t size = n > CHUNK_BYTES / 2 ? 2 * n : CHUNK_BYTES;

    if (r->tip != NULL && (size_t)(r->tip_end - r->tip) >= n)
        return TP_OK;
    TP_TRY(rt_tmpl_alloc(r, r->marked ? 2 * size : size, &r->tip));
    r->tip_end = r->tip + size;
    r->tip_shade = size;
    return TP_OK;
}

static void append(rt_render *r, const rt_str *s)
{
    if (s->n == 0)
        return;
    memcpy(r->tip, s->s, s->n);
    if (r->marked && s->shade != NULL)
        memcpy(r->tip + r->tip_shade, s->shade, s->n);
    else if (r->marked)
        memset(r->tip + r->tip_shade, s->user, s->n);
    r->tip += s->n;
}

tp_status rt_str_concat(rt_render *r, const rt_str *a, const rt_str *b, rt_val *out)
{
    bool extend = a->n > 0 && a->s + a->n == r->tip && (size_t)(r->tip_end - r->tip) >= b->n &&
                  (!r->marked || a->shade == a->s + r->tip_shade);
    const char *begin = a->s, *shade = a->shade;
    rt_str *str;

    if (!extend) {
        TP_TRY(reserve(r, a->n + b->n));
        begin = r->tip;
        shade = r->marked ? r->tip + r->tip_shade : NULL;
        append(r, a);
    }
    append(r, b);
    TP_TRY(rt_tmpl_charge(r, (b->n + (extend ? 0 : a->n)) >> 10));
    TP_TRY(rt_tmpl_alloc(r, sizeof *str, &str));
    *str = (rt_str){.s = begin, .shade = shade, .n = a->n + b->n, .n_chars = SIZE_MAX};
    *out = rt_val_str(str);
    return TP_OK;
}

tp_status rt_str_lit(rt_render *r, const char *s, rt_val *out)
{
    rt_str *str;

    TP_TRY(rt_tmpl_alloc(r, sizeof *str, &str));
    *str = (rt_str){.s = s, .n = strlen(s), .n_chars = SIZE_MAX};
    *out = rt_val_str(str);
    return TP_OK;
}

tp_status rt_str_slice(rt_render *r, const rt_str *a, size_t begin, size_t end, rt_val *out)
{
    rt_str *str;

    TP_TRY(rt_tmpl_alloc(r, sizeof *str, &str));
    *str = (rt_str){.s = a->s + begin,
                    .shade = a->shade != NULL ? a->shade + begin : NULL,
                    .n = end - begin,
                    .n_chars = SIZE_MAX,
                    .user = a->user,
                    .safe = a->safe};
    *out = rt_val_str(str);
    return TP_OK;
}

size_t rt_str_chars(rt_str *s)
{
    if (s->n_chars == SIZE_MAX) {
        size_t chars = 0;

        for (size_t i = 0; i < s->n; i++)
            chars += ((unsigned char)s->s[i] & 0xC0) != 0x80;
        s->n_chars = chars;
    }
    return s->n_chars;
}

size_t rt_str_offset(rt_str *s, size_t i)
{
    size_t at = 0;

    if (rt_str_chars(s) == s->n)
        return i;
    for (; i > 0 && at < s->n; i--) {
        uint32_t cp;

        at = rt_utf8_next(s->s, s->n, at, &cp);
    }
    return at;
}

uint64_t rt_str_hash(rt_str *s)
{
    if (s->hash == 0)
        s->hash = tp_hash_fnv(s->s, s->n) | 1;
    return s->hash;
}

bool rt_str_same(const rt_str *a, const rt_str *b)
{
    return a == b || (a->n == b->n && memcmp(a->s, b->s, a->n) == 0);
}

bool rt_str_is(const rt_str *a, const char *literal)
{
    return a->n == strlen(literal) && memcmp(a->s, literal, a->n) == 0;
}

size_t rt_str_find(const rt_str *s, size_t from, const char *needle, size_t n_needle)
{
    const char *found;

    if (from > s->n)
        return s->n;
    if (n_needle == 0)
        return from;
    found = memmem(s->s + from, s->n - from, needle, n_needle);
    return found != NULL ? (size_t)(found - s->s) : s->n;
}
