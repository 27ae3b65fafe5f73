/* SPDX-License-Identifier: Apache-2.0 */
/* golden_checks.c - see golden_checks.h.
 *
 * Logits are gathered on every rank, so all ranks come to the same verdict and none leaves a collective early.
 */
#include "tests/model/golden_checks.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

#define CHUNK 7 /* divides neither blocks nor prompts */

static double row_error(const float *a, const float *b, int n)
{
    double most = 0, scale = 0;

    for (int i = 0; i < n; i++) {
        most = fmax(most, fabs((double)a[i] - (double)b[i]));
        scale = fmax(scale, fabs((double)b[i]));
        if (isnan(a[i]))
            return INFINITY;
    }
    return most / scale;
}

static double log_sum_exp(const float *x, int n)
{
    double most = -INFINITY, sum = 0;

    for (int i = 0; i < n; i++)
        most = fmax(most, (double)x[i]);
    for (int i = 0; i < n; i++)
        sum += exp((double)x[i] - most);
    return most + log(sum);
}

/* KL(reference || ours). */
static double row_kl(const float *ours, const float *reference, int n)
{
    double la = log_sum_exp(ours, n), lb = log_sum_exp(reference, n), kl = 0;

    for (int i = 0; i < n; i++) {
        double lp = (double)reference[i] - lb;

        kl += exp(lp) * (lp - ((double)ours[i] - la));
    }
    return isnan(kl) ? HUGE_VAL : kl;
}

static double worst_error(const float *ours, const tm_golden *g)
{
    double worst = 0;

    for (int i = 0; i < g->n_ids; i++)
        worst = fmax(worst, row_error(ours + i * g->vocab, g->logits + i * g->vocab, g->vocab));
    return worst;
}

static double mean_kl(const float *ours, const tm_golden *g)
{
    double sum = 0;

    for (int i = 0; i < g->n_ids; i++)
        sum += row_kl(ours + i * g->vocab, g->logits + i * g->vocab, g->vocab);
    return sum / g->n_ids;
}

static void expect_equal(gc_result *out, const tm_golden *g, const float *a, const float *b,
                         const char *what)
{
    for (int i = 0; i < g->n_ids; i++) {
        if (memcmp(a + i * g->vocab, b + i * g->vocab, (size_t)g->vocab * sizeof *a) == 0)
            continue;
        for (int j = 0; j < g->vocab; j++) {
            if (memcmp(&a[i * g->vocab + j], &b[i * g->vocab + j], sizeof *a) == 0)
                continue;
            (void)fprintf(stderr, "%s: %s: row %d logit %d: %.9g and %.9g\n", g->dir, what, i, j,
                          (double)a[i * g->vocab + j], (double)b[i * g->vocab + j]);
            break;
        }
        out->bits_differ++;
        return;
    }
}

/* The golden among 15 strangers of other lengths and paces; its rows are collected. */
static tp_status batch_of_16(tm_model *m, const tm_golden *g, float *logits)
{
    enum { GOLDEN = 5 };
    int32_t ids[TM_SEQS][TM_TOKENS];
    int done[TM_SEQS] = {0}, len[TM_SEQS];

    for (int s = 0; s < TM_SEQS; s++) {
        len[s] = s == GOLDEN ? g->n_ids : 20 + s * 6;
        for (int i = 0; i < len[s]; i++)
            ids[s][i] = s == GOLDEN ? g->ids[i] : (g->ids[i % g->n_ids] + s * 31 + i) % g->vocab;
    }
    while (done[GOLDEN] < len[GOLDEN]) {
        tm_part parts[TM_SEQS];
        int n = 0;

        for (int s = 0; s < TM_SEQS; s++) {
            int take = 1 + s * 5 % 14; /* the golden: 12 */

            if (s == GOLDEN && done[s] >= g->n_prompt)
                take = 1 + done[s] % 4; /* then short steps, as when decoding */

            take = take < len[s] - done[s] ? take : len[s] - done[s];
            if (take == 0)
                continue;
            parts[n++] = (tm_part){.seq = s,
                                   .pos = done[s],
                                   .n = take,
                                   .ids = ids[s] + done[s],
                                   .logits = s == GOLDEN ? logits + done[s] * g->vocab : NULL};
            done[s] += take;
        }
        TP_TRY(tm_step(m, parts, n));
    }
    return TP_OK;
}

