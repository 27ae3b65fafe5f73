/* SPDX-License-Identifier: Apache-2.0 */
/* test_log.c - lines as they arrive on stderr. */
#include "tests/unit/base/base_testing.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/log.h"

static char g_line[16384];

static int g_pipe[2];
static int g_stderr;

static void capture_start(void)
{
    assert_int_equal(pipe(g_pipe), 0);
    g_stderr = dup(STDERR_FILENO);
    assert_true(dup2(g_pipe[1], STDERR_FILENO) >= 0);
    (void)close(g_pipe[1]);
}

static void capture_stop(void)
{
    ssize_t n;

    assert_true(dup2(g_stderr, STDERR_FILENO) >= 0);
    (void)close(g_stderr);
    n = read(g_pipe[0], g_line, sizeof g_line - 1);
    g_line[n > 0 ? n : 0] = '\0';
    (void)close(g_pipe[0]);
}

static int set_up(void **state)
{
    (void)state;
    tp_log_set_rank(0, 2);
    tp_log_set_level(TP_LOG_INFO);
    tp_log_set_json(false);
    return 0;
}

static void line_has_time_level_rank_component(void **state)
{
    int year, day, rest = 0;

    (void)state;
    capture_start();
    tp_info("sched", "admitted request %d", 17);
    capture_stop();
    assert_int_equal(sscanf(g_line, "%4d-%*2d-%2dT%*2d:%*2d:%*2d.%*3dZ%n", &year, &day, &rest), 2);
    assert_true(year >= 2024);
    assert_int_equal(strncmp(g_line + rest, " info  [0/2 ", 12), 0);
    assert_non_null(strstr(g_line, "] sched: admitted request 17\n"));
}

static void control_bytes_are_shown(void **state)
{
    (void)state;
    capture_start();
    tp_info("x", "a\nb\rc\x1b[31m\x7f \xe4\xbd\xa0 \xff \xc2\x9b");
    capture_stop();
    assert_non_null(
        strstr(g_line, "x: a\\x0ab\\x0dc\\x1b[31m\\x7f \xe4\xbd\xa0 \\xff \\xc2\\x9b\n"));
}

static void long_line_is_cut_and_ended(void **state)
{
    char text[6000];

    (void)state;
    memset(text, 'y', sizeof text);
    text[sizeof text - 1] = '\0';
    capture_start();
    tp_info("x", "%s", text);
    capture_stop();
    assert_int_equal(strlen(g_line), 4096);
    assert_int_equal(g_line[4095], '\n');
}

static void level_decides(void **state)
{
    tp_log_level level = TP_LOG_INFO;

    (void)state;
    assert_false(tp_log_enabled(TP_LOG_DEBUG));
    assert_true(tp_log_parse_level("debug", &level));
    assert_int_equal(level, TP_LOG_DEBUG);
    assert_false(tp_log_parse_level("loud", &level));
    assert_int_equal(level, TP_LOG_DEBUG);
    tp_log_set_level(level);
    assert_true(tp_log_enabled(TP_LOG_DEBUG));
    assert_int_equal(tp_log_get_level(), TP_LOG_DEBUG);
}

static void json_lines_are_json(void **state)
{
    tp_json *root = NULL;

    (void)state;
    tp_log_set_json(true);
    capture_start();
    tp_warn("http", "path \"/x\\y\"\n\xff\x01");
    capture_stop();
    assert_int_equal(tp_json_parse(&root, g_line, strlen(g_line), NULL), TP_OK);
    assert_string_equal(tp_json_get_string(root, "level", ""), "warn");
    assert_string_equal(tp_json_get_string(root, "message", ""), "path \"/x\\y\"\\x0a\\xff\\x01");
    assert_int_equal(tp_json_get_int(root, "world", -1), 2);
    tp_json_free(root);
}

static void json_line_that_is_cut_is_still_json(void **state)
{
    tp_json *root = NULL;
    char text[6000];

    (void)state;
    memset(text, '"', sizeof text);
    text[sizeof text - 1] = '\0';
    tp_log_set_json(true);
    capture_start();
    tp_warn("http", "%s", text);
    capture_stop();
    assert_int_equal(tp_json_parse(&root, g_line, strlen(g_line), NULL), TP_OK);
    tp_json_free(root);
}

static void errno_survives(void **state)
{
    (void)state;
    capture_start();
    errno = ENOSPC;
    tp_error("x", "write: %m");
    assert_int_equal(errno, ENOSPC);
    capture_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(line_has_time_level_rank_component, set_up),
        cmocka_unit_test_setup(control_bytes_are_shown, set_up),
        cmocka_unit_test_setup(long_line_is_cut_and_ended, set_up),
        cmocka_unit_test_setup(level_decides, set_up),
        cmocka_unit_test_setup(json_lines_are_json, set_up),
        cmocka_unit_test_setup(json_line_that_is_cut_is_still_json, set_up),
        cmocka_unit_test_setup(errno_survives, set_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
