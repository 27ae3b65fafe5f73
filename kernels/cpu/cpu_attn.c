/* SPDX-License-Identifier: Apache-2.0 */
/* cpu_attn.c - causal attention over the paged cache.
 *
 * The keys of a sequence are cut into tiles of 256 positions, at absolute positions.  Inside a tile a query vector
 * gets scores, their maximum, the exponentials and their sum, and the weighted sum of the values; tiles are joined
 * left to right.  Hidden positions weigh exactly 0 and tiles with nothing to see are left out, so a row's bits
 * depend on its position and window only: not on what shares its chunk or batch, nor on who computes which tile.
 *
 * A query vector is one head of one row.  The vectors of consecutive heads that read the same KV head ("run") are
 * taken in blocks of up to 24 or 32, so that keys and values are loaded once per block.  Work is handed out block by
 * block; when a batch of single rows has too few blocks to keep the team busy, by tiles, with the partial results
 * in scratch.
 */
#include <math.h>
#include <string.h>

#include "base/pulse.h"
#include "kernels/convert.h"
#include "kernels/cpu/cpu_kv.h"
#include "kernels/kern_check.h"

#define TILE        256 /* positions */
#define TILE_GROUPS (TILE / KERN_CPU_GROUP)
#define BLOCK       KERN_CPU_ATTN_BLOCK
#define ROUND_STEP  32 /* positions: AMX takes weights in such runs, with zeros where need be */
#define FETCH_VECS  8  /* blocks up to this size ask for memory ahead */
#define TEAM_WORK   (1 << 16) /* multiply-adds (of q k^T) that repay a team */

typedef struct head_run {
    int32_t first, n; /* query heads */
    int32_t kv;
} head_run;

/* Per thread, all [BLOCK, ..]. */
typedef struct thread_space {
    float *q; /* [hd] times scale; BF16 where the products want that, in the lower half of a row */
    float *score; /* [TILE]; weights likewise */
    float *o;     /* [hd] joined so far */
    float *part;  /* [hd] of the newest tile */
    float *max, *sum, *part_max, *part_sum;
} thread_space;

/* One call, as its threads see it. */
typedef struct attn_job {
    const kern_attn_args *a;
    const kern_cpu_vec *vec;
    const kern_cpu_attn_products *products;
    const kern_kv *kv;
    int hd; /* padded head_dim */
    head_run *runs;
    int n_runs;
    float *space; /* [n_threads, space_floats()] */
    float *parts; /* [n_q, tiles, hd + 2]: one sequence by tiles: weighted sum, maximum, sum */
    const kern_attn_seq *seq; /* the one that is computed by tiles */
    int tile0, n_tiles;       /* its tiles */
} attn_job;

/* Query vectors first .. first + n of a run: vector v is head run->first + v % run->n of row v / run->n. */
typedef struct vec_block {
    const kern_attn_seq *seq;
    const head_run *run;
    int first, n;
    int begin, end; /* positions that any of them sees */
} vec_block;

static size_t space_floats(int hd)
{
    return (size_t)BLOCK * (size_t)(3 * hd + TILE + 4);
}

static int tiles_of(int64_t ctx)
{
    return (int)((ctx + TILE - 1) / TILE);
}

size_t kern_cpu_attn_scratch_bytes(const kern_backend *be, int n_q, int head_dim, int64_t ctx_max,
                                   int seqs_max)
{
    int hd = kern_cpu_kv_pad(head_dim);
    size_t floats = space_floats(hd) * (size_t)be->n_threads +
                    (size_t)n_q * (size_t)tiles_of(ctx_max) * (size_t)(hd + 2);

    (void)seqs_max; /* by tiles one sequence is computed at a time */
    return KERN_CPU_ALIGN + floats * sizeof(float) + (size_t)n_q * sizeof(head_run);
}