/* Prompt at once, then token by token, each the best of the last. */
static tp_status decode_greedily(tm_model *m, const tm_golden *g, bool *equal, float *logits)
{
    int32_t next;

    TP_TRY(tm_step(m, &(tm_part){.n = g->n_prompt, .ids = g->ids, .logits = logits}, 1));
    next = tm_argmax(logits + (g->n_prompt - 1) * g->vocab, g->vocab);
    for (int i = g->n_prompt; i < g->n_ids; i++) {
        *equal = *equal && next == g->ids[i];
        TP_TRY(tm_step(
            m, &(tm_part){.pos = i, .n = 1, .ids = &next, .logits = logits + i * g->vocab}, 1));
        next = tm_argmax(logits + i * g->vocab, g->vocab);
    }
    return TP_OK;
}

static float *new_logits(const tm_golden *g)
{
    float *p = tp_calloc((size_t)g->n_ids * (size_t)g->vocab, sizeof *p);

    TP_ASSERT(p != NULL);
    return p;
}

/* The same on a group of one. */
static tp_status alone(const tm_golden *g, kern_dtype dtype, const kern_ops *ops, const char *isa,
                       float *logits)
{
    comm_options opt = {.kind = "self", .window_bytes = 1 << 20, .plan_bytes_max = 64};
    comm_group *one;
    tm_model m;
    tp_status st;

    TP_TRY(comm_group_create_threads(&one, 1, &opt));
    st = tm_open(
        &m, &(tm_options){.dir = g->dir, .dtype = dtype, .ops = ops, .isa = isa, .group = one});
    if (st == TP_OK) {
        st = tm_logits(&m, g->ids, g->n_ids, g->n_ids, logits);
        tm_close(&m);
    }
    comm_group_destroy(one);
    return st;
}

static tp_status check_dtype(gc_result *out, const tm_golden *g, kern_dtype dtype,
                             comm_group *group, const char *isa)
{
    float *whole = new_logits(g), *other = new_logits(g);
    tm_options o = {
        .dir = g->dir, .dtype = dtype, .ops = kern_cpu_ops(), .isa = isa, .group = group};
    bool tokens = true;
    tm_model m;
    tp_status st;

    TP_TRY_GOTO(st, tm_open(&m, &o), out);
    TP_TRY_GOTO(st, tm_logits(&m, g->ids, g->n_ids, g->n_ids, whole), close);
    if (dtype == KERN_DTYPE_F32)
        out->f32_error = worst_error(whole, g);
    if (dtype == KERN_DTYPE_BF16)
        out->bf16_kl = mean_kl(whole, g);
    if (dtype != KERN_DTYPE_F16) { /* whose activations are F32: only the weights differ */
        TP_TRY_GOTO(st, tm_logits(&m, g->ids, g->n_ids, CHUNK, other), close);
        expect_equal(out, g, whole, other, "chunked and whole prefill");
        TP_TRY_GOTO(st, batch_of_16(&m, g, other), close);
        expect_equal(out, g, whole, other, "batch of 16 and alone");
    }
    if (dtype == KERN_DTYPE_F32) {
        TP_TRY_GOTO(st, decode_greedily(&m, g, &tokens, other), close);
        out->tokens_equal = tokens;
        if (tokens)
            expect_equal(out, g, whole, other, "decode and prefill");
    }
    TP_TRY_GOTO(st, alone(g, dtype, kern_cpu_ops(), isa, other), close);
    expect_equal(out, g, whole, other, "all ranks and one rank");
close:
    tm_close(&m);
out:
    tp_free(whole);
    tp_free(other);
    return st;
}

void gc_check_trait(gc_result *out, const char *trait, comm_group *group, const char *isa)
{
    static const kern_dtype dtypes[] = {KERN_DTYPE_F32, KERN_DTYPE_BF16, KERN_DTYPE_F16};
    tm_golden g;

    memset(out, 0, sizeof *out);
    tm_golden_read(&g, trait);
    for (size_t i = 0; i < TP_ARRAY_LEN(dtypes); i++) {
        if (check_dtype(out, &g, dtypes[i], group, isa) != TP_OK) {
            (void)fprintf(stderr, "%s: %s\n", trait, tp_last_error());
            out->failed++;
        }
    }
    tm_golden_free(&g);
}

