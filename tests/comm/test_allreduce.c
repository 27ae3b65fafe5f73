/* SPDX-License-Identifier: Apache-2.0 */
/* test_allreduce.c - the kernels of comm/p2p with virtual ranks: threads of one process, each with a stream of its own on
 * the emulated device.
 *
 *     test_allreduce                 everything
 *     test_allreduce small           what a thread sanitizer gets through in a minute
 *     test_allreduce planted WHICH   one short run; the build planted a defect, which must be noticed: exit 0 if it was
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>

#include "base/log.h"
#include "kernels/cuda/emu/emu_control.h"
#include "tests/comm/allreduce_checks.h"

#define RANKS_MAX 8

typedef struct job {
    comm_group *g;
    const char *(*body)(sum_rank *s);
    bool p2p;
    char why[400];
} job;

static uint32_t g_seed;

static void *run_rank(void *arg)
{
    job *j = arg;
    sum_rank s;
    const char *why = sum_rank_open(&s, j->g, j->p2p, 60000);

    if (why == NULL)
        why = j->body(&s);
    if (why != NULL) {
        snprintf(j->why, sizeof j->why, "%s", why);
        comm_request_abort(j->g); /* the others need not wait for their deadlines */
        if (s.r != NULL)
            comm_p2p_ops.abort(s.r);
    }
    sum_rank_close(&s);
    return NULL;
}

/* The number of ranks that found something wrong. */
static int run_ranks(int n, bool p2p, const char *(*body)(sum_rank *s))
{
    comm_options opt = {
        .kind = "shm", .window_bytes = SUM_WINDOW, .plan_bytes_max = 4096, .timeout_ms = 60000};
    comm_group *groups[RANKS_MAX] = {NULL};
    pthread_t threads[RANKS_MAX];
    job jobs[RANKS_MAX];
    int n_wrong = 0;

    assert_int_equal(comm_group_create_threads(groups, n, &opt), TP_OK);
    for (int r = 0; r < n; r++) {
        jobs[r] = (job){.g = groups[r], .body = body, .p2p = p2p};
        assert_int_equal(pthread_create(&threads[r], NULL, run_rank, &jobs[r]), 0);
    }
    for (int r = 0; r < n; r++)
        pthread_join(threads[r], NULL);
    for (int r = 0; r < n; r++) {
        if (jobs[r].why[0] != '\0') {
            print_error("rank %d of %d: %s\n", r, n, jobs[r].why);
            n_wrong++;
        }
    }
    return n_wrong;
}

static void with_ranks(int n, const char *(*body)(sum_rank *s))
{
    assert_int_equal(run_ranks(n, true, body), 0);
}

static const char *sums(sum_rank *s)
{
    return check_sums(s, 24, g_seed, 60000);
}

static void test_sums(void **state)
{
    static const int n_ranks[] = {2, 3, 4, 5, 8};

    (void)state;
    g_seed = 1;
    for (size_t i = 0; i < TP_ARRAY_LEN(n_ranks); i++)
        with_ranks(n_ranks[i], sums);
}

static const char *few_sums(sum_rank *s)
{
    return check_sums(s, 12, g_seed, 30000);
}

static void test_random_schedules(void **state)
{
    (void)state;
    emu_set_schedule(EMU_SCHED_REVERSE, 0);
    with_ranks(4, few_sums);
    for (g_seed = 1; g_seed <= 5; g_seed++) {
        emu_set_schedule(EMU_SCHED_RANDOM, g_seed);
        with_ranks(2, few_sums);
        with_ranks(4, few_sums);
        with_ranks(8, few_sums);
    }
    emu_set_schedule(EMU_SCHED_FORWARD, 0);
}

/* All blocks, several pieces, many rounds of small ones. */
static const char *large_sums(sum_rank *s)
{
    const char *why = check_sums(s, 2, 3, SUM_COUNT_MAX);

    return why != NULL ? why : check_sums(s, 150, 4, 700);
}

static void test_large_and_many(void **state)
{
    (void)state;
    with_ranks(2, large_sums);
    with_ranks(4, large_sums);
}

static const char *graph(sum_rank *s)
{
    return check_graph(s, 7);
}

static void test_graph(void **state)
{
    (void)state;
    with_ranks(2, graph);
    with_ranks(4, graph);
}

static const char *gathers(sum_rank *s)
{
    return check_gathers(s, 12, 7, SUM_COUNT_MAX / comm_size(s->g) - 3);
}

static void test_gathers(void **state)
{
    (void)state;
    with_ranks(2, gathers);
    with_ranks(3, gathers);
    emu_set_schedule(EMU_SCHED_RANDOM, 9);
    with_ranks(4, gathers);
    with_ranks(8, gathers);
    emu_set_schedule(EMU_SCHED_FORWARD, 0);
}

