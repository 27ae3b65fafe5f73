/* SPDX-License-Identifier: Apache-2.0 */
/* arena.c - bump allocation in blocks that double from 4 KiB to 1 MiB.
 *
 * A request larger than half of the next block gets a block of its own, put behind the newest one so that the
 * room left there stays in use.
 */
#include "base/arena.h"

#include <stdint.h>
#include <string.h>

#include "base/mem.h"

#define ALIGN_BYTES       ((size_t)16)
#define BLOCK_BYTES_FIRST ((size_t)4096)
#define BLOCK_BYTES_MAX   ((size_t)1 << 20)

typedef struct tp_arena_block {
    struct tp_arena_block *next; /* owned */
    size_t size;                 /* bytes behind this header */
    size_t used;
    size_t padding; /* keeps the header a multiple of ALIGN_BYTES */
} tp_arena_block;

_Static_assert(sizeof(tp_arena_block) % 16 == 0, "blocks must start aligned");

void tp_arena_init(tp_arena *a, size_t max)
{
    *a = (tp_arena){.max = max};
}

void tp_arena_release(tp_arena *a)
{
    tp_arena_block *b = a->head;

    while (b != NULL) {
        tp_arena_block *next = b->next;

        tp_free(b);
        b = next;
    }
    tp_arena_init(a, a->max);
}

/* A block with room for `size` bytes; NULL beyond the limit. */
static tp_arena_block *take_block(tp_arena *a, size_t size)
{
    size_t bytes = sizeof(tp_arena_block) + size;
    tp_arena_block *b;

    if (bytes < size || (a->max != 0 && (bytes > a->max || a->taken > a->max - bytes)))
        return NULL;
    b = tp_malloc(bytes);
    if (b == NULL)
        return NULL;
    *b = (tp_arena_block){.size = size};
    a->taken += bytes;
    return b;
}

static size_t next_block_size(const tp_arena *a)
{
    size_t size = a->taken < BLOCK_BYTES_FIRST ? BLOCK_BYTES_FIRST : a->taken;

    if (size > BLOCK_BYTES_MAX)
        size = BLOCK_BYTES_MAX;
    return size - sizeof(tp_arena_block);
}

static void *block_take(tp_arena *a, tp_arena_block *b, size_t size)
{
    void *p = (char *)(b + 1) + b->used;

    b->used += size;
    a->used += size;
    return p;
}

void *tp_arena_alloc(tp_arena *a, size_t size)
{
    tp_arena_block *b = a->head;
    size_t block_size = next_block_size(a);

    if (size > SIZE_MAX - ALIGN_BYTES)
        return NULL;
    size = size == 0 ? ALIGN_BYTES : (size + ALIGN_BYTES - 1) & ~(ALIGN_BYTES - 1);
    if (b != NULL && size <= b->size - b->used)
        return block_take(a, b, size);

    if (size <= block_size / 2) {
        b = take_block(a, block_size);
        if (b != NULL) {
            b->next = a->head;
            a->head = b;
            return block_take(a, b, size);
        }
    }
    b = take_block(a, size); /* large, or the limit has no room for a whole block */
    if (b == NULL)
        return NULL;
    if (a->head == NULL) {
        a->head = b;
    } else {
        b->next = a->head->next;
        a->head->next = b;
    }
    return block_take(a, b, size);
}

void *tp_arena_calloc(tp_arena *a, size_t n, size_t size)
{
    size_t bytes;
    void *p;

    if (__builtin_mul_overflow(n, size, &bytes))
        return NULL;
    p = tp_arena_alloc(a, bytes);
    if (p != NULL)
        memset(p, 0, bytes);
    return p;
}

char *tp_arena_strndup(tp_arena *a, const char *s, size_t n)
{
    size_t len = strnlen(s, n);
    char *copy = tp_arena_alloc(a, len + 1);

    if (copy == NULL)
        return NULL;
    memcpy(copy, s, len);
    copy[len] = '\0';
    return copy;
}
