/* SPDX-License-Identifier: Apache-2.0 */
/* test_mem.c - counting, failing, forbidding; large aligned blocks. */
#include "tests/unit/base/base_testing.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void allocations_are_counted(void **state)
{
    int64_t before = tp_mem_count();
    void *p = tp_malloc(0);
    char *s = tp_strdup("abc");
    char *t = tp_strndup("abc", 2);

    (void)state;
    assert_non_null(p);
    assert_string_equal(s, "abc");
    assert_string_equal(t, "ab");
    assert_int_equal(tp_mem_count() - before, 3);
    tp_free(p);
    tp_free(s);
    tp_free(t);
    tp_free(NULL);
}

static void product_that_overflows_is_refused(void **state)
{
    volatile size_t huge = SIZE_MAX / 2; /* volatile: the compiler would warn */

    (void)state;
    assert_null(tp_calloc(huge, 3));
}

static void injected_failures_last(void **state)
{
    void *p, *q;

    (void)state;
    tp_mem_fail_after(1);
    p = tp_malloc(8);
    assert_non_null(p);
    assert_null(tp_malloc(8));
    assert_null(tp_calloc(1, 8));
    assert_null(tp_aligned_alloc(64, 64));
    q = tp_realloc(p, 100000);
    assert_null(q); /* p is still valid */
    memset(p, 1, 8);
    tp_mem_fail_after(-1);
    tp_free(p);
}

static void an_injected_failure_may_pass(void **state)
{
    void *p;

    (void)state;
    tp_mem_fail_once(1);
    p = tp_malloc(8);
    assert_non_null(p);
    assert_null(tp_malloc(8));
    tp_free(p);
    p = tp_malloc(8);
    assert_non_null(p);
    tp_free(p);
}

static void aligned_blocks_are_zero_and_aligned(void **state)
{
    static const size_t SIZES[] = {0, 1, 64, 4096, (size_t)4 << 20, ((size_t)9 << 20) + 5};
    static const size_t ALIGNS[] = {16, 64, 4096, (size_t)4 << 20};

    (void)state;
    for (size_t i = 0; i < sizeof SIZES / sizeof SIZES[0]; i++) {
        for (size_t k = 0; k < sizeof ALIGNS / sizeof ALIGNS[0]; k++) {
            unsigned char *p = tp_aligned_alloc(ALIGNS[k], SIZES[i]);

            assert_non_null(p);
            assert_int_equal((uintptr_t)p % ALIGNS[k], 0);
            for (size_t b = 0; b < SIZES[i]; b += 509)
                assert_int_equal(p[b], 0);
            if (SIZES[i] > 0)
                memset(p, 0xab, SIZES[i]);
            tp_free(p);
        }
    }
}

static void large_block_that_does_not_fit_is_refused(void **state)
{
    (void)state;
    assert_null(tp_aligned_alloc(64, SIZE_MAX - 4096));
    assert_null(tp_aligned_alloc(64, SIZE_MAX / 2));
}

static void pages_are_whole_kept_and_given_back(void **state)
{
    enum { N = 200 };
    static void *p[N];
    const size_t size = ((size_t)256 << 10) - 5;

    (void)state;
    assert_null(tp_pages_alloc(0));
    assert_null(tp_pages_alloc(SIZE_MAX - 1));
    assert_null(tp_pages_alloc(SIZE_MAX / 2));
    tp_pages_free(NULL, size);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < N; i++) {
            p[i] = tp_pages_alloc(size);
            assert_non_null(p[i]);
            assert_int_equal((uintptr_t)p[i] % 4096, 0);
            memset(p[i], i, (size_t)256 << 10); /* pages are whole: the last byte, too */
        }
        for (int i = 0; i < N; i++) {
            for (size_t b = 0; b < size; b += 4001)
                assert_int_equal(((unsigned char *)p[i])[b], i); /* nothing is handed out twice */
            tp_pages_free(p[i], size);
        }
        if (round == 1)
            tp_mem_trim();
    }
    p[0] = tp_pages_alloc(2 * size); /* a spare block of another size does not do */
    assert_non_null(p[0]);
    memset(p[0], 1, 2 * size);
    tp_pages_free(p[0], 2 * size);
    tp_mem_fail_once(0);
    assert_null(tp_pages_alloc(size)); /* spare or not */
    tp_mem_trim();
}

static void forbidden_allocation_aborts(void **state)
{
    int wstatus;
    pid_t pid = fork();

    (void)state;
    if (pid == 0) {
        (void)close(STDERR_FILENO);
        tp_mem_forbid(true);
        tp_mem_forbid(true);
        tp_mem_forbid(false); /* counts: still forbidden */
        tp_free(tp_malloc(1));
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &wstatus, 0), pid);
    assert_true(WIFSIGNALED(wstatus) && WTERMSIG(wstatus) == SIGABRT);
    tp_mem_forbid(true);
    tp_mem_forbid(false);
    tp_free(tp_malloc(1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocations_are_counted),
        cmocka_unit_test(product_that_overflows_is_refused),
        cmocka_unit_test(injected_failures_last),
        cmocka_unit_test(an_injected_failure_may_pass),
        cmocka_unit_test(aligned_blocks_are_zero_and_aligned),
        cmocka_unit_test(large_block_that_does_not_fit_is_refused),
        cmocka_unit_test(pages_are_whole_kept_and_given_back),
        cmocka_unit_test(forbidden_allocation_aborts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
