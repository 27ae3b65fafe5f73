/* SPDX-License-Identifier: Apache-2.0 */
/* worker.c - plan in, forward pass, sampling, results out.
 *
 * Within a step: slots close, blocks are copied, slots open, the sequences' new tokens are laid out in one batch, the
 * model runs once, and the rows that were asked for are sampled in blocks of RT_LOGIT_ROWS_MAX.
 *
 * What a slot holds lies in the backend's memory: its tokens, its block table, its lists for sampling.  The host keeps
 * lengths, a copy of the block tables (positions become places in the cache here) and of those prompts whose logprobs
 * are wanted.  A prompt goes there when its slot opens.  Everything else that a step reads is written into one step
 * buffer, which goes over in one copy: single words that changed (tokens drawn in the step before, new blocks), which
 * kern_scatter then puts in their places; and the batch, whose token ids kern_take picks out of the histories.  So a
 * drawn token reaches the backend with the next step, and the prompt of a step needs nothing from it.
 * Where the backend's memory is the host's, the step buffer is written in place.
 *
 * The step buffer has two layouts over the same memory, so that steps with few tokens copy few bytes.
 */
#include "runtime/sched/worker.h"

#include <string.h>

#include "base/mem.h"
#include "runtime/sample/sample.h"
#include "runtime/slab.h"

#define FORBIDDEN_MAX  (RT_STOP_IDS_MAX + RT_EOS_MAX)
#define FEW_TOKENS_MIN 64

typedef struct slot {
    bool open;
    rt_slot_params params;
    /* borrowed; memory of the backend */
    int32_t *history;   /* [max_model_len] */
    int32_t *table;     /* [blocks_max] */
    int32_t *bias_ids;  /* [RT_BIAS_MAX] */
    float *bias;        /* [RT_BIAS_MAX] */
    int32_t *allowed;   /* [RT_ALLOWED_MAX] */
    int32_t *forbidden; /* [FORBIDDEN_MAX] */
    /* borrowed; memory of the host */
    int32_t *table_here;  /* [blocks_max] */
    int32_t *prompt_here; /* [max_model_len]; filled when logprobs of the prompt are wanted */
    int32_t n_prompt, n_history, n_table;
    int32_t n_bias, n_allowed, n_forbidden;
    bool has_allowed;
} slot;

/* The slots' memory of the backend: words, so that one kern_scatter reaches all of it. */
typedef struct words {
    int32_t *history;   /* [n_slots, max_model_len] */
    int32_t *tables;    /* [n_slots, blocks_max] */
    int32_t *bias_ids;  /* [n_slots, RT_BIAS_MAX] */
    float *bias;        /* [n_slots, RT_BIAS_MAX] */
    int32_t *allowed;   /* [n_slots, RT_ALLOWED_MAX] */
    int32_t *forbidden; /* [n_slots, FORBIDDEN_MAX] */
} words;

/* What a step reads.  The updates come first: they have the same places in both layouts. */
typedef struct step {
    int32_t *update_at, *update; /* [updates_max] word of the slots' memory, or -1; its new value */
    kern_attn_seq *seqs;         /* [n_slots] */
    int32_t *rows;           /* [tokens] rows of the forward pass that are sampled or looked up */
    int32_t *take;           /* [tokens] word of the slots' memory that holds the id */
    int32_t *pos, *kv_index; /* [tokens] */
} step;

typedef struct step_layout {
    step here, there; /* the staging copy; memory of the backend */
    size_t bytes;
    int tokens; /* at most */
} step_layout;

