/* SPDX-License-Identifier: Apache-2.0 */
/* bench_load.c - how fast weights come in, beside the limit of the machine in the same run.
 *
 *     bench_load MODEL_DIR [threads, default 2] [rounds, default 3] [cold]
 *
 * The limit: the same files read with pread() in blocks into memory that was never touched, by as many threads, and
 * nothing else.  Fresh memory is part of it, because weights need fresh memory too and the kernel clears every page
 * of it; on many machines that costs more than the copy.  Also shown: the same read into memory that is already
 * there.  "cold" drops the files from the page cache before every read, so the disk is the limit.  One rank.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "runtime/model/model.h"
#include "runtime/model/safetensors.h"

#define BLOCK       (4 << 20)
#define THREADS_MAX 64

typedef struct reading {
    int fd;
    char *to;
    int64_t bytes, first, step; /* blocks first, first + step ... are this thread's */
    bool failed;
} reading;

static void *read_blocks(void *arg)
{
    reading *r = arg;

    for (int64_t block = r->first * BLOCK; block < r->bytes; block += r->step * BLOCK) {
        int64_t end = block + BLOCK < r->bytes ? block + BLOCK : r->bytes;

        for (int64_t at = block; at < end;) {
            ssize_t n = pread(r->fd, r->to + at, (size_t)(end - at), at);

            if (n <= 0) {
                r->failed = true;
                return NULL;
            }
            at += n;
        }
    }
    return NULL;
}

/* Seconds that all files of the checkpoint take; to [their bytes]. */
static double read_raw(const rt_st *st, char *to, int n_threads)
{
    pthread_t threads[THREADS_MAX];
    reading r[THREADS_MAX];
    int64_t start = tp_now_ns();

    for (int f = 0; f < st->n_files; f++) {
        for (int i = 0; i < n_threads; i++) {
            r[i] = (reading){.fd = st->files[f].fd,
                             .to = to,
                             .bytes = (int64_t)st->files[f].bytes,
                             .first = i,
                             .step = n_threads};
            TP_ASSERT(pthread_create(&threads[i], NULL, read_blocks, &r[i]) == 0);
        }
        for (int i = 0; i < n_threads; i++) {
            (void)pthread_join(threads[i], NULL);
            TP_ASSERT(!r[i].failed);
        }
        to += st->files[f].bytes;
    }
    return (double)(tp_now_ns() - start) / 1e9;
}

static void drop_from_cache(const rt_st *st)
{
    for (int f = 0; f < st->n_files; f++) {
        (void)fdatasync(st->files[f].fd); /* dirty pages cannot be dropped */
        (void)posix_fadvise(st->files[f].fd, 0, 0, POSIX_FADV_DONTNEED);
    }
}

static void check(tp_status st)
{
    if (st != TP_OK) {
        (void)fprintf(stderr, "bench_load: %s\n", tp_last_error());
        exit(1);
    }
}

/* Gigabytes per second of a whole load. */
static double load(const char *dir, int n_threads, comm_group *g)
{
    rt_model_options o = {.dir = dir,
                          .max_tokens_per_step = 16,
                          .max_seqs = 1,
                          .max_model_len = 64,
                          .block_tokens = 16};
    kern_backend *be;
    rt_config c;
    rt_shard s;
    rt_model *m;
    int64_t bytes;
    double seconds;

    check(rt_config_load(&c, dir));
    o.dtype = c.dtype;
    check(rt_shard_plan(&s, &c, 1, 0, o.dtype, o.dtype));
    check(kern_cpu_ops()->open(&be, &(kern_open_args){.n_threads = n_threads}));
    check(rt_model_load(&m, &c, &s, be, g, &o));
    rt_model_load_stats(m, &bytes, &seconds);
    rt_model_destroy(m);
    be->ops->close(be);
    return (double)bytes / 1e9 / seconds;
}

int main(int argc, char **argv)
{
    int n_threads = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 2;
    int rounds = argc > 3 ? (int)strtol(argv[3], NULL, 10) : 3;
    comm_world world;
    comm_group *g;
    bool cold = argc > 4 && strcmp(argv[4], "cold") == 0;
    int64_t bytes = 0;
    char *warm;
    rt_st st;

    if (argc < 2 || n_threads < 1 || n_threads > THREADS_MAX) {
        (void)fprintf(stderr, "usage: bench_load MODEL_DIR [threads] [rounds] [cold]\n");
        return 2;
    }
    check(comm_init(&world));
    check(comm_group_create(
        &g, &world, &(comm_options){.kind = "self", .window_bytes = 64, .plan_bytes_max = 64}));
    check(rt_st_open(&st, argv[1]));
    for (int i = 0; i < st.n_files; i++)
        bytes += (int64_t)st.files[i].bytes;
    warm = tp_aligned_alloc(64, (size_t)bytes);
    TP_ASSERT(warm != NULL);
    (void)read_raw(&st, warm, n_threads); /* into the page cache */
    (void)printf(
        "%.2f GB, %d threads; GB/s:  read into touched memory, into fresh memory, load, load/fresh\n",
        (double)bytes / 1e9, n_threads);
    for (int i = 0; i < rounds; i++) {
        double touched, fresh, loaded;
        char *memory = tp_aligned_alloc(64, (size_t)bytes);

        TP_ASSERT(memory != NULL);
        if (cold)
            drop_from_cache(&st);
        touched = (double)bytes / 1e9 / read_raw(&st, warm, n_threads);
        if (cold)
            drop_from_cache(&st);
        fresh = (double)bytes / 1e9 / read_raw(&st, memory, n_threads);
        tp_free(memory);
        if (cold)
            drop_from_cache(&st);
        loaded = load(argv[1], n_threads, g);
        (void)printf("%6.2f %6.2f %6.2f %5.0f %%\n", touched, fresh, loaded, 100 * loaded / fresh);
    }
    tp_free(warm);
    rt_st_close(&st);
    comm_group_destroy(g);
    comm_finalize();
    return 0;
}
