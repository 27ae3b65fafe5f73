/* SPDX-License-Identifier: Apache-2.0 */
/* attach.c - a group gets reducers: which ones are there, which of them are right, which is used when.
 *
 * All ranks go through the same steps with the same verdicts (comm_device_agree), so all hold the same list and the
 * same choice by size.  A failure before the end leaves the group without devices, as it was.
 */
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"
#include "comm/device/side.h"

#define SELFTEST_MS 20000 /* deadline of its sums when the group has none */
#define FILE_MAX    (64 * 1024)
#define AGREE_TEXT  220

typedef struct opinion {
    int32_t status;
    char text[AGREE_TEXT];
} opinion;

tp_status comm_device_agree(comm_group *g, tp_status mine)
{
    opinion own = {.status = mine}, all[COMM_RANKS_MAX];

    if (mine != TP_OK)
        snprintf(own.text, sizeof own.text, "%s", tp_last_error());
    TP_TRY(comm_allgather(g, &own, all, sizeof own));
    if (mine != TP_OK)
        return mine;
    for (int r = 0; r < g->size; r++) {
        tp_status st = (tp_status)all[r].status;

        if (st != TP_OK)
            return TP_REJECT(st, "rank %d: %s", r, all[r].text);
    }
    return TP_OK;
}

/* ---- called by group.c ---- */

float *comm_device_window(comm_group *g)
{
    return g->device->window;
}

static const comm_choice *choose(const comm_device_side *s, int64_t bytes)
{
    const comm_choice *c = s->choice;

    while (bytes > c->upto) /* the last one takes all */
        c++;
    return c;
}

tp_status comm_device_reduce(comm_group *g, const float *in, float *out, int64_t count)
{
    const comm_device_side *s = g->device;
    const comm_choice *c;

    if (s->n_choices == 0)
        return TP_FAIL(TP_ERR_INVALID, "a sum over one rank");
    c = choose(s, count * (int64_t)sizeof(float));
    return c->r->ops->reduce(c->r, c->way, in, out, count);
}

static const comm_choice *choose_for_rows(const comm_group *g, int64_t rows, int dim)
{
    return choose(g->device, rows * dim * (int64_t)sizeof(float));
}

bool comm_device_fuses_norm(const comm_group *g, int64_t rows, int dim)
{
    const comm_choice *c;

    if (g->device == NULL || g->device->n_choices == 0)
        return false;
    c = choose_for_rows(g, rows, dim);
    return c->r->ops->fuses_norm != NULL && c->r->ops->fuses_norm(c->r, c->way, rows, dim);
}

tp_status comm_device_sum_norm(comm_group *g, const float *in, int64_t rows, int dim,
                               const struct kern_rmsnorm_args *a)
{
    const comm_choice *c = choose_for_rows(g, rows, dim);

    TP_ASSERT(c->r->ops->reduce_norm != NULL); /* the caller has asked comm_device_fuses_norm() */
    return c->r->ops->reduce_norm(c->r, in, a);
}

tp_status comm_device_gather(comm_group *g, const void *in, void *out, size_t bytes)
{
    comm_reducer *r = g->device->gatherer;

    return r->ops->gather(r, in, out, bytes);
}

size_t comm_device_allgather_max(const comm_group *g)
{
    const comm_device_side *s = g->device;

    return s != NULL && s->gatherer != NULL ? s->gatherer->ops->gather_max(s->gatherer) : 0;
}

void comm_device_abort(comm_group *g)
{
    for (int i = 0; g->device != NULL && i < g->device->n_reducers; i++)
        g->device->r[i]->ops->abort(g->device->r[i]);
}

void comm_device_detach(comm_group *g)
{
    comm_device_side *s = g->device;

    if (s == NULL)
        return;
    if (s->window_ours)
        s->d.free(s->d.backend, s->window);
    while (s->n_reducers > 0) { /* one that is gone is not told to abort */
        comm_reducer *r = s->r[--s->n_reducers];

        r->ops->destroy(r);
    }
    g->device = NULL;
    tp_free(s);
}

