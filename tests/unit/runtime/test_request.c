/* SPDX-License-Identifier: Apache-2.0 */
/* test_request.c - the outbox: order, wrap-around, who is woken when, and two threads at once. */
#include "tests/unit/runtime/runtime_testing.h"

#include <sched.h>

#define MESSAGES 20000

static rt_tokenizer *g_tokenizer;

static int load(void **state)
{
    (void)state;
    g_tokenizer = load_tokenizer();
    return 0;
}

static int unload(void **state)
{
    (void)state;
    rt_tokenizer_destroy(g_tokenizer);
    return 0;
}

static void count(void *ctx)
{
    atomic_fetch_add((atomic_int *)ctx, 1);
}

/* Event i carries i in its token, i % 21 logprobs, and a text that follows from i. */
static rt_event make_event(int i, rt_logprob *top, char *text)
{
    rt_event ev = {.kind = RT_EVENT_TOKEN, .token = i, .n_top = i % 21, .text_len = (size_t)i % 97};

    for (int k = 0; k < ev.n_top; k++)
        top[k] = (rt_logprob){.id = i + k, .logprob = -(float)k};
    for (size_t k = 0; k < ev.text_len; k++)
        text[k] = (char)('a' + (i + (int)k) % 26);
    ev.top = top;
    ev.text = text;
    return ev;
}

static void check_event(const rt_event *ev, int i)
{
    rt_logprob top[RT_LOGPROBS_MAX + 1];
    char text[128];
    rt_event want = make_event(i, top, text);

    assert_int_equal(ev->token, i);
    assert_int_equal(ev->n_top, want.n_top);
    assert_int_equal(ev->text_len, want.text_len);
    assert_memory_equal(ev->top, top, sizeof *top * (size_t)want.n_top);
    assert_memory_equal(ev->text, text, want.text_len);
}

static void push(rt_request *r, int i)
{
    rt_logprob top[RT_LOGPROBS_MAX + 1];
    char text[128];
    rt_event ev = make_event(i, top, text);

    rt_request_push(r, &ev);
}

static rt_request *create(bool batched, atomic_int *notified)
{
    rt_request_desc d = test_desc();
    rt_request *r;

    d.batched = batched;
    d.notify = notified != NULL ? count : NULL;
    d.ctx = notified;
    assert_int_equal(rt_request_create(&r, NULL, g_tokenizer, &d, 4), TP_OK);
    return r;
}

static void test_copies_what_it_was_given(void **state)
{
    int32_t prompt[] = {1, 2}, ids[] = {3};
    float bias[] = {1};
    char stop_text[] = "stop";
    const char *stop[] = {stop_text};
    rt_request_desc d = test_desc();
    rt_request *r;

    (void)state;
    d.prompt = prompt;
    d.n_prompt = 2;
    d.stop = stop;
    d.n_stop = 1;
    d.stop_ids = d.bias_ids = d.allowed = ids;
    d.n_stop_ids = d.n_bias = d.n_allowed = 1;
    d.bias = bias;
    assert_int_equal(rt_request_create(&r, NULL, g_tokenizer, &d, 4), TP_OK);
    memset(prompt, 0, sizeof prompt);
    memset(ids, 0, sizeof ids);
    bias[0] = 0;
    memset(stop_text, 'x', 4);
    stop[0] = NULL;
    assert_int_equal(r->desc.prompt[1], 2);
    assert_int_equal(r->desc.stop_ids[0], 3);
    assert_int_equal(r->desc.allowed[0], 3);
    assert_true(r->desc.bias[0] == 1);
    assert_string_equal(r->desc.stop[0], "stop");
    rt_request_unref(r);
}

/* Bursts of changing length, so that records meet the end of the ring at every offset. */
static void test_wrap_around(void **state)
{
    rt_request *r = create(false, NULL);
    size_t empty = rt_request_room(r);
    int written = 0, read = 0;
    rt_event ev;

    (void)state;
    for (int burst = 0; written < MESSAGES; burst++) {
        for (int i = 0; i < burst % 300 && rt_request_room(r) > 2 * r->record_max; i++)
            push(r, written++);
        while (read < written - burst % 7 && rt_request_next(r, &ev))
            check_event(&ev, read++);
    }
    while (rt_request_next(r, &ev))
        check_event(&ev, read++);
    assert_int_equal(read, written);
    assert_int_equal(rt_request_room(r), empty);
    assert_true(r->head > 4 * r->ring_bytes);
    rt_request_unref(r);
}

