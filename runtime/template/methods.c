/* SPDX-License-Identifier: Apache-2.0 */
/* methods.c - methods of str, dict, list and loop.
 *
 * Markup's methods escape their arguments; here that matters for replace, join and format only.
 */
#include <string.h>

#include "runtime/template/text_ops.h"

#define METHOD(name) static tp_status name(rt_render *r, rt_val self, const rt_args *a, rt_val *out)

/* ---- str: case, strip ---- */

METHOD(m_upper)
{
    (void)a;
    return rt_text_case(r, self.u.str, RT_CASE_UPPER, out);
}
METHOD(m_lower)
{
    (void)a;
    return rt_text_case(r, self.u.str, RT_CASE_LOWER, out);
}
METHOD(m_capitalize)
{
    (void)a;
    return rt_text_case(r, self.u.str, RT_CASE_CAPITALIZE, out);
}
METHOD(m_title)
{
    (void)a;
    return rt_text_case(r, self.u.str, RT_CASE_TITLE, out);
}
METHOD(m_swapcase)
{
    (void)a;
    return rt_text_case(r, self.u.str, RT_CASE_SWAP, out);
}
METHOD(m_strip)
{
    return rt_text_strip(r, self.u.str, a->v[0], true, true, out);
}
METHOD(m_lstrip)
{
    return rt_text_strip(r, self.u.str, a->v[0], true, false, out);
}
METHOD(m_rstrip)
{
    return rt_text_strip(r, self.u.str, a->v[0], false, true, out);
}

/* ---- str: search ---- */

/* Byte bounds of self[start:end]; false when the window is empty because start lies behind the end. */
static tp_status window(rt_render *r, rt_str *s, rt_val start, rt_val end, size_t *b, size_t *e,
                        bool *ok)
{
    int64_t n = (int64_t)rt_str_chars(s), from, to;

    TP_TRY(rt_arg_int(r, start.kind == RT_NONE ? (rt_val){.kind = RT_MISSING} : start, 0, &from));
    TP_TRY(rt_arg_int(r, end.kind == RT_NONE ? (rt_val){.kind = RT_MISSING} : end, n, &to));
    from = from < 0 ? (from + n < 0 ? 0 : from + n) : from;
    to = to < 0 ? (to + n < 0 ? 0 : to + n) : to > n ? n : to;
    *ok = from <= to && from <= n;
    *b = *ok ? rt_str_offset(s, (size_t)from) : 0;
    *e = *ok ? rt_str_offset(s, (size_t)to) : 0;
    return rt_tmpl_charge(r, s->n >> 10);
}

static int64_t char_index(const rt_str *s, size_t at)
{
    rt_str head = {.s = s->s, .n = at, .n_chars = SIZE_MAX};

    return (int64_t)rt_str_chars(&head);
}

static tp_status search(rt_render *r, rt_val self, const rt_args *a, bool last, int64_t *out)
{
    rt_str *s = self.u.str, *sub, part;
    size_t b, e, at = SIZE_MAX;
    bool ok;

    TP_TRY(rt_arg_str(r, a->v[0], &sub));
    TP_TRY(window(r, s, a->v[1], a->v[2], &b, &e, &ok));
    *out = -1;
    if (!ok)
        return TP_OK;
    part = (rt_str){.s = s->s, .n = e};
    if (!last) {
        at = rt_str_find(&part, b, sub->s, sub->n);
        if (at == e && sub->n > 0)
            return TP_OK;
    } else {
        if (sub->n > e - b)
            return TP_OK;
        for (at = e - sub->n + 1; at-- > b;)
            if (memcmp(s->s + at, sub->s, sub->n) == 0)
                break;
        if (at + 1 == b || at == SIZE_MAX)
            return TP_OK;
    }
    *out = char_index(s, at);
    return TP_OK;
}

METHOD(m_find)
{
    int64_t at;

    TP_TRY(search(r, self, a, false, &at));
    *out = rt_val_int(at);
    return TP_OK;
}

METHOD(m_rfind)
{
    int64_t at;

    TP_TRY(search(r, self, a, true, &at));
    *out = rt_val_int(at);
    return TP_OK;
}

METHOD(m_index)
{
    TP_TRY(m_find(r, self, a, out));
    return out->u.i >= 0 ? TP_OK : rt_tmpl_error(r, "substring not found");
}

METHOD(m_rindex)
{
    TP_TRY(m_rfind(r, self, a, out));
    return out->u.i >= 0 ? TP_OK : rt_tmpl_error(r, "substring not found");
}

