/* SPDX-License-Identifier: Apache-2.0 */
/* gpu_table.h - the devices that `plan` knows, from their data sheets.  Threads: any. */
#ifndef LAUNCH_GPU_TABLE_H
#define LAUNCH_GPU_TABLE_H

#include <stdio.h>

#include "launcher/roofline.h"

extern const launch_gpu launch_gpus[];
extern const int launch_n_gpus;

/* By name ("h100", "a100-40", "cpu"); NULL when unknown. */
const launch_gpu *launch_find_gpu(const char *name);

#endif
