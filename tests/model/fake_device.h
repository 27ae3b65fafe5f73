/* SPDX-License-Identifier: Apache-2.0 */
/* fake_device.h - the scalar backend dressed as a device: its memory cannot be touched by the host.
 *
 * All that alloc() hands out lies in pages without any access, which are opened for the time of an operation: a host
 * that reads or writes them itself dies by SIGSEGV.  In return every operation checks that each array it is given does
 * lie there.  As on a device there is one root per rank, and F16 weights are multiplied with F16 activations.
 */
#ifndef TP_TESTS_FAKE_DEVICE_H
#define TP_TESTS_FAKE_DEVICE_H

#include "kernels/kern.h"

/* Its isa is "scalar"; any number may be open, one thread each. */
const kern_ops *fd_ops(void);

#endif
