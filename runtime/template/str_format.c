/* SPDX-License-Identifier: Apache-2.0 */
/* str_format.c - "..." % values and "...".format(values), with Python's number formats.
 *
 * Both end in out_padded(): a text, a width and where to put it.  Numbers are laid out by printf, which agrees
 * with Python for d, x, o, e, f and g.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "runtime/template/interp.h"

#define WIDTH_MAX     10000
#define PRECISION_MAX 100

typedef struct spec {
    char fill[TP_UTF8_MAX_BYTES];
    int n_fill;
    char align; /* < > ^ = or 0 */
    char sign;  /* + - blank or 0 */
    bool alternate, zero, comma;
    int width;
    int precision; /* -1: not given */
    char type;
} spec;

static tp_status read_int(rt_render *r, const rt_str *s, size_t *at, int max, int *out)
{
    int n = 0;

    while (*at < s->n && s->s[*at] >= '0' && s->s[*at] <= '9') {
        n = n * 10 + (s->s[(*at)++] - '0');
        if (n > max)
            return TP_REJECT(TP_ERR_LIMIT, "line %d: a width or precision beyond %d", r->line, max);
    }
    *out = n;
    return TP_OK;
}

static tp_status out_fill(rt_render *r, const spec *sp, size_t n)
{
    for (size_t i = 0; i < n; i++)
        TP_TRY(rt_out_bytes(r, sp->fill, (size_t)sp->n_fill, false));
    return TP_OK;
}

/* Text of s with padding; align '=' puts the padding behind a sign. */
static tp_status out_padded(rt_render *r, const spec *sp, rt_str *s, char align)
{
    size_t chars = rt_str_chars(s), pad = sp->width > (int)chars ? (size_t)sp->width - chars : 0;
    size_t left = align == '>' ? pad : align == '^' ? pad / 2 : 0, sign = 0;

    if (align == '=') {
        sign = s->n > 0 && rt_one_of(s->s[0], "+- ");
        if (s->n > sign + 1 && s->s[sign] == '0' && rt_one_of(s->s[sign + 1], "xXob"))
            sign += 2;
        TP_TRY(rt_out_part(r, s, 0, sign));
        TP_TRY(out_fill(r, sp, pad));
        return rt_out_part(r, s, sign, s->n);
    }
    TP_TRY(out_fill(r, sp, left));
    TP_TRY(rt_out_str(r, s));
    return out_fill(r, sp, pad - left);
}

/* ---- numbers ---- */

static size_t binary_digits(uint64_t u, char *out)
{
    size_t n = 0;
    int bit = 63;

    while (bit > 0 && (u >> bit & 1) == 0)
        bit--;
    for (; bit >= 0; bit--)
        out[n++] = (u >> bit & 1) ? '1' : '0';
    out[n] = 0;
    return n;
}

static void int_text(const spec *sp, int64_t i, char *out, size_t cap)
{
    uint64_t u = i < 0 ? -(uint64_t)i : (uint64_t)i;
    const char *sign = i < 0 ? "-" : sp->sign == '+' ? "+" : sp->sign == ' ' ? " " : "";
    const char *prefix = "";
    char digits[80];
    int zeros;

    if (sp->type == 'x' || sp->type == 'X') {
        prefix = sp->type == 'x' ? "0x" : "0X";
        (void)snprintf(digits, sizeof digits, sp->type == 'x' ? "%llx" : "%llX",
                       (unsigned long long)u);
    } else if (sp->type == 'o') {
        prefix = "0o";
        (void)snprintf(digits, sizeof digits, "%llo", (unsigned long long)u);
    } else if (sp->type == 'b') {
        prefix = "0b";
        (void)binary_digits(u, digits);
    } else {
        (void)snprintf(digits, sizeof digits, "%llu", (unsigned long long)u);
    }
    zeros = sp->precision - (int)strlen(digits); /* only with %: at least so many digits */
    (void)snprintf(out, cap, "%s%s%.*d%s", sign, sp->alternate ? prefix : "", zeros > 0 ? zeros : 0,
                   0, digits);
}

