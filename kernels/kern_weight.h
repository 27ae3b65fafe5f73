/* SPDX-License-Identifier: Apache-2.0 */
/* kern_weight.h - what a weight is and where its rows come from: part of kern.h, which includes it. */
#ifndef KERN_WEIGHT_H
#define KERN_WEIGHT_H

typedef enum kern_layout {
    KERN_LAYOUT_PACKED = 0, /* for gemm (and embed, where the head is tied) */
    KERN_LAYOUT_ROWS = 1    /* row-major: for embed only */
} kern_layout;

typedef struct kern_weight_desc {
    int64_t n, k; /* out, in: as nn.Linear stores it */
    kern_dtype dtype;
    kern_layout layout;
} kern_weight_desc;

/* A block of source elements [n_rows, n_cols] that goes to rows row.. and columns 0..k of the weight. */
typedef struct kern_weight_rows {
    int64_t row, n_rows;
    const void *src;      /* unaligned is fine; row i starts at src + i * src_stride bytes */
    size_t src_stride;    /* bytes between rows */
    kern_dtype src_dtype; /* converted to the weight's dtype, round to nearest even */
} kern_weight_rows;

/* Where rows of a weight can be had until they were put. */
typedef struct kern_weight_source {
    int64_t row, n_rows; /* of the weight */
    kern_dtype dtype;    /* of what read() delivers */
    /* Rows row + first .. of the weight, [n, k] without gaps.  Any thread, several at once; a failure keeps a text. */
    tp_status (*read)(const void *owner, int64_t first, int64_t n, void *dst);
    const void *owner;
} kern_weight_source;

#endif
