/* SPDX-License-Identifier: Apache-2.0 */
/* test_shm.c - the shm group with threads for ranks: numbers of ranks that mpirun tests do not reach, and TSan. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>

#include "base/clock.h"
#include "base/mem.h"
#include "comm/comm.h"
#include "tests/comm/checks.h"

#define RANKS_MAX 8
#define COUNT_MAX 20000

typedef struct job {
    comm_group *g;
    const char *(*body)(comm_group *g);
    char why[300];
} job;

static void *run_rank(void *arg)
{
    job *j = arg;
    const char *why = j->body(j->g);

    snprintf(j->why, sizeof j->why, "%s", why != NULL ? why : "");
    if (why != NULL)
        comm_request_abort(j->g); /* the others need not wait for their deadlines */
    comm_group_destroy(j->g);
    return NULL;
}

static void with_ranks(int n, int64_t timeout_ms, const char *(*body)(comm_group *g))
{
    comm_options opt = {.kind = "shm",
                        .window_bytes = check_window_bytes(n, 16, COUNT_MAX),
                        .plan_bytes_max = CHECK_PLAN,
                        .timeout_ms = timeout_ms};
    comm_group *groups[RANKS_MAX] = {NULL};
    pthread_t threads[RANKS_MAX];
    job jobs[RANKS_MAX];
    bool wrong = false;

    assert_int_equal(comm_group_create_threads(groups, n, &opt), TP_OK);
    for (int r = 0; r < n; r++) {
        jobs[r] = (job){.g = groups[r], .body = body};
        assert_int_equal(pthread_create(&threads[r], NULL, run_rank, &jobs[r]), 0);
    }
    for (int r = 0; r < n; r++)
        pthread_join(threads[r], NULL);
    for (int r = 0; r < n; r++) {
        if (jobs[r].why[0] != '\0') {
            print_error("rank %d of %d: %s\n", r, n, jobs[r].why);
            wrong = true;
        }
    }
    assert_false(wrong);
}

static const char *all_sizes(comm_group *g)
{
    static const int64_t counts[] = {0, 1, 3, 16, 17, 1000, 8191, 8192, 8193, COUNT_MAX};

    for (size_t i = 0; i < TP_ARRAY_LEN(counts); i++) {
        for (int n_seg = 8; n_seg <= 16; n_seg *= 2) {
            const char *why = check_reduce(g, n_seg, counts[i], false);

            if (why == NULL)
                why = check_reduce(g, n_seg, counts[i], true);
            if (why == NULL)
                why = check_allgather(g, (size_t)counts[i] * 8);
            if (why == NULL)
                why = check_broadcast(g, (size_t)counts[i] * 8, comm_size(g) - 1);
            if (why != NULL)
                return why;
        }
    }
    return check_ctl(g, 60);
}

static void test_all_sizes(void **state)
{
    static const int n_ranks[] = {1, 2, 3, 4, 5, 8};

    (void)state;
    for (size_t i = 0; i < TP_ARRAY_LEN(n_ranks); i++)
        with_ranks(n_ranks[i], 60000, all_sizes);
}

static const char *mixed(comm_group *g)
{
    return check_mixed(g, 1500, 7, 10000);
}

static void test_mixed(void **state)
{
    (void)state;
    with_ranks(3, 60000, mixed);
    with_ranks(4, 60000, mixed);
}

/* Rank 1 stays away: the others name it, and it finds the group dead when it comes. */
static const char *late(comm_group *g)
{
    static _Thread_local char why[300];
    tp_status st;

    if (comm_rank(g) == 1) {
        tp_sleep_us(1500 * 1000);
        return comm_barrier(g) == TP_ERR_COMM ? NULL : "the late rank was let in";
    }
    st = comm_barrier(g);
    if (st == TP_ERR_COMM) /* another rank's deadline passed first */
        return comm_aborted(g) ? NULL : "TP_ERR_COMM without an abort";
    if (st != TP_ERR_TIMEOUT || strstr(tp_last_error(), "for rank 1 ") == NULL) {
        snprintf(why, sizeof why, "status %d: %s", (int)st, tp_last_error());
        return why;
    }
    return NULL;
}

static void test_deadline(void **state)
{
    (void)state;
    with_ranks(2, 200, late);
    with_ranks(4, 200, late);
}

/* Nobody takes the messages: the sender's ring fills up and its deadline passes. */
static const char *deaf(comm_group *g)
{
    char msg[8] = "hello";
    int n_sent = 0;

    if (comm_rank(g) != 0) {
        tp_sleep_us(1500 * 1000);
        return comm_aborted(g) ? NULL : "the sender did not give up";
    }
    while (n_sent < 100 && comm_ctl_send(g, msg, sizeof msg) == TP_OK)
        n_sent++;
    if (n_sent == 0 || n_sent == 100)
        return "the ring has no end";
    return strstr(tp_last_error(), "for rank 1 ") != NULL ? NULL : "the deaf rank is not named";
}

static void test_deaf_receiver(void **state)
{
    (void)state;
    with_ranks(3, 200, deaf);
}

static const char *abort_one(comm_group *g)
{
    int64_t start = tp_now_ns();
    char msg[8];
    size_t bytes;
    tp_status st;

    if (comm_rank(g) == 0) {
        tp_sleep_us(100 * 1000);
        comm_request_abort(g);
        return comm_barrier(g) == TP_ERR_COMM ? NULL : "abort was not seen by its sender";
    }
    st = comm_rank(g) % 2 == 1 ? comm_barrier(g) : comm_ctl_recv(g, msg, sizeof msg, &bytes, 0);
    if (st != TP_ERR_COMM)
        return "a waiter was not told";
    return tp_now_ns() - start < 5 * TP_NS_PER_S ? NULL : "a waiter was told late";
}

static void test_abort_wakes(void **state)
{
    (void)state;
    with_ranks(2, 0, abort_one);
    with_ranks(5, 0, abort_one);
}

static void test_bad_options(void **state)
{
    comm_options opt = {.kind = "shm", .window_bytes = 64, .plan_bytes_max = 64};
    comm_group *groups[RANKS_MAX] = {NULL};

    (void)state;
    assert_int_equal(comm_group_create_threads(groups, 0, &opt), TP_ERR_UNSUPPORTED);
    assert_int_equal(comm_group_create_threads(groups, 65, &opt), TP_ERR_UNSUPPORTED);
    opt.window_bytes = 0;
    assert_int_equal(comm_group_create_threads(groups, 2, &opt), TP_ERR_INVALID);
    opt.window_bytes = 64;
    opt.timeout_ms = -1;
    assert_int_equal(comm_group_create_threads(groups, 2, &opt), TP_ERR_INVALID);
    comm_group_destroy(NULL);
}

static void test_no_memory(void **state)
{
    comm_options opt = {.kind = "shm", .window_bytes = 64, .plan_bytes_max = 64};
    comm_group *groups[RANKS_MAX] = {NULL};

    (void)state;
    for (int n = 0; n < 2; n++) {
        tp_mem_fail_after(n);
        assert_int_equal(comm_group_create_threads(groups, 2, &opt), TP_ERR_NOMEM);
        tp_mem_fail_after(-1);
        assert_null(groups[0]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_sizes),   cmocka_unit_test(test_mixed),
        cmocka_unit_test(test_deadline),    cmocka_unit_test(test_deaf_receiver),
        cmocka_unit_test(test_abort_wakes), cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
