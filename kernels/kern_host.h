/* SPDX-License-Identifier: Apache-2.0 */
/* kern_host.h - operations of backends whose memory is the host's: memory, copies, and moving single words. */
#ifndef KERN_HOST_H
#define KERN_HOST_H

#include "kernels/kern.h"

#define KERN_HOST_ALIGN 64 /* bytes; of every block from kern_host_alloc */

tp_status kern_host_alloc(kern_backend *be, size_t bytes, void **out);
void kern_host_free(kern_backend *be, void *p);
tp_status kern_host_put(kern_backend *be, void *dst, const void *src, size_t bytes);
tp_status kern_host_get(kern_backend *be, void *dst, const void *src, size_t bytes);
tp_status kern_host_memory(kern_backend *be, int64_t *total, int64_t *available);
tp_status kern_host_take(kern_backend *be, const kern_take_args *a);
tp_status kern_host_scatter(kern_backend *be, const kern_scatter_args *a);

#endif
