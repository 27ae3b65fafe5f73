/* SPDX-License-Identifier: Apache-2.0 */
/* worker_rows.c - the rows of a step that are sampled or looked up: on the host, or by the device.
 *
 * On the host (collecting): in blocks of RT_LOGIT_ROWS_MAX through rt_sampler_run(); drawn tokens go back with the words
 * that the next step updates.  With a draft a sequence has several such rows, and each is drawn from as if the draft were
 * true: it has the draft's tokens in its history and the random numbers of its own position.  From the first row on that
 * draws something else, the ones behind it are dropped.  So what is kept is what would have been drawn one by one.
 *
 * On the device (issuing a closed step): the same blocks through rt_sampler_issue(), which writes the histories; what was
 * drawn is fetched for those who wait for it, and read when the step is collected.
 */
#include <string.h>

#include "comm/device.h"
#include "kernels/kern.h"
#include "runtime/sched/worker_impl.h"

/* The logits of the next n rows of the step, which a graph may have made already. */
static tp_status take_logits(rt_worker *w, const int32_t *index, int n, float **out)
{
    if (w->logits == NULL)
        TP_TRY(rt_model_logits(w->model, index, n, &w->logits, &w->logits_ld));
    *out = w->logits;
    w->logits = NULL;
    return TP_OK;
}

/* The row behind the first n_history tokens of a slot. */
static rt_sample_row sampled_row(const rt_slot *s, int32_t n_history)
{
    int32_t generated = n_history - s->n_prompt;

    return (rt_sample_row){.params = &s->params,
                           .history = s->history,
                           .n_prompt = s->n_prompt,
                           .n_history = n_history,
                           .bias_ids = s->bias_ids,
                           .bias = s->bias,
                           .n_bias = s->n_bias,
                           .allowed = s->allowed,
                           .n_allowed = s->n_allowed,
                           .has_allowed = s->has_allowed,
                           .forbidden = s->forbidden,
                           .n_forbidden = generated < s->params.min_tokens ? s->n_forbidden : 0,
                           .target = -1,
                           .n_logprobs = s->params.n_logprobs};
}

/* ---- on the host ---- */

static void record(rt_worker *w, int32_t slot_index, const rt_sample_row *r)
{
    rt_step_result *res = &w->results[w->n_results++];

    res->slot = slot_index;
    res->is_prompt = r->target >= 0;
    res->token = r->token;
    res->logprob = r->logprob;
    res->n_top = r->n_top;
    memcpy(res->top, r->top, sizeof *r->top * (size_t)r->n_top);
}

/* The token that a slot goes on with; `draft`: what was guessed. */
static void append(rt_worker *w, rt_slot *s, int32_t token, int32_t draft)
{
    s->diverged = token != draft;
    /* Something stands in for a token that could not be drawn: the next step, already planned, counts on it. */
    if (s->n_history < w->opt.max_model_len)
        rt_worker_update(w, s->history + s->n_history++, token >= 0 ? token : 0);
}

/* Samples the rows that wait, appends drawn tokens to their slots, and records the results. */
static tp_status flush_rows(rt_worker *w)
{
    const int32_t *index = w->step->there.rows + w->n_flushed;
    float *logits;

    if (w->n_rows == 0)
        return TP_OK;
    TP_TRY(take_logits(w, index, w->n_rows, &logits));
    TP_TRY(rt_sampler_run(w->sampler, w->model, index, logits, w->logits_ld, w->rows, w->n_rows));
    for (int i = 0; i < w->n_rows; i++) {
        const rt_sample_row *r = &w->rows[i];
        rt_slot *s = &w->slots[w->row_slot[i]];

        if (r->target >= 0) {
            record(w, w->row_slot[i], r);
        } else if (!s->diverged) {
            record(w, w->row_slot[i], r);
            append(w, s, r->token, w->row_draft[i]);
        }
    }
    w->n_flushed += w->n_rows;
    w->n_rows = 0;
    return TP_OK;
}

static tp_status want_row(rt_worker *w, int32_t slot_index, const rt_sample_row *row, int32_t draft)
{
    w->rows[w->n_rows] = *row;
    w->row_draft[w->n_rows] = draft;
    w->row_slot[w->n_rows++] = slot_index;
    return w->n_rows == RT_LOGIT_ROWS_MAX ? flush_rows(w) : TP_OK;
}

