/* SPDX-License-Identifier: Apache-2.0 */
/* filters.c - filters on strings and single values, and the table of all filters. */
#include "runtime/template/filters.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/template/text_ops.h"

#define FILTER(name) static RT_FILTER(name)

/* ---- text ---- */

static tp_status with_case(rt_render *r, rt_val in, rt_case how, rt_val *out)
{
    rt_str *s;

    TP_TRY(rt_val_to_str(r, in, &s));
    return rt_text_case(r, s, how, out);
}

FILTER(f_upper)
{
    (void)a;
    return with_case(r, in, RT_CASE_UPPER, out);
}
FILTER(f_lower)
{
    (void)a;
    return with_case(r, in, RT_CASE_LOWER, out);
}
FILTER(f_capitalize)
{
    (void)a;
    return with_case(r, in, RT_CASE_CAPITALIZE, out);
}

FILTER(f_title)
{
    rt_str *s;

    (void)a;
    TP_TRY(rt_val_to_str(r, in, &s));
    return rt_text_title_words(r, s, out);
}

FILTER(f_trim)
{
    rt_str *s;

    TP_TRY(rt_val_to_str(r, in, &s));
    return rt_text_strip(r, s, a->v[0], true, true, out);
}

FILTER(f_string)
{
    rt_str *s;

    (void)a;
    TP_TRY(rt_val_to_str(r, in, &s));
    *out = rt_val_str(s);
    return TP_OK;
}

FILTER(f_safe)
{
    rt_str *s;

    (void)a;
    TP_TRY(rt_val_to_str(r, in, &s));
    TP_TRY(rt_str_slice(r, s, 0, s->n, out));
    out->u.str->safe = true;
    return TP_OK;
}

FILTER(f_escape)
{
    (void)a;
    return rt_val_escape(r, in, out);
}

FILTER(f_replace)
{
    rt_str *s, *from, *to;
    int64_t count = -1;

    TP_TRY(rt_val_to_str(r, in, &s));
    TP_TRY(rt_val_to_str(r, a->v[0], &from));
    TP_TRY(rt_val_to_str(r, a->v[1], &to));
    if (a->v[2].kind != RT_NONE)
        TP_TRY(rt_arg_int(r, a->v[2], -1, &count));
    TP_TRY(rt_text_replace(r, s, from, to, count, out));
    out->u.str->safe = false;
    return TP_OK;
}

FILTER(f_center)
{
    rt_str *s, blank = {.s = " ", .n = 1, .n_chars = 1};
    int64_t width;

    TP_TRY(rt_val_to_str(r, in, &s));
    TP_TRY(rt_arg_int(r, a->v[0], 80, &width));
    return rt_text_pad(r, s, width, &blank, '^', out);
}

FILTER(f_indent)
{
    bool first = rt_val_truth(a->v[1]), blank = rt_val_truth(a->v[2]);
    rt_str *s, *by;
    int64_t width = 4;
    rt_val lines, pad;
    size_t mark;

    TP_TRY(rt_arg_str(r, in, &s));
    if (a->v[0].kind == RT_STR) {
        by = a->v[0].u.str;
    } else {
        TP_TRY(rt_arg_int(r, a->v[0], 4, &width));
        TP_TRY(rt_str_lit(r, " ", &pad));
        TP_TRY(rt_tmpl_binary(r, '*', pad, rt_val_int(width), &pad));
        by = pad.u.str;
    }
    TP_TRY(rt_text_lines(r, s, false, &lines));
    mark = rt_out_mark(r);
    if (first)
        TP_TRY(rt_out_str(r, by));
    for (size_t i = 0; i < lines.u.list->n; i++) {
        const rt_str *line = lines.u.list->items[i].u.str;

        if (i > 0)
            TP_TRY(rt_out_puts(r, "\n"));
        if (i > 0 && (blank || line->n > 0))
            TP_TRY(rt_out_str(r, by));
        TP_TRY(rt_out_str(r, line));
    }
    if (s->n > 0 && s->s[s->n - 1] == '\n') { /* the last line is empty */
        TP_TRY(rt_out_puts(r, "\n"));
        if (blank)
            TP_TRY(rt_out_str(r, by));
    }
    TP_TRY(rt_out_cut(r, mark, out));
    out->u.str->safe = s->safe;
    return TP_OK;
}

