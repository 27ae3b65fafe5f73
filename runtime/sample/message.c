/* SPDX-License-Identifier: Apache-2.0 */
/* message.c - see message.h. */
#include "runtime/sample/message.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "comm/device.h"

#define SECTION_ALIGN 64

bool rt_row_is_adjusted(const rt_sample_row *r)
{
    const rt_slot_params *p = r->params;

    return r->target < 0 && (p->repetition != 1 || p->frequency != 0 || p->presence != 0 ||
                             r->n_bias > 0 || r->has_allowed || r->n_forbidden > 0);
}

bool rt_row_needs_mass(const rt_slot_params *p)
{
    return p->top_p < 1 && p->top_k <= 0 && p->min_p <= 0;
}

rt_row_kind rt_row_kind_of(const rt_slot_params *p)
{
    if (p->temperature <= 0 || p->top_k == 1)
        return RT_ROW_GREEDY;
    return p->top_k > 0 || p->top_p < 1 || p->min_p > 0 ? RT_ROW_FILTERED : RT_ROW_PLAIN;
}

/* ---- what is asked, and where it lies ---- */

static void add_row(rt_row_set *set, int i)
{
    set->at[set->n++] = i;
}

static void classify(const rt_sample_row *rows, int n, rt_message *m)
{
    for (int i = 0; i < n; i++) {
        const rt_slot_params *p = rows[i].params;

        if (rows[i].n_logprobs >= 0 || rows[i].target >= 0)
            add_row(&m->raw, i);
        if (rows[i].target >= 0)
            continue;
        if (rt_row_is_adjusted(&rows[i]))
            add_row(&m->adjusted, i);
        switch (rt_row_kind_of(p)) {
        case RT_ROW_GREEDY: add_row(&m->greedy, i); break;
        case RT_ROW_PLAIN: add_row(&m->plain, i); break;
        case RT_ROW_FILTERED:
            add_row(&m->filtered, i);
            if (rt_row_needs_mass(p))
                add_row(&m->masses, i);
            break;
        }
    }
}

/* k values, then k ids, of each row. */
static size_t best_bytes(int k)
{
    return (size_t)k * (sizeof(float) + sizeof(int32_t));
}

static size_t stats_bytes(const rt_sampler *s)
{
    return (size_t)s->n_chunks_max * sizeof(kern_chunk_stat);
}

static size_t section(rt_message *m, int n_rows, size_t row_bytes)
{
    size_t at = m->bytes, bytes = (size_t)n_rows * row_bytes;

    m->bytes += (bytes + SECTION_ALIGN - 1) / SECTION_ALIGN * SECTION_ALIGN;
    return at;
}

static void place(const rt_sampler *s, rt_message *m)
{
    m->raw_best = section(m, m->raw.n, best_bytes(RT_LOGPROBS_MAX));
    m->raw_stats = section(m, m->raw.n, stats_bytes(s));
    m->targets = section(m, m->raw.n, sizeof(float));
    m->greedy_best = section(m, m->greedy.n, best_bytes(1));
    m->filtered_best = section(m, m->filtered.n, best_bytes(m->k));
    m->masses_stats = section(m, m->masses.n, stats_bytes(s));
    m->plain_stats = section(m, m->plain.n, stats_bytes(s));
}

size_t rt_message_bytes_max(const rt_sampler *s)
{
    rt_message m = {.k = RT_CANDIDATES};

    m.raw.n = m.filtered.n = m.masses.n = RT_LOGIT_ROWS_MAX; /* other kinds of draws are shorter */
    place(s, &m);
    return m.bytes + 2 * SECTION_ALIGN;
}

size_t rt_message_bytes_drawn(const rt_sampler *s)
{
    size_t best = best_bytes(RT_CANDIDATES), stats = stats_bytes(s);

    return RT_LOGIT_ROWS_MAX * (best > stats ? best : stats) + 3 * SECTION_ALIGN;
}

void rt_message_plan(const rt_sampler *s, const rt_sample_row *rows, int n, int k, rt_message *m)
{
    memset(m, 0, sizeof *m);
    m->k = k;
    classify(rows, n, m);
    place(s, m);
    TP_ASSERT(m->bytes <= s->message_bytes);
}

/* ---- inputs ---- */

/* Where the logit of a token lies in this rank's block. */
static int32_t word_of(const rt_sampler *s, int64_t ld, int row, int32_t id)
{
    int64_t at = (int64_t)id - s->vocab_first;

    return at >= 0 && at < s->n_local ? (int32_t)(row * ld + at) : -1;
}

