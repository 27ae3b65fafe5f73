/* SPDX-License-Identifier: Apache-2.0 */
/* cgroup.c - see cgroup.h.
 *
 * /proc/self/cgroup has one line per hierarchy, "id:controllers:path"; id 0 is version 2.  Every ancestor may set a
 * limit, so the walk goes up to the mount point.  Inside a container the path names directories that are not visible;
 * the mount point itself is then the container's group.
 */
#include "base/cgroup.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#define GROUP_ROOT "/sys/fs/cgroup"

bool tp_cgroup_line(const char *dir, const char *name, char *line, int cap)
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

/* The smaller of two values, where there is any. */
static double lesser(double a, double b)
{
    return a < 0 || (b >= 0 && b < a) ? b : a;
}

/* Least value from mount/path up to mount. */
static double least_along(const char *mount, const char *path, bool v2, tp_cgroup_read read)
{
    char dir[PATH_MAX];
    size_t mount_len = strlen(mount);
    double least = -1;

    if (snprintf(dir, sizeof dir, "%s%s", mount, path) >= (int)sizeof dir)
        return -1;
    for (;;) {
        char *slash = strrchr(dir, '/');

        least = lesser(least, read(dir, v2));
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

double tp_cgroup_least(const char *controller, tp_cgroup_read read)
{
    char line[PATH_MAX + 64], mount[sizeof GROUP_ROOT + 32];
    double least = -1;
    FILE *f = fopen("/proc/self/cgroup", "re");

    (void)snprintf(mount, sizeof mount, GROUP_ROOT "/%s", controller);
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        char *list = strchr(line, ':');
        char *path = list != NULL ? strchr(list + 1, ':') : NULL;

        if (path == NULL)
            continue;
        *path++ = '\0';
        path[strcspn(path, "\n")] = '\0';
        list++;
        if (*list == '\0')
            least = lesser(least, least_along(GROUP_ROOT, path, true, read));
        else if (has_controller(list, controller))
            least = lesser(least, least_along(mount, path, false, read));
    }
    if (f != NULL)
        fclose(f);
    return least;
}
