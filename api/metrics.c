/* SPDX-License-Identifier: Apache-2.0 */
/* metrics.c - GET /metrics: Prometheus text 0.0.4 under vLLM's names, so that existing dashboards work.
 *
 * Labels: model_name (the first served name), engine="0"; a finished_reason where vLLM has one.  Nothing that a client
 * sends becomes a label.
 */
#include <stdio.h>
#include <string.h>

#include "api/errors.h"
#include "api/routes.h"

typedef struct writer {
    tp_buf out;
    char labels[1200]; /* model_name="...",engine="0" */
} writer;

static void escape_label(const char *s, char *out, size_t cap)
{
    size_t n = 0;

    for (; *s != '\0' && n + 3 < cap; s++) {
        if (*s == '"' || *s == '\\')
            out[n++] = '\\';
        out[n++] = *s == '\n' ? ' ' : *s;
    }
    out[n] = '\0';
}

static void head(writer *w, const char *name, const char *type, const char *help)
{
    tp_buf_printf(&w->out, "# HELP vllm:%s %s\n# TYPE vllm:%s %s\n", name, help, name, type);
}

static void gauge(writer *w, const char *name, const char *help, double v)
{
    head(w, name, "gauge", help);
    tp_buf_printf(&w->out, "vllm:%s{%s} %.10g\n", name, w->labels, v);
}

static void counter(writer *w, const char *name, const char *help, uint64_t v)
{
    head(w, name, "counter", help);
    tp_buf_printf(&w->out, "vllm:%s{%s} %llu\n", name, w->labels, (unsigned long long)v);
}

static void histogram(writer *w, const char *name, const char *help, const rt_hist *h)
{
    uint64_t below = 0;

    head(w, name, "histogram", help);
    for (int i = 0; i <= h->n; i++) {
        below += h->counts[i];
        if (i < h->n)
            tp_buf_printf(&w->out, "vllm:%s_bucket{%s,le=\"%.10g\"} %llu\n", name, w->labels,
                          h->bounds[i], (unsigned long long)below);
        else
            tp_buf_printf(&w->out, "vllm:%s_bucket{%s,le=\"+Inf\"} %llu\n", name, w->labels,
                          (unsigned long long)below);
    }
    tp_buf_printf(&w->out, "vllm:%s_sum{%s} %.10g\nvllm:%s_count{%s} %llu\n", name, w->labels,
                  h->sum, name, w->labels, (unsigned long long)h->total);
}

static void success(writer *w, const rt_stats *s)
{
    const struct {
        const char *reason;
        uint64_t n;
    } rows[] = {{"stop", s->finished_stop},
                {"length", s->finished_length},
                {"abort", s->finished_abort},
                {"error", s->finished_error}};

    head(w, "request_success_total", "counter", "Finished sequences by reason.");
    for (size_t i = 0; i < TP_ARRAY_LEN(rows); i++)
        tp_buf_printf(&w->out, "vllm:request_success_total{%s,finished_reason=\"%s\"} %llu\n",
                      w->labels, rows[i].reason, (unsigned long long)rows[i].n);
}

static void draft_metrics(writer *w, const rt_draft_counts *d)
{
    if (d->draft_max == 0)
        return;
    counter(w, "spec_decode_num_drafts_total", "Drafts computed.", d->drafts);
    counter(w, "spec_decode_num_draft_tokens_total", "Tokens of drafts.", d->tokens);
    counter(w, "spec_decode_num_accepted_tokens_total", "Tokens of drafts that came true.",
            d->accepted);
    head(w, "spec_decode_num_accepted_tokens_per_pos_total", "counter",
         "Tokens of drafts that came true, by their place in the draft.");
    for (int i = 0; i < d->draft_max; i++)
        tp_buf_printf(
            &w->out,
            "vllm:spec_decode_num_accepted_tokens_per_pos_total{%s,position=\"%d\"} %llu\n",
            w->labels, i, (unsigned long long)d->accepted_at[i]);
}

