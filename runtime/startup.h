/* SPDX-License-Identifier: Apache-2.0 */
/* startup.h - what the ranks agree on before anything is loaded: the settled options, and the memory they take.
 * Threads: engine thread, at start. */
#ifndef RT_STARTUP_H
#define RT_STARTUP_H

#include "runtime/engine.h"
#include "runtime/model/model.h"
#include "runtime/sched/worker.h"

/* Every choice made, the same on all ranks: rank 0 decides and broadcasts.  Plain data. */
typedef struct rt_settled {
    char model_dir[4096]; /* rank 0's path: it must lead to the same files on every host */
    rt_config config;
    kern_dtype dtype;
    int64_t max_model_len;
    bool max_model_len_given;
    int max_num_seqs, max_num_batched_tokens, block_tokens;
    int64_t kv_bytes; /* per rank; 0 = the default share */
    double memory_share, watermark;
    int64_t step_timeout_ms;
    int max_queued_reqs;
    int64_t max_queued_tokens;
    bool dummy_weights, lazy_weights;
    rt_speculation speculation;
    bool ahead;    /* steps may be issued ahead of results */
    int n_capture; /* decode steps that get a graph, as in rt_worker_options */
    int capture[RT_CAPTURE_MAX];
    int32_t n_blocks; /* after rt_settle_memory */
} rt_settled;

/* Rank 0 reads the config and fills in defaults; all ranks receive the outcome, or all fail.  be NULL: this rank could
 * not open one, and said why. */
TP_MUST_USE tp_status rt_settle(rt_settled *out, const rt_engine_options *opt,
                                const comm_world *world, const kern_backend *be);
/* Reducers for a group whose ranks have devices (comm_attach_device); nothing on CPU. */
TP_MUST_USE tp_status rt_attach_device(comm_group *g, kern_backend *be, const char *want,
                                       const void *reducers);
/* The group of the steps; where the backend is a device, its sums run there. */
TP_MUST_USE tp_status rt_create_group(comm_group **out, const rt_settled *s,
                                      const rt_engine_options *opt, const comm_world *world,
                                      kern_backend *be);

typedef struct rt_budget {
    int64_t weights, workspace, tables, comm, kv; /* bytes */
    int64_t kv_per_block, n_blocks;               /* n_blocks: what this rank alone could hold */
    int64_t available; /* of a device, before anything of this was taken */
} rt_budget;

/* Plans this rank's memory, agrees on the number of blocks (the smallest of all ranks), fits max_model_len into it, and
 * prints the table on rank 0.  INVALID when it cannot fit. */
TP_MUST_USE tp_status rt_settle_memory(rt_settled *s, const rt_shard *shard, kern_backend *be,
                                       comm_group *g, int local_size, rt_budget *out);
/* When all is taken: whether a device has lost what was planned.  A difference is a warning. */
void rt_compare_memory(const rt_budget *b, kern_backend *be, const comm_group *g);
/* Bytes of the largest step plan. */
size_t rt_plan_bytes_max(const rt_settled *s);
/* The options that the model's loader takes. */
rt_model_options rt_model_options_of(const rt_settled *s, bool progress);

/* True on every rank when `st` is TP_OK on every rank; else an error on all (COMM where the own status was fine). */
TP_MUST_USE tp_status rt_settle_agree(comm_group *g, tp_status st, const char *what);

#endif
