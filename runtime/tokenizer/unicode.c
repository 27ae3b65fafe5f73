/* SPDX-License-Identifier: Apache-2.0 */
/* unicode.c - look-ups in the tables of unicode_tables.c; see unicode.h. */
#include "runtime/tokenizer/unicode.h"

#include <utf8proc.h>

/* Most Chinese and Japanese text lies in here, where no table has an entry: answered without a search. */
#define QUIET_FIRST 0x3400u
#define QUIET_LAST  0xa66eu

static bool in_ranges(const rt_unicode_range *ranges, size_t n, uint32_t cp)
{
    size_t low = 0, high = n;

    if (cp < ranges[0].first || (cp >= QUIET_FIRST && cp <= QUIET_LAST))
        return false;
    while (low < high) { /* the first range that does not end before cp */
        size_t mid = low + (high - low) / 2;

        if (ranges[mid].last < cp)
            low = mid + 1;
        else
            high = mid;
    }
    return low < n && ranges[low].first <= cp;
}

bool rt_unicode_joins(uint32_t cp)
{
    return in_ranges(rt_unicode_nfc_joins, rt_unicode_nfc_joins_n, cp);
}

bool rt_unicode_is_inert(uint32_t cp)
{
    return in_ranges(rt_unicode_nfc_inert, rt_unicode_nfc_inert_n, cp);
}

uint32_t rt_unicode_shown(uint32_t cp)
{
    size_t low = 0, high = rt_unicode_class_n;

    if (cp < rt_unicode_class[0].first || (cp >= QUIET_FIRST && cp <= QUIET_LAST))
        return cp;
    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (rt_unicode_class[mid].last < cp)
            low = mid + 1;
        else
            high = mid;
    }
    if (low < rt_unicode_class_n && rt_unicode_class[low].first <= cp)
        return rt_unicode_class[low].shown;
    return cp;
}

bool rt_unicode_is_space(uint32_t cp)
{
    if (cp <= 0x20)
        return cp == ' ' || (cp >= '\t' && cp <= '\r');
    return cp == 0x85 || cp == 0xa0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200a) ||
           cp == 0x2028 || cp == 0x2029 || cp == 0x202f || cp == 0x205f || cp == 0x3000;
}

bool rt_unicode_is_word(uint32_t cp)
{
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)rt_unicode_shown(cp));

    if (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_NL) /* L*, M*, Nd, Nl */
        return true;
    if (c == UTF8PROC_CATEGORY_PC || cp == 0x200c || cp == 0x200d)
        return true;
    /* circled and squared letters: symbols that Unicode calls alphabetic */
    return (cp >= 0x24b6 && cp <= 0x24e9) || (cp >= 0x1f130 && cp <= 0x1f149) ||
           (cp >= 0x1f150 && cp <= 0x1f169) || (cp >= 0x1f170 && cp <= 0x1f189);
}
