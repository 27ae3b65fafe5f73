/* SPDX-License-Identifier: Apache-2.0 */
/* weights.c - which tensors a decoder has, how they are fused, and which part of each this rank keeps.
 *
 * Column-parallel matrices (q, k, v, gate, up, the vocabulary) keep rows; row-parallel ones (o, down) keep columns.
 * q|k|v and gate|up are stored as one matrix each, so that a step issues one GEMM for them.  A tied head is one
 * packed matrix that serves the embedding too.
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "runtime/model/model_impl.h"

enum { QKV, O, GATE_UP, DOWN, N_MATRICES };

#define PARAMS_PER_LAYER 16

static int64_t qkv_rows(const rt_config *c, const rt_shard *s)
{
    return (int64_t)(s->n_heads_local + 2 * s->n_kv_local) * c->head_dim;
}

static void layer_descs(const rt_config *c, const rt_shard *s, kern_dtype t,
                        kern_weight_desc d[N_MATRICES])
{
    int64_t q = (int64_t)s->n_heads_local * c->head_dim, inter = s->n_inter_local;

    d[QKV] = (kern_weight_desc){.n = qkv_rows(c, s), .k = c->hidden, .dtype = t};
    d[O] = (kern_weight_desc){.n = c->hidden, .k = q, .dtype = t};
    d[GATE_UP] = (kern_weight_desc){.n = 2 * inter, .k = c->hidden, .dtype = t};
    d[DOWN] = (kern_weight_desc){.n = c->hidden, .k = inter, .dtype = t};
}

static kern_weight_desc vocab_desc(const rt_config *c, const rt_shard *s, kern_dtype t,
                                   kern_layout layout)
{
    return (kern_weight_desc){.n = s->n_vocab_local, .k = c->hidden, .dtype = t, .layout = layout};
}

static void place_layer_vectors(rt_layer *l, const rt_config *c, const rt_shard *s, rt_slab *slab)
{
    l->attn_norm = rt_slab_take(slab, c->hidden, sizeof(float));
    l->mlp_norm = rt_slab_take(slab, c->hidden, sizeof(float));
    if (c->qkv_bias)
        l->qkv_bias = rt_slab_take(slab, qkv_rows(c, s), sizeof(float));
    if (c->o_bias)
        l->o_bias = rt_slab_take(slab, c->hidden, sizeof(float));
    if (c->mlp_bias) {
        l->gate_up_bias = rt_slab_take(slab, (int64_t)2 * s->n_inter_local, sizeof(float));
        l->down_bias = rt_slab_take(slab, c->hidden, sizeof(float));
    }
    if (c->qk_norm) {
        l->q_norm = rt_slab_take(slab, c->head_dim, sizeof(float));
        l->k_norm = rt_slab_take(slab, c->head_dim, sizeof(float));
    }
}

/* What one matrix takes: the backend's packing, rounded as the allocator does. */
static size_t taken_bytes(const kern_backend *be, const kern_weight_desc *d)
{
    return tp_aligned_bytes(be->ops->weight_bytes(be, d));
}

int64_t rt_weights_bytes(const rt_config *c, const rt_shard *s, const kern_backend *be,
                         kern_dtype dtype)
{
    kern_weight_desc d[N_MATRICES];
    kern_weight_desc head = vocab_desc(c, s, dtype, KERN_LAYOUT_PACKED);
    kern_weight_desc embed = vocab_desc(c, s, dtype, KERN_LAYOUT_ROWS);
    rt_slab vectors = {0};
    rt_layer layer = {0};
    size_t matrices = 0;

    layer_descs(c, s, dtype, d);
    for (int i = 0; i < N_MATRICES; i++)
        matrices += taken_bytes(be, &d[i]);
    matrices = matrices * (size_t)c->n_layers + taken_bytes(be, &head);
    if (!c->tied)
        matrices += taken_bytes(be, &embed);
    for (int l = 0; l < c->n_layers; l++)
        place_layer_vectors(&layer, c, s, &vectors);
    (void)rt_slab_take(&vectors, c->hidden, sizeof(float));
    return (int64_t)(matrices + vectors.used);
}

