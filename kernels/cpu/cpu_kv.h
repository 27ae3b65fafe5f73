/* SPDX-License-Identifier: Apache-2.0 */
/* cpu_kv.h - the layout of the CPU backend's paged cache.
 *
 *   [layer][block][kv head] { K: [group][hd * 16]   V: [group][16 * hd] }      elements of desc.dtype
 *
 * A group is 16 tokens of one block; hd is head_dim padded to a multiple of 16 (the rest stays zero).  How numbers lie
 * inside a group: vec_attn_body.h.
 */
#ifndef KERN_CPU_KV_H
#define KERN_CPU_KV_H

#include "kernels/cpu/vec.h"

typedef struct kern_kv_filler kern_kv_filler; /* cpu_kv_fill.c */

struct kern_kv {
    kern_kv_desc desc;
    int hd;                 /* padded head_dim */
    int groups;             /* per block */
    size_t group_bytes;     /* one group of K, or of V */
    unsigned char *data;    /* owned */
    kern_kv_filler *filler; /* owned; or NULL */
};

static inline int kern_cpu_kv_pad(int head_dim)
{
    return (head_dim + KERN_CPU_GROUP - 1) / KERN_CPU_GROUP * KERN_CPU_GROUP;
}

/* K of group 0; V of group 0 follows `groups` groups later. */
static inline unsigned char *kern_cpu_kv_at(const kern_kv *kv, int layer, int32_t block, int head)
{
    size_t cell =
        ((size_t)layer * (size_t)kv->desc.n_blocks + (size_t)block) * (size_t)kv->desc.n_kv +
        (size_t)head;

    return kv->data + cell * 2 * (size_t)kv->groups * kv->group_bytes;
}

/* Takes the pages of `data` one after the other from a thread of low priority, beginning a moment later; NULL where that
 * cannot be had: pages then come when they are first written. */
kern_kv_filler *kern_cpu_kv_fill(void *data, size_t bytes);
void kern_cpu_kv_fill_stop(kern_kv_filler *f); /* waits for it; NULL is fine */

/* Writes one token (slot = block * block_tokens + offset) of one head. */
void kern_cpu_kv_put(const kern_cpu_vec *vec, kern_kv *kv, int layer, int32_t slot, int head,
                     const float *k, const float *v);

#endif
