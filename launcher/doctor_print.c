/* SPDX-License-Identifier: Apache-2.0 */
/* doctor_print.c - the checkup as text and as JSON. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "launcher/doctor.h"

#define GIB (1024.0 * 1024.0 * 1024.0)

/* "12.5 GiB", "no limit". */
static const char *size_text(int64_t bytes, char text[32])
{
    if (bytes == INT64_MAX)
        return "no limit";
    if (bytes < INT64_C(1) << 30)
        (void)snprintf(text, 32, "%.0f MiB", (double)bytes / (1024.0 * 1024.0));
    else
        (void)snprintf(text, 32, "%.1f GiB", (double)bytes / GIB);
    return text;
}

static void print_job(FILE *out, const launch_checkup *c)
{
    char mpi[128];

    comm_library(mpi, sizeof mpi);
    fprintf(out, "tpserve        %s\n", TPSERVE_VERSION);
    if (c->world.has_mpi)
        fprintf(out, "MPI            %s; launched as %d rank%s on %d host%s\n", mpi, c->world.size,
                c->world.size == 1 ? "" : "s", c->world.n_hosts, c->world.n_hosts == 1 ? "" : "s");
    else
        fprintf(out, "MPI            %s; not launched under it: one rank\n", mpi);
}

static void print_gpus(FILE *out, const launch_checkup *c)
{
    if (c->driver[0] != '\0')
        fprintf(out, "  driver       %s\n", c->driver);
    if (c->n_gpus == 0) {
        fprintf(out, "  GPUs         none%s%s\n", c->gpu_error[0] != '\0' ? ": " : "",
                c->gpu_error);
        return;
    }
    for (int i = 0; i < c->n_gpus; i++) {
        const kern_device_info *g = &c->gpus[i];

        fprintf(out, "  GPU %-2d       %s%s, %.1f of %.1f GiB free, compute %d.%d, %d SMs, %s\n", i,
                g->name, g->mig ? " (MIG)" : "", (double)g->memory_free / GIB,
                (double)g->memory_total / GIB, g->cc / 10, g->cc % 10, g->n_sm, g->pci);
        if (c->gpu_cores[i][0] != '\0')
            fprintf(out, "               near cores %s, NUMA node %d\n", c->gpu_cores[i],
                    c->gpu_numa[i]);
    }
    fprintf(out, "  CUDA         driver knows %d.%d, this program uses %d.%d\n",
            c->gpus[0].driver / 1000, c->gpus[0].driver % 1000 / 10, c->gpus[0].runtime / 1000,
            c->gpus[0].runtime % 1000 / 10);
    for (int i = 0; i < c->n_gpus && c->n_gpus > 1; i++) {
        fprintf(out, "  %-12s GPU %-2d", i == 0 ? "peer access" : "", i);
        for (int k = 0; k < c->n_gpus; k++)
            fprintf(out, " %s",
                    k == i                                              ? "."
                    : (c->gpus[i].peers >> c->gpus[k].ordinal & 1) != 0 ? "y"
                                                                        : "-");
        fputc('\n', out);
    }
}

static void print_host(FILE *out, const launch_checkup *c)
{
    char a[32], b[32], l[32], s[32], m[32];

    fprintf(out, "\nhost %s, %d rank%s\n", c->world.host, c->world.local_size,
            c->world.local_size == 1 ? "" : "s");
    fprintf(out, "  processor    %s\n", c->cpu);
    fprintf(
        out,
        "  cores        %d (%d hardware threads, %d NUMA node%s), %d usable; kernels for %s, AMX %s\n",
        c->cores, c->threads, c->numa_nodes, c->numa_nodes == 1 ? "" : "s", c->usable, c->isa,
        c->amx ? "yes" : "no");
    fprintf(out, "  memory       %s, %s available, container limit %s, lockable %s, /dev/shm %s\n",
            size_text(c->memory, a), size_text(c->available, b), size_text(c->cgroup_limit, l),
            size_text(c->memlock, m), size_text(c->shm, s));
    if (c->files == INT64_MAX)
        fprintf(out, "  open files   no limit\n");
    else
        fprintf(out, "  open files   %" PRId64 "\n", c->files);
    print_gpus(out, c);
}

static void print_measured(FILE *out, const launch_measured *m)
{
    fprintf(out, "\nmeasured on rank 0\n");
    fprintf(out, "  memory       %.1f GB/s read by all usable cores\n", m->memory_gbps);
    if (m->disk_gbps > 0)
        fprintf(out, "  model        %s: %.2f GB/s from disk%s, %.2f GB/s from the page cache\n",
                m->model, m->disk_gbps, m->direct ? "" : " (or from a cache)", m->cache_gbps);
    fprintf(out, "  port         %s%s\n",
            m->port_error[0] == '\0' ? "free" : "NOT free: ", m->port_error);
    if (m->n_sweep == 0)
        return;
    fprintf(out, "\nsums over the ranks\n%12s  %-10s %10s %12s\n", "bytes", "way", "us",
            "bus GB/s");
    for (int i = 0; i < m->n_sweep; i++)
        fprintf(out, "%12" PRId64 "  %-10s %10.1f %12.2f\n", m->sweep[i].bytes, m->sweep[i].way,
                m->sweep[i].us, m->sweep[i].bus_gbps);
}

void launch_print_checkup(FILE *out, const launch_checkup *ranks, int n_ranks,
                          const launch_measured *m, const launch_findings *f)
{
    print_job(out, &ranks[0]);
    for (int r = 0; r < n_ranks; r++)
        if (ranks[r].world.local_rank == 0)
            print_host(out, &ranks[r]);
    print_measured(out, m);
    fprintf(out, "\nwhat is wrong\n");
    for (int i = 0; i < f->n; i++)
        fprintf(out, "  %s %s\n", f->items[i].serious ? "ERROR " : "remark", f->items[i].what);
    if (f->n == 0)
        fprintf(out, "  nothing\n");
}

