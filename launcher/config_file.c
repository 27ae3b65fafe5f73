/* SPDX-License-Identifier: Apache-2.0 */
/* config_file.c - the YAML file of --config: one mapping of flag names to scalars or lists of scalars; what the
 * command line takes as a JSON object may be a mapping. */
#include <errno.h>
#include <string.h>
#include <yaml.h>

#include "base/buf.h"
#include "base/json.h"
#include "launcher/options.h"

#define JSON_MAX ((size_t)1 << 16)

/* Errors of launch_set name the flag; here they get their place too. */
static tp_status set_text(launch_parser *p, const launch_row *row, const char *text,
                          const yaml_node_t *value, const char *path)
{
    tp_status st = launch_set(p, row, text, LAUNCH_FROM_FILE);

    if (st == TP_OK)
        return TP_OK;
    return TP_REJECT(st, "%s:%zu: %s", path, value->start_mark.line + 1, tp_last_error());
}

static tp_status set_value(launch_parser *p, const launch_row *row, const yaml_node_t *value,
                           const char *path)
{
    return set_text(p, row, (const char *)value->data.scalar.value, value, path);
}

/* A plain scalar that JSON knows is what it looks like, all others are strings. */
static void put_scalar(tp_buf *b, const yaml_node_t *v)
{
    const char *text = (const char *)v->data.scalar.value;
    tp_json *json = NULL;

    if (v->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
        tp_json_parse(&json, text, strlen(text), NULL) == TP_OK)
        tp_buf_puts(b, text);
    else
        tp_json_put_cstring(b, text);
    tp_json_free(json);
}

static bool put_mapping(tp_buf *b, yaml_document_t *doc, const yaml_node_t *map)
{
    const yaml_node_pair_t *pair = map->data.mapping.pairs.start;

    tp_buf_putc(b, '{');
    for (; pair < map->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = yaml_document_get_node(doc, pair->key);
        const yaml_node_t *value = yaml_document_get_node(doc, pair->value);

        if (key->type != YAML_SCALAR_NODE || value->type != YAML_SCALAR_NODE)
            return false;
        tp_buf_puts(b, b->len > 1 ? "," : "");
        tp_json_put_cstring(b, (const char *)key->data.scalar.value);
        tp_buf_putc(b, ':');
        put_scalar(b, value);
    }
    tp_buf_putc(b, '}');
    return !b->failed;
}

static tp_status set_mapping(launch_parser *p, yaml_document_t *doc, const launch_row *row,
                             const yaml_node_t *map, const char *path)
{
    tp_status st;
    tp_buf b;

    tp_buf_init(&b, JSON_MAX);
    st = put_mapping(&b, doc, map)
             ? set_text(p, row, tp_buf_str(&b), map, path)
             : TP_REJECT(TP_ERR_INVALID, "%s:%zu: %s: expected plain values in the mapping", path,
                         map->start_mark.line + 1, row->name);
    tp_buf_release(&b);
    return st;
}

static tp_status set_node(launch_parser *p, yaml_document_t *doc, const launch_row *row,
                          const yaml_node_t *value, const char *path)
{
    if (value->type == YAML_SCALAR_NODE) {
        const char *text = (const char *)value->data.scalar.value;

        if (value->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
            (*text == '\0' || strcmp(text, "null") == 0 || strcmp(text, "~") == 0))
            return TP_OK;
        return set_value(p, row, value, path);
    }
    if (value->type == YAML_MAPPING_NODE && strcmp(row->name, "speculative-config") == 0)
        return set_mapping(p, doc, row, value, path);
    if (value->type != YAML_SEQUENCE_NODE || row->type != LAUNCH_TYPE_LIST)
        return TP_REJECT(TP_ERR_INVALID, "%s:%zu: %s: expected a single value", path,
                         value->start_mark.line + 1, row->name);
    for (const yaml_node_item_t *i = value->data.sequence.items.start;
         i < value->data.sequence.items.top; i++) {
        const yaml_node_t *item = yaml_document_get_node(doc, *i);

        if (item->type != YAML_SCALAR_NODE)
            return TP_REJECT(TP_ERR_INVALID, "%s:%zu: %s: expected a list of plain values", path,
                             item->start_mark.line + 1, row->name);
        TP_TRY(set_value(p, row, item, path));
    }
    return TP_OK;
}

static tp_status unknown_key(const char *path, const yaml_node_t *key)
{
    const char *name = (const char *)key->data.scalar.value;
    const char *nearest = launch_nearest(name, strlen(name));

    return TP_REJECT(TP_ERR_INVALID, "%s:%zu: unknown option \"%s\"%s%s%s", path,
                     key->start_mark.line + 1, name, nearest != NULL ? "; did you mean \"" : "",
                     nearest != NULL ? nearest : "", nearest != NULL ? "\"?" : "");
}

static tp_status set_pairs(launch_parser *p, yaml_document_t *doc, const char *path)
{
    const yaml_node_t *root = yaml_document_get_root_node(doc);

    if (root == NULL)
        return TP_OK;
    if (root->type != YAML_MAPPING_NODE)
        return TP_REJECT(TP_ERR_INVALID, "%s: expected a mapping of option names to values", path);
    for (const yaml_node_pair_t *pair = root->data.mapping.pairs.start;
         pair < root->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = yaml_document_get_node(doc, pair->key);
        const yaml_node_t *value = yaml_document_get_node(doc, pair->value);
        const char *name;
        const launch_row *row;

        if (key->type != YAML_SCALAR_NODE)
            return TP_REJECT(TP_ERR_INVALID, "%s:%zu: expected an option name", path,
                             key->start_mark.line + 1);
        name = (const char *)key->data.scalar.value;
        row = launch_find(name, strlen(name));
        if (row == NULL)
            return unknown_key(path, key);
        TP_TRY(set_node(p, doc, row, value, path));
    }
    return TP_OK;
}

tp_status launch_read_file(launch_parser *p, const char *path)
{
    yaml_parser_t parser;
    yaml_document_t doc;
    tp_status st;
    FILE *f = fopen(path, "rb");

    if (f == NULL)
        return TP_REJECT(TP_ERR_NOT_FOUND, "--config %s: %s", path, strerror(errno));
    if (!yaml_parser_initialize(&parser)) {
        fclose(f);
        return TP_REJECT(TP_ERR_NOMEM, "--config %s: out of memory", path);
    }
    yaml_parser_set_input_file(&parser, f);
    if (yaml_parser_load(&parser, &doc)) {
        st = set_pairs(p, &doc, path);
        yaml_document_delete(&doc);
    } else {
        st = TP_REJECT(TP_ERR_FORMAT, "%s:%zu: %s", path, parser.problem_mark.line + 1,
                       parser.problem != NULL ? parser.problem : "not YAML");
    }
    yaml_parser_delete(&parser);
    fclose(f);
    return st;
}
