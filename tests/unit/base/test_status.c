/* SPDX-License-Identifier: Apache-2.0 */
/* test_status.c - kept texts, the TP_TRY macros, and what a broken assertion does. */
#include "tests/unit/base/base_testing.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/status.h"

static void every_status_has_a_name(void **state)
{
    (void)state;
    for (int st = TP_ERR_EXIT; st <= TP_OK; st++)
        assert_string_not_equal(tp_status_name((tp_status)st), "unknown status");
    assert_string_equal(tp_status_name((tp_status)-99), "unknown status");
}

static void failure_keeps_its_text(void **state)
{
    (void)state;
    errno = ENOENT;
    assert_int_equal(TP_FAIL(TP_ERR_IO, "open %s: %m", "x"), TP_ERR_IO);
    assert_string_equal(tp_last_error(), "open x: No such file or directory");
    assert_int_equal(TP_REJECT(TP_ERR_INVALID, "top_p is %g", 2.0), TP_ERR_INVALID);
    assert_string_equal(tp_last_error(), "top_p is 2");
}

static void text_may_hold_the_text_before(void **state)
{
    (void)state;
    (void)TP_REJECT(TP_ERR_FORMAT, "bad");
    (void)TP_REJECT(TP_ERR_FORMAT, "file: %s", tp_last_error());
    assert_string_equal(tp_last_error(), "file: bad");
}

static void long_text_is_cut(void **state)
{
    char text[5000];

    (void)state;
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    (void)TP_REJECT(TP_ERR_FORMAT, "%s", text);
    assert_int_equal(strlen(tp_last_error()), 1023);
}

static void *fail_elsewhere(void *arg)
{
    (void)arg;
    (void)TP_REJECT(TP_ERR_IO, "other thread");
    return NULL;
}

static void text_belongs_to_the_thread(void **state)
{
    pthread_t t;

    (void)state;
    (void)TP_REJECT(TP_ERR_IO, "this thread");
    assert_int_equal(pthread_create(&t, NULL, fail_elsewhere, NULL), 0);
    assert_int_equal(pthread_join(t, NULL), 0);
    assert_string_equal(tp_last_error(), "this thread");
}

static int g_steps;

static tp_status step(tp_status st)
{
    g_steps++;
    return st;
}

static tp_status two_steps(tp_status first)
{
    TP_TRY(step(first));
    TP_TRY(step(TP_OK));
    return TP_OK;
}

static tp_status two_steps_with_cleanup(tp_status first, bool *cleaned)
{
    tp_status st;

    TP_TRY_GOTO(st, step(first), out);
    TP_TRY_GOTO(st, step(TP_OK), out);
out:
    *cleaned = true;
    return st;
}

static void try_stops_at_the_first_failure(void **state)
{
    bool cleaned = false;

    (void)state;
    g_steps = 0;
    assert_int_equal(two_steps(TP_ERR_FULL), TP_ERR_FULL);
    assert_int_equal(g_steps, 1);
    assert_int_equal(two_steps(TP_OK), TP_OK);
    assert_int_equal(g_steps, 3);
    assert_int_equal(two_steps_with_cleanup(TP_ERR_IO, &cleaned), TP_ERR_IO);
    assert_true(cleaned);
}

static void broken_assertion_aborts_with_a_line(void **state)
{
    char line[512] = "";
    int fds[2], wstatus;
    ssize_t n;
    pid_t pid;

    (void)state;
    assert_int_equal(pipe(fds), 0);
    pid = fork();
    if (pid == 0) {
        (void)dup2(fds[1], STDERR_FILENO);
        TP_ASSERT(1 + 1 == 3);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &wstatus, 0), pid);
    n = read(fds[0], line, sizeof line - 1);
    assert_true(n > 0);
    assert_true(WIFSIGNALED(wstatus) && WTERMSIG(wstatus) == SIGABRT);
    assert_non_null(strstr(line, "1 + 1 == 3 does not hold (test_status.c:"));
    (void)close(fds[0]);
    (void)close(fds[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_status_has_a_name),
        cmocka_unit_test(failure_keeps_its_text),
        cmocka_unit_test(text_may_hold_the_text_before),
        cmocka_unit_test(long_text_is_cut),
        cmocka_unit_test(text_belongs_to_the_thread),
        cmocka_unit_test(try_stops_at_the_first_failure),
        cmocka_unit_test(broken_assertion_aborts_with_a_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
