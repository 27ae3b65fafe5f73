/* SPDX-License-Identifier: Apache-2.0 */
/* options.c - values from text, and the three sources in their order.
 *
 * The command line is read twice: once for --config alone, so that the file and the environment can be applied below
 * it, then in full.
 */
#include "launcher/options.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "launcher/speculative.h"

#define NAME_MAX_LEN 40 /* letters of an option's name */

static bool same_name(const char *row_name, const char *name, size_t len)
{
    size_t i;

    for (i = 0; i < len && row_name[i] != '\0'; i++)
        if (row_name[i] != (name[i] == '_' ? '-' : name[i]))
            return false;
    return i == len && row_name[i] == '\0';
}

const launch_row *launch_find(const char *name, size_t len)
{
    for (int i = 0; i < launch_n_rows; i++) {
        const launch_row *r = &launch_rows[i];

        if (same_name(r->name, name, len) || (r->alias != NULL && same_name(r->alias, name, len)))
            return r;
    }
    return NULL;
}

/* How many letters of a must be added, removed or changed to get b: Levenshtein's table, one row at a time. */
static size_t edit_distance(const char *a, size_t a_len, const char *b)
{
    size_t row[NAME_MAX_LEN + 1], b_len = strlen(b);

    TP_ASSERT(b_len <= NAME_MAX_LEN);
    for (size_t j = 0; j <= b_len; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        size_t diagonal = row[0];

        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t change = diagonal + (a[i - 1] != b[j - 1]);
            size_t step = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;

            diagonal = row[j];
            row[j] = change < step ? change : step;
        }
    }
    return row[b_len];
}

const char *launch_nearest(const char *name, size_t len)
{
    size_t best = len < 2 ? len : 2 + len / 4; /* as many changes or more would be a guess */
    const char *found = NULL;

    for (int i = 0; i < launch_n_rows && len <= 2 * NAME_MAX_LEN; i++) { /* else: no misspelling */
        const launch_row *r = &launch_rows[i];
        size_t d;

        if ((r->flags & LAUNCH_HIDDEN) != 0)
            continue;
        d = edit_distance(name, len, r->name);
        if (r->alias != NULL && edit_distance(name, len, r->alias) < d)
            d = edit_distance(name, len, r->alias);
        if (d < best) {
            best = d;
            found = r->name;
        }
    }
    return found;
}

/* ---- values ---- */

static tp_status bad_value(const launch_row *row, const char *value, const char *expected)
{
    return TP_REJECT(TP_ERR_INVALID, "--%s: expected %s, found \"%s\"", row->name, expected,
                     row->flags & LAUNCH_SECRET ? "..." : value);
}

static tp_status range_error(const launch_row *row, const char *value)
{
    return TP_REJECT(TP_ERR_INVALID, "--%s: expected %.16g to %.16g, found \"%s\"", row->name,
                     row->min, row->max, value);
}

/* Factor of a suffix: bytes know K M G T (1024), KB ... (1000), KiB ...; numbers know k (1000) and K (1024). */
static double suffix_factor(const char *s, bool bytes)
{
    static const char k_units[] = "KMGT";
    const char *unit;
    double base = 1024, factor = 1;

    if (*s == '\0' || (bytes && strcasecmp(s, "b") == 0))
        return 1;
    unit = strchr(k_units, toupper((unsigned char)*s));
    if (unit == NULL || *unit == '\0')
        return 0;
    if (bytes && strcasecmp(s + 1, "b") == 0)
        base = 1000;
    else if (!bytes && s[1] == '\0' && islower((unsigned char)*s))
        base = 1000;
    else if (s[1] != '\0' && strcasecmp(s + 1, "ib") != 0)
        return 0;
    for (const char *u = k_units; u <= unit; u++)
        factor *= base;
    return factor;
}

static tp_status parse_number(const launch_row *row, const char *value, double *out)
{
    bool real = row->type == LAUNCH_TYPE_REAL;
    double factor, v;
    char *end;

    errno = 0;
    v = strtod(value, &end);
    if (end == value || errno != 0 || !isfinite(v))
        return bad_value(row, value, real ? "a number" : "a whole number");
    factor = real ? (*end == '\0' ? 1 : 0) : suffix_factor(end, row->type == LAUNCH_TYPE_BYTES);
    if (factor == 0 || (!real && v * factor != floor(v * factor)))
        return bad_value(row, value,
                         row->type == LAUNCH_TYPE_BYTES ? "a size such as 4GiB, 512M or 1000000"
                         : real                         ? "a number"
                                                        : "a whole number such as 8192 or 8k");
    *out = v * factor;
    return *out < row->min || *out > row->max ? range_error(row, value) : TP_OK;
}

