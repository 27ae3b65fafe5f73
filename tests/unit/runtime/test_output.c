/* SPDX-License-Identifier: Apache-2.0 */
/* test_output.c - tokens become text: what is held back, what a stop string removes, how a choice ends. */
#include "tests/unit/runtime/runtime_testing.h"

#include <math.h>

#include "runtime/output.h"

#define EOS 261

typedef struct fixture {
    rt_tokenizer *tokenizer;
    rt_config config;
    rt_stats stats;
    rt_output output;
    rt_request *r;
    rt_ending end;
    char text[4096];  /* everything that has come out */
    char steps[4096]; /* the same, with | behind every TOKEN event that had text */
    rt_event finish;
    int context; /* as max_model_len */
    int n_tokens, n_prompt, n_hidden;
    float first_prompt;
} fixture;

static fixture g;

static int open_all(void **state)
{
    (void)state;
    memset(&g, 0, sizeof g);
    g.tokenizer = load_tokenizer();
    g.config.eos[0] = EOS;
    g.config.n_eos = 1;
    g.context = 1000;
    rt_stats_init(&g.stats, 1000);
    g.output =
        (rt_output){.tokenizer = g.tokenizer, .config = &g.config, .stats = &g.stats, .now_ns = 1};
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    if (g.r != NULL)
        rt_request_unref(g.r);
    rt_tokenizer_destroy(g.tokenizer);
    return 0;
}

static void begin(const rt_request_desc *d)
{
    if (g.r != NULL)
        rt_request_unref(g.r);
    g.text[0] = g.steps[0] = '\0';
    g.n_tokens = g.n_prompt = g.n_hidden = 0;
    assert_int_equal(rt_request_create(&g.r, NULL, g.tokenizer, d, 4), TP_OK);
    g.r->choices[0].seq.n_total_max = d->n_prompt + d->sampling.max_tokens < g.context
                                          ? d->n_prompt + d->sampling.max_tokens
                                          : g.context;
}

static void drain(void)
{
    rt_event ev;

    while (rt_request_next(g.r, &ev)) {
        strncat(g.text, ev.text, ev.text_len);
        strncat(g.steps, ev.text, ev.text_len);
        if (ev.text_len > 0)
            strcat(g.steps, "|");
        g.n_tokens += ev.kind == RT_EVENT_TOKEN;
        g.n_hidden += ev.hidden;
        if (ev.kind == RT_EVENT_PROMPT && g.n_prompt++ == 0)
            g.first_prompt = ev.logprob;
        if (ev.kind == RT_EVENT_FINISH)
            g.finish = ev;
    }
}

/* One sampled token; true when the choice is over. */
static bool push(int32_t token)
{
    rt_choice *c = &g.r->choices[0];
    rt_step_result res = {.token = token};

    g.end = rt_output_token(&g.output, c, &res);
    if (g.end.finish != RT_FINISH_NONE)
        rt_output_finish(&g.output, c, &g.end);
    drain();
    return g.end.finish != RT_FINISH_NONE;
}

/* Text as single bytes; the number that was taken before the choice ended. */
static int push_text(const char *text)
{
    int n = 0;

    for (const char *s = text; *s != '\0'; s++, n++)
        if (push((unsigned char)*s))
            return n + 1;
    return n;
}

static rt_request_desc long_desc(const char *const *stop, int n_stop)
{
    rt_request_desc d = test_desc();

    d.sampling.max_tokens = 900;
    d.stop = stop;
    d.n_stop = n_stop;
    return d;
}

static void test_no_stop_strings_hold_nothing(void **state)
{
    rt_request_desc d = long_desc(NULL, 0);

    (void)state;
    begin(&d);
    push_text("abc");
    assert_string_equal(g.steps, "a|b|c|");
    assert_true(push(EOS));
    assert_int_equal(g.end.finish, RT_FINISH_STOP);
    assert_int_equal(g.finish.stop_token, -1);
    assert_int_equal(g.n_hidden, 1);
    assert_string_equal(g.text, "abc");
}

