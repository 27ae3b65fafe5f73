/* SPDX-License-Identifier: Apache-2.0 */
/* bench_gemm.c - the matrix product against this machine's limits, and beside oneDNN where it was found.
 *
 *   bench_gemm [--isa I] [--dtype bfloat16|float16|float32] [--threads N] [--quick]
 *
 * Shapes of a 0.5B model.  The weights of a shape exist as often as it takes to exceed every cache, and are walked
 * in turn, as the layers of a model are.  "of limit" is the time that bandwidth or peak alone would take (the longer
 * of the two), over the time taken.  "split" is the same product in 8 segments, "cost" its extra time; both are
 * measured in turn.  Best of several short runs.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <omp.h>

#include "base/clock.h"
#include "base/mem.h"
#include "bench_dnnl.h"
#include "bench_limits.h"
#include "kernels/convert.h"

#define COLD_BYTES (384 * 1024 * 1024)
#define RUN_NS     (60 * TP_NS_PER_MS) /* of one run, at least */

typedef struct bench {
    kern_backend *be;
    const kern_ops *ops;
    kern_dtype dtype;
    int runs;
    double bandwidth, peak;
} bench;

typedef struct shape {
    const char *name;
    int64_t n, k;
    int64_t unit; /* columns per unit of the segments; 0: never split */
} shape;

static const shape g_shapes[] = {
    {"qkv", 1152, 896, 0},  {"o", 896, 896, 64},      {"gate_up", 9728, 896, 0},
    {"down", 896, 4864, 1}, {"head", 151936, 896, 0},
};
static const int g_rows[] = {1, 4, 16, 64, 512};

static void *must(void *p)
{
    TP_ASSERT(p != NULL);
    return p;
}

static void put_weights(bench *b, const shape *s, const uint8_t *src, kern_weight **w, int n)
{
    kern_weight_rows rows = {.n_rows = s->n,
                             .src = src,
                             .src_stride = (size_t)s->k * kern_dtype_bytes(b->dtype),
                             .src_dtype = b->dtype};

    for (int i = 0; i < n; i++)
        TP_ASSERT(b->ops->weight_put(b->be, w[i], &rows) == TP_OK);
}

static kern_weight **make_weights(bench *b, const shape *s, const uint8_t *src, int n)
{
    kern_weight **w = must(tp_calloc((size_t)n, sizeof(kern_weight *)));
    kern_weight_desc d = {.n = s->n, .k = s->k, .dtype = b->dtype, .layout = KERN_LAYOUT_PACKED};

    for (int i = 0; i < n; i++)
        TP_ASSERT(b->ops->weight_create(b->be, &d, &w[i]) == TP_OK);
    put_weights(b, s, src, w, n);
    return w;
}

static uint8_t *random_block(int64_t count, kern_dtype t)
{
    size_t size = kern_dtype_bytes(t);
    uint8_t *p = must(tp_aligned_alloc(64, (size_t)count * size));
    uint32_t x = 1;

    for (int64_t i = 0; i < count; i++) {
        x = x * 1664525u + 1013904223u;
        kern_store_f32(p + (size_t)i * size, t, (float)(int32_t)x * 0x1p-31f);
    }
    return p;
}

/* Seconds per product over one run through the weights, again until the run is long enough. */
static double run_ours(bench *b, const kern_gemm_args *args, kern_weight **w, int n)
{
    int64_t start = tp_now_ns(), done = 0;
    kern_gemm_args a = *args;

    do {
        a.w = w[done++ % n];
        TP_ASSERT(b->ops->gemm(b->be, &a) == TP_OK);
    } while (done < n || tp_now_ns() - start < RUN_NS);
    return (double)(tp_now_ns() - start) * 1e-9 / (double)done;
}

static double run_dnnl(bench_dnnl *d, int n)
{
    int64_t start = tp_now_ns(), done = 0;

    do
        bench_dnnl_run(d, (int)(done++ % n));
    while (done < n || tp_now_ns() - start < RUN_NS);
    return (double)(tp_now_ns() - start) * 1e-9 / (double)done;
}

static kern_ksplit make_split(const shape *s)
{
    kern_ksplit split = {.seg_first = 0, .n_seg = 8};

    for (int i = 0; i < 8; i++) {
        int64_t begin, end;

        tp_seg_units(s->k / s->unit, 8, i, &begin, &end);
        split.k_end[i] = (int32_t)(end * s->unit);
    }
    return split;
}