static bool is_word(const char *words, const char *value)
{
    size_t len = strlen(value);

    for (const char *w = words; w != NULL; w = strchr(w, '|') ? strchr(w, '|') + 1 : NULL)
        if (strncmp(w, value, len) == 0 && (w[len] == '|' || w[len] == '\0') && len > 0)
            return true;
    return false;
}

static tp_status parse_bool(const launch_row *row, const char *value, bool *out)
{
    if (strcasecmp(value, "true") == 0 || strcmp(value, "1") == 0 || strcasecmp(value, "yes") == 0)
        *out = true;
    else if (strcasecmp(value, "false") == 0 || strcmp(value, "0") == 0 ||
             strcasecmp(value, "no") == 0)
        *out = false;
    else
        return bad_value(row, value, "true or false");
    return TP_OK;
}

static tp_status append(launch_parser *p, const launch_row *row, launch_list *list,
                        const char *value, launch_origin origin)
{
    if (p->origin[row - launch_rows] != origin)
        list->n = 0; /* a stronger source replaces the whole list */
    if (list->n == LAUNCH_LIST_MAX)
        return TP_REJECT(TP_ERR_INVALID, "--%s: more than %d values", row->name, LAUNCH_LIST_MAX);
    list->items[list->n++] = value;
    return TP_OK;
}

tp_status launch_set(launch_parser *p, const launch_row *row, const char *value,
                     launch_origin origin)
{
    char *field = (char *)&p->opt + row->offset;
    char *text = tp_arena_strndup(&p->arena, value, strlen(value));
    double number;

    if (text == NULL)
        return TP_REJECT(TP_ERR_NOMEM, "out of memory for options");
    switch (row->type) {
    case LAUNCH_TYPE_WORD:
        if (!is_word(row->words, value))
            return bad_value(row, value, row->words);
        memcpy(field, &text, sizeof text);
        break;
    case LAUNCH_TYPE_STRING: memcpy(field, &text, sizeof text); break;
    case LAUNCH_TYPE_LIST:
        if (*value == '\0')
            return bad_value(row, value, "a value that is not empty");
        TP_TRY(append(p, row, (launch_list *)(void *)field, text, origin));
        break;
    case LAUNCH_TYPE_BOOL: TP_TRY(parse_bool(row, value, (bool *)field)); break;
    case LAUNCH_TYPE_INT:
    case LAUNCH_TYPE_BYTES:
        TP_TRY(parse_number(row, value, &number));
        memcpy(field, &(int64_t){(int64_t)number}, sizeof(int64_t));
        break;
    case LAUNCH_TYPE_REAL:
        TP_TRY(parse_number(row, value, &number));
        memcpy(field, &number, sizeof number);
        break;
    }
    p->origin[row - launch_rows] = origin;
    if ((row->flags & LAUNCH_IGNORED) != 0)
        tp_info("options", "--%s is accepted but has no effect here", row->name);
    return TP_OK;
}

/* ---- sources ---- */

static tp_status apply_defaults(launch_parser *p)
{
    for (int i = 0; i < launch_n_rows; i++)
        if (launch_rows[i].dflt != NULL)
            TP_TRY(launch_set(p, &launch_rows[i], launch_rows[i].dflt, LAUNCH_FROM_DEFAULT));
    return TP_OK;
}

/* Kubernetes gives every pod TPSERVE_PORT=tcp://10.0.0.1:8000 when a Service is called "tpserve". */
static bool is_service_link(const char *value)
{
    return strncmp(value, "tcp://", 6) == 0 || strncmp(value, "udp://", 6) == 0;
}

/* A variable's value; of a list, one item per part between separators. */
static tp_status set_items(launch_parser *p, const launch_row *row, const char *value,
                           const char *separators)
{
    if (row->type != LAUNCH_TYPE_LIST)
        return launch_set(p, row, value, LAUNCH_FROM_ENV);
    while (*value != '\0') {
        size_t n = strcspn(value, separators);
        char *item = tp_arena_strndup(&p->arena, value, n);

        if (item == NULL)
            return TP_REJECT(TP_ERR_NOMEM, "out of memory for options");
        if (n > 0)
            TP_TRY(launch_set(p, row, item, LAUNCH_FROM_ENV));
        value += n + (value[n] != '\0');
    }
    return TP_OK;
}