/* 1234567.5 -> 1,234,567.5 */
static void group_thousands(char *text, size_t cap)
{
    char plain[512];
    size_t begin = strcspn(text, "0123456789"), n = strspn(text + begin, "0123456789"), k = begin;

    (void)snprintf(plain, sizeof plain, "%s", text);
    for (size_t i = 0; i < n && k + 2 < cap; i++) {
        if (i > 0 && (n - i) % 3 == 0)
            text[k++] = ',';
        text[k++] = plain[begin + i];
    }
    (void)snprintf(text + k, cap - k, "%s", plain + begin + n);
}

static void float_text(const spec *sp, double f, char *out, size_t cap)
{
    const char *sign = sp->sign == '+' ? "+" : sp->sign == ' ' ? " " : "";
    char fmt[16];

    if (isnan(f) || isinf(f)) {
        (void)snprintf(out, cap, "%s%s", f < 0 ? "-" : sign, isnan(f) ? "nan" : "inf");
        return;
    }
    if (sp->type == 0 && sp->precision < 0) {
        char text[40];

        (void)rt_float_repr(f, text);
        text[39] = 0;
        (void)snprintf(out, cap, "%s%s", f < 0 || signbit(f) ? "" : sign, text);
        return;
    }
    (void)snprintf(fmt, sizeof fmt, "%%%s%s.*%c", sign, sp->alternate ? "#" : "",
                   sp->type == '%' ? 'f'
                   : sp->type == 0 ? 'g'
                                   : sp->type);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    (void)snprintf(out, cap, fmt, sp->precision < 0 ? 6 : sp->precision,
                   sp->type == '%' ? f * 100 : f);
#pragma GCC diagnostic pop
    if (sp->type == '%')
        (void)snprintf(out + strlen(out), cap - strlen(out), "%%");
}

static bool is_float_type(char c)
{
    return rt_one_of(c, "eEfFgG%");
}

static tp_status out_number(rt_render *r, const spec *sp, rt_val v)
{
    char text[512];
    rt_str s = {.s = text, .n_chars = SIZE_MAX};
    int64_t i = 0;

    if (v.kind == RT_BIGINT) {
        if (sp->type != 0 && sp->type != 'd')
            return rt_tmpl_error(r, "an integer beyond 64 bits can only be printed in decimal");
        return out_padded(r, sp, v.u.str, sp->align != 0 ? sp->align : '>');
    }
    if (v.kind == RT_FLOAT || is_float_type(sp->type)) {
        double f = v.kind == RT_FLOAT ? v.u.f : (double)(rt_val_as_int(v, &i) ? i : 0);

        if (v.kind == RT_FLOAT && sp->type != 0 && !is_float_type(sp->type))
            return rt_tmpl_error(r, "format code '%c' is not for floats", sp->type);
        float_text(sp, f, text, sizeof text);
    } else {
        if (sp->type != 0 && !rt_one_of(sp->type, "dxXobni"))
            return rt_tmpl_error(r, "format code '%c' is not for integers", sp->type);
        (void)rt_val_as_int(v, &i);
        int_text(sp, i, text, sizeof text);
    }
    if (sp->comma)
        group_thousands(text, sizeof text);
    s.n = strlen(text);
    return out_padded(r, sp, &s, sp->align != 0 ? sp->align : sp->zero ? '=' : '>');
}

static tp_status out_text(rt_render *r, const spec *sp, rt_str *s)
{
    rt_str cut = *s;

    if (sp->precision >= 0 && rt_str_chars(s) > (size_t)sp->precision) {
        cut.n = rt_str_offset(s, (size_t)sp->precision);
        cut.n_chars = SIZE_MAX;
    }
    return out_padded(r, sp, &cut, sp->align != 0 ? sp->align : '<');
}

/* ---- percent ---- */

typedef struct percent {
    rt_render *r;
    rt_str *format;
    size_t at;
    rt_val args;
    size_t next; /* position in a tuple of arguments */
} percent;

static tp_status percent_arg(percent *p, const rt_str *key, rt_val *out)
{
    const rt_val *v = NULL;
    rt_str name;

    if (key != NULL) {
        if (p->args.kind != RT_DICT)
            return rt_tmpl_error(p->r, "%%(name) formats want a dictionary");
        name = *key;
        TP_TRY(rt_dict_find(p->r, p->args.u.dict, rt_val_str(&name), &v));
        if (v == NULL)
            return rt_tmpl_error(p->r, "no value named '%.*s' for the format",
                                 rt_tmpl_quote_len(key), key->s);
        *out = *v;
        p->next = SIZE_MAX;
        return TP_OK;
    }
    if (p->args.kind == RT_TUPLE) {
        if (p->next >= p->args.u.list->n)
            return rt_tmpl_error(p->r, "not enough arguments for format string");
        *out = p->args.u.list->items[p->next++];
        return TP_OK;
    }
    if (p->next > 0)
        return rt_tmpl_error(p->r, "not enough arguments for format string");
    p->next = 1;
    *out = p->args;
    return TP_OK;
}

