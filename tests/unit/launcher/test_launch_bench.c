/* SPDX-License-Identifier: Apache-2.0 */
/* test_launch_bench.c - the parts of `tpserve bench` that need no server: statistics, event streams, loads, files. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "launcher/bench.h"
#include "launcher/bench_sse.h"

/* cmocka compares floats, not doubles */
static bool near(double a, double b, double most)
{
    return fabs(a - b) <= most;
}

/* ---- statistics ---- */

/* Python: statistics.quantiles([15, 20, 35, 40, 50], n=100, method="inclusive")[q - 1], statistics.pstdev(...) */
static void test_percentiles(void **state)
{
    static const double k_values[] = {40, 15, 50, 20, 35};
    launch_samples s = {0};

    (void)state;
    assert_true(launch_percentile(&s, 50) == 0 && launch_mean(&s) == 0);
    for (size_t i = 0; i < TP_ARRAY_LEN(k_values); i++)
        launch_samples_add(&s, k_values[i]);
    assert_true(near(launch_percentile(&s, 50), 35, 1e-12));
    assert_true(near(launch_percentile(&s, 90), 46, 1e-12));
    assert_true(near(launch_percentile(&s, 99), 49.6, 1e-12));
    assert_true(near(launch_percentile(&s, 25), 20, 1e-12));
    assert_true(near(launch_percentile(&s, 0), 15, 0));
    assert_true(near(launch_percentile(&s, 100), 50, 0));
    assert_true(near(launch_mean(&s), 32, 1e-12));
    assert_true(near(launch_deviation(&s), 12.884098726725126, 1e-12));
    launch_samples_add(&s, 1); /* after sorting */
    assert_true(near(launch_percentile(&s, 0), 1, 0));
    launch_samples_release(&s);
}

static void test_many_samples(void **state)
{
    launch_samples s = {0};

    (void)state;
    for (int i = 100000; i > 0; i--)
        launch_samples_add(&s, i);
    assert_true(near(launch_percentile(&s, 99), 99000.01, 1e-6));
    tp_mem_fail_after(0);
    for (int i = 0; i < 100000; i++)
        launch_samples_add(&s, i);
    tp_mem_fail_after(-1);
    assert_true(s.failed && s.n >= 100000);
    launch_samples_release(&s);
}

/* ---- event streams ---- */

typedef struct seen {
    char text[512];
    int n;
} seen;

static void note(void *arg, const char *data, size_t n)
{
    seen *s = arg;
    size_t at = strlen(s->text);

    s->n++;
    (void)snprintf(s->text + at, sizeof s->text - at, "[%.*s]", (int)n, data);
}

static const char k_stream[] = ": keep-alive\n\n"
                               "data: {\"a\":1}\n\n"
                               "event: x\r\ndata:two\r\nid: 7\r\n\r\n"
                               "data: three\ndata: lines\ndata\n\n\n"
                               "data: [DONE]\n\n"
                               "data: cut";

static void test_events_however_cut(void **state)
{
    (void)state;
    for (size_t step = 1; step <= sizeof k_stream; step++) {
        launch_sse s;
        seen found = {0};

        launch_sse_init(&s);
        for (size_t at = 0; at < sizeof k_stream - 1; at += step) {
            size_t left = sizeof k_stream - 1 - at;

            assert_true(
                launch_sse_feed(&s, k_stream + at, left < step ? left : step, note, &found));
        }
        assert_string_equal(found.text, "[{\"a\":1}][two][three\nlines][[DONE]]");
        launch_sse_release(&s);
    }
}

static void test_event_without_end(void **state)
{
    static char block[65536];
    launch_sse s;
    seen found = {0};
    bool ok = true;

    (void)state;
    memset(block, 'x', sizeof block);
    launch_sse_init(&s);
    for (size_t n = 0; n <= LAUNCH_SSE_EVENT_MAX && ok; n += sizeof block)
        ok = launch_sse_feed(&s, block, sizeof block, note, &found);
    assert_true(!ok && s.failed && found.n == 0);
    assert_false(launch_sse_feed(&s, "\n\n", 2, note, &found));
    launch_sse_reset(&s);
    assert_true(launch_sse_feed(&s, "data: a\n\n", 9, note, &found));
    assert_int_equal(found.n, 1);
    launch_sse_release(&s);
}

