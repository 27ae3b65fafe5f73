/* SPDX-License-Identifier: Apache-2.0 */
/* ref_draw.c - one token per row from what all ranks know. */
#include <math.h>

#include "kernels/draw.h"
#include "kernels/ref/ref_internal.h"

typedef struct drawn {
    int32_t token;
    float logit;
} drawn;

static const drawn NONE = {KERN_DRAW_NONE, -INFINITY}, OPEN = {KERN_DRAW_OPEN, -INFINITY};

static const char *message_of(const kern_draw_args *a, int rank)
{
    return (const char *)a->gathered + rank * a->message_bytes;
}

static const kern_chunk_stat *stats_of(const kern_draw_args *a, const kern_draw_row *r, int rank)
{
    return (const kern_chunk_stat *)(const void *)(message_of(a, rank) + r->stats) +
           (int64_t)r->stats_row * a->ranks[rank].n_chunks;
}

/* Mass of the whole vocabulary, relative to exp(top * inv_temp). */
static double total_of(const kern_draw_args *a, const kern_draw_row *r, double top, double inv_temp)
{
    double total = 0;

    for (int k = 0; k < a->n_ranks; k++) {
        const kern_chunk_stat *c = stats_of(a, r, k);

        for (int j = 0; j < a->ranks[k].n_chunks; j++)
            if (c[j].pick >= 0)
                total += exp(((double)c[j].max - top) * inv_temp) * (double)c[j].sum;
    }
    return total;
}

static drawn draw_plain(const kern_draw_args *a, const kern_draw_row *r)
{
    double inv_temp = 1.0 / (double)r->temperature, top = -INFINITY, cum = 0, target;
    drawn d = NONE;

    for (int k = 0; k < a->n_ranks; k++) {
        const kern_chunk_stat *c = stats_of(a, r, k);

        for (int j = 0; j < a->ranks[k].n_chunks; j++)
            if (c[j].pick >= 0)
                top = fmax(top, (double)c[j].max);
    }
    if (!isfinite(top))
        return d;
    target = kern_philox_uniform(r->seed, r->counter, 0, KERN_STREAM_CHUNK) *
             total_of(a, r, top, inv_temp);
    for (int k = 0; k < a->n_ranks; k++) {
        const kern_chunk_stat *c = stats_of(a, r, k);

        for (int j = 0; j < a->ranks[k].n_chunks; j++) {
            if (c[j].pick < 0)
                continue;
            cum += exp(((double)c[j].max - top) * inv_temp) * (double)c[j].sum;
            d = (drawn){c[j].pick, c[j].pick_logit};
            if (cum > target)
                return d;
        }
    }
    return d;
}

/* ---- candidates ---- */
typedef struct candidates {
    int n;
    bool complete;
    float val[KERN_DRAW_LIST];
    int32_t id[KERN_DRAW_LIST];
} candidates;

static bool better(float val, int32_t id, float than_val, int32_t than_id)
{
    return val > than_val || (val == than_val && id < than_id);
}

/* The ranks' lists, merged; n ends behind the best of the last entries of lists that were cut: beyond it a rank may have
 * a better one that is not here. */
static void merge(const kern_draw_args *a, const kern_draw_row *r, candidates *c)
{
    int at[TP_SEG_MAX] = {0}, k = kern_draw_depth(r, a->n_ranks);

    c->n = 0;
    c->complete = true;
    for (int i = 0; i < a->n_ranks; i++)
        c->complete &= a->ranks[i].n_local <= k ||
                       ((const int32_t *)(const void *)(message_of(a, i) + r->id))[k - 1] < 0;
    for (;;) {
        int from = -1;

        for (int i = 0; i < a->n_ranks; i++) {
            const float *val = (const float *)(const void *)(message_of(a, i) + r->val);
            const int32_t *id = (const int32_t *)(const void *)(message_of(a, i) + r->id);

            if (at[i] < k && id[at[i]] >= 0 &&
                (from < 0 || better(val[at[i]], id[at[i]], c->val[c->n], c->id[c->n]))) {
                from = i;
                c->val[c->n] = val[at[i]];
                c->id[c->n] = id[at[i]];
            }
        }
        if (from < 0)
            return;
        c->n++;
        if (++at[from] == k && a->ranks[from].n_local > k)
            return;
    }
}

static drawn draw_greedy(const candidates *c)
{
    return c->n > 0 && isfinite(c->val[0]) ? (drawn){c->id[0], c->val[0]} : NONE;
}

static drawn draw_filtered(const kern_draw_args *a, const kern_draw_row *r, const candidates *c)
{
    double weight[KERN_DRAW_LIST], inv_temp = 1.0 / (double)r->temperature;
    kern_draw_list list = {.weight = weight,
                           .n = c->n,
                           .complete = c->complete,
                           .top_p = (double)r->top_p,
                           .min_p = (double)r->min_p,
                           .top_k = r->top_k};
    int at;

    if (c->n == 0 || !isfinite(c->val[0]))
        return NONE;
    for (int i = 0; i < c->n; i++)
        weight[i] = exp(((double)c->val[i] - (double)c->val[0]) * inv_temp);
    if (r->stats >= 0)
        list.total = total_of(a, r, (double)c->val[0], inv_temp);
    list.u = kern_philox_uniform(r->seed, r->counter, 0, KERN_STREAM_LIST);
    at = kern_draw_choose(&list);
    return at >= 0 ? (drawn){c->id[at], c->val[at]} : OPEN;
}

tp_status kern_ref_draw(kern_backend *be, const kern_draw_args *a)
{
    (void)be;
    TP_TRY(kern_check_draw(a));
    for (int i = 0; i < a->n_rows; i++) {
        const kern_draw_row *r = &a->rows[i];
        candidates c;
        drawn d;

        if (r->kind == KERN_DRAW_PLAIN) {
            d = draw_plain(a, r);
        } else {
            merge(a, r, &c);
            d = r->kind == KERN_DRAW_GREEDY ? draw_greedy(&c) : draw_filtered(a, r, &c);
        }
        a->token[i] = d.token;
        a->logit[i] = d.logit;
    }
    return TP_OK;
}
