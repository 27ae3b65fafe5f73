/* SPDX-License-Identifier: Apache-2.0 */
/* topk_keys.h - (value, index) pairs as one 64-bit key: a greater key is a greater value or, of equal values, a smaller
 * index.  So choosing and sorting the best is comparing integers.  -0 counts as 0. */
#ifndef KERN_CPU_TOPK_KEYS_H
#define KERN_CPU_TOPK_KEYS_H

#include "kernels/convert.h"

static inline uint64_t kern_key_make(float value, uint32_t index)
{
    uint32_t u = kern_f32_bits(value + 0.0f); /* -0 + 0 = 0 */

    u = (u & 0x80000000u) != 0 ? ~u : u | 0x80000000u;
    return ((uint64_t)u << 32) | (uint32_t)~index;
}

static inline float kern_key_value(uint64_t key)
{
    uint32_t u = (uint32_t)(key >> 32);

    return kern_bits_f32((u & 0x80000000u) != 0 ? u & 0x7fffffffu : ~u);
}

static inline uint32_t kern_key_index(uint64_t key)
{
    return ~(uint32_t)key;
}

/* Moves the k greatest of n distinct keys to the front, the k-th greatest to place k - 1; 1 <= k <= n. */
void kern_key_select(uint64_t *keys, int n, int k);
/* Greatest first; distinct keys. */
void kern_key_sort(uint64_t *keys, int n);

#endif
