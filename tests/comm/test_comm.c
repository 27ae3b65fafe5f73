/* SPDX-License-Identifier: Apache-2.0 */
/* test_comm.c - all kinds of groups between processes, at the number of ranks that mpirun started. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>
#include <pthread.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/mem.h"
#include "comm/comm.h"
#include "tests/comm/checks.h"
#include "tests/harness/mpi_main.h"

static comm_world g_world;

static comm_group *make(const char *kind, int n_seg, int64_t count, int64_t timeout_ms)
{
    comm_options opt = {.kind = kind,
                        .window_bytes = check_window_bytes(g_world.size, n_seg, count),
                        .plan_bytes_max = CHECK_PLAN,
                        .timeout_ms = timeout_ms};
    comm_group *g = NULL;

    assert_int_equal(comm_group_create(&g, &g_world, &opt), TP_OK);
    assert_int_equal(comm_rank(g), g_world.rank);
    assert_int_equal(comm_size(g), g_world.size);
    return g;
}

static void ok(const char *why)
{
    if (why != NULL)
        fail_msg("%s", why);
}

static const char *kind_of(void **state)
{
    return *state;
}

static void test_kind(void **state)
{
    comm_group *g = make(kind_of(state), 8, 16, 20000);

    if (strcmp(kind_of(state), "auto") == 0)
        assert_string_equal(comm_kind(g), g_world.size == 1 ? "self" : "shm");
    else
        assert_string_equal(comm_kind(g), kind_of(state));
    assert_int_equal((uintptr_t)comm_window(g) % 64, 0);
    comm_group_destroy(g);
}

static void test_sizes(void **state)
{
    static const int64_t counts[] = {
        0, 1, 3, 16, 17, 1000, 8191, 8192, 65536, 65537, CHECK_COUNT_MAX};
    comm_group *g = make(kind_of(state), 16, CHECK_COUNT_MAX, 60000);

    for (size_t i = 0; i < TP_ARRAY_LEN(counts); i++) {
        for (int n_seg = 8; n_seg <= 16; n_seg *= 2) {
            if (n_seg == 16 && counts[i] > 65537)
                continue;
            ok(check_reduce(g, n_seg, counts[i], false));
            ok(check_reduce(g, n_seg, counts[i], true));
        }
        ok(check_allgather(g, (size_t)counts[i]));
        for (int root = 0; root < g_world.size; root++)
            ok(check_broadcast(g, (size_t)counts[i], root));
    }
    assert_int_equal(comm_barrier(g), TP_OK);
    comm_group_destroy(g);
}

static void test_ctl(void **state)
{
    comm_group *g = make(kind_of(state), 8, 16, 20000);

    ok(check_ctl(g, 300));
    assert_int_equal(comm_barrier(g), TP_OK);
    comm_group_destroy(g);
}

static void test_mixed(void **state)
{
    comm_group *g = make(kind_of(state), 8, 20000, 60000);

    ok(check_mixed(g, 10000, 42, 20000));
    comm_group_destroy(g);
}

static void test_misuse(void **state)
{
    comm_group *g = make(kind_of(state), 8, 100, 20000);
    float x[8] = {0}, y[8];
    unsigned char msg[64] = {0};
    size_t bytes = 0;

    assert_int_equal(
        comm_reduce(g, &(comm_reduce_args){.n_seg = 8, .roots = x, .out = y, .count = 1000000}),
        TP_ERR_INVALID);
    assert_non_null(strstr(tp_last_error(), "window"));
    assert_int_equal(
        comm_reduce(g, &(comm_reduce_args){.n_seg = 7, .roots = x, .out = y, .count = 1}),
        TP_ERR_INVALID);
    assert_int_equal(
        comm_reduce(g, &(comm_reduce_args){.n_seg = 128, .roots = x, .out = y, .count = 1}),
        TP_ERR_INVALID);
    assert_int_equal(comm_broadcast(g, x, 4, g_world.size), TP_ERR_INVALID);
    if (g_world.rank == 0) {
        assert_int_equal(comm_ctl_recv(g, msg, sizeof msg, &bytes, 1), TP_ERR_INVALID);
        assert_int_equal(comm_ctl_send(g, msg, CHECK_PLAN + 1), TP_ERR_INVALID);
        assert_int_equal(comm_ctl_send(g, msg, 64), TP_OK);
    } else {
        assert_int_equal(comm_ctl_send(g, msg, 1), TP_ERR_INVALID);
        assert_int_equal(comm_ctl_recv(g, msg, 63, &bytes, 5000), TP_ERR_LIMIT);
        assert_int_equal(comm_ctl_recv(g, msg, 64, &bytes, 5000), TP_OK);
        assert_int_equal(bytes, 64);
        assert_int_equal(comm_ctl_recv(g, msg, 64, &bytes, 20), TP_ERR_TIMEOUT);
    }
    ok(check_reduce(g, 8, 100, true)); /* still alive */
    comm_group_destroy(g);
}

static int64_t cpu_ns(void)
{
    struct rusage ru;

    getrusage(RUSAGE_SELF, &ru);
    return ((int64_t)ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) * TP_NS_PER_S +
           ((int64_t)ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) * TP_NS_PER_US;
}

