/* SPDX-License-Identifier: Apache-2.0 */
/* bench_stats.c - see bench_stats.h.  The percentile is the one of numpy and of Python's statistics.quantiles with
 * method "inclusive": rank q/100 * (n - 1), between its neighbours in proportion. */
#include "launcher/bench_stats.h"

#include <math.h>
#include <stdlib.h>

#include "base/mem.h"

void launch_samples_add(launch_samples *s, double value)
{
    if (s->n == s->cap) {
        int64_t cap = s->cap > 0 ? s->cap * 2 : 1024;
        double *v = tp_realloc(s->v, (size_t)cap * sizeof *v);

        if (v == NULL) {
            s->failed = true;
            return;
        }
        s->v = v;
        s->cap = cap;
    }
    s->v[s->n++] = value;
    s->sorted = false;
}

void launch_samples_release(launch_samples *s)
{
    tp_free(s->v);
    *s = (launch_samples){0};
}

double launch_mean(const launch_samples *s)
{
    double sum = 0;

    for (int64_t i = 0; i < s->n; i++)
        sum += s->v[i];
    return s->n > 0 ? sum / (double)s->n : 0;
}

double launch_deviation(const launch_samples *s)
{
    double mean = launch_mean(s), sum = 0;

    for (int64_t i = 0; i < s->n; i++)
        sum += (s->v[i] - mean) * (s->v[i] - mean);
    return s->n > 0 ? sqrt(sum / (double)s->n) : 0;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double launch_percentile(launch_samples *s, double q)
{
    double rank;
    int64_t below;

    if (s->n == 0)
        return 0;
    if (!s->sorted)
        qsort(s->v, (size_t)s->n, sizeof *s->v, ascending);
    s->sorted = true;
    rank = q / 100 * (double)(s->n - 1);
    below = (int64_t)rank;
    if (below >= s->n - 1)
        return s->v[s->n - 1];
    return s->v[below] + (rank - (double)below) * (s->v[below + 1] - s->v[below]);
}
