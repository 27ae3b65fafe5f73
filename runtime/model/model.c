/* SPDX-License-Identifier: Apache-2.0 */
/* model.c - life of a model: its memory plan, loading on all ranks together, and the end.
 *
 * Everything that a step needs is taken here; the decoder allocates nothing.  The plan and the loading walk the same
 * lists (place_workspace, rt_weights_*), so the printed plan is what is taken.
 */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "runtime/model/model_impl.h"
#include "runtime/model/rope.h"

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Widest input of a GEMM of a layer: hidden, heads, or intermediate columns. */
static int64_t act_width(const rt_config *c, const rt_shard *s)
{
    return max64(c->hidden, max64((int64_t)s->n_heads_local * c->head_dim, s->n_inter_local));
}

/* Widest output of a column-parallel GEMM of a layer, or a row of biases. */
static int64_t wide_width(const rt_config *c, const rt_shard *s)
{
    int64_t qkv = (int64_t)(s->n_heads_local + 2 * s->n_kv_local) * c->head_dim;

    return max64(max64(qkv, (int64_t)2 * s->n_inter_local),
                 c->o_bias || c->mlp_bias ? c->hidden : 0);
}

/* Roots that this rank sends to a reduce; a backend that keeps no tree has one. */
static int count_roots(const rt_shard *s, const kern_backend *be)
{
    tp_seg_node roots[TP_SEG_ROOTS_MAX];

    return be->tree ? tp_seg_roots(s->split_o.seg_first, s->split_o.n_seg, roots) : 1;
}

static void place_workspace(rt_work *w, const rt_config *c, const rt_shard *s,
                            const kern_backend *be, const rt_model_options *o, rt_slab *slab)
{
    int64_t m = o->max_tokens_per_step, h = c->hidden, rows = RT_LOGIT_ROWS_MAX;
    int64_t n_freq = rt_rope_dims(c) / 2, most = max64(m, rows);
    size_t act = kern_dtype_bytes(kern_act_dtype(be, o->dtype));
    int64_t n_max = max64(max64(wide_width(c, s), h), s->n_vocab_local);

    w->x = rt_slab_take(slab, m * h, sizeof(float));
    w->sum = rt_slab_take(slab, m * h, sizeof(float));
    w->act = rt_slab_take(slab, max64(m * act_width(c, s), rows * h), act);
    w->wide = rt_slab_take(slab, m * wide_width(c, s), sizeof(float));
    w->cos_sin = rt_slab_take(slab, m * n_freq * 2, sizeof(float));
    w->nobody = rt_slab_take(slab, m * (count_roots(s, be) - 1), sizeof(int32_t));
    w->zeros = rt_slab_take(slab, most, sizeof(int32_t));
    w->kv_of_q = rt_slab_take(slab, s->n_heads_local, sizeof(int32_t));
    w->inv_freq = rt_slab_take(slab, n_freq, sizeof(float));
    w->row_x = rt_slab_take(slab, rows * h, sizeof(float));
    w->row_sum = rt_slab_take(slab, rows * h, sizeof(float));
    w->logits = rt_slab_take(slab, rows * s->n_vocab_local, sizeof(float));
    w->gemm_scratch = rt_slab_take(
        slab, (int64_t)be->ops->gemm_scratch_bytes(be, (int)most, n_max, act_width(c, s)), 1);
    w->attn_scratch = rt_slab_take(
        slab,
        (int64_t)be->ops->attn_scratch_bytes(be, s->n_heads_local, c->head_dim, o->max_model_len,
                                             o->max_seqs > 0 ? o->max_seqs : (int)m),
        1);
}

tp_status rt_model_memory(rt_memory_plan *out, const rt_config *c, const rt_shard *s,
                          const kern_backend *be, const rt_model_options *o)
{
    kern_kv_desc kv = {.n_layers = c->n_layers,
                       .n_kv = s->n_kv_local,
                       .head_dim = c->head_dim,
                       .block_tokens = o->block_tokens,
                       .n_blocks = 1,
                       .dtype = o->dtype};
    rt_slab slab = {0};
    rt_work work;

    if (o->max_tokens_per_step < 1 || o->max_model_len < 1 || o->max_model_len > INT32_MAX)
        return TP_FAIL(TP_ERR_INVALID,
                       "%d tokens per step and a model length of %" PRId64 ": expected 1 and more",
                       o->max_tokens_per_step, o->max_model_len);
    place_workspace(&work, c, s, be, o, &slab);
    out->weights = rt_weights_bytes(c, s, be, o->dtype);
    out->workspace = (int64_t)slab.used;
    out->kv_per_block = (int64_t)be->ops->kv_block_bytes(be, &kv);
    return TP_OK;
}

size_t rt_model_window_bytes(const rt_config *c, int n_ranks, int max_tokens_per_step)
{
    int n_seg = tp_seg_count(n_ranks), most = 1;

    for (int rank = 0; rank < n_ranks; rank++) {
        tp_seg_node roots[TP_SEG_ROOTS_MAX];
        int first, n, n_roots;

        tp_seg_run(n_seg, n_ranks, rank, &first, &n);
        n_roots = tp_seg_roots(first, n, roots);
        most = n_roots > most ? n_roots : most;
    }
    return (size_t)most * (size_t)max_tokens_per_step * (size_t)c->hidden * sizeof(float);
}

