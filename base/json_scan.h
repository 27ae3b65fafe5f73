/* SPDX-License-Identifier: Apache-2.0 */
/* json_scan.h - strict validation of JSON text before cJSON sees it; private to base.
 *
 * cJSON takes more than RFC 8259 allows, cuts strings at NUL, forgets the digits of numbers and finds a repeated
 * key only by accident.  One pass over the text removes all of that.  Time is linear, also in the number of keys.
 */
#ifndef TP_JSON_SCAN_H
#define TP_JSON_SCAN_H

#include "base/json.h"

#define TP_JSON_DEPTH_DEFAULT 64
#define TP_JSON_DEPTH_MAX     512 /* the tree is walked recursively: this bounds the stack */
#define TP_JSON_CJSON_DIGITS  60  /* cJSON reads at most 63 characters of a number */

typedef struct tp_json_scan_result {
    tp_buf digits;     /* every number as sent, in document order, each followed by a NUL */
    bool long_numbers; /* some number is longer than TP_JSON_CJSON_DIGITS */
} tp_json_scan_result;

/* Errors as tp_json_parse.  On success the caller releases out->digits. */
TP_MUST_USE tp_status tp_json_scan(tp_json_scan_result *out, const char *text, size_t len,
                                   const tp_json_limits *limits);

/* Length of the JSON number at s, or 0 when there is none; used on text that was validated, too. */
size_t tp_json_number_len(const char *s, size_t n);

#endif
