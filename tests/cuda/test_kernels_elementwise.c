/* SPDX-License-Identifier: Apache-2.0 */
/* test_kernels_elementwise.c - kernels that move or map numbers, against the scalar backend, over tables of shapes:
 * empty, single, odd, just beside a vector or a block, rows that no vector can read.
 *
 * Copies have equal bits.  Numbers may differ from the scalar backend by the order of FP32 sums and the last bit of
 * exp, and then by one more rounding to the type of the result: bounds are relative.
 */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "device_testing.h"
#include "kernels/convert.h"

static const kern_dtype DTYPES[] = {KERN_DTYPE_F32, KERN_DTYPE_BF16, KERN_DTYPE_F16};

/* Random numbers in any type. */
static void *numbers(kt_rng *rng, size_t n, kern_dtype t, float scale)
{
    size_t eb = kern_dtype_bytes(t);
    unsigned char *p = kt_zeros(n * eb);

    for (size_t i = 0; i < n; i++)
        kern_store_f32(p + i * eb, t, kt_unit(rng) * scale);
    return p;
}

static void *poisoned(size_t bytes)
{
    void *p = kt_zeros(bytes);

    memset(p, 0xff, bytes);
    return p;
}

/* ---- embed ---- */
static void embed_case(kt_rng *rng, kern_dtype t, int m, int k, size_t offset)
{
    enum { N = 37, FIRST = 1000 };
    size_t eb = kern_dtype_bytes(t), ld = ((size_t)k + 7) / 8 * 8, out_bytes = (size_t)(m * k) * 4;
    kern_weight_desc desc = {.n = N, .k = k, .dtype = t, .layout = KERN_LAYOUT_ROWS};
    unsigned char *rows = numbers(rng, (size_t)(N * k), t, 1.0f), *padded = poisoned(N * ld * eb);
    int32_t *ids = kt_zeros((size_t)m * sizeof *ids);
    float *want = poisoned(out_bytes), *got = poisoned(out_bytes);
    kern_embed_args a = {.out = want, .ids = ids, .m = m, .vocab_first = FIRST};
    kern_weight *ref_table, table = {.desc = desc, .ld = (int64_t)ld};

    for (int i = 0; i < m; i++)
        ids[i] = i % 5 == 4 ? -1 : i % 5 == 3 ? FIRST + N : FIRST + kt_below(rng, N);
    for (size_t i = 0; i < N; i++)
        memcpy(padded + i * ld * eb, rows + i * (size_t)k * eb, (size_t)k * eb);
    KT_OK(dt_ref->ops->weight_create(dt_ref, &desc, &ref_table));
    KT_OK(dt_ref->ops->weight_put(
        dt_ref, ref_table,
        &(kern_weight_rows){
            .n_rows = N, .src = rows, .src_stride = (size_t)k * eb, .src_dtype = t}));
    a.table = ref_table;
    KT_OK(kern_embed(dt_ref, &a));

    table.data = dt_in(padded, N * ld * eb, 0);
    a.table = &table;
    a.ids = dt_in(ids, (size_t)m * sizeof *ids, 0);
    a.out = dt_out(out_bytes, offset);
    KT_OK(kern_cuda_embed(&a, dt_stream()));
    dt_read(got, a.out, out_bytes);
    dt_same_bits("embed", dt_case("embed %s m %d k %d", kern_dtype_name(t), m, k), got, want,
                 out_bytes);
    dt_ref->ops->weight_destroy(dt_ref, ref_table);
    kt_free(rows), kt_free(padded), kt_free(ids), kt_free(want), kt_free(got);
    dt_release();
}

static void test_embed(void **state)
{
    static const int ks[] = {1, 7, 8, 56, 100, 1024, 1032, 3001};
    kt_rng rng = {1};

    (void)state;
    for (size_t t = 0; t < TP_ARRAY_LEN(DTYPES); t++) {
        for (size_t i = 0; i < TP_ARRAY_LEN(ks); i++)
            embed_case(&rng, DTYPES[t], 6, ks[i], 0);
        embed_case(&rng, DTYPES[t], 0, 64, 0);
        embed_case(&rng, DTYPES[t], 1, 64, 4);
    }
}

