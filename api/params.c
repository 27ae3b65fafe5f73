/* SPDX-License-Identifier: Apache-2.0 */
/* params.c - the table of parameters and its readers.
 *
 * Rows are sorted by name and found by binary search, so a body with very many members costs little.  A row is one of:
 * a number or switch with its range, a function for what has a shape of its own, a value that is only checked for its
 * type, or something that is not supported (then anything but the neutral value is refused by name).
 */
#include "api/params.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/access.h"

#define INT64_BEYOND 9223372036854775807.0 /* rounds to 2^63 */
#define VALUES_MAX   1000000               /* of a body: a parsed value takes about 83 bytes */

bool api_refuse(api_problem *p, int status, const char *code, const char *param, const char *fmt,
                ...)
{
    va_list ap;

    p->status = status;
    p->code = code;
    snprintf(p->param, sizeof p->param, "%s", param != NULL ? param : "");
    va_start(ap, fmt);
    vsnprintf(p->message, sizeof p->message, fmt, ap);
    va_end(ap);
    return false;
}

static bool wrong_type(api_problem *p, const char *name, const char *expected, const tp_json *v)
{
    return api_refuse(p, 400, "invalid_type", name, "%s: expected %s, found %s", name, expected,
                      tp_json_kind_name(tp_json_kind(v)));
}

bool api_refuse_memory(api_problem *p)
{
    return api_refuse(p, 503, "out_of_memory", NULL, "Out of memory for the request.");
}

tp_json *api_parse_body(const char *text, size_t len, api_problem *problem)
{
    /* objects that belong to the client, and JSON schemas: repeated keys there are no business of ours */
    static const char *const k_free[] = {"metadata", "chat_template_kwargs", "parameters", "schema",
                                         NULL};
    static const tp_json_limits k_limits = {.free_members = k_free, .values_max = VALUES_MAX};
    tp_json *root;
    tp_status st = tp_json_parse(&root, text, len, &k_limits);

    if (st == TP_ERR_NOMEM) {
        api_refuse_memory(problem);
        return NULL;
    }
    if (st != TP_OK) {
        api_refuse(problem, 400, st == TP_ERR_INVALID ? "duplicate_key" : "invalid_json", NULL,
                   "The request body is not valid JSON: %s", tp_last_error());
        return NULL;
    }
    if (tp_json_kind(root) != TP_JSON_OBJECT) {
        api_refuse(problem, 400, "invalid_json", NULL, "The request body must be a JSON object.");
        tp_json_free(root);
        return NULL;
    }
    return root;
}

bool api_read_bool(const tp_json *v, const char *name, bool *out, api_problem *problem)
{
    if (tp_json_kind(v) != TP_JSON_BOOL)
        return wrong_type(problem, name, "a boolean", v);
    *out = tp_json_bool(v);
    return true;
}

static bool read_int(const tp_json *v, const char *name, int64_t lo, int64_t hi, int64_t *out,
                     api_problem *problem)
{
    int64_t i;

    if (tp_json_kind(v) != TP_JSON_NUMBER)
        return wrong_type(problem, name, "an integer", v);
    if (!tp_json_int64(v, &i)) {
        double d = tp_json_double(v);

        if (fabs(d) < INT64_BEYOND)
            return api_refuse(problem, 400, "invalid_type", name,
                              "%s: expected an integer, found %.40s", name, tp_json_raw(v));
        return api_refuse(problem, 400, "invalid_value", name,
                          "%s: %.40s is out of range (%s %lld)", name, tp_json_raw(v),
                          d < 0 ? "greater_than_equal" : "less_than_equal",
                          (long long)(d < 0 ? lo : hi));
    }
    if (i < lo || i > hi)
        return api_refuse(problem, 400, "invalid_value", name,
                          "%s: expected %lld to %lld, found %.40s", name, (long long)lo,
                          (long long)hi, tp_json_raw(v));
    *out = i;
    return true;
}

