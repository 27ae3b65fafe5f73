/* SPDX-License-Identifier: Apache-2.0 */
/* characters.c - what Python's str knows about characters: whitespace, classes, case mapping.
 *
 * Classes and simple case mappings come from utf8proc; the few full mappings (one character to several) that
 * occur in ordinary text are listed here.
 */
#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"
#include "runtime/template/interp.h"

bool rt_cp_is_space(uint32_t cp)
{
    if (cp < 0x80)
        return cp == ' ' || (cp >= 0x09 && cp <= 0x0D) || (cp >= 0x1C && cp <= 0x1F);
    return cp == 0x85 || cp == 0xA0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200A) ||
           cp == 0x2028 || cp == 0x2029 || cp == 0x202F || cp == 0x205F || cp == 0x3000;
}

static utf8proc_category_t category(uint32_t cp)
{
    return utf8proc_category((utf8proc_int32_t)cp);
}

bool rt_cp_is_alpha(uint32_t cp)
{
    utf8proc_category_t c = category(cp);

    return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}

bool rt_cp_is_decimal(uint32_t cp)
{
    return category(cp) == UTF8PROC_CATEGORY_ND;
}

bool rt_cp_is_digit(uint32_t cp)
{
    /* superscripts, subscripts and circled digits count as digits, not as decimals */
    return rt_cp_is_decimal(cp) || cp == 0xB2 || cp == 0xB3 || cp == 0xB9 || cp == 0x2070 ||
           (cp >= 0x2074 && cp <= 0x2079) || (cp >= 0x2080 && cp <= 0x2089) ||
           (cp >= 0x2460 && cp <= 0x2468);
}

bool rt_cp_is_numeric(uint32_t cp)
{
    utf8proc_category_t c = category(cp);

    return c == UTF8PROC_CATEGORY_ND || c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_NO;
}

bool rt_cp_is_upper(uint32_t cp)
{
    return category(cp) == UTF8PROC_CATEGORY_LU;
}
bool rt_cp_is_lower(uint32_t cp)
{
    return category(cp) == UTF8PROC_CATEGORY_LL;
}

bool rt_cp_is_printable(uint32_t cp)
{
    utf8proc_category_t c = category(cp);

    if (cp == ' ')
        return true;
    return c != UTF8PROC_CATEGORY_CC && c != UTF8PROC_CATEGORY_CF && c != UTF8PROC_CATEGORY_CS &&
           c != UTF8PROC_CATEGORY_CO && c != UTF8PROC_CATEGORY_CN && c != UTF8PROC_CATEGORY_ZS &&
           c != UTF8PROC_CATEGORY_ZL && c != UTF8PROC_CATEGORY_ZP;
}

typedef struct full_case {
    uint16_t cp;
    uint16_t upper[3], title[3];
} full_case;

static const full_case full_cases[] = {
    {0x00DF, {'S', 'S'}, {'S', 's'}},       /* sharp s */
    {0x0149, {0x02BC, 'N'}, {0x02BC, 'N'}}, /* n with apostrophe */
    {0x01F0, {'J', 0x030C}, {'J', 0x030C}}, /* j with caron */
    {0x0587, {0x0535, 0x0552}, {0x0535, 0x0582}},
    {0xFB00, {'F', 'F'}, {'F', 'f'}}, /* ligatures */
    {0xFB01, {'F', 'I'}, {'F', 'i'}},
    {0xFB02, {'F', 'L'}, {'F', 'l'}},
    {0xFB03, {'F', 'F', 'I'}, {'F', 'f', 'i'}},
    {0xFB04, {'F', 'F', 'L'}, {'F', 'f', 'l'}},
    {0xFB05, {'S', 'T'}, {'S', 't'}},
    {0xFB06, {'S', 'T'}, {'S', 't'}},
};

static int full_mapping(uint32_t cp, bool title, uint32_t out[3])
{
    for (size_t i = 0; i < TP_ARRAY_LEN(full_cases); i++) {
        const uint16_t *to = title ? full_cases[i].title : full_cases[i].upper;
        int n = 0;

        if (full_cases[i].cp != cp)
            continue;
        while (n < 3 && to[n] != 0) {
            out[n] = to[n];
            n++;
        }
        return n;
    }
    return 0;
}

int rt_cp_upper(uint32_t cp, uint32_t out[3])
{
    int n = cp < 0x80 ? 0 : full_mapping(cp, false, out);

    if (n > 0)
        return n;
    out[0] = cp < 0x80 ? (cp >= 'a' && cp <= 'z' ? cp - 32 : cp)
                       : (uint32_t)utf8proc_toupper((utf8proc_int32_t)cp);
    return 1;
}

int rt_cp_title(uint32_t cp, uint32_t out[3])
{
    int n = cp < 0x80 ? 0 : full_mapping(cp, true, out);

    if (n > 0)
        return n;
    if (cp < 0x80)
        return rt_cp_upper(cp, out);
    out[0] = (uint32_t)utf8proc_totitle((utf8proc_int32_t)cp);
    return 1;
}

int rt_cp_lower(uint32_t cp, uint32_t out[3])
{
    if (cp == 0x0130) { /* capital i with dot */
        out[0] = 'i';
        out[1] = 0x0307;
        return 2;
    }
    out[0] = cp < 0x80 ? (cp >= 'A' && cp <= 'Z' ? cp + 32 : cp)
                       : (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp);
    return 1;
}

size_t rt_utf8_next(const char *s, size_t n, size_t at, uint32_t *cp)
{
    int len = 1;

    if ((unsigned char)s[at] < 0x80) {
        *cp = (unsigned char)s[at];
        return at + 1;
    }
    len = tp_utf8_decode(s + at, n - at, cp);
    if (len == 0) { /* cannot happen in checked text */
        *cp = 0xFFFD;
        len = 1;
    }
    return at + (size_t)len;
}

size_t rt_utf8_prev(const char *s, size_t at, uint32_t *cp)
{
    size_t begin = at - 1;

    while (begin > 0 && at - begin < TP_UTF8_MAX_BYTES && ((unsigned char)s[begin] & 0xC0) == 0x80)
        begin--;
    (void)rt_utf8_next(s, at, begin, cp);
    return begin;
}

static bool has_char(const rt_str *chars, uint32_t cp)
{
    for (size_t i = 0; i < chars->n;) {
        uint32_t c;

        i = rt_utf8_next(chars->s, chars->n, i, &c);
        if (c == cp)
            return true;
    }
    return false;
}

void rt_str_trim(const rt_str *s, const rt_str *chars, bool left, bool right, size_t *begin,
                 size_t *end)
{
    uint32_t cp;

    *begin = 0;
    *end = s->n;
    while (left && *begin < *end) {
        size_t next = rt_utf8_next(s->s, *end, *begin, &cp);

        if (chars != NULL ? !has_char(chars, cp) : !rt_cp_is_space(cp))
            break;
        *begin = next;
    }
    while (right && *end > *begin) {
        size_t prev = rt_utf8_prev(s->s, *end, &cp);

        if (chars != NULL ? !has_char(chars, cp) : !rt_cp_is_space(cp))
            break;
        *end = prev;
    }
}