static tp_status percent_spec(percent *p, spec *sp, rt_str *key, bool *named)
{
    const rt_str *f = p->format;

    *sp = (spec){.fill = " ", .n_fill = 1, .precision = -1};
    *named = p->at < f->n && f->s[p->at] == '(';
    if (*named) {
        size_t begin = p->at + 1, end = rt_str_find(f, begin, ")", 1);

        if (end == f->n)
            return rt_tmpl_error(p->r, "incomplete format key");
        *key = (rt_str){.s = f->s + begin, .n = end - begin, .n_chars = SIZE_MAX};
        p->at = end + 1;
    }
    for (; p->at < f->n && rt_one_of(f->s[p->at], "-+ #0"); p->at++) {
        switch (f->s[p->at]) {
        case '-': sp->align = '<'; break;
        case '+': sp->sign = '+'; break;
        case ' ': sp->sign = sp->sign == '+' ? '+' : ' '; break;
        case '#': sp->alternate = true; break;
        default: sp->zero = true;
        }
    }
    TP_TRY(read_int(p->r, f, &p->at, WIDTH_MAX, &sp->width));
    if (p->at < f->n && f->s[p->at] == '.') {
        p->at++;
        TP_TRY(read_int(p->r, f, &p->at, PRECISION_MAX, &sp->precision));
    }
    while (p->at < f->n && rt_one_of(f->s[p->at], "hlL"))
        p->at++;
    if (p->at == f->n)
        return rt_tmpl_error(p->r, "incomplete format");
    sp->type = f->s[p->at++];
    return TP_OK;
}

static tp_status percent_number(percent *p, spec *sp, rt_val v)
{
    if (v.kind == RT_UNDEFINED)
        return rt_tmpl_undefined_error(p->r, v);
    if (!rt_val_is_number(v))
        return rt_tmpl_error(p->r, "%%%c format: a number is required, not %s", sp->type,
                             rt_val_type_name(v));
    if (rt_one_of(sp->type, "diu")) {
        sp->type = 'd';
        if (v.kind == RT_FLOAT) {
            if (!(fabs(v.u.f) < 9e18))
                return rt_tmpl_error(p->r, "an integer beyond 64 bits");
            v = rt_val_int((int64_t)v.u.f);
        }
    }
    if (sp->zero && sp->align == 0) {
        sp->align = '=';
        sp->fill[0] = '0';
    }
    return out_number(p->r, sp, v);
}

static tp_status percent_one(percent *p)
{
    rt_str key, *s;
    bool named;
    rt_val v;
    spec sp;

    TP_TRY(percent_spec(p, &sp, &key, &named));
    if (sp.type == '%')
        return rt_out_puts(p->r, "%");
    TP_TRY(percent_arg(p, named ? &key : NULL, &v));
    if (sp.align == 0 && rt_one_of(sp.type, "src"))
        sp.align = '>';
    switch (sp.type) {
    case 's':
        if (p->format->safe)
            TP_TRY(rt_val_escape(p->r, v, &v));
        TP_TRY(rt_val_to_str(p->r, v, &s));
        return out_text(p->r, &sp, s);
    case 'r': {
        size_t mark = rt_out_mark(p->r);

        TP_TRY(rt_out_repr(p->r, v));
        TP_TRY(rt_out_cut(p->r, mark, &v));
        return out_text(p->r, &sp, v.u.str);
    }
    case 'd':
    case 'i':
    case 'u':
    case 'x':
    case 'X':
    case 'o':
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G': return percent_number(p, &sp, v);
    default: return rt_tmpl_error(p->r, "unsupported format character '%c'", sp.type);
    }
}