static const kern_cpu_attn_products *products_of(const kern_cpu_backend *cpu, const kern_kv *kv)
{
    if (cpu->isa == KERN_CPU_AMX && kv->desc.dtype == KERN_DTYPE_BF16 && kv->hd % 32 == 0)
        return &kern_cpu_attn_amx_bf16;
    return &cpu->vec->attn[kv->desc.dtype];
}

static void job_init(attn_job *job, const kern_attn_args *a, const kern_cpu_backend *cpu)
{
    uintptr_t base = ((uintptr_t)a->scratch + KERN_CPU_ALIGN - 1) / KERN_CPU_ALIGN * KERN_CPU_ALIGN;
    int n = 0;

    *job = (attn_job){
        .a = a, .vec = cpu->vec, .products = products_of(cpu, a->kv), .kv = a->kv, .hd = a->kv->hd};
    job->space = (float *)base;
    base += space_floats(job->hd) * (size_t)cpu->base.n_threads * sizeof(float);
    job->runs = (head_run *)base;
    job->parts = (float *)(base + (size_t)a->n_q * sizeof(head_run));
    for (int h = 0; h < a->n_q; h++) {
        if (n > 0 && job->runs[n - 1].kv == a->kv_of_q[h])
            job->runs[n - 1].n++;
        else
            job->runs[n++] = (head_run){.first = h, .n = 1, .kv = a->kv_of_q[h]};
    }
    job->n_runs = n;
}

static thread_space space_of(const attn_job *job, int thread)
{
    float *p = job->space + space_floats(job->hd) * (size_t)thread;
    int vecs = BLOCK * job->hd;
    thread_space t;

    t.q = p;
    t.score = t.q + vecs;
    t.o = t.score + BLOCK * TILE;
    t.part = t.o + vecs;
    t.max = t.part + vecs;
    t.sum = t.max + BLOCK;
    t.part_max = t.sum + BLOCK;
    t.part_sum = t.part_max + BLOCK;
    return t;
}

static int position(const vec_block *b, int i)
{
    return b->seq->ctx - b->seq->n_rows + (b->first + i) / b->run->n;
}

static int first_seen(const kern_attn_args *a, int pos)
{
    return a->window > 0 && pos >= a->window ? pos - a->window + 1 : 0;
}

static int64_t row_of(const vec_block *b, int i)
{
    return b->seq->row + (b->first + i) / b->run->n;
}

static int head_of(const vec_block *b, int i)
{
    return b->run->first + (b->first + i) % b->run->n;
}

static vec_block block_at(const attn_job *job, const kern_attn_seq *seq, const head_run *run, int k)
{
    int n_vecs = seq->n_rows * run->n, most = job->products->block;
    vec_block b = {.seq = seq, .run = run, .first = k * most};

    b.n = n_vecs - b.first < most ? n_vecs - b.first : most;
    b.begin = first_seen(job->a, position(&b, 0));
    b.end = position(&b, b.n - 1) + 1;
    return b;
}

static int blocks_of(const attn_job *job, const kern_attn_seq *seq, const head_run *run)
{
    return (seq->n_rows * run->n + job->products->block - 1) / job->products->block;
}

static void load_queries(const attn_job *job, const vec_block *b, float *q)
{
    const kern_attn_args *a = job->a;
    float scale = a->scale;

    for (int i = 0; i < b->n; i++) {
        const float *src = a->q + row_of(b, i) * a->q_stride + (int64_t)head_of(b, i) * a->head_dim;
        float *dst = q + (size_t)i * (size_t)job->hd;

#pragma omp simd
        for (int d = 0; d < a->head_dim; d++)
            dst[d] = src[d] * scale;
        for (int d = a->head_dim; d < job->hd; d++)
            dst[d] = 0.0f;
        if (job->products->rounds)
            job->vec->to_bf16((uint16_t *)(void *)dst, dst, job->hd);
    }
}

