/* SPDX-License-Identifier: Apache-2.0 */
/* worker_impl.h - what the files of the worker share: its memory, and the batch of one step.
 *
 * What a slot holds lies in the backend's memory: its tokens, its block table, its lists for sampling.  The host keeps
 * lengths, a copy of the block tables (positions become places in the cache here) and of those prompts whose logprobs
 * are wanted.
 */
#ifndef RT_WORKER_IMPL_H
#define RT_WORKER_IMPL_H

#include "runtime/sample/sample.h"
#include "runtime/sched/worker.h"

#define RT_FORBIDDEN_MAX (RT_STOP_IDS_MAX + RT_EOS_MAX)

typedef struct rt_slot {
    bool open;
    rt_slot_params params;
    /* borrowed; memory of the backend */
    int32_t *history;   /* [max_model_len] */
    int32_t *table;     /* [blocks_max] */
    int32_t *bias_ids;  /* [RT_BIAS_MAX] */
    float *bias;        /* [RT_BIAS_MAX] */
    int32_t *allowed;   /* [RT_ALLOWED_MAX] */
    int32_t *forbidden; /* [RT_FORBIDDEN_MAX] */
    /* borrowed; memory of the host */
    int32_t *table_here;  /* [blocks_max] */
    int32_t *prompt_here; /* [max_model_len]; filled when logprobs of the prompt are wanted */
    int32_t n_prompt, n_history, n_table;
    int32_t n_bias, n_allowed, n_forbidden;
    bool has_allowed;
    bool closed;   /* the device decides what is drawn for it */
    bool diverged; /* a row of this step has drawn something else than the draft says */
} rt_slot;

/* The slots' memory of the backend: words, so that one kern_scatter reaches all of it. */
typedef struct rt_words {
    int32_t *history;   /* [n_slots, max_model_len] */
    int32_t *tables;    /* [n_slots, blocks_max] */
    int32_t *bias_ids;  /* [n_slots, RT_BIAS_MAX] */
    float *bias;        /* [n_slots, RT_BIAS_MAX] */
    int32_t *allowed;   /* [n_slots, RT_ALLOWED_MAX] */
    int32_t *forbidden; /* [n_slots, RT_FORBIDDEN_MAX] */
} rt_words;

/* What a step reads.  The updates come first: they have the same places in both layouts. */
typedef struct rt_step_in {
    int32_t *update_at, *update; /* [updates_max] word of the slots' memory, or -1; its new value */
    kern_attn_seq *seqs;         /* [n_slots] */
    int32_t *rows;           /* [tokens] rows of the forward pass that are sampled or looked up */
    int32_t *take;           /* [tokens] word of the slots' memory that holds the id */
    int32_t *pos, *kv_index; /* [tokens] */
} rt_step_in;

/* The step buffer has two layouts over the same memory, so that steps with few tokens copy few bytes. */
typedef struct rt_step_layout {
    rt_step_in here, there; /* the staging copy; memory of the backend */
    size_t bytes;
    int tokens; /* at most */
} rt_step_layout;

/* A step that was issued and not collected. */
typedef struct rt_flight {
    bool closed;
    rt_plan_reader seqs; /* the plan's sequences; of a closed step the plan may be gone */
    int32_t *row_slot;   /* owned; [n_slots] whose tokens the device draws, in plan order */
    int n_rows;
} rt_flight;

struct rt_worker {
    rt_worker_options opt;
    rt_model *model;                     /* borrowed */
    kern_backend *be;                    /* borrowed */
    kern_kv *kv;                         /* borrowed */
    comm_group *group;                   /* borrowed */
    rt_sampler *sampler;                 /* owned */
    int32_t vocab;                       /* prompts hold ids below it */
    int32_t blocks_max;                  /* table entries per slot */
    rt_slot *slots;                      /* owned; [n_slots] */
    int32_t *tables_here, *prompts_here; /* owned; [n_slots, ..] */
    void *memory;                        /* owned; of the backend: words, step, ids, tokens */
    rt_words words;
    char *step_there; /* step buffer */
    int32_t *ids;     /* [max_tokens]; of the backend */
    int32_t *tokens;  /* [n_slots]; of the backend: drawn there */
    char *step_here;  /* owned on a device; else step_there */
    rt_step_layout few, many;
    /* the batch of one step */
    const rt_step_layout *step;
    int n_updates; /* already there for the next step: tokens that the host has drawn */
    bool closed;
    int n_tok, n_seqs, n_decode, n_draft, max_rows, max_ctx;
    int n_wanted, n_flushed;              /* entries of step.rows; those done */
    rt_sample_row *rows;                  /* owned; [RT_LOGIT_ROWS_MAX] */
    int32_t *row_slot;                    /* owned; [RT_LOGIT_ROWS_MAX] */
    int32_t row_draft[RT_LOGIT_ROWS_MAX]; /* what the draft says that the row draws; -1 = nothing */
    int32_t row_word[RT_LOGIT_ROWS_MAX];  /* where the device puts what it draws */
    int n_rows;                           /* waiting in rows */
    rt_step_result *results;              /* owned; [max_tokens + n_slots] */
    int n_results;
    /* steps under way */
    rt_flight flights[RT_WORKER_STEPS]; /* by number of the step */
    uint64_t n_issued, n_collected;
    int32_t *tokens_here; /* owned; [n_slots] */
    /* graphs of decode steps: worker_graph.c */
    int n_graphs;
    int graph_size[RT_CAPTURE_MAX];    /* places, ascending */
    kern_graph *graph[RT_CAPTURE_MAX]; /* owned */
    float *logits; /* of the rows of this step, where a graph has made them; else NULL */
    int64_t logits_ld;
};

/* Entries of the list of updates. */
int rt_worker_updates_max(const rt_worker_options *o);

/* ---- worker.c ---- */
/* Index of a word of the slots' memory. */
int32_t rt_worker_word(const rt_worker *w, const int32_t *p);
/* A word that is to change before the next forward pass. */
void rt_worker_update(rt_worker *w, const int32_t *where, int32_t value);
/* Whether the row of position q->start + i is to be looked up: the logprob of the prompt token behind it. */
bool rt_worker_is_target(const rt_slot *s, const rt_plan_seq *q, int32_t i);

/* ---- worker_rows.c; `at`: which fetch of the backend ---- */
/* Issues the draws of a closed step. */
TP_MUST_USE tp_status rt_worker_draw(rt_worker *w, rt_flight *f, int at);
/* The results of a closed step, when they are there. */
TP_MUST_USE tp_status rt_worker_fetch(rt_worker *w, const rt_flight *f, int at);
/* Samples on the host what the step that was issued last wants, and records the results. */
TP_MUST_USE tp_status rt_worker_sample(rt_worker *w, const rt_flight *f);

/* ---- worker_graph.c ---- */
/* Whether a graph does this step, all of whose sequences have one token; then fills its empty places. */
bool rt_worker_fits_graph(rt_worker *w, int *graph);
TP_MUST_USE tp_status rt_worker_launch_graph(rt_worker *w, int graph);
void rt_worker_destroy_graphs(rt_worker *w);

#endif
