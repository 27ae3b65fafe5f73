/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_sse.c - what a server answers to `tpserve bench`: an event stream, and the chunks in it.
 *
 * Promises: the events are the same however the bytes are cut; what a chunk says can be counted, printed and written as
 * JSON.  Events may be of EVENT_MAX bytes here, so that inputs reach the limit.
 */
#include <stdio.h>
#include <string.h>

#include "launcher/bench.h"
#include "launcher/bench_sse.h"
#include "tests/fuzz/fuzz.h"

#define EVENT_MAX  200
#define EVENTS_MAX ((size_t)1 << 20)

typedef struct reader {
    tp_buf events; /* each behind its length */
    launch_result result;
} reader;

static void take_chunk(reader *rd, const char *data, size_t n)
{
    launch_done done = {.start_ns = 1, .first_ns = 2, .end_ns = 3};
    launch_chunk c;

    if (launch_read_chunk(&c, data, n) != TP_OK) {
        TP_ASSERT(tp_last_error()[0] != '\0');
        return;
    }
    TP_ASSERT(c.prompt_tokens >= -1 && c.prompt_tokens <= INT32_MAX);
    TP_ASSERT(c.completion_tokens >= -1 && c.completion_tokens <= INT32_MAX);
    for (const char *s = c.error; *s != '\0'; s++)
        TP_ASSERT(*s >= ' ' && *s <= '~'); /* it goes to a terminal */
    if (c.error[0] != '\0') {
        launch_count_failure(&rd->result, c.error);
        return;
    }
    done.input_tokens = c.prompt_tokens;
    done.output_tokens = c.completion_tokens;
    launch_count_done(&rd->result, &done);
}

static void take_event(void *arg, const char *data, size_t n)
{
    reader *rd = arg;

    TP_ASSERT(n <= EVENT_MAX);
    tp_buf_put(&rd->events, &n, sizeof n);
    tp_buf_put(&rd->events, data, n);
    take_chunk(rd, data, n);
}

/* Feeds pieces of 1 to `longest` bytes; the bytes say which. */
static bool feed(reader *rd, const uint8_t *data, size_t size, size_t longest)
{
    launch_sse s;
    bool ok = true;

    launch_sse_init(&s);
    s.line.max = s.data.max = EVENT_MAX;
    for (size_t at = 0, n; at < size && ok; at += n) {
        n = longest > size ? size : 1 + data[at] % longest;
        n = n > size - at ? size - at : n;
        ok = launch_sse_feed(&s, (const char *)data + at, n, take_event, rd);
        TP_ASSERT(ok == !s.failed);
    }
    launch_sse_release(&s);
    return ok;
}

static void check_written(reader *rd)
{
    launch_bench_head head = {.backend = "openai", .base_url = "u", .endpoint = "e", .model = "m"};
    tp_json *root = NULL;
    launch_json j;

    rd->result.duration_s = 1;
    launch_json_init(&j);
    launch_put_result(&j, &head, &rd->result);
    TP_ASSERT(tp_json_parse(&root, tp_buf_str(&j.text), j.text.len, NULL) == TP_OK);
    tp_json_free(root);
    tp_buf_release(&j.text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const size_t k_longest[] = {SIZE_MAX, 1, 7, 64};
    tp_buf first;
    bool ok = false;

    fuzz_init();
    tp_buf_init(&first, EVENTS_MAX);
    for (size_t i = 0; i < TP_ARRAY_LEN(k_longest); i++) {
        reader rd = {0};
        bool now;

        tp_buf_init(&rd.events, EVENTS_MAX);
        launch_result_init(&rd.result, &(launch_load){.rate = 1});
        now = feed(&rd, data, size, k_longest[i]);
        if (i == 0) {
            take_chunk(&rd, (const char *)data, size); /* as an answer that is no stream */
            check_written(&rd);
            first = rd.events;
            ok = now;
        } else {
            TP_ASSERT(now == ok && rd.events.len == first.len);
            TP_ASSERT(memcmp(tp_buf_str(&rd.events), tp_buf_str(&first), first.len) == 0);
            tp_buf_release(&rd.events);
        }
        launch_result_release(&rd.result);
    }
    tp_buf_release(&first);
    return 0;
}
