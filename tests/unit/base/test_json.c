/* SPDX-License-Identifier: Apache-2.0 */
/* test_json.c - the reader's accessors, limits and messages; the writers; large documents; short memory.
 * What is and is not JSON is checked against Python by json_differential.py. */
#include "tests/unit/base/base_testing.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"

static tp_json *parse(const char *text)
{
    tp_json *root = NULL;
    tp_status st = tp_json_parse(&root, text, strlen(text), NULL);

    if (st != TP_OK)
        fail_msg("%s: %s", text, tp_last_error());
    return root;
}

static void expect_error(const char *text, const tp_json_limits *limits, tp_status want,
                         const char *message)
{
    tp_json *root = NULL;

    assert_int_equal(tp_json_parse(&root, text, strlen(text), limits), want);
    assert_null(root);
    if (strstr(tp_last_error(), message) == NULL)
        fail_msg("%s: \"%s\" lacks \"%s\"", text, tp_last_error(), message);
}

static void members_are_found(void **state)
{
    tp_json *root = parse("{\"n\":3,\"N\":4,\"f\":1.5,\"s\":\"x\\u4f60\",\"b\":true,\"z\":null,"
                          "\"a\":[1,[2],{}]}");
    const tp_json *a = tp_json_get(root, "a");

    (void)state;
    assert_int_equal(tp_json_get_int(root, "n", 0), 3);
    assert_int_equal(tp_json_get_int(root, "N", 0), 4);
    assert_int_equal(tp_json_get_int(root, "s", 7), 7);
    assert_int_equal(tp_json_get_int(root, "f", 7), 7);
    assert_true(tp_json_get_double(root, "f", 0) == 1.5);
    assert_true(tp_json_get_double(root, "none", 2) == 2);
    assert_string_equal(tp_json_get_string(root, "s", ""), "x\xe4\xbd\xa0");
    assert_string_equal(tp_json_get_string(root, "n", "d"), "d");
    assert_true(tp_json_get_bool(root, "b", false));
    assert_true(tp_json_is_null(tp_json_get(root, "z")));
    assert_true(tp_json_is_null(tp_json_get(root, "none")));
    assert_int_equal(tp_json_count(a), 3);
    assert_int_equal(tp_json_count(root), 7);
    assert_null(tp_json_key(tp_json_first(a)));
    assert_string_equal(tp_json_key(tp_json_first(root)), "n");
    assert_null(tp_json_first(tp_json_get(root, "s")));
    assert_null(tp_json_get(a, "x"));
    assert_null(tp_json_next(root));
    assert_null(tp_json_next(NULL));
    tp_json_free(root);
    tp_json_free(NULL);
}

static void kinds_have_names(void **state)
{
    static const char *const NAMES[] = {"null", "boolean", "number", "string", "array", "object"};
    tp_json *root = parse("[null,false,0,\"\",[],{}]");
    int kind = TP_JSON_NULL;

    (void)state;
    TP_JSON_EACH(item, root)
    {
        assert_int_equal(tp_json_kind(item), kind);
        assert_string_equal(tp_json_kind_name(tp_json_kind(item)), NAMES[kind]);
        kind++;
    }
    assert_int_equal(kind, 6);
    tp_json_free(root);
}

static void digits_survive(void **state)
{
    static const char TEXT[] =
        "[9007199254740993,1.0,1,-0,1e999,18446744073709551615,-9223372036854775808,"
        "[{\"x\":0.10}],1E2]";
    static const char *const RAW[] = {
        "9007199254740993",    "1.0", "1", "-0", "1e999", "18446744073709551615",
        "-9223372036854775808"};
    tp_json *root = parse(TEXT);
    const tp_json *item = tp_json_first(root);
    int64_t n = 5;
    tp_buf b;

    (void)state;
    for (size_t i = 0; i < TP_ARRAY_LEN(RAW); i++, item = tp_json_next(item)) {
        assert_string_equal(tp_json_raw(item), RAW[i]);
        if (i == 0)
            assert_true(tp_json_int64(item, &n) && n == INT64_C(9007199254740993));
        if (i == 1 || i == 4 || i == 5)
            assert_false(tp_json_int64(item, &n));
        if (i == 4)
            assert_true(isinf(tp_json_double(item)));
        if (i == 6)
            assert_true(tp_json_int64(item, &n) && n == INT64_MIN);
    }
    tp_buf_init(&b, 1000);
    tp_json_put_value(&b, root);
    assert_string_equal(b.data, TEXT);
    tp_buf_release(&b);
    tp_json_free(root);
    root = parse(" -12 ");
    assert_string_equal(tp_json_raw(root), "-12");
    assert_null(tp_json_next(root));
    tp_json_free(root);
}

