/* SPDX-License-Identifier: Apache-2.0 */
/* arena.h - memory that is freed all at once: one arena per request, one per loaded file.
 *
 * Blocks grow geometrically up to `max` bytes in all; beyond that, allocation returns NULL.
 * Threads: one at a time.
 */
#ifndef TP_ARENA_H
#define TP_ARENA_H

#include "base/status.h"

typedef struct tp_arena {
    struct tp_arena_block *head; /* owned; newest block first */
    size_t used;                 /* bytes handed out, for reports */
    size_t max;                  /* limit on bytes taken from the heap; 0 = none */
    size_t taken;                /* bytes taken from the heap */
} tp_arena;

void tp_arena_init(tp_arena *a, size_t max);
void tp_arena_release(tp_arena *a); /* frees everything; the arena may be used again */

/* 16-byte aligned, not zeroed; NULL when the limit or the heap is exhausted. */
void *tp_arena_alloc(tp_arena *a, size_t size);
void *tp_arena_calloc(tp_arena *a, size_t n, size_t size);
char *tp_arena_strndup(tp_arena *a, const char *s, size_t n); /* NUL-terminated copy */

#endif
