/* SPDX-License-Identifier: Apache-2.0 */
/* block_pool.h - reference-counted ids of KV cache blocks.
 *
 * A block is referenced, free, or idle: free too, but with contents that somebody may ask for again.  Idle blocks are
 * handed out when no other is left, the one that has been idle for longest first.
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

/* One block with one reference; FULL (no message) when none is free.  What it held is no longer kept. */
TP_MUST_USE tp_status rt_block_pool_take(rt_block_pool *p, int32_t *id);
/* One more reference to a block that has some, or is idle. */
void rt_block_pool_ref(rt_block_pool *p, int32_t id);
/* Drops a reference; the last one frees the block, or makes it idle when it is kept. */
void rt_block_pool_unref(rt_block_pool *p, int32_t id);
/* The contents of a referenced block are worth keeping from now on, until it is taken anew. */
void rt_block_pool_keep(rt_block_pool *p, int32_t id);

int32_t rt_block_pool_free_count(const rt_block_pool *p); /* idle ones too */
int32_t rt_block_pool_total(const rt_block_pool *p);
bool rt_block_pool_is_idle(const rt_block_pool *p, int32_t id);
bool rt_block_pool_is_kept(const rt_block_pool *p, int32_t id);
/* Aborts unless every invariant holds (tests, simulator). */
void rt_block_pool_check(const rt_block_pool *p);

#endif
