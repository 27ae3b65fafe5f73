/* SPDX-License-Identifier: Apache-2.0 */
/* shard.c - what one rank keeps: a closed formula of the config, the number of ranks, and the rank.
 *
 *   heads         halved recursively over the segments of base/segtree.h; a rank owns a run of whole segments
 *   KV heads      those that the local query heads read; neighbours may hold the same one
 *   intermediate  halved recursively in units that depend on the config only, over the same segments
 *   vocabulary    whole chunks, as equal as possible; the last chunk may be short
 * Where there are fewer heads, units or chunks than ranks, some ranks keep none: sizes of 0 are legal everywhere.
 */
#include <string.h>

#include "runtime/model/model.h"

/* Columns that stay together when the intermediate size is cut: a divisor, and at least n_seg units of it. */
static int inter_unit(int intermediate, int n_seg)
{
    for (int unit = 128; unit > 1; unit /= 2) {
        if (intermediate % unit == 0 && intermediate / unit >= n_seg)
            return unit;
    }
    return 1;
}

/* Cuts n_units units of `width` columns; fills the split and returns where this rank's columns begin and how many. */
static void cut_columns(kern_ksplit *split, int n_units, int width, int n_seg, int first_seg,
                        int n_local_seg, int *first, int *n)
{
    int64_t begin, end, origin;

    tp_seg_units(n_units, n_seg, first_seg, &origin, &end);
    split->seg_first = first_seg;
    split->n_seg = n_local_seg;
    for (int i = 0; i < n_local_seg; i++) {
        tp_seg_units(n_units, n_seg, first_seg + i, &begin, &end);
        split->k_end[i] = (int32_t)((end - origin) * width);
    }
    *first = (int)origin;
    *n = (int)(end - origin);
}

static void cut_heads(rt_shard *s, const rt_config *c)
{
    int group = c->n_heads / c->n_kv_heads; /* query heads per KV head */
    int seg_first, n_seg;

    tp_seg_run(s->n_seg, s->n_ranks, s->rank, &seg_first, &n_seg);
    cut_columns(&s->split_o, c->n_heads, c->head_dim, s->n_seg, seg_first, n_seg, &s->head_first,
                &s->n_heads_local);
    s->kv_first = s->head_first / group;
    if (s->n_heads_local > 0)
        s->n_kv_local = (s->head_first + s->n_heads_local - 1) / group - s->kv_first + 1;
}

static void cut_intermediate(rt_shard *s, const rt_config *c)
{
    int unit = inter_unit(c->intermediate, s->n_seg);
    int seg_first, n_seg, first, n;

    tp_seg_run(s->n_seg, s->n_ranks, s->rank, &seg_first, &n_seg);
    cut_columns(&s->split_down, c->intermediate / unit, unit, s->n_seg, seg_first, n_seg, &first,
                &n);
    s->inter_first = first * unit;
    s->n_inter_local = n * unit;
}

static void cut_vocab(rt_shard *s, const rt_config *c)
{
    int32_t units = (c->vocab + RT_VOCAB_UNIT - 1) / RT_VOCAB_UNIT;
    int32_t chunk = (units + RT_VOCAB_CHUNKS - 1) / RT_VOCAB_CHUNKS * RT_VOCAB_UNIT;
    int32_t n_chunks = (c->vocab + chunk - 1) / chunk;
    int32_t each = n_chunks / s->n_ranks, rest = n_chunks % s->n_ranks;
    int32_t first = s->rank * each + (s->rank < rest ? s->rank : rest);
    int32_t end = first + each + (s->rank < rest ? 1 : 0);

    s->vocab_chunk = chunk;
    s->vocab_first = first * chunk;
    s->n_vocab_local = (end * chunk < c->vocab ? end * chunk : c->vocab) - s->vocab_first;
    if (s->n_vocab_local < 0) /* no chunk was left for this rank */
        s->n_vocab_local = 0;
}

static int64_t local_weight_bytes(const rt_shard *s, const rt_config *c, kern_dtype weights)
{
    int64_t h = c->hidden, q = (int64_t)s->n_heads_local * c->head_dim;
    int64_t kv = (int64_t)s->n_kv_local * c->head_dim, inter = s->n_inter_local;
    int64_t matrices = h * (q + 2 * kv) + q * h + 3 * h * inter;
    int64_t vectors = 2 * h;

    vectors += c->qkv_bias ? q + 2 * kv : 0;
    vectors += c->o_bias ? h : 0;
    vectors += c->mlp_bias ? 2 * inter + h : 0;
    vectors += c->qk_norm ? 2 * c->head_dim : 0;
    matrices = matrices * c->n_layers + (c->tied ? 1 : 2) * h * s->n_vocab_local;
    vectors = vectors * c->n_layers + h;
    return matrices * (int64_t)kern_dtype_bytes(weights) +
           vectors * (int64_t)kern_dtype_bytes(KERN_DTYPE_F32);
}

tp_status rt_shard_plan(rt_shard *out, const rt_config *c, int n_ranks, int rank,
                        kern_dtype weights, kern_dtype kv)
{
    rt_shard s = {.rank = rank, .n_ranks = n_ranks};

    if (n_ranks < 1 || n_ranks > TP_SEG_MAX)
        return TP_FAIL(TP_ERR_INVALID, "%d ranks: tensor parallelism works with 1 to %d", n_ranks,
                       TP_SEG_MAX);
    TP_ASSERT(rank >= 0 && rank < n_ranks);
    s.n_seg = tp_seg_count(n_ranks);
    cut_heads(&s, c);
    cut_intermediate(&s, c);
    cut_vocab(&s, c);
    s.weight_bytes = local_weight_bytes(&s, c, weights);
    s.kv_bytes_per_token =
        (int64_t)2 * c->n_layers * s.n_kv_local * c->head_dim * (int64_t)kern_dtype_bytes(kv);
    *out = s;
    return TP_OK;
}
