/* SPDX-License-Identifier: Apache-2.0 */
/* test_pretok.c - golden splits of known patterns, the Split behaviors, and patterns that try to run for ever. */
#include "tests/unit/tokenizer/tok_testing.h"

#include "base/clock.h"

#define R_LLAMA3                                                                                   \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}| "         \
    "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define R_QWEN2                                                                                    \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| "              \
    "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define R_TEKKEN                                                                                   \
    "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]*"                \
    "[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]+|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?"                        \
    "[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]+[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]*|"       \
    "\\\\p{N}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n/]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"

#define BYTE_LEVEL           "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}"
#define SPLIT(pattern, more) "{\"type\":\"Split\",\"pattern\":{" pattern "},\"behavior\":" more "}"
#define STEPS(steps)         "{\"type\":\"Sequence\",\"pretokenizers\":[" steps "," BYTE_LEVEL "]}"
#define REGEX(r)             STEPS(SPLIT("\"Regex\":\"" r "\"", "\"Isolated\""))

static const char LLAMA3[] = REGEX(R_LLAMA3);
static const char QWEN2[] = REGEX(R_QWEN2);
static const char TEKKEN[] = REGEX(R_TEKKEN);
static const char GPT2[] = "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}";

static rt_pretok *create(const char *json)
{
    tp_json *doc = NULL;
    rt_pretok *p = NULL;

    assert_int_equal(tp_json_parse(&doc, json, strlen(json), NULL), TP_OK);
    assert_int_equal(rt_pretok_create(&p, doc, "test"), TP_OK);
    tp_json_free(doc);
    return p;
}

static tp_status join(void *ctx, const char *piece, size_t n)
{
    tp_buf *out = ctx;

    if (out->len > 0)
        tp_buf_putc(out, '|');
    tp_buf_put(out, piece, n);
    return TP_OK;
}

/* The pieces of text, joined by "|". */
static void expect(const char *json, const char *text, const char *want)
{
    rt_pretok *p = create(json);
    rt_pretok_run *run = NULL;
    tp_buf got;

    tp_buf_init(&got, 1 << 20);
    assert_int_equal(rt_pretok_run_create(&run, p, strlen(text)), TP_OK);
    assert_int_equal(rt_pretok_split(run, text, strlen(text), join, &got), TP_OK);
    assert_string_equal(tp_buf_str(&got), want);
    tp_buf_release(&got);
    rt_pretok_run_destroy(run);
    rt_pretok_destroy(p);
}

static void golden_splits(void **state)
{
    static const char hello[] = "Hello world!  How's 12345 it\n\n  going?\tYes  ";
    static const char ill[] = "I'LL  don't\r\n\r\n x";

    (void)state;
    expect(LLAMA3, hello, "Hello| world|!| | How|'s| |123|45| it|\n\n| | going|?|\tYes|  ");
    expect(QWEN2, hello, "Hello| world|!| | How|'s| |1|2|3|4|5| it|\n\n| | going|?|\tYes|  ");
    expect(GPT2, hello, "Hello| world|!| | How|'s| 12345| it|\n\n | going|?|\t|Yes|  ");
    expect(LLAMA3, ill, "I|'LL| | don|'t|\r\n\r\n| x");
    expect(GPT2, ill, "I|'|LL| | don|'t|\r\n\r\n| x");
    expect(LLAMA3, "a  b   c \n\n\n d", "a| | b|  | c| \n\n\n| d");
    expect(LLAMA3, "foo_bar(baz)//x\n", "foo|_bar|(baz|)//|x|\n");
    expect(GPT2, "foo_bar(baz)//x\n", "foo|_|bar|(|baz|)//|x|\n");
    expect(TEKKEN, "XMLHttpRequest HTTPServer", "XMLHttp|Request| HTTPServer");
    expect(LLAMA3,
           "e\xcc\x81"
           "a 3.14",
           "e|\xcc\x81"
           "a| |3|.|14");
    expect(TEKKEN,
           "e\xcc\x81"
           "a 3.14",
           "e\xcc\x81"
           "a| |3|.|1|4");
    expect(LLAMA3, "x'\xc5\xbfy", "x|'\xc5\xbf|y"); /* U+017F is an s */
    expect(LLAMA3,
           "a\xc2\xa0"
           "b\xe3\x80\x80\xe2\x80\xa8",
           "a|\xc2\xa0"
           "b|\xe3\x80\x80\xe2\x80\xa8");
    expect(LLAMA3,
           "a\xe1\xa0\x8e"
           "b",
           "a|\xe1\xa0\x8e"
           "b"); /* U+180E is no white space ... */
    expect(LLAMA3,
           "\xe1\xa0\x8e"
           "!",
           "\xe1\xa0\x8e"
           "!");
    expect(LLAMA3,
           "\xea\x9f\x8b"
           "a1",
           "\xea\x9f\x8b"
           "a|1"); /* U+A7CB is a letter since Unicode 16 */
    expect(LLAMA3, "", "");
}

