/* SPDX-License-Identifier: Apache-2.0 */
/* ref_elementwise.c - rmsnorm, RoPE table, SiLU times up, gather: one row at a time. */
#include <math.h>
#include <string.h>

#include "kernels/ref/ref_internal.h"

tp_status kern_ref_rmsnorm(kern_backend *be, const kern_rmsnorm_args *a)
{
    (void)be;
    TP_TRY(kern_check_rmsnorm(a));
    for (int i = 0; i < a->m; i++) {
        float *x = a->residual + (int64_t)i * a->dim;
        unsigned char *out =
            (unsigned char *)a->out + (size_t)i * (size_t)a->dim * kern_dtype_bytes(a->out_dtype);
        float sum = 0.0f, scale;

        for (int j = 0; j < a->dim; j++) {
            if (a->add != NULL)
                x[j] += a->add[(int64_t)i * a->dim + j];
            sum += x[j] * x[j];
        }
        scale = 1.0f / sqrtf(sum / (float)a->dim + a->eps);
        for (int j = 0; j < a->dim; j++)
            kern_store_f32(out + (size_t)j * kern_dtype_bytes(a->out_dtype), a->out_dtype,
                           x[j] * scale * a->weight[j]);
    }
    return TP_OK;
}

tp_status kern_ref_rope_table(kern_backend *be, const kern_rope_table_args *a)
{
    (void)be;
    TP_TRY(kern_check_rope_table(a));
    for (int i = 0; i < a->m; i++) {
        for (int j = 0; j < a->n_freq; j++) {
            float angle = (float)a->pos[i] * a->inv_freq[j];
            float *cs = a->cos_sin + ((int64_t)i * a->n_freq + j) * 2;

            cs[0] = cosf(angle) * a->amplitude;
            cs[1] = sinf(angle) * a->amplitude;
        }
    }
    return TP_OK;
}

tp_status kern_ref_silu_mul(kern_backend *be, const kern_silu_mul_args *a)
{
    unsigned char *out = a->out;

    (void)be;
    TP_TRY(kern_check_silu_mul(a));
    for (int i = 0; i < a->m; i++) {
        const float *gate = a->in + (int64_t)i * 2 * a->n, *up = gate + a->n;

        for (int j = 0; j < a->n; j++) {
            kern_store_f32(out, a->out_dtype, gate[j] / (1.0f + expf(-gate[j])) * up[j]);
            out += kern_dtype_bytes(a->out_dtype);
        }
    }
    return TP_OK;
}

tp_status kern_ref_gather(kern_backend *be, const kern_gather_args *a)
{
    (void)be;
    TP_TRY(kern_check_gather(a));
    for (int i = 0; i < a->n && a->dim > 0; i++)
        memcpy(a->out + (int64_t)i * a->dim, a->in + (int64_t)a->idx[i] * a->dim,
               (size_t)a->dim * sizeof(float));
    return TP_OK;
}
