/* SPDX-License-Identifier: Apache-2.0 */
/* test_clock.c - time goes forward, and sleeping takes at least as long as asked. */
#include "tests/unit/base/base_testing.h"

#include <time.h>

#include "base/clock.h"

static void monotonic_time_advances(void **state)
{
    int64_t a = tp_now_ns(), b;

    (void)state;
    tp_sleep_us(2000);
    b = tp_now_ns();
    assert_true(b - a >= 2 * TP_NS_PER_MS);
    tp_sleep_us(0);
    tp_sleep_us(-5);
    assert_true(tp_now_ns() >= b);
}

static void wall_time_is_that_of_the_system(void **state)
{
    int64_t now = (int64_t)time(NULL), ours = tp_unix_seconds();

    (void)state;
    assert_true(ours >= now && ours <= now + 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(monotonic_time_advances),
        cmocka_unit_test(wall_time_is_that_of_the_system),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
