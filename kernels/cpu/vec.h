/* SPDX-License-Identifier: Apache-2.0 */
/* vec.h - micro-kernels on rows, one table per instruction set.  AMX machines use the AVX-512 one, and for attention
 * over a BF16 cache products of their own (attn_amx.c).
 *
 * All tables come from the same text, vec_body.h and vec_attn_body.h, compiled over a handful of vector primitives.
 * Nothing here depends on the alignment of a pointer: tails go through the same vector code as bodies.
 */
#ifndef KERN_CPU_VEC_H
#define KERN_CPU_VEC_H

#include "kernels/cpu/cpu_internal.h"

#define KERN_CPU_GROUP 16 /* tokens side by side in the K cache */
#define KERN_CPU_SUM_BLOCK                                                                         \
    64 /* numbers whose exponentials are added in FP32; blocks are joined in FP64 */

/* n rows of FP32 or BF16 numbers, `ld` numbers apart: query vectors, or weights. */
typedef struct kern_cpu_rows {
    const void *x;
    int ld, n;
} kern_cpu_rows;

/* Scores of query vectors against n groups of 16 keys: s[i * s_ld + 16 * g + lane].  hd: padded.
 * While it reads k[g] it fetches ahead[g] (as many bytes) into the cache; ahead may be NULL. */
typedef void kern_cpu_qk_fn(float *s, int s_ld, kern_cpu_rows q, const void *const *k,
                            const void *const *ahead, int n, int hd);
/* o[i * hd + ..] = sum of p[i][t] * v(t) for t = begin .. end - 1, in an order that depends on t only; v(t) is token
 * t % 16 of group t / 16.  ahead as above.  BF16 weights next to the range, up to multiples of 32, are 0. */
typedef void kern_cpu_pv_fn(float *o, int hd, kern_cpu_rows p, const void *const *v,
                            const void *const *ahead, int begin, int end);

/* The two products of attention over one kind of cache.  They may write all `block` rows of s and o. */
typedef struct kern_cpu_attn_products {
    kern_cpu_qk_fn *qk;
    kern_cpu_pv_fn *pv;
    bool rounds;                       /* rows are BF16, otherwise FP32 */
    int block;                         /* query vectors that are best taken at once, at most 32 */
    void (*begin)(void), (*end)(void); /* or NULL: around all that a thread does */
} kern_cpu_attn_products;

#define KERN_CPU_ATTN_BLOCK 32 /* the largest */

struct kern_cpu_vec {
    const char *name;

    /* x += add (where given); returns the sum of squares. */
    float (*add_sumsq)(float *x, const float *add, int n);
    /* out = x * scale * w */
    void (*scale_f32)(float *out, const float *x, const float *w, float scale, int n);
    void (*scale_bf16)(uint16_t *out, const float *x, const float *w, float scale, int n);
    /* out = gate / (1 + exp(-gate)) * up */
    void (*silu_f32)(float *out, const float *gate, const float *up, int n);
    void (*silu_bf16)(uint16_t *out, const float *gate, const float *up, int n);
    /* Turns element i with element i + n; cos_sin [n, 2]. */
    void (*rope)(float *x, const float *cos_sin, int n);
    /* Storage conversion: round to nearest even.  out may be x. */
    void (*to_bf16)(uint16_t *out, const float *x, int n);
    void (*to_f16)(uint16_t *out, const float *x, int n);

    /* attention; by kern_dtype of the cache */
    kern_cpu_attn_products attn[3];
    /* In place: s = exp(s - *max) over n (a multiple of 16) scores, hidden ones being -inf; returns their sum.  All
     * hidden: zeros, *max is -inf, 0. */
    float (*softmax)(float *s, int n, float *max);
    /* o = o * a + p * b over n (a multiple of 16) */
    void (*merge)(float *o, float a, const float *p, float b, int n);
    float (*exp1)(float x);

    /* sampling */
    /* Largest number; NaN counts as -inf, +inf as FLT_MAX. */
    float (*max_clean)(const float *l, int n);
    /* e = exp((l - max) * scale), the same cleaning; returns the sum: blocks of 64 in FP32, joined in FP64. */
    double (*exp_chunk)(float *e, const float *l, int n, float max, float scale);
    /* One block's part of that sum; n <= 64. */
    float (*block_sum)(const float *e, int n);
    /* From `begin` on in steps of 64: the first step holding x > limit, or n.  *mask: which of the 64. */
    int (*next_above)(const float *x, int begin, int n, float limit, uint64_t *mask);
};

extern const kern_cpu_vec kern_cpu_vec_generic;
extern const kern_cpu_vec kern_cpu_vec_avx2;
extern const kern_cpu_vec kern_cpu_vec_avx512;

/* Over a BF16 cache whose hd is a multiple of 32. */
extern const kern_cpu_attn_products kern_cpu_attn_amx_bf16;

#endif
