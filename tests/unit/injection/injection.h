/* SPDX-License-Identifier: Apache-2.0 */
/* injection.h - failing the k-th allocation, for k = 0, 1, 2, ... until none is left to fail; and a tiny model to do it with.
 *
 * Each point is tried twice: with one allocation that fails, and with all that follow failing, too.  What is tried must either
 * fail with a text or yield what it yields without a failure.  Leaks are the leak sanitizer's to find.
 */
#ifndef TESTS_INJECTION_H
#define TESTS_INJECTION_H

#include "tests/unit/runtime/runtime_testing.h"

#define INJ_TEMPLATE "chatml_tools.jinja"

typedef enum inj_outcome {
    INJ_SAME,   /* it worked, and its result is that of a run without failures */
    INJ_FAILED, /* it failed politely */
} inj_outcome;

/* One attempt.  Called with failures armed; may disarm them (inj_disarm) before it looks at the result. */
typedef inj_outcome (*inj_fn)(void *ctx);

/* Every point of `try`, or about `sample` of them unless inj_all().  Prints and counts. */
void inj_every_allocation(const char *what, inj_fn try, void *ctx, int sample);
/* The n-th pass through a fault point, n = 1, 2, ... until it is not reached. */
void inj_every_pass(const char *point, const char *what, inj_fn try, void *ctx);
void inj_disarm(void);

bool inj_all(void);
void inj_set_all(bool on);

/* A directory with a tiny checkpoint, tokenizer and chat template. */
const char *inj_make_model(void);
void inj_remove_model(void);
/* The path of a file of it. */
void inj_path(const char *name, char out[128]);

#endif
