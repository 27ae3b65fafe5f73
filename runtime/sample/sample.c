/* SPDX-License-Identifier: Apache-2.0 */
/* sample.c - drawing: what every rank does, alike, with the numbers that message.c has gathered.
 *
 *   1. measure   on the backend: raw statistics, adjusting in place, candidates; one copy to the host, one all-gather
 *                (message.c)
 *   2. draw      by kind of row:
 *                  greedy    the best candidate of each rank
 *                  filtered  CANDIDATES best of each rank (top_k, top_p, min_p), and chunk sums where top_p needs the
 *                            mass of the whole vocabulary
 *                  plain     temperature only: per chunk its mass and a token already drawn inside it
 *                A filtered row whose candidates do not decide is gathered whole.
 *   3. fetch     the raw logit of the drawn token where adjusting has hidden it: the head runs once more
 *
 * A merged candidate list is exact down to the best of the last entries of the ranks' full lists: beyond that a rank
 * may hold a better one that it did not send.
 */
#include "runtime/sample/sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/philox.h"
#include "runtime/sample/message.h"
#include "runtime/slab.h"

#define STREAM_CHUNK 1 /* philox streams; 0 belongs to kern_chunk_stats */
#define STREAM_LIST  2

static size_t merged_len(const rt_sampler *s)
{
    size_t lists = (size_t)s->n_ranks * RT_CANDIDATES;

    return lists > (size_t)s->vocab ? lists : (size_t)s->vocab;
}

/* ---- life ---- */

/* What every rank holds of the vocabulary: the shard plan is a closed formula, so nobody need be asked. */
static tp_status describe_ranks(rt_sampler *s, const rt_config *c)
{
    for (int r = 0; r < s->n_ranks; r++) {
        int32_t chunks;
        rt_shard sh;

        TP_TRY(rt_shard_plan(&sh, c, s->n_ranks, r, c->dtype, c->dtype));
        chunks = (sh.n_vocab_local + sh.vocab_chunk - 1) / sh.vocab_chunk;
        s->rank_chunks[r] = chunks;
        s->rank_local[r] = sh.n_vocab_local;
        s->n_chunks_max = chunks > s->n_chunks_max ? chunks : s->n_chunks_max;
        s->n_local_max = sh.n_vocab_local > s->n_local_max ? sh.n_vocab_local : s->n_local_max;
    }
    return TP_OK;
}

static void place_there(rt_sampler *s, rt_slab *slab)
{
    s->in_there = rt_slab_take(slab, 1, sizeof *s->in_there);
    s->out = rt_slab_take(slab, (int64_t)s->message_bytes, 1);
    s->chunk_scratch =
        rt_slab_take(slab, (int64_t)s->be->n_threads * s->chunk_tokens, sizeof(float));
    s->adjust_scratch = rt_slab_take(slab, s->n_local, sizeof(int32_t));
    if (s->be->device) {
        s->ranks_there = rt_slab_take(slab, s->n_ranks, sizeof *s->ranks_there);
        s->logit_there = rt_slab_take(slab, RT_LOGIT_ROWS_MAX, sizeof *s->logit_there);
        s->gathered = s->n_ranks == 1
                          ? s->out
                          : rt_slab_take(slab, (int64_t)s->gathered_bytes, (size_t)s->n_ranks);
    }
}

static tp_status allocate_there(rt_sampler *s)
{
    rt_slab slab = {0};

    place_there(s, &slab);
    TP_TRY(s->be->ops->alloc(s->be, slab.used, &s->memory));
    slab = (rt_slab){.base = s->memory};
    place_there(s, &slab);
    return TP_OK;
}

static tp_status allocate(rt_sampler *s)
{
    size_t ranks = (size_t)s->n_ranks;
    bool device = s->be->device;

    s->message_bytes = rt_message_bytes_max(s);
    s->gathered_bytes = rt_message_bytes_drawn(s);
    TP_TRY(allocate_there(s));
    s->in = device ? tp_calloc(1, sizeof *s->in) : s->in_there;
    s->send = device ? tp_calloc(1, s->message_bytes) : s->out;
    s->recv = tp_calloc(ranks, s->message_bytes);
    s->merged = tp_calloc(merged_len(s), sizeof *s->merged);
    s->row_send = tp_calloc((size_t)s->n_local_max, sizeof *s->row_send);
    s->row_all = tp_calloc(ranks * (size_t)s->n_local_max, sizeof *s->row_all);
    s->raw_lse = tp_calloc(RT_LOGIT_ROWS_MAX, sizeof *s->raw_lse);
    if (s->in == NULL || s->send == NULL || s->recv == NULL || s->merged == NULL ||
        s->row_send == NULL || s->row_all == NULL || s->raw_lse == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "sampler buffers for a vocabulary of %d", s->vocab);
    return TP_OK;
}

