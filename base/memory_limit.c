/* SPDX-License-Identifier: Apache-2.0 */
/* memory_limit.c - see memory_limit.h.
 *
 * Version 2 of the control groups keeps limit and use in memory.max ("max": none) and memory.current, version 1 in
 * memory.limit_in_bytes (nearly 2^63: none) and memory.usage_in_bytes.  Both count files in the page cache as used; those
 * that were not touched for a while (memory.stat) are given up when memory is asked for, so they are room.  A checkpoint
 * that has just been read may be most of it.
 */
#include "base/memory_limit.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/cgroup.h"

#define NO_LIMIT 0x1p53 /* bytes; all below are exact as doubles */

static double bytes_in(const char *dir, const char *name)
{
    char line[64];
    double bytes;

    return tp_cgroup_line(dir, name, line, sizeof line) && sscanf(line, "%lf", &bytes) == 1 ? bytes
                                                                                            : -1;
}

/* Limit of one directory. */
static double limit_of(const char *dir, bool v2)
{
    double limit = bytes_in(dir, v2 ? "memory.max" : "memory.limit_in_bytes");

    return limit < NO_LIMIT ? limit : -1;
}

/* A line "name bytes" of memory.stat; 0 when there is none. */
static double stat_in(const char *dir, const char *name)
{
    char path[4096], line[128], key[64];
    double bytes, found = 0;
    FILE *f;

    if (snprintf(path, sizeof path, "%s/memory.stat", dir) >= (int)sizeof path)
        return 0;
    f = fopen(path, "re");
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "%63s %lf", key, &bytes) == 2 && strcmp(key, name) == 0)
            found = bytes;
    if (f != NULL)
        fclose(f);
    return found;
}

/* What one directory's limit leaves; a limit whose use nobody tells counts whole. */
static double room_of(const char *dir, bool v2)
{
    double limit = limit_of(dir, v2), kept;
    double used = bytes_in(dir, v2 ? "memory.current" : "memory.usage_in_bytes");

    if (limit < 0 || used < 0)
        return limit;
    kept = used - stat_in(dir, v2 ? "inactive_file" : "total_inactive_file");
    return kept <= 0 ? limit : kept < limit ? limit - kept : 0;
}

int64_t tp_memory_limit(void)
{
    double limit = tp_cgroup_least("memory", limit_of);

    return limit >= 0 ? (int64_t)limit : INT64_MAX;
}

int64_t tp_memory_available(void)
{
    int64_t available = INT64_MAX, kib;
    double room = tp_cgroup_least("memory", room_of);
    FILE *f = fopen("/proc/meminfo", "re");
    char line[128];

    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "MemAvailable: %" SCNd64, &kib) == 1)
            available = kib * 1024;
    if (f != NULL)
        fclose(f);
    return room >= 0 && room < (double)available ? (int64_t)room : available;
}
