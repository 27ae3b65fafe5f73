/* SPDX-License-Identifier: Apache-2.0 */
/* checks.h - what every kind of group must do, as functions that all ranks (or threads) of a group call together.
 *
 * They return NULL or a text that says what was wrong: cmocka's assertions jump, which only the main thread may.
 * The expected sums come from a plain recursion over the segments, not from the code under test.
 */
#ifndef TP_TESTS_COMM_CHECKS_H
#define TP_TESTS_COMM_CHECKS_H

#include "comm/comm.h"

/* Largest vector that the checks use; groups under test need CHECK_WINDOW and CHECK_PLAN. */
#define CHECK_COUNT_MAX (1024 * 1024)
#define CHECK_PLAN      (64 * 1024)

size_t check_window_bytes(int n_ranks, int n_seg, int64_t count);

const char *check_reduce(comm_group *g, int n_seg, int64_t count, bool in_window);
const char *check_allgather(comm_group *g, size_t bytes);
const char *check_broadcast(comm_group *g, size_t bytes, int root);
/* Rank 0 sends n messages of all sizes up to CHECK_PLAN; the others compare sizes, order and bytes. */
const char *check_ctl(comm_group *g, int n);
/* n random calls, the same on every rank. */
const char *check_mixed(comm_group *g, int n, uint64_t seed, int64_t count_max);

#endif
