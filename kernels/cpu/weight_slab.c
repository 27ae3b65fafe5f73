/* SPDX-License-Identifier: Apache-2.0 */
/* weight_slab.c - see weight_slab.h. */
#include "kernels/cpu/weight_slab.h"

#include "base/mem.h"

#define PAGE 4096
#define SLAB_BYTES                                                                                 \
    ((size_t)64 << 20) /* of address space; pages that nothing is written to do not exist */
#define PIECE_MIN ((size_t)128 << 10) /* smaller ones: heap, where a sanitizer sees their ends */
#define PIECE_MAX (SLAB_BYTES / 2)    /* larger ones: few small pages, relatively */

struct kern_cpu_slab {
    uint8_t *data; /* owned */
    size_t bytes, used;
    int n_pieces; /* that were not released */
};

static kern_cpu_slab *new_slab(size_t bytes)
{
    kern_cpu_slab *s = tp_calloc(1, sizeof *s);

    if (s == NULL)
        return NULL;
    s->bytes = bytes;
    s->data = tp_aligned_alloc(PAGE, bytes);
    if (s->data == NULL) {
        tp_free(s);
        return NULL;
    }
    return s;
}

uint8_t *kern_cpu_slab_cut(kern_cpu_slab **current, size_t bytes, kern_cpu_slab **owner)
{
    size_t need = (bytes + PAGE - 1) / PAGE * PAGE;
    kern_cpu_slab *s = *current;

    if (bytes < PIECE_MIN || bytes > PIECE_MAX) {
        s = new_slab(bytes);
    } else if (s == NULL || s->bytes - s->used < need) {
        s = new_slab(SLAB_BYTES);
        *current = s != NULL ? s : *current;
    }
    if (s == NULL)
        return NULL;
    s->used += need;
    s->n_pieces++;
    *owner = s;
    return s->data + s->used - need;
}

void kern_cpu_slab_release(kern_cpu_slab **current, kern_cpu_slab *owner)
{
    if (owner == NULL || --owner->n_pieces > 0)
        return;
    if (*current == owner)
        *current = NULL;
    tp_free(owner->data);
    tp_free(owner);
}
