/* SPDX-License-Identifier: Apache-2.0 */
/* ngram.c - chains of places that end with the same tokens. */
#include "runtime/spec/ngram.h"

#include <string.h>

#define BUCKETS_MIN 64
#define BUCKETS_MAX 16384

/* Of the `min` tokens that end at place i.  Different ones may share a bucket: matches are compared token by token. */
static uint32_t hash_at(const rt_ngram *g, int32_t i)
{
    uint32_t h = 0;

    for (int j = 0; j < g->opt.min; j++)
        h = (h ^ (uint32_t)g->tokens[i - j]) * UINT32_C(0x9e3779b1);
    return (h ^ h >> 15) & g->mask;
}

tp_status rt_ngram_init(rt_ngram *g, tp_arena *a, const rt_ngram_options *o, const int32_t *prompt,
                        int32_t n_prompt, int32_t n_max)
{
    rt_ngram made = {.opt = *o, .n_max = n_max};
    uint32_t buckets = BUCKETS_MIN;

    TP_ASSERT(o->min >= 1 && o->min <= o->max && o->max <= RT_NGRAM_MAX && n_prompt <= n_max);
    while (buckets < BUCKETS_MAX && buckets < (uint32_t)n_prompt)
        buckets *= 2;
    made.mask = buckets - 1;
    made.tokens = tp_arena_alloc(a, (size_t)n_max * sizeof *made.tokens);
    made.before = tp_arena_alloc(a, (size_t)n_max * sizeof *made.before);
    made.newest = tp_arena_calloc(a, buckets, sizeof *made.newest);
    if (made.tokens == NULL || made.before == NULL || made.newest == NULL)
        return TP_REJECT(TP_ERR_NOMEM, "out of memory for a request of %d tokens", n_prompt);
    *g = made;
    for (int32_t i = 0; i < n_prompt; i++)
        rt_ngram_append(g, prompt[i]);
    return TP_OK;
}

void rt_ngram_append(rt_ngram *g, int32_t token)
{
    int32_t i = g->n, *newest;

    TP_ASSERT(i < g->n_max);
    g->tokens[i] = token;
    g->n++;
    if (g->n < g->opt.min)
        return;
    newest = &g->newest[hash_at(g, i)];
    g->before[i] = *newest;
    *newest = g->n;
}

/* Tokens that agree before and at places a and b, a < b; `max` at most. */
static int match(const rt_ngram *g, int32_t a, int32_t b)
{
    int n = 0;

    while (n < g->opt.max && n <= a && g->tokens[a - n] == g->tokens[b - n])
        n++;
    return n;
}

int rt_ngram_guess(const rt_ngram *g, int32_t skip, int most, int32_t *out)
{
    int32_t end = g->n - 1, at = -1, period;
    int longest = g->opt.min - 1, walk = RT_NGRAM_WALK;

    if (g->n < g->opt.min)
        return 0;
    for (int32_t i = g->before[end] - 1; i >= 0 && walk > 0; i = g->before[i] - 1, walk--) {
        int n = match(g, i, end);

        if (n > longest) {
            longest = n;
            at = i;
        }
        if (n == g->opt.max)
            break;
    }
    if (at < 0)
        return 0;
    period = end - at; /* a guess that reaches the end of the text goes on with itself */
    for (int k = 0; k < most; k++)
        out[k] = g->tokens[at + 1 + (skip + k) % period];
    return most;
}