static bool read_real(const tp_json *v, const char *name, double lo, double hi, float *out,
                      api_problem *problem)
{
    double d;

    if (tp_json_kind(v) != TP_JSON_NUMBER)
        return wrong_type(problem, name, "a number", v);
    d = tp_json_double(v);
    if (!isfinite(d) || d < lo || d > hi)
        return api_refuse(problem, 400, "invalid_value", name, "%s: expected %g to %g, found %.40s",
                          name, lo, hi, tp_json_raw(v));
    *out = (float)d;
    return true;
}

bool api_read_ids(const tp_json *v, const char *name, int32_t vocab, int32_t *out, int max, int *n,
                  api_problem *problem)
{
    if (tp_json_kind(v) != TP_JSON_ARRAY)
        return wrong_type(problem, name, "an array of token ids", v);
    *n = 0;
    TP_JSON_EACH(item, v)
    {
        char at[160];
        int64_t id;

        snprintf(at, sizeof at, "%s[%d]", name, *n);
        if (*n == max)
            return api_refuse(problem, 400, "invalid_value", name,
                              "%s: expected at most %d token ids", name, max);
        if (tp_json_kind(item) != TP_JSON_NUMBER || !tp_json_int64(item, &id))
            return api_refuse(problem, 400, "invalid_type", at, "%s: %s must contain only integers",
                              at, name);
        if (id < 0 || id >= vocab)
            return api_refuse(problem, 400, "invalid_value", at,
                              "%s: token id %lld is out of vocabulary (0 to %d)", at, (long long)id,
                              vocab - 1);
        out[(*n)++] = (int32_t)id;
    }
    return true;
}

/* ---- readers of their own ---- */

typedef struct reader {
    api_params *p;
    const rt_engine_info *info;
    api_problem *problem;
    int64_t best_of;
} reader;

typedef bool (*custom_fn)(reader *r, const char *name, const tp_json *v);

static bool read_model(reader *r, const char *name, const tp_json *v)
{
    if (tp_json_kind(v) != TP_JSON_STRING)
        return wrong_type(r->problem, name, "a string", v);
    r->p->model = tp_json_string(v);
    return true;
}

static bool read_cache_salt(reader *r, const char *name, const tp_json *v)
{
    const char *salt = tp_json_string(v);

    if (salt == NULL)
        return wrong_type(r->problem, name, "a string", v);
    if (*salt == '\0' || strlen(salt) > API_SALT_MAX)
        return api_refuse(r->problem, 400, "invalid_value", name,
                          "%s: expected a string of 1 to %d bytes, found %zu", name, API_SALT_MAX,
                          strlen(salt));
    r->p->cache_salt = salt;
    return true;
}

static bool read_seed(reader *r, const char *name, const tp_json *v)
{
    int64_t seed;

    if (!read_int(v, name, INT64_MIN, INT64_MAX, &seed, r->problem))
        return false;
    r->p->sampling.seed = (uint64_t)seed;
    r->p->seed_given = true;
    return true;
}

static bool add_stop(reader *r, const char *at, const tp_json *v)
{
    const char *s = tp_json_string(v);

    if (s == NULL)
        return wrong_type(r->problem, at, "a string", v);
    if (*s == '\0' || strlen(s) > RT_STOP_BYTES_MAX)
        return api_refuse(r->problem, 400, "invalid_value", at,
                          "%s: a stop string has 1 to %d bytes", at, RT_STOP_BYTES_MAX);
    if (r->p->n_stop == RT_STOP_STRINGS_MAX)
        return api_refuse(r->problem, 400, "invalid_value", "stop",
                          "stop: expected at most %d strings", RT_STOP_STRINGS_MAX);
    r->p->stop[r->p->n_stop++] = s;
    return true;
}

static bool read_stop(reader *r, const char *name, const tp_json *v)
{
    int i = 0;

    if (tp_json_kind(v) != TP_JSON_ARRAY)
        return tp_json_kind(v) == TP_JSON_STRING
                   ? add_stop(r, name, v)
                   : wrong_type(r->problem, name, "a string or an array of strings", v);
    TP_JSON_EACH(item, v)
    {
        char at[32];

        snprintf(at, sizeof at, "stop[%d]", i++);
        if (!add_stop(r, at, item))
            return false;
    }
    if (i == 0)
        return api_refuse(r->problem, 400, "invalid_value", name,
                          "stop: expected 1 to %d strings, found an empty array",
                          RT_STOP_STRINGS_MAX);
    return true;
}

