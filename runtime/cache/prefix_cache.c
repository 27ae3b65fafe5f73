/* SPDX-License-Identifier: Apache-2.0 */
/* prefix_cache.c - a chained hash table over the blocks themselves: an entry per block, so it can never be full.
 *
 * Names are keyed hashes, so their own bits choose the bucket, and clients cannot crowd one.
 */
#include "runtime/cache/prefix_cache.h"

#include <string.h>

#include "base/hash.h"
#include "base/mem.h"

#define BLOCK_TOKENS_MAX 256

typedef struct entry {
    rt_block_name name;
    int32_t next; /* in the bucket; -1 = last */
    bool named;
} entry;

struct rt_prefix_cache {
    int32_t n_blocks, n_named;
    uint64_t mask;    /* buckets - 1 */
    int32_t *buckets; /* owned; [mask + 1] first block, -1 = empty */
    entry *entries;   /* owned; [n_blocks] */
};

_Static_assert(sizeof(rt_block_name) == TP_HASH128_BYTES, "a name is one hash");

/* ---- names ---- */

void rt_block_namer_init(rt_block_namer *n, int32_t block_tokens)
{
    TP_ASSERT(block_tokens > 0 && block_tokens <= BLOCK_TOKENS_MAX);
    tp_random_bytes(n->key, sizeof n->key);
    n->block_tokens = block_tokens;
}

static rt_block_name hash(const rt_block_namer *n, const void *data, size_t len)
{
    uint8_t out[TP_HASH128_BYTES];
    rt_block_name name;

    tp_hash128(out, data, len, n->key, sizeof n->key);
    memcpy(&name, out, sizeof name);
    return name;
}

rt_block_name rt_block_namer_root(const rt_block_namer *n, const void *salt, size_t len)
{
    return hash(n, salt, len);
}

rt_block_name rt_block_namer_next(const rt_block_namer *n, const rt_block_name *before,
                                  const int32_t *tokens)
{
    struct {
        rt_block_name before;
        int32_t tokens[BLOCK_TOKENS_MAX];
    } in;
    size_t bytes = sizeof *tokens * (size_t)n->block_tokens;

    in.before = *before;
    memcpy(in.tokens, tokens, bytes);
    return hash(n, &in, sizeof in.before + bytes);
}

/* ---- the table ---- */

tp_status rt_prefix_cache_create(rt_prefix_cache **out, int32_t n_blocks)
{
    rt_prefix_cache *c = tp_calloc(1, sizeof *c);
    size_t n_buckets = 16;

    if (c == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "prefix cache");
    while (n_buckets < 2 * (size_t)n_blocks)
        n_buckets *= 2;
    c->n_blocks = n_blocks;
    c->mask = n_buckets - 1;
    c->buckets = tp_calloc(n_buckets, sizeof *c->buckets);
    c->entries = tp_calloc((size_t)n_blocks, sizeof *c->entries);
    if (c->buckets == NULL || c->entries == NULL) {
        rt_prefix_cache_destroy(c);
        return TP_FAIL(TP_ERR_NOMEM, "prefix cache of %d blocks", n_blocks);
    }
    memset(c->buckets, -1, n_buckets * sizeof *c->buckets);
    *out = c;
    return TP_OK;
}

void rt_prefix_cache_destroy(rt_prefix_cache *c)
{
    if (c == NULL)
        return;
    tp_free(c->buckets);
    tp_free(c->entries);
    tp_free(c);
}

static int32_t *bucket_of(const rt_prefix_cache *c, const rt_block_name *name)
{
    return &c->buckets[name->word[0] & c->mask];
}

static bool same(const rt_block_name *a, const rt_block_name *b)
{
    return a->word[0] == b->word[0] && a->word[1] == b->word[1];
}

int32_t rt_prefix_cache_find(const rt_prefix_cache *c, const rt_block_name *name)
{
    int32_t id = *bucket_of(c, name);

    while (id >= 0 && !same(&c->entries[id].name, name))
        id = c->entries[id].next;
    return id;
}

bool rt_prefix_cache_add(rt_prefix_cache *c, const rt_block_name *name, int32_t id)
{
    int32_t *bucket = bucket_of(c, name);

    TP_ASSERT(id >= 0 && id < c->n_blocks);
    if (rt_prefix_cache_find(c, name) >= 0)
        return false;
    TP_ASSERT(!c->entries[id].named);
    c->entries[id] = (entry){.name = *name, .next = *bucket, .named = true};
    *bucket = id;
    c->n_named++;
    return true;
}

void rt_prefix_cache_forget(rt_prefix_cache *c, int32_t id)
{
    entry *e = &c->entries[id];
    int32_t *link;

    TP_ASSERT(id >= 0 && id < c->n_blocks);
    if (!e->named)
        return;
    link = bucket_of(c, &e->name);
    while (*link != id)
        link = &c->entries[*link].next;
    *link = e->next;
    e->named = false;
    c->n_named--;
}

bool rt_prefix_cache_holds(const rt_prefix_cache *c, int32_t id)
{
    TP_ASSERT(id >= 0 && id < c->n_blocks);
    return c->entries[id].named;
}

int32_t rt_prefix_cache_count(const rt_prefix_cache *c)
{
    return c->n_named;
}

void rt_prefix_cache_check(const rt_prefix_cache *c)
{
    int32_t n = 0;

    for (int32_t id = 0; id < c->n_blocks; id++) {
        if (!c->entries[id].named)
            continue;
        TP_ASSERT(rt_prefix_cache_find(c, &c->entries[id].name) == id);
        n++;
    }
    TP_ASSERT(n == c->n_named);
}
