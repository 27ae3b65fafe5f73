/* SPDX-License-Identifier: Apache-2.0 */
/* kern_host.c - see kern_host.h. */
#include "kernels/kern_host.h"

#include <string.h>

#include "base/mem.h"
#include "kernels/kern_check.h"

tp_status kern_host_alloc(kern_backend *be, size_t bytes, void **out)
{
    void *p = tp_aligned_alloc(KERN_HOST_ALIGN, bytes);

    (void)be;
    if (p == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "out of memory: %zu bytes", bytes);
    *out = p;
    return TP_OK;
}

void kern_host_free(kern_backend *be, void *p)
{
    (void)be;
    tp_free(p);
}

/* memmove: a caller may stage in the very place that it copies to. */
tp_status kern_host_put(kern_backend *be, void *dst, const void *src, size_t bytes)
{
    (void)be;
    if (bytes > 0 && dst != src)
        memmove(dst, src, bytes);
    return TP_OK;
}

tp_status kern_host_get(kern_backend *be, void *dst, const void *src, size_t bytes)
{
    return kern_host_put(be, dst, src, bytes);
}

tp_status kern_host_memory(kern_backend *be, int64_t *total, int64_t *available)
{
    (void)be;
    *total = 0;
    *available = 0;
    return TP_OK;
}

tp_status kern_host_take(kern_backend *be, const kern_take_args *a)
{
    const uint32_t *in = a->in;
    uint32_t *out = a->out;

    (void)be;
    TP_TRY(kern_check_words("take", a->out, a->in, a->idx, a->n));
    for (int i = 0; i < a->n; i++)
        out[i] = a->idx[i] >= 0 ? in[a->idx[i]] : UINT32_MAX;
    return TP_OK;
}

tp_status kern_host_scatter(kern_backend *be, const kern_scatter_args *a)
{
    const uint32_t *in = a->in;
    uint32_t *out = a->out;

    (void)be;
    TP_TRY(kern_check_words("scatter", a->out, a->in, a->idx, a->n));
    for (int i = 0; i < a->n; i++)
        if (a->idx[i] >= 0)
            out[a->idx[i]] = in[i];
    return TP_OK;
}
