/* SPDX-License-Identifier: Apache-2.0 */
/* base_testing.h - what cmocka needs before it, and the loop that fails every allocation in turn. */
#ifndef TP_BASE_TESTING_H
#define TP_BASE_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"

#define ALLOCATIONS_MAX 10000

/* Runs the statement with 0, 1, 2... allocations allowed until `ok` becomes true; counts the failures. */
#define FAIL_EACH_ALLOCATION(n_failures, ok, statement)                                            \
    do {                                                                                           \
        (n_failures) = 0;                                                                          \
        for (int n_allowed_ = 0; n_allowed_ < ALLOCATIONS_MAX; n_allowed_++) {                     \
            tp_mem_fail_after(n_allowed_);                                                         \
            statement;                                                                             \
            tp_mem_fail_after(-1);                                                                 \
            if (ok)                                                                                \
                break;                                                                             \
            (n_failures)++;                                                                        \
        }                                                                                          \
    } while (0)

#endif