static void very_long_numbers_keep_value_and_digits(void **state)
{
    static const char TEXT[] =
        "{\"s\":\"12345678901234567890123456789012345678901234567890123456789012345\","
        "\"x\":0.10000000000000000000000000000000000000000000000000000000000000000001,"
        "\"y\":2}";
    tp_json *root = parse(TEXT);
    tp_buf b;

    (void)state;
    assert_true(tp_json_get_double(root, "x", 0) == 0.1);
    assert_int_equal(tp_json_get_int(root, "y", 0), 2);
    tp_buf_init(&b, 1000);
    tp_json_put_value(&b, root);
    assert_string_equal(b.data, TEXT);
    tp_buf_release(&b);
    tp_json_free(root);
}

static void messages_tell_where(void **state)
{
    static const tp_json_limits SHALLOW = {.depth_max = 2};

    (void)state;
    expect_error("", NULL, TP_ERR_FORMAT, "JSON ends at byte 0: expected a value");
    expect_error("[1,", NULL, TP_ERR_FORMAT, "JSON ends at byte 3");
    expect_error("{\"a\" 1}", NULL, TP_ERR_FORMAT, "byte 5: expected ':', found '1'");
    expect_error("[1 2]", NULL, TP_ERR_FORMAT, "byte 3: expected ',' or ']', found '2'");
    expect_error("[\"\xff\"]", NULL, TP_ERR_FORMAT, "byte 2: not valid UTF-8");
    expect_error("\"\\u0000\"", NULL, TP_ERR_FORMAT, "byte 1: \\u0000");
    expect_error("\"\\ud800\"", NULL, TP_ERR_FORMAT, "byte 1: lone surrogate \\ud800");
    expect_error("{\"n\":1,\"\\u006e\":2}", NULL, TP_ERR_INVALID, "duplicate key \"\\u006e\"");
    expect_error("{\"n\":1,\"n\":2}", NULL, TP_ERR_INVALID, "duplicate key \"n\"");
    expect_error("[[[1]]]", &SHALLOW, TP_ERR_LIMIT, "byte 2: nested deeper than 2 levels");
}

static void limits_can_be_lifted(void **state)
{
    static const tp_json_limits LOOSE = {
        .depth_max = 100000, .allow_duplicate_keys = true, .allow_nul = true};
    char deep[1025];
    tp_json *root = NULL;

    (void)state;
    memset(deep, '[', 512);
    memset(deep + 512, ']', 512);
    deep[1024] = '\0';
    assert_int_equal(tp_json_parse(&root, deep, 1024, &LOOSE), TP_OK);
    tp_json_free(root);
    root = NULL;
    assert_int_equal(tp_json_parse(&root, "{\"n\":1,\"n\":\"a\\u0000b\"}", 22, &LOOSE), TP_OK);
    assert_int_equal(tp_json_count(root), 2);
    assert_string_equal(tp_json_string(tp_json_next(tp_json_first(root))), "a");
    tp_json_free(root);
}

static void long_key_is_cut_between_code_points(void **state)
{
    tp_buf b;

    (void)state;
    tp_buf_init(&b, 10000);
    for (int k = 0; k < 2; k++) {
        tp_buf_puts(&b, k == 0 ? "{\"a" : ",\"a");
        for (int i = 0; i < 100; i++)
            tp_buf_puts(&b, "\xe4\xbd\xa0");
        tp_buf_puts(&b, "\":1");
    }
    tp_buf_putc(&b, '}');
    expect_error(b.data, NULL, TP_ERR_INVALID, "\xe4\xbd\xa0...\"");
    tp_buf_release(&b);
}

static void strings_are_escaped(void **state)
{
    tp_buf b;

    (void)state;
    tp_buf_init(&b, 1000);
    tp_json_put_string(&b, "a\"\\/\b\f\n\r\t\x01\x1f\x7f\xe4\xbd\xa0\0z", 17);
    assert_string_equal(b.data,
                        "\"a\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\xe4\xbd\xa0\\u0000z\"");
    tp_buf_reset(&b);
    tp_json_put_cstring(&b, "");
    assert_string_equal(b.data, "\"\"");
    tp_buf_release(&b);
}