static tp_status create_vectors(rt_model *m)
{
    rt_slab slab = {0};

    for (int pass = 0; pass < 2; pass++) {
        slab.used = 0;
        for (int l = 0; l < m->config.n_layers; l++)
            place_layer_vectors(&m->layers[l], &m->config, &m->shard, &slab);
        m->final_norm = rt_slab_take(&slab, m->config.hidden, sizeof(float));
        if (pass == 0) {
            TP_TRY(m->be->ops->alloc(m->be, slab.used, &m->vectors));
            slab.base = m->vectors;
        }
    }
    return TP_OK;
}

tp_status rt_weights_create(rt_model *m)
{
    const kern_ops *ops = m->be->ops;
    kern_dtype dtype = m->options.dtype;
    kern_weight_desc d[N_MATRICES];
    kern_weight_desc head = vocab_desc(&m->config, &m->shard, dtype, KERN_LAYOUT_PACKED);
    kern_weight_desc embed = vocab_desc(&m->config, &m->shard, dtype, KERN_LAYOUT_ROWS);

    m->layers = tp_calloc((size_t)m->config.n_layers, sizeof *m->layers);
    if (m->layers == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "no memory for %d layers", m->config.n_layers);
    TP_TRY(create_vectors(m));
    layer_descs(&m->config, &m->shard, dtype, d);
    for (int i = 0; i < m->config.n_layers; i++) {
        rt_layer *l = &m->layers[i];

        TP_TRY(ops->weight_create(m->be, &d[QKV], &l->qkv));
        TP_TRY(ops->weight_create(m->be, &d[O], &l->o));
        TP_TRY(ops->weight_create(m->be, &d[GATE_UP], &l->gate_up));
        TP_TRY(ops->weight_create(m->be, &d[DOWN], &l->down));
    }
    TP_TRY(ops->weight_create(m->be, &head, &m->head));
    if (m->config.tied)
        m->embed = m->head;
    else
        TP_TRY(ops->weight_create(m->be, &embed, &m->embed));
    return TP_OK;
}

static void destroy_weight(rt_model *m, kern_weight *w)
{
    if (w != NULL)
        m->be->ops->weight_destroy(m->be, w);
}

void rt_weights_destroy(rt_model *m)
{
    for (int i = 0; m->layers != NULL && i < m->config.n_layers; i++) {
        destroy_weight(m, m->layers[i].qkv);
        destroy_weight(m, m->layers[i].o);
        destroy_weight(m, m->layers[i].gate_up);
        destroy_weight(m, m->layers[i].down);
    }
    if (m->embed != m->head)
        destroy_weight(m, m->embed);
    destroy_weight(m, m->head);
    tp_free(m->layers);
    if (m->vectors != NULL)
        m->be->ops->free(m->be, m->vectors);
}

/* ---- the list of parameters ---- */

typedef struct param_list {
    rt_param *params;
    int n;
    int layer; /* names are "layers.<layer>.<suffix>"; -1 = as they stand */
} param_list;

static rt_param *add(param_list *list, const char *suffix)
{
    rt_param *p = &list->params[list->n++];

    memset(p, 0, sizeof *p);
    if (list->layer < 0)
        (void)snprintf(p->name, sizeof p->name, "%s", suffix);
    else
        (void)snprintf(p->name, sizeof p->name, "layers.%d.%s", list->layer, suffix);
    return p;
}

/* Rows [first, first + n) of a matrix [rows, cols] become rows dst.. of w. */
static void add_rows(param_list *list, const char *suffix, const int64_t shape[2], int64_t first,
                     int64_t n, kern_weight *w, int64_t dst)
{
    rt_param *p = add(list, suffix);

    p->rows = shape[0];
    p->cols = p->n_cols = shape[1];
    p->row_first = first;
    p->n_rows = n;
    p->weight = w;
    p->dst_row = dst;
}

/* Columns [first, first + n) of a matrix [rows, cols] become w. */
static void add_cols(param_list *list, const char *suffix, int64_t rows, int64_t cols,
                     int64_t first, int64_t n, kern_weight *w)
{
    rt_param *p = add(list, suffix);

    p->rows = p->n_rows = rows;
    p->cols = cols;
    p->col_first = first;
    p->n_cols = n;
    p->weight = w;
}

