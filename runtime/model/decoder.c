/* SPDX-License-Identifier: Apache-2.0 */
/* decoder.c - the transformer, once, in the order of the paper.
 *
 *   x = E[token]
 *   for every layer:   x += Attention(RMSNorm(x))     x += W_down (silu(W_gate h) * (W_up h)),  h = RMSNorm(x)
 *   logits = W_head RMSNorm(x)
 *
 * Every rank holds some heads, some intermediate columns and some of the vocabulary.  q|k|v and gate|up are
 * column-parallel: a rank computes whole outputs of its own.  o and down are row-parallel: each rank has a part of the
 * sum over K, and comm_reduce finishes it in the order of base/segtree.h, so x is the same bits on every rank and at
 * every number of ranks.  Two reduces per layer and one for the embedding are all that travels.
 *
 * A block does not add its result to x itself: it leaves it in `sum`, and the RMSNorm that follows adds it on the way.
 * Devices may have one kernel for the reduce and that RMSNorm, so a block leaves its part of the sum even before the
 * reduce, and who comes next finishes it.
 */
#include "comm/device.h"
#include "runtime/model/model_impl.h"

/* x[tok] = E[ids[tok]].  A token's row lives on one rank; all others contribute zeros, and x + 0 is exact.  A rank with
 * several roots (base/segtree.h) puts its rows in the first; the ids of the rest are nobody's. */
static tp_status embed(rt_model *m, const rt_batch *b)
{
    const rt_work *w = &m->work;
    int64_t n = (int64_t)b->n_tok * m->config.hidden;
    bool alone = m->shard.n_ranks == 1;
    float *rows = alone ? w->x : comm_window(m->group);
    kern_embed_args a = {.out = rows,
                         .table = m->embed,
                         .ids = b->ids,
                         .m = b->n_tok,
                         .vocab_first = m->shard.vocab_first};

    TP_TRY(kern_embed(m->be, &a));
    if (alone)
        return TP_OK;
    a.out = rows + n;
    a.ids = w->nobody;
    a.m = b->n_tok * (m->n_roots - 1);
    if (a.m > 0)
        TP_TRY(kern_embed(m->be, &a));
    return comm_reduce(
        m->group,
        &(comm_reduce_args){.n_seg = m->shard.n_seg, .roots = rows, .out = w->x, .count = n});
}

/* sum = what the last block left, of all ranks. */
static tp_status finish_sum(rt_model *m, int n_tok)
{
    const float *roots = m->roots;

    if (roots == NULL)
        return TP_OK;
    m->roots = NULL;
    return comm_reduce(m->group, &(comm_reduce_args){.n_seg = m->shard.n_seg,
                                                     .roots = roots,
                                                     .out = m->work.sum,
                                                     .count = (int64_t)n_tok * m->config.hidden});
}

/* act = RMSNorm(x), after x += what the last block left, where there was one. */
static tp_status norm(rt_model *m, bool first, const float *weight, int n_tok)
{
    const float *roots = m->roots;
    kern_rmsnorm_args a = {.out = m->work.act,
                           .residual = m->work.x,
                           .add = first ? NULL : m->work.sum,
                           .weight = weight,
                           .m = n_tok,
                           .dim = m->config.hidden,
                           .eps = m->config.norm_eps,
                           .out_dtype = m->act_dtype};

    if (roots != NULL && comm_device_fuses_norm(m->group, n_tok, a.dim)) {
        m->roots = NULL;
        return comm_device_reduce_norm(m->group, roots, n_tok, a.dim, &a);
    }
    TP_TRY(finish_sum(m, n_tok));
    return kern_rmsnorm(m->be, &a);
}

/* wide = act * W^T + bias: this rank's columns of the output. */
static tp_status column_parallel(rt_model *m, const kern_weight *weight, const float *bias,
                                 int n_tok)
{
    return kern_gemm(m->be, &(kern_gemm_args){.out = m->work.wide,
                                              .in = m->work.act,
                                              .w = weight,
                                              .bias = bias,
                                              .m = n_tok,
                                              .scratch = m->work.gemm_scratch});
}