/* A loop that spins burns a core for as long as it waits; how much an idle rank burns does not grow with what else runs. */
static void test_idle_is_idle(void **state)
{
    const int64_t asleep = TP_NS_PER_S;
    comm_group *g = make(kind_of(state), 8, 16, 20000);
    char msg[4] = "go";
    size_t bytes = 0;

    assert_int_equal(comm_barrier(g), TP_OK);
    if (g_world.rank == 0) {
        tp_sleep_us(asleep / TP_NS_PER_US);
        assert_int_equal(comm_ctl_send(g, msg, sizeof msg), TP_OK);
    } else {
        int64_t burnt = cpu_ns(), waited = tp_now_ns();

        assert_int_equal(comm_ctl_recv(g, msg, sizeof msg, &bytes, 0), TP_OK);
        burnt = cpu_ns() - burnt;
        waited = tp_now_ns() - waited;
        print_message("rank %d: %.2f ms of a core in %.0f ms of idling (%s)\n", g_world.rank,
                      (double)burnt / 1e6, (double)waited / 1e6, comm_kind(g));
        assert_in_range(burnt, 0, (waited > asleep ? waited : asleep) / 2);
    }
    comm_group_destroy(g);
}

/* Rank 0 stays away until all others have given up, which they say in a group that waits for ever. */
static void test_deadline(void **state)
{
    comm_group *g, *signs;
    int64_t start;
    tp_status st;

    if (g_world.size == 1)
        skip();
    g = make(kind_of(state), 8, 16, 300);
    signs = make(kind_of(state), 8, 16, 0);
    assert_int_equal(comm_barrier(signs), TP_OK);
    start = tp_now_ns();
    if (g_world.rank == 0) {
        assert_int_equal(comm_barrier(signs), TP_OK);
        assert_int_not_equal(comm_barrier(g), TP_OK);
        assert_int_equal(comm_reduce(g, &(comm_reduce_args){.n_seg = 8, .count = 1}), TP_ERR_COMM);
    } else {
        st = comm_barrier(g);
        assert_true(st == TP_ERR_TIMEOUT || st == TP_ERR_COMM);
        if (st == TP_ERR_TIMEOUT) /* another rank's deadline may have come sooner */
            assert_true(tp_now_ns() - start >= 250 * TP_NS_PER_MS);
        if (g_world.size == 2) {
            assert_int_equal(st, TP_ERR_TIMEOUT);
            assert_non_null(strstr(tp_last_error(), "for rank 0"));
        }
        assert_int_equal(comm_barrier(g), TP_ERR_COMM); /* dead */
        assert_int_equal(comm_barrier(signs), TP_OK);
    }
    comm_group_destroy(signs);
    comm_group_destroy(g);
}

static void *abort_soon(void *arg)
{
    tp_sleep_us(200 * 1000);
    comm_request_abort(arg);
    return NULL;
}

/* Another thread of the last rank asks for the end while some wait in a collective, some for a message. */
static void test_abort_wakes(void **state)
{
    comm_group *g = make(kind_of(state), 8, 16, 0);
    char msg[CHECK_PLAN];
    size_t bytes = 0;
    pthread_t thread;
    int64_t start;
    tp_status st;

    if (g_world.size == 1) {
        comm_group_destroy(g);
        skip();
    }
    assert_int_equal(comm_barrier(g), TP_OK);
    start = tp_now_ns();
    if (g_world.rank == g_world.size - 1)
        assert_int_equal(pthread_create(&thread, NULL, abort_soon, g), 0);
    if (g_world.rank % 2 == 0)
        st = comm_barrier(g);
    else
        st = comm_ctl_recv(g, msg, sizeof msg, &bytes, 0);
    assert_int_equal(st, TP_ERR_COMM);
    assert_true(comm_aborted(g));
    if (g_world.rank == g_world.size - 1) {
        assert_true(tp_now_ns() - start >= 200 * TP_NS_PER_MS);
        pthread_join(thread, NULL);
    }
    comm_group_destroy(g);
}

/* Without memfd the named object must work, and be gone at once. */
static void test_named_memory(void **state)
{
    comm_group *g;

    (void)state;
    if (g_world.size == 1)
        skip();
    if (g_world.rank == 0)
        assert_true(tp_fault_arm("comm.memfd", 1));
    g = make("shm", 8, 1000, 20000);
    ok(check_reduce(g, 8, 1000, true));
    comm_group_destroy(g);
}

static void test_unknown_kind(void **state)
{
    comm_options opt = {.kind = "nccl", .window_bytes = 64, .plan_bytes_max = 64};
    comm_group *g = NULL;

    (void)state;
    assert_int_equal(comm_group_create(&g, &g_world, &opt), TP_ERR_INVALID);
    assert_null(g);
}

static int run_kind(char *kind)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_kind, kind),
        cmocka_unit_test_prestate(test_sizes, kind),
        cmocka_unit_test_prestate(test_ctl, kind),
        cmocka_unit_test_prestate(test_mixed, kind),
        cmocka_unit_test_prestate(test_misuse, kind),
        cmocka_unit_test_prestate(test_idle_is_idle, kind),
        cmocka_unit_test_prestate(test_deadline, kind),
        cmocka_unit_test_prestate(test_abort_wakes, kind),
    };

    return cmocka_run_group_tests_name(kind, tests, NULL, NULL);
}

static int run(void)
{
    static char kind_auto[] = "auto", kind_mpi[] = "mpi";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_named_memory),
        cmocka_unit_test(test_unknown_kind),
    };

    if (comm_init(&g_world) != TP_OK || g_world.size != tp_mpi_test_size())
        return 1;
    return run_kind(kind_auto) + run_kind(kind_mpi) + cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
    return tp_mpi_test_main(argc, argv, run);
}
