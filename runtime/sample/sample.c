/* SPDX-License-Identifier: Apache-2.0 */
/* sample.c - the passes over a block of logits.
 *
 *   1. raw       rows that report logprobs: 20 best, log-sum-exp by fixed vocabulary chunks, the target's logit
 *   2. adjust    bias, penalties and masks, in place, on each rank's slice
 *   3. draw      three kinds of rows share one all-gather:
 *                  greedy    the best candidate of each rank
 *                  filtered  CANDIDATES best of each rank (top_k, top_p, min_p), and chunk sums where top_p needs the
 *                            mass of the whole vocabulary
 *                  plain     temperature only: per chunk its mass and a token already drawn inside it
 *   4. fetch     the raw logit of the drawn token where adjusting has hidden it: the head runs once more
 *
 * A merged candidate list is exact down to the best of the last entries of the ranks' full lists: beyond that a rank
 * may hold a better one that it did not send.
 */
#include "runtime/sample/sample.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/philox.h"
#include "runtime/sample/select.h"

#define CANDIDATES   256 /* per rank and filtered row */
#define STREAM_CHUNK 1   /* philox streams; 0 belongs to kern_chunk_stats */
#define STREAM_LIST  2

struct rt_sampler {
    kern_backend *be;
    comm_group *group;
    int n_ranks;
    int32_t vocab, vocab_first, n_local, chunk_tokens;
    int32_t n_chunks, n_chunks_max; /* of this rank; of the rank with most */
    int32_t n_local_max;
    int32_t *rank_chunks;      /* owned; [n_ranks] */
    int32_t *rank_local;       /* owned; [n_ranks] vocabulary rows */
    uint8_t *send, *recv;      /* owned; [row_bytes * rows], [n_ranks times that] */
    size_t send_bytes;         /* capacity of send */
    float *val;                /* owned; [rows, CANDIDATES] */
    int32_t *id;               /* owned; [rows, CANDIDATES] */
    kern_chunk_stat *stats;    /* owned; [rows, n_chunks] */
    float *chunk_scratch;      /* owned; [n_threads, chunk_tokens] */
    int32_t *adjust_scratch;   /* owned; [n_local] zeros */
    rt_cand *merged;           /* owned; [max(n_ranks * CANDIDATES, vocab)] */
    float *row_send, *row_all; /* owned; [n_local_max], [n_ranks * n_local_max] */
    double *raw_lse;           /* owned; [rows] */
};

/* The slice of the message that one rank contributes for one row of each kind. */
static size_t cand_bytes(int k)
{
    return (size_t)k * sizeof(rt_cand);
}

static size_t stat_bytes(const rt_sampler *s)
{
    return (size_t)s->n_chunks_max * sizeof(kern_chunk_stat);
}

static size_t row_bytes_max(const rt_sampler *s)
{
    return cand_bytes(CANDIDATES) + stat_bytes(s) + sizeof(float);
}

static size_t merged_len(const rt_sampler *s)
{
    size_t lists = (size_t)s->n_ranks * CANDIDATES;

    return lists > (size_t)s->vocab ? lists : (size_t)s->vocab;
}

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