/* ---- rmsnorm ---- */
static void rmsnorm_case(kt_rng *rng, kern_dtype t, int m, int dim, bool add, size_t offset)
{
    size_t n = (size_t)m * (size_t)dim, eb = kern_dtype_bytes(t);
    float *res = kt_floats(rng, n, 3.0f), *more = kt_floats(rng, n, 3.0f);
    float *weight = kt_floats(rng, (size_t)dim, 2.0f), *res_got = kt_zeros(n * 4);
    void *want = poisoned(n * eb), *got = poisoned(n * eb);
    kern_rmsnorm_args a = {.m = m, .dim = dim, .eps = 1e-6f, .out_dtype = t}, ref;
    const char *what =
        dt_case("%s m %d dim %d%s", kern_dtype_name(t), m, dim, add ? " with add" : "");

    a.residual = dt_in(res, n * 4, offset);
    a.add = add ? dt_in(more, n * 4, 0) : NULL;
    a.weight = dt_in(weight, (size_t)dim * 4, 0);
    a.out = dt_out(n * eb, 0);
    KT_OK(kern_cuda_rmsnorm(&a, dt_stream()));
    dt_read(got, a.out, n * eb);
    dt_read(res_got, a.residual, n * 4);
    ref = a;
    ref.residual = res;
    ref.add = add ? more : NULL;
    ref.weight = weight;
    ref.out = want;
    KT_OK(kern_rmsnorm(dt_ref, &ref));
    dt_same_bits("rmsnorm residual", what, res_got, res, n * 4);
    /* The scalar backend sums in one chain: its error grows with the row. */
    dt_close_to(t == KERN_DTYPE_F32 ? "rmsnorm float32" : "rmsnorm 16 bits", what, got, want, t, n,
                8e-6 + (t == KERN_DTYPE_F32 ? 0 : 2 * dt_rounding(t)), 0x1p-14);
    kt_free(res), kt_free(more), kt_free(weight), kt_free(res_got), kt_free(want), kt_free(got);
    dt_release();
}

static void test_rmsnorm(void **state)
{
    static const int dims[] = {1,    2,    4,    7,    56,   64,   100,   127,   130,  1000,
                               1024, 3584, 4096, 5120, 8192, 8200, 16384, 16388, 20001};
    kt_rng rng = {2};

    (void)state;
    for (size_t i = 0; i < TP_ARRAY_LEN(dims); i++)
        for (size_t t = 0; t < TP_ARRAY_LEN(DTYPES); t++)
            rmsnorm_case(&rng, DTYPES[t], 2, dims[i], (i + t) % 2 == 0, 0);
    rmsnorm_case(&rng, KERN_DTYPE_BF16, 0, 64, true, 0);
    rmsnorm_case(&rng, KERN_DTYPE_BF16, 5, 64, true, 4); /* no vector fits */
    rmsnorm_case(&rng, KERN_DTYPE_F32, 3, 4096, false, 8);
}

/* ---- RoPE table ---- */
static void test_rope_table(void **state)
{
    static const int shapes[][2] = {{0, 8}, {3, 0}, {1, 1}, {5, 3}, {7, 32}, {9, 64}, {300, 20}};
    kt_rng rng = {3};

    (void)state;
    for (size_t i = 0; i < TP_ARRAY_LEN(shapes); i++) {
        int m = shapes[i][0], f = shapes[i][1];
        size_t n = (size_t)(m * f) * 2;
        int32_t *pos = kt_zeros((size_t)m * sizeof *pos);
        float *inv = kt_zeros((size_t)f * sizeof *inv), *want = kt_zeros(n * 4);
        float *got = kt_zeros(n * 4);
        kern_rope_table_args a = {.m = m, .n_freq = f, .amplitude = 1.25f}, ref;

        for (int j = 0; j < m; j++)
            pos[j] = j == 0 ? 0 : j == 1 ? 4000000 : kt_below(&rng, 131072);
        for (int j = 0; j < f; j++)
            inv[j] = powf(10000.0f, -(float)j / (float)f);
        a.pos = dt_in(pos, (size_t)m * 4, 0);
        a.inv_freq = dt_in(inv, (size_t)f * 4, 0);
        a.cos_sin = dt_out(n * 4, 0);
        KT_OK(kern_cuda_rope_table(&a, dt_stream()));
        dt_read(got, a.cos_sin, n * 4);
        ref = a;
        ref.pos = pos;
        ref.inv_freq = inv;
        ref.cos_sin = want;
        KT_OK(kern_rope_table(dt_ref, &ref));
        dt_close_to("rope_table", dt_case("m %d n_freq %d", m, f), got, want, KERN_DTYPE_F32, n,
                    1.3e-7, 1.0);
        kt_free(pos), kt_free(inv), kt_free(want), kt_free(got);
        dt_release();
    }
}

