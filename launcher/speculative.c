/* SPDX-License-Identifier: Apache-2.0 */
/* speculative.c - --speculative-config: a JSON object with vLLM's keys for prompt lookup. */
#include "launcher/speculative.h"

#include <string.h>

#include "base/json.h"

#define OPTION "--speculative-config"

#define DEFAULT_TOKENS 8
#define DEFAULT_MIN    2
#define DEFAULT_MAX    8

typedef struct number_key {
    const char *name;
    int *value;
    int min, max;
} number_key;

static tp_status read_number(const number_key *k, const tp_json *v)
{
    int64_t n;

    if (!tp_json_int64(v, &n) || n < k->min || n > k->max)
        return TP_REJECT(TP_ERR_INVALID, OPTION ": %s: expected a number from %d to %d, found %s%s",
                         k->name, k->min, k->max, tp_json_raw(v) != NULL ? "" : "a ",
                         tp_json_raw(v) != NULL ? tp_json_raw(v)
                                                : tp_json_kind_name(tp_json_kind(v)));
    *k->value = (int)n;
    return TP_OK;
}

static tp_status read_member(const number_key *keys, size_t n, const tp_json *v)
{
    const char *name = tp_json_key(v), *word = tp_json_string(v);

    for (size_t i = 0; i < n; i++)
        if (strcmp(name, keys[i].name) == 0)
            return read_number(&keys[i], v);
    if (strcmp(name, "method") != 0)
        return TP_REJECT(TP_ERR_INVALID,
                         OPTION ": unknown key \"%s\"; there are method, num_speculative_tokens, "
                                "prompt_lookup_min, prompt_lookup_max, disable_by_batch_size",
                         name);
    if (word == NULL || strcmp(word, "ngram") != 0)
        return TP_REJECT(
            TP_ERR_INVALID, OPTION ": method: expected \"ngram\" (prompt lookup), found %s%s%s",
            word != NULL ? "\"" : "a ", word != NULL ? word : tp_json_kind_name(tp_json_kind(v)),
            word != NULL ? "\"" : "");
    return TP_OK;
}

/* As in vLLM, one of min and max stands for both when the other is missing. */
static tp_status settle(rt_speculation *s, int min, int max)
{
    if (min == 0 && max == 0) {
        min = DEFAULT_MIN;
        max = DEFAULT_MAX;
    }
    s->ngram.min = min > 0 ? min : max;
    s->ngram.max = max > 0 ? max : min;
    if (s->ngram.min > s->ngram.max)
        return TP_REJECT(TP_ERR_INVALID,
                         OPTION ": prompt_lookup_min %d is above prompt_lookup_max %d", min, max);
    return TP_OK;
}

static tp_status read_object(rt_speculation *s, const tp_json *root)
{
    int min = 0, max = 0;
    const number_key keys[] = {{"num_speculative_tokens", &s->max_tokens, 1, RT_DRAFT_MAX},
                               {"prompt_lookup_min", &min, 1, RT_NGRAM_MAX},
                               {"prompt_lookup_max", &max, 1, RT_NGRAM_MAX},
                               {"disable_by_batch_size", &s->max_seqs, 1, 65536}};

    if (tp_json_kind(root) != TP_JSON_OBJECT || tp_json_get(root, "method") == NULL)
        return TP_REJECT(
            TP_ERR_INVALID, OPTION ": expected an object such as {\"method\": \"ngram\"}, found %s",
            tp_json_kind(root) == TP_JSON_OBJECT ? "one without a method"
                                                 : tp_json_kind_name(tp_json_kind(root)));
    s->max_tokens = DEFAULT_TOKENS;
    TP_JSON_EACH(v, root)
    TP_TRY(read_member(keys, TP_ARRAY_LEN(keys), v));
    return settle(s, min, max);
}

tp_status launch_read_speculation(rt_speculation *out, const char *json)
{
    rt_speculation s = {0};
    tp_json *root = NULL;
    tp_status st;

    if (json == NULL) {
        *out = s;
        return TP_OK;
    }
    if (tp_json_parse(&root, json, strlen(json), NULL) != TP_OK)
        return TP_REJECT(TP_ERR_INVALID,
                         OPTION ": expected JSON such as '{\"method\": \"ngram\"}': %s",
                         tp_last_error());
    st = read_object(&s, root);
    tp_json_free(root);
    if (st == TP_OK)
        *out = s;
    return st;
}
