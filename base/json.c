/* SPDX-License-Identifier: Apache-2.0 */
/* json.c - the tree: cJSON behind a strict validator, and the digits that cJSON forgets.
 *
 * All numbers' digits lie in one string, one after the other, each ended by a NUL.  A number node points into it
 * and is marked cJSON_IsReference, so that cJSON_Delete leaves it alone; the string itself belongs to a hidden
 * node of type cJSON_Raw that follows the root as its sibling, and goes with it in cJSON_Delete.  The walk that
 * hands out the digits visits nodes in document order, the order in which the validator collected them.
 */
#include "base/json.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <cJSON.h>

#include "base/json_scan.h"
#include "base/mem.h"

static const tp_json_limits DEFAULT_LIMITS = {0};

static void install_hooks(void)
{
    cJSON_Hooks hooks = {.malloc_fn = tp_malloc, .free_fn = tp_free};

    cJSON_InitHooks(&hooks);
}

static int type_of(const cJSON *v)
{
    return v->type & 0xff;
}

/* Gives every number its digits and its value; recursion is bounded by TP_JSON_DEPTH_MAX. */
static char *attach_digits(cJSON *first, char *digits) // NOLINT(misc-no-recursion)
{
    for (cJSON *v = first; v != NULL; v = v->next) {
        if (type_of(v) == cJSON_Number) {
            v->valuestring = digits;
            v->type |= cJSON_IsReference;
            if (strlen(digits) > TP_JSON_CJSON_DIGITS)
                v->valuedouble = strtod(digits, NULL);
            digits += strlen(digits) + 1;
        } else if (v->child != NULL) {
            digits = attach_digits(v->child, digits);
        }
    }
    return digits;
}

/* Copies valid JSON, with every over-long number replaced by 0 and spaces: cJSON would stumble over it. */
static char *copy_with_short_numbers(const char *text, size_t len)
{
    char *copy = tp_malloc(len + 1);
    bool in_string = false;
    size_t i = 0;

    if (copy == NULL)
        return NULL;
    memcpy(copy, text, len);
    copy[len] = '\0';
    while (i < len) {
        char c = copy[i];
        size_t n = in_string ? 0 : tp_json_number_len(copy + i, len - i);

        if (c == '"')
            in_string = !in_string;
        else if (c == '\\')
            i++;
        if (n > TP_JSON_CJSON_DIGITS) {
            memset(copy + i, ' ', n);
            copy[i] = '0';
        }
        i += n > 0 ? n : 1;
    }
    return copy;
}

static tp_status build_tree(cJSON **out, const char *text, size_t len, bool long_numbers)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    char *copy = NULL;
    cJSON *root;

    (void)pthread_once(&once, install_hooks);
    if (long_numbers) {
        copy = copy_with_short_numbers(text, len);
        if (copy == NULL)
            return TP_REJECT(TP_ERR_NOMEM, "JSON: out of memory");
    }
    root = cJSON_ParseWithLengthOpts(copy != NULL ? copy : text, len, NULL, 0);
    tp_free(copy);
    if (root == NULL) /* the text is valid: only memory can be missing */
        return TP_REJECT(TP_ERR_NOMEM, "JSON: out of memory for %zu bytes of text", len);
    *out = root;
    return TP_OK;
}

tp_status tp_json_parse(tp_json **out, const char *text, size_t len, const tp_json_limits *limits)
{
    tp_json_scan_result scan;
    cJSON *root = NULL, *keeper;
    tp_status st;

    TP_TRY(tp_json_scan(&scan, text, len, limits != NULL ? limits : &DEFAULT_LIMITS));
    st = build_tree(&root, text, len, scan.long_numbers);
    if (st != TP_OK || root == NULL || scan.digits.len == 0)
        goto done;

    keeper = tp_calloc(1, sizeof *keeper); /* what cJSON_Delete frees with its hooks */
    if (keeper == NULL) {
        cJSON_Delete(root);
        st = TP_REJECT(TP_ERR_NOMEM, "JSON: out of memory");
        goto done;
    }
    keeper->type = cJSON_Raw;
    keeper->valuestring = tp_buf_take(&scan.digits);
    (void)attach_digits(root, keeper->valuestring);
    root->next = keeper;
done:
    tp_buf_release(&scan.digits);
    if (st == TP_OK)
        *out = root;
    return st;
}

