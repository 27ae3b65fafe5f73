/* SPDX-License-Identifier: Apache-2.0 */
/* test_harness.c - the harness tested with itself: argv[1] says what the last rank does wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <mpi.h>

#include "tests/harness/mpi_main.h"

static const char *g_mode = "";

static void misbehave_on_last_rank(void **state)
{
    (void)state;
    if (tp_mpi_test_rank() != tp_mpi_test_size() - 1)
        return;
    if (strcmp(g_mode, "fail") == 0)
        fail();
    if (strcmp(g_mode, "crash") == 0)
        abort();
    while (strcmp(g_mode, "hang") == 0)
        (void)sleep(1);
}

static void sums_ranks(void **state)
{
    int one = 1, sum = 0;

    (void)state;
    assert_int_equal(MPI_Allreduce(&one, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD), MPI_SUCCESS);
    assert_int_equal(sum, tp_mpi_test_size());
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_ranks),
        cmocka_unit_test(misbehave_on_last_rank),
    };

    if (strcmp(g_mode, "skip") == 0)
        return TP_TEST_SKIPPED;
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        g_mode = argv[1];
    return tp_mpi_test_main(argc, argv, run);
}
