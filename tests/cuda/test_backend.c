/* SPDX-License-Identifier: Apache-2.0 */
/* test_backend.c - the backend of kernels/cuda as programs get it: opened as a module, on the emulated device. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "kernels/convert.h"
#include "kernels/cuda/launch.h"
#include "kernels/module.h"
#include "tests/kernels/kern_testing.h"

#define CHUNK ((size_t)8 << 20) /* of the pinned ring: cuda_internal.h */

static kern_backend *g_be;

static int set_up(void **state)
{
    const kern_ops *ops = NULL;

    (void)state;
    kern_module_search(TPSERVE_MODULE_DIR);
    KT_OK(kern_module_open("emu", &ops, NULL));
    KT_OK(ops->open(&g_be, &(kern_open_args){.n_threads = 2, .device = 0}));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    g_be->ops->close(g_be);
    return 0;
}

static void *device_copy(const void *host, size_t bytes)
{
    void *p = NULL;

    KT_OK(g_be->ops->alloc(g_be, bytes, &p));
    KT_OK(g_be->ops->put(g_be, p, host, bytes));
    return p;
}

static void drop(void *p)
{
    g_be->ops->free(g_be, p);
}

static int64_t bytes_free(void)
{
    int64_t total, available;

    KT_OK(g_be->ops->memory(g_be, &total, &available));
    return available;
}

/* ---- modules ---- */
static void test_module(void **state)
{
    const kern_ops *a = NULL, *b = NULL;
    const void *comm = NULL;
    kern_device_info info[16];
    int n = 0;
    tp_status st;

    (void)state;
    KT_OK(kern_module_open("emu", &a, &comm));
    KT_OK(kern_module_open("emu", &b, NULL));
    assert_ptr_equal(a, b);
    assert_ptr_equal(a, g_be->ops);
    assert_string_equal(a->name, "emu");
    assert_int_equal(a->abi, KERN_ABI);
    assert_int_equal(kern_module_open("abacus", &a, NULL), TP_ERR_NOT_FOUND);
    KT_OK(kern_module_devices("emu", info, 16, &n));
    assert_int_equal(n, 8);
    assert_int_equal(info[7].ordinal, 7);
    assert_int_equal(info[7].cc, 90);
    assert_int_equal(info[0].peers, 0xff);
    KT_OK(kern_module_devices("emu", info, 3, &n));
    assert_int_equal(n, 3);

    /* The other one: not built, built and without a driver, or usable; each in words. */
    st = kern_module_devices("cuda", info, 16, &n);
    if (st == TP_OK)
        print_message("cuda: %d devices\n", n);
    else
        print_message("cuda: %s: %s\n", tp_status_name(st), tp_last_error());
    assert_true(st == TP_OK || st == TP_ERR_NOT_FOUND || st == TP_ERR_DEVICE);
    if (st == TP_ERR_DEVICE)
        assert_true(strstr(tp_last_error(), "driver") != NULL ||
                    strstr(tp_last_error(), "cannot be loaded") != NULL ||
                    strstr(tp_last_error(), "GPU") != NULL);
}

/* What the module rejects can be read here, and its allocations count here. */
static void test_one_process(void **state)
{
    kern_weight *w = NULL;
    int64_t before;

    (void)state;
    assert_int_equal(kern_rmsnorm(g_be, &(kern_rmsnorm_args){.m = -1, .dim = 4}), TP_ERR_INVALID);
    assert_non_null(strstr(tp_last_error(), "rmsnorm: shape"));
    before = tp_mem_count();
    KT_OK(g_be->ops->weight_create(g_be, &(kern_weight_desc){.n = 1, .k = 1}, &w));
    assert_true(tp_mem_count() > before);
    g_be->ops->weight_destroy(g_be, w);
    assert_true(g_be->device && g_be->act_f16 && !g_be->tree && g_be->stream != NULL);
    assert_string_equal(g_be->isa, "sm_90");
    assert_int_equal(kern_act_dtype(g_be, KERN_DTYPE_F16), KERN_DTYPE_F16);
}