static bool read_stop_ids(reader *r, const char *name, const tp_json *v)
{
    return api_read_ids(v, name, r->info->vocab, r->p->stop_ids, RT_STOP_IDS_MAX, &r->p->n_stop_ids,
                        r->problem);
}

static bool read_allowed(reader *r, const char *name, const tp_json *v)
{
    if (!api_read_ids(v, name, r->info->vocab, r->p->allowed, RT_ALLOWED_MAX, &r->p->n_allowed,
                      r->problem))
        return false;
    if (r->p->n_allowed == 0)
        return api_refuse(r->problem, 400, "invalid_value", name,
                          "%s: expected at least one token id", name);
    r->p->has_allowed = true;
    return true;
}

static bool read_logit_bias(reader *r, const char *name, const tp_json *v)
{
    if (tp_json_kind(v) != TP_JSON_OBJECT)
        return wrong_type(r->problem, name, "an object of token id to number", v);
    TP_JSON_EACH(item, v)
    {
        const char *key = tp_json_key(item);
        char at[160], *end;
        long long id;

        snprintf(at, sizeof at, "logit_bias.%.60s", key);
        errno = 0;
        id = strtoll(key, &end, 10);
        if (*key == '\0' || *end != '\0' || errno != 0 || strspn(key, "-0123456789") != strlen(key))
            return api_refuse(r->problem, 400, "invalid_value", at,
                              "%s: a key must be a decimal token id", at);
        if (id < 0 || id >= r->info->vocab)
            return api_refuse(r->problem, 400, "invalid_value", at,
                              "%s: token id %lld is out of vocabulary (0 to %d)", at, id,
                              r->info->vocab - 1);
        if (r->p->n_bias == RT_BIAS_MAX)
            return api_refuse(r->problem, 400, "invalid_value", name,
                              "logit_bias: expected at most %d entries", RT_BIAS_MAX);
        r->p->bias_ids[r->p->n_bias] = (int32_t)id;
        if (!read_real(item, at, -100, 100, &r->p->bias[r->p->n_bias++], r->problem))
            return false;
    }
    return true;
}

/* Chat: a switch.  Completions: the number of alternatives. */
static bool read_logprobs(reader *r, const char *name, const tp_json *v)
{
    if (r->p->chat)
        return api_read_bool(v, name, &r->p->logprobs, r->problem);
    return read_int(v, name, 0, RT_LOGPROBS_MAX, &r->p->n_logprobs, r->problem);
}

static bool read_max_tokens(reader *r, const char *name, const tp_json *v)
{
    int64_t n;

    if (!read_int(v, name, 0, INT64_MAX, &n, r->problem))
        return false;
    if (r->p->max_tokens_name != NULL && strcmp(name, "max_tokens") == 0)
        return true; /* max_completion_tokens wins */
    r->p->max_tokens = n;
    r->p->max_tokens_name = name;
    return true;
}

static bool read_top_k(reader *r, const char *name, const tp_json *v)
{
    int64_t k;

    if (!read_int(v, name, -1, INT64_MAX, &k, r->problem))
        return false;
    r->p->sampling.top_k = k <= 0 ? 0 : (int32_t)(k < r->info->vocab ? k : r->info->vocab);
    return true;
}

static bool read_min_tokens(reader *r, const char *name, const tp_json *v)
{
    int64_t n;

    if (!read_int(v, name, 0, INT32_MAX, &n, r->problem))
        return false;
    r->p->sampling.min_tokens = (int32_t)n;
    return true;
}

static bool read_n(reader *r, const char *name, const tp_json *v)
{
    int64_t n;

    if (!read_int(v, name, 1, RT_CHOICES_MAX, &n, r->problem))
        return false;
    r->p->n = (int)n;
    return true;
}