void gc_check_ref(gc_result *out, const char *trait)
{
    tm_golden g;
    float *logits;

    memset(out, 0, sizeof *out);
    tm_golden_read(&g, trait);
    logits = new_logits(&g);
    out->failed += alone(&g, KERN_DTYPE_F32, kern_ref_ops(), NULL, logits) != TP_OK;
    out->f32_error = worst_error(logits, &g);
    out->tokens_equal = true;
    for (int i = g.n_prompt; i < g.n_ids; i++)
        out->tokens_equal =
            out->tokens_equal && tm_argmax(logits + (i - 1) * g.vocab, g.vocab) == g.ids[i];
    out->failed += alone(&g, KERN_DTYPE_BF16, kern_ref_ops(), NULL, logits) != TP_OK;
    out->bf16_kl = mean_kl(logits, &g);
    tp_free(logits);
    tm_golden_free(&g);
}

/* In F32 also in chunks, in a batch and token by token: the largest error of all. */
static tp_status check_ways(gc_result *out, tm_model *m, const tm_golden *g, float *logits)
{
    TP_TRY(tm_logits(m, g->ids, g->n_ids, CHUNK, logits));
    out->f32_error = fmax(out->f32_error, worst_error(logits, g));
    TP_TRY(batch_of_16(m, g, logits));
    out->f32_error = fmax(out->f32_error, worst_error(logits, g));
    out->tokens_equal = true;
    TP_TRY(decode_greedily(m, g, &out->tokens_equal, logits));
    out->f32_error = fmax(out->f32_error, worst_error(logits, g));
    return TP_OK;
}

static tp_status check_on_device(gc_result *out, const tm_golden *g, kern_dtype dtype,
                                 comm_group *group, kern_backend *be)
{
    tm_options o = {.dir = g->dir, .dtype = dtype, .be = be, .group = group};
    float *logits = new_logits(g);
    tm_model m;
    tp_status st;

    TP_TRY_GOTO(st, tm_open(&m, &o), out);
    TP_TRY_GOTO(st, tm_logits(&m, g->ids, g->n_ids, g->n_ids, logits), close);
    if (dtype == KERN_DTYPE_BF16)
        out->bf16_kl = mean_kl(logits, g);
    if (dtype == KERN_DTYPE_F16)
        out->f16_kl = mean_kl(logits, g);
    if (dtype == KERN_DTYPE_F32) {
        out->f32_error = worst_error(logits, g);
        st = check_ways(out, &m, g, logits);
    }
close:
    tm_close(&m);
out:
    tp_free(logits);
    return st;
}

void gc_check_device(gc_result *out, const char *trait, comm_group *group, kern_backend *be)
{
    tm_golden g;

    *out = (gc_result){.device = true};
    tm_golden_read(&g, trait);
    for (int t = KERN_DTYPE_F32; t <= KERN_DTYPE_F16; t++) {
        if (check_on_device(out, &g, (kern_dtype)t, group, be) != TP_OK) {
            (void)fprintf(stderr, "%s: %s\n", trait, tp_last_error());
            out->failed++;
        }
    }
    tm_golden_free(&g);
}

int gc_report(const gc_result *r, const char *trait, int n_ranks, const char *isa, bool print)
{
    int bad = r->failed + r->bits_differ + !r->tokens_equal + !(r->f32_error <= GC_F32_ERROR_MAX) +
              !(r->bf16_kl <= GC_BF16_KL_MAX) + !(r->f16_kl <= GC_BF16_KL_MAX);
    char last[32] = "bits equal";

    if (r->device)
        (void)snprintf(last, sizeof last, "f16 KL %.1e", r->f16_kl);
    else if (r->bits_differ != 0)
        (void)snprintf(last, sizeof last, "bits DIFFER");
    if (print)
        (void)printf("%-18s TP %d %-8s f32 error %.1e  tokens %s  bf16 KL %.1e  %s%s\n", trait,
                     n_ranks, isa, r->f32_error, r->tokens_equal ? "equal" : "DIFFER", r->bf16_kl,
                     last, r->failed != 0 ? "  FAILED" : "");
    return bad;
}
