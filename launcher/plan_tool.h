/* SPDX-License-Identifier: Apache-2.0 */
/* plan_tool.h - parts of `tpserve plan`: what was asked, what a rank of it takes, and the printed answers.
 * Threads: main. */
#ifndef LAUNCH_PLAN_TOOL_H
#define LAUNCH_PLAN_TOOL_H

#include "launcher/gpu_table.h"
#include "launcher/json_out.h"
#include "launcher/model_path.h"
#include "launcher/options.h"
#include "launcher/plan_model.h"

#define LAUNCH_PLAN_BATCHES_MAX 16
#define LAUNCH_PLAN_HEADROOM    0.8 /* part of a capacity that a stated load may use */

/* The question, settled. */
typedef struct launch_plan {
    const launch_options *opt;
    char dir[LAUNCH_PATH_MAX];
    rt_config config;
    launch_roof_model model;
    launch_format format;
    kern_dtype dtype; /* of activations, and of weights that are not quantised */
    double kv_element_bytes;
    int64_t max_model_len;
    int chunk, max_seqs; /* --max-num-batched-tokens, --max-num-seqs, or their defaults */
    double memory_share; /* of the device's memory */
    int batches[LAUNCH_PLAN_BATCHES_MAX], n_batches;
    launch_load load; /* requests_per_s 0: none was stated */
} launch_plan;

/* A number of ranks on one kind of device; bytes of the fullest rank. */
typedef struct launch_plan_fit {
    launch_roof_case c;
    double usable, resident, streamed, workspace, kv_per_token;
    int64_t kv_tokens; /* that the cache holds; 0: the weights alone are too much */
    bool fits;         /* at least one sequence of the full length */
} launch_plan_fit;

/* Errors have been said. */
TP_MUST_USE tp_status launch_plan_fit_on(launch_plan_fit *out, const launch_plan *p,
                                         const launch_gpu *gpu, int n_ranks);

/* Everything about one fit. */
void launch_plan_print_fit(FILE *out, const launch_plan *p, const launch_plan_fit *f);
void launch_plan_put_fit(launch_json *j, const launch_plan *p, const launch_plan_fit *f);

/* What meets the load: for each device the best, and the best of all.  only: one device, or NULL. */
TP_MUST_USE tp_status launch_plan_load(FILE *out, launch_json *j, const launch_plan *p,
                                       const launch_gpu *only);

#endif
