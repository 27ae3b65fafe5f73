/* SPDX-License-Identifier: Apache-2.0 */
/* self.c - the group of one rank.  Its run is all segments, whose one root is the sum. */
#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"
#include "comm/group.h"

typedef struct self_group {
    comm_group base;
    float *window; /* owned */
    atomic_bool aborted, said;
} self_group;

static void self_destroy(comm_group *g)
{
    self_group *s = (self_group *)g;

    tp_free(s->window);
    tp_free(s);
}

static float *self_window(comm_group *g)
{
    return ((self_group *)g)->window;
}

static tp_status self_reduce(comm_group *g, const comm_reduce_args *a, const comm_join *join)
{
    (void)g;
    comm_join_run(join, &a->roots, a->count, a->out);
    return TP_OK;
}

static tp_status self_allgather(comm_group *g, const void *send, void *recv, size_t bytes)
{
    (void)g;
    memmove(recv, send, bytes);
    return TP_OK;
}

static tp_status self_broadcast(comm_group *g, void *buf, size_t bytes, int root)
{
    (void)g, (void)buf, (void)bytes, (void)root;
    return TP_OK;
}

static tp_status self_barrier(comm_group *g)
{
    (void)g;
    return TP_OK;
}

static tp_status self_ctl_send(comm_group *g, const void *msg, size_t bytes)
{
    (void)g, (void)msg, (void)bytes;
    return TP_OK;
}

static tp_status self_ctl_recv(comm_group *g, void *msg, size_t cap, size_t *bytes,
                               int64_t timeout_ms)
{
    (void)g, (void)msg, (void)cap, (void)bytes, (void)timeout_ms;
    return TP_ERR_INVALID; /* not reached: group.c refuses rank 0 */
}

static void self_request_abort(comm_group *g)
{
    atomic_store(&((self_group *)g)->aborted, true);
}

static bool self_aborted(const comm_group *g)
{
    return atomic_load_explicit(&((const self_group *)g)->aborted, memory_order_relaxed);
}

static bool self_give_up(comm_group *g)
{
    return self_aborted(g);
}

static bool self_first_to_say(comm_group *g, int *exit_code)
{
    (void)exit_code;
    return !atomic_exchange(&((self_group *)g)->said, true);
}

static const comm_ops self_ops = {
    .name = "self",
    .destroy = self_destroy,
    .window = self_window,
    .reduce = self_reduce,
    .allgather = self_allgather,
    .broadcast = self_broadcast,
    .barrier = self_barrier,
    .ctl_send = self_ctl_send,
    .ctl_recv = self_ctl_recv,
    .request_abort = self_request_abort,
    .aborted = self_aborted,
    .give_up = self_give_up,
    .first_to_say = self_first_to_say,
};

tp_status comm_self_create(comm_group **out, const comm_options *opt)
{
    self_group *s = tp_calloc(1, sizeof *s);

    if (s == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "group of one rank");
    comm_group_init(&s->base, &self_ops, 0, 1, opt);
    s->window = tp_aligned_alloc(COMM_ALIGN, opt->window_bytes);
    if (s->window == NULL) {
        self_destroy(&s->base);
        return TP_FAIL(TP_ERR_NOMEM, "window of %zu bytes", opt->window_bytes);
    }
    *out = &s->base;
    return TP_OK;
}