static bool read_repetition(reader *r, const char *name, const tp_json *v)
{
    if (!read_real(v, name, 0, 10, &r->p->sampling.repetition_penalty, r->problem))
        return false;
    if (r->p->sampling.repetition_penalty <= 0)
        return api_refuse(r->problem, 400, "invalid_value", name,
                          "%s: expected more than 0, at most 10, found %.40s", name,
                          tp_json_raw(v));
    return true;
}

static bool read_stream_options(reader *r, const char *name, const tp_json *v)
{
    bool ignored = false;

    if (tp_json_kind(v) != TP_JSON_OBJECT)
        return wrong_type(r->problem, name, "an object", v);
    TP_JSON_EACH(item, v)
    {
        const char *key = tp_json_key(item);
        bool *target = strcmp(key, "include_usage") == 0            ? &r->p->include_usage
                       : strcmp(key, "continuous_usage_stats") == 0 ? &r->p->continuous_usage
                       : strcmp(key, "include_obfuscation") == 0    ? &ignored
                                                                    : NULL;
        char at[160];

        snprintf(at, sizeof at, "stream_options.%.60s", key);
        if (target != NULL && !tp_json_is_null(item) &&
            !api_read_bool(item, at, target, r->problem))
            return false;
    }
    return true;
}

static bool read_messages(reader *r, const char *name, const tp_json *v)
{
    if (tp_json_kind(v) != TP_JSON_ARRAY)
        return wrong_type(r->problem, name, "an array of messages", v);
    r->p->messages = v;
    return true;
}

static bool read_prompt(reader *r, const char *name, const tp_json *v)
{
    if (tp_json_kind(v) != TP_JSON_STRING && tp_json_kind(v) != TP_JSON_ARRAY)
        return wrong_type(r->problem, name, "a string or an array", v);
    r->p->prompt = v;
    return true;
}

static bool read_kwargs(reader *r, const char *name, const tp_json *v)
{
    static const char *const k_reserved[] = {"messages",
                                             "tools",
                                             "documents",
                                             "tokenize",
                                             "chat_template",
                                             "add_generation_prompt",
                                             "continue_final_message",
                                             "return_tensors",
                                             "return_dict",
                                             "conversation"};

    if (tp_json_kind(v) != TP_JSON_OBJECT)
        return wrong_type(r->problem, name, "an object", v);
    TP_JSON_EACH(item, v)
    {
        char at[160];

        snprintf(at, sizeof at, "chat_template_kwargs.%.60s", tp_json_key(item));
        for (size_t i = 0; i < TP_ARRAY_LEN(k_reserved); i++)
            if (strcmp(tp_json_key(item), k_reserved[i]) == 0)
                return api_refuse(r->problem, 400, "invalid_value", at, "%s is a reserved name",
                                  at);
        if (tp_json_kind(item) == TP_JSON_ARRAY || tp_json_kind(item) == TP_JSON_OBJECT)
            return wrong_type(r->problem, at, "a string, number, boolean or null", item);
    }
    r->p->kwargs = v;
    return true;
}

static bool unsupported(reader *r, const char *name)
{
    return api_refuse(r->problem, 400, "unsupported_parameter", name,
                      "%s is not supported by this server.", name);
}

static bool read_response_format(reader *r, const char *name, const tp_json *v)
{
    const tp_json *type = tp_json_get(v, "type");

    if (tp_json_kind(v) != TP_JSON_OBJECT)
        return wrong_type(r->problem, name, "an object", v);
    if (type == NULL || tp_json_string(type) == NULL)
        return api_refuse(r->problem, 400, "invalid_value", "response_format.type",
                          "response_format.type: expected \"text\"");
    if (strcmp(tp_json_string(type), "text") == 0)
        return true;
    if (strcmp(tp_json_string(type), "json_object") == 0 ||
        strcmp(tp_json_string(type), "json_schema") == 0)
        return unsupported(r, name);
    return api_refuse(r->problem, 400, "invalid_value", "response_format.type",
                      "response_format.type: expected \"text\", found \"%.60s\"",
                      tp_json_string(type));
}

