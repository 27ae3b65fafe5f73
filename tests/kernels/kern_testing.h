/* SPDX-License-Identifier: Apache-2.0 */
/* kern_testing.h - what the kernel tests share: a test per backend and instruction set, data, comparison.
 *
 *   static void test_x(void **state) { kern_backend *be = kt_open(state, 2); ... kt_close(be); }
 *   const struct CMUnitTest tests[] = {KT_EACH(test_x)};
 *
 * runs test_x for the scalar backend and each instruction set of the CPU backend; one that this machine lacks is
 * a skipped test.
 */
#ifndef KERN_TESTING_H
#define KERN_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/kern.h"

/* clang-format off */
#define KT_ISA(fn, isa) {#fn "/" isa, fn, NULL, NULL, (char[]){isa}}
#ifdef KERN_AMX_EMULATED /* CMakeLists.txt */
#define KT_EACH_CPU(fn) KT_ISA(fn, "amx")
#define KT_EACH(fn) KT_EACH_CPU(fn)
#else
/* One test per instruction set of the CPU backend. */
#define KT_EACH_CPU(fn) KT_ISA(fn, "generic"), KT_ISA(fn, "avx2"), KT_ISA(fn, "avx512"), KT_ISA(fn, "amx")
/* The same, and one for the scalar backend. */
#define KT_EACH(fn) KT_ISA(fn, "scalar"), KT_EACH_CPU(fn)
#endif
/* clang-format on */

/* Opens the backend that *state names; skips the test when the machine cannot run it. */
kern_backend *kt_open(void **state, int n_threads);
void kt_close(kern_backend *be);

#define KT_OK(expr) kt_ok((expr), #expr, __FILE__, __LINE__)
void kt_ok(tp_status st, const char *what, const char *file, int line);

/* Random numbers, the same on every machine. */
typedef struct kt_rng {
    uint64_t state;
} kt_rng;

uint32_t kt_u32(kt_rng *r);
float kt_unit(kt_rng *r);                           /* [-1, 1) */
int kt_below(kt_rng *r, int n);                     /* 0 .. n - 1 */
float *kt_floats(kt_rng *r, size_t n, float scale); /* new array in (-scale, scale); kt_free */
void *kt_zeros(size_t bytes);                       /* new */
void kt_free(void *p);

/* |got - want| <= rel * |want| + abs for all n; prints the worst.  got is of type t. */
void kt_compare(const char *what, const void *got, kern_dtype t, const double *want, size_t n,
                double rel, double abs);
void kt_same_bits(const char *what, const void *a, const void *b, size_t bytes);

#endif