tp_status comm_device_poll(comm_group *g)
{
    const comm_device_side *s = g->device;

    for (int i = 0; s != NULL && i < s->n_reducers; i++) {
        tp_status st = s->r[i]->ops->poll(s->r[i]);

        if (TP_UNLIKELY(st != TP_OK)) {
            if (!comm_aborted(g)) /* else whoever aborted has said why */
                st = TP_FAIL(st, "%s", tp_last_error());
            return comm_group_end(g, st);
        }
    }
    return TP_OK;
}

bool comm_device_captures(const comm_group *g)
{
    const comm_device_side *s = g->device;

    for (int i = 0; s != NULL && i < s->n_choices; i++) {
        if (!s->choice[i].r->ops->captures)
            return false;
    }
    return s != NULL;
}

const char *comm_device_choice(const comm_group *g)
{
    return g->device != NULL ? g->device->text : "";
}

/* ---- saying it ---- */

static void describe(comm_device_side *s)
{
    tp_buf b;

    tp_buf_init(&b, COMM_CHOICE_LEN - 1);
    for (int i = 0; i < s->n_choices; i++) {
        const comm_choice *c = &s->choice[i];
        const char *way = c->r->ops->ways[c->way];

        if (i > 0)
            tp_buf_puts(&b, ", ");
        if (i < s->n_choices - 1 && c->upto % (1024 * 1024) == 0)
            tp_buf_printf(&b, "%s to %lld MiB", way, (long long)(c->upto / (1024 * 1024)));
        else if (i < s->n_choices - 1)
            tp_buf_printf(&b, "%s to %lld KiB", way, (long long)(c->upto / 1024));
        else
            tp_buf_printf(&b, i > 0 ? "%s above" : "%s", way);
    }
    snprintf(s->text, sizeof s->text, "%s", tp_buf_str(&b));
    tp_buf_release(&b);
}

static void apply(comm_group *g, const comm_table *t, const char *why)
{
    comm_table_apply(g->device, t);
    describe(g->device);
    if (g->rank == 0)
        tp_info("comm", "sums over %d devices: %s (%s)", g->size, g->device->text, why);
}

/* ---- trying reducers ---- */

/* The first that can and is right.  One that cannot still sums; a wrong one that has broken itself does not. */
static tp_status choose_gatherer(comm_group *g, comm_reducer *r)
{
    comm_device_side *s = g->device;
    tp_status st;

    if (s->gatherer != NULL || r->ops->gather == NULL)
        return TP_OK;
    st = comm_selftest_gather(g, s, r);
    if (st == TP_OK) {
        s->gatherer = r;
        return TP_OK;
    }
    if (g->rank == 0)
        tp_warn("comm", "%s does not gather: %s", r->ops->name, tp_last_error());
    return g->dead ? st : comm_device_agree(g, r->ops->poll(r));
}

/* Adds a reducer to the list when it can be made and is right.  Collective. */
static tp_status try_reducer(comm_group *g, const comm_reducer_ops *ops)
{
    comm_device_side *s = g->device;
    comm_reducer *r = NULL;
    tp_status st =
        ops->create(&r, g, &s->d, g->window_bytes, g->timeout_ms > 0 ? g->timeout_ms : SELFTEST_MS);

    if (st != TP_OK)
        return st;
    st = comm_selftest(g, s, r);
    if (st != TP_OK) {
        ops->destroy(r);
        return st;
    }
    st = choose_gatherer(g, r);
    if (st != TP_OK) {
        ops->destroy(r);
        return st;
    }
    r->timeout_ms = g->timeout_ms;
    s->r[s->n_reducers++] = r;
    return TP_OK;
}

static const comm_reducer_ops *const *list_of(const void *module)
{
    static const comm_reducer_ops *const none[] = {NULL};

    return module != NULL ? module : none;
}

/* auto: everything that works.  A name: that one, and its failure is ours. */
static tp_status try_module(comm_group *g, const char *want, const void *module, tp_buf *why)
{
    bool any = strcmp(want, "auto") == 0, known = any;

    for (const comm_reducer_ops *const *ops = list_of(module); *ops != NULL; ops++) {
        tp_status st;

        if (!any && strcmp(want, (*ops)->name) != 0)
            continue;
        known = true;
        st = try_reducer(g, *ops);
        if (st == TP_OK)
            continue;
        if (!any || g->dead)
            return TP_FAIL(st, "--comm %s: %s", want, tp_last_error());
        if (g->rank == 0 && st != TP_ERR_UNSUPPORTED)
            tp_warn("comm", "%s is not used: %s", (*ops)->name, tp_last_error());
        tp_buf_printf(why, "no %s: %s; ", (*ops)->name, tp_last_error());
    }
    if (!known)
        return TP_FAIL(TP_ERR_UNSUPPORTED, "--comm %s: this build or device has no such reducer",
                       want);
    return TP_OK;
}

