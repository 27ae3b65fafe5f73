/* SPDX-License-Identifier: Apache-2.0 */
/* text_ops.c - case, strip, replace, split, join, pad. */
#include "runtime/template/text_ops.h"

#include <string.h>

#include "base/utf8.h"

tp_status rt_arg_int(rt_render *r, rt_val v, int64_t dflt, int64_t *out)
{
    *out = dflt;
    if (v.kind == RT_MISSING || rt_val_as_int(v, out))
        return TP_OK;
    if (v.kind == RT_UNDEFINED)
        return rt_tmpl_undefined_error(r, v);
    return rt_tmpl_error(r, "an integer is expected, not '%s'", rt_val_type_name(v));
}

tp_status rt_arg_str(rt_render *r, rt_val v, rt_str **out)
{
    if (v.kind == RT_UNDEFINED)
        return rt_tmpl_undefined_error(r, v);
    if (v.kind != RT_STR)
        return rt_tmpl_error(r, "a string is expected, not '%s'", rt_val_type_name(v));
    *out = v.u.str;
    return TP_OK;
}

static tp_status cut_like(rt_render *r, size_t mark, const rt_str *like, rt_val *out)
{
    TP_TRY(rt_out_cut(r, mark, out));
    out->u.str->safe = like->safe;
    return TP_OK;
}

/* ---- case ---- */

static tp_status out_mapped(rt_render *r, const uint32_t *cps, int n, bool user)
{
    char text[3 * TP_UTF8_MAX_BYTES];
    size_t len = 0;

    for (int i = 0; i < n; i++)
        len += (size_t)tp_utf8_encode(cps[i], text + len);
    return rt_out_bytes(r, text, len, user);
}

static bool is_cased(uint32_t cp)
{
    return rt_cp_is_upper(cp) || rt_cp_is_lower(cp);
}

/* A capital sigma at the end of a word has a form of its own. */
static int lower_in_word(const rt_str *s, uint32_t cp, bool after_letter, size_t next,
                         uint32_t out[3])
{
    uint32_t following = 0;

    if (cp != 0x03A3 || !after_letter)
        return rt_cp_lower(cp, out);
    if (next < s->n)
        (void)rt_utf8_next(s->s, s->n, next, &following);
    out[0] = rt_cp_is_alpha(following) ? 0x03C3 : 0x03C2;
    return 1;
}

tp_status rt_text_case(rt_render *r, const rt_str *s, rt_case how, rt_val *out)
{
    size_t mark = rt_out_mark(r);
    bool after_letter = false;

    TP_TRY(rt_tmpl_charge(r, s->n >> 4));
    for (size_t at = 0; at < s->n;) {
        uint32_t cp, to[3];
        size_t next = rt_utf8_next(s->s, s->n, at, &cp);
        int n;

        if (how == RT_CASE_UPPER || (how == RT_CASE_SWAP && rt_cp_is_lower(cp)))
            n = rt_cp_upper(cp, to);
        else if ((how == RT_CASE_CAPITALIZE && at == 0) || (how == RT_CASE_TITLE && !after_letter))
            n = rt_cp_title(cp, to);
        else
            n = lower_in_word(s, cp, after_letter, next, to);
        after_letter = is_cased(cp);
        TP_TRY(out_mapped(r, to, n, rt_str_user_at(s, at)));
        at = next;
    }
    return cut_like(r, mark, s, out);
}

tp_status rt_text_title_words(rt_render *r, const rt_str *s, rt_val *out)
{
    size_t mark = rt_out_mark(r);
    bool begins = true;

    TP_TRY(rt_tmpl_charge(r, s->n >> 4));
    for (size_t at = 0; at < s->n;) {
        uint32_t cp, to[3];
        size_t next = rt_utf8_next(s->s, s->n, at, &cp);
        int n = begins ? rt_cp_upper(cp, to) : rt_cp_lower(cp, to);

        begins = rt_cp_is_space(cp) || (cp < 0x80 && rt_one_of((char)cp, "-({[<"));
        TP_TRY(out_mapped(r, to, n, rt_str_user_at(s, at)));
        at = next;
    }
    return rt_out_cut(r, mark, out);
}

/* ---- strip, replace ---- */

