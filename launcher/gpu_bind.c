/* SPDX-License-Identifier: Apache-2.0 */
/* gpu_bind.c - see gpu_bind.h.
 *
 * The ranks show each other what they see through a small group and come to the same answer, so that a job never starts
 * with some ranks on GPUs and others on CPUs, and a mistake is said once, with the ranks and devices that it concerns.
 */
#include "launcher/gpu_bind.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"
#include "launcher/ranks.h"

static bool same_host(const launch_gpu_seat *a, const launch_gpu_seat *b)
{
    return strcmp(a->host, b->host) == 0;
}

/* Every rank of the host sees exactly one device, and no two the same: the job manager has dealt them out. */
static bool dealt_out(const launch_gpu_seat *seats, int n_ranks, const launch_gpu_seat *mine)
{
    for (int r = 0; r < n_ranks; r++) {
        if (!same_host(&seats[r], mine))
            continue;
        if (seats[r].n != 1)
            return false;
        for (int q = 0; q < r; q++)
            if (same_host(&seats[q], mine) && strcmp(seats[q].uuids[0], seats[r].uuids[0]) == 0)
                return false;
    }
    return true;
}

static tp_status too_few(const launch_gpu_seat *s)
{
    tp_buf list;
    tp_status st;

    if (s->n == 0)
        return TP_REJECT(TP_ERR_DEVICE, "host %s has no usable GPU: %s", s->host, s->why);
    tp_buf_init(&list, 4096);
    for (int i = 0; i < s->n; i++)
        tp_buf_printf(&list, "%s%d = %s (%s)", i > 0 ? ", " : "", i, s->names[i], s->uuids[i]);
    st = TP_REJECT(
        TP_ERR_DEVICE,
        "host %s runs %d ranks but shows them %d GPU%s: %s; local ranks from %d on have none. "
        "Start at most %d per host, or show more devices (CUDA_VISIBLE_DEVICES, or the "
        "job's GPU request)",
        s->host, s->local_size, s->n, s->n == 1 ? "" : "s", tp_buf_str(&list), s->n, s->n);
    tp_buf_release(&list);
    return st;
}

tp_status launch_assign_gpus(int *ordinals, const launch_gpu_seat *seats, int n_ranks,
                             bool allow_mixed)
{
    for (int r = 0; r < n_ranks; r++) {
        const launch_gpu_seat *s = &seats[r];

        if (s->n >= s->local_size)
            ordinals[r] = s->local_rank;
        else if (dealt_out(seats, n_ranks, s))
            ordinals[r] = 0;
        else
            return too_few(s);
    }
    for (int r = 1; r < n_ranks && !allow_mixed; r++) {
        const char *first = seats[0].names[ordinals[0]], *name = seats[r].names[ordinals[r]];

        if (strcmp(first, name) != 0)
            return TP_REJECT(
                TP_ERR_INVALID,
                "the GPUs differ: rank 0 on %s has %s, rank %d on %s has %s. Every step would "
                "wait for the slowest and the smallest memory counts: choose like devices, or "
                "give --allow-mixed-gpus",
                seats[0].host, first, r, seats[r].host, name);
    }
    return TP_OK;
}

/* ---- what this rank sees ---- */

static void look(launch_gpu_seat *s, kern_device_info *devices, const comm_world *world)
{
    const kern_ops *ops;

    memset(s, 0, sizeof *s);
    (void)snprintf(s->host, sizeof s->host, "%s", world->host);
    s->local_rank = world->local_rank;
    s->local_size = world->local_size;
    if (kern_module_open("cuda", &ops, NULL) != TP_OK ||
        kern_module_devices("cuda", devices, LAUNCH_GPUS_MAX, &s->n) != TP_OK) {
        s->n = 0;
        (void)snprintf(s->why, sizeof s->why, "%s", tp_last_error());
        return;
    }
    if (s->n == 0)
        (void)snprintf(s->why, sizeof s->why,
                       "the driver works but shows no device: see CUDA_VISIBLE_DEVICES");
    for (int i = 0; i < s->n; i++) {
        (void)snprintf(s->names[i], sizeof s->names[i], "%.63s", devices[i].name);
        (void)snprintf(s->uuids[i], sizeof s->uuids[i], "%.63s", devices[i].uuid);
    }
}

/* ---- the choice ---- */

static bool all_have_gpus(const launch_gpu_seat *seats, int n, int *lacking)
{
    for (int r = 0; r < n; r++) {
        if (seats[r].n == 0) {
            *lacking = r;
            return false;
        }
    }
    return true;
}

