/* SPDX-License-Identifier: Apache-2.0 */
/* ngram.h - prompt lookup: how a text may go on, by where its last tokens stood before.
 *
 * The newest tokens of a text are looked for further up, in the prompt and in the answer so far, and what stood behind
 * them there is the guess.  Copies, edits of a given text, code and JSON with the same keys again and again go on like
 * that; other texts rarely find anything, and then nothing is guessed.
 *
 * Places with the same last tokens are linked from the newest back, as compressors do it (LZ77): appending takes constant
 * time, looking up walks RT_NGRAM_WALK places at most.  Of those the longest match counts, of equal ones the newest.
 *
 * One per sequence; memory is an arena's.  Threads: filled by the thread that submits, then under the plan lock.
 */
#ifndef RT_NGRAM_H
#define RT_NGRAM_H

#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"

#define RT_NGRAM_MAX  32 /* tokens compared at most */
#define RT_NGRAM_WALK 32

typedef struct rt_ngram_options {
    int min, max; /* tokens that must agree; tokens compared.  1 <= min <= max <= RT_NGRAM_MAX */
} rt_ngram_options;

/* What belongs to the prompt is the same for all answers to it, and kept once. */
typedef struct rt_ngram {
    rt_ngram_options opt;
    int32_t n, n_max, n_prompt;
    const int32_t *prompt;        /* borrowed; [n_prompt] */
    const int32_t *prompt_before; /* [n_prompt] as `before` */
    int32_t *tokens;              /* [n_max - n_prompt] what came after the prompt */
    int32_t
        *before; /* of each of these places: the place before it of the same kind, + 1; 0 = none */
    int32_t *
        newest; /* [mask + 1] by hash of the last `min` tokens: the newest such place, + 1; 0 = none */
    uint32_t mask;
} rt_ngram;

/* A text that begins with the prompt, which must stay, and grows to n_max tokens at most.  NOMEM: *g is as it was. */
TP_MUST_USE tp_status rt_ngram_init(rt_ngram *g, tp_arena *a, const rt_ngram_options *o,
                                    const int32_t *prompt, int32_t n_prompt, int32_t n_max);
/* Another text that begins with the prompt of `first`, which nothing was appended to. */
TP_MUST_USE tp_status rt_ngram_fork(rt_ngram *g, tp_arena *a, const rt_ngram *first);
void rt_ngram_append(rt_ngram *g, int32_t token);
/* Guesses tokens behind the text: out [most].  The first `skip` of the guess are left out (they are being computed
 * already).  Returns `most`, or 0 when the last tokens are new. */
int rt_ngram_guess(const rt_ngram *g, int32_t skip, int most, int32_t *out);

#endif
