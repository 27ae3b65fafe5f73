/* SPDX-License-Identifier: Apache-2.0 */
/* worker.c - plan in, forward pass, sampling, results out.
 *
 * Within a step: slots close, blocks are copied, slots open, the sequences' new tokens are laid out in one batch, the
 * model runs once, and the rows that were asked for are sampled in blocks of RT_LOGIT_ROWS_MAX.  A sampled token is
 * appended to its slot's history: the next step reads it from there.
 */
#include "runtime/sched/worker.h"

#include <string.h>

#include "base/mem.h"
#include "runtime/sample/sample.h"

typedef struct slot {
    bool open;
    rt_slot_params params;
    int32_t *history; /* borrowed from worker.history: [max_model_len] */
    int32_t *table;   /* borrowed from worker.tables: [blocks_max] */
    int32_t n_prompt, n_history, n_table;
    int32_t n_bias, n_allowed, n_forbidden;
    bool has_allowed;
    int32_t bias_ids[RT_BIAS_MAX];
    float bias[RT_BIAS_MAX];
    int32_t allowed[RT_ALLOWED_MAX];
    int32_t forbidden[RT_STOP_IDS_MAX + RT_EOS_MAX];
} slot;

struct rt_worker {
    rt_worker_options opt;
    rt_model *model;     /* borrowed */
    kern_backend *be;    /* borrowed */
    kern_kv *kv;         /* borrowed */
    rt_sampler *sampler; /* owned */
    int32_t blocks_max;  /* table entries per slot */
    slot *slots;         /* owned; [n_slots] */
    int32_t *history;    /* owned; [n_slots, max_model_len] */
    int32_t *tables;     /* owned; [n_slots, blocks_max] */
    /* the batch of one step, owned */
    int32_t *ids, *pos, *kv_index; /* [max_tokens] */
    kern_attn_seq *seqs;           /* [n_slots] */
    rt_sample_row *rows;           /* [RT_LOGIT_ROWS_MAX] */
    int32_t *row_slot;             /* [RT_LOGIT_ROWS_MAX] */
    int n_rows;                    /* waiting in rows */
    int n_tok, n_seqs;
    rt_step_result *results; /* [max_tokens + n_slots] */
    int n_results;
};

static int32_t blocks_per_seq(const rt_worker_options *o)
{
    return (int32_t)((o->max_model_len + o->block_tokens - 1) / o->block_tokens);
}

int64_t rt_worker_bytes(const rt_worker_options *o)
{
    int64_t slots = o->n_slots, tokens = o->max_tokens;

    return slots * (int64_t)(sizeof(slot) + sizeof(kern_attn_seq)) +
           slots * o->max_model_len * (int64_t)sizeof(int32_t) +
           slots * blocks_per_seq(o) * (int64_t)sizeof(int32_t) +
           tokens * 3 * (int64_t)sizeof(int32_t) +
           (tokens + slots) * (int64_t)sizeof(rt_step_result);
}

static tp_status allocate(rt_worker *w)
{
    size_t slots = (size_t)w->opt.n_slots, tokens = (size_t)w->opt.max_tokens;

    w->slots = tp_calloc(slots, sizeof *w->slots);
    w->history = tp_calloc(slots * (size_t)w->opt.max_model_len, sizeof *w->history);
    w->tables = tp_calloc(slots * (size_t)w->blocks_max, sizeof *w->tables);
    w->ids = tp_calloc(tokens, sizeof *w->ids);
    w->pos = tp_calloc(tokens, sizeof *w->pos);
    w->kv_index = tp_calloc(tokens, sizeof *w->kv_index);
    w->seqs = tp_calloc(slots, sizeof *w->seqs);
    w->rows = tp_calloc(RT_LOGIT_ROWS_MAX, sizeof *w->rows);
    w->row_slot = tp_calloc(RT_LOGIT_ROWS_MAX, sizeof *w->row_slot);
    w->results = tp_calloc(tokens + slots, sizeof *w->results);
    if (w->slots == NULL || w->history == NULL || w->tables == NULL || w->ids == NULL ||
        w->pos == NULL || w->kv_index == NULL || w->seqs == NULL || w->rows == NULL ||
        w->row_slot == NULL || w->results == NULL)
        return TP_FAIL(TP_ERR_NOMEM,
                       "%d sequence slots of %lld tokens: lower --max-num-seqs or --max-model-len",
                       w->opt.n_slots, (long long)w->opt.max_model_len);
    for (size_t i = 0; i < slots; i++) {
        w->slots[i].history = w->history + i * (size_t)w->opt.max_model_len;
        w->slots[i].table = w->tables + i * (size_t)w->blocks_max;
    }
    return TP_OK;
}