FILTER(f_truncate)
{
    int64_t length, leeway;
    rt_str *s, *end = &(rt_str){.s = "...", .n = 3, .n_chars = 3};
    rt_val head, parts;
    size_t n;

    TP_TRY(rt_val_length(r, in, &n));
    TP_TRY(rt_arg_int(r, a->v[0], 255, &length));
    TP_TRY(rt_arg_int(r, a->v[3].kind == RT_NONE ? (rt_val){.kind = RT_MISSING} : a->v[3], 5,
                      &leeway));
    if (a->v[2].kind != RT_MISSING)
        TP_TRY(rt_arg_str(r, a->v[2], &end));
    if (length < (int64_t)rt_str_chars(end) || leeway < 0)
        return rt_tmpl_error(r, "truncate: the length is at least that of the end text");
    if ((int64_t)n - leeway <= length) {
        *out = in;
        return TP_OK;
    }
    TP_TRY(rt_arg_str(r, in, &s));
    length -= (int64_t)rt_str_chars(end);
    TP_TRY(rt_str_slice(r, s, 0, rt_str_offset(s, (size_t)length), &head));
    if (!rt_val_truth(a->v[1])) {
        TP_TRY(rt_str_lit(r, " ", &parts));
        TP_TRY(rt_text_split(r, head.u.str, parts, 1, true, &parts));
        head = parts.u.list->items[0];
    }
    return rt_str_concat(r, head.u.str, end, out);
}

FILTER(f_format)
{
    rt_dict *named;
    rt_val args;
    rt_str *s;

    TP_TRY(rt_val_to_str(r, in, &s));
    if (a->n > 0 && a->n_kw > 0)
        return rt_tmpl_error(r, "format: positional and named arguments cannot be mixed");
    TP_TRY(rt_val_list(r, RT_TUPLE, a->v, a->n, &args));
    if (a->n_kw > 0) {
        named = rt_dict_make(r, a->n_kw);
        if (named == NULL)
            return rt_tmpl_no_memory(r, sizeof *named);
        for (size_t i = 0; i < a->n_kw; i++) {
            rt_val key;

            TP_TRY(rt_str_slice(r, a->kw[i].name, 0, a->kw[i].name->n, &key));
            TP_TRY(rt_dict_put(r, named, key, a->kw[i].val));
        }
        args = (rt_val){.kind = RT_DICT, .u.dict = named};
    }
    return rt_tmpl_percent(r, s, args, out);
}

/* ---- numbers ---- */

/* Text of a number without blanks around it and underscores in it; false when it is too long to be one. */
static bool number_text(const rt_str *s, char *out, size_t cap)
{
    size_t begin, end, n = 0;

    rt_str_trim(s, NULL, true, true, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        if (s->s[i] == '_' && i > begin && i + 1 < end)
            continue;
        if (n + 1 >= cap)
            return false;
        out[n++] = s->s[i];
    }
    out[n] = 0;
    return n > 0 && memchr(out, 0, n) == NULL;
}

static bool parse_int(const rt_str *s, int base, int64_t *out)
{
    char text[80], *end, *p = text;

    if (!number_text(s, text, sizeof text))
        return false;
    p += *p == '+' || *p == '-';
    if (p[0] == '0' && (((p[1] | 32) == 'x' && base == 16) || ((p[1] | 32) == 'o' && base == 8) ||
                        ((p[1] | 32) == 'b' && base == 2)))
        memmove(p, p + 2, strlen(p + 2) + 1);
    if (*p == '+' || *p == '-' || *p == ' ' || *p == 0)
        return false;
    errno = 0;
    *out = strtoll(text, &end, base);
    return *end == 0 && errno == 0;
}

static bool parse_float(const rt_str *s, double *out)
{
    char text[400], *end;

    if (!number_text(s, text, sizeof text) || strpbrk(text, "xXpP(") != NULL)
        return false;
    *out = strtod(text, &end);
    return *end == 0 && end != text;
}

FILTER(f_int)
{
    int64_t i, base;
    double f;

    TP_TRY(rt_arg_int(r, a->v[1], 10, &base));
    *out = a->v[0].kind == RT_MISSING ? rt_val_int(0) : a->v[0];
    if (in.kind == RT_UNDEFINED)
        return rt_tmpl_undefined_error(r, in);
    if (rt_val_as_int(in, &i)) {
        *out = rt_val_int(i);
        return TP_OK;
    }
    if (in.kind == RT_BIGINT) {
        *out = in;
        return TP_OK;
    }
    if (in.kind == RT_STR && base >= 2 && base <= 36 && parse_int(in.u.str, (int)base, &i)) {
        *out = rt_val_int(i);
        return TP_OK;
    }
    if (in.kind == RT_FLOAT || (in.kind == RT_STR && parse_float(in.u.str, &f))) {
        f = in.kind == RT_FLOAT ? in.u.f : f;
        if (isnan(f) || isinf(f))
            return TP_OK;
        if (fabs(f) >= 9.2e18)
            return rt_tmpl_error(r, "int: an integer beyond 64 bits");
        *out = rt_val_int((int64_t)f);
    }
    return TP_OK;
}

