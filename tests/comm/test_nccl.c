/* SPDX-License-Identifier: Apache-2.0 */
/* test_nccl.c - what of comm/nccl can be run without two GPUs: the unique id, and a start that fails: both ranks get the
 * same status and a text, nobody hangs, and the group lives on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>

#include "base/clock.h"
#include "comm/nccl/nccl_load.h"
#include "comm/p2p/p2p_reducer.h"

/* The reducer gets no further than its start here. */
tp_status kern_dev_sync(kern_dev *d, kern_stream s)
{
    (void)d, (void)s;
    return TP_OK;
}

tp_status kern_dev_query(kern_dev *d, kern_stream s, bool *done)
{
    (void)d, (void)s;
    *done = true;
    return TP_OK;
}

tp_status kern_dev_copy(kern_dev *d, void *dst, const void *src, size_t bytes, kern_stream s)
{
    (void)d, (void)dst, (void)src, (void)bytes, (void)s;
    return TP_ERR_DEVICE;
}

static void test_unique_id(void **state)
{
    const comm_nccl_lib *lib;
    ncclUniqueId a, b;

    (void)state;
    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    assert_int_equal(comm_nccl_load(&lib), TP_OK);
    assert_int_equal(lib->GetUniqueId(&a), ncclSuccess);
    assert_int_equal(lib->GetUniqueId(&b), ncclSuccess);
    assert_memory_not_equal(&a, &b, sizeof a);
}

typedef struct job {
    comm_group *g;
    comm_device d;
    tp_status st, after;
    char text[300];
} job;

static void *start(void *arg)
{
    job *j = arg;
    comm_reducer *r = NULL;

    j->st = comm_nccl_ops.create(&r, j->g, &j->d, 1 << 20, 20000);
    snprintf(j->text, sizeof j->text, "%s", tp_last_error());
    j->after = comm_barrier(j->g);
    comm_group_destroy(j->g);
    return NULL;
}

static void start_both(job jobs[2], void *dev)
{
    comm_options opt = {
        .kind = "shm", .window_bytes = 1 << 20, .plan_bytes_max = 4096, .timeout_ms = 60000};
    comm_group *groups[2] = {NULL};
    pthread_t threads[2];

    assert_int_equal(comm_group_create_threads(groups, 2, &opt), TP_OK);
    for (int r = 0; r < 2; r++) {
        jobs[r] = (job){.g = groups[r], .d = {.dev = dev}};
        assert_int_equal(pthread_create(&threads[r], NULL, start, &jobs[r]), 0);
    }
    for (int r = 0; r < 2; r++)
        pthread_join(threads[r], NULL);
}

/* No GPU, or two ranks on the same one. */
static void test_failed_start(void **state)
{
    int64_t begin = tp_now_ns();
    job jobs[2];
    char dev;

    (void)state;
    start_both(jobs, &dev);
    for (int r = 0; r < 2; r++) {
        print_message("rank %d: %s\n", r, jobs[r].text);
        assert_int_equal(jobs[r].st, TP_ERR_DEVICE);
        assert_non_null(strstr(jobs[r].text, "NCCL on rank"));
        assert_int_equal(jobs[r].after, TP_OK);
    }
    assert_in_range(tp_now_ns() - begin, 0, 60 * TP_NS_PER_S);
}

static void test_no_device(void **state)
{
    job jobs[2];

    (void)state;
    start_both(jobs, NULL);
    for (int r = 0; r < 2; r++)
        assert_int_equal(jobs[r].st, TP_ERR_UNSUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unique_id),
        cmocka_unit_test(test_no_device),
        cmocka_unit_test(test_failed_start),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
