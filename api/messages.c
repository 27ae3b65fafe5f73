/* SPDX-License-Identifier: Apache-2.0 */
/* messages.c - see messages.h. */
#include "api/messages.h"

#include <stdio.h>
#include <string.h>

#define MESSAGES_MAX 4096
#define ROLE_MAX     64

typedef struct writer {
    tp_buf out;
    bool parts, developer;
    int index;
    api_problem *problem;
} writer;

static bool refuse_type(writer *w, const char *field, const char *expected, const tp_json *found)
{
    char at[160];

    snprintf(at, sizeof at, "messages[%d]%s%s", w->index, *field != '\0' ? "." : "", field);
    return api_refuse(w->problem, 400, "invalid_type", at, "%s: expected %s, found %s", at,
                      expected, tp_json_kind_name(tp_json_kind(found)));
}

static bool refuse_value(writer *w, const char *field, const char *code, const char *why)
{
    char at[160];

    snprintf(at, sizeof at, "messages[%d].%s", w->index, field);
    return api_refuse(w->problem, 400, code, at, "%s: %s", at, why);
}

static void put_key(writer *w, const char *key)
{
    tp_buf_putc(&w->out, ',');
    tp_json_put_cstring(&w->out, key);
    tp_buf_putc(&w->out, ':');
}

