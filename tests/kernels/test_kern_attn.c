/* SPDX-License-Identifier: Apache-2.0 */
/* test_kern_attn.c - the cache, qkv and attention: every backend against FP64 over a table of shapes, and the bits of
 * a row alone, in chunks, decoded, in a batch, on 1 to 3 threads.
 *
 * Every slot of a cache is filled with NaN before tokens are written: a kernel that looks past what a row may see
 * fails.  FP64 gets keys and values as the cache stores them, so the limits are those of FP32 arithmetic: 1e-5
 * absolute for values in (-1, 1), and half a unit in the last place more, 2^-8 relative, for BF16 output.  Over a
 * BF16 cache AVX-512 and AMX round queries (FP64 gets them so) and weights to BF16: 2^-9 more for the weights.
 */
#include <math.h>
#include <string.h>

#include "kern_testing.h"
#include "kernels/convert.h"

typedef struct shape {
    int head_dim, n_q, n_kv, block_tokens, window;
    kern_dtype dtype;
    int ctx;    /* of the first sequence; the others are shorter */
    int n_rows; /* to compute: the last ones */
} shape;

enum { N_SEQS = 3, LAYERS = 2, LAYER = 1 };

/* Three sequences in one cache; token t of sequence s is row first[s] + t of k, v, q. */
typedef struct world {
    shape sh;
    kern_backend *be;
    kern_kv *kv;
    int ctx[N_SEQS], first[N_SEQS], table[N_SEQS], n_tokens;
    float *k, *v;     /* [n_tokens, n_kv, head_dim], as stored */
    float *q;         /* [n_tokens, n_q, head_dim] */
    int32_t *tables;  /* block tables, one after the other */
    int32_t *kv_of_q; /* [n_q] */
    void *scratch;
    float scale;
    bool coarse; /* queries and weights in BF16 */
} world;

static void round_to(float *x, size_t n, kern_dtype t)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char h[4];

        kern_store_f32(h, t, x[i]);
        x[i] = kern_load_f32(h, t);
    }
}

/* Writes k and v rows to slots; q is empty, nothing is turned or normed. */
static void put_tokens(world *w, const float *k, const float *v, const int32_t *slots, int n,
                       int layer)
{
    int row = w->sh.n_kv * w->sh.head_dim;
    float *qkv = kt_zeros((size_t)n * 2 * (size_t)row * sizeof *qkv);

    for (int i = 0; i < n; i++) {
        memcpy(qkv + (size_t)i * 2 * row, k + (size_t)i * row, (size_t)row * sizeof *k);
        memcpy(qkv + (size_t)i * 2 * row + row, v + (size_t)i * row, (size_t)row * sizeof *v);
    }
    KT_OK(kern_qkv(w->be, &(kern_qkv_args){.qkv = qkv,
                                           .m = n,
                                           .n_kv = w->sh.n_kv,
                                           .head_dim = w->sh.head_dim,
                                           .kv = w->kv,
                                           .layer = layer,
                                           .kv_index = slots}));
    kt_free(qkv);
}

static void poison(world *w, int32_t n_blocks)
{
    int n = n_blocks * w->sh.block_tokens, row = w->sh.n_kv * w->sh.head_dim;
    float *nan = kt_zeros((size_t)n * (size_t)row * sizeof *nan);
    int32_t *slots = kt_zeros((size_t)n * sizeof *slots);

    for (int i = 0; i < n * row; i++)
        nan[i] = NAN;
    for (int i = 0; i < n; i++)
        slots[i] = i;
    for (int layer = 0; layer < LAYERS; layer++)
        put_tokens(w, nan, nan, slots, n, layer);
    kt_free(nan), kt_free(slots);
}

static int32_t slot_of(const world *w, int seq, int pos)
{
    int bt = w->sh.block_tokens;

    return w->tables[w->table[seq] + pos / bt] * bt + pos % bt;
}