METHOD(m_count)
{
    rt_str *s = self.u.str, *sub, part;
    size_t b, e;
    int64_t n = 0;
    bool ok;

    TP_TRY(rt_arg_str(r, a->v[0], &sub));
    TP_TRY(window(r, s, a->v[1], a->v[2], &b, &e, &ok));
    part = (rt_str){.s = s->s, .n = e};
    if (ok && sub->n == 0)
        n = char_index(s, e) - char_index(s, b) + 1;
    for (size_t at = b; ok && sub->n > 0; n++) {
        at = rt_str_find(&part, at, sub->s, sub->n);
        if (at == e)
            break;
        at += sub->n;
    }
    *out = rt_val_int(n);
    return TP_OK;
}

static tp_status affix(rt_render *r, rt_val self, const rt_args *a, bool at_end, rt_val *out)
{
    rt_str *s = self.u.str, *sub;
    const rt_val *candidates = &a->v[0];
    size_t n = 1, b, e;
    bool ok, found = false;

    if (a->v[0].kind == RT_TUPLE) {
        candidates = a->v[0].u.list->items;
        n = a->v[0].u.list->n;
    }
    TP_TRY(window(r, s, a->v[1], a->v[2], &b, &e, &ok));
    for (size_t i = 0; i < n && !found; i++) {
        TP_TRY(rt_arg_str(r, candidates[i], &sub));
        found =
            ok && sub->n <= e - b && memcmp(s->s + (at_end ? e - sub->n : b), sub->s, sub->n) == 0;
    }
    *out = rt_val_bool(found);
    return TP_OK;
}

METHOD(m_startswith)
{
    return affix(r, self, a, false, out);
}
METHOD(m_endswith)
{
    return affix(r, self, a, true, out);
}

static tp_status remove_affix(rt_render *r, rt_val self, const rt_args *a, bool at_end, rt_val *out)
{
    rt_str *s = self.u.str, *sub;
    size_t begin = 0, end = s->n;

    TP_TRY(rt_arg_str(r, a->v[0], &sub));
    if (sub->n <= s->n && memcmp(s->s + (at_end ? s->n - sub->n : 0), sub->s, sub->n) == 0) {
        begin = at_end ? 0 : sub->n;
        end = at_end ? s->n - sub->n : s->n;
    }
    return rt_str_slice(r, s, begin, end, out);
}

METHOD(m_removeprefix)
{
    return remove_affix(r, self, a, false, out);
}
METHOD(m_removesuffix)
{
    return remove_affix(r, self, a, true, out);
}

/* ---- str: replace, split, join ---- */

/* An argument next to Markup. */
static tp_status arg_like(rt_render *r, rt_val self, rt_val v, rt_str **out)
{
    TP_TRY(rt_arg_str(r, v, out));
    if (self.u.str->safe) {
        TP_TRY(rt_val_escape(r, v, &v));
        *out = v.u.str;
    }
    return TP_OK;
}

METHOD(m_replace)
{
    rt_str *from, *to;
    int64_t count;

    TP_TRY(rt_arg_str(r, a->v[0], &from));
    TP_TRY(arg_like(r, self, a->v[1], &to));
    TP_TRY(rt_arg_int(r, a->v[2], -1, &count));
    return rt_text_replace(r, self.u.str, from, to, count, out);
}

METHOD(m_split)
{
    int64_t max;

    TP_TRY(rt_arg_int(r, a->v[1], -1, &max));
    return rt_text_split(r, self.u.str, a->v[0], max, false, out);
}

METHOD(m_rsplit)
{
    int64_t max;

    TP_TRY(rt_arg_int(r, a->v[1], -1, &max));
    return rt_text_split(r, self.u.str, a->v[0], max, true, out);
}

METHOD(m_splitlines)
{
    return rt_text_lines(r, self.u.str, rt_val_truth(a->v[0]), out);
}

METHOD(m_join)
{
    const rt_val *items;
    size_t n;

    TP_TRY(rt_val_items(r, a->v[0], &items, &n));
    return rt_text_join(r, self.u.str, items, n, true, out);
}

