/* SPDX-License-Identifier: Apache-2.0 */
/* draw.h - choosing one candidate from a sorted list: arithmetic that the scalar backend and kernels share.
 *
 * Filters in vLLM's order: min_p, top_k, top_p, after the temperature.  All sums run down the list from its best entry in
 * double precision.  A walk that comes to the end of what is known before it has decided gives up.
 */
#ifndef KERN_DRAW_H
#define KERN_DRAW_H

#include "kernels/kern.h"
#include "kernels/philox.h"

/* Streams of kern_philox_uniform; 0 belongs to kern_chunk_stats. */
#define KERN_STREAM_CHUNK 1
#define KERN_STREAM_LIST  2

/* How many candidates of each rank a row looks at. */
KERN_HOST_DEVICE int kern_draw_depth(const kern_draw_row *r, int n_ranks)
{
    int depth = KERN_DRAW_LIST / n_ranks, wanted = r->kind == KERN_DRAW_GREEDY ? 1 : r->top_k;

    depth = r->k < depth ? r->k : depth;
    return wanted > 0 && wanted < depth ? wanted : depth;
}

typedef struct kern_draw_list {
    const double *weight; /* [n] exp((value - best value) * (1 / temperature)), best first */
    int n;
    bool complete; /* these are all that the vocabulary has */
    double total;  /* of the whole vocabulary; read where top_p alone filters */
    double top_p, min_p, u;
    int top_k; /* 0 = off */
} kern_draw_list;

/* Entries that min_p and top_k leave, and their mass; -1 when the list ends first. */
KERN_HOST_DEVICE int kern_draw_restrict(const kern_draw_list *d, double *mass)
{
    int i;

    *mass = 0;
    for (i = 0; i < d->n; i++) {
        double w = d->weight[i];

        if ((d->top_k > 0 && i >= d->top_k) || w < d->min_p || w == 0)
            return i;
        *mass += w;
    }
    return d->complete || (d->top_k > 0 && i >= d->top_k) ? i : -1;
}

/* The entry drawn; -1: undecided.  n > 0. */
KERN_HOST_DEVICE int kern_draw_choose(const kern_draw_list *d)
{
    bool whole = d->top_k <= 0 && d->min_p <= 0;
    double mass = d->total, cum = 0, target;
    int end = d->n;

    if (!whole) {
        end = kern_draw_restrict(d, &mass);
        if (end < 0)
            return -1;
    }
    if (d->top_p < 1) {
        double wanted = d->top_p * mass;
        int i = 0;

        for (; i < end; i++) {
            cum += d->weight[i];
            if (cum >= wanted)
                break;
        }
        if (i == end && whole && !d->complete)
            return -1;
        end = i < end ? i + 1 : end;
        mass = cum;
    }
    target = d->u * mass;
    cum = 0;
    for (int i = 0; i < end; i++) {
        cum += d->weight[i];
        if (cum > target)
            return i;
    }
    if (whole && d->top_p >= 1 && !d->complete)
        return -1;
    return end > 0 ? end - 1 : 0;
}

#endif
