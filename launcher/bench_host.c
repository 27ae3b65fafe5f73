/* SPDX-License-Identifier: Apache-2.0 */
/* bench_host.c - `tpserve bench --host`: what the host costs, with a model that computes nothing (kernels/null).
 *
 * First through HTTP: a server of our own as a child, this process its clients, streamed tokens per second.  Then the
 * engine in this process: time per step while N sequences decode, with every step after the other (the whole cost of a
 * step: planning, sending, the worker's tables, sampling, delivery), the part that planning and delivery take in it, and
 * the step with the scheduler ahead.  The targets stand beside the figures; of several rounds the best is told.
 */
#include <curl/curl.h>
#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "launcher/bench.h"
#include "launcher/ranks.h"

#define PROMPT          16
#define ENVIRONMENT_MAX 1024
#define READY_S         60
#define TOKENS_TARGET   100000.0
#define BOUND_US        50.0               /* for a step, */
#define BOUND_SEQ_US    0.5                /* and for each sequence in it */
#define KV_BYTES        (INT64_C(8) << 30) /* that nobody takes */
#define SEQS            "1,64,256,1024"
#define SEQS_MAX        4096
#define WORK_TOKENS     64000 /* of a load, about */
#define ROUNDS          3     /* of the steps: the best is the least disturbed */

extern char **environ;

typedef struct host_loads {
    launch_load steps[LAUNCH_LOADS_MAX], streams[LAUNCH_LOADS_MAX];
    int n, seqs_max;
} host_loads;

/* Loads of so many sequences at a time, which all begin at once; fewer of them are longer. */
static launch_load load_of(int seqs, int tokens_min, int tokens_max)
{
    int tokens = WORK_TOKENS / seqs;

    tokens = tokens < tokens_min ? tokens_min : tokens > tokens_max ? tokens_max : tokens;
    return (launch_load){.n_requests = seqs,
                         .concurrency = seqs,
                         .rate = (double)INFINITY,
                         .burstiness = 1,
                         .input_len = PROMPT,
                         .output_len = tokens};
}

static tp_status make_plan(host_loads *out, const launch_options *opt)
{
    launch_options o = *opt;

    o.request_rate = NULL;
    if (o.max_concurrency == NULL)
        o.max_concurrency = SEQS;
    out->seqs_max = 1;
    TP_TRY(launch_read_loads(out->steps, &out->n, &o));
    for (int i = 0; i < out->n; i++) {
        int seqs = out->steps[i].concurrency;

        if (seqs < 1 || seqs > SEQS_MAX)
            return TP_REJECT(TP_ERR_INVALID,
                             "--max-concurrency: expected 1 to %d sequences at a time, found %d",
                             SEQS_MAX, seqs);
        out->seqs_max = seqs > out->seqs_max ? seqs : out->seqs_max;
        out->steps[i] = load_of(seqs, 500, 2000);
        out->streams[i] = load_of(seqs, 250, 1500);
    }
    return TP_OK;
}

/* ---- a server ---- */

typedef struct child {
    pid_t pid;
    char url[64];
} child;

/* A port that nobody has now; the server takes it a moment later. */
static int free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), port = 0;

    if (fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof a) == 0 &&
        getsockname(fd, (struct sockaddr *)&a, &len) == 0)
        port = ntohs(a.sin_port);
    if (fd >= 0)
        (void)close(fd);
    return port;
}

/* Without what makes a process a rank of this job, and without options for the server. */
static void own_environment(char *out[ENVIRONMENT_MAX])
{
    static const char *const k_without[] = {"OMPI_", "PMIX_", "PMI_", "SLURM_", "TPSERVE_"};
    int n = 0;

    for (char **e = environ; *e != NULL && n + 1 < ENVIRONMENT_MAX; e++) {
        bool keep = strncmp(*e, "OMPI_ALLOW_", 11) == 0;
        bool named = false;

        for (size_t i = 0; i < TP_ARRAY_LEN(k_without); i++)
            named |= strncmp(*e, k_without[i], strlen(k_without[i])) == 0;
        if (keep || !named)
            out[n++] = *e;
    }
    out[n] = NULL;
}

