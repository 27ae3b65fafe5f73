/* SPDX-License-Identifier: Apache-2.0 */
/* roofline.h - how fast a model can run on a device, from sizes alone.
 *
 * Decoding reads every weight once per step and every cached key and value once per sequence, so memory bandwidth bounds
 * it; prefill multiplies every weight once per token, so arithmetic bounds that.  Pure functions of plain numbers: bytes,
 * GB and TB are powers of 1000, as data sheets count.  Threads: any.
 */
#ifndef LAUNCH_ROOFLINE_H
#define LAUNCH_ROOFLINE_H

#include <stdbool.h>
#include <stdint.h>

typedef enum launch_format {
    LAUNCH_FORMAT_F32,
    LAUNCH_FORMAT_BF16, /* and F16 */
    LAUNCH_FORMAT_FP8, /* one byte per weight of the layers' matrices; embedding and head in BF16 */
    LAUNCH_FORMAT_INT4 /* 4 bits and, per 128 weights, an F16 scale and a 4-bit zero; as FP8 else */
} launch_format;

const char *launch_format_name(launch_format f); /* "float32", "bfloat16", "fp8", "int4" */

/* What of a model counts here. */
typedef struct launch_roof_model {
    int n_layers, hidden, n_heads, n_kv_heads, head_dim, intermediate, vocab;
    int window, n_window_layers; /* layers that see only the newest `window` tokens */
    bool tied;                   /* the head is the embedding */
    double vector_bytes;         /* norms and biases: every rank has them all */
} launch_roof_model;

/* A device, or what an assumption makes of it. */
typedef struct launch_gpu {
    const char *name, *product;
    double memory_gb, bandwidth_tbs; /* of the data sheet */
    double tflops_16, tflops_8;      /* dense, BF16 and FP8; 0 = no FP8 arithmetic: BF16 is used */
    double link_gbs;                 /* to the other devices of the host, each way; 0 = PCIe */
    bool multicast;                  /* the switch adds (NVLink SHARP) */
    double bandwidth_share, flops_share; /* of the data sheet that kernels reach */
    double gap_us;                       /* between two kernels of a decode step */
    const char *source;
} launch_gpu;

/* One rank's part; `linear` and `embed` are numbers of weights. */
typedef struct launch_roof_share {
    double linear, embed; /* the layers' matrices; a table of vocabulary rows */
    double heads;
    int kv_heads;
} launch_roof_share;

/* A model on `n_ranks` devices. */
typedef struct launch_roof_case {
    launch_roof_model model;
    launch_gpu gpu;
    launch_roof_share share; /* of the fullest rank: it decides the time */
    int n_ranks;
    launch_format format;
    double kv_element_bytes;  /* 2; 1 for FP8 */
    double sum_element_bytes; /* of an all-reduce */
    int embed_sums; /* all-reduces per step besides two per layer: 1 with the vocabulary split */
    int kernels_per_layer;
    double host_us; /* per step, not hidden behind the device */
} launch_roof_case;

double launch_roof_linear(const launch_roof_model *m); /* weights of all layers' matrices */
double launch_roof_embed(const launch_roof_model *m);
/* An even split; KV heads are copied where there are more ranks than heads. */
launch_roof_share launch_roof_even_share(const launch_roof_model *m, int n_ranks);

/* Bytes on one rank. */
double launch_roof_streamed(const launch_roof_case *c); /* weights read by a decode step */
double launch_roof_resident(const launch_roof_case *c); /* weights kept */
double launch_roof_kv_per_token(const launch_roof_case *c);

/* Microseconds of an all-reduce of `bytes`; 0 for one rank. */
double launch_roof_sum_us(const launch_gpu *g, int n_ranks, double bytes);

/* Milliseconds of a decode step of `batch` sequences with `ctx` cached tokens each. */
typedef struct launch_roof_step {
    /* Bytes of an even split at the data sheet's bandwidth, or operations at its rate. */
    double floor;
    /* Of the fullest rank, at the shares that kernels reach: the larger counts. */
    double memory, compute;
    double sums, gaps;
    double total;
    bool compute_bound;
} launch_roof_step;

launch_roof_step launch_roof_decode(const launch_roof_case *c, int batch, double ctx);

/* Tokens per second of one device on a prompt of `tokens`, at `flops_share` of its arithmetic, without sums. */
double launch_roof_prefill_per_gpu(const launch_roof_case *c, double tokens, double flops_share);
/* Tokens per second of all ranks, in chunks of `chunk` tokens, with the sums (not hidden). */
double launch_roof_prefill(const launch_roof_case *c, double tokens, int chunk);

/* A stated load, and what a number of copies of a case makes of it. */
typedef struct launch_load {
    double requests_per_s, prompt, output; /* tokens */
    double ms_per_token_max;               /* 0 = any */
} launch_load;

typedef struct launch_load_answer {
    bool ok;
    int copies, batch;   /* independent groups of n_ranks devices; sequences that each runs */
    double prefill_part; /* of the time */
    /* As clients see them; the time to the first token without waiting. */
    double ms_per_token, ttft_s;
    const char *limit; /* why not, when !ok */
} launch_load_answer;

/* kv_tokens: that one copy's cache holds.  headroom: part of the capacity that may be used, 0.8. */
launch_load_answer launch_roof_load(const launch_roof_case *c, const launch_load *load,
                                    double kv_tokens, int chunk, double headroom);

#endif
