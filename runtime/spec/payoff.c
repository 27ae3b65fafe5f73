/* SPDX-License-Identifier: Apache-2.0 */
/* payoff.c - two estimates that forget: a line through step times, and a rate. */
#include "runtime/spec/payoff.h"

#include <math.h>

/* Of one step to the next, so about the last hundred count. */
#define COST_KEPT 0.99
/* Until steps of different sizes were seen: a row costs a twentieth of what all rows share, as on a CPU.  */
#define UNKNOWN_ROWS 20.0
/* What a sequence begins with: seven of ten guesses come true. */
#define PRIOR_TRIES 3.0F
#define PRIOR_HITS  2.1F
#define RATE_KEPT   0.9F /* of one guess to the next */
#define REST_MIN    8
#define REST_MAX    256

void rt_step_cost_add(rt_step_cost *c, int rows, int64_t ns)
{
    double n = rows, t = (double)ns;

    if (rows < 1 || rows > RT_STEP_COST_ROWS_MAX || ns <= 0)
        return;
    c->weight = c->weight * COST_KEPT + 1;
    c->rows = c->rows * COST_KEPT + n;
    c->ns = c->ns * COST_KEPT + t;
    c->rows_rows = c->rows_rows * COST_KEPT + n * n;
    c->rows_ns = c->rows_ns * COST_KEPT + n * t;
}

double rt_step_cost_share(const rt_step_cost *c, int rows)
{
    double spread = c->weight * c->rows_rows - c->rows * c->rows, slope, base;

    if (c->weight < 8 || spread < 0.5 * c->weight * c->weight)
        return rows / (UNKNOWN_ROWS + rows);
    slope = fmax((c->weight * c->rows_ns - c->rows * c->ns) / spread, 0);
    base = fmax((c->ns - slope * c->rows) / c->weight, 0);
    return slope * rows / fmax(base + slope * rows, 1);
}

rt_guess_record rt_guess_record_new(void)
{
    return (rt_guess_record){.tries = PRIOR_TRIES, .hits = PRIOR_HITS};
}

int rt_guess_length(rt_guess_record *r, double share, int most)
{
    double p = (double)(r->hits / r->tries), length;

    if (r->rest > 0) {
        r->rest--;
        return 0;
    }
    if (p <= share) { /* now one try, and then a rest */
        r->rest_next = r->rest_next < REST_MIN       ? REST_MIN
                       : r->rest_next < REST_MAX / 2 ? 2 * r->rest_next
                                                     : REST_MAX;
        r->rest = r->rest_next;
        return most < 1 ? most : 1;
    }
    /* the k-th token comes true with p^k */
    length = share > 0 ? log(share) / log(fmin(p, 0.999)) : most;
    return length < most ? (int)fmax(length, 1) : most;
}

void rt_guess_learn(rt_guess_record *r, int n, int n_true)
{
    int tries = n_true < n ? n_true + 1 : n;

    r->tries = r->tries * RATE_KEPT + (float)tries;
    r->hits = r->hits * RATE_KEPT + (float)n_true;
    if (n_true < n)
        return;
    r->rest = r->rest_next = 0;
}
