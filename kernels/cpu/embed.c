/* SPDX-License-Identifier: Apache-2.0 */
/* embed.c - rows of the embedding table as FP32: from row-major storage, or out of the panels of a tied head, where
 * row i is lane i % 64 of panel i / 64. */
#include <string.h>

#include "kernels/convert.h"
#include "kernels/cpu/gemm_internal.h"
#include "kernels/kern_check.h"

#define TEAM_WORK_MIN 4096 /* elements: each a cache line of its own where the table is packed */

/* k elements of type t, `step` bytes apart. */
static void read_elements(float *out, kern_dtype t, const uint8_t *src, size_t step, int64_t k)
{
    switch (t) {
    case KERN_DTYPE_F32:
        for (int64_t i = 0; i < k; i++)
            memcpy(&out[i], src + (size_t)i * step, sizeof *out);
        break;
    case KERN_DTYPE_F16:
        for (int64_t i = 0; i < k; i++)
            out[i] = kern_load_f32(src + (size_t)i * step, KERN_DTYPE_F16);
        break;
    case KERN_DTYPE_BF16:
        for (int64_t i = 0; i < k; i++)
            out[i] = kern_load_f32(src + (size_t)i * step, KERN_DTYPE_BF16);
        break;
    }
}

/* k elements of BF16 in pairs, `step` bytes apart. */
static void read_pairs(float *out, const uint8_t *src, size_t step, int64_t k)
{
    for (int64_t i = 0; i < k; i++)
        out[i] = kern_load_f32(src + (size_t)(i / 2) * step + (size_t)(i % 2) * 2, KERN_DTYPE_BF16);
}

static void read_row(float *out, const kern_weight *w, int64_t row)
{
    kern_dtype t = w->desc.dtype;
    size_t line = gemm_line_bytes(t), unit = t == KERN_DTYPE_F16 ? 2 : 4;
    const uint8_t *lane =
        w->data + (size_t)(row / GEMM_NR) * w->panel_bytes + (size_t)(row % GEMM_NR) * unit;

    if (w->desc.layout == KERN_LAYOUT_ROWS)
        read_elements(out, t, w->data + (size_t)row * w->panel_bytes, kern_dtype_bytes(t),
                      w->desc.k);
    else if (t == KERN_DTYPE_BF16)
        read_pairs(out, lane, line, w->desc.k);
    else
        read_elements(out, t, lane, line, w->desc.k);
}

/* What embed_rows works on. */
typedef struct embed_job {
    const kern_backend *be;
    const kern_embed_args *args;
} embed_job;

static void embed_rows(const void *args, int64_t begin, int64_t end, int thread)
{
    const embed_job *job = args;
    const kern_embed_args *a = job->args;
    const kern_weight *w = a->table;
    int64_t k = w->desc.k;

    for (int64_t i = begin; i < end; i++) {
        int64_t row = (int64_t)a->ids[i] - a->vocab_first;
        float *out = a->out + i * k;
        const uint8_t *late = NULL;

        if (row < 0 || row >= w->desc.n) {
            memset(out, 0, (size_t)k * sizeof *out);
            continue;
        }
        if (w->late != NULL)
            late = kern_cpu_late_row(job->be, w, row, thread);
        if (late != NULL)
            read_elements(out, w->desc.dtype, late, kern_dtype_bytes(w->desc.dtype), k);
        else
            read_row(out, w, row);
    }
}

tp_status kern_cpu_embed(kern_backend *be, const kern_embed_args *a)
{
    embed_job job = {.be = be, .args = a};

    TP_TRY(kern_check_embed(a, &a->table->desc));
    kern_cpu_share(be, &(kern_team_work){.run = embed_rows, .args = &job, .n = a->m, .step = 1},
                   a->m * a->table->desc.k, TEAM_WORK_MIN);
    return a->table->late == NULL ? TP_OK : kern_cpu_late_status(a->table);
}
