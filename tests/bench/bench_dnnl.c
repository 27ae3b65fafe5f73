/* SPDX-License-Identifier: Apache-2.0 */
/* bench_dnnl.c - see bench_dnnl.h.  Weights are reordered once into whatever layout oneDNN prefers. */
#include "bench_dnnl.h"

#include <stdio.h>

#include <oneapi/dnnl/dnnl.h>

#include "base/mem.h"

#define MUST(call) TP_ASSERT((call) == dnnl_success)

struct bench_dnnl {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_desc_t desc;
    dnnl_primitive_t primitive;
    dnnl_memory_t in, out;
    dnnl_memory_t *weights; /* [copies] */
    int copies;
};

const char *bench_dnnl_version(void)
{
    static char text[32];
    const dnnl_version_t *v = dnnl_version();

    snprintf(text, sizeof text, "%d.%d.%d", v->major, v->minor, v->patch);
    return text;
}

static dnnl_data_type_t type_of(kern_dtype t)
{
    return t == KERN_DTYPE_F32 ? dnnl_f32 : t == KERN_DTYPE_BF16 ? dnnl_bf16 : dnnl_f16;
}

static dnnl_memory_desc_t matrix(int64_t rows, int64_t cols, dnnl_data_type_t t,
                                 dnnl_format_tag_t tag)
{
    dnnl_memory_desc_t md;
    dnnl_dims_t dims = {rows, cols};

    MUST(dnnl_memory_desc_init_by_tag(&md, 2, dims, t, tag));
    return md;
}

static dnnl_memory_t memory_of(dnnl_engine_t e, const dnnl_memory_desc_t *md, const void *data)
{
    dnnl_memory_t m;
    void *p = data != NULL ? (void *)(uintptr_t)data : DNNL_MEMORY_ALLOCATE;

    MUST(dnnl_memory_create(&m, md, e, p));
    return m;
}

/* Weights [k, n] whose columns are our rows, into the primitive's own layout. */
static void reorder_weights(bench_dnnl *d, const dnnl_memory_desc_t *from, const void *w)
{
    const dnnl_memory_desc_t *to = dnnl_primitive_desc_query_md(d->desc, dnnl_query_weights_md, 0);
    dnnl_memory_t src = memory_of(d->engine, from, w);
    dnnl_primitive_desc_t pd;
    dnnl_primitive_t reorder;

    MUST(dnnl_reorder_primitive_desc_create(&pd, from, d->engine, to, d->engine, NULL));
    MUST(dnnl_primitive_create(&reorder, pd));
    for (int i = 0; i < d->copies; i++) {
        dnnl_exec_arg_t args[2] = {{DNNL_ARG_FROM, src}, {DNNL_ARG_TO, NULL}};

        d->weights[i] = memory_of(d->engine, to, NULL);
        args[1].memory = d->weights[i];
        MUST(dnnl_primitive_execute(reorder, d->stream, 2, args));
    }
    MUST(dnnl_stream_wait(d->stream));
    dnnl_primitive_destroy(reorder);
    dnnl_primitive_desc_destroy(pd);
    dnnl_memory_destroy(src);
}

bench_dnnl *bench_dnnl_create(kern_dtype t, int m, int64_t n, int64_t k, const void *w,
                              const void *in, int copies)
{
    dnnl_memory_desc_t a = matrix(m, k, type_of(t == KERN_DTYPE_F16 ? KERN_DTYPE_F32 : t), dnnl_ab);
    dnnl_memory_desc_t b = matrix(k, n, type_of(t), dnnl_format_tag_any);
    dnnl_memory_desc_t rows = matrix(k, n, type_of(t), dnnl_ba);
    dnnl_memory_desc_t c = matrix(m, n, dnnl_f32, dnnl_ab);
    dnnl_matmul_desc_t op;
    bench_dnnl *d = tp_calloc(1, sizeof *d);

    TP_ASSERT(d != NULL);
    MUST(dnnl_engine_create(&d->engine, dnnl_cpu, 0));
    MUST(dnnl_stream_create(&d->stream, d->engine, dnnl_stream_default_flags));
    if (dnnl_matmul_desc_init(&op, &a, &b, NULL, &c) != dnnl_success ||
        dnnl_primitive_desc_create(&d->desc, &op, NULL, d->engine, NULL) != dnnl_success) {
        bench_dnnl_destroy(d);
        return NULL;
    }
    MUST(dnnl_primitive_create(&d->primitive, d->desc));
    d->copies = copies;
    d->weights = tp_calloc((size_t)copies, sizeof(dnnl_memory_t));
    TP_ASSERT(d->weights != NULL);
    d->in = memory_of(d->engine, &a, in);
    d->out = memory_of(d->engine, &c, NULL);
    reorder_weights(d, &rows, w);
    return d;
}

void bench_dnnl_run(bench_dnnl *d, int copy)
{
    dnnl_exec_arg_t args[3] = {
        {DNNL_ARG_SRC, d->in}, {DNNL_ARG_WEIGHTS, d->weights[copy]}, {DNNL_ARG_DST, d->out}};

    MUST(dnnl_primitive_execute(d->primitive, d->stream, 3, args));
    MUST(dnnl_stream_wait(d->stream));
}

void bench_dnnl_destroy(bench_dnnl *d)
{
    if (d == NULL)
        return;
    for (int i = 0; i < d->copies; i++)
        dnnl_memory_destroy(d->weights[i]);
    tp_free(d->weights);
    dnnl_memory_destroy(d->in);
    dnnl_memory_destroy(d->out);
    dnnl_primitive_destroy(d->primitive);
    dnnl_primitive_desc_destroy(d->desc);
    dnnl_stream_destroy(d->stream);
    dnnl_engine_destroy(d->engine);
    tp_free(d);
}
