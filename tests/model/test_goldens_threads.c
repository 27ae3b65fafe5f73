/* SPDX-License-Identifier: Apache-2.0 */
/* test_goldens_threads.c - the goldens on 5 and 8 ranks, each a thread: more ranks than heads or vocabulary chunks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>

#include "base/mem.h"
#include "tests/model/golden_checks.h"

#define RANKS_MAX 8

typedef struct rank_arg {
    comm_group *group;
    const char *trait, *isa;
    gc_result result;
} rank_arg;

static void *rank_main(void *p)
{
    rank_arg *a = p;

    gc_check_trait(&a->result, a->trait, a->group, a->isa);
    return NULL;
}

static int check(const char *trait, int n_ranks, const char *isa)
{
    comm_options opt = {
        .kind = "shm", .window_bytes = 4 << 20, .plan_bytes_max = 64, .timeout_ms = 60000};
    comm_group *groups[RANKS_MAX];
    pthread_t threads[RANKS_MAX];
    rank_arg args[RANKS_MAX];
    int bad = 0;

    assert_int_equal(comm_group_create_threads(groups, n_ranks, &opt), TP_OK);
    for (int i = 0; i < n_ranks; i++) {
        args[i] = (rank_arg){.group = groups[i], .trait = trait, .isa = isa};
        assert_int_equal(pthread_create(&threads[i], NULL, rank_main, &args[i]), 0);
    }
    for (int i = 0; i < n_ranks; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < n_ranks; i++) {
        bad += gc_report(&args[i].result, trait, n_ranks, isa, i == 0);
        comm_group_destroy(groups[i]);
    }
    return bad;
}

static const char *best_isa(void)
{
    const char *best = NULL;

    for (int i = 0; tm_isas[i] != NULL; i++)
        best = kern_cpu_ops()->isa_supported(tm_isas[i]) ? tm_isas[i] : best;
    return best;
}

static void test_ranks(void **state)
{
    int n_ranks = *(int *)*state, bad = 0;

    for (int i = 0; i < tm_n_traits; i++)
        bad += check(tm_traits[i], n_ranks, best_isa());
    assert_int_equal(bad, 0);
}

int main(void)
{
    static int five = 5, eight = 8;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_ranks, &five),
        cmocka_unit_test_prestate(test_ranks, &eight),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