static bool read_tool_choice(reader *r, const char *name, const tp_json *v)
{
    const char *s = tp_json_string(v);

    if (s != NULL && strcmp(s, "none") == 0)
        return true;
    if (s == NULL && tp_json_kind(v) != TP_JSON_OBJECT)
        return wrong_type(r->problem, name, "a string or an object", v);
    return unsupported(r, name);
}

static bool read_modalities(reader *r, const char *name, const tp_json *v)
{
    if (tp_json_kind(v) != TP_JSON_ARRAY)
        return wrong_type(r->problem, name, "an array", v);
    TP_JSON_EACH(item, v)
    if (tp_json_string(item) == NULL || strcmp(tp_json_string(item), "text") != 0)
        return unsupported(r, name);
    return true;
}

static bool read_best_of(reader *r, const char *name, const tp_json *v)
{
    return read_int(v, name, 0, INT64_MAX, &r->best_of, r->problem);
}

static bool read_priority(reader *r, const char *name, const tp_json *v)
{
    int64_t n;

    if (!read_int(v, name, INT64_MIN, INT64_MAX, &n, r->problem))
        return false;
    return n == 0 ? true : unsupported(r, name);
}

static bool read_add_special(reader *r, const char *name, const tp_json *v)
{
    r->p->add_special_given = true;
    return api_read_bool(v, name, &r->p->add_special_tokens, r->problem);
}

/* ---- the table ---- */

typedef enum kind {
    KIND_BOOL,
    KIND_INT,
    KIND_REAL,
    KIND_CUSTOM,
    KIND_TYPE,       /* only the type is checked: the value is ignored */
    KIND_UNSUPPORTED /* anything but null and false is refused */
} kind;

enum { IN_CHAT = 1, IN_TEXT = 2, IN_BOTH = 3 };

typedef struct row {
    const char *name;
    int where;
    kind how;
    size_t offset;
    double lo, hi;
    custom_fn read;
    tp_json_type type;
} row;

#define P(field) offsetof(api_params, field)
#define B(name, where, field)                                                                      \
    {                                                                                              \
        name, where, KIND_BOOL, P(field), 0, 0, NULL, TP_JSON_BOOL                                 \
    }
#define I(name, where, field, lo, hi)                                                              \
    {                                                                                              \
        name, where, KIND_INT, P(field), lo, hi, NULL, TP_JSON_NUMBER                              \
    }
#define R(name, where, field, lo, hi)                                                              \
    {                                                                                              \
        name, where, KIND_REAL, P(field), lo, hi, NULL, TP_JSON_NUMBER                             \
    }
#define C(name, where, fn)                                                                         \
    {                                                                                              \
        name, where, KIND_CUSTOM, 0, 0, 0, fn, TP_JSON_NULL                                        \
    }
#define T(name, where, type)                                                                       \
    {                                                                                              \
        name, where, KIND_TYPE, 0, 0, 0, NULL, type                                                \
    }
#define U(name, where)                                                                             \
    {                                                                                              \
        name, where, KIND_UNSUPPORTED, 0, 0, 0, NULL, TP_JSON_NULL                                 \
    }

