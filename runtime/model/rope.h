/* SPDX-License-Identifier: Apache-2.0 */
/* rope.h - rotary position frequencies: from config keys to a table.  Private to runtime/model. */
#ifndef RT_ROPE_H
#define RT_ROPE_H

#include "runtime/model/config_read.h"
#include "runtime/model/model.h"

/* Fills out->rope and out->max_position from "rope_parameters" (v5) or "rope_theta" and "rope_scaling" (v4);
 * out->head_dim is set already. */
TP_MUST_USE tp_status rt_rope_read(rt_config *out, const rt_cfg *r,
                                   int64_t max_position_embeddings);

/* Elements of a head that rotate: 2 * frequencies. */
int rt_rope_dims(const rt_config *c);
/* inv_freq [rt_rope_dims() / 2] in double, and what multiplies cos and sin. */
void rt_rope_freqs(const rt_config *c, double *inv_freq, double *amplitude);

#endif
