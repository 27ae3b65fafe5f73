/* SPDX-License-Identifier: Apache-2.0 */
/* gemm_emu.c - the products that cuBLASLt would compute, on the host, when the stream gets there.
 *
 * Sums are FP32, K ascending, one chain per element.  Blocks of 32 x 32 results: 256 columns of both operands at a time
 * are widened to FP32 on the stack, the weights turned so that 32 outputs are adjacent.
 */
#include "kernels/cuda/gemm.h"

#include <string.h>

#include "base/mem.h"
#include "kernels/convert.h"
#include "kernels/cuda/emu/dev_emu.h"

#define BLOCK   32
#define BLOCK_K 256
#define LANES   8
#define N_VEC   (BLOCK / LANES)

typedef float vec __attribute__((vector_size(LANES * sizeof(float))));

struct kern_dev_gemm {
    kern_dev *dev;
    void *workspace; /* unused, but as large as cuBLASLt's: memory plans count it */
};

typedef struct tile {
    float in[BLOCK][BLOCK_K];
    vec w[BLOCK_K][N_VEC];
    vec sum[BLOCK][N_VEC];
} tile;

#define INLINE static inline __attribute__((always_inline))

INLINE void widen(float *dst, const void *src, kern_dtype t, int n)
{
    if (t == KERN_DTYPE_F32) {
        memcpy(dst, src, (size_t)n * sizeof *dst);
    } else if (t == KERN_DTYPE_BF16) {
        const uint16_t *h = src;

        for (int i = 0; i < n; i++)
            dst[i] = kern_bf16_to_f32(h[i]);
    } else {
        const uint16_t *h = src;

        for (int i = 0; i < n; i++)
            dst[i] = kern_f16_to_f32(h[i]);
    }
}

INLINE void load_tile(tile *t, const kern_dev_gemm_call *c, int row, int col, int k0, int k)
{
    size_t size = kern_dtype_bytes(c->dtype);
    int rows = c->m - row < BLOCK ? c->m - row : BLOCK;
    int cols = c->n - col < BLOCK ? c->n - col : BLOCK;
    float wide[BLOCK_K];
    float *w = (float *)t->w;

    for (int i = 0; i < rows; i++)
        widen(t->in[i],
              (const char *)c->in + ((size_t)(row + i) * (size_t)c->k + (size_t)k0) * size,
              c->dtype, k);
    for (int j = 0; j < cols; j++) {
        widen(wide, (const char *)c->w + ((size_t)(col + j) * (size_t)c->ldw + (size_t)k0) * size,
              c->dtype, k);
        for (int i = 0; i < k; i++)
            w[i * BLOCK + j] = wide[i];
    }
    for (int j = cols; j < BLOCK; j++)
        for (int i = 0; i < k; i++)
            w[i * BLOCK + j] = 0.0f;
}

INLINE void multiply_tile(tile *t, int rows, int k)
{
    for (int r = 0; r < rows; r++) {
        vec s0 = t->sum[r][0], s1 = t->sum[r][1], s2 = t->sum[r][2], s3 = t->sum[r][3];

        for (int i = 0; i < k; i++) {
            float a = t->in[r][i];

            s0 += a * t->w[i][0];
            s1 += a * t->w[i][1];
            s2 += a * t->w[i][2];
            s3 += a * t->w[i][3];
        }
        t->sum[r][0] = s0;
        t->sum[r][1] = s1;
        t->sum[r][2] = s2;
        t->sum[r][3] = s3;
    }
}

INLINE void store_tile(const tile *t, const kern_dev_gemm_call *c, int row, int col)
{
    size_t size = kern_dtype_bytes(c->out_dtype);

    for (int i = 0; i < BLOCK && row + i < c->m; i++)
        for (int j = 0; j < BLOCK && col + j < c->n; j++) {
            float v = ((const float *)t->sum[i])[j] + (c->bias != NULL ? c->bias[col + j] : 0.0f);

            kern_store_f32((char *)c->out +
                               ((size_t)(row + i) * (size_t)c->n + (size_t)(col + j)) * size,
                           c->out_dtype, v);
        }
}

