/* SPDX-License-Identifier: Apache-2.0 */
/* utf8.c - one classification of lead bytes (Unicode 15, table 3-7) serves all functions.
 *
 * Only the second byte has a range that depends on the lead byte; third and fourth are always 80..BF.
 */
#include "base/utf8.h"

#include <string.h>

/* Length that a lead byte announces and the range of its second byte; length 0: no lead byte. */
typedef struct lead_info {
    uint8_t len;
    uint8_t second_min, second_max;
} lead_info;

static lead_info classify(unsigned char lead)
{
    if (lead < 0x80)
        return (lead_info){1, 0, 0};
    if (lead < 0xc2 || lead > 0xf4)
        return (lead_info){0, 0, 0};
    if (lead < 0xe0)
        return (lead_info){2, 0x80, 0xbf};
    switch (lead) {
    case 0xe0: return (lead_info){3, 0xa0, 0xbf}; /* no overlong forms */
    case 0xed: return (lead_info){3, 0x80, 0x9f}; /* no surrogates */
    case 0xf0: return (lead_info){4, 0x90, 0xbf}; /* no overlong forms */
    case 0xf4: return (lead_info){4, 0x80, 0x8f}; /* nothing above U+10FFFF */
    default: return (lead_info){lead < 0xf0 ? 3 : 4, 0x80, 0xbf};
    }
}

/* True when byte number `i` (1..3) may follow the lead byte. */
static bool continues(lead_info info, int i, unsigned char byte)
{
    if (i == 1)
        return byte >= info.second_min && byte <= info.second_max;
    return (byte & 0xc0) == 0x80;
}

int tp_utf8_decode(const char *s, size_t n, uint32_t *cp)
{
    static const uint8_t LEAD_MASK[5] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    const unsigned char *p = (const unsigned char *)s;
    lead_info info = classify(p[0]);
    uint32_t value;

    if (info.len == 0 || info.len > n)
        return 0;
    value = p[0] & LEAD_MASK[info.len];
    for (int i = 1; i < info.len; i++) {
        if (!continues(info, i, p[i]))
            return 0;
        value = value << 6 | (p[i] & 0x3f);
    }
    *cp = value;
    return info.len;
}

bool tp_utf8_valid(const char *s, size_t n)
{
    while (n > 0) {
        uint32_t cp;
        int len;

        if ((unsigned char)*s < 0x80) {
            s++;
            n--;
            continue;
        }
        len = tp_utf8_decode(s, n, &cp);
        if (len == 0)
            return false;
        s += len;
        n -= (size_t)len;
    }
    return true;
}

int tp_utf8_encode(uint32_t cp, char out[TP_UTF8_MAX_BYTES])
{
    TP_ASSERT(cp <= 0x10ffff && !(cp >= 0xd800 && cp <= 0xdfff));
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xc0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3f));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xe0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3f));
        out[2] = (char)(0x80 | (cp & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3f));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3f));
    out[3] = (char)(0x80 | (cp & 0x3f));
    return 4;
}

static size_t put_replacement(char *out)
{
    memcpy(out, TP_UTF8_REPLACEMENT, 3); // NOLINT(bugprone-not-null-terminated-result)
    return 3;
}

/* Takes one byte; returns the number of bytes written to out (0, 1..4, or more after a broken prefix). */
static size_t push_byte(tp_utf8_stream *u, unsigned char byte, char *out)
{
    size_t written = 0;
    lead_info info;

    if (u->n_pending > 0) {
        info = classify(u->pending[0]);
        if (continues(info, u->n_pending, byte)) {
            u->pending[u->n_pending++] = byte;
            if (u->n_pending < info.len)
                return 0;
            memcpy(out, u->pending, info.len);
            u->n_pending = 0;
            return info.len;
        }
        /* The prefix is a maximal subpart: one U+FFFD; the byte starts afresh. */
        written = put_replacement(out);
        u->n_pending = 0;
    }
    info = classify(byte);
    if (info.len == 0)
        return written + put_replacement(out + written);
    if (info.len == 1) {
        out[written] = (char)byte;
        return written + 1;
    }
    u->pending[u->n_pending++] = byte;
    return written;
}

size_t tp_utf8_stream_push(tp_utf8_stream *u, const void *bytes, size_t n, char *out)
{
    const unsigned char *p = bytes;
    size_t written = 0;

    for (size_t i = 0; i < n; i++)
        written += push_byte(u, p[i], out + written);
    return written;
}

size_t tp_utf8_stream_finish(tp_utf8_stream *u, char *out)
{
    if (u->n_pending == 0)
        return 0;
    u->n_pending = 0;
    return put_replacement(out);
}
