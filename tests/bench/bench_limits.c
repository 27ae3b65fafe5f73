/* SPDX-License-Identifier: Apache-2.0 */
/* bench_limits.c - see bench_limits.h. */
#include "bench_limits.h"

#include <string.h>

#include <omp.h>

#include "base/clock.h"
#include "base/mem.h"

#define RUNS 5

typedef uint64_t lanes __attribute__((vector_size(16)));

static uint64_t read_block(const uint8_t *p, int64_t bytes)
{
    lanes sum[4] = {{0}};

    for (int64_t i = 0; i + 256 <= bytes; i += 256) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++)
            __builtin_prefetch(p + i + 4096 + 64 * j);
#pragma GCC unroll 16
        for (int j = 0; j < 16; j++) {
            lanes v;

            memcpy(&v, p + i + 16 * j, sizeof v);
            sum[j % 4] += v;
        }
    }
    sum[0] += sum[1] + sum[2] + sum[3];
    return sum[0][0] + sum[0][1];
}

double bench_read_bandwidth(int n_threads, int64_t bytes)
{
    uint8_t *p = tp_aligned_alloc(4096, (size_t)bytes);
    double best = 0;
    uint64_t sum = 0;

    TP_ASSERT(p != NULL);
    memset(p, 1, (size_t)bytes);
    for (int r = 0; r < RUNS; r++) {
        int64_t start = tp_now_ns();
        double rate;

#pragma omp parallel num_threads(n_threads) reduction(+ : sum)
        {
            int64_t part = bytes / omp_get_num_threads() / 4096 * 4096;

            sum += read_block(p + part * omp_get_thread_num(), part);
        }
        rate = (double)bytes / (double)(tp_now_ns() - start) * 1e9;
        best = rate > best ? rate : best;
    }
    TP_ASSERT(sum != 0);
    tp_free(p);
    return best;
}

double bench_peak(const char *isa, bench_unit unit, int n_threads)
{
    double (*loop)(int64_t n) = NULL;
    double best = 0;

    if (unit == BENCH_FP32)
        loop = strcmp(isa, "avx2") == 0                                ? bench_fma_avx2
               : strcmp(isa, "avx512") == 0 || strcmp(isa, "amx") == 0 ? bench_fma_avx512
                                                                       : NULL;
    else if (unit == BENCH_BF16 && (strcmp(isa, "avx512") == 0 || strcmp(isa, "amx") == 0))
        loop = bench_dot_avx512;
    else if (unit == BENCH_INT8 && (strcmp(isa, "avx512") == 0 || strcmp(isa, "amx") == 0))
        loop = bench_int8_avx512;
    else if (unit == BENCH_AMX_BF16 && strcmp(isa, "amx") == 0)
        loop = bench_tile_amx;
    if (loop == NULL)
        return 0;
    for (int r = 0; r < RUNS; r++) {
        double operations = 0, rate;
        int64_t start = tp_now_ns();

#pragma omp parallel num_threads(n_threads) reduction(+ : operations)
        operations += loop(200000);
        rate = operations / (double)(tp_now_ns() - start) * 1e9;
        best = rate > best ? rate : best;
    }
    return best;
}
