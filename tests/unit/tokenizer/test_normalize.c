/* SPDX-License-Identifier: Apache-2.0 */
/* test_normalize.c - NFC by the tables of Unicode 9: composition, order of marks, Hangul, what newer tables know. */
#include "tests/unit/tokenizer/tok_testing.h"

#include "base/clock.h"

#define N_MARKS ((size_t)500000)

static void expect(const char *text, const char *want)
{
    tp_buf got;

    tp_buf_init(&got, 1 << 20);
    assert_int_equal(rt_normalize_nfc(&got, text, strlen(text)), TP_OK);
    assert_string_equal(tp_buf_str(&got), want);
    tp_buf_release(&got);
}

static void composes_and_orders(void **state)
{
    (void)state;
    expect("", "");
    expect("plain", "plain");
    expect("\u00e9", "\u00e9");
    expect("e\u0301x", "\u00e9x");
    expect("\u0301e", "\u0301e");            /* a mark without a letter */
    expect("a\u0307\u0323", "\u1ea1\u0307"); /* below before above */
    expect("q\u0307\u0323", "q\u0323\u0307");
    expect("\u212b\u2126", "\u00c5\u03a9"); /* singletons */
    expect("\u0958", "\u0915\u093c");       /* excluded from composition */
    expect("\u1100\u1161\u11a8", "\uac01"); /* Hangul jamo */
    expect("\uac00\u11a8\u11a8", "\uac01\u11a8");
    expect("\uf900\u4e00", "\u8c48\u4e00");
    expect("\u03b1\u0345\u0301", "\u1fb4");
    expect("\U0001d15e", "\U0001d157\U0001d165");
}

static void leaves_newer_marks_alone(void **state)
{
    (void)state;
    expect("a\u1df6\u0316", "a\u1df6\u0316"); /* U+1DF6 came with Unicode 10 */
    expect("\u1df6\u0316\u0301\u0327", "\u1df6\u0327\u0316\u0301"); /* what follows it is ordered */
    expect("\u1df6\u0301e\u0301", "\u1df6\u0301\u00e9");
    expect("\U00011935\U00011930", "\U00011935\U00011930"); /* composes since Unicode 13 */
    expect("\U00011938", "\U00011938");
}

static void marks_by_the_thousand(void **state)
{
    int64_t start = tp_now_ns();
    tp_buf text, got;

    (void)state;
    tp_buf_init(&text, 1 << 22);
    tp_buf_init(&got, 1 << 22);
    tp_buf_puts(&text, "a");
    for (size_t i = 0; i < N_MARKS; i++)
        tp_buf_puts(&text, i % 2 == 0 ? "\u0301" : "\u0316");
    assert_int_equal(rt_normalize_nfc(&got, text.data, text.len), TP_OK);
    assert_int_equal(got.len, text.len - 1); /* one acute accent went into the letter */
    assert_memory_equal(got.data, "\u00e1\u0316\u0316", 6);
    assert_true(tp_now_ns() - start <
                10 * TP_NS_PER_S); /* the bubble sort of libraries takes minutes */
    tp_buf_release(&text);
    tp_buf_release(&got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(composes_and_orders),
        cmocka_unit_test(leaves_newer_marks_alone),
        cmocka_unit_test(marks_by_the_thousand),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