static const char *norm(sum_rank *s)
{
    static const struct {
        int m, dim;
        kern_dtype t;
    } cases[] = {
        {1, 64, KERN_DTYPE_F32},    {3, 1000, KERN_DTYPE_BF16}, {36, 128, KERN_DTYPE_F16},
        {37, 128, KERN_DTYPE_BF16}, {5, 4096, KERN_DTYPE_F32},  {290, 896, KERN_DTYPE_BF16},
    };

    for (size_t i = 0; i < TP_ARRAY_LEN(cases); i++) {
        const char *why = check_norm(s, cases[i].m, cases[i].dim, cases[i].t);

        if (why != NULL)
            return why;
    }
    return NULL;
}

static void test_norm(void **state)
{
    (void)state;
    with_ranks(2, norm);
    with_ranks(4, norm);
    with_ranks(8, norm);
}

static const char *late(sum_rank *s)
{
    return check_late(s, 400);
}

static void test_late(void **state)
{
    (void)state;
    with_ranks(2, late);
    with_ranks(4, late);
}

static void test_abort(void **state)
{
    (void)state;
    with_ranks(2, check_abort);
    with_ranks(3, check_abort);
}

static const char *attached(sum_rank *s)
{
    return check_attached(s, "auto");
}

static void test_attached(void **state)
{
    (void)state;
    assert_int_equal(run_ranks(2, false, attached), 0);
    assert_int_equal(run_ranks(4, false, attached), 0);
}

static const char *misuse(sum_rank *s)
{
    kern_rmsnorm_args a = {.out = s->out, .residual = s->out, .weight = s->in, .m = 1, .dim = 6};

    if (comm_p2p_one_shot(comm_p2p_get_team(s->r), s->in + 1, s->out, 4, s->stream) !=
        TP_ERR_INVALID)
        return "an address between vectors was taken";
    if (comm_p2p_one_shot(comm_p2p_get_team(s->r), s->in, s->out,
                          comm_p2p_one_shot_max(comm_size(s->g)) + 1, s->stream) != TP_ERR_INVALID)
        return "a sum beyond the areas was taken";
    if (comm_p2p_gather(comm_p2p_get_team(s->r), s->in, s->out, 24, s->stream) != TP_ERR_INVALID ||
        comm_p2p_gather(comm_p2p_get_team(s->r), s->in, s->out, 0, s->stream) != TP_ERR_INVALID)
        return "a gather of half a vector was taken";
    if (comm_p2p_sum_norm(comm_p2p_get_team(s->r), s->in, &a, s->stream) != TP_ERR_INVALID)
        return "a row of 6 was taken";
    return NULL;
}

static void test_misuse(void **state)
{
    (void)state;
    with_ranks(2, misuse);
}

/* ---- for the thread sanitizer: fewer and smaller ---- */

static const char *small_sums(sum_rank *s)
{
    const char *why = check_sums(s, 8, 5, 2500);

    if (why == NULL)
        why = check_gathers(s, 4, 3, 2000);
    return why != NULL ? why : check_norm(s, 3, 64, KERN_DTYPE_BF16);
}

static void test_small(void **state)
{
    (void)state;
    with_ranks(2, small_sums);
    with_ranks(4, small_sums);
    with_ranks(4, late);
}

/* ---- a defect that the build planted ---- */

static const char *planted(sum_rank *s)
{
    s->r->timeout_ms = 2000; /* a defect may be a hang */
    return check_sums(s, 60, 11, 3000);
}

static int run_planted(void)
{
    int n_wrong = 0;

    for (int round = 0; round < 3 && n_wrong == 0; round++)
        n_wrong = run_ranks(4, true, planted);
    print_message("planted defect: %d of 4 ranks noticed\n", n_wrong);
    return n_wrong > 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums),           cmocka_unit_test(test_random_schedules),
        cmocka_unit_test(test_large_and_many), cmocka_unit_test(test_graph),
        cmocka_unit_test(test_norm),           cmocka_unit_test(test_late),
        cmocka_unit_test(test_abort),          cmocka_unit_test(test_attached),
        cmocka_unit_test(test_misuse),         cmocka_unit_test(test_gathers),
    };
    const struct CMUnitTest small[] = {cmocka_unit_test(test_small)};

    if (argc > 1 && strcmp(argv[1], "planted") == 0)
        return run_planted();
#ifdef __SANITIZE_THREAD__
    argc = 0;
#endif
    if (argc == 0 || (argc > 1 && strcmp(argv[1], "small") == 0))
        return cmocka_run_group_tests(small, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
