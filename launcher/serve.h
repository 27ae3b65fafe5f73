/* SPDX-License-Identifier: Apache-2.0 */
/* serve.h - the commands, from their options to their exit codes. */
#ifndef LAUNCH_SERVE_H
#define LAUNCH_SERVE_H

#include "launcher/gpu_bind.h"
#include "launcher/options.h"
#include "runtime/engine.h"

#define LAUNCH_EXIT_USAGE 2

int launch_serve(const launch_options *opt);
int launch_inspect(const launch_options *opt);
int launch_plan_command(const launch_options *opt);
int launch_doctor(const launch_options *opt);
int launch_bench(const launch_options *opt);

/* INVALID (text kept) when --tensor-parallel-size is given and is not the number of ranks. */
TP_MUST_USE tp_status launch_check_size(const launch_options *opt, int n_ranks);

/* ---- for commands that run an engine ---- */
/* Of the options; strings stay theirs.  What depends on the device is left out. */
rt_engine_options launch_engine_options(const launch_options *opt, const char *model_dir);
/* The backend of the device that all ranks agree on; *device says which.  Collective. */
TP_MUST_USE tp_status launch_open_backend(kern_backend **out, launch_device *device,
                                          const launch_options *opt, const comm_world *world);

#endif
