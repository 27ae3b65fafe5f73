/* SPDX-License-Identifier: Apache-2.0 */
/* prefix_cache.h - which KV block holds which tokens: blocks that were computed once are found again by name.
 *
 * The name of a full block is a keyed hash of all that its contents depend on: the salt of the request, the tokens of
 * the blocks before it (by the name of the last of them), and its own.  128 bits, so equal names mean equal contents;
 * the key is drawn anew by each process, so nobody can prepare two texts with one name.  Requests with different salts
 * have no name in common and never share.
 *
 * The table only maps names to ids; references, and how long a block nobody refers to lives, are the pool's business.
 * Rank 0 alone keeps it: the others find the ids in their block tables.
 *
 * Threads: names may be made by any; the table is used under the plan lock of rank 0.
 */
#ifndef RT_PREFIX_CACHE_H
#define RT_PREFIX_CACHE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct rt_block_name {
    uint64_t word[2];
} rt_block_name;

/* ---- names ---- */
typedef struct rt_block_namer {
    uint8_t key[32];
    int32_t block_tokens;
} rt_block_namer;

void rt_block_namer_init(rt_block_namer *n, int32_t block_tokens); /* draws the key */
/* What the first block of a sequence takes for the name before it. */
rt_block_name rt_block_namer_root(const rt_block_namer *n, const void *salt, size_t len);
/* Of a block of block_tokens tokens. */
rt_block_name rt_block_namer_next(const rt_block_namer *n, const rt_block_name *before,
                                  const int32_t *tokens);

/* ---- the table ---- */
typedef struct rt_prefix_cache rt_prefix_cache;

TP_MUST_USE tp_status rt_prefix_cache_create(rt_prefix_cache **out, int32_t n_blocks);
void rt_prefix_cache_destroy(rt_prefix_cache *c);

/* The block of that name; -1 when there is none. */
int32_t rt_prefix_cache_find(const rt_prefix_cache *c, const rt_block_name *name);
/* Enters a nameless block; false when the name is taken, by another block or this one. */
bool rt_prefix_cache_add(rt_prefix_cache *c, const rt_block_name *name, int32_t id);
/* The block gets other contents; nothing to do when it has no name. */
void rt_prefix_cache_forget(rt_prefix_cache *c, int32_t id);

bool rt_prefix_cache_holds(const rt_prefix_cache *c, int32_t id);
int32_t rt_prefix_cache_count(const rt_prefix_cache *c);
/* Aborts unless every entry is found under its name (tests, simulator). */
void rt_prefix_cache_check(const rt_prefix_cache *c);

#endif