tp_status rt_text_strip(rt_render *r, const rt_str *s, rt_val chars, bool left, bool right,
                        rt_val *out)
{
    size_t begin, end;
    rt_str *set = NULL;

    if (chars.kind != RT_MISSING && chars.kind != RT_NONE)
        TP_TRY(rt_arg_str(r, chars, &set));
    TP_TRY(rt_tmpl_charge(r, s->n >> 10));
    rt_str_trim(s, set, left, right, &begin, &end);
    return rt_str_slice(r, s, begin, end, out);
}

tp_status rt_text_replace(rt_render *r, const rt_str *s, const rt_str *from, const rt_str *to,
                          int64_t count, rt_val *out)
{
    size_t mark = rt_out_mark(r), done = 0, at = 0;

    TP_TRY(rt_tmpl_charge(r, s->n >> 9));
    while (count != 0) {
        size_t found = rt_str_find(s, at, from->s, from->n);
        uint32_t cp;

        if (from->n > 0 ? found == s->n : at > s->n)
            break;
        TP_TRY(rt_out_part(r, s, done, found));
        TP_TRY(rt_out_str(r, to));
        TP_TRY(rt_tmpl_charge(r, (size_t)(count & 15) == 0));
        done = found + from->n;
        at = done;
        if (from->n == 0) /* between all characters */
            at = at < s->n ? rt_utf8_next(s->s, s->n, at, &cp) : s->n + 1;
        count--;
    }
    TP_TRY(rt_out_part(r, s, done, s->n));
    return cut_like(r, mark, s, out);
}

/* ---- split, join ---- */

typedef struct pieces {
    rt_render *r;
    rt_val *items;
    size_t n, cap;
} pieces;

static tp_status add_piece(pieces *p, const rt_str *s, size_t begin, size_t end)
{
    if (p->n == p->cap) {
        size_t cap = p->cap == 0 ? 8 : 2 * p->cap;
        rt_val *items;

        TP_TRY(rt_tmpl_array(p->r, cap, &items));
        if (p->n > 0)
            memcpy(items, p->items, p->n * sizeof *items);
        p->items = items;
        p->cap = cap;
    }
    TP_TRY(rt_tmpl_charge(p->r, (p->n & 7) == 0));
    return rt_str_slice(p->r, s, begin, end, &p->items[p->n++]);
}

static void reverse(pieces *p)
{
    for (size_t i = 0; i < p->n / 2; i++) {
        rt_val v = p->items[i];

        p->items[i] = p->items[p->n - 1 - i];
        p->items[p->n - 1 - i] = v;
    }
}

static tp_status split_space(pieces *p, const rt_str *s, int64_t max, bool from_right)
{
    rt_str rest = *s;
    size_t begin, end;

    for (;; max--) {
        size_t stop;
        uint32_t cp;

        rt_str_trim(&rest, NULL, !from_right, from_right, &begin, &end);
        if (begin >= end)
            return TP_OK;
        if (max == 0)
            return add_piece(p, &rest, begin, end);
        stop = from_right ? end : begin;
        while (from_right ? stop > begin : stop < end) {
            size_t next =
                from_right ? rt_utf8_prev(rest.s, stop, &cp) : rt_utf8_next(rest.s, end, stop, &cp);

            if (rt_cp_is_space(cp))
                break;
            stop = next;
        }
        if (from_right) {
            TP_TRY(add_piece(p, &rest, stop, end));
            rest.n = stop;
        } else {
            TP_TRY(add_piece(p, &rest, begin, stop));
            rest.s += stop;
            rest.shade = rest.shade != NULL ? rest.shade + stop : NULL;
            rest.n -= stop;
        }
    }
}

static size_t find_last(const rt_str *s, size_t end, const rt_str *needle)
{
    for (size_t at = end - needle->n + 1; needle->n <= end && at-- > 0;)
        if (memcmp(s->s + at, needle->s, needle->n) == 0)
            return at;
    return s->n;
}

