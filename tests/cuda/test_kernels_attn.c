/* SPDX-License-Identifier: Apache-2.0 */
/* test_kernels_attn.c - attention on the device against the scalar backend: decode, whole prompts, chunks and mixtures.
 *
 * Every slot of a cache that no row of its sequence sees holds NaN, block table entries wholly before the window are
 * -1, out is poisoned, and each case runs three times with the same scratch: the bits must be the same.
 *
 * Bounds.  Values lie in (-1, 1), so an error of a result is one of its weights, absolute.
 *   generic kernel    FP32 throughout: 1e-5.
 *   tensor cores      weights are rounded to the type of the cache: at most u = 2^-8 (BF16) or 2^-11 (F16) of their
 *                     sum, and 2e-6 for FP32 sums; q is rounded too, which these cases avoid: q has few bits and
 *                     scale * log2(e) is a power of two.  Cases with any q and scale: 8 u.
 * Results in BF16 or F16 add half a unit in their last place.
 */
#include <math.h>
#include <string.h>

#include "device_testing.h"
#include "kernels/convert.h"

enum { LAYERS = 2, LAYER = 1, SEQS_MAX = 24, HEADS_MAX = 48 };

typedef struct seq_of {
    int n_rows, ctx; /* n_rows -1 ends a list */
} seq_of;

typedef struct attn_case {
    int head_dim;
    kern_dtype kv, out;
    const int *runs; /* query heads of each KV head; 0 ends */
    int block_tokens, window, n_sm;
    bool any_q;        /* not chosen so that rounding q is exact; rows of q at odd addresses */
    const int *decode; /* contexts; -1 ends */
    const seq_of *chunks;
} attn_case;

typedef struct world {
    const attn_case *c;
    int n_q, n_kv, n_seqs, n_decode, n_rows, max_rows, max_ctx, n_blocks, n_table;
    int64_t q_stride;
    kern_attn_seq seqs[SEQS_MAX];
    int32_t kv_of_q[HEADS_MAX];
    int32_t *table;       /* [n_table] */
    float *q;             /* [n_rows, q_stride] */
    unsigned char *cache; /* as kern_cuda_attn wants it */
    kern_kv kv;           /* its description; data is the device's */
    kern_kv *ref_kv;
} world;

/* ---- a world: sequences, cache, q ---- */
static int first_seen(const world *w, const kern_attn_seq *s)
{
    int pos = s->ctx - s->n_rows;

    return w->c->window > 0 && pos >= w->c->window ? pos - w->c->window + 1 : 0;
}

static void add_seq(world *w, int n_rows, int ctx)
{
    kern_attn_seq *s = &w->seqs[w->n_seqs];

    assert_true(w->n_seqs < SEQS_MAX);
    *s = (kern_attn_seq){.row = w->n_rows, .n_rows = n_rows, .ctx = ctx, .table = w->n_table};
    w->n_rows += n_rows + (w->n_seqs % 3 == 0 ? 1 : 0); /* some rows belong to nobody */
    w->n_table += (ctx + w->c->block_tokens - 1) / w->c->block_tokens;
    w->max_ctx = ctx > w->max_ctx ? ctx : w->max_ctx;
    w->n_seqs++;
}

static void add_seqs(world *w)
{
    const attn_case *c = w->c;

    for (int i = 0; c->decode != NULL && c->decode[i] >= 0; i++, w->n_decode++)
        add_seq(w, 1, c->decode[i]);
    for (int i = 0; c->chunks != NULL && c->chunks[i].n_rows >= 0; i++) {
        add_seq(w, c->chunks[i].n_rows, c->chunks[i].ctx);
        if (c->chunks[i].n_rows > w->max_rows)
            w->max_rows = c->chunks[i].n_rows;
    }
    for (; c->runs[w->n_kv] > 0; w->n_kv++)
        for (int i = 0; i < c->runs[w->n_kv]; i++)
            w->kv_of_q[w->n_q++] = w->n_kv;
}