static void lay_out(world *w, kt_rng *rng, int32_t *n_blocks)
{
    int total = 0;

    w->ctx[0] = w->sh.ctx;
    w->ctx[1] = w->sh.ctx / 2 + 1;
    w->ctx[2] = 1;
    for (int s = 0; s < N_SEQS; s++) {
        w->first[s] = w->n_tokens;
        w->table[s] = total;
        w->n_tokens += w->ctx[s];
        total += (w->ctx[s] + w->sh.block_tokens - 1) / w->sh.block_tokens;
    }
    *n_blocks = total + 2;
    w->tables = kt_zeros((size_t)total * sizeof *w->tables);
    for (int i = 0; i < total; i++) { /* a random order of 2 .. total + 1 */
        int j = kt_below(rng, i + 1);

        w->tables[i] = w->tables[j];
        w->tables[j] = i + 2;
    }
}

static world world_new(kern_backend *be, shape sh, kt_rng *rng)
{
    world w = {.sh = sh,
               .be = be,
               .scale = 1.0f / sqrtf((float)sh.head_dim),
               .coarse = sh.dtype == KERN_DTYPE_BF16 &&
                         (strcmp(be->isa, "amx") == 0 || strcmp(be->isa, "avx512") == 0)};
    size_t row = (size_t)sh.n_kv * (size_t)sh.head_dim;
    int32_t n_blocks, *slots;
    size_t bytes;

    lay_out(&w, rng, &n_blocks);
    KT_OK(be->ops->kv_create(be,
                             &(kern_kv_desc){.n_layers = LAYERS,
                                             .n_kv = sh.n_kv,
                                             .head_dim = sh.head_dim,
                                             .block_tokens = sh.block_tokens,
                                             .n_blocks = n_blocks,
                                             .dtype = sh.dtype},
                             &w.kv));
    poison(&w, n_blocks);
    w.k = kt_floats(rng, (size_t)w.n_tokens * row, 1.0f);
    w.v = kt_floats(rng, (size_t)w.n_tokens * row, 1.0f);
    w.q = kt_floats(rng, (size_t)w.n_tokens * (size_t)(sh.n_q * sh.head_dim), 4.0f);
    round_to(w.k, (size_t)w.n_tokens * row, sh.dtype);
    round_to(w.v, (size_t)w.n_tokens * row, sh.dtype);
    slots = kt_zeros((size_t)w.n_tokens * sizeof *slots);
    for (int s = 0; s < N_SEQS; s++)
        for (int t = 0; t < w.ctx[s]; t++)
            slots[w.first[s] + t] = slot_of(&w, s, t);
    put_tokens(&w, w.k, w.v, slots, w.n_tokens, LAYER);
    w.kv_of_q = kt_zeros((size_t)sh.n_q * sizeof *w.kv_of_q);
    for (int h = 0; h < sh.n_q; h++)
        w.kv_of_q[h] = h * sh.n_kv / sh.n_q;
    bytes = be->ops->attn_scratch_bytes(be, sh.n_q, sh.head_dim, sh.ctx, N_SEQS);
    KT_OK(be->ops->alloc(be, bytes, &w.scratch));
    kt_free(slots);
    return w;
}

static void world_free(world *w)
{
    w->be->ops->free(w->be, w->scratch);
    w->be->ops->kv_destroy(w->be, w->kv);
    kt_free(w->k), kt_free(w->v), kt_free(w->q), kt_free(w->tables), kt_free(w->kv_of_q);
}

/* Rows [from, to) of a sequence into out [to - from, n_q * head_dim]. */
typedef struct piece {
    int seq, from, to;
} piece;

