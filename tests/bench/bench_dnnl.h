/* SPDX-License-Identifier: Apache-2.0 */
/* bench_dnnl.h - the same product through oneDNN, the yardstick; empty where the build found no oneDNN. */
#ifndef BENCH_DNNL_H
#define BENCH_DNNL_H

#include "kernels/kern.h"

typedef struct bench_dnnl bench_dnnl;

const char *bench_dnnl_version(void); /* "not found" */
/* `copies` reordered copies of the weights w [n, k]; in [m, k] is borrowed.  NULL where oneDNN cannot. */
bench_dnnl *bench_dnnl_create(kern_dtype t, int m, int64_t n, int64_t k, const void *w,
                              const void *in, int copies);
void bench_dnnl_run(bench_dnnl *d, int copy);
void bench_dnnl_destroy(bench_dnnl *d);

#endif