/* ---- JSON ---- */

static void put_limit(launch_json *j, const char *key, int64_t value)
{
    if (value == INT64_MAX)
        launch_json_text(j, key, NULL);
    else
        launch_json_int(j, key, value);
}

static void put_gpus(launch_json *j, const launch_checkup *c)
{
    launch_json_text(j, "driver", c->driver[0] != '\0' ? c->driver : NULL);
    launch_json_bool(j, "cuda_module", c->module);
    launch_json_text(j, "gpu_error", c->gpu_error[0] != '\0' ? c->gpu_error : NULL);
    launch_json_open(j, "gpus", '[');
    for (int i = 0; i < c->n_gpus; i++) {
        const kern_device_info *g = &c->gpus[i];

        launch_json_open(j, NULL, '{');
        launch_json_text(j, "name", g->name);
        launch_json_text(j, "uuid", g->uuid);
        launch_json_text(j, "pci", g->pci);
        launch_json_int(j, "compute_capability", g->cc);
        launch_json_int(j, "sms", g->n_sm);
        launch_json_int(j, "driver_cuda", g->driver);
        launch_json_int(j, "runtime_cuda", g->runtime);
        launch_json_int(j, "memory_total", g->memory_total);
        launch_json_int(j, "memory_free", g->memory_free);
        launch_json_bool(j, "mig", g->mig);
        launch_json_int(j, "numa_node", c->gpu_numa[i]);
        launch_json_text(j, "near_cores", c->gpu_cores[i]);
        launch_json_open(j, "peers", '[');
        for (int k = 0; k < c->n_gpus; k++)
            if (k != i && (g->peers >> c->gpus[k].ordinal & 1) != 0)
                launch_json_int(j, NULL, k);
        launch_json_close(j, ']');
        launch_json_close(j, '}');
    }
    launch_json_close(j, ']');
}

static void put_rank(launch_json *j, const launch_checkup *c)
{
    launch_json_open(j, NULL, '{');
    launch_json_int(j, "rank", c->world.rank);
    launch_json_text(j, "host", c->world.host);
    launch_json_int(j, "local_rank", c->world.local_rank);
    launch_json_int(j, "local_size", c->world.local_size);
    launch_json_text(j, "cpu", c->cpu);
    launch_json_text(j, "isa", c->isa);
    launch_json_bool(j, "amx", c->amx);
    launch_json_int(j, "cores", c->cores);
    launch_json_int(j, "hardware_threads", c->threads);
    launch_json_int(j, "numa_nodes", c->numa_nodes);
    launch_json_int(j, "usable_cores", c->usable);
    launch_json_int(j, "memory", c->memory);
    launch_json_int(j, "memory_available", c->available);
    put_limit(j, "cgroup_limit", c->cgroup_limit);
    put_limit(j, "memlock", c->memlock);
    launch_json_int(j, "shm", c->shm);
    launch_json_int(j, "shm_free", c->shm_free);
    put_limit(j, "open_files", c->files);
    put_gpus(j, c);
    launch_json_close(j, '}');
}

static void put_measured(launch_json *j, const launch_measured *m)
{
    launch_json_open(j, "measured", '{');
    launch_json_real(j, "memory_gbps", m->memory_gbps);
    launch_json_text(j, "model", m->model[0] != '\0' ? m->model : NULL);
    launch_json_real(j, "disk_gbps", m->disk_gbps);
    launch_json_real(j, "page_cache_gbps", m->cache_gbps);
    launch_json_bool(j, "disk_direct", m->direct);
    launch_json_bool(j, "port_free", m->port_error[0] == '\0');
    launch_json_open(j, "sums", '[');
    for (int i = 0; i < m->n_sweep; i++) {
        launch_json_open(j, NULL, '{');
        launch_json_int(j, "bytes", m->sweep[i].bytes);
        launch_json_text(j, "way", m->sweep[i].way);
        launch_json_real(j, "us", m->sweep[i].us);
        launch_json_real(j, "bus_gbps", m->sweep[i].bus_gbps);
        launch_json_close(j, '}');
    }
    launch_json_close(j, ']');
    launch_json_close(j, '}');
}

void launch_put_checkup(launch_json *j, const launch_checkup *ranks, int n_ranks,
                        const launch_measured *m, const launch_findings *f)
{
    char mpi[128];

    comm_library(mpi, sizeof mpi);
    launch_json_open(j, NULL, '{');
    launch_json_text(j, "version", TPSERVE_VERSION);
    launch_json_text(j, "mpi", mpi);
    launch_json_bool(j, "under_mpi", ranks[0].world.has_mpi);
    launch_json_int(j, "n_ranks", n_ranks);
    launch_json_int(j, "n_hosts", ranks[0].world.n_hosts);
    launch_json_open(j, "ranks", '[');
    for (int r = 0; r < n_ranks; r++)
        put_rank(j, &ranks[r]);
    launch_json_close(j, ']');
    put_measured(j, m);
    launch_json_open(j, "findings", '[');
    for (int i = 0; i < f->n; i++) {
        launch_json_open(j, NULL, '{');
        launch_json_bool(j, "serious", f->items[i].serious);
        launch_json_text(j, "what", f->items[i].what);
        launch_json_close(j, '}');
    }
    launch_json_close(j, ']');
    launch_json_close(j, '}');
}