static void bench_rows(bench *b, const shape *s, int m, kern_weight **w, int n, const uint8_t *src)
{
    kern_dtype at = kern_act_dtype(b->be, b->dtype);
    double bytes = (double)s->n * (double)s->k * (double)kern_dtype_bytes(b->dtype);
    double flop = 2.0 * m * (double)s->n * (double)s->k;
    double limit = bytes / b->bandwidth, best = 1e9, best_split = 1e9, best_dnnl = 1e9;
    size_t scratch_bytes = b->ops->gemm_scratch_bytes(b->be, m, s->n, s->k);
    kern_ksplit split = s->unit > 0 ? make_split(s) : (kern_ksplit){0};
    kern_gemm_args a = {.out = must(tp_aligned_alloc(64, (size_t)m * (size_t)s->n * 4)),
                        .in = random_block(m * s->k, at),
                        .m = m,
                        .scratch = must(tp_aligned_alloc(64, scratch_bytes))};
    kern_gemm_args as = a;
    bench_dnnl *d = bench_dnnl_create(b->dtype, m, s->n, s->k, src, a.in, n);

    as.split = &split;
    limit = b->peak > 0 && flop / b->peak > limit ? flop / b->peak : limit;
    for (int r = 0; r < b->runs; r++) {
        double t = run_ours(b, &a, w, n);

        best = t < best ? t : best;
        if (s->unit > 0) {
            t = run_ours(b, &as, w, n);
            best_split = t < best_split ? t : best_split;
        }
        if (d != NULL) {
            t = run_dnnl(d, n);
            best_dnnl = t < best_dnnl ? t : best_dnnl;
        }
    }
    printf("%-8s %4d %9.1f %7.1f %9.1f %7.0f%%", s->name, m, best * 1e6, bytes / best * 1e-9,
           flop / best * 1e-9, 100 * limit / best);
    if (s->unit > 0)
        printf(" %9.1f %+5.1f%%", best_split * 1e6, 100 * (best_split / best - 1));
    else
        printf(" %9s %6s", "-", "-");
    if (d != NULL)
        printf(" %9.1f %6.2f\n", best_dnnl * 1e6, best_dnnl / best);
    else
        printf(" %9s %6s\n", "-", "-");
    fflush(stdout);
    bench_dnnl_destroy(d);
    tp_free(a.out);
    tp_free((void *)(uintptr_t)a.in);
    tp_free(a.scratch);
}

static void bench_shape(bench *b, const shape *s)
{
    int64_t bytes = s->n * s->k * (int64_t)kern_dtype_bytes(b->dtype);
    int n = (int)((COLD_BYTES + bytes - 1) / bytes);
    uint8_t *src = random_block(s->n * s->k, b->dtype);
    int64_t start = tp_now_ns();
    kern_weight **w = make_weights(b, s, src, n);
    double pack = (double)n * (double)bytes / (double)(tp_now_ns() - start), again;

    b->bandwidth = bench_read_bandwidth(b->be->n_threads, COLD_BYTES);
    printf("%-8s read bandwidth now: %.1f GB/s\n", s->name, b->bandwidth * 1e-9);
    for (size_t i = 0; i < TP_ARRAY_LEN(g_rows); i++)
        bench_rows(b, s, g_rows[i], w, n, src);
    start = tp_now_ns();
    put_weights(b, s, src, w, n);
    again = (double)n * (double)bytes / (double)(tp_now_ns() - start);
    printf("%-8s packed at %.1f GB/s into new memory, %.1f into the same again\n", s->name, pack,
           again);
    for (int i = 0; i < n; i++)
        b->ops->weight_destroy(b->be, w[i]);
    tp_free(w);
    tp_free(src);
}

static void print_limits(bench *b)
{
    static const bench_unit units[] = {BENCH_FP32, BENCH_BF16, BENCH_AMX_BF16};
    static const char *names[] = {"FP32", "BF16", "AMX BF16"};
    int n = b->be->n_threads;

    for (int t = 1; t <= n; t += n > 1 ? n - 1 : 1)
        printf("read bandwidth, %d threads: %.1f GB/s\n", t,
               bench_read_bandwidth(t, (int64_t)512 << 20) * 1e-9);
    for (size_t u = 0; u < TP_ARRAY_LEN(units); u++) {
        double peak = bench_peak(b->be->isa, units[u], n);

        if (peak > 0)
            printf("%s peak, %d threads: %.0f GFLOP/s\n", names[u], n, peak * 1e-9);
        if (peak > 0 && (units[u] == BENCH_FP32 || b->dtype == KERN_DTYPE_BF16))
            b->peak = peak;
    }
}

static void usage(void)
{
    fprintf(stderr, "usage: bench_gemm [--isa generic|avx2|avx512|amx] [--threads N] [--quick] "
                    "[--dtype bfloat16|float16|float32] [--shape NAME]\n");
    exit(2);
}

int main(int argc, char **argv)
{
    bench b = {.ops = kern_cpu_ops(), .dtype = KERN_DTYPE_BF16, .runs = 5};
    kern_open_args open = {.n_threads = 2};
    const char *only = NULL;

    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;

        if (strcmp(argv[i], "--quick") == 0) {
            b.runs = 2;
            continue;
        }
        if (value == NULL)
            usage();
        if (strcmp(argv[i], "--isa") == 0)
            open.isa = value;
        else if (strcmp(argv[i], "--threads") == 0)
            open.n_threads = (int)strtol(value, NULL, 10);
        else if (strcmp(argv[i], "--shape") == 0)
            only = value;
        else if (strcmp(argv[i], "--dtype") == 0)
            b.dtype = strcmp(value, "float32") == 0   ? KERN_DTYPE_F32
                      : strcmp(value, "float16") == 0 ? KERN_DTYPE_F16
                                                      : KERN_DTYPE_BF16;
        else
            usage();
        i++;
    }
    if (b.ops->open(&b.be, &open) != TP_OK)
        return 1;
    omp_set_num_threads(b.be->n_threads); /* for oneDNN */
    printf("matrix product, %s, %s, %d threads; oneDNN: %s\n", b.be->isa, kern_dtype_name(b.dtype),
           b.be->n_threads, bench_dnnl_version());
    print_limits(&b);
    printf("%-8s %4s %9s %7s %9s %8s %9s %6s %9s %6s\n", "shape", "M", "us", "GB/s", "GFLOP/s",
           "of limit", "split us", "cost", "oneDNN us", "x ours");
    for (size_t s = 0; s < TP_ARRAY_LEN(g_shapes); s++)
        if (only == NULL || strcmp(only, g_shapes[s].name) == 0)
            bench_shape(&b, &g_shapes[s]);
    b.ops->close(b.be);
    return 0;
}
