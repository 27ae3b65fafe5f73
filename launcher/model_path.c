/* SPDX-License-Identifier: Apache-2.0 */
/* model_path.c - see model_path.h for the order of the search.
 *
 * aliases.yaml is a mapping of alias to directory (relative to the file) or Hub id:
 *     72b: Qwen/Qwen2.5-72B-Instruct
 *     small: ../models/qwen-0.5b
 * The Hugging Face cache keeps models--ORG--NAME/refs/main (a commit) and models--ORG--NAME/snapshots/COMMIT/.
 */
#include "launcher/model_path.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yaml.h>

#include "base/buf.h"
#include "base/log.h"

#define ALIAS_HOPS_MAX 4

typedef struct search {
    tp_buf tried; /* the places, with commas between them */
    char *out;    /* [LAUNCH_PATH_MAX] */
    const launch_options *opt;
} search;

/* Short names that people type, for the cache search; an aliases file says more. */
static const struct {
    const char *alias, *hub_id;
} k_well_known[] = {
    {"72b", "Qwen/Qwen2.5-72B-Instruct"},       {"32b", "Qwen/Qwen2.5-32B-Instruct"},
    {"14b", "Qwen/Qwen2.5-14B-Instruct"},       {"7b", "Qwen/Qwen2.5-7B-Instruct"},
    {"3b", "Qwen/Qwen2.5-3B-Instruct"},         {"1.5b", "Qwen/Qwen2.5-1.5B-Instruct"},
    {"0.5b", "Qwen/Qwen2.5-0.5B-Instruct"},     {"70b", "meta-llama/Llama-3.3-70B-Instruct"},
    {"8b", "meta-llama/Llama-3.1-8B-Instruct"},
};

static void add_tried(search *s, const char *dir, const char *file)
{
    tp_buf_printf(&s->tried, "%s%s/%s", s->tried.len > 0 ? ", " : "", dir, file);
}

/* True when path/config.json is there; then it is the answer. */
static bool try_directory(search *s, const char *path)
{
    char file[LAUNCH_PATH_MAX + 16];

    if (strlen(path) >= LAUNCH_PATH_MAX)
        return false;
    snprintf(file, sizeof file, "%s/config.json", path);
    if (access(file, R_OK) == 0) {
        snprintf(s->out, LAUNCH_PATH_MAX, "%s", path);
        return true;
    }
    add_tried(s, path, errno == EACCES ? "config.json (permission denied)" : "config.json");
    return false;
}

static bool try_joined(search *s, const char *dir, const char *name)
{
    char path[LAUNCH_PATH_MAX];

    return snprintf(path, sizeof path, "%s/%s", dir, name) < (int)sizeof path &&
           try_directory(s, path);
}

/* ---- the Hugging Face cache ---- */

static bool try_cached_commit(search *s, const char *repo_dir, const char *commit)
{
    char path[LAUNCH_PATH_MAX];

    return snprintf(path, sizeof path, "%s/snapshots/%s", repo_dir, commit) < (int)sizeof path &&
           try_directory(s, path);
}

static bool try_cache(search *s, const char *hub_dir, const char *id)
{
    char repo[LAUNCH_PATH_MAX], refs[LAUNCH_PATH_MAX + 16];
    const char *slash = strchr(id, '/');
    tp_buf commit;
    bool found = false;

    if (slash == NULL || slash == id || strchr(slash + 1, '/') != NULL ||
        strstr(id, "..") != NULL ||
        snprintf(repo, sizeof repo, "%s/models--%.*s--%s", hub_dir, (int)(slash - id), id,
                 slash + 1) >= (int)sizeof repo)
        return false;
    snprintf(refs, sizeof refs, "%s/refs/main", repo);
    if (access(refs, R_OK) != 0) {
        add_tried(s, repo, "refs/main");
        return false;
    }
    tp_buf_init(&commit, 256);
    if (tp_buf_read_file(&commit, refs, 256) == TP_OK) {
        size_t len = strcspn(tp_buf_str(&commit), "\r\n ");

        if (commit.data != NULL)
            commit.data[len] = '\0';
        found = len > 0 && try_cached_commit(s, repo, commit.data);
    }
    tp_buf_release(&commit);
    return found;
}

static bool try_caches(search *s, const char *id)
{
    const char *cache = getenv("HF_HUB_CACHE"), *home = getenv("HF_HOME"), *user = getenv("HOME");
    char path[LAUNCH_PATH_MAX];

    if (cache != NULL && *cache != '\0')
        return try_cache(s, cache, id);
    if (home != NULL && *home != '\0')
        snprintf(path, sizeof path, "%s/hub", home);
    else
        snprintf(path, sizeof path, "%s/.cache/huggingface/hub", user != NULL ? user : "");
    return try_cache(s, path, id);
}

/* ---- aliases ---- */

