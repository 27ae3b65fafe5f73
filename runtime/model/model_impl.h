/* SPDX-License-Identifier: Apache-2.0 */
/* model_impl.h - what the files of runtime/model share: the loaded model and the list of its parameters. */
#ifndef RT_MODEL_IMPL_H
#define RT_MODEL_IMPL_H

#include "runtime/model/model.h"
#include "runtime/slab.h"

/* Weights of one layer, this rank's part.  Vectors are float; NULL = this architecture has none. */
typedef struct rt_layer {
    kern_weight *qkv; /* [(n_heads_local + 2 * n_kv_local) * head_dim, hidden]: q, then k, then v */
    kern_weight *o;   /* [hidden, n_heads_local * head_dim] */
    kern_weight *gate_up;           /* [2 * n_inter_local, hidden]: gate, then up */
    kern_weight *down;              /* [hidden, n_inter_local] */
    float *attn_norm, *mlp_norm;    /* [hidden] */
    float *qkv_bias, *gate_up_bias; /* [rows of the matrix] */
    float *o_bias, *down_bias;      /* [hidden]; whole on every rank */
    float *q_norm, *k_norm;         /* [head_dim] */
} rt_layer;

/* Buffers of one step; m = max_tokens_per_step rows.  Taken once at load. */
typedef struct rt_work {
    float *x;               /* [m, hidden] residual stream */
    float *sum;             /* [m, hidden] what the last block left to be added to x */
    void *act;              /* [m, widest GEMM input] of the activation dtype */
    float *wide;            /* [m, widest column-parallel GEMM output] */
    float *cos_sin;         /* [m, n_freq, 2] */
    int32_t *nobody;        /* [n_roots - 1, m] of -1 */
    int32_t *zeros;         /* [max(m, RT_LOGIT_ROWS_MAX)] of 0 */
    int32_t *kv_of_q;       /* [n_heads_local] */
    float *inv_freq;        /* [n_freq] */
    float *row_x, *row_sum; /* [RT_LOGIT_ROWS_MAX, hidden] rows that logits are asked for */
    float *logits;          /* [RT_LOGIT_ROWS_MAX, n_vocab_local] */
    void *gemm_scratch, *attn_scratch;
} rt_work;

struct rt_model {
    rt_config config;
    rt_shard shard;
    rt_model_options options; /* dir is not kept */
    kern_backend *be;         /* borrowed */
    comm_group *group;        /* borrowed */
    kern_dtype act_dtype;
    int n_roots; /* of this rank's run of segments */
    int n_freq;
    float rope_amplitude;
    float attn_scale;   /* head_dim^-0.5 */
    rt_layer *layers;   /* owned; [n_layers] */
    kern_weight *embed; /* owned; [n_vocab_local, hidden] */
    kern_weight *head;  /* owned; the same as embed when the config says tied */
    float *final_norm;  /* [hidden] */
    void *vectors;      /* owned; all float vectors */
    void *workspace;    /* owned; all of work */
    rt_work work;
    int n_tok; /* rows of the last forward */
    const float *
        roots; /* this rank's part of what belongs into work.sum, as long as the ranks have not summed it */
    struct rt_loader *late; /* owned; what is still being loaded; NULL when nothing is */
    int64_t load_bytes;
    double load_seconds;
};

/* One tensor of the checkpoint, which part of it this rank keeps, and where that goes. */
typedef struct rt_param {
    char name[96];             /* without the "model." prefix, except for lm_head */
    int64_t rows, cols;        /* shape in the checkpoint; cols 0 = one dimension */
    int64_t row_first, n_rows; /* kept */
    int64_t col_first, n_cols; /* kept; of a matrix */
    kern_weight *weight;       /* target: rows dst_row.. */
    float *vector;             /* or this vector, from its start */
    int64_t dst_row;
} rt_param;

/* weights.c */
/* Bytes of all matrices in the backend's packing plus the float vectors. */
int64_t rt_weights_bytes(const rt_config *c, const rt_shard *s, const kern_backend *be,
                         kern_dtype dtype);
TP_MUST_USE tp_status rt_weights_create(rt_model *m);
void rt_weights_destroy(rt_model *m);
/* Every parameter of this rank; *out is freed with tp_free. */
TP_MUST_USE tp_status rt_weights_params(const rt_model *m, rt_param **out, int *n);

/* loader.c */
/* Fills every parameter from `dir` (or with noise).  Collective.  Takes params (tp_malloc).  With options.lazy_weights
 * and a checkpoint in the page cache, matrices may still be on their way: m->late is then set. */
TP_MUST_USE tp_status rt_load_params(rt_model *m, const char *dir, rt_param *params, int n);
/* Before each step of a model with m->late: lets the loading go on, or ends it when all is there. */
TP_MUST_USE tp_status rt_load_step(rt_model *m);
/* Ends the loading, done or not; NULL m->late is fine. */
void rt_load_stop(rt_model *m);

/* model.c */
/* The ranks tell each other how they fared: TP_OK only if all did well.  The first failing rank logs its cause, unless
 * `logged` says that this was done where it failed. */
TP_MUST_USE tp_status rt_agree(comm_group *g, tp_status mine, bool logged);

#endif
