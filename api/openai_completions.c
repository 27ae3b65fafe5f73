/* SPDX-License-Identifier: Apache-2.0 */
/* openai_completions.c - prompts as text, texts, ids or lists of ids. */
#include <stdio.h>
#include <string.h>

#include "api/errors.h"
#include "api/messages.h"
#include "base/mem.h"

static bool encode_text(api_gen *g, const char *text, api_prompt *p, api_problem *problem)
{
    size_t limit = g->params.truncate_prompt_tokens > 0 ? 0 : api_prompt_tokens_max(g->engine);

    tp_status st;

    tp_buf_puts(&p->text, text);
    if (p->text.failed)
        return p->text.no_memory ? api_refuse_memory(problem)
                                 : api_refuse_encoding(problem, g->engine, "prompt", TP_ERR_LIMIT);
    st = rt_tokenizer_encode(g->tokenizer, text, strlen(text), g->params.add_special_tokens, true,
                             limit, &p->tokens);
    return st == TP_OK || api_refuse_encoding(problem, g->engine, "prompt", st);
}

static bool take_ids(api_gen *g, const tp_json *list, const char *name, api_prompt *p,
                     api_problem *problem)
{
    size_t n = tp_json_count(list);
    int got;

    if (n > api_prompt_tokens_max(g->engine))
        return api_refuse_encoding(problem, g->engine, "prompt", TP_ERR_LIMIT);
    p->tokens.ids = tp_calloc(n + 1, sizeof *p->tokens.ids);
    if (p->tokens.ids == NULL)
        return api_refuse_memory(problem);
    p->tokens.cap = n + 1;
    if (!api_read_ids(list, name, rt_engine_get_info(g->engine)->vocab, p->tokens.ids, (int)n, &got,
                      problem))
        return false;
    p->tokens.n = (size_t)got;
    if (g->params.echo &&
        rt_tokenizer_decode(g->tokenizer, p->tokens.ids, p->tokens.n, false, &p->text) != TP_OK)
        return api_refuse_memory(problem);
    return true;
}

static bool read_list(api_gen *g, const tp_json *list, api_problem *problem)
{
    int i = 0;

    if (!api_gen_alloc_prompts(g, (int)tp_json_count(list), problem))
        return false;
    TP_JSON_EACH(item, list)
    {
        char name[32];

        snprintf(name, sizeof name, "prompt[%d]", i);
        if (tp_json_kind(item) == TP_JSON_STRING) {
            if (!encode_text(g, tp_json_string(item), &g->prompts[i], problem))
                return false;
        } else if (tp_json_kind(item) == TP_JSON_ARRAY) {
            if (!take_ids(g, item, name, &g->prompts[i], problem))
                return false;
        } else {
            return api_refuse(problem, 400, "invalid_type", name,
                              "%s: expected a string or an array of token ids, found %s", name,
                              tp_json_kind_name(tp_json_kind(item)));
        }
        i++;
    }
    return true;
}

static bool read_prompts(api_gen *g, api_problem *problem)
{
    const tp_json *v = g->params.prompt;
    bool one = tp_json_kind(v) == TP_JSON_STRING ||
               (tp_json_first(v) != NULL && tp_json_kind(tp_json_first(v)) == TP_JSON_NUMBER);

    if (tp_json_kind(v) == TP_JSON_ARRAY && tp_json_first(v) == NULL)
        return api_refuse(problem, 400, "invalid_value", "prompt", "prompt: the list is empty");
    if (!one)
        return read_list(g, v, problem);
    if (!api_gen_alloc_prompts(g, 1, problem))
        return false;
    return tp_json_kind(v) == TP_JSON_STRING
               ? encode_text(g, tp_json_string(v), &g->prompts[0], problem)
               : take_ids(g, v, "prompt", &g->prompts[0], problem);
}

void api_completions(api_server *s, api_exchange *x)
{
    api_gen *g = api_gen_create(s, x, false);
    api_problem problem = {0};

    if (g == NULL)
        return;
    if (!read_prompts(g, &problem)) {
        api_gen_refuse(g, &problem);
        return;
    }
    api_gen_start(g);
}