static bool put_role(writer *w, const tp_json *m)
{
    const tp_json *role = tp_json_get(m, "role");
    const char *s;

    if (tp_json_is_null(role))
        return refuse_value(w, "role", "missing_required_parameter", "a role is required");
    s = tp_json_string(role);
    if (s == NULL)
        return refuse_type(w, "role", "a string", role);
    if (*s == '\0' || strlen(s) > ROLE_MAX ||
        strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") != strlen(s))
        return refuse_value(w, "role", "invalid_value", "expected letters, digits, _ and -");
    tp_buf_puts(&w->out, "{\"role\":");
    tp_json_put_cstring(&w->out, strcmp(s, "developer") == 0 && !w->developer ? "system" : s);
    return true;
}

/* One content part; its text goes to `joined` when the template wants strings. */
static bool put_part(writer *w, const tp_json *part, int i, tp_buf *joined)
{
    const tp_json *type = tp_json_get(part, "type"), *text;
    const char *kind = tp_json_string(type);
    char field[48];

    snprintf(field, sizeof field, "content[%d]", i);
    if (tp_json_kind(part) != TP_JSON_OBJECT)
        return refuse_type(w, field, "an object", part);
    if (kind == NULL)
        return refuse_value(w, field, "invalid_value", "a part needs a type");
    text = tp_json_get(part, strcmp(kind, "refusal") == 0 ? "refusal" : "text");
    if (strcmp(kind, "text") != 0 && strcmp(kind, "refusal") != 0)
        return refuse_value(w, field, "unsupported_parameter",
                            "only text parts are supported by this model");
    if (tp_json_string(text) == NULL)
        return refuse_value(w, field, "invalid_type", "the part's text must be a string");
    if (!w->parts) {
        tp_buf_puts(joined, i > 0 ? "\n" : "");
        tp_buf_puts(joined, tp_json_string(text));
        return true;
    }
    tp_buf_puts(&w->out, i > 0 ? "," : "");
    tp_buf_puts(&w->out, "{\"type\":\"text\",\"text\":");
    tp_json_put_cstring(&w->out, tp_json_string(text));
    tp_buf_putc(&w->out, '}');
    return true;
}

static bool refuse_size(writer *w, const tp_buf *b)
{
    if (b->no_memory)
        return api_refuse_memory(w->problem);
    return api_refuse(w->problem, 400, "invalid_value", "messages",
                      "messages: the conversation is too large");
}

static bool put_parts(writer *w, const tp_json *content)
{
    tp_buf joined;
    bool ok = true;
    int i = 0;

    tp_buf_init(&joined, API_RENDERED_MAX);
    tp_buf_puts(&w->out, w->parts ? "[" : "");
    TP_JSON_EACH(part, content)
    {
        ok = put_part(w, part, i++, &joined);
        if (!ok)
            break;
    }
    if (w->parts)
        tp_buf_putc(&w->out, ']');
    else
        tp_json_put_string(&w->out, tp_buf_str(&joined), joined.len);
    if (ok && joined.failed)
        ok = refuse_size(w, &joined);
    tp_buf_release(&joined);
    return ok;
}

static bool put_content(writer *w, const tp_json *m, bool has_calls)
{
    const tp_json *content = tp_json_get(m, "content");

    if (tp_json_is_null(content)) {
        if (has_calls)
            return true;
        return refuse_value(w, "content", "missing_required_parameter", "content is required");
    }
    put_key(w, "content");
    if (tp_json_kind(content) == TP_JSON_STRING) {
        tp_json_put_cstring(&w->out, tp_json_string(content));
        return true;
    }
    if (tp_json_kind(content) == TP_JSON_ARRAY)
        return put_parts(w, content);
    return refuse_type(w, "content", "a string or an array of parts", content);
}

static bool put_call(writer *w, const tp_json *call, int i)
{
    const tp_json *function = tp_json_get(call, "function");
    const char *name = tp_json_get_string(function, "name", NULL);
    const tp_json *given = tp_json_get(function, "arguments");
    const char *arguments = tp_json_string(given);
    const char *type = tp_json_get_string(call, "type", "function");
    char field[48];
    tp_json *parsed = NULL;
    tp_status st = TP_OK;

    snprintf(field, sizeof field, "tool_calls[%d]", i);
    if (tp_json_kind(call) != TP_JSON_OBJECT || tp_json_kind(function) != TP_JSON_OBJECT ||
        name == NULL || strcmp(type, "function") != 0 ||
        (arguments == NULL && !tp_json_is_null(given)))
        return refuse_value(w, field, "invalid_value",
                            "expected {id, type, function: {name, arguments}}");
    if (arguments != NULL && *arguments != '\0')
        st = tp_json_parse(&parsed, arguments, strlen(arguments), NULL);
    if (st == TP_ERR_NOMEM)
        return api_refuse_memory(w->problem);
    if (st != TP_OK || (parsed != NULL && tp_json_kind(parsed) != TP_JSON_OBJECT)) {
        tp_json_free(parsed);
        return refuse_value(w, field, "invalid_value",
                            "arguments must be a JSON object as a string");
    }
    tp_buf_puts(&w->out, i > 0 ? ",{" : "{");
    if (tp_json_get_string(call, "id", NULL) != NULL) {
        tp_buf_puts(&w->out, "\"id\":");
        tp_json_put_cstring(&w->out, tp_json_get_string(call, "id", ""));
        tp_buf_putc(&w->out, ',');
    }
    tp_buf_puts(&w->out, "\"type\":\"function\",\"function\":{\"name\":");
    tp_json_put_cstring(&w->out, name);
    tp_buf_puts(&w->out, ",\"arguments\":");
    if (parsed != NULL)
        tp_json_put_value(&w->out, parsed);
    else
        tp_buf_puts(&w->out, "{}");
    tp_buf_puts(&w->out, "}}");
    tp_json_free(parsed);
    return true;
}

static bool put_calls(writer *w, const tp_json *calls)
{
    int i = 0;

    put_key(w, "tool_calls");
    tp_buf_putc(&w->out, '[');
    TP_JSON_EACH(call, calls)
    if (!put_call(w, call, i++))
        return false;
    tp_buf_putc(&w->out, ']');
    return true;
}

/* Members that templates read beside role, content and tool_calls; strings only. */
static bool put_others(writer *w, const tp_json *m)
{
    static const char *const k_names[] = {"name", "tool_call_id", "reasoning_content", "reasoning"};

    for (size_t i = 0; i < TP_ARRAY_LEN(k_names); i++) {
        const tp_json *v = tp_json_get(m, k_names[i]);

        if (tp_json_is_null(v))
            continue;
        if (tp_json_string(v) == NULL)
            return refuse_type(w, k_names[i], "a string", v);
        put_key(w, k_names[i]);
        tp_json_put_cstring(&w->out, tp_json_string(v));
    }
    return true;
}

static bool put_message(writer *w, const tp_json *m)
{
    const tp_json *calls = tp_json_get(m, "tool_calls");
    bool has_calls = tp_json_kind(calls) == TP_JSON_ARRAY && tp_json_first(calls) != NULL;
    const char *role = tp_json_get_string(m, "role", "");

    if (tp_json_kind(m) != TP_JSON_OBJECT)
        return refuse_type(w, "", "an object", m);
    if (!tp_json_is_null(calls) && tp_json_kind(calls) != TP_JSON_ARRAY)
        return refuse_type(w, "tool_calls", "an array", calls);
    if (!put_role(w, m) || !put_content(w, m, has_calls) || !put_others(w, m))
        return false;
    if (strcmp(role, "tool") == 0 && tp_json_is_null(tp_json_get(m, "tool_call_id")))
        return refuse_value(w, "tool_call_id", "missing_required_parameter",
                            "a tool message needs the id of its call");
    if (has_calls && !put_calls(w, calls))
        return false;
    tp_buf_putc(&w->out, '}');
    return true;
}

static bool put_messages(writer *w, const tp_json *messages)
{
    tp_buf_putc(&w->out, '[');
    TP_JSON_EACH(m, messages)
    {
        if (w->index == MESSAGES_MAX)
            return api_refuse(w->problem, 400, "invalid_value", "messages",
                              "messages: expected at most %d messages", MESSAGES_MAX);
        tp_buf_puts(&w->out, w->index > 0 ? "," : "");
        if (!put_message(w, m))
            return false;
        w->index++;
    }
    tp_buf_putc(&w->out, ']');
    if (w->index == 0)
        return api_refuse(w->problem, 400, "invalid_value", "messages",
                          "messages: expected at least one message");
    return true;
}

tp_json *api_messages_normalise(const tp_json *messages, bool parts, bool developer,
                                api_problem *problem)
{
    writer w = {.parts = parts, .developer = developer, .problem = problem};
    tp_json *out = NULL;
    tp_status st;

    tp_buf_init(&w.out, API_RENDERED_MAX);
    if (put_messages(&w, messages) && (!w.out.failed || refuse_size(&w, &w.out))) {
        st = tp_json_parse(&out, w.out.data, w.out.len, NULL);
        if (st == TP_ERR_NOMEM)
            api_refuse_memory(problem);
        else if (st != TP_OK)
            api_refuse(problem, 400, "invalid_value", "messages", "messages: %s", tp_last_error());
    }
    tp_buf_release(&w.out);
    return out;
}

/* ---- tokens ---- */

size_t api_prompt_tokens_max(const rt_engine *e)
{
    return 4 * (size_t)rt_engine_get_info(e)->max_model_len + 1024;
}

bool api_refuse_encoding(api_problem *problem, const rt_engine *e, const char *param, tp_status st)
{
    if (st == TP_ERR_NOMEM)
        return api_refuse_memory(problem);
    return api_refuse(problem, 400, "context_length_exceeded", param,
                      "This model's maximum context length is %lld tokens. However, your request "
                      "has more than %zu tokens in the prompt (the prompt is longer than the "
                      "model's context length)",
                      (long long)rt_engine_get_info(e)->max_model_len, api_prompt_tokens_max(e));
}