static tp_status start_server(child *c, const char *dir, int seqs_max)
{
    static char *environment[ENVIRONMENT_MAX];
    char port[16], seqs[16];
    const char *argv[] = {"tpserve",
                          "serve",
                          "--model",
                          dir,
                          "--device",
                          "null",
                          "--port",
                          port,
                          "--host",
                          "127.0.0.1",
                          "--log-level",
                          "warn",
                          "--max-num-seqs",
                          seqs,
                          "--kv-cache-memory-bytes",
                          "8GiB",
                          NULL};

    (void)snprintf(port, sizeof port, "%d", free_port());
    (void)snprintf(seqs, sizeof seqs, "%d", seqs_max);
    (void)snprintf(c->url, sizeof c->url, "http://127.0.0.1:%s", port);
    own_environment(environment);
    c->pid = fork();
    if (c->pid < 0)
        return TP_FAIL(TP_ERR_IO, "cannot start a server: %m");
    if (c->pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
        execve("/proc/self/exe", (char *const *)(uintptr_t)argv, environment);
        _exit(127);
    }
    return TP_OK;
}

static tp_status wait_ready(const child *c)
{
    char url[96];

    (void)snprintf(url, sizeof url, "%s/ready", c->url);
    for (int64_t end = tp_now_ns() + READY_S * TP_NS_PER_S; tp_now_ns() < end;) {
        if (launch_http_answers(url))
            return TP_OK;
        if (waitpid(c->pid, NULL, WNOHANG) != 0)
            return TP_FAIL(TP_ERR_IO, "the server ended before it was ready");
        tp_sleep_us(20000);
    }
    return TP_FAIL(TP_ERR_TIMEOUT, "the server is not ready after %d s", READY_S);
}

static void stop_server(const child *c)
{
    if (c->pid > 0 && kill(c->pid, SIGTERM) == 0)
        (void)waitpid(c->pid, NULL, 0);
}

/* ---- tokens per second through HTTP ---- */

static tp_status stream(launch_result *results, const host_loads *plan, const child *c, bool speak)
{
    launch_http_target t = {.base_url = c->url,
                            .endpoint = "/v1/completions",
                            .stream = true,
                            .ignore_eos = true,
                            .timeout_s = 600};
    char model[256];

    TP_TRY(launch_http_model(model, sizeof model, &t));
    t.model = model;
    if (speak)
        printf("streamed through HTTP, server and clients on this machine; target %.0f tokens/s\n"
               "%10s %12s %8s %12s %12s %12s\n",
               TOKENS_TARGET, "streams", "tokens/s", "share", "TTFT p50 ms", "ITL p50 ms",
               "ITL p99 ms");
    for (int i = 0; i < plan->n; i++) {
        const launch_load *load = &plan->streams[i];
        launch_result *r = &results[i];
        double rate;

        TP_TRY(launch_http_load(r, &t, load));
        rate = (double)r->output_tokens / r->duration_s;
        if (speak)
            printf("%10d %12.0f %8.3f %12.2f %12.3f %12.3f\n", load->concurrency, rate,
                   rate / TOKENS_TARGET, launch_percentile(&r->ttft_ms, 50),
                   launch_percentile(&r->itl_ms, 50), launch_percentile(&r->itl_ms, 99));
        if (r->failed > 0)
            return TP_FAIL(TP_ERR_IO, "%d of %d streams failed: %s", r->failed, load->n_requests,
                           r->kinds[0].what);
    }
    return TP_OK;
}

static tp_status measure_streams(launch_result *results, const host_loads *plan,
                                 const launch_options *opt)
{
    char dir[LAUNCH_PATH_MAX];
    child c = {0};
    tp_status st;

    if (launch_find_model(dir, opt) != TP_OK)
        return TP_FAIL(TP_ERR_NOT_FOUND, "%s", tp_last_error());
    TP_TRY(start_server(&c, dir, plan->seqs_max));
    st = wait_ready(&c);
    if (st == TP_OK)
        st = stream(results, plan, &c, !opt->json);
    stop_server(&c);
    return st;
}

/* ---- time per step ---- */

static double bound_us(int seqs)
{
    return BOUND_US + BOUND_SEQ_US * seqs;
}

static void print_steps(const host_loads *plan, const launch_step_cost *ahead,
                        const launch_step_cost *turn)
{
    printf("\nmicroseconds per step while all sequences decode; target 50 + 0.5 per sequence\n"
           "%10s %8s | %16s %12s %9s | %10s %12s\n",
           "sequences", "target", "plan and deliver", "whole step", "of target", "overlapped",
           "tokens/s");
    for (int i = 0; i < plan->n; i++) {
        int n = plan->steps[i].concurrency;

        printf("%10d %8.0f | %16.1f %12.1f %9.3f | %10.1f %12.0f\n", n, bound_us(n),
               turn[i].host_us, turn[i].step_us, turn[i].step_us / bound_us(n), ahead[i].step_us,
               n / ahead[i].step_us * 1e6);
    }
}

