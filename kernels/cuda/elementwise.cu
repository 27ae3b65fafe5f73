/* SPDX-License-Identifier: Apache-2.0 */
/* elementwise.cu - what moves or maps numbers one by one: embed, gather, convert, silu_mul, take, scatter, the RoPE
 * table.
 *
 * Everything that goes by rows is cut into spans of 1,024 columns, one block each: 128 threads with 8 numbers, moved
 * as vectors of 16 bytes where the row length and the addresses allow, else one by one with neighbouring threads on
 * neighbouring numbers.  Limit: memory.
 */
#include <limits.h>

#include "kernels/cuda/num.cuh"

#define SPAN_THREADS  128
#define SPAN_EACH     8
#define SPAN          (SPAN_THREADS * SPAN_EACH)
#define WORDS_THREADS 256

/* Column of this thread's i-th number when they are moved one by one. */
TP_DEV int lone_column(int i)
{
    return (int)threadIdx.x + i * SPAN_THREADS;
}

/* dst[0 .. n) = src, of which this block does the first SPAN; src NULL: zeros.  vec: n is a multiple of SPAN_EACH and
 * both rows are aligned for vectors. */
template <typename D, typename S> TP_DEV void move_span(D *dst, const S *src, int64_t n, bool vec)
{
    if (vec) {
        float v[SPAN_EACH] = {0.0f};
        int at = SPAN_EACH * (int)threadIdx.x;

        if (at >= n)
            return;
        if (src != NULL)
            tp_read<SPAN_EACH>(v, src + at);
        tp_write<SPAN_EACH>(dst + at, v);
        return;
    }
    for (int i = 0; i < SPAN_EACH; i++)
        if (lone_column(i) < n)
            tp_from_float(&dst[lone_column(i)],
                          src != NULL ? tp_to_float(src[lone_column(i)]) : 0.0f);
}

/* A span of a matrix: which row, and its first column. */
typedef struct span_at {
    int64_t row, col;
} span_at;

TP_DEV span_at span_here(unsigned per_row)
{
    span_at at = {(int64_t)(blockIdx.x / per_row), (int64_t)(blockIdx.x % per_row) * SPAN};

    return at;
}

/* ---- embed, gather, convert ---- */
typedef struct embed_from {
    const void *data;
    int64_t ld, n, k;
} embed_from;

template <typename T>
TP_KERNEL(SPAN_THREADS)
embed_rows(kern_embed_args a, embed_from t, unsigned per_row, bool vec)
{
    span_at at = span_here(per_row);
    int64_t id;

    tp_grid_wait();
    tp_grid_trigger();
    id = (int64_t)a.ids[at.row] - a.vocab_first;
    move_span(a.out + at.row * t.k + at.col,
              id >= 0 && id < t.n ? static_cast<const T *>(t.data) + id * t.ld + at.col : NULL,
              t.k - at.col, vec);
}

static TP_KERNEL(SPAN_THREADS) gather_rows(kern_gather_args a, unsigned per_row, bool vec)
{
    span_at at = span_here(per_row);

    tp_grid_wait();
    tp_grid_trigger();
    move_span(a.out + at.row * a.dim + at.col, a.in + (int64_t)a.idx[at.row] * a.dim + at.col,
              a.dim - at.col, vec);
}

typedef struct convert_shape {
    int64_t dst_ld, k;
    unsigned per_row;
    bool vec;
} convert_shape;

template <typename D, typename S>
TP_KERNEL(SPAN_THREADS)
convert_rows(void *dst, const void *src, convert_shape c)
{
    span_at at = span_here(c.per_row);

    tp_grid_wait();
    tp_grid_trigger();
    move_span(static_cast<D *>(dst) + at.row * c.dst_ld + at.col,
              static_cast<const S *>(src) + at.row * c.k + at.col, c.k - at.col, c.vec);
}

/* Blocks of a matrix; *per_row of them in a row. */
static tp_status span_grid(const char *kernel, int64_t rows, int64_t cols, unsigned *per_row,
                           unsigned *grid)
{
    int64_t each = (cols + SPAN - 1) / SPAN;

    if (rows > INT_MAX || each > INT_MAX || rows * each > INT_MAX)
        return TP_FAIL(TP_ERR_INVALID, "%s: [%lld, %lld] is more than one launch can do", kernel,
                       (long long)rows, (long long)cols);
    *per_row = (unsigned)each;
    *grid = (unsigned)(rows * each);
    return TP_OK;
}

extern "C" tp_status kern_cuda_embed(const kern_embed_args *a, kern_stream s)
{
    const kern_weight *w = a->table;
    embed_from t = {w->data, w->ld, w->desc.n, w->desc.k};
    bool vec = t.k % SPAN_EACH == 0 && t.ld % SPAN_EACH == 0 && tp_aligned(a->out, 16) &&
               tp_aligned(t.data, 16);
    unsigned per_row, grid;

    if (a->m == 0 || t.k == 0)
        return TP_OK;
    TP_TRY(span_grid("embed", a->m, t.k, &per_row, &grid));
    switch (w->desc.dtype) {
    case KERN_DTYPE_F32:
        TP_LAUNCH((embed_rows<float>), grid, SPAN_THREADS, 0, s, *a, t, per_row, vec);
        break;
    case KERN_DTYPE_BF16:
        TP_LAUNCH((embed_rows<__nv_bfloat16>), grid, SPAN_THREADS, 0, s, *a, t, per_row, vec);
        break;
    case KERN_DTYPE_F16:
        TP_LAUNCH((embed_rows<__half>), grid, SPAN_THREADS, 0, s, *a, t, per_row, vec);
        break;
    default: return tp_no_dtype("embed", w->desc.dtype);
    }
    return tp_launched("embed");
}

