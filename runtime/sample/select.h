/* SPDX-License-Identifier: Apache-2.0 */
/* select.h - drawing one token from a sorted list of candidates; pure arithmetic, the same on every rank.
 *
 * Order of the filters is vLLM's: temperature, min_p, top_k, top_p.  All sums run over the list from its best entry
 * downwards in double precision, so the result depends on the distribution only, not on who found the candidates.
 */
#ifndef RT_SELECT_H
#define RT_SELECT_H

#include <stdint.h>

#include "base/status.h"

typedef struct rt_cand {
    float val; /* logit */
    int32_t id;
} rt_cand;

typedef struct rt_select_args {
    const rt_cand *cand; /* [n] sorted: value descending, id ascending */
    int n;
    bool complete; /* the list is the whole vocabulary; else only its first n are known */
    double total;  /* sum of exp((v - cand[0].val) / temperature) over the whole vocabulary */
    float temperature, top_p, min_p;
    int32_t top_k; /* 0 = off */
    double u;      /* in [0, 1) */
} rt_select_args;

/* Best first, ties to the lower id: the order in which candidates are sorted. */
int rt_cand_compare(const void *a, const void *b);

/* True and *id when the known candidates decide the draw; false when more of the vocabulary is needed. */
bool rt_select(const rt_select_args *a, int32_t *id);

#endif
