/* SPDX-License-Identifier: Apache-2.0 */
/* gpu_table.c - rows of data sheets.  FLOPs are dense (half of what is printed "with sparsity"); links are each way.
 *
 * The shares are what good kernels reach of it: 0.85 of the bandwidth and 0.70 of the arithmetic, until `bench` has
 * measured a device.  The CPU is a row, too; its numbers are given with --memory-gbps and --tflops.
 */
#include "launcher/gpu_table.h"

#include <string.h>
#include <strings.h>

#define SHARES .bandwidth_share = 0.85, .flops_share = 0.70, .gap_us = 1.0

const launch_gpu launch_gpus[] = {
    {"a10", "A10", 24, 0.600, 125, 0, 0, false, SHARES, .source = "A10 data sheet"},
    {"l4", "L4", 24, 0.300, 121, 242, 0, false, SHARES, .source = "L4 data sheet"},
    {"a100-40", "A100-SXM4-40GB", 40, 1.555, 312, 0, 300, false, SHARES,
     .source = "A100 data sheet, SXM 40 GB"},
    {"l40s", "L40S", 48, 0.864, 362, 733, 0, false, SHARES, .source = "L40S data sheet"},
    {"a100", "A100-SXM4-80GB", 80, 2.039, 312, 0, 300, false, SHARES,
     .source = "A100 data sheet, SXM 80 GB"},
    {"a100-pcie", "A100 80GB PCIe", 80, 1.935, 312, 0, 0, false, SHARES,
     .source = "A100 data sheet, PCIe 80 GB, without bridges"},
    {"h100-pcie", "H100 PCIe", 80, 2.0, 756, 1513, 0, false, SHARES,
     .source = "H100 data sheet, PCIe, without bridges"},
    {"h100", "H100 80GB HBM3", 80, 3.35, 989, 1979, 450, true, SHARES,
     .source = "H100 data sheet, SXM"},
    {"h20", "H20", 96, 4.0, 148, 296, 450, true, SHARES, .source = "H20 data sheet"},
    {"h200", "H200", 141, 4.8, 989, 1979, 450, true, SHARES, .source = "H200 data sheet, SXM"},
    {"b200", "B200", 180, 8.0, 2250, 4500, 900, true, SHARES,
     .source = "DGX B200 data sheet, an eighth of it"},
    {"cpu", "CPU", 0, 0, 0, 0, 0, false, .bandwidth_share = 0.85, .flops_share = 0.60,
     .gap_us = 5.0, .source = "this host; --memory-gbps, --tflops"},
};

const int launch_n_gpus = (int)(sizeof launch_gpus / sizeof launch_gpus[0]);

const launch_gpu *launch_find_gpu(const char *name)
{
    for (int i = 0; i < launch_n_gpus; i++)
        if (strcasecmp(launch_gpus[i].name, name) == 0)
            return &launch_gpus[i];
    return NULL;
}