extern "C" tp_status kern_cuda_gather(const kern_gather_args *a, kern_stream s)
{
    bool vec = a->dim % SPAN_EACH == 0 && tp_aligned(a->out, 16) && tp_aligned(a->in, 16);
    unsigned per_row, grid;

    if (a->n == 0 || a->dim == 0)
        return TP_OK;
    TP_TRY(span_grid("gather", a->n, a->dim, &per_row, &grid));
    TP_LAUNCH(gather_rows, grid, SPAN_THREADS, 0, s, *a, per_row, vec);
    return tp_launched("gather");
}

template <typename D>
static tp_status launch_convert(void *dst, const void *src, kern_dtype src_dtype, unsigned grid,
                                const convert_shape *c, kern_stream s)
{
    switch (src_dtype) {
    case KERN_DTYPE_F32:
        TP_LAUNCH((convert_rows<D, float>), grid, SPAN_THREADS, 0, s, dst, src, *c);
        break;
    case KERN_DTYPE_BF16:
        TP_LAUNCH((convert_rows<D, __nv_bfloat16>), grid, SPAN_THREADS, 0, s, dst, src, *c);
        break;
    case KERN_DTYPE_F16:
        TP_LAUNCH((convert_rows<D, __half>), grid, SPAN_THREADS, 0, s, dst, src, *c);
        break;
    default: return tp_no_dtype("convert", src_dtype);
    }
    return tp_launched("convert");
}

extern "C" tp_status kern_cuda_convert(void *dst, kern_dtype dst_dtype, int64_t dst_ld,
                                       const void *src, kern_dtype src_dtype, int64_t n_rows,
                                       int64_t k, kern_stream s)
{
    convert_shape c = {dst_ld, k, 0, false};
    unsigned grid;

    if (n_rows == 0 || k == 0)
        return TP_OK;
    c.vec =
        k % SPAN_EACH == 0 && dst_ld % SPAN_EACH == 0 && tp_aligned(dst, 16) && tp_aligned(src, 16);
    TP_TRY(span_grid("convert", n_rows, k, &c.per_row, &grid));
    switch (dst_dtype) {
    case KERN_DTYPE_F32: return launch_convert<float>(dst, src, src_dtype, grid, &c, s);
    case KERN_DTYPE_BF16: return launch_convert<__nv_bfloat16>(dst, src, src_dtype, grid, &c, s);
    case KERN_DTYPE_F16: return launch_convert<__half>(dst, src, src_dtype, grid, &c, s);
    default: return tp_no_dtype("convert", dst_dtype);
    }
}

/* ---- silu_mul ---- */
TP_DEV float silu_mul_one(float gate, float up)
{
    return gate / (1.0f + expf(-gate)) * up;
}

/* Reads 8 bytes and writes 2 or 4 per number. */
template <typename T>
TP_KERNEL(SPAN_THREADS)
silu_mul_rows(kern_silu_mul_args a, unsigned per_row, bool vec)
{
    span_at at = span_here(per_row);
    const float *gate = a.in + at.row * 2 * a.n + at.col, *up = gate + a.n;
    T *out = static_cast<T *>(a.out) + at.row * a.n + at.col;
    int n = a.n - (int)at.col;

    tp_grid_wait();
    tp_grid_trigger();
    if (vec) {
        int i = SPAN_EACH * (int)threadIdx.x;

        if (i < n) {
            float g[SPAN_EACH], u[SPAN_EACH];

            tp_read<SPAN_EACH>(g, gate + i);
            tp_read<SPAN_EACH>(u, up + i);
            for (int j = 0; j < SPAN_EACH; j++)
                g[j] = silu_mul_one(g[j], u[j]);
            tp_write<SPAN_EACH>(out + i, g);
        }
    } else {
        for (int i = 0; i < SPAN_EACH; i++) {
            int c = lone_column(i);

            if (c < n)
                tp_from_float(&out[c], silu_mul_one(gate[c], up[c]));
        }
    }
}

