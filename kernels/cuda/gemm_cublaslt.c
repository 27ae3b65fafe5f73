/* SPDX-License-Identifier: Apache-2.0 */
/* gemm_cublaslt.c - products by cuBLASLt, which knows the tensor cores of every architecture better than we do.
 *
 * cuBLASLt counts in columns: our row-major out[m, n] is its [n, m] with leading dimension n, the weight as nn.Linear
 * stores it is A transposed ([k, n], ldw), the input is B ([k, m], k).  So every product is "TN", the layout that all
 * architectures do best, and a bias per output is a bias per row of D, which the epilogue adds.
 *
 * Algorithms are kept in a table of shapes (gemm_choices.h).  A shape that is not there gets the first heuristic;
 * kern_dev_gemm_tune() times the first eight and keeps the fastest, in a file too.  Timing one product again and again
 * would find the weight in the L2 cache, where a decode step never finds it: a fill of twice the L2 goes in between.
 *
 * FP32 is CUBLAS_COMPUTE_32F, which never uses TF32.  Where no algorithm takes a bias, the bias is spread over the
 * output first and the product added to it.
 */
#include "kernels/cuda/gemm.h"

#include <stdio.h>
#include <string.h>

#include <cublasLt.h>

#include "base/log.h"
#include "base/mem.h"
#include "kernels/cuda/gemm_choices.h"
#include "kernels/cuda/launch.h"

#define N_HEURISTICS 8
#define N_TIMED      5
#define N_ZEROS      65536
#define ALIGN_MAX    256u

struct kern_dev_gemm {
    kern_dev *dev;
    cublasLtHandle_t lt;
    cublasLtMatmulPreference_t preference;
    void *workspace; /* owned, device */
    size_t workspace_bytes;
    int32_t *zeros; /* owned, device: [N_ZEROS] */
    kern_gemm_choices *choices;
};

_Static_assert(sizeof(cublasLtMatmulAlgo_t) == KERN_GEMM_ALGORITHM_BYTES, "choices hold one");

/* The description of one product, on the stack. */
typedef struct plan {
    cublasLtMatmulDescOpaque_t op;
    cublasLtMatrixLayoutOpaque_t a, b, d;
} plan;

static tp_status lt_fail(const kern_dev_gemm *g, cublasStatus_t e, const char *what,
                         const kern_dev_gemm_call *c)
{
    tp_status st = e == CUBLAS_STATUS_NOT_SUPPORTED  ? TP_ERR_UNSUPPORTED
                   : e == CUBLAS_STATUS_ALLOC_FAILED ? TP_ERR_NOMEM
                                                     : TP_ERR_DEVICE;
    int ordinal = kern_dev_get_props(g->dev)->ordinal;

    if (c == NULL)
        return TP_FAIL(st, "device %d: %s: %s", ordinal, cublasLtGetStatusName(e), what);
    return TP_FAIL(st, "device %d: %s: %s, m %d, n %d, k %d of %s into %s", ordinal,
                   cublasLtGetStatusName(e), what, c->m, c->n, c->k, kern_dtype_name(c->dtype),
                   kern_dtype_name(c->out_dtype));
}

static cudaDataType_t cuda_type(kern_dtype t)
{
    switch (t) {
    case KERN_DTYPE_BF16: return CUDA_R_16BF;
    case KERN_DTYPE_F16: return CUDA_R_16F;
    case KERN_DTYPE_F32: break;
    }
    return CUDA_R_32F;
}

/* The largest power of two that divides the address and the bytes between columns. */
static uint32_t alignment(const void *p, int64_t ld, kern_dtype t)
{
    uint64_t bits = (uint64_t)(uintptr_t)p | (uint64_t)ld * kern_dtype_bytes(t) | ALIGN_MAX;

    return (uint32_t)(bits & (~bits + 1));
}

static kern_gemm_shape shape_of(const kern_dev_gemm_call *c)
{
    return (kern_gemm_shape){.m = c->m,
                             .n = c->n,
                             .k = c->k,
                             .dtype = (int16_t)c->dtype,
                             .out_dtype = (int16_t)c->out_dtype,
                             .biased = c->bias != NULL,
                             .aligned = alignment(c->w, c->ldw, c->dtype) >= 16 &&
                                        alignment(c->in, c->k, c->dtype) >= 16 &&
                                        alignment(c->out, c->n, c->out_dtype) >= 16,
                             .ldw = c->ldw};
}

/* ---- life ---- */
size_t kern_dev_gemm_workspace_bytes(const kern_dev_props *p)
{
    return p->cc >= 90 ? (size_t)32 << 20 : (size_t)8 << 20;
}

