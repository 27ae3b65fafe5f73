/* SPDX-License-Identifier: Apache-2.0 */
/* plan_print.c - one fit in full: bytes, tokens, times, and what they rest on. */
#include <inttypes.h>
#include <string.h>

#include "launcher/plan_tool.h"

static double context_of(const launch_plan *p)
{
    return (double)p->opt->context;
}

static bool holds(const launch_plan_fit *f, int batch, double ctx)
{
    return (double)f->kv_tokens >= batch * ctx;
}

static void print_memory(FILE *out, const launch_plan *p, const launch_plan_fit *f)
{
    const launch_gpu *g = &f->c.gpu;
    double kv = (double)f->kv_tokens * f->kv_per_token, memory = g->memory_gb * 1e9;

    fprintf(out, "devices        %d x %s: %.4g GB, %.4g TB/s, %.4g TFLOP/s%s, %s (%s)\n\n",
            f->c.n_ranks, g->product, g->memory_gb, g->bandwidth_tbs, g->tflops_16,
            p->format == LAUNCH_FORMAT_FP8 && g->tflops_8 > 0 ? " (FP8 twice that)" : "",
            g->link_gbs > 0 ? "NVLink" : "no NVLink", g->source);
    if (f->kv_tokens == 0)
        fprintf(
            out,
            "fits           NO: weights and workspace take %.2f GB of the %.2f GB that a rank may use; more "
            "ranks or smaller weights (--quantization) would\n",
            (f->resident + f->workspace) / 1e9, f->usable / 1e9);
    else if (!f->fits)
        fprintf(out, "fits           yes, but with contexts of at most %" PRId64 " tokens\n",
                f->kv_tokens);
    else
        fprintf(out, "fits           yes\n");
    fprintf(
        out,
        "per rank       weights %.3f GB (%.3f GB read per step) + workspace %.3f GB + KV cache %.3f GB = %.2f "
        "of %.4g GB\n",
        f->resident / 1e9, f->streamed / 1e9, f->workspace / 1e9, kv / 1e9,
        (f->resident + f->workspace + kv) / 1e9, memory / 1e9);
    fprintf(out,
            "KV cache       %" PRId64 " tokens of %.0f bytes: %.1f sequences of %" PRId64
            " tokens at once\n",
            f->kv_tokens, f->kv_per_token, (double)f->kv_tokens / (double)p->max_model_len,
            p->max_model_len);
}

static void print_decode(FILE *out, const launch_plan *p, const launch_plan_fit *f)
{
    double ctx = context_of(p);

    fprintf(out, "\ndecode with %.0f tokens of context (predicted), milliseconds per step\n", ctx);
    fprintf(out, "%6s %9s %10s %10s | %8s %8s %8s %8s | %8s\n", "batch", "ms", "tokens/s",
            "per user", "memory", "compute", "sums", "gaps", "floor");
    for (int i = 0; i < p->n_batches; i++) {
        int b = p->batches[i];
        launch_roof_step s = launch_roof_decode(&f->c, b, ctx);

        if (!holds(f, b, ctx))
            fprintf(out, "%6d   does not fit the cache\n", b);
        else
            fprintf(out, "%6d %9.2f %10.0f %10.1f | %8.2f %8.2f %8.2f %8.2f | %8.2f\n", b, s.total,
                    1e3 * b / s.total, 1e3 / s.total, s.memory, s.compute, s.sums, s.gaps, s.floor);
    }
    fprintf(out,
            "prefill        %.0f tokens/s for prompts of %.0f tokens in chunks of %d (predicted)\n",
            launch_roof_prefill(&f->c, ctx, p->chunk), ctx, p->chunk);
}

