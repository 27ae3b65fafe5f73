/* SPDX-License-Identifier: Apache-2.0 */
/* test_fault.c - an armed pass fails once. */
#include "tests/unit/base/base_testing.h"

#include <stdio.h>

#include "base/fault.h"

static void unarmed_points_never_hit(void **state)
{
    (void)state;
    for (int i = 0; i < 1000; i++)
        assert_false(tp_fault_hit("load.read"));
}

static void third_pass_fails_once(void **state)
{
    (void)state;
    assert_true(tp_fault_arm("load.read", 3));
    assert_false(tp_fault_hit("load.read"));
    assert_false(tp_fault_hit("other"));
    assert_false(tp_fault_hit("load.read"));
    assert_true(tp_fault_hit("load.read"));
    assert_false(tp_fault_hit("load.read"));
}

static void disarmed_point_does_not_hit(void **state)
{
    (void)state;
    assert_true(tp_fault_arm("a", 1));
    assert_true(tp_fault_arm("a", 0));
    assert_true(tp_fault_arm("never", 0));
    assert_false(tp_fault_hit("a"));
}

static void list_arms_all(void **state)
{
    (void)state;
    assert_int_equal(tp_fault_arm_list("load.read=1,step=2"), TP_OK);
    assert_true(tp_fault_hit("load.read"));
    assert_false(tp_fault_hit("step"));
    assert_true(tp_fault_hit("step"));
    assert_int_equal(tp_fault_arm_list(""), TP_OK);
    assert_int_equal(tp_fault_arm_list("x"), TP_ERR_INVALID);
    assert_int_equal(tp_fault_arm_list("x="), TP_ERR_INVALID);
    assert_int_equal(tp_fault_arm_list("=1"), TP_ERR_INVALID);
    assert_int_equal(tp_fault_arm_list("x=1y"), TP_ERR_INVALID);
    assert_int_equal(tp_fault_arm_list("x=-1"), TP_ERR_INVALID);
}

static void table_has_an_end(void **state)
{
    char name[16];

    (void)state;
    for (int i = 0; i < 16; i++) {
        (void)snprintf(name, sizeof name, "p%d", i);
        assert_true(tp_fault_arm(name, 5));
    }
    assert_false(tp_fault_arm("one.more", 1));
    assert_true(tp_fault_arm("p3", 7)); /* known: changes its count */
    for (int i = 0; i < 16; i++) {
        (void)snprintf(name, sizeof name, "p%d", i);
        assert_true(tp_fault_arm(name, 0));
    }
    assert_false(tp_fault_hit("p3"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unarmed_points_never_hit),
        cmocka_unit_test(third_pass_fails_once),
        cmocka_unit_test(disarmed_point_does_not_hit),
        cmocka_unit_test(list_arms_all),
        cmocka_unit_test(table_has_an_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