/* A host with a driver was meant to use it; one without is no news. */
static void tell_fallback(const launch_gpu_seat *s)
{
    if (access("/proc/driver/nvidia/version", F_OK) == 0)
        tp_warn("launcher", "computing on CPUs, as host %s has no usable GPU: %s", s->host, s->why);
    else
        tp_debug("launcher", "no GPU on %s: %s", s->host, s->why);
}

static tp_status choose_gpu(launch_device *out, const launch_options *opt, const comm_world *world)
{
    bool must = strcmp(opt->device, "cuda") == 0;
    kern_device_info *devices = tp_calloc(LAUNCH_GPUS_MAX, sizeof *devices);
    launch_gpu_seat *seats = tp_calloc((size_t)world->size + 1, sizeof *seats);
    launch_gpu_seat *mine = seats != NULL ? &seats[world->size] : NULL;
    int ordinals[TP_SEG_MAX], lacking = 0;
    tp_status st = TP_OK;

    if (devices == NULL || seats == NULL || world->size > TP_SEG_MAX)
        st = TP_FAIL(TP_ERR_NOMEM, "cannot gather the devices of %d ranks", world->size);
    if (st == TP_OK) {
        look(mine, devices, world);
        st = launch_gather(seats, mine, sizeof *mine, world);
    }
    if (st == TP_OK && !must && !all_have_gpus(seats, world->size, &lacking)) {
        if (world->rank == 0)
            tell_fallback(&seats[lacking]);
        out->kind = "cpu";
        out->ops = kern_cpu_ops();
    } else if (st == TP_OK) {
        st = launch_assign_gpus(ordinals, seats, world->size, opt->allow_mixed_gpus);
        if (st != TP_OK && world->rank == 0)
            tp_error("launcher", "%s", tp_last_error());
        if (st == TP_OK) {
            out->kind = "cuda";
            out->ordinal = ordinals[world->rank];
            (void)snprintf(out->name, sizeof out->name, "%s", devices[out->ordinal].name);
            (void)snprintf(out->pci, sizeof out->pci, "%s", devices[out->ordinal].pci);
            st = kern_module_open("cuda", &out->ops, &out->reducers);
        }
    }
    tp_free(seats);
    tp_free(devices);
    return st;
}

/* Ways that only devices have. */
static tp_status check_comm(const launch_device *d, const launch_options *opt,
                            const comm_world *world)
{
    bool needs_device = strcmp(opt->comm, "nccl") == 0 || strcmp(opt->comm, "p2p") == 0;

    if (!needs_device || strcmp(d->kind, "cuda") == 0 || strcmp(d->kind, "emu") == 0)
        return TP_OK;
    return world->rank != 0
               ? TP_ERR_INVALID
               : TP_FAIL(TP_ERR_INVALID,
                         "--comm %s joins GPUs, but the ranks compute on \"%s\": expected "
                         "auto, shm or mpi",
                         opt->comm, d->kind);
}

/* Emulated devices are dealt out like real ones; more ranks than devices share. */
static tp_status open_emu(launch_device *d, const comm_world *world)
{
    kern_device_info devices[LAUNCH_GPUS_MAX];
    int n;

    TP_TRY(kern_module_open("emu", &d->ops, &d->reducers));
    TP_TRY(kern_module_devices("emu", devices, LAUNCH_GPUS_MAX, &n));
    d->ordinal = n > 0 ? world->local_rank % n : 0;
    if (n > 0)
        (void)snprintf(d->name, sizeof d->name, "%s", devices[d->ordinal].name);
    return TP_OK;
}

tp_status launch_choose_device(launch_device *out, const launch_options *opt,
                               const comm_world *world)
{
    launch_device d = {.kind = opt->device};

    if (strcmp(opt->device, "ref") == 0) {
        d.ops = kern_ref_ops();
    } else if (strcmp(opt->device, "cpu") == 0) {
        d.ops = kern_cpu_ops();
    } else if (strcmp(opt->device, "null") == 0) {
        d.ops = kern_null_ops();
    } else if (strcmp(opt->device, "emu") == 0) {
        tp_status st = open_emu(&d, world);

        if (st != TP_OK)
            return TP_FAIL(st, "%s", tp_last_error());
    } else {
        TP_TRY(choose_gpu(&d, opt, world));
    }
    TP_TRY(check_comm(&d, opt, world));
    *out = d;
    return TP_OK;
}