static tp_status open_lt(kern_dev_gemm *g)
{
    cublasStatus_t e;

    kern_dev_enter(g->dev);
    e = cublasLtCreate(&g->lt);
    if (e == CUBLAS_STATUS_SUCCESS)
        e = cublasLtMatmulPreferenceCreate(&g->preference);
    if (e == CUBLAS_STATUS_SUCCESS)
        e = cublasLtMatmulPreferenceSetAttribute(g->preference,
                                                 CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                 &g->workspace_bytes, sizeof g->workspace_bytes);
    if (e != CUBLAS_STATUS_SUCCESS)
        return lt_fail(g, e, "starting cuBLASLt", NULL);
    return TP_OK;
}

tp_status kern_dev_gemm_create(kern_dev_gemm **out, kern_dev *d, const char *cache_file)
{
    const kern_dev_props *p = kern_dev_get_props(d);
    kern_dev_gemm *g = tp_calloc(1, sizeof *g);
    char depends_on[KERN_GEMM_DEPENDS_MAX];
    void *zeros = NULL;
    tp_status st;

    if (g == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "gemm: no host memory");
    g->dev = d;
    g->workspace_bytes = kern_dev_gemm_workspace_bytes(p);
    (void)snprintf(depends_on, sizeof depends_on, "%s, sm_%d, driver %d, cublasLt %zu", p->name,
                   p->cc, p->driver, cublasLtGetVersion());
    TP_TRY_GOTO(st, kern_gemm_choices_create(&g->choices, cache_file, depends_on), fail);
    TP_TRY_GOTO(st, kern_dev_alloc(d, g->workspace_bytes, &g->workspace), fail);
    TP_TRY_GOTO(st, kern_dev_alloc(d, N_ZEROS * sizeof *g->zeros, &zeros), fail);
    g->zeros = zeros;
    TP_TRY_GOTO(st, open_lt(g), fail);
    *out = g;
    return TP_OK;
fail:
    kern_dev_gemm_destroy(g);
    return st;
}

void kern_dev_gemm_destroy(kern_dev_gemm *g)
{
    if (g == NULL)
        return;
    kern_dev_enter(g->dev);
    if (g->preference != NULL)
        (void)cublasLtMatmulPreferenceDestroy(g->preference);
    if (g->lt != NULL)
        (void)cublasLtDestroy(g->lt);
    kern_dev_free(g->dev, g->zeros);
    kern_dev_free(g->dev, g->workspace);
    kern_gemm_choices_destroy(g->choices);
    tp_free(g);
}

/* ---- products ---- */
static cublasStatus_t make_plan(plan *p, const kern_dev_gemm_call *c, bool with_bias)
{
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const cublasLtEpilogue_t bias = CUBLASLT_EPILOGUE_BIAS;
    const cudaDataType_t bias_type = CUDA_R_32F, type = cuda_type(c->dtype);
    cublasStatus_t e = cublasLtMatmulDescInit(&p->op, CUBLAS_COMPUTE_32F, CUDA_R_32F);

#define STEP(call)                                                                                 \
    if (e == CUBLAS_STATUS_SUCCESS)                                                                \
    e = (call)
    STEP(cublasLtMatmulDescSetAttribute(&p->op, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                        sizeof transposed));
    if (with_bias) {
        STEP(cublasLtMatmulDescSetAttribute(&p->op, CUBLASLT_MATMUL_DESC_EPILOGUE, &bias,
                                            sizeof bias));
        STEP(cublasLtMatmulDescSetAttribute(&p->op, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &bias_type,
                                            sizeof bias_type));
        STEP(cublasLtMatmulDescSetAttribute(&p->op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &c->bias,
                                            sizeof c->bias));
    }
    STEP(cublasLtMatrixLayoutInit(&p->a, type, (uint64_t)c->k, (uint64_t)c->n, c->ldw));
    STEP(cublasLtMatrixLayoutInit(&p->b, type, (uint64_t)c->k, (uint64_t)c->m, c->k));
    STEP(cublasLtMatrixLayoutInit(&p->d, cuda_type(c->out_dtype), (uint64_t)c->n, (uint64_t)c->m,
                                  c->n));
#undef STEP
    return e;
}

static cublasStatus_t ask_heuristics(kern_dev_gemm *g, plan *p, const kern_dev_gemm_call *c,
                                     cublasLtMatmulHeuristicResult_t *out, int *n)
{
    const uint32_t a = alignment(c->w, c->ldw, c->dtype), b = alignment(c->in, c->k, c->dtype),
                   d = alignment(c->out, c->n, c->out_dtype);
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        uint32_t value;
    } wanted[] = {{CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, a},
                  {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, b},
                  {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, d},
                  {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, d}};
    int most = *n;
    cublasStatus_t e = CUBLAS_STATUS_SUCCESS;

    for (size_t i = 0; i < TP_ARRAY_LEN(wanted) && e == CUBLAS_STATUS_SUCCESS; i++)
        e = cublasLtMatmulPreferenceSetAttribute(g->preference, wanted[i].name, &wanted[i].value,
                                                 sizeof wanted[i].value);
    *n = 0;
    if (e == CUBLAS_STATUS_SUCCESS)
        e = cublasLtMatmulAlgoGetHeuristic(g->lt, &p->op, &p->a, &p->b, &p->d, &p->d, g->preference,
                                           most, out, n);
    return e == CUBLAS_STATUS_SUCCESS && *n == 0 ? CUBLAS_STATUS_NOT_SUPPORTED : e;
}

