/* SPDX-License-Identifier: Apache-2.0 */
/* loader_late.c - whether matrices may come after the first steps, and telling the backend where they are. */
#include "base/clock.h"
#include "base/fault.h"
#include "base/mem.h"
#include "runtime/model/loader_impl.h"

#define LATE_BYTES_MAX (INT64_C(4) << 30) /* of a rank: what a first step may have to read */
#define LATE_MISSING   8                  /* one of so many blocks may still be on the disk */
#define LATE_IDLE_NS   (TP_NS_PER_S / 2)  /* so long the crew waits for a first step */

/* kern_weight_source.read: whole rows at once, slices of columns one by one. */
static tp_status read_late(const void *owner, int64_t first, int64_t n, void *dst)
{
    const rt_load_source *l = owner;
    const rt_param *p = l->param;
    size_t element = rt_load_element_bytes(l->tensor), kept = (size_t)p->n_cols * element;
    uint64_t row = (uint64_t)p->cols * element;
    uint64_t at = l->tensor->offset + (uint64_t)(p->row_first + first) * row +
                  (uint64_t)p->col_first * element;

    if (p->n_cols == p->cols)
        return rt_st_read(&l->loader->st, l->tensor->file, at, dst, (size_t)n * kept);
    for (int64_t i = 0; i < n; i++)
        TP_TRY(rt_st_read(&l->loader->st, l->tensor->file, at + (uint64_t)i * row,
                          (char *)dst + (size_t)i * kept, kept));
    return TP_OK;
}

/* Nearly every block begins in the page cache, and together they are not too much for a step. */
static bool can_be_late(const rt_loader *ld)
{
    const rt_model *m = ld->m;
    size_t missing = 0;
    int64_t all = 0;

    if (!m->options.lazy_weights || m->options.dummy_weights || m->be->ops->weight_late == NULL)
        return false;
    if (tp_fault_armed("load.late"))
        return true;
    for (size_t i = 0; i < ld->n_blocks; i++) {
        const rt_load_block *b = &ld->blocks[i];
        int64_t bytes =
            b->n_rows * rt_load_row_len(b->param) * (int64_t)rt_load_element_bytes(b->tensor);

        all += bytes;
        if (!rt_st_cached(&ld->st, b->tensor->file, b->offset)) {
            rt_st_fetch(&ld->st, b->tensor->file, b->offset, (uint64_t)bytes);
            missing++;
        }
    }
    return all <= LATE_BYTES_MAX && missing <= ld->n_blocks / LATE_MISSING;
}

/* The same answer on every rank: true when all of them can. */
tp_status rt_load_agree_late(const rt_loader *ld, bool *late)
{
    int32_t mine = can_be_late(ld), all[TP_SEG_MAX] = {0};

    *late = false;
    if (!ld->m->options.lazy_weights)
        return TP_OK;
    TP_TRY(comm_allgather(ld->m->group, &mine, all, sizeof mine));
    for (int rank = 0; rank < comm_size(ld->m->group); rank++)
        if (all[rank] == 0)
            return TP_OK;
    *late = true;
    return TP_OK;
}

/* Vectors are loaded now; what is left is the crew's. */
static tp_status load_vectors(rt_loader *ld)
{
    size_t kept = 0;

    for (size_t i = 0; i < ld->n_blocks; i++) {
        const rt_load_block b = ld->blocks[i];

        if (b.param->vector == NULL) {
            ld->blocks[kept++] = b;
            continue;
        }
        TP_TRY(rt_load_one_block(&ld->workers[0], &b));
        ld->bytes_read += b.n_rows * (int64_t)ld->workers[0].slot.stride;
    }
    ld->n_blocks = kept;
    return TP_OK;
}

static tp_status name_sources(rt_loader *ld)
{
    kern_backend *be = ld->m->be;

    ld->late = tp_calloc((size_t)ld->n_params, sizeof *ld->late);
    if (ld->late == NULL)
        return TP_REJECT(TP_ERR_NOMEM, "no memory for the sources of weights");
    for (int i = 0; i < ld->n_params; i++) {
        const rt_param *p = &ld->params[i];
        rt_load_source *l = &ld->late[i];

        if (p->weight == NULL || p->n_rows == 0 || p->n_cols == 0)
            continue;
        *l = (rt_load_source){.loader = ld, .param = p};
        TP_TRY(rt_load_find_tensor(ld, p, &l->tensor));
        TP_TRY(be->ops->weight_late(be, p->weight,
                                    &(kern_weight_source){.row = p->dst_row,
                                                          .n_rows = p->n_rows,
                                                          .dtype = (kern_dtype)l->tensor->dtype,
                                                          .read = read_late,
                                                          .owner = l}));
    }
    return TP_OK;
}

tp_status rt_load_begin_late(rt_loader *ld)
{
    TP_TRY(load_vectors(ld));
    TP_TRY(name_sources(ld));
    ld->hold_ns = tp_now_ns() + LATE_IDLE_NS;
    return rt_load_start_crew(ld);
}

void rt_load_settle(rt_loader *ld)
{
    kern_backend *be = ld->m->be;

    for (int i = 0; ld->late != NULL && i < ld->n_params; i++)
        if (ld->params[i].weight != NULL)
            be->ops->weight_settle(be, ld->params[i].weight);
}
