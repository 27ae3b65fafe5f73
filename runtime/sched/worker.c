/* SPDX-License-Identifier: Apache-2.0 */
/* worker.c - plan in, forward pass, sampling, results out.
 *
 * Within a step: slots close, blocks are copied, slots open, the sequences' new tokens are laid out in one batch, the
 * model runs once, and the rows that were asked for are sampled in blocks of RT_LOGIT_ROWS_MAX (worker_rows.c).
 *
 * A prompt goes to the backend when its slot opens.  Everything else that a step reads is written into one step
 * buffer, which goes over in one copy: single words that changed (new blocks, tokens that the host has drawn), which
 * kern_scatter then puts in their places; and the batch, whose token ids kern_take picks out of the histories.  Where the
 * backend's memory is the host's, the step buffer is written in place.
 *
 * Two halves.  Issuing hands everything to the backend; collecting waits for it.  A step is closed when its device draws
 * all of its tokens for certain: they are in the histories for whatever comes behind, so the next step may be issued
 * before this one is collected.  Of a step that is not, the host samples when it is collected, and nothing is issued in
 * between.  Which steps are closed follows from plans alone, so all ranks go the same way.
 */
#include <string.h>

#include "runtime/sched/worker_impl.h"

/* ---- updates ---- */

int32_t rt_worker_word(const rt_worker *w, const int32_t *p)
{
    return (int32_t)(p - w->words.history);
}

void rt_worker_update(rt_worker *w, const int32_t *where, int32_t value)
{
    const rt_step_in *here = &w->few.here;

    TP_ASSERT(w->n_updates < rt_worker_updates_max(&w->opt));
    here->update_at[w->n_updates] = rt_worker_word(w, where);
    here->update[w->n_updates++] = value;
}

/* What waits for a slot that closed must not hit the one that opens in its place. */
static void drop_updates(rt_worker *w, const rt_slot *s)
{
    int32_t first = rt_worker_word(w, s->history), end = first + (int32_t)w->opt.max_model_len;
    int kept = 0;

    for (int i = 0; i < w->n_updates; i++) {
        int32_t at = w->few.here.update_at[i];

        if (at >= first && at < end)
            continue;
        w->few.here.update_at[kept] = at;
        w->few.here.update[kept++] = w->few.here.update[i];
    }
    w->n_updates = kept;
}

static tp_status put(rt_worker *w, void *there, const void *here, int32_t n)
{
    return n > 0 ? w->be->ops->put(w->be, there, here, (size_t)n * sizeof(int32_t)) : TP_OK;
}

/* ---- slots ---- */

static tp_status find_slot(rt_worker *w, int32_t index, bool open, rt_slot **out)
{
    if (index < 0 || index >= w->opt.n_slots || w->slots[index].open != open)
        return TP_FAIL(TP_ERR_FORMAT, "step plan names slot %d, which is not %s", index,
                       open ? "open" : "free");
    *out = &w->slots[index];
    return TP_OK;
}

/* What memory is sized for, and what the kernels take for granted. */
static bool within_limits(const rt_worker *w, const rt_plan_open_view *v)
{
    const rt_plan_open *h = &v->head;
    const rt_slot_params *p = &h->params;

    if (h->n_prompt > w->opt.max_model_len || h->n_bias > RT_BIAS_MAX ||
        h->n_allowed > RT_ALLOWED_MAX || h->n_forbidden > RT_FORBIDDEN_MAX)
        return false;
    if (p->n_logprobs > RT_LOGPROBS_MAX || p->n_prompt_logprobs > RT_LOGPROBS_MAX || p->top_k < 0 ||
        !(p->temperature >= 0) || !(p->repetition > 0))
        return false;
    for (int32_t i = 0; i < h->n_prompt; i++)
        if (v->prompt[i] < 0 || v->prompt[i] >= w->vocab)
            return false;
    return true;
}

