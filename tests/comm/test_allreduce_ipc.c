/* SPDX-License-Identifier: Apache-2.0 */
/* test_allreduce_ipc.c - the kernels of comm/p2p between processes, whose regions are mapped through (emulated) IPC, at
 * the number of ranks that mpirun started. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "kernels/cuda/emu/emu_control.h"
#include "tests/comm/allreduce_checks.h"
#include "tests/harness/mpi_main.h"

static comm_world g_world;

static comm_group *make(const char *kind)
{
    comm_options opt = {
        .kind = kind, .window_bytes = SUM_WINDOW, .plan_bytes_max = 4096, .timeout_ms = 60000};
    comm_group *g = NULL;

    assert_int_equal(comm_group_create(&g, &g_world, &opt), TP_OK);
    return g;
}

static void ok(const char *why)
{
    if (why != NULL)
        fail_msg("%s", why);
}

static void test_sums(void **state)
{
    sum_rank s;

    (void)state;
    for (uint32_t seed = 1; seed <= 2; seed++) {
        emu_set_schedule(seed == 1 ? EMU_SCHED_FORWARD : EMU_SCHED_RANDOM,
                         seed + (uint32_t)g_world.rank);
        ok(sum_rank_open(&s, make("auto"), true, 60000));
        ok(check_sums(&s, 14, seed, 20000));
        sum_rank_close(&s);
    }
    emu_set_schedule(EMU_SCHED_FORWARD, 0);
}

static void test_graph(void **state)
{
    sum_rank s;

    (void)state;
    ok(sum_rank_open(&s, make("mpi"), true, 60000));
    ok(check_graph(&s, 5));
    sum_rank_close(&s);
}

static void test_gathers(void **state)
{
    sum_rank s;

    (void)state;
    ok(sum_rank_open(&s, make("auto"), true, 60000));
    ok(check_gathers(&s, 6, 5, 20000));
    sum_rank_close(&s);
}

static void test_norm(void **state)
{
    sum_rank s;

    (void)state;
    ok(sum_rank_open(&s, make("auto"), true, 60000));
    ok(check_norm(&s, 3, 896, KERN_DTYPE_BF16));
    sum_rank_close(&s);
}

static void test_late(void **state)
{
    sum_rank s;

    (void)state;
    ok(sum_rank_open(&s, make("auto"), true, 60000));
    ok(check_late(&s, 400));
    sum_rank_close(&s);
}

static void test_attached(void **state)
{
    sum_rank s;

    (void)state;
    ok(sum_rank_open(&s, make("auto"), false, 60000));
    ok(check_attached(&s, "auto"));
    sum_rank_close(&s);
    ok(sum_rank_open(&s, make("mpi"), false, 60000));
    ok(check_attached(&s, "p2p"));
    sum_rank_close(&s);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums),     cmocka_unit_test(test_graph),
        cmocka_unit_test(test_norm),     cmocka_unit_test(test_late),
        cmocka_unit_test(test_attached), cmocka_unit_test(test_gathers),
    };

    if (comm_init(&g_world) != TP_OK || g_world.size != tp_mpi_test_size())
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
    return tp_mpi_test_main(argc, argv, run);
}
