/* SPDX-License-Identifier: Apache-2.0 */
/* options_table.c - the rows.  Names follow vLLM where they mean the same. */
#include "launcher/options.h"

#define AT(field) offsetof(launch_options, field)

/* The commands that look at an option: `for_` in the rows. */
#define SERVE   LAUNCH_FOR(LAUNCH_SERVE)
#define INSPECT LAUNCH_FOR(LAUNCH_INSPECT)
#define PLAN    LAUNCH_FOR(LAUNCH_PLAN)
#define DOCTOR  LAUNCH_FOR(LAUNCH_DOCTOR)
#define BENCH   LAUNCH_FOR(LAUNCH_BENCH)
#define ENGINE  (SERVE | BENCH) /* an engine's own: in a server, or under bench --engine */
#define ALL     LAUNCH_FOR_ALL

#define STR(g, n, a, for_, f, d, doc)                                                              \
    {                                                                                              \
        g, n, a, LAUNCH_TYPE_STRING, AT(f), d, 0, 0, NULL, for_, doc                               \
    }
#define LIST(g, n, a, for_, f, fl, doc)                                                            \
    {                                                                                              \
        g, n, a, LAUNCH_TYPE_LIST, AT(f), NULL, 0, 0, NULL, (for_) | (fl), doc                     \
    }
#define BOOL(g, n, a, for_, f, fl, doc)                                                            \
    {                                                                                              \
        g, n, a, LAUNCH_TYPE_BOOL, AT(f), NULL, 0, 0, NULL, (for_) | (fl), doc                     \
    }
#define INT(g, n, a, for_, f, d, lo, hi, doc)                                                      \
    {                                                                                              \
        g, n, a, LAUNCH_TYPE_INT, AT(f), d, lo, hi, NULL, for_, doc                                \
    }
#define BYTES(g, n, a, for_, f, d, hi, doc)                                                        \
    {                                                                                              \
        g, n, a, LAUNCH_TYPE_BYTES, AT(f), d, 0, hi, NULL, for_, doc                               \
    }
#define REAL(g, n, a, for_, f, d, lo, hi, doc)                                                     \
    {                                                                                              \
        g, n, a, LAUNCH_TYPE_REAL, AT(f), d, lo, hi, NULL, for_, doc                               \
    }
#define WORD(g, n, a, for_, f, d, w, doc)                                                          \
    {                                                                                              \
        g, n, a, LAUNCH_TYPE_WORD, AT(f), d, 0, 0, w, for_, doc                                    \
    }
#define IGNORED_FLAG(n)                                                                            \
    {                                                                                              \
        NULL, n, NULL, LAUNCH_TYPE_BOOL, AT(ignored_flag), NULL, 0, 0, NULL,                       \
            LAUNCH_HIDDEN | LAUNCH_IGNORED | ALL,                                                  \
            "Accepted for scripts written for vLLM; has no effect."                                \
    }
#define IGNORED_VALUE(n)                                                                           \
    {                                                                                              \
        NULL, n, NULL, LAUNCH_TYPE_STRING, AT(ignored_value), NULL, 0, 0, NULL,                    \
            LAUNCH_HIDDEN | LAUNCH_IGNORED | ALL,                                                  \
            "Accepted for scripts written for vLLM; has no effect."                                \
    }

#define TEBI 1099511627776.0