/* The scalar that `key` maps to in the document's root; NULL when there is none. */
static const char *mapped_text(yaml_document_t *doc, const char *key)
{
    const yaml_node_t *root = yaml_document_get_root_node(doc);

    if (root == NULL || root->type != YAML_MAPPING_NODE)
        return NULL;
    for (const yaml_node_pair_t *p = root->data.mapping.pairs.start;
         p < root->data.mapping.pairs.top; p++) {
        const yaml_node_t *k = yaml_document_get_node(doc, p->key);
        const yaml_node_t *v = yaml_document_get_node(doc, p->value);

        if (k->type == YAML_SCALAR_NODE && v->type == YAML_SCALAR_NODE &&
            strcmp((const char *)k->data.scalar.value, key) == 0)
            return (const char *)v->data.scalar.value;
    }
    return NULL;
}

/* A file that is not YAML is named and skipped. */
static void read_alias_from(FILE *f, const char *path, const char *key, char out[LAUNCH_PATH_MAX])
{
    yaml_parser_t parser;
    yaml_document_t doc;

    if (!yaml_parser_initialize(&parser))
        return;
    yaml_parser_set_input_file(&parser, f);
    if (yaml_parser_load(&parser, &doc)) {
        const char *text = mapped_text(&doc, key);

        if (text != NULL && strlen(text) < LAUNCH_PATH_MAX)
            memcpy(out, text, strlen(text) + 1);
        yaml_document_delete(&doc);
    } else {
        tp_warn("launcher", "%s:%zu: %s: its aliases are not known", path,
                parser.problem_mark.line + 1, parser.problem != NULL ? parser.problem : "not YAML");
    }
    yaml_parser_delete(&parser);
}

/* The value of `key` in DIR/aliases.yaml, "" when there is none. */
static void read_alias(const char *dir, const char *key, char out[LAUNCH_PATH_MAX])
{
    char path[LAUNCH_PATH_MAX];
    FILE *f = NULL;

    out[0] = '\0';
    if (snprintf(path, sizeof path, "%s/aliases.yaml", dir) < (int)sizeof path)
        f = fopen(path, "rb");
    if (f == NULL)
        return;
    read_alias_from(f, path, key, out);
    fclose(f);
}

static bool find(search *s, const char *name, int hops);

static bool try_model_path(search *s, const char *dir, const char *name, int hops)
{
    char target[LAUNCH_PATH_MAX];

    read_alias(dir, name, target);
    if (target[0] == '\0')
        add_tried(s, dir, "aliases.yaml");
    else if (target[0] == '/' ? try_directory(s, target)
                              : try_joined(s, dir, target) || find(s, target, hops + 1))
        return true;
    return try_joined(s, dir, name);
}

/* The models that come with the program: ../models of the build tree, ../share/tpserve/models once installed. */
static bool try_beside_program(search *s, const char *name)
{
    static const char *const k_places[] = {"../models", "../share/tpserve/models"};
    char exe[LAUNCH_PATH_MAX], dir[LAUNCH_PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    char *slash;

    if (n <= 0)
        return false;
    exe[n] = '\0';
    slash = strrchr(exe, '/');
    if (slash == NULL)
        return false;
    *slash = '\0';
    for (size_t i = 0; i < TP_ARRAY_LEN(k_places); i++)
        if (snprintf(dir, sizeof dir, "%s/%s", exe, k_places[i]) < (int)sizeof dir &&
            try_joined(s, dir, name))
            return true;
    return false;
}

/* Recursion is bounded by ALIAS_HOPS_MAX: an alias may name another alias. */
static bool find(search *s, const char *name, int hops)
{
    if (hops >= ALIAS_HOPS_MAX)
        return false;
    if (hops == 0 && try_directory(s, name))
        return true;
    for (int i = 0; i < s->opt->model_path.n; i++)
        if (try_model_path(s, s->opt->model_path.items[i], name, hops))
            return true;
    if (strchr(name, '/') == NULL && try_beside_program(s, name))
        return true;
    for (size_t i = 0; i < TP_ARRAY_LEN(k_well_known); i++)
        if (strcasecmp(k_well_known[i].alias, name) == 0)
            return try_caches(s, k_well_known[i].hub_id);
    return try_caches(s, name);
}

tp_status launch_need_model(const launch_options *opt)
{
    if (opt->model == NULL || opt->model[0] == '\0')
        return TP_REJECT(TP_ERR_INVALID,
                         "no model given: tpserve --model DIRECTORY, a Hub id in the "
                         "local cache, or an alias such as demo");
    return TP_OK;
}

tp_status launch_find_model(char out[LAUNCH_PATH_MAX], const launch_options *opt)
{
    search s = {.out = out, .opt = opt};
    tp_status st = TP_OK;

    TP_TRY(launch_need_model(opt));
    tp_buf_init(&s.tried, 64 * 1024);
    if (!find(&s, opt->model, 0))
        st = TP_REJECT(
            TP_ERR_NOT_FOUND,
            "no model \"%s\": expected a directory with config.json, an alias or directory "
            "under --model-path or TPSERVE_MODELS, or a Hub id in the local cache; looked "
            "for %s",
            opt->model, tp_buf_str(&s.tried));
    tp_buf_release(&s.tried);
    return st;
}
