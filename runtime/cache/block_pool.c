/* SPDX-License-Identifier: Apache-2.0 */
/* block_pool.c - a stack of free ids and a counter per id; every operation is O(1).
 *
 * Invariant: refs[id] == 0 exactly when id is on the stack.  The lowest id is taken first from a fresh pool and the
 * most recently freed one afterwards, so a small load stays in a small part of the cache.
 */
#include "runtime/cache/block_pool.h"

#include "base/mem.h"

#define BLOCK_POOL_MAGIC 0x6b10c001u

struct rt_block_pool {
    uint32_t magic;
    int32_t n_blocks;
    int32_t n_free;
    int32_t *free_stack; /* owned; top at n_free - 1 */
    uint16_t *refs;      /* owned; [n_blocks] */
};

tp_status rt_block_pool_create(rt_block_pool **out, int32_t n_blocks)
{
    rt_block_pool *p;

    if (n_blocks < 1)
        return TP_FAIL(TP_ERR_INVALID,
                       "a KV cache of %d blocks cannot hold a token: raise "
                       "--kv-cache-memory-bytes",
                       n_blocks);
    p = tp_calloc(1, sizeof *p);
    if (p == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "block pool of %d blocks", n_blocks);
    p->magic = BLOCK_POOL_MAGIC;
    p->n_blocks = n_blocks;
    p->free_stack = tp_calloc((size_t)n_blocks, sizeof *p->free_stack);
    p->refs = tp_calloc((size_t)n_blocks, sizeof *p->refs);
    if (p->free_stack == NULL || p->refs == NULL) {
        rt_block_pool_destroy(p);
        return TP_FAIL(TP_ERR_NOMEM, "block pool of %d blocks", n_blocks);
    }
    for (; p->n_free < n_blocks; p->n_free++)
        p->free_stack[p->n_free] = n_blocks - 1 - p->n_free;
    *out = p;
    return TP_OK;
}

void rt_block_pool_destroy(rt_block_pool *p)
{
    if (p == NULL)
        return;
    p->magic = 0;
    tp_free(p->free_stack);
    tp_free(p->refs);
    tp_free(p);
}

tp_status rt_block_pool_take(rt_block_pool *p, int32_t *id)
{
    TP_ASSERT(p->magic == BLOCK_POOL_MAGIC);
    if (p->n_free == 0)
        return TP_ERR_FULL;
    *id = p->free_stack[--p->n_free];
    TP_ASSERT(p->refs[*id] == 0);
    p->refs[*id] = 1;
    return TP_OK;
}

void rt_block_pool_ref(rt_block_pool *p, int32_t id)
{
    TP_ASSERT(id >= 0 && id < p->n_blocks);
    TP_ASSERT(p->refs[id] > 0 && p->refs[id] < UINT16_MAX);
    p->refs[id]++;
}

void rt_block_pool_unref(rt_block_pool *p, int32_t id)
{
    TP_ASSERT(p->magic == BLOCK_POOL_MAGIC);
    TP_ASSERT(id >= 0 && id < p->n_blocks);
    TP_ASSERT(p->refs[id] > 0);
    if (--p->refs[id] == 0)
        p->free_stack[p->n_free++] = id;
}

int32_t rt_block_pool_free_count(const rt_block_pool *p)
{
    return p->n_free;
}

int32_t rt_block_pool_total(const rt_block_pool *p)
{
    return p->n_blocks;
}
