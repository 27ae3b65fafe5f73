/* SPDX-License-Identifier: Apache-2.0 */
/* engine.h - the whole runtime as the API sees it: submit token ids, read events.
 *
 * One engine per process.  The engine thread of every rank owns the device and the group and executes step plans.  On
 * rank 0 a scheduler thread makes them, one step ahead of the one that runs, and turns results into events.  API threads
 * only submit, poll and cancel.
 * A request handle belongs to the reader that submitted it until rt_request_release().
 */
#ifndef RT_ENGINE_H
#define RT_ENGINE_H

#include <stdint.h>

#include "base/status.h"
#include "comm/comm.h"
#include "kernels/kern.h"
#include "runtime/spec/speculation.h"
#include "runtime/stats.h"
#include "runtime/template/template.h"
#include "runtime/tokenizer/tokenizer.h"

#define RT_LOGPROBS_MAX     20
#define RT_STOP_STRINGS_MAX 4
#define RT_STOP_BYTES_MAX   256
#define RT_STOP_IDS_MAX     128
#define RT_BIAS_MAX         1024
#define RT_ALLOWED_MAX      1024
#define RT_CHOICES_MAX      128
#define RT_CACHE_SALT_BYTES 16
#define RT_OUTBOX_BYTES     (256 * 1024) /* a client further behind than this is cut off */

typedef struct rt_engine rt_engine;
typedef struct rt_request rt_request;

/* What 0 stands for in the options below. */
#define RT_DEFAULT_NUM_SEQS       128
#define RT_DEFAULT_BATCHED_TOKENS 2048
#define RT_DEFAULT_BLOCK_TOKENS   16
#define RT_DEFAULT_HOST_SHARE     0.5  /* of what is free on a host, for its ranks together */
#define RT_DEFAULT_DEVICE_SHARE   0.92 /* of a device's memory */

typedef struct rt_engine_options {
    /* Only rank 0's counts.  NULL = the caller failed to find it: all ranks fail. */
    const char *model_dir;
    const char *dtype;             /* "auto", "float32", "bfloat16", "float16" */
    int64_t max_model_len;         /* 0 = what the model supports */
    int max_num_seqs;              /* 0 = default */
    int max_num_batched_tokens;    /* 0 = default */
    int block_tokens;              /* 0 = default */
    int64_t kv_cache_memory_bytes; /* of this rank; 0 = default share of memory */
    double memory_share;           /* --gpu-memory-utilization: for that default; 0 = default */
    double watermark;              /* share of blocks kept free at admission; < 0 = 0.01 */
    int max_num_queued_reqs;       /* 0 = default (4 * max_num_seqs, at least 256) */
    int64_t max_num_queued_tokens; /* 0 = no limit */
    bool no_prefix_caching;        /* compute every prompt from its first token on */
    rt_speculation speculation;    /* only rank 0's counts */
    bool sync_scheduling;          /* plan a step only when the one before is done */
    const char *comm;              /* "auto", "self", "mpi", "shm"; on devices also "nccl", "p2p" */
    /* Of the device's module (kern_module_open), or NULL: sums through the host. */
    const void *reducers;
    const char *comm_table;   /* file for comm_device_use_table(), or NULL: built-in sizes */
    const char *device_name;  /* that the table was measured on; NULL: any */
    int64_t step_timeout_ms;  /* longest time in a step without progress on any rank */
    bool enforce_eager;       /* no graphs of decode steps */
    bool eager_weights;       /* all of them are there before the first request */
    const int *capture_sizes; /* [n_capture_sizes] ascending; NULL: the usual ones */
    int n_capture_sizes;
    bool dummy_weights;
    bool progress;
} rt_engine_options;

typedef enum rt_engine_state {
    RT_ENGINE_LOADING,
    RT_ENGINE_SERVING,
    RT_ENGINE_DRAINING,
    RT_ENGINE_RANK_LOST,
    RT_ENGINE_DEAD
} rt_engine_state;

typedef struct rt_engine_info {
    int64_t max_model_len;
    int32_t vocab; /* rows of the head: largest legal token id + 1 */
    int n_ranks, max_num_seqs, block_tokens;
    int max_open;              /* requests that run or wait at a time */
    int64_t max_queued_tokens; /* tokens of their prompts; 0: no limit */
    int32_t n_blocks;
    kern_dtype dtype;
    const int32_t *eos; /* [n_eos] */
    int n_eos;
    float gen_temperature, gen_top_p, gen_min_p, gen_repetition_penalty; /* < 0 = not given */
    int gen_top_k;
    char fingerprint[48]; /* "fp_<build>_<model hash>_<tp>" */
} rt_engine_info;

/* Collective: loads the model on every rank, and on rank 0 the tokenizer and the template too.  be NULL: this rank could
 * not open its device (and has said so); then every rank fails. */
TP_MUST_USE tp_status rt_engine_create(rt_engine **out, const rt_engine_options *opt,
                                       kern_backend *be, const comm_world *world);
void rt_engine_destroy(rt_engine *e);
comm_group *rt_engine_group(rt_engine *e);
/* Serves until drained or broken; the calling thread becomes the engine thread, and on rank 0 starts the scheduler thread
 * (with sync_scheduling it is both).  COMM, TIMEOUT, DEVICE when the group is lost: the caller ends the job with
 * comm_abort(). */
TP_MUST_USE tp_status rt_engine_run(rt_engine *e);