/* ---- memory ---- */
static void test_put_get(void **state)
{
    static const size_t sizes[] = {0, 1, 15, 4097, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5};
    kt_rng r = {1};
    unsigned char *host = kt_zeros(3 * CHUNK + 5), *back = kt_zeros(3 * CHUNK + 5);

    (void)state;
    for (size_t i = 0; i < 3 * CHUNK + 5; i++)
        host[i] = (unsigned char)(i * 2654435761u >> 13);
    for (size_t i = 0; i < TP_ARRAY_LEN(sizes); i++) {
        void *p = NULL;

        KT_OK(g_be->ops->alloc(g_be, sizes[i], &p));
        memset(back, 1, sizes[i]);
        KT_OK(g_be->ops->get(g_be, back, p, sizes[i])); /* new memory is zero */
        for (size_t j = 0; j < sizes[i]; j++)
            if (back[j] != 0)
                fail_msg("byte %zu of new memory is %d", j, back[j]);
        memcpy(back, host, sizes[i]);
        KT_OK(g_be->ops->put(g_be, p, back, sizes[i]));
        memset(back, 0xee, sizes[i]); /* ours again */
        KT_OK(g_be->ops->get(g_be, back, p, sizes[i]));
        kt_same_bits("put, get", back, host, sizes[i]);
        drop(p);
    }
    KT_OK(g_be->ops->get(g_be, NULL, NULL, 0)); /* waits */
    /* Many small ones, more than the ring holds, are all under way before anyone waits. */
    {
        int n = 3000, bytes = 16 << 10;
        unsigned char *p = device_copy(host, (size_t)bytes);

        for (int i = 0; i < n; i++)
            KT_OK(g_be->ops->put(g_be, p, host + kt_below(&r, 1000) + (i == n - 1 ? 7 : 0),
                                 i == n - 1 ? 100 : (size_t)bytes));
        KT_OK(g_be->ops->put(g_be, p, host, (size_t)bytes));
        KT_OK(g_be->ops->get(g_be, back, p, (size_t)bytes));
        kt_same_bits("many puts", back, host, (size_t)bytes);
        drop(p);
    }
    kt_free(host);
    kt_free(back);
}

static void test_accounting(void **state)
{
    const kern_weight_desc d = {.n = 33, .k = 257, .dtype = KERN_DTYPE_BF16};
    const kern_kv_desc k = {.n_layers = 3,
                            .n_kv = 2,
                            .head_dim = 64,
                            .block_tokens = 16,
                            .n_blocks = 7,
                            .dtype = KERN_DTYPE_F16};
    int64_t before = bytes_free();
    kern_weight *w = NULL;
    kern_kv *kv = NULL;
    void *p = NULL;

    (void)state;
    KT_OK(g_be->ops->weight_create(g_be, &d, &w));
    assert_int_equal(before - bytes_free(), g_be->ops->weight_bytes(g_be, &d));
    g_be->ops->weight_destroy(g_be, w);
    assert_int_equal(before, bytes_free());
    KT_OK(g_be->ops->kv_create(g_be, &k, &kv));
    assert_int_equal(g_be->ops->kv_block_bytes(g_be, &k), 3 * 2 * 2 * 16 * 64 * 2);
    assert_int_equal(before - bytes_free(), 7 * g_be->ops->kv_block_bytes(g_be, &k));
    g_be->ops->kv_destroy(g_be, kv);
    assert_int_equal(before, bytes_free());
    assert_int_equal(g_be->ops->alloc(g_be, (size_t)5 << 30, &p), TP_ERR_NOMEM);
    assert_non_null(strstr(tp_last_error(), "--gpu-memory-utilization"));
    g_be->ops->weight_destroy(g_be, NULL);
    g_be->ops->kv_destroy(g_be, NULL);
    g_be->ops->free(g_be, NULL);
}