static tp_status open_slot(rt_worker *w, const rt_plan_open_view *v)
{
    const rt_plan_open *h = &v->head;
    rt_slot *s;

    TP_TRY(find_slot(w, h->slot, false, &s));
    if (!within_limits(w, v))
        return TP_FAIL(TP_ERR_FORMAT, "step plan opens slot %d beyond its limits", h->slot);
    s->open = true;
    s->params = h->params;
    s->n_prompt = s->n_history = h->n_prompt;
    s->n_table = 0;
    s->n_bias = h->n_bias;
    s->n_allowed = h->n_allowed;
    s->n_forbidden = h->n_forbidden;
    s->has_allowed = h->has_allowed != 0;
    s->closed = rt_sampler_closes(w->sampler, &h->params);
    if (h->params.n_prompt_logprobs >= 0)
        memcpy(s->prompt_here, v->prompt, sizeof *s->prompt_here * (size_t)h->n_prompt);
    TP_TRY(put(w, s->history, v->prompt, h->n_prompt));
    TP_TRY(put(w, s->bias_ids, v->bias_ids, h->n_bias));
    TP_TRY(put(w, s->bias, v->bias, h->n_bias));
    TP_TRY(put(w, s->allowed, v->allowed, h->n_allowed));
    return put(w, s->forbidden, v->forbidden, h->n_forbidden);
}

/* ---- the batch ---- */

static tp_status extend_table(rt_worker *w, rt_slot *s, const rt_plan_seq *q, const int32_t *blocks)
{
    if (q->table_keep < 0 || q->table_keep > s->n_table ||
        q->n_blocks > w->blocks_max - q->table_keep)
        return TP_FAIL(TP_ERR_FORMAT, "step plan: block table of slot %d does not fit", q->slot);
    for (int32_t i = 0; i < q->n_blocks; i++)
        if (blocks[i] < 0 || blocks[i] >= w->opt.n_blocks)
            return TP_FAIL(TP_ERR_FORMAT, "step plan: slot %d with block %d of %d", q->slot,
                           blocks[i], w->opt.n_blocks);
    memcpy(s->table_here + q->table_keep, blocks, sizeof *blocks * (size_t)q->n_blocks);
    s->n_table = q->table_keep + q->n_blocks;
    if (q->n_blocks != 1)
        return put(w, s->table + q->table_keep, blocks, q->n_blocks);
    rt_worker_update(w, s->table + q->table_keep, blocks[0]);
    return TP_OK;
}

bool rt_worker_is_target(const rt_slot *s, const rt_plan_seq *q, int32_t i)
{
    return q->start + i >= q->lp_start && q->start + i + 1 < s->n_prompt &&
           s->params.n_prompt_logprobs >= 0;
}

/* Sequences of one token come first, the others fill the list from behind. */
static void add_seq(rt_worker *w, const kern_attn_seq *seq, int n_seqs)
{
    int at = seq->n_rows == 1 ? w->n_decode++ : n_seqs - 1 - (w->n_seqs - w->n_decode);

    w->step->here.seqs[at] = *seq;
    w->n_seqs++;
    w->max_ctx = seq->ctx > w->max_ctx ? seq->ctx : w->max_ctx;
    if (seq->n_rows > 1 && seq->n_rows > w->max_rows)
        w->max_rows = seq->n_rows;
}

/* Behind the newest token of a sequence, and within what the step has room for. */
static bool draft_fits(const rt_worker *w, const rt_slot *s, const rt_plan_seq *q,
                       const int32_t *draft)
{
    if (q->n_draft > w->opt.draft_max || q->n_draft > RT_DRAFT_STEP_MAX - w->n_draft ||
        q->n_new != 1 + q->n_draft || q->start != s->n_history - 1 ||
        (q->flags & RT_SEQ_SAMPLE) == 0 || s->n_history > w->opt.max_model_len - q->n_draft)
        return false;
    for (int32_t i = 0; i < q->n_draft; i++)
        if (draft[i] < 0 || draft[i] >= w->vocab)
            return false;
    return true;
}

/* For this step the draft stands in the history; what is drawn takes its place there. */
static tp_status lay_out_draft(rt_worker *w, const rt_slot *s, const rt_plan_seq *q,
                               const int32_t *draft)
{
    if (q->n_draft == 0)
        return TP_OK;
    if (!draft_fits(w, s, q, draft))
        return TP_FAIL(TP_ERR_FORMAT,
                       "step plan: a draft of %d tokens at %d of slot %d, which has %d tokens",
                       q->n_draft, q->start, q->slot, s->n_history);
    for (int32_t i = 0; i < q->n_draft; i++)
        rt_worker_update(w, s->history + s->n_history + i, draft[i]);
    w->n_draft += q->n_draft;
    w->closed = false;
    return TP_OK;
}