static tp_status partition(rt_render *r, rt_val self, const rt_args *a, bool last, rt_val *out)
{
    rt_str *s = self.u.str, *sep;
    rt_val *v;
    size_t at;

    TP_TRY(rt_arg_str(r, a->v[0], &sep));
    if (sep->n == 0)
        return rt_tmpl_error(r, "partition() with an empty separator");
    TP_TRY(rt_tmpl_charge(r, s->n >> 10));
    TP_TRY(rt_tmpl_array(r, 3, &v));
    at = rt_str_find(s, 0, sep->s, sep->n);
    if (last && at < s->n) {
        size_t i = s->n - sep->n;

        while (memcmp(s->s + i, sep->s, sep->n) != 0)
            i--;
        at = i;
    }
    if (at == s->n) {
        TP_TRY(rt_str_slice(r, s, 0, last ? 0 : s->n, &v[0]));
        TP_TRY(rt_str_slice(r, s, 0, 0, &v[1]));
        TP_TRY(rt_str_slice(r, s, 0, last ? s->n : 0, &v[2]));
    } else {
        TP_TRY(rt_str_slice(r, s, 0, at, &v[0]));
        TP_TRY(rt_str_slice(r, s, at, at + sep->n, &v[1]));
        TP_TRY(rt_str_slice(r, s, at + sep->n, s->n, &v[2]));
    }
    return rt_val_list(r, RT_TUPLE, v, 3, out);
}

METHOD(m_partition)
{
    return partition(r, self, a, false, out);
}
METHOD(m_rpartition)
{
    return partition(r, self, a, true, out);
}

/* ---- str: padding ---- */

static tp_status pad(rt_render *r, rt_val self, const rt_args *a, char align, rt_val *out)
{
    rt_str blank = {.s = " ", .n = 1, .n_chars = 1}, *fill = &blank;
    int64_t width;

    TP_TRY(rt_arg_int(r, a->v[0], 0, &width));
    if (a->v[1].kind != RT_MISSING)
        TP_TRY(rt_arg_str(r, a->v[1], &fill));
    if (rt_str_chars(fill) != 1)
        return rt_tmpl_error(r, "the fill character is one character");
    return rt_text_pad(r, self.u.str, width, fill, align, out);
}

METHOD(m_ljust)
{
    return pad(r, self, a, '<', out);
}
METHOD(m_rjust)
{
    return pad(r, self, a, '>', out);
}
METHOD(m_center)
{
    return pad(r, self, a, '^', out);
}

METHOD(m_zfill)
{
    rt_str *s = self.u.str, zero = {.s = "0", .n = 1, .n_chars = 1};
    bool sign = s->n > 0 && (s->s[0] == '-' || s->s[0] == '+');
    rt_val head, tail;
    int64_t width;

    TP_TRY(rt_arg_int(r, a->v[0], 0, &width));
    TP_TRY(rt_str_slice(r, s, 0, sign, &head));
    TP_TRY(rt_str_slice(r, s, sign, s->n, &tail));
    TP_TRY(rt_text_pad(r, tail.u.str, width - sign, &zero, '>', &tail));
    return rt_tmpl_binary(r, '+', head, tail, out);
}

METHOD(m_format)
{
    return rt_tmpl_format(r, self.u.str, a, out);
}

/* ---- str: classes ---- */

typedef bool (*cp_class)(uint32_t cp);

static bool is_alnum(uint32_t cp)
{
    return rt_cp_is_alpha(cp) || rt_cp_is_numeric(cp);
}

static tp_status all_of(rt_render *r, const rt_str *s, cp_class in_class, rt_val *out)
{
    bool all = s->n > 0;

    TP_TRY(rt_tmpl_charge(r, s->n >> 6));
    for (size_t at = 0; at < s->n && all;) {
        uint32_t cp;

        at = rt_utf8_next(s->s, s->n, at, &cp);
        all = in_class(cp);
    }
    *out = rt_val_bool(all);
    return TP_OK;
}

/* At least one cased character, and none of the other case. */
static tp_status cased(rt_render *r, const rt_str *s, cp_class wanted, cp_class other, rt_val *out)
{
    bool any = false, clean = true;

    TP_TRY(rt_tmpl_charge(r, s->n >> 6));
    for (size_t at = 0; at < s->n && clean;) {
        uint32_t cp;

        at = rt_utf8_next(s->s, s->n, at, &cp);
        any = any || wanted(cp);
        clean = !other(cp);
    }
    *out = rt_val_bool(any && clean);
    return TP_OK;
}

METHOD(m_isalpha)
{
    (void)a;
    return all_of(r, self.u.str, rt_cp_is_alpha, out);
}
METHOD(m_isdigit)
{
    (void)a;
    return all_of(r, self.u.str, rt_cp_is_digit, out);
}
METHOD(m_isdecimal)
{
    (void)a;
    return all_of(r, self.u.str, rt_cp_is_decimal, out);
}
METHOD(m_isnumeric)
{
    (void)a;
    return all_of(r, self.u.str, rt_cp_is_numeric, out);
}
METHOD(m_isalnum)
{
    (void)a;
    return all_of(r, self.u.str, is_alnum, out);
}
METHOD(m_isspace)
{
    (void)a;
    return all_of(r, self.u.str, rt_cp_is_space, out);
}
METHOD(m_isupper)
{
    (void)a;
    return cased(r, self.u.str, rt_cp_is_upper, rt_cp_is_lower, out);
}
METHOD(m_islower)
{
    (void)a;
    return cased(r, self.u.str, rt_cp_is_lower, rt_cp_is_upper, out);
}

