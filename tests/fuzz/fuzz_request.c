/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_request.c - bodies of inference requests, as deep as they go without a connection: JSON, parameters, messages, the chat
 * template and the tokenizer of an engine that was loaded and does not run; prompts of completions of every kind.
 *
 * Every body is read as chat, as completions.  Promises: a refusal has a status of 4xx and a text; what is accepted is in range
 * and is accepted by the engine or refused by it as too long, queue full or beyond the KV cache.
 */
#include <string.h>

#include "base/mem.h"
#include "tests/fuzz/fuzz_engine.h"
/* White box: the reading of prompts has no header of its own. */
#include "api/openai_completions.c"

static api_server g_server;

static rt_engine *engine(void)
{
    static rt_engine *e;

    if (e == NULL) {
        e = fuzz_engine_create(true);
        g_server.opt = (api_options){.max_prompts_per_request = 8, .max_seqs_per_request = 16};
    }
    return e;
}

static void check_params(const api_params *p, const rt_engine_info *info)
{
    const rt_sampling *s = &p->sampling;

    TP_ASSERT(p->n >= 1 && p->n <= RT_CHOICES_MAX && p->max_tokens >= -1);
    TP_ASSERT(p->n_stop >= 0 && p->n_stop <= RT_STOP_STRINGS_MAX);
    TP_ASSERT(p->n_stop_ids >= 0 && p->n_stop_ids <= RT_STOP_IDS_MAX);
    TP_ASSERT(p->n_bias >= 0 && p->n_bias <= RT_BIAS_MAX && p->n_allowed <= RT_ALLOWED_MAX);
    TP_ASSERT(s->temperature >= 0 && s->top_p >= 0 && s->top_p <= 1 && s->min_p >= 0);
    TP_ASSERT(s->top_k >= 0 && s->repetition_penalty > 0 && s->min_tokens >= 0);
    TP_ASSERT(p->n_logprobs >= -1 && p->n_logprobs <= RT_LOGPROBS_MAX);
    TP_ASSERT(p->prompt_logprobs >= -1 && p->prompt_logprobs <= RT_LOGPROBS_MAX);
    for (int i = 0; i < p->n_stop; i++)
        TP_ASSERT(p->stop[i][0] != '\0' && strlen(p->stop[i]) <= RT_STOP_BYTES_MAX);
    for (int i = 0; i < p->n_bias; i++)
        TP_ASSERT(p->bias_ids[i] >= 0 && p->bias_ids[i] < info->vocab && p->bias[i] >= -100 &&
                  p->bias[i] <= 100);
    for (int i = 0; i < p->n_allowed; i++)
        TP_ASSERT(p->allowed[i] >= 0 && p->allowed[i] < info->vocab);
}

static void check_prompts(const api_gen *g)
{
    for (int i = 0; i < g->n_prompts; i++)
        for (size_t k = 0; k < g->prompts[i].tokens.n; k++)
            TP_ASSERT(g->prompts[i].tokens.ids[k] >= 0);
}

static bool read_body(api_gen *g, const uint8_t *data, size_t size, bool chat, api_problem *problem)
{
    const rt_engine_info *info = rt_engine_get_info(g->engine);

    g->body = api_parse_body((const char *)data, size, problem);
    if (g->body == NULL || !api_params_read(&g->params, g->body, chat, info, problem))
        return false;
    check_params(&g->params, info);
    if (!chat)
        return read_prompts(g, problem);
    return api_gen_alloc_prompts(g, 1, problem) &&
           api_chat_prompt(g->engine, &g->params, g->params.add_special_tokens, g,
                           &g->prompts[0].tokens, problem);
}

static void try_body(const uint8_t *data, size_t size, bool chat)
{
    api_gen *g = tp_calloc(1, sizeof *g);
    api_problem problem = {0};

    TP_ASSERT(g != NULL);
    g->engine = engine();
    g->server = &g_server;
    g->tokenizer = rt_engine_tokenizer(g->engine);
    if (read_body(g, data, size, chat, &problem)) {
        TP_ASSERT(problem.status == 0);
        check_prompts(g);
    } else {
        TP_ASSERT(problem.status >= 400 && problem.status < 500 && problem.message[0] != '\0');
    }
    api_gen_destroy(g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_init();
    try_body(data, size, true);
    try_body(data, size, false);
    return 0;
}
