/* SPDX-License-Identifier: Apache-2.0 */
/* server.h - the HTTP server as the launcher sees it.
 *
 * It listens from the start and answers 503 "loading" until it is given an engine.  Its threads are its own; the engine
 * is used through runtime/engine.h only.  Threads: the calls below come from the launcher's main thread, except
 * api_server_set_failed(), which any thread may make.
 */
#ifndef API_SERVER_H
#define API_SERVER_H

#include <stdint.h>

#include "base/status.h"
#include "runtime/engine.h"

typedef struct api_server api_server;

typedef struct api_options {
    const char *host;            /* address to bind: "127.0.0.1", "0.0.0.0", "::1", a name */
    int port;                    /* 0 = any free one: api_server_port() */
    const char *const *api_keys; /* copied as digests; NULL = no key needed */
    int n_api_keys;
    const char *const *model_names; /* what clients call the model; the first is reported */
    int n_model_names;
    const char *model_root;             /* "root" of /v1/models: the directory or id as given */
    const char *const *allowed_origins; /* CORS; NULL = off; "*" = any */
    int n_allowed_origins;
    const char *version;
    int64_t max_body_bytes;      /* 0 = 8 MiB */
    int64_t max_output_tokens;   /* cap of max_tokens; 0 = the context */
    int max_prompts_per_request; /* 0 = 128 */
    int max_seqs_per_request;    /* 0 = 256 */
    int max_connections;         /* 0 = 16384 */
    bool log_requests;           /* one line per request: never prompts, outputs or keys */
} api_options;

/* Starts listening.  IO when the address cannot be had (logged with what to change). */
TP_MUST_USE tp_status api_server_create(api_server **out, const api_options *opt);
int api_server_port(const api_server *s);
/* The model is ready: requests are served from now on. */
void api_server_set_engine(api_server *s, rt_engine *e);
/* Start-up or the group has failed: /health answers 503 with this word ("engine_dead", "rank_lost"). */
void api_server_set_failed(api_server *s, const char *code);
/* After the engine has ended: waits until open responses are written or timeout_ms passed, then stops listening. */
void api_server_stop(api_server *s, int64_t timeout_ms);
void api_server_destroy(api_server *s); /* NULL is fine */

#endif
