/* SPDX-License-Identifier: Apache-2.0 */
/* engine_job.c - see engine_job.h. */
#include "tests/bench/engine_job.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/hash.h"
#include "base/log.h"

int bench_number(int argc, char **argv, int i, int dflt)
{
    return argc > i ? (int)strtol(argv[i], NULL, 10) : dflt;
}

int bench_job(bench_run_fn *run, const char *usage, int argc, char **argv)
{
    comm_world world;

    if (argc < 2) {
        (void)fprintf(stderr, "usage: %s\n", usage);
        return 2;
    }
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    tp_log_set_level(TP_LOG_WARN);
    if (tp_hash_init() != TP_OK || comm_init(&world) != TP_OK)
        return 1;
    if (run(&world, argc, argv) != TP_OK)
        comm_abort(NULL, 70, tp_last_error());
    comm_finalize();
    return 0;
}

tp_status bench_run_engine(bench_client *c, const rt_engine_options *opt, kern_backend *be,
                           const comm_world *world, void *(*client)(void *), void *ctx)
{
    pthread_t thread;
    tp_status st;

    TP_TRY(rt_engine_create(&c->engine, opt, be, world));
    if (world->rank == 0 && pthread_create(&thread, NULL, client, ctx) != 0)
        return TP_FAIL(TP_ERR_NOMEM, "no thread");
    st = rt_engine_run(c->engine);
    if (world->rank == 0)
        pthread_join(thread, NULL);
    rt_engine_destroy(c->engine);
    return st;
}

static void ring(void *ctx)
{
    bench_client *c = ctx;

    pthread_mutex_lock(&c->lock);
    c->news = true;
    pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->lock);
}

rt_request *bench_submit(bench_client *c, rt_request_desc *d)
{
    rt_request *r;

    d->notify = ring;
    d->ctx = c;
    if (rt_engine_submit(c->engine, d, &r) != TP_OK)
        comm_abort(rt_engine_group(c->engine), 70, tp_last_error());
    return r;
}

void bench_wait(bench_client *c)
{
    pthread_mutex_lock(&c->lock);
    while (!c->news)
        pthread_cond_wait(&c->wake, &c->lock);
    c->news = false;
    pthread_mutex_unlock(&c->lock);
}
