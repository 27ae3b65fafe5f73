/* SPDX-License-Identifier: Apache-2.0 */
/* bench_result.c - figures of a load, as they grow and as text, JSON and CSV. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "launcher/bench.h"

void launch_result_init(launch_result *r, const launch_load *load)
{
    *r = (launch_result){.load = *load, .counted_by_server = true};
}

void launch_result_release(launch_result *r)
{
    launch_samples_release(&r->ttft_ms);
    launch_samples_release(&r->tpot_ms);
    launch_samples_release(&r->itl_ms);
    launch_samples_release(&r->e2el_ms);
}

launch_kind *launch_count_failure(launch_result *r, const char *kind)
{
    launch_kind *k = NULL;

    r->failed++;
    for (int i = 0; i < r->n_kinds && k == NULL; i++)
        if (strcmp(r->kinds[i].what, kind) == 0)
            k = &r->kinds[i];
    if (k == NULL && r->n_kinds < LAUNCH_KINDS_MAX) {
        k = &r->kinds[r->n_kinds++];
        (void)snprintf(k->what, sizeof k->what, "%s",
                       r->n_kinds == LAUNCH_KINDS_MAX ? "other" : kind);
    }
    if (k == NULL)
        k = &r->kinds[LAUNCH_KINDS_MAX - 1];
    k->n++;
    return k;
}

void launch_count_done(launch_result *r, const launch_done *d)
{
    double e2el = (double)(d->end_ns - d->start_ns) / (double)TP_NS_PER_MS;
    double ttft = (double)(d->first_ns - d->start_ns) / (double)TP_NS_PER_MS;

    r->completed++;
    r->input_tokens += d->input_tokens;
    r->output_tokens += d->output_tokens;
    launch_samples_add(&r->e2el_ms, e2el);
    if (d->first_ns == 0)
        return;
    launch_samples_add(&r->ttft_ms, ttft);
    if (d->output_tokens > 1)
        launch_samples_add(&r->tpot_ms, (e2el - ttft) / (double)(d->output_tokens - 1));
}

static double per_second(const launch_result *r, double n)
{
    return r->duration_s > 0 ? n / r->duration_s : 0;
}

/* ---- text ---- */

static const char *concurrency_text(char out[24], const launch_load *l)
{
    (void)snprintf(out, 24, l->concurrency > 0 ? "%d" : "any", l->concurrency);
    return out;
}

static const char *rate_text(char out[24], const launch_load *l)
{
    (void)snprintf(out, 24, isfinite(l->rate) ? "%.3g" : "inf", l->rate);
    return out;
}

void launch_print_results_head(FILE *out)
{
    fprintf(out, "%11s %8s | %6s %6s | %10s %11s | %10s %10s %10s %10s  (ms)\n", "concurrency",
            "rate", "done", "failed", "requests/s", "out token/s", "TTFT p50", "TTFT p99",
            "TPOT p50", "ITL p99");
}

static void print_cell(FILE *out, launch_samples *s, double q, int decimals)
{
    if (s->n > 0)
        fprintf(out, " %10.*f", decimals, launch_percentile(s, q));
    else
        fprintf(out, " %10s", "-");
}

void launch_print_result_row(FILE *out, launch_result *r)
{
    char concurrency[24], rate[24];

    fprintf(out, "%11s %8s | %6d %6d | %10.2f %11.1f |", concurrency_text(concurrency, &r->load),
            rate_text(rate, &r->load), r->completed, r->failed, per_second(r, r->completed),
            per_second(r, (double)r->output_tokens));
    print_cell(out, &r->ttft_ms, 50, 2);
    print_cell(out, &r->ttft_ms, 99, 2);
    print_cell(out, &r->tpot_ms, 50, 3);
    print_cell(out, &r->itl_ms, 99, 2);
    fputc('\n', out);
    (void)fflush(out);
}

static void print_latency(FILE *out, const char *what, launch_samples *s)
{
    if (s->n > 0)
        fprintf(out, "  %-22s %10.3f %10.3f %10.3f %10.3f %10.3f\n", what, launch_mean(s),
                launch_percentile(s, 50), launch_percentile(s, 90), launch_percentile(s, 99),
                launch_percentile(s, 100));
}

