/* SPDX-License-Identifier: Apache-2.0 */
/* doctor_judge.c - what is wrong, in plain words, each with what to do.  One rule per function; the ranks of a host agree
 * on most of it, so rules about hosts look at local rank 0. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "launcher/doctor.h"

#define GIB            (INT64_C(1) << 30)
#define MIB            (INT64_C(1) << 20)
#define FILES_ENOUGH   4096
#define DISK_SLOW_GBPS 0.5
#define DISK_ENOUGH    (64 * MIB) /* less says little */
#define OLDEST_CC      80

static void TP_PRINTF(3, 4) find(launch_findings *f, bool serious, const char *fmt, ...)
{
    va_list ap;

    if (f->n == LAUNCH_FINDINGS_MAX)
        return;
    f->items[f->n].serious = serious;
    va_start(ap, fmt);
    (void)vsnprintf(f->items[f->n].what, sizeof f->items[f->n].what, fmt, ap);
    va_end(ap);
    for (int i = 0; i < f->n; i++)
        if (strcmp(f->items[i].what, f->items[f->n].what) == 0)
            return; /* said for another rank already */
    f->n++;
}

static void judge_memory(launch_findings *f, const launch_checkup *c)
{
    int64_t least = c->cgroup_limit < c->available ? c->cgroup_limit : c->available;

    if (c->memory > 0 && least < GIB)
        find(
            f, true,
            "%s: only %.1f GiB of memory can be had; end other programs or raise the container's limit",
            c->world.host, (double)least / GIB);
    if (c->shm < 64 * MIB)
        find(
            f, c->shm_free < 8 * MIB,
            "%s: /dev/shm has %.0f MiB (%.0f free); MPI and NCCL keep segments there: docker --shm-size=1g, or in "
            "Kubernetes an emptyDir with medium Memory",
            c->world.host, (double)c->shm / MIB, (double)c->shm_free / MIB);
    if (c->files > 0 && c->files < FILES_ENOUGH)
        find(f, false,
             "%s: a process may open %" PRId64
             " files, so fewer clients can be connected; ulimit -n %" PRId64,
             c->world.host, c->files, c->files_max < 65536 ? c->files_max : 65536);
}

static void judge_cores(launch_findings *f, const launch_checkup *c)
{
    if (c->world.local_size > c->usable)
        find(f, false,
             "%s: %d ranks share %d core%s; start fewer, or expect them to wait for each other",
             c->world.host, c->world.local_size, c->usable, c->usable == 1 ? "" : "s");
    if (c->quota > 0 && c->quota < c->cores)
        find(f, false, "%s: the container may use %.1f of %d cores", c->world.host, c->quota,
             c->cores);
    if (strcmp(c->isa, "generic") == 0)
        find(f, false,
             "%s: the processor has no AVX2 (or it was switched off): CPU ranks are very slow",
             c->world.host);
}

/* Which sentence fits when there are no GPUs. */
static void judge_no_gpu(launch_findings *f, const launch_checkup *c, const char *device)
{
    bool wanted = strcmp(device, "cuda") == 0;

    if (c->driver[0] != '\0' && !c->module)
        find(f, true, "%s: there is a GPU driver, but this program has no CUDA module: %s",
             c->world.host, c->gpu_error);
    else if (c->driver[0] != '\0' && c->gpu_error[0] != '\0')
        find(f, true, "%s: there is a GPU driver, but no GPU can be used: %s", c->world.host,
             c->gpu_error);
    else if (c->driver[0] != '\0')
        find(
            f, true,
            "%s: the driver shows no GPU to this process; see CUDA_VISIBLE_DEVICES, or how the container was started "
            "(docker --gpus all)",
            c->world.host);
    else if (wanted)
        find(f, true, "%s: --device cuda, but no GPU can be used: %s", c->world.host,
             c->gpu_error[0] != '\0' ? c->gpu_error : "there is no driver");
}

static void judge_gpu(launch_findings *f, const launch_checkup *c, const kern_device_info *g)
{
    if (g->cc < OLDEST_CC)
        find(f, true,
             "%s: GPU %d (%s) is of compute capability %d.%d; %d.%d and newer are supported",
             c->world.host, g->ordinal, g->name, g->cc / 10, g->cc % 10, OLDEST_CC / 10,
             OLDEST_CC % 10);
    if (g->driver > 0 && g->driver / 1000 < g->runtime / 1000)
        find(
            f, true,
            "%s: the driver is too old: it knows CUDA %d.%d, this program uses %d.%d; update the driver",
            c->world.host, g->driver / 1000, g->driver % 1000 / 10, g->runtime / 1000,
            g->runtime % 1000 / 10);
    if (g->memory_free < g->memory_total / 10 * 9)
        find(f, false, "%s: GPU %d has %.1f of %.1f GiB free; another program uses it",
             c->world.host, g->ordinal, (double)g->memory_free / GIB,
             (double)g->memory_total / GIB);
}

