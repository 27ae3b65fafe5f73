/* SPDX-License-Identifier: Apache-2.0 */
/* serve.h - the life of one rank, from its options to its exit code. */
#ifndef LAUNCH_SERVE_H
#define LAUNCH_SERVE_H

#include "launcher/options.h"

int launch_serve(const launch_options *opt);
int launch_inspect(const launch_options *opt);

#endif
