/* SPDX-License-Identifier: Apache-2.0 */
/* loader_impl.h - what the files of the loader share (loader.c tells how it works).
 *
 * Threads: the crew's workers own their slots; fields of rt_loader below `lock` are protected by it; everything else
 * is written before the crew starts.
 */
#ifndef RT_LOADER_IMPL_H
#define RT_LOADER_IMPL_H

#include <pthread.h>

#include "runtime/model/model_impl.h"
#include "runtime/model/safetensors.h"

#define RT_LOAD_BLOCK_BYTES     (4u << 20)
#define RT_LOAD_SLICE_BYTES_MIN 512 /* shorter column slices are read with their whole rows */
#define RT_LOAD_NOISE_LEN       (1u << 16)
#define RT_LOAD_VECTOR_PIECE    4096 /* elements of a vector that are converted at a time */

/* Rows of one parameter that travel together. */
typedef struct rt_load_block {
    const rt_param *param;
    const rt_st_tensor *tensor; /* NULL: noise */
    int64_t row, n_rows;        /* rows of the tensor (elements of a vector) */
    uint64_t offset;            /* in the file: for sorting */
} rt_load_block;

/* What one thread has in hand: n_rows rows, `stride` bytes apart, the kept columns beginning at data + skip. */
typedef struct rt_load_slot {
    const rt_load_block *b;
    char *data; /* owned; RT_LOAD_BLOCK_BYTES */
    size_t stride, skip;
    kern_dtype dtype;
} rt_load_slot;

struct rt_loader;

typedef struct rt_load_worker {
    struct rt_loader *loader;
    pthread_t thread;
    rt_load_slot slot;
    float piece[RT_LOAD_VECTOR_PIECE]; /* of a vector, on its way to the backend */
} rt_load_worker;

/* Where the rows of a late matrix come from. */
typedef struct rt_load_source {
    const struct rt_loader *loader;
    const rt_param *param;
    const rt_st_tensor *tensor;
} rt_load_source;

typedef struct rt_loader {
    rt_model *m;
    rt_st st;
    const char *prefix; /* of tensor names: "model." */
    rt_param *params;   /* owned; [n_params] */
    int n_params;
    rt_load_block *blocks; /* owned; in reading order */
    size_t n_blocks, cap_blocks;
    rt_load_source *late; /* owned; [n_params]; late loading only */
    int64_t start_ns;
    float *noise;            /* owned; [RT_LOAD_NOISE_LEN]; dummy weights only */
    rt_load_worker *workers; /* owned; [n_hired] */
    int n_hired, n_started;

    pthread_mutex_t put_lock; /* held for a put, where the backend takes one at a time */
    pthread_mutex_t lock;     /* protects the fields below */
    pthread_cond_t changed;
    size_t next, done; /* blocks that were given out, and that are packed */
    int64_t bytes_read;
    const rt_param *warned; /* the parameter that the last warning was about */
    bool stop;
    int64_t hold_ns;  /* nobody takes a block before this time */
    int64_t n_steps;  /* that the model has made meanwhile */
    tp_status status; /* of the first worker that failed */
    char error[512];  /* its text: last errors are per thread */
} rt_loader;

static inline size_t rt_load_element_bytes(const rt_st_tensor *t)
{
    return t == NULL || t->dtype == RT_ST_F32 ? 4 : 2;
}

/* Elements from row to row of the tensor. */
static inline int64_t rt_load_row_len(const rt_param *p)
{
    return p->cols == 0 ? 1 : p->cols;
}

/* True when only the kept columns of each row are read. */
static inline bool rt_load_reads_slices(const rt_param *p, size_t element)
{
    size_t kept = (size_t)p->n_cols * element, row = (size_t)p->cols * element;

    return p->cols != 0 && kept >= RT_LOAD_SLICE_BYTES_MIN && kept * 4 < row * 3;
}

/* ---- loader_blocks.c ---- */
tp_status rt_load_find_prefix(rt_loader *ld);
/* The tensor of a parameter, of the right shape and a type that can be read. */
tp_status rt_load_find_tensor(const rt_loader *ld, const rt_param *p, const rt_st_tensor **out);
/* Finds all parameters and cuts what this rank keeps into ld->blocks, in reading order. */
tp_status rt_load_plan(rt_loader *ld);

/* ---- loader_pack.c ---- */
/* Reads a block into the worker's slot and packs it. */
tp_status rt_load_one_block(rt_load_worker *w, const rt_load_block *b);

/* ---- loader_late.c ---- */
/* Can the matrices come late?  The same answer on every rank. */
tp_status rt_load_agree_late(const rt_loader *ld, bool *late);
/* Loads the vectors, tells the backend where the matrices are, and starts the crew. */
tp_status rt_load_begin_late(rt_loader *ld);
/* Nobody reads the sources any more.  Does nothing after a load that was not late. */
void rt_load_settle(rt_loader *ld);

/* ---- loader.c ---- */
tp_status rt_load_start_crew(rt_loader *ld);

#endif