struct rt_worker {
    rt_worker_options opt;
    rt_model *model;                     /* borrowed */
    kern_backend *be;                    /* borrowed */
    kern_kv *kv;                         /* borrowed */
    rt_sampler *sampler;                 /* owned */
    int32_t blocks_max;                  /* table entries per slot */
    slot *slots;                         /* owned; [n_slots] */
    int32_t *tables_here, *prompts_here; /* owned; [n_slots, ..] */
    void *memory;                        /* owned; of the backend: words, step, ids */
    words words;
    char *step_there; /* step buffer */
    int32_t *ids;     /* [max_tokens]; of the backend */
    char *step_here;  /* owned on a device; else step_there */
    step_layout few, many;
    /* the batch of one step */
    const step_layout *step;
    int n_updates; /* already there for the next step: the tokens that were drawn */
    int n_tok, n_seqs, n_decode, max_rows, max_ctx;
    int n_wanted, n_flushed; /* entries of step.rows; those done */
    rt_sample_row *rows;     /* owned; [RT_LOGIT_ROWS_MAX] */
    int32_t *row_slot;       /* owned; [RT_LOGIT_ROWS_MAX] */
    int n_rows;              /* waiting in rows */
    rt_step_result *results; /* owned; [max_tokens + n_slots] */
    int n_results;
};

static int32_t blocks_per_seq(const rt_worker_options *o)
{
    return (int32_t)((o->max_model_len + o->block_tokens - 1) / o->block_tokens);
}

/* ---- memory ---- */

static void place_words(words *w, const rt_worker_options *o, rt_slab *slab)
{
    int64_t n = o->n_slots;

    w->history = rt_slab_take(slab, n * o->max_model_len, sizeof(int32_t));
    w->tables = rt_slab_take(slab, n * blocks_per_seq(o), sizeof(int32_t));
    w->bias_ids = rt_slab_take(slab, n * RT_BIAS_MAX, sizeof(int32_t));
    w->bias = rt_slab_take(slab, n * RT_BIAS_MAX, sizeof(float));
    w->allowed = rt_slab_take(slab, n * RT_ALLOWED_MAX, sizeof(int32_t));
    w->forbidden = rt_slab_take(slab, n * FORBIDDEN_MAX, sizeof(int32_t));
}

/* Per slot a drawn token and a new block; a sequence with more new blocks has them copied by themselves. */
static int updates_max(const rt_worker_options *o)
{
    return 2 * o->n_slots;
}

static void place_step(step *s, const rt_worker_options *o, int tokens, rt_slab *slab)
{
    s->update_at = rt_slab_take(slab, updates_max(o), sizeof(int32_t));
    s->update = rt_slab_take(slab, updates_max(o), sizeof(int32_t));
    s->seqs = rt_slab_take(slab, o->n_slots, sizeof(kern_attn_seq));
    s->rows = rt_slab_take(slab, tokens, sizeof(int32_t));
    s->take = rt_slab_take(slab, tokens, sizeof(int32_t));
    s->pos = rt_slab_take(slab, tokens, sizeof(int32_t));
    s->kv_index = rt_slab_take(slab, tokens, sizeof(int32_t));
}

static size_t step_bytes(const rt_worker_options *o, int tokens)
{
    rt_slab slab = {0};
    step s;

    place_step(&s, o, tokens, &slab);
    return slab.used;
}

/* Tokens of the smaller layout: a step that only decodes fits. */
static int few_tokens(const rt_worker_options *o)
{
    int n = o->n_slots > FEW_TOKENS_MIN ? o->n_slots : FEW_TOKENS_MIN;

    return n < o->max_tokens ? n : o->max_tokens;
}

static void place(rt_worker *w, const rt_worker_options *o, rt_slab *slab)
{
    place_words(&w->words, o, slab);
    w->step_there = rt_slab_take(slab, (int64_t)step_bytes(o, o->max_tokens), 1);
    w->ids = rt_slab_take(slab, o->max_tokens, sizeof(int32_t));
}

int64_t rt_worker_bytes(const rt_worker_options *o)
{
    rt_slab slab = {0};
    rt_worker w;

    place(&w, o, &slab);
    return (int64_t)slab.used;
}