static cublasStatus_t multiply(kern_dev_gemm *g, plan *p, const kern_dev_gemm_call *c,
                               const cublasLtMatmulAlgo_t *algo, float beta, kern_stream s)
{
    const float one = 1.0f;

    return cublasLtMatmul(g->lt, &p->op, &one, c->w, &p->a, c->in, &p->b, &beta, c->out, &p->d,
                          c->out, &p->d, algo, g->workspace, g->workspace_bytes, s);
}

/* out = bias in every row. */
static tp_status spread_bias(kern_dev_gemm *g, const kern_dev_gemm_call *c, kern_stream s)
{
    if (c->out_dtype != KERN_DTYPE_F32)
        return TP_FAIL(TP_ERR_UNSUPPORTED, "gemm: a bias with results of %s",
                       kern_dtype_name(c->out_dtype));
    for (int row = 0; row < c->m; row += N_ZEROS)
        TP_TRY(kern_cuda_gather(
            &(kern_gather_args){.out = (float *)c->out + (size_t)row * (size_t)c->n,
                                .in = c->bias,
                                .idx = g->zeros,
                                .n = c->m - row < N_ZEROS ? c->m - row : N_ZEROS,
                                .dim = c->n},
            s));
    return TP_OK;
}

/* The heuristics for a call; where none takes the bias, those without, and *spread says so. */
static tp_status list_algorithms(kern_dev_gemm *g, plan *p, const kern_dev_gemm_call *c,
                                 cublasLtMatmulHeuristicResult_t *out, int *n, bool *spread)
{
    int most = *n;
    cublasStatus_t e = make_plan(p, c, c->bias != NULL);

    *spread = false;
    if (e == CUBLAS_STATUS_SUCCESS)
        e = ask_heuristics(g, p, c, out, n);
    if (e == CUBLAS_STATUS_NOT_SUPPORTED && c->bias != NULL) {
        *spread = true;
        *n = most;
        e = make_plan(p, c, false);
        if (e == CUBLAS_STATUS_SUCCESS)
            e = ask_heuristics(g, p, c, out, n);
    }
    if (e != CUBLAS_STATUS_SUCCESS)
        return lt_fail(g, e, "no algorithm", c);
    return TP_OK;
}

/* Fills *p and yields the entry that says how; asks for the first heuristic when there is none. */
static tp_status choose(kern_dev_gemm *g, plan *p, const kern_dev_gemm_call *c,
                        kern_gemm_choice **out)
{
    const kern_gemm_shape shape = shape_of(c);
    kern_gemm_choice *found = kern_gemm_choices_place(g->choices, &shape);
    cublasLtMatmulHeuristicResult_t first;
    bool spread;
    int n = 1;

    if (kern_gemm_choice_holds(found, &shape)) {
        cublasStatus_t e = make_plan(p, c, c->bias != NULL && !found->spread_bias);

        if (e != CUBLAS_STATUS_SUCCESS)
            return lt_fail(g, e, "describing a product", c);
    } else {
        TP_TRY(list_algorithms(g, p, c, &first, &n, &spread));
        *found = (kern_gemm_choice){.shape = shape, .used = true, .spread_bias = spread};
        memcpy(found->algorithm, &first.algo, sizeof first.algo);
    }
    kern_gemm_choices_touch(g->choices, found);
    *out = found;
    return TP_OK;
}

static tp_status check(const kern_dev_gemm_call *c)
{
    if (c->ldw < c->k || c->m < 0 || c->n < 0 || c->k < 0)
        return TP_FAIL(TP_ERR_INVALID, "gemm: m %d, n %d, k %d, rows %lld apart", c->m, c->n, c->k,
                       (long long)c->ldw);
    return TP_OK;
}

