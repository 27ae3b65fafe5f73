/* SPDX-License-Identifier: Apache-2.0 */
/* bench_machine.c - the limits of this machine as one JSON object: memory bandwidth and peaks (bench_limits.h), with one
 * thread and with as many as there are cores.
 *
 *     bench_machine
 */
#include <stdio.h>

#include "base/cores.h"
#include "bench_limits.h"
#include "kernels/kern.h"

#define READ_BYTES (INT64_C(512) << 20)

int main(void)
{
    static const struct {
        const char *name;
        bench_unit unit;
    } peaks[] = {{"fp32_gflops", BENCH_FP32},
                 {"bf16_gflops", BENCH_BF16},
                 {"int8_gops", BENCH_INT8},
                 {"amx_bf16_gflops", BENCH_AMX_BF16}};
    int threads[2] = {1, tp_cores_usable()};
    kern_backend *be;

    if (kern_cpu_ops()->open(&be, &(kern_open_args){.n_threads = 1}) != TP_OK)
        return 1;
    (void)printf("{\"isa\": \"%s\", \"threads\": [%d, %d], \"read_gbps\": [%.1f, %.1f]", be->isa,
                 threads[0], threads[1], bench_read_bandwidth(threads[0], READ_BYTES) * 1e-9,
                 bench_read_bandwidth(threads[1], READ_BYTES) * 1e-9);
    for (size_t i = 0; i < TP_ARRAY_LEN(peaks); i++)
        (void)printf(", \"%s\": [%.0f, %.0f]", peaks[i].name,
                     bench_peak(be->isa, peaks[i].unit, threads[0]) * 1e-9,
                     bench_peak(be->isa, peaks[i].unit, threads[1]) * 1e-9);
    (void)printf("}\n");
    be->ops->close(be);
    return 0;
}