static void add_tables(world *w, kt_rng *rng)
{
    w->n_blocks = w->n_table + 1;
    w->table = kt_zeros((size_t)w->n_table * sizeof *w->table);
    for (int i = 0; i < w->n_table; i++) { /* a random order of 1 .. n_table */
        int j = kt_below(rng, i + 1);

        w->table[i] = w->table[j];
        w->table[j] = i + 1;
    }
    for (int i = 0; i < w->n_seqs; i++)
        for (int b = 0; b < first_seen(w, &w->seqs[i]) / w->c->block_tokens; b++)
            w->table[w->seqs[i].table + b] = -1;
}

static void describe_cache(world *w)
{
    const attn_case *c = w->c;
    int64_t tile = (int64_t)c->block_tokens * c->head_dim;

    w->kv.desc = (kern_kv_desc){.n_layers = LAYERS,
                                .n_kv = w->n_kv,
                                .head_dim = c->head_dim,
                                .block_tokens = c->block_tokens,
                                .n_blocks = w->n_blocks,
                                .dtype = c->kv};
    w->kv.head_stride = tile;
    w->kv.v_offset = tile * w->n_kv;
    w->kv.block_stride = 2 * tile * w->n_kv;
    w->kv.layer_stride = w->kv.block_stride * w->n_blocks;
}

/* One token's keys (values) of all heads, random and as the cache rounds them, into x [n_kv, head_dim] and the cache of
 * the device. */
static void make_token(world *w, kt_rng *rng, int is_v, int slot, float *x)
{
    const attn_case *c = w->c;
    size_t eb = kern_dtype_bytes(c->kv);

    for (int h = 0; h < w->n_kv; h++)
        for (int d = 0; d < c->head_dim; d++) {
            int64_t at = LAYER * w->kv.layer_stride + slot / c->block_tokens * w->kv.block_stride +
                         is_v * w->kv.v_offset + h * w->kv.head_stride +
                         slot % c->block_tokens * c->head_dim + d;
            unsigned char *to = w->cache + (size_t)at * eb;

            kern_store_f32(to, c->kv, kt_unit(rng));
            x[h * c->head_dim + d] = kern_load_f32(to, c->kv);
        }
}

static void fill_cache(world *w, kt_rng *rng)
{
    const attn_case *c = w->c;
    int width = w->n_kv * c->head_dim;
    size_t bytes = (size_t)(w->kv.layer_stride * LAYERS) * kern_dtype_bytes(c->kv);
    float *row = kt_zeros((size_t)(2 * width) * sizeof *row);

    w->cache = kt_zeros(bytes);
    memset(w->cache, 0xff, bytes);
    KT_OK(dt_ref->ops->kv_create(dt_ref, &w->kv.desc, &w->ref_kv));
    for (int i = 0; i < w->n_seqs; i++) {
        const kern_attn_seq *s = &w->seqs[i];

        for (int t = first_seen(w, s); t < s->ctx; t++) {
            int32_t slot =
                w->table[s->table + t / c->block_tokens] * c->block_tokens + t % c->block_tokens;

            make_token(w, rng, 0, slot, row);
            make_token(w, rng, 1, slot, row + width);
            KT_OK(kern_qkv(dt_ref, &(kern_qkv_args){.qkv = row,
                                                    .m = 1,
                                                    .n_kv = w->n_kv,
                                                    .head_dim = c->head_dim,
                                                    .kv = w->ref_kv,
                                                    .layer = LAYER,
                                                    .kv_index = &slot}));
        }
    }
    kt_free(row);
    w->kv.data = dt_in(w->cache, bytes, 0);
}

static world world_new(const attn_case *c, kt_rng *rng)
{
    world w = {.c = c};

    add_seqs(&w);
    add_tables(&w, rng);
    describe_cache(&w);
    fill_cache(&w, rng);
    w.q_stride = (int64_t)w.n_q * c->head_dim + (c->any_q ? 3 : 2);
    w.q = kt_floats(rng, (size_t)(w.n_rows * w.q_stride), 4.0f);
    for (int64_t i = 0; !c->any_q && i < w.n_rows * w.q_stride; i++)
        w.q[i] = roundf(w.q[i] * 16.0f) / 16.0f; /* 7 bits */
    return w;
}

