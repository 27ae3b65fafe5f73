/* SPDX-License-Identifier: Apache-2.0 */
/* ngram.c - chains of places that end with the same tokens. */
#include "runtime/spec/ngram.h"

#include <string.h>

#define BUCKETS_MIN 64
#define BUCKETS_MAX 16384

static int32_t token_at(const rt_ngram *g, int32_t i)
{
    return i < g->n_prompt ? g->prompt[i] : g->tokens[i - g->n_prompt];
}

static int32_t before_at(const rt_ngram *g, int32_t i)
{
    return i < g->n_prompt ? g->prompt_before[i] : g->before[i - g->n_prompt];
}

/* Of the `min` tokens that end at place i.  Different ones may share a bucket: matches are compared token by token. */
static uint32_t hash_at(const rt_ngram *g, int32_t i)
{
    uint32_t h = 0;

    for (int j = 0; j < g->opt.min; j++)
        h = (h ^ (uint32_t)token_at(g, i - j)) * UINT32_C(0x9e3779b1);
    return (h ^ h >> 15) & g->mask;
}

/* Makes the newest place a link of its chain; returns the one before it. */
static int32_t link_newest(rt_ngram *g)
{
    int32_t *newest, before;

    g->n++;
    if (g->n < g->opt.min)
        return 0;
    newest = &g->newest[hash_at(g, g->n - 1)];
    before = *newest;
    *newest = g->n;
    return before;
}

static tp_status allocate_answer(rt_ngram *g, tp_arena *a)
{
    size_t n = (size_t)(g->n_max - g->n_prompt), buckets = (size_t)g->mask + 1;

    g->tokens = tp_arena_alloc(a, n * sizeof *g->tokens);
    g->before = tp_arena_alloc(a, n * sizeof *g->before);
    g->newest = tp_arena_calloc(a, buckets, sizeof *g->newest);
    if (g->tokens == NULL || g->before == NULL || g->newest == NULL)
        return TP_REJECT(TP_ERR_NOMEM, "out of memory for a request of %d tokens", g->n_prompt);
    return TP_OK;
}

tp_status rt_ngram_init(rt_ngram *g, tp_arena *a, const rt_ngram_options *o, const int32_t *prompt,
                        int32_t n_prompt, int32_t n_max)
{
    rt_ngram made = {.opt = *o, .n_max = n_max, .n_prompt = n_prompt, .prompt = prompt};
    uint32_t buckets = BUCKETS_MIN;
    int32_t *before;

    TP_ASSERT(o->min >= 1 && o->min <= o->max && o->max <= RT_NGRAM_MAX && n_prompt <= n_max);
    while (buckets < BUCKETS_MAX && buckets < (uint32_t)n_prompt)
        buckets *= 2;
    made.mask = buckets - 1;
    before = tp_arena_alloc(a, (size_t)n_prompt * sizeof *before);
    if (before == NULL)
        return TP_REJECT(TP_ERR_NOMEM, "out of memory for a request of %d tokens", n_prompt);
    TP_TRY(allocate_answer(&made, a));
    for (int32_t i = 0; i < n_prompt; i++)
        before[i] = link_newest(&made);
    made.prompt_before = before;
    *g = made;
    return TP_OK;
}

tp_status rt_ngram_fork(rt_ngram *g, tp_arena *a, const rt_ngram *first)
{
    rt_ngram made = *first;

    TP_ASSERT(first->n == first->n_prompt);
    TP_TRY(allocate_answer(&made, a));
    memcpy(made.newest, first->newest, ((size_t)first->mask + 1) * sizeof *made.newest);
    *g = made;
    return TP_OK;
}

void rt_ngram_append(rt_ngram *g, int32_t token)
{
    int32_t i = g->n - g->n_prompt;

    TP_ASSERT(g->n < g->n_max);
    g->tokens[i] = token;
    g->before[i] = link_newest(g);
}

/* Tokens that agree before and at places a and b, a < b; `max` at most. */
static int match(const rt_ngram *g, int32_t a, int32_t b)
{
    int n = 0;

    while (n < g->opt.max && n <= a && token_at(g, a - n) == token_at(g, b - n))
        n++;
    return n;
}

int rt_ngram_guess(const rt_ngram *g, int32_t skip, int most, int32_t *out)
{
    int32_t end = g->n - 1, at = -1, period;
    int longest = g->opt.min - 1, walk = RT_NGRAM_WALK;

    if (g->n < g->opt.min)
        return 0;
    for (int32_t i = before_at(g, end) - 1; i >= 0 && walk > 0; i = before_at(g, i) - 1, walk--) {
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
        out[k] = token_at(g, at + 1 + (skip + k) % period);
    return most;
}