/* ---- weights ---- */
/* Rows of the source are `gap` bytes longer than their elements, and the source starts at an odd address. */
static void check_weight(kern_dtype to, kern_dtype from, int n, int k, size_t gap)
{
    kern_weight_desc d = {.n = n, .k = k, .dtype = to, .layout = KERN_LAYOUT_ROWS};
    size_t src_size = kern_dtype_bytes(from), stride = (size_t)k * src_size + gap;
    unsigned char *src = kt_zeros((size_t)n * stride + 1);
    float *want = kt_zeros((size_t)n * (size_t)k * sizeof *want);
    float *got = kt_zeros((size_t)n * (size_t)k * sizeof *got);
    int32_t *ids = kt_zeros((size_t)n * sizeof *ids);
    kt_rng r = {(uint64_t)(n * 1000 + k)};
    kern_weight *w = NULL;
    void *dev_ids, *out;
    int half = n / 2;

    for (int i = 0; i < n; i++) {
        ids[i] = i;
        for (int j = 0; j < k; j++) {
            unsigned char *at = src + 1 + (size_t)i * stride + (size_t)j * src_size;
            unsigned char short_one[4];

            kern_store_f32(at, from, kt_unit(&r) * (kt_below(&r, 50) == 0 ? 1e-6f : 100.0f));
            kern_store_f32(short_one, to, kern_load_f32(at, from));
            want[i * k + j] = kern_load_f32(short_one, to);
        }
    }
    KT_OK(g_be->ops->weight_create(g_be, &d, &w));
    /* In two parts, the second first. */
    KT_OK(g_be->ops->weight_put(g_be, w,
                                &(kern_weight_rows){.row = half,
                                                    .n_rows = n - half,
                                                    .src = src + 1 + (size_t)half * stride,
                                                    .src_stride = stride,
                                                    .src_dtype = from}));
    KT_OK(g_be->ops->weight_put(
        g_be, w,
        &(kern_weight_rows){
            .row = 0, .n_rows = half, .src = src + 1, .src_stride = stride, .src_dtype = from}));
    kt_free(src); /* ours again */
    dev_ids = device_copy(ids, (size_t)n * sizeof *ids);
    KT_OK(g_be->ops->alloc(g_be, (size_t)n * (size_t)k * sizeof *got, &out));
    KT_OK(kern_embed(g_be, &(kern_embed_args){.out = out, .table = w, .ids = dev_ids, .m = n}));
    KT_OK(g_be->ops->get(g_be, got, out, (size_t)n * (size_t)k * sizeof *got));
    kt_same_bits("weight", got, want, (size_t)n * (size_t)k * sizeof *got);
    drop(out);
    drop(dev_ids);
    g_be->ops->weight_destroy(g_be, w);
    kt_free(want);
    kt_free(got);
    kt_free(ids);
}

static void test_weights(void **state)
{
    static const int shapes[][2] = {{1, 1}, {3, 7}, {8, 64}, {17, 129}, {5, 1000}};

    (void)state;
    for (int to = 0; to < 3; to++)
        for (int from = 0; from < 3; from++)
            for (size_t i = 0; i < TP_ARRAY_LEN(shapes); i++)
                check_weight((kern_dtype)to, (kern_dtype)from, shapes[i][0], shapes[i][1],
                             i % 2 * 3);
    /* More than a chunk of the ring. */
    check_weight(KERN_DTYPE_BF16, KERN_DTYPE_BF16, 700, 6001, 0);
    check_weight(KERN_DTYPE_F16, KERN_DTYPE_F32, 520, 4100, 4);
}

static void test_refusals(void **state)
{
    static const int taken[] = {64, 80, 96, 128, 192, 256};
    kern_kv_desc d = {
        .n_layers = 1, .n_kv = 1, .block_tokens = 16, .n_blocks = 1, .dtype = KERN_DTYPE_BF16};
    kern_weight *w = NULL;
    kern_kv *kv = NULL;

    (void)state;
    for (size_t i = 0; i < TP_ARRAY_LEN(taken); i++) {
        d.head_dim = taken[i];
        KT_OK(g_be->ops->kv_create(g_be, &d, &kv));
        g_be->ops->kv_destroy(g_be, kv);
    }
    kv = NULL;
    d.head_dim = 512;
    assert_int_equal(g_be->ops->kv_create(g_be, &d, &kv), TP_ERR_UNSUPPORTED);
    assert_null(kv);
    assert_non_null(strstr(tp_last_error(), "head_dim 512"));
    assert_int_equal(g_be->ops->weight_create(g_be, &(kern_weight_desc){.n = 1, .k = 1 << 24}, &w),
                     TP_ERR_UNSUPPORTED);
    assert_int_equal(g_be->ops->weight_create(g_be, &(kern_weight_desc){.n = -1, .k = 1}, &w),
                     TP_ERR_INVALID);
    assert_null(w);
}

