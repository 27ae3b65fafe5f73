/* SPDX-License-Identifier: Apache-2.0 */
/* cpu_sample.c - changes to logits, the k best, and per-chunk statistics, over a shard of the vocabulary. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu_internal.h"
#include "kernels/cpu/topk_keys.h"
#include "kernels/cpu/vec.h"
#include "kernels/kern_check.h"
#include "kernels/philox.h"

#define TEAM_TOKENS 16384 /* logits that repay a team */

/* ---- adjust: each thread owns a range of ids and walks every list ---- */
typedef struct id_range {
    int32_t first, n; /* global ids */
    int32_t *count;   /* [n], zero between uses */
    float *l;         /* [n] */
} id_range;

/* Index of a global id in the range, or -1. */
static int32_t at(const id_range *g, int32_t id)
{
    int64_t i = (int64_t)id - g->first;

    return i >= 0 && i < g->n ? (int32_t)i : -1;
}

static void apply_allowed(const kern_adjust_row *r, const id_range *g)
{
    for (int j = 0; j < r->n_allowed; j++) {
        int32_t i = at(g, r->allowed[j]);

        if (i >= 0)
            g->count[i] = 1;
    }
    for (int32_t i = 0; i < g->n; i++)
        g->l[i] = g->count[i] != 0 ? g->l[i] : -INFINITY;
    for (int j = 0; j < r->n_allowed; j++) {
        int32_t i = at(g, r->allowed[j]);

        if (i >= 0)
            g->count[i] = 0;
    }
}

/* count: 1 if in the prompt, plus 2 for each time in the output. */
static void apply_penalties(const kern_adjust_row *r, const id_range *g)
{
    for (int j = 0; j < r->n_history; j++) {
        int32_t i = at(g, r->history[j]);

        if (i >= 0)
            g->count[i] = j < r->n_prompt ? 1 : g->count[i] + 2;
    }
    for (int j = 0; j < r->n_history; j++) {
        int32_t i = at(g, r->history[j]);
        float l;

        if (i < 0 || g->count[i] == 0)
            continue;
        l = g->l[i];
        l = l > 0.0f ? l / r->repetition : l * r->repetition;
        if (g->count[i] >= 2)
            l = l - r->frequency * (float)(g->count[i] / 2) - r->presence;
        g->l[i] = l;
        g->count[i] = 0;
    }
}

static void adjust_row(const kern_adjust_row *r, const id_range *g)
{
    if (r->allowed != NULL)
        apply_allowed(r, g);
    for (int j = 0; j < r->n_bias; j++) {
        int32_t i = at(g, r->bias_ids[j]);

        if (i >= 0)
            g->l[i] += r->bias[j];
    }
    if (r->repetition != 1.0f || r->frequency != 0.0f || r->presence != 0.0f)
        apply_penalties(r, g);
    for (int j = 0; j < r->n_forbidden; j++) {
        int32_t i = at(g, r->forbidden[j]);

        if (i >= 0)
            g->l[i] = -INFINITY;
    }
}

typedef struct adjust_job {
    const kern_adjust_args *args;
    int parts; /* of the ids: the items */
} adjust_job;

static void adjust_parts(const void *args, int64_t first, int64_t last, int thread)
{
    const adjust_job *job = args;
    const kern_adjust_args *a = job->args;

    (void)thread;
    for (int64_t part = first; part < last; part++) {
        int32_t begin = (int32_t)(a->n_local * part / job->parts);
        int32_t end = (int32_t)(a->n_local * (part + 1) / job->parts);

        for (int i = 0; i < a->n_rows; i++) {
            id_range g = {.first = a->vocab_first + begin,
                          .n = end - begin,
                          .count = a->scratch + begin,
                          .l = a->logits + a->rows[i].row * a->ld + begin};

            adjust_row(&a->rows[i], &g);
        }
    }
}

tp_status kern_cpu_adjust(kern_backend *be, const kern_adjust_args *a)
{
    adjust_job job = {.args = a};
    int64_t work = 0;

    TP_TRY(kern_check_adjust(a));
    TP_TRY(kern_check_adjust_items(a));
    for (int i = 0; i < a->n_rows; i++) {
        const kern_adjust_row *r = &a->rows[i];

        work += r->n_history + r->n_allowed + (r->allowed != NULL ? a->n_local : 0);
    }
    job.parts = work >= TEAM_TOKENS ? be->n_threads : 1;
    kern_cpu_share(be,
                   &(kern_team_work){.run = adjust_parts, .args = &job, .n = job.parts, .step = 1},
                   work, TEAM_TOKENS);
    return TP_OK;
}