/* The rows that add_tokens() has listed, in the same order. */
static tp_status sample_seq(rt_worker *w, const rt_plan_seq *q, const int32_t *draft)
{
    rt_slot *s = &w->slots[q->slot];
    int32_t n_history = s->n_history; /* grows as rows are flushed */
    rt_sample_row r = {.params = &s->params, .n_logprobs = s->params.n_prompt_logprobs};

    for (int32_t i = 0; i < q->n_new; i++) {
        if (!rt_worker_is_target(s, q, i))
            continue;
        r.target = s->prompt_here[q->start + i + 1];
        TP_TRY(want_row(w, q->slot, &r, -1));
    }
    if ((q->flags & RT_SEQ_SAMPLE) == 0)
        return TP_OK;
    s->diverged = false;
    for (int32_t i = 0; i <= q->n_draft; i++) {
        r = sampled_row(s, n_history + i);
        TP_TRY(want_row(w, q->slot, &r, i < q->n_draft ? draft[i] : -1));
    }
    return TP_OK;
}

tp_status rt_worker_sample(rt_worker *w, const rt_flight *f)
{
    rt_plan_reader r = f->seqs;

    for (uint32_t i = 0; i < r.header.n_seq; i++) {
        const int32_t *blocks;
        rt_plan_seq q;

        TP_TRY(rt_plan_read_seq(&r, &q, &blocks));
        TP_TRY(sample_seq(w, &q, blocks + q.n_blocks));
    }
    return flush_rows(w);
}

/* ---- by the device ---- */

static tp_status draw_rows(rt_worker *w)
{
    const int32_t *index = w->step->there.rows + w->n_flushed;
    float *logits;

    if (w->n_rows == 0)
        return TP_OK;
    TP_TRY(take_logits(w, index, w->n_rows, &logits));
    TP_TRY(rt_sampler_issue(w->sampler, logits, w->logits_ld, w->rows, w->n_rows,
                            &(rt_sample_there){.token = w->tokens + w->n_flushed,
                                               .words = w->words.history,
                                               .where = w->row_word}));
    w->n_flushed += w->n_rows;
    w->n_rows = 0;
    return TP_OK;
}

tp_status rt_worker_draw(rt_worker *w, rt_flight *f, int at)
{
    rt_plan_reader r = f->seqs;

    for (uint32_t i = 0; i < r.header.n_seq; i++) {
        const int32_t *blocks;
        rt_plan_seq q;
        rt_slot *s;

        TP_TRY(rt_plan_read_seq(&r, &q, &blocks));
        if ((q.flags & RT_SEQ_SAMPLE) == 0)
            continue;
        s = &w->slots[q.slot];
        w->rows[w->n_rows] = sampled_row(s, s->n_history);
        w->row_word[w->n_rows++] = s->n_history < w->opt.max_model_len
                                       ? rt_worker_word(w, s->history + s->n_history++)
                                       : -1;
        f->row_slot[f->n_rows++] = q.slot;
        if (w->n_rows == RT_LOGIT_ROWS_MAX)
            TP_TRY(draw_rows(w));
    }
    TP_TRY(draw_rows(w));
    return w->be->ops->fetch_begin(w->be, at, w->tokens, (size_t)f->n_rows * sizeof *w->tokens);
}

tp_status rt_worker_fetch(rt_worker *w, const rt_flight *f, int at)
{
    TP_TRY(w->be->ops->fetch_end(w->be, at, w->tokens_here,
                                 (size_t)f->n_rows * sizeof *w->tokens_here));
    TP_TRY(comm_device_poll(w->group)); /* are the sums behind these numbers true? */
    for (int i = 0; i < f->n_rows; i++) {
        int32_t token = w->tokens_here[i];

        if (token < KERN_DRAW_NONE) /* the next step has read it: nothing can be mended */
            return TP_FAIL(TP_ERR_DEVICE,
                           "the device has not decided a draw of slot %d, which its parameters "
                           "should have made certain",
                           f->row_slot[i]);
        w->results[w->n_results++] = (rt_step_result){.slot = f->row_slot[i], .token = token};
    }
    return TP_OK;
}
