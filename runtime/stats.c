/* SPDX-License-Identifier: Apache-2.0 */
/* stats.c - bucket bounds and counting. */
#include "runtime/stats.h"

#include <string.h>

#include "base/status.h"

static const double k_ttft[] = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                                1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
static const double k_token[] = {.01, .025, .05, .075, .1,  .15, .2, .3, .4, .5,
                                 .75, 1,    2.5, 5,    7.5, 10,  20, 40, 80};
static const double k_request[] = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                   30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
static const double k_iteration[] = {1,   8,    16,   32,   64,   128,  256,
                                     512, 1024, 2048, 4096, 8192, 16384};
static const double k_n[] = {1, 2, 5, 10, 20};
static const double k_tokens[] = {1,     2,      5,      10,     20,     50,    100,
                                  200,   500,    1000,   2000,   5000,   10000, 20000,
                                  50000, 100000, 200000, 500000, 1000000};

static void set_bounds(rt_hist *h, const double *bounds, size_t n)
{
    TP_ASSERT(n <= RT_HIST_BUCKETS_MAX);
    h->bounds = bounds;
    h->n = (int)n;
}

void rt_stats_init(rt_stats *s, int64_t max_model_len)
{
    size_t n_tokens = 1;

    memset(s, 0, sizeof *s);
    while (n_tokens < TP_ARRAY_LEN(k_tokens) && k_tokens[n_tokens] <= (double)max_model_len)
        n_tokens++;
    set_bounds(&s->ttft, k_ttft, TP_ARRAY_LEN(k_ttft));
    set_bounds(&s->inter_token, k_token, TP_ARRAY_LEN(k_token));
    set_bounds(&s->per_output_token, k_token, TP_ARRAY_LEN(k_token));
    set_bounds(&s->e2e, k_request, TP_ARRAY_LEN(k_request));
    set_bounds(&s->queue, k_request, TP_ARRAY_LEN(k_request));
    set_bounds(&s->inference, k_request, TP_ARRAY_LEN(k_request));
    set_bounds(&s->prefill, k_request, TP_ARRAY_LEN(k_request));
    set_bounds(&s->decode, k_request, TP_ARRAY_LEN(k_request));
    set_bounds(&s->prompt_len, k_tokens, n_tokens);
    set_bounds(&s->generation_len, k_tokens, n_tokens);
    set_bounds(&s->max_generation_len, k_tokens, n_tokens);
    set_bounds(&s->params_max_tokens, k_tokens, n_tokens);
    set_bounds(&s->params_n, k_n, TP_ARRAY_LEN(k_n));
    set_bounds(&s->iteration_tokens, k_iteration, TP_ARRAY_LEN(k_iteration));
}

void rt_hist_add(rt_hist *h, double value)
{
    int i = 0;

    while (i < h->n && value > h->bounds[i])
        i++;
    h->counts[i]++;
    h->sum += value;
    h->total++;
}