tp_status rt_tmpl_percent(rt_render *r, rt_str *format, rt_val args, rt_val *out)
{
    percent p = {.r = r, .format = format, .args = args};
    size_t mark = rt_out_mark(r);

    while (p.at < format->n) {
        size_t at = rt_str_find(format, p.at, "%", 1);

        TP_TRY(rt_out_part(r, format, p.at, at));
        p.at = at + 1;
        if (at == format->n)
            break;
        TP_TRY(rt_tmpl_charge(r, 1));
        TP_TRY(percent_one(&p));
    }
    if ((args.kind == RT_TUPLE && p.next < args.u.list->n) ||
        (p.next == 0 && args.kind != RT_TUPLE && args.kind != RT_DICT && args.kind != RT_LIST))
        return rt_tmpl_error(r, "not all arguments converted during string formatting");
    TP_TRY(rt_out_cut(r, mark, out));
    out->u.str->safe = format->safe;
    return TP_OK;
}

/* ---- str.format ---- */

typedef struct field {
    rt_render *r;
    const rt_str *format;
    const rt_args *args;
    size_t at;
    size_t next; /* automatic numbering */
    bool automatic, manual;
} field;

static tp_status field_root(field *f, const rt_str *name, rt_val *out)
{
    size_t index = 0;

    if (name->n == 0) {
        index = f->next++;
        f->automatic = true;
    }
    for (size_t i = 0; i < name->n; i++) {
        if (name->s[i] < '0' || name->s[i] > '9') {
            for (size_t k = 0; k < f->args->n_kw; k++) {
                if (rt_str_same(f->args->kw[k].name, name)) {
                    *out = f->args->kw[k].val;
                    return TP_OK;
                }
            }
            return rt_tmpl_error(f->r, "no value named '%.*s' for the format",
                                 rt_tmpl_quote_len(name), name->s);
        }
        index = index * 10 + (size_t)(name->s[i] - '0');
        if (index > 1000)
            break;
    }
    f->manual = f->manual || name->n > 0;
    if (f->automatic && f->manual)
        return rt_tmpl_error(f->r, "automatic and manual field numbers in one format");
    if (index >= f->args->n)
        return rt_tmpl_error(f->r, "not enough arguments for format string");
    *out = f->args->v[index];
    return TP_OK;
}

/* name, then .attribute and [item] parts */
static tp_status field_value(field *f, size_t end, rt_val *out)
{
    const rt_str *s = f->format;
    size_t begin = f->at, at = begin;
    rt_str *part;
    rt_attr attr;

    while (at < end && s->s[at] != '.' && s->s[at] != '[')
        at++;
    TP_TRY(field_root(f, &(rt_str){.s = s->s + begin, .n = at - begin}, out));
    while (at < end) {
        bool item = s->s[at] == '[';
        size_t stop = ++at;
        int64_t i = 0;

        while (stop < end && (item ? s->s[stop] != ']' : s->s[stop] != '.' && s->s[stop] != '['))
            stop++;
        part = rt_str_make(f->r, s->s + at, stop - at, false);
        if (part == NULL)
            return rt_tmpl_no_memory(f->r, sizeof *part);
        if (!item) {
            rt_tmpl_find_attr(part->s, part->n, &attr);
            TP_TRY(rt_tmpl_attr(f->r, *out, &attr, part, out));
        } else if (part->n > 0 && part->n < 10 && strspn(part->s, "0123456789") >= part->n) {
            for (size_t k = 0; k < part->n; k++)
                i = i * 10 + (part->s[k] - '0');
            TP_TRY(rt_tmpl_item(f->r, *out, rt_val_int(i), out));
        } else {
            TP_TRY(rt_tmpl_item(f->r, *out, rt_val_str(part), out));
        }
        at = stop + item;
    }
    return TP_OK;
}

