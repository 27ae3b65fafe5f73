/* SPDX-License-Identifier: Apache-2.0 */
/* bench_dnnl_none.c - stands in for bench_dnnl.c where the build found no oneDNN. */
#include "bench_dnnl.h"

const char *bench_dnnl_version(void)
{
    return "not found";
}

bench_dnnl *bench_dnnl_create(kern_dtype t, int m, int64_t n, int64_t k, const void *w,
                              const void *in, int copies)
{
    (void)t, (void)m, (void)n, (void)k, (void)w, (void)in, (void)copies;
    return NULL;
}

void bench_dnnl_run(bench_dnnl *d, int copy)
{
    (void)d, (void)copy;
}

void bench_dnnl_destroy(bench_dnnl *d)
{
    (void)d;
}