METHOD(m_isascii)
{
    (void)a;
    *out = rt_val_bool(rt_str_chars(self.u.str) == self.u.str->n);
    return rt_tmpl_charge(r, self.u.str->n >> 12);
}

/* Sorted by name. */
static const rt_builtin str_methods[] = {
    {"capitalize", "", 0, m_capitalize},
    {"casefold", "", 0, m_lower},
    {"center", "width fillchar", 1, m_center},
    {"count", "sub start end", 1, m_count},
    {"endswith", "suffix start end", 1, m_endswith},
    {"find", "sub start end", 1, m_find},
    {"format", NULL, 0, m_format},
    {"index", "sub start end", 1, m_index},
    {"isalnum", "", 0, m_isalnum},
    {"isalpha", "", 0, m_isalpha},
    {"isascii", "", 0, m_isascii},
    {"isdecimal", "", 0, m_isdecimal},
    {"isdigit", "", 0, m_isdigit},
    {"islower", "", 0, m_islower},
    {"isnumeric", "", 0, m_isnumeric},
    {"isspace", "", 0, m_isspace},
    {"isupper", "", 0, m_isupper},
    {"join", "iterable", 1, m_join},
    {"ljust", "width fillchar", 1, m_ljust},
    {"lower", "", 0, m_lower},
    {"lstrip", "chars", 0, m_lstrip},
    {"partition", "sep", 1, m_partition},
    {"removeprefix", "prefix", 1, m_removeprefix},
    {"removesuffix", "suffix", 1, m_removesuffix},
    {"replace", "old new count", 2, m_replace},
    {"rfind", "sub start end", 1, m_rfind},
    {"rindex", "sub start end", 1, m_rindex},
    {"rjust", "width fillchar", 1, m_rjust},
    {"rpartition", "sep", 1, m_rpartition},
    {"rsplit", "sep maxsplit", 0, m_rsplit},
    {"rstrip", "chars", 0, m_rstrip},
    {"split", "sep maxsplit", 0, m_split},
    {"splitlines", "keepends", 0, m_splitlines},
    {"startswith", "prefix start end", 1, m_startswith},
    {"strip", "chars", 0, m_strip},
    {"swapcase", "", 0, m_swapcase},
    {"title", "", 0, m_title},
    {"upper", "", 0, m_upper},
    {"zfill", "width", 1, m_zfill},
};
static const char *const str_others[] = {"encode",      "expandtabs", "format_map", "isidentifier",
                                         "isprintable", "istitle",    "maketrans",  "translate"};

/* ---- dict ---- */

METHOD(m_get)
{
    const rt_val *found;

    TP_TRY(rt_dict_find(r, self.u.dict, a->v[0], &found));
    *out = found != NULL ? *found : a->v[1].kind == RT_MISSING ? rt_val_none() : a->v[1];
    return TP_OK;
}

METHOD(m_keys)
{
    const rt_val *keys;
    size_t n;

    (void)a;
    TP_TRY(rt_val_items(r, self, &keys, &n));
    return rt_val_view(r, RT_VIEW, "dict_keys", keys, n, out);
}

METHOD(m_values)
{
    const rt_dict *d = self.u.dict;
    rt_val *v;

    (void)a;
    TP_TRY(rt_tmpl_array(r, d->n, &v));
    for (size_t i = 0; i < d->n; i++)
        v[i] = d->items[i].val;
    TP_TRY(rt_tmpl_charge(r, d->n >> 4));
    return rt_val_view(r, RT_VIEW, "dict_values", v, d->n, out);
}

METHOD(m_items)
{
    const rt_dict *d = self.u.dict;
    rt_val *tuples, *pairs;

    (void)a;
    TP_TRY(rt_tmpl_charge(r, d->n >> 2));
    TP_TRY(rt_tmpl_array(r, d->n, &tuples));
    TP_TRY(rt_tmpl_array(r, 2 * d->n, &pairs));
    for (size_t i = 0; i < d->n; i++) {
        pairs[2 * i] = d->items[i].key;
        pairs[2 * i + 1] = d->items[i].val;
        TP_TRY(rt_val_list(r, RT_TUPLE, pairs + 2 * i, 2, &tuples[i]));
    }
    return rt_val_view(r, RT_VIEW, "dict_items", tuples, d->n, out);
}