static void world_free(world *w)
{
    dt_ref->ops->kv_destroy(dt_ref, w->ref_kv);
    kt_free(w->table), kt_free(w->q), kt_free(w->cache);
    dt_release();
}

/* ---- a case ---- */
static kern_attn_args args_of(const world *w)
{
    const attn_case *c = w->c;
    /* q k^T of random numbers has a deviation of 1.33 sqrt(head_dim) */
    float exact = 1.0f / (float)(1 << (int)lroundf(log2f(sqrtf((float)c->head_dim) / 1.4427f)));

    return (kern_attn_args){.q = w->q,
                            .q_stride = w->q_stride,
                            .kv = w->ref_kv,
                            .layer = LAYER,
                            .seqs = w->seqs,
                            .block_tables = w->table,
                            .kv_of_q = w->kv_of_q,
                            .n_seqs = w->n_seqs,
                            .n_q = w->n_q,
                            .head_dim = c->head_dim,
                            .n_decode = w->n_decode,
                            .max_rows = w->max_rows,
                            .max_ctx = w->max_ctx,
                            .scale = c->any_q ? 1.0f / sqrtf((float)c->head_dim)
                                              : exact / 1.4426950408889634f,
                            .window = c->window,
                            .out_dtype = c->out};
}

static bool on_tensor_cores(const attn_case *c)
{
    return c->kv != KERN_DTYPE_F32 && c->head_dim >= 64;
}

static double bound_of(const attn_case *c)
{
    double bound = on_tensor_cores(c) ? dt_rounding(c->kv) * (c->any_q ? 8.0 : 1.0) + 2e-6 : 1e-5;

    return bound + (c->out == KERN_DTYPE_F32 ? 0.0 : dt_rounding(c->out));
}

static const char *op_of(const attn_case *c)
{
    if (!on_tensor_cores(c))
        return "attn generic";
    if (c->chunks == NULL)
        return c->kv == KERN_DTYPE_BF16 ? "attn decode bf16" : "attn decode f16";
    if (c->decode == NULL)
        return c->kv == KERN_DTYPE_BF16 ? "attn prefill bf16" : "attn prefill f16";
    return c->kv == KERN_DTYPE_BF16 ? "attn mixed bf16" : "attn mixed f16";
}

static void run_case(const attn_case *c, kt_rng *rng)
{
    world w = world_new(c, rng);
    size_t n = (size_t)(w.n_rows * w.n_q * c->head_dim), bytes = n * kern_dtype_bytes(c->out);
    size_t scratch_bytes =
        kern_cuda_attn_scratch_bytes(w.n_q, c->head_dim, w.max_ctx, w.n_seqs, c->n_sm);
    void *want = kt_zeros(bytes), *got = kt_zeros(bytes), *again = kt_zeros(bytes);
    void *zeros = kt_zeros(scratch_bytes), *score = kt_zeros((size_t)(w.max_ctx + 256) * 4);
    const char *what =
        dt_case("head_dim %d, %d/%d heads, blocks of %d, window %d, %d + %d sequences", c->head_dim,
                w.n_q, w.n_kv, c->block_tokens, c->window, w.n_decode, w.n_seqs - w.n_decode);
    kern_attn_args a = args_of(&w);

    memset(want, 0xff, bytes);
    a.out = want;
    a.scratch = score;
    KT_OK(kern_attn(dt_ref, &a));

    a.q = dt_in(w.q, (size_t)(w.n_rows * w.q_stride) * sizeof *w.q, 0);
    a.seqs = dt_in(w.seqs, (size_t)w.n_seqs * sizeof *w.seqs, 0);
    a.block_tables = dt_in(w.table, (size_t)w.n_table * sizeof *w.table, 0);
    a.kv_of_q = dt_in(w.kv_of_q, (size_t)w.n_q * sizeof *w.kv_of_q, 0);
    a.kv = &w.kv;
    a.scratch = dt_in(zeros, scratch_bytes, 0);
    for (int run = 0; run < 3; run++) {
        a.out = dt_out(bytes, 0);
        KT_OK(kern_cuda_attn(&a, c->n_sm, dt_stream()));
        dt_read(run == 0 ? got : again, a.out, bytes);
        if (run > 0)
            dt_same_bits("attn again", what, again, got, bytes);
    }
    dt_close_to(op_of(c), what, got, want, c->out, n, bound_of(c), 1.0);
    kt_free(want), kt_free(got), kt_free(again), kt_free(zeros), kt_free(score);
    world_free(&w);
}