FILTER(f_float)
{
    int64_t i;
    double f;

    *out = a->v[0].kind == RT_MISSING ? rt_val_float(0.0) : a->v[0];
    if (in.kind == RT_UNDEFINED)
        return rt_tmpl_undefined_error(r, in);
    if (in.kind == RT_FLOAT)
        *out = in;
    else if (rt_val_as_int(in, &i))
        *out = rt_val_float((double)i);
    else if ((in.kind == RT_STR || in.kind == RT_BIGINT) && parse_float(in.u.str, &f))
        *out = rt_val_float(f);
    return TP_OK;
}

FILTER(f_abs)
{
    int64_t i;

    (void)a;
    if (in.kind == RT_UNDEFINED)
        return rt_tmpl_undefined_error(r, in);
    if (in.kind == RT_FLOAT)
        *out = rt_val_float(fabs(in.u.f));
    else if (rt_val_as_int(in, &i) && i != INT64_MIN)
        *out = rt_val_int(i < 0 ? -i : i);
    else
        return rt_tmpl_error(r, "abs: a number is expected, not '%s'", rt_val_type_name(in));
    return TP_OK;
}

FILTER(f_round)
{
    const rt_str *how = a->v[1].kind == RT_STR ? a->v[1].u.str : NULL;
    bool up = how != NULL && rt_str_is(how, "ceil"), down = how != NULL && rt_str_is(how, "floor");
    int64_t precision, i = 0;
    char text[512];
    double f, scale;

    TP_TRY(rt_arg_int(r, a->v[0], 0, &precision));
    if (how != NULL && !up && !down && !rt_str_is(how, "common"))
        return rt_tmpl_error(r, "round: the method must be common, ceil or floor");
    if (in.kind == RT_UNDEFINED)
        return rt_tmpl_undefined_error(r, in);
    if (in.kind != RT_FLOAT && !rt_val_as_int(in, &i))
        return rt_tmpl_error(r, "round: a number is expected, not '%s'", rt_val_type_name(in));
    if (precision < 0 || precision > 100)
        return rt_tmpl_error(r, "round: the precision is 0 to 100");
    if (in.kind != RT_FLOAT && !up && !down) {
        *out = rt_val_int(i);
        return TP_OK;
    }
    f = in.kind == RT_FLOAT ? in.u.f : (double)i;
    if (up || down) {
        scale = pow(10.0, (double)precision);
        *out = rt_val_float((up ? ceil(f * scale) : floor(f * scale)) / scale);
        return TP_OK;
    }
    (void)snprintf(text, sizeof text, "%.*f", (int)precision, f); /* exact decimal, ties to even */
    *out = rt_val_float(strtod(text, NULL));
    return TP_OK;
}

/* ---- any value ---- */

FILTER(f_length)
{
    size_t n;

    (void)a;
    TP_TRY(rt_val_length(r, in, &n));
    *out = rt_val_int((int64_t)n);
    return TP_OK;
}

FILTER(f_default)
{
    bool absent = in.kind == RT_UNDEFINED || (rt_val_truth(a->v[1]) && !rt_val_truth(in));

    (void)r;
    if (!absent)
        *out = in;
    else if (a->v[0].kind != RT_MISSING)
        *out = a->v[0];
    else
        return rt_str_lit(r, "", out);
    return TP_OK;
}

FILTER(f_attr)
{
    rt_str *name;
    rt_attr attr;

    TP_TRY(rt_arg_str(r, a->v[0], &name));
    if (in.kind == RT_DICT) { /* only what Python calls an attribute, never a key */
        *out = rt_val_undefined();
        return TP_OK;
    }
    rt_tmpl_find_attr(name->s, name->n, &attr);
    return rt_tmpl_attr(r, in, &attr, name, out);
}