/* sum += bias on every row: once, after the reduce.  The operations have no such addition of their own, as only a few
 * Llamas have these biases; RMSNorm adds rows to a residual, and its output is not wanted. */
static tp_status add_bias(rt_model *m, const float *bias, int n_tok)
{
    const rt_work *w = &m->work;

    TP_TRY(kern_gather(
        m->be,
        &(kern_gather_args){
            .out = w->wide, .in = bias, .idx = w->zeros, .n = n_tok, .dim = m->config.hidden}));
    return kern_rmsnorm(m->be, &(kern_rmsnorm_args){.out = w->act,
                                                    .residual = w->sum,
                                                    .add = w->wide,
                                                    .weight = bias,
                                                    .m = n_tok,
                                                    .dim = m->config.hidden,
                                                    .eps = 1,
                                                    .out_dtype = m->act_dtype});
}

/* sum = act * W^T + bias, where every rank has some of the columns of W; finish_sum() or norm() is yet to come. */
static tp_status row_parallel(rt_model *m, const kern_weight *weight, const kern_ksplit *split,
                              const float *bias, int n_tok)
{
    const rt_work *w = &m->work;
    bool alone = m->shard.n_ranks == 1;
    float *roots = alone ? w->sum : comm_window(m->group); /* [n_roots, n_tok, hidden] */

    TP_TRY(kern_gemm(m->be, &(kern_gemm_args){.out = roots,
                                              .in = w->act,
                                              .w = weight,
                                              .m = n_tok,
                                              .split = split,
                                              .scratch = w->gemm_scratch}));
    m->roots = alone ? NULL : roots;
    if (bias == NULL)
        return TP_OK;
    TP_TRY(finish_sum(m, n_tok));
    return add_bias(m, bias, n_tok);
}

static tp_status attention(rt_model *m, kern_kv *kv, const rt_batch *b, int layer)
{
    const rt_config *c = &m->config;
    const rt_shard *s = &m->shard;
    const rt_layer *l = &m->layers[layer];
    const rt_work *w = &m->work;

    TP_TRY(norm(m, layer == 0, l->attn_norm, b->n_tok));
    TP_TRY(column_parallel(m, l->qkv, l->qkv_bias, b->n_tok));
    TP_TRY(kern_qkv(m->be, &(kern_qkv_args){.qkv = w->wide,
                                            .cos_sin = w->cos_sin,
                                            .q_norm = l->q_norm,
                                            .k_norm = l->k_norm,
                                            .norm_eps = c->norm_eps,
                                            .m = b->n_tok,
                                            .n_q = s->n_heads_local,
                                            .n_kv = s->n_kv_local,
                                            .head_dim = c->head_dim,
                                            .n_freq = m->n_freq,
                                            .kv = kv,
                                            .layer = layer,
                                            .kv_index = b->kv_index}));
    TP_TRY(kern_attn(
        m->be,
        &(kern_attn_args){.out = w->act,
                          .q = w->wide,
                          .q_stride = (int64_t)(s->n_heads_local + 2 * s->n_kv_local) * c->head_dim,
                          .kv = kv,
                          .layer = layer,
                          .seqs = b->seqs,
                          .block_tables = b->block_tables,
                          .kv_of_q = w->kv_of_q,
                          .n_seqs = b->n_seqs,
                          .n_decode = b->n_decode,
                          .max_rows = b->max_rows,
                          .max_ctx = b->max_ctx,
                          .n_q = s->n_heads_local,
                          .head_dim = c->head_dim,
                          .scale = m->attn_scale,
                          .window = rt_config_layer_sliding(c, layer) ? c->sliding_window : 0,
                          .out_dtype = m->act_dtype,
                          .scratch = w->attn_scratch}));
    return row_parallel(m, l->o, &s->split_o, l->o_bias, b->n_tok);
}

