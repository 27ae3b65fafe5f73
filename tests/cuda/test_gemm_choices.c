/* SPDX-License-Identifier: Apache-2.0 */
/* test_gemm_choices.c - the table of algorithms and its file: kept, found again, and never believed when damaged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "kernels/cuda/gemm_choices.h"

#define OK(expr) assert_int_equal((expr), TP_OK)

static char g_path[] = "/tmp/tpserve-choices-XXXXXX";

static int set_up(void **state)
{
    int fd = mkstemp(g_path);

    (void)state;
    return fd < 0 || close(fd) != 0;
}

static int tear_down(void **state)
{
    (void)state;
    return unlink(g_path);
}

static kern_gemm_shape shape(int i)
{
    return (kern_gemm_shape){.m = 1 + i % 7,
                             .n = 100 + i,
                             .k = 64,
                             .dtype = (int16_t)(i % 3),
                             .biased = i % 2 != 0,
                             .aligned = i % 5 != 0,
                             .ldw = 64 + i};
}

static void add(kern_gemm_choices *c, int i, bool tuned)
{
    kern_gemm_shape s = shape(i);
    kern_gemm_choice *e = kern_gemm_choices_place(c, &s);

    *e = (kern_gemm_choice){
        .shape = s, .used = true, .tuned = tuned, .spread_bias = i % 4 == 1, .us = (float)i};
    memset(e->algorithm, i % 251, sizeof e->algorithm);
    kern_gemm_choices_touch(c, e);
}

static bool has(kern_gemm_choices *c, int i)
{
    kern_gemm_shape s = shape(i);
    const kern_gemm_choice *e = kern_gemm_choices_place(c, &s);

    if (!kern_gemm_choice_holds(e, &s))
        return false;
    assert_int_equal(e->spread_bias, i % 4 == 1);
    for (size_t j = 0; j < sizeof e->algorithm; j++)
        assert_int_equal(e->algorithm[j], i % 251);
    return true;
}

static void test_table(void **state)
{
    kern_gemm_choices *c = NULL;
    int found = 0;

    (void)state;
    OK(kern_gemm_choices_create(&c, NULL, "x"));
    for (int i = 0; i < 500; i++)
        assert_false(has(c, i));
    for (int i = 0; i < 500; i++)
        add(c, i, true);
    for (int i = 0; i < 500; i++)
        assert_true(has(c, i));
    /* Far too many guesses do not drive out what was timed. */
    for (int i = 500; i < 20000; i++)
        add(c, i, false);
    for (int i = 0; i < 500; i++)
        assert_true(has(c, i));
    for (int i = 500; i < 20000; i++)
        found += has(c, i);
    assert_in_range(found, 3000, 4096 - 500);
    kern_gemm_choices_write(c); /* no file: nothing */
    kern_gemm_choices_destroy(c);
    kern_gemm_choices_destroy(NULL);
}

static void test_file(void **state)
{
    kern_gemm_choices *c = NULL;

    (void)state;
    OK(kern_gemm_choices_create(&c, g_path, "a GPU, driver 1"));
    for (int i = 0; i < 300; i++)
        add(c, i, i % 3 != 0);
    kern_gemm_choices_write(c);
    kern_gemm_choices_destroy(c);

    OK(kern_gemm_choices_create(&c, g_path, "a GPU, driver 1"));
    for (int i = 0; i < 300; i++)
        assert_int_equal(has(c, i), i % 3 != 0);
    kern_gemm_choices_destroy(c);

    OK(kern_gemm_choices_create(&c, g_path, "a GPU, driver 2"));
    for (int i = 0; i < 300; i++)
        assert_false(has(c, i));
    kern_gemm_choices_destroy(c);
}

/* Cut anywhere, or with a byte changed anywhere, it is read without harm, and only whole lines count. */
static void test_damage(void **state)
{
    kern_gemm_choices *c = NULL;
    tp_buf b;

    (void)state;
    OK(kern_gemm_choices_create(&c, g_path, "x"));
    for (int i = 1; i < 4; i++)
        add(c, i, true);
    kern_gemm_choices_write(c);
    kern_gemm_choices_destroy(c);
    OK(tp_buf_read_file(&b, g_path, 1 << 20));
    for (size_t at = 0; at < b.len; at += 3)
        for (int way = 0; way < 2; way++) {
            FILE *f = fopen(g_path, "w");
            char *copy = b.data, kept = copy[at];

            assert_non_null(f);
            if (way == 1)
                copy[at] = 'z';
            assert_int_equal(fwrite(copy, 1, way == 0 ? at : b.len, f), way == 0 ? at : b.len);
            copy[at] = kept;
            assert_int_equal(fclose(f), 0);
            OK(kern_gemm_choices_create(&c, g_path, "x"));
            int n = has(c, 1) + has(c, 2) + has(c, 3), wanted = 0;

            for (const char *end = strchr(b.data, '\n'); way == 0 && end != NULL && end[1] != '\0';
                 end = strchr(end + 1, '\n'))
                wanted += strchr(end + 1, '\n') < b.data + at;
            if (way == 1) /* in the first line nothing is left, in another that one is lost */
                wanted = (size_t)(strchr(b.data, '\n') - b.data) >= at ? 0 : 2;
            if (way == 1 && b.data[at] == '\n' && wanted == 2)
                assert_in_range(n, 1, 2); /* the lines to both sides have become one */
            else
                assert_int_equal(n, wanted);
            kern_gemm_choices_destroy(c);
        }
    tp_buf_release(&b);
    OK(kern_gemm_choices_create(&c, "/nonexistent/folder/file", "x"));
    kern_gemm_choices_write(c); /* a line in the log of debug */
    kern_gemm_choices_destroy(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_table), cmocka_unit_test(test_file),
                                       cmocka_unit_test(test_damage)};

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