static void doubles_read_back_equal(void **state)
{
    static const struct {
        double v;
        const char *text;
    } CASES[] = {
        {0, "0"},
        {-0.0, "-0"},
        {1, "1"},
        {-17, "-17"},
        {0.1, "0.1"},
        {1e15, "1000000000000000"},
        {1e21, "1e+21"},
        {-2.5, "-2.5"},
        {1e-7, "1e-07"},
        {1.0 / 3, "0.3333333333333333"},
        {9007199254740992.0, "9007199254740992"},
        {HUGE_VAL, "null"},
        {(double)NAN, "null"},
        {5e-324, "4.94065645841247e-324"},
        {0.30000000000000004, "0.30000000000000004"},
    };
    tp_buf b;
    uint64_t bits = 88172645463325252ULL;

    (void)state;
    tp_buf_init(&b, 100);
    for (size_t i = 0; i < TP_ARRAY_LEN(CASES); i++) {
        tp_buf_reset(&b);
        tp_json_put_double(&b, CASES[i].v);
        assert_string_equal(b.data, CASES[i].text);
    }
    for (int i = 0; i < 100000; i++) {
        double v;

        bits ^= bits << 13; /* xorshift64 */
        bits ^= bits >> 7;
        bits ^= bits << 17;
        memcpy(&v, &bits, sizeof v);
        if (!isfinite(v))
            continue;
        tp_buf_reset(&b);
        tp_json_put_double(&b, v);
        if (strtod(b.data, NULL) != v)
            fail_msg("%.17g was written as %s", v, b.data);
    }
    tp_buf_release(&b);
}

static bool parse_once(void)
{
    static const char TEXT[] =
        "{\"a\":[1,2.5,{\"b\":\"text\",\"\\u0063\":null}],"
        "\"x\":0.10000000000000000000000000000000000000000000000000000000000000000001}";
    tp_json *root = NULL;
    tp_status st = tp_json_parse(&root, TEXT, sizeof TEXT - 1, NULL);

    if (st == TP_OK) {
        tp_json_free(root);
        return true;
    }
    assert_int_equal(st, TP_ERR_NOMEM);
    assert_null(root);
    return false;
}

static void every_allocation_may_fail(void **state)
{
    bool ok = false;
    int n_failures;

    (void)state;
    FAIL_EACH_ALLOCATION(n_failures, ok, ok = parse_once());
    assert_true(ok);
    assert_true(n_failures > 10);
}

/* 300,000 members and as many pairs, the shape of a large tokenizer.json; time must stay linear. */
static void large_document_is_quick(void **state)
{
    int64_t start;
    tp_json *root = NULL;
    tp_buf b;
    double seconds;

    (void)state;
    tp_buf_init(&b, (size_t)64 << 20);
    tp_buf_puts(&b, "{\"vocab\":{");
    for (int i = 0; i < 300000; i++)
        tp_buf_printf(&b, "%s\"tok%d\":%d", i > 0 ? "," : "", i, i);
    tp_buf_puts(&b, "},\"merges\":[");
    for (int i = 0; i < 300000; i++)
        tp_buf_printf(&b, "%s[\"left%d\",\"right%d\"]", i > 0 ? "," : "", i, i);
    tp_buf_puts(&b, "]}");
    assert_false(b.failed);
    start = tp_now_ns();
    assert_int_equal(tp_json_parse(&root, b.data, b.len, NULL), TP_OK);
    seconds = (double)(tp_now_ns() - start) / 1e9;
    print_message("%.1f MB in %.3f s\n", (double)b.len / 1e6, seconds);
    assert_true(seconds < 10); /* quadratic would take minutes; a sanitizer build some seconds */
    assert_int_equal(tp_json_count(tp_json_get(root, "vocab")), 300000);
    tp_json_free(root);
    tp_buf_release(&b);
}

static void files_are_parsed(void **state)
{
    tp_json *root = NULL;

    (void)state;
    assert_int_equal(tp_json_parse_file(&root, "/nowhere/x.json", 100, NULL), TP_ERR_NOT_FOUND);
    assert_int_equal(tp_json_parse_file(&root, "/proc/self/status", 100000, NULL), TP_ERR_FORMAT);
    assert_non_null(strstr(tp_last_error(), "/proc/self/status: JSON at byte 0"));
    assert_null(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_are_found),
        cmocka_unit_test(kinds_have_names),
        cmocka_unit_test(digits_survive),
        cmocka_unit_test(very_long_numbers_keep_value_and_digits),
        cmocka_unit_test(messages_tell_where),
        cmocka_unit_test(limits_can_be_lifted),
        cmocka_unit_test(long_key_is_cut_between_code_points),
        cmocka_unit_test(strings_are_escaped),
        cmocka_unit_test(doubles_read_back_equal),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(large_document_is_quick),
        cmocka_unit_test(files_are_parsed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
