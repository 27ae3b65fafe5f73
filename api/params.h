/* SPDX-License-Identifier: Apache-2.0 */
/* params.h - the body of an inference request, checked row by row against one table.
 *
 * Every violated row is a 4xx that names the parameter; unknown members are ignored; null counts as absent.
 */
#ifndef API_PARAMS_H
#define API_PARAMS_H

#include "base/json.h"
#include "runtime/engine.h"

#define API_MESSAGE_MAX     512
#define API_TEXT_MAX_TOKENS 16 /* default of max_tokens of completions, as OpenAI's */

/* Why a request is refused. */
typedef struct api_problem {
    int status; /* 0 = none */
    const char *code;
    char param[160]; /* "" = null */
    char message[API_MESSAGE_MAX];
} api_problem;

/* Fills *p; always returns false, so a check can end with `return api_refuse(...)`. */
bool api_refuse(api_problem *p, int status, const char *code, const char *param, const char *fmt,
                ...) TP_PRINTF(5, 6);

/* 503: the request is fine, the server is short of memory. */
bool api_refuse_memory(api_problem *p);

typedef struct api_params {
    bool chat;
    const char *model; /* NULL = any */
    rt_sampling sampling;
    bool seed_given;
    int64_t max_tokens; /* -1 = not given */
    const char *max_tokens_name;
    int n;
    bool stream, include_usage, continuous_usage;
    bool logprobs;      /* chat's switch */
    int64_t n_logprobs; /* top_logprobs, or logprobs of completions; -1 = none */
    int64_t prompt_logprobs;
    bool echo, include_stop, skip_special_tokens, return_token_ids, add_special_tokens;
    bool add_generation_prompt, continue_final_message;
    bool add_special_given;
    int64_t truncate_prompt_tokens; /* 0 = off */
    const char *stop[RT_STOP_STRINGS_MAX];
    int n_stop;
    int32_t stop_ids[RT_STOP_IDS_MAX];
    int n_stop_ids;
    int32_t bias_ids[RT_BIAS_MAX];
    float bias[RT_BIAS_MAX];
    int n_bias;
    int32_t allowed[RT_ALLOWED_MAX];
    int n_allowed;
    bool has_allowed;
    const char *cache_salt;                    /* NULL = none */
    const tp_json *messages, *prompt, *kwargs; /* borrowed from the body */
} api_params;

/* Reads and checks all parameters of a completions or chat body.  Strings are borrowed from `body`. */
bool api_params_read(api_params *p, const tp_json *body, bool chat, const rt_engine_info *info,
                     api_problem *problem);
/* Parses a request body: an object of strict JSON. NULL and a problem otherwise. */
tp_json *api_parse_body(const char *text, size_t len, api_problem *problem);

/* One boolean; for the small endpoints. */
bool api_read_bool(const tp_json *v, const char *name, bool *out, api_problem *problem);
/* An array of token ids below vocab; appends to a list of at most `max`. */
bool api_read_ids(const tp_json *v, const char *name, int32_t vocab, int32_t *out, int max, int *n,
                  api_problem *problem);

#endif
