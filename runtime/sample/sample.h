/* SPDX-License-Identifier: Apache-2.0 */
/* sample.h - from hidden rows to tokens, over a vocabulary that is sharded between ranks.
 *
 * Every rank reduces its slice of the logits to a few numbers, one small all-gather makes them known everywhere, and
 * every rank draws the same token: logits have the same bits at every number of ranks, candidates are sorted the same
 * way, and random numbers are a function of (seed, position).  Where candidates do not decide (a wide nucleus), the
 * ranks gather the whole row: sampling is exact always.
 *
 * Where the ranks' devices can gather among themselves, rows whose candidates decide for certain are drawn there, by the
 * same arithmetic, and the tokens go straight into the histories: rt_sampler_issue() waits for nothing.
 *
 * Logprobs are those of the raw distribution: before bias, penalties, masks and temperature.
 * Threads: engine thread; collective (all ranks call with the same rows).  No allocation after create.
 */
#ifndef RT_SAMPLE_H
#define RT_SAMPLE_H

#include <stdint.h>

#include "base/status.h"
#include "comm/comm.h"
#include "kernels/kern.h"
#include "runtime/engine.h"
#include "runtime/model/model.h"
#include "runtime/sched/plan.h"

typedef struct rt_sampler rt_sampler;

/* One row of the last forward pass and what is wanted of it.  The lists are memory of the backend. */
typedef struct rt_sample_row {
    /* in */
    const rt_slot_params *params; /* ignored when target >= 0 */
    const int32_t *history; /* prompt, then output: n_history tokens, n_prompt of them prompt */
    int32_t n_prompt, n_history;
    const int32_t *bias_ids, *allowed, *forbidden;
    const float *bias;
    int32_t n_bias, n_allowed, n_forbidden;
    bool has_allowed;
    int32_t target;     /* >= 0: nothing is drawn, the logprob of this token is wanted */
    int32_t n_logprobs; /* -1 = none, else the number of best tokens reported */
    /* out */
    int32_t token; /* drawn, or target; -1 when no logit of the row is finite */
    float logprob; /* when n_logprobs >= 0 */
    int n_top;
    rt_logprob top[RT_LOGPROBS_MAX];
} rt_sample_row;

/* Not collective: a failure is this rank's alone. */
TP_MUST_USE tp_status rt_sampler_create(rt_sampler **out, const rt_config *c, const rt_shard *s,
                                        kern_backend *be, comm_group *g);
void rt_sampler_destroy(rt_sampler *s);
/* What create takes on this rank: of the backend's memory, and of the host's beside it. */
int64_t rt_sampler_bytes(const rt_config *c, const rt_shard *s, const kern_backend *be);
int64_t rt_sampler_host_bytes(const rt_config *c, const rt_shard *s, const kern_backend *be);

/* n <= RT_LOGIT_ROWS_MAX rows; index [n]: which rows of the forward pass they are, in memory of the backend; logits [n,
 * ld]: what rt_model_logits() makes of them, which is overwritten. */
TP_MUST_USE tp_status rt_sampler_run(rt_sampler *s, rt_model *m, const int32_t *index,
                                     float *logits, int64_t ld, rt_sample_row *rows, int n);

/* ---- drawing on the device ---- */

/* Whether there is such a thing here.  The same on all ranks. */
bool rt_sampler_draws(const rt_sampler *s);
/* Whether the device decides every draw of a sequence that samples like this, whatever the logits: nothing is told about
 * probabilities, and no filter can reach beyond the candidates. */
bool rt_sampler_closes(const rt_sampler *s, const rt_slot_params *p);

typedef struct rt_sample_there {
    int32_t *token;       /* [n]; memory of the backend */
    int32_t *words;       /* memory of the backend */
    const int32_t *where; /* [n] which of the words the token becomes; -1 = none */
} rt_sample_there;

/* As rt_sampler_run(), for rows that are closed.  Enqueues and returns; what could not be drawn is KERN_DRAW_NONE. */
TP_MUST_USE tp_status rt_sampler_issue(rt_sampler *s, float *logits, int64_t ld,
                                       const rt_sample_row *rows, int n, const rt_sample_there *to);

#endif
