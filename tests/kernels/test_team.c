/* SPDX-License-Identifier: Apache-2.0 */
/* test_team.c - the team of threads: every item once, whoever is late, however many callers. */
#include <pthread.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "kernels/cpu/team.h"
#include "tests/kernels/kern_testing.h"

#define ITEMS   1000
#define THREADS 4

typedef struct count {
    _Atomic int seen[ITEMS];
    _Atomic int inside[THREADS]; /* of each thread number */
    int64_t n, most;             /* items; at once */
    bool slow;                   /* some take long */
} count;

static _Atomic int g_begun, g_ended;

static void begin_thread(void)
{
    atomic_fetch_add(&g_begun, 1);
}

static void end_thread(void)
{
    atomic_fetch_add(&g_ended, 1);
}

static void run_items(const void *args, int64_t begin, int64_t end, int thread)
{
    count *c = (count *)(uintptr_t)args;

    TP_ASSERT(thread >= 0 && thread < THREADS && begin < end);
    TP_ASSERT(atomic_fetch_add(&c->inside[thread], 1) == 0);
    TP_ASSERT(c->most == 0 || end - begin <= c->most || end - begin == c->n); /* alone: all */
    for (int64_t i = begin; i < end; i++)
        atomic_fetch_add(&c->seen[i], 1);
    if (c->slow && begin % 5 == 0)
        tp_sleep_us(50);
    TP_ASSERT(atomic_fetch_sub(&c->inside[thread], 1) == 1);
}

static void check_once(kern_team *t, int64_t n, int64_t step, int64_t most, bool slow)
{
    static count c;
    kern_team_work w = {.run = run_items,
                        .args = &c,
                        .n = n,
                        .step = step,
                        .most = most,
                        .begin = begin_thread,
                        .end = end_thread};

    c.n = n;
    c.most = most;
    c.slow = slow;
    for (int i = 0; i < ITEMS; i++)
        atomic_store(&c.seen[i], 0);
    kern_team_run(t, &w, false);
    for (int i = 0; i < ITEMS; i++)
        if (atomic_load(&c.seen[i]) != (i < n))
            fail_msg("n %lld step %lld: item %d was done %d times", (long long)n, (long long)step,
                     i, atomic_load(&c.seen[i]));
    assert_int_equal(atomic_load(&g_begun), atomic_load(&g_ended));
}

static void test_every_item_once(void **state)
{
    (void)state;
    for (int n_threads = 1; n_threads <= THREADS; n_threads++) {
        kern_team *t;

        KT_OK(kern_team_create(&t, n_threads));
        assert_int_equal(kern_team_size(t), n_threads);
        for (int64_t n = 0; n <= ITEMS; n = n < 20 ? n + 1 : n * 7 / 3) {
            check_once(t, n, 1, 0, false);
            check_once(t, n, 3, 0, false);
            check_once(t, n, 1, 1, n < 50);
        }
        check_once(t, ITEMS, 64, 64, false);
        kern_team_destroy(t);
    }
    kern_team_destroy(NULL);
}

/* Members that have gone to sleep come back or are done without; many runs right after each other. */
static void test_sleep_and_hurry(void **state)
{
    kern_team *t;

    (void)state;
    KT_OK(kern_team_create(&t, 3));
    for (int i = 0; i < 20; i++) {
        tp_sleep_us(i % 4 * 300);
        check_once(t, 100 + i, 1, 0, i % 3 == 0);
    }
    for (int i = 0; i < 2000; i++)
        check_once(t, 2 + i % 9, 1, 0, false);
    kern_team_destroy(t);
}

static void add_items(const void *args, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    atomic_fetch_add((_Atomic int64_t *)(uintptr_t)args, end - begin);
}

typedef struct caller {
    pthread_t thread;
    kern_team *team;
} caller;

static void *call_often(void *arg)
{
    caller *c = arg;

    for (int i = 0; i < 500; i++) {
        _Atomic int64_t sum = 0;

        kern_team_run(
            c->team, &(kern_team_work){.run = add_items, .args = &sum, .n = 300, .step = 1}, false);
        TP_ASSERT(atomic_load(&sum) == 300);
    }
    return NULL;
}

static void test_many_callers(void **state)
{
    caller callers[4];

    (void)state;
    KT_OK(kern_team_create(&callers[0].team, 2));
    for (int i = 0; i < 4; i++) {
        callers[i].team = callers[0].team;
        assert_int_equal(pthread_create(&callers[i].thread, NULL, call_often, &callers[i]), 0);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(callers[i].thread, NULL);
    kern_team_destroy(callers[0].team);
}

static void test_made_and_ended(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++) {
        kern_team *t;

        KT_OK(kern_team_create(&t, 1 + i % THREADS));
        if (i % 2 == 0)
            check_once(t, 10, 1, 0, false);
        if (i % 8 == 0)
            tp_sleep_us(1000);
        kern_team_destroy(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_item_once),
        cmocka_unit_test(test_sleep_and_hurry),
        cmocka_unit_test(test_many_callers),
        cmocka_unit_test(test_made_and_ended),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