static void test_kv_copy(void **state)
{
    const kern_kv_desc d = {.n_layers = 2,
                            .n_kv = 3,
                            .head_dim = 64,
                            .block_tokens = 16,
                            .n_blocks = 4,
                            .dtype = KERN_DTYPE_BF16};
    size_t block = 2 * 3 * 16 * 64 * 2, layer = 4 * block, all = 2 * layer;
    unsigned char *host = kt_zeros(all), *got = kt_zeros(all);
    kern_kv *kv = NULL;

    (void)state;
    for (size_t i = 0; i < all; i++)
        host[i] = (unsigned char)(i * 2654435761u >> 11);
    KT_OK(g_be->ops->kv_create(g_be, &d, &kv));
    KT_OK(g_be->ops->put(g_be, kv->data, host, all));
    KT_OK(g_be->ops->kv_copy_block(g_be, kv, 3, 1));
    KT_OK(g_be->ops->kv_copy_block(g_be, kv, 2, 2));
    assert_int_equal(g_be->ops->kv_copy_block(g_be, kv, 4, 1), TP_ERR_INVALID);
    for (int l = 0; l < 2; l++)
        memcpy(host + (size_t)l * layer + 3 * block, host + (size_t)l * layer + block, block);
    KT_OK(g_be->ops->get(g_be, got, kv->data, all));
    kt_same_bits("kv_copy_block", got, host, all);
    g_be->ops->kv_destroy(g_be, kv);
    kt_free(host);
    kt_free(got);
}

/* ---- products ---- */
static void check_gemm(kern_dtype t, int m, int n, int k, bool with_bias, bool with_split)
{
    kern_weight_desc d = {.n = n, .k = k, .dtype = t};
    size_t size = kern_dtype_bytes(t), n_out = (size_t)m * (size_t)n;
    unsigned char *in = kt_zeros((size_t)m * (size_t)k * size);
    unsigned char *src = kt_zeros((size_t)n * (size_t)k * size);
    kt_rng r = {(uint64_t)(m * 7919 + n * 31 + k)};
    float *bias = kt_floats(&r, (size_t)n, 1.0f), *got = kt_zeros(n_out * sizeof *got);
    double *want = kt_zeros(n_out * sizeof *want);
    kern_ksplit split = {.n_seg = 2, .k_end = {k / 3, k}};
    kern_weight *w = NULL;
    void *dev_in, *dev_bias, *out = NULL;
    char what[64];

    for (int64_t i = 0; i < (int64_t)m * k; i++)
        kern_store_f32(in + (size_t)i * size, t, kt_unit(&r));
    for (int64_t i = 0; i < (int64_t)n * k; i++)
        kern_store_f32(src + (size_t)i * size, t, kt_unit(&r));
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            double sum = with_bias ? (double)bias[j] : 0.0;

            for (int x = 0; x < k; x++)
                sum += (double)kern_load_f32(in + ((size_t)i * (size_t)k + (size_t)x) * size, t) *
                       (double)kern_load_f32(src + ((size_t)j * (size_t)k + (size_t)x) * size, t);
            want[(size_t)i * (size_t)n + (size_t)j] = sum;
        }
    KT_OK(g_be->ops->weight_create(g_be, &d, &w));
    KT_OK(g_be->ops->weight_put(
        g_be, w,
        &(kern_weight_rows){
            .n_rows = n, .src = src, .src_stride = (size_t)k * size, .src_dtype = t}));
    dev_in = device_copy(in, (size_t)m * (size_t)k * size);
    dev_bias = device_copy(bias, (size_t)n * sizeof *bias);
    KT_OK(g_be->ops->alloc(g_be, n_out * sizeof *got, &out));
    KT_OK(kern_gemm(g_be, &(kern_gemm_args){.out = out,
                                            .in = dev_in,
                                            .w = w,
                                            .bias = with_bias ? dev_bias : NULL,
                                            .split = with_split ? &split : NULL,
                                            .m = m}));
    KT_OK(g_be->ops->get(g_be, got, out, n_out * sizeof *got));
    (void)snprintf(what, sizeof what, "gemm %s m %d n %d k %d", kern_dtype_name(t), m, n, k);
    kt_compare(what, got, KERN_DTYPE_F32, want, n_out, 1e-5, 2e-6 * (k + 1));
    drop(dev_in);
    drop(dev_bias);
    drop(out);
    g_be->ops->weight_destroy(g_be, w);
    kt_free(in);
    kt_free(src);
    kt_free(bias);
    kt_free(got);
    kt_free(want);
}