/* Sorted by name (strcmp). */
static const row k_rows[] = {
    B("add_generation_prompt", IN_CHAT, add_generation_prompt),
    C("add_special_tokens", IN_BOTH, read_add_special),
    C("allowed_token_ids", IN_BOTH, read_allowed),
    U("audio", IN_CHAT),
    U("bad_words", IN_BOTH),
    C("best_of", IN_TEXT, read_best_of),
    C("cache_salt", IN_BOTH, read_cache_salt),
    U("chat_template", IN_CHAT),
    C("chat_template_kwargs", IN_CHAT, read_kwargs),
    B("continue_final_message", IN_CHAT, continue_final_message),
    U("documents", IN_CHAT),
    B("echo", IN_TEXT, echo),
    R("frequency_penalty", IN_BOTH, sampling.frequency_penalty, -2, 2),
    U("function_call", IN_CHAT),
    U("functions", IN_CHAT),
    U("grammar", IN_BOTH),
    U("guided_choice", IN_BOTH),
    U("guided_grammar", IN_BOTH),
    U("guided_json", IN_BOTH),
    U("guided_regex", IN_BOTH),
    B("ignore_eos", IN_BOTH, sampling.ignore_eos),
    B("include_stop_str_in_output", IN_BOTH, include_stop),
    C("logit_bias", IN_BOTH, read_logit_bias),
    C("logprobs", IN_BOTH, read_logprobs),
    C("max_completion_tokens", IN_CHAT, read_max_tokens),
    C("max_tokens", IN_BOTH, read_max_tokens),
    C("messages", IN_CHAT, read_messages),
    T("metadata", IN_BOTH, TP_JSON_OBJECT),
    R("min_p", IN_BOTH, sampling.min_p, 0, 1),
    C("min_tokens", IN_BOTH, read_min_tokens),
    C("modalities", IN_CHAT, read_modalities),
    C("model", IN_BOTH, read_model),
    U("moderation", IN_CHAT),
    C("n", IN_BOTH, read_n),
    T("parallel_tool_calls", IN_CHAT, TP_JSON_BOOL),
    R("presence_penalty", IN_BOTH, sampling.presence_penalty, -2, 2),
    C("priority", IN_BOTH, read_priority),
    C("prompt", IN_TEXT, read_prompt),
    T("prompt_cache_key", IN_BOTH, TP_JSON_STRING),
    I("prompt_logprobs", IN_BOTH, prompt_logprobs, 0, RT_LOGPROBS_MAX),
    T("reasoning_effort", IN_CHAT, TP_JSON_STRING),
    U("regex", IN_BOTH),
    C("repetition_penalty", IN_BOTH, read_repetition),
    C("response_format", IN_BOTH, read_response_format),
    B("return_token_ids", IN_BOTH, return_token_ids),
    T("safety_identifier", IN_BOTH, TP_JSON_STRING),
    C("seed", IN_BOTH, read_seed),
    T("service_tier", IN_BOTH, TP_JSON_STRING),
    B("skip_special_tokens", IN_BOTH, skip_special_tokens),
    C("stop", IN_BOTH, read_stop),
    C("stop_token_ids", IN_BOTH, read_stop_ids),
    T("store", IN_BOTH, TP_JSON_BOOL),
    B("stream", IN_BOTH, stream),
    C("stream_options", IN_BOTH, read_stream_options),
    U("structured_outputs", IN_BOTH),
    U("suffix", IN_TEXT),
    R("temperature", IN_BOTH, sampling.temperature, 0, 2),
    C("tool_choice", IN_CHAT, read_tool_choice),
    U("tools", IN_CHAT),
    C("top_k", IN_BOTH, read_top_k),
    I("top_logprobs", IN_CHAT, n_logprobs, 0, RT_LOGPROBS_MAX),
    R("top_p", IN_BOTH, sampling.top_p, 0, 1),
    I("truncate_prompt_tokens", IN_BOTH, truncate_prompt_tokens, 1, INT32_MAX),
    U("use_beam_search", IN_BOTH),
    T("user", IN_BOTH, TP_JSON_STRING),
    T("verbosity", IN_CHAT, TP_JSON_STRING),
    U("web_search_options", IN_CHAT),
};

static int compare_row(const void *key, const void *element)
{
    return strcmp(key, ((const row *)element)->name);
}

static bool read_row(reader *r, const row *w, const tp_json *v)
{
    char *field = (char *)r->p + w->offset;
    int64_t number;
    float real;

    switch (w->how) {
    case KIND_BOOL: return api_read_bool(v, w->name, (bool *)field, r->problem);
    case KIND_INT:
        if (!read_int(v, w->name, (int64_t)w->lo, (int64_t)w->hi, &number, r->problem))
            return false;
        memcpy(field, &number, sizeof number);
        return true;
    case KIND_REAL:
        if (!read_real(v, w->name, w->lo, w->hi, &real, r->problem))
            return false;
        memcpy(field, &real, sizeof real);
        return true;
    case KIND_CUSTOM: return w->read(r, w->name, v);
    case KIND_TYPE:
        return tp_json_kind(v) == w->type
                   ? true
                   : wrong_type(r->problem, w->name, tp_json_kind_name(w->type), v);
    case KIND_UNSUPPORTED: break;
    }
    if (tp_json_kind(v) == TP_JSON_BOOL && !tp_json_bool(v))
        return true;
    return unsupported(r, w->name);
}

