/* SPDX-License-Identifier: Apache-2.0 */
/* errors.c - see errors.h. */
#include "api/errors.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"

#define RETRY_MS 1000

const char api_no_memory[] = "{\"error\":{\"message\":\"The server is short of memory.\",\"type\":"
                             "\"server_error\",\"param\":null,\"code\":\"out_of_memory\"}}";

static const char *type_of(int status, const char *code)
{
    switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 408: return "timeout_error";
    case 429: return "rate_limit_error";
    case 500: return "server_error";
    case 503:
        return code != NULL && strcmp(code, "out_of_memory") == 0 ? "server_error"
                                                                  : "service_unavailable";
    default: return "invalid_request_error";
    }
}

static void put_string_or_null(tp_buf *out, const char *s)
{
    if (s != NULL)
        tp_json_put_cstring(out, s);
    else
        tp_buf_puts(out, "null");
}

void api_put_error(tp_buf *out, int status, const char *code, const char *param,
                   const char *message)
{
    tp_buf_puts(out, "{\"error\":{\"message\":");
    tp_json_put_cstring(out, message);
    tp_buf_puts(out, ",\"type\":");
    tp_json_put_cstring(out, type_of(status, code));
    tp_buf_puts(out, ",\"param\":");
    put_string_or_null(out, param);
    tp_buf_puts(out, ",\"code\":");
    put_string_or_null(out, code);
    tp_buf_puts(out, "}}");
}

/* Whole seconds for everybody, milliseconds for the OpenAI SDKs. */
static void add_retry_after(api_exchange *x, int ms)
{
    char text[32];

    snprintf(text, sizeof text, "%d", (ms + 999) / 1000);
    api_add_header(x, "Retry-After", text);
    snprintf(text, sizeof text, "%d", ms);
    api_add_header(x, "retry-after-ms", text);
}

static void reply(api_exchange *x, int status, const char *code, const char *param,
                  const char *message)
{
    tp_buf body;

    tp_buf_init(&body, 1 << 20);
    api_put_error(&body, status, code, param, message);
    if (body.failed)
        api_reply(x, 503, "application/json", api_no_memory, strlen(api_no_memory));
    else
        api_reply(x, status, "application/json", tp_buf_str(&body), body.len);
    tp_buf_release(&body);
}

void api_reply_error(api_exchange *x, int status, const char *code, const char *param,
                     const char *message)
{
    if (status == 401)
        api_add_header(x, "WWW-Authenticate", "Bearer");
    if (status == 429 || status == 503)
        add_retry_after(x, RETRY_MS);
    if (status == 500)
        api_add_header(x, "x-should-retry", "false");
    reply(x, status, code, param, message);
}

void api_reply_busy(api_exchange *x, const char *code, const char *message, int retry_ms)
{
    add_retry_after(x, retry_ms);
    reply(x, 429, code, NULL, message);
}
