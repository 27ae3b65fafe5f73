/* SPDX-License-Identifier: Apache-2.0 */
/* speculative.h - the value of --speculative-config. */
#ifndef LAUNCH_SPECULATIVE_H
#define LAUNCH_SPECULATIVE_H

#include "base/status.h"
#include "runtime/spec/speculation.h"

/* Reads vLLM's JSON, {"method": "ngram", "num_speculative_tokens": 8, ...}; NULL is no speculation.  INVALID with a text
 * for the user. */
TP_MUST_USE tp_status launch_read_speculation(rt_speculation *out, const char *json);

#endif
