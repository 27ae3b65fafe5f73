/* SPDX-License-Identifier: Apache-2.0 */
/* loader_blocks.c - finding every parameter in the checkpoint, and cutting what a rank keeps into blocks. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "runtime/model/loader_impl.h"

#define BLOCK_ROWS 64 /* blocks hold a multiple of so many rows: packed tiles are not torn */

static const char *const prefixes[] = {"model.", "language_model.model.", "model.language_model."};

/* ---- finding and checking ---- */

tp_status rt_load_find_prefix(rt_loader *ld)
{
    char name[128];

    for (size_t i = 0; i < TP_ARRAY_LEN(prefixes); i++) {
        (void)snprintf(name, sizeof name, "%sembed_tokens.weight", prefixes[i]);
        if (rt_st_find(&ld->st, name) != NULL) {
            ld->prefix = prefixes[i];
            return TP_OK;
        }
    }
    return TP_REJECT(TP_ERR_NOT_FOUND,
                     "%s: tensor model.embed_tokens.weight is missing (%zu tensors)", ld->st.dir,
                     ld->st.n_tensors);
}

static void shape_text(char *text, size_t size, const int64_t *shape, int n)
{
    size_t at = 0;

    text[0] = '\0';
    for (int i = 0; i < n && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, "%s%" PRId64, i == 0 ? "" : ", ", shape[i]);
}

tp_status rt_load_find_tensor(const rt_loader *ld, const rt_param *p, const rt_st_tensor **out)
{
    int64_t shape[2] = {p->rows, p->cols};
    int n_dims = p->cols == 0 ? 1 : 2;
    bool head = strcmp(p->name, "lm_head.weight") == 0;
    const rt_st_tensor *t;
    char name[128], found[128], expected[64];

    (void)snprintf(name, sizeof name, "%s%s", head ? "" : ld->prefix, p->name);
    t = rt_st_find(&ld->st, name);
    if (t == NULL && head) {
        (void)snprintf(name, sizeof name, "language_model.lm_head.weight");
        t = rt_st_find(&ld->st, name);
    }
    if (t == NULL)
        return TP_REJECT(TP_ERR_NOT_FOUND, "%s: tensor %s%s is missing", ld->st.dir,
                         head ? "" : ld->prefix, p->name);
    if (t->n_dims != n_dims || memcmp(t->shape, shape, (size_t)n_dims * sizeof *shape) != 0) {
        shape_text(found, sizeof found, t->shape, t->n_dims);
        shape_text(expected, sizeof expected, shape, n_dims);
        return TP_REJECT(TP_ERR_FORMAT,
                         "%s/%s: tensor %s has shape [%s], config.json asks for [%s]", ld->st.dir,
                         ld->st.files[t->file].name, t->name, found, expected);
    }
    if (t->dtype == RT_ST_OTHER)
        return TP_REJECT(TP_ERR_UNSUPPORTED,
                         "%s/%s: tensor %s is stored as %s; supported: F32, BF16, F16", ld->st.dir,
                         ld->st.files[t->file].name, t->name, t->dtype_name);
    *out = t;
    return TP_OK;
}

/* ---- blocks ---- */

static tp_status push_block(rt_loader *ld, const rt_load_block *b)
{
    if (ld->n_blocks == ld->cap_blocks) {
        size_t cap = ld->cap_blocks != 0 ? 2 * ld->cap_blocks : 1024;
        rt_load_block *blocks = tp_realloc(ld->blocks, cap * sizeof *blocks);

        if (blocks == NULL)
            return TP_REJECT(TP_ERR_NOMEM, "no memory for the list of reads");
        ld->blocks = blocks;
        ld->cap_blocks = cap;
    }
    ld->blocks[ld->n_blocks++] = *b;
    return TP_OK;
}

static tp_status cut_param(rt_loader *ld, const rt_param *p, const rt_st_tensor *t)
{
    size_t element = rt_load_element_bytes(t);
    size_t row =
        (size_t)(rt_load_reads_slices(p, element) ? p->n_cols : rt_load_row_len(p)) * element;
    int64_t most = (int64_t)(RT_LOAD_BLOCK_BYTES / row);

    if (p->n_rows == 0 || (p->cols != 0 && p->n_cols == 0))
        return TP_OK;
    if (most > BLOCK_ROWS)
        most -= most % BLOCK_ROWS;
    for (int64_t done = 0; done < p->n_rows; done += most) {
        rt_load_block b = {.param = p, .tensor = t, .row = p->row_first + done};

        b.n_rows = p->n_rows - done < most ? p->n_rows - done : most;
        if (t != NULL)
            b.offset = t->offset + (uint64_t)(b.row * rt_load_row_len(p) + p->col_first) * element;
        TP_TRY(push_block(ld, &b));
    }
    return TP_OK;
}

static int in_file_order(const void *a, const void *b)
{
    const rt_load_block *x = a, *y = b;

    if (x->tensor->file != y->tensor->file)
        return x->tensor->file < y->tensor->file ? -1 : 1;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

tp_status rt_load_plan(rt_loader *ld)
{
    bool dummy = ld->m->options.dummy_weights;

    for (int i = 0; i < ld->n_params; i++) {
        const rt_st_tensor *t = NULL;

        if (!dummy)
            TP_TRY(rt_load_find_tensor(ld, &ld->params[i], &t));
        TP_TRY(cut_param(ld, &ld->params[i], t));
    }
    if (!dummy && ld->n_blocks != 0)
        qsort(ld->blocks, ld->n_blocks, sizeof *ld->blocks, in_file_order);
    return TP_OK;
}
