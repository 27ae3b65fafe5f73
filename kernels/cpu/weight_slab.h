/* SPDX-License-Identifier: Apache-2.0 */
/* weight_slab.h - large blocks from which the memory of weights is cut.
 *
 * A block lies on a boundary of huge pages, and weights stand in it one behind the other.  With memory of its own a
 * weight that is smaller than a huge page has small pages only, and a larger one has them at its end: streams of such
 * a weight are 10 to 20 % slower, and the more ranks, the smaller the weights.
 *
 * Lifetime: a slab lives as long as one of its weights; what a destroyed one leaves free is not used again.
 * Threads: one at a time per backend, as creating and destroying weights.
 */
#ifndef KERN_CPU_SLAB_H
#define KERN_CPU_SLAB_H

#include <stddef.h>
#include <stdint.h>

typedef struct kern_cpu_slab kern_cpu_slab;

/* Zeroed bytes on a boundary of a page; *owner is what kern_cpu_slab_release() takes.  *current: the slab to cut
 * from, replaced when it has too little left.  Sizes for which a slab is of no use get heap or a mapping of their own.
 * NULL: no memory. */
uint8_t *kern_cpu_slab_cut(kern_cpu_slab **current, size_t bytes, kern_cpu_slab **owner);
void kern_cpu_slab_release(kern_cpu_slab **current, kern_cpu_slab *owner); /* NULL is fine */

#endif