static tp_status check_positions(const rt_worker *w, const rt_slot *s, const rt_plan_seq *q)
{
    int32_t end = s->n_history + q->n_draft;

    if (q->start < 0 || q->start > end - q->n_new ||
        q->start + q->n_new > s->n_table * w->opt.block_tokens)
        return TP_FAIL(TP_ERR_FORMAT,
                       "step plan: %d positions from %d of slot %d are not there: it has %d tokens "
                       "and %d blocks",
                       q->n_new, q->start, q->slot, end, s->n_table);
    if ((q->flags & RT_SEQ_SAMPLE) != 0 && q->start + q->n_new < end)
        return TP_FAIL(TP_ERR_FORMAT, "step plan samples slot %d behind token %d of %d", q->slot,
                       q->start + q->n_new, end);
    return TP_OK;
}

/* Lays the new tokens of one sequence out behind those already there. */
static tp_status add_tokens(rt_worker *w, const rt_plan_seq *q, const int32_t *blocks, int n_seqs)
{
    int32_t end, block_tokens = w->opt.block_tokens;
    bool sampled = (q->flags & RT_SEQ_SAMPLE) != 0;
    const rt_step_in *here = &w->step->here;
    kern_attn_seq seq;
    rt_slot *s;

    TP_TRY(find_slot(w, q->slot, true, &s));
    TP_TRY(extend_table(w, s, q, blocks));
    TP_TRY(lay_out_draft(w, s, q, blocks + q->n_blocks));
    TP_TRY(check_positions(w, s, q));
    end = q->start + q->n_new;
    seq = (kern_attn_seq){.row = w->n_tok,
                          .n_rows = q->n_new,
                          .ctx = end,
                          .table = (int32_t)(s->table - w->words.tables)};
    add_seq(w, &seq, n_seqs);
    w->closed &= !sampled || s->closed;
    for (int32_t p = q->start; p < end; p++, w->n_tok++) {
        bool target = rt_worker_is_target(s, q, p - q->start);

        w->closed &= !target;
        here->take[w->n_tok] = rt_worker_word(w, s->history + p);
        here->pos[w->n_tok] = p;
        here->kv_index[w->n_tok] =
            s->table_here[p / block_tokens] * block_tokens + p % block_tokens;
        if (target || (sampled && p >= end - 1 - q->n_draft))
            here->rows[w->n_wanted++] = w->n_tok;
    }
    return TP_OK;
}

/* Chooses the layout that the plan's tokens fit. */
static tp_status choose_layout(rt_worker *w, rt_plan_reader r)
{
    int64_t n_tok = 0;

    if (r.header.n_seq > (uint32_t)w->opt.n_slots)
        return TP_FAIL(TP_ERR_FORMAT, "step plan with %u sequences, %d slots", r.header.n_seq,
                       w->opt.n_slots);
    for (uint32_t i = 0; i < r.header.n_seq; i++) {
        const int32_t *blocks;
        rt_plan_seq q;

        TP_TRY(rt_plan_read_seq(&r, &q, &blocks));
        if (q.n_new < 1)
            return TP_FAIL(TP_ERR_FORMAT, "step plan: %d tokens of slot %d", q.n_new, q.slot);
        n_tok += q.n_new;
    }
    if (n_tok > w->opt.max_tokens)
        return TP_FAIL(TP_ERR_FORMAT, "step plan with %lld tokens, at most %d", (long long)n_tok,
                       w->opt.max_tokens);
    w->step = n_tok <= w->few.tokens ? &w->few : &w->many;
    return TP_OK;
}

/* Everything that the step reads goes to the backend, and where it belongs. */
static tp_status send_step(rt_worker *w)
{
    const rt_step_in *there = &w->step->there;
    int n_updates = w->n_updates;

    TP_TRY(w->be->ops->put(w->be, w->step_there, w->step_here, w->step->bytes));
    w->n_updates = 0;
    return kern_scatter(w->be, &(kern_scatter_args){.out = w->words.history,
                                                    .in = there->update,
                                                    .idx = there->update_at,
                                                    .n = n_updates});
}

/* ---- one step ---- */

