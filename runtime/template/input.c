/* SPDX-License-Identifier: Apache-2.0 */
/* input.c - what transformers' apply_chat_template does to a conversation before and after rendering.
 *
 * - a key of a message whose value is null counts as absent;
 * - a reasoning text is offered under every name that templates read: thinking, reasoning_content, reasoning;
 * - to continue the final message, a mark is appended to its text and the result is cut there.  The template
 *   sees the mark: a template that trims the content moves the cut before the whitespace.
 */
#include "runtime/template/input.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MARK           "CONTINUE_FINAL_MESSAGE_TAG "
#define MARK_TRIMMED   (sizeof MARK - 2) /* without the blank */
#define JSON_DEPTH_MAX 100

static const char *const reasoning_names[] = {"reasoning_content", "thinking", "reasoning"};

static tp_status convert(rt_render *r, const tp_json *v, int depth, rt_val *out);

/* ---- JSON to values ---- */

static tp_status user_str(rt_render *r, const char *s, rt_val *out)
{
    rt_str *str = rt_str_make(r, s, strlen(s), true);

    if (str == NULL)
        return rt_tmpl_no_memory(r, sizeof *str);
    *out = rt_val_str(str);
    return TP_OK;
}

static tp_status convert_number(rt_render *r, const tp_json *v, rt_val *out)
{
    const char *raw = tp_json_raw(v);
    int64_t i;

    if (strpbrk(raw, ".eE") != NULL) {
        *out = rt_val_float(strtod(raw, NULL));
        return TP_OK;
    }
    if (tp_json_int64(v, &i)) {
        *out = rt_val_int(i);
        return TP_OK;
    }
    TP_TRY(user_str(r, raw, out));
    out->kind = RT_BIGINT;
    return TP_OK;
}

static tp_status convert_array(rt_render *r, const tp_json *v, int depth, rt_val *out)
{
    size_t n = tp_json_count(v), i = 0;
    rt_val *items;

    TP_TRY(rt_tmpl_array(r, n, &items));
    TP_JSON_EACH(item, v)
    TP_TRY(convert(r, item, depth + 1, &items[i++]));
    return rt_val_list(r, RT_LIST, items, n, out);
}

static tp_status convert_object(rt_render *r, const tp_json *v, int depth, bool skip_null,
                                rt_val *out)
{
    rt_dict *d = rt_dict_make(r, tp_json_count(v) + 2);

    if (d == NULL)
        return rt_tmpl_no_memory(r, sizeof *d);
    TP_JSON_EACH(member, v)
    {
        rt_val key, val;

        if (skip_null && tp_json_is_null(member))
            continue;
        TP_TRY(user_str(r, tp_json_key(member), &key));
        TP_TRY(convert(r, member, depth + 1, &val));
        TP_TRY(rt_dict_put(r, d, key, val));
    }
    *out = (rt_val){.kind = RT_DICT, .u.dict = d};
    return TP_OK;
}

static tp_status convert(rt_render *r, const tp_json *v, int depth, rt_val *out)
{
    if (depth > JSON_DEPTH_MAX)
        return TP_REJECT(TP_ERR_LIMIT, "the conversation nests deeper than %d levels",
                         JSON_DEPTH_MAX);
    *out = rt_val_none();
    if (v == NULL)
        return TP_OK;
    switch (tp_json_kind(v)) {
    case TP_JSON_NULL: return TP_OK;
    case TP_JSON_BOOL: *out = rt_val_bool(tp_json_bool(v)); return TP_OK;
    case TP_JSON_NUMBER: return convert_number(r, v, out);
    case TP_JSON_STRING: return user_str(r, tp_json_string(v), out);
    case TP_JSON_ARRAY: return convert_array(r, v, depth, out);
    case TP_JSON_OBJECT: return convert_object(r, v, depth, false, out);
    }
    return TP_OK;
}

/* ---- messages ---- */

