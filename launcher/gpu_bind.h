/* SPDX-License-Identifier: Apache-2.0 */
/* gpu_bind.h - which device each rank takes.
 *
 * Devices are counted as the driver shows them to a process, after CUDA_VISIBLE_DEVICES (ordinals, GPU or MIG UUIDs).
 * Rank i of a host takes device i; where the job manager shows every rank one device of its own, rank i takes that one.
 */
#ifndef LAUNCH_GPU_BIND_H
#define LAUNCH_GPU_BIND_H

#include "comm/comm.h"
#include "kernels/module.h"
#include "launcher/options.h"

#define LAUNCH_GPUS_MAX 16

/* What one rank sees; plain data, gathered over the job. */
typedef struct launch_gpu_seat {
    char host[64];
    int local_rank, local_size;
    int n; /* devices */
    char names[LAUNCH_GPUS_MAX][64], uuids[LAUNCH_GPUS_MAX][64];
    char why[256]; /* n is 0: what the module or the driver said */
} launch_gpu_seat;

/* ordinals [n_ranks].  Errors (text kept): DEVICE: a host has too few, INVALID: models differ.  Pure. */
TP_MUST_USE tp_status launch_assign_gpus(int *ordinals, const launch_gpu_seat *seats, int n_ranks,
                                         bool allow_mixed);

/* The device of this rank, settled with all others: "cuda" or "cpu" for --device auto, what was asked for else.
 * Collective over the world.  Failures are logged where they belong: once per job. */
typedef struct launch_device {
    const char *kind; /* "cuda", "emu", "cpu", "ref", "null" */
    const kern_ops *ops;
    const void *reducers; /* of its module; NULL: none */
    int ordinal;
    char name[128], pci[32]; /* of a GPU; else empty */
} launch_device;

TP_MUST_USE tp_status launch_choose_device(launch_device *out, const launch_options *opt,
                                           const comm_world *world);

#endif