static void split_behaviors(void **state)
{
    static const char text[] = "ab--c-d";
    static const struct {
        const char *json, *want;
    } cases[] = {
        {STEPS(SPLIT("\"String\":\"-\"", "\"Isolated\"")), "ab|-|-|c|-|d"},
        {STEPS(SPLIT("\"String\":\"-\"", "\"Removed\"")), "ab|c|d"},
        {STEPS(SPLIT("\"String\":\"-\"", "\"MergedWithPrevious\"")), "ab-|-|c-|d"},
        {STEPS(SPLIT("\"String\":\"-\"", "\"MergedWithNext\"")), "ab|-|-c|-d"},
        {STEPS(SPLIT("\"String\":\"-\"", "\"Contiguous\"")), "ab|--|c|-|d"},
        {STEPS(SPLIT("\"String\":\"-\"", "\"Removed\",\"invert\":true")), "-|-|-"},
        {STEPS(SPLIT("\"String\":\"\"", "\"Isolated\"")), "ab--c-d"},
        {STEPS(SPLIT("\"Regex\":\"-*\"", "\"Isolated\"")), "a|b|--|c|-|d"},
        {STEPS(SPLIT("\"String\":\".\"", "\"Isolated\"")), "ab--c-d"},
        {STEPS(SPLIT("\"String\":\"-\"", "\"Isolated\"") "," SPLIT("\"Regex\":\"b$\"",
                                                                   "\"Isolated\"")),
         "a|b|-|-|c|-|d"},
    };

    (void)state;
    for (size_t i = 0; i < TP_ARRAY_LEN(cases); i++)
        expect(cases[i].json, text, cases[i].want);
    expect(STEPS("{\"type\":\"Digits\",\"individual_digits\":true}"), "a12b", "a|1|2|b");
    expect(STEPS("{\"type\":\"Digits\",\"individual_digits\":false}"), "a12b", "a|12|b");
    expect("{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":true}", "a b", " a| b");
    expect("{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":true}", " a", " a");
    expect(STEPS(SPLIT("\"Regex\":\"a$\"", "\"Isolated\"")), "ba\nba",
           "b|a|\nb|a"); /* "$" ends lines */
}

/* Patterns that would keep a plain matcher busy for hours. */
static void no_pattern_hangs(void **state)
{
    static const char *const patterns[] = {
        REGEX("(?:a|a)*b"), REGEX("(?:a*)*b"), REGEX("a++b|c"), REGEX("(a+)+$x"), REGEX("(?=a*b)a"),
    };
    size_t n = 200000;
    char *text = tp_malloc(n);

    (void)state;
    assert_non_null(text);
    memset(text, 'a', n);
    for (size_t i = 0; i < TP_ARRAY_LEN(patterns); i++) {
        rt_pretok *p = create(patterns[i]);
        rt_pretok_run *run = NULL;
        tp_buf got;
        tp_status st;
        int64_t start = tp_now_ns();

        tp_buf_init(&got, 1 << 20);
        assert_int_equal(rt_pretok_run_create(&run, p, n), TP_OK);
        st = rt_pretok_split(run, text, n, join, &got);
        if (st != TP_OK) {
            assert_int_equal(st, TP_ERR_LIMIT);
            assert_non_null(strstr(tp_last_error(), "pre-tokenizer"));
        }
        assert_true(tp_now_ns() - start < 60 * TP_NS_PER_S);
        tp_buf_release(&got);
        rt_pretok_run_destroy(run);
        rt_pretok_destroy(p);
    }
    tp_free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_splits),
        cmocka_unit_test(split_behaviors),
        cmocka_unit_test(no_pattern_hangs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