const launch_row launch_rows[] = {
    STR("Model", "model", NULL, ALL, model, NULL,
        "The model: a directory, a Hub id found in the local Hugging Face cache, or an alias such "
        "as 72b or demo. May also be given without the flag."),
    LIST(NULL, "model-path", "models", ALL, model_path, 0,
         "Directory in which aliases are looked up: DIR/aliases.yaml, then DIR/<alias>. May be "
         "repeated; TPSERVE_MODELS holds a list separated by colons."),
    LIST(NULL, "served-model-name", NULL, SERVE, served_model_name, 0,
         "Name by which clients call the model; may be repeated. Default: the model as given."),
    WORD(NULL, "load-format", NULL, ENGINE, load_format, "auto", "auto|safetensors|dummy",
         "dummy fills the weights with random numbers and reads none."),
    WORD(NULL, "safetensors-load-strategy", NULL, ENGINE, load_strategy, "lazy", "lazy|eager",
         "lazy opens the port at once where a checkpoint of up to 4 GiB per rank is in the page "
         "cache, and loads it while the first requests run; eager loads all of it first."),
    WORD(NULL, "dtype", NULL, ENGINE | PLAN, dtype, "auto",
         "auto|float32|bfloat16|float16|float|half",
         "Type of weights and KV cache; auto is the checkpoint's own."),
    INT(NULL, "max-model-len", "context-length", ENGINE | PLAN, max_model_len, "0", -1, 1e9,
        "Longest context, prompt and output together; 0 is what the model supports and the cache "
        "holds. Takes 8k (8000) and 8K (8192)."),

    INT("Parallelism", "tensor-parallel-size", "tp", ALL, tensor_parallel_size, "0", 0, 64,
        "Ranks that share the model. Default: the number of MPI ranks. Without mpirun, tpserve "
        "starts that many ranks itself."),
    INT(NULL, "pipeline-parallel-size", "pp", SERVE, pipeline_parallel_size, "1", 1, 1,
        "Only 1 is supported."),
    INT(NULL, "data-parallel-size", "dp", SERVE, data_parallel_size, "1", 1, 1,
        "Only 1 is supported."),
    WORD(NULL, "distributed-executor-backend", NULL, SERVE, distributed_executor_backend, "mpi",
         "mpi", "Ranks are MPI processes; nothing else exists here."),
    INT(NULL, "threads", NULL, ENGINE, threads, "0", 0, 1024,
        "CPU threads per rank; 0 is the cores of this host divided by its ranks."),
    WORD(
        NULL, "device", NULL, ENGINE | DOCTOR, device, "auto", "auto|cuda|cpu|emu|ref|null",
        "Where the ranks compute: auto is cuda where a GPU can be used, else cpu. emu runs the CUDA "
        "kernels on the CPU, ref slow scalar code: both are for checking results. null computes "
        "nothing and answers the same word over and over: it shows what the host costs."),
    {NULL, "comm", NULL, LAUNCH_TYPE_WORD, AT(comm), "auto", 0, 0, "auto|nccl|p2p|shm|mpi|self",
     LAUNCH_BARE | ENGINE | DOCTOR,
     "How ranks exchange data. CPUs: shared memory inside a host, MPI between hosts. GPUs: p2p "
     "(kernels that read the peers' memory), nccl, or through the host over shm or mpi; auto takes "
     "the fastest for each size. In bench: what to measure."},
    STR(NULL, "comm-table", NULL, ENGINE, comm_table, NULL,
        "File that tpserve bench --comm has written for these GPUs and this number of ranks: the "
        "fastest way for each size."),
    BOOL(NULL, "allow-mixed-gpus", NULL, ENGINE | DOCTOR, allow_mixed_gpus, 0,
         "Serve from GPUs of different models; every step waits for the slowest."),
    WORD(
        NULL, "bind", NULL, ENGINE, bind, "auto", "auto|none|keep",
        "auto binds each rank to its share of the host's cores; keep leaves the launcher's binding "
        "alone; none unbinds."),

    INT("Scheduler and memory", "max-num-seqs", "max-running-requests", ENGINE | PLAN, max_num_seqs,
        "0", 0, 65536, "Most sequences in progress; 0 is 128."),
    INT(NULL, "max-num-batched-tokens", NULL, ENGINE | PLAN, max_num_batched_tokens, "0", 0, 1e6,
        "Most tokens computed in one step; 0 is 2048."),
    {NULL, "async-scheduling", NULL, LAUNCH_TYPE_BOOL, AT(async_scheduling), "true", 0, 0, NULL,
     SERVE,
     "Plan the next step while one runs. --no-async-scheduling plans it afterwards; the text is the "
     "same."},
    BOOL(NULL, "enforce-eager", NULL, ENGINE, enforce_eager, 0,
         "Launch every kernel of a decode step by itself instead of replaying CUDA graphs."),
    LIST(
        NULL, "cudagraph-capture-sizes", NULL, ENGINE, cudagraph_capture_sizes, 0,
        "Batch sizes that get a CUDA graph, such as 1,2,4,8; may be repeated. Default: chosen up to "
        "--max-num-seqs."),
    INT(NULL, "block-size", "page-size", ENGINE, block_size, "16", 16, 256,
        "Tokens per KV cache block, a multiple of 16."),
    {NULL, "enable-prefix-caching", NULL, LAUNCH_TYPE_BOOL, AT(enable_prefix_caching), "true", 0, 0,
     NULL, ENGINE,
     "Begin a prompt behind the blocks of its beginning that are still in the KV cache; the text is "
     "the same. Clients with different API keys, or cache_salt, share nothing."},
    STR(NULL, "speculative-config", NULL, ENGINE, speculative_config, NULL,
        "Speculative decoding by prompt lookup, as JSON: '{\"method\": \"ngram\"}', and if wanted "
        "num_speculative_tokens (8), prompt_lookup_min (2), prompt_lookup_max (8), "
        "disable_by_batch_size. The text is the same; copying goes faster."),
    BYTES(NULL, "kv-cache-memory-bytes", NULL, ENGINE | PLAN, kv_cache_memory_bytes, "0",
          4096 * TEBI,
          "Size of the KV cache of each rank (4GiB, 512M); 0 takes a share of free memory, at most "
          "1 GiB for all ranks of a host."),
    REAL(
        NULL, "gpu-memory-utilization", "mem-fraction-static", ENGINE | PLAN,
        gpu_memory_utilization, "0", 0, 1,
        "Share of memory for weights and the default KV cache; 0 is 0.92 of a GPU, and 0.5 of what "
        "is free on CPU ranks."),
    REAL(NULL, "watermark", NULL, ENGINE, watermark, "0.01", 0, 1,
         "Share of the cache that admission leaves free, so that running sequences can grow."),
    INT(NULL, "max-num-queued-reqs", NULL, SERVE, max_num_queued_reqs, "0", 0, 1e6,
        "Requests that may wait; more are answered 429. 0 is four times --max-num-seqs, at least "
        "256."),
    INT(NULL, "max-num-queued-tokens", NULL, ENGINE, max_num_queued_tokens, "0", 0, 1e12,
        "Prompt tokens of all open requests; more are answered 429. 0 is no limit."),

    {"Server", "host", NULL, LAUNCH_TYPE_STRING, AT(host), "127.0.0.1", 0, 0, NULL,
     LAUNCH_BARE | SERVE | DOCTOR | BENCH,
     "Address to listen on. One that is not loopback needs an API key, or --insecure. In bench: of "
     "the server; without a value: measure what the host costs, with a model that computes "
     "nothing."},
    INT(NULL, "port", NULL, SERVE | DOCTOR | BENCH, port, "8000", 0, 65535,
        "Port to listen on; 0 takes a free one."),
    LIST(NULL, "api-key", NULL, SERVE | BENCH, api_key, LAUNCH_SECRET,
         "A key that clients must send as a bearer token; may be repeated. Prefer --api-key-file "
         "or TPSERVE_API_KEY: command lines can be read by other users."),
    STR(NULL, "api-key-file", NULL, SERVE, api_key_file, NULL, "File of keys, one per line."),
    BOOL(NULL, "insecure", NULL, SERVE, insecure, 0,
         "Allow listening on an address that is not loopback without an API key."),
    LIST(NULL, "allowed-origins", NULL, SERVE, allowed_origins, 0,
         "Origin that a browser may call from (CORS); may be repeated; * is any. Default: none."),
    BYTES(NULL, "max-body", NULL, SERVE, max_body, "8MiB", 1073741824.0, "Longest request body."),
    INT(NULL, "max-connections", NULL, SERVE, max_connections, "16384", 1, 1e6,
        "Connections of clients at a time; requests on more are answered 503."),
    INT(NULL, "max-output-tokens", NULL, SERVE, max_output_tokens, "0", 0, 1e9,
        "Cap on max_tokens of a request; 0 is the context length."),
    INT(NULL, "max-prompts-per-request", NULL, SERVE, max_prompts_per_request, "128", 1, 1024,
        "Prompts in one completions request."),
    INT(NULL, "max-seqs-per-request", NULL, SERVE, max_seqs_per_request, "256", 1, 4096,
        "Prompts times n of one request."),
    INT(NULL, "shutdown-timeout", NULL, SERVE, shutdown_timeout, "30", 0, 86400,
        "Seconds that running requests may take to finish after a signal."),
    INT(NULL, "step-timeout", NULL, ENGINE, step_timeout, "10", 1, 3600,
        "Seconds after which a rank that is silent, or a step in which no rank gets anything done, "
        "counts as lost. The job then ends."),
    INT(NULL, "startup-timeout", NULL, SERVE, startup_timeout, "120", 1, 86400,
        "Seconds for all ranks to find each other at start; those that are missing are named. "
        "Loading the model does not count."),

    STR("Plan", "gpu", NULL, PLAN, gpu, NULL,
        "plan: a device by name (h100, h200, a100, a100-40, l40s, b200, cpu ...). Default: all "
        "in a table."),
    WORD(NULL, "quantization", "q", PLAN, quantization, "none", "none|bf16|fp8|int4",
         "plan: as if the layers' weights were stored so; none is as they are."),
    WORD(NULL, "kv-cache-dtype", NULL, PLAN, kv_cache_dtype, "auto", "auto|bfloat16|fp8",
         "plan: as if the KV cache were stored so."),
    STR(NULL, "batch", NULL, PLAN, batch, "1,8,32,128", "plan: sequences that decode together."),
    {NULL, "context", NULL, LAUNCH_TYPE_INT, AT(context), "2048", 1, 1e9, NULL, PLAN,
     "plan: tokens in the cache of each sequence while it decodes."},
    STR(NULL, "load", NULL, PLAN, load, NULL,
        "plan: a load to meet, as REQUESTS/S,PROMPT,OUTPUT[,MS]: tokens of a prompt and of an "
        "answer, and the longest time per token."),
    {NULL, "gpu-price", NULL, LAUNCH_TYPE_LIST, AT(gpu_price), NULL, 0, 0, NULL, PLAN,
     "plan: NAME=PRICE of one device for an hour; may be repeated. With prices, loads are met at the "
     "lowest price instead of on the fewest devices."},
    REAL(NULL, "memory-gbps", NULL, PLAN, memory_gbps, "0", 0, 1e6,
         "plan: memory bandwidth of the device in GB/s, instead of the data sheet's; needed for "
         "--gpu cpu."),
    REAL(NULL, "tflops", NULL, PLAN, tflops, "0", 0, 1e6,
         "plan: TFLOP/s of the device in BF16, instead of the data sheet's."),
    {NULL, "device-memory", NULL, LAUNCH_TYPE_BYTES, AT(device_memory), "0", 0, 4096 * TEBI, NULL,
     PLAN, "plan: memory of the device, instead of the data sheet's."},

    STR("Bench", "base-url", NULL, BENCH, base_url, NULL,
        "The server to measure, of any maker. Default: http://HOST:PORT of --host and --port."),
    STR(NULL, "endpoint", NULL, BENCH, endpoint, "/v1/completions",
        "/v1/completions or /v1/chat/completions."),
    BOOL(NULL, "engine", NULL, BENCH, engine, 0,
         "Measure the engine itself, in this job and without HTTP, with overlapped scheduling and "
         "without."),
    INT(NULL, "num-prompts", NULL, BENCH, num_prompts, "1000", 1, 1e7, "Requests of each load."),
    INT(NULL, "num-warmups", NULL, BENCH, num_warmups, "0", 0, 1e6,
        "Requests before the first load that count for nothing."),
    STR(NULL, "max-concurrency", NULL, BENCH, max_concurrency, NULL,
        "Most requests under way, 0 for no limit; several loads as 1,4,16. Default: 16, and no "
        "limit with --request-rate."),
    STR(NULL, "request-rate", NULL, BENCH, request_rate, NULL,
        "Requests per second, at random times; several loads as 1,2,4. Default: inf, that is as "
        "many as may be under way."),
    REAL(NULL, "burstiness", NULL, BENCH, burstiness, "1", 0, 1000,
         "Shape of the gamma distribution between two requests: 1 is a Poisson process, less "
         "comes in bursts, more is more even."),
    INT(NULL, "random-input-len", NULL, BENCH, random_input_len, "1024", 1, 1e6,
        "Tokens of a prompt."),
    INT(NULL, "random-output-len", NULL, BENCH, random_output_len, "128", 1, 1e6,
        "Tokens of an answer at most; with --ignore-eos exactly."),
    REAL(NULL, "random-range-ratio", NULL, BENCH, random_range_ratio, "0", 0, 1,
         "Lengths vary evenly by this share of them, up and down."),
    WORD(NULL, "length-distribution", NULL, BENCH, length_distribution, "uniform",
         "uniform|exponential",
         "exponential: many short prompts and answers and few long ones, of the given means."),
    INT(NULL, "random-prefix-len", NULL, BENCH, random_prefix_len, "0", 0, 1e6,
        "Tokens that all prompts begin with, before those of --random-input-len."),
    WORD(NULL, "prompt-format", NULL, BENCH, prompt_format, "ids", "ids|words",
         "Prompts as token ids, whose number is certain, or as about as many words, for "
         "servers that take no ids; chats are words."),
    BOOL(NULL, "ignore-eos", NULL, BENCH, ignore_eos, 0,
         "Ask for answers of the full length (not every server knows how)."),
    REAL(NULL, "temperature", NULL, BENCH, temperature, "0", 0, 2, "Temperature of sampling."),
    {NULL, "stream", NULL, LAUNCH_TYPE_BOOL, AT(stream), "true", 0, 0, NULL, BENCH,
     "Ask for streams. --no-stream asks for whole answers: then only their latency is known."},
    REAL(NULL, "disconnect-rate", NULL, BENCH, disconnect_rate, "0", 0, 1,
         "Share of the requests whose client leaves somewhere in the answer."),
    INT(NULL, "request-timeout", NULL, BENCH, request_timeout, "600", 1, 86400,
        "Seconds after which a request has failed."),
    INT(NULL, "seed", NULL, BENCH, seed, "0", 0, 9007199254740992.0,
        "Lengths, prompts and times are the same for the same seed."),

    STR("Results", "output", "o", BENCH, output, NULL,
        "bench: file for the figures as JSON. bench --comm: for the table of sizes and ways, "
        "which ranks choose by."),
    STR(NULL, "csv", NULL, BENCH, csv, NULL,
        "bench: file for the figures as CSV, a row for each load."),
    STR(NULL, "plot", NULL, BENCH, plot, NULL,
        "bench: file.svg or file.png for a picture of latency against load."),
    BOOL(NULL, "json", NULL, PLAN | DOCTOR | BENCH, json, 0,
         "plan, doctor, bench: print JSON and no text."),

    WORD("Log and self-help", "log-level", NULL, ALL, log_level, "info",
         "error|warn|info|debug|trace", "Rank 0 speaks from this level on, the others from warn."),
    BOOL(NULL, "log-json", NULL, ALL, log_json, 0, "Log lines as JSON objects."),
    BOOL(NULL, "enable-log-requests", NULL, SERVE, enable_log_requests, 0,
         "One line per request; never prompts, outputs or keys."),
    STR(NULL, "config", NULL, ALL, config, NULL,
        "YAML file of options: keys are flag names, as in vLLM's config.yaml."),
    BOOL(NULL, "print-config", NULL, ALL, print_config, 0,
         "Print every option with its value and where it came from, and exit."),
    BOOL(NULL, "help", "h", ALL, help, 0, "Print this text and exit."),
    {NULL, "generate-man", NULL, LAUNCH_TYPE_BOOL, AT(generate_man), NULL, 0, 0, NULL,
     LAUNCH_HIDDEN | ALL, "Print the manual page."},
    {NULL, "generate-completion", NULL, LAUNCH_TYPE_WORD, AT(generate_completion), NULL, 0, 0,
     "bash", LAUNCH_HIDDEN | ALL, "Print a completion script."},

    IGNORED_FLAG("trust-remote-code"),
    IGNORED_FLAG("enable-chunked-prefill"),
    IGNORED_FLAG("disable-log-stats"),
    IGNORED_FLAG("disable-custom-all-reduce"),
    IGNORED_FLAG("enable-prompt-tokens-details"),
    IGNORED_VALUE("tokenizer-mode"),
    IGNORED_VALUE("download-dir"),
    IGNORED_VALUE("compilation-config"),
    IGNORED_VALUE("api-server-count"),
    IGNORED_VALUE("uvicorn-log-level"),
};

const int launch_n_rows = (int)TP_ARRAY_LEN(launch_rows);