static tp_status mlp(rt_model *m, const rt_batch *b, int layer)
{
    const rt_layer *l = &m->layers[layer];
    const rt_work *w = &m->work;

    TP_TRY(norm(m, false, l->mlp_norm, b->n_tok));
    TP_TRY(column_parallel(m, l->gate_up, l->gate_up_bias, b->n_tok));
    TP_TRY(kern_silu_mul(m->be, &(kern_silu_mul_args){.out = w->act,
                                                      .in = w->wide,
                                                      .m = b->n_tok,
                                                      .n = m->shard.n_inter_local,
                                                      .out_dtype = m->act_dtype}));
    return row_parallel(m, l->down, &m->shard.split_down, l->down_bias, b->n_tok);
}

tp_status rt_model_forward(rt_model *m, kern_kv *kv, const rt_batch *b)
{
    TP_ASSERT(b->n_tok >= 1 && b->n_tok <= m->options.max_tokens_per_step);
    m->roots = NULL; /* of a step that failed */
    if (m->late != NULL)
        TP_TRY(rt_load_step(m));
    TP_TRY(embed(m, b));
    TP_TRY(kern_rope_table(m->be, &(kern_rope_table_args){.cos_sin = m->work.cos_sin,
                                                          .pos = b->pos,
                                                          .inv_freq = m->work.inv_freq,
                                                          .m = b->n_tok,
                                                          .n_freq = m->n_freq,
                                                          .amplitude = m->rope_amplitude}));
    for (int layer = 0; layer < m->config.n_layers; layer++) {
        TP_TRY(attention(m, kv, b, layer));
        TP_TRY(mlp(m, b, layer));
    }
    m->n_tok = b->n_tok;
    return finish_sum(m, b->n_tok);
}

/* Works on copies of the rows, so it may be called again for others. */
tp_status rt_model_logits(rt_model *m, const int32_t *rows, int n, float **logits, int64_t *ld)
{
    const rt_work *w = &m->work;
    int dim = m->config.hidden;

    TP_ASSERT(n >= 1 && n <= RT_LOGIT_ROWS_MAX);
    TP_TRY(kern_gather(
        m->be, &(kern_gather_args){.out = w->row_x, .in = w->x, .idx = rows, .n = n, .dim = dim}));
    TP_TRY(kern_gather(
        m->be,
        &(kern_gather_args){.out = w->row_sum, .in = w->sum, .idx = rows, .n = n, .dim = dim}));
    TP_TRY(kern_rmsnorm(m->be, &(kern_rmsnorm_args){.out = w->act,
                                                    .residual = w->row_x,
                                                    .add = w->row_sum,
                                                    .weight = m->final_norm,
                                                    .m = n,
                                                    .dim = dim,
                                                    .eps = m->config.norm_eps,
                                                    .out_dtype = m->act_dtype}));
    TP_TRY(kern_gemm(
        m->be,
        &(kern_gemm_args){
            .out = w->logits, .in = w->act, .w = m->head, .m = n, .scratch = w->gemm_scratch}));
    rt_model_last_logits(m, logits, ld);
    return TP_OK;
}

void rt_model_last_logits(const rt_model *m, float **logits, int64_t *ld)
{
    *logits = m->work.logits;
    *ld = m->shard.n_vocab_local;
}

static tp_status tune(rt_model *m, const kern_weight *weight, float *out, int n_tok)
{
    return m->be->ops->gemm_tune(m->be, &(kern_gemm_args){.out = out,
                                                          .in = m->work.act,
                                                          .w = weight,
                                                          .m = n_tok,
                                                          .scratch = m->work.gemm_scratch});
}

/* All layers have the same shapes. */
tp_status rt_model_tune(rt_model *m, int n_tok)
{
    const rt_layer *l = &m->layers[0];
    const rt_work *w = &m->work;

    if (m->be->ops->gemm_tune == NULL)
        return TP_OK;
    TP_TRY(tune(m, l->qkv, w->wide, n_tok));
    TP_TRY(tune(m, l->o, w->sum, n_tok));
    TP_TRY(tune(m, l->gate_up, w->wide, n_tok));
    TP_TRY(tune(m, l->down, w->sum, n_tok));
    return tune(m, m->head, w->logits, n_tok < RT_LOGIT_ROWS_MAX ? n_tok : RT_LOGIT_ROWS_MAX);
}