static void test_gemm(void **state)
{
    static const int shapes[][3] = {{0, 8, 8},     {4, 0, 8},     {3, 5, 0},
                                    {1, 1, 1},     {1, 33, 65},   {2, 64, 255},
                                    {31, 31, 257}, {33, 100, 48}, {65, 40, 512}};

    (void)state;
    for (int t = 0; t < 3; t++)
        for (size_t i = 0; i < TP_ARRAY_LEN(shapes); i++)
            for (int bias = 0; bias < 2; bias++)
                check_gemm((kern_dtype)t, shapes[i][0], shapes[i][1], shapes[i][2], bias != 0,
                           false);
    check_gemm(KERN_DTYPE_BF16, 5, 9, 30, false, true);
}

/* A split that does not cover the columns is refused, as on every backend. */
static void test_gemm_refusals(void **state)
{
    kern_ksplit split = {.n_seg = 1, .k_end = {7}};
    kern_weight *w = NULL;
    float x[8] = {0};

    (void)state;
    KT_OK(g_be->ops->weight_create(g_be, &(kern_weight_desc){.n = 1, .k = 8}, &w));
    assert_int_equal(
        kern_gemm(g_be, &(kern_gemm_args){.out = x, .in = x, .w = w, .m = 1, .split = &split}),
        TP_ERR_INVALID);
    /* Host memory is no device memory. */
    assert_int_equal(kern_gemm(g_be, &(kern_gemm_args){.out = x, .in = x, .w = w, .m = 1}),
                     TP_ERR_DEVICE);
    KT_OK(g_be->ops->gemm_tune != NULL ? TP_OK : TP_ERR_INVALID);
    g_be->ops->weight_destroy(g_be, w);
}

/* ---- graphs ---- */
typedef struct layer {
    kern_weight *w;
    void *residual, *norm, *act, *out;
} layer;

#define ROWS 3
#define DIM  64
#define OUT  40

static tp_status run_layer(const layer *l)
{
    TP_TRY(kern_rmsnorm(g_be, &(kern_rmsnorm_args){.out = l->act,
                                                   .residual = l->residual,
                                                   .weight = l->norm,
                                                   .m = ROWS,
                                                   .dim = DIM,
                                                   .eps = 1e-5f,
                                                   .out_dtype = KERN_DTYPE_BF16}));
    return kern_gemm(g_be, &(kern_gemm_args){.out = l->out, .in = l->act, .w = l->w, .m = ROWS});
}

static void make_layer(layer *l)
{
    kt_rng r = {5};
    float *w = kt_floats(&r, OUT * DIM, 1.0f), *norm = kt_floats(&r, DIM, 1.0f);

    KT_OK(g_be->ops->weight_create(
        g_be, &(kern_weight_desc){.n = OUT, .k = DIM, .dtype = KERN_DTYPE_BF16}, &l->w));
    KT_OK(g_be->ops->weight_put(
        g_be, l->w, &(kern_weight_rows){.n_rows = OUT, .src = w, .src_stride = DIM * sizeof *w}));
    l->norm = device_copy(norm, DIM * sizeof *norm);
    KT_OK(g_be->ops->alloc(g_be, ROWS * DIM * sizeof(float), &l->residual));
    KT_OK(g_be->ops->alloc(g_be, ROWS * DIM * sizeof(uint16_t), &l->act));
    KT_OK(g_be->ops->alloc(g_be, ROWS * OUT * sizeof(float), &l->out));
    kt_free(w);
    kt_free(norm);
}