static tp_status allocate(rt_sampler *s)
{
    size_t rows = RT_LOGIT_ROWS_MAX, ranks = (size_t)s->n_ranks;

    s->send_bytes = rows * row_bytes_max(s);
    s->send = tp_calloc(1, s->send_bytes);
    s->recv = tp_calloc(ranks, s->send_bytes);
    s->val = tp_calloc(rows * CANDIDATES, sizeof *s->val);
    s->id = tp_calloc(rows * CANDIDATES, sizeof *s->id);
    s->stats = tp_calloc(rows * (size_t)s->n_chunks_max, sizeof *s->stats);
    s->chunk_scratch = tp_calloc((size_t)s->be->n_threads * (size_t)s->chunk_tokens, sizeof(float));
    s->adjust_scratch = tp_calloc((size_t)s->n_local + 1, sizeof *s->adjust_scratch);
    s->merged = tp_calloc(merged_len(s), sizeof *s->merged);
    s->row_send = tp_calloc((size_t)s->n_local_max, sizeof *s->row_send);
    s->row_all = tp_calloc(ranks * (size_t)s->n_local_max, sizeof *s->row_all);
    s->raw_lse = tp_calloc(rows, sizeof *s->raw_lse);
    if (s->send == NULL || s->recv == NULL || s->val == NULL || s->id == NULL || s->stats == NULL ||
        s->chunk_scratch == NULL || s->adjust_scratch == NULL || s->merged == NULL ||
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
    tp_free(s->rank_chunks);
    tp_free(s->rank_local);
    tp_free(s->send);
    tp_free(s->recv);
    tp_free(s->val);
    tp_free(s->id);
    tp_free(s->stats);
    tp_free(s->chunk_scratch);
    tp_free(s->adjust_scratch);
    tp_free(s->merged);
    tp_free(s->row_send);
    tp_free(s->row_all);
    tp_free(s->raw_lse);
    tp_free(s);
}

int64_t rt_sampler_bytes(const rt_config *c, const rt_shard *sh, const kern_backend *be)
{
    rt_sampler s = {0};
    size_t rows = RT_LOGIT_ROWS_MAX, ranks = (size_t)sh->n_ranks;
    kern_backend shape = *be;

    describe(&s, c, sh, &shape);
    s.n_chunks_max = s.n_chunks;
    s.n_local_max = s.n_local;
    return (int64_t)(rows * row_bytes_max(&s) * (1 + ranks) +
                     rows * (cand_bytes(CANDIDATES) + stat_bytes(&s)) +
                     (size_t)be->n_threads * (size_t)s.chunk_tokens * sizeof(float) +
                     (size_t)s.n_local * sizeof(int32_t) + merged_len(&s) * sizeof(rt_cand) +
                     (1 + ranks) * (size_t)s.n_local * sizeof(float));
}

/* ---- building and reading the gathered message ---- */

/* Rows of one kind, in block order; their parts lie one behind the other in every rank's message. */
typedef struct row_set {
    int n;
    int32_t at
        [RT_LOGIT_ROWS_MAX]; /* index into the caller's rows, which is the row of the logits block */
} row_set;

static void add_row(row_set *set, int i)
{
    set->at[set->n++] = i;
}

/* Candidates of a set's rows go to the message at *len. */
static tp_status put_topk(rt_sampler *s, const float *logits, int64_t ld, const row_set *set, int k,
                          size_t *len)
{
    rt_cand *dst = (rt_cand *)(void *)(s->send + *len);

    TP_TRY(kern_topk(s->be, &(kern_topk_args){.logits = logits,
                                              .ld = ld,
                                              .rows = set->at,
                                              .n_rows = set->n,
                                              .k = k,
                                              .vocab_first = s->vocab_first,
                                              .n_local = s->n_local,
                                              .val = s->val,
                                              .id = s->id}));
    for (size_t i = 0; i < (size_t)set->n * (size_t)k; i++)
        dst[i] = (rt_cand){.val = s->val[i], .id = s->id[i]};
    *len += (size_t)set->n * cand_bytes(k);
    return TP_OK;
}

/* Chunk statistics of rows with the temperature of each; raw: temperature 1. */
static tp_status put_stats(rt_sampler *s, const float *logits, int64_t ld,
                           const rt_sample_row *rows, const row_set *set, bool raw, size_t *len)
{
    kern_chunk_row what[RT_LOGIT_ROWS_MAX];

    for (int i = 0; i < set->n; i++) {
        const rt_sample_row *r = &rows[set->at[i]];

        what[i] = (kern_chunk_row){.row = set->at[i],
                                   .inv_temp = raw ? 1.0f : 1.0f / r->params->temperature,
                                   .seed = raw ? 0 : r->params->seed,
                                   .counter = (uint64_t)r->n_history};
    }
    TP_TRY(kern_chunk_stats(s->be, &(kern_chunk_args){.logits = logits,
                                                      .ld = ld,
                                                      .rows = what,
                                                      .n_rows = set->n,
                                                      .vocab_first = s->vocab_first,
                                                      .n_local = s->n_local,
                                                      .chunk_tokens = s->chunk_tokens,
                                                      .out = s->stats,
                                                      .scratch = s->chunk_scratch}));
    for (int i = 0; i < set->n; i++) {
        uint8_t *dst = s->send + *len + (size_t)i * stat_bytes(s);

        memset(dst, 0, stat_bytes(s));
        if (s->n_chunks > 0)
            memcpy(dst, s->stats + (size_t)i * (size_t)s->n_chunks,
                   (size_t)s->n_chunks * sizeof *s->stats);
    }
    *len += (size_t)set->n * stat_bytes(s);
    return TP_OK;
}

/* What rank r sent for the i-th row of the set whose part starts at `base` of the message. */
static const rt_cand *got_cand(const rt_sampler *s, int r, size_t message, size_t base, int i,
                               int k)
{
    return (const rt_cand *)(const void *)(s->recv + (size_t)r * message + base +
                                           (size_t)i * cand_bytes(k));
}

static const kern_chunk_stat *got_stats(const rt_sampler *s, int r, size_t message, size_t base,
                                        int i)
{
    return (const kern_chunk_stat *)(const void *)(s->recv + (size_t)r * message + base +
                                                   (size_t)i * stat_bytes(s));
}

/* Merges the ranks' lists of one row into s->merged; returns how many of the first entries are exact.
 * *complete: every rank sent all that it has. */
static int merge(rt_sampler *s, size_t message, size_t base, int i, int k, bool *complete)
{
    rt_cand cutoff = {.val = -INFINITY, .id = INT32_MAX};
    int n = 0, exact = 0;

    *complete = true;
    for (int r = 0; r < s->n_ranks; r++) {
        const rt_cand *list = got_cand(s, r, message, base, i, k);
        int len = 0;

        while (len < k && list[len].id >= 0)
            s->merged[n++] = list[len++];
        if (len == k && s->rank_local[r] > k) {
            *complete = false;
            if (rt_cand_compare(&list[k - 1], &cutoff) < 0)
                cutoff = list[k - 1];
        }
    }
    qsort(s->merged, (size_t)n, sizeof *s->merged, rt_cand_compare);
    if (*complete)
        return n;
    while (exact < n && rt_cand_compare(&s->merged[exact], &cutoff) <= 0)
        exact++;
    return exact;
}

/* Sum over all chunks of exp((l - top) * inv_temp), in chunk order. */
static double chunk_total(const rt_sampler *s, size_t message, size_t base, int i, double top,
                          double inv_temp)
{
    double total = 0;

    for (int r = 0; r < s->n_ranks; r++) {
        const kern_chunk_stat *c = got_stats(s, r, message, base, i);

        for (int j = 0; j < s->rank_chunks[r]; j++)
            if (c[j].pick >= 0)
                total += exp(((double)c[j].max - top) * inv_temp) * (double)c[j].sum;
    }
    return total;
}

static double chunk_max(const rt_sampler *s, size_t message, size_t base, int i)
{
    double top = -INFINITY;

    for (int r = 0; r < s->n_ranks; r++) {
        const kern_chunk_stat *c = got_stats(s, r, message, base, i);

        for (int j = 0; j < s->rank_chunks[r]; j++)
            if (c[j].pick >= 0 && (double)c[j].max > top)
                top = (double)c[j].max;
    }
    return top;
}

/* ---- pass 1: raw logprobs ---- */

static float local_logit(const rt_sampler *s, const float *logits, int64_t ld, int row, int32_t id)
{
    int32_t at = id - s->vocab_first;

    return at >= 0 && at < s->n_local ? logits[row * ld + at] : -INFINITY;
}

static void report_top(rt_sampler *s, rt_sample_row *r, int n_known, double lse)
{
    r->n_top = r->n_logprobs < n_known ? r->n_logprobs : n_known;
    for (int j = 0; j < r->n_top; j++)
        r->top[j] =
            (rt_logprob){.id = s->merged[j].id, .logprob = (float)((double)s->merged[j].val - lse)};
}

static tp_status raw_pass(rt_sampler *s, const float *logits, int64_t ld, rt_sample_row *rows,
                          int n)
{
    row_set set = {0};
    size_t stats_at, target_at, len = 0;

    for (int i = 0; i < n; i++)
        if (rows[i].n_logprobs >= 0 || rows[i].target >= 0)
            add_row(&set, i);
    if (set.n == 0)
        return TP_OK;
    TP_TRY(put_topk(s, logits, ld, &set, RT_LOGPROBS_MAX, &len));
    stats_at = len;
    TP_TRY(put_stats(s, logits, ld, rows, &set, true, &len));
    target_at = len;
    for (int i = 0; i < set.n; i++, len += sizeof(float)) {
        float v = local_logit(s, logits, ld, set.at[i], rows[set.at[i]].target);

        memcpy(s->send + len, &v, sizeof v);
    }
    TP_TRY(comm_allgather(s->group, s->send, s->recv, len));
    for (int i = 0; i < set.n; i++) {
        rt_sample_row *r = &rows[set.at[i]];
        double top = chunk_max(s, len, stats_at, i);
        double lse = top + log(chunk_total(s, len, stats_at, i, top, 1.0));
        float best = -INFINITY;
        bool complete;

        report_top(s, r, merge(s, len, 0, i, RT_LOGPROBS_MAX, &complete), lse);
        for (int k = 0; k < s->n_ranks; k++) {
            float v;

            memcpy(&v, s->recv + (size_t)k * len + target_at + (size_t)i * sizeof v, sizeof v);
            best = v > best ? v : best;
        }
        s->raw_lse[set.at[i]] = lse;
        if (r->target >= 0) {
            r->token = r->target;
            r->logprob = (float)((double)best - lse);
        }
    }
    return TP_OK;
}

/* ---- pass 2: bias, penalties, masks ---- */

static bool is_adjusted(const rt_sample_row *r)
{
    const rt_slot_params *p = r->params;

    return r->target < 0 && (p->repetition != 1 || p->frequency != 0 || p->presence != 0 ||
                             r->n_bias > 0 || r->has_allowed || r->n_forbidden > 0);
}

static tp_status adjust_pass(rt_sampler *s, float *logits, int64_t ld, const rt_sample_row *rows,
                             int n)
{
    kern_adjust_row what[RT_LOGIT_ROWS_MAX];
    int count = 0;

    for (int i = 0; i < n; i++) {
        const rt_sample_row *r = &rows[i];

        if (!is_adjusted(r))
            continue;
        what[count++] = (kern_adjust_row){.row = i,
                                          .repetition = r->params->repetition,
                                          .frequency = r->params->frequency,
                                          .presence = r->params->presence,
                                          .history = r->history,
                                          .n_prompt = r->n_prompt,
                                          .n_history = r->n_history,
                                          .bias_ids = r->bias_ids,
                                          .bias = r->bias,
                                          .n_bias = r->n_bias,
                                          .forbidden = r->forbidden,
                                          .n_forbidden = r->n_forbidden,
                                          .allowed = r->has_allowed ? r->allowed : NULL,
                                          .n_allowed = r->n_allowed};
    }
    if (count == 0)
        return TP_OK;
    return kern_adjust(s->be, &(kern_adjust_args){.logits = logits,
                                                  .ld = ld,
                                                  .vocab_first = s->vocab_first,
                                                  .n_local = s->n_local,
                                                  .rows = what,
                                                  .n_rows = count,
                                                  .scratch = s->adjust_scratch});
}

/* ---- pass 3: draw ---- */

typedef struct draw_sets {
    row_set greedy, filtered, masses, plain; /* masses: filtered rows that need the whole mass */
    size_t greedy_at, filtered_at, masses_at, plain_at, bytes;
} draw_sets;

static bool needs_mass(const rt_slot_params *p)
{
    return p->top_p < 1 && p->top_k <= 0 && p->min_p <= 0;
}

static void classify(const rt_sample_row *rows, int n, draw_sets *d)
{
    memset(d, 0, sizeof *d);
    for (int i = 0; i < n; i++) {
        const rt_slot_params *p = rows[i].params;

        if (rows[i].target >= 0)
            continue;
        if (p->temperature <= 0 || p->top_k == 1) {
            add_row(&d->greedy, i);
        } else if (p->top_k > 0 || p->top_p < 1 || p->min_p > 0) {
            add_row(&d->filtered, i);
            if (needs_mass(p))
                add_row(&d->masses, i);
        } else {
            add_row(&d->plain, i);
        }
    }
}

static tp_status gather_draws(rt_sampler *s, const float *logits, int64_t ld,
                              const rt_sample_row *rows, draw_sets *d)
{
    size_t len = 0;

    TP_TRY(put_topk(s, logits, ld, &d->greedy, 1, &len));
    d->filtered_at = len;
    TP_TRY(put_topk(s, logits, ld, &d->filtered, CANDIDATES, &len));
    d->masses_at = len;
    TP_TRY(put_stats(s, logits, ld, rows, &d->masses, false, &len));
    d->plain_at = len;
    TP_TRY(put_stats(s, logits, ld, rows, &d->plain, false, &len));
    d->bytes = len;
    return len == 0 ? TP_OK : comm_allgather(s->group, s->send, s->recv, len);
}

static void draw_greedy(rt_sampler *s, const draw_sets *d, int i, rt_sample_row *r, float *logit)
{
    rt_cand best = {.val = -INFINITY, .id = -1};

    for (int k = 0; k < s->n_ranks; k++) {
        const rt_cand *c = got_cand(s, k, d->bytes, d->greedy_at, i, 1);

        if (c->id >= 0 && (best.id < 0 || rt_cand_compare(c, &best) < 0))
            best = *c;
    }
    r->token = isfinite(best.val) ? best.id : -1;
    *logit = best.val;
}

static void draw_plain(rt_sampler *s, const draw_sets *d, int i, rt_sample_row *r, float *logit)
{
    double inv_temp = 1.0 / (double)r->params->temperature;
    double top = chunk_max(s, d->bytes, d->plain_at, i), cum = 0, target;

    r->token = -1;
    if (!isfinite(top))
        return;
    target = kern_philox_uniform(r->params->seed, (uint64_t)r->n_history, 0, STREAM_CHUNK) *
             chunk_total(s, d->bytes, d->plain_at, i, top, inv_temp);
    for (int k = 0; k < s->n_ranks; k++) {
        const kern_chunk_stat *c = got_stats(s, k, d->bytes, d->plain_at, i);

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

    for (int32_t i = 0; i < s->n_local_max; i++)
        s->row_send[i] = i < s->n_local ? logits[row * ld + i] : -INFINITY;
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

static tp_status draw_pass(rt_sampler *s, const float *logits, int64_t ld, rt_sample_row *rows,
                           int n, float *logit)
{
    draw_sets d;
    double totals[RT_LOGIT_ROWS_MAX];
    bool open[RT_LOGIT_ROWS_MAX];
    int mass = 0;

    classify(rows, n, &d);
    TP_TRY(gather_draws(s, logits, ld, rows, &d));
    for (int i = 0; i < d.greedy.n; i++)
        draw_greedy(s, &d, i, &rows[d.greedy.at[i]], &logit[d.greedy.at[i]]);
    for (int i = 0; i < d.plain.n; i++)
        draw_plain(s, &d, i, &rows[d.plain.at[i]], &logit[d.plain.at[i]]);
    for (int i = 0; i < d.filtered.n; i++) {
        rt_sample_row *r = &rows[d.filtered.at[i]];
        bool complete;
        int known = merge(s, d.bytes, d.filtered_at, i, CANDIDATES, &complete);

        totals[i] = 0;
        if (needs_mass(r->params) && known > 0)
            totals[i] = chunk_total(s, d.bytes, d.masses_at, mass, (double)s->merged[0].val,
                                    1.0 / (double)r->params->temperature);
        mass += needs_mass(r->params);
        open[i] = !select_from_merged(s, r, known, complete, totals[i], &logit[d.filtered.at[i]]);
    }
    for (int i = 0; i < d.filtered.n; i++)
        if (open[i])
            TP_TRY(draw_from_row(s, logits, ld, d.filtered.at[i], &rows[d.filtered.at[i]],
                                 totals[i], &logit[d.filtered.at[i]]));
    return TP_OK;
}

/* ---- pass 4: raw logits of drawn tokens behind an adjustment ---- */

static tp_status fetch_pass(rt_sampler *s, rt_model *m, const int32_t *index, rt_sample_row *rows,
                            int n, float *logit)
{
    float *logits;
    int64_t ld;
    float *mine = (float *)(void *)s->send;
    const float *all = (const float *)(const void *)s->recv;
    bool wanted = false;

    for (int i = 0; i < n; i++)
        wanted |= rows[i].n_logprobs >= 0 && is_adjusted(&rows[i]);
    if (!wanted)
        return TP_OK;
    TP_TRY(rt_model_logits(m, index, n, &logits, &ld));
    for (int i = 0; i < n; i++)
        mine[i] = local_logit(s, logits, ld, i, rows[i].token);
    TP_TRY(comm_allgather(s->group, mine, s->recv, (size_t)n * sizeof(float)));
    for (int i = 0; i < n; i++) {
        if (!is_adjusted(&rows[i]))
            continue;
        logit[i] = -INFINITY;
        for (int k = 0; k < s->n_ranks; k++)
            logit[i] = all[k * n + i] > logit[i] ? all[k * n + i] : logit[i];
    }
    return TP_OK;
}

tp_status rt_sampler_run(rt_sampler *s, rt_model *m, rt_sample_row *rows, int n)
{
    int32_t index[RT_LOGIT_ROWS_MAX];
    float logit[RT_LOGIT_ROWS_MAX]; /* raw logit of the drawn token */
    float *logits;
    int64_t ld;

    TP_ASSERT(n >= 0 && n <= RT_LOGIT_ROWS_MAX);
    if (n == 0)
        return TP_OK;
    for (int i = 0; i < n; i++) {
        index[i] = rows[i].row;
        rows[i].n_top = 0;
        rows[i].logprob = 0;
        logit[i] = -INFINITY;
    }
    TP_TRY(rt_model_logits(m, index, n, &logits, &ld));
    TP_TRY(raw_pass(s, logits, ld, rows, n));
    TP_TRY(adjust_pass(s, logits, ld, rows, n));
    TP_TRY(draw_pass(s, logits, ld, rows, n, logit));
    TP_TRY(fetch_pass(s, m, index, rows, n, logit));
    for (int i = 0; i < n; i++)
        if (rows[i].target < 0 && rows[i].n_logprobs >= 0)
            rows[i].logprob = (float)((double)logit[i] - s->raw_lse[i]);
    return TP_OK;
}
