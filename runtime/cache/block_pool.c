/* SPDX-License-Identifier: Apache-2.0 */
/* block_pool.c - a stack of free ids, a list of idle ones, and a record per id; every operation is O(1).
 *
 * Invariants: a block with references is on neither; one without is on the list when it is kept and on the stack when
 * not.  The lowest id is taken first from a fresh pool and the most recently freed one afterwards, so a load that keeps
 * nothing stays in a small part of the cache.
 */
#include "runtime/cache/block_pool.h"

#include "base/mem.h"

#define BLOCK_POOL_MAGIC 0x6b10c001u

typedef struct block {
    int32_t refs;
    int32_t prev, next; /* on the idle list; -1 = none */
    bool kept;
} block;

struct rt_block_pool {
    uint32_t magic;
    int32_t n_blocks;
    int32_t n_free;
    int32_t *free_stack;              /* owned; top at n_free - 1 */
    block *blocks;                    /* owned; [n_blocks] */
    int32_t idle_oldest, idle_newest; /* -1 = none */
    int32_t n_idle;
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
    p->idle_oldest = p->idle_newest = -1;
    p->free_stack = tp_calloc((size_t)n_blocks, sizeof *p->free_stack);
    p->blocks = tp_calloc((size_t)n_blocks, sizeof *p->blocks);
    if (p->free_stack == NULL || p->blocks == NULL) {
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
    tp_free(p->blocks);
    tp_free(p);
}

static block *block_of(const rt_block_pool *p, int32_t id)
{
    TP_ASSERT(p->magic == BLOCK_POOL_MAGIC);
    TP_ASSERT(id >= 0 && id < p->n_blocks);
    return &p->blocks[id];
}

/* ---- the idle list ---- */

static void idle_push(rt_block_pool *p, int32_t id)
{
    block *b = &p->blocks[id];

    b->prev = p->idle_newest;
    b->next = -1;
    *(b->prev >= 0 ? &p->blocks[b->prev].next : &p->idle_oldest) = id;
    p->idle_newest = id;
    p->n_idle++;
}

static void idle_remove(rt_block_pool *p, int32_t id)
{
    block *b = &p->blocks[id];

    *(b->prev >= 0 ? &p->blocks[b->prev].next : &p->idle_oldest) = b->next;
    *(b->next >= 0 ? &p->blocks[b->next].prev : &p->idle_newest) = b->prev;
    p->n_idle--;
}

/* ---- references ---- */

tp_status rt_block_pool_take(rt_block_pool *p, int32_t *id)
{
    block *b;

    TP_ASSERT(p->magic == BLOCK_POOL_MAGIC);
    if (p->n_free + p->n_idle == 0)
        return TP_ERR_FULL;
    if (p->n_free > 0) {
        *id = p->free_stack[--p->n_free];
    } else {
        *id = p->idle_oldest;
        idle_remove(p, *id);
    }
    b = &p->blocks[*id];
    TP_ASSERT(b->refs == 0);
    b->refs = 1;
    b->kept = false;
    return TP_OK;
}

void rt_block_pool_ref(rt_block_pool *p, int32_t id)
{
    block *b = block_of(p, id);

    TP_ASSERT(b->refs > 0 || b->kept);
    if (b->refs++ == 0)
        idle_remove(p, id);
}

void rt_block_pool_unref(rt_block_pool *p, int32_t id)
{
    block *b = block_of(p, id);

    TP_ASSERT(b->refs > 0);
    if (--b->refs > 0)
        return;
    if (b->kept)
        idle_push(p, id);
    else
        p->free_stack[p->n_free++] = id;
}

void rt_block_pool_keep(rt_block_pool *p, int32_t id)
{
    block *b = block_of(p, id);

    TP_ASSERT(b->refs > 0);
    b->kept = true;
}

/* ---- questions ---- */

int32_t rt_block_pool_free_count(const rt_block_pool *p)
{
    return p->n_free + p->n_idle;
}

int32_t rt_block_pool_total(const rt_block_pool *p)
{
    return p->n_blocks;
}

bool rt_block_pool_is_idle(const rt_block_pool *p, int32_t id)
{
    return block_of(p, id)->refs == 0 && block_of(p, id)->kept;
}

bool rt_block_pool_is_kept(const rt_block_pool *p, int32_t id)
{
    return block_of(p, id)->kept;
}

void rt_block_pool_check(const rt_block_pool *p)
{
    int32_t n_idle = 0, n_used = 0, last = -1;

    for (int32_t id = p->idle_oldest; id >= 0; last = id, id = p->blocks[id].next, n_idle++) {
        TP_ASSERT(rt_block_pool_is_idle(p, id) && p->blocks[id].prev == last);
        TP_ASSERT(n_idle < p->n_blocks);
    }
    for (int32_t i = 0; i < p->n_free; i++)
        TP_ASSERT(block_of(p, p->free_stack[i])->refs == 0 && !p->blocks[p->free_stack[i]].kept);
    for (int32_t id = 0; id < p->n_blocks; id++)
        n_used += p->blocks[id].refs > 0;
    TP_ASSERT(last == p->idle_newest && n_idle == p->n_idle);
    TP_ASSERT(n_used + p->n_free + p->n_idle == p->n_blocks);
}
