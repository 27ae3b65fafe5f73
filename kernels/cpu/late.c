/* SPDX-License-Identifier: Apache-2.0 */
/* late.c - multiplying by a matrix that is still in its file.
 *
 * Packed weights are fresh memory, and fresh memory is the slowest part of a start: it is cleared page by page, and a
 * virtual machine may first have to get it from its host.  A file in the page cache is there already.  So a server may
 * begin before its weights are packed: a panel that is not there is read into a small memory of the thread that needs
 * it, turned there as a put would have turned it, and multiplied by the same micro-kernel, to the same bits.  The puts
 * run meanwhile on other threads.
 *
 * A panel counts its rows that are missing.  A put decrements the count after it has written; who finds zero sees all
 * bytes (release, acquire).  When everything was put, settle forgets the rest, and nothing is asked any more.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/cpu/gemm_internal.h"
#include "kernels/kern_check.h"

#define SOURCES_MAX 3  /* q, k and v are one weight */
#define READ_ROWS   16 /* at a time: source and panel stay in L2 together */

struct kern_cpu_late {
    kern_weight_source sources[SOURCES_MAX];
    int n_sources;
    atomic_bool failed;
    tp_status status; /* of the first that failed, written by it alone; read after the operation */
    char error[256];
    atomic_uchar missing[]; /* [n_panels] rows */
};

static int64_t panel_rows(const kern_weight *w)
{
    return w->desc.layout == KERN_LAYOUT_ROWS ? 1 : GEMM_NR;
}

/* A panel, then what a micro-kernel may read behind it. */
static size_t panel_room(const kern_weight *w)
{
    return (w->panel_bytes + GEMM_SLACK + KERN_CPU_ALIGN - 1) / KERN_CPU_ALIGN * KERN_CPU_ALIGN;
}

/* The memory of each thread, large enough for this weight. */
static tp_status reserve(kern_cpu_backend *cpu, const kern_weight *w)
{
    size_t rows = (size_t)READ_ROWS * (size_t)w->desc.k * sizeof(float);
    size_t bytes = (panel_room(w) + rows + KERN_CPU_ALIGN - 1) / KERN_CPU_ALIGN * KERN_CPU_ALIGN;
    uint8_t *late;

    if (bytes <= cpu->late_bytes)
        return TP_OK;
    late = tp_aligned_alloc(KERN_CPU_ALIGN, bytes * (size_t)cpu->base.n_threads);
    if (late == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "no memory for weights that are used while they load");
    tp_free(cpu->late);
    cpu->late = late;
    cpu->late_bytes = bytes;
    return TP_OK;
}

static tp_status begin_late(kern_backend *be, kern_weight *w)
{
    kern_cpu_late *late =
        tp_calloc(1, sizeof *late + (size_t)w->n_panels * sizeof late->missing[0]);
    int64_t rows = panel_rows(w);

    if (late == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "no memory for weights that are used while they load");
    for (int64_t p = 0; p < w->n_panels; p++) {
        int64_t n = w->desc.n - p * rows;

        atomic_init(&late->missing[p], (unsigned char)(n < rows ? n : rows));
    }
    w->late = late;
    kern_cpu_of(be)->n_late++;
    return TP_OK;
}

tp_status kern_cpu_weight_late(kern_backend *be, kern_weight *w, const kern_weight_source *s)
{
    if (s->row < 0 || s->n_rows < 0 || s->row + s->n_rows > w->desc.n)
        return TP_FAIL(TP_ERR_INVALID, "weight: a source of rows %lld to %lld, expected up to %lld",
                       (long long)s->row, (long long)(s->row + s->n_rows), (long long)w->desc.n);
    TP_TRY(reserve(kern_cpu_of(be), w));
    if (w->late == NULL)
        TP_TRY(begin_late(be, w));
    if (w->late->n_sources == SOURCES_MAX)
        return TP_FAIL(TP_ERR_INVALID, "weight: more than %d sources", SOURCES_MAX);
    w->late->sources[w->late->n_sources++] = *s;
    return TP_OK;
}