static void describe(rt_sampler *s, const rt_config *c, const rt_shard *sh, kern_backend *be)
{
    s->be = be;
    s->n_ranks = sh->n_ranks;
    s->vocab = c->vocab;
    s->vocab_first = sh->vocab_first;
    s->n_local = sh->n_vocab_local;
    s->chunk_tokens = sh->vocab_chunk;
    s->n_chunks = (s->n_local + s->chunk_tokens - 1) / s->chunk_tokens;
}

tp_status rt_sampler_create(rt_sampler **out, const rt_config *c, const rt_shard *sh,
                            kern_backend *be, comm_group *g)
{
    rt_sampler *s = tp_calloc(1, sizeof *s);
    tp_status st;

    if (s == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "sampler");
    describe(s, c, sh, be);
    s->group = g;
    s->rank_chunks = tp_calloc((size_t)s->n_ranks, sizeof *s->rank_chunks);
    s->rank_local = tp_calloc((size_t)s->n_ranks, sizeof *s->rank_local);
    if (s->rank_chunks == NULL || s->rank_local == NULL) {
        rt_sampler_destroy(s);
        return TP_FAIL(TP_ERR_NOMEM, "sampler tables");
    }
    TP_TRY_GOTO(st, describe_ranks(s, c), fail);
    TP_TRY_GOTO(st, allocate(s), fail);
    TP_TRY_GOTO(st, rt_sampler_prepare_draws(s), fail);
    *out = s;
    return TP_OK;
fail:
    rt_sampler_destroy(s);
    return st;
}

void rt_sampler_destroy(rt_sampler *s)
{
    if (s == NULL)
        return;
    if (s->be->device) {
        tp_free(s->in);
        tp_free(s->send);
    }
    if (s->memory != NULL)
        s->be->ops->free(s->be, s->memory);
    tp_free(s->rank_chunks);
    tp_free(s->rank_local);
    tp_free(s->recv);
    tp_free(s->merged);
    tp_free(s->row_send);
    tp_free(s->row_all);
    tp_free(s->raw_lse);
    tp_free(s);
}

/* A sampler of this shape, with nothing in it.  be: of the sizes only. */
static rt_sampler shape_of(const rt_config *c, const rt_shard *sh, kern_backend *be)
{
    rt_sampler s = {0};

    describe(&s, c, sh, be);
    s.n_chunks_max = s.n_chunks;
    s.n_local_max = s.n_local;
    s.message_bytes = rt_message_bytes_max(&s);
    s.gathered_bytes = rt_message_bytes_drawn(&s);
    return s;
}

int64_t rt_sampler_bytes(const rt_config *c, const rt_shard *sh, const kern_backend *be)
{
    kern_backend copy = *be;
    rt_sampler s = shape_of(c, sh, &copy);
    rt_slab slab = {0};

    place_there(&s, &slab);
    return (int64_t)slab.used;
}

int64_t rt_sampler_host_bytes(const rt_config *c, const rt_shard *sh, const kern_backend *be)
{
    kern_backend copy = *be;
    rt_sampler s = shape_of(c, sh, &copy);
    size_t ranks = (size_t)sh->n_ranks;
    size_t staged = be->device ? sizeof *s.in + s.message_bytes : 0;

    return (int64_t)(staged + ranks * s.message_bytes + merged_len(&s) * sizeof(rt_cand) +
                     (1 + ranks) * (size_t)s.n_local * sizeof(float));
}

/* ---- sums over the vocabulary ---- */

/* Sum over all chunks of exp((l - top) * inv_temp), in chunk order. */
static double chunk_total(const rt_sampler *s, const rt_message *m, size_t section, int i,
                          double top, double inv_temp)
{
    double total = 0;

    for (int r = 0; r < s->n_ranks; r++) {
        const kern_chunk_stat *c = rt_message_stats(s, m, section, r, i);

        for (int j = 0; j < s->rank_chunks[r]; j++)
            if (c[j].pick >= 0)
                total += exp(((double)c[j].max - top) * inv_temp) * (double)c[j].sum;
    }
    return total;
}

