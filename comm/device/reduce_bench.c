/* SPDX-License-Identifier: Apache-2.0 */
/* reduce_bench.c - see comm/reduce_bench.h.
 *
 * A row is n sums queued one after another between two barriers and one wait for the device, so that launches overlap
 * as they do in a step.  The slowest rank counts; of three rows the fastest, since noise only adds.
 */
#include "comm/reduce_bench.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "comm/device/side.h"

#define BYTES_MIN   4096
#define BYTES_MAX   (64 * 1024 * 1024)
#define SECONDS     0.03
#define ROWS        3
#define REPEATS_MAX 2000

typedef struct bench {
    comm_group *g;
    comm_device_side *s; /* NULL: a group without devices */
    float *in, *out;
    int n_seg, n_roots;
    double seconds;
} bench;

/* What is measured: a way of a reducer, or the group itself. */
typedef struct subject {
    comm_reducer *r;
    int way;
    const char *name;
} subject;

static tp_status sum_once(const bench *b, const subject *x, int64_t count)
{
    comm_reduce_args a = {.n_seg = b->n_seg, .roots = b->in, .out = b->out, .count = count};

    if (x->r != NULL)
        return x->r->ops->reduce(x->r, x->way, b->in, b->out, count);
    return comm_reduce(b->g, &a);
}

/* Waits for the device. */
static tp_status settle(const bench *b, const subject *x)
{
    float sample[4];

    if (b->s == NULL)
        return TP_OK;
    if (x->r->ops->wait != NULL)
        TP_TRY(x->r->ops->wait(x->r, b->g->timeout_ms));
    TP_TRY(b->s->d.get(b->s->d.backend, sample, b->out, sizeof sample));
    return comm_device_poll(b->g);
}

/* n sums; *us of one, on the slowest rank. */
static tp_status measure_row(const bench *b, const subject *x, int64_t count, int n, double *us)
{
    int64_t start, took, all[COMM_RANKS_MAX];

    TP_TRY(comm_barrier(b->g));
    start = tp_now_ns();
    for (int i = 0; i < n; i++)
        TP_TRY(sum_once(b, x, count));
    TP_TRY(settle(b, x));
    took = tp_now_ns() - start;
    TP_TRY(comm_allgather(b->g, &took, all, sizeof took));
    for (int r = 0; r < b->g->size; r++)
        took = all[r] > took ? all[r] : took;
    *us = (double)took / 1e3 / n;
    return TP_OK;
}

static tp_status measure(const bench *b, const subject *x, int64_t count, double *us)
{
    double once, row;
    int n;

    TP_TRY(measure_row(b, x, count, 2, &once)); /* warms up */
    TP_TRY(measure_row(b, x, count, 2, &once));
    n = (int)(b->seconds * 1e6 / ROWS / once); /* the same number on all ranks */
    n = n < 1 ? 1 : n > REPEATS_MAX ? REPEATS_MAX : n;
    for (int i = 0; i < ROWS; i++) {
        TP_TRY(measure_row(b, x, count, n, &row));
        *us = i == 0 || row < *us ? row : *us;
    }
    return TP_OK;
}

/* ---- the table ---- */

static void note_best(comm_table *t, int64_t bytes, const char *way)
{
    comm_table_line *last = t->n_lines > 0 ? &t->line[t->n_lines - 1] : NULL;

    if (last == NULL || (strcmp(last->way, way) != 0 && t->n_lines < COMM_TABLE_MAX)) {
        last = &t->line[t->n_lines++];
        snprintf(last->way, sizeof last->way, "%s", way);
    }
    last->upto = bytes + bytes / 2; /* half way to the next size */
}

static tp_status write_table(const bench *b, const comm_table *t, const comm_bench_options *o)
{
    FILE *f = fopen(o->table_path, "w");
    bool ok;

    if (f == NULL)
        return TP_FAIL(TP_ERR_IO, "write %s: %s", o->table_path, strerror(errno));
    fprintf(f, "tpserve-comm 1\nranks %d\n", b->g->size);
    if (o->device_name != NULL)
        fprintf(f, "device %s\n", o->device_name);
    for (int i = 0; i < t->n_lines - 1; i++)
        fprintf(f, "upto %lld %s\n", (long long)t->line[i].upto, t->line[i].way);
    fprintf(f, "upto max %s\n", t->line[t->n_lines - 1].way);
    ok = ferror(f) == 0;
    if (fclose(f) != 0 || !ok)
        return TP_FAIL(TP_ERR_IO, "write %s: %s", o->table_path, strerror(errno));
    return TP_OK;
}

/* ---- the sweep ---- */