static launch_chunk chunk(const char *text)
{
    launch_chunk c;

    assert_int_equal(launch_read_chunk(&c, text, strlen(text)), TP_OK);
    return c;
}

static void test_chunks(void **state)
{
    launch_chunk c;

    (void)state;
    assert_true(chunk("[DONE]").done);
    assert_true(chunk("{\"choices\":[{\"text\":\"a\"}]}").text);
    assert_false(chunk("{\"choices\":[{\"text\":\"\"}]}").text);
    assert_false(
        chunk("{\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}").text);
    assert_true(chunk("{\"choices\":[{\"delta\":{\"content\":\"b\"}}]}").text);
    assert_true(chunk("{\"choices\":[{\"delta\":{\"reasoning_content\":\"b\"}}]}").text);
    assert_true(chunk("{\"choices\":[{\"delta\":{\"tool_calls\":[{}]}}]}").text);
    assert_true(chunk("{\"choices\":[{\"message\":{\"content\":\"b\"}}]}").text);
    c = chunk("{\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}]}");
    assert_true(c.finished && !c.text && c.completion_tokens == -1);
    assert_false(chunk("{\"choices\":[{\"text\":\"\",\"finish_reason\":null}]}").finished);
    c = chunk("{\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}");
    assert_true(c.prompt_tokens == 3 && c.completion_tokens == 4 && !c.done);
    assert_string_equal(chunk("{\"error\":{\"code\":\"rank_lost\",\"type\":\"x\"}}").error,
                        "rank_lost");
    assert_string_equal(chunk("{\"error\":{\"code\":500}}").error, "500");
    assert_string_equal(chunk("{\"error\":{\"type\":\"x\"}}").error, "x");
    assert_string_equal(chunk("{\"error\":\"no\"}").error, "error");
    assert_string_equal(chunk("{\"error\":null}").error, "");
    assert_int_equal(launch_read_chunk(&c, "{\"choices\"", 10), TP_ERR_FORMAT);
    assert_int_equal(launch_read_chunk(&c, "[1]", 3), TP_ERR_FORMAT);
    assert_int_equal(launch_read_chunk(&c, "", 0), TP_ERR_FORMAT);
}

/* ---- loads ---- */

static const launch_options k_options = {.num_prompts = 10,
                                         .burstiness = 1,
                                         .random_input_len = 100,
                                         .random_output_len = 20,
                                         .length_distribution = "uniform"};

static void test_loads(void **state)
{
    launch_load loads[LAUNCH_LOADS_MAX];
    launch_options o = k_options;
    int n;

    (void)state;
    assert_int_equal(launch_read_loads(loads, &n, &o), TP_OK);
    assert_true(n == 1 && loads[0].concurrency == 16 && isinf(loads[0].rate));
    o.request_rate = "inf,2.5";
    assert_int_equal(launch_read_loads(loads, &n, &o), TP_OK);
    assert_true(n == 2 && loads[0].concurrency == 0 && isinf(loads[0].rate));
    o.max_concurrency = "1,4";
    assert_int_equal(launch_read_loads(loads, &n, &o), TP_OK);
    assert_int_equal(n, 4);
    assert_true(loads[3].concurrency == 4 && fabs(loads[3].rate - 2.5) < 1e-12);
    int equal = 0;
    for (int i = 0; i < 100; i++)
        equal += launch_prompt_id(&loads[0], 3, i) == launch_prompt_id(&loads[1], 3, i);
    assert_true(equal < 10); /* each load has its own prompts */
    static const char *const k_bad[] = {"", "x", "1,", ",1", "1 2", "-1", "1e9", "nan"};
    for (size_t i = 0; i < TP_ARRAY_LEN(k_bad); i++) {
        o.max_concurrency = k_bad[i];
        assert_int_equal(launch_read_loads(loads, &n, &o), TP_ERR_INVALID);
        assert_non_null(strstr(tp_last_error(), "--max-concurrency"));
    }
    o.max_concurrency = "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17"; /* times two rates */
    assert_int_equal(launch_read_loads(loads, &n, &o), TP_ERR_INVALID);
    o = k_options;
    o.burstiness = 0;
    assert_int_equal(launch_read_loads(loads, &n, &o), TP_ERR_INVALID);
}

