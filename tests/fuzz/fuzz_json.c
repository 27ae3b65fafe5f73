/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_json.c - any bytes as JSON.  What is accepted is printed and read again, with the same result. */
#include <string.h>

#include "tests/fuzz/fuzz.h"

#define PRINTED_MAX ((size_t)64 << 20)

/* Looks at everything that the tree offers; the count of values. */
static size_t walk(const tp_json *v) /* NOLINT(misc-no-recursion): the depth is limited */
{
    size_t n = 1;
    int64_t whole;

    switch (tp_json_kind(v)) {
    case TP_JSON_NULL: TP_ASSERT(tp_json_is_null(v)); break;
    case TP_JSON_BOOL: (void)tp_json_bool(v); break;
    case TP_JSON_NUMBER:
        TP_ASSERT(tp_json_raw(v) != NULL);
        if (tp_json_int64(v, &whole) && whole > -(INT64_C(1) << 53) && whole < INT64_C(1) << 53)
            TP_ASSERT(tp_json_double(v) == (double)whole);
        break;
    case TP_JSON_STRING: TP_ASSERT(tp_json_string(v) != NULL); break;
    case TP_JSON_ARRAY:
    case TP_JSON_OBJECT:
        TP_JSON_EACH(item, v)
        n += walk(item);
        break;
    }
    return n;
}

static void try_limits(const uint8_t *data, size_t size, const tp_json_limits *limits)
{
    tp_json *first = NULL, *second = NULL;
    tp_buf one, two;

    if (tp_json_parse(&first, (const char *)data, size, limits) != TP_OK) {
        TP_ASSERT(first == NULL && tp_last_error()[0] != '\0');
        return;
    }
    tp_buf_init(&one, PRINTED_MAX);
    tp_buf_init(&two, PRINTED_MAX);
    TP_ASSERT(limits == NULL || limits->values_max == 0 || walk(first) <= limits->values_max);
    (void)walk(first);
    tp_json_put_value(&one, first);
    TP_ASSERT(!one.failed);
    if (limits == NULL || !limits->allow_nul) { /* strings that were cut may collide */
        TP_ASSERT(tp_json_parse(&second, one.data, one.len, limits) == TP_OK);
        tp_json_put_value(&two, second);
        TP_ASSERT(one.len == two.len && memcmp(one.data, two.data, one.len) == 0);
    }
    tp_json_free(first);
    tp_json_free(second);
    tp_buf_release(&one);
    tp_buf_release(&two);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const k_free[] = {"metadata", NULL};

    fuzz_init();
    try_limits(data, size, NULL);
    try_limits(data, size,
               &(tp_json_limits){.depth_max = 8, .free_members = k_free, .values_max = 64});
    try_limits(
        data, size,
        &(tp_json_limits){.depth_max = 1 << 20, .allow_duplicate_keys = true, .allow_nul = true});
    return 0;
}