static void attend(world *w, const piece *p, int n_pieces, void *out, kern_dtype t)
{
    kern_attn_seq seqs[8];
    int width = w->sh.n_q * w->sh.head_dim, m = 0, max_rows = 0, max_ctx = 0;
    float *q;

    for (int i = 0; i < n_pieces; i++) {
        seqs[i] = (kern_attn_seq){
            .row = m, .n_rows = p[i].to - p[i].from, .ctx = p[i].to, .table = w->table[p[i].seq]};
        m += p[i].to - p[i].from;
        max_rows = seqs[i].n_rows > max_rows ? seqs[i].n_rows : max_rows;
        max_ctx = seqs[i].ctx > max_ctx ? seqs[i].ctx : max_ctx;
    }
    q = kt_zeros((size_t)m * (size_t)(width + 5) * sizeof *q);
    for (int i = 0; i < n_pieces; i++)
        for (int r = 0; r < seqs[i].n_rows; r++)
            memcpy(q + (size_t)(seqs[i].row + r) * (size_t)(width + 5),
                   w->q + (size_t)(w->first[p[i].seq] + p[i].from + r) * (size_t)width,
                   (size_t)width * sizeof *q);
    KT_OK(kern_attn(w->be, &(kern_attn_args){.out = out,
                                             .q = q,
                                             .q_stride = width + 5,
                                             .kv = w->kv,
                                             .layer = LAYER,
                                             .seqs = seqs,
                                             .block_tables = w->tables,
                                             .kv_of_q = w->kv_of_q,
                                             .n_seqs = n_pieces,
                                             .max_rows = max_rows,
                                             .max_ctx = max_ctx,
                                             .n_q = w->sh.n_q,
                                             .head_dim = w->sh.head_dim,
                                             .scale = w->scale,
                                             .window = w->sh.window,
                                             .out_dtype = t,
                                             .scratch = w->scratch}));
    kt_free(q);
}

/* The same for one head of one position, in FP64. */
static void attend_f64(const world *w, int seq, int pos, int head, double *out)
{
    int hd = w->sh.head_dim, kv = w->kv_of_q[head];
    int first = w->sh.window > 0 && pos >= w->sh.window ? pos - w->sh.window + 1 : 0;
    const float *q =
        w->q + ((size_t)(w->first[seq] + pos) * (size_t)w->sh.n_q + (size_t)head) * (size_t)hd;
    double *score = kt_zeros((size_t)(pos + 1) * sizeof *score), max = -INFINITY, sum = 0.0;
    float *scaled = kt_zeros((size_t)hd * sizeof *scaled);

    for (int d = 0; d < hd; d++)
        scaled[d] = q[d] * w->scale;
    if (w->coarse)
        round_to(scaled, (size_t)hd, KERN_DTYPE_BF16);
    for (int j = first; j <= pos; j++) {
        const float *k =
            w->k + ((size_t)(w->first[seq] + j) * (size_t)w->sh.n_kv + (size_t)kv) * (size_t)hd;

        for (int d = 0; d < hd; d++)
            score[j] += (double)scaled[d] * (double)k[d];
        max = fmax(max, score[j]);
    }
    memset(out, 0, (size_t)hd * sizeof *out);
    for (int j = first; j <= pos; j++) {
        const float *v =
            w->v + ((size_t)(w->first[seq] + j) * (size_t)w->sh.n_kv + (size_t)kv) * (size_t)hd;
        double p = exp(score[j] - max);

        sum += p;
        for (int d = 0; d < hd; d++)
            out[d] += p * (double)v[d];
    }
    for (int d = 0; d < hd; d++)
        out[d] /= sum;
    kt_free(score), kt_free(scaled);
}

