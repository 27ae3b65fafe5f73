/* SPDX-License-Identifier: Apache-2.0 */
/* load.c - tokenizer.json to an rt_tokenizer.
 *
 * The file, as far as it is read (truncation, padding and version do not matter to serving):
 *   added_tokens    [{id, content, single_word, lstrip, rstrip, normalized, special}]
 *   normalizer      null | NFC | Sequence of these
 *   pre_tokenizer   see pretok.c
 *   model           {type "BPE", vocab {spelling: id}, merges ["a b"] or [["a", "b"]], unk_token, fuse_unk,
 *                   ignore_merges, byte_fallback, continuing_subword_prefix, end_of_word_suffix}
 *   post_processor  null | ByteLevel | TemplateProcessing | Sequence of these
 *   decoder         ByteLevel | Sequence of ByteLevel and Fuse
 * The rank of a merge is its place in the list.  Anything else is refused by name: a pipeline that is read almost
 * right would produce wrong ids without a word.
 *
 * tokenizer_config.json's added_tokens_decoder {"id": {content, ...}} adds what the list above lacks.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "runtime/tokenizer/internal.h"

#define FILE_BYTES_MAX ((size_t)256 << 20)
/* Ids may have gaps; a table of ids must not take far more memory than what is listed. */
#define IDS_SPARE     ((size_t)1 << 18)
#define IDS_PER_TOKEN ((size_t)16)

typedef struct loader {
    rt_tokenizer *t;
    const char *path; /* of tokenizer.json */
    const tp_json *root, *model;
    tp_buf text; /* scratch */
} loader;

static const char *type_of(const tp_json *json)
{
    return tp_json_get_string(json, "type", "");
}

static bool is_kind(const tp_json *json, tp_json_type kind)
{
    return json != NULL && tp_json_kind(json) == kind;
}

static bool is_type(const tp_json *json, const char *type)
{
    return strcmp(type_of(json), type) == 0;
}

/* ---- the small components ---- */

static tp_status load_normalizer(loader *l, const tp_json *json) /* NOLINT(misc-no-recursion) */
{
    if (tp_json_is_null(json))
        return TP_OK;
    if (is_type(json, "NFC")) {
        l->t->nfc = true;
        return TP_OK;
    }
    if (is_type(json, "Sequence")) {
        TP_JSON_EACH(step, tp_json_get(json, "normalizers"))
        TP_TRY(load_normalizer(l, step));
        return TP_OK;
    }
    return TP_FAIL(TP_ERR_UNSUPPORTED,
                   "%s: normalizer \"%s\" is not supported; byte-level BPE tokenizers have NFC or "
                   "none",
                   l->path, type_of(json));
}

static tp_status check_decoder(loader *l, const tp_json *json)
{
    bool byte_level = is_type(json, "ByteLevel");

    if (is_type(json, "Sequence")) {
        TP_JSON_EACH(step, tp_json_get(json, "decoders"))
        {
            if (is_type(step, "ByteLevel"))
                byte_level = true;
            else if (!is_type(step, "Fuse"))
                return TP_FAIL(TP_ERR_UNSUPPORTED, "%s: decoder \"%s\" is not supported", l->path,
                               type_of(step));
        }
    }
    if (!byte_level)
        return TP_FAIL(TP_ERR_UNSUPPORTED, "%s: decoder \"%s\" is not supported; ByteLevel is",
                       l->path, type_of(json));
    return TP_OK;
}

static tp_status check_model(loader *l)
{
    const char *type = type_of(l->model);
    static const char *const AFFIXES[] = {"continuing_subword_prefix", "end_of_word_suffix"};

    if (!is_kind(l->model, TP_JSON_OBJECT))
        return TP_FAIL(TP_ERR_FORMAT, "%s: no \"model\" object", l->path);
    if (type[0] != '\0' && strcmp(type, "BPE") != 0) /* old files do not name the type */
        return TP_FAIL(TP_ERR_UNSUPPORTED,
                       "%s: model \"%s\" is not supported; this build reads byte-level BPE (Qwen2, "
                       "Llama-3, GPT-2 kinds)",
                       l->path, type);
    for (size_t i = 0; i < TP_ARRAY_LEN(AFFIXES); i++) {
        if (tp_json_get_string(l->model, AFFIXES[i], "")[0] != '\0')
            return TP_FAIL(TP_ERR_UNSUPPORTED, "%s: model.%s is not supported", l->path,
                           AFFIXES[i]);
    }
    if (tp_json_get_double(l->model, "dropout", 0.0) > 0.0)
        tp_warn(RT_TOK_COMPONENT, "%s: model.dropout is for training and is ignored", l->path);
    return TP_OK;
}