int64_t rt_worker_host_bytes(const rt_worker_options *o)
{
    int64_t slots = o->n_slots, tokens = o->max_tokens;

    return slots * (int64_t)sizeof(slot) +
           slots * (o->max_model_len + blocks_per_seq(o)) * (int64_t)sizeof(int32_t) +
           (int64_t)step_bytes(o, o->max_tokens) +
           (tokens + slots) * (int64_t)sizeof(rt_step_result);
}

static void lay_out(step_layout *l, const rt_worker *w, int tokens)
{
    rt_slab here = {.base = w->step_here}, there = {.base = w->step_there};

    place_step(&l->here, &w->opt, tokens, &here);
    place_step(&l->there, &w->opt, tokens, &there);
    l->bytes = here.used;
    l->tokens = tokens;
}

static tp_status allocate_there(rt_worker *w)
{
    rt_slab slab = {0};

    place(w, &w->opt, &slab);
    if (slab.used / sizeof(int32_t) > INT32_MAX)
        return TP_FAIL(TP_ERR_INVALID,
                       "%d sequence slots of %lld tokens take more than 8 GiB: lower "
                       "--max-num-seqs or --max-model-len",
                       w->opt.n_slots, (long long)w->opt.max_model_len);
    TP_TRY(w->be->ops->alloc(w->be, slab.used, &w->memory));
    slab = (rt_slab){.base = w->memory};
    place(w, &w->opt, &slab);
    return TP_OK;
}

static tp_status allocate_here(rt_worker *w)
{
    size_t slots = (size_t)w->opt.n_slots, tokens = (size_t)w->opt.max_tokens;

    w->step_here =
        w->be->device ? tp_calloc(1, step_bytes(&w->opt, w->opt.max_tokens)) : w->step_there;
    w->slots = tp_calloc(slots, sizeof *w->slots);
    w->tables_here = tp_calloc(slots * (size_t)w->blocks_max, sizeof *w->tables_here);
    w->prompts_here = tp_calloc(slots * (size_t)w->opt.max_model_len, sizeof *w->prompts_here);
    w->rows = tp_calloc(RT_LOGIT_ROWS_MAX, sizeof *w->rows);
    w->row_slot = tp_calloc(RT_LOGIT_ROWS_MAX, sizeof *w->row_slot);
    w->results = tp_calloc(tokens + slots, sizeof *w->results);
    if (w->step_here == NULL || w->slots == NULL || w->tables_here == NULL ||
        w->prompts_here == NULL || w->rows == NULL || w->row_slot == NULL || w->results == NULL)
        return TP_FAIL(TP_ERR_NOMEM,
                       "%d sequence slots of %lld tokens: lower --max-num-seqs or --max-model-len",
                       w->opt.n_slots, (long long)w->opt.max_model_len);
    return TP_OK;
}