#define MANY 20000

static launch_ask g_asks[MANY], g_again[MANY];

static launch_load a_load(void)
{
    return (launch_load){.n_requests = MANY,
                         .rate = INFINITY,
                         .burstiness = 1,
                         .input_len = 100,
                         .output_len = 20,
                         .seed = 7};
}

static void test_fixed_lengths(void **state)
{
    launch_load l = a_load();

    (void)state;
    l.prefix_len = 5;
    launch_plan_asks(g_asks, &l);
    for (int i = 0; i < MANY; i++)
        assert_true(g_asks[i].input_len == 105 && g_asks[i].output_len == 20 &&
                    g_asks[i].leave_after == -1 && g_asks[i].start_s == 0);
}

static void test_spread_lengths(void **state)
{
    launch_load l = a_load();
    int low = 1000, high = 0, leaving = 0;
    double sum = 0;

    (void)state;
    l.range_ratio = 0.5;
    l.leave_rate = 0.25;
    launch_plan_asks(g_asks, &l);
    for (int i = 0; i < MANY; i++) {
        low = g_asks[i].input_len < low ? g_asks[i].input_len : low;
        high = g_asks[i].input_len > high ? g_asks[i].input_len : high;
        sum += g_asks[i].input_len;
        leaving += g_asks[i].leave_after >= 0;
        assert_true(g_asks[i].leave_after < g_asks[i].output_len);
    }
    assert_true(low == 50 && high == 150);
    assert_true(fabs(sum / MANY - 100) < 1 && abs(leaving - MANY / 4) < MANY / 50);
    launch_plan_asks(g_again, &l);
    assert_memory_equal(g_asks, g_again, sizeof g_asks);
    l.seed = 8;
    launch_plan_asks(g_again, &l);
    assert_memory_not_equal(g_asks, g_again, sizeof g_asks);
    l.exponential = true;
    launch_plan_asks(g_asks, &l);
    sum = 0;
    for (int i = 0; i < MANY; i++) {
        assert_in_range(g_asks[i].input_len, 1, 800);
        sum += g_asks[i].input_len;
    }
    assert_true(fabs(sum / MANY - 100) < 3);
}

/* Gaps of a gamma distribution with shape k have mean 1/rate and deviation 1/(rate sqrt(k)). */
static void test_arrivals(void **state)
{
    static const double k_shapes[] = {0.5, 1, 4};

    (void)state;
    for (size_t k = 0; k < TP_ARRAY_LEN(k_shapes); k++) {
        launch_load l = a_load();
        launch_samples gaps = {0};

        l.rate = 50;
        l.burstiness = k_shapes[k];
        launch_plan_asks(g_asks, &l);
        for (int i = 1; i < MANY; i++)
            launch_samples_add(&gaps, g_asks[i].start_s - g_asks[i - 1].start_s);
        assert_true(launch_percentile(&gaps, 0) >= 0);
        assert_true(fabs(launch_mean(&gaps) - 0.02) < 0.0006);
        assert_true(fabs(launch_deviation(&gaps) - 0.02 / sqrt(k_shapes[k])) < 0.0012);
        launch_samples_release(&gaps);
    }
}

static void test_prompts(void **state)
{
    launch_load l = a_load();
    int equal = 0;

    (void)state;
    l.prefix_len = 50;
    for (int i = 0; i < 150; i++) {
        int32_t a = launch_prompt_id(&l, 0, i), b = launch_prompt_id(&l, 1, i);

        assert_in_range(a, 300, 999);
        assert_true(launch_prompt_word(&l, 0, i)[0] != '\0');
        if (i < 50)
            assert_int_equal(a, b);
        else
            equal += a == b;
    }
    assert_true(equal < 10);
}

/* ---- results ---- */

static void fill(launch_result *r, int concurrency)
{
    launch_load l = a_load();

    l.concurrency = concurrency;
    launch_result_init(r, &l);
    r->duration_s = 2;
    for (int i = 1; i <= 10; i++)
        launch_count_done(r, &(launch_done){.start_ns = TP_NS_PER_S,
                                            .first_ns = TP_NS_PER_S + i * TP_NS_PER_MS,
                                            .end_ns = TP_NS_PER_S + i * 20 * TP_NS_PER_MS,
                                            .input_tokens = 100,
                                            .output_tokens = 20});
    launch_count_failure(r, "http 429");
    launch_count_failure(r, "a, \"quoted\" kind");
    launch_count_failure(r, "http 429");
}