/* ---- vocabulary ---- */

static tp_status read_id(const loader *l, const tp_json *v, const char *token, int32_t *out)
{
    int64_t id;

    if (!tp_json_int64(v, &id) || id < 0 || id >= RT_TOK_ID_MAX)
        return TP_FAIL(
            TP_ERR_FORMAT, "%s: token \"%.80s\" has the id %s; expected a whole number below %d",
            l->path, token, v != NULL && tp_json_raw(v) != NULL ? tp_json_raw(v) : "(not a number)",
            RT_TOK_ID_MAX);
    *out = (int32_t)id;
    return TP_OK;
}

static tp_status read_key_id(const loader *l, const char *key, int32_t *out)
{
    char *end = NULL;
    long id;

    errno = 0;
    id = strtol(key, &end, 10);
    if (end == key || *end != '\0' || errno != 0 || id < 0 || id >= RT_TOK_ID_MAX)
        return TP_FAIL(
            TP_ERR_FORMAT,
            "tokenizer_config.json beside %s: added_tokens_decoder has the id \"%.40s\"; "
            "expected a whole number below %d",
            l->path, key, RT_TOK_ID_MAX);
    *out = (int32_t)id;
    return TP_OK;
}

/* tokenizer_config.json's {"id": {content, ...}}; NULL when it has none. */
static const tp_json *added_decoder(const loader *l)
{
    const tp_json *v = tp_json_get(l->t->config.json, "added_tokens_decoder");

    return is_kind(v, TP_JSON_OBJECT) ? v : NULL;
}

/* Counts entries and finds the largest id over everything that names tokens. */
static tp_status measure(const loader *l, int32_t *n_ids, size_t *n_entries)
{
    const tp_json *vocab = tp_json_get(l->model, "vocab");
    int32_t id, id_max = -1;

    if (!is_kind(vocab, TP_JSON_OBJECT) || tp_json_first(vocab) == NULL)
        return TP_FAIL(TP_ERR_FORMAT, "%s: model.vocab is missing or empty", l->path);
    *n_entries = 0;
    TP_JSON_EACH(v, vocab)
    {
        TP_TRY(read_id(l, v, tp_json_key(v), &id));
        id_max = id > id_max ? id : id_max;
        ++*n_entries;
    }
    TP_JSON_EACH(v, tp_json_get(l->root, "added_tokens"))
    {
        TP_TRY(read_id(l, tp_json_get(v, "id"), tp_json_get_string(v, "content", ""), &id));
        id_max = id > id_max ? id : id_max;
        ++*n_entries;
    }
    TP_JSON_EACH(v, added_decoder(l))
    {
        TP_TRY(read_key_id(l, tp_json_key(v), &id));
        id_max = id > id_max ? id : id_max;
        ++*n_entries;
    }
    if ((size_t)id_max > IDS_SPARE + IDS_PER_TOKEN * *n_entries)
        return TP_FAIL(TP_ERR_FORMAT,
                       "%s: the largest id is %d, but only %zu tokens are listed; expected ids "
                       "without large gaps",
                       l->path, id_max, *n_entries);
    *n_ids = id_max + 1;
    return TP_OK;
}

