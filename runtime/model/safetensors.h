/* SPDX-License-Identifier: Apache-2.0 */
/* safetensors.h - headers of safetensors files, checked as strictly as the reference reader, and a table of tensors.
 *
 * Nothing is mapped: data is read with pread, so a file that shrinks under us is a message and not a signal.
 * Failures keep a text and are not logged: every rank meets the same damage, and one of them tells
 * (rt_agree).  Private to runtime/model.  Threads: rt_st_read may be called by any; the rest by one.
 */
#ifndef RT_SAFETENSORS_H
#define RT_SAFETENSORS_H

#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"

#define RT_ST_DIMS_MAX 8

typedef enum rt_st_dtype {
    RT_ST_F32,
    RT_ST_BF16,
    RT_ST_F16, /* in the order of kern_dtype; the ones that weights may have */
    RT_ST_OTHER
} rt_st_dtype;

typedef struct rt_st_file {
    const char *name; /* relative to the directory */
    int fd;
    uint64_t bytes; /* size when it was opened */
} rt_st_file;

typedef struct rt_st_tensor {
    const char *name;
    const char *dtype_name; /* as in the file: "BF16" */
    rt_st_dtype dtype;
    uint32_t file;
    int n_dims;
    int64_t shape[RT_ST_DIMS_MAX];
    uint64_t offset, bytes; /* from the start of the file */
} rt_st_tensor;

/* All tensors of a checkpoint. */
typedef struct rt_st {
    char *dir;
    rt_st_file *files; /* [n_files] */
    int n_files, cap_files;
    rt_st_tensor *tensors; /* [n_tensors] */
    size_t n_tensors, cap_tensors;
    uint32_t *slots; /* hash table over tensors: index + 1, 0 = empty; n_slots is a power of two */
    size_t n_slots;
    tp_arena names;
} rt_st;

/* Opens dir/model.safetensors, or the shards that dir/model.safetensors.index.json lists. */
TP_MUST_USE tp_status rt_st_open(rt_st *out, const char *dir);
void rt_st_close(rt_st *st);
/* NULL when absent. */
const rt_st_tensor *rt_st_find(const rt_st *st, const char *name);
/* Reads [offset, offset + bytes) of a file whole, or fails naming it. */
TP_MUST_USE tp_status rt_st_read(const rt_st *st, uint32_t file, uint64_t offset, void *buf,
                                 size_t bytes);
/* True when the byte at this place is in the page cache for certain. */
bool rt_st_cached(const rt_st *st, uint32_t file, uint64_t offset);
/* Asks for this range to be brought there; does not wait. */
void rt_st_fetch(const rt_st *st, uint32_t file, uint64_t offset, uint64_t bytes);

#endif