static void init_slots(rt_worker *w)
{
    size_t len = (size_t)w->opt.max_model_len, blocks = (size_t)w->blocks_max;

    for (size_t i = 0; i < (size_t)w->opt.n_slots; i++)
        w->slots[i] = (slot){.history = w->words.history + i * len,
                             .table = w->words.tables + i * blocks,
                             .bias_ids = w->words.bias_ids + i * RT_BIAS_MAX,
                             .bias = w->words.bias + i * RT_BIAS_MAX,
                             .allowed = w->words.allowed + i * RT_ALLOWED_MAX,
                             .forbidden = w->words.forbidden + i * FORBIDDEN_MAX,
                             .table_here = w->tables_here + i * blocks,
                             .prompt_here = w->prompts_here + i * len};
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
    TP_TRY_GOTO(st, allocate_there(w), fail);
    TP_TRY_GOTO(st, allocate_here(w), fail);
    TP_TRY_GOTO(st, rt_sampler_create(&w->sampler, c, s, be, g), fail);
    init_slots(w);
    lay_out(&w->few, w, few_tokens(o));
    lay_out(&w->many, w, o->max_tokens);
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
    if (w->be->device)
        tp_free(w->step_here);
    if (w->memory != NULL)
        w->be->ops->free(w->be, w->memory);
    tp_free(w->slots);
    tp_free(w->tables_here);
    tp_free(w->prompts_here);
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

/* ---- updates ---- */

/* Index of a word of the slots' memory. */
static int32_t word_at(const rt_worker *w, const int32_t *p)
{
    return (int32_t)(p - w->words.history);
}

/* A word that is to change before the next forward pass. */
static void update(rt_worker *w, const int32_t *where, int32_t value)
{
    const step *here = &w->few.here;

    TP_ASSERT(w->n_updates < updates_max(&w->opt));
    here->update_at[w->n_updates] = word_at(w, where);
    here->update[w->n_updates++] = value;
}

/* What waits for a slot that closed must not hit the one that opens in its place. */
static void drop_updates(rt_worker *w, const slot *s)
{
    int32_t first = word_at(w, s->history), end = first + (int32_t)w->opt.max_model_len;
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
        h->n_allowed > RT_ALLOWED_MAX || h->n_forbidden > FORBIDDEN_MAX)
        return TP_FAIL(TP_ERR_FORMAT, "step plan opens slot %d beyond its limits", h->slot);
    s->open = true;
    s->params = h->params;
    s->n_prompt = s->n_history = h->n_prompt;
    s->n_table = 0;
    s->n_bias = h->n_bias;
    s->n_allowed = h->n_allowed;
    s->n_forbidden = h->n_forbidden;
    s->has_allowed = h->has_allowed != 0;
    if (h->params.n_prompt_logprobs >= 0)
        memcpy(s->prompt_here, v->prompt, sizeof *s->prompt_here * (size_t)h->n_prompt);
    TP_TRY(put(w, s->history, v->prompt, h->n_prompt));
    TP_TRY(put(w, s->bias_ids, v->bias_ids, h->n_bias));
    TP_TRY(put(w, s->bias, v->bias, h->n_bias));
    TP_TRY(put(w, s->allowed, v->allowed, h->n_allowed));
    return put(w, s->forbidden, v->forbidden, h->n_forbidden);
}

/* ---- the batch ---- */

static tp_status extend_table(rt_worker *w, slot *s, const rt_plan_seq *q, const int32_t *blocks)
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
    update(w, s->table + q->table_keep, blocks[0]);
    return TP_OK;
}

/* Whether the row of position q->start + i is to be looked up: the logprob of the prompt token behind it. */
static bool is_target(const slot *s, const rt_plan_seq *q, int32_t i)
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

/* Lays the new tokens of one sequence out behind those already there. */
static tp_status add_tokens(rt_worker *w, const rt_plan_seq *q, const int32_t *blocks, int n_seqs)
{
    int32_t end = q->start + q->n_new, block_tokens = w->opt.block_tokens;
    const step *here = &w->step->here;
    kern_attn_seq seq;
    slot *s;

    TP_TRY(find_slot(w, q->slot, true, &s));
    TP_TRY(extend_table(w, s, q, blocks));
    if (q->start < 0 || end > s->n_history || end > s->n_table * block_tokens)
        return TP_FAIL(TP_ERR_FORMAT, "step plan: positions %d..%d of slot %d are not there",
                       q->start, end, q->slot);
    seq = (kern_attn_seq){.row = w->n_tok,
                          .n_rows = q->n_new,
                          .ctx = end,
                          .table = (int32_t)(s->table - w->words.tables)};
    add_seq(w, &seq, n_seqs);
    for (int32_t p = q->start; p < end; p++, w->n_tok++) {
        here->take[w->n_tok] = word_at(w, s->history + p);
        here->pos[w->n_tok] = p;
        here->kv_index[w->n_tok] =
            s->table_here[p / block_tokens] * block_tokens + p % block_tokens;
        if (is_target(s, q, p - q->start) || (p + 1 == end && (q->flags & RT_SEQ_SAMPLE) != 0))
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
    const step *there = &w->step->there;
    int n_updates = w->n_updates;

    TP_TRY(w->be->ops->put(w->be, w->step_there, w->step_here, w->step->bytes));
    w->n_updates = 0;
    TP_TRY(kern_scatter(w->be, &(kern_scatter_args){.out = w->words.history,
                                                    .in = there->update,
                                                    .idx = there->update_at,
                                                    .n = n_updates}));
    return kern_take(w->be,
                     &(kern_take_args){
                         .out = w->ids, .in = w->words.history, .idx = there->take, .n = w->n_tok});
}

/* ---- sampling ---- */

/* Samples the rows that wait, appends drawn tokens to their slots, and records the results. */
static tp_status flush_rows(rt_worker *w)
{
    TP_TRY(rt_sampler_run(w->sampler, w->model, w->step->there.rows + w->n_flushed, w->rows,
                          w->n_rows));
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
            update(w, s->history + s->n_history++, r->token >= 0 ? r->token : 0);
    }
    w->n_flushed += w->n_rows;
    w->n_rows = 0;
    return TP_OK;
}

