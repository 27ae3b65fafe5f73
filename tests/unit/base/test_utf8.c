/* SPDX-License-Identifier: Apache-2.0 */
/* test_utf8.c - every code point, Unicode's table of ill-formed sequences, and streams cut anywhere. */
#include "tests/unit/base/base_testing.h"

#include <string.h>

#include "base/utf8.h"

static void every_code_point_round_trips(void **state)
{
    (void)state;
    for (uint32_t cp = 0; cp <= 0x10ffff; cp++) {
        char bytes[TP_UTF8_MAX_BYTES];
        uint32_t back = 0;
        int n;

        if (cp >= 0xd800 && cp <= 0xdfff)
            continue;
        n = tp_utf8_encode(cp, bytes);
        if (tp_utf8_decode(bytes, (size_t)n, &back) != n || back != cp ||
            !tp_utf8_valid(bytes, (size_t)n) || (n > 1 && tp_utf8_valid(bytes, (size_t)n - 1)))
            fail_msg("U+%04X does not round-trip", cp);
    }
}

static void ill_formed_is_refused(void **state)
{
    static const char *const BAD[] = {
        "\x80",
        "\xbf",
        "\xc0\x80",
        "\xc1\xbf",
        "\xe0\x80\x80",
        "\xe0\x9f\xbf",
        "\xed\xa0\x80",
        "\xed\xbf\xbf",
        "\xf0\x80\x80\x80",
        "\xf0\x8f\xbf\xbf",
        "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80",
        "\xff",
        "\xe4\xbd",
        "\xe4\xbd"
        "a",
        "\xc3",
    };

    (void)state;
    for (size_t i = 0; i < TP_ARRAY_LEN(BAD); i++) {
        uint32_t cp;

        assert_int_equal(tp_utf8_decode(BAD[i], strlen(BAD[i]), &cp), 0);
        assert_false(tp_utf8_valid(BAD[i], strlen(BAD[i])));
    }
    assert_true(tp_utf8_valid("", 0));
    assert_true(tp_utf8_valid("a\0b", 3));
}

/* Streams `in` in pieces of `step` bytes and compares. */
static void check_stream(const char *in, size_t len, size_t step, const char *want)
{
    tp_utf8_stream u = {.n_pending = 0};
    char out[256];
    size_t n = 0;

    for (size_t i = 0; i < len; i += step) {
        size_t piece = len - i < step ? len - i : step;

        n += tp_utf8_stream_push(&u, in + i, piece, out + n);
        assert_true(tp_utf8_valid(out, n));
    }
    n += tp_utf8_stream_finish(&u, out + n);
    out[n] = '\0';
    assert_string_equal(out, want);
}

static void streams_replace_maximal_subparts(void **state)
{
#define R TP_UTF8_REPLACEMENT
    static const struct {
        const char *in, *want;
    } CASES[] = {
        {"h\xc3\xa9llo \xe4\xbd\xa0 \xf0\x9f\x98\x80",
         "h\xc3\xa9llo \xe4\xbd\xa0 \xf0\x9f\x98\x80"},
        /* The Unicode Standard, tables 3-8 to 3-11. */
        {"\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41", R R R R R R R R "A"},
        {"\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41", R R R R R R R R "A"},
        {"\xf4\x91\x92\x93\xff\x41\x80\xbf\x42", R R R R R "A" R R "B"},
        {"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", R R R R "A"},
        {"\xe4\xbd", R},
        {"\xf0\x9f\x98\xe4\xbd\xa0", R "\xe4\xbd\xa0"},
        {"\xe4\xe4\xbd\xa0", R "\xe4\xbd\xa0"},
    };
#undef R

    (void)state;
    for (size_t i = 0; i < TP_ARRAY_LEN(CASES); i++)
        for (size_t step = 1; step <= 12; step++)
            check_stream(CASES[i].in, strlen(CASES[i].in), step, CASES[i].want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_point_round_trips),
        cmocka_unit_test(ill_formed_is_refused),
        cmocka_unit_test(streams_replace_maximal_subparts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