/* Scores [from, to) of a row -> weights, in place; positions outside [lo, hi) of the tile weigh 0. */
static float weigh(const attn_job *job, float *score, int from, int to, int lo, int hi, float *max)
{
    float sum;

    for (int t = from; t < to && t < lo; t++)
        score[t] = -INFINITY;
    for (int t = hi > from ? hi : from; t < to; t++)
        score[t] = -INFINITY;
    sum = job->vec->softmax(score + from, to - from, max);
    if (job->products->rounds) {
        int low = from - from % ROUND_STEP, high = (to + ROUND_STEP - 1) / ROUND_STEP * ROUND_STEP;

        memset(score + low, 0, (size_t)(from - low) * sizeof *score);
        memset(score + to, 0, (size_t)(high - to) * sizeof *score);
        job->vec->to_bf16((uint16_t *)(void *)score + low, score + low, high - low);
    }
    return sum;
}

/* K of the group that holds position pos; V of it lies `groups` groups further on. */
static const unsigned char *group_at(const attn_job *job, const vec_block *b, int pos)
{
    const kern_kv *kv = job->kv;
    int bt = kv->desc.block_tokens;
    int32_t block = job->a->block_tables[b->seq->table + pos / bt];

    TP_DASSERT(block >= 0 && block < kv->desc.n_blocks);
    return kern_cpu_kv_at(kv, job->a->layer, block, b->run->kv) +
           (size_t)(pos % bt / KERN_CPU_GROUP) * kv->group_bytes;
}

/* One tile of one block into t->part, part_max, part_sum.  A block of few vectors (decode) waits for memory: while
 * the keys are used the values are fetched, and with them the keys of the next tile. */
static void attend_tile(const attn_job *job, const vec_block *b, int tile, const thread_space *t)
{
    const kern_attn_args *a = job->a;
    const kern_kv *kv = job->kv;
    int base = tile * TILE;
    int begin = b->begin > base ? b->begin - base : 0;
    int end = b->end < base + TILE ? b->end - base : TILE;
    int g0 = begin / KERN_CPU_GROUP, g1 = (end + KERN_CPU_GROUP - 1) / KERN_CPU_GROUP;
    int numbers = job->products->rounds ? 2 : 1; /* in the place of an FP32 number */
    bool fetch = b->n <= FETCH_VECS;
    const void *k[TILE_GROUPS], *v[TILE_GROUPS], *next[TILE_GROUPS];

    for (int g = g0; g < g1; g++) {
        int pos = base + g * KERN_CPU_GROUP;
        const unsigned char *p = group_at(job, b, pos);

        k[g] = p;
        v[g] = p + (size_t)kv->groups * kv->group_bytes;
        next[g] = fetch && pos + TILE < b->end ? group_at(job, b, pos + TILE) : p;
    }
    job->products->qk(t->score + g0 * KERN_CPU_GROUP, TILE,
                      (kern_cpu_rows){t->q, numbers * job->hd, b->n}, k + g0, fetch ? v + g0 : NULL,
                      g1 - g0, job->hd);
    for (int i = 0; i < b->n; i++) {
        int pos = position(b, i);

        t->part_sum[i] = weigh(job, t->score + i * TILE, g0 * KERN_CPU_GROUP, g1 * KERN_CPU_GROUP,
                               first_seen(a, pos) - base, pos + 1 - base, &t->part_max[i]);
    }
    job->products->pv(t->part, job->hd, (kern_cpu_rows){t->score, numbers * TILE, b->n}, v,
                      fetch ? next : NULL, begin, end);
}

/* Joins a tile's (part, part_max, part_sum) to what lies left of it. */
static void join(const attn_job *job, float *o, float *max, float *sum, const float *part,
                 float part_max, float part_sum)
{
    float top, left, right;

    if (part_max == -INFINITY)
        return;
    if (*max == -INFINITY) {
        memcpy(o, part, (size_t)job->hd * sizeof *o);
        *max = part_max;
        *sum = part_sum;
        return;
    }
    top = *max > part_max ? *max : part_max;
    left = job->vec->exp1(*max - top);
    right = job->vec->exp1(part_max - top);
    job->vec->merge(o, left, part, right, job->hd);
    *sum = *sum * left + part_sum * right;
    *max = top;
}