tp_status rt_worker_create(rt_worker **out, const rt_worker_options *o, const rt_config *c,
                           const rt_shard *s, rt_model *m, kern_backend *be, kern_kv *kv,
                           comm_group *g)
{
    rt_worker *w = tp_calloc(1, sizeof *w);
    tp_status st;

    if (w == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "worker");
    w->opt = *o;
    w->model = m;
    w->be = be;
    w->kv = kv;
    w->blocks_max = blocks_per_seq(o);
    TP_TRY_GOTO(st, allocate(w), fail);
    TP_TRY_GOTO(st, rt_sampler_create(&w->sampler, c, s, be, g), fail);
    *out = w;
    return TP_OK;
fail:
    rt_worker_destroy(w);
    return st;
}

void rt_worker_destroy(rt_worker *w)
{
    if (w == NULL)
        return;
    rt_sampler_destroy(w->sampler);
    tp_free(w->slots);
    tp_free(w->history);
    tp_free(w->tables);
    tp_free(w->ids);
    tp_free(w->pos);
    tp_free(w->kv_index);
    tp_free(w->seqs);
    tp_free(w->rows);
    tp_free(w->row_slot);
    tp_free(w->results);
    tp_free(w);
}

const rt_step_result *rt_worker_results(const rt_worker *w, int *n)
{
    *n = w->n_results;
    return w->results;
}

/* ---- slots ---- */

static tp_status find_slot(rt_worker *w, int32_t index, bool open, slot **out)
{
    if (index < 0 || index >= w->opt.n_slots || w->slots[index].open != open)
        return TP_FAIL(TP_ERR_FORMAT, "step plan names slot %d, which is not %s", index,
                       open ? "open" : "free");
    *out = &w->slots[index];
    return TP_OK;
}

static tp_status open_slot(rt_worker *w, const rt_plan_open_view *v)
{
    const rt_plan_open *h = &v->head;
    slot *s;

    TP_TRY(find_slot(w, h->slot, false, &s));
    if (h->n_prompt > w->opt.max_model_len || h->n_bias > RT_BIAS_MAX ||
        h->n_allowed > RT_ALLOWED_MAX || h->n_forbidden > (int32_t)TP_ARRAY_LEN(s->forbidden))
        return TP_FAIL(TP_ERR_FORMAT, "step plan opens slot %d beyond its limits", h->slot);
    s->open = true;
    s->params = h->params;
    s->n_prompt = s->n_history = h->n_prompt;
    s->n_table = 0;
    s->n_bias = h->n_bias;
    s->n_allowed = h->n_allowed;
    s->n_forbidden = h->n_forbidden;
    s->has_allowed = h->has_allowed != 0;
    memcpy(s->history, v->prompt, sizeof *s->history * (size_t)h->n_prompt);
    memcpy(s->bias_ids, v->bias_ids, sizeof *s->bias_ids * (size_t)h->n_bias);
    memcpy(s->bias, v->bias, sizeof *s->bias * (size_t)h->n_bias);
    memcpy(s->allowed, v->allowed, sizeof *s->allowed * (size_t)h->n_allowed);
    memcpy(s->forbidden, v->forbidden, sizeof *s->forbidden * (size_t)h->n_forbidden);
    return TP_OK;
}

/* ---- the batch ---- */

static tp_status extend_table(rt_worker *w, slot *s, const rt_plan_seq *q, const int32_t *blocks)
{
    if (q->table_keep < 0 || q->table_keep > s->n_table ||
        q->n_blocks > w->blocks_max - q->table_keep)
        return TP_FAIL(TP_ERR_FORMAT, "step plan: block table of slot %d does not fit", q->slot);
    memcpy(s->table + q->table_keep, blocks, sizeof *blocks * (size_t)q->n_blocks);
    s->n_table = q->table_keep + q->n_blocks;
    for (int32_t i = 0; i < q->n_blocks; i++)
        if (blocks[i] < 0 || blocks[i] >= w->opt.n_blocks)
            return TP_FAIL(TP_ERR_FORMAT, "step plan: slot %d with block %d of %d", q->slot,
                           blocks[i], w->opt.n_blocks);
    return TP_OK;
}

/* Lays the new tokens of one sequence out behind those already there. */
static tp_status add_tokens(rt_worker *w, const rt_plan_seq *q, const int32_t *blocks)
{
    int32_t end = q->start + q->n_new, block_tokens = w->opt.block_tokens;
    slot *s;

    TP_TRY(find_slot(w, q->slot, true, &s));
    TP_TRY(extend_table(w, s, q, blocks));
    if (q->start < 0 || q->n_new < 1 || end > s->n_history || end > s->n_table * block_tokens ||
        w->n_tok + q->n_new > w->opt.max_tokens || w->n_seqs >= w->opt.n_slots)
        return TP_FAIL(TP_ERR_FORMAT, "step plan: positions %d..%d of slot %d are not there",
                       q->start, end, q->slot);
    w->seqs[w->n_seqs++] = (kern_attn_seq){
        .row = w->n_tok, .n_rows = q->n_new, .ctx = end, .table = (int32_t)(s->table - w->tables)};
    for (int32_t p = q->start; p < end; p++, w->n_tok++) {
        w->ids[w->n_tok] = s->history[p];
        w->pos[w->n_tok] = p;
        w->kv_index[w->n_tok] = s->table[p / block_tokens] * block_tokens + p % block_tokens;
    }
    return TP_OK;
}

