/* SPDX-License-Identifier: Apache-2.0 */
/* speculation.h - how far speculative decoding may go.  Guesses come from prompt lookup (ngram.h); whether they are worth
 * computing is decided per sequence and step (payoff.h). */
#ifndef RT_SPECULATION_H
#define RT_SPECULATION_H

#include "runtime/spec/ngram.h"

#define RT_DRAFT_MAX      16  /* tokens of one sequence's draft */
#define RT_DRAFT_STEP_MAX 256 /* of all drafts of a step */

/* Zeroed: no speculation. */
typedef struct rt_speculation {
    int max_tokens; /* of a draft, at most RT_DRAFT_MAX; 0 = no speculation */
    int max_seqs;   /* no drafts while more sequences run; 0 = no limit */
    rt_ngram_options ngram;
} rt_speculation;

#endif