static void test_stop_string_across_tokens(void **state)
{
    static const char *const k_stop[] = {"END"};
    rt_request_desc d = long_desc(k_stop, 1);

    (void)state;
    begin(&d);
    assert_int_equal(push_text("oneENDtwo"), 6);
    assert_int_equal(g.finish.finish, RT_FINISH_STOP);
    assert_int_equal(g.finish.stop_string, 0);
    assert_string_equal(g.steps, "o|n|e|");
    assert_int_equal(g.n_tokens, 6);
    d.include_stop = true;
    begin(&d);
    push_text("oneENDtwo");
    assert_string_equal(g.text, "oneEND");
}

static void test_false_beginnings_are_let_out(void **state)
{
    static const char *const k_stop[] = {"aab"};
    rt_request_desc d = long_desc(k_stop, 1);

    (void)state;
    begin(&d);
    push_text("aaac");
    assert_string_equal(g.steps, "a|aac|");
    assert_int_equal(push_text("xaaab"), 5);
    assert_string_equal(g.text, "aaacxa");
}

static void test_held_text_comes_out_at_the_end(void **state)
{
    static const char *const k_stop[] = {"STOP"};
    rt_request_desc d = long_desc(k_stop, 1);

    (void)state;
    begin(&d);
    push_text("xSTO");
    assert_string_equal(g.text, "x");
    push(EOS);
    assert_string_equal(g.text, "xSTO");
    d.sampling.max_tokens = 4;
    begin(&d);
    push_text("xSTO");
    assert_int_equal(g.end.finish, RT_FINISH_LENGTH);
    assert_string_equal(g.text, "xSTO");
}

/* "hello" is one token: both strings end inside it, and the one that ends first wins. */
static void test_earliest_end_wins(void **state)
{
    static const char *const k_stop[] = {"llo", "el"};
    static const char *const k_tie[] = {"l", "el"};
    rt_request_desc d = long_desc(k_stop, 2);

    (void)state;
    begin(&d);
    assert_true(push(259));
    assert_int_equal(g.finish.stop_string, 1);
    assert_string_equal(g.text, "h");
    d = long_desc(k_tie, 2);
    begin(&d);
    assert_true(push(259));
    assert_int_equal(g.finish.stop_string, 0); /* same end: the first of the list */
    assert_string_equal(g.text, "he");
}

/* Every split of a text into tokens yields the text that a search of the whole would cut. */
static void test_random_texts_against_search(void **state)
{
    static const char *const k_stop[] = {"abab", "bba", "aaaa", "c"};
    uint64_t x = 7;

    (void)state;
    for (int round = 0; round < 300; round++) {
        rt_request_desc d = long_desc(k_stop, 1 + round % 3);
        char text[64], expected[64];
        size_t cut = sizeof text - 1;

        for (size_t i = 0; i < sizeof text - 1; i++) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            text[i] = "ab"[(x >> 60) & 1];
        }
        text[sizeof text - 1] = '\0';
        for (size_t end = 1; end < sizeof text && cut == sizeof text - 1; end++)
            for (int s = 0; s < d.n_stop; s++) {
                size_t len = strlen(k_stop[s]);

                if (end >= len && memcmp(text + end - len, k_stop[s], len) == 0) {
                    cut = end - len;
                    break;
                }
            }
        memcpy(expected, text, cut);
        expected[cut] = '\0';
        begin(&d);
        if (push_text(text) == (int)sizeof text - 1 && g.end.finish == RT_FINISH_NONE)
            push(EOS);
        assert_string_equal(g.text, expected);
    }
}

static void test_utf8_waits_for_whole_characters(void **state)
{
    static const char *const k_stop[] = {"\xc3\xa9"};
    rt_request_desc d = long_desc(NULL, 0);

    (void)state;
    begin(&d);
    push_text("a\xe2\x82\xac"); /* euro sign */
    assert_string_equal(g.steps, "a|\xe2\x82\xac|");
    push_text("\xe2\x82"); /* cut off by the end */
    push(EOS);
    assert_string_equal(g.text, "a\xe2\x82\xac\xef\xbf\xbd");
    d = long_desc(k_stop, 1);
    begin(&d);
    assert_int_equal(push_text("caf\xc3\xa9!"), 5);
    assert_string_equal(g.text, "caf");
}

