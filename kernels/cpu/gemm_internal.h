/* SPDX-License-Identifier: Apache-2.0 */
/* gemm_internal.h - the packed weight, and the contract between the driver of the matrix product (gemm.c) and the
 * micro-kernels of each instruction set (gemm_generic.c, gemm_avx2.c, gemm_avx512.c, gemm_amx.c).
 *
 * Packed weight: panels of 64 output columns, n rounded up with zeros.
 *   BF16       [n/64][ceil(k/2)][64][2]   pairs along k, as vdpbf16ps and AMX tiles read them; odd k padded with zero
 *   F32, F16   [n/64][k][64]
 * Everything walks a panel forward in k, so memory is read as one stream.
 *
 * One order of additions: lanes are output columns; an element of the result is summed over k ascending, counted
 * from the start of its segment, in one FP32 accumulator.  How many rows pass at once, where a long segment is
 * interrupted (the accumulator is then stored and loaded again) and which thread works changes nothing.
 */
#ifndef KERN_CPU_GEMM_INTERNAL_H
#define KERN_CPU_GEMM_INTERNAL_H

#include "kernels/cpu/cpu_internal.h"

#define GEMM_NR     64     /* output columns of a panel */
#define GEMM_MR_MAX 32     /* rows that a micro-kernel may take at once */
#define GEMM_K_MAX  131072 /* longest k that a packed weight may have */
#define GEMM_SLACK                                                                                 \
    8192 /* readable bytes after the last panel: tiles read past the end, times zero */

typedef struct kern_cpu_late kern_cpu_late; /* late.c */

struct kern_weight {
    kern_weight_desc desc;
    int64_t n_panels;
    size_t panel_bytes; /* of one panel; of one row in KERN_LAYOUT_ROWS */
    size_t bytes;
    uint8_t *data;       /* 64-byte aligned, inside the slab */
    kern_cpu_slab *slab; /* a piece of it is ours */
    kern_cpu_late *late; /* owned; NULL when all of data is there */
};

/* weight.c: the part of `rows` that falls into one panel, of one row in KERN_LAYOUT_ROWS, to where that panel is kept. */
void kern_cpu_pack_panel(const kern_weight *w, uint8_t *to, const kern_weight_rows *rows,
                         int64_t panel);

/* late.c */
void kern_cpu_late_put(kern_cpu_late *late, const kern_weight *w, const kern_weight_rows *rows);
/* A panel wherever it can be had now: in data, or read into this thread's memory of the backend, valid until this
 * thread asks again.  NULL when that failed; then kern_cpu_late_status() of the operation tells. */
const uint8_t *kern_cpu_late_panel(const kern_backend *be, const kern_weight *w, int64_t panel,
                                   int thread);
/* Row `row` alone, k elements of the weight's type; NULL when its panel is there. */
const uint8_t *kern_cpu_late_row(const kern_backend *be, const kern_weight *w, int64_t row,
                                 int thread);
/* After an operation: whether all that it read could be read. */
tp_status kern_cpu_late_status(const kern_weight *w);

static inline const uint8_t *gemm_panel(const kern_backend *be, const kern_weight *w, int64_t panel,
                                        int thread)
{
    return w->late == NULL ? w->data + (size_t)panel * w->panel_bytes
                           : kern_cpu_late_panel(be, w, panel, thread);
}

/* One chunk of k of one panel for mr rows.  Partial sums live in a stack of slots of [mr][64] FP32 each. */
typedef struct gemm_tile {
    const uint8_t *w; /* panel at the chunk's first k */
    const uint8_t *a; /* first row at the chunk's first k */
    size_t a_stride;  /* bytes between rows */
    int64_t k;        /* elements; 0 is legal */
    float *acc;       /* the slot on top of the stack */
    size_t slot_step; /* floats between slots */
    int joins;   /* after summing: so many times, slot below += this one (left + right), and pop */
    bool resume; /* start from acc instead of zero */
    const uint8_t *prefetch; /* what to fetch while summing; how fast: the kernel's fetch variant */
} gemm_tile;

/* How much a kernel prefetches per step of its k loop. */
typedef enum gemm_fetch {
    GEMM_FETCH_NONE = 0,
    GEMM_FETCH_QUARTER =
        1, /* a quarter of the bytes that it reads of the panel (at least one line) */
    GEMM_FETCH_HALF = 2,
    GEMM_FETCH_FULL = 3
} gemm_fetch;
#define GEMM_FETCH_COUNT 4

typedef void (*gemm_tile_fn)(const gemm_tile *t);

/* out[r][0..cols) = acc[r][0..cols) (+ bias) for r < rows. */
typedef struct gemm_store {
    const float *acc; /* [rows][64] */
    float *out;
    int64_t out_stride; /* floats */
    const float *bias;  /* or NULL */
    int rows, cols;
} gemm_store;

typedef struct gemm_kernels {
    int mr;       /* rows at once */
    int k_step;   /* a resumed chunk starts at a multiple of it within its segment */
    int row_step; /* a tile starts at a multiple of it */
    bool pack_a;  /* the activations are wanted in tile order (gemm_amx.c) */
    gemm_tile_fn tile[GEMM_MR_MAX][GEMM_FETCH_COUNT]; /* [rows - 1] */
    void (*store)(const gemm_store *s);
    void (*thread_begin)(
        void);                /* or NULL: each thread of the team calls it before its first tile */
    void (*thread_end)(void); /* or NULL */
} gemm_kernels;

/* One table per instruction set, indexed by kern_dtype of the weight. */
extern const gemm_kernels kern_cpu_gemm_generic[3];
extern const gemm_kernels kern_cpu_gemm_avx2[3];
extern const gemm_kernels kern_cpu_gemm_avx512[3];
extern const gemm_kernels kern_cpu_gemm_amx_bf16;

/* Kernels for a weight type on an instruction set. */
const gemm_kernels *kern_cpu_gemm_kernels(kern_cpu_isa isa, kern_dtype dtype);

/* kern_act_dtype() of this backend. */
static inline kern_dtype gemm_act_dtype(kern_dtype w)
{
    return w == KERN_DTYPE_BF16 ? KERN_DTYPE_BF16 : KERN_DTYPE_F32;
}

/* Bytes of one k (F32, F16) or of one pair of k (BF16) in a panel. */
static inline size_t gemm_line_bytes(kern_dtype t)
{
    return t == KERN_DTYPE_F16 ? GEMM_NR * 2 : GEMM_NR * 4;
}

/* Elements of k in such a line. */
static inline int gemm_line_k(kern_dtype t)
{
    return t == KERN_DTYPE_BF16 ? 2 : 1;
}

#endif