INLINE void multiply(const kern_dev_gemm_call *c)
{
    tile t;

    for (int row = 0; row < c->m; row += BLOCK)
        for (int col = 0; col < c->n; col += BLOCK) {
            int rows = c->m - row < BLOCK ? c->m - row : BLOCK;

            memset(t.sum, 0, sizeof t.sum);
            for (int k0 = 0; k0 < c->k; k0 += BLOCK_K) {
                int k = c->k - k0 < BLOCK_K ? c->k - k0 : BLOCK_K;

                load_tile(&t, c, row, col, k0, k);
                multiply_tile(&t, rows, k);
            }
            store_tile(&t, c, row, col);
        }
}

#ifdef __x86_64__
__attribute__((target("avx2,fma"))) static void multiply_avx2(const kern_dev_gemm_call *c)
{
    multiply(c);
}
#endif

static void run_gemm(void *closure)
{
    const kern_dev_gemm_call *c = closure;

#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        multiply_avx2(c);
        return;
    }
#endif
    multiply(c);
}

size_t kern_dev_gemm_workspace_bytes(const kern_dev_props *p)
{
    return p->cc >= 90 ? (size_t)32 << 20 : (size_t)8 << 20;
}

tp_status kern_dev_gemm_create(kern_dev_gemm **out, kern_dev *d, const char *cache_file)
{
    kern_dev_gemm *g = tp_calloc(1, sizeof *g);
    tp_status st;

    (void)cache_file; /* one way only: nothing to choose */
    if (g == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "gemm: no host memory");
    g->dev = d;
    st = kern_dev_alloc(d, kern_dev_gemm_workspace_bytes(kern_dev_get_props(d)), &g->workspace);
    if (st != TP_OK) {
        kern_dev_gemm_destroy(g);
        return st;
    }
    *out = g;
    return TP_OK;
}

void kern_dev_gemm_destroy(kern_dev_gemm *g)
{
    if (g == NULL)
        return;
    kern_dev_free(g->dev, g->workspace);
    tp_free(g);
}

/* What cuBLASLt computes here, or why it does not. */
static tp_status check_supported(const kern_dev_gemm *g, const kern_dev_gemm_call *c)
{
    int cc = kern_dev_get_props(g->dev)->cc;

    if (c->out_dtype != KERN_DTYPE_F32 && c->out_dtype != c->dtype)
        return TP_FAIL(TP_ERR_UNSUPPORTED, "CUBLAS_STATUS_NOT_SUPPORTED: a product of %s into %s",
                       kern_dtype_name(c->dtype), kern_dtype_name(c->out_dtype));
    if (c->dtype == KERN_DTYPE_BF16 && cc < 80)
        return TP_FAIL(TP_ERR_UNSUPPORTED, "CUBLAS_STATUS_NOT_SUPPORTED: bfloat16 on sm_%d", cc);
    if (c->ldw < c->k || c->m < 0 || c->n < 0 || c->k < 0)
        return TP_FAIL(TP_ERR_INVALID,
                       "CUBLAS_STATUS_INVALID_VALUE: m %d, n %d, k %d, rows %lld apart", c->m, c->n,
                       c->k, (long long)c->ldw);
    return TP_OK;
}

tp_status kern_dev_gemm_run(kern_dev_gemm *g, const kern_dev_gemm_call *c, kern_stream s)
{
    size_t in_size = kern_dtype_bytes(c->dtype);

    TP_TRY(check_supported(g, c));
    if (c->m == 0 || c->n == 0)
        return TP_OK;
    /* Pages that the device does not have trap when the product runs; a wrong pointer is easier to find here. */
    if (!emu_is_device(c->out, (size_t)c->m * (size_t)c->n * kern_dtype_bytes(c->out_dtype)) ||
        (c->k > 0 &&
         (!emu_is_device(c->in, (size_t)c->m * (size_t)c->k * in_size) ||
          !emu_is_device(c->w, ((size_t)(c->n - 1) * (size_t)c->ldw + (size_t)c->k) * in_size))) ||
        (c->bias != NULL && !emu_is_device(c->bias, (size_t)c->n * sizeof *c->bias)))
        return emu_fail(g->dev, "CUBLAS_STATUS_INVALID_VALUE",
                        "an operand of a product is not, or not wholly, device memory");
    return emu_enqueue(g->dev, s, run_gemm, c, sizeof *c);
}

/* Nothing to choose; but what could not be chosen fails here too. */
tp_status kern_dev_gemm_tune(kern_dev_gemm *g, const kern_dev_gemm_call *c, kern_stream s)
{
    (void)s;
    TP_TRY(emu_not_recording(g->dev, "products were timed"));
    return check_supported(g, c);
}