static void set_defaults(api_params *p, bool chat, const rt_engine_info *info)
{
    memset(p, 0, sizeof *p);
    p->chat = chat;
    p->sampling = rt_sampling_default();
    p->sampling.temperature = info->gen_temperature >= 0 ? info->gen_temperature : 1;
    p->sampling.top_p = info->gen_top_p >= 0 ? info->gen_top_p : 1;
    p->sampling.min_p = info->gen_min_p >= 0 ? info->gen_min_p : 0;
    p->sampling.top_k = info->gen_top_k > 0 ? info->gen_top_k : 0;
    if (info->gen_repetition_penalty > 0)
        p->sampling.repetition_penalty = info->gen_repetition_penalty;
    p->max_tokens = -1;
    p->n = 1;
    p->n_logprobs = p->prompt_logprobs = -1;
    p->skip_special_tokens = p->add_generation_prompt = true;
    p->add_special_tokens = !chat;
}

/* Rules that join several parameters. */
static bool check_together(reader *r, bool has_stream_options)
{
    api_params *p = r->p;
    int64_t most = p->max_tokens >= 0 ? p->max_tokens : p->chat ? INT64_MAX : API_TEXT_MAX_TOKENS;

    if (has_stream_options && !p->stream)
        return api_refuse(r->problem, 400, "invalid_value", "stream_options",
                          "stream_options is only allowed together with stream: true");
    if (r->best_of > 1 && r->best_of != p->n) /* as many as are answered: nothing to choose from */
        return unsupported(r, "best_of");
    if (p->chat && p->n_logprobs >= 0 && !p->logprobs)
        return api_refuse(r->problem, 400, "invalid_value", "top_logprobs",
                          "top_logprobs needs logprobs: true");
    if (p->chat && p->logprobs && p->n_logprobs < 0)
        p->n_logprobs = 0;
    if (p->prompt_logprobs >= 0 && p->stream)
        return api_refuse(r->problem, 400, "invalid_value", "prompt_logprobs",
                          "prompt_logprobs is not available with stream: true");
    if (p->sampling.min_tokens > most)
        return api_refuse(
            r->problem, 400, "invalid_value", "min_tokens", "min_tokens is greater than %s (%lld)",
            p->max_tokens >= 0 ? p->max_tokens_name : "the default of max_tokens", (long long)most);
    if (p->continue_final_message && p->add_generation_prompt)
        return api_refuse(r->problem, 400, "invalid_value", "continue_final_message",
                          "continue_final_message and add_generation_prompt exclude each other");
    if (p->chat && p->messages == NULL)
        return api_refuse(r->problem, 400, "missing_required_parameter", "messages",
                          "messages is required");
    if (!p->chat && p->prompt == NULL)
        return api_refuse(r->problem, 400, "missing_required_parameter", "prompt",
                          "prompt is required");
    return true;
}

bool api_params_read(api_params *p, const tp_json *body, bool chat, const rt_engine_info *info,
                     api_problem *problem)
{
    reader r = {.p = p, .info = info, .problem = problem};
    bool has_stream_options = false, generation_given = false;

    set_defaults(p, chat, info);
    TP_JSON_EACH(item, body)
    {
        const row *w =
            bsearch(tp_json_key(item), k_rows, TP_ARRAY_LEN(k_rows), sizeof *k_rows, compare_row);

        if (w == NULL || (w->where & (chat ? IN_CHAT : IN_TEXT)) == 0 || tp_json_is_null(item))
            continue;
        has_stream_options |= w->read == read_stream_options;
        generation_given |= w->offset == P(add_generation_prompt) && w->how == KIND_BOOL;
        if (!read_row(&r, w, item))
            return false;
    }
    if (p->continue_final_message && !generation_given)
        p->add_generation_prompt = false;
    return check_together(&r, has_stream_options);
}
