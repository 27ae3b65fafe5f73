/* SPDX-License-Identifier: Apache-2.0 */
/* block_pool.h - reference-counted ids of KV cache blocks.
 *
 * Rank 0 hands out ids; the same id means the same block on every rank, because the ids travel in the step plan.
 * No memory hangs on an id here: the backend's cache is indexed by it.  Threads: under the plan lock of rank 0.
 */
#ifndef RT_BLOCK_POOL_H
#define RT_BLOCK_POOL_H

#include <stdint.h>

#include "base/status.h"

typedef struct rt_block_pool rt_block_pool;

TP_MUST_USE tp_status rt_block_pool_create(rt_block_pool **out, int32_t n_blocks);
void rt_block_pool_destroy(rt_block_pool *p);

/* One block with one reference; FULL (no message) when none is free. */
TP_MUST_USE tp_status rt_block_pool_take(rt_block_pool *p, int32_t *id);
void rt_block_pool_ref(rt_block_pool *p, int32_t id);
/* Drops a reference; the last one frees the block. */
void rt_block_pool_unref(rt_block_pool *p, int32_t id);

int32_t rt_block_pool_free_count(const rt_block_pool *p);
int32_t rt_block_pool_total(const rt_block_pool *p);

#endif
