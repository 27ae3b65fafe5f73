/* SPDX-License-Identifier: Apache-2.0 */
/* test_kernels_draw.c - drawing on the device and in the scalar backend, from what topk and chunk_stats of the scalar
 * backend say of 1 to 8 shards of one vocabulary.
 *
 * Three ways must draw the same token: the kernel, the scalar backend, and the runtime's own selection on the whole
 * sorted vocabulary.  A row may be left open only where top_k does not limit it.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "device_testing.h"
#include "kernels/philox.h"
#include "runtime/sample/select.h"

enum { ROWS = 24, K = 256, RANKS_MAX = 8 };

static int g_open, g_drawn;

static int close_all(void **state)
{
    print_message("%d tokens drawn, %d rows left open\n", g_drawn, g_open);
    return dt_teardown(state);
}

/* A vocabulary on some ranks, and the message of each: [greedy val, id | filtered val, id | stats]. */
typedef struct world {
    int32_t vocab, chunk_tokens;
    int n_ranks, k;
    float *logits; /* [ROWS, vocab] */
    kern_draw_rank ranks[RANKS_MAX];
    int32_t first[RANKS_MAX];
    kern_draw_row rows[ROWS];
    unsigned char *gathered;
    int64_t best, top, stats, bytes; /* places in a message */
} world;

static void cut_vocabulary(world *w)
{
    int32_t n_chunks = (w->vocab + w->chunk_tokens - 1) / w->chunk_tokens, chunk = 0;
    int32_t most = 0;

    for (int r = 0; r < w->n_ranks; r++) {
        int32_t n = n_chunks / w->n_ranks + (r < n_chunks % w->n_ranks);
        int32_t end = (chunk + n) * w->chunk_tokens;

        w->first[r] = chunk * w->chunk_tokens;
        w->ranks[r].n_chunks = n;
        w->ranks[r].n_local = (end < w->vocab ? end : w->vocab) - w->first[r];
        if (n == 0)
            w->ranks[r].n_local = 0;
        chunk += n;
        most = n > most ? n : most;
    }
    w->best = 0;
    w->top = ROWS * 8;
    w->stats = w->top + (int64_t)ROWS * w->k * 8;
    w->bytes = w->stats + (int64_t)ROWS * most * (int64_t)sizeof(kern_chunk_stat);
}

static void describe_row(kt_rng *rng, world *w, int i)
{
    static const float temps[] = {0.7f, 1.0f, 1.6f, 0.2f};
    int kind = i % 6;
    kern_draw_row *r = &w->rows[i];

    *r = (kern_draw_row){.kind = kind == 0   ? KERN_DRAW_GREEDY
                                 : kind == 1 ? KERN_DRAW_PLAIN
                                             : KERN_DRAW_FILTERED,
                         .k = kind == 0   ? 1
                              : kind == 1 ? 0
                                          : w->k,
                         .val = kind == 0 ? w->best + i * 4 : w->top + (int64_t)i * w->k * 4,
                         .stats = -1,
                         .stats_row = i,
                         .top_k = kind == 2 || kind == 3 ? 1 + kt_below(rng, 64) : 0,
                         .temperature = temps[i / 6 % 4],
                         .top_p = kind == 3 || kind == 4 ? 0.8f : 1.0f,
                         .min_p = kind == 5 ? 0.05f : 0.0f,
                         .seed = kt_u32(rng),
                         .counter = kt_u32(rng)};
    r->id = kind == 0 ? w->best + (ROWS + i) * 4 : w->top + (int64_t)(ROWS + i) * w->k * 4;
    if (kind == 1 || kind == 4)
        r->stats = w->stats;
}