/* A recorded layer gives what the same calls give at once, for every input that is put into its buffers. */
static void test_graph(void **state)
{
    layer l;
    kern_graph *g = NULL;
    float eager[ROWS * OUT], replayed[ROWS * OUT];
    kt_rng r = {9};
    int64_t before;

    (void)state;
    make_layer(&l);
    KT_OK(g_be->ops->graph_begin(g_be));
    KT_OK(run_layer(&l));
    KT_OK(g_be->ops->graph_end(g_be, &g));
    KT_OK(g_be->ops->get(g_be, replayed, l.out, sizeof replayed));
    for (int i = 0; i < ROWS * OUT; i++)
        assert_true(replayed[i] == 0.0f); /* recording executes nothing */
    before = tp_mem_count();
    for (int i = 0; i < 4; i++) {
        float in[ROWS * DIM];

        for (int j = 0; j < ROWS * DIM; j++)
            in[j] = kt_unit(&r);
        KT_OK(g_be->ops->put(g_be, l.residual, in, sizeof in));
        KT_OK(g_be->ops->graph_launch(g_be, g));
        KT_OK(g_be->ops->get(g_be, replayed, l.out, sizeof replayed));
        memset(in, 0, sizeof in);
        KT_OK(run_layer(&l));
        KT_OK(g_be->ops->get(g_be, eager, l.out, sizeof eager));
        kt_same_bits("graph", replayed, eager, sizeof eager);
        assert_true(replayed[0] != 0.0f);
    }
    assert_int_equal(tp_mem_count(), before); /* a step of the engine may not allocate */
    g_be->ops->graph_destroy(g_be, g);
    g_be->ops->graph_destroy(g_be, NULL);

    /* What cannot be recorded. */
    for (int way = 0; way < 4; way++) {
        tp_status st;
        void *p = NULL;

        g = NULL;
        KT_OK(g_be->ops->graph_begin(g_be));
        if (way == 0)
            st = g_be->ops->put(g_be, l.residual, eager, 16);
        else if (way == 1)
            st = g_be->ops->get(g_be, eager, l.residual, 16);
        else if (way == 2)
            st = g_be->ops->alloc(g_be, 16, &p);
        else
            st = g_be->ops->graph_begin(g_be);
        assert_int_equal(st, TP_ERR_INVALID);
        KT_OK(run_layer(&l));
        assert_int_equal(g_be->ops->graph_end(g_be, &g), TP_ERR_INVALID);
        assert_null(g);
    }
    KT_OK(run_layer(&l));
    KT_OK(g_be->ops->get(g_be, eager, l.out, sizeof eager));
    drop(l.residual);
    drop(l.norm);
    drop(l.act);
    drop(l.out);
    g_be->ops->weight_destroy(g_be, l.w);
}

static void test_open(void **state)
{
    kern_backend *be = NULL;

    (void)state;
    assert_int_equal(g_be->ops->open(&be, &(kern_open_args){.n_threads = 0}), TP_ERR_INVALID);
    assert_int_equal(g_be->ops->open(&be, &(kern_open_args){.n_threads = 1, .device = 8}),
                     TP_ERR_DEVICE);
    assert_int_equal(g_be->ops->open(&be, &(kern_open_args){.n_threads = 1, .device = -1}),
                     TP_ERR_DEVICE);
    for (int n = 0; n < 4; n++) {
        tp_mem_fail_after(n);
        assert_int_equal(g_be->ops->open(&be, &(kern_open_args){.n_threads = 1}), TP_ERR_NOMEM);
        tp_mem_fail_after(-1);
    }
    assert_null(be);
    KT_OK(g_be->ops->open(&be, &(kern_open_args){.n_threads = 1, .device = 1}));
    be->ops->close(be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_module),        cmocka_unit_test(test_one_process),
        cmocka_unit_test(test_put_get),       cmocka_unit_test(test_accounting),
        cmocka_unit_test(test_weights),       cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_kv_copy),       cmocka_unit_test(test_gemm),
        cmocka_unit_test(test_gemm_refusals), cmocka_unit_test(test_graph),
        cmocka_unit_test(test_open),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
