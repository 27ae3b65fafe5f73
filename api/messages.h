/* SPDX-License-Identifier: Apache-2.0 */
/* messages.h - chat messages as clients send them -> as templates want them; prompts -> tokens. */
#ifndef API_MESSAGES_H
#define API_MESSAGES_H

#include "api/generate.h"

#define API_RENDERED_MAX (16u << 20) /* bytes of a rendered prompt */

/* Checks every message and returns a new document; NULL and a problem when one is refused. */
tp_json *api_messages_normalise(const tp_json *messages, bool parts, bool developer,
                                api_problem *problem);
/* Renders and tokenises p->messages. */
bool api_chat_prompt(const rt_engine *e, const api_params *p, bool add_special, api_gen *g,
                     rt_tokens *out, api_problem *problem);
/* Ids beyond which a prompt is certainly too long, so that tokenising may stop. */
size_t api_prompt_tokens_max(const rt_engine *e);
/* Turns a failed encode into the contract's error. */
bool api_refuse_encoding(api_problem *problem, const rt_engine *e, const char *param, tp_status st);

#endif
