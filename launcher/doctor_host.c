/* SPDX-License-Identifier: Apache-2.0 */
/* doctor_host.c - facts about a host, from /proc, the system's limits, hwloc and the CUDA module. */
#include <hwloc.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/cores.h"
#include "base/memory_limit.h"
#include "launcher/bind.h"
#include "launcher/doctor.h"

/* First line of a file that begins with `key`, what follows the key and any of ":\t "; false when there is none. */
static bool find_line(const char *path, const char *key, char *out, size_t cap)
{
    FILE *f = fopen(path, "re");
    char line[4096];
    bool found = false;

    while (f != NULL && !found && fgets(line, sizeof line, f) != NULL) {
        const char *value = line + strlen(key);

        if (strncmp(line, key, strlen(key)) != 0)
            continue;
        value += strspn(value, ":\t ");
        (void)snprintf(out, cap, "%.*s", (int)strcspn(value, "\n"), value);
        found = true;
    }
    if (f != NULL)
        (void)fclose(f);
    return found;
}

static int64_t meminfo(const char *key)
{
    char text[64];

    return find_line("/proc/meminfo", key, text, sizeof text) ? strtoll(text, NULL, 10) * 1024 : 0;
}

/* Whole words of the "flags" line of /proc/cpuinfo. */
static bool has_flag(const char *flags, const char *word)
{
    size_t n = strlen(word);

    for (const char *s = strstr(flags, word); s != NULL; s = strstr(s + 1, word))
        if ((s == flags || s[-1] == ' ') && (s[n] == ' ' || s[n] == '\0'))
            return true;
    return false;
}

static void check_processor(launch_checkup *c)
{
    kern_open_args args = {.n_threads = 1, .isa = getenv("TPSERVE_CPU_ISA")};
    hwloc_topology_t t = NULL;
    kern_backend *be = NULL;
    char flags[4096];

    if (!find_line("/proc/cpuinfo", "model name", c->cpu, sizeof c->cpu))
        (void)snprintf(c->cpu, sizeof c->cpu, "unknown");
    c->amx = find_line("/proc/cpuinfo", "flags", flags, sizeof flags) &&
             has_flag(flags, "amx_tile") && kern_cpu_ops()->isa_supported("amx");
    if (args.isa != NULL && *args.isa == '\0')
        args.isa = NULL;
    if (kern_cpu_ops()->open(&be, &args) == TP_OK) {
        (void)snprintf(c->isa, sizeof c->isa, "%s", be->isa);
        be->ops->close(be);
    }
    if (hwloc_topology_init(&t) == 0 && hwloc_topology_load(t) == 0) {
        c->cores = hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_CORE);
        c->threads = hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_PU);
        c->numa_nodes = hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_NUMANODE);
    }
    if (t != NULL)
        hwloc_topology_destroy(t);
    c->usable = launch_usable_cores();
    c->quota = tp_cores_quota();
}

static int64_t limit_of(int what, bool hard)
{
    struct rlimit r;
    rlim_t v;

    if (getrlimit(what, &r) != 0)
        return 0;
    v = hard ? r.rlim_max : r.rlim_cur;
    return v == RLIM_INFINITY || v > (rlim_t)INT64_MAX ? INT64_MAX : (int64_t)v;
}

static void check_memory(launch_checkup *c)
{
    struct statvfs fs;

    c->memory = meminfo("MemTotal");
    c->available = tp_memory_available();
    c->cgroup_limit = tp_memory_limit();
    c->memlock = limit_of(RLIMIT_MEMLOCK, false);
    c->files = limit_of(RLIMIT_NOFILE, false);
    c->files_max = limit_of(RLIMIT_NOFILE, true);
    if (statvfs("/dev/shm", &fs) == 0) {
        c->shm = (int64_t)(fs.f_blocks * fs.f_frsize);
        c->shm_free = (int64_t)(fs.f_bavail * fs.f_frsize);
    }
}

static void check_gpus(launch_checkup *c)
{
    const kern_ops *ops;

    (void)find_line("/proc/driver/nvidia/version", "NVRM version", c->driver, sizeof c->driver);
    c->module = kern_module_open("cuda", &ops, NULL) == TP_OK;
    if (!c->module || kern_module_devices("cuda", c->gpus, LAUNCH_GPUS_MAX, &c->n_gpus) != TP_OK) {
        c->n_gpus = 0;
        (void)snprintf(c->gpu_error, sizeof c->gpu_error, "%s", tp_last_error());
    }
    for (int i = 0; i < c->n_gpus; i++)
        if (!launch_near_device(c->gpus[i].pci, c->gpu_cores[i], sizeof c->gpu_cores[i],
                                &c->gpu_numa[i]))
            c->gpu_numa[i] = -1;
}

void launch_check_host(launch_checkup *c, const comm_world *world)
{
    memset(c, 0, sizeof *c);
    c->world = *world;
    check_processor(c);
    check_memory(c);
    check_gpus(c);
}