/* ---- top k ---- */
/* Best k of l[begin .. end) as ordered keys, best first; returns how many there are. */
static int best_of(const kern_cpu_vec *vec, const float *l, int begin, int end, int k,
                   uint64_t *keys)
{
    float limit = -INFINITY;
    int cap = 4 * k > 256 ? 4 * k : 256, n = 0;

    /* Keys gather until the buffer could overflow; then all but the k best are dropped, and only what beats the
     * last of them is of interest: of equal values the earlier id, already inside, is better. */
    for (int i = begin; i < end; i += 64) {
        uint64_t mask;

        i = vec->next_above(l, i, end, limit, &mask);
        if (i >= end)
            break;
        for (; mask != 0; mask &= mask - 1) {
            int id = i + __builtin_ctzll(mask);

            keys[n++] = kern_key_make(l[id], (uint32_t)id);
        }
        if (n > cap - 64) {
            kern_key_select(keys, n, k);
            n = k;
            limit = kern_key_value(keys[k - 1]);
        }
    }
    if (n > k) {
        kern_key_select(keys, n, k);
        n = k;
    }
    kern_key_sort(keys, n);
    return n;
}

static void put_best(const kern_topk_args *a, int row, const uint64_t *keys, int n)
{
    float *val = a->val + (int64_t)row * a->k;
    int32_t *id = a->id + (int64_t)row * a->k;

    for (int j = 0; j < a->k; j++) {
        val[j] = j < n ? kern_key_value(keys[j]) : -INFINITY;
        id[j] = j < n ? a->vocab_first + (int32_t)kern_key_index(keys[j]) : -1;
    }
}

#define KEYS_MAX  (4 * KERN_TOPK_MAX)
#define PARTS_MAX 4

typedef struct topk_job {
    const kern_cpu_vec *vec;
    const kern_topk_args *args;
    uint64_t *best; /* [parts, k] */
    int *n;         /* [parts] */
    int parts;
} topk_job;

static void scan_parts(const void *args, int64_t begin, int64_t end, int thread)
{
    const topk_job *job = args;
    const kern_topk_args *a = job->args;
    const float *l = a->logits + a->rows[0] * a->ld;

    (void)thread;
    for (int64_t p = begin; p < end; p++) {
        uint64_t keys[KEYS_MAX];

        job->n[p] = best_of(job->vec, l, (int)(a->n_local * p / job->parts),
                            (int)(a->n_local * (p + 1) / job->parts), a->k, keys);
        memcpy(job->best + p * a->k, keys, (size_t)job->n[p] * sizeof *keys);
    }
}

/* A single row is scanned in parts by several threads; their best are merged. */
static void topk_parts(kern_backend *be, const kern_topk_args *a)
{
    uint64_t best[PARTS_MAX * KERN_TOPK_MAX];
    int n[PARTS_MAX], total = 0;
    topk_job job = {.vec = kern_cpu_of(be)->vec,
                    .args = a,
                    .best = best,
                    .n = n,
                    .parts = be->n_threads < PARTS_MAX ? be->n_threads : PARTS_MAX};

    kern_cpu_share(be,
                   &(kern_team_work){.run = scan_parts, .args = &job, .n = job.parts, .step = 1},
                   a->n_local, TEAM_TOKENS);
    for (int p = 0; p < job.parts; p++) {
        memmove(best + total, best + p * a->k, (size_t)n[p] * sizeof *best);
        total += n[p];
    }
    kern_key_sort(best, total);
    put_best(a, 0, best, total < a->k ? total : a->k);
}

static void topk_rows(const void *args, int64_t begin, int64_t end, int thread)
{
    const topk_job *job = args;
    const kern_topk_args *a = job->args;

    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        uint64_t keys[KEYS_MAX];
        int n = best_of(job->vec, a->logits + a->rows[i] * a->ld, 0, a->n_local, a->k, keys);

        put_best(a, (int)i, keys, n);
    }
}

