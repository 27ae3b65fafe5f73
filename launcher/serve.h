/* SPDX-License-Identifier: Apache-2.0 */
/* serve.h - the commands, from their options to their exit codes. */
#ifndef LAUNCH_SERVE_H
#define LAUNCH_SERVE_H

#include "launcher/options.h"

int launch_serve(const launch_options *opt);
int launch_inspect(const launch_options *opt);
int launch_plan_command(const launch_options *opt);
int launch_doctor(const launch_options *opt);
int launch_bench(const launch_options *opt);

#endif
