/* SPDX-License-Identifier: Apache-2.0 */
/* openai_chat.c - messages in, one rendered and tokenised prompt out.
 *
 * The messages are checked and written again as the template wants them: content parts joined to a string unless the
 * template iterates over parts, arguments of tool calls as objects, null members left out.  The copy is what the
 * template sees.
 */
#include <stdio.h>
#include <string.h>

#include "api/errors.h"
#include "api/generate.h"
#include "api/messages.h"
#include "base/mem.h"

static bool render(api_gen *g, const tp_json *messages, tp_buf *text, rt_template_spans *spans,
                   api_problem *problem)
{
    const rt_template *t = rt_engine_template(g->engine);
    rt_template_input in = {.messages = messages,
                            .kwargs = g->params.kwargs,
                            .add_generation_prompt = g->params.add_generation_prompt,
                            .continue_final_message = g->params.continue_final_message,
                            .bos_token = rt_tokenizer_bos(g->tokenizer),
                            .eos_token = rt_tokenizer_eos(g->tokenizer),
                            .pad_token = rt_tokenizer_pad(g->tokenizer),
                            .unk_token = rt_tokenizer_unk(g->tokenizer)};

    tp_status st = rt_template_render_marked(t, &in, NULL, text, spans);

    if (st == TP_OK)
        return true;
    if (st == TP_ERR_NOMEM)
        return api_refuse_memory(problem);
    return api_refuse(problem, 400, "template_error", "messages", "%s", tp_last_error());
}

bool api_chat_prompt(const rt_engine *e, const api_params *p, bool add_special, api_gen *g,
                     rt_tokens *out, api_problem *problem)
{
    const rt_template *t = rt_engine_template(e);
    rt_template_spans spans = {0};
    tp_json *messages;
    tp_buf text;
    tp_status st;
    bool ok;

    if (t == NULL)
        return api_refuse(problem, 400, "template_error", "messages",
                          "This model has no chat template; use /v1/completions.");
    messages = api_messages_normalise(p->messages, rt_template_wants_parts(t),
                                      rt_template_mentions(t, "developer"), problem);
    if (messages == NULL)
        return false;
    tp_buf_init(&text, API_RENDERED_MAX);
    ok = render(g, messages, &text, &spans, problem);
    if (ok) {
        st = rt_tokenizer_encode_marked(rt_engine_tokenizer(e), tp_buf_str(&text), text.len,
                                        add_special, spans.items, spans.n, api_prompt_tokens_max(e),
                                        out);
        ok = st == TP_OK || api_refuse_encoding(problem, e, "messages", st);
    }
    tp_buf_release(&text);
    tp_free(spans.items);
    tp_json_free(messages);
    return ok;
}

void api_chat_completions(api_server *s, api_exchange *x)
{
    api_gen *g = api_gen_create(s, x, true);
    api_problem problem = {0};

    if (g == NULL)
        return;
    if (!api_gen_alloc_prompts(g, 1, &problem) ||
        !api_chat_prompt(g->engine, &g->params, g->params.add_special_tokens, g,
                         &g->prompts[0].tokens, &problem)) {
        api_gen_refuse(g, &problem);
        return;
    }
    api_gen_start(g);
}