static void fill_message(world *w, int rank)
{
    unsigned char *m = w->gathered + rank * w->bytes;
    int32_t rows[ROWS];
    kern_chunk_row stats[ROWS];
    float *scratch = kt_zeros((size_t)w->chunk_tokens * sizeof *scratch);
    kern_topk_args top = {.logits = w->logits + w->first[rank],
                          .ld = w->vocab,
                          .rows = rows,
                          .n_rows = ROWS,
                          .k = 1,
                          .vocab_first = w->first[rank],
                          .n_local = w->ranks[rank].n_local,
                          .val = (float *)(void *)(m + w->best),
                          .id = (int32_t *)(void *)(m + w->best) + ROWS};

    for (int i = 0; i < ROWS; i++) {
        rows[i] = i;
        stats[i] = (kern_chunk_row){.row = i,
                                    .inv_temp = 1.0f / w->rows[i].temperature,
                                    .seed = w->rows[i].seed,
                                    .counter = w->rows[i].counter};
    }
    KT_OK(kern_topk(dt_ref, &top));
    top.k = w->k;
    top.val = (float *)(void *)(m + w->top);
    top.id = (int32_t *)(void *)(m + w->top) + (int64_t)ROWS * w->k;
    KT_OK(kern_topk(dt_ref, &top));
    KT_OK(kern_chunk_stats(dt_ref,
                           &(kern_chunk_args){.logits = top.logits,
                                              .ld = w->vocab,
                                              .rows = stats,
                                              .n_rows = ROWS,
                                              .vocab_first = w->first[rank],
                                              .n_local = w->ranks[rank].n_local,
                                              .chunk_tokens = w->chunk_tokens,
                                              .out = (kern_chunk_stat *)(void *)(m + w->stats),
                                              .scratch = scratch}));
    kt_free(scratch);
}

static float logit_value(kt_rng *rng, int row)
{
    float x = kt_unit(rng) + kt_unit(rng) + kt_unit(rng);

    switch (row % 9) {
    case 6: return (float)kt_below(rng, 9) - 4.0f; /* many equals, and -0 */
    case 7: return kt_below(rng, 50) == 0 ? x * 6.0f : kt_below(rng, 2) == 0 ? NAN : -INFINITY;
    case 8: return x * 0.01f; /* flat: no list holds the nucleus */
    default: return x * 6.0f;
    }
}

/* ---- what the runtime would draw, with all of the vocabulary before it ---- */
static int32_t expected_filtered(const world *w, int i)
{
    const kern_draw_row *r = &w->rows[i];
    rt_cand *all = kt_zeros((size_t)w->vocab * sizeof *all);
    rt_select_args a = {.cand = all,
                        .complete = true,
                        .temperature = r->temperature,
                        .top_p = r->top_p,
                        .min_p = r->min_p,
                        .top_k = r->top_k,
                        .u = kern_philox_uniform(r->seed, r->counter, 0, 2)};
    int32_t id = KERN_DRAW_NONE;

    for (int32_t t = 0; t < w->vocab; t++)
        if (isfinite(w->logits[i * w->vocab + t]))
            all[a.n++] = (rt_cand){w->logits[i * w->vocab + t], t};
    qsort(all, (size_t)a.n, sizeof *all, rt_cand_compare);
    for (int j = 0; j < a.n; j++)
        a.total += exp(((double)all[j].val - (double)all[0].val) / (double)r->temperature);
    if (a.n > 0)
        assert_true(rt_select(&a, &id));
    kt_free(all);
    return id;
}

static int32_t expected_greedy(const world *w, int i)
{
    const float *l = w->logits + i * w->vocab;
    int32_t best = KERN_DRAW_NONE;

    for (int32_t t = 0; t < w->vocab; t++)
        if (l[t] > -INFINITY && (best < 0 || l[t] > l[best]))
            best = t;
    return best >= 0 && isfinite(l[best]) ? best : KERN_DRAW_NONE;
}

static void check_row(const world *w, int i, int32_t token, float logit)
{
    const kern_draw_row *r = &w->rows[i];

    g_open += token == KERN_DRAW_OPEN;
    g_drawn += token >= 0;
    if (token == KERN_DRAW_OPEN)
        assert_true(r->kind == KERN_DRAW_FILTERED && r->top_k == 0);
    else if (r->kind == KERN_DRAW_GREEDY)
        assert_int_equal(token, expected_greedy(w, i));
    else if (r->kind == KERN_DRAW_FILTERED)
        assert_int_equal(token, expected_filtered(w, i));
    if (token >= 0)
        assert_true(logit == w->logits[i * w->vocab + token]);
    else
        assert_true(logit == -INFINITY);
}