static void run_cases(const attn_case *c, size_t n)
{
    kt_rng rng = {77};

    for (size_t i = 0; i < n; i++)
        run_case(&c[i], &rng);
}

/* ---- tables ---- */
#define F32  KERN_DTYPE_F32
#define BF16 KERN_DTYPE_BF16
#define F16  KERN_DTYPE_F16

static const int ONE[] = {1, 0}, TWO[] = {2, 0}, EIGHT[] = {8, 0}, GQA[] = {4, 4, 0};
static const int MHA[] = {1, 1, 1, 0}, UNEVEN[] = {7, 1, 0}, MANY[] = {17, 0}, MORE[] = {33, 3, 0};

static const int EDGES[] = {0, 1, 15, 16, 17, 63, 64, 65, -1}, SHORT[] = {40, 0, 5, -1};
static const int LONG[] = {1000, -1}, LONGEST[] = {5000, 3, -1}, SOME[] = {300, 0, 64, 129, -1};
static const int CROWD[] = {5,  100, 64, 1,   0,  70, 33, 16, 250, 8,
                            90, 2,   31, 128, 12, 77, 3,  65, -1};

static const seq_of PROMPT[] = {{70, 70}, {-1, 0}}, WIDE[] = {{150, 150}, {-1, 0}};
static const seq_of CHUNKS[] = {{33, 100}, {0, 5}, {1, 1}, {65, 65}, {-1, 0}};
static const seq_of TAIL[] = {{3, 200}, {130, 300}, {-1, 0}};
static const seq_of FAR[] = {{20, 1100}, {-1, 0}};

static void test_generic(void **state)
{
    static const attn_case cases[] = {
        /* hd  kv    out   runs    bt  win  sm  any_q  decode  chunks */
        {4, F32, F32, GQA, 16, 0, 4, true, EDGES, NULL},
        {8, BF16, F32, UNEVEN, 16, 0, 4, true, EDGES, CHUNKS},
        {16, F32, BF16, MHA, 32, 20, 4, true, SHORT, CHUNKS},
        {32, F16, F16, TWO, 16, 0, 4, true, SOME, PROMPT},
        {64, F32, F32, ONE, 48, 0, 4, true, SHORT, CHUNKS},
        {80, F32, F32, TWO, 16, 7, 4, true, SHORT, NULL},
        {96, F32, F32, ONE, 16, 0, 4, true, SHORT, NULL},
        {128, F32, BF16, TWO, 16, 64, 4, true, SHORT, CHUNKS},
        {192, F32, F32, ONE, 16, 0, 4, true, SHORT, NULL},
        {256, F32, F32, ONE, 16, 0, 4, true, SHORT, NULL},
    };

    (void)state;
    run_cases(cases, TP_ARRAY_LEN(cases));
}

