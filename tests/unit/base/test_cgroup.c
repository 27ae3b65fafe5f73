/* SPDX-License-Identifier: Apache-2.0 */
/* test_cgroup.c - limits of made-up control groups on cores and memory, and the affinity mask of this process. */
#include "tests/unit/base/base_testing.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cgroup.c"
#include "base/cores.c"
#include "base/memory_limit.c"

static char g_mount[] = "/tmp/tp_cgroup_XXXXXX";

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
    static const char *const PATHS[] = {"/a/b/cpu.max",
                                        "/a/cpu.max",
                                        "/cpu.max",
                                        "/a/b/cpu.cfs_period_us",
                                        "/a/b/cpu.cfs_quota_us",
                                        "/a/memory.max",
                                        "/a/memory.current",
                                        "/a/b/memory.max",
                                        "/a/b/memory.current",
                                        "/memory.max",
                                        "/a/b/memory.limit_in_bytes",
                                        "/a/b/memory.usage_in_bytes",
                                        "/a/b",
                                        "/a",
                                        ""};
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
    assert_true(least_along(g_mount, "/a/b", true, quota_of) < 0);
    put_file("/a", "cpu.max", "150000 100000\n");
    put_file("/a/b", "cpu.max", "max 100000\n");
    assert_true(least_along(g_mount, "/a/b", true, quota_of) == 1.5);
    put_file("/a/b", "cpu.max", "400000 100000\n");
    assert_true(least_along(g_mount, "/a/b", true, quota_of) == 1.5);
    put_file("", "cpu.max", "50000 100000\n");
    assert_true(least_along(g_mount, "/a/b", true, quota_of) == 0.5);
    assert_true(least_along(g_mount, "/not/there", true, quota_of) == 0.5); /* inside a container */
}

static void first_version_has_two_files(void **state)
{
    (void)state;
    put_file("/a/b", "cpu.cfs_quota_us", "-1\n");
    put_file("/a/b", "cpu.cfs_period_us", "100000\n");
    assert_true(least_along(g_mount, "/a/b", false, quota_of) < 0);
    put_file("/a/b", "cpu.cfs_quota_us", "250000\n");
    assert_true(least_along(g_mount, "/a/b", false, quota_of) == 2.5);
}

static void memory_is_what_the_narrowest_ancestor_leaves(void **state)
{
    (void)state;
    put_file("/a", "memory.max", "max\n");
    put_file("/a", "memory.current", "900\n");
    assert_true(least_along(g_mount, "/a/b", true, limit_of) < 0);
    assert_true(least_along(g_mount, "/a/b", true, room_of) < 0);
    put_file("/a/b", "memory.max", "5000\n");
    put_file("/a/b", "memory.current", "100\n");
    assert_true(least_along(g_mount, "/a/b", true, room_of) == 4900);
    put_file("/a", "memory.max", "5500\n");
    assert_true(least_along(g_mount, "/a/b", true, limit_of) == 5000);
    assert_true(least_along(g_mount, "/a/b", true, room_of) ==
                4600);                    /* of the one with the higher limit */
    put_file("", "memory.max", "4000\n"); /* whose use is not told */
    assert_true(least_along(g_mount, "/a/b", true, limit_of) == 4000);
    assert_true(least_along(g_mount, "/not/there", true, room_of) == 4000); /* inside a container */
    put_file("/a", "memory.current", "6000\n");
    assert_true(least_along(g_mount, "/a/b", true, room_of) == 0);
    put_file("/a", "memory.stat", "anon 10\nactive_file 1\ninactive_file 5000\nslab 7\n");
    put_file("", "memory.max", "max\n");
    assert_true(least_along(g_mount, "/a/b", true, room_of) == 4500); /* files are given up */
}

static void first_version_of_memory_has_a_huge_number_for_none(void **state)
{
    (void)state;
    put_file("/a/b", "memory.limit_in_bytes", "9223372036854771712\n");
    put_file("/a/b", "memory.usage_in_bytes", "1000\n");
    assert_true(least_along(g_mount, "/a/b", false, limit_of) < 0);
    assert_true(least_along(g_mount, "/a/b", false, room_of) < 0);
    put_file("/a/b", "memory.limit_in_bytes", "3000\n");
    assert_true(least_along(g_mount, "/a/b", false, limit_of) == 3000);
    assert_true(least_along(g_mount, "/a/b", false, room_of) == 2000);
    put_file("/a/b", "memory.stat", "inactive_file 1\ntotal_inactive_file 400\n");
    assert_true(least_along(g_mount, "/a/b", false, room_of) == 2400);
}

static void some_memory_is_available(void **state)
{
    (void)state;
    assert_in_range(tp_memory_available(), 1, INT64_MAX - 1);
    assert_in_range(tp_memory_limit(), 1, INT64_MAX);
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
        cmocka_unit_test(memory_is_what_the_narrowest_ancestor_leaves),
        cmocka_unit_test(first_version_of_memory_has_a_huge_number_for_none),
        cmocka_unit_test(some_memory_is_available),
        cmocka_unit_test(controllers_are_whole_words),
        cmocka_unit_test(affinity_mask_limits_the_cores),
    };

    return cmocka_run_group_tests(tests, make_mount, remove_mount);
}
