/* SPDX-License-Identifier: Apache-2.0 */
/* worker_graph.c - decode steps as graphs: recorded once per number of places, then launched as one thing.
 *
 * A graph takes the ids out of the histories, runs the model, and makes the logits of the rows that are sampled (up to
 * RT_LOGIT_ROWS_MAX places; above, the head follows by itself).  All it reads lies at fixed places of the step buffer's
 * smaller layout; lengths and block tables are data, so one graph serves all lengths.  A step with fewer sequences than
 * places leaves the others empty: no id, no context, nothing written to the cache.
 */
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "comm/device.h"
#include "runtime/sched/worker_impl.h"

/* ---- launching ---- */

/* Places [from, to) of a step become empty. */
static void empty_places(rt_step_in *s, int from, int to)
{
    for (int i = from; i < to; i++) {
        s->seqs[i] = (kern_attn_seq){.row = i, .n_rows = 1};
        s->take[i] = -1;
        s->pos[i] = 0;
        s->kv_index[i] = -1;
    }
}

bool rt_worker_fits_graph(rt_worker *w, int *graph)
{
    rt_step_in *here = &w->few.here;

    if (w->step != &w->few || w->n_decode != w->n_tok)
        return false;
    for (int i = 0; i < w->n_graphs; i++) {
        if (w->n_tok > w->graph_size[i])
            continue;
        empty_places(here, w->n_tok, w->graph_size[i]);
        for (int r = w->n_wanted; r < w->graph_size[i]; r++)
            here->rows[r] = 0; /* some row: nobody looks at its logits */
        *graph = i;
        return true;
    }
    return false;
}

tp_status rt_worker_launch_graph(rt_worker *w, int graph)
{
    TP_TRY(w->be->ops->graph_launch(w->be, w->graph[graph]));
    if (w->graph_size[graph] <= RT_LOGIT_ROWS_MAX)
        rt_model_last_logits(w->model, &w->logits, &w->logits_ld);
    return TP_OK;
}

/* ---- recording ---- */

static tp_status issue(rt_worker *w, int n)
{
    const rt_step_in *there = &w->few.there;
    float *logits;
    int64_t ld;

    TP_TRY(kern_take(
        w->be,
        &(kern_take_args){.out = w->ids, .in = w->words.history, .idx = there->take, .n = n}));
    TP_TRY(rt_model_forward(w->model, w->kv,
                            &(rt_batch){.n_tok = n,
                                        .ids = w->ids,
                                        .pos = there->pos,
                                        .kv_index = there->kv_index,
                                        .n_seqs = n,
                                        .n_decode = n,
                                        .max_ctx = (int)w->opt.max_model_len,
                                        .seqs = there->seqs,
                                        .block_tables = w->words.tables}));
    return n <= RT_LOGIT_ROWS_MAX ? rt_model_logits(w->model, there->rows, n, &logits, &ld) : TP_OK;
}

/* Kernels are loaded when they are first launched, which a recording may not wait for. */
static tp_status warm_up(rt_worker *w)
{
    rt_step_in *here = &w->few.here;
    int most = w->opt.capture[w->opt.n_capture - 1];

    empty_places(here, 0, most);
    memset(here->rows, 0, (size_t)most * sizeof *here->rows);
    TP_TRY(w->be->ops->put(w->be, w->step_there, w->step_here, w->few.bytes));
    TP_TRY(issue(w, w->opt.capture[0]));
    return w->be->ops->get(w->be, NULL, NULL, 0);
}

static tp_status record(rt_worker *w, int n, kern_graph **out)
{
    tp_status st;

    TP_TRY(rt_model_tune(w->model, n));
    TP_TRY(w->be->ops->graph_begin(w->be));
    st = issue(w, n);
    if (st == TP_OK)
        return w->be->ops->graph_end(w->be, out);
    if (w->be->ops->graph_end(w->be, out) == TP_OK)
        w->be->ops->graph_destroy(w->be, *out);
    return st;
}

tp_status rt_worker_capture(rt_worker *w)
{
    int64_t start = tp_now_ns();
    bool leader = comm_rank(w->group) == 0;

    if (w->be->ops->graph_begin == NULL || w->opt.n_capture == 0)
        return TP_OK;
    if (comm_size(w->group) > 1 && !comm_device_captures(w->group)) {
        if (leader)
            tp_warn("worker", "sums over ranks (%s) cannot be recorded: no graphs",
                    comm_device_choice(w->group));
        return TP_OK;
    }
    TP_TRY(warm_up(w));
    for (int i = 0; i < w->opt.n_capture; i++) {
        TP_TRY(record(w, w->opt.capture[i], &w->graph[i]));
        w->graph_size[i] = w->opt.capture[i];
        w->n_graphs = i + 1;
    }
    if (leader)
        tp_info("worker", "%d graphs of decode steps up to %d sequences in %.1f s", w->n_graphs,
                w->graph_size[w->n_graphs - 1],
                (double)(tp_now_ns() - start) / (double)TP_NS_PER_S);
    return TP_OK;
}

void rt_worker_destroy_graphs(rt_worker *w)
{
    for (int i = 0; i < w->n_graphs; i++)
        w->be->ops->graph_destroy(w->be, w->graph[i]);
}
