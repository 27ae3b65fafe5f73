/* SPDX-License-Identifier: Apache-2.0 */
/* bench.h - parts of `tpserve bench`: the loads, what a request went through, figures over all of them, and how they are
 * told.  HTTP (bench_http.c) and the engine in process (bench_inproc.c) fill the same records, so their figures compare.
 *
 * Names and definitions follow `vllm bench serve`: TTFT from sending the request to the first text, ITL between two
 * arrivals of text, TPOT = (E2E - TTFT) / (output tokens - 1), percentiles with linear interpolation.
 * Threads: one.
 */
#ifndef LAUNCH_BENCH_H
#define LAUNCH_BENCH_H

#include "base/buf.h"
#include "launcher/bench_stats.h"
#include "launcher/gpu_bind.h"
#include "launcher/json_out.h"
#include "launcher/model_path.h"
#include "launcher/options.h"

#define LAUNCH_LOADS_MAX   32
#define LAUNCH_KINDS_MAX   24
#define LAUNCH_RESULTS_MAX (2 * LAUNCH_LOADS_MAX) /* bench --engine runs every load twice */

/* ---- a load ---- */
typedef struct launch_load {
    int n_requests;
    int concurrency; /* most requests under way; 0 = no limit */
    double rate;     /* requests per second; INFINITY = at once, as far as the concurrency allows */
    double burstiness; /* shape of the gamma distribution between arrivals; 1 = Poisson */
    int input_len, output_len, prefix_len; /* tokens; the prefix comes first and is shared */
    double range_ratio;                    /* lengths are len * (1 - r) .. len * (1 + r) */
    bool exponential;  /* lengths are exponential with that mean instead, at most 8 times it */
    double leave_rate; /* share of the requests whose client leaves */
    uint64_t seed;
    int number; /* of the load in its run: each has prompts of its own, which no prefix cache holds */
} launch_load;

/* One request of a load: the same for the same seed, whatever the server does. */
typedef struct launch_ask {
    int input_len, output_len; /* tokens; the prefix counts */
    double start_s;            /* after the begin of the load */
    int leave_after;           /* pieces of text after which the client leaves; -1 = it stays */
} launch_ask;

/* Reads --max-concurrency and --request-rate: their product is measured, load by load.  INVALID (text kept). */
TP_MUST_USE tp_status launch_read_loads(launch_load *out, int *n, const launch_options *opt);
/* asks [load->n_requests], by start. */
void launch_plan_asks(launch_ask *asks, const launch_load *load);
/* Token i of the prompt of request `index`; an ordinary token in every vocabulary of 1000 and more. */
int32_t launch_prompt_id(const launch_load *load, int index, int i);
/* A word that is one token in the usual vocabularies; i as above. */
const char *launch_prompt_word(const launch_load *load, int index, int i);

/* ---- what came of it ---- */
typedef struct launch_kind {
    char what[64];
    char said[256]; /* by the server about the first one; or "" */
    int n;
} launch_kind;

typedef struct launch_result {
    launch_load load;
    const char *label; /* how it was measured, where there is more than one way; or NULL */
    double duration_s;
    int completed, failed, left;
    int in_flight_max;
    int64_t input_tokens, output_tokens; /* of completed requests */
    bool counted_by_server; /* by its usage, else by pieces of text and by what was asked for */
    launch_samples ttft_ms, tpot_ms, e2el_ms; /* of completed requests */
    launch_samples itl_ms;                    /* of all: each arrival counts when it comes */
    launch_kind kinds[LAUNCH_KINDS_MAX];      /* of failures */
    int n_kinds;
} launch_result;

void launch_result_init(launch_result *r, const launch_load *load);
void launch_result_release(launch_result *r);
launch_kind *launch_count_failure(launch_result *r, const char *kind);
/* A request that was answered in full; prompt and completion are -1 where the server did not count. */
typedef struct launch_done {
    int64_t start_ns, first_ns, end_ns; /* first_ns 0: no text came */
    int64_t input_tokens, output_tokens;
} launch_done;
void launch_count_done(launch_result *r, const launch_done *d);

/* ---- telling it ---- */
typedef struct launch_bench_head {
    const char *backend; /* "openai", "engine" */
    const char *base_url, *endpoint, *model;
} launch_bench_head;

/* One line of a table, and its heading. */
void launch_print_results_head(FILE *out);
void launch_print_result_row(FILE *out, launch_result *r);
/* Percentiles and errors of one load. */
void launch_print_result(FILE *out, launch_result *r);
void launch_put_result(launch_json *j, const launch_bench_head *head, launch_result *r);
/* Results as a CSV file with a row for each load, as a picture (SVG or PNG) of latency against load.  IO. */
TP_MUST_USE tp_status launch_write_csv(const char *path, const launch_bench_head *head,
                                       launch_result *r, int n);
TP_MUST_USE tp_status launch_write_plot(const char *path, const launch_bench_head *head,
                                        launch_result *r, int n);
TP_MUST_USE tp_status launch_write_file(const char *path, const tp_buf *text);

/* Can the files that the options name be written?  Asked before the work.  INVALID, IO. */
TP_MUST_USE tp_status launch_check_outputs(const launch_options *opt);
/* To --output and, with --json, to the terminal; releases j. */
TP_MUST_USE tp_status launch_tell_json(const launch_options *opt, launch_json *j);
/* All of the above that the options ask for. */
TP_MUST_USE tp_status launch_tell_results(const launch_options *opt, const launch_bench_head *head,
                                          launch_result *r, int n);

/* ---- ways to measure ---- */
typedef struct launch_http_target {
    const char *base_url, *endpoint, *model; /* model NULL: asked for */
    const char *api_key;                     /* or NULL */
    bool stream, ignore_eos, words, progress;
    double temperature;
    int64_t timeout_s; /* of one request */
} launch_http_target;

/* Ctrl-C came: nothing new begins, and what was measured is told. */
bool launch_interrupted(void);
/* The first model that the server names. */
TP_MUST_USE tp_status launch_http_model(char *out, size_t cap, const launch_http_target *t);
bool launch_http_answers(const char *url); /* 200 to a GET */
/* Runs one load; the result is initialised here. */
TP_MUST_USE tp_status launch_http_load(launch_result *out, const launch_http_target *t,
                                       const launch_load *load);

/* An engine in this job. */
typedef struct launch_engine_job {
    const launch_options *opt;
    comm_world world;
    launch_device device;
    kern_backend *be; /* NULL: this rank has none, which its engine will say */
    char dir[LAUNCH_PATH_MAX];
    bool have_model; /* rank 0 */
} launch_engine_job;

/* Microseconds of the steps of a load: between two tokens of a sequence; in rounds of the scheduler, per step. */
typedef struct launch_step_cost {
    double step_us, host_us;
} launch_step_cost;

/* Starts MPI and opens the device.  Collective. */
TP_MUST_USE tp_status launch_engine_begin(launch_engine_job *job, const launch_options *opt);
void launch_engine_end(launch_engine_job *job);
/* Runs n loads on one engine, with a scheduler a step ahead or without.  Results are filled on rank 0, cost [n] when
 * it is not NULL. */
TP_MUST_USE tp_status launch_engine_loads(launch_result *results, launch_step_cost *cost,
                                          launch_engine_job *job, const launch_load *loads, int n,
                                          bool overlapped);

int launch_bench_engine(const launch_options *opt);
int launch_bench_host(const launch_options *opt);
int launch_bench_comm(const launch_options *opt);

#endif