static tp_status load_vocab(loader *l)
{
    rt_vocab *v = &l->t->vocab;
    size_t n_entries = 0;
    int32_t n_ids = 0, id;

    TP_TRY(measure(l, &n_ids, &n_entries));
    TP_TRY(rt_vocab_init(v, n_ids, n_entries));
    TP_JSON_EACH(entry, tp_json_get(l->model, "vocab"))
    {
        const char *piece = tp_json_key(entry);

        TP_TRY(read_id(l, entry, piece, &id));
        if (v->tokens[id].piece != NULL)
            return TP_FAIL(TP_ERR_FORMAT, "%s: tokens \"%.80s\" and \"%.80s\" share the id %d",
                           l->path, v->tokens[id].piece, piece, id);
        if (rt_vocab_find_piece(v, piece, strlen(piece)) >= 0)
            return TP_FAIL(TP_ERR_FORMAT, "%s: token \"%.80s\" is listed twice in model.vocab",
                           l->path, piece);
        TP_TRY(rt_vocab_add(v, id, piece, 0, true));
    }
    return TP_OK;
}

/* Bytes that occur in UTF-8 and have no token. */
static int count_missing_bytes(const rt_vocab *v)
{
    int n = 0;

    for (int b = 0; b < 0xf5; b++)
        n += v->byte_id[b] < 0 && b != 0xc0 && b != 0xc1;
    return n;
}

/* What happens to bytes that have no token. */
static tp_status load_unknown(loader *l)
{
    rt_tokenizer *t = l->t;
    const char *unk = tp_json_get_string(l->model, "unk_token", NULL);
    int missing = count_missing_bytes(&t->vocab);

    t->bpe.unk_id = unk != NULL ? rt_vocab_find_piece(&t->vocab, unk, strlen(unk)) : -1;
    t->bpe.fuse_unk = tp_json_get_bool(l->model, "fuse_unk", false);
    t->bpe.ignore_merges = tp_json_get_bool(l->model, "ignore_merges", false);
    if (missing == 0)
        return TP_OK;
    if (tp_json_get_bool(l->model, "byte_fallback", false))
        return TP_FAIL(TP_ERR_UNSUPPORTED,
                       "%s: model.byte_fallback with a vocabulary that lacks %d bytes", l->path,
                       missing);
    if (unk != NULL && t->bpe.unk_id < 0)
        return TP_FAIL(TP_ERR_FORMAT, "%s: model.unk_token \"%.80s\" is not in the vocabulary",
                       l->path, unk);
    if (unk == NULL)
        tp_warn(RT_TOK_COMPONENT, "%s: %d bytes have no token; text loses them", l->path, missing);
    return TP_OK;
}

/* ---- merges ---- */

typedef struct word {
    const char *s;
    size_t n;
} word;

/* The two halves of a merge; *skip for a "#version" line of old files. */
static tp_status read_merge(const loader *l, const tp_json *v, size_t rank, word half[2],
                            bool *skip)
{
    const char *line = tp_json_string(v);
    const tp_json *first = tp_json_first(v), *second = first != NULL ? tp_json_next(first) : NULL;
    const char *a = tp_json_string(first), *b = tp_json_string(second);

    *skip = false;
    if (line != NULL) {
        const char *space = strchr(line, ' ');

        *skip = strncmp(line, "#version", 8) == 0;
        if (*skip)
            return TP_OK;
        if (space != NULL && strchr(space + 1, ' ') == NULL) {
            half[0] = (word){line, (size_t)(space - line)};
            half[1] = (word){space + 1, strlen(space + 1)};
            return TP_OK;
        }
    } else if (a != NULL && b != NULL && tp_json_next(second) == NULL) {
        half[0] = (word){a, strlen(a)};
        half[1] = (word){b, strlen(b)};
        return TP_OK;
    }
    return TP_FAIL(
        TP_ERR_FORMAT, "%s: merge %zu is%s%.80s; expected \"left right\" or [\"left\", \"right\"]",
        l->path, rank, line != NULL ? " " : " no pair of strings", line != NULL ? line : "");
}

static tp_status find_symbol(const loader *l, const char *s, size_t n, size_t rank, int32_t *out)
{
    *out = rt_vocab_find_piece(&l->t->vocab, s, n);
    if (*out < 0)
        return TP_FAIL(TP_ERR_FORMAT, "%s: merge %zu uses \"%.*s\", which is not in model.vocab",
                       l->path, rank, n < 80 ? (int)n : 80, s);
    return TP_OK;
}

