/* SPDX-License-Identifier: Apache-2.0 */
/* json.h - strict JSON in and out.  cJSON builds the tree; everything around it is checked first.
 *
 * tp_json_parse accepts exactly RFC 8259 (one value, UTF-8, no NUL, no \u0000, no lone surrogate), at most 64
 * levels deep by default, and keeps for every number the digits that were sent: tp_json_raw() returns them, so
 * 64-bit integers and the difference between 1 and 1.0 survive.  Object order is kept.
 * Nodes belong to the document and live until tp_json_free(root).  Threads: one per document.
 */
#ifndef TP_JSON_H
#define TP_JSON_H

#include <stdint.h>

#include "base/buf.h"
#include "base/status.h"

typedef struct cJSON tp_json; /* a node; opaque outside json.c */

typedef enum tp_json_type {
    TP_JSON_NULL,
    TP_JSON_BOOL,
    TP_JSON_NUMBER,
    TP_JSON_STRING,
    TP_JSON_ARRAY,
    TP_JSON_OBJECT
} tp_json_type;

typedef struct tp_json_limits {
    int depth_max;             /* 0 = 64 */
    bool allow_duplicate_keys; /* false: an object with a repeated key is refused */
    const char *const *
        free_members; /* NULL-ended names, or NULL: inside the values of such members, wherever they
                                      * stand, keys may repeat (objects that callers fill as they like) */
    size_t values_max; /* scalars, arrays and objects in the document; 0 = no limit */
    bool allow_nul; /* true: \u0000 is let through (vocabularies hold it); strings are cut there */
} tp_json_limits;

/* Parses len bytes.  Errors (text kept, not logged): FORMAT for bad JSON with the byte offset; INVALID for a
 * duplicate key ("duplicate key \"n\""); LIMIT for depth and number of values; NOMEM. limits NULL = defaults. */
TP_MUST_USE tp_status tp_json_parse(tp_json **out, const char *text, size_t len,
                                    const tp_json_limits *limits);
/* Reads and parses a file of at most max bytes; failures are logged with the path. */
TP_MUST_USE tp_status tp_json_parse_file(tp_json **out, const char *path, size_t max,
                                         const tp_json_limits *limits);
void tp_json_free(tp_json *root); /* NULL is fine */

tp_json_type tp_json_kind(const tp_json *v);   /* NULL (an absent member) is TP_JSON_NULL */
const char *tp_json_kind_name(tp_json_type t); /* "null", "boolean", "number", ... */

/* Member by exact name; NULL when absent or v is no object.  O(members): iterate instead in large objects. */
const tp_json *tp_json_get(const tp_json *v, const char *key);
const tp_json *tp_json_first(
    const tp_json *v); /* first element or member; NULL when empty or scalar */
const tp_json *tp_json_next(const tp_json *v); /* NULL behind the last, and of NULL */
const char *tp_json_key(const tp_json *v);     /* name of a member; NULL for array elements */
size_t tp_json_count(const tp_json *v);        /* elements or members; O(n) */

#define TP_JSON_EACH(item, parent)                                                                 \
    for (const tp_json *item = tp_json_first(parent); item != NULL; item = tp_json_next(item))

bool tp_json_is_null(const tp_json *v);       /* absent (NULL pointer) or null */
bool tp_json_bool(const tp_json *v);          /* only for TP_JSON_BOOL */
const char *tp_json_string(const tp_json *v); /* NUL-terminated; NULL unless a string */
const char *tp_json_raw(const tp_json *v);    /* digits of a number as sent; NULL unless a number */
double tp_json_double(const tp_json *v);      /* may be infinite for 1e999: check isfinite */
/* True when the number is written as an integer (no '.', no exponent) and fits. */
bool tp_json_int64(const tp_json *v, int64_t *out);

/* Convenience for files we trust to be small: typed member or the default when absent, null or another type. */
int64_t tp_json_get_int(const tp_json *v, const char *key, int64_t dflt);
double tp_json_get_double(const tp_json *v, const char *key, double dflt);
bool tp_json_get_bool(const tp_json *v, const char *key, bool dflt);
const char *tp_json_get_string(const tp_json *v, const char *key, const char *dflt);

/* Writers: append JSON text to a buffer. */
void tp_json_put_string(tp_buf *b, const char *s,
                        size_t n); /* quoted and escaped; s must be UTF-8 */
void tp_json_put_cstring(tp_buf *b, const char *s);
void tp_json_put_double(tp_buf *b,
                        double v); /* shortest text that reads back equal; not finite: null */
void tp_json_put_value(tp_buf *b, const tp_json *v); /* compact; numbers as they were sent */

#endif
