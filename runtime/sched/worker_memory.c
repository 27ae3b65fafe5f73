/* SPDX-License-Identifier: Apache-2.0 */
/* worker_memory.c - what a worker takes, where it lies, and its end.
 *
 * The backend's part is one block: the slots' words, the step buffer, the ids of a step, the tokens drawn there.
 * Everything is placed by lists that also answer how much it is.
 */
#include <string.h>

#include "base/mem.h"
#include "runtime/sched/worker_impl.h"
#include "runtime/slab.h"

#define FEW_TOKENS_MIN 64

static int32_t blocks_per_seq(const rt_worker_options *o)
{
    return (int32_t)((o->max_model_len + o->block_tokens - 1) / o->block_tokens);
}

/* ---- memory ---- */

static void place_words(rt_words *w, const rt_worker_options *o, rt_slab *slab)
{
    int64_t n = o->n_slots;

    w->history = rt_slab_take(slab, n * o->max_model_len, sizeof(int32_t));
    w->tables = rt_slab_take(slab, n * blocks_per_seq(o), sizeof(int32_t));
    w->bias_ids = rt_slab_take(slab, n * RT_BIAS_MAX, sizeof(int32_t));
    w->bias = rt_slab_take(slab, n * RT_BIAS_MAX, sizeof(float));
    w->allowed = rt_slab_take(slab, n * RT_ALLOWED_MAX, sizeof(int32_t));
    w->forbidden = rt_slab_take(slab, n * RT_FORBIDDEN_MAX, sizeof(int32_t));
}

/* Per slot a drawn token and a new block; a sequence with more new blocks has them copied by themselves.  Tokens of drafts,
 * and those that the step before drew because its drafts came true. */
int rt_worker_updates_max(const rt_worker_options *o)
{
    return 2 * o->n_slots + (o->draft_max > 0 ? 2 * RT_DRAFT_STEP_MAX : 0);
}

static void place_step(rt_step_in *s, const rt_worker_options *o, int tokens, rt_slab *slab)
{
    s->update_at = rt_slab_take(slab, rt_worker_updates_max(o), sizeof(int32_t));
    s->update = rt_slab_take(slab, rt_worker_updates_max(o), sizeof(int32_t));
    s->seqs = rt_slab_take(slab, o->n_slots, sizeof(kern_attn_seq));
    s->rows = rt_slab_take(slab, tokens, sizeof(int32_t));
    s->take = rt_slab_take(slab, tokens, sizeof(int32_t));
    s->pos = rt_slab_take(slab, tokens, sizeof(int32_t));
    s->kv_index = rt_slab_take(slab, tokens, sizeof(int32_t));
}

static size_t step_bytes(const rt_worker_options *o, int tokens)
{
    rt_slab slab = {0};
    rt_step_in s;

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
    w->tokens = rt_slab_take(slab, o->n_slots, sizeof(int32_t));
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

    return slots * (int64_t)sizeof(rt_slot) +
           slots * (o->max_model_len + blocks_per_seq(o)) * (int64_t)sizeof(int32_t) +
           (int64_t)step_bytes(o, o->max_tokens) +
           (1 + RT_WORKER_STEPS) * slots * (int64_t)sizeof(int32_t) +
           (tokens + slots) * (int64_t)sizeof(rt_step_result);
}

static void lay_out(rt_step_layout *l, const rt_worker *w, int tokens)
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

static bool allocate_flights(rt_worker *w)
{
    for (int i = 0; i < RT_WORKER_STEPS; i++) {
        w->flights[i].row_slot = tp_calloc((size_t)w->opt.n_slots, sizeof *w->flights[i].row_slot);
        if (w->flights[i].row_slot == NULL)
            return false;
    }
    return true;
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
    w->tokens_here = tp_calloc(slots, sizeof *w->tokens_here);
    if (w->step_here == NULL || w->slots == NULL || w->tables_here == NULL ||
        w->prompts_here == NULL || w->rows == NULL || w->row_slot == NULL || w->results == NULL ||
        w->tokens_here == NULL || !allocate_flights(w))
        return TP_FAIL(TP_ERR_NOMEM,
                       "%d sequence slots of %lld tokens: lower --max-num-seqs or --max-model-len",
                       w->opt.n_slots, (long long)w->opt.max_model_len);
    return TP_OK;
}

static void init_slots(rt_worker *w)
{
    size_t len = (size_t)w->opt.max_model_len, blocks = (size_t)w->blocks_max;

    for (size_t i = 0; i < (size_t)w->opt.n_slots; i++)
        w->slots[i] = (rt_slot){.history = w->words.history + i * len,
                                .table = w->words.tables + i * blocks,
                                .bias_ids = w->words.bias_ids + i * RT_BIAS_MAX,
                                .bias = w->words.bias + i * RT_BIAS_MAX,
                                .allowed = w->words.allowed + i * RT_ALLOWED_MAX,
                                .forbidden = w->words.forbidden + i * RT_FORBIDDEN_MAX,
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
    w->group = g;
    w->vocab = c->vocab;
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
    rt_worker_destroy_graphs(w);
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
    tp_free(w->tokens_here);
    for (int i = 0; i < RT_WORKER_STEPS; i++)
        tp_free(w->flights[i].row_slot);
    tp_free(w);
}
