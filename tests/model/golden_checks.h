/* SPDX-License-Identifier: Apache-2.0 */
/* golden_checks.h - what must hold for one trait on one group; counts and prints what does not. */
#ifndef TP_TESTS_GOLDEN_CHECKS_H
#define TP_TESTS_GOLDEN_CHECKS_H

#include "tests/model/model_testing.h"

#define GC_F32_ERROR_MAX 1e-4 /* largest error of a row relative to its largest logit */
#define GC_BF16_KL_MAX   1e-3 /* mean over rows, in nats */

/* One line of the golden table. */
typedef struct gc_result {
    double f32_error, bf16_kl;
    bool tokens_equal; /* greedy, F32 */
    int bits_differ;   /* comparisons with one rank, chunks and batches that failed */
    int failed;        /* calls that returned an error */
    /* Bits were not compared: there decode and prefill are computed in different ways. */
    bool device;
    double f16_kl; /* of devices only */
} gc_result;

/* Runs every check of `trait` on `group` (collective); `isa` of the CPU backend. */
void gc_check_trait(gc_result *out, const char *trait, comm_group *group, const char *isa);
/* The scalar backend on one rank against the limits. */
void gc_check_ref(gc_result *out, const char *trait);
/* A device: the limits in F32 and BF16, and that F16 is as near as BF16.  be is attached to the group. */
void gc_check_device(gc_result *out, const char *trait, comm_group *group, kern_backend *be);
/* Prints the line (rank 0) and returns the number of checks that failed. */
int gc_report(const gc_result *r, const char *trait, int n_ranks, const char *isa, bool print);

#endif
