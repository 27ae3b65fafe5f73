/* SPDX-License-Identifier: Apache-2.0 */
/* payoff.h - how many tokens are worth guessing: what a guess costs against how often it comes true.
 *
 * A step takes about a + b * rows: weights are read once however many rows there are (a), and every row is computed (b).
 * A guessed token adds a row.  In a step of n rows that b belongs to for the share s = b n / (a + b n), a guessed token
 * pays for itself when it comes true with a probability above s: near 0 for a lone sequence, near 1 in a large batch,
 * where speculation so turns itself off.  a and b are fitted to the steps as they are measured.
 *
 * How likely the next token of a guess comes true, given that the ones before did, each sequence learns from its own
 * guesses, recent ones counting more.  One that has stopped tries a single token again after a while, and when that was
 * in vain after twice that while.
 */
#ifndef RT_PAYOFF_H
#define RT_PAYOFF_H

#include <stdint.h>

#define RT_STEP_COST_ROWS_MAX 256 /* larger steps compute prompts and say little about small ones */

/* Of recent steps: sums for a straight line through (rows, ns).  Zeroed: nothing known. */
typedef struct rt_step_cost {
    double weight, rows, ns, rows_rows, rows_ns;
} rt_step_cost;

void rt_step_cost_add(rt_step_cost *c, int rows, int64_t ns);
/* s of a step with so many rows, 0 to 1. */
double rt_step_cost_share(const rt_step_cost *c, int rows);

/* What a sequence's guesses were worth. */
typedef struct rt_guess_record {
    float tries,
        hits;     /* guessed tokens that were compared, and of them those that came true; fading */
    int32_t rest; /* guesses to pass up before the next try */
    int32_t rest_next;
} rt_guess_record;

rt_guess_record rt_guess_record_new(void);
/* How much of a guess of `most` tokens, which is there, is worth computing where a token costs the share s.  Counts the
 * guesses that are passed up. */
int rt_guess_length(rt_guess_record *r, double share, int most);
/* n tokens were guessed, of which the first n_true came true. */
void rt_guess_learn(rt_guess_record *r, int n, int n_true);

#endif
