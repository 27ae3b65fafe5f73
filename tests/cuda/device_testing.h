/* SPDX-License-Identifier: Apache-2.0 */
/* device_testing.h - what tests of single kernels share: memory of a device with poison and guards around it, and a
 * table of the worst errors.
 *
 * All of it goes through kernels/cuda/dev.h, so the same tests run on the emulated device and on a real one.
 */
#ifndef DEVICE_TESTING_H
#define DEVICE_TESTING_H

#include "kernels/cuda/launch.h"
#include "tests/kernels/kern_testing.h"

void dt_open(void);
void dt_close(void);
/* The same for a cmocka group, with the scalar backend to compare with; the end prints the table. */
extern kern_backend *dt_ref;
int dt_setup(void **state);
int dt_teardown(void **state);
kern_stream dt_stream(void);

/* Memory of the device that lives until dt_release().  It starts `offset` bytes behind an address that is aligned to
 * 256, with a guard before and behind. */
void *dt_in(const void *host, size_t bytes, size_t offset);
void *dt_out(size_t bytes, size_t offset); /* all bytes 0xff: NaN, -1 */
/* Waits for what was launched, then copies to the host. */
void dt_read(void *host, const void *dev, size_t bytes);
/* Frees everything; fails if a guard was written to. */
void dt_release(void);

/* Each check adds to the line of `op` in the table; `what` names the case when it fails. */
void dt_same_bits(const char *op, const char *what, const void *got, const void *want,
                  size_t bytes);
/* |got - want| <= bound * max(|want|, floor); both of type t; NaN only where NaN is wanted. */
void dt_close_to(const char *op, const char *what, const void *got, const void *want, kern_dtype t,
                 size_t n, double bound, double floor);
void dt_print_table(void);

/* "name a b c ..." for reports; valid until the next call. */
const char *dt_case(const char *format, ...) TP_PRINTF(1, 2);

/* What rounding to t may cost, relative: 2^-24, 2^-8, 2^-11; neighbours are up to twice that apart. */
double dt_rounding(kern_dtype t);

#endif
