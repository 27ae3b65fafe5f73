/* SPDX-License-Identifier: Apache-2.0 */
/* module.h - backends that live in a shared library of their own, so that the binary starts where CUDA is not.
 *
 * libtpserve_cuda.so holds kernels/cuda, comm/nccl and comm/p2p; libtpserve_emu.so holds the same sources (without
 * NCCL) built for the emulated device.  Both export the functions at the end.  What they use of base, kernels/ and comm/
 * is the program's own copy (one log, one last error per process): programs that open modules are linked with
 * tp_module_host() of cmake/modules.cmake.
 */
#ifndef KERN_MODULE_H
#define KERN_MODULE_H

#include "base/status.h"
#include "kernels/kern.h"

/* Opens libtpserve_<name>.so ("cuda", "emu") beside the binary or in ../lib/tpserve.  Once opened it stays until the
 * process ends; opening it again returns the same.  NOT_FOUND: says where was searched; DEVICE: it is there but the
 * libraries that it needs (driver, CUDA) could not be loaded, and why.  Neither is logged: the caller may have another
 * choice.  *comm is what comm_attach_device() wants. */
TP_MUST_USE tp_status kern_module_open(const char *name, const kern_ops **ops, const void **comm);

/* A device as `doctor` and the binding of ranks see it. */
typedef struct kern_device_info {
    char name[128], pci[32], uuid[64]; /* pci "0000:3b:00.0"; uuid "GPU-...", "MIG-..." */
    int ordinal, cc, n_sm;             /* cc: 80, 89, 90, 100 */
    int driver, runtime;               /* 13000 = 13.0 */
    int64_t memory_total, memory_free; /* bytes */
    uint64_t peers;                    /* bit i: the memory of device i can be reached directly */
    bool mig;
} kern_device_info;

/* A folder to look in first; tests are not beside the binary. */
void kern_module_search(const char *dir);

/* Devices that this process may use, without keeping them open.  *n may be 0.  DEVICE: no driver, with what was tried. */
TP_MUST_USE tp_status kern_module_devices(const char *name, kern_device_info *out, int cap, int *n);

/* What a module exports, by these names. */
const kern_ops *kern_module_ops(void);
tp_status kern_module_list(kern_device_info *out, int cap, int *n);
const void *comm_module_reducers(
    void); /* const comm_reducer_ops *const [], NULL at the end: comm/device.h */

#endif
