/* SPDX-License-Identifier: Apache-2.0 */
/* test_watchdog.c - a step without pulses is late; one that is over is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "comm/comm.h"
#include "runtime/watchdog.h"

typedef struct fixture {
    comm_group *group;
    rt_watchdog *watchdog;
    atomic_bool late;
} fixture;

static void on_late(void *owner)
{
    fixture *f = owner;

    atomic_store(&f->late, true);
    rt_watchdog_end(f->watchdog); /* the engine thread comes back at once */
}

static fixture *begin(fixture *f, int64_t timeout_ms)
{
    comm_world world = {.size = 1, .local_size = 1, .n_hosts = 1};
    comm_options co = {.kind = "self", .window_bytes = 4096, .plan_bytes_max = 4096};
    rt_watchdog_options o = {.timeout_ms = timeout_ms, .on_late = on_late, .owner = f};

    *f = (fixture){0};
    assert_int_equal(comm_group_create(&f->group, &world, &co), TP_OK);
    o.group = f->group;
    assert_int_equal(rt_watchdog_start(&f->watchdog, &o), TP_OK);
    return f;
}

static void end(fixture *f)
{
    rt_watchdog_stop(f->watchdog);
    comm_group_destroy(f->group);
}

static void await_late(fixture *f)
{
    while (!atomic_load(&f->late))
        tp_sleep_us(1000);
}

static void test_a_step_that_hangs(void **state)
{
    fixture f;

    (void)state;
    begin(&f, 200);
    rt_watchdog_begin(f.watchdog, 7);
    await_late(&f);
    while (!comm_aborted(f.group))
        tp_sleep_us(1000);
    end(&f);
}

/* By the time that a watchdog with twice the patience bites, the one of the step that is over had every chance. */
static void test_no_step(void **state)
{
    fixture over, hangs;

    (void)state;
    begin(&over, 100);
    begin(&hangs, 200);
    rt_watchdog_begin(over.watchdog, 7);
    rt_watchdog_end(over.watchdog);
    rt_watchdog_begin(hangs.watchdog, 7);
    await_late(&hangs);
    assert_false(atomic_load(&over.late));
    end(&over);
    end(&hangs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_step_that_hangs),
        cmocka_unit_test(test_no_step),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