static void finish(const attn_job *job, int64_t row, int head, float *o, float sum)
{
    const kern_attn_args *a = job->a;
    int64_t at = (row * a->n_q + head) * a->head_dim;
    float scale = sum != 0.0f ? 1.0f / sum : 0.0f; /* 0: an empty place, which sees nothing */

#pragma omp simd
    for (int d = 0; d < a->head_dim; d++)
        o[d] *= scale;
    if (a->out_dtype == KERN_DTYPE_F32)
        memcpy((float *)a->out + at, o, (size_t)a->head_dim * sizeof *o);
    else if (a->out_dtype == KERN_DTYPE_BF16)
        job->vec->to_bf16((uint16_t *)a->out + at, o, a->head_dim);
    else
        for (int d = 0; d < a->head_dim; d++)
            ((uint16_t *)a->out)[at + d] = kern_f32_to_f16(o[d]);
}

/* ---- by blocks ---- */
static void attend_block(const attn_job *job, const vec_block *b, const thread_space *t)
{
    load_queries(job, b, t->q);
    for (int i = 0; i < b->n; i++) {
        t->max[i] = -INFINITY;
        t->sum[i] = 0.0f;
    }
    memset(t->o, 0, (size_t)b->n * (size_t)job->hd * sizeof *t->o);
    for (int tile = b->begin / TILE; tile * TILE < b->end; tile++) {
        attend_tile(job, b, tile, t);
        for (int i = 0; i < b->n; i++)
            join(job, t->o + (size_t)i * (size_t)job->hd, &t->max[i], &t->sum[i],
                 t->part + (size_t)i * (size_t)job->hd, t->part_max[i], t->part_sum[i]);
    }
    for (int i = 0; i < b->n; i++)
        finish(job, row_of(b, i), head_of(b, i), t->o + (size_t)i * (size_t)job->hd, t->sum[i]);
}

static int seq_tasks(const attn_job *job, const kern_attn_seq *seq)
{
    int n = 0;

    for (int r = 0; r < job->n_runs; r++)
        n += blocks_of(job, seq, &job->runs[r]);
    return n;
}

/* Task k of a sequence; late blocks, which see most, first. */
static void run_task(const attn_job *job, const kern_attn_seq *seq, int k, const thread_space *t)
{
    const head_run *run = job->runs;
    vec_block b;

    while (k >= blocks_of(job, seq, run))
        k -= blocks_of(job, seq, run++);
    b = block_at(job, seq, run, blocks_of(job, seq, run) - 1 - k);
    attend_block(job, &b, t);
}

/* Tasks [begin, end) of all sequences together. */
static void attend_by_blocks(const void *args, int64_t begin, int64_t end, int thread)
{
    const attn_job *job = args;
    const kern_attn_seq *seq = job->a->seqs;
    thread_space t = space_of(job, thread);
    int64_t base = 0;
    int count = seq_tasks(job, seq);

    for (int64_t task = begin; task < end; task++) {
        while (task >= base + count) {
            base += count;
            count = seq_tasks(job, ++seq);
        }
        run_task(job, seq, (int)(task - base), &t);
        tp_stir();
    }
}

/* ---- by tiles: one row, many threads ---- */
static float *part_at(const attn_job *job, int head, int tile)
{
    return job->parts +
           ((size_t)head * (size_t)job->n_tiles + (size_t)tile) * (size_t)(job->hd + 2);
}

