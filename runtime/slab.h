/* SPDX-License-Identifier: Apache-2.0 */
/* slab.h - a bump allocator that first measures (base NULL) and then hands out.
 *
 * One function places a list of buffers; it runs once for the plan, once to measure and once for each memory that has
 * the same places (host and backend).  So plans are exact and offsets agree.
 */
#ifndef RT_SLAB_H
#define RT_SLAB_H

#include <stdint.h>

#define RT_SLAB_ALIGN 256 /* what devices like best */

typedef struct rt_slab {
    char *base;
    size_t used;
} rt_slab;

static inline void *rt_slab_take(rt_slab *s, int64_t n, size_t size)
{
    void *p = s->base != NULL ? s->base + s->used : NULL;

    s->used += ((size_t)n * size + RT_SLAB_ALIGN - 1) / RT_SLAB_ALIGN * RT_SLAB_ALIGN;
    return p;
}

#endif