static void put_steps(launch_json *j, const host_loads *plan, const launch_step_cost *ahead,
                      const launch_step_cost *turn)
{
    launch_json_open(j, "steps", '[');
    for (int i = 0; i < plan->n; i++) {
        launch_json_open(j, NULL, '{');
        launch_json_int(j, "sequences", plan->steps[i].concurrency);
        launch_json_real(j, "target_us", bound_us(plan->steps[i].concurrency));
        launch_json_real(j, "plan_and_deliver_us", turn[i].host_us);
        launch_json_real(j, "step_us", turn[i].step_us);
        launch_json_real(j, "step_overlapped_us", ahead[i].step_us);
        launch_json_close(j, '}');
    }
    launch_json_close(j, ']');
}

static void keep_best(launch_step_cost *best, const launch_step_cost *found, int n)
{
    for (int i = 0; i < n; i++)
        if (!(best[i].step_us > 0) || found[i].step_us < best[i].step_us)
            best[i] = found[i];
}

static tp_status run_round(launch_step_cost *best, launch_engine_job *job, const host_loads *plan,
                           bool overlapped)
{
    static launch_result results[LAUNCH_LOADS_MAX];
    launch_step_cost found[LAUNCH_LOADS_MAX];
    tp_status st = launch_engine_loads(results, found, job, plan->steps, plan->n, overlapped);

    if (st == TP_OK)
        keep_best(best, found, plan->n);
    for (int i = 0; i < plan->n; i++)
        launch_result_release(&results[i]);
    return st;
}

static tp_status measure_steps(launch_step_cost *ahead, launch_step_cost *turn,
                               const host_loads *plan, const launch_options *opt)
{
    static launch_engine_job job;
    launch_options o = *opt;
    tp_status st = TP_OK;

    o.device = "null";
    o.kv_cache_memory_bytes = KV_BYTES;
    TP_TRY(launch_engine_begin(&job, &o));
    for (int r = 0; r < ROUNDS && st == TP_OK; r++) {
        st = run_round(ahead, &job, plan, true);
        if (st == TP_OK)
            st = run_round(turn, &job, plan, false);
    }
    launch_engine_end(&job);
    return st;
}

/* ---- all of it ---- */

static tp_status tell(const launch_options *opt, const launch_bench_head *head,
                      const host_loads *plan, launch_result *streams, const launch_step_cost *ahead,
                      const launch_step_cost *turn)
{
    launch_json j;

    if (!opt->json)
        print_steps(plan, ahead, turn);
    launch_json_init(&j);
    launch_json_open(&j, NULL, '{');
    launch_json_open(&j, "streams", '[');
    for (int i = 0; i < plan->n; i++)
        launch_put_result(&j, head, &streams[i]);
    launch_json_close(&j, ']');
    put_steps(&j, plan, ahead, turn);
    launch_json_close(&j, '}');
    return launch_tell_json(opt, &j);
}

int launch_bench_host(const launch_options *opt)
{
    static launch_result streams[LAUNCH_LOADS_MAX];
    static host_loads plan;
    launch_step_cost ahead[LAUNCH_LOADS_MAX] = {0}, turn[LAUNCH_LOADS_MAX] = {0};
    launch_bench_head head = {
        .backend = "openai", .endpoint = "/v1/completions", .model = opt->model};
    bool leads = launch_env_rank() <= 0;
    tp_status st = TP_OK;

    if (make_plan(&plan, opt) != TP_OK) {
        if (leads)
            tp_error("bench", "%s", tp_last_error());
        return 1;
    }
    if (leads && launch_check_outputs(opt) != TP_OK)
        return 1;
    /* before MPI is up: what it sets in the environment and opens is not for the server */
    if (leads && curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return 1;
    if (leads)
        st = measure_streams(streams, &plan, opt);
    if (st == TP_OK)
        st = measure_steps(ahead, turn, &plan, opt);
    if (st == TP_OK && leads)
        st = tell(opt, &head, &plan, streams, ahead, turn);
    for (int i = 0; i < plan.n; i++)
        launch_result_release(&streams[i]);
    if (leads)
        curl_global_cleanup();
    return st == TP_OK ? 0 : 1;
}