tp_status tp_json_parse_file(tp_json **out, const char *path, size_t max,
                             const tp_json_limits *limits)
{
    tp_buf text;
    tp_status st;

    TP_TRY(tp_buf_read_file(&text, path, max));
    st = tp_json_parse(out, tp_buf_str(&text), text.len, limits);
    tp_buf_release(&text);
    if (st != TP_OK)
        return TP_FAIL(st, "%s: %s", path, tp_last_error());
    return TP_OK;
}

void tp_json_free(tp_json *root)
{
    cJSON_Delete(root);
}

tp_json_type tp_json_kind(const tp_json *v)
{
    if (v == NULL)
        return TP_JSON_NULL;
    switch (type_of(v)) {
    case cJSON_False:
    case cJSON_True: return TP_JSON_BOOL;
    case cJSON_Number: return TP_JSON_NUMBER;
    case cJSON_String: return TP_JSON_STRING;
    case cJSON_Array: return TP_JSON_ARRAY;
    case cJSON_Object: return TP_JSON_OBJECT;
    default: return TP_JSON_NULL;
    }
}

const char *tp_json_kind_name(tp_json_type t)
{
    switch (t) {
    case TP_JSON_NULL: return "null";
    case TP_JSON_BOOL: return "boolean";
    case TP_JSON_NUMBER: return "number";
    case TP_JSON_STRING: return "string";
    case TP_JSON_ARRAY: return "array";
    case TP_JSON_OBJECT: return "object";
    }
    return "unknown";
}

const tp_json *tp_json_get(const tp_json *v, const char *key)
{
    if (v == NULL || type_of(v) != cJSON_Object)
        return NULL;
    return cJSON_GetObjectItemCaseSensitive(v, key);
}

const tp_json *tp_json_first(const tp_json *v)
{
    return v != NULL ? v->child : NULL;
}

const tp_json *tp_json_next(const tp_json *v)
{
    const cJSON *next = v != NULL ? v->next : NULL;

    return next != NULL && type_of(next) != cJSON_Raw ? next : NULL;
}

const char *tp_json_key(const tp_json *v)
{
    return v->string;
}

size_t tp_json_count(const tp_json *v)
{
    size_t n = 0;

    TP_JSON_EACH(item, v)
    n++;
    return n;
}

bool tp_json_is_null(const tp_json *v)
{
    return v == NULL || type_of(v) == cJSON_NULL;
}

bool tp_json_bool(const tp_json *v)
{
    TP_ASSERT(v != NULL && tp_json_kind(v) == TP_JSON_BOOL);
    return type_of(v) == cJSON_True;
}

const char *tp_json_string(const tp_json *v)
{
    return v != NULL && type_of(v) == cJSON_String ? v->valuestring : NULL;
}

const char *tp_json_raw(const tp_json *v)
{
    return v != NULL && type_of(v) == cJSON_Number ? v->valuestring : NULL;
}

double tp_json_double(const tp_json *v)
{
    TP_ASSERT(v != NULL && type_of(v) == cJSON_Number);
    return v->valuedouble;
}

bool tp_json_int64(const tp_json *v, int64_t *out)
{
    const char *raw = tp_json_raw(v);
    char *end;
    long long n;

    if (raw == NULL)
        return false;
    errno = 0;
    n = strtoll(raw, &end, 10);
    if (*end != '\0' || errno != 0)
        return false;
    *out = n;
    return true;
}

int64_t tp_json_get_int(const tp_json *v, const char *key, int64_t dflt)
{
    int64_t n = dflt;

    (void)tp_json_int64(tp_json_get(v, key), &n);
    return n;
}

double tp_json_get_double(const tp_json *v, const char *key, double dflt)
{
    const tp_json *item = tp_json_get(v, key);

    return tp_json_raw(item) != NULL ? tp_json_double(item) : dflt;
}

bool tp_json_get_bool(const tp_json *v, const char *key, bool dflt)
{
    const tp_json *item = tp_json_get(v, key);

    return item != NULL && tp_json_kind(item) == TP_JSON_BOOL ? tp_json_bool(item) : dflt;
}

const char *tp_json_get_string(const tp_json *v, const char *key, const char *dflt)
{
    const char *s = tp_json_string(tp_json_get(v, key));

    return s != NULL ? s : dflt;
}