void launch_print_result(FILE *out, launch_result *r)
{
    char concurrency[24], rate[24];

    fprintf(out, "\nconcurrency %s, rate %s%s%s\n", concurrency_text(concurrency, &r->load),
            rate_text(rate, &r->load), r->label != NULL ? ", " : "",
            r->label != NULL ? r->label : "");
    fprintf(out,
            "  requests               %d done, %d failed, %d left by their client, in %.2f s\n",
            r->completed, r->failed, r->left, r->duration_s);
    fprintf(out, "  most under way         %d\n", r->in_flight_max);
    fprintf(out, "  tokens                 %" PRId64 " in, %" PRId64 " out (%s)\n", r->input_tokens,
            r->output_tokens,
            r->counted_by_server ? "as the server counts"
                                 : "pieces of text: the server counts none");
    fprintf(out, "  requests/s             %.3f\n", per_second(r, r->completed));
    fprintf(out, "  output tokens/s        %.1f\n", per_second(r, (double)r->output_tokens));
    fprintf(out, "  all tokens/s           %.1f\n",
            per_second(r, (double)(r->input_tokens + r->output_tokens)));
    fprintf(out, "  %-22s %10s %10s %10s %10s %10s\n", "milliseconds", "mean", "p50", "p90", "p99",
            "max");
    print_latency(out, "first token (TTFT)", &r->ttft_ms);
    print_latency(out, "per token (TPOT)", &r->tpot_ms);
    print_latency(out, "between tokens (ITL)", &r->itl_ms);
    print_latency(out, "whole answer (E2EL)", &r->e2el_ms);
    for (int i = 0; i < r->n_kinds; i++) {
        fprintf(out, "  failed: %-30s %d\n", r->kinds[i].what, r->kinds[i].n);
        if (r->kinds[i].said[0] != '\0')
            fprintf(out, "    the first: %s\n", r->kinds[i].said);
    }
}

/* ---- JSON and CSV: one list of members for both ---- */

typedef struct sink {
    launch_json *json; /* or */
    tp_buf *csv;
    bool names; /* of CSV: the heading */
    bool comma;
} sink;

static void put_field(sink *s, const char *name, const char *value)
{
    if (s->comma)
        tp_buf_putc(s->csv, ',');
    s->comma = true;
    if (s->names)
        value = name;
    if (strpbrk(value, ",\"\r\n") == NULL) {
        tp_buf_puts(s->csv, value);
        return;
    }
    tp_buf_putc(s->csv, '"');
    for (; *value != '\0'; value++) {
        if (*value == '"')
            tp_buf_putc(s->csv, '"');
        tp_buf_putc(s->csv, *value);
    }
    tp_buf_putc(s->csv, '"');
}

static void put_text(sink *s, const char *name, const char *value)
{
    if (s->json != NULL)
        launch_json_text(s->json, name, value);
    else
        put_field(s, name, value != NULL ? value : "");
}

static void put_int(sink *s, const char *name, int64_t value)
{
    char text[32];

    (void)snprintf(text, sizeof text, "%" PRId64, value);
    if (s->json != NULL)
        launch_json_int(s->json, name, value);
    else
        put_field(s, name, text);
}

/* Not finite: null, or nothing. */
static void put_real(sink *s, const char *name, double value)
{
    char text[32] = "";

    if (isfinite(value))
        (void)snprintf(text, sizeof text, "%.6g", value);
    if (s->json != NULL)
        launch_json_real(s->json, name, value);
    else
        put_field(s, name, text);
}

static void put_latency(sink *s, const char *what, launch_samples *v)
{
    static const struct {
        const char *name;
        double q;
    } k_percentiles[] = {{"median", 50}, {"p50", 50}, {"p90", 90}, {"p99", 99}};
    char name[32];

    (void)snprintf(name, sizeof name, "mean_%s_ms", what);
    put_real(s, name, v->n > 0 ? launch_mean(v) : (double)NAN);
    (void)snprintf(name, sizeof name, "std_%s_ms", what);
    put_real(s, name, v->n > 0 ? launch_deviation(v) : (double)NAN);
    for (size_t i = 0; i < TP_ARRAY_LEN(k_percentiles); i++) {
        (void)snprintf(name, sizeof name, "%s_%s_ms", k_percentiles[i].name, what);
        put_real(s, name, v->n > 0 ? launch_percentile(v, k_percentiles[i].q) : (double)NAN);
    }
}

