/* SPDX-License-Identifier: Apache-2.0 */
/* bench.c - `tpserve bench`: which of its kinds was asked for, and the one over HTTP from its options to its answers. */
#include "launcher/bench.h"

#include <curl/curl.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "launcher/picture.h"
#include "launcher/serve.h"

#define EXIT_INTERRUPTED 130 /* 128 + SIGINT, as shells have it */

/* ---- Ctrl-C ---- */

static volatile sig_atomic_t g_interrupted;

static void interrupt(int number)
{
    (void)number;
    g_interrupted = 1;
}

bool launch_interrupted(void)
{
    return g_interrupted != 0;
}

/* The first one ends the load and what was measured is told; the second ends the process. */
static void watch_interrupt(void)
{
    struct sigaction act = {.sa_handler = interrupt, .sa_flags = (int)SA_RESETHAND};

    (void)sigaction(SIGINT, &act, NULL);
}

/* ---- HTTP ---- */

static const char *key_of(const launch_options *opt)
{
    const char *key = getenv("OPENAI_API_KEY");

    if (opt->api_key.n > 0)
        return opt->api_key.items[0];
    return key != NULL && *key != '\0' ? key : NULL;
}

static tp_status check_file(const char *option, const char *path)
{
    bool there = path != NULL && access(path, F_OK) == 0;
    FILE *f = path != NULL ? fopen(path, "a") : NULL; /* nothing that is there is lost */

    if (path != NULL && f == NULL)
        return TP_FAIL(TP_ERR_IO, "%s: cannot write %s: %m", option, path);
    if (f != NULL)
        (void)fclose(f);
    if (f != NULL && !there)
        (void)unlink(path); /* nothing is left where nothing comes of it */
    return TP_OK;
}

tp_status launch_check_outputs(const launch_options *opt)
{
    if (opt->plot != NULL && !launch_picture_can_write(opt->plot))
        return TP_FAIL(TP_ERR_INVALID,
                       "--plot: expected a file that ends in .svg or .png, found \"%s\"",
                       opt->plot);
    TP_TRY(check_file("--output", opt->output));
    TP_TRY(check_file("--csv", opt->csv));
    return check_file("--plot", opt->plot);
}

static tp_status run_loads(launch_result *results, int *n_run, const launch_load *loads, int n,
                           const launch_http_target *t, const launch_options *opt)
{
    launch_load warm = loads[0];

    if (opt->num_warmups > 0) {
        launch_result unused;
        tp_status st;

        warm.n_requests = (int)opt->num_warmups;
        warm.leave_rate = 0;
        warm.seed += 1; /* nothing of what is measured is in a cache */
        st = launch_http_load(&unused, t, &warm);
        launch_result_release(&unused);
        TP_TRY(st);
    }
    if (!opt->json)
        launch_print_results_head(stdout);
    for (int i = 0; i < n && !launch_interrupted(); i++) {
        *n_run = i + 1;
        TP_TRY(launch_http_load(&results[i], t, &loads[i]));
        if (!opt->json)
            launch_print_result_row(stdout, &results[i]);
    }
    return TP_OK;
}

tp_status launch_tell_json(const launch_options *opt, launch_json *j)
{
    tp_status st = TP_OK;

    tp_buf_putc(&j->text, '\n');
    if (opt->output != NULL)
        st = launch_write_file(opt->output, &j->text);
    if (opt->json && !j->text.failed)
        fputs(tp_buf_str(&j->text), stdout);
    tp_buf_release(&j->text);
    return st;
}

static tp_status put_results(const launch_options *opt, const launch_bench_head *head,
                             launch_result *r, int n)
{
    launch_json j;

    launch_json_init(&j);
    launch_json_open(&j, NULL, '[');
    for (int i = 0; i < n; i++)
        launch_put_result(&j, head, &r[i]);
    launch_json_close(&j, ']');
    return launch_tell_json(opt, &j);
}

tp_status launch_tell_results(const launch_options *opt, const launch_bench_head *head,
                              launch_result *r, int n)
{
    if (!opt->json)
        for (int i = 0; i < n; i++)
            launch_print_result(stdout, &r[i]);
    TP_TRY(put_results(opt, head, r, n));
    if (opt->csv != NULL)
        TP_TRY(launch_write_csv(opt->csv, head, r, n));
    return opt->plot != NULL ? launch_write_plot(opt->plot, head, r, n) : TP_OK;
}

/* Of an address without slashes and "/v1" at its end: endpoints begin with them. */
static size_t length_without_end(const char *url)
{
    size_t n = strlen(url);

    while (n > 0 && url[n - 1] == '/')
        n--;
    return n > 3 && strncmp(url + n - 3, "/v1", 3) == 0 ? n - 3 : n;
}

static tp_status run_http(const launch_options *opt, launch_http_target t, launch_result *results,
                          int *n_run)
{
    launch_load loads[LAUNCH_LOADS_MAX];
    char model[256], base[1024];
    tp_status st;
    int n;

    if (launch_read_loads(loads, &n, opt) != TP_OK)
        return TP_FAIL(TP_ERR_INVALID, "%s", tp_last_error());
    TP_TRY(launch_check_outputs(opt));
    if (t.base_url == NULL)
        (void)snprintf(base, sizeof base, "http://%s:%lld", opt->host, (long long)opt->port);
    else
        (void)snprintf(base, sizeof base, "%.*s", (int)length_without_end(t.base_url), t.base_url);
    t.base_url = base;
    if (t.model == NULL) {
        TP_TRY(launch_http_model(model, sizeof model, &t));
        t.model = model;
    }
    if (!opt->json)
        printf("model %s at %s%s\n%d requests of %d + %d tokens\n\n", t.model, t.base_url,
               t.endpoint, loads[0].n_requests, loads[0].prefix_len + loads[0].input_len,
               loads[0].output_len);
    st = run_loads(results, n_run, loads, n, &t, opt);
    if (st != TP_OK || *n_run == 0)
        return st;
    return launch_tell_results(
        opt,
        &(launch_bench_head){
            .backend = "openai", .base_url = t.base_url, .endpoint = t.endpoint, .model = t.model},
        results, *n_run);
}

static int bench_http(const launch_options *opt)
{
    static launch_result results[LAUNCH_LOADS_MAX];
    launch_http_target t = {.base_url = opt->base_url,
                            .endpoint = opt->endpoint,
                            .model = opt->model,
                            .api_key = key_of(opt),
                            .stream = opt->stream,
                            .ignore_eos = opt->ignore_eos,
                            .words = strcmp(opt->prompt_format, "words") == 0,
                            .progress = isatty(STDERR_FILENO) == 1,
                            .temperature = opt->temperature,
                            .timeout_s = opt->request_timeout};
    int n_run = 0, completed = 0;
    tp_status st;

    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return 1;
    watch_interrupt();
    st = run_http(opt, t, results, &n_run);
    for (int i = 0; i < n_run; i++) {
        completed += results[i].completed + results[i].left;
        launch_result_release(&results[i]);
    }
    curl_global_cleanup();
    if (st == TP_ERR_INVALID)
        return LAUNCH_EXIT_USAGE;
    if (launch_interrupted())
        return EXIT_INTERRUPTED;
    return st == TP_OK && completed > 0 ? 0 : 1;
}

/* ---- which kind ---- */

int launch_bench(const launch_options *opt)
{
    if (opt->engine)
        return launch_bench_engine(opt);
    if (opt->host_is_bare)
        return launch_bench_host(opt);
    return opt->comm_is_given ? launch_bench_comm(opt) : bench_http(opt);
}