static void test_stream_is_woken_once_per_empty_box(void **state)
{
    atomic_int notified = 0;
    rt_request *r = create(false, &notified);
    rt_event ev;

    (void)state;
    push(r, 0);
    push(r, 1);
    assert_int_equal(notified, 1); /* it knows already */
    assert_true(rt_request_next(r, &ev));
    push(r, 2);
    assert_int_equal(notified, 1);
    while (rt_request_next(r, &ev))
        ;
    push(r, 3);
    assert_int_equal(notified, 2);
    rt_request_unref(r);
}

static void test_batched_is_woken_at_half_and_at_the_end(void **state)
{
    atomic_int notified = 0;
    rt_request *r = create(true, &notified);
    int n = 0;
    rt_event ev, finish = {.kind = RT_EVENT_FINISH, .finish = RT_FINISH_STOP};

    (void)state;
    while (rt_request_room(r) > r->ring_bytes / 2) {
        assert_int_equal(notified, 0);
        push(r, n++);
    }
    push(r, n++);
    assert_int_equal(notified, 1);
    while (rt_request_next(r, &ev))
        ;
    push(r, 0);
    assert_int_equal(notified, 1);
    rt_request_push(r, &finish);
    assert_int_equal(notified, 2);
    assert_false(rt_request_done(r));
    while (rt_request_next(r, &ev))
        ;
    assert_true(rt_request_done(r));
    rt_request_unref(r);
}

/* While the engine may still push, its half-box notice has been due. */
static void test_held_back_only_after_the_notice(void **state)
{
    (void)state;
    for (int n = 1; n <= RT_CHOICES_MAX; n++) {
        rt_request_desc d = test_desc();
        rt_request *r;

        d.n = n;
        assert_int_equal(rt_request_create(&r, NULL, g_tokenizer, &d, 4), TP_OK);
        assert_true(2 * (size_t)n * r->record_max + 2 * rt_request_prompt_record_bytes() <
                    r->ring_bytes / 2);
        assert_int_equal(r->ring_bytes & (r->ring_bytes - 1), 0);
        rt_request_unref(r);
    }
}

static void test_create_fails_cleanly(void **state)
{
    static const char *const k_stop[] = {"a", "b"};
    rt_request_desc d = test_desc();
    rt_request *r = NULL;
    int failures;

    (void)state;
    d.n = 8;
    d.stop = k_stop;
    d.n_stop = 2;
    FAIL_EACH_ALLOCATION(failures, r != NULL,
                         (void)!rt_request_create(&r, NULL, g_tokenizer, &d, 4096));
    assert_true(failures >= 4);
    rt_request_unref(r);
}

/* ---- two threads ---- */

typedef struct reader {
    rt_request *r;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    int notices, seen; /* under lock */
} reader;

static void wake_reader(void *ctx)
{
    reader *rd = ctx;

    pthread_mutex_lock(&rd->lock);
    rd->notices++;
    pthread_cond_signal(&rd->wake);
    pthread_mutex_unlock(&rd->lock);
}

/* Sleeps whenever the box is empty: a lost notice would hang the test. */
static void *read_all(void *ctx)
{
    reader *rd = ctx;
    rt_event ev;
    int n = 0;

    while (n < MESSAGES) {
        if (rt_request_next(rd->r, &ev)) {
            check_event(&ev, n++);
            continue;
        }
        pthread_mutex_lock(&rd->lock);
        while (rd->seen == rd->notices)
            pthread_cond_wait(&rd->wake, &rd->lock);
        rd->seen = rd->notices;
        pthread_mutex_unlock(&rd->lock);
    }
    return NULL;
}

static void test_two_threads(void **state)
{
    reader rd = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};
    rt_request_desc d = test_desc();
    pthread_t thread;

    (void)state;
    d.notify = wake_reader;
    d.ctx = &rd;
    assert_int_equal(rt_request_create(&rd.r, NULL, g_tokenizer, &d, 4), TP_OK);
    assert_int_equal(pthread_create(&thread, NULL, read_all, &rd), 0);
    for (int i = 0; i < MESSAGES; i++) {
        while (rt_request_room(rd.r) < 2 * rd.r->record_max)
            sched_yield();
        push(rd.r, i);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    rt_request_unref(rd.r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copies_what_it_was_given),
        cmocka_unit_test(test_wrap_around),
        cmocka_unit_test(test_stream_is_woken_once_per_empty_box),
        cmocka_unit_test(test_batched_is_woken_at_half_and_at_the_end),
        cmocka_unit_test(test_held_back_only_after_the_notice),
        cmocka_unit_test(test_create_fails_cleanly),
        cmocka_unit_test(test_two_threads),
    };

    return cmocka_run_group_tests(tests, load, unload);
}
