/* SPDX-License-Identifier: Apache-2.0 */
/* kern_host.h - operations of backends whose memory is the host's: copies, and moving single words. */
#ifndef KERN_HOST_H
#define KERN_HOST_H

#include "kernels/kern.h"

tp_status kern_host_put(kern_backend *be, void *dst, const void *src, size_t bytes);
tp_status kern_host_get(kern_backend *be, void *dst, const void *src, size_t bytes);
tp_status kern_host_memory(kern_backend *be, int64_t *total, int64_t *available);
tp_status kern_host_take(kern_backend *be, const kern_take_args *a);
tp_status kern_host_scatter(kern_backend *be, const kern_scatter_args *a);

#endif