static void draw_case(kt_rng *rng, int32_t vocab, int32_t chunk_tokens, int n_ranks, int k)
{
    world w = {.vocab = vocab, .chunk_tokens = chunk_tokens, .n_ranks = n_ranks, .k = k};
    int32_t token[ROWS], want[ROWS];
    float logit[ROWS], want_logit[ROWS];
    kern_draw_args a, ref;
    const char *what = dt_case("%d tokens on %d ranks, k %d", vocab, n_ranks, k);

    cut_vocabulary(&w);
    w.logits = kt_zeros((size_t)(ROWS * vocab) * sizeof *w.logits);
    for (int i = 0; i < ROWS; i++) {
        describe_row(rng, &w, i);
        for (int32_t t = 0; t < vocab; t++)
            w.logits[i * vocab + t] = i == ROWS - 1 ? -INFINITY : logit_value(rng, i);
    }
    w.logits[0] = INFINITY; /* a row that greedy refuses */
    w.gathered = kt_zeros((size_t)(n_ranks * w.bytes));
    memset(w.gathered, 0xff, (size_t)(n_ranks * w.bytes));
    for (int r = 0; r < n_ranks; r++)
        fill_message(&w, r);
    ref = (kern_draw_args){.gathered = w.gathered,
                           .message_bytes = w.bytes,
                           .ranks = w.ranks,
                           .rows = w.rows,
                           .n_ranks = n_ranks,
                           .n_rows = ROWS,
                           .token = want,
                           .logit = want_logit};
    KT_OK(dt_ref->ops->draw(dt_ref, &ref));
    a = ref;
    a.gathered = dt_in(w.gathered, (size_t)(n_ranks * w.bytes), 0);
    a.ranks = dt_in(w.ranks, (size_t)n_ranks * sizeof *w.ranks, 0);
    a.rows = dt_in(w.rows, sizeof w.rows, 0);
    a.token = dt_out(sizeof token, 0);
    a.logit = dt_out(sizeof logit, 0);
    KT_OK(kern_cuda_draw(&a, dt_stream()));
    dt_read(token, a.token, sizeof token);
    dt_read(logit, a.logit, sizeof logit);
    for (int i = 0; i < ROWS; i++)
        check_row(&w, i, want[i], want_logit[i]);
    dt_same_bits("draw token", what, token, want, sizeof token);
    dt_close_to("draw logit", what, logit, want_logit, KERN_DTYPE_F32, ROWS, 1e-30, 1);
    kt_free(w.logits), kt_free(w.gathered);
    dt_release();
}

static void test_draw(void **state)
{
    static const int ranks[] = {1, 2, 3, 8};
    kt_rng rng = {31};

    (void)state;
    for (size_t i = 0; i < TP_ARRAY_LEN(ranks); i++) {
        draw_case(&rng, 2000, 64, ranks[i], K);
        draw_case(&rng, 700, 64, ranks[i], 64);
        draw_case(&rng, 50, 16, ranks[i], K); /* fewer tokens than places; ranks without any */
        draw_case(&rng, 9000, 40, ranks[i], K);
    }
    draw_case(&rng, 9000, 2, 2, 64); /* more chunks than one tile */
    KT_OK(kern_cuda_draw(&(kern_draw_args){.n_rows = 0}, dt_stream()));
}

/* The token of a plain row does not depend on the number of ranks. */
static void test_plain_everywhere(void **state)
{
    enum { VOCAB = 3000 };
    int32_t token[2][ROWS];

    (void)state;
    for (int pass = 0; pass < 2; pass++) {
        kt_rng rng = {33};
        world w = {.vocab = VOCAB, .chunk_tokens = 50, .n_ranks = pass == 0 ? 1 : 7, .k = 4};
        float logit[ROWS];

        cut_vocabulary(&w);
        w.logits = kt_floats(&rng, (size_t)ROWS * VOCAB, 8.0f);
        for (int i = 0; i < ROWS; i++) {
            describe_row(&rng, &w, i);
            w.rows[i].kind = KERN_DRAW_PLAIN;
            w.rows[i].stats = w.stats;
        }
        w.gathered = kt_zeros((size_t)(w.n_ranks * w.bytes));
        for (int r = 0; r < w.n_ranks; r++)
            fill_message(&w, r);
        KT_OK(dt_ref->ops->draw(dt_ref, &(kern_draw_args){.gathered = w.gathered,
                                                          .message_bytes = w.bytes,
                                                          .ranks = w.ranks,
                                                          .rows = w.rows,
                                                          .n_ranks = w.n_ranks,
                                                          .n_rows = ROWS,
                                                          .token = token[pass],
                                                          .logit = logit}));
        kt_free(w.logits), kt_free(w.gathered);
    }
    dt_same_bits("plain on 1 and 7 ranks", "plain", token[0], token[1], sizeof token[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_draw),
        cmocka_unit_test(test_plain_everywhere),
    };

    return cmocka_run_group_tests(tests, dt_setup, close_all);
}
