/* SPDX-License-Identifier: Apache-2.0 */
/* test_cores.c - usable cores follow the affinity mask and never exceed the quota. */
#include "tests/unit/base/base_testing.h"

#include <sched.h>

#include "base/cores.h"

static void test_bounds(void **state)
{
    double quota = tp_cores_quota();
    cpu_set_t set;

    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof set, &set), 0);
    assert_in_range(tp_cores_usable(), 1, CPU_COUNT(&set));
    assert_true(quota >= 0);
    if (quota >= 1)
        assert_true(tp_cores_usable() < quota + 1);
}

static void test_mask(void **state)
{
    cpu_set_t all, one;
    int cpu = 0;

    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    while (!CPU_ISSET(cpu, &all))
        cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(tp_cores_usable(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_mask),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
