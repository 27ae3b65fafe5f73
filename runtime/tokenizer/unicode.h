/* SPDX-License-Identifier: Apache-2.0 */
/* unicode.h - the few facts about code points that Hugging Face `tokenizers` sees otherwise than our libraries.
 *
 * Its NFC has the tables of Unicode 9, its regular expressions those of a version newer than PCRE2's; the tables
 * are made by make_unicode_tables.py.  Threads: any.
 */
#ifndef RT_TOKENIZER_UNICODE_H
#define RT_TOKENIZER_UNICODE_H

#include <stdint.h>

#include "base/status.h"

typedef struct rt_unicode_range {
    uint32_t first, last;
} rt_unicode_range;

typedef struct rt_unicode_stand_in {
    uint32_t first, last;
    uint32_t shown; /* of the right category, and of the same length in UTF-8 */
} rt_unicode_stand_in;

extern const rt_unicode_range rt_unicode_nfc_joins[];
extern const size_t rt_unicode_nfc_joins_n;
extern const rt_unicode_range rt_unicode_nfc_inert[];
extern const size_t rt_unicode_nfc_inert_n;
extern const rt_unicode_stand_in rt_unicode_class[];
extern const size_t rt_unicode_class_n;
extern const char rt_unicode_digit_pattern[];

/* NFC may change cp or attach it to what stands before it; any other character starts a stretch of its own. */
bool rt_unicode_joins(uint32_t cp);
/* NFC must treat cp as a letter that nothing attaches to, whatever utf8proc knows about it. */
bool rt_unicode_is_inert(uint32_t cp);
/* The character that PCRE2 must see in place of cp; cp itself almost always. */
uint32_t rt_unicode_shown(uint32_t cp);

/* \s and \w of the regular expressions around added tokens (Unicode White_Space; letters, marks, digits, _). */
bool rt_unicode_is_space(uint32_t cp);
bool rt_unicode_is_word(uint32_t cp);

#endif
