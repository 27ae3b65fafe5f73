/* SPDX-License-Identifier: Apache-2.0 */
/* bench_limits.h - what this machine can do at best, measured in the same run as what is compared with it.
 *
 * Peaks are those of a loop that only multiplies and adds in registers (or tiles); the bandwidth is that of reading
 * a block far larger than the caches.  Every figure is the best of a few short runs: other work on the machine only
 * ever makes them smaller.
 */
#ifndef BENCH_LIMITS_H
#define BENCH_LIMITS_H

#include <stdint.h>

/* Bytes per second; `bytes` should be at least 256 MiB. */
double bench_read_bandwidth(int n_threads, int64_t bytes);

typedef enum bench_unit { BENCH_FP32, BENCH_BF16, BENCH_INT8, BENCH_AMX_BF16 } bench_unit;
/* Operations per second of `isa` ("avx2", "avx512", "amx"); 0 where it has no such unit. */
double bench_peak(const char *isa, bench_unit unit, int n_threads);

/* `n` rounds of a loop of multiply-adds; returns its operations.  One per file of an instruction set. */
double bench_fma_avx2(int64_t n);
double bench_fma_avx512(int64_t n);
double bench_dot_avx512(int64_t n);
double bench_int8_avx512(int64_t n);
double bench_tile_amx(int64_t n);

#endif