static tp_status allocate_window(comm_group *g)
{
    comm_device_side *s = g->device;
    void *window = NULL;
    tp_status st = TP_OK;

    for (int i = 0; i < s->n_reducers && s->window == NULL; i++) {
        if (s->r[i]->ops->window != NULL)
            s->window = s->r[i]->ops->window(s->r[i]);
    }
    if (s->window == NULL) {
        st = s->d.alloc(s->d.backend, g->window_bytes, &window);
        s->window = window;
        s->window_ours = st == TP_OK;
    }
    return comm_device_agree(g, st);
}

static tp_status attach(comm_group *g, const char *want, const void *module)
{
    bool host = strcmp(want, "mpi") == 0 || strcmp(want, "shm") == 0;
    comm_table table;
    tp_status st = TP_OK;
    tp_buf why;

    tp_buf_init(&why, 1024);
    if (!host)
        st = try_module(g, want, module, &why);
    if (st == TP_OK && g->device->n_reducers == 0)
        st = try_reducer(g, &comm_staged_ops);
    if (st == TP_OK)
        st = allocate_window(g);
    if (st == TP_OK) {
        comm_table_default(&table, g->size);
        tp_buf_puts(&why, host || strcmp(want, "auto") != 0 ? "asked for" : "built-in sizes");
        apply(g, &table, tp_buf_str(&why));
    }
    tp_buf_release(&why);
    return st;
}

const char *comm_host_kind(const char *want)
{
    return strcmp(want, "nccl") == 0 || strcmp(want, "p2p") == 0 ? "auto" : want;
}

tp_status comm_attach_device(comm_group *g, const comm_device *d, const char *want,
                             const void *module)
{
    static const char *const words[] = {"auto", "nccl", "p2p", "mpi", "shm", "self"};
    bool known = false;
    comm_device_side *s;
    tp_status st;

    TP_ASSERT(g->device == NULL);
    for (size_t i = 0; i < TP_ARRAY_LEN(words); i++)
        known = known || strcmp(want, words[i]) == 0;
    if (!known)
        return TP_FAIL(TP_ERR_INVALID,
                       "--comm %s: expected auto, nccl, p2p, mpi or shm where ranks have devices",
                       want);
    s = tp_calloc(1, sizeof *s);
    TP_TRY(comm_device_agree(g, s != NULL ? TP_OK
                                          : TP_FAIL(TP_ERR_NOMEM, "the device side of a group")));
    s->d = *d;
    g->device = s;
    if (g->size == 1)
        return TP_OK;
    st = attach(g, want, module);
    if (st != TP_OK)
        comm_device_detach(g);
    return st;
}

/* ---- the table ---- */

static tp_status read_table(comm_table *out, const char *path, int n_ranks, const char *device)
{
    tp_buf text;
    tp_status st = tp_buf_read_file(&text, path, FILE_MAX);

    if (st == TP_OK)
        st = comm_table_parse(out, tp_buf_str(&text), n_ranks, device);
    tp_buf_release(&text);
    return st;
}

tp_status comm_device_use_table(comm_group *g, const char *path, const char *device)
{
    comm_table t = {0};
    tp_status st = TP_OK;

    TP_ASSERT(g->device != NULL);
    if (g->size == 1)
        return TP_OK;
    if (g->rank == 0)
        st = read_table(&t, path, g->size, device);
    st = comm_device_agree(g, st);
    if (st == TP_ERR_UNSUPPORTED) {
        if (g->rank == 0)
            tp_warn("comm", "%s is not used: %s", path, tp_last_error());
        return TP_OK;
    }
    TP_TRY(st);
    TP_TRY(comm_broadcast(g, &t, sizeof t, 0));
    apply(g, &t, path);
    return TP_OK;
}