METHOD(m_copy)
{
    (void)r;
    (void)a;
    *out = self; /* nothing can change it */
    return TP_OK;
}

static const rt_builtin dict_methods[] = {
    {"copy", "", 0, m_copy}, {"get", "key default", 1, m_get}, {"items", "", 0, m_items},
    {"keys", "", 0, m_keys}, {"values", "", 0, m_values},
};
static const char *const dict_mutators[] = {"clear",   "fromkeys",   "pop",
                                            "popitem", "setdefault", "update"};

/* ---- list ---- */

METHOD(m_list_index)
{
    const rt_val *items;
    size_t n;
    bool same = false;

    TP_TRY(rt_val_items(r, self, &items, &n));
    for (size_t i = 0; i < n; i++) {
        TP_TRY(rt_val_equal(r, items[i], a->v[0], &same));
        if (same) {
            *out = rt_val_int((int64_t)i);
            return TP_OK;
        }
    }
    return rt_tmpl_error(r, "the value is not in the list");
}

METHOD(m_list_count)
{
    const rt_val *items;
    int64_t count = 0;
    size_t n;

    TP_TRY(rt_val_items(r, self, &items, &n));
    for (size_t i = 0; i < n; i++) {
        bool same;

        TP_TRY(rt_val_equal(r, items[i], a->v[0], &same));
        count += same;
    }
    *out = rt_val_int(count);
    return TP_OK;
}

static const rt_builtin list_methods[] = {{"copy", "", 0, m_copy},
                                          {"count", "value", 1, m_list_count},
                                          {"index", "value", 1, m_list_index}};
static const char *const list_mutators[] = {"append", "clear",  "extend",  "insert",
                                            "pop",    "remove", "reverse", "sort"};

/* ---- loop ---- */

METHOD(m_cycle)
{
    if (a->n == 0)
        return rt_tmpl_error(r, "no items for cycling given");
    *out = a->v[self.u.loop->pos % a->n];
    return TP_OK;
}

METHOD(m_changed)
{
    bool same = false;
    rt_val now;

    TP_TRY(rt_val_list(r, RT_TUPLE, a->v, a->n, &now));
    if (self.u.loop->changed.kind != RT_MISSING)
        TP_TRY(rt_val_equal(r, self.u.loop->changed, now, &same));
    self.u.loop->changed = now;
    *out = rt_val_bool(!same);
    return TP_OK;
}

const rt_builtin rt_loop_cycle = {"cycle", NULL, 0, m_cycle};
const rt_builtin rt_loop_changed = {"changed", NULL, 0, m_changed};

/* ---- lookup ---- */

static bool listed(const char *const *names, size_t n_names, const char *name, size_t n)
{
    for (size_t i = 0; i < n_names; i++)
        if (strlen(names[i]) == n && memcmp(names[i], name, n) == 0)
            return true;
    return false;
}

static int find_loop_field(const char *name, size_t n)
{
    static const char *const names[] = {"index",    "index0", "revindex", "revindex0", "first",
                                        "last",     "length", "depth",    "depth0",    "previtem",
                                        "nextitem", "cycle",  "changed"};

    for (size_t i = 0; i < TP_ARRAY_LEN(names); i++)
        if (strlen(names[i]) == n && memcmp(names[i], name, n) == 0)
            return (int)i + 1;
    return 0;
}

void rt_tmpl_find_attr(const char *name, size_t n, rt_attr *out)
{
    *out = (rt_attr){
        .str_fn = rt_tmpl_find(str_methods, TP_ARRAY_LEN(str_methods), name, n),
        .dict_fn = rt_tmpl_find(dict_methods, TP_ARRAY_LEN(dict_methods), name, n),
        .list_fn = rt_tmpl_find(list_methods, TP_ARRAY_LEN(list_methods), name, n),
        .private_name = n > 4 && memcmp(name, "__", 2) == 0 && memcmp(name + n - 2, "__", 2) == 0,
        .loop_field = find_loop_field(name, n),
    };
    out->str_has = out->str_fn != NULL || listed(str_others, TP_ARRAY_LEN(str_others), name, n);
    out->dict_has =
        out->dict_fn != NULL || listed(dict_mutators, TP_ARRAY_LEN(dict_mutators), name, n);
    out->list_has =
        out->list_fn != NULL || listed(list_mutators, TP_ARRAY_LEN(list_mutators), name, n);
}
