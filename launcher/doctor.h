/* SPDX-License-Identifier: Apache-2.0 */
/* doctor.h - parts of `tpserve doctor`: what one rank finds, what is measured, and what of it is wrong.
 * Threads: main. */
#ifndef LAUNCH_DOCTOR_H
#define LAUNCH_DOCTOR_H

#include "comm/comm.h"
#include "comm/reduce_bench.h"
#include "kernels/module.h"
#include "launcher/gpu_bind.h"
#include "launcher/json_out.h"
#include "launcher/options.h"

#define LAUNCH_SWEEP_MAX    128
#define LAUNCH_FINDINGS_MAX 32

/* What one rank found; plain data, gathered over the job.  Bytes; 0 = unknown or none, INT64_MAX = no limit. */
typedef struct launch_checkup {
    comm_world world;
    /* processor */
    char cpu[96], isa[16];
    int cores, threads, numa_nodes; /* of the host */
    int usable;                     /* cores that the job may use here */
    double quota;                   /* CPUs of the control group; 0 = none */
    bool amx;                       /* the processor has it, and the kernel lets us use it */
    /* memory */
    int64_t memory, available, cgroup_limit, memlock, shm, shm_free;
    int64_t files, files_max; /* open files: soft and hard limit */
    /* GPUs */
    char driver[128]; /* /proc/driver/nvidia/version; "" = no driver */
    bool module;      /* the CUDA module could be opened */
    char gpu_error[256];
    int n_gpus;
    kern_device_info gpus[LAUNCH_GPUS_MAX];
    char gpu_cores[LAUNCH_GPUS_MAX][32]; /* cores near each; "" = all alike */
    int gpu_numa[LAUNCH_GPUS_MAX];
} launch_checkup;

void launch_check_host(launch_checkup *c, const comm_world *world);

/* What rank 0 measured. */
typedef struct launch_measured {
    double memory_gbps;           /* reading, all usable cores */
    char model[256];              /* directory; "" = none was given */
    char model_error[256];        /* it was given, and not found or not readable */
    double disk_gbps, cache_gbps; /* of its largest file; 0 = not measured */
    int64_t disk_bytes;           /* that were read for it */
    bool direct;                  /* past the page cache for certain */
    char port_error[128];         /* "" = the port is free */
    char key_error[256];          /* "" = there is a key where one is needed */
    char sweep_error[256];        /* "" = none; the sums of all ranks */
    comm_bench_row sweep[LAUNCH_SWEEP_MAX];
    int n_sweep;
} launch_measured;

double launch_memory_gbps(int n_threads);
/* Largest file of the directory: up to 1 GiB or 3 s of it. */
void launch_measure_disk(launch_measured *m, const char *dir);
void launch_check_port(launch_measured *m, const char *host, int port);

/* ---- what is wrong ---- */
typedef struct launch_finding {
    bool serious; /* it will not work, or not as asked; else: it could be better */
    char what[512];
} launch_finding;

typedef struct launch_findings {
    launch_finding items[LAUNCH_FINDINGS_MAX];
    int n;
} launch_findings;

/* Pure: from what the ranks found and rank 0 measured. */
void launch_judge(launch_findings *out, const launch_checkup *ranks, int n_ranks,
                  const launch_measured *m, const char *device);

/* ---- answers ---- */
void launch_print_checkup(FILE *out, const launch_checkup *ranks, int n_ranks,
                          const launch_measured *m, const launch_findings *f);
void launch_put_checkup(launch_json *j, const launch_checkup *ranks, int n_ranks,
                        const launch_measured *m, const launch_findings *f);

/* All-reduces of the job, on the device that --device chooses or on CPUs; collective.  Errors are said. */
TP_MUST_USE tp_status launch_sweep(const launch_options *opt, const comm_world *world,
                                   const comm_bench_options *bench,
                                   void (*row)(void *arg, const comm_bench_row *row), void *arg);

#endif
