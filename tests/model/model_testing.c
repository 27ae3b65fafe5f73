/* SPDX-License-Identifier: Apache-2.0 */
/* model_testing.c - see model_testing.h. */
#include "tests/model/model_testing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define BLOCKS_PER_SEQ (TM_TOKENS / TM_BLOCK)
#define N_BLOCKS       (TM_SEQS * BLOCKS_PER_SEQ)

struct tm_stage {
    int32_t ids[TM_TOKENS], pos[TM_TOKENS], index[TM_TOKENS], tables[N_BLOCKS];
    int32_t rows[RT_LOGIT_ROWS_MAX];
    kern_attn_seq seqs[TM_SEQS];
};

const char *const tm_isas[] = {"generic", "avx2", "avx512", "amx", NULL};

const char *const tm_traits[] = {
    "llama2", "llama3",     "llama_bias",    "llama_linear", "mistral", "mistral_head_dim",
    "qwen2",  "qwen2_yarn", "qwen2_sliding", "qwen3",        "v5_keys", "shards",
};
const int tm_n_traits = (int)TP_ARRAY_LEN(tm_traits);

void tm_golden_read(tm_golden *g, const char *trait)
{
    char path[1024], magic[4];
    int32_t head[3];
    FILE *f;
    bool ok;

    (void)snprintf(g->dir, sizeof g->dir, "%s/%s", TPSERVE_GOLDENS, trait);
    (void)snprintf(path, sizeof path, "%s/golden.bin", g->dir);
    f = fopen(path, "rb");
    ok = f != NULL && fread(magic, 4, 1, f) == 1 && memcmp(magic, "TPG1", 4) == 0 &&
         fread(head, sizeof head, 1, f) == 1;
    TP_ASSERT(ok);
    g->n_prompt = head[0];
    g->n_ids = head[0] + head[1];
    g->vocab = head[2];
    g->ids = tp_calloc((size_t)g->n_ids, sizeof *g->ids);
    g->logits = tp_calloc((size_t)g->n_ids * (size_t)g->vocab, sizeof *g->logits);
    TP_ASSERT(g->ids != NULL && g->logits != NULL);
    ok = fread(g->ids, sizeof *g->ids, (size_t)g->n_ids, f) == (size_t)g->n_ids &&
         fread(g->logits, sizeof *g->logits, (size_t)g->n_ids * (size_t)g->vocab, f) ==
             (size_t)g->n_ids * (size_t)g->vocab;
    TP_ASSERT(ok);
    (void)fclose(f);
}

void tm_golden_free(tm_golden *g)
{
    tp_free(g->ids);
    tp_free(g->logits);
}

static int most_vocab(const rt_config *c, int n_ranks)
{
    int most = 0;

    for (int rank = 0; rank < n_ranks; rank++) {
        rt_shard s;

        TP_ASSERT(rt_shard_plan(&s, c, n_ranks, rank, c->dtype, c->dtype) == TP_OK);
        most = s.n_vocab_local > most ? s.n_vocab_local : most;
    }
    return most;
}

static tp_status open_parts(tm_model *m, const tm_options *o)
{
    rt_model_options opt = {.dir = o->dir,
                            .dtype = o->dtype,
                            .max_tokens_per_step = TM_TOKENS,
                            .max_seqs = TM_SEQS,
                            .max_model_len = TM_TOKENS,
                            .block_tokens = TM_BLOCK,
                            .dummy_weights = o->dummy,
                            .lazy_weights = o->lazy};
    kern_kv_desc kv;

    m->be = o->be;
    m->owns_backend = o->be == NULL;
    if (m->owns_backend)
        TP_TRY(
            o->ops->open(&m->be, &(kern_open_args){.n_threads = o->n_threads > 0 ? o->n_threads : 1,
                                                   .isa = o->isa}));
    TP_TRY(rt_shard_plan(&m->shard, &m->config, comm_size(m->group), comm_rank(m->group), o->dtype,
                         o->dtype));
    TP_TRY(rt_model_load(&m->model, &m->config, &m->shard, m->be, m->group, &opt));
    kv = (kern_kv_desc){.n_layers = m->config.n_layers,
                        .n_kv = m->shard.n_kv_local,
                        .head_dim = m->config.head_dim,
                        .block_tokens = TM_BLOCK,
                        .n_blocks = N_BLOCKS,
                        .dtype = o->dtype};
    TP_TRY(m->be->ops->kv_create(m->be, &kv, &m->kv));
    TP_TRY(m->be->ops->alloc(m->be, sizeof *m->stage, (void **)&m->stage));
    m->vocab_most = most_vocab(&m->config, m->shard.n_ranks);
    m->gather =
        tp_calloc((size_t)(m->shard.n_ranks + 1) * RT_LOGIT_ROWS_MAX * (size_t)m->vocab_most,
                  sizeof *m->gather);
    return m->gather != NULL ? TP_OK : TP_ERR_NOMEM;
}

tp_status tm_open(tm_model *m, const tm_options *o)
{
    tp_status st;

    memset(m, 0, sizeof *m);
    m->group = o->group;
    st = rt_config_load(&m->config, o->dir);
    if (st == TP_OK)
        st = open_parts(m, o);
    if (st != TP_OK)
        tm_close(m);
    return st;
}

