/* SPDX-License-Identifier: Apache-2.0 */
/* pretok_syntax.c - keeps patterns out that PCRE2 would accept and read otherwise than Oniguruma does.
 *
 * Pre-tokeniser patterns are written for Oniguruma with Ruby's syntax.  What the known tokenizers use means the
 * same in PCRE2; the rest is refused here with its reason, because a wrong split is silent:
 *   [a[b]] and [a&&b]   nested classes and intersections; letters of their own in PCRE2
 *   x{1,3}+ and x{3}?   a repeated repeat and an optional one; possessive and lazy in PCRE2
 *   x{,3}               at most three; literal text in PCRE2
 *   \w \b \h \v ...     other sets of characters
 *   (?m) (?~x) (*VERB)  other meanings or none
 */
#include <ctype.h>
#include <string.h>

#include "runtime/tokenizer/internal.h"

#define SAME_ESCAPES "dDsSpPrntfaexAzZ0123456789"

static tp_status refuse(const char *what, const char *pattern, const char *at, const char *why)
{
    return TP_FAIL(TP_ERR_UNSUPPORTED, "%s: \"%.8s\" at byte %zu of the pattern: %s", what, at,
                   (size_t)(at - pattern), why);
}

/* Checks the escape at *p and steps behind its letter. */
static tp_status check_escape(const char *pattern, const char **p, const char *what)
{
    unsigned char c = (unsigned char)(*p)[1];

    if (c == '\0')
        return refuse(what, pattern, *p, "the pattern ends inside an escape");
    if (isalnum(c) && strchr(SAME_ESCAPES, c) == NULL)
        return refuse(what, pattern, *p, "an escape that has no exact counterpart in PCRE2");
    *p += 2;
    return TP_OK;
}

/* *p is at '['; steps behind the class. */
static tp_status check_class(const char *pattern, const char **p, const char *what)
{
    const char *open = *p;

    (*p)++;
    if (**p == '^')
        (*p)++;
    if (**p == ']')
        (*p)++;
    while (**p != ']') {
        if (**p == '\0')
            return refuse(what, pattern, open, "the class is not closed");
        if (**p == '[')
            return refuse(what, pattern, *p, "nested classes are not supported");
        if (strncmp(*p, "&&", 2) == 0)
            return refuse(what, pattern, *p, "class intersections are not supported");
        if (**p == '\\')
            TP_TRY(check_escape(pattern, p, what));
        else
            (*p)++;
    }
    (*p)++;
    return TP_OK;
}

static tp_status check_group(const char *pattern, const char **p, const char *what)
{
    static const char *const SAME[] = {
        "(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i:", "(?i)", "(?-i:", "(?-i)"};

    if ((*p)[1] == '*')
        return refuse(what, pattern, *p, "control verbs are not supported");
    if ((*p)[1] != '?') {
        (*p)++;
        return TP_OK;
    }
    for (size_t i = 0; i < TP_ARRAY_LEN(SAME); i++) {
        if (strncmp(*p, SAME[i], strlen(SAME[i])) == 0) {
            *p += strlen(SAME[i]);
            return TP_OK;
        }
    }
    return refuse(what, pattern, *p, "this kind of group is not supported");
}

/* *p is at '{'; steps behind a repeat, or behind the brace where it is literal. */
static tp_status check_repeat(const char *pattern, const char **p, const char *what)
{
    const char *open = *p, *q = open + 1;
    size_t low, high = 0;
    bool comma;

    low = strspn(q, "0123456789");
    q += low;
    comma = *q == ',';
    if (comma) {
        q++;
        high = strspn(q, "0123456789");
        q += high;
    }
    if (*q != '}' || (low == 0 && high == 0)) {
        (*p)++;
        return TP_OK;
    }
    if (low == 0)
        return refuse(what, pattern, open, "a repeat needs its lower bound: write {0,n}");
    if (q[1] == '+' || q[1] == '*' || (q[1] == '?' && !comma))
        return refuse(what, pattern, open, "a repeat of a repeat is not supported");
    *p = q + 1;
    return TP_OK;
}

tp_status rt_pretok_check_syntax(const char *pattern, const char *what)
{
    const char *p = pattern;

    while (*p != '\0') {
        switch (*p) {
        case '\\': TP_TRY(check_escape(pattern, &p, what)); break;
        case '[': TP_TRY(check_class(pattern, &p, what)); break;
        case '(': TP_TRY(check_group(pattern, &p, what)); break;
        case '{': TP_TRY(check_repeat(pattern, &p, what)); break;
        default: p++; break;
        }
    }
    return TP_OK;
}
