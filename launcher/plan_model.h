/* SPDX-License-Identifier: Apache-2.0 */
/* plan_model.h - what the roofline needs of a model's configuration and of the shards that its ranks would keep.
 * Threads: any. */
#ifndef LAUNCH_PLAN_MODEL_H
#define LAUNCH_PLAN_MODEL_H

#include "launcher/roofline.h"
#include "runtime/model/model.h"

/* Norms and biases count in FP32, as ranks keep them. */
launch_roof_model launch_roof_model_of(const rt_config *c);

/* The fullest of n_ranks shards.  INVALID (said) when the model cannot be cut so. */
TP_MUST_USE tp_status launch_fullest_share(launch_roof_share *out, const rt_config *c, int n_ranks);

/* Bytes that a rank takes besides weights and KV cache, as the engine would plan them: activations, sampler, tables of
 * sequences, windows of the all-reduce. */
TP_MUST_USE tp_status launch_workspace_bytes(int64_t *out, const rt_config *c, int n_ranks,
                                             const rt_model_options *o);

#endif