extern "C" tp_status kern_cuda_silu_mul(const kern_silu_mul_args *a, kern_stream s)
{
    bool vec = a->n % SPAN_EACH == 0 && tp_aligned(a->out, 16) && tp_aligned(a->in, 16);
    unsigned per_row, grid;

    if (a->m == 0 || a->n == 0)
        return TP_OK;
    TP_TRY(span_grid("silu_mul", a->m, a->n, &per_row, &grid));
    switch (a->out_dtype) {
    case KERN_DTYPE_F32:
        TP_LAUNCH((silu_mul_rows<float>), grid, SPAN_THREADS, 0, s, *a, per_row, vec);
        break;
    case KERN_DTYPE_BF16:
        TP_LAUNCH((silu_mul_rows<__nv_bfloat16>), grid, SPAN_THREADS, 0, s, *a, per_row, vec);
        break;
    case KERN_DTYPE_F16:
        TP_LAUNCH((silu_mul_rows<__half>), grid, SPAN_THREADS, 0, s, *a, per_row, vec);
        break;
    default: return tp_no_dtype("silu_mul", a->out_dtype);
    }
    return tp_launched("silu_mul");
}

/* ---- words ---- */
TP_DEV int64_t word_here()
{
    return (int64_t)blockIdx.x * WORDS_THREADS + threadIdx.x;
}

static TP_KERNEL(WORDS_THREADS) take_words(kern_take_args a)
{
    int64_t i = word_here();

    tp_grid_wait();
    tp_grid_trigger();
    if (i < a.n)
        static_cast<uint32_t *>(a.out)[i] =
            a.idx[i] >= 0 ? static_cast<const uint32_t *>(a.in)[a.idx[i]] : 0xffffffffu;
}

static TP_KERNEL(WORDS_THREADS) scatter_words(kern_scatter_args a)
{
    int64_t i = word_here();

    tp_grid_wait();
    tp_grid_trigger();
    if (i < a.n && a.idx[i] >= 0)
        static_cast<uint32_t *>(a.out)[a.idx[i]] = static_cast<const uint32_t *>(a.in)[i];
}

extern "C" tp_status kern_cuda_take(const kern_take_args *a, kern_stream s)
{
    if (a->n == 0)
        return TP_OK;
    TP_LAUNCH(take_words, tp_blocks_of(a->n, WORDS_THREADS), WORDS_THREADS, 0, s, *a);
    return tp_launched("take");
}

extern "C" tp_status kern_cuda_scatter(const kern_scatter_args *a, kern_stream s)
{
    if (a->n == 0)
        return TP_OK;
    TP_LAUNCH(scatter_words, tp_blocks_of(a->n, WORDS_THREADS), WORDS_THREADS, 0, s, *a);
    return tp_launched("scatter");
}

/* ---- RoPE table ---- */
/* cos and sin of an FP32 angle up to 2^31, rounded once: reduction by pi / 2 and series in FP64.  (The library's sinf
 * and cosf keep an array on the stack for large angles.)  |r| <= pi / 4, where both series end below 1e-14. */
TP_DEV void cos_sin_of(float angle, float *c, float *s)
{
    const double x = (double)angle, turns = rint(x * 0.63661977236758134308);
    const double r =
        fma(turns, -6.12323399573676603587e-17, fma(turns, -1.57079632679489655800, x));
    const double r2 = r * r;
    const int quarter = (int)((int64_t)turns & 3);
    double sn = 1.0 / 6227020800.0, cs = -1.0 / 87178291200.0, t;

    sn = sn * r2 - 1.0 / 39916800.0;
    sn = sn * r2 + 1.0 / 362880.0;
    sn = sn * r2 - 1.0 / 5040.0;
    sn = sn * r2 + 1.0 / 120.0;
    sn = sn * r2 - 1.0 / 6.0;
    sn = r + r * r2 * sn;
    cs = cs * r2 + 1.0 / 479001600.0;
    cs = cs * r2 - 1.0 / 3628800.0;
    cs = cs * r2 + 1.0 / 40320.0;
    cs = cs * r2 - 1.0 / 720.0;
    cs = cs * r2 + 1.0 / 24.0;
    cs = cs * r2 - 0.5;
    cs = cs * r2 + 1.0;
    if (quarter % 2 == 1) {
        t = cs;
        cs = -sn;
        sn = t;
    }
    *c = (float)(quarter < 2 ? cs : -cs);
    *s = (float)(quarter < 2 ? sn : -sn);
}

static TP_KERNEL(WORDS_THREADS) rope_table_all(kern_rope_table_args a)
{
    int64_t i = word_here();

    tp_grid_wait();
    tp_grid_trigger();
    if (i < (int64_t)a.m * a.n_freq) {
        float c, s;

        cos_sin_of((float)a.pos[i / a.n_freq] * a.inv_freq[i % a.n_freq], &c, &s);
        a.cos_sin[2 * i] = c * a.amplitude;
        a.cos_sin[2 * i + 1] = s * a.amplitude;
    }
}

extern "C" tp_status kern_cuda_rope_table(const kern_rope_table_args *a, kern_stream s)
{
    int64_t n = (int64_t)a->m * a->n_freq;

    if (n == 0)
        return TP_OK;
    if (n > (int64_t)INT_MAX * WORDS_THREADS)
        return TP_FAIL(TP_ERR_INVALID, "rope_table: [%d, %d] is more than one launch can do", a->m,
                       a->n_freq);
    TP_LAUNCH(rope_table_all, tp_blocks_of(n, WORDS_THREADS), WORDS_THREADS, 0, s, *a);
    return tp_launched("rope_table");
}
