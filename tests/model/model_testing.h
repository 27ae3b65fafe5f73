/* SPDX-License-Identifier: Apache-2.0 */
/* model_testing.h - a model with a KV cache filled by hand, for tests: feed tokens, get whole rows of logits. */
#ifndef TP_TESTS_MODEL_TESTING_H
#define TP_TESTS_MODEL_TESTING_H

#include "runtime/model/model.h"

#define TM_TOKENS 256 /* most tokens of one step, and of one sequence */
#define TM_BLOCK  16
#define TM_SEQS   16

/* What transformers computed (make_goldens.py). */
typedef struct tm_golden {
    char dir[512];
    int n_prompt, n_ids, vocab;
    int32_t *ids;  /* [n_ids] prompt, then greedy choices */
    float *logits; /* [n_ids, vocab] */
} tm_golden;

/* Under the folder that TPSERVE_GOLDENS of the build names.  Aborts the program when it cannot be read. */
void tm_golden_read(tm_golden *g, const char *trait);
void tm_golden_free(tm_golden *g);
extern const char *const tm_traits[];
extern const int tm_n_traits;

typedef struct tm_stage tm_stage;

typedef struct tm_model {
    rt_config config;
    rt_shard shard;
    kern_backend *be;
    bool owns_backend;
    comm_group *group;
    rt_model *model;
    kern_kv *kv;
    tm_stage *stage; /* memory of the backend: what a step reads */
    float *gather;   /* [n_ranks, RT_LOGIT_ROWS_MAX, most vocabulary rows of a rank] */
    int vocab_most;
} tm_model;

typedef struct tm_options {
    const char *dir;
    kern_dtype dtype;
    const kern_ops *ops;
    const char *isa;   /* NULL: best */
    kern_backend *be;  /* instead of ops: one that is open */
    comm_group *group; /* of this rank */
    int n_threads;     /* 0: one */
    bool dummy;        /* random weights instead of the checkpoint's */
    bool lazy;         /* matrices may come in later */
} tm_options;

/* All collective.  A failure comes back on every rank. */
TP_MUST_USE tp_status tm_open(tm_model *m, const tm_options *o);
void tm_close(tm_model *m);

/* Part of a sequence: ids[0..n) at positions pos.. of sequence `seq`. */
typedef struct tm_part {
    int seq, pos, n;
    const int32_t *ids;
    float *logits; /* [n, vocab] or NULL: filled on every rank */
} tm_part;

/* One forward pass over the parts, and the logits of all their rows. */
TP_MUST_USE tp_status tm_step(tm_model *m, const tm_part *parts, int n_parts);
/* A whole sequence in steps of `chunk` tokens; logits [n, vocab]. */
TP_MUST_USE tp_status tm_logits(tm_model *m, const int32_t *ids, int n, int chunk, float *logits);
/* Logits of n rows of the last step, this rank's part: memory of the backend. */
TP_MUST_USE tp_status tm_head(tm_model *m, const int32_t *rows, int n, float **logits, int64_t *ld);
int32_t tm_argmax(const float *row, int n);

/* Instruction sets of the CPU backend in ascending order; NULL-terminated. */
extern const char *const tm_isas[];

#endif