static tp_status apply_environment(launch_parser *p)
{
    const char *models = getenv("TPSERVE_MODELS");

    for (int i = 0; i < launch_n_rows; i++) {
        char name[64] = "TPSERVE_";
        size_t n = strlen(name);
        const char *value;

        for (const char *s = launch_rows[i].name; *s != '\0' && n + 1 < sizeof name; s++)
            name[n++] = *s == '-' ? '_' : (char)toupper((unsigned char)*s);
        name[n] = '\0';
        value = getenv(name);
        if (value != NULL && *value != '\0' && !is_service_link(value))
            TP_TRY(set_items(p, &launch_rows[i], value, "\n"));
    }
    return models != NULL ? set_items(p, launch_find("model-path", 10), models, ":") : TP_OK;
}

/* arg: as it was given, with its dashes; name: behind them. */
static tp_status unknown_flag(const char *arg, const char *name, size_t len)
{
    const char *nearest = launch_nearest(name, len);
    int shown = (int)(name - arg + (ptrdiff_t)len);

    if (nearest != NULL)
        return TP_REJECT(TP_ERR_INVALID, "unknown option %.*s; did you mean --%s?", shown, arg,
                         nearest);
    return TP_REJECT(TP_ERR_INVALID, "unknown option %.*s: tpserve --help lists them all", shown,
                     arg);
}

/* One flag at argv[*i]; moves *i past its value.  only: NULL, or the one row that this pass is about. */
static tp_status apply_flag(launch_parser *p, int argc, char **argv, int *i, const launch_row *only)
{
    char *arg = argv[*i];
    char *name = arg + (arg[1] == '-' ? 2 : 1);
    size_t len = strcspn(name, "=");
    const launch_row *row = launch_find(name, len);
    const char *value = name[len] == '=' ? name + len + 1 : NULL;
    bool negated = false;

    if (row == NULL && strncmp(name, "no-", 3) == 0) {
        row = launch_find(name + 3, len - 3);
        negated = row != NULL && row->type == LAUNCH_TYPE_BOOL;
        row = negated ? row : NULL;
    }
    if (row == NULL)
        return unknown_flag(arg, name, len);
    if (row->type == LAUNCH_TYPE_BOOL && value == NULL) {
        value = negated ? "false" : "true";
    } else if (value == NULL && (row->flags & LAUNCH_BARE) != 0 &&
               (*i + 1 >= argc || argv[*i + 1][0] == '-')) {
        value = row->dflt;
        p->opt.host_is_bare |= row->offset == offsetof(launch_options, host);
    } else if (value == NULL) {
        if (*i + 1 >= argc)
            return TP_REJECT(TP_ERR_INVALID, "--%s needs a value", row->name);
        value = argv[++*i];
    }
    if (only != NULL && row != only)
        return TP_OK;
    TP_TRY(launch_set(p, row, value, LAUNCH_FROM_CLI));
    if (only == NULL && (row->flags & LAUNCH_SECRET) != 0)
        memset(argv[*i] + strlen(argv[*i]) - strlen(value), '*', strlen(value));
    return TP_OK;
}

static bool take_command(launch_parser *p, const char *word)
{
    static const struct {
        const char *word;
        launch_command command;
    } k_words[] = {
        {"serve", LAUNCH_SERVE},       {"inspect", LAUNCH_INSPECT}, {"plan", LAUNCH_PLAN},
        {"doctor", LAUNCH_DOCTOR},     {"bench", LAUNCH_BENCH},     {"version", LAUNCH_VERSION},
        {"--version", LAUNCH_VERSION}, /* no row: the environment may well hold a TPSERVE_VERSION */
    };

    for (size_t i = 0; i < TP_ARRAY_LEN(k_words); i++) {
        if (strcmp(word, k_words[i].word) == 0) {
            p->opt.command = k_words[i].command;
            p->opt.command_is_given = true;
            return true;
        }
    }
    return false;
}

static tp_status apply_command_line(launch_parser *p, int argc, char **argv, const launch_row *only)
{
    const char *word = NULL; /* the model without its flag */

    for (int i = 1; i < argc; i++) {
        if (i == 1 && take_command(p, argv[i])) {
            continue;
        } else if (argv[i][0] == '-' && argv[i][1] != '\0') {
            TP_TRY(apply_flag(p, argc, argv, &i, only));
        } else if (only == NULL && word != NULL) {
            return TP_REJECT(TP_ERR_INVALID, "unexpected argument \"%s\"", argv[i]);
        } else if (only == NULL) {
            word = argv[i];
        }
    }
    if (word == NULL)
        return TP_OK;
    if (p->origin[launch_find("model", 5) - launch_rows] == LAUNCH_FROM_CLI)
        return TP_REJECT(TP_ERR_INVALID, "unexpected argument \"%s\": the model is --model %s",
                         word, p->opt.model);
    return launch_set(p, launch_find("model", 5), word, LAUNCH_FROM_CLI);
}

