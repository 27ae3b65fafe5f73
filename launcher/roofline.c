/* SPDX-License-Identifier: Apache-2.0 */
/* roofline.c - the formulas.
 *
 *   streamed = linear * b + embed * 2 + vectors                 bytes that a decode step reads; embed is the head
 *   t_mem    = (streamed + batch * ctx * kv) / (bandwidth * share)
 *   t_cmp    = 2 * batch * linear / F_b + (2 * batch * embed + 4 * batch * ctx * heads * head_dim * layers) / F_16
 *   t_step   = max(t_mem, t_cmp) + (2 * layers + embed_sums) * sum(batch * hidden) + kernels * gap + host
 *   prefill  = 1 / (2 * linear / F_b + 2 * prompt * heads * head_dim * layers / F_16) tokens/s: a token of a prompt sees
 *              half of it on average, hence 2 and not 4; the head is only needed for the last token
 *
 * All-reduces: lines fitted to published measurements of 2 to 8 H100 behind NVSwitch; other links scale the part that
 * grows with the size.  What is not known (several hosts, PCIe) is an assumption that `plan` prints.
 */
#include "launcher/roofline.h"

#include <math.h>
#include <stddef.h>

#define MIB             1048576.0
#define FITTED_LINK_GBS 450.0 /* of the devices that the lines were fitted on */
#define PCIE_GBS        25.0  /* that peers reach through the host, each way */
#define NETWORK_GBS     40.0  /* per device, one 400 Gb/s port */
#define COPIES_MAX      64
#define LOAD_BATCH_MAX  256

const char *launch_format_name(launch_format f)
{
    static const char *const k_names[] = {"float32", "bfloat16", "fp8", "int4"};

    return k_names[f];
}

/* Of a weight of a layer's matrix. */
static double format_bytes(launch_format f)
{
    static const double k_bytes[] = {4, 2, 1, 0.5 + 2.5 / 128};

    return k_bytes[f];
}

static double table_bytes(launch_format f)
{
    return f == LAUNCH_FORMAT_F32 ? 4 : 2;
}

/* ---- sizes ---- */

double launch_roof_linear(const launch_roof_model *m)
{
    double h = m->hidden, d = m->head_dim;

    return m->n_layers * (h * (m->n_heads + 2 * m->n_kv_heads) * d + m->n_heads * d * h +
                          3 * h * m->intermediate);
}

double launch_roof_embed(const launch_roof_model *m)
{
    return (double)m->vocab * m->hidden;
}

launch_roof_share launch_roof_even_share(const launch_roof_model *m, int n_ranks)
{
    return (launch_roof_share){.linear = launch_roof_linear(m) / n_ranks,
                               .embed = launch_roof_embed(m) / n_ranks,
                               .heads = (double)m->n_heads / n_ranks,
                               .kv_heads = (m->n_kv_heads + n_ranks - 1) / n_ranks};
}

static double streamed(const launch_roof_case *c, const launch_roof_share *s)
{
    return s->linear * format_bytes(c->format) + s->embed * table_bytes(c->format) +
           c->model.vector_bytes;
}

double launch_roof_streamed(const launch_roof_case *c)
{
    return streamed(c, &c->share);
}

double launch_roof_resident(const launch_roof_case *c)
{
    return launch_roof_streamed(c) + (c->model.tied ? 0 : c->share.embed * table_bytes(c->format));
}

static double kv_bytes(const launch_roof_case *c, const launch_roof_share *s)
{
    return 2.0 * c->model.n_layers * s->kv_heads * c->model.head_dim * c->kv_element_bytes;
}

double launch_roof_kv_per_token(const launch_roof_case *c)
{
    return kv_bytes(c, &c->share);
}

static double attention_flops(const launch_roof_model *m, double tokens)
{
    return 2 * tokens * m->n_heads * m->head_dim * m->n_layers;
}