static void print_assumptions(FILE *out, const launch_plan *p, const launch_plan_fit *f)
{
    const launch_roof_case *c = &f->c;
    double even = launch_roof_linear(&p->model) / c->n_ranks;

    fprintf(out, "\nwhat this rests on\n");
    fprintf(
        out,
        "  ms = max(memory, compute) + sums + gaps; floor: an even split at all of the data sheet's bandwidth\n");
    fprintf(
        out,
        "  memory   weights read once and every cached token once per step, at %.2f of the bandwidth\n",
        c->gpu.bandwidth_share);
    fprintf(out, "  compute  2 operations per weight and sequence, at %.2f of the dense rate\n",
            c->gpu.flops_share);
    if (c->n_ranks > 1) {
        fprintf(out, "  sums     %d all-reduces of batch x %d x %g bytes per step; ",
                2 * p->model.n_layers + c->embed_sums, p->model.hidden, c->sum_element_bytes);
        if (c->n_ranks > 8)
            fprintf(out, "across hosts: 20 us + 2 us per rank, 40 GB/s per device\n");
        else if (c->gpu.link_gbs > 0)
            fprintf(
                out, "fitted to published measurements of 2, 4 and 8 H100%s: %.1f us for batch 1\n",
                c->gpu.link_gbs == 450 ? "" : ", scaled by the link",
                launch_roof_sum_us(&c->gpu, c->n_ranks, p->model.hidden * c->sum_element_bytes));
        else
            fprintf(out, "without NVLink: 12 us + 3 us per rank, 25 GB/s\n");
        fprintf(out,
                "  split    the fullest rank holds %.2f %% more of the layers than an even split\n",
                100 * (c->share.linear / even - 1));
    }
    fprintf(
        out,
        "  gaps     %d kernels per layer, %g us between two; the host plans ahead and costs nothing\n",
        c->kernels_per_layer, c->gpu.gap_us);
    fprintf(
        out,
        "  share    %.2f of the memory is used (--gpu-memory-utilization); the rest is left to the driver and others\n",
        f->usable / (c->gpu.memory_gb * 1e9));
    fprintf(
        out,
        "  workspace for %d sequences and %d tokens per step (--max-num-seqs, --max-num-batched-tokens)\n",
        p->max_seqs, p->chunk);
    if (strcmp(c->gpu.name, "cpu") == 0)
        fprintf(
            out,
            "  host     its bandwidth, TFLOP/s and memory are shared by the ranks; %.4g TFLOP/s each\n",
            c->gpu.tflops_16);
}

void launch_plan_print_fit(FILE *out, const launch_plan *p, const launch_plan_fit *f)
{
    print_memory(out, p, f);
    if (f->kv_tokens > 0)
        print_decode(out, p, f);
    print_assumptions(out, p, f);
}

void launch_plan_put_fit(launch_json *j, const launch_plan *p, const launch_plan_fit *f)
{
    const launch_gpu *g = &f->c.gpu;
    double ctx = context_of(p);

    launch_json_open(j, NULL, '{');
    launch_json_text(j, "device", g->name);
    launch_json_int(j, "ranks", f->c.n_ranks);
    launch_json_real(j, "memory_gb", g->memory_gb);
    launch_json_real(j, "bandwidth_tbs", g->bandwidth_tbs);
    launch_json_real(j, "tflops", g->tflops_16);
    launch_json_text(j, "source", g->source);
    launch_json_bool(j, "fits", f->fits);
    launch_json_int(j, "weight_bytes_resident", (int64_t)f->resident);
    launch_json_int(j, "weight_bytes_streamed", (int64_t)f->streamed);
    launch_json_int(j, "workspace_bytes", (int64_t)f->workspace);
    launch_json_int(j, "usable_bytes", (int64_t)f->usable);
    launch_json_int(j, "kv_bytes_per_token", (int64_t)f->kv_per_token);
    launch_json_int(j, "kv_tokens", f->kv_tokens);
    launch_json_real(j, "sequences_at_full_length",
                     (double)f->kv_tokens / (double)p->max_model_len);
    launch_json_int(j, "context", p->opt->context);
    launch_json_open(j, "decode_predicted", '[');
    for (int i = 0; i < p->n_batches; i++) {
        launch_roof_step s = launch_roof_decode(&f->c, p->batches[i], ctx);

        launch_json_open(j, NULL, '{');
        launch_json_int(j, "batch", p->batches[i]);
        launch_json_bool(j, "fits", holds(f, p->batches[i], ctx));
        launch_json_real(j, "ms", s.total);
        launch_json_real(j, "tokens_per_s", 1e3 * p->batches[i] / s.total);
        launch_json_real(j, "memory_ms", s.memory);
        launch_json_real(j, "compute_ms", s.compute);
        launch_json_real(j, "sums_ms", s.sums);
        launch_json_real(j, "gaps_ms", s.gaps);
        launch_json_real(j, "floor_ms", s.floor);
        launch_json_close(j, '}');
    }
    launch_json_close(j, ']');
    launch_json_real(j, "prefill_tokens_per_s_predicted",
                     launch_roof_prefill(&f->c, ctx, p->chunk));
    launch_json_open(j, "assumptions", '{');
    launch_json_real(j, "bandwidth_share", g->bandwidth_share);
    launch_json_real(j, "flops_share", g->flops_share);
    launch_json_real(j, "gap_us", g->gap_us);
    launch_json_int(j, "kernels_per_layer", f->c.kernels_per_layer);
    launch_json_real(j, "sum_us_batch_1",
                     launch_roof_sum_us(g, f->c.n_ranks, p->model.hidden * f->c.sum_element_bytes));
    launch_json_close(j, '}');
    launch_json_close(j, '}');
}