tp_status kern_cpu_topk(kern_backend *be, const kern_topk_args *a)
{
    topk_job job = {.vec = kern_cpu_of(be)->vec, .args = a};

    TP_TRY(kern_check_topk(a));
    if (a->k == 0)
        return TP_OK;
    if (a->n_rows == 1 && be->n_threads > 1 && a->n_local >= TEAM_TOKENS)
        topk_parts(be, a);
    else
        kern_cpu_share(be,
                       &(kern_team_work){.run = topk_rows, .args = &job, .n = a->n_rows, .step = 1},
                       (int64_t)a->n_rows * a->n_local, TEAM_TOKENS);
    return TP_OK;
}

/* ---- chunk statistics ---- */
/* The first of n numbers whose running sum exceeds target; else (rounding) the last one.  Never one that is 0. */
static int walk(const float *e, int n, double run, double target)
{
    int last = -1;

    for (int i = 0; i < n && run <= target; i++) {
        if (e[i] > 0.0f) {
            run += (double)e[i];
            last = i;
        }
    }
    return last;
}

/* The same over a chunk: block by block, then inside one. */
static int pick(const kern_cpu_vec *vec, const float *e, int n, double target)
{
    double run = 0.0;
    int found = -1, at_run = 0; /* where the newest block that is not 0 begins */

    for (int i = 0; i < n; i += KERN_CPU_SUM_BLOCK) {
        int len = n - i < KERN_CPU_SUM_BLOCK ? n - i : KERN_CPU_SUM_BLOCK;
        double block = (double)vec->block_sum(e + i, len);

        if (block > 0.0) {
            at_run = i;
            if (run + block > target) {
                found = walk(e + i, len, run, target);
                break;
            }
        }
        run += block;
    }
    if (found < 0) /* the target is the whole sum */
        found = walk(e + at_run, n - at_run < KERN_CPU_SUM_BLOCK ? n - at_run : KERN_CPU_SUM_BLOCK,
                     0.0, INFINITY);
    return found < 0 ? -1 : at_run + found;
}

static kern_chunk_stat chunk_stat(const kern_cpu_vec *vec, const float *l, int n,
                                  const kern_chunk_row *r, uint32_t chunk, float *e)
{
    kern_chunk_stat s = {.max = vec->max_clean(l, n), .pick = -1, .pick_logit = -INFINITY};
    double sum;
    int i;

    if (s.max == -INFINITY)
        return s;
    sum = vec->exp_chunk(e, l, n, s.max, r->inv_temp);
    s.sum = (float)sum;
    i = pick(vec, e, n, kern_philox_uniform(r->seed, r->counter, chunk, 0) * sum);
    if (i >= 0) {
        s.pick = i; /* in the chunk; the caller adds the chunk's first id */
        s.pick_logit = l[i];
    }
    return s;
}

typedef struct stats_job {
    const kern_cpu_vec *vec;
    const kern_chunk_args *args;
    int n_chunks; /* of a row; items are chunks */
} stats_job;

static void stats_chunks(const void *args, int64_t first, int64_t last, int thread)
{
    const stats_job *job = args;
    const kern_chunk_args *a = job->args;
    float *e = a->scratch + (int64_t)thread * a->chunk_tokens;

    for (int64_t item = first; item < last; item++) {
        const kern_chunk_row *row = &a->rows[item / job->n_chunks];
        int c = (int)(item % job->n_chunks), begin = c * a->chunk_tokens;
        int n = a->n_local - begin < a->chunk_tokens ? a->n_local - begin : a->chunk_tokens;
        kern_chunk_stat s = chunk_stat(job->vec, a->logits + row->row * a->ld + begin, n, row,
                                       (uint32_t)(a->vocab_first / a->chunk_tokens + c), e);

        if (s.pick >= 0)
            s.pick += a->vocab_first + begin;
        a->out[item] = s;
    }
}

tp_status kern_cpu_chunk_stats(kern_backend *be, const kern_chunk_args *a)
{
    stats_job job = {.vec = kern_cpu_of(be)->vec, .args = a};

    TP_TRY(kern_check_chunk(a));
    job.n_chunks = (int)(((int64_t)a->n_local + a->chunk_tokens - 1) / a->chunk_tokens);
    kern_cpu_share(
        be,
        &(kern_team_work){
            .run = stats_chunks, .args = &job, .n = (int64_t)a->n_rows * job.n_chunks, .step = 1},
        (int64_t)a->n_rows * a->n_local, TEAM_TOKENS / 2);
    return TP_OK;
}