/* ---- sampling ---- */

/* Samples the rows that wait, appends drawn tokens to their slots, and records the results. */
static tp_status flush_rows(rt_worker *w)
{
    TP_TRY(rt_sampler_run(w->sampler, w->model, w->rows, w->n_rows));
    for (int i = 0; i < w->n_rows; i++) {
        const rt_sample_row *r = &w->rows[i];
        slot *s = &w->slots[w->row_slot[i]];
        rt_step_result *res = &w->results[w->n_results++];

        res->slot = w->row_slot[i];
        res->is_prompt = r->target >= 0;
        res->token = r->token;
        res->logprob = r->logprob;
        res->n_top = r->n_top;
        memcpy(res->top, r->top, sizeof *r->top * (size_t)r->n_top);
        /* Something stands in for a token that could not be drawn: the next step, already planned, counts on it. */
        if (!res->is_prompt && s->n_history < w->opt.max_model_len)
            s->history[s->n_history++] = r->token >= 0 ? r->token : 0;
    }
    w->n_rows = 0;
    return TP_OK;
}

static tp_status want_row(rt_worker *w, int32_t slot_index, const rt_sample_row *row)
{
    w->rows[w->n_rows] = *row;
    w->row_slot[w->n_rows++] = slot_index;
    return w->n_rows == RT_LOGIT_ROWS_MAX ? flush_rows(w) : TP_OK;
}

static tp_status sample_seq(rt_worker *w, const rt_plan_seq *q, int32_t row)
{
    slot *s = &w->slots[q->slot];
    int32_t generated = s->n_history - s->n_prompt;
    rt_sample_row r = {.params = &s->params};

    for (int32_t i = 0; i < q->n_new; i++) {
        int32_t next = q->start + i + 1;

        if (q->start + i < q->lp_start || next >= s->n_prompt)
            continue;
        r.row = row + i;
        r.target = s->history[next];
        r.n_logprobs = s->params.n_prompt_logprobs;
        TP_TRY(want_row(w, q->slot, &r));
    }
    if ((q->flags & RT_SEQ_SAMPLE) == 0)
        return TP_OK;
    r = (rt_sample_row){.row = row + q->n_new - 1,
                        .params = &s->params,
                        .history = s->history,
                        .n_prompt = s->n_prompt,
                        .n_history = s->n_history,
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
    return want_row(w, q->slot, &r);
}

/* ---- one step ---- */

static tp_status apply_slots(rt_worker *w, rt_plan_reader *r)
{
    for (uint32_t i = 0; i < r->header.n_close; i++) {
        slot *s;

        TP_TRY(find_slot(w, r->closes[i], true, &s));
        s->open = false;
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

tp_status rt_worker_execute(rt_worker *w, const void *plan, size_t bytes, bool *stop)
{
    rt_plan_reader r, sampling;
    const int32_t *blocks;
    rt_plan_seq q;
    int32_t row = 0;

    w->n_tok = w->n_seqs = w->n_rows = w->n_results = 0;
    TP_TRY(rt_plan_open_reader(&r, plan, bytes));
    *stop = (r.header.flags & RT_PLAN_STOP) != 0;
    TP_TRY(apply_slots(w, &r));
    sampling = r;
    for (uint32_t i = 0; i < r.header.n_seq; i++) {
        TP_TRY(rt_plan_read_seq(&r, &q, &blocks));
        TP_TRY(add_tokens(w, &q, blocks));
    }
    if (w->n_tok == 0)
        return TP_OK;
    TP_TRY(rt_model_forward(w->model, w->kv,
                            &(rt_batch){.n_tok = w->n_tok,
                                        .ids = w->ids,
                                        .pos = w->pos,
                                        .kv_index = w->kv_index,
                                        .n_seqs = w->n_seqs,
                                        .seqs = w->seqs,
                                        .block_tables = w->tables}));
    for (uint32_t i = 0; i < r.header.n_seq; i++) {
        TP_TRY(rt_plan_read_seq(&sampling, &q, &blocks));
        TP_TRY(sample_seq(w, &q, row));
        row += q.n_new;
    }
    return flush_rows(w);
}
