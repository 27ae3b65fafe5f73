/* SPDX-License-Identifier: Apache-2.0 */
/* ref_sample.c - changes to logits, the k best, and per-chunk statistics, over a shard of the vocabulary. */
#include <float.h>
#include <math.h>

#include "kernels/philox.h"
#include "kernels/ref/ref_internal.h"

/* ---- adjust ---- */
/* Scratch holds, per local id: 1 if allowed; later 1 if in the prompt, plus 2 for each time in the output. */
static void apply_allowed(const kern_adjust_args *a, const kern_adjust_row *r, float *l)
{
    for (int i = 0; i < r->n_allowed; i++) {
        int64_t id = (int64_t)r->allowed[i] - a->vocab_first;

        if (id >= 0 && id < a->n_local)
            a->scratch[id] = 1;
    }
    for (int id = 0; id < a->n_local; id++) {
        if (a->scratch[id] == 0)
            l[id] = -INFINITY;
        a->scratch[id] = 0;
    }
}

static void apply_penalties(const kern_adjust_args *a, const kern_adjust_row *r, float *l)
{
    for (int i = 0; i < r->n_history; i++) {
        int64_t id = (int64_t)r->history[i] - a->vocab_first;

        if (id < 0 || id >= a->n_local)
            continue;
        if (i < r->n_prompt)
            a->scratch[id] |= 1;
        else
            a->scratch[id] += 2;
    }
    for (int id = 0; id < a->n_local; id++) {
        int count = a->scratch[id] / 2;

        if (a->scratch[id] != 0)
            l[id] = l[id] > 0.0f ? l[id] / r->repetition : l[id] * r->repetition;
        if (count > 0)
            l[id] = l[id] - r->frequency * (float)count - r->presence;
        a->scratch[id] = 0;
    }
}

tp_status kern_ref_adjust(kern_backend *be, const kern_adjust_args *a)
{
    (void)be;
    TP_TRY(kern_check_adjust(a));
    TP_TRY(kern_check_adjust_items(a));
    for (int i = 0; i < a->n_rows; i++) {
        const kern_adjust_row *r = &a->rows[i];
        float *l = a->logits + r->row * a->ld;

        if (r->allowed != NULL)
            apply_allowed(a, r, l);
        for (int j = 0; j < r->n_bias; j++) {
            int64_t id = (int64_t)r->bias_ids[j] - a->vocab_first;

            if (id >= 0 && id < a->n_local)
                l[id] += r->bias[j];
        }
        if (r->repetition != 1.0f || r->frequency != 0.0f || r->presence != 0.0f)
            apply_penalties(a, r, l);
        for (int j = 0; j < r->n_forbidden; j++) {
            int64_t id = (int64_t)r->forbidden[j] - a->vocab_first;

            if (id >= 0 && id < a->n_local)
                l[id] = -INFINITY;
        }
    }
    return TP_OK;
}

/* ---- top k ---- */
/* Puts (value, id) into the sorted list of the best; ids come in ascending order, so equals go behind. */
static void insert(float *val, int32_t *id, int k, float v, int32_t token)
{
    int at = k - 1;

    if (!(v > val[at]))
        return;
    while (at > 0 && v > val[at - 1]) {
        val[at] = val[at - 1];
        id[at] = id[at - 1];
        at--;
    }
    val[at] = v;
    id[at] = token;
}

tp_status kern_ref_topk(kern_backend *be, const kern_topk_args *a)
{
    (void)be;
    TP_TRY(kern_check_topk(a));
    for (int i = 0; i < a->n_rows && a->k > 0; i++) {
        float *val = a->val + (int64_t)i * a->k;
        int32_t *id = a->id + (int64_t)i * a->k;

        for (int j = 0; j < a->k; j++) {
            val[j] = -INFINITY;
            id[j] = -1;
        }
        for (int j = 0; j < a->n_local; j++)
            insert(val, id, a->k, a->logits[a->rows[i] * a->ld + j], a->vocab_first + j);
    }
    return TP_OK;
}

/* ---- chunk statistics ---- */
static float cleaned(float l)
{
    return l > -INFINITY ? fminf(l, FLT_MAX) : -INFINITY; /* a NaN compares false */
}

static kern_chunk_stat chunk_stat(const float *l, int n, const kern_chunk_row *r, int32_t first,
                                  uint32_t chunk)
{
    kern_chunk_stat s = {.max = -INFINITY, .sum = 0.0f, .pick = -1, .pick_logit = -INFINITY};
    double sum = 0.0, target, run = 0.0;

    for (int i = 0; i < n; i++)
        s.max = fmaxf(s.max, cleaned(l[i]));
    if (s.max == -INFINITY)
        return s;
    for (int i = 0; i < n; i++)
        sum += (double)expf((cleaned(l[i]) - s.max) * r->inv_temp);
    s.sum = (float)sum;
    target = kern_philox_uniform(r->seed, r->counter, chunk, 0) * sum;
    for (int i = 0; i < n && run <= target; i++) {
        float e = expf((cleaned(l[i]) - s.max) * r->inv_temp);

        if (e > 0.0f) {
            run += (double)e;
            s.pick = first + i;
            s.pick_logit = l[i];
        }
    }
    return s;
}

tp_status kern_ref_chunk_stats(kern_backend *be, const kern_chunk_args *a)
{
    int n_chunks;

    (void)be;
    TP_TRY(kern_check_chunk(a));
    n_chunks = (int)(((int64_t)a->n_local + a->chunk_tokens - 1) / a->chunk_tokens);
    for (int i = 0; i < a->n_rows; i++) {
        for (int c = 0; c < n_chunks; c++) {
            int begin = c * a->chunk_tokens;
            int n = a->n_local - begin < a->chunk_tokens ? a->n_local - begin : a->chunk_tokens;

            a->out[(int64_t)i * n_chunks + c] = chunk_stat(
                a->logits + a->rows[i].row * a->ld + begin, n, &a->rows[i], a->vocab_first + begin,
                (uint32_t)(a->vocab_first / a->chunk_tokens + c));
        }
    }
    return TP_OK;
}