static void tile_task(const attn_job *job, const vec_block *b, int tile, const thread_space *t)
{
    load_queries(job, b, t->q);
    attend_tile(job, b, job->tile0 + tile, t);
    for (int i = 0; i < b->n; i++) {
        float *p = part_at(job, head_of(b, i), tile);

        memcpy(p, t->part + (size_t)i * (size_t)job->hd, (size_t)job->hd * sizeof *p);
        p[job->hd] = t->part_max[i];
        p[job->hd + 1] = t->part_sum[i];
    }
}

static void join_head(const attn_job *job, int head, const thread_space *t)
{
    float max = -INFINITY, sum = 0.0f;

    memset(t->o, 0, (size_t)job->hd * sizeof *t->o);
    for (int tile = 0; tile < job->n_tiles; tile++) {
        const float *p = part_at(job, head, tile);

        join(job, t->o, &max, &sum, p, p[job->hd], p[job->hd + 1]);
    }
    finish(job, job->seq->row, head, t->o, sum);
}

static void attend_tiles(const void *args, int64_t begin, int64_t end, int thread)
{
    const attn_job *job = args;
    thread_space t = space_of(job, thread);

    for (int64_t task = begin; task < end; task++) {
        const head_run *run = job->runs;
        int k = (int)(task / job->n_tiles);
        vec_block b;

        while (k >= blocks_of(job, job->seq, run))
            k -= blocks_of(job, job->seq, run++);
        b = block_at(job, job->seq, run, k);
        tile_task(job, &b, (int)(task % job->n_tiles), &t);
    }
}

static void join_heads(const void *args, int64_t begin, int64_t end, int thread)
{
    const attn_job *job = args;
    thread_space t = space_of(job, thread);

    for (int64_t h = begin; h < end; h++)
        join_head(job, (int)h, &t);
}

static void attend_by_tiles(kern_backend *be, attn_job *job, const kern_attn_seq *seq)
{
    kern_team_work tiles = {.run = attend_tiles,
                            .args = job,
                            .step = 1,
                            .most = 1,
                            .begin = job->products->begin,
                            .end = job->products->end};
    kern_team_work heads = {.run = join_heads, .args = job, .step = 1, .n = job->a->n_q};

    job->seq = seq;
    job->tile0 = first_seen(job->a, seq->ctx - 1) / TILE;
    job->n_tiles = tiles_of(seq->ctx) - job->tile0;
    tiles.n = (int64_t)seq_tasks(job, seq) * job->n_tiles;
    kern_cpu_share(be, &tiles, (int64_t)seq->ctx * job->a->n_q * job->a->head_dim, TEAM_WORK);
    kern_cpu_share(be, &heads, (int64_t)job->n_tiles * job->a->n_q * job->hd, TEAM_WORK);
}

/* ---- the operation ---- */
tp_status kern_cpu_attn(kern_backend *be, const kern_attn_args *a)
{
    attn_job job;
    int64_t work = 0;
    kern_team_work blocks = {.run = attend_by_blocks, .args = &job, .step = 1, .most = 1};
    int one_row = 1;

    TP_TRY(kern_check_attn(a, &a->kv->desc));
    TP_TRY(kern_check_attn_items(a, &a->kv->desc));
    if (a->n_seqs == 0 || a->n_q == 0)
        return TP_OK;
    job_init(&job, a, kern_cpu_of(be));
    blocks.begin = job.products->begin;
    blocks.end = job.products->end;
    for (int i = 0; i < a->n_seqs; i++) {
        blocks.n += seq_tasks(&job, &a->seqs[i]);
        work += (int64_t)a->seqs[i].n_rows * a->seqs[i].ctx * a->n_q * a->head_dim;
        one_row &= a->seqs[i].n_rows == 1;
    }
    if (be->n_threads == 1 || work < TEAM_WORK || !one_row || blocks.n >= 4 * be->n_threads)
        kern_cpu_share(be, &blocks, work, TEAM_WORK);
    else
        for (int i = 0; i < a->n_seqs; i++)
            attend_by_tiles(be, &job, &a->seqs[i]);
    return TP_OK;
}