/* ---- silu_mul ---- */
static void silu_case(kt_rng *rng, kern_dtype t, int m, int n, size_t offset)
{
    size_t count = (size_t)(m * n), eb = kern_dtype_bytes(t);
    float *in = kt_floats(rng, 2 * count, 20.0f);
    void *want = poisoned(count * eb), *got = poisoned(count * eb);
    kern_silu_mul_args a = {.m = m, .n = n, .out_dtype = t}, ref;

    if (count > 3) {
        in[0] = 0.0f, in[1] = -1000.0f, in[2] = 1000.0f;
    }
    a.in = dt_in(in, 2 * count * 4, offset);
    a.out = dt_out(count * eb, offset);
    KT_OK(kern_cuda_silu_mul(&a, dt_stream()));
    dt_read(got, a.out, count * eb);
    ref = a;
    ref.in = in;
    ref.out = want;
    KT_OK(kern_silu_mul(dt_ref, &ref));
    dt_close_to("silu_mul", dt_case("%s m %d n %d", kern_dtype_name(t), m, n), got, want, t, count,
                6e-7 + (t == KERN_DTYPE_F32 ? 0 : 2 * dt_rounding(t)), 0x1p-14);
    kt_free(in), kt_free(want), kt_free(got);
    dt_release();
}

static void test_silu_mul(void **state)
{
    static const int ns[] = {1, 7, 8, 56, 1000, 1024, 1032, 3001};
    kt_rng rng = {4};

    (void)state;
    for (size_t t = 0; t < TP_ARRAY_LEN(DTYPES); t++) {
        for (size_t i = 0; i < TP_ARRAY_LEN(ns); i++)
            silu_case(&rng, DTYPES[t], 3, ns[i], 0);
        silu_case(&rng, DTYPES[t], 0, 64, 0);
        silu_case(&rng, DTYPES[t], 4, 0, 0);
        silu_case(&rng, DTYPES[t], 2, 64, 4);
    }
}

/* ---- gather, take, scatter ---- */
static void test_gather(void **state)
{
    static const int shapes[][2] = {{0, 8}, {3, 0}, {1, 1}, {4, 7}, {5, 56}, {9, 1024}, {2, 3001}};
    enum { ROWS = 11 };
    kt_rng rng = {5};

    (void)state;
    for (size_t i = 0; i < TP_ARRAY_LEN(shapes); i++) {
        int n = shapes[i][0], dim = shapes[i][1];
        size_t bytes = (size_t)(n * dim) * 4;
        float *in = kt_floats(&rng, (size_t)(ROWS * dim), 1.0f), *want = poisoned(bytes);
        float *got = poisoned(bytes);
        int32_t idx[16];
        kern_gather_args a = {.n = n, .dim = dim}, ref;

        for (int j = 0; j < n; j++)
            idx[j] = kt_below(&rng, ROWS);
        a.in = dt_in(in, (size_t)(ROWS * dim) * 4, 0);
        a.idx = dt_in(idx, sizeof idx, 0);
        a.out = dt_out(bytes, 0);
        KT_OK(kern_cuda_gather(&a, dt_stream()));
        dt_read(got, a.out, bytes);
        ref = a;
        ref.in = in;
        ref.idx = idx;
        ref.out = want;
        KT_OK(kern_gather(dt_ref, &ref));
        dt_same_bits("gather", dt_case("gather n %d dim %d", n, dim), got, want, bytes);
        kt_free(in), kt_free(want), kt_free(got);
        dt_release();
    }
}