tp_status kern_dev_gemm_run(kern_dev_gemm *g, const kern_dev_gemm_call *c, kern_stream s)
{
    cublasStatus_t e;
    kern_gemm_choice *how = NULL;
    cublasLtMatmulAlgo_t algo;
    plan p;

    TP_TRY(check(c));
    if (c->m == 0 || c->n == 0)
        return TP_OK;
    kern_dev_enter(g->dev);
    if (c->k == 0 && c->bias == NULL)
        return kern_dev_set(g->dev, c->out, 0,
                            (size_t)c->m * (size_t)c->n * kern_dtype_bytes(c->out_dtype), s);
    if (c->k == 0)
        return spread_bias(g, c, s);
    TP_TRY(choose(g, &p, c, &how));
    if (how->spread_bias)
        TP_TRY(spread_bias(g, c, s));
    memcpy(&algo, how->algorithm, sizeof algo);
    e = multiply(g, &p, c, &algo, how->spread_bias ? 1.0f : 0.0f, s);
    if (e != CUBLAS_STATUS_SUCCESS && how->tuned) { /* an entry of the file that does not fit */
        how->used = false;
        return kern_dev_gemm_run(g, c, s);
    }
    if (e != CUBLAS_STATUS_SUCCESS)
        return lt_fail(g, e, "a product", c);
    return TP_OK;
}

/* ---- choosing by time ---- */
typedef struct stopwatch {
    kern_event from, to;
    void *flush; /* device */
    size_t flush_bytes;
} stopwatch;

/* The least microseconds of a few runs, each with a cold L2. */
static tp_status time_algorithm(kern_dev_gemm *g, plan *p, const kern_dev_gemm_call *c,
                                const cublasLtMatmulAlgo_t *algo, const stopwatch *w, kern_stream s,
                                float *us)
{
    float best = 0.0f;

    for (int i = 0; i <= N_TIMED; i++) { /* the first loads code */
        float ms;

        TP_TRY(kern_dev_set(g->dev, w->flush, i, w->flush_bytes, s));
        TP_TRY(kern_dev_event_record(g->dev, w->from, s));
        if (multiply(g, p, c, algo, 0.0f, s) != CUBLAS_STATUS_SUCCESS)
            return TP_ERR_UNSUPPORTED; /* the next one, then */
        TP_TRY(kern_dev_event_record(g->dev, w->to, s));
        TP_TRY(kern_dev_event_wait(g->dev, w->to));
        TP_TRY(kern_dev_event_ms(g->dev, w->from, w->to, &ms));
        if (i > 0 && (i == 1 || ms * 1000.0f < best))
            best = ms * 1000.0f;
    }
    *us = best;
    return TP_OK;
}

static tp_status tune(kern_dev_gemm *g, const kern_dev_gemm_call *c, const stopwatch *w,
                      kern_stream s, kern_gemm_choice *out)
{
    cublasLtMatmulHeuristicResult_t found[N_HEURISTICS];
    int n = N_HEURISTICS, best = -1;
    plan p;

    TP_TRY(list_algorithms(g, &p, c, found, &n, &out->spread_bias));
    for (int i = 0; i < n; i++) {
        float us;
        tp_status st = time_algorithm(g, &p, c, &found[i].algo, w, s, &us);

        if (st == TP_ERR_UNSUPPORTED)
            continue;
        if (st != TP_OK)
            return st;
        if (best < 0 || us < out->us) {
            best = i;
            out->us = us;
        }
    }
    if (best < 0)
        return lt_fail(g, CUBLAS_STATUS_NOT_SUPPORTED, "no algorithm runs", c);
    memcpy(out->algorithm, &found[best].algo, sizeof found[best].algo);
    tp_debug("gemm", "m %d, n %d, k %d: algorithm %d of %d, %.1f us", c->m, c->n, c->k, best, n,
             (double)out->us);
    return TP_OK;
}

tp_status kern_dev_gemm_tune(kern_dev_gemm *g, const kern_dev_gemm_call *c, kern_stream s)
{
    kern_gemm_choice made = {.shape = shape_of(c), .used = true, .tuned = true};
    kern_gemm_choice *place = kern_gemm_choices_place(g->choices, &made.shape);
    stopwatch w = {.flush_bytes = 2 * (size_t)kern_dev_get_props(g->dev)->l2_bytes};
    tp_status st;

    TP_TRY(check(c));
    if (c->m == 0 || c->n == 0 || c->k == 0 ||
        (kern_gemm_choice_holds(place, &made.shape) && place->tuned))
        return TP_OK;
    TP_TRY_GOTO(st, kern_dev_event_create(g->dev, true, &w.from), end);
    TP_TRY_GOTO(st, kern_dev_event_create(g->dev, true, &w.to), end);
    TP_TRY_GOTO(st, kern_dev_alloc(g->dev, w.flush_bytes, &w.flush), end);
    TP_TRY_GOTO(st, tune(g, c, &w, s, &made), end);
    *place = made;
    kern_gemm_choices_touch(g->choices, place);
    kern_gemm_choices_write(g->choices);
end:
    kern_dev_free(g->dev, w.flush);
    kern_dev_event_destroy(g->dev, w.to);
    kern_dev_event_destroy(g->dev, w.from);
    return st;
}
