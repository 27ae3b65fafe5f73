/* SPDX-License-Identifier: Apache-2.0 */
/* options.h - every knob of tpserve, in one table.
 *
 * From the rows come the command line, the environment (TPSERVE_MAX_MODEL_LEN), the YAML file (--config; the keys of
 * vLLM's config.yaml), --help, the man page, shell completion, --print-config and the texts of errors.
 * Precedence: command line, environment, file, default.  Threads: main thread, at start.
 */
#ifndef LAUNCH_OPTIONS_H
#define LAUNCH_OPTIONS_H

#include <stdint.h>
#include <stdio.h>

#include "base/arena.h"
#include "base/status.h"
#include "runtime/spec/speculation.h"

#define LAUNCH_LIST_MAX     64
#define LAUNCH_CAPTURES_MAX 32

typedef struct launch_list {
    const char *items[LAUNCH_LIST_MAX];
    int n;
} launch_list;

typedef enum launch_command {
    LAUNCH_SERVE,
    LAUNCH_INSPECT,
    LAUNCH_PLAN,
    LAUNCH_DOCTOR,
    LAUNCH_BENCH,
    LAUNCH_VERSION
} launch_command;

/* The settled values; strings live in the parser's arena. */
typedef struct launch_options {
    launch_command command;
    bool command_is_given; /* not serve by default */
    /* model */
    const char *model;
    launch_list model_path, served_model_name;
    const char *load_format, *load_strategy, *dtype;
    int64_t max_model_len;
    /* parallelism */
    int64_t tensor_parallel_size, pipeline_parallel_size, data_parallel_size, threads;
    const char *device, *comm, *comm_table, *bind;
    const char *distributed_executor_backend;
    bool allow_mixed_gpus;
    /* scheduler and memory */
    int64_t max_num_seqs, max_num_batched_tokens, block_size, kv_cache_memory_bytes;
    int64_t max_num_queued_reqs, max_num_queued_tokens;
    double gpu_memory_utilization, watermark;
    bool async_scheduling, enforce_eager, enable_prefix_caching;
    const char *speculative_config;
    rt_speculation speculation; /* what it says */
    launch_list cudagraph_capture_sizes;
    int capture_sizes[LAUNCH_CAPTURES_MAX], n_capture_sizes; /* that list as ascending numbers */
    /* server */
    const char *host, *api_key_file;
    int64_t port;
    launch_list api_key, allowed_origins;
    bool insecure;
    int64_t max_body, max_connections, max_output_tokens, max_prompts_per_request,
        max_seqs_per_request;
    int64_t shutdown_timeout, step_timeout, startup_timeout;
    /* plan, doctor, bench */
    const char *gpu, *quantization, *kv_cache_dtype, *batch, *load, *output;
    launch_list gpu_price;
    int64_t context, device_memory;
    double memory_gbps, tflops;
    bool json;
    /* bench */
    const char *base_url, *endpoint, *max_concurrency, *request_rate, *prompt_format,
        *length_distribution, *csv, *plot;
    int64_t num_prompts, num_warmups, random_input_len, random_output_len, random_prefix_len, seed,
        request_timeout;
    double random_range_ratio, burstiness, disconnect_rate, temperature;
    bool engine, stream, ignore_eos;
    bool comm_is_given, host_is_bare; /* `bench --comm [WAY]`, `bench --host` */
    /* log and self-help */
    const char *log_level, *config;
    bool log_json, enable_log_requests;
    bool help, print_config, generate_man;
    const char *generate_completion;
    /* accepted for scripts written for vLLM; without effect */
    bool ignored_flag;
    const char *ignored_value;
} launch_options;

typedef enum launch_type {
    LAUNCH_TYPE_STRING,
    LAUNCH_TYPE_LIST,  /* may be repeated; commas do not split */
    LAUNCH_TYPE_BOOL,  /* --name, --no-name */
    LAUNCH_TYPE_INT,   /* 8192, 8k = 8000, 8K = 8192 */
    LAUNCH_TYPE_BYTES, /* 4GiB, 512M, 1G: K M G T are powers of 1024, KB MB ... of 1000 */
    LAUNCH_TYPE_REAL,
    LAUNCH_TYPE_WORD /* one of `words` */
} launch_type;

typedef enum launch_flags {
    LAUNCH_HIDDEN = 1,  /* not in --help */
    LAUNCH_IGNORED = 2, /* accepted, says so, does nothing */
    LAUNCH_SECRET = 4,  /* never printed; wiped from the process title */
    LAUNCH_BARE = 8     /* the value may be left out, before another option or at the end */
} launch_flags;

/* Flags besides: the commands that look at the option.  A server refuses those of others. */
#define LAUNCH_FOR(command) (256u << (command))
#define LAUNCH_FOR_ALL                                                                             \
    (LAUNCH_FOR(LAUNCH_SERVE) | LAUNCH_FOR(LAUNCH_INSPECT) | LAUNCH_FOR(LAUNCH_PLAN) |             \
     LAUNCH_FOR(LAUNCH_DOCTOR) | LAUNCH_FOR(LAUNCH_BENCH))

typedef struct launch_row {
    const char *group; /* heading in --help; NULL = as the row before */
    const char *name;  /* "max-model-len" */
    const char *alias; /* another spelling, or NULL: "tp", "context-length", "q" (-q) */
    launch_type type;
    size_t offset;     /* in launch_options */
    const char *dflt;  /* as text; NULL = unset */
    double min, max;   /* INT, BYTES, REAL */
    const char *words; /* WORD: "auto|cpu" */
    unsigned flags;
    const char *doc; /* one sentence or two */
} launch_row;

extern const launch_row launch_rows[];
extern const int launch_n_rows;

typedef enum launch_origin {
    LAUNCH_FROM_DEFAULT,
    LAUNCH_FROM_FILE,
    LAUNCH_FROM_ENV,
    LAUNCH_FROM_CLI
} launch_origin;

typedef struct launch_parser {
    tp_arena arena;
    launch_options opt;
    launch_origin *origin; /* [launch_n_rows], in the arena */
} launch_parser;

/* Reads everything: defaults, --config file, environment, command line.  INVALID with a text for the user (tp_last_error
 * only: the caller prints it). argv stays the caller's; secrets in it are overwritten. */
TP_MUST_USE tp_status launch_parse(launch_parser *p, int argc, char **argv);
void launch_parser_release(launch_parser *p);

/* One value, from any source: checks type and range. */
TP_MUST_USE tp_status launch_set(launch_parser *p, const launch_row *row, const char *value,
                                 launch_origin origin);
/* By name or alias, '_' and '-' alike; NULL when unknown. */
const launch_row *launch_find(const char *name, size_t len);
/* The option of --help whose name or alias is spelled most like this; NULL when none is near. */
const char *launch_nearest(const char *name, size_t len);
/* Reads a YAML mapping of options. */
TP_MUST_USE tp_status launch_read_file(launch_parser *p, const char *path);

/* Generated texts.  commands: of LAUNCH_FOR(), one of them or all. */
void launch_print_help(FILE *out, unsigned commands);
void launch_print_config(FILE *out, const launch_parser *p);
void launch_print_value(FILE *out, const launch_row *row, const launch_options *opt);
void launch_print_man(FILE *out);
void launch_print_completion(FILE *out);

#endif
