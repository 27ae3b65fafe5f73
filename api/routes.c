/* SPDX-License-Identifier: Apache-2.0 */
/* routes.c - the table, and what every request passes before its handler: CORS, route, key, media type.
 *
 * Every route has an authentication class in the table, so a new one cannot be reachable by oversight; tests/api reads
 * the table, too.
 */
#include "api/routes.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "api/errors.h"
#include "base/hash.h"
#include "base/log.h"

typedef enum auth_class { AUTH_NONE, AUTH_USER } auth_class;

typedef struct route {
    const char *method, *path; /* a path that ends in '*' matches the rest of it */
    auth_class auth;
    bool json_body; /* Content-Type must be JSON */
    void (*handle)(api_server *s, api_exchange *x);
} route;

static const route k_routes[] = {
    {"POST", "/v1/chat/completions", AUTH_USER, true, api_chat_completions},
    {"POST", "/v1/completions", AUTH_USER, true, api_completions},
    {"GET", "/v1/models", AUTH_USER, false, api_models},
    {"GET", "/v1/models/*", AUTH_USER, false, api_model},
    {"POST", "/tokenize", AUTH_USER, true, api_tokenize},
    {"POST", "/detokenize", AUTH_USER, true, api_detokenize},
    {"GET", "/tokenizer_info", AUTH_USER, false, api_tokenizer_info},
    {"GET", "/health", AUTH_NONE, false, api_health},
    {"GET", "/ping", AUTH_NONE, false, api_health},
    {"POST", "/ping", AUTH_NONE, false, api_health},
    {"GET", "/ready", AUTH_NONE, false, api_ready},
    {"GET", "/load", AUTH_USER, false, api_load},
    {"GET", "/version", AUTH_USER, false, api_version},
    {"GET", "/metrics", AUTH_USER, false, api_metrics},
};

static bool path_matches(const route *r, const char *path)
{
    size_t n = strlen(r->path);

    if (r->path[n - 1] == '*')
        return strncmp(path, r->path, n - 1) == 0 && path[n - 1] != '\0';
    return strcmp(path, r->path) == 0;
}

/* HEAD is served as GET: libmicrohttpd leaves the body out. */
static const route *find_route(const char *method, const char *path, char allow[64])
{
    const char *wanted = strcmp(method, "HEAD") == 0 ? "GET" : method;

    allow[0] = '\0';
    for (size_t i = 0; i < TP_ARRAY_LEN(k_routes); i++) {
        const route *r = &k_routes[i];
        size_t used = strlen(allow);

        if (!path_matches(r, path))
            continue;
        if (strcmp(r->method, wanted) == 0)
            return r;
        snprintf(allow + used, 64 - used, "%s%s", used > 0 ? ", " : "", r->method);
    }
    return NULL;
}

/* ---- CORS ---- */

static bool origin_allowed(const api_server *s, const char *origin)
{
    for (int i = 0; i < s->opt.n_allowed_origins; i++)
        if (strcmp(s->opt.allowed_origins[i], "*") == 0 ||
            strcasecmp(s->opt.allowed_origins[i], origin) == 0)
            return true;
    return false;
}

static bool add_cors(const api_server *s, api_exchange *x)
{
    const char *origin = api_header(x, "Origin");

    if (s->opt.n_allowed_origins == 0 || origin == NULL)
        return false;
    api_add_header(x, "Vary", "Origin");
    if (!origin_allowed(s, origin))
        return false;
    api_add_header(x, "Access-Control-Allow-Origin", origin);
    api_add_header(x, "Access-Control-Expose-Headers", "x-request-id, retry-after");
    return true;
}

static void reply_preflight(const api_server *s, api_exchange *x)
{
    const char *wanted = api_header(x, "Access-Control-Request-Headers");

    if (add_cors(s, x)) {
        api_add_header(x, "Access-Control-Allow-Methods", "GET, POST");
        if (wanted != NULL)
            api_add_header(x, "Access-Control-Allow-Headers", wanted);
        api_add_header(x, "Access-Control-Max-Age", "600");
    }
    api_reply(x, 204, "text/plain", "", 0);
}

/* ---- before the handler ---- */

static bool is_json(const char *content_type)
{
    size_t n;

    if (content_type == NULL)
        return false;
    n = strcspn(content_type, "; \t");
    return (n == 16 && strncasecmp(content_type, "application/json", n) == 0) ||
           (n > 5 && strncasecmp(content_type + n - 5, "+json", 5) == 0);
}

