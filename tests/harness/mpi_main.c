/* SPDX-License-Identifier: Apache-2.0 */
/* mpi_main.c - see mpi_main.h.
 *
 * A watchdog thread holds the deadline: the main thread may be stuck inside MPI or a futex.  MPI_Abort is tried
 * first because it ends the other ranks too; when it does not return either, the process ends by itself and
 * mpirun does the rest.
 */
#include "tests/harness/mpi_main.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <mpi.h>

#define RANKS_MAX     256
#define ABORT_GRACE_S 5

typedef struct watchdog {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool done;
    int seconds;
} watchdog;

static int g_rank;
static int g_size = 1;

int tp_mpi_test_rank(void)
{
    return g_rank;
}

int tp_mpi_test_size(void)
{
    return g_size;
}

static bool mpi_is_alive(void)
{
    int started = 0, ended = 0;

    (void)MPI_Initialized(&started);
    (void)MPI_Finalized(&ended);
    return started != 0 && ended == 0;
}

static void *abort_job(void *unused)
{
    (void)unused;
    if (mpi_is_alive())
        (void)MPI_Abort(MPI_COMM_WORLD, TP_TEST_HANG_EXIT);
    return NULL;
}

/* Waits until the test says that it is done, or ends the job. */
static void *watch(void *arg)
{
    watchdog *w = arg;
    struct timespec until;
    pthread_t aborter;
    int rc = 0;

    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += w->seconds;
    (void)pthread_mutex_lock(&w->lock);
    while (!w->done && rc == 0)
        rc = pthread_cond_timedwait(&w->wake, &w->lock, &until);
    (void)pthread_mutex_unlock(&w->lock);
    if (w->done)
        return NULL;
    (void)fprintf(stderr, "rank %d of %d: not done after %d s: ending the job\n", g_rank, g_size,
                  w->seconds);
    if (pthread_create(&aborter, NULL, abort_job, NULL) == 0)
        (void)sleep(ABORT_GRACE_S);
    _exit(TP_TEST_HANG_EXIT);
}

static void watchdog_start(watchdog *w)
{
    const char *text = getenv("TPSERVE_TEST_DEADLINE_S");
    long seconds = text != NULL ? strtol(text, NULL, 10) : 0;

    memset(w, 0, sizeof *w);
    w->seconds = seconds > 0 ? (int)seconds : TP_TEST_DEADLINE_S;
    (void)pthread_mutex_init(&w->lock, NULL);
    (void)pthread_cond_init(&w->wake, NULL);
    if (pthread_create(&w->thread, NULL, watch, w) != 0) {
        (void)fprintf(stderr, "rank %d: cannot start the watchdog\n", g_rank);
        _exit(TP_TEST_HANG_EXIT);
    }
}

static void watchdog_stop(watchdog *w)
{
    (void)pthread_mutex_lock(&w->lock);
    w->done = true;
    (void)pthread_cond_signal(&w->wake);
    (void)pthread_mutex_unlock(&w->lock);
    (void)pthread_join(w->thread, NULL);
}

static int gather_verdicts(int own)
{
    int verdicts[RANKS_MAX];
    int result = 0;

    if (!mpi_is_alive() || g_size > RANKS_MAX)
        return own == 0 || own == TP_TEST_SKIPPED ? own : 1;
    if (MPI_Allgather(&own, 1, MPI_INT, verdicts, 1, MPI_INT, MPI_COMM_WORLD) != MPI_SUCCESS)
        return 1;
    for (int r = 0; r < g_size; r++) {
        if (verdicts[r] != 0 && verdicts[r] != TP_TEST_SKIPPED) {
            if (g_rank == 0)
                (void)fprintf(stderr, "rank %d of %d: %d tests failed\n", r, g_size, verdicts[r]);
            result = 1;
        } else if (verdicts[r] == TP_TEST_SKIPPED && result == 0) {
            result = TP_TEST_SKIPPED;
        }
    }
    return result;
}

int tp_mpi_test_main(int argc, char **argv, int (*run)(void))
{
    watchdog w;
    int provided = MPI_THREAD_SINGLE, verdict;

    if (MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided) != MPI_SUCCESS)
        return 1;
    (void)MPI_Comm_rank(MPI_COMM_WORLD, &g_rank);
    (void)MPI_Comm_size(MPI_COMM_WORLD, &g_size);
    watchdog_start(&w);
    verdict = gather_verdicts(run());
    if (mpi_is_alive())
        (void)MPI_Finalize();
    watchdog_stop(&w);
    return verdict;
}
