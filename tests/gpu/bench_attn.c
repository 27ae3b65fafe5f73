/* SPDX-License-Identifier: Apache-2.0 */
/* bench_attn.c - one call of attention over a paged cache full of numbers: what the stages decode, prefill and step share.
 */
#include "base/mem.h"
#include "tests/gpu/bench_gpu.h"

#define BLOCK_TOKENS 16

static void *keep(bench_attn *t, void *p)
{
    TP_ASSERT(t->n_taken < (int)TP_ARRAY_LEN(t->taken));
    return t->taken[t->n_taken++] = p;
}

static void make_cache(const bench *b, bench_attn *t, int n_kv, int head_dim, size_t n_blocks)
{
    size_t tile = (size_t)n_kv * BLOCK_TOKENS * (size_t)head_dim; /* K or V of a block */

    t->kv = (struct kern_kv){.desc = {.n_layers = 1,
                                      .n_kv = n_kv,
                                      .head_dim = head_dim,
                                      .block_tokens = BLOCK_TOKENS,
                                      .n_blocks = (int32_t)n_blocks,
                                      .dtype = KERN_DTYPE_BF16},
                             .data = keep(t, bench_bytes(b, n_blocks * 2 * tile * 2)),
                             .layer_stride = (int64_t)(n_blocks * 2 * tile),
                             .block_stride = (int64_t)(2 * tile),
                             .v_offset = (int64_t)tile,
                             .head_stride = BLOCK_TOKENS * (int64_t)head_dim};
}

/* Block tables, sequences, heads and the places of the last tokens: made here, copied to the device. */
static void make_lists(const bench *b, bench_attn *t, int n_seqs, int ctx, int n_rows)
{
    int blocks = (ctx + BLOCK_TOKENS - 1) / BLOCK_TOKENS, last = ctx - 1, n_q = t->args.n_q;
    size_t n_blocks = (size_t)t->kv.desc.n_blocks;
    int32_t *table = tp_calloc(n_blocks, sizeof *table),
            *heads = tp_calloc((size_t)n_q, sizeof *heads),
            *places = tp_calloc((size_t)n_seqs, sizeof *places);
    kern_attn_seq *seqs = tp_calloc((size_t)n_seqs, sizeof *seqs);

    TP_ASSERT(table != NULL && heads != NULL && places != NULL && seqs != NULL);
    for (size_t i = 0; i < n_blocks; i++)
        table[i] = (int32_t)(i * 7919 % n_blocks); /* a prime: all blocks, in no order */
    for (int h = 0; h < n_q; h++)
        heads[h] = h / (n_q / t->kv.desc.n_kv);
    for (int i = 0; i < n_seqs; i++) {
        seqs[i] =
            (kern_attn_seq){.row = i * n_rows, .n_rows = n_rows, .ctx = ctx, .table = i * blocks};
        places[i] = table[i * blocks + last / BLOCK_TOKENS] * BLOCK_TOKENS + last % BLOCK_TOKENS;
    }
    t->args.seqs = keep(t, bench_copy(b, seqs, (size_t)n_seqs * sizeof *seqs));
    t->args.block_tables = keep(t, bench_copy(b, table, n_blocks * sizeof *table));
    t->args.kv_of_q = keep(t, bench_copy(b, heads, (size_t)n_q * sizeof *heads));
    t->last_places = keep(t, bench_copy(b, places, (size_t)n_seqs * sizeof *places));
    tp_free(table);
    tp_free(heads);
    tp_free(places);
    tp_free(seqs);
}

void bench_attn_make(bench_attn *t, const bench *b, const model_shape *s, int tp, int n_seqs,
                     int ctx, int n_rows)
{
    int n_q = s->heads / tp, n_kv = (s->kv_heads + tp - 1) / tp, d = s->head_dim;
    size_t blocks = (size_t)((ctx + BLOCK_TOKENS - 1) / BLOCK_TOKENS);
    size_t scratch = kern_cuda_attn_scratch_bytes(n_q, d, ctx, n_seqs, b->props->n_sm);

    *t = (bench_attn){.args = {.kv = &t->kv,
                               .n_seqs = n_seqs,
                               .n_decode = n_rows == 1 ? n_seqs : 0,
                               .max_rows = n_rows == 1 ? 0 : n_rows,
                               .max_ctx = ctx,
                               .n_q = n_q,
                               .head_dim = d,
                               .scale = 0.088f,
                               .out_dtype = KERN_DTYPE_BF16}};
    make_cache(b, t, n_kv, d, (size_t)n_seqs * blocks);
    make_lists(b, t, n_seqs, ctx, n_rows);
    /* not bench_bytes: scratch must be zero when it is taken */
    bench_check(kern_dev_alloc(b->dev, scratch > 0 ? scratch : 1, &t->args.scratch));
    (void)keep(t, t->args.scratch);
}

void bench_attn_release(bench_attn *t, const bench *b)
{
    while (t->n_taken > 0)
        kern_dev_free(b->dev, t->taken[--t->n_taken]);
}