static void engine_metrics(writer *w, const rt_stats *s)
{
    gauge(w, "num_requests_running", "Sequences in the running batch.", s->running);
    gauge(w, "num_requests_waiting", "Sequences waiting for admission.", s->waiting);
    gauge(w, "kv_cache_usage_perc", "Share of KV cache blocks in use, 1 = all.",
          s->blocks_total > 0 ? (double)s->blocks_used / s->blocks_total : 0);
    counter(w, "prompt_tokens_total", "Prompt tokens accepted.", s->prompt_tokens);
    counter(w, "generation_tokens_total", "Tokens generated.", s->generation_tokens);
    counter(w, "num_preemptions_total", "Sequences that gave their blocks back.", s->preemptions);
    counter(w, "prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.",
            s->prefix_queries);
    counter(w, "prefix_cache_hits_total", "Prompt tokens found in the prefix cache.",
            s->prefix_hits);
    counter(w, "prompt_tokens_cached_total", "Prompt tokens that were not computed.",
            s->prefix_hits);
    counter(w, "requests_cancelled_total", "Requests whose client went away.", s->cancelled);
    counter(w, "steps_issued_ahead_total",
            "Steps given to the device before the step before had been collected.", s->steps_ahead);
    draft_metrics(w, &s->drafts);
    success(w, s);
    histogram(w, "time_to_first_token_seconds", "Arrival to first token.", &s->ttft);
    histogram(w, "inter_token_latency_seconds", "Time between tokens of a sequence.",
              &s->inter_token);
    histogram(w, "request_time_per_output_token_seconds", "Mean time per output token.",
              &s->per_output_token);
    histogram(w, "e2e_request_latency_seconds", "Arrival to last token.", &s->e2e);
    histogram(w, "request_queue_time_seconds", "Arrival to first scheduling.", &s->queue);
    histogram(w, "request_inference_time_seconds", "First scheduling to last token.",
              &s->inference);
    histogram(w, "request_prefill_time_seconds", "First scheduling to first token.", &s->prefill);
    histogram(w, "request_decode_time_seconds", "First token to last token.", &s->decode);
    histogram(w, "request_prompt_tokens", "Prompt tokens per sequence.", &s->prompt_len);
    histogram(w, "request_generation_tokens", "Generated tokens per sequence.", &s->generation_len);
    histogram(w, "request_max_num_generation_tokens", "Tokens that a request may generate.",
              &s->max_generation_len);
    histogram(w, "request_params_max_tokens", "max_tokens of requests.", &s->params_max_tokens);
    histogram(w, "request_params_n", "n of requests.", &s->params_n);
    histogram(w, "iteration_tokens_total", "Tokens computed per step.", &s->iteration_tokens);
}

static void http_metrics(writer *w, api_server *s)
{
    static const char *const k_reasons[API_N_PHASES] = {[API_PHASE_IDLE] = "idle",
                                                        [API_PHASE_HEADER] = "slow_header",
                                                        [API_PHASE_BODY] = "slow_body",
                                                        [API_PHASE_ANSWER] = "slow_reader"};
    uint64_t cuts[API_N_PHASES];

    api_http_cuts(s->http, cuts);
    head(w, "connections_cut_total", "counter", "Connections that the server cut off.");
    for (int i = 0; i < API_N_PHASES; i++)
        tp_buf_printf(&w->out, "vllm:connections_cut_total{%s,reason=\"%s\"} %llu\n", w->labels,
                      k_reasons[i], (unsigned long long)cuts[i]);
    counter(w, "requests_refused_total", "Requests that found the queue full.",
            api_admission_refused(&s->admission));
}

void api_metrics(api_server *s, api_exchange *x)
{
    rt_engine *e = atomic_load(&s->engine);
    char name[1024];
    rt_stats stats;
    writer w;

    tp_buf_init(&w.out, 1 << 20);
    escape_label(s->opt.model_names[0], name, sizeof name);
    snprintf(w.labels, sizeof w.labels, "model_name=\"%s\",engine=\"0\"", name);
    http_metrics(&w, s);
    if (e != NULL) {
        rt_engine_stats(e, &stats);
        engine_metrics(&w, &stats);
        tp_buf_printf(
            &w.out,
            "# HELP vllm:cache_config_info KV cache.\n# TYPE vllm:cache_config_info gauge\n"
            "vllm:cache_config_info{%s,block_size=\"%d\",num_gpu_blocks=\"%d\"} 1\n",
            w.labels, rt_engine_get_info(e)->block_tokens, rt_engine_get_info(e)->n_blocks);
    }
    api_reply(x, 200, "text/plain; version=0.0.4; charset=utf-8", tp_buf_str(&w.out), w.out.len);
    tp_buf_release(&w.out);
}