void tm_close(tm_model *m)
{
    if (m->kv != NULL)
        m->be->ops->kv_destroy(m->be, m->kv);
    if (m->stage != NULL)
        m->be->ops->free(m->be, m->stage);
    rt_model_destroy(m->model);
    if (m->be != NULL && m->owns_backend)
        m->be->ops->close(m->be);
    tp_free(m->gather);
    memset(m, 0, sizeof *m);
}

/* Blocks of a sequence, in an order that no contiguous cache would survive. */
static int32_t block_of(int seq, int i)
{
    return N_BLOCKS - 1 - (i * TM_SEQS + seq);
}

tp_status tm_head(tm_model *m, const int32_t *rows, int n, float **logits, int64_t *ld)
{
    TP_TRY(m->be->ops->put(m->be, m->stage->rows, rows, (size_t)n * sizeof *rows));
    return rt_model_logits(m->model, m->stage->rows, n, logits, ld);
}

/* Logits of rows [row, row + n) of the last forward, put together from all ranks. */
static tp_status gather_rows(tm_model *m, int row, int n, float *out)
{
    size_t most = (size_t)m->vocab_most, part = (size_t)n * most;
    float *mine = m->gather + (size_t)m->shard.n_ranks * RT_LOGIT_ROWS_MAX * most, *logits;
    int32_t rows[RT_LOGIT_ROWS_MAX];
    int64_t ld;

    for (int i = 0; i < n; i++)
        rows[i] = row + i;
    TP_TRY(tm_head(m, rows, n, &logits, &ld));
    for (int i = 0; i < n; i++)
        TP_TRY(m->be->ops->get(m->be, mine + (size_t)i * most, logits + i * ld,
                               (size_t)m->shard.n_vocab_local * sizeof *mine));
    TP_TRY(comm_allgather(m->group, mine, m->gather, part * sizeof *mine));
    for (int rank = 0; rank < m->shard.n_ranks; rank++) {
        rt_shard s;

        TP_TRY(
            rt_shard_plan(&s, &m->config, m->shard.n_ranks, rank, KERN_DTYPE_F32, KERN_DTYPE_F32));
        for (int i = 0; i < n && s.n_vocab_local > 0; i++)
            memcpy(out + (size_t)i * (size_t)m->config.vocab + s.vocab_first,
                   m->gather + (size_t)rank * part + (size_t)i * most,
                   (size_t)s.n_vocab_local * sizeof *out);
    }
    return TP_OK;
}

tp_status tm_step(tm_model *m, const tm_part *parts, int n_parts)
{
    tm_stage s = {0};
    rt_batch b = {.ids = m->stage->ids,
                  .pos = m->stage->pos,
                  .kv_index = m->stage->index,
                  .seqs = m->stage->seqs,
                  .block_tables = m->stage->tables,
                  .n_seqs = n_parts};
    tp_status st;

    for (int p = 0; p < n_parts; p++) {
        const tm_part *part = &parts[p];

        TP_ASSERT(b.n_tok + part->n <= TM_TOKENS && part->pos + part->n <= TM_TOKENS &&
                  p < TM_SEQS);
        s.seqs[p] = (kern_attn_seq){.row = b.n_tok,
                                    .n_rows = part->n,
                                    .ctx = part->pos + part->n,
                                    .table = p * BLOCKS_PER_SEQ};
        for (int i = 0; i < BLOCKS_PER_SEQ; i++)
            s.tables[p * BLOCKS_PER_SEQ + i] = block_of(part->seq, i);
        for (int i = 0; i < part->n; i++, b.n_tok++) {
            int at = part->pos + i;

            s.ids[b.n_tok] = part->ids[i];
            s.pos[b.n_tok] = at;
            s.index[b.n_tok] = block_of(part->seq, at / TM_BLOCK) * TM_BLOCK + at % TM_BLOCK;
        }
    }
    while (b.n_decode < n_parts && parts[b.n_decode].n == 1)
        b.n_decode++;
    for (int p = 0; p < n_parts; p++) {
        int ctx = s.seqs[p].ctx;

        b.max_ctx = ctx > b.max_ctx ? ctx : b.max_ctx;
        b.max_rows = p >= b.n_decode && parts[p].n > b.max_rows ? parts[p].n : b.max_rows;
    }
    TP_TRY(m->be->ops->put(m->be, m->stage, &s, sizeof s));
    tp_mem_forbid(true);
    st = rt_model_forward(m->model, m->kv, &b);
    tp_mem_forbid(false);
    TP_TRY(st);
    for (int p = 0; p < n_parts; p++) {
        for (int done = 0; parts[p].logits != NULL && done < parts[p].n;
             done += RT_LOGIT_ROWS_MAX) {
            int n = parts[p].n - done < RT_LOGIT_ROWS_MAX ? parts[p].n - done : RT_LOGIT_ROWS_MAX;

            TP_TRY(gather_rows(m, s.seqs[p].row + done, n,
                               parts[p].logits + (size_t)done * (size_t)m->config.vocab));
        }
    }
    return TP_OK;
}

tp_status tm_logits(tm_model *m, const int32_t *ids, int n, int chunk, float *logits)
{
    for (int done = 0; done < n; done += chunk) {
        tm_part part = {.pos = done, .n = n - done < chunk ? n - done : chunk, .ids = ids + done};

        part.logits = logits + (size_t)done * (size_t)m->config.vocab;
        TP_TRY(tm_step(m, &part, 1));
    }
    return TP_OK;
}

int32_t tm_argmax(const float *row, int n)
{
    int32_t best = 0;

    for (int32_t i = 1; i < n; i++)
        best = row[i] > row[best] ? i : best;
    return best;
}
