/* SPDX-License-Identifier: Apache-2.0 */
/* test_buf.c - growth, the limit, sticky failure, files. */
#include "tests/unit/base/base_testing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fault.h"

static void appends_and_stays_terminated(void **state)
{
    tp_buf b;

    (void)state;
    tp_buf_init(&b, 1000);
    assert_string_equal(tp_buf_str(&b), "");
    tp_buf_puts(&b, "abc");
    tp_buf_putc(&b, 'd');
    tp_buf_printf(&b, "%d-%s", 42, "x");
    assert_string_equal(b.data, "abcd42-x");
    tp_buf_reset(&b);
    tp_buf_put(&b, "a\0b", 3);
    assert_int_equal(b.len, 3);
    assert_memory_equal(b.data, "a\0b", 4);
    tp_buf_release(&b);
    assert_null(b.data);
}

static void limit_is_exact_and_sticky(void **state)
{
    tp_buf b;

    (void)state;
    tp_buf_init(&b, 5);
    tp_buf_puts(&b, "12345");
    assert_false(b.failed);
    tp_buf_putc(&b, '6');
    assert_true(b.failed);
    tp_buf_puts(&b, "");
    assert_true(b.failed);
    assert_string_equal(b.data, "12345");
    tp_buf_reset(&b);
    tp_buf_printf(&b, "%s", "12345");
    assert_false(b.failed);
    tp_buf_reset(&b);
    tp_buf_puts(&b, "123");
    tp_buf_printf(&b, "%s", "456");
    assert_true(b.failed);
    assert_string_equal(b.data, "123");
    assert_null(tp_buf_take(&b));
    assert_false(tp_buf_reserve(&b, SIZE_MAX));
    assert_false(b.no_memory);
    tp_buf_release(&b);
    tp_mem_fail_after(0);
    tp_buf_puts(&b, "1");
    tp_mem_fail_after(-1);
    assert_true(b.failed && b.no_memory);
    tp_buf_reset(&b);
    assert_false(b.failed || b.no_memory);
    tp_buf_release(&b);
}

static void long_printf_grows(void **state)
{
    tp_buf b;
    char text[3000];

    (void)state;
    memset(text, 'z', sizeof text);
    text[sizeof text - 1] = '\0';
    tp_buf_init(&b, 100000);
    for (int i = 0; i < 10; i++)
        tp_buf_printf(&b, "%s|", text);
    assert_int_equal(b.len, 30000);
    assert_false(b.failed);
    tp_buf_release(&b);
}

static void take_moves_ownership(void **state)
{
    tp_buf b;
    char *s;

    (void)state;
    tp_buf_init(&b, 100);
    s = tp_buf_take(&b);
    assert_string_equal(s, "");
    tp_free(s);
    tp_buf_puts(&b, "own");
    s = tp_buf_take(&b);
    assert_string_equal(s, "own");
    assert_null(b.data);
    tp_free(s);
}

static bool use_buffer(void)
{
    tp_buf b;
    bool ok;

    tp_buf_init(&b, 100000);
    for (int i = 0; i < 1000; i++)
        tp_buf_printf(&b, "%d,", i);
    ok = !b.failed && b.len == 3890;
    tp_buf_release(&b);
    return ok;
}

static void every_allocation_may_fail(void **state)
{
    bool ok = false;
    int n_failures;

    (void)state;
    FAIL_EACH_ALLOCATION(n_failures, ok, ok = use_buffer());
    assert_true(ok);
    assert_int_equal(n_failures, 7); /* 64, 128 ... 4096 */
}

static void reads_files(void **state)
{
    char path[] = "/tmp/tp_buf_XXXXXX";
    int fd = mkstemp(path);
    tp_buf b;

    (void)state;
    assert_int_equal(write(fd, "12345", 5), 5);
    (void)close(fd);
    assert_int_equal(tp_buf_read_file(&b, path, 5), TP_OK);
    assert_string_equal(b.data, "12345");
    tp_buf_release(&b);
    assert_int_equal(tp_buf_read_file(&b, path, 4), TP_ERR_LIMIT);
    assert_null(b.data);
    tp_mem_fail_after(0);
    assert_int_equal(tp_buf_read_file(&b, path, 5), TP_ERR_NOMEM);
    tp_mem_fail_after(-1);
    assert_true(tp_fault_arm("buf.read", 1));
    assert_int_equal(tp_buf_read_file(&b, path, 5), TP_ERR_IO);
    (void)unlink(path);
    assert_int_equal(tp_buf_read_file(&b, path, 5), TP_ERR_NOT_FOUND);
    assert_int_equal(tp_buf_read_file(&b, "/", 5), TP_ERR_IO);
    assert_int_equal(tp_buf_read_file(&b, "/proc/self/status", 100000), TP_OK); /* size 0 by stat */
    assert_true(b.len > 100);
    tp_buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appends_and_stays_terminated),
        cmocka_unit_test(limit_is_exact_and_sticky),
        cmocka_unit_test(long_printf_grows),
        cmocka_unit_test(take_moves_ownership),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(reads_files),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