static tp_status load_merges(loader *l)
{
    const tp_json *merges = tp_json_get(l->model, "merges");
    int32_t left, right, id;
    size_t rank = 0;

    if (!is_kind(merges, TP_JSON_ARRAY))
        return TP_FAIL(TP_ERR_FORMAT, "%s: model.merges is missing", l->path);
    TP_TRY(rt_merges_init(&l->t->bpe.merges, tp_json_count(merges)));
    TP_JSON_EACH(v, merges)
    {
        word half[2] = {0};
        bool skip;

        TP_TRY(read_merge(l, v, rank, half, &skip));
        if (skip)
            continue;
        TP_TRY(find_symbol(l, half[0].s, half[0].n, rank, &left));
        TP_TRY(find_symbol(l, half[1].s, half[1].n, rank, &right));
        tp_buf_reset(&l->text);
        tp_buf_put(&l->text, half[0].s, half[0].n);
        tp_buf_put(&l->text, half[1].s, half[1].n);
        if (l->text.failed)
            return TP_FAIL(TP_ERR_NOMEM, "%s: merges", l->path);
        TP_TRY(find_symbol(l, l->text.data, l->text.len, rank, &id));
        rt_merges_put(&l->t->bpe.merges, left, right, (uint32_t)rank++, id);
    }
    return TP_OK;
}

/* ---- added tokens ---- */

static tp_status add_to_trie(loader *l, const rt_added_token *token, int32_t index)
{
    rt_added *a = &l->t->added;
    size_t n = strlen(token->content);

    if (!token->normalized)
        return rt_added_insert(&a->raw, token->content, n, index);
    tp_buf_reset(&l->text);
    if (l->t->nfc)
        TP_TRY(rt_normalize_nfc(&l->text, token->content, n));
    else
        tp_buf_put(&l->text, token->content, n);
    if (l->text.failed)
        return TP_FAIL(TP_ERR_NOMEM, "%s: added tokens", l->path);
    return rt_added_insert(&a->normalized, l->text.data, l->text.len, index);
}

/* Enters one added token; `id` counts unless the vocabulary has its content under another. */
static tp_status add_token(loader *l, const tp_json *json, const char *content, int32_t id)
{
    rt_vocab *v = &l->t->vocab;
    rt_added *a = &l->t->added;
    bool special = tp_json_get_bool(json, "special", false);
    uint32_t flags = RT_TOKEN_ADDED | (special ? RT_TOKEN_SPECIAL : 0);
    int32_t known = rt_vocab_find_piece(v, content, strlen(content));
    rt_added_token *token = &a->tokens[a->n];

    if (known >= 0 && (v->tokens[known].flags & RT_TOKEN_ADDED) != 0)
        return TP_OK; /* listed twice: the first counts */
    if (known < 0 && v->tokens[id].piece != NULL)
        return TP_FAIL(TP_ERR_FORMAT, "%s: added token \"%.80s\" has the id %d of token \"%.80s\"",
                       l->path, content, id, v->tokens[id].piece);
    if (known >= 0 && known != id)
        tp_warn(RT_TOK_COMPONENT, "%s: added token \"%.80s\" has the id %d, in model.vocab %d",
                l->path, content, id, known);
    if (known >= 0)
        v->tokens[id = known].flags |= flags;
    else
        TP_TRY(rt_vocab_add(v, id, content, flags, false));
    *token = (rt_added_token){
        .content = v->tokens[id].piece,
        .id = id,
        .single_word = tp_json_get_bool(json, "single_word", false),
        .lstrip = tp_json_get_bool(json, "lstrip", false),
        .rstrip = tp_json_get_bool(json, "rstrip", false),
        .normalized = tp_json_get_bool(json, "normalized", !special),
    };
    TP_TRY(add_to_trie(l, token, (int32_t)a->n));
    a->n++;
    return TP_OK;
}