static void test_stop_ids(void **state)
{
    static const int32_t k_ids[] = {'z'};
    rt_request_desc d = long_desc(NULL, 0);

    (void)state;
    d.stop_ids = k_ids;
    d.n_stop_ids = 1;
    begin(&d);
    push_text("xyz");
    assert_int_equal(g.finish.stop_token, 'z');
    assert_string_equal(g.text, "xy");
    d.sampling.ignore_eos = true;
    begin(&d);
    assert_false(push(EOS));
    assert_true(push('z'));
}

static void test_special_tokens(void **state)
{
    rt_request_desc d = long_desc(NULL, 0);

    (void)state;
    d.skip_special_tokens = true;
    begin(&d);
    push(260);
    push('a');
    assert_string_equal(g.text, "a");
    d.skip_special_tokens = false;
    begin(&d);
    push(260);
    push('a');
    assert_string_equal(g.text, "<s>a");
}

static void test_min_tokens(void **state)
{
    static const char *const k_stop[] = {"b"};
    rt_request_desc d = long_desc(k_stop, 1);

    (void)state;
    d.sampling.min_tokens = 3;
    begin(&d);
    assert_int_equal(push_text("abaab"), 5);
    assert_string_equal(g.text, "abaa");
}

static void test_length_and_context(void **state)
{
    rt_request_desc d = long_desc(NULL, 0);

    (void)state;
    d.sampling.max_tokens = 2;
    begin(&d);
    assert_int_equal(push_text("abc"), 2);
    assert_int_equal(g.finish.finish, RT_FINISH_LENGTH);
    d.sampling.max_tokens = 900;
    g.context = 6; /* prompt of 4 */
    begin(&d);
    assert_int_equal(push_text("abc"), 2);
    assert_int_equal(g.finish.finish, RT_FINISH_LENGTH);
}

static void test_broken_logits_are_an_error(void **state)
{
    rt_request_desc d = long_desc(NULL, 0);

    (void)state;
    begin(&d);
    assert_true(push(-1));
    assert_int_equal(g.finish.finish, RT_FINISH_ERROR);
    assert_string_equal(g.finish.error_code, "internal_error");
}

static void test_prompt_logprobs(void **state)
{
    rt_request_desc d = long_desc(NULL, 0);

    (void)state;
    d.sampling.n_prompt_logprobs = 1;
    begin(&d);
    for (int i = 1; i < d.n_prompt; i++)
        rt_output_prompt(&g.output, &g.r->choices[0],
                         &(rt_step_result){.is_prompt = true, .token = d.prompt[i], .logprob = -1});
    push('x');
    assert_int_equal(g.n_prompt, 4);
    assert_true(isnan(g.first_prompt));
    d.n_prompt = 1; /* no row, but an entry */
    begin(&d);
    push('x');
    assert_int_equal(g.n_prompt, 1);
}

static void test_counters(void **state)
{
    rt_request_desc d = long_desc(NULL, 0);

    (void)state;
    begin(&d);
    push_text("abc");
    push(EOS);
    assert_int_equal(g.stats.generation_tokens, 4);
    assert_int_equal(g.stats.finished_stop, 1);
    assert_int_equal(g.stats.ttft.total, 1);
    assert_int_equal(g.stats.inter_token.total, 3);
    assert_int_equal(g.stats.e2e.total, 1);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, open_all, close_all)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_no_stop_strings_hold_nothing),
        CASE(test_stop_string_across_tokens),
        CASE(test_false_beginnings_are_let_out),
        CASE(test_held_text_comes_out_at_the_end),
        CASE(test_earliest_end_wins),
        CASE(test_random_texts_against_search),
        CASE(test_utf8_waits_for_whole_characters),
        CASE(test_stop_ids),
        CASE(test_special_tokens),
        CASE(test_min_tokens),
        CASE(test_length_and_context),
        CASE(test_broken_logits_are_an_error),
        CASE(test_prompt_logprobs),
        CASE(test_counters),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