tp_status rt_agree(comm_group *g, tp_status mine, bool logged)
{
    int32_t status = mine, all[TP_SEG_MAX] = {0};

    TP_TRY(comm_allgather(g, &status, all, sizeof status));
    for (int rank = 0; rank < comm_size(g); rank++) {
        if (all[rank] == TP_OK)
            continue;
        if (rank == comm_rank(g) && !logged)
            tp_error("model", "%s", tp_last_error());
        if (mine != TP_OK)
            return mine;
        return TP_REJECT(TP_ERR_COMM, "rank %d could not load its part of the model (%s)", rank,
                         tp_status_name((tp_status)all[rank]));
    }
    return TP_OK;
}

static tp_status put_frequencies(rt_model *m)
{
    double freq[256], amplitude; /* head_dim <= 512 */
    float inv_freq[256];

    TP_ASSERT(m->n_freq <= (int)TP_ARRAY_LEN(freq));
    rt_rope_freqs(&m->config, freq, &amplitude);
    for (int i = 0; i < m->n_freq; i++)
        inv_freq[i] = (float)freq[i];
    m->rope_amplitude = (float)amplitude;
    return m->be->ops->put(m->be, m->work.inv_freq, inv_freq, (size_t)m->n_freq * sizeof *inv_freq);
}

/* The tables that the workspace holds beside the buffers of a step; `zeros` came as zeros. */
static tp_status fill_tables(rt_model *m)
{
    int group = m->config.n_heads / m->config.n_kv_heads, n_heads = m->shard.n_heads_local;
    size_t nobody = (size_t)m->options.max_tokens_per_step * (size_t)(m->n_roots - 1);
    size_t n = nobody > (size_t)n_heads ? nobody : (size_t)n_heads;
    int32_t *words = tp_malloc((n + 1) * sizeof *words);
    tp_status st;

    if (words == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "no memory for the tables of the model");
    m->attn_scale = (float)(1 / sqrt((double)m->config.head_dim));
    for (int h = 0; h < n_heads; h++)
        words[h] = (m->shard.head_first + h) / group - m->shard.kv_first;
    st = m->be->ops->put(m->be, m->work.kv_of_q, words, (size_t)n_heads * sizeof *words);
    memset(words, 0xff, nobody * sizeof *words);
    if (st == TP_OK)
        st = m->be->ops->put(m->be, m->work.nobody, words, nobody * sizeof *words);
    if (st == TP_OK)
        st = put_frequencies(m);
    tp_free(words);
    return st;
}

/* All memory of the model. */
static tp_status take_memory(rt_model *m)
{
    rt_slab slab = {0};

    TP_TRY(rt_weights_create(m));
    place_workspace(&m->work, &m->config, &m->shard, m->be, &m->options, &slab);
    TP_TRY(m->be->ops->alloc(m->be, slab.used, &m->workspace));
    slab = (rt_slab){.base = m->workspace};
    place_workspace(&m->work, &m->config, &m->shard, m->be, &m->options, &slab);
    return fill_tables(m);
}

static tp_status load(rt_model *m, const char *dir)
{
    rt_param *params = NULL;
    int n = 0;
    tp_status st = take_memory(m);

    if (st == TP_OK)
        st = rt_weights_params(m, &params, &n);
    st = rt_agree(m->group, st, true);
    if (st == TP_OK)
        return rt_load_params(m, dir, params, n);
    tp_free(params);
    return st;
}

tp_status rt_model_load(rt_model **out, const rt_config *c, const rt_shard *s, kern_backend *be,
                        comm_group *g, const rt_model_options *o)
{
    rt_model *m = tp_calloc(1, sizeof *m);
    int64_t start = tp_now_ns();
    tp_status st;

    TP_ASSERT(comm_size(g) == s->n_ranks && comm_rank(g) == s->rank);
    if (m == NULL)
        return rt_agree(g, TP_FAIL(TP_ERR_NOMEM, "no memory for the model"), true);
    m->config = *c;
    m->shard = *s;
    m->options = *o;
    m->options.dir = NULL;
    m->be = be;
    m->group = g;
    m->act_dtype = kern_act_dtype(be, o->dtype);
    m->n_roots = count_roots(s, be);
    m->n_freq = rt_rope_dims(c) / 2;
    st = load(m, o->dir);
    if (st != TP_OK) {
        rt_model_destroy(m);
        return st;
    }
    if (m->late == NULL)
        m->load_seconds = (double)(tp_now_ns() - start) / (double)TP_NS_PER_S;
    if (m->late != NULL)
        tp_info("model",
                "the checkpoint is in the page cache: its weights load while requests run");
    else if (!o->dummy_weights)
        tp_info("model", "read %.2f GB in %.2f s, %.2f GB/s per rank", (double)m->load_bytes / 1e9,
                m->load_seconds, (double)m->load_bytes / 1e9 / m->load_seconds);
    *out = m;
    return TP_OK;
}

void rt_model_destroy(rt_model *m)
{
    if (m == NULL)
        return;
    rt_load_stop(m);
    rt_weights_destroy(m);
    if (m->workspace != NULL)
        m->be->ops->free(m->be, m->workspace);
    tp_free(m);
}

void rt_model_load_stats(const rt_model *m, int64_t *bytes, double *seconds)
{
    *bytes = m->load_bytes;
    *seconds = m->load_seconds;
}