static tp_status want_row(rt_worker *w, int32_t slot_index, const rt_sample_row *row)
{
    w->rows[w->n_rows] = *row;
    w->row_slot[w->n_rows++] = slot_index;
    return w->n_rows == RT_LOGIT_ROWS_MAX ? flush_rows(w) : TP_OK;
}

static rt_sample_row sampled_row(const slot *s)
{
    int32_t generated = s->n_history - s->n_prompt;

    return (rt_sample_row){.params = &s->params,
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
}

/* The rows that add_tokens() has listed, in the same order. */
static tp_status sample_seq(rt_worker *w, const rt_plan_seq *q)
{
    slot *s = &w->slots[q->slot];
    rt_sample_row r = {.params = &s->params, .n_logprobs = s->params.n_prompt_logprobs};

    for (int32_t i = 0; i < q->n_new; i++) {
        if (!is_target(s, q, i))
            continue;
        r.target = s->prompt_here[q->start + i + 1];
        TP_TRY(want_row(w, q->slot, &r));
    }
    if ((q->flags & RT_SEQ_SAMPLE) == 0)
        return TP_OK;
    r = sampled_row(s);
    return want_row(w, q->slot, &r);
}

/* ---- one step ---- */

static tp_status apply_slots(rt_worker *w, rt_plan_reader *r)
{
    for (uint32_t i = 0; i < r->header.n_close; i++) {
        slot *s;

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
    const step *there = &w->step->there;

    TP_TRY(send_step(w));
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

tp_status rt_worker_execute(rt_worker *w, const void *plan, size_t bytes, bool *stop)
{
    rt_plan_reader r, sampling;
    const int32_t *blocks;
    rt_plan_seq q;

    w->n_tok = w->n_seqs = w->n_decode = w->max_rows = w->max_ctx = 0;
    w->n_rows = w->n_wanted = w->n_flushed = w->n_results = 0;
    TP_TRY(rt_plan_open_reader(&r, plan, bytes));
    *stop = (r.header.flags & RT_PLAN_STOP) != 0;
    TP_TRY(apply_slots(w, &r));
    TP_TRY(choose_layout(w, r));
    sampling = r;
    for (uint32_t i = 0; i < r.header.n_seq; i++) {
        TP_TRY(rt_plan_read_seq(&r, &q, &blocks));
        TP_TRY(add_tokens(w, &q, blocks, (int)r.header.n_seq));
    }
    if (w->n_tok == 0)
        return TP_OK;
    TP_TRY(forward(w));
    for (uint32_t i = 0; i < r.header.n_seq; i++) {
        TP_TRY(rt_plan_read_seq(&sampling, &q, &blocks));
        TP_TRY(sample_seq(w, &q));
    }
    return flush_rows(w);
}
