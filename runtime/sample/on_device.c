/* SPDX-License-Identifier: Apache-2.0 */
/* on_device.c - drawing without the host: candidates of every rank, gathered device to device, drawn from by kern_draw, and
 * the tokens scattered into the histories.
 *
 * All of it is enqueued, so a step that reads the tokens may be issued before anybody has seen them.  That is right only
 * if the draw cannot come back open.  So closed rows are known beforehand by their parameters:
 *   greedy          the best candidate is the best
 *   plain           chunk masses are of the whole vocabulary
 *   top_k <= depth  whatever min_p and top_p leave lies among the top_k best, and every rank sends so many
 * A nucleus (top_p) or a min_p by itself may be wider than any list; such rows go through sample.c.
 */
#include <string.h>

#include "comm/device.h"
#include "kernels/draw.h"
#include "runtime/sample/message.h"

static int depth_max(const rt_sampler *s)
{
    int depth = KERN_DRAW_LIST / s->n_ranks;

    return depth < RT_CANDIDATES ? depth : RT_CANDIDATES;
}

bool rt_sampler_draws(const rt_sampler *s)
{
    return s->draws;
}

bool rt_sampler_closes(const rt_sampler *s, const rt_slot_params *p)
{
    if (!s->draws || p->n_logprobs >= 0)
        return false;
    return rt_row_kind_of(p) != RT_ROW_FILTERED || (p->top_k > 0 && p->top_k <= depth_max(s));
}

tp_status rt_sampler_prepare_draws(rt_sampler *s)
{
    kern_draw_rank ranks[TP_SEG_MAX];

    if (!s->be->device || s->be->ops->draw == NULL || s->be->ops->fetch_begin == NULL)
        return TP_OK;
    if (s->n_ranks > 1 && comm_device_allgather_max(s->group) < s->gathered_bytes)
        return TP_OK;
    for (int r = 0; r < s->n_ranks; r++)
        ranks[r] = (kern_draw_rank){.n_local = s->rank_local[r], .n_chunks = s->rank_chunks[r]};
    s->draws = true;
    return s->be->ops->put(s->be, s->ranks_there, ranks, (size_t)s->n_ranks * sizeof *ranks);
}

/* ---- inputs ---- */

/* Candidates that the rows of this block need of each rank. */
static int candidates_for(const rt_sample_row *rows, int n)
{
    int k = 1;

    for (int i = 0; i < n; i++)
        k = rt_row_kind_of(rows[i].params) == RT_ROW_FILTERED && rows[i].params->top_k > k
                ? rows[i].params->top_k
                : k;
    return k;
}

static kern_draw_row draw_row(const rt_sample_row *r, kern_draw_kind kind)
{
    const rt_slot_params *p = r->params;

    return (kern_draw_row){.kind = kind,
                           .stats = -1,
                           .top_k = p->top_k,
                           .temperature = p->temperature,
                           .top_p = p->top_p,
                           .min_p = p->min_p,
                           .seed = p->seed,
                           .counter = (uint64_t)r->n_history};
}

/* Rows of a set of candidates, k each: values of all rows, then ids (message.c). */
static void fill_lists(rt_sampler *s, const rt_sample_row *rows, const rt_row_set *set,
                       size_t section, int k, kern_draw_kind kind)
{
    int64_t row_bytes = (int64_t)k * (int64_t)sizeof(float);

    for (int i = 0; i < set->n; i++) {
        kern_draw_row *d = &s->in->draw[set->at[i]];

        *d = draw_row(&rows[set->at[i]], kind);
        d->k = k;
        d->val = (int64_t)section + i * row_bytes;
        d->id = d->val + set->n * row_bytes;
    }
}

static void fill_draws(rt_sampler *s, const rt_sample_row *rows, const rt_message *m)
{
    fill_lists(s, rows, &m->greedy, m->greedy_best, 1, KERN_DRAW_GREEDY);
    fill_lists(s, rows, &m->filtered, m->filtered_best, m->k, KERN_DRAW_FILTERED);
    for (int i = 0; i < m->plain.n; i++) {
        kern_draw_row *d = &s->in->draw[m->plain.at[i]];

        *d = draw_row(&rows[m->plain.at[i]], KERN_DRAW_PLAIN);
        d->stats = (int64_t)m->plain_stats;
        d->stats_row = i;
    }
}

/* ---- drawing ---- */

tp_status rt_sampler_issue(rt_sampler *s, float *logits, int64_t ld, const rt_sample_row *rows,
                           int n, const rt_sample_there *to)
{
    rt_message m;

    TP_ASSERT(s->draws && n >= 0 && n <= RT_LOGIT_ROWS_MAX);
    if (n == 0)
        return TP_OK;
    rt_message_plan(s, rows, n, candidates_for(rows, n), &m);
    TP_ASSERT(m.raw.n == 0 && m.masses.n == 0 && m.bytes <= s->gathered_bytes);
    fill_draws(s, rows, &m);
    memcpy(s->in->where, to->where, (size_t)n * sizeof *to->where);
    TP_TRY(rt_message_find(s, logits, ld, rows, &m));
    if (s->n_ranks > 1)
        TP_TRY(comm_device_allgather(s->group, s->out, s->gathered, m.bytes));
    TP_TRY(kern_draw(s->be, &(kern_draw_args){.gathered = s->gathered,
                                              .message_bytes = (int64_t)m.bytes,
                                              .ranks = s->ranks_there,
                                              .rows = s->in_there->draw,
                                              .n_ranks = s->n_ranks,
                                              .n_rows = n,
                                              .token = to->token,
                                              .logit = s->logit_there}));
    return kern_scatter(
        s->be,
        &(kern_scatter_args){.out = to->words, .in = to->token, .idx = s->in_there->where, .n = n});
}