/* ---- against FP64 ---- */
static const shape shapes[] = {
    /* hd  q  kv  bt  win  dtype           ctx  rows */
    {64, 14, 2, 16, 0, KERN_DTYPE_BF16, 130, 130},
    {64, 14, 2, 16, 0, KERN_DTYPE_BF16, 2000, 1},
    {64, 14, 2, 16, 0, KERN_DTYPE_F32, 777, 40},
    {64, 4, 4, 32, 0, KERN_DTYPE_F16, 300, 33},
    {16, 2, 1, 16, 0, KERN_DTYPE_F32, 1, 1},
    {16, 2, 2, 16, 0, KERN_DTYPE_BF16, 16, 16},
    {16, 3, 1, 32, 0, KERN_DTYPE_F16, 17, 17},
    {32, 8, 2, 16, 0, KERN_DTYPE_BF16, 256, 3},
    {32, 5, 1, 16, 0, KERN_DTYPE_F32, 257, 257},
    {80, 6, 3, 16, 0, KERN_DTYPE_BF16, 100, 21},
    {80, 6, 3, 32, 0, KERN_DTYPE_F16, 513, 2},
    {96, 8, 1, 16, 0, KERN_DTYPE_BF16, 65, 65},
    {128, 8, 1, 16, 0, KERN_DTYPE_BF16, 530, 9},
    {128, 7, 7, 32, 0, KERN_DTYPE_F32, 31, 31},
    {192, 2, 1, 16, 0, KERN_DTYPE_BF16, 48, 48},
    {256, 4, 2, 16, 0, KERN_DTYPE_F16, 70, 12},
    {256, 4, 2, 16, 0, KERN_DTYPE_BF16, 1025, 1},
    {64, 40, 1, 16, 0, KERN_DTYPE_BF16, 90, 5}, /* more vectors than one block has */
    {64, 5, 2, 16, 0, KERN_DTYPE_BF16, 90, 5},  /* uneven: 3 heads and 2 */
    {18, 4, 2, 16, 0, KERN_DTYPE_BF16, 90, 90}, /* padded */
    {8, 4, 2, 16, 0, KERN_DTYPE_F32, 60, 60},
    {64, 8, 2, 16, 1, KERN_DTYPE_BF16, 70, 70}, /* sees itself only */
    {64, 8, 2, 16, 16, KERN_DTYPE_BF16, 300, 300},
    {64, 8, 2, 16, 100, KERN_DTYPE_F32, 600, 280},
    {64, 8, 2, 32, 300, KERN_DTYPE_F16, 1200, 2},
    {64, 8, 2, 16, 5000, KERN_DTYPE_BF16, 100, 100},
};

static void compare_shape(kern_backend *be, const shape *sh, kern_dtype t, kt_rng *rng)
{
    world w = world_new(be, *sh, rng);
    int hd = sh->head_dim, width = sh->n_q * hd;
    piece p[N_SEQS];
    int m = 0;
    double *want;
    char *out;

    for (int s = 0; s < N_SEQS; s++) {
        p[s] = (piece){s, w.ctx[s] > sh->n_rows ? w.ctx[s] - sh->n_rows : 0, w.ctx[s]};
        m += p[s].to - p[s].from;
    }
    want = kt_zeros((size_t)m * (size_t)width * sizeof *want);
    out = kt_zeros((size_t)m * (size_t)width * kern_dtype_bytes(t));
    m = 0;
    for (int s = 0; s < N_SEQS; s++)
        for (int pos = p[s].from; pos < p[s].to; pos++, m++)
            for (int h = 0; h < sh->n_q; h++)
                attend_f64(&w, s, pos, h, want + (size_t)m * (size_t)width + (size_t)(h * hd));
    attend(&w, p, N_SEQS, out, t);
    kt_compare("attn", out, t, want, (size_t)m * (size_t)width, t == KERN_DTYPE_BF16 ? 0x1p-8 : 0.0,
               1e-5 + (w.coarse ? 0x1p-9 : 0.0));
    kt_free(want), kt_free(out);
    world_free(&w);
}

static void test_attn(void **state)
{
    kern_backend *be = kt_open(state, 2);
    kt_rng rng = {10};

    for (size_t i = 0; i < TP_ARRAY_LEN(shapes); i++)
        compare_shape(be, &shapes[i], i % 2 == 0 ? KERN_DTYPE_F32 : KERN_DTYPE_BF16, &rng);
    kt_close(be);
}

