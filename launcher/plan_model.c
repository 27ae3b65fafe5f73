/* SPDX-License-Identifier: Apache-2.0 */
/* plan_model.c - see plan_model.h.  Sizes come from the runtime's own shard plan, so they are those of the ranks. */
#include "launcher/plan_model.h"

#include "runtime/sample/sample.h"
#include "runtime/sched/worker.h"

static double vector_elements(const rt_config *c)
{
    double heads = c->n_heads + 2.0 * c->n_kv_heads, per_layer = 2.0 * c->hidden;

    per_layer += c->qkv_bias ? heads * c->head_dim : 0;
    per_layer += c->o_bias ? c->hidden : 0;
    per_layer += c->mlp_bias ? 2.0 * c->intermediate + c->hidden : 0;
    per_layer += c->qk_norm ? 2.0 * c->head_dim : 0;
    return per_layer * c->n_layers + c->hidden;
}

launch_roof_model launch_roof_model_of(const rt_config *c)
{
    launch_roof_model m = {.n_layers = c->n_layers,
                           .hidden = c->hidden,
                           .n_heads = c->n_heads,
                           .n_kv_heads = c->n_kv_heads,
                           .head_dim = c->head_dim,
                           .intermediate = c->intermediate,
                           .vocab = c->vocab,
                           .window = c->sliding_window,
                           .tied = c->tied,
                           .vector_bytes = 4 * vector_elements(c)};

    for (int l = 0; l < c->n_layers; l++)
        m.n_window_layers += rt_config_layer_sliding(c, l) ? 1 : 0;
    return m;
}

static launch_roof_share share_of(const rt_shard *s, const rt_config *c)
{
    double h = c->hidden, d = c->head_dim;

    return (launch_roof_share){.linear = c->n_layers *
                                         (h * (s->n_heads_local + 2.0 * s->n_kv_local) * d +
                                          s->n_heads_local * d * h + 3 * h * s->n_inter_local),
                               .embed = h * s->n_vocab_local,
                               .heads = s->n_heads_local,
                               .kv_heads = s->n_kv_local};
}

tp_status launch_fullest_share(launch_roof_share *out, const rt_config *c, int n_ranks)
{
    launch_roof_share most = {0};
    rt_shard s;

    for (int rank = 0; rank == 0 || rank < n_ranks;
         rank++) { /* the first refuses impossible n_ranks */
        launch_roof_share mine;

        TP_TRY(rt_shard_plan(&s, c, n_ranks, rank, KERN_DTYPE_BF16, KERN_DTYPE_BF16));
        mine = share_of(&s, c);
        most.kv_heads = mine.kv_heads > most.kv_heads ? mine.kv_heads : most.kv_heads;
        most.heads = mine.heads > most.heads ? mine.heads : most.heads;
        if (mine.linear + mine.embed > most.linear + most.embed) {
            most.linear = mine.linear;
            most.embed = mine.embed;
        }
    }
    *out = most;
    return TP_OK;
}

tp_status launch_workspace_bytes(int64_t *out, const rt_config *c, int n_ranks,
                                 const rt_model_options *o)
{
    kern_open_args args = {.n_threads = 1};
    rt_worker_options wo = {.n_slots = o->max_seqs,
                            .max_model_len = o->max_model_len,
                            .max_tokens = o->max_tokens_per_step,
                            .block_tokens = o->block_tokens};
    rt_memory_plan plan;
    kern_backend *be;
    rt_shard shard;
    tp_status st;

    TP_TRY(kern_ref_ops()->open(&be, &args));
    st = rt_shard_plan(&shard, c, n_ranks, 0, o->dtype, o->dtype);
    if (st == TP_OK)
        st = rt_model_memory(&plan, c, &shard, be, o);
    if (st == TP_OK) {
        *out = plan.workspace + rt_sampler_bytes(c, &shard, be) + rt_worker_bytes(&wo);
        if (n_ranks > 1)
            *out += 2 * (int64_t)rt_model_window_bytes(c, n_ranks, o->max_tokens_per_step);
    }
    kern_ref_ops()->close(be);
    return st;
}
