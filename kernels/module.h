/* SPDX-License-Identifier: Apache-2.0 */
/* module.h - backends that live in a shared library of their own, so that the binary starts where CUDA is not.
 *
 * libtpserve_cuda.so holds kernels/cuda, comm/nccl and comm/p2p; libtpserve_emu.so holds the same sources (without
 * NCCL) built for the emulated device.  Both export the two functions below.
 */
#ifndef KERN_MODULE_H
#define KERN_MODULE_H

#include "base/status.h"
#include "kernels/kern.h"

/* Opens libtpserve_<name>.so ("cuda", "emu") beside the binary or in ../lib/tpserve.  Once opened it stays until the
 * process ends; opening it again returns the same.  NOT_FOUND: says where was searched; DEVICE: it is there but the
 * libraries that it needs (driver, CUDA) could not be loaded, and why.  *comm is what comm_device_reducers() wants. */
TP_MUST_USE tp_status kern_module_open(const char *name, const kern_ops **ops, const void **comm);

/* What a module exports, by these names. */
const kern_ops *kern_module_ops(void);
const void *comm_module_reducers(
    void); /* const comm_reducer_ops *const [], NULL at the end: comm/device.h */

#endif