static tp_status json_indent(rt_render *r, rt_val v, rt_json_style *style)
{
    int64_t width;
    rt_val pad;

    if (v.kind == RT_MISSING || v.kind == RT_NONE)
        return TP_OK;
    style->pretty = true;
    if (v.kind == RT_STR) {
        style->indent = v.u.str;
        return TP_OK;
    }
    TP_TRY(rt_arg_int(r, v, 0, &width));
    if (width > 100)
        return rt_tmpl_error(r, "tojson: indent is at most 100");
    TP_TRY(rt_str_lit(r, " ", &pad));
    TP_TRY(rt_tmpl_binary(r, '*', pad, rt_val_int(width), &pad));
    style->indent = pad.u.str;
    return TP_OK;
}

FILTER(f_tojson)
{
    size_t mark = rt_out_mark(r);
    rt_str item_plain = {.s = ", ", .n = 2}, item_pretty = {.s = ",", .n = 1},
           key = {.s = ": ", .n = 2};
    rt_json_style style = {
        .ascii = rt_val_truth(a->v[0]), .sort_keys = rt_val_truth(a->v[3]), .key_sep = &key};
    rt_val sep = a->v[2];

    TP_TRY(json_indent(r, a->v[1], &style));
    style.item_sep = style.pretty ? &item_pretty : &item_plain;
    if (sep.kind == RT_LIST || sep.kind == RT_TUPLE) {
        if (sep.u.list->n != 2)
            return rt_tmpl_error(r, "tojson: separators are a pair of strings");
        TP_TRY(rt_arg_str(r, sep.u.list->items[0], &style.item_sep));
        TP_TRY(rt_arg_str(r, sep.u.list->items[1], &style.key_sep));
    } else if (sep.kind != RT_MISSING && sep.kind != RT_NONE) {
        return rt_tmpl_error(r, "tojson: separators are a pair of strings");
    }
    TP_TRY(rt_out_json(r, in, &style, 0));
    return rt_out_cut(r, mark, out);
}

static const rt_builtin filters[] = {
    {"abs", "", 0, f_abs},
    {"attr", "name", 1, f_attr},
    {"batch", "linecount fill_with", 1, rt_filter_batch},
    {"capitalize", "", 0, f_capitalize},
    {"center", "width", 0, f_center},
    {"count", "", 0, f_length},
    {"d", "default_value boolean", 0, f_default},
    {"default", "default_value boolean", 0, f_default},
    {"dictsort", "case_sensitive by reverse", 0, rt_filter_dictsort},
    {"e", "", 0, f_escape},
    {"escape", "", 0, f_escape},
    {"first", "", 0, rt_filter_first},
    {"float", "default", 0, f_float},
    {"format", NULL, 0, f_format},
    {"indent", "width first blank", 0, f_indent},
    {"int", "default base", 0, f_int},
    {"items", "", 0, rt_filter_items},
    {"join", "d attribute", 0, rt_filter_join},
    {"last", "", 0, rt_filter_last},
    {"length", "", 0, f_length},
    {"list", "", 0, rt_filter_list},
    {"lower", "", 0, f_lower},
    {"map", NULL, 0, rt_filter_map},
    {"max", "case_sensitive attribute", 0, rt_filter_max},
    {"min", "case_sensitive attribute", 0, rt_filter_min},
    {"reject", NULL, 0, rt_filter_reject},
    {"rejectattr", NULL, 0, rt_filter_rejectattr},
    {"replace", "old new count", 2, f_replace},
    {"reverse", "", 0, rt_filter_reverse},
    {"round", "precision method", 0, f_round},
    {"safe", "", 0, f_safe},
    {"select", NULL, 0, rt_filter_select},
    {"selectattr", NULL, 0, rt_filter_selectattr},
    {"sort", "reverse case_sensitive attribute", 0, rt_filter_sort},
    {"string", "", 0, f_string},
    {"sum", "attribute start", 0, rt_filter_sum},
    {"title", "", 0, f_title},
    {"tojson", "ensure_ascii indent separators sort_keys", 0, f_tojson},
    {"trim", "chars", 0, f_trim},
    {"truncate", "length killwords end leeway", 0, f_truncate},
    {"unique", "case_sensitive attribute", 0, rt_filter_unique},
    {"upper", "", 0, f_upper},
};

const rt_builtin *rt_tmpl_find(const rt_builtin *table, size_t n_table, const char *name, size_t n)
{
    for (size_t i = 0; i < n_table; i++)
        if (strlen(table[i].name) == n && memcmp(table[i].name, name, n) == 0)
            return &table[i];
    return NULL;
}

const rt_builtin *rt_tmpl_find_filter(const char *name, size_t n)
{
    return rt_tmpl_find(filters, TP_ARRAY_LEN(filters), name, n);
}