/* Any thread of rank 0.  New requests are refused from now on; run() returns when the running ones are done or
 * timeout_ms passed (those left end with RT_FINISH_ERROR, code "shutdown").  Calling again shortens the time. */
void rt_engine_drain(rt_engine *e, int64_t timeout_ms);
rt_engine_state rt_engine_get_state(const rt_engine *e); /* an atomic read */

const rt_engine_info *rt_engine_get_info(const rt_engine *e);
const rt_tokenizer *rt_engine_tokenizer(const rt_engine *e);
const rt_template *rt_engine_template(const rt_engine *e); /* NULL: the model has none */
void rt_engine_stats(const rt_engine *e, rt_stats *out);   /* a snapshot; any thread */

/* ---- requests (rank 0, any thread) ---- */
typedef struct rt_sampling {
    float temperature;                                             /* 0 = greedy */
    float top_p;                                                   /* 1 = off */
    float min_p;                                                   /* 0 = off */
    float repetition_penalty, frequency_penalty, presence_penalty; /* 1, 0, 0 = off */
    int32_t top_k;                                                 /* 0 = off */
    int32_t max_tokens, min_tokens;
    int32_t n_logprobs;        /* -1 = none; 0..20 */
    int32_t n_prompt_logprobs; /* -1 = none; 0..20 */
    uint64_t seed;
    bool ignore_eos;
} rt_sampling;

/* Greedy, 16 tokens, everything else off. */
rt_sampling rt_sampling_default(void);

typedef struct rt_request_desc {
    const int32_t *prompt; /* [n_prompt]; 1 .. max_model_len - 1 ids, all < vocab */
    int32_t n_prompt;
    int n; /* choices 1..128; choice i draws with seed + i */
    rt_sampling sampling;
    const int32_t *stop_ids;
    int n_stop_ids;
    const char *const *stop; /* strings, matched across token borders */
    int n_stop;
    bool include_stop;        /* keep the stop string in the text */
    bool skip_special_tokens; /* special tokens add no text */
    const int32_t *bias_ids;
    const float *bias;
    int n_bias;
    const int32_t *allowed; /* NULL = all */
    int n_allowed;
    uint8_t cache_salt
        [RT_CACHE_SALT_BYTES]; /* requests find each other's blocks only when it is the same */
    /* Called by the scheduler when events wait and the reader had emptied the box (or it is half full, when
     * `batched`), and at the end.  Must not block or call back into the engine. */
    void (*notify)(void *ctx);
    void *ctx;
    bool batched; /* the reader wants everything at the end (no stream) */
} rt_request_desc;

/* Copies everything.  Errors (text kept): INVALID, FULL (queue is full: 429), DRAINING, LIMIT (can never fit the KV
 * cache), NOMEM. */
TP_MUST_USE tp_status rt_engine_submit(rt_engine *e, const rt_request_desc *d, rt_request **out);

/* Requests that run or wait; at `limit` submit answers FULL, with `queue` of them waiting at most. */
void rt_engine_queue(const rt_engine *e, int *open, int *limit, int *queue);

typedef enum rt_finish {
    RT_FINISH_NONE = 0,
    RT_FINISH_STOP,   /* eos, stop id or stop string */
    RT_FINISH_LENGTH, /* max_tokens or the context is full */
    RT_FINISH_ABORT,  /* cancelled by the reader */
    RT_FINISH_ERROR   /* see error_code */
} rt_finish;

typedef struct rt_logprob {
    int32_t id;
    float logprob;
} rt_logprob;

typedef enum rt_event_kind {
    RT_EVENT_PROMPT, /* one prompt token's logprobs, in order; only when asked for */
    RT_EVENT_TOKEN,  /* one generated token, and the text that it lets out (maybe none) */
    RT_EVENT_FINISH  /* the choice is over; text holds what was held back */
} rt_event_kind;

typedef struct rt_event {
    rt_event_kind kind;
    int choice;
    int32_t token;         /* PROMPT, TOKEN */
    bool hidden;           /* TOKEN: ends the text and is not part of it (eos, stop id) */
    float logprob;         /* raw distribution; when asked for.  First prompt token: NaN */
    const rt_logprob *top; /* [n_top] best first */
    int n_top;
    const char *text; /* UTF-8, not NUL-terminated */
    size_t text_len;
    rt_finish finish;   /* FINISH */
    int32_t stop_token; /* FINISH by a stop id that is not eos; else -1 */
    int stop_string;    /* FINISH by stop[i]; else -1 */
    int32_t n_cached;   /* tokens of the prompt that were found in the prefix cache */
    const char *
        error_code; /* ERROR: "shutdown", "rank_lost", "engine_dead", "internal_error", "slow_client" */
} rt_event;

/* Next event in order, false when none waits.  Pointers live until the next call.  One reader at a time. */
bool rt_request_next(rt_request *r, rt_event *ev);
/* All choices have delivered their FINISH. */
bool rt_request_done(const rt_request *r);
/* Any thread: hardly anything of RT_OUTBOX_BYTES is left, so no step computes for the request until it is read. */
bool rt_request_held_back(const rt_request *r);
/* The reader has gone: blocks are freed within a step; no further notify after this returns. */
void rt_request_cancel(rt_request *r);
/* The same for whoever holds a lock that notify takes: it may still be called.  The handle must not end meanwhile. */
void rt_request_abandon(rt_request *r);
/* Ends the handle (cancels first when unfinished). */
void rt_request_release(rt_request *r);

#endif