static void test_words(void **state)
{
    static const int ns[] = {0, 1, 31, 256, 257, 1000};
    kt_rng rng = {6};

    (void)state;
    for (size_t i = 0; i < TP_ARRAY_LEN(ns); i++) {
        size_t n = (size_t)ns[i], bytes = n * 4;
        uint32_t *in = kt_zeros(bytes), *want = kt_zeros(bytes), *got = kt_zeros(bytes);
        int32_t *idx = kt_zeros(bytes);
        kern_take_args take = {.n = ns[i]};
        kern_scatter_args scatter = {.n = ns[i]};

        for (size_t j = 0; j < n; j++) {
            in[j] = kt_u32(&rng);
            idx[j] = j % 7 == 3 ? -1 : (int32_t)(n - 1 - j);
        }
        for (size_t j = 0; j < n; j++)
            want[j] = idx[j] < 0 ? 0xffffffffu : in[idx[j]];
        take.in = scatter.in = dt_in(in, bytes, 0);
        take.idx = scatter.idx = dt_in(idx, bytes, 0);
        take.out = dt_out(bytes, 0);
        scatter.out = dt_out(bytes, 0);
        KT_OK(kern_cuda_take(&take, dt_stream()));
        KT_OK(kern_cuda_scatter(&scatter, dt_stream()));
        dt_read(got, take.out, bytes);
        dt_same_bits("take", dt_case("take %d", ns[i]), got, want, bytes);
        memset(want, 0xff, bytes);
        for (size_t j = 0; j < n; j++)
            if (idx[j] >= 0)
                want[idx[j]] = in[j];
        dt_read(got, scatter.out, bytes);
        dt_same_bits("scatter", dt_case("scatter %d", ns[i]), got, want, bytes);
        kt_free(in), kt_free(want), kt_free(got), kt_free(idx);
        dt_release();
    }
}

/* ---- convert ---- */
/* Infinities, subnormal numbers, overflow to either type, ties. */
static const uint32_t SPECIAL[] = {0x00000000, 0x80000000, 0x7f800000, 0xff800000, 0x7fc00000,
                                   0x00000001, 0x80012345, 0x007fffff, 0x33000000, 0x33000001,
                                   0x33800000, 0x387fc000, 0x38800000, 0x477fe000, 0x477fefff,
                                   0x477ff000, 0x7f7fffff, 0x3f808000, 0x3f818000, 0x3f80c000};

static void convert_case(kt_rng *rng, kern_dtype to, kern_dtype from, int rows, int k, int ld,
                         size_t offset)
{
    size_t db = kern_dtype_bytes(to), sb = kern_dtype_bytes(from);
    size_t n = (size_t)(rows * k), bytes = (size_t)(rows * ld) * db;
    unsigned char *src = numbers(rng, n, from, 100.0f);
    unsigned char *want = poisoned(bytes), *got = poisoned(bytes);
    void *dst;

    for (size_t i = 0; i < n && i < TP_ARRAY_LEN(SPECIAL); i++)
        kern_store_f32(src + i * sb, from, kern_bits_f32(SPECIAL[i]));
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < k; c++)
            kern_store_f32(want + (size_t)(r * ld + c) * db, to,
                           kern_load_f32(src + (size_t)(r * k + c) * sb, from));
    dst = dt_out(bytes, offset);
    KT_OK(kern_cuda_convert(dst, to, ld, dt_in(src, n * sb, offset), from, rows, k, dt_stream()));
    dt_read(got, dst, bytes);
    for (size_t i = 0; i < (size_t)(rows * ld); i++) /* a NaN is a NaN, whatever its bits */
        if (isnan(kern_load_f32(want + i * db, to)) && isnan(kern_load_f32(got + i * db, to)))
            memcpy(got + i * db, want + i * db, db);
    dt_same_bits("convert",
                 dt_case("convert %s to %s, %d rows of %d every %d", kern_dtype_name(from),
                         kern_dtype_name(to), rows, k, ld),
                 got, want, bytes);
    kt_free(src), kt_free(want), kt_free(got);
    dt_release();
}

