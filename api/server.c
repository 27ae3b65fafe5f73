/* SPDX-License-Identifier: Apache-2.0 */
/* server.c - the server's life: listening before the model is there, flushing after the engine has ended. */
#include "api/server.h"

#include <string.h>

#include "api/routes.h"
#include "base/clock.h"
#include "base/mem.h"

#define DEFAULT_BODY        (INT64_C(8) << 20)
#define DEFAULT_PROMPTS     128
#define DEFAULT_SEQS        256
#define DEFAULT_CONNECTIONS 16384

static const char *const *copy_list(tp_arena *a, const char *const *list, int n)
{
    const char **copy = tp_arena_calloc(a, (size_t)n + 1, sizeof *copy);

    for (int i = 0; copy != NULL && i < n; i++) {
        copy[i] = tp_arena_strndup(a, list[i], strlen(list[i]));
        if (copy[i] == NULL)
            return NULL;
    }
    return copy;
}

static const char *copy_text(tp_arena *a, const char *s)
{
    return tp_arena_strndup(a, s != NULL ? s : "", s != NULL ? strlen(s) : 0);
}

static tp_status copy_options(api_server *s, const api_options *opt)
{
    api_options *o = &s->opt;

    *o = *opt;
    o->api_keys = NULL;
    o->model_names = copy_list(&s->arena, opt->model_names, opt->n_model_names);
    o->allowed_origins = copy_list(&s->arena, opt->allowed_origins, opt->n_allowed_origins);
    o->host = copy_text(&s->arena, opt->host);
    o->model_root = copy_text(&s->arena, opt->model_root);
    o->version = copy_text(&s->arena, opt->version);
    if (o->model_names == NULL || o->allowed_origins == NULL || o->host == NULL ||
        o->model_root == NULL || o->version == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "HTTP server options");
    o->max_body_bytes = o->max_body_bytes > 0 ? o->max_body_bytes : DEFAULT_BODY;
    o->max_prompts_per_request =
        o->max_prompts_per_request > 0 ? o->max_prompts_per_request : DEFAULT_PROMPTS;
    o->max_seqs_per_request = o->max_seqs_per_request > 0 ? o->max_seqs_per_request : DEFAULT_SEQS;
    o->max_connections = o->max_connections > 0 ? o->max_connections : DEFAULT_CONNECTIONS;
    return TP_OK;
}

static bool is_loopback(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0 ||
           strcmp(host, "localhost") == 0;
}

tp_status api_server_create(api_server **out, const api_options *opt)
{
    api_server *s = tp_calloc(1, sizeof *s);
    tp_status st;

    if (s == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "HTTP server");
    tp_arena_init(&s->arena, 0);
    api_access_init(&s->access, opt->api_keys, opt->n_api_keys);
    api_admission_init(&s->admission);
    s->created = tp_unix_seconds();
    TP_TRY_GOTO(st, copy_options(s, opt), fail);
    TP_TRY_GOTO(st,
                api_http_create(&s->http,
                                &(api_http_options){.host = s->opt.host,
                                                    .port = s->opt.port,
                                                    .max_body = (size_t)s->opt.max_body_bytes,
                                                    .max_connections = s->opt.max_connections,
                                                    .loopback_host_check = is_loopback(s->opt.host),
                                                    .handle = api_route_handle,
                                                    .refuse = api_route_refuse,
                                                    .done = api_route_done,
                                                    .ctx = s}),
                fail);
    *out = s;
    return TP_OK;
fail:
    api_server_destroy(s);
    return st;
}

int api_server_port(const api_server *s)
{
    return api_http_port(s->http);
}

void api_server_set_engine(api_server *s, rt_engine *e)
{
    atomic_store(&s->engine, e);
}

void api_server_set_failed(api_server *s, const char *code)
{
    atomic_store(&s->failed, code);
}

void api_server_stop(api_server *s, int64_t timeout_ms)
{
    int64_t deadline = tp_now_ns() + timeout_ms * TP_NS_PER_MS;

    while (api_http_open(s->http) > 0 && tp_now_ns() < deadline)
        tp_sleep_us(5000);
    api_http_destroy(s->http);
    s->http = NULL;
}

void api_server_destroy(api_server *s)
{
    if (s == NULL)
        return;
    api_http_destroy(s->http);
    api_access_release(&s->access);
    api_admission_release(&s->admission);
    tp_arena_release(&s->arena);
    tp_free(s);
}