/* Every context length around the borders of groups and tiles. */
static void test_attn_every_ctx(void **state)
{
    kern_backend *be = kt_open(state, 1);
    kt_rng rng = {11};

    for (int ctx = 1; ctx < 70; ctx++)
        compare_shape(be,
                      &(shape){16, 2, 1, 16, ctx % 3 == 0 ? 20 : 0, (kern_dtype)(ctx % 3), ctx, 1},
                      KERN_DTYPE_F32, &rng);
    for (int ctx = 250; ctx < 262; ctx++)
        compare_shape(be, &(shape){16, 2, 1, 16, 0, (kern_dtype)(ctx % 3), ctx, 2}, KERN_DTYPE_F32,
                      &rng);
    kt_close(be);
}

static void test_attn_empty(void **state)
{
    kern_backend *be = kt_open(state, 2);
    kt_rng rng = {12};
    world w = world_new(be, (shape){64, 2, 1, 16, 0, KERN_DTYPE_F32, 40, 1}, &rng);
    float out[2 * 64] = {0};
    kern_attn_seq none = {.row = 0, .n_rows = 0, .ctx = 5, .table = 0};
    kern_attn_args a = {.out = out,
                        .q = w.q,
                        .kv = w.kv,
                        .seqs = &none,
                        .block_tables = w.tables,
                        .kv_of_q = w.kv_of_q,
                        .n_q = 2,
                        .head_dim = 64,
                        .max_ctx = 5,
                        .scratch = w.scratch};

    KT_OK(kern_attn(be, &a)); /* no sequences */
    a.n_seqs = 1;
    KT_OK(kern_attn(be, &a)); /* a sequence without rows */
    a.n_q = 0;
    KT_OK(kern_attn(be, &a));
    assert_true(out[0] == 0.0f);
    world_free(&w);
    kt_close(be);
}

/* ---- the same bits however it is computed ---- */
/* Rows [from, to) of sequence 0 in chunks, beside the other sequences when asked. */
static void attend_in_chunks(world *w, const piece *rows, int chunk, int crowd, float *out)
{
    size_t width = (size_t)(w->sh.n_q * w->sh.head_dim);
    float *got = kt_zeros((size_t)(chunk + w->ctx[1] + 1) * width * sizeof *got);

    for (int at = rows->from; at < rows->to; at += chunk) {
        int end = at + chunk < rows->to ? at + chunk : rows->to;
        /* Sequence 0 in the middle, so that its rows are not the first. */
        piece p[3] = {{2, 0, 1}, {0, at, end}, {1, w->ctx[1] - (at % 30), w->ctx[1]}};

        attend(w, crowd ? p : p + 1, crowd ? 3 : 1, got, KERN_DTYPE_F32);
        memcpy(out + (size_t)(at - rows->from) * width, got + (crowd ? width : 0),
               (size_t)(end - at) * width * sizeof *out);
    }
    kt_free(got);
}

/* Whole prompts on one thread are what all else must equal.  Single rows (decode) around the border of a tile and at
 * the end, so that few threads in much company do not take minutes. */
static void invariance_case(void **state, shape sh)
{
    static const int chunks[] = {7, 16, 64, 250};
    kern_backend *be = kt_open(state, 1);
    kt_rng rng = {13};
    size_t width = (size_t)(sh.n_q * sh.head_dim), bytes = (size_t)sh.ctx * width * sizeof(float);
    float *base = kt_zeros(bytes), *got = kt_zeros(bytes);
    world w = world_new(be, sh, &rng);
    const piece all = {0, 0, sh.ctx}, border = {0, 250, 262}, end = {0, sh.ctx - 5, sh.ctx};

    attend_in_chunks(&w, &all, sh.ctx, 0, base);
    world_free(&w);
    kt_close(be);
    for (int threads = 1; threads <= 3; threads++) {
        be = kt_open(state, threads);
        rng.state = 13; /* the same world again */
        w = world_new(be, sh, &rng);
        for (size_t c = threads == 1 ? 0 : 2; c < TP_ARRAY_LEN(chunks); c++) {
            attend_in_chunks(&w, &all, chunks[c], (int)c % 2, got);
            kt_same_bits("attn in chunks", base, got, bytes);
        }
        attend_in_chunks(&w, &all, sh.ctx, 1, got);
        kt_same_bits("attn in a batch", base, got, bytes);
        for (int crowd = 0; crowd < 2; crowd++) {
            attend_in_chunks(&w, &border, 1, crowd, got);
            kt_same_bits("attn of single rows", base + 250 * width, got, 12 * width * sizeof *got);
            attend_in_chunks(&w, &end, 1, crowd, got);
            kt_same_bits("attn of the last rows", base + (size_t)(sh.ctx - 5) * width, got,
                         5 * width * sizeof *got);
        }
        world_free(&w);
        kt_close(be);
    }
    kt_free(base), kt_free(got);
}

