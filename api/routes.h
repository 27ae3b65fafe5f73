/* SPDX-License-Identifier: Apache-2.0 */
/* routes.h - the server object, and the handlers of its routes.  The table that names them is in routes.c. */
#ifndef API_ROUTES_H
#define API_ROUTES_H

#include <stdatomic.h>

#include "api/access.h"
#include "api/admission.h"
#include "api/http.h"
#include "api/server.h"
#include "base/arena.h"

struct api_server {
    api_http *http;
    api_access access;
    api_admission admission;
    api_options opt; /* strings are our copies */
    tp_arena arena;
    int64_t created;              /* unix seconds: "created" of the models */
    _Atomic(rt_engine *) engine;  /* NULL while loading */
    _Atomic(const char *) failed; /* static string; NULL = fine */
    _Atomic(uint64_t) serial;     /* for ids */
    atomic_int n_inference;       /* requests between their start and their last byte: /load */
};

/* The callbacks of api_http. */
bool api_route_refuse(void *server, api_exchange *x);
void api_route_handle(void *server, api_exchange *x);
void api_route_done(void *server, const api_exchange *x, int status);

/* The engine when it can take requests; else answers 503 and returns NULL. */
rt_engine *api_need_engine(api_server *s, api_exchange *x);
/* Whether there is room in the queue for this caller: asked before the body is looked at, so that refusing is cheap. */
bool api_may_queue(api_server *s, const api_exchange *x, const rt_engine *e);
/* A request was let in: its end is reported to s->admission. */
void api_queue_joined(api_server *s);
/* 429 for a request that finds the queue full: tells the client when to come back. */
void api_reply_queue_full(api_server *s, api_exchange *x);
/* Answers a failed rt_engine_submit or a validation by its status, with tp_last_error() as the text. */
void api_reply_status(api_server *s, api_exchange *x, tp_status st, const char *param);
/* "chatcmpl-<hex>": fresh; out has 64 bytes. */
void api_make_id(api_server *s, const char *prefix, char out[64]);

/* Handlers, one file each. */
void api_chat_completions(api_server *s, api_exchange *x);
void api_completions(api_server *s, api_exchange *x);
void api_models(api_server *s, api_exchange *x);
void api_model(api_server *s, api_exchange *x);
void api_tokenize(api_server *s, api_exchange *x);
void api_detokenize(api_server *s, api_exchange *x);
void api_tokenizer_info(api_server *s, api_exchange *x);
void api_health(api_server *s, api_exchange *x);
void api_ready(api_server *s, api_exchange *x);
void api_load(api_server *s, api_exchange *x);
void api_version(api_server *s, api_exchange *x);
void api_metrics(api_server *s, api_exchange *x);

#endif