static tp_status load_added(loader *l)
{
    const tp_json *list = tp_json_get(l->root, "added_tokens");
    const tp_json *more = added_decoder(l);
    rt_vocab *v = &l->t->vocab;
    int32_t id;

    l->t->added.tokens =
        tp_calloc(tp_json_count(list) + tp_json_count(more) + 1, sizeof *l->t->added.tokens);
    if (l->t->added.tokens == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "%s: added tokens", l->path);
    TP_JSON_EACH(json, list)
    {
        const char *content = tp_json_get_string(json, "content", NULL);

        if (content == NULL)
            return TP_FAIL(TP_ERR_FORMAT, "%s: an added token has no content", l->path);
        TP_TRY(read_id(l, tp_json_get(json, "id"), content, &id));
        if (content[0] != '\0')
            TP_TRY(add_token(l, json, content, id));
    }
    TP_JSON_EACH(json, more)
    {
        const char *content = tp_json_get_string(json, "content", "");

        TP_TRY(read_key_id(l, tp_json_key(json), &id));
        if (content[0] != '\0' && v->tokens[id].piece == NULL &&
            rt_vocab_find_piece(v, content, strlen(content)) < 0)
            TP_TRY(add_token(l, json, content, id));
    }
    return TP_OK;
}

/* ---- post-processor ---- */

/* Puts n ids into a list: in front of it, or at its end. */
static tp_status put_ids(int32_t **list, size_t *n_list, const int32_t *ids, size_t n,
                         bool in_front)
{
    int32_t *grown = tp_realloc(*list, (*n_list + n + 1) * sizeof **list);

    if (grown == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "post_processor");
    if (in_front)
        memmove(grown + n, grown, *n_list * sizeof *grown);
    memcpy(grown + (in_front ? 0 : *n_list), ids, n * sizeof *ids);
    *list = grown;
    *n_list += n;
    return TP_OK;
}

/* Appends the ids that a template's special token stands for. */
static tp_status template_token(loader *l, const tp_json *json, const char *name, rt_tokens *out)
{
    const tp_json *ids = tp_json_get(tp_json_get(tp_json_get(json, "special_tokens"), name), "ids");
    int32_t id;

    if (tp_json_first(ids) == NULL)
        return TP_FAIL(TP_ERR_FORMAT, "%s: the post_processor does not say what \"%.80s\" is",
                       l->path, name);
    TP_JSON_EACH(v, ids)
    {
        TP_TRY(read_id(l, v, name, &id));
        if (rt_tokenizer_piece(l->t, id) == NULL)
            return TP_FAIL(TP_ERR_FORMAT, "%s: the post_processor's \"%.80s\" is %d, not a token",
                           l->path, name, id);
        TP_TRY(rt_tokens_reserve(out, 1));
        out->ids[out->n++] = id;
    }
    return TP_OK;
}

/* "single": special tokens around one {"Sequence": {"id": "A"}}. */
static tp_status read_template(loader *l, const tp_json *json, rt_tokens *before, rt_tokens *after)
{
    bool seen = false;

    TP_JSON_EACH(item, tp_json_get(json, "single"))
    {
        const char *name = tp_json_get_string(tp_json_get(item, "SpecialToken"), "id", NULL);
        const char *sequence = tp_json_get_string(tp_json_get(item, "Sequence"), "id", "");

        if (name != NULL) {
            TP_TRY(template_token(l, json, name, seen ? after : before));
        } else if (strcmp(sequence, "A") == 0 && !seen) {
            seen = true;
        } else {
            return TP_FAIL(TP_ERR_FORMAT,
                           "%s: the post_processor's template holds something else "
                           "than special tokens and the text once",
                           l->path);
        }
    }
    if (!seen)
        return TP_FAIL(TP_ERR_FORMAT, "%s: the post_processor's template leaves out the text",
                       l->path);
    return TP_OK;
}

static tp_status load_template(loader *l, const tp_json *json)
{
    rt_tokens before = {0}, after = {0};
    rt_tokenizer *t = l->t;
    tp_status st = read_template(l, json, &before, &after);

    if (st == TP_OK && before.n > 0)
        st = put_ids(&t->prefix, &t->n_prefix, before.ids, before.n, true);
    if (st == TP_OK && after.n > 0)
        st = put_ids(&t->suffix, &t->n_suffix, after.ids, after.n, false);
    rt_tokens_release(&before);
    rt_tokens_release(&after);
    return st;
}