static tp_status apply_slots(rt_worker *w, rt_plan_reader *r)
{
    for (uint32_t i = 0; i < r->header.n_close; i++) {
        rt_slot *s;

        TP_TRY(find_slot(w, r->closes[i], true, &s));
        s->open = false;
        drop_updates(w, s);
    }
    for (uint32_t i = 0; i < r->header.n_copy; i++)
        TP_TRY(w->be->ops->kv_copy_block(w->be, w->kv, r->copies[i].dst, r->copies[i].src));
    for (uint32_t i = 0; i < r->header.n_open; i++) {
        rt_plan_open_view v;

        TP_TRY(rt_plan_read_open(r, &v));
        TP_TRY(open_slot(w, &v));
    }
    return TP_OK;
}

static tp_status forward(rt_worker *w)
{
    const rt_step_in *there = &w->step->there;
    int graph;
    bool recorded = rt_worker_fits_graph(w, &graph);

    TP_TRY(send_step(w));
    if (recorded)
        return rt_worker_launch_graph(w, graph);
    TP_TRY(kern_take(
        w->be, &(kern_take_args){
                   .out = w->ids, .in = w->words.history, .idx = there->take, .n = w->n_tok}));
    return rt_model_forward(w->model, w->kv,
                            &(rt_batch){.n_tok = w->n_tok,
                                        .ids = w->ids,
                                        .pos = there->pos,
                                        .kv_index = there->kv_index,
                                        .n_seqs = w->n_seqs,
                                        .n_decode = w->n_decode,
                                        .max_rows = w->max_rows,
                                        .max_ctx = w->max_ctx,
                                        .seqs = there->seqs,
                                        .block_tables = w->words.tables});
}

/* ---- under way ---- */

static rt_flight *flight(rt_worker *w, uint64_t step)
{
    return &w->flights[step % RT_WORKER_STEPS];
}

int rt_worker_under_way(const rt_worker *w)
{
    return (int)(w->n_issued - w->n_collected);
}

bool rt_worker_has_room(const rt_worker *w)
{
    int n = rt_worker_under_way(w);

    return n == 0 || (w->opt.ahead && n < RT_WORKER_STEPS &&
                      w->flights[(w->n_issued - 1) % RT_WORKER_STEPS].closed);
}

tp_status rt_worker_issue(rt_worker *w, const void *plan, size_t bytes, bool *stop)
{
    rt_flight *f = flight(w, w->n_issued);
    rt_plan_reader r;

    TP_ASSERT(rt_worker_has_room(w));
    w->n_tok = w->n_seqs = w->n_decode = w->max_rows = w->max_ctx = 0;
    w->n_rows = w->n_wanted = w->n_flushed = w->n_draft = 0;
    w->logits = NULL;
    w->closed = rt_sampler_draws(w->sampler);
    TP_TRY(rt_plan_open_reader(&r, plan, bytes));
    *stop = (r.header.flags & RT_PLAN_STOP) != 0;
    TP_TRY(apply_slots(w, &r));
    TP_TRY(choose_layout(w, r));
    f->seqs = r;
    f->n_rows = 0;
    for (uint32_t i = 0; i < r.header.n_seq; i++) {
        const int32_t *blocks;
        rt_plan_seq q;

        TP_TRY(rt_plan_read_seq(&r, &q, &blocks));
        TP_TRY(add_tokens(w, &q, blocks, (int)r.header.n_seq));
    }
    f->closed = w->closed;
    if (w->n_tok > 0)
        TP_TRY(forward(w));
    if (f->closed)
        TP_TRY(rt_worker_draw(w, f, (int)(w->n_issued % RT_WORKER_STEPS)));
    w->n_issued++;
    return TP_OK;
}

tp_status rt_worker_collect(rt_worker *w)
{
    rt_flight *f = flight(w, w->n_collected);

    TP_ASSERT(rt_worker_under_way(w) > 0);
    w->n_results = 0;
    if (f->closed)
        TP_TRY(rt_worker_fetch(w, f, (int)(w->n_collected % RT_WORKER_STEPS)));
    else
        TP_TRY(rt_worker_sample(w, f));
    w->n_collected++;
    return TP_OK;
}

const rt_step_result *rt_worker_results(const rt_worker *w, int *n)
{
    *n = w->n_results;
    return w->results;
}
