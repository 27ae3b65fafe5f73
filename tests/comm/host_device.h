/* SPDX-License-Identifier: Apache-2.0 */
/* host_device.h - a comm_device over ordinary memory: what a group does with devices, without any. */
#ifndef TP_TESTS_HOST_DEVICE_H
#define TP_TESTS_HOST_DEVICE_H

#include <string.h>

#include "base/mem.h"
#include "comm/device.h"

static inline tp_status host_device_alloc(void *backend, size_t bytes, void **out)
{
    (void)backend;
    *out = tp_aligned_alloc(64, bytes);
    return *out != NULL ? TP_OK : TP_ERR_NOMEM;
}

static inline void host_device_free(void *backend, void *p)
{
    (void)backend;
    tp_free(p);
}

static inline tp_status host_device_copy(void *backend, void *dst, const void *src, size_t bytes)
{
    (void)backend;
    memcpy(dst, src, bytes);
    return TP_OK;
}

static inline comm_device host_device(void)
{
    return (comm_device){.alloc = host_device_alloc,
                         .free = host_device_free,
                         .put = host_device_copy,
                         .get = host_device_copy};
}

#endif
