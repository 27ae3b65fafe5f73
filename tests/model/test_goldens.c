/* SPDX-License-Identifier: Apache-2.0 */
/* test_goldens.c - every architecture trait on as many ranks as mpirun started, on every instruction set here; with
 * KERN_AMX_EMULATED on AMX only, whose tiles are then emulated (tests/kernels/CMakeLists.txt). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "tests/harness/mpi_main.h"
#include "tests/model/golden_checks.h"

static comm_world g_world;

static comm_group *make_group(const char *kind)
{
    comm_options opt = {
        .kind = kind, .window_bytes = 4 << 20, .plan_bytes_max = 64, .timeout_ms = 60000};
    comm_group *g = NULL;

    assert_int_equal(comm_group_create(&g, &g_world, &opt), TP_OK);
    return g;
}

static void check_isa(const char *isa, const char *kind)
{
    comm_group *g = make_group(kind);
    int bad = 0;

    for (int i = 0; i < tm_n_traits; i++) {
        gc_result r;

        gc_check_trait(&r, tm_traits[i], g, isa);
        bad += gc_report(&r, tm_traits[i], g_world.size, isa, g_world.rank == 0);
    }
    comm_group_destroy(g);
    assert_int_equal(bad, 0);
}

static void test_isa(void **state)
{
    const char *isa = *state;

    if (!kern_cpu_ops()->isa_supported(isa)) {
        print_message("skipped: this machine has no %s\n", isa);
        skip();
    }
    check_isa(isa, "auto");
}

#ifndef KERN_AMX_EMULATED
/* The transport is not what the bits depend on. */
static void test_mpi(void **state)
{
    (void)state;
    check_isa("generic", "mpi");
}

static void test_ref(void **state)
{
    int bad = 0;

    (void)state;
    if (g_world.size > 1)
        skip();
    for (int i = 0; i < tm_n_traits; i++) {
        gc_result r;

        gc_check_ref(&r, tm_traits[i]);
        bad += gc_report(&r, tm_traits[i], 1, "ref", true);
    }
    assert_int_equal(bad, 0);
}

#endif

static int run(void)
{
    static char amx[] = "amx";
#ifndef KERN_AMX_EMULATED
    static char generic[] = "generic", avx2[] = "avx2", avx512[] = "avx512";
#endif
    const struct CMUnitTest tests[] = {
#ifndef KERN_AMX_EMULATED
        cmocka_unit_test(test_ref),
        cmocka_unit_test_prestate(test_isa, generic),
        cmocka_unit_test_prestate(test_isa, avx2),
        cmocka_unit_test_prestate(test_isa, avx512),
        cmocka_unit_test(test_mpi),
#endif
        cmocka_unit_test_prestate(test_isa, amx),
    };

    if (comm_init(&g_world) != TP_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
    return tp_mpi_test_main(argc, argv, run);
}
