/* SPDX-License-Identifier: Apache-2.0 */
/* test_goldens_emu.c - the goldens on the emulated device, on as many ranks as mpirun started, with sums as it chooses
 * them; and some of them with sums through the host. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "comm/device.h"
#include "kernels/module.h"
#include "runtime/startup.h"
#include "tests/harness/mpi_main.h"
#include "tests/model/golden_checks.h"

static comm_world g_world;

static void test_device(void **state)
{
    const char *want = *state;
    comm_options opt = {.kind = comm_host_kind(want),
                        .window_bytes = 4 << 20,
                        .plan_bytes_max = 64,
                        .timeout_ms = 120000};
    const kern_ops *ops;
    const void *reducers;
    kern_backend *be = NULL;
    comm_group *g = NULL;
    int bad = 0;

    if (g_world.size == 1 && strcmp(want, "auto") != 0)
        skip(); /* nothing is summed */
    kern_module_search(TPSERVE_MODULES);
    assert_int_equal(kern_module_open("emu", &ops, &reducers), TP_OK);
    assert_int_equal(ops->open(&be, &(kern_open_args){.n_threads = 1}), TP_OK);
    assert_int_equal(comm_group_create(&g, &g_world, &opt), TP_OK);
    assert_int_equal(rt_attach_device(g, be, want, reducers), TP_OK);
    for (int i = 0; i < tm_n_traits; i += strcmp(want, "auto") == 0 ? 1 : 5) {
        gc_result r;

        gc_check_device(&r, tm_traits[i], g, be);
        bad += gc_report(&r, tm_traits[i], g_world.size, be->isa, g_world.rank == 0);
    }
    comm_group_destroy(g);
    be->ops->close(be);
    assert_int_equal(bad, 0);
}

static int run(void)
{
    static char automatic[] = "auto", mpi[] = "mpi";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_device, automatic),
        cmocka_unit_test_prestate(test_device, mpi),
    };

    if (comm_init(&g_world) != TP_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
    return tp_mpi_test_main(argc, argv, run);
}