static void test_attn_invariance(void **state)
{
    invariance_case(state, (shape){64, 7, 1, 16, 0, KERN_DTYPE_BF16, 600, 0});
    invariance_case(state, (shape){80, 6, 2, 32, 0, KERN_DTYPE_F16, 530, 0});
    invariance_case(state, (shape){16, 4, 4, 16, 0, KERN_DTYPE_F32, 300, 0});
    invariance_case(state, (shape){32, 4, 2, 16, 37, KERN_DTYPE_BF16, 600, 0});
}

/* What lies before the window is not looked at: NaN tokens, and blocks that were given back. */
static void test_attn_before_window(void **state)
{
    enum { CTX = 600, ROWS = 3, WINDOW = 101, FIRST = CTX - ROWS - WINDOW + 1 };
    kern_backend *be = kt_open(state, 2);
    kt_rng rng = {17};
    world w = world_new(be, (shape){32, 4, 2, 16, WINDOW, KERN_DTYPE_BF16, CTX, 0}, &rng);
    size_t bytes = ROWS * 128 * sizeof(float);
    float *a = kt_zeros(bytes), *b = kt_zeros(bytes), nan[2 * 32];
    const piece last = {0, CTX - ROWS, CTX};

    attend(&w, &last, 1, a, KERN_DTYPE_F32);
    for (int i = 0; i < 2 * 32; i++)
        nan[i] = NAN;
    for (int t = 0; t < FIRST; t++)
        put_tokens(&w, nan, nan, &(int32_t){slot_of(&w, 0, t)}, 1, LAYER);
    for (int i = 0; i < FIRST / 16; i++)
        w.tables[i] = -1;
    attend(&w, &last, 1, b, KERN_DTYPE_F32);
    kt_same_bits("attn without what lies before the window", a, b, bytes);
    kt_free(a), kt_free(b);
    world_free(&w);
    kt_close(be);
}

/* Copied blocks hold the same. */
static void test_kv_copy(void **state)
{
    kern_backend *be = kt_open(state, 1);
    kt_rng rng = {14};
    world w = world_new(be, (shape){32, 4, 2, 32, 0, KERN_DTYPE_BF16, 50, 0}, &rng);
    float *a = kt_zeros(50 * 128 * sizeof *a), *b = kt_zeros(50 * 128 * sizeof *b);

    attend(&w, &(piece){0, 0, 50}, 1, a, KERN_DTYPE_F32);
    for (int i = 0; i < 2; i++) { /* blocks 0 and 1 belong to nobody */
        KT_OK(be->ops->kv_copy_block(be, w.kv, i, w.tables[i]));
        w.tables[i] = i;
    }
    attend(&w, &(piece){0, 0, 50}, 1, b, KERN_DTYPE_F32);
    kt_same_bits("attn after kv_copy_block", a, b, 50 * 128 * sizeof *a);
    assert_int_equal(be->ops->kv_copy_block(be, w.kv, 1000, 0), TP_ERR_INVALID);
    kt_free(a), kt_free(b);
    world_free(&w);
    kt_close(be);
}

