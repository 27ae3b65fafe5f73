/* SPDX-License-Identifier: Apache-2.0 */
/* cpu_elementwise.c - rmsnorm, RoPE table, qkv, SiLU times up, gather.
 *
 * All are cut by rows, SiLU also by columns; the team helps from the amount of work on that takes a few times as long
 * as calling it.
 */
#include <math.h>
#include <string.h>

#include "kernels/convert.h"
#include "kernels/cpu/cpu_kv.h"
#include "kernels/kern_check.h"

#define TEAM_ELEMENTS     8192 /* streamed numbers that repay a team */
#define FUNCTION_ELEMENTS 16   /* what a sine and a cosine take in such numbers */
#define SILU_COLUMNS      1024 /* one piece of work */
#define F16_PIECE         256  /* numbers that pass through a buffer on their way to F16 */

typedef struct row_job {
    const kern_cpu_vec *vec;
    const void *args; /* of the operation */
    int pieces;       /* of a row; items are pieces */
} row_job;

/* No weight of this backend is multiplied with F16, so these two are only as fast as they are short. */
static void put_f16(uint16_t *out, const float *in, int n)
{
    for (int i = 0; i < n; i++)
        out[i] = kern_f32_to_f16(in[i]);
}

static void scale_f16(const kern_cpu_vec *vec, uint16_t *out, const float *x, const float *weight,
                      float scale, int n)
{
    float piece[F16_PIECE];

    for (int at = 0; at < n; at += F16_PIECE) {
        int len = n - at < F16_PIECE ? n - at : F16_PIECE;

        vec->scale_f32(piece, x + at, weight + at, scale, len);
        put_f16(out + at, piece, len);
    }
}

static void silu_f16(const kern_cpu_vec *vec, uint16_t *out, const float *gate, const float *up,
                     int n)
{
    float piece[F16_PIECE];

    for (int at = 0; at < n; at += F16_PIECE) {
        int len = n - at < F16_PIECE ? n - at : F16_PIECE;

        vec->silu_f32(piece, gate + at, up + at, len);
        put_f16(out + at, piece, len);
    }
}

static void rmsnorm_rows(const void *args, int64_t begin, int64_t end, int thread)
{
    const row_job *job = args;
    const kern_rmsnorm_args *a = job->args;
    const kern_cpu_vec *vec = job->vec;

    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        int64_t at = i * a->dim;
        float *x = a->residual + at;
        float sum = vec->add_sumsq(x, a->add != NULL ? a->add + at : NULL, a->dim);
        float scale = 1.0f / sqrtf(sum / (float)a->dim + a->eps);

        if (a->out_dtype == KERN_DTYPE_F32)
            vec->scale_f32((float *)a->out + at, x, a->weight, scale, a->dim);
        else if (a->out_dtype == KERN_DTYPE_BF16)
            vec->scale_bf16((uint16_t *)a->out + at, x, a->weight, scale, a->dim);
        else
            scale_f16(vec, (uint16_t *)a->out + at, x, a->weight, scale, a->dim);
    }
}

/* The rows of an operation, where each has `elements` numbers. */
static void share_rows(kern_backend *be, kern_team_fn *run, const void *args, int m,
                       int64_t elements)
{
    row_job job = {.vec = kern_cpu_of(be)->vec, .args = args};

    kern_cpu_share(be, &(kern_team_work){.run = run, .args = &job, .n = m, .step = 1}, m * elements,
                   TEAM_ELEMENTS);
}

tp_status kern_cpu_rmsnorm(kern_backend *be, const kern_rmsnorm_args *a)
{
    TP_TRY(kern_check_rmsnorm(a));
    share_rows(be, rmsnorm_rows, a, a->m, a->dim);
    return TP_OK;
}

static void rope_rows(const void *args, int64_t begin, int64_t end, int thread)
{
    const row_job *job = args;
    const kern_rope_table_args *a = job->args;

    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        float *cs = a->cos_sin + i * a->n_freq * 2;

        for (int j = 0; j < a->n_freq; j++) {
            float angle = (float)a->pos[i] * a->inv_freq[j];

            cs[2 * j] = cosf(angle) * a->amplitude;
            cs[2 * j + 1] = sinf(angle) * a->amplitude;
        }
    }
}