static tp_status split_on(pieces *p, const rt_str *s, const rt_str *sep, int64_t max,
                          bool from_right)
{
    size_t begin = 0, end = s->n;

    for (; max != 0; max--) {
        size_t at = from_right ? find_last(s, end, sep) : rt_str_find(s, begin, sep->s, sep->n);

        if (at == s->n)
            break;
        if (from_right) {
            TP_TRY(add_piece(p, s, at + sep->n, end));
            end = at;
        } else {
            TP_TRY(add_piece(p, s, begin, at));
            begin = at + sep->n;
        }
    }
    return add_piece(p, s, begin, end);
}

tp_status rt_text_split(rt_render *r, const rt_str *s, rt_val sep, int64_t max, bool from_right,
                        rt_val *out)
{
    pieces p = {.r = r};
    rt_str *by = NULL;

    TP_TRY(rt_tmpl_charge(r, s->n >> 9));
    if (sep.kind == RT_MISSING || sep.kind == RT_NONE) {
        TP_TRY(split_space(&p, s, max, from_right));
    } else {
        TP_TRY(rt_arg_str(r, sep, &by));
        if (by->n == 0)
            return rt_tmpl_error(r, "split() with an empty separator");
        TP_TRY(split_on(&p, s, by, max, from_right));
    }
    if (from_right)
        reverse(&p);
    return rt_val_list(r, RT_LIST, p.items, p.n, out);
}

static bool is_line_end(uint32_t cp)
{
    return (cp >= 0x0A && cp <= 0x0D) || (cp >= 0x1C && cp <= 0x1E) || cp == 0x85 || cp == 0x2028 ||
           cp == 0x2029;
}

tp_status rt_text_lines(rt_render *r, const rt_str *s, bool keep_ends, rt_val *out)
{
    pieces p = {.r = r};
    size_t begin = 0;

    TP_TRY(rt_tmpl_charge(r, s->n >> 7));
    for (size_t at = 0; at < s->n;) {
        uint32_t cp;
        size_t next = rt_utf8_next(s->s, s->n, at, &cp);

        if (is_line_end(cp)) {
            if (cp == '\r' && next < s->n && s->s[next] == '\n')
                next++;
            TP_TRY(add_piece(&p, s, begin, keep_ends ? next : at));
            begin = next;
        }
        at = next;
    }
    if (begin < s->n)
        TP_TRY(add_piece(&p, s, begin, s->n));
    return rt_val_list(r, RT_LIST, p.items, p.n, out);
}

tp_status rt_text_join(rt_render *r, const rt_str *sep, const rt_val *items, size_t n, bool strict,
                       rt_val *out)
{
    size_t mark = rt_out_mark(r);

    for (size_t i = 0; i < n; i++) {
        TP_TRY(rt_tmpl_charge(r, 1));
        if (i > 0)
            TP_TRY(rt_out_str(r, sep));
        if (strict && items[i].kind != RT_STR)
            return rt_tmpl_error(r, "join() wants strings, item %zu is '%s'", i,
                                 rt_val_type_name(items[i]));
        if (strict && sep->safe && !items[i].u.str->safe)
            TP_TRY(rt_out_escaped(r, items[i].u.str));
        else
            TP_TRY(rt_out_value(r, items[i]));
    }
    TP_TRY(rt_out_cut(r, mark, out));
    out->u.str->safe = strict && sep->safe;
    return TP_OK;
}

tp_status rt_text_pad(rt_render *r, rt_str *s, int64_t width, const rt_str *fill, char align,
                      rt_val *out)
{
    int64_t chars = (int64_t)rt_str_chars(s), pad = width > chars ? width - chars : 0, left = 0;
    size_t mark = rt_out_mark(r);

    if (pad > (int64_t)r->work.max)
        return TP_REJECT(TP_ERR_LIMIT, "line %d: a string is padded beyond %zu bytes", r->line,
                         r->work.max);
    if (align == '>')
        left = pad;
    else if (align == '^')
        left = pad / 2 + (pad & width & 1);
    TP_TRY(rt_tmpl_charge(r, (size_t)pad >> 4));
    for (int64_t i = 0; i < left; i++)
        TP_TRY(rt_out_str(r, fill));
    TP_TRY(rt_out_str(r, s));
    for (int64_t i = left; i < pad; i++)
        TP_TRY(rt_out_str(r, fill));
    return cut_like(r, mark, s, out);
}
