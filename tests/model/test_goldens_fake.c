/* SPDX-License-Identifier: Apache-2.0 */
/* test_goldens_fake.c - some goldens, which have all parts between them, over a device whose memory the host cannot
 * touch (fake_device.h); on 1 and 3 ranks that are threads, with sums through the host. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>

#include "runtime/startup.h"
#include "tests/model/fake_device.h"
#include "tests/model/golden_checks.h"

#define RANKS_MAX 3

static const char *const g_traits[] = {"llama_bias", "qwen2_sliding", "qwen3"};

enum { N_TRAITS = TP_ARRAY_LEN(g_traits) };

typedef struct rank_arg {
    comm_group *group;
    gc_result results[N_TRAITS];
    bool ok;
} rank_arg;

static void *rank_main(void *p)
{
    rank_arg *a = p;
    kern_backend *be;

    a->ok = fd_ops()->open(&be, &(kern_open_args){.n_threads = 1}) == TP_OK &&
            rt_attach_device(a->group, be, "shm", NULL) == TP_OK;
    for (int i = 0; a->ok && i < N_TRAITS; i++)
        gc_check_device(&a->results[i], g_traits[i], a->group, be);
    comm_group_destroy(a->group);
    be->ops->close(be);
    return NULL;
}

static void test_ranks(void **state)
{
    comm_options opt = {
        .kind = "shm", .window_bytes = 4 << 20, .plan_bytes_max = 64, .timeout_ms = 60000};
    int n_ranks = *(int *)*state, bad = 0;
    comm_group *groups[RANKS_MAX];
    pthread_t threads[RANKS_MAX];
    rank_arg args[RANKS_MAX];

    assert_int_equal(comm_group_create_threads(groups, n_ranks, &opt), TP_OK);
    for (int i = 0; i < n_ranks; i++) {
        args[i] = (rank_arg){.group = groups[i]};
        assert_int_equal(pthread_create(&threads[i], NULL, rank_main, &args[i]), 0);
    }
    for (int i = 0; i < n_ranks; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < n_ranks; i++) {
        assert_true(args[i].ok);
        for (int t = 0; t < N_TRAITS; t++)
            bad += gc_report(&args[i].results[t], g_traits[t], n_ranks, "fake", i == 0);
    }
    assert_int_equal(bad, 0);
}

int main(void)
{
    static int one = 1, three = 3;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_ranks, &one),
        cmocka_unit_test_prestate(test_ranks, &three),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
