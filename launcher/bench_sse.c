/* SPDX-License-Identifier: Apache-2.0 */
/* bench_sse.c - see bench_sse.h.  Whole lines are read where they lie; only what is cut is kept. */
#include "launcher/bench_sse.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"

void launch_sse_init(launch_sse *s)
{
    *s = (launch_sse){0};
    tp_buf_init(&s->line, LAUNCH_SSE_EVENT_MAX);
    tp_buf_init(&s->data, LAUNCH_SSE_EVENT_MAX);
}

void launch_sse_release(launch_sse *s)
{
    tp_buf_release(&s->line);
    tp_buf_release(&s->data);
}

void launch_sse_reset(launch_sse *s)
{
    tp_buf_reset(&s->line);
    tp_buf_reset(&s->data);
    s->has_data = s->failed = false;
}

/* One line without its end. */
static void take_line(launch_sse *s, const char *line, size_t n,
                      void (*event)(void *arg, const char *data, size_t n), void *arg)
{
    static const char k_field[] = "data:";
    size_t skip = sizeof k_field - 1;

    if (n == 0) {
        if (s->has_data)
            event(arg, tp_buf_str(&s->data), s->data.len);
        tp_buf_reset(&s->data);
        s->has_data = false;
        return;
    }
    if (n < skip || memcmp(line, k_field, skip) != 0)
        return;
    skip += n > skip && line[skip] == ' ';
    if (s->has_data)
        tp_buf_putc(&s->data, '\n');
    tp_buf_put(&s->data, line + skip, n - skip);
    s->has_data = true;
}

bool launch_sse_feed(launch_sse *s, const char *bytes, size_t n,
                     void (*event)(void *arg, const char *data, size_t n), void *arg)
{
    while (n > 0 && !s->failed) {
        const char *end = memchr(bytes, '\n', n);
        size_t len = end != NULL ? (size_t)(end - bytes) : n;
        const char *line = bytes;
        size_t line_len = len;

        if (end == NULL || s->line.len > 0) {
            tp_buf_put(&s->line, bytes, len);
            line = tp_buf_str(&s->line);
            line_len = s->line.len;
        }
        bytes += len + (end != NULL);
        n -= len + (end != NULL);
        s->failed = s->line.failed || line_len > s->line.max;
        if (end != NULL && !s->failed) {
            line_len -= line_len > 0 && line[line_len - 1] == '\r';
            take_line(s, line, line_len, event, arg);
            tp_buf_reset(&s->line);
        }
        s->failed |= s->data.failed;
    }
    return !s->failed;
}

/* ---- chunks ---- */

static bool has_bytes(const tp_json *v, const char *key)
{
    const char *s = tp_json_string(tp_json_get(v, key));

    return s != NULL && *s != '\0';
}

static bool has_text(const tp_json *choice)
{
    static const char *const k_homes[] = {"delta", "message"};
    static const char *const k_texts[] = {"content", "reasoning_content", "reasoning"};

    if (has_bytes(choice, "text"))
        return true;
    for (size_t h = 0; h < TP_ARRAY_LEN(k_homes); h++) {
        const tp_json *home = tp_json_get(choice, k_homes[h]);

        for (size_t t = 0; t < TP_ARRAY_LEN(k_texts); t++)
            if (has_bytes(home, k_texts[t]))
                return true;
        if (tp_json_count(tp_json_get(home, "tool_calls")) > 0)
            return true;
    }
    return false;
}

/* OpenAI has "code" and "type", some servers a number as code, others only a text.  Whatever it is, it goes to a terminal
 * and is cut anywhere: ASCII that can be seen. */
static void read_error(launch_chunk *c, const tp_json *error)
{
    const char *what = tp_json_string(tp_json_get(error, "code"));

    if (what == NULL)
        what = tp_json_raw(tp_json_get(error, "code"));
    if (what == NULL)
        what = tp_json_string(tp_json_get(error, "type"));
    (void)snprintf(c->error, sizeof c->error, "%s", what != NULL && *what != '\0' ? what : "error");
    for (char *s = c->error; *s != '\0'; s++)
        *s = *s >= ' ' && *s <= '~' ? *s : '?';
}

/* A count that a server might mean; they are added up. */
static int64_t read_count(const tp_json *usage, const char *key)
{
    int64_t n = tp_json_get_int(usage, key, -1);

    return n >= 0 && n <= INT32_MAX ? n : -1;
}

tp_status launch_read_chunk(launch_chunk *out, const char *data, size_t n)
{
    static const char k_done[] = "[DONE]";
    launch_chunk c = {.prompt_tokens = -1, .completion_tokens = -1};
    const tp_json *usage, *error;
    tp_json_type kind;
    tp_json *root;

    if (n == sizeof k_done - 1 && memcmp(data, k_done, n) == 0) {
        c.done = true;
        *out = c;
        return TP_OK;
    }
    TP_TRY(tp_json_parse(&root, data, n, NULL));
    kind = tp_json_kind(root);
    if (kind != TP_JSON_OBJECT) {
        tp_json_free(root);
        return TP_REJECT(TP_ERR_FORMAT, "expected an object in an event, found a %s",
                         tp_json_kind_name(kind));
    }
    TP_JSON_EACH(choice, tp_json_get(root, "choices"))
    {
        c.text |= has_text(choice);
        c.finished |= !tp_json_is_null(tp_json_get(choice, "finish_reason"));
    }
    usage = tp_json_get(root, "usage");
    c.prompt_tokens = read_count(usage, "prompt_tokens");
    c.completion_tokens = read_count(usage, "completion_tokens");
    error = tp_json_get(root, "error");
    if (!tp_json_is_null(error))
        read_error(&c, error);
    tp_json_free(root);
    *out = c;
    return TP_OK;
}