/* Tokens that a layer reads of a context, on average over the layers. */
static double seen(const launch_roof_model *m, double ctx)
{
    double windowed = m->n_window_layers > 0 && ctx > m->window ? m->window : ctx;

    return ctx + (windowed - ctx) * m->n_window_layers / m->n_layers;
}

/* ---- all-reduce ---- */

/* Value at n of the line through (2, at2), (4, at4), (8, at8). */
static double between(int n, double at2, double at4, double at8)
{
    return n <= 4 ? at2 + (at4 - at2) * (n - 2) / 2.0 : at4 + (at8 - at4) * (n - 4) / 4.0;
}

/* Inside one host with links of their own: the best of a kernel of ours, the switch's adders, and NCCL. */
static double linked_sum_us(const launch_gpu *g, int n_ranks, double mib)
{
    double slower = FITTED_LINK_GBS / g->link_gbs;
    double one_shot =
        between(n_ranks, 5.0, 6.0, 6.5) + between(n_ranks, 4.0, 8.0, 18.7) * mib * slower;
    double nccl = fmax(6.6 + 1.2 * (n_ranks - 1), between(n_ranks, 6, 15, 20) + 6.0 * mib * slower);
    double best = fmin(one_shot, nccl);

    if (g->multicast && n_ranks >= 4)
        best = fmin(best, 9 + 5.0 * mib * slower);
    return best;
}

double launch_roof_sum_us(const launch_gpu *g, int n_ranks, double bytes)
{
    double wire = 2 * bytes * (n_ranks - 1) / n_ranks; /* that a ring moves per device */

    if (n_ranks <= 1)
        return 0;
    if (n_ranks > 8)
        return 20 + 2.0 * (n_ranks - 1) + wire / (NETWORK_GBS * 1e3);
    if (g->link_gbs > 0)
        return linked_sum_us(g, n_ranks, bytes / MIB);
    return 12 + 3.0 * (n_ranks - 1) + wire / (PCIE_GBS * 1e3);
}

/* ---- time ---- */

/* Operations per millisecond on the layers' matrices; F32 runs at the rate of TF32. */
static double matrix_rate(const launch_roof_case *c)
{
    bool fp8 = c->format == LAUNCH_FORMAT_FP8 && c->gpu.tflops_8 > 0;
    double tflops = fp8 ? c->gpu.tflops_8 : c->gpu.tflops_16;

    return tflops * (c->format == LAUNCH_FORMAT_F32 ? 0.5e9 : 1e9);
}

static double compute_ms(const launch_roof_case *c, const launch_roof_share *s, int batch,
                         double ctx)
{
    const launch_roof_model *m = &c->model;
    double attention = 4 * seen(m, ctx) * s->heads * m->head_dim * m->n_layers;

    return 2 * batch * s->linear / matrix_rate(c) +
           batch * (2 * s->embed + attention) / (c->gpu.tflops_16 * 1e9);
}

static double memory_ms(const launch_roof_case *c, const launch_roof_share *s, int batch,
                        double ctx)
{
    return (streamed(c, s) + batch * seen(&c->model, ctx) * kv_bytes(c, s)) /
           (c->gpu.bandwidth_tbs * 1e9);
}

launch_roof_step launch_roof_decode(const launch_roof_case *c, int batch, double ctx)
{
    launch_roof_share even = launch_roof_even_share(&c->model, c->n_ranks);
    int n_sums = c->n_ranks > 1 ? 2 * c->model.n_layers + c->embed_sums : 0;
    double bytes = (double)batch * c->model.hidden * c->sum_element_bytes;
    launch_roof_step t = {
        .floor = fmax(memory_ms(c, &even, batch, ctx), compute_ms(c, &even, batch, ctx)),
        .memory = memory_ms(c, &c->share, batch, ctx) / c->gpu.bandwidth_share,
        .compute = compute_ms(c, &c->share, batch, ctx) / c->gpu.flops_share,
        .sums = n_sums * launch_roof_sum_us(&c->gpu, c->n_ranks, bytes) / 1e3,
        .gaps = (c->kernels_per_layer * c->model.n_layers * c->gpu.gap_us + c->host_us) / 1e3};

    t.compute_bound = t.compute > t.memory;
    t.total = fmax(t.memory, t.compute) + t.sums + t.gaps;
    return t;
}

