/* SPDX-License-Identifier: Apache-2.0 */
/* health.c - /health, /ping, /ready, /load, /version: answers from atomics, never from the scheduler. */
#include <stdio.h>
#include <string.h>

#include "api/errors.h"
#include "api/routes.h"

/* "serving", or why not. */
static const char *state_word(api_server *s)
{
    const char *failed = atomic_load(&s->failed);
    rt_engine *e = atomic_load(&s->engine);

    if (failed != NULL)
        return failed;
    if (e == NULL)
        return "loading";
    switch (rt_engine_get_state(e)) {
    case RT_ENGINE_LOADING: return "loading";
    case RT_ENGINE_SERVING: return "serving";
    case RT_ENGINE_DRAINING: return "draining";
    case RT_ENGINE_RANK_LOST: return "rank_lost";
    case RT_ENGINE_DEAD: break;
    }
    return "engine_dead";
}

static void reply_unready(api_exchange *x, const char *word)
{
    char body[64];

    snprintf(body, sizeof body, "{\"status\":\"%s\"}", word);
    api_add_header(x, "Retry-After", "1");
    api_reply(x, 503, "application/json", body, strlen(body));
}

void api_health(api_server *s, api_exchange *x)
{
    const char *word = state_word(s);

    if (strcmp(word, "serving") == 0 || strcmp(word, "draining") == 0)
        api_reply(x, 200, "text/plain", "", 0);
    else
        reply_unready(x, word);
}

void api_ready(api_server *s, api_exchange *x)
{
    const char *word = state_word(s);

    if (strcmp(word, "serving") == 0)
        api_reply(x, 200, "application/json", "{\"status\":\"ready\"}", 18);
    else
        reply_unready(x, word);
}

void api_load(api_server *s, api_exchange *x)
{
    char body[64];

    snprintf(body, sizeof body, "{\"server_load\":%d}", atomic_load(&s->n_inference));
    api_reply(x, 200, "application/json", body, strlen(body));
}

void api_version(api_server *s, api_exchange *x)
{
    char body[128];

    snprintf(body, sizeof body, "{\"version\":\"%s\"}", s->opt.version);
    api_reply(x, 200, "application/json", body, strlen(body));
}