tp_status kern_cpu_rope_table(kern_backend *be, const kern_rope_table_args *a)
{
    TP_TRY(kern_check_rope_table(a));
    share_rows(be, rope_rows, a, a->m, (int64_t)a->n_freq * FUNCTION_ELEMENTS);
    return TP_OK;
}

static void qkv_row(const kern_cpu_vec *vec, const kern_qkv_args *a, int64_t r)
{
    int hd = a->head_dim, n_qk = a->n_q + a->n_kv;
    float *row = a->qkv + r * (n_qk + a->n_kv) * hd;
    const float *cos_sin = a->cos_sin + r * a->n_freq * 2;

    for (int h = 0; h < n_qk; h++) {
        float *x = row + (int64_t)h * hd;
        const float *norm = h < a->n_q ? a->q_norm : a->k_norm;

        if (norm != NULL) {
            float sum = vec->add_sumsq(x, NULL, hd);

            vec->scale_f32(x, x, norm, 1.0f / sqrtf(sum / (float)hd + a->norm_eps), hd);
        }
        vec->rope(x, cos_sin, a->n_freq);
    }
    if (a->kv_index[r] < 0)
        return;
    for (int h = 0; h < a->n_kv; h++)
        kern_cpu_kv_put(vec, a->kv, a->layer, a->kv_index[r], h, row + (int64_t)(a->n_q + h) * hd,
                        row + (int64_t)(n_qk + h) * hd);
}

static void qkv_rows(const void *args, int64_t begin, int64_t end, int thread)
{
    const row_job *job = args;

    (void)thread;
    for (int64_t r = begin; r < end; r++)
        qkv_row(job->vec, job->args, r);
}

tp_status kern_cpu_qkv(kern_backend *be, const kern_qkv_args *a)
{
    TP_TRY(kern_check_qkv(a, &a->kv->desc));
    TP_TRY(kern_check_qkv_items(a, &a->kv->desc));
    share_rows(be, qkv_rows, a, a->m, (int64_t)(a->n_q + 2 * a->n_kv) * a->head_dim);
    return TP_OK;
}

static void silu_pieces(const void *args, int64_t begin, int64_t end, int thread)
{
    const row_job *job = args;
    const kern_silu_mul_args *a = job->args;
    const kern_cpu_vec *vec = job->vec;

    (void)thread;
    for (int64_t piece = begin; piece < end; piece++) {
        int64_t i = piece / job->pieces;
        int first = (int)(piece % job->pieces) * SILU_COLUMNS;
        int n = a->n - first < SILU_COLUMNS ? a->n - first : SILU_COLUMNS;
        const float *gate = a->in + i * 2 * a->n + first;

        if (a->out_dtype == KERN_DTYPE_F32)
            vec->silu_f32((float *)a->out + i * a->n + first, gate, gate + a->n, n);
        else if (a->out_dtype == KERN_DTYPE_BF16)
            vec->silu_bf16((uint16_t *)a->out + i * a->n + first, gate, gate + a->n, n);
        else
            silu_f16(vec, (uint16_t *)a->out + i * a->n + first, gate, gate + a->n, n);
    }
}

tp_status kern_cpu_silu_mul(kern_backend *be, const kern_silu_mul_args *a)
{
    row_job job = {
        .vec = kern_cpu_of(be)->vec, .args = a, .pieces = (a->n + SILU_COLUMNS - 1) / SILU_COLUMNS};
    kern_team_work w = {
        .run = silu_pieces, .args = &job, .n = (int64_t)a->m * job.pieces, .step = 1};

    TP_TRY(kern_check_silu_mul(a));
    kern_cpu_share(be, &w, (int64_t)a->m * a->n, TEAM_ELEMENTS / 2);
    return TP_OK;
}

static void gather_rows(const void *args, int64_t begin, int64_t end, int thread)
{
    const row_job *job = args;
    const kern_gather_args *a = job->args;

    (void)thread;
    for (int64_t i = begin; i < end; i++)
        if (a->dim > 0)
            memcpy(a->out + i * a->dim, a->in + (int64_t)a->idx[i] * a->dim,
                   (size_t)a->dim * sizeof *a->out);
}

tp_status kern_cpu_gather(kern_backend *be, const kern_gather_args *a)
{
    TP_TRY(kern_check_gather(a));
    share_rows(be, gather_rows, a, a->n, a->dim / 4);
    return TP_OK;
}