static tp_status load_post_processor(loader *l, const tp_json *json) /* NOLINT(misc-no-recursion) */
{
    if (tp_json_is_null(json) || is_type(json, "ByteLevel")) /* the latter trims offsets only */
        return TP_OK;
    if (is_type(json, "TemplateProcessing"))
        return load_template(l, json);
    if (is_type(json, "Sequence")) {
        TP_JSON_EACH(step, tp_json_get(json, "processors"))
        TP_TRY(load_post_processor(l, step));
        return TP_OK;
    }
    return TP_FAIL(TP_ERR_UNSUPPORTED, "%s: post_processor \"%s\" is not supported", l->path,
                   type_of(json));
}

/* add_bos_token of tokenizer_config.json counts where the post-processor adds no BOS. */
static void load_bos(loader *l)
{
    rt_tokenizer *t = l->t;
    int32_t id = t->config.bos != NULL ? rt_tokenizer_find(t, t->config.bos) : -1;

    t->bos_id = -1;
    if (!t->config.add_bos)
        return;
    if (id < 0)
        tp_warn(RT_TOK_COMPONENT, "add_bos_token is set, but bos_token \"%.80s\" is no token",
                t->config.bos != NULL ? t->config.bos : "");
    for (size_t i = 0; i < t->n_prefix; i++) {
        if (t->prefix[i] == id)
            return;
    }
    t->bos_id = id;
}

/* ---- the whole ---- */

static tp_status build(loader *l)
{
    if (tp_json_kind(l->root) != TP_JSON_OBJECT)
        return TP_FAIL(TP_ERR_FORMAT, "%s: expected an object, found %s", l->path,
                       tp_json_kind_name(tp_json_kind(l->root)));
    l->model = tp_json_get(l->root, "model");
    TP_TRY(check_model(l));
    TP_TRY(load_normalizer(l, tp_json_get(l->root, "normalizer")));
    TP_TRY(rt_pretok_create(&l->t->pretok, tp_json_get(l->root, "pre_tokenizer"), l->path));
    TP_TRY(check_decoder(l, tp_json_get(l->root, "decoder")));
    TP_TRY(load_vocab(l));
    TP_TRY(load_unknown(l));
    TP_TRY(load_merges(l));
    TP_TRY(load_added(l));
    TP_TRY(load_post_processor(l, tp_json_get(l->root, "post_processor")));
    load_bos(l);
    return TP_OK;
}

static tp_status load_files(rt_tokenizer *t, const char *model_dir, const char *path)
{
    const tp_json_limits limits = {.allow_duplicate_keys = true, .allow_nul = true};
    loader l = {.t = t, .path = path};
    tp_json *root = NULL;
    tp_status st;

    if (access(path, F_OK) != 0 && errno == ENOENT)
        return TP_FAIL(
            TP_ERR_NOT_FOUND,
            "%s is missing: a model directory needs the tokenizer.json that Hugging Face "
            "tokenizers write (tokenizer.model or vocab.txt alone are not read)",
            path);
    TP_TRY(rt_tok_config_load(&t->config, model_dir));
    TP_TRY(tp_json_parse_file(&root, path, FILE_BYTES_MAX, &limits));
    tp_buf_init(&l.text, FILE_BYTES_MAX);
    l.root = root;
    st = build(&l);
    tp_buf_release(&l.text);
    tp_json_free(root);
    tp_json_free(t->config.json);
    t->config.json = NULL;
    return st;
}

tp_status rt_tokenizer_load(rt_tokenizer **out, const char *model_dir)
{
    int64_t start = tp_now_ns();
    rt_tokenizer *t = tp_calloc(1, sizeof *t);
    tp_buf path;
    tp_status st;

    tp_buf_init(&path, SIZE_MAX - 1);
    tp_buf_printf(&path, "%s/tokenizer.json", model_dir);
    if (t == NULL || path.failed)
        st = TP_FAIL(TP_ERR_NOMEM, "load the tokenizer of %s", model_dir);
    else
        st = load_files(t, model_dir, path.data);
    tp_buf_release(&path);
    if (st != TP_OK) {
        rt_tokenizer_destroy(t);
        return st;
    }
    tp_debug(RT_TOK_COMPONENT, "%d ids, %u merges, %zu added tokens, read in %lld ms",
             t->vocab.n_tokens, t->bpe.merges.n, t->added.n,
             (long long)((tp_now_ns() - start) / TP_NS_PER_MS));
    *out = t;
    return TP_OK;
}