/* ---- qkv ---- */
typedef struct qkv_shape {
    int m, n_q, n_kv, head_dim, n_freq, norms;
} qkv_shape;

/* Norm and rotation of one head in FP64. */
static void turn_f64(const float *x, const float *norm, const float *cos_sin, const qkv_shape *s,
                     double *out)
{
    double sq = 0.0;

    for (int d = 0; d < s->head_dim; d++)
        sq += (double)x[d] * (double)x[d];
    for (int d = 0; d < s->head_dim; d++)
        out[d] = norm != NULL ? (double)x[d] / sqrt(sq / s->head_dim + 1e-6) * (double)norm[d]
                              : (double)x[d];
    for (int i = 0; i < s->n_freq; i++) {
        double c = (double)cos_sin[2 * i], si = (double)cos_sin[2 * i + 1];
        double a = out[i], b = out[i + s->n_freq];

        out[i] = a * c - b * si;
        out[i + s->n_freq] = b * c + a * si;
    }
}

static void qkv_case(kern_backend *be, const qkv_shape *s, kt_rng *rng)
{
    size_t row = (size_t)((s->n_q + 2 * s->n_kv) * s->head_dim);
    size_t n = (size_t)s->m * row, hd = (size_t)s->head_dim;
    float *qkv = kt_floats(rng, n, 2.0f), *alone = kt_zeros(n * sizeof *alone);
    float *cs = kt_floats(rng, (size_t)(s->m * s->n_freq * 2), 1.0f);
    float *qn = kt_floats(rng, hd, 2.0f), *kn = kt_floats(rng, hd, 2.0f);
    double *want = kt_zeros(n * sizeof *want);
    int32_t *slots = kt_zeros((size_t)s->m * sizeof *slots);
    kern_kv *kv;
    kern_qkv_args a = {.qkv = qkv,
                       .cos_sin = cs,
                       .q_norm = s->norms ? qn : NULL,
                       .k_norm = s->norms ? kn : NULL,
                       .norm_eps = 1e-6f,
                       .m = s->m,
                       .n_q = s->n_q,
                       .n_kv = s->n_kv,
                       .head_dim = s->head_dim,
                       .n_freq = s->n_freq,
                       .kv_index = slots};

    KT_OK(be->ops->kv_create(be,
                             &(kern_kv_desc){.n_layers = 1,
                                             .n_kv = s->n_kv,
                                             .head_dim = s->head_dim,
                                             .block_tokens = 16,
                                             .n_blocks = s->m / 16 + 1},
                             &kv));
    a.kv = kv;
    memcpy(alone, qkv, n * sizeof *qkv);
    for (int r = 0; r < s->m; r++) {
        slots[r] = r;
        for (int h = 0; h < s->n_q + 2 * s->n_kv; h++) {
            size_t at = (size_t)r * row + (size_t)h * hd;

            if (h < s->n_q + s->n_kv)
                turn_f64(qkv + at, h < s->n_q ? a.q_norm : a.k_norm, cs + r * s->n_freq * 2, s,
                         want + at);
            else
                for (size_t d = 0; d < hd; d++)
                    want[at + d] = (double)qkv[at + d];
        }
    }
    KT_OK(kern_qkv(be, &a));
    kt_compare("qkv", qkv, KERN_DTYPE_F32, want, n, 1e-6, 2e-6);
    for (int r = 0; r < s->m; r++) {
        a.qkv = alone + (size_t)r * row;
        a.cos_sin = cs + r * s->n_freq * 2;
        a.kv_index = slots + r;
        a.m = 1;
        KT_OK(kern_qkv(be, &a));
    }
    kt_same_bits("qkv row by row", qkv, alone, n * sizeof *qkv);
    be->ops->kv_destroy(be, kv);
    kt_free(qkv), kt_free(alone), kt_free(cs), kt_free(qn), kt_free(kn), kt_free(want);
    kt_free(slots);
}