static tp_status spread_reasoning(rt_render *r, rt_val *message)
{
    rt_dict *d = message->u.dict, *copy;
    const rt_val *text = NULL;

    for (size_t i = 0; i < TP_ARRAY_LEN(reasoning_names) && text == NULL; i++)
        text = rt_dict_get_cstr(d, reasoning_names[i]);
    if (text == NULL)
        return TP_OK;
    copy = rt_dict_make(r, d->n + 2);
    if (copy == NULL)
        return rt_tmpl_no_memory(r, sizeof *copy);
    TP_TRY(rt_dict_put_str(r, copy, "thinking", *text));
    for (size_t i = 0; i < d->n; i++)
        TP_TRY(rt_dict_put(r, copy, d->items[i].key, d->items[i].val));
    TP_TRY(rt_dict_put_str(r, copy, "reasoning_content", *text));
    message->u.dict = copy;
    return TP_OK;
}

static tp_status convert_messages(rt_render *r, const tp_json *messages, rt_val **items, size_t *n)
{
    size_t i = 0;

    if (messages == NULL || tp_json_kind(messages) != TP_JSON_ARRAY || tp_json_count(messages) == 0)
        return TP_REJECT(TP_ERR_INVALID, "messages: a list of at least one message is expected");
    *n = tp_json_count(messages);
    TP_TRY(rt_tmpl_array(r, *n, items));
    TP_JSON_EACH(m, messages)
    {
        if (tp_json_kind(m) != TP_JSON_OBJECT)
            return TP_REJECT(TP_ERR_INVALID, "messages[%zu]: an object is expected, not %s", i,
                             tp_json_kind_name(tp_json_kind(m)));
        TP_TRY(convert_object(r, m, 0, true, &(*items)[i]));
        TP_TRY(spread_reasoning(r, &(*items)[i]));
        i++;
    }
    return TP_OK;
}

/* ---- continuing the final message ---- */

static bool source_reads(const char *source, size_t n, const char *field)
{
    return n > 0 && memmem(source, n, field, strlen(field)) != NULL;
}

static tp_status append_mark(rt_render *r, rt_val text, rt_continuation *cont, rt_val *out)
{
    const rt_str mark = {.s = MARK, .n = sizeof MARK - 1};

    if (text.kind != RT_STR)
        return TP_REJECT(TP_ERR_INVALID, "continue_final_message: the final message holds no text");
    cont->active = true;
    cont->final = text.u.str;
    return rt_str_concat(r, text.u.str, &mark, out);
}

/* The last part of a list that has a text, marked in a copy of the list. */
static tp_status mark_part(rt_render *r, rt_val list, rt_continuation *cont, rt_val *out)
{
    size_t n = list.u.list->n, at = n;
    rt_val *items, text;
    rt_dict *copy;
    const rt_dict *d;

    while (at > 0 && (list.u.list->items[at - 1].kind != RT_DICT ||
                      rt_dict_get_cstr(list.u.list->items[at - 1].u.dict, "text") == NULL))
        at--;
    if (at == 0)
        return TP_REJECT(TP_ERR_INVALID, "continue_final_message: the final message holds no text");
    d = list.u.list->items[at - 1].u.dict;
    TP_TRY(append_mark(r, *rt_dict_get_cstr(d, "text"), cont, &text));
    copy = rt_dict_make(r, d->n);
    if (copy == NULL)
        return rt_tmpl_no_memory(r, sizeof *copy);
    for (size_t i = 0; i < d->n; i++)
        TP_TRY(rt_dict_put(r, copy, d->items[i].key, d->items[i].val));
    TP_TRY(rt_dict_put_str(r, copy, "text", text));
    TP_TRY(rt_tmpl_array(r, n, &items));
    memcpy(items, list.u.list->items, n * sizeof *items);
    items[at - 1] = (rt_val){.kind = RT_DICT, .u.dict = copy};
    return rt_val_list(r, RT_LIST, items, n, out);
}

/* The names under which the text to continue is found: its aliases too when it is a reasoning. */
static bool is_alias(rt_render *r, const rt_dict *message, const char *field, const char *name,
                     rt_val text)
{
    bool reasoning = false, same = false;
    const rt_val *v;

    for (size_t i = 0; i < TP_ARRAY_LEN(reasoning_names); i++)
        reasoning = reasoning || strcmp(reasoning_names[i], field) == 0;
    if (!reasoning)
        return strcmp(name, field) == 0;
    v = rt_dict_get_cstr(message, name);
    return v != NULL && rt_val_equal(r, *v, text, &same) == TP_OK && same;
}