/* Statistics with the temperature of each row; raw: temperature 1. */
static void fill_stats(kern_chunk_row *out, const rt_sample_row *rows, const rt_row_set *set,
                       bool raw)
{
    for (int i = 0; i < set->n; i++) {
        const rt_sample_row *r = &rows[set->at[i]];

        out[i] = (kern_chunk_row){.row = set->at[i],
                                  .inv_temp = raw ? 1.0f : 1.0f / r->params->temperature,
                                  .seed = raw ? 0 : r->params->seed,
                                  .counter = (uint64_t)r->n_history};
    }
}

static kern_adjust_row adjust_row(const rt_sample_row *r, int i)
{
    return (kern_adjust_row){.row = i,
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

static tp_status put_inputs(rt_sampler *s, int64_t ld, const rt_sample_row *rows,
                            const rt_message *m)
{
    rt_sample_in *in = s->in;

    memcpy(in->raw, m->raw.at, (size_t)m->raw.n * sizeof *in->raw);
    memcpy(in->greedy, m->greedy.at, (size_t)m->greedy.n * sizeof *in->greedy);
    memcpy(in->filtered, m->filtered.at, (size_t)m->filtered.n * sizeof *in->filtered);
    for (int i = 0; i < m->raw.n; i++)
        in->pick[i] = word_of(s, ld, m->raw.at[i], rows[m->raw.at[i]].target);
    fill_stats(in->raw_stats, rows, &m->raw, true);
    fill_stats(in->masses, rows, &m->masses, false);
    fill_stats(in->plain, rows, &m->plain, false);
    for (int i = 0; i < m->adjusted.n; i++)
        in->adjust[i] = adjust_row(&rows[m->adjusted.at[i]], m->adjusted.at[i]);
    return s->be->ops->put(s->be, s->in_there, in,
                           offsetof(rt_sample_in, adjust) +
                               (size_t)m->adjusted.n * sizeof *in->adjust);
}

/* ---- operations ---- */

static tp_status find_best(rt_sampler *s, const float *logits, int64_t ld, const int32_t *rows,
                           int n, int k, size_t at)
{
    float *val = (float *)(void *)(s->out + at);

    if (n == 0)
        return TP_OK;
    return kern_topk(s->be, &(kern_topk_args){.logits = logits,
                                              .ld = ld,
                                              .rows = rows,
                                              .n_rows = n,
                                              .k = k,
                                              .vocab_first = s->vocab_first,
                                              .n_local = s->n_local,
                                              .val = val,
                                              .id = (int32_t *)(void *)(val + n * k)});
}

static tp_status find_stats(rt_sampler *s, const float *logits, int64_t ld,
                            const kern_chunk_row *rows, int n, size_t at)
{
    if (n == 0)
        return TP_OK;
    return kern_chunk_stats(s->be,
                            &(kern_chunk_args){.logits = logits,
                                               .ld = ld,
                                               .rows = rows,
                                               .n_rows = n,
                                               .vocab_first = s->vocab_first,
                                               .n_local = s->n_local,
                                               .chunk_tokens = s->chunk_tokens,
                                               .out = (kern_chunk_stat *)(void *)(s->out + at),
                                               .scratch = s->chunk_scratch});
}

static tp_status find_words(rt_sampler *s, const float *logits, int n, size_t at)
{
    if (n == 0)
        return TP_OK;
    return kern_take(
        s->be,
        &(kern_take_args){.out = s->out + at, .in = logits, .idx = s->in_there->pick, .n = n});
}

static tp_status adjust(rt_sampler *s, float *logits, int64_t ld, int n)
{
    if (n == 0)
        return TP_OK;
    return kern_adjust(s->be, &(kern_adjust_args){.logits = logits,
                                                  .ld = ld,
                                                  .vocab_first = s->vocab_first,
                                                  .n_local = s->n_local,
                                                  .rows = s->in_there->adjust,
                                                  .n_rows = n,
                                                  .scratch = s->adjust_scratch});
}

static tp_status gather(rt_sampler *s, size_t bytes)
{
    TP_TRY(s->be->ops->get(s->be, s->send, s->out, bytes));
    TP_TRY(comm_device_poll(s->group)); /* are the sums behind these numbers true? */
    return comm_allgather(s->group, s->send, s->recv, bytes);
}

tp_status rt_message_find(rt_sampler *s, float *logits, int64_t ld, const rt_sample_row *rows,
                          const rt_message *m)
{
    const rt_sample_in *in = s->in_there;

    TP_TRY(put_inputs(s, ld, rows, m));
    TP_TRY(find_best(s, logits, ld, in->raw, m->raw.n, RT_LOGPROBS_MAX, m->raw_best));
    TP_TRY(find_stats(s, logits, ld, in->raw_stats, m->raw.n, m->raw_stats));
    TP_TRY(find_words(s, logits, m->raw.n, m->targets));
    TP_TRY(adjust(s, logits, ld, m->adjusted.n));
    TP_TRY(find_best(s, logits, ld, in->greedy, m->greedy.n, 1, m->greedy_best));
    TP_TRY(find_best(s, logits, ld, in->filtered, m->filtered.n, m->k, m->filtered_best));
    TP_TRY(find_stats(s, logits, ld, in->masses, m->masses.n, m->masses_stats));
    return find_stats(s, logits, ld, in->plain, m->plain.n, m->plain_stats);
}

tp_status rt_message_exchange(rt_sampler *s, float *logits, int64_t ld, const rt_sample_row *rows,
                              int n, rt_message *m)
{
    rt_message_plan(s, rows, n, RT_CANDIDATES, m);
    TP_TRY(rt_message_find(s, logits, ld, rows, m));
    return gather(s, m->bytes);
}

/* The i-th of the words that find_words() left at `at`: all bits set mean that no rank but another has it. */
static float word_from_all(const rt_sampler *s, size_t message, size_t at, int i)
{
    float best = -INFINITY;

    for (int r = 0; r < s->n_ranks; r++) {
        float v;

        memcpy(&v, s->recv + (size_t)r * message + at + (size_t)i * sizeof v, sizeof v);
        best = v > best ? v : best; /* never a NaN */
    }
    return best;
}

tp_status rt_message_tokens(rt_sampler *s, const float *logits, int64_t ld,
                            const rt_sample_row *rows, int n, float *out)
{
    size_t bytes = (size_t)n * sizeof(float);

    for (int i = 0; i < n; i++)
        s->in->pick[i] = word_of(s, ld, i, rows[i].token);
    TP_TRY(s->be->ops->put(s->be, s->in_there->pick, s->in->pick, (size_t)n * sizeof *s->in->pick));
    TP_TRY(find_words(s, logits, n, 0));
    TP_TRY(gather(s, bytes));
    for (int i = 0; i < n; i++)
        out[i] = word_from_all(s, bytes, 0, i);
    return TP_OK;
}

/* ---- reading ---- */

float rt_message_target(const rt_sampler *s, const rt_message *m, int i)
{
    return word_from_all(s, m->bytes, m->targets, i);
}

const kern_chunk_stat *rt_message_stats(const rt_sampler *s, const rt_message *m, size_t at, int r,
                                        int i)
{
    return (const kern_chunk_stat *)(const void *)(s->recv + (size_t)r * m->bytes + at) +
           (size_t)i * (size_t)s->rank_chunks[r];
}

int rt_message_merge(rt_sampler *s, const rt_message *m, size_t at, const rt_row_set *set, int i,
                     int k, bool *complete)
{
    rt_cand cutoff = {.val = -INFINITY, .id = INT32_MAX};
    int n = 0, exact = 0;

    *complete = true;
    for (int r = 0; r < s->n_ranks; r++) {
        const float *all = (const float *)(const void *)(s->recv + (size_t)r * m->bytes + at);
        const float *val = all + (size_t)i * (size_t)k;
        const int32_t *id = (const int32_t *)(const void *)(val + (size_t)set->n * (size_t)k);
        int len = 0;

        for (; len < k && id[len] >= 0; len++)
            s->merged[n++] = (rt_cand){.val = val[len], .id = id[len]};
        if (len == k && s->rank_local[r] > k) {
            rt_cand last = s->merged[n - 1];

            *complete = false;
            if (rt_cand_compare(&last, &cutoff) < 0)
                cutoff = last;
        }
    }
    qsort(s->merged, (size_t)n, sizeof *s->merged, rt_cand_compare);
    if (*complete)
        return n;
    while (exact < n && rt_cand_compare(&s->merged[exact], &cutoff) <= 0)
        exact++;
    return exact;
}