static void test_decode(void **state)
{
    static const attn_case cases[] = {
        {64, BF16, F32, EIGHT, 16, 0, 4, false, EDGES, NULL},
        {64, F16, F16, GQA, 32, 0, 4, false, EDGES, NULL},
        {80, BF16, BF16, UNEVEN, 16, 0, 4, false, SOME, NULL},
        {96, F16, F32, MHA, 16, 0, 4, false, SOME, NULL},
        {128, BF16, BF16, EIGHT, 16, 0, 4, true, EDGES, NULL},
        {128, F16, F32, EIGHT, 48, 0, 4, false, LONG, NULL},
        {192, BF16, F32, TWO, 16, 0, 4, false, SOME, NULL},
        {256, F16, F32, TWO, 16, 0, 4, false, SOME, NULL},
        {256, BF16, F32, ONE, 32, 0, 4, true, SHORT, NULL},
        {64, BF16, F32, MANY, 16, 0, 4, false, SOME, NULL}, /* more heads than rows of a product */
        {64, F16, F32, MORE, 16, 0, 6, true, SHORT, NULL},
        {64, BF16, F32, GQA, 16, 0, 2, false, CROWD, NULL},       /* several sequences per block */
        {64, F16, F32, ONE, 16, 0, 40, false, CROWD, NULL},       /* a block per tile */
        {64, BF16, F32, EIGHT, 16, 0, 132, false, LONGEST, NULL}, /* joins of joins */
        {64, F16, F32, ONE, 32, 0, 1, false, LONGEST, NULL},      /* long pieces */
        {64, BF16, F32, TWO, 16, 1, 4, false, EDGES, NULL},       /* sees itself only */
        {64, F16, F32, TWO, 16, 100, 4, false, SOME, NULL},
        {128, BF16, F32, EIGHT, 32, 300, 132, false, LONG, NULL},
        {64, BF16, F32, TWO, 16, 6000, 132, true, LONG, NULL},
    };

    (void)state;
    run_cases(cases, TP_ARRAY_LEN(cases));
}

static void test_prefill(void **state)
{
    static const attn_case cases[] = {
        {64, BF16, F32, GQA, 16, 0, 4, false, NULL, CHUNKS},
        {64, F16, F16, TWO, 32, 0, 4, true, NULL, WIDE},
        {80, F16, F32, TWO, 16, 0, 4, false, NULL, CHUNKS},
        {96, BF16, BF16, UNEVEN, 16, 0, 4, false, NULL, PROMPT},
        {128, BF16, F32, MHA, 16, 0, 4, false, NULL, CHUNKS},
        {128, F16, F32, ONE, 48, 0, 4, true, NULL, WIDE},
        {192, BF16, F32, ONE, 16, 0, 4, false, NULL, CHUNKS},
        {256, F16, F32, ONE, 16, 0, 4, false, NULL, CHUNKS},
        {256, BF16, BF16, ONE, 32, 0, 4, true, NULL, PROMPT},
        {64, BF16, F32, ONE, 16, 0, 4, false, NULL, TAIL},
        {64, BF16, F32, ONE, 16, 0, 4, false, NULL, FAR},
        {128, F16, F32, ONE, 32, 0, 4, false, NULL, FAR},
        {80, BF16, F32, ONE, 16, 700, 4, false, NULL, FAR},
        {64, F16, F32, TWO, 16, 1, 4, false, NULL, PROMPT}, /* sees itself only */
        {64, BF16, F32, ONE, 16, 50, 4, false, NULL, TAIL},
        {128, F16, F32, ONE, 16, 100, 4, false, NULL, TAIL},
    };

    (void)state;
    run_cases(cases, TP_ARRAY_LEN(cases));
}

static void test_mixed(void **state)
{
    static const attn_case cases[] = {
        {64, BF16, F32, GQA, 16, 0, 4, false, SOME, CHUNKS},
        {128, BF16, BF16, EIGHT, 16, 0, 132, true, SHORT, PROMPT},
        {80, F16, F32, UNEVEN, 32, 40, 4, false, SOME, CHUNKS},
    };

    (void)state;
    run_cases(cases, TP_ARRAY_LEN(cases));
}

