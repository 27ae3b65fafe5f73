/* SPDX-License-Identifier: Apache-2.0 */
/* stats.h - what the engine counts: one snapshot struct of counters, gauges and histograms.
 *
 * The scheduler writes, any thread reads a snapshot.  Names on the wire are vLLM's; api/metrics.c prints them.
 */
#ifndef RT_STATS_H
#define RT_STATS_H

#include <stdint.h>

#include "runtime/spec/speculation.h"

#define RT_HIST_BUCKETS_MAX 28

typedef struct rt_hist {
    const double *bounds; /* [n] upper bounds, static */
    int n;
    uint64_t counts[RT_HIST_BUCKETS_MAX + 1]; /* per bucket, not cumulative; last = +Inf */
    double sum;
    uint64_t total;
} rt_hist;

/* What speculation was good for. */
typedef struct rt_draft_counts {
    int draft_max; /* places of a draft; 0 = there is no speculation */
    uint64_t drafts, tokens, accepted;
    uint64_t accepted_at[RT_DRAFT_MAX]; /* by place in the draft */
} rt_draft_counts;

typedef struct rt_stats {
    /* gauges */
    int running, waiting;
    int32_t blocks_used, blocks_total;
    /* counters */
    uint64_t prompt_tokens, generation_tokens, preemptions, steps;
    uint64_t steps_ahead; /* issued to the device before the step before had been collected */
    uint64_t finished_stop, finished_length, finished_abort, finished_error; /* choices */
    uint64_t cancelled;                   /* requests whose reader left */
    uint64_t prefix_queries, prefix_hits; /* tokens */
    rt_draft_counts drafts;
    int64_t host_ns; /* in rounds of the scheduler: delivery and planning */
    /* seconds */
    rt_hist ttft, inter_token, e2e, queue, inference, prefill, decode, per_output_token;
    /* tokens */
    rt_hist prompt_len, generation_len, max_generation_len, params_max_tokens, params_n,
        iteration_tokens;
} rt_stats;

/* Zeroes and sets vLLM's bucket bounds; token buckets go up to max_model_len. */
void rt_stats_init(rt_stats *s, int64_t max_model_len);
void rt_hist_add(rt_hist *h, double value);

#endif