static void put_members(sink *s, const launch_bench_head *head, launch_result *r)
{
    const launch_load *l = &r->load;

    put_text(s, "backend", head->backend);
    put_text(s, "base_url", head->base_url);
    put_text(s, "endpoint", head->endpoint);
    put_text(s, "model_id", head->model);
    put_text(s, "label", r->label);
    put_int(s, "num_prompts", l->n_requests);
    put_int(s, "max_concurrency", l->concurrency);
    if (isfinite(l->rate))
        put_real(s, "request_rate", l->rate);
    else
        put_text(s, "request_rate", "inf");
    put_real(s, "burstiness", l->burstiness);
    put_int(s, "random_input_len", l->input_len);
    put_int(s, "random_output_len", l->output_len);
    put_int(s, "random_prefix_len", l->prefix_len);
    put_real(s, "random_range_ratio", l->range_ratio);
    put_real(s, "disconnect_rate", l->leave_rate);
    put_int(s, "seed", (int64_t)l->seed);
    put_real(s, "duration", r->duration_s);
    put_int(s, "completed", r->completed);
    put_int(s, "failed", r->failed);
    put_int(s, "disconnected", r->left);
    put_int(s, "max_concurrent_requests", r->in_flight_max);
    put_int(s, "total_input_tokens", r->input_tokens);
    put_int(s, "total_output_tokens", r->output_tokens);
    put_real(s, "request_throughput", per_second(r, r->completed));
    put_real(s, "output_throughput", per_second(r, (double)r->output_tokens));
    put_real(s, "total_token_throughput",
             per_second(r, (double)(r->input_tokens + r->output_tokens)));
    put_latency(s, "ttft", &r->ttft_ms);
    put_latency(s, "tpot", &r->tpot_ms);
    put_latency(s, "itl", &r->itl_ms);
    put_latency(s, "e2el", &r->e2el_ms);
}

void launch_put_result(launch_json *j, const launch_bench_head *head, launch_result *r)
{
    sink s = {.json = j};

    launch_json_open(j, NULL, '{');
    put_members(&s, head, r);
    launch_json_open(j, "errors", '{');
    for (int i = 0; i < r->n_kinds; i++)
        launch_json_int(j, r->kinds[i].what, r->kinds[i].n);
    launch_json_close(j, '}');
    launch_json_open(j, "error_messages", '{');
    for (int i = 0; i < r->n_kinds; i++)
        if (r->kinds[i].said[0] != '\0')
            launch_json_text(j, r->kinds[i].what, r->kinds[i].said);
    launch_json_close(j, '}');
    launch_json_close(j, '}');
}

static void put_errors(sink *s, const launch_result *r)
{
    tp_buf b;

    tp_buf_init(&b, SIZE_MAX);
    for (int i = 0; i < r->n_kinds; i++)
        tp_buf_printf(&b, "%s%s: %d", i > 0 ? "; " : "", r->kinds[i].what, r->kinds[i].n);
    put_field(s, "errors", tp_buf_str(&b));
    tp_buf_release(&b);
}

tp_status launch_write_csv(const char *path, const launch_bench_head *head, launch_result *r, int n)
{
    tp_status st;
    tp_buf text;

    tp_buf_init(&text, SIZE_MAX);
    for (int i = n > 0 ? -1 : 0; i < n; i++) {
        sink s = {.csv = &text, .names = i < 0};

        put_members(&s, head, &r[i < 0 ? 0 : i]);
        put_errors(&s, &r[i < 0 ? 0 : i]);
        tp_buf_putc(&text, '\n');
    }
    st = launch_write_file(path, &text);
    tp_buf_release(&text);
    return st;
}

tp_status launch_write_file(const char *path, const tp_buf *text)
{
    FILE *f = text->failed ? NULL : fopen(path, "w");
    bool ok = f != NULL && fwrite(tp_buf_str(text), 1, text->len, f) == text->len;

    if (text->failed)
        return TP_FAIL(TP_ERR_NOMEM, "out of memory for %s", path);
    if (f == NULL)
        return TP_FAIL(TP_ERR_IO, "cannot write %s: %m", path);
    if (fclose(f) != 0 || !ok)
        return TP_FAIL(TP_ERR_IO, "cannot write %s: %m", path);
    return TP_OK;
}