void kern_cpu_weight_settle(kern_backend *be, kern_weight *w)
{
    kern_cpu_backend *cpu = kern_cpu_of(be);

    if (w->late == NULL)
        return;
    tp_free(w->late);
    w->late = NULL;
    if (--cpu->n_late == 0) {
        tp_free(cpu->late);
        cpu->late = NULL;
        cpu->late_bytes = 0;
    }
}

void kern_cpu_late_put(kern_cpu_late *late, const kern_weight *w, const kern_weight_rows *rows)
{
    int64_t per_panel = panel_rows(w), end = rows->row + rows->n_rows;

    for (int64_t row = rows->row; row < end;) {
        int64_t panel = row / per_panel, next = (panel + 1) * per_panel;

        next = next < end ? next : end;
        atomic_fetch_sub_explicit(&late->missing[panel], (unsigned char)(next - row),
                                  memory_order_release);
        row = next;
    }
}

static bool is_there(const kern_weight *w, int64_t panel)
{
    return atomic_load_explicit(&w->late->missing[panel], memory_order_acquire) == 0;
}

static void fail(kern_cpu_late *late, tp_status st)
{
    if (atomic_exchange(&late->failed, true))
        return;
    late->status = st;
    (void)snprintf(late->error, sizeof late->error, "%s", tp_last_error());
}

/* Rows [first, first + n) that one source has to the panel at `to`; `raw` has room for READ_ROWS. */
static tp_status read_rows(const kern_weight *w, const kern_weight_source *s, int64_t first,
                           int64_t n, uint8_t *to, uint8_t *raw)
{
    int64_t end = s->row + s->n_rows < first + n ? s->row + s->n_rows : first + n;

    for (int64_t r = s->row > first ? s->row : first; r < end; r += READ_ROWS) {
        kern_weight_rows rows = {.row = r,
                                 .n_rows = end - r < READ_ROWS ? end - r : READ_ROWS,
                                 .src = raw,
                                 .src_stride = (size_t)w->desc.k * kern_dtype_bytes(s->dtype),
                                 .src_dtype = s->dtype};

        TP_TRY(s->read(s->owner, r - s->row, rows.n_rows, raw));
        kern_cpu_pack_panel(w, to, &rows, r / panel_rows(w));
    }
    return TP_OK;
}

const uint8_t *kern_cpu_late_panel(const kern_backend *be, const kern_weight *w, int64_t panel,
                                   int thread)
{
    const kern_cpu_backend *cpu = (const kern_cpu_backend *)be;
    uint8_t *to = cpu->late + (size_t)thread * cpu->late_bytes, *raw = to + panel_room(w);
    int64_t first = panel * panel_rows(w), n = w->desc.n - first;
    kern_cpu_late *late = w->late;

    if (is_there(w, panel))
        return w->data + (size_t)panel * w->panel_bytes;
    n = n < panel_rows(w) ? n : panel_rows(w);
    if (n < panel_rows(w) || w->desc.k % gemm_line_k(w->desc.dtype) != 0)
        memset(to, 0, w->panel_bytes);
    memset(to + w->panel_bytes, 0, GEMM_SLACK); /* it is multiplied by zero, so it must be finite */
    for (int i = 0; i < late->n_sources; i++) {
        tp_status st = read_rows(w, &late->sources[i], first, n, to, raw);

        if (st != TP_OK) {
            fail(late, st);
            return NULL;
        }
    }
    return to;
}

const uint8_t *kern_cpu_late_row(const kern_backend *be, const kern_weight *w, int64_t row,
                                 int thread)
{
    const kern_cpu_backend *cpu = (const kern_cpu_backend *)be;
    uint8_t *to = cpu->late + (size_t)thread * cpu->late_bytes, *raw = to + panel_room(w);
    kern_weight as_rows = {.desc = w->desc};

    if (is_there(w, row / panel_rows(w)))
        return NULL;
    as_rows.desc.layout = KERN_LAYOUT_ROWS;
    for (int i = 0; i < w->late->n_sources; i++) {
        tp_status st = read_rows(&as_rows, &w->late->sources[i], row, 1, to, raw);

        if (st != TP_OK)
            fail(w->late, st);
    }
    return to;
}

tp_status kern_cpu_late_status(const kern_weight *w)
{
    if (!atomic_load(&w->late->failed))
        return TP_OK;
    return TP_FAIL(w->late->status, "%s", w->late->error);
}