/* Seconds per token of a device's part of the arithmetic: all of it, when it were alone. */
static double prefill_token_s(const launch_roof_case *c, double tokens)
{
    return (2 * launch_roof_linear(&c->model) / matrix_rate(c) +
            attention_flops(&c->model, seen(&c->model, tokens)) / (c->gpu.tflops_16 * 1e9)) /
           1e3;
}

double launch_roof_prefill_per_gpu(const launch_roof_case *c, double tokens, double flops_share)
{
    return flops_share / prefill_token_s(c, tokens);
}

double launch_roof_prefill(const launch_roof_case *c, double tokens, int chunk)
{
    double one = chunk < tokens ? chunk : tokens;
    double part = c->share.linear / launch_roof_linear(&c->model); /* of the fullest rank */
    double compute_s = one * prefill_token_s(c, tokens) * part / c->gpu.flops_share;
    double memory_s = memory_ms(c, &c->share, 0, 0) / c->gpu.bandwidth_share / 1e3;
    double sum_us =
        launch_roof_sum_us(&c->gpu, c->n_ranks, one * c->model.hidden * c->sum_element_bytes);
    int n_sums = c->n_ranks > 1 ? 2 * c->model.n_layers + c->embed_sums : 0;

    return one / (fmax(compute_s, memory_s) + n_sums * sum_us / 1e6);
}

/* ---- a load ---- */

/* The smallest batch that decodes `tokens_per_s` in the time that prefill leaves; 0 = none up to `most`. */
static int batch_for(const launch_roof_case *c, double tokens_per_s, double left, double ctx,
                     int most)
{
    for (int b = 1; b <= most; b++)
        if (1e3 * b * left / launch_roof_decode(c, b, ctx).total >= tokens_per_s)
            return b;
    return 0;
}

static launch_load_answer try_copies(const launch_roof_case *c, const launch_load *l,
                                     double kv_tokens, int chunk, double headroom, int copies)
{
    double rate = l->requests_per_s / copies / headroom, ctx = l->prompt + l->output / 2;
    double most = floor(kv_tokens / (l->prompt + l->output)), prefill = 0;
    launch_load_answer a = {.copies = copies};

    if (most < 1) {
        a.limit = "the cache does not hold one such request";
        return a;
    }
    if (l->prompt > 0)
        prefill = launch_roof_prefill(c, l->prompt, chunk);
    a.ttft_s = l->prompt > 0 ? l->prompt / prefill : 0;
    a.prefill_part = rate * a.ttft_s;
    a.limit = "prompts alone take all the time";
    if (a.prefill_part >= 1)
        return a;
    a.batch =
        batch_for(c, rate * l->output, 1 - a.prefill_part, ctx, (int)fmin(most, LOAD_BATCH_MAX));
    a.limit = "too many tokens for one group, or for its cache";
    if (a.batch == 0)
        return a;
    a.ms_per_token = launch_roof_decode(c, a.batch, ctx).total / (1 - a.prefill_part);
    a.limit = "a token takes longer than allowed";
    a.ok = l->ms_per_token_max <= 0 || a.ms_per_token <= l->ms_per_token_max;
    return a;
}

launch_load_answer launch_roof_load(const launch_roof_case *c, const launch_load *load,
                                    double kv_tokens, int chunk, double headroom)
{
    launch_load_answer a = {0};

    for (int copies = 1; copies <= COPIES_MAX && !a.ok; copies++)
        a = try_copies(c, load, kv_tokens, chunk, headroom, copies);
    if (a.ok)
        a.limit = NULL;
    return a;
}
