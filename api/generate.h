/* SPDX-License-Identifier: Apache-2.0 */
/* generate.h - one inference exchange: its engine requests, and the response that grows out of their events.
 *
 * Chat and completions differ in how a prompt is made and how a choice is printed; everything between is here.  A
 * request with several prompts has one engine request per prompt; choice = prompt * n + j.
 */
#ifndef API_GENERATE_H
#define API_GENERATE_H

#include "api/params.h"
#include "api/routes.h"

typedef struct api_prompt {
    rt_tokens tokens;
    tp_buf text; /* for echo */
    rt_request *request;
    int32_t n_cached; /* tokens found in the prefix cache, as the events say */
} api_prompt;

/* One choice while it is being generated. */
typedef struct api_choice {
    tp_buf text;                           /* whole answer, or what a stream has not sent yet */
    tp_buf lp;                             /* chat: entries of logprobs.content; text: "tokens" */
    tp_buf lp_values, lp_tops, lp_offsets; /* text: the other arrays */
    tp_buf ids;                            /* "token_ids", as JSON numbers */
    tp_buf prompt_lp;                      /* entries of prompt_logprobs */
    int64_t n_chars;                       /* code points so far, prompt included when echoed */
    int n_tokens, n_lp;
    bool begun, ended, held; /* role sent; FINISH seen; a token waits to be sent */
    rt_event end;            /* FINISH: pointers are not kept */
} api_choice;

typedef struct api_gen {
    api_server *server;
    api_exchange *exchange;
    rt_engine *engine;
    const rt_tokenizer *tokenizer;
    tp_json *body; /* owned; params borrow from it */
    api_params params;
    char id[64];
    int64_t created;
    const char *model;
    tp_buf head;         /* what every chunk begins with: made once */
    api_prompt *prompts; /* [n_prompts] */
    int n_prompts;
    api_choice *choices; /* [n_prompts * n] */
    int n_choices, n_ended;
    int64_t prompt_tokens, completion_tokens;
    const char *error; /* code of the first choice that failed */
    bool counted, submitted;
} api_gen;

/* Parses the body and checks it; NULL when the exchange has been answered.  Room for n_prompts is made later. */
api_gen *api_gen_create(api_server *s, api_exchange *x, bool chat);
void api_gen_destroy(api_gen *g); /* cancels what still runs */
bool api_gen_alloc_prompts(api_gen *g, int n, api_problem *problem);
/* Lengths, limits, submission, and the answer: a stream or one object.  Owns g from here on. */
void api_gen_start(api_gen *g);
/* NULL and "" are the first one.  False: 404, in the problem. */
bool api_gen_knows_model(const api_server *s, const char *name, api_problem *problem);
/* Answers with the problem and destroys g. */
void api_gen_refuse(api_gen *g, const api_problem *problem);

/* ---- printing: format_chat.c, format_text.c ---- */
/* Adds a token to what the choice has collected (logprobs, ids). */
void api_chat_add_token(api_gen *g, api_choice *c, const rt_event *ev);
void api_text_add_token(api_gen *g, api_choice *c, const rt_event *ev);
/* One stream event with what the choice has collected since the last; `last` carries the finish reason. */
void api_chat_put_chunk(api_gen *g, int index, tp_buf *out, bool last);
void api_text_put_chunk(api_gen *g, int index, tp_buf *out, bool last);
/* The whole answer. */
void api_chat_put_answer(api_gen *g, tp_buf *out);
void api_text_put_answer(api_gen *g, tp_buf *out);

/* Shared pieces. */
/* The end of a stream event behind its choices: usage where it was asked for. */
void api_put_chunk_end(const api_gen *g, tp_buf *out);
/* {"id":...,"model":... without the brace at the end; object: always the same for one g. */
void api_put_head(api_gen *g, tp_buf *out, const char *object);
void api_put_usage(const api_gen *g, tp_buf *out); /* {"prompt_tokens":...} */
void api_put_stop_reason(const api_gen *g, const api_choice *c, tp_buf *out);
const char *api_finish_word(const api_choice *c);
void api_put_logprob(tp_buf *out, float logprob); /* -9999.0 for -inf; null for NaN */
void api_put_token_text(const api_gen *g, tp_buf *out, int32_t id); /* as a JSON string */
void api_reset_choice(api_choice *c);                               /* after a chunk was printed */
void api_put_prompt_ids(const api_prompt *p, tp_buf *out);          /* ,"prompt_token_ids":[...] */

#endif
