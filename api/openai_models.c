/* SPDX-License-Identifier: Apache-2.0 */
/* openai_models.c - GET /v1/models and /v1/models/{id}. */
#include <stdio.h>
#include <string.h>

#include "api/errors.h"
#include "api/routes.h"

#define ID_MAX 1024

static void put_model(api_server *s, rt_engine *e, tp_buf *out, const char *id)
{
    tp_buf_puts(out, "{\"id\":");
    tp_json_put_cstring(out, id);
    tp_buf_printf(out, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"tpserve\",\"root\":",
                  (long long)s->created);
    tp_json_put_cstring(out, s->opt.model_root);
    tp_buf_printf(out, ",\"parent\":null,\"max_model_len\":%lld}",
                  (long long)rt_engine_get_info(e)->max_model_len);
}

void api_models(api_server *s, api_exchange *x)
{
    rt_engine *e = api_need_engine(s, x);
    tp_buf out;

    if (e == NULL)
        return;
    tp_buf_init(&out, 1 << 20);
    tp_buf_puts(&out, "{\"object\":\"list\",\"data\":[");
    for (int i = 0; i < s->opt.n_model_names; i++) {
        tp_buf_puts(&out, i > 0 ? "," : "");
        put_model(s, e, &out, s->opt.model_names[i]);
    }
    tp_buf_puts(&out, "]}");
    api_reply(x, 200, "application/json", tp_buf_str(&out), out.len);
    tp_buf_release(&out);
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decodes %XX; false when a sequence is ill formed, a NUL, or the result too long. */
static bool percent_decode(const char *s, char out[ID_MAX])
{
    size_t n = 0;

    for (; *s != '\0'; s++) {
        if (n + 1 >= ID_MAX)
            return false;
        out[n] = *s;
        if (*s == '%') {
            int hi = hex(s[1]), lo = hi >= 0 ? hex(s[2]) : -1;

            if (lo < 0 || hi * 16 + lo == 0)
                return false;
            out[n] = (char)(hi * 16 + lo);
            s += 2;
        }
        n++;
    }
    out[n] = '\0';
    return true;
}

void api_model(api_server *s, api_exchange *x)
{
    rt_engine *e = api_need_engine(s, x);
    char id[ID_MAX], text[ID_MAX];
    tp_buf out;

    if (e == NULL)
        return;
    if (percent_decode(api_path(x) + strlen("/v1/models/"), id)) {
        for (int i = 0; i < s->opt.n_model_names; i++) {
            if (strcmp(id, s->opt.model_names[i]) != 0)
                continue;
            tp_buf_init(&out, 1 << 16);
            put_model(s, e, &out, id);
            api_reply(x, 200, "application/json", tp_buf_str(&out), out.len);
            tp_buf_release(&out);
            return;
        }
    }
    snprintf(text, sizeof text, "The model does not exist. This server offers `%.900s`.",
             s->opt.model_names[0]);
    api_reply_error(x, 404, "model_not_found", "model", text);
}
