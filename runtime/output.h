/* SPDX-License-Identifier: Apache-2.0 */
/* output.h - from sampled tokens to events: text, stop conditions, logprobs.
 * Threads: under the plan lock of rank 0.  No allocation. */
#ifndef RT_OUTPUT_H
#define RT_OUTPUT_H

#include "runtime/model/model.h"
#include "runtime/request.h"
#include "runtime/sched/worker.h"
#include "runtime/stats.h"

typedef struct rt_output {
    const rt_tokenizer *tokenizer;
    const rt_config *config;
    rt_stats *stats;
    int64_t now_ns; /* of this step */
} rt_output;

/* How a choice ends. */
typedef struct rt_ending {
    rt_finish finish; /* NONE: it goes on */
    int32_t stop_token;
    int stop_string;
    const char *error_code;
} rt_ending;

/* Pushes what one result row says.  The ending tells whether the choice is over; the caller then calls finish. */
rt_ending rt_output_token(rt_output *o, rt_choice *c, const rt_step_result *res);
void rt_output_prompt(rt_output *o, rt_choice *c, const rt_step_result *res);
/* Flushes held text (except after a stop string), pushes FINISH, counts. */
void rt_output_finish(rt_output *o, rt_choice *c, const rt_ending *end);

#endif