/* Options of the tools are told from those of the server, so that nobody believes them to have an effect. */
static tp_status check_command(const launch_parser *p)
{
    bool serves = p->opt.command == LAUNCH_SERVE;

    for (int i = 0; i < launch_n_rows && (serves || p->opt.command == LAUNCH_INSPECT); i++)
        if ((launch_rows[i].flags & LAUNCH_FOR(LAUNCH_SERVE)) == 0 &&
            p->origin[i] == LAUNCH_FROM_CLI)
            return TP_REJECT(TP_ERR_INVALID,
                             "--%s is an option of tpserve plan, doctor or bench, not of %s",
                             launch_rows[i].name, serves ? "a server" : "inspect");
    if (p->opt.host_is_bare && p->opt.command != LAUNCH_BENCH)
        return TP_REJECT(TP_ERR_INVALID, "--host needs a value");
    return TP_OK;
}

/* Puts n in its place among the sizes; false when there is no room. */
static bool add_capture_size(launch_options *o, int n)
{
    int at = o->n_capture_sizes;

    while (at > 0 && o->capture_sizes[at - 1] >= n)
        at--;
    if (at < o->n_capture_sizes && o->capture_sizes[at] == n)
        return true;
    if (o->n_capture_sizes == LAUNCH_CAPTURES_MAX)
        return false;
    memmove(&o->capture_sizes[at + 1], &o->capture_sizes[at],
            (size_t)(o->n_capture_sizes - at) * sizeof o->capture_sizes[0]);
    o->capture_sizes[at] = n;
    o->n_capture_sizes++;
    return true;
}

/* "1,2,4", "[1, 2, 4]" or one number per item. */
static tp_status read_capture_sizes(launch_options *o)
{
    static const char k_between[] = ", []";

    for (int i = 0; i < o->cudagraph_capture_sizes.n; i++) {
        const char *item = o->cudagraph_capture_sizes.items[i];

        for (const char *s = item + strspn(item, k_between); *s != '\0';) {
            char *end;
            long n = strtol(s, &end, 10);

            if (end == s || n < 1 || n > 65536 || (*end != '\0' && strchr(k_between, *end) == NULL))
                return TP_REJECT(
                    TP_ERR_INVALID,
                    "--cudagraph-capture-sizes: expected numbers from 1 to 65536 such as "
                    "1,2,4,8, found \"%s\"",
                    item);
            if (!add_capture_size(o, (int)n))
                return TP_REJECT(TP_ERR_INVALID, "--cudagraph-capture-sizes: more than %d numbers",
                                 LAUNCH_CAPTURES_MAX);
            s = end + strspn(end, k_between);
        }
    }
    return TP_OK;
}

static tp_status check_together(const launch_options *o)
{
    if (o->block_size % 16 != 0)
        return TP_REJECT(TP_ERR_INVALID, "--block-size: expected a multiple of 16, found %lld",
                         (long long)o->block_size);
    return TP_OK;
}

static const char *canonical_dtype(const char *word)
{
    if (strcmp(word, "half") == 0)
        return "float16";
    return strcmp(word, "float") == 0 ? "float32" : word;
}

tp_status launch_parse(launch_parser *p, int argc, char **argv)
{
    memset(p, 0, sizeof *p);
    tp_arena_init(&p->arena, 0);
    p->origin = tp_arena_calloc(&p->arena, (size_t)launch_n_rows, sizeof *p->origin);
    if (p->origin == NULL)
        return TP_REJECT(TP_ERR_NOMEM, "out of memory for options");
    TP_TRY(apply_defaults(p));
    TP_TRY(apply_command_line(p, argc, argv, launch_find("config", 6)));
    if (p->opt.config == NULL)
        p->opt.config = getenv("TPSERVE_CONFIG");
    if (p->opt.config != NULL)
        TP_TRY(launch_read_file(p, p->opt.config));
    TP_TRY(apply_environment(p));
    TP_TRY(apply_command_line(p, argc, argv, NULL));
    p->opt.dtype = canonical_dtype(p->opt.dtype);
    if (p->opt.max_model_len < 0)
        p->opt.max_model_len = 0;
    p->opt.comm_is_given = p->origin[launch_find("comm", 4) - launch_rows] == LAUNCH_FROM_CLI;
    TP_TRY(check_command(p));
    TP_TRY(read_capture_sizes(&p->opt));
    TP_TRY(launch_read_speculation(&p->opt.speculation, p->opt.speculative_config));
    return check_together(&p->opt);
}

void launch_parser_release(launch_parser *p)
{
    tp_arena_release(&p->arena);
}
