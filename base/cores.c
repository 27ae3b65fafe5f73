/* SPDX-License-Identifier: Apache-2.0 */
/* cores.c - see cores.h.
 *
 * /proc/self/cgroup has one line per hierarchy, "id:controllers:path"; id 0 is version 2.  Version 2 keeps the quota
 * in cpu.max ("max 100000" or "200000 100000"), version 1 in cpu.cfs_quota_us (-1: none) and cpu.cfs_period_us.
 * Every ancestor may set a limit, so the walk goes up to the mount point and the smallest counts.  Inside a
 * container the path names directories that are not visible; the mount point itself is then the container's group.
 */
#include "base/cores.h"

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#define GROUP_ROOT "/sys/fs/cgroup"

/* First line of dir/name; false when it cannot be read. */
static bool read_line(const char *dir, const char *name, char *line, int cap)
{
    char path[PATH_MAX];
    FILE *f;
    bool ok;

    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path)
        return false;
    f = fopen(path, "re");
    if (f == NULL)
        return false;
    ok = fgets(line, cap, f) != NULL;
    fclose(f);
    return ok;
}

/* Quota of one directory in CPUs; 0 = none. */
static double quota_of(const char *dir, bool v2)
{
    char line[128];
    double quota = 0, period = 0;

    if (v2) {
        if (!read_line(dir, "cpu.max", line, sizeof line) ||
            sscanf(line, "%lf %lf", &quota, &period) != 2)
            return 0;
    } else {
        if (!read_line(dir, "cpu.cfs_quota_us", line, sizeof line) ||
            sscanf(line, "%lf", &quota) != 1 ||
            !read_line(dir, "cpu.cfs_period_us", line, sizeof line) ||
            sscanf(line, "%lf", &period) != 1)
            return 0;
    }
    return quota > 0 && period > 0 ? quota / period : 0;
}

/* Smallest quota from mount/path up to mount. */
static double quota_along(const char *mount, const char *path, bool v2)
{
    char dir[PATH_MAX];
    size_t mount_len = strlen(mount);
    double least = 0;

    if (snprintf(dir, sizeof dir, "%s%s", mount, path) >= (int)sizeof dir)
        return 0;
    for (;;) {
        double q = quota_of(dir, v2);
        char *slash = strrchr(dir, '/');

        if (q > 0 && (least <= 0 || q < least))
            least = q;
        if (slash == NULL || (size_t)(slash - dir) < mount_len)
            return least;
        *slash = '\0';
    }
}

static bool has_controller(const char *list, const char *name)
{
    size_t len = strlen(name);

    for (const char *p = list; p != NULL; p = strchr(p, ',')) {
        p += *p == ',';
        if (strncmp(p, name, len) == 0 && (p[len] == '\0' || p[len] == ','))
            return true;
    }
    return false;
}

double tp_cores_quota(void)
{
    char line[PATH_MAX + 64];
    double least = 0;
    FILE *f = fopen("/proc/self/cgroup", "re");

    if (f == NULL)
        return 0;
    while (fgets(line, sizeof line, f) != NULL) {
        char *list = strchr(line, ':');
        char *path = list != NULL ? strchr(list + 1, ':') : NULL;
        double q;

        if (path == NULL)
            continue;
        *path++ = '\0';
        path[strcspn(path, "\n")] = '\0';
        list++;
        if (*list == '\0') {
            q = quota_along(GROUP_ROOT, path, true);
        } else if (has_controller(list, "cpu")) {
            q = quota_along(GROUP_ROOT "/cpu", path, false);
        } else {
            continue;
        }
        if (q > 0 && (least <= 0 || q < least))
            least = q;
    }
    fclose(f);
    return least;
}

int tp_cores_usable(void)
{
    cpu_set_t set;
    double quota = tp_cores_quota();
    int n = 1;

    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        n = CPU_COUNT(&set);
    if (quota > 0 && quota < n)
        n = (int)quota + ((double)(int)quota < quota);
    return n >= 1 ? n : 1;
}