static tp_status read_spec(rt_render *r, const rt_str *s, size_t at, spec *sp)
{
    uint32_t cp;
    size_t next;

    *sp = (spec){.fill = " ", .n_fill = 1, .precision = -1};
    if (at < s->n) {
        next = rt_utf8_next(s->s, s->n, at, &cp);
        if (next < s->n && rt_one_of(s->s[next], "<>^=")) {
            sp->n_fill = tp_utf8_encode(cp, sp->fill);
            sp->align = s->s[next];
            at = next + 1;
        } else if (rt_one_of(s->s[at], "<>^=")) {
            sp->align = s->s[at++];
        }
    }
    if (at < s->n && rt_one_of(s->s[at], "+- "))
        sp->sign = s->s[at++];
    if (at < s->n && s->s[at] == '#')
        sp->alternate = s->s[at++] == '#';
    if (at < s->n && s->s[at] == '0') {
        at++;
        if (sp->align == 0) {
            sp->zero = true;
            sp->fill[0] = '0';
        }
    }
    TP_TRY(read_int(r, s, &at, WIDTH_MAX, &sp->width));
    if (at < s->n && s->s[at] == ',')
        sp->comma = s->s[at++] == ',';
    if (at < s->n && s->s[at] == '.') {
        at++;
        TP_TRY(read_int(r, s, &at, PRECISION_MAX, &sp->precision));
    }
    if (at + 1 < s->n || (at < s->n && s->s[at] == 0))
        return rt_tmpl_error(r, "an invalid format specification");
    if (at < s->n)
        sp->type = s->s[at];
    return TP_OK;
}

static tp_status out_field(field *f, rt_val v, const rt_str *spec_text, char conversion)
{
    spec sp;
    rt_str *s;

    if (conversion == 'r') {
        size_t mark = rt_out_mark(f->r);

        TP_TRY(rt_out_repr(f->r, v));
        TP_TRY(rt_out_cut(f->r, mark, &v));
    } else if (conversion == 's') {
        TP_TRY(rt_val_to_str(f->r, v, &s));
        v = rt_val_str(s);
    }
    if (f->format->safe)
        TP_TRY(rt_val_escape(f->r, v, &v));
    if (spec_text->n == 0)
        return rt_out_value(f->r, v);
    TP_TRY(read_spec(f->r, spec_text, 0, &sp));
    if (rt_val_is_number(v) && v.kind != RT_FLOAT && sp.precision >= 0 && !is_float_type(sp.type))
        return rt_tmpl_error(f->r, "a precision is not for integers");
    if (rt_val_is_number(v))
        return out_number(f->r, &sp, v);
    if (v.kind != RT_STR || sp.comma || (sp.type != 0 && sp.type != 's'))
        return rt_tmpl_error(f->r, "this format specification is not for '%s'",
                             rt_val_type_name(v));
    return out_text(f->r, &sp, v.u.str);
}

/* A replacement field; f->at is behind its {. */
static tp_status format_field(field *f)
{
    const rt_str *s = f->format;
    size_t close = rt_str_find(s, f->at, "}", 1), name_end = f->at, colon;
    char conversion = 0;
    rt_str spec_text = {0};
    rt_val v;

    if (close == s->n)
        return rt_tmpl_error(f->r, "expected '}' before end of string");
    while (name_end < close && s->s[name_end] != '!' && s->s[name_end] != ':')
        name_end++;
    TP_TRY(field_value(f, name_end, &v));
    colon = name_end;
    if (colon + 1 < close && s->s[colon] == '!') {
        conversion = s->s[colon + 1];
        colon += 2;
    }
    if (colon < close && s->s[colon] == ':')
        spec_text = (rt_str){.s = s->s + colon + 1, .n = close - colon - 1, .n_chars = SIZE_MAX};
    if (memchr(s->s + f->at, '{', close - f->at) != NULL)
        return rt_tmpl_error(f->r, "nested format fields are not supported");
    f->at = close + 1;
    return out_field(f, v, &spec_text, conversion);
}

tp_status rt_tmpl_format(rt_render *r, rt_str *format, const rt_args *a, rt_val *out)
{
    field f = {.r = r, .format = format, .args = a};
    size_t mark = rt_out_mark(r);

    while (f.at < format->n) {
        char c = format->s[f.at];

        if ((c == '{' || c == '}') && f.at + 1 < format->n && format->s[f.at + 1] == c) {
            TP_TRY(rt_out_part(r, format, f.at, f.at + 1));
            f.at += 2;
        } else if (c == '{') {
            f.at++;
            TP_TRY(rt_tmpl_charge(r, 1));
            TP_TRY(format_field(&f));
        } else if (c == '}') {
            return rt_tmpl_error(r, "single '}' encountered in format string");
        } else {
            TP_TRY(rt_out_part(r, format, f.at, f.at + 1));
            f.at++;
        }
    }
    TP_TRY(rt_out_cut(r, mark, out));
    out->u.str->safe = format->safe;
    return TP_OK;
}
