/* SPDX-License-Identifier: Apache-2.0 */
/* test_api_admission.c - who may queue, and when those who may not are told to come back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "api/admission.h"
#include "base/clock.h"

/* Two run and eight may wait. */
#define QUEUE 8
#define LIMIT 10

static bool may(api_admission *a, int open, api_caller who)
{
    return api_admission_may_queue(a, open, LIMIT, QUEUE, who);
}

static void test_places(void **state)
{
    api_admission a;

    (void)state;
    api_admission_init(&a);
    for (int who = API_CALLER_UNKNOWN; who <= API_CALLER_AGAIN; who++) {
        assert_true(
            may(&a, LIMIT - 1, (api_caller)who)); /* nobody is awaited: first come, first served */
        assert_false(may(&a, LIMIT, (api_caller)who));
    }
    (void)api_admission_refuse(&a, QUEUE, API_CALLER_UNKNOWN);
    assert_true(may(&a, LIMIT - 1, API_CALLER_FIRST)); /* who knows whether that one comes back */
    (void)api_admission_refuse(&a, QUEUE, API_CALLER_FIRST);
    assert_true(may(&a, LIMIT - 1, API_CALLER_AGAIN));
    assert_false(may(&a, LIMIT - 1, API_CALLER_FIRST));
    assert_false(may(&a, LIMIT - 1, API_CALLER_UNKNOWN));
    assert_true(may(&a, LIMIT - QUEUE / 4 - 1, API_CALLER_UNKNOWN));
    assert_false(may(&a, LIMIT - QUEUE / 4 - 1, API_CALLER_FIRST));
    assert_true(may(&a, LIMIT - QUEUE / 2 - 1, API_CALLER_FIRST));
    assert_int_equal(api_admission_refused(&a), 2);
    api_admission_release(&a);
}

static void test_times(void **state)
{
    api_admission a;
    int before = 0;

    (void)state;
    api_admission_init(&a);
    assert_in_range(api_admission_refuse(&a, QUEUE, API_CALLER_UNKNOWN), 250, 30000);
    for (int i = 0; i < 10;
         i++) { /* each a second behind the one before: nothing is known about the rate */
        int ms = api_admission_refuse(&a, QUEUE, API_CALLER_FIRST);

        assert_true(ms > before);
        before = ms;
    }
    for (int i = 0; i < 100; i++)
        before = api_admission_refuse(&a, QUEUE, API_CALLER_FIRST);
    assert_int_equal(before, 30000);
    for (int i = 0; i < 200; i++) { /* many ends in no time */
        api_admission_began(&a, LIMIT - QUEUE);
        api_admission_done(&a);
    }
    assert_in_range(api_admission_refuse(&a, QUEUE, API_CALLER_UNKNOWN), 250, 1000);
    api_admission_release(&a);
}

static void pass(api_admission *a, int64_t ms)
{
    a->at_ns -= ms * TP_NS_PER_MS;
}

/* What the interval between ends is taken for, after many requests of a second each with a pause behind. */
static int interval_ms(int at_once, int64_t pause_ms)
{
    api_admission a;
    int ms;

    api_admission_init(&a);
    for (int i = 0; i < 300; i++) {
        for (int k = 0; k < at_once; k++)
            api_admission_began(&a, 4);
        pass(&a, 1000);
        for (int k = 0; k < at_once; k++)
            api_admission_done(&a);
        pass(&a, pause_ms);
    }
    ms = api_admission_refuse(&a, 100, API_CALLER_UNKNOWN) / 100;
    api_admission_release(&a);
    return ms;
}

/* The rate is that of all places at work, however few requests came, and however seldom. */
static void test_rate(void **state)
{
    (void)state;
    assert_in_range(interval_ms(4, 0), 200, 300);
    assert_in_range(interval_ms(1, 0), 200, 300);
    assert_in_range(interval_ms(1, 30000), 200, 300);
    assert_in_range(interval_ms(8, 0), 100, 150); /* more than run at a time */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_places), cmocka_unit_test(test_times),
                                       cmocka_unit_test(test_rate)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