/* The splits of a graph are laid out for the largest batch: the same call with other lengths, on the same scratch. */
static void test_lengths_change(void **state)
{
    static const int first[] = {200, 700, 0, -1};
    const attn_case c = {64, BF16, F32, EIGHT, 16, 0, 132, false, first, NULL};
    kt_rng rng = {78};
    world w = world_new(&c, &rng);
    size_t n = (size_t)(w.n_rows * w.n_q * 64), bytes = n * 4;
    size_t scratch_bytes = kern_cuda_attn_scratch_bytes(w.n_q, 64, w.max_ctx, w.n_seqs, c.n_sm);
    void *want = kt_zeros(bytes), *got = kt_zeros(bytes), *zeros = kt_zeros(scratch_bytes);
    kern_attn_args ref = args_of(&w), a = ref;

    (void)state;
    ref.scratch = kt_zeros((size_t)(w.max_ctx + 256) * 4);
    a.q = dt_in(w.q, (size_t)(w.n_rows * w.q_stride) * sizeof *w.q, 0);
    a.block_tables = dt_in(w.table, (size_t)w.n_table * sizeof *w.table, 0);
    a.kv_of_q = dt_in(w.kv_of_q, (size_t)w.n_q * sizeof *w.kv_of_q, 0);
    a.kv = &w.kv;
    a.scratch = dt_in(zeros, scratch_bytes, 0);
    for (int run = 0; run < 4; run++) {
        a.seqs = dt_in(w.seqs, (size_t)w.n_seqs * sizeof *w.seqs, 0);
        a.out = dt_out(bytes, 0);
        memset(want, 0xff, bytes);
        ref.out = want;
        KT_OK(kern_attn(dt_ref, &ref));
        KT_OK(kern_cuda_attn(&a, c.n_sm, dt_stream()));
        dt_read(got, a.out, bytes);
        dt_close_to("attn decode bf16", dt_case("other lengths %d", run), got, want, F32, n,
                    bound_of(&c), 1.0);
        w.seqs[0].ctx -= 47;
        w.seqs[1].ctx = run == 0 ? 0 : run == 1 ? 650 : 64;
    }
    kt_free(want), kt_free(got), kt_free(zeros), kt_free(ref.scratch);
    world_free(&w);
}

static void test_empty(void **state)
{
    const attn_case c = {64, BF16, F32, TWO, 16, 0, 4, false, SHORT, NULL};
    kt_rng rng = {79};
    world w = world_new(&c, &rng);
    kern_attn_args a = args_of(&w);
    float out[4], nan[4];

    (void)state;
    memset(nan, 0xff, sizeof nan);
    a.kv = &w.kv;
    a.out = dt_out(sizeof out, 0);
    a.n_seqs = a.n_decode = 0;
    KT_OK(kern_cuda_attn(&a, 4, dt_stream()));
    a.n_seqs = 1;
    a.n_q = 0;
    KT_OK(kern_cuda_attn(&a, 4, dt_stream()));
    dt_read(out, a.out, sizeof out);
    dt_same_bits("attn nothing", "nothing to do", out, nan, sizeof out);
    a.n_q = 2;
    a.head_dim = 264;
    assert_int_equal(kern_cuda_attn(&a, 4, dt_stream()), TP_ERR_INVALID);
    world_free(&w);
}

static void test_supports(void **state)
{
    static const int dims[] = {4, 8, 16, 32, 64, 80, 96, 128, 192, 256};

    (void)state;
    for (size_t i = 0; i < TP_ARRAY_LEN(dims); i++)
        for (int t = F32; t <= F16; t++)
            assert_true(kern_cuda_attn_supports(dims[i], (kern_dtype)t));
    assert_false(kern_cuda_attn_supports(0, BF16));
    assert_false(kern_cuda_attn_supports(72, BF16));
    assert_false(kern_cuda_attn_supports(72, F32));
    assert_false(kern_cuda_attn_supports(320, BF16));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_supports),       cmocka_unit_test(test_empty),
        cmocka_unit_test(test_generic),        cmocka_unit_test(test_decode),
        cmocka_unit_test(test_lengths_change), cmocka_unit_test(test_prefill),
        cmocka_unit_test(test_mixed),
    };

    return cmocka_run_group_tests(tests, dt_setup, dt_teardown);
}
