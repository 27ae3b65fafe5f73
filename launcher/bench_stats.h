/* SPDX-License-Identifier: Apache-2.0 */
/* bench_stats.h - many numbers, and their mean, deviation and percentiles.  Threads: one per collection. */
#ifndef LAUNCH_BENCH_STATS_H
#define LAUNCH_BENCH_STATS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct launch_samples {
    double *v; /* owned; [n] */
    int64_t n, cap;
    bool sorted;
    bool failed; /* memory was short: some are missing */
} launch_samples;

void launch_samples_add(launch_samples *s, double value);
void launch_samples_release(launch_samples *s);

double launch_mean(const launch_samples *s);      /* 0 when empty, as all of these */
double launch_deviation(const launch_samples *s); /* of the whole, not estimated from a part */
/* q in 0..100, with linear interpolation between the two nearest ranks.  Sorts. */
double launch_percentile(launch_samples *s, double q);

#endif