static tp_status mark_final(rt_render *r, rt_dict *message, const rt_template_input *in,
                            const char *source, size_t n_source, rt_continuation *cont)
{
    const char *field = in->continue_field != NULL ? in->continue_field : "content";
    const char *names[] = {field, reasoning_names[0], reasoning_names[1], reasoning_names[2]};
    const rt_val *found = rt_dict_get_cstr(message, field);
    bool aliases[4], read = false;
    rt_val text, marked;

    if (in->add_generation_prompt)
        return TP_REJECT(TP_ERR_INVALID,
                         "continue_final_message and add_generation_prompt exclude each other");
    if (found == NULL || found->kind == RT_NONE)
        return TP_REJECT(TP_ERR_INVALID, "continue_final_message: the final message has no %s",
                         field);
    text = *found;
    for (size_t i = 0; i < TP_ARRAY_LEN(names); i++) {
        aliases[i] = is_alias(r, message, field, names[i], text);
        read = read || (aliases[i] && source_reads(source, n_source, names[i]));
    }
    if (!read)
        return TP_REJECT(TP_ERR_INVALID,
                         "continue_final_message: the chat template does not read %s", field);
    if (text.kind == RT_LIST)
        TP_TRY(mark_part(r, text, cont, &marked));
    else
        TP_TRY(append_mark(r, text, cont, &marked));
    for (size_t i = 0; i < TP_ARRAY_LEN(names); i++)
        if (aliases[i])
            TP_TRY(rt_dict_put_str(r, message, names[i], marked));
    return TP_OK;
}

tp_status rt_input_cut(const rt_continuation *cont, const char *text, size_t n, size_t *out)
{
    size_t begin, end, at = n;

    *out = n;
    if (!cont->active)
        return TP_OK;
    rt_str_trim(cont->final, NULL, true, true, &begin, &end);
    while (at > 0 &&
           (n - (at - 1) < MARK_TRIMMED || memcmp(text + at - 1, MARK, MARK_TRIMMED) != 0))
        at--;
    if (at == 0 || (end > begin && memmem(text, n, cont->final->s + begin, end - begin) == NULL))
        return TP_REJECT(TP_ERR_INVALID,
                         "continue_final_message: the final message does not appear in the "
                         "rendered chat");
    at--;
    if (n - at < sizeof MARK - 1 ||
        text[at + MARK_TRIMMED] != ' ') { /* the template trimmed the text */
        rt_str head = {.s = text, .n = at};

        rt_str_trim(&head, NULL, false, true, &begin, &at);
    }
    *out = at;
    return TP_OK;
}

/* ---- variables ---- */

static void set(rt_render *r, const char *name, rt_val v)
{
    int sym = rt_ast_symbol(r->ast, name);

    if (sym >= 0)
        r->top[sym] = v;
}

static tp_status set_token(rt_render *r, const char *name, const char *text)
{
    rt_val v;

    if (text == NULL)
        return TP_OK;
    TP_TRY(rt_str_lit(r, text, &v));
    set(r, name, v);
    return TP_OK;
}

tp_status rt_input_bind(rt_render *r, const rt_template_input *in, const char *source,
                        size_t n_source, rt_continuation *cont)
{
    rt_val v, *messages = NULL;
    size_t n = 0;

    *cont = (rt_continuation){0};
    TP_TRY(set_token(r, "bos_token", in->bos_token));
    TP_TRY(set_token(r, "eos_token", in->eos_token));
    TP_TRY(set_token(r, "pad_token", in->pad_token));
    TP_TRY(set_token(r, "unk_token", in->unk_token));
    TP_JSON_EACH(member, in->kwargs)
    {
        TP_TRY(convert(r, member, 0, &v));
        set(r, tp_json_key(member), v);
    }
    TP_TRY(convert_messages(r, in->messages, &messages, &n));
    if (in->continue_final_message)
        TP_TRY(mark_final(r, messages[n - 1].u.dict, in, source, n_source, cont));
    TP_TRY(rt_val_list(r, RT_LIST, messages, n, &v));
    set(r, "messages", v);
    TP_TRY(convert(r, in->tools, 0, &v));
    set(r, "tools", v);
    TP_TRY(convert(r, in->documents, 0, &v));
    set(r, "documents", v);
    set(r, "add_generation_prompt", rt_val_bool(in->add_generation_prompt));
    return TP_OK;
}
