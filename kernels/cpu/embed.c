/* SPDX-License-Identifier: Apache-2.0 */
/* embed.c - rows of the embedding table as FP32: from row-major storage, or out of the panels of a tied head, where
 * row i is lane i % 64 of panel i / 64. */
#include <string.h>

#include "kernels/convert.h"
#include "kernels/cpu/gemm_internal.h"
#include "kernels/kern_check.h"

#define TEAM_WORK_MIN (64 * 1024) /* elements */

static void read_row(float *out, const kern_weight *w, int64_t row)
{
    const uint8_t *src = w->data + (size_t)row * w->panel_bytes;
    size_t size = kern_dtype_bytes(w->desc.dtype);

    for (int64_t k = 0; k < w->desc.k; k++)
        out[k] = kern_load_f32(src + (size_t)k * size, w->desc.dtype);
}

static void read_lane(float *out, const kern_weight *w, int64_t row)
{
    kern_dtype t = w->desc.dtype;
    size_t size = kern_dtype_bytes(t), line = gemm_line_bytes(t);
    int per_line = gemm_line_k(t);
    const uint8_t *src = w->data + (size_t)(row / GEMM_NR) * w->panel_bytes +
                         (size_t)(row % GEMM_NR) * size * (size_t)per_line;

    for (int64_t k = 0; k < w->desc.k; k++)
        out[k] =
            kern_load_f32(src + (size_t)(k / per_line) * line + (size_t)(k % per_line) * size, t);
}

tp_status kern_cpu_embed(kern_backend *be, const kern_embed_args *a)
{
    const kern_weight *w = a->table;
    int64_t k = w->desc.k;

    TP_TRY(kern_check_embed(a, &w->desc));
#pragma omp parallel for num_threads(kern_cpu_team(be, a->m *k, TEAM_WORK_MIN)) schedule(static)
    for (int64_t i = 0; i < a->m; i++) {
        int64_t row = (int64_t)a->ids[i] - a->vocab_first;
        float *out = a->out + i * k;

        if (row < 0 || row >= w->desc.n)
            memset(out, 0, (size_t)k * sizeof *out);
        else if (w->desc.layout == KERN_LAYOUT_ROWS)
            read_row(out, w, row);
        else
            read_lane(out, w, row);
    }
    return TP_OK;
}