static void test_qkv(void **state)
{
    static const qkv_shape cases[] = {
        {0, 4, 2, 64, 32, 1},    {1, 14, 2, 64, 32, 0}, {5, 14, 2, 64, 32, 1},
        {33, 8, 8, 128, 64, 1},  {3, 2, 1, 80, 40, 0},  {40, 5, 2, 18, 9, 1},
        {7, 0, 1, 16, 8, 1},     {9, 3, 3, 96, 24, 0},  {2, 2, 2, 256, 0, 1},
        {200, 14, 2, 64, 32, 1}, {4, 4, 0, 64, 32, 1},
    };
    kern_backend *be = kt_open(state, 2);
    kt_rng rng = {15};

    for (size_t i = 0; i < TP_ARRAY_LEN(cases); i++)
        qkv_case(be, &cases[i], &rng);
    kt_close(be);
}

/* What qkv turned is what attention finds: the cache gets the keys as they are left in the rows. */
static void test_qkv_then_attn(void **state)
{
    kern_backend *be = kt_open(state, 2);
    kt_rng rng = {16};
    enum { M = 40, NQ = 4, NKV = 2, HD = 32, ROW = (NQ + 2 * NKV) * HD };
    world w = world_new(be, (shape){HD, NQ, NKV, 16, 0, KERN_DTYPE_F32, M, M}, &rng);
    float *qkv = kt_floats(&rng, M * ROW, 2.0f), *cs = kt_floats(&rng, M * HD, 1.0f);
    float *norm = kt_floats(&rng, HD, 2.0f), *out = kt_zeros(M * NQ * HD * sizeof *out);
    double *want = kt_zeros(M * NQ * HD * sizeof *want);
    int32_t slots[M];
    kern_qkv_args a = {.qkv = qkv,
                       .cos_sin = cs,
                       .q_norm = norm,
                       .k_norm = norm,
                       .norm_eps = 1e-6f,
                       .m = M,
                       .n_q = NQ,
                       .n_kv = NKV,
                       .head_dim = HD,
                       .n_freq = HD / 2,
                       .kv = w.kv,
                       .layer = LAYER,
                       .kv_index = slots};

    for (int t = 0; t < M; t++)
        slots[t] = slot_of(&w, 0, t);
    KT_OK(kern_qkv(be, &a));
    for (int t = 0; t < M; t++) {
        memcpy(w.q + t * NQ * HD, qkv + t * ROW, NQ * HD * sizeof *w.q);
        memcpy(w.k + t * NKV * HD, qkv + t * ROW + NQ * HD, NKV * HD * sizeof *w.k);
        memcpy(w.v + t * NKV * HD, qkv + t * ROW + (NQ + NKV) * HD, NKV * HD * sizeof *w.v);
    }
    for (int t = 0; t < M; t++) /* from now on nothing is written */
        slots[t] = -1;
    memset(qkv, 0, M * ROW * sizeof *qkv);
    KT_OK(kern_qkv(be, &a));
    for (int t = 0; t < M; t++)
        for (int h = 0; h < NQ; h++)
            attend_f64(&w, 0, t, h, want + (t * NQ + h) * HD);
    attend(&w, &(piece){0, 0, M}, 1, out, KERN_DTYPE_F32);
    kt_compare("attn after qkv", out, KERN_DTYPE_F32, want, M * NQ * HD, 0.0, 3e-5);
    slots[3] = 1 << 20;
    assert_int_equal(kern_qkv(be, &a), TP_ERR_INVALID);
    kt_free(qkv), kt_free(cs), kt_free(norm), kt_free(out), kt_free(want);
    world_free(&w);
    kt_close(be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        KT_EACH(test_attn),
        KT_EACH(test_attn_every_ctx),
        KT_EACH(test_attn_empty),
        KT_EACH_CPU(test_attn_invariance),
        KT_EACH(test_attn_before_window),
        KT_EACH(test_kv_copy),
        KT_EACH(test_qkv),
        KT_EACH(test_qkv_then_attn),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