/* The k-th subject that can do so many bytes; false when there are no more. */
static bool subject_at(const bench *b, int k, int64_t bytes, subject *out)
{
    if (b->s == NULL) {
        *out = (subject){.name = comm_kind(b->g)};
        return k == 0;
    }
    for (int i = 0; i < b->s->n_reducers; i++) {
        comm_reducer *r = b->s->r[i];

        for (int way = 0; r->ops->ways[way] != NULL; way++) {
            if (r->ops->bytes_max(r, way) < bytes || k-- > 0)
                continue;
            *out = (subject){.r = r, .way = way, .name = r->ops->ways[way]};
            return true;
        }
    }
    return false;
}

static tp_status sweep(const bench *b, const comm_bench_options *o, int64_t bytes_max,
                       void (*row)(void *, const comm_bench_row *), void *arg)
{
    double traffic = 2.0 * (b->g->size - 1) / b->g->size;
    comm_table table = {0};
    tp_status st = TP_OK;

    for (int64_t bytes = o->bytes_min > 0 ? o->bytes_min : BYTES_MIN; bytes <= bytes_max;
         bytes *= 2) {
        const char *best = NULL;
        double best_us = 0;
        subject x;

        for (int k = 0; subject_at(b, k, bytes, &x); k++) {
            comm_bench_row r = {.way = x.name, .bytes = bytes};

            TP_TRY(measure(b, &x, bytes / (int64_t)sizeof(float), &r.us));
            r.bus_gbps = traffic * (double)bytes / r.us / 1e3;
            if (best == NULL || r.us < best_us) {
                best = r.way;
                best_us = r.us;
            }
            if (b->g->rank == 0 && row != NULL)
                row(arg, &r);
        }
        if (best != NULL)
            note_best(&table, bytes, best);
    }
    if (o->table_path != NULL && b->g->rank == 0 && table.n_lines > 0)
        st = write_table(b, &table, o);
    return o->table_path != NULL ? comm_device_agree(b->g, st) : TP_OK;
}

static tp_status allocate(bench *b, size_t bytes, void **out)
{
    if (b->s != NULL)
        return b->s->d.alloc(b->s->d.backend, bytes, out);
    *out = tp_aligned_alloc(COMM_ALIGN, bytes);
    return *out != NULL ? TP_OK : TP_FAIL(TP_ERR_NOMEM, "%zu bytes to sum into", bytes);
}

/* "staged" is measured too where better ones are attached.  *out: to be taken off again, or NULL. */
static tp_status add_staged(bench *b, comm_reducer **out)
{
    comm_device_side *s = b->s;

    *out = NULL;
    for (int i = 0; s != NULL && i < s->n_reducers; i++) {
        if (s->r[i]->ops == &comm_staged_ops)
            return TP_OK;
    }
    if (s == NULL || s->n_reducers == COMM_REDUCERS_MAX)
        return TP_OK;
    TP_TRY(comm_staged_ops.create(out, b->g, &s->d, b->g->window_bytes, b->g->timeout_ms));
    s->r[s->n_reducers++] = *out;
    return TP_OK;
}

tp_status comm_bench_reduce(comm_group *g, const comm_bench_options *o,
                            void (*row)(void *arg, const comm_bench_row *row), void *arg)
{
    bench b = {.g = g, .s = g->device, .seconds = o->seconds > 0 ? o->seconds : SECONDS};
    int64_t bytes_max = o->bytes_max > 0 ? o->bytes_max : BYTES_MAX;
    void *out = NULL;
    comm_reducer *staged = NULL;
    comm_join join;
    tp_status st;

    if (g->size < 2)
        return TP_REJECT(TP_ERR_INVALID, "sums over ranks need two ranks: mpirun -np 2 or more");
    b.n_seg = tp_seg_count(g->size);
    comm_join_init(&join, b.n_seg, g->size);
    b.n_roots = b.s != NULL ? 1 : join.n_roots_max;
    if (bytes_max > (int64_t)g->window_bytes / b.n_roots)
        bytes_max = (int64_t)g->window_bytes / b.n_roots;
    st = comm_device_agree(g, allocate(&b, (size_t)bytes_max, &out));
    b.in = comm_window(g);
    b.out = out;
    if (st == TP_OK)
        st = add_staged(&b, &staged);
    if (st == TP_OK)
        st = sweep(&b, o, bytes_max, row, arg);
    if (staged != NULL) {
        b.s->n_reducers--;
        comm_staged_ops.destroy(staged);
    }
    if (b.s != NULL && out != NULL)
        b.s->d.free(b.s->d.backend, out);
    else if (b.s == NULL)
        tp_free(out);
    return st;
}