bool api_route_refuse(void *server, api_exchange *x)
{
    api_server *s = server;
    char allow[64];
    const route *r = find_route(api_method(x), api_path(x), allow);

    if (strcmp(api_method(x), "OPTIONS") == 0) {
        reply_preflight(s, x);
        return true;
    }
    add_cors(s, x);
    if (r == NULL && allow[0] != '\0') {
        api_add_header(x, "Allow", allow);
        api_reply_error(x, 405, "method_not_allowed", NULL,
                        "This endpoint does not support that method.");
        return true;
    }
    if (r == NULL) {
        /* an unknown path says nothing to those without a key */
        if (api_access_check(&s->access, x))
            api_reply_error(x, 404, "unknown_url", NULL, "There is no such endpoint.");
        return true;
    }
    if (r->auth == AUTH_USER && api_http_crowded(s->http)) {
        api_add_header(x, "Connection", "close");
        api_reply_error(x, 503, "too_many_connections", NULL,
                        "The server has as many connections as it allows (--max-connections).");
        return true;
    }
    if (r->auth == AUTH_USER && !api_access_check(&s->access, x))
        return true;
    if (r->json_body &&
        (!is_json(api_header(x, "Content-Type")) || api_header(x, "Content-Encoding") != NULL)) {
        api_reply_error(x, 415, "unsupported_media_type", NULL,
                        "Send the body as plain JSON with \"Content-Type: application/json\".");
        return true;
    }
    api_set_user(x, (void *)(uintptr_t)r);
    return false;
}

void api_route_handle(void *server, api_exchange *x)
{
    const route *r = api_user(x);

    r->handle(server, x);
}

void api_route_done(void *server, const api_exchange *x, int status)
{
    const api_server *s = server;

    if (s->opt.log_requests)
        tp_info("http", "%s %s %s -> %d (%s)", api_peer(x), api_method(x), api_path(x), status,
                api_request_id(x));
}

/* ---- shared by handlers ---- */

rt_engine *api_need_engine(api_server *s, api_exchange *x)
{
    const char *failed = atomic_load(&s->failed);
    rt_engine *e = atomic_load(&s->engine);

    if (failed != NULL) {
        api_reply_error(x, 503, failed, NULL, "The engine has stopped; the server is ending.");
        return NULL;
    }
    if (e == NULL)
        api_reply_error(x, 503, "loading", NULL, "The model is still being loaded.");
    return e;
}

static api_caller caller(const api_exchange *x)
{
    const char *retries = api_header(x, "x-stainless-retry-count");

    return retries == NULL             ? API_CALLER_UNKNOWN
           : strcmp(retries, "0") == 0 ? API_CALLER_FIRST
                                       : API_CALLER_AGAIN;
}

bool api_may_queue(api_server *s, const api_exchange *x, const rt_engine *e)
{
    int open, limit, queue;

    rt_engine_queue(e, &open, &limit, &queue);
    return api_admission_may_queue(&s->admission, open, limit, queue, caller(x));
}

void api_queue_joined(api_server *s)
{
    int open, limit, queue;

    rt_engine_queue(atomic_load(&s->engine), &open, &limit, &queue);
    api_admission_began(&s->admission, limit - queue);
}

void api_reply_queue_full(api_server *s, api_exchange *x)
{
    int open, limit, queue;

    rt_engine_queue(atomic_load(&s->engine), &open, &limit, &queue);
    api_reply_busy(x, "queue_full", "The server is at its capacity; try again after Retry-After.",
                   api_admission_refuse(&s->admission, queue, caller(x)));
}

void api_reply_status(api_server *s, api_exchange *x, tp_status st, const char *param)
{
    if (st == TP_ERR_FULL)
        api_reply_queue_full(s, x);
    else if (st == TP_ERR_DRAINING)
        api_reply_error(x, 503, "draining", NULL, "The server is shutting down.");
    else if (st == TP_ERR_COMM)
        api_reply_error(x, 503, "engine_dead", NULL, "The engine has stopped.");
    else if (st == TP_ERR_NOMEM)
        api_reply_error(x, 503, "out_of_memory", NULL, "The server is short of memory.");
    else if (st == TP_ERR_LIMIT)
        api_reply_error(x, 400, "context_length_exceeded", param, tp_last_error());
    else if (st == TP_ERR_INVALID)
        api_reply_error(x, 400, "invalid_value", param, tp_last_error());
    else
        api_reply_error(x, 500, "internal_error", NULL, "The request failed.");
}

void api_make_id(api_server *s, const char *prefix, char out[64])
{
    uint8_t random[8];
    uint64_t value;

    tp_random_bytes(random, sizeof random);
    memcpy(&value, random, sizeof value);
    snprintf(out, 64, "%s-%016llx%08llx", prefix, (unsigned long long)value,
             (unsigned long long)atomic_fetch_add(&s->serial, 1));
}
