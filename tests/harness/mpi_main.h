/* SPDX-License-Identifier: Apache-2.0 */
/* mpi_main.h - the shared main of cmocka programs that run under mpirun.
 *
 *     static int run(void) { return cmocka_run_group_tests(tests, NULL, NULL); }
 *     int main(int argc, char **argv) { return tp_mpi_test_main(argc, argv, run); }
 *
 * Every rank calls run(); the verdicts are gathered; every rank then exits with the same code.  A rank that does
 * not come back before the deadline (TPSERVE_TEST_DEADLINE_S, default 100 s) ends the whole job.
 *
 * The harness starts MPI (MPI_THREAD_MULTIPLE) before run() and ends it afterwards, so the code under test must
 * look at MPI_Initialized and MPI_Finalized; when it has ended MPI itself, each rank reports for itself.
 */
#ifndef TP_TESTS_MPI_MAIN_H
#define TP_TESTS_MPI_MAIN_H

#define TP_TEST_SKIPPED    77 /* ctest shows "Skipped" */
#define TP_TEST_HANG_EXIT  74
#define TP_TEST_DEADLINE_S 100

/* run() returns the number of failed tests, or TP_TEST_SKIPPED.  Exit code: 0 when all ranks passed; 77 when
 * none failed and at least one skipped everything; else 1. */
int tp_mpi_test_main(int argc, char **argv, int (*run)(void));

/* Rank and size of the job, valid inside run(). */
int tp_mpi_test_rank(void);
int tp_mpi_test_size(void);

#endif
