/* SPDX-License-Identifier: Apache-2.0 */
/* normalize.c - Unicode normalisation form C (UAX 15), as `tokenizers` has it: with the tables of Unicode 9.
 *
 * Text is cut before every character that NFC can neither change nor attach to the one before it
 * (rt_unicode_joins).  A stretch of one character is copied; only longer ones, a letter and its marks, are
 * decomposed, put into canonical order and composed.  Ordering is a stable counting sort by combining class, so
 * that a megabyte of marks on one letter takes linear time.
 *
 * A first character that newer tables know as a mark or as part of a composite (rt_unicode_is_inert) is copied
 * and keeps the rest of its stretch away from whatever stands before it.
 */
#include <string.h>

#include <utf8proc.h>

#include "base/mem.h"
#include "runtime/tokenizer/internal.h"
#include "runtime/tokenizer/unicode.h"

#define DECOMPOSED_MAX 18 /* code points that one may decompose into; canonically at most 4 */
#define INSERTION_MAX  16

/* Code points of one stretch. */
typedef struct stretch {
    int32_t *cps;    /* owned */
    int32_t *sorted; /* owned; scratch of the sort */
    size_t n, cap;
} stretch;

static void stretch_release(stretch *s)
{
    tp_free(s->cps);
    tp_free(s->sorted);
}

static tp_status stretch_reserve(stretch *s, size_t n)
{
    size_t cap = s->cap < 64 ? 64 : s->cap;
    int32_t *cps, *sorted;

    if (s->cap - s->n >= n)
        return TP_OK;
    while (cap - s->n < n)
        cap *= 2;
    cps = tp_realloc(s->cps, cap * sizeof *cps);
    if (cps == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "normalise %zu characters", cap);
    s->cps = cps;
    sorted = tp_realloc(s->sorted, cap * sizeof *sorted);
    if (sorted == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "normalise %zu characters", cap);
    s->sorted = sorted;
    s->cap = cap;
    return TP_OK;
}

static int combining_class(int32_t cp)
{
    return utf8proc_get_property(cp)->combining_class;
}

/* Appends the canonical decomposition of cp. */
static tp_status decompose(stretch *s, uint32_t cp)
{
    int boundary = 0;
    utf8proc_ssize_t n;

    TP_TRY(stretch_reserve(s, DECOMPOSED_MAX));
    n = utf8proc_decompose_char((utf8proc_int32_t)cp, s->cps + s->n, DECOMPOSED_MAX,
                                UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, &boundary);
    TP_ASSERT(n > 0 && n <= DECOMPOSED_MAX);
    s->n += (size_t)n;
    return TP_OK;
}

static void insertion_sort(int32_t *cps, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        int32_t cp = cps[i];
        size_t k = i;

        for (; k > 0 && combining_class(cps[k - 1]) > combining_class(cp); k--)
            cps[k] = cps[k - 1];
        cps[k] = cp;
    }
}

/* Stable sort of marks (combining class above 0) by class. */
static void sort_marks(int32_t *cps, int32_t *sorted, size_t n)
{
    size_t at[256] = {0}, sum = 0;

    if (n <= INSERTION_MAX) {
        insertion_sort(cps, n);
        return;
    }
    for (size_t i = 0; i < n; i++)
        at[combining_class(cps[i])]++;
    for (int c = 0; c < 256; c++) {
        size_t count = at[c];

        at[c] = sum;
        sum += count;
    }
    for (size_t i = 0; i < n; i++)
        sorted[at[combining_class(cps[i])]++] = cps[i];
    memcpy(cps, sorted, n * sizeof *cps);
}

static void order(stretch *s)
{
    for (size_t i = 0; i < s->n;) {
        size_t first = i;

        while (i < s->n && combining_class(s->cps[i]) != 0)
            i++;
        if (i - first > 1)
            sort_marks(s->cps + first, s->sorted, i - first);
        i += i == first;
    }
}

/* Appends the normal form of a stretch of two or more characters, or of one that NFC changes. */
static tp_status put_stretch(tp_buf *out, stretch *s, const char *text, size_t n)
{
    utf8proc_ssize_t n_composed;
    size_t i = 0;
    uint32_t cp = 0;

    s->n = 0;
    i = (size_t)tp_utf8_decode(text, n, &cp);
    if (rt_unicode_is_inert(cp))
        tp_buf_put(out, text, i);
    else
        TP_TRY(decompose(s, cp));
    while (i < n) {
        i += (size_t)tp_utf8_decode(text + i, n - i, &cp);
        TP_TRY(decompose(s, cp));
    }
    order(s);
    n_composed = utf8proc_normalize_utf32(s->cps, (utf8proc_ssize_t)s->n,
                                          UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    TP_ASSERT(n_composed >= 0 && (size_t)n_composed <= s->n);
    for (utf8proc_ssize_t k = 0; k < n_composed; k++) {
        char utf8[TP_UTF8_MAX_BYTES];

        tp_buf_put(out, utf8, (size_t)tp_utf8_encode((uint32_t)s->cps[k], utf8));
    }
    return TP_OK;
}

/* Length of the character at text[i], and whether a stretch goes on with it.  Below U+0300 nothing joins. */
static size_t next_char(const char *text, size_t n, size_t i, bool *joins)
{
    unsigned char lead = (unsigned char)text[i];
    uint32_t cp = 0;
    size_t len;

    *joins = false;
    if (lead < 0x80)
        return 1;
    if (lead < 0xcc)
        return 2;
    len = (size_t)tp_utf8_decode(text + i, n - i, &cp);
    *joins = rt_unicode_joins(cp);
    return len;
}

tp_status rt_normalize_nfc(tp_buf *out, const char *text, size_t n)
{
    stretch s = {0};
    tp_status st = TP_OK;
    size_t copied = 0; /* text before this is in out */

    /* `first` is the start of the character before i, where a stretch would begin */
    for (size_t i = 0, first = 0; i < n && st == TP_OK;) {
        bool joins;
        size_t len = next_char(text, n, i, &joins);

        if (!joins) {
            first = i;
            i += len;
            continue;
        }
        tp_buf_put(out, text + copied, first - copied);
        while (i < n && joins) {
            i += len;
            if (i < n)
                len = next_char(text, n, i, &joins);
        }
        st = put_stretch(out, &s, text + first, i - first);
        copied = first = i;
    }
    stretch_release(&s);
    if (st != TP_OK)
        return st;
    tp_buf_put(out, text + copied, n - copied);
    if (out->failed)
        return TP_FAIL(TP_ERR_NOMEM, "normalise %zu bytes of text", n);
    return TP_OK;
}
