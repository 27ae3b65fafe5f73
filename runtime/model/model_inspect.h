/* SPDX-License-Identifier: Apache-2.0 */
/* model_inspect.h - what a model directory holds and what each rank would keep of it; reads headers, never weights.
 *
 * Works from config.json alone when the weights are not there.  Threads: any.
 */
#ifndef RT_MODEL_INSPECT_H
#define RT_MODEL_INSPECT_H

#include "runtime/model/model.h"

#define RT_INSPECT_DTYPES 8

/* Bytes on disk of one storage type. */
typedef struct rt_inspect_dtype {
    char name[16]; /* as in the file: "BF16" */
    int64_t n_tensors, bytes;
} rt_inspect_dtype;

typedef struct rt_inspect {
    rt_config config;
    int64_t params;             /* of the architecture; a tied head counts once */
    int64_t linear_params;      /* of all layers' matrices */
    int64_t embed_params;       /* rows times hidden of the embedding; the head has as many */
    kern_dtype weights, kv;     /* that the bytes below are for */
    int64_t kv_bytes_per_token; /* of the whole model, at one rank */
    int64_t flops_per_token;    /* decode, without attention: 2 per weight that is multiplied */
    bool has_weights;
    char weights_note[256]; /* why has_weights is false; "" when true */
    int n_files;
    rt_inspect_dtype dtypes[RT_INSPECT_DTYPES]; /* most bytes first */
    int n_dtypes;
    int64_t disk_bytes; /* of all tensors */
    int n_ranks;
    rt_shard ranks[TP_SEG_MAX]; /* [n_ranks] */
} rt_inspect;

/* `dtype` and `kv` < 0: the checkpoint's own.  A damaged checkpoint fails; a missing one is noted. */
TP_MUST_USE tp_status rt_inspect_load(rt_inspect *out, const char *dir, int n_ranks, int dtype,
                                      int kv);

/* Weight bytes that a rank streams to decode one token: all but the embedding table of an untied model. */
int64_t rt_inspect_streamed_bytes(const rt_inspect *x, int rank);

/* "yarn, factor 4, original 32768, theta 1e+06". */
#define RT_INSPECT_ROPE_BYTES 128
void rt_inspect_rope_text(const rt_config *c, char text[RT_INSPECT_ROPE_BYTES]);

#endif