static double chunk_max(const rt_sampler *s, const rt_message *m, size_t section, int i)
{
    double top = -INFINITY;

    for (int r = 0; r < s->n_ranks; r++) {
        const kern_chunk_stat *c = rt_message_stats(s, m, section, r, i);

        for (int j = 0; j < s->rank_chunks[r]; j++)
            if (c[j].pick >= 0 && (double)c[j].max > top)
                top = (double)c[j].max;
    }
    return top;
}

/* ---- raw logprobs ---- */

static void report_top(rt_sampler *s, rt_sample_row *r, int n_known, double lse)
{
    r->n_top = r->n_logprobs < n_known ? r->n_logprobs : n_known;
    for (int j = 0; j < r->n_top; j++)
        r->top[j] =
            (rt_logprob){.id = s->merged[j].id, .logprob = (float)((double)s->merged[j].val - lse)};
}

static void report_raw(rt_sampler *s, const rt_message *m, rt_sample_row *rows)
{
    for (int i = 0; i < m->raw.n; i++) {
        rt_sample_row *r = &rows[m->raw.at[i]];
        double top = chunk_max(s, m, m->raw_stats, i);
        double lse = top + log(chunk_total(s, m, m->raw_stats, i, top, 1.0));
        bool complete;

        report_top(
            s, r, rt_message_merge(s, m, m->raw_best, &m->raw, i, RT_LOGPROBS_MAX, &complete), lse);
        s->raw_lse[m->raw.at[i]] = lse;
        if (r->target >= 0) {
            r->token = r->target;
            r->logprob = (float)((double)rt_message_target(s, m, i) - lse);
        }
    }
}

/* ---- draw ---- */

static void draw_greedy(rt_sampler *s, const rt_message *m, int i, rt_sample_row *r, float *logit)
{
    bool complete;
    int n = rt_message_merge(s, m, m->greedy_best, &m->greedy, i, 1, &complete);
    rt_cand best = n > 0 ? s->merged[0] : (rt_cand){.val = -INFINITY, .id = -1};

    r->token = isfinite(best.val) ? best.id : -1;
    *logit = best.val;
}

static void draw_plain(rt_sampler *s, const rt_message *m, int i, rt_sample_row *r, float *logit)
{
    double inv_temp = 1.0 / (double)r->params->temperature;
    double top = chunk_max(s, m, m->plain_stats, i), cum = 0, target;

    r->token = -1;
    if (!isfinite(top))
        return;
    target = kern_philox_uniform(r->params->seed, (uint64_t)r->n_history, 0, STREAM_CHUNK) *
             chunk_total(s, m, m->plain_stats, i, top, inv_temp);
    for (int k = 0; k < s->n_ranks; k++) {
        const kern_chunk_stat *c = rt_message_stats(s, m, m->plain_stats, k, i);

        for (int j = 0; j < s->rank_chunks[k]; j++) {
            if (c[j].pick < 0)
                continue;
            cum += exp(((double)c[j].max - top) * inv_temp) * (double)c[j].sum;
            r->token = c[j].pick;
            *logit = c[j].pick_logit;
            if (cum > target)
                return;
        }
    }
}

static float merged_logit(const rt_sampler *s, int n, int32_t id)
{
    for (int i = 0; i < n; i++)
        if (s->merged[i].id == id)
            return s->merged[i].val;
    return -INFINITY;
}

static bool select_from_merged(rt_sampler *s, rt_sample_row *r, int n, bool complete, double total,
                               float *logit)
{
    const rt_slot_params *p = r->params;
    rt_select_args a = {.cand = s->merged,
                        .n = n,
                        .complete = complete,
                        .total = total,
                        .temperature = p->temperature,
                        .top_p = p->top_p,
                        .min_p = p->min_p,
                        .top_k = p->top_k,
                        .u = kern_philox_uniform(p->seed, (uint64_t)r->n_history, 0, STREAM_LIST)};

    r->token = -1;
    if (n == 0 || !isfinite(s->merged[0].val))
        return true;
    if (!rt_select(&a, &r->token))
        return false;
    *logit = merged_logit(s, n, r->token);
    return true;
}

