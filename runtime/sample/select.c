/* SPDX-License-Identifier: Apache-2.0 */
/* select.c - the filters as walks down the sorted list.
 *
 * First walk: the set that top_k and min_p leave (all of the vocabulary when neither is on) and its mass.  Second walk:
 * the shortest prefix with top_p of that mass.  Third: where u falls in the prefix.  A walk that reaches the end of
 * what is known before it has decided gives up, and the caller fetches the whole row.
 */
#include "runtime/sample/select.h"

#include <math.h>

int rt_cand_compare(const void *a, const void *b)
{
    const rt_cand *x = a, *y = b;

    if (x->val != y->val)
        return x->val > y->val ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* By the reciprocal, as kern_draw does: a row may be drawn here or there. */
static double weight(const rt_select_args *a, int i)
{
    double inv_temp = 1.0 / (double)a->temperature;

    return exp(((double)a->cand[i].val - (double)a->cand[0].val) * inv_temp);
}

/* Number of entries that min_p and top_k leave and their mass; -1 when the list ends first. */
static int restricted(const rt_select_args *a, double *mass)
{
    int i;

    *mass = 0;
    for (i = 0; i < a->n; i++) {
        double w = weight(a, i);

        if ((a->top_k > 0 && i >= a->top_k) || w < (double)a->min_p || w == 0)
            return i;
        *mass += w;
    }
    return a->complete || (a->top_k > 0 && i >= a->top_k) ? i : -1;
}

bool rt_select(const rt_select_args *a, int32_t *id)
{
    bool whole = a->top_k <= 0 && a->min_p <= 0;
    double mass = a->total, cum = 0, target;
    int end = a->n;

    TP_ASSERT(a->n > 0 && a->temperature > 0);
    if (!whole) {
        end = restricted(a, &mass);
        if (end < 0)
            return false;
    }
    if (a->top_p < 1) {
        double wanted = (double)a->top_p * mass;
        int i;

        for (i = 0; i < end; i++) {
            cum += weight(a, i);
            if (cum >= wanted)
                break;
        }
        if (i == end && whole && !a->complete)
            return false;
        end = i < end ? i + 1 : end;
        mass = cum;
    }
    target = a->u * mass;
    cum = 0;
    for (int i = 0; i < end; i++) {
        cum += weight(a, i);
        if (cum > target) {
            *id = a->cand[i].id;
            return true;
        }
    }
    if (whole && a->top_p >= 1 && !a->complete)
        return false;
    *id = a->cand[end > 0 ? end - 1 : 0].id;
    return true;
}
