/* SPDX-License-Identifier: Apache-2.0 */
/* sweep.c - all-reduces of the job as the engine would make them: with the device that --device chooses, or between CPUs.
 * Also `tpserve bench --comm`, which prints them and writes the table that ranks choose by. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "comm/device.h"
#include "launcher/bench.h"
#include "launcher/doctor.h"
#include "launcher/serve.h"
#include "runtime/startup.h"

#define PLAN_BYTES       4096
#define TIMEOUT_MS       30000
#define DEVICE_BYTES_MAX (INT64_C(64) << 20)
#define CPU_BYTES_MAX    (INT64_C(4) << 20)
#define EMU_BYTES_MAX    (INT64_C(64) << 10) /* its times mean nothing */
#define ROOTS_OF_A_RANK  2                   /* windows hold the roots of an uneven split */

/* be NULL: between CPUs. */
static tp_status create_group(comm_group **out, const launch_options *opt, const comm_world *world,
                              const launch_device *device, kern_backend *be, int64_t bytes_max)
{
    comm_options co = {.kind = be != NULL ? comm_host_kind(opt->comm) : opt->comm,
                       .window_bytes = (size_t)bytes_max * (be != NULL ? 1 : ROOTS_OF_A_RANK),
                       .plan_bytes_max = PLAN_BYTES,
                       .timeout_ms = TIMEOUT_MS};
    comm_group *g;
    tp_status st;

    TP_TRY(comm_group_create(&g, world, &co));
    st = be != NULL ? rt_attach_device(g, be, opt->comm, device->reducers) : TP_OK;
    if (st != TP_OK) {
        comm_group_destroy(g);
        return st;
    }
    *out = g;
    return TP_OK;
}

/* Largest sum that is worth a look. */
static int64_t bytes_max(const char *kind)
{
    if (strcmp(kind, "emu") == 0)
        return EMU_BYTES_MAX;
    return strcmp(kind, "cuda") == 0 ? DEVICE_BYTES_MAX : CPU_BYTES_MAX;
}

tp_status launch_sweep(const launch_options *opt, const comm_world *world,
                       const comm_bench_options *bench,
                       void (*row)(void *arg, const comm_bench_row *row), void *arg)
{
    comm_bench_options o = *bench;
    launch_device device = {0};
    kern_backend *be = NULL;
    comm_group *g = NULL;
    bool on_device;
    tp_status st;

    TP_TRY(launch_choose_device(&device, opt, world));
    on_device = strcmp(device.kind, "cuda") == 0 || strcmp(device.kind, "emu") == 0;
    if (o.bytes_max == 0)
        o.bytes_max = bytes_max(device.kind);
    o.device_name = device.name[0] != '\0' ? device.name : device.kind;
    st = on_device
             ? device.ops->open(&be, &(kern_open_args){.n_threads = 1, .device = device.ordinal})
             : TP_OK;
    if (st == TP_OK)
        st = create_group(&g, opt, world, &device, be, o.bytes_max);
    if (st == TP_OK)
        st = comm_bench_reduce(g, &o, row, arg);
    comm_group_destroy(g);
    if (be != NULL)
        be->ops->close(be);
    return st;
}

/* ---- bench --comm ---- */

static void print_row(void *arg, const comm_bench_row *r)
{
    launch_json *j = arg;

    if (j == NULL) {
        printf("%10" PRId64 "  %-10s %10.1f %12.2f\n", r->bytes, r->way, r->us, r->bus_gbps);
        (void)fflush(stdout);
        return;
    }
    launch_json_open(j, NULL, '{');
    launch_json_int(j, "bytes", r->bytes);
    launch_json_text(j, "way", r->way);
    launch_json_real(j, "us", r->us);
    launch_json_real(j, "bus_gbps", r->bus_gbps);
    launch_json_close(j, '}');
}

int launch_bench_comm(const launch_options *opt)
{
    comm_bench_options o = {.table_path = opt->output};
    launch_json j;
    comm_world world;
    tp_status st;

    if (comm_init(&world) != TP_OK)
        return 1;
    tp_log_set_rank(world.rank, world.size);
    launch_json_init(&j);
    launch_json_open(&j, NULL, '{');
    launch_json_int(&j, "ranks", world.size);
    launch_json_open(&j, "sums", '[');
    if (world.size < 2)
        st = TP_FAIL(
            TP_ERR_INVALID,
            "bench --comm measures sums over ranks, and there is one rank: mpirun -np 2 tpserve "
            "bench --comm, or --tensor-parallel-size 2");
    else {
        if (world.rank == 0 && !opt->json)
            printf("sums over %d ranks on %d host%s\n%10s  %-10s %10s %12s\n", world.size,
                   world.n_hosts, world.n_hosts == 1 ? "" : "s", "bytes", "way", "us", "bus GB/s");
        st = launch_sweep(opt, &world, &o, print_row, opt->json ? &j : NULL);
    }
    launch_json_close(&j, ']');
    launch_json_close(&j, '}');
    if (st == TP_OK && opt->json && world.rank == 0 && !launch_json_print(&j, stdout))
        st = TP_ERR_NOMEM;
    tp_buf_release(&j.text);
    if (st == TP_OK && world.rank == 0 && opt->output != NULL)
        tp_info("bench", "wrote %s", opt->output);
    comm_finalize();
    return st == TP_OK ? 0 : 1;
}
