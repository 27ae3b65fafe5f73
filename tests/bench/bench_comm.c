/* SPDX-License-Identifier: Apache-2.0 */
/* bench_comm.c - all-reduce by size: our groups beside plain MPI_Allreduce in the same run.
 *
 *     mpirun --oversubscribe --bind-to none -np 2 bench_comm [seconds per cell, default 0.2]
 *
 * Each cell: the median over calls of the slowest rank's time is not known without clocks in step, so rank 0's own
 * times are taken; calls follow each other without pause, which keeps the ranks in step.  Prints CSV: bytes of the
 * result, then microseconds per call (median) for shm (roots in the window), shm (roots elsewhere), mpi (ours) and
 * MPI_Allreduce, and how many times faster shm is than MPI_Allreduce.  n_seg is 8, so at 2 and 4 ranks each sends
 * one root.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <mpi.h>

#include "base/clock.h"
#include "base/mem.h"
#include "comm/comm.h"

#define COUNT_MAX (4 * 1024 * 1024) /* 16 MiB */
#define TIMES_MAX 20000

typedef enum way { WAY_SHM_WINDOW, WAY_SHM_COPY, WAY_MPI, WAY_ALLREDUCE, N_WAYS } way;

typedef struct bench {
    comm_group *shm, *mpi;
    float *roots, *out;
    int64_t *times;
    int rank, n_roots;
} bench;

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static void check(tp_status st)
{
    if (st != TP_OK)
        comm_abort(NULL, 70, tp_last_error());
}

static void once(const bench *b, way w, int64_t count)
{
    comm_group *g = w == WAY_MPI ? b->mpi : b->shm;
    const float *roots = w == WAY_SHM_WINDOW ? comm_window(b->shm) : b->roots;

    if (w == WAY_ALLREDUCE)
        (void)MPI_Allreduce(b->roots, b->out, (int)count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    else
        check(comm_reduce(
            g, &(comm_reduce_args){.n_seg = 8, .roots = roots, .out = b->out, .count = count}));
}

/* Median time of a call in nanoseconds. */
static int64_t measure(const bench *b, way w, int64_t count, double seconds)
{
    int64_t start, n = 0;
    int more = 1;

    for (int i = 0; i < 20; i++)
        once(b, w, count);
    start = tp_now_ns();
    while (more) {
        for (int i = 0; i < 50 && n < TIMES_MAX; i++) {
            int64_t t = tp_now_ns();

            once(b, w, count);
            b->times[n++] = tp_now_ns() - t;
        }
        more = n < TIMES_MAX && (double)(tp_now_ns() - start) < seconds * 1e9;
        (void)MPI_Bcast(&more, 1, MPI_INT, 0, MPI_COMM_WORLD);
    }
    qsort(b->times, (size_t)n, sizeof *b->times, compare);
    return b->times[n / 2];
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? strtod(argv[1], NULL) : 0.2;
    comm_options opt = {.plan_bytes_max = 4096};
    comm_world world;
    bench b = {0};

    check(comm_init(&world));
    if (!world.has_mpi || world.size < 2) {
        fprintf(stderr, "bench_comm: start it with mpirun -np 2 or more\n");
        return 77;
    }
    opt.window_bytes = (size_t)COUNT_MAX * sizeof(float) * (world.size == 3 ? 2 : 1);
    opt.kind = "shm";
    check(comm_group_create(&b.shm, &world, &opt));
    opt.kind = "mpi";
    check(comm_group_create(&b.mpi, &world, &opt));
    b.rank = world.rank;
    b.roots = tp_aligned_alloc(64, opt.window_bytes);
    b.out = tp_aligned_alloc(64, (size_t)COUNT_MAX * sizeof(float));
    b.times = tp_malloc(TIMES_MAX * sizeof *b.times);
    if (b.roots == NULL || b.out == NULL || b.times == NULL)
        comm_abort(b.shm, 70, "out of memory");
    if (world.rank == 0)
        printf("ranks,bytes,shm_window_us,shm_copy_us,mpi_us,allreduce_us,ratio,shm_gb_s\n");
    for (int64_t count = 256; count <= COUNT_MAX; count *= 4) {
        double us[N_WAYS];

        for (way w = 0; w < N_WAYS; w++)
            us[w] = (double)measure(&b, w, count, seconds) / 1e3;
        if (world.rank == 0) {
            printf("%d,%lld,%.2f,%.2f,%.2f,%.2f,%.2f,%.2f\n", world.size, (long long)count * 4,
                   us[WAY_SHM_WINDOW], us[WAY_SHM_COPY], us[WAY_MPI], us[WAY_ALLREDUCE],
                   us[WAY_ALLREDUCE] / us[WAY_SHM_WINDOW],
                   (double)count * 4 / us[WAY_SHM_WINDOW] / 1e3);
            fflush(stdout);
        }
    }
    tp_free(b.roots);
    tp_free(b.out);
    tp_free(b.times);
    comm_group_destroy(b.shm);
    comm_group_destroy(b.mpi);
    comm_finalize();
    return 0;
}