static void judge_peers(launch_findings *f, const launch_checkup *c)
{
    for (int i = 0; i < c->n_gpus; i++) {
        for (int k = 0; k < c->n_gpus; k++) {
            if (k == i || (c->gpus[i].peers >> c->gpus[k].ordinal & 1) != 0)
                continue;
            find(
                f, false,
                "%s: GPU %d cannot reach the memory of GPU %d%s: sums between them go through the host, which is several "
                "times slower; see nvidia-smi topo -m, and IOMMU or container settings",
                c->world.host, i, k, c->gpus[i].mig ? " (MIG instances never can)" : "");
            return;
        }
    }
}

static void judge_assignment(launch_findings *f, const launch_checkup *ranks, int n_ranks)
{
    static launch_gpu_seat seats[TP_SEG_MAX]; /* main thread only; too large for a stack */
    int ordinals[TP_SEG_MAX], with = 0;

    if (n_ranks > TP_SEG_MAX)
        return;
    for (int r = 0; r < n_ranks; r++) {
        launch_gpu_seat *s = &seats[r];

        memset(s, 0, sizeof *s);
        (void)snprintf(s->host, sizeof s->host, "%s", ranks[r].world.host);
        s->local_rank = ranks[r].world.local_rank;
        s->local_size = ranks[r].world.local_size;
        s->n = ranks[r].n_gpus;
        (void)snprintf(s->why, sizeof s->why, "%s", ranks[r].gpu_error);
        for (int i = 0; i < s->n; i++) {
            (void)snprintf(s->names[i], sizeof s->names[i], "%.63s", ranks[r].gpus[i].name);
            (void)snprintf(s->uuids[i], sizeof s->uuids[i], "%.63s", ranks[r].gpus[i].uuid);
        }
        with += s->n > 0;
    }
    if (with > 0 && launch_assign_gpus(ordinals, seats, n_ranks, false) != TP_OK)
        find(f, true, "%s", tp_last_error());
}

static void judge_ranks(launch_findings *f, const launch_checkup *ranks, int n_ranks)
{
    for (int r = 1; r < n_ranks; r++) {
        if (strcmp(ranks[r].isa, ranks[0].isa) != 0)
            find(
                f, false,
                "rank 0 on %s computes with %s and rank %d on %s with %s: results depend on which rank computes them, and "
                "the slowest decides; TPSERVE_CPU_ISA=%s on all makes them alike",
                ranks[0].world.host, ranks[0].isa, r, ranks[r].world.host, ranks[r].isa,
                strcmp(ranks[0].isa, "avx2") == 0 ? "avx2" : ranks[r].isa);
    }
}

static void judge_measured(launch_findings *f, const launch_measured *m)
{
    if (m->port_error[0] != '\0')
        find(f, true, "cannot listen on %s; end what uses it, or choose another --port",
             m->port_error);
    if (m->key_error[0] != '\0')
        find(f, true, "%s", m->key_error);
    if (m->model_error[0] != '\0')
        find(f, true, "%s", m->model_error);
    if (m->disk_bytes >= DISK_ENOUGH && m->disk_gbps < DISK_SLOW_GBPS)
        find(
            f, false,
            "the model's disk gives %.2f GB/s: 100 GB take %.0f minutes to load; a local NVMe disk is faster",
            m->disk_gbps, 100 / m->disk_gbps / 60);
    if (m->sweep_error[0] != '\0')
        find(f, true, "sums over the ranks do not work: %s", m->sweep_error);
}

void launch_judge(launch_findings *out, const launch_checkup *ranks, int n_ranks,
                  const launch_measured *m, const char *device)
{
    out->n = 0;
    for (int r = 0; r < n_ranks; r++) {
        const launch_checkup *c = &ranks[r];

        if (c->world.local_rank != 0)
            continue;
        judge_memory(out, c);
        judge_cores(out, c);
        if (strcmp(device, "cuda") != 0 && strcmp(device, "auto") != 0)
            continue;
        if (c->n_gpus == 0)
            judge_no_gpu(out, c, device);
        for (int i = 0; i < c->n_gpus; i++)
            judge_gpu(out, c, &c->gpus[i]);
        judge_peers(out, c);
    }
    if (strcmp(device, "auto") == 0 || strcmp(device, "cuda") == 0)
        judge_assignment(out, ranks, n_ranks);
    judge_ranks(out, ranks, n_ranks);
    judge_measured(out, m);
}
