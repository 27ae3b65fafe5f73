/* SPDX-License-Identifier: Apache-2.0 */
/* test_cores.c - quotas of made-up control groups, and the affinity mask of this process. */
#include "tests/unit/base/base_testing.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cores.c"

static char g_mount[] = "/tmp/tp_cores_XXXXXX";

static void put_file(const char *dir, const char *name, const char *text)
{
    char path[PATH_MAX];
    FILE *f;

    (void)snprintf(path, sizeof path, "%s%s", g_mount, dir);
    (void)mkdir(path, 0700);
    (void)snprintf(path, sizeof path, "%s%s/%s", g_mount, dir, name);
    f = fopen(path, "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static int make_mount(void **state)
{
    (void)state;
    return mkdtemp(g_mount) != NULL ? 0 : -1;
}

static int remove_mount(void **state)
{
    static const char *const PATHS[] = {
        "/a/b/cpu.max",          "/a/cpu.max", "/cpu.max", "/a/b/cpu.cfs_period_us",
        "/a/b/cpu.cfs_quota_us", "/a/b",       "/a",       ""};
    char path[PATH_MAX];

    (void)state;
    for (size_t i = 0; i < TP_ARRAY_LEN(PATHS); i++) {
        (void)snprintf(path, sizeof path, "%s%s", g_mount, PATHS[i]);
        (void)remove(path);
    }
    return 0;
}

static void smallest_quota_of_all_ancestors_counts(void **state)
{
    (void)state;
    assert_true(quota_along(g_mount, "/a/b", true) <= 0);
    put_file("/a", "cpu.max", "150000 100000\n");
    put_file("/a/b", "cpu.max", "max 100000\n");
    assert_true(quota_along(g_mount, "/a/b", true) == 1.5);
    put_file("/a/b", "cpu.max", "400000 100000\n");
    assert_true(quota_along(g_mount, "/a/b", true) == 1.5);
    put_file("", "cpu.max", "50000 100000\n");
    assert_true(quota_along(g_mount, "/a/b", true) == 0.5);
    assert_true(quota_along(g_mount, "/not/there", true) == 0.5); /* inside a container */
}

static void first_version_has_two_files(void **state)
{
    (void)state;
    put_file("/a/b", "cpu.cfs_quota_us", "-1\n");
    put_file("/a/b", "cpu.cfs_period_us", "100000\n");
    assert_true(quota_along(g_mount, "/a/b", false) <= 0);
    put_file("/a/b", "cpu.cfs_quota_us", "250000\n");
    assert_true(quota_along(g_mount, "/a/b", false) == 2.5);
}

static void controllers_are_whole_words(void **state)
{
    (void)state;
    assert_true(has_controller("cpu,cpuacct", "cpu"));
    assert_true(has_controller("cpuacct,cpu", "cpu"));
    assert_false(has_controller("cpuset", "cpu"));
    assert_false(has_controller("", "cpu"));
}

static void affinity_mask_limits_the_cores(void **state)
{
    cpu_set_t before, one;
    int cpu = 0;

    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    assert_true(tp_cores_usable() >= 1 && tp_cores_usable() <= CPU_COUNT(&before));
    while (!CPU_ISSET(cpu, &before))
        cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(tp_cores_usable(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(smallest_quota_of_all_ancestors_counts),
        cmocka_unit_test(first_version_has_two_files),
        cmocka_unit_test(controllers_are_whole_words),
        cmocka_unit_test(affinity_mask_limits_the_cores),
    };

    return cmocka_run_group_tests(tests, make_mount, remove_mount);
}
