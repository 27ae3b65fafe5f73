/* SPDX-License-Identifier: Apache-2.0 */
/* tokenizer_config.c - tokenizer_config.json and chat_template.jinja beside tokenizer.json.
 *
 * Keys that count: bos_token, eos_token, pad_token, unk_token (a string or {"content": string}), add_bos_token,
 * model_max_length (transformers writes 1e30 for "no limit"), chat_template (a string, or a list of
 * {"name", "template"} of which "default" is taken, else the first), added_tokens_decoder (read by load.c).
 * The file chat_template.jinja, where present, goes before the key.  Both files may be missing.
 */
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "runtime/tokenizer/internal.h"

#define CONFIG_BYTES_MAX   ((size_t)64 << 20)
#define TEMPLATE_BYTES_MAX ((size_t)4 << 20)
#define LENGTH_MAX         INT64_C(1000000000) /* more tokens than this mean "no limit" */

void rt_tok_config_release(rt_tok_config *c)
{
    tp_free(c->bos);
    tp_free(c->eos);
    tp_free(c->pad);
    tp_free(c->unk);
    tp_free(c->chat_template);
    tp_json_free(c->json);
    *c = (rt_tok_config){0};
}

/* Copies text that may be absent. */
static tp_status copy_text(char **out, const char *text)
{
    char *copy;

    if (text == NULL)
        return TP_OK;
    copy = tp_strdup(text);
    if (copy == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "tokenizer_config.json");
    tp_free(*out);
    *out = copy;
    return TP_OK;
}

static tp_status read_token(char **out, const tp_json *json, const char *key)
{
    const tp_json *v = tp_json_get(json, key);
    const char *text = tp_json_string(v);

    return copy_text(out, text != NULL ? text : tp_json_get_string(v, "content", NULL));
}

static const char *pick_template(const tp_json *v)
{
    const char *first = tp_json_string(v);

    if (first != NULL || tp_json_is_null(v) || tp_json_kind(v) != TP_JSON_ARRAY)
        return first;
    TP_JSON_EACH(entry, v)
    {
        const char *text = tp_json_get_string(entry, "template", NULL);

        if (text != NULL && strcmp(tp_json_get_string(entry, "name", ""), "default") == 0)
            return text;
        if (first == NULL)
            first = text;
    }
    return first;
}

static tp_status read_config(rt_tok_config *c, const char *path)
{
    const tp_json_limits limits = {.allow_duplicate_keys = true, .allow_nul = true};
    int64_t length;

    TP_TRY(tp_json_parse_file(&c->json, path, CONFIG_BYTES_MAX, &limits));
    if (tp_json_kind(c->json) != TP_JSON_OBJECT)
        return TP_FAIL(TP_ERR_FORMAT, "%s: expected an object, found %s", path,
                       tp_json_kind_name(tp_json_kind(c->json)));
    TP_TRY(read_token(&c->bos, c->json, "bos_token"));
    TP_TRY(read_token(&c->eos, c->json, "eos_token"));
    TP_TRY(read_token(&c->pad, c->json, "pad_token"));
    TP_TRY(read_token(&c->unk, c->json, "unk_token"));
    c->add_bos = tp_json_get_bool(c->json, "add_bos_token", false);
    if (tp_json_int64(tp_json_get(c->json, "model_max_length"), &length) && length > 0 &&
        length <= LENGTH_MAX)
        c->model_max_length = length;
    return copy_text(&c->chat_template, pick_template(tp_json_get(c->json, "chat_template")));
}

static tp_status read_template_file(rt_tok_config *c, const char *path)
{
    tp_buf text;
    tp_status st;

    TP_TRY(tp_buf_read_file(&text, path, TEMPLATE_BYTES_MAX));
    if (tp_utf8_valid(tp_buf_str(&text), text.len) && strlen(tp_buf_str(&text)) == text.len)
        st = copy_text(&c->chat_template, tp_buf_str(&text));
    else
        st = TP_FAIL(TP_ERR_FORMAT, "%s: not UTF-8 text", path);
    tp_buf_release(&text);
    return st;
}

/* Runs `read` on DIR/NAME if that file exists. */
static tp_status read_if_there(rt_tok_config *c, const char *dir, const char *name,
                               tp_status (*read_file)(rt_tok_config *c, const char *path))
{
    tp_status st = TP_OK;
    tp_buf path;

    tp_buf_init(&path, SIZE_MAX - 1);
    tp_buf_printf(&path, "%s/%s", dir, name);
    if (path.failed)
        return TP_FAIL(TP_ERR_NOMEM, "path of %s", name);
    if (access(path.data, F_OK) == 0)
        st = read_file(c, path.data);
    tp_buf_release(&path);
    return st;
}

tp_status rt_tok_config_load(rt_tok_config *out, const char *model_dir)
{
    rt_tok_config c = {0};
    tp_status st = read_if_there(&c, model_dir, "tokenizer_config.json", read_config);

    if (st == TP_OK)
        st = read_if_there(&c, model_dir, "chat_template.jinja", read_template_file);
    if (st != TP_OK) {
        rt_tok_config_release(&c);
        return st;
    }
    *out = c;
    return TP_OK;
}