/* The whole row from all ranks, sorted; then the same selection decides for certain. */
static tp_status draw_from_row(rt_sampler *s, const float *logits, int64_t ld, int row,
                               rt_sample_row *r, double total, float *logit)
{
    int n = 0;
    int32_t first = 0;

    TP_TRY(s->be->ops->get(s->be, s->row_send, logits + row * ld,
                           (size_t)s->n_local * sizeof *s->row_send));
    for (int32_t i = s->n_local; i < s->n_local_max; i++)
        s->row_send[i] = -INFINITY;
    TP_TRY(
        comm_allgather(s->group, s->row_send, s->row_all, (size_t)s->n_local_max * sizeof(float)));
    for (int k = 0; k < s->n_ranks; k++) {
        const float *part = s->row_all + (size_t)k * (size_t)s->n_local_max;

        for (int32_t i = 0; i < s->rank_local[k]; i++)
            if (isfinite(part[i]))
                s->merged[n++] = (rt_cand){.val = part[i], .id = first + i};
        first += s->rank_local[k];
    }
    qsort(s->merged, (size_t)n, sizeof *s->merged, rt_cand_compare);
    TP_ASSERT(select_from_merged(s, r, n, true, total, logit));
    return TP_OK;
}

/* i: of the filtered rows; *mass: how many of those before it needed the whole mass. */
static bool draw_filtered(rt_sampler *s, const rt_message *m, int i, int *mass, rt_sample_row *r,
                          double *total, float *logit)
{
    bool complete;
    int known = rt_message_merge(s, m, m->filtered_best, &m->filtered, i, RT_CANDIDATES, &complete);

    *total = 0;
    if (rt_row_needs_mass(r->params)) {
        if (known > 0)
            *total = chunk_total(s, m, m->masses_stats, *mass, (double)s->merged[0].val,
                                 1.0 / (double)r->params->temperature);
        (*mass)++;
    }
    return select_from_merged(s, r, known, complete, *total, logit);
}

static tp_status draw(rt_sampler *s, const rt_message *m, const float *logits, int64_t ld,
                      rt_sample_row *rows, float *logit)
{
    double totals[RT_LOGIT_ROWS_MAX];
    bool open[RT_LOGIT_ROWS_MAX];
    int mass = 0;

    for (int i = 0; i < m->greedy.n; i++)
        draw_greedy(s, m, i, &rows[m->greedy.at[i]], &logit[m->greedy.at[i]]);
    for (int i = 0; i < m->plain.n; i++)
        draw_plain(s, m, i, &rows[m->plain.at[i]], &logit[m->plain.at[i]]);
    for (int i = 0; i < m->filtered.n; i++) {
        int at = m->filtered.at[i];

        open[i] = !draw_filtered(s, m, i, &mass, &rows[at], &totals[i], &logit[at]);
    }
    for (int i = 0; i < m->filtered.n; i++) {
        int at = m->filtered.at[i];

        if (open[i])
            TP_TRY(draw_from_row(s, logits, ld, at, &rows[at], totals[i], &logit[at]));
    }
    return TP_OK;
}

/* ---- raw logits of drawn tokens behind an adjustment ---- */

static tp_status fetch(rt_sampler *s, rt_model *model, const int32_t *index, rt_sample_row *rows,
                       int n, float *logit)
{
    float found[RT_LOGIT_ROWS_MAX], *logits;
    int64_t ld;
    bool wanted = false;

    for (int i = 0; i < n; i++)
        wanted |= rows[i].n_logprobs >= 0 && rt_row_is_adjusted(&rows[i]);
    if (!wanted)
        return TP_OK;
    TP_TRY(rt_model_logits(model, index, n, &logits, &ld));
    TP_TRY(rt_message_tokens(s, logits, ld, rows, n, found));
    for (int i = 0; i < n; i++)
        if (rt_row_is_adjusted(&rows[i]))
            logit[i] = found[i];
    return TP_OK;
}

tp_status rt_sampler_run(rt_sampler *s, rt_model *model, const int32_t *index, float *logits,
                         int64_t ld, rt_sample_row *rows, int n)
{
    float logit[RT_LOGIT_ROWS_MAX]; /* raw logit of the drawn token */
    rt_message m;

    TP_ASSERT(n >= 0 && n <= RT_LOGIT_ROWS_MAX);
    if (n == 0)
        return TP_OK;
    for (int i = 0; i < n; i++) {
        rows[i].n_top = 0;
        rows[i].logprob = 0;
        logit[i] = -INFINITY;
    }
    TP_TRY(rt_message_exchange(s, logits, ld, rows, n, &m));
    report_raw(s, &m, rows);
    TP_TRY(draw(s, &m, logits, ld, rows, logit));
    TP_TRY(fetch(s, model, index, rows, n, logit));
    for (int i = 0; i < n; i++)
        if (rows[i].target < 0 && rows[i].n_logprobs >= 0)
            rows[i].logprob = (float)((double)logit[i] - s->raw_lse[i]);
    return TP_OK;
}
