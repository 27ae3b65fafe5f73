/* SPDX-License-Identifier: Apache-2.0 */
/* model_inspect.c - see model_inspect.h. */
#include "runtime/model/model_inspect.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/model/safetensors.h"

static void count_tensor(rt_inspect *x, const rt_st_tensor *t)
{
    int i = 0;

    while (i < x->n_dtypes && strcmp(x->dtypes[i].name, t->dtype_name) != 0)
        i++;
    if (i == RT_INSPECT_DTYPES)
        i = RT_INSPECT_DTYPES - 1; /* more kinds than rows: the last row takes the rest */
    if (i == x->n_dtypes) {
        (void)snprintf(x->dtypes[i].name, sizeof x->dtypes[i].name, "%s", t->dtype_name);
        x->n_dtypes++;
    }
    x->dtypes[i].n_tensors++;
    x->dtypes[i].bytes += (int64_t)t->bytes;
    x->disk_bytes += (int64_t)t->bytes;
}

static int most_bytes_first(const void *a, const void *b)
{
    const rt_inspect_dtype *x = a, *y = b;

    return (x->bytes < y->bytes) - (x->bytes > y->bytes);
}

static tp_status read_headers(rt_inspect *x, const char *dir)
{
    rt_st st;
    tp_status status = rt_st_open(&st, dir);

    if (status == TP_ERR_NOT_FOUND) {
        (void)snprintf(x->weights_note, sizeof x->weights_note, "%s", tp_last_error());
        return TP_OK;
    }
    if (status != TP_OK)
        return TP_FAIL(status, "%s", tp_last_error());
    x->has_weights = true;
    x->n_files = st.n_files;
    for (size_t i = 0; i < st.n_tensors; i++)
        count_tensor(x, &st.tensors[i]);
    qsort(x->dtypes, (size_t)x->n_dtypes, sizeof *x->dtypes, most_bytes_first);
    rt_st_close(&st);
    return TP_OK;
}

static int64_t matrix_params(const rt_config *c)
{
    int64_t h = c->hidden, heads = c->n_heads + c->n_kv_heads; /* q and o; k and v */

    return c->n_layers * (2 * h * heads * c->head_dim + 3 * h * c->intermediate);
}

tp_status rt_inspect_load(rt_inspect *out, const char *dir, int n_ranks, int dtype, int kv)
{
    rt_inspect x = {.n_ranks = n_ranks};
    const rt_config *c = &x.config;

    TP_TRY(rt_config_load(&x.config, dir));
    x.weights = dtype < 0 ? c->dtype : (kern_dtype)dtype;
    x.kv = kv < 0 ? x.weights : (kern_dtype)kv;
    x.params = rt_config_params(c);
    x.linear_params = matrix_params(c);
    x.embed_params = (int64_t)c->vocab * c->hidden;
    x.flops_per_token = 2 * (x.linear_params + x.embed_params);
    x.kv_bytes_per_token =
        (int64_t)2 * c->n_layers * c->n_kv_heads * c->head_dim * (int64_t)kern_dtype_bytes(x.kv);
    for (int rank = 0; rank == 0 || rank < n_ranks;
         rank++) /* the first refuses impossible n_ranks */
        TP_TRY(rt_shard_plan(&x.ranks[rank], c, n_ranks, rank, x.weights, x.kv));
    TP_TRY(read_headers(&x, dir));
    *out = x;
    return TP_OK;
}

int64_t rt_inspect_streamed_bytes(const rt_inspect *x, int rank)
{
    const rt_shard *s = &x->ranks[rank];
    int64_t table =
        (int64_t)s->n_vocab_local * x->config.hidden * (int64_t)kern_dtype_bytes(x->weights);

    return s->weight_bytes - (x->config.tied ? 0 : table);
}

void rt_inspect_rope_text(const rt_config *c, char text[RT_INSPECT_ROPE_BYTES])
{
    static const char *const names[] = {"default", "linear", "dynamic", "llama3", "yarn"};
    const rt_rope *r = &c->rope;

    if (r->kind == RT_ROPE_DEFAULT)
        (void)snprintf(text, RT_INSPECT_ROPE_BYTES, "default, theta %g", r->theta);
    else
        (void)snprintf(text, RT_INSPECT_ROPE_BYTES, "%s, factor %g, original %" PRId64 ", theta %g",
                       names[r->kind], r->factor, r->original_max_position, r->theta);
}