static void test_result(void **state)
{
    launch_result r;

    (void)state;
    fill(&r, 4);
    assert_true(r.completed == 10 && r.failed == 3 && r.n_kinds == 2 && r.kinds[0].n == 2);
    assert_true(near(launch_percentile(&r.ttft_ms, 50), 5.5, 1e-9));
    assert_true(near(launch_percentile(&r.tpot_ms, 100), 10, 1e-9)); /* (200 - 10) / 19 */
    launch_count_done(&r, &(launch_done){.start_ns = 1, .end_ns = 2, .output_tokens = 1});
    assert_true(r.ttft_ms.n == 10 && r.e2el_ms.n == 11); /* no stream: no first token */
    for (int i = 0; i < 2 * LAUNCH_KINDS_MAX; i++) {
        char kind[32];

        (void)snprintf(kind, sizeof kind, "kind %d", i);
        launch_count_failure(&r, kind);
    }
    assert_int_equal(r.n_kinds, LAUNCH_KINDS_MAX);
    assert_string_equal(r.kinds[LAUNCH_KINDS_MAX - 1].what, "other");
    assert_int_equal(r.failed, 3 + 2 * LAUNCH_KINDS_MAX);
    launch_result_release(&r);
}

static void read_back(char *out, size_t cap, const char *path)
{
    tp_buf b;

    assert_int_equal(tp_buf_read_file(&b, path, cap - 1), TP_OK);
    (void)snprintf(out, cap, "%s", tp_buf_str(&b));
    tp_buf_release(&b);
    (void)unlink(path);
}

static void test_files(void **state)
{
    launch_bench_head head = {
        .backend = "openai", .base_url = "u", .endpoint = "/e", .model = "a <b> & \"c\""};
    static char text[262144];
    launch_result r[2];
    char path[64];

    (void)state;
    fill(&r[0], 1);
    fill(&r[1], 4);
    (void)snprintf(path, sizeof path, "bench-%ld.csv", (long)getpid());
    assert_int_equal(launch_write_csv(path, &head, r, 2), TP_OK);
    read_back(text, sizeof text, path);
    assert_non_null(strstr(text, "backend,base_url,endpoint,model_id,"));
    assert_non_null(strstr(text, "\"a <b> & \"\"c\"\"\""));
    assert_non_null(strstr(text, "\"http 429: 2; a, \"\"quoted\"\" kind: 1\""));
    assert_int_equal(launch_write_plot(path, &head, r, 2), TP_OK);
    read_back(text, sizeof text, path);
    assert_non_null(strstr(text, "a &lt;b&gt; &amp; \"c\""));
    assert_non_null(strstr(text, "</svg>"));
    assert_null(strstr(text, "nan"));
    assert_null(strstr(text, "inf"));
    assert_int_equal(launch_write_csv("/nonexistent/x", &head, r, 2), TP_ERR_IO);
    (void)snprintf(path, sizeof path, "bench-%ld.png", (long)getpid());
    head.model =
        "a name beyond the right end of the sheet: \xc3\xa4 ................................"
        "........................................................................";
    assert_int_equal(launch_write_plot(path, &head, r, 2), TP_OK);
    read_back(text, sizeof text, path);
    assert_memory_equal(text, "\x89PNG\r\n\x1a\n", 8);
    launch_result_release(&r[0]);
    launch_result_release(&r[1]);
    /* nothing was measured */
    launch_result_init(&r[0], &(launch_load){.rate = INFINITY});
    assert_int_equal(launch_write_plot(path, &head, r, 1), TP_OK);
    read_back(text, sizeof text, path);
    assert_null(strstr(text, "nan"));
    assert_null(strstr(text, "inf"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_percentiles),
        cmocka_unit_test(test_many_samples),
        cmocka_unit_test(test_events_however_cut),
        cmocka_unit_test(test_event_without_end),
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_loads),
        cmocka_unit_test(test_fixed_lengths),
        cmocka_unit_test(test_spread_lengths),
        cmocka_unit_test(test_arrivals),
        cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_result),
        cmocka_unit_test(test_files),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