static void test_convert(void **state)
{
    kt_rng rng = {7};

    (void)state;
    for (size_t i = 0; i < 9; i++) {
        kern_dtype to = DTYPES[i / 3], from = DTYPES[i % 3];

        convert_case(&rng, to, from, 3, 64, 64, 0);
        convert_case(&rng, to, from, 2, 1032, 1040, 0);
        convert_case(&rng, to, from, 3, 21, 24, 0);
        convert_case(&rng, to, from, 1, 64, 64, 4);
        convert_case(&rng, to, from, 5, 1, 8, 0);
        convert_case(&rng, to, from, 0, 8, 8, 0);
    }
}

/* ---- qkv ---- */
typedef struct qkv_shape {
    int m, n_q, n_kv, head_dim, n_freq;
    bool q_norm, k_norm;
} qkv_shape;

enum { BLOCKS = 5, BLOCK_TOKENS = 16, LAYERS = 2, LAYER = 1 };

static kern_kv describe_cache(const qkv_shape *s, kern_dtype t)
{
    int64_t tile = (int64_t)BLOCK_TOKENS * s->head_dim, block = 2 * s->n_kv * tile;

    return (kern_kv){.desc = {.n_layers = LAYERS,
                              .n_kv = s->n_kv,
                              .head_dim = s->head_dim,
                              .block_tokens = BLOCK_TOKENS,
                              .n_blocks = BLOCKS,
                              .dtype = t},
                     .layer_stride = BLOCKS * block,
                     .block_stride = block,
                     .v_offset = s->n_kv * tile,
                     .head_stride = tile};
}

/* The cache that rows of `qkv` make, which are as the kernel left them: conversions only. */
static void fill_cache(unsigned char *data, const kern_kv *kv, const qkv_shape *s, const float *qkv,
                       const int32_t *slots)
{
    size_t eb = kern_dtype_bytes(kv->desc.dtype);
    int heads = s->n_q + 2 * s->n_kv;

    for (int r = 0; r < s->m; r++) {
        for (int h = 0; h < 2 * s->n_kv && slots[r] >= 0; h++) {
            const float *x = qkv + ((int64_t)r * heads + s->n_q + h) * s->head_dim;
            int64_t at = LAYER * kv->layer_stride + slots[r] / BLOCK_TOKENS * kv->block_stride +
                         (h >= s->n_kv ? kv->v_offset : 0) + h % s->n_kv * kv->head_stride +
                         slots[r] % BLOCK_TOKENS * s->head_dim;

            for (int d = 0; d < s->head_dim; d++)
                kern_store_f32(data + (size_t)(at + d) * eb, kv->desc.dtype, x[d]);
        }
    }
}

