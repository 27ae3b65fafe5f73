/* SPDX-License-Identifier: Apache-2.0 */
/* cpu_elementwise.c - rmsnorm, RoPE table, qkv, SiLU times up, gather.
 *
 * All are cut by rows, SiLU also by columns; a team is forked from the amount of work on that takes a few times as
 * long as the fork.
 */
#include <math.h>
#include <string.h>

#include "kernels/convert.h"
#include "kernels/cpu/cpu_kv.h"
#include "kernels/kern_check.h"

#define TEAM_ELEMENTS  16384 /* streamed numbers that repay a team */
#define TEAM_FUNCTIONS 1024  /* the same for sine and cosine */
#define SILU_COLUMNS   2048  /* one piece of work */
#define F16_PIECE      256   /* numbers that pass through a buffer on their way to F16 */

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

tp_status kern_cpu_rmsnorm(kern_backend *be, const kern_rmsnorm_args *a)
{
    const kern_cpu_vec *vec = kern_cpu_of(be)->vec;
    int team = a->m > 1 ? kern_cpu_team(be, (int64_t)a->m * a->dim, TEAM_ELEMENTS) : 1;

    TP_TRY(kern_check_rmsnorm(a));
#pragma omp parallel for num_threads(team) if (team > 1) schedule(static)
    for (int i = 0; i < a->m; i++) {
        int64_t at = (int64_t)i * a->dim;
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
    return TP_OK;
}

tp_status kern_cpu_rope_table(kern_backend *be, const kern_rope_table_args *a)
{
    int team = kern_cpu_team(be, (int64_t)a->m * a->n_freq, TEAM_FUNCTIONS);

    TP_TRY(kern_check_rope_table(a));
#pragma omp parallel for num_threads(team) if (team > 1) schedule(static)
    for (int i = 0; i < a->m; i++) {
        float *cs = a->cos_sin + (int64_t)i * a->n_freq * 2;

        for (int j = 0; j < a->n_freq; j++) {
            float angle = (float)a->pos[i] * a->inv_freq[j];

            cs[2 * j] = cosf(angle) * a->amplitude;
            cs[2 * j + 1] = sinf(angle) * a->amplitude;
        }
    }
    return TP_OK;
}

static void qkv_row(const kern_cpu_vec *vec, const kern_qkv_args *a, int r)
{
    int hd = a->head_dim, n_qk = a->n_q + a->n_kv;
    float *row = a->qkv + (int64_t)r * (n_qk + a->n_kv) * hd;
    const float *cos_sin = a->cos_sin + (int64_t)r * a->n_freq * 2;

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

tp_status kern_cpu_qkv(kern_backend *be, const kern_qkv_args *a)
{
    const kern_cpu_vec *vec = kern_cpu_of(be)->vec;
    int64_t work = (int64_t)a->m * (a->n_q + 2 * a->n_kv) * a->head_dim;
    int team = a->m > 1 ? kern_cpu_team(be, work, TEAM_ELEMENTS) : 1;

    TP_TRY(kern_check_qkv(a, &a->kv->desc));
    TP_TRY(kern_check_qkv_items(a, &a->kv->desc));
#pragma omp parallel for num_threads(team) if (team > 1) schedule(static)
    for (int r = 0; r < a->m; r++)
        qkv_row(vec, a, r);
    return TP_OK;
}

tp_status kern_cpu_silu_mul(kern_backend *be, const kern_silu_mul_args *a)
{
    const kern_cpu_vec *vec = kern_cpu_of(be)->vec;
    int team = kern_cpu_team(be, (int64_t)a->m * a->n, TEAM_ELEMENTS);
    int pieces = (a->n + SILU_COLUMNS - 1) / SILU_COLUMNS;
    int64_t n_tasks = (int64_t)a->m * pieces;

    TP_TRY(kern_check_silu_mul(a));
#pragma omp parallel for num_threads(team) if (team > 1) schedule(static)
    for (int64_t task = 0; task < n_tasks; task++) {
        int64_t i = task / pieces;
        int first = (int)(task % pieces) * SILU_COLUMNS;
        int n = a->n - first < SILU_COLUMNS ? a->n - first : SILU_COLUMNS;
        const float *gate = a->in + i * 2 * a->n + first;

        if (a->out_dtype == KERN_DTYPE_F32)
            vec->silu_f32((float *)a->out + i * a->n + first, gate, gate + a->n, n);
        else if (a->out_dtype == KERN_DTYPE_BF16)
            vec->silu_bf16((uint16_t *)a->out + i * a->n + first, gate, gate + a->n, n);
        else
            silu_f16(vec, (uint16_t *)a->out + i * a->n + first, gate, gate + a->n, n);
    }
    return TP_OK;
}

tp_status kern_cpu_gather(kern_backend *be, const kern_gather_args *a)
{
    int team = kern_cpu_team(be, (int64_t)a->n * a->dim, 4 * TEAM_ELEMENTS);

    TP_TRY(kern_check_gather(a));
#pragma omp parallel for num_threads(team) if (team > 1) schedule(static)
    for (int i = 0; i < a->n; i++)
        if (a->dim > 0)
            memcpy(a->out + (int64_t)i * a->dim, a->in + (int64_t)a->idx[i] * a->dim,
                   (size_t)a->dim * sizeof *a->out);
    return TP_OK;
}
