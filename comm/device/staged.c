/* SPDX-License-Identifier: Apache-2.0 */
/* staged.c - sums of device memory by way of the host: any device, any group, slow.
 *
 * get (waits for the device) into the group's own window, the group's reduce with one leaf per rank in rank order, put
 * back.  Deadline and abort are the group's.
 */
#include "base/mem.h"
#include "comm/device/side.h"

typedef struct staged {
    comm_reducer base;
    comm_group *g; /* borrowed: the group that this is attached to */
    comm_device d;
    comm_join join;
    float *out; /* owned; the sum on the host */
} staged;

static void staged_destroy(comm_reducer *r)
{
    staged *s = (staged *)r;

    if (s == NULL)
        return;
    tp_free(s->out);
    tp_free(s);
}

static tp_status staged_create(comm_reducer **out, comm_group *g, const comm_device *d,
                               size_t window_bytes, int64_t timeout_ms)
{
    staged *s = tp_calloc(1, sizeof *s);
    float *sum = tp_aligned_alloc(COMM_ALIGN, window_bytes);
    tp_status st = comm_device_agree(
        g, s != NULL && sum != NULL ? TP_OK
                                    : TP_FAIL(TP_ERR_NOMEM, "%zu bytes to sum in", window_bytes));

    if (st != TP_OK) {
        tp_free(s);
        tp_free(sum);
        return st;
    }
    *s = (staged){
        .base = {.ops = &comm_staged_ops, .timeout_ms = timeout_ms}, .g = g, .d = *d, .out = sum};
    comm_join_init_ranks(&s->join, g->size);
    *out = &s->base;
    return TP_OK;
}

static int64_t staged_bytes_max(const comm_reducer *r, int way)
{
    (void)way;
    return (int64_t)((const staged *)r)->g->window_bytes;
}

static tp_status staged_reduce(comm_reducer *r, int way, const float *in, float *out, int64_t count)
{
    staged *s = (staged *)r;
    float *window = s->g->ops->window(s->g);
    size_t bytes = (size_t)count * sizeof(float);
    comm_reduce_args a = {.n_seg = s->g->size, .roots = window, .out = s->out, .count = count};

    (void)way;
    TP_TRY(s->d.get(s->d.backend, window, in, bytes));
    TP_TRY(s->g->ops->reduce(s->g, &a, &s->join));
    return s->d.put(s->d.backend, out, s->out, bytes);
}

static tp_status staged_poll(comm_reducer *r)
{
    (void)r; /* reduce() itself waits, and says what went wrong */
    return TP_OK;
}

static void staged_abort(comm_reducer *r)
{
    (void)r; /* waits are the group's */
}

static const char *const staged_ways[] = {"staged", NULL};

const comm_reducer_ops comm_staged_ops = {
    .name = "staged",
    .ways = staged_ways,
    .rank_order = true,
    .captures = false,
    .create = staged_create,
    .destroy = staged_destroy,
    .bytes_max = staged_bytes_max,
    .reduce = staged_reduce,
    .poll = staged_poll,
    .abort = staged_abort,
};