static void qkv_case(kt_rng *rng, const qkv_shape *s, kern_dtype t, size_t offset)
{
    size_t n = (size_t)s->m * (size_t)(s->n_q + 2 * s->n_kv) * (size_t)s->head_dim;
    size_t cs_n = (size_t)(s->m * s->n_freq) * 2, dim = (size_t)s->head_dim;
    kern_kv kv = describe_cache(s, t), *ref_kv;
    size_t bytes = (size_t)(LAYERS * kv.layer_stride) * kern_dtype_bytes(t);
    float *qkv = kt_floats(rng, n, 2.0f), *got = kt_zeros(n * 4);
    float *cs = kt_floats(rng, cs_n, 1.0f), *qn = kt_floats(rng, dim, 2.0f);
    float *kn = kt_floats(rng, dim, 2.0f);
    unsigned char *cache = poisoned(bytes), *cache_got = poisoned(bytes);
    int32_t slots[64];
    kern_qkv_args a = {.norm_eps = 1e-6f,
                       .m = s->m,
                       .n_q = s->n_q,
                       .n_kv = s->n_kv,
                       .head_dim = s->head_dim,
                       .n_freq = s->n_freq,
                       .layer = LAYER},
                  ref;
    const char *what =
        dt_case("%s m %d heads %d %d dim %d freq %d%s%s", kern_dtype_name(t), s->m, s->n_q, s->n_kv,
                s->head_dim, s->n_freq, s->q_norm ? " q norm" : "", s->k_norm ? " k norm" : "");

    for (int i = 0; i < s->m; i++)
        slots[i] = i % 4 == 2 ? -1 : (i * 7 + 3) % (BLOCKS * BLOCK_TOKENS);
    kv.data = dt_out(bytes, 0);
    a.kv = &kv;
    a.qkv = dt_in(qkv, n * 4, offset);
    a.cos_sin = s->n_freq > 0 ? dt_in(cs, cs_n * 4, 0) : NULL;
    a.q_norm = s->q_norm ? dt_in(qn, dim * 4, 0) : NULL;
    a.k_norm = s->k_norm ? dt_in(kn, dim * 4, 0) : NULL;
    a.kv_index = dt_in(slots, sizeof slots, 0);
    KT_OK(kern_cuda_qkv(&a, dt_stream()));
    dt_read(got, a.qkv, n * 4);
    dt_read(cache_got, kv.data, bytes);

    KT_OK(dt_ref->ops->kv_create(dt_ref, &kv.desc, &ref_kv));
    ref = a;
    ref.kv = ref_kv;
    ref.qkv = qkv;
    ref.cos_sin = cs;
    ref.q_norm = s->q_norm ? qn : NULL;
    ref.k_norm = s->k_norm ? kn : NULL;
    ref.kv_index = slots;
    KT_OK(kern_qkv(dt_ref, &ref));
    dt_close_to("qkv", what, got, qkv, KERN_DTYPE_F32, n, 2e-6, 1.0);
    fill_cache(cache, &kv, s, got, slots);
    dt_same_bits("qkv cache", what, cache_got, cache, bytes);
    dt_ref->ops->kv_destroy(dt_ref, ref_kv);
    kt_free(qkv), kt_free(got), kt_free(cs), kt_free(qn), kt_free(kn);
    kt_free(cache), kt_free(cache_got);
    dt_release();
}

static void test_qkv(void **state)
{
    static const qkv_shape shapes[] = {
        {5, 4, 2, 4, 2, true, true},      {3, 7, 1, 8, 4, false, false},
        {4, 14, 2, 16, 8, false, false},  {2, 3, 3, 32, 16, true, true},
        {3, 2, 1, 64, 32, false, false},  {2, 2, 2, 80, 40, true, false},
        {2, 3, 1, 96, 48, false, true},   {9, 8, 1, 128, 64, true, true},
        {1, 8, 1, 128, 64, false, false}, {2, 1, 1, 192, 96, true, true},
        {2, 2, 1, 256, 128, true, true},  {3, 2, 1, 128, 32, true, true}, /* part of a head turns */
        {3, 2, 1, 64, 8, false, false},   {3, 2, 2, 6, 3, true, true},    /* odd frequencies */
        {3, 2, 2, 2, 1, true, true},      {2, 2, 2, 10, 0, true, true},   /* nothing turns */
        {1, 1, 1, 300, 150, true, true},  {1, 1, 1, 1024, 512, true, true},
        {0, 2, 2, 64, 32, true, true},    {3, 0, 2, 64, 32, true, true},
        {3, 2, 0, 64, 32, true, true},    {40, 2, 1, 16, 8, false, true},
    };
    kt_rng rng = {8};

    (void)state;
    for (size_t i = 0; i < TP_ARRAY_LEN(shapes); i++)
        for (size_t t = 0; t < TP_ARRAY_LEN(DTYPES); t++)
            qkv_case(&rng, &shapes[i], DTYPES[t], 0);
    qkv_case(&rng, &shapes[7], KERN_DTYPE_BF16, 4); /* no vector fits */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_embed),      cmocka_unit_test(test_rmsnorm),
        cmocka_unit_test(test_rope_table), cmocka_unit_test(test_silu_mul),
        cmocka_unit_test(test_gather),     cmocka_unit_test(test_words),
        cmocka_unit_test(test_convert),    cmocka_unit_test(test_qkv),
    };

    return cmocka_run_group_tests(tests, dt_setup, dt_teardown);
}