/* Elements [first, first + n) of a vector of len go to dst. */
static void add_vector(param_list *list, const char *suffix, int64_t len, int64_t first, int64_t n,
                       float *dst)
{
    rt_param *p = add(list, suffix);

    p->rows = len;
    p->row_first = first;
    p->n_rows = n;
    p->vector = dst;
}

static void add_attention(param_list *list, const rt_model *m, const rt_layer *l)
{
    const rt_config *c = &m->config;
    const rt_shard *s = &m->shard;
    int64_t d = c->head_dim, h = c->hidden;
    int64_t nq = s->n_heads_local * d, nkv = s->n_kv_local * d;
    int64_t q0 = s->head_first * d, kv0 = s->kv_first * d;
    int64_t q_all = c->n_heads * d, kv_all = c->n_kv_heads * d;

    add_vector(list, "input_layernorm.weight", h, 0, h, l->attn_norm);
    add_rows(list, "self_attn.q_proj.weight", (int64_t[]){q_all, h}, q0, nq, l->qkv, 0);
    add_rows(list, "self_attn.k_proj.weight", (int64_t[]){kv_all, h}, kv0, nkv, l->qkv, nq);
    add_rows(list, "self_attn.v_proj.weight", (int64_t[]){kv_all, h}, kv0, nkv, l->qkv, nq + nkv);
    if (c->qkv_bias) {
        add_vector(list, "self_attn.q_proj.bias", q_all, q0, nq, l->qkv_bias);
        add_vector(list, "self_attn.k_proj.bias", kv_all, kv0, nkv, l->qkv_bias + nq);
        add_vector(list, "self_attn.v_proj.bias", kv_all, kv0, nkv, l->qkv_bias + nq + nkv);
    }
    if (c->qk_norm) {
        add_vector(list, "self_attn.q_norm.weight", d, 0, d, l->q_norm);
        add_vector(list, "self_attn.k_norm.weight", d, 0, d, l->k_norm);
    }
    add_cols(list, "self_attn.o_proj.weight", h, q_all, q0, nq, l->o);
    if (c->o_bias)
        add_vector(list, "self_attn.o_proj.bias", h, 0, h, l->o_bias);
}

static void add_mlp(param_list *list, const rt_model *m, const rt_layer *l)
{
    const rt_config *c = &m->config;
    int64_t h = c->hidden, all = c->intermediate;
    int64_t first = m->shard.inter_first, n = m->shard.n_inter_local;

    add_vector(list, "post_attention_layernorm.weight", h, 0, h, l->mlp_norm);
    add_rows(list, "mlp.gate_proj.weight", (int64_t[]){all, h}, first, n, l->gate_up, 0);
    add_rows(list, "mlp.up_proj.weight", (int64_t[]){all, h}, first, n, l->gate_up, n);
    add_cols(list, "mlp.down_proj.weight", h, all, first, n, l->down);
    if (c->mlp_bias) {
        add_vector(list, "mlp.gate_proj.bias", all, first, n, l->gate_up_bias);
        add_vector(list, "mlp.up_proj.bias", all, first, n, l->gate_up_bias + n);
        add_vector(list, "mlp.down_proj.bias", h, 0, h, l->down_bias);
    }
}

tp_status rt_weights_params(const rt_model *m, rt_param **out, int *n)
{
    const rt_config *c = &m->config;
    const rt_shard *s = &m->shard;
    param_list list = {.layer = -1};
    int64_t vocab[2] = {c->vocab, c->hidden};

    list.params = tp_calloc((size_t)c->n_layers * PARAMS_PER_LAYER + 3, sizeof *list.params);
    if (list.params == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "no memory for the list of parameters");
    add_rows(&list, "embed_tokens.weight", vocab, s->vocab_first, s->n_vocab_local, m->embed, 0);
    for (list.layer = 0; list.layer < c->n_layers; list.layer++) {
        add_attention(&list, m, &m->layers[list.layer]);
        add_mlp(&list, m, &m->layers[list.layer]);
    }
    list.layer = -1;
    add_vector(&list, "norm.weight", c->hidden, 0, c->hidden, m->final_norm);
    if (!c->tied)
        add_rows(&list, "lm_head.weight", vocab, s->vocab_first, s->n_vocab_local, m->head, 0);
    *out = list.params;
    *n = list.n;
    return TP_OK;
}
