/* SPDX-License-Identifier: Apache-2.0 */
/* engine_job.h - what benchmarks of a whole engine share: a job from main to exit, an engine that runs beside a client
 * thread, and the bell that wakes the client.  Failures end the job.
 */
#ifndef TESTS_BENCH_ENGINE_JOB_H
#define TESTS_BENCH_ENGINE_JOB_H

#include <pthread.h>

#include "runtime/engine.h"

typedef struct bench_client {
    rt_engine *engine; /* set by bench_run_engine */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool news; /* under lock: an event came that was not waited for yet */
} bench_client;

#define BENCH_CLIENT_INIT                                                                          \
    {                                                                                              \
        .lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER                        \
    }

/* The number at argv[i], or dflt where there are fewer words. */
int bench_number(int argc, char **argv, int i, int dflt);

/* The main of a benchmark: starts MPI, calls run on every rank with argv[1] = the model's directory, ends the job.
 * Returns the exit code; 2 and the usage when no directory was given. */
typedef tp_status bench_run_fn(const comm_world *world, int argc, char **argv);
int bench_job(bench_run_fn *run, const char *usage, int argc, char **argv);

/* An engine on every rank, and on rank 0 a thread that runs client(ctx); c is a part of ctx.  Returns when the client has
 * drained the engine and ended. */
TP_MUST_USE tp_status bench_run_engine(bench_client *c, const rt_engine_options *opt,
                                       kern_backend *be, const comm_world *world,
                                       void *(*client)(void *), void *ctx);

/* Submits d, whose events wake the client.  The request is released by the caller. */
rt_request *bench_submit(bench_client *c, rt_request_desc *d);
/* Sleeps until an event has come since the last call. */
void bench_wait(bench_client *c);

#endif
