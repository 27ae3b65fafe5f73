/* SPDX-License-Identifier: Apache-2.0 */
/* lex.c - from template text to tokens, with trim_blocks and lstrip_blocks on.
 *
 * The whitespace rules, in the order in which they apply to a piece of text and the tag behind it:
 *   - one newline at the very end of the source is dropped, and all newlines become \n;
 *   - "-" inside a tag strips all whitespace on that side;
 *   - otherwise blanks between the start of a line and a block or comment tag are dropped (not with "{%+");
 *   - the newline behind a block or comment tag is dropped (not with "+%}").
 * Inside a tag, "}}" and "%}" end it only outside of brackets.
 */
#include <string.h>

#include "base/utf8.h"
#include "runtime/template/interp.h"

typedef struct lexer {
    tp_arena *arena;
    const char *s; /* normalised source */
    size_t n, pos;
    size_t counted; /* newlines before this offset are in line */
    int line;
    rt_token *items;
    size_t n_items, cap;
} lexer;

static int line_at(lexer *l, size_t pos)
{
    for (; l->counted < pos; l->counted++)
        l->line += l->s[l->counted] == '\n';
    return l->line;
}

static tp_status fail(lexer *l, size_t pos, const char *what)
{
    return TP_REJECT(TP_ERR_FORMAT, "chat template, line %d: %s", line_at(l, pos), what);
}

static tp_status push(lexer *l, rt_token_kind kind, size_t at, const char *s, size_t n)
{
    if (l->n_items == l->cap) {
        size_t cap = l->cap == 0 ? 256 : 2 * l->cap;
        rt_token *items = tp_arena_alloc(l->arena, cap * sizeof *items);

        if (items == NULL)
            return TP_REJECT(TP_ERR_NOMEM, "chat template: no memory for %zu tokens", cap);
        if (l->n_items > 0)
            memcpy(items, l->items, l->n_items * sizeof *items);
        l->items = items;
        l->cap = cap;
    }
    l->items[l->n_items++] = (rt_token){.kind = kind, .line = line_at(l, at), .s = s, .n = n};
    return TP_OK;
}

static tp_status push_op(lexer *l, size_t at, int op)
{
    TP_TRY(push(l, RT_TOK_OP, at, NULL, 0));
    l->items[l->n_items - 1].op = op;
    return TP_OK;
}

/* ---- whitespace ---- */

static size_t skip_space(const lexer *l, size_t pos)
{
    while (pos < l->n) {
        uint32_t cp;
        size_t next = rt_utf8_next(l->s, l->n, pos, &cp);

        if (!rt_cp_is_space(cp))
            break;
        pos = next;
    }
    return pos;
}

static size_t strip_back(const lexer *l, size_t begin, size_t end)
{
    while (end > begin) {
        uint32_t cp;
        size_t prev = rt_utf8_prev(l->s, end, &cp);

        if (!rt_cp_is_space(cp))
            break;
        end = prev;
    }
    return end;
}

/* Text before a tag at `end`; sign is the character behind the tag's opening. */
static tp_status push_data(lexer *l, size_t begin, size_t end, char sign, bool block)
{
    size_t stop = end;

    if (sign == '-') {
        stop = strip_back(l, begin, end);
    } else if (sign != '+' && block) {
        size_t start = end;

        while (start > begin && l->s[start - 1] != '\n')
            start--;
        if ((start > begin || begin == 0 || l->s[begin - 1] == '\n') && skip_space(l, start) >= end)
            stop = start;
    }
    return stop > begin ? push(l, RT_TOK_DATA, begin, l->s + begin, stop - begin) : TP_OK;
}

static bool at_text(const lexer *l, size_t pos, const char *text)
{
    size_t n = strlen(text);

    return l->n - pos >= n && memcmp(l->s + pos, text, n) == 0;
}

/* Is there an end of tag at pos?  Sets *next behind it and what it swallows. */
static bool end_of_tag(const lexer *l, size_t pos, const char *close, bool block, size_t *next)
{
    char sign = pos < l->n ? l->s[pos] : 0;

    if (sign == '-' && at_text(l, pos + 1, close)) {
        *next = skip_space(l, pos + 3);
        return true;
    }
    if (block && sign == '+' && at_text(l, pos + 1, close)) {
        *next = pos + 3;
        return true;
    }
    if (!at_text(l, pos, close))
        return false;
    *next = pos + 2;
    if (block && *next < l->n && l->s[*next] == '\n')
        (*next)++;
    return true;
}

/* ---- literals ---- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* The escape behind a backslash at *pos; appends to out. */
static tp_status unescape(lexer *l, size_t *pos, size_t end, char **out)
{
    static const char names[] = "abfnrtv\\'\"";
    static const char values[] = "\a\b\f\n\r\t\v\\'\"";
    char c = l->s[*pos];
    const char *found = c != 0 ? strchr(names, c) : NULL;
    size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    uint32_t cp = 0;

    if (found != NULL) {
        *(*out)++ = values[found - names];
        (*pos)++;
        return TP_OK;
    }
    if (c == '\n') {
        (*pos)++;
        return TP_OK;
    }
    if (digits > 0) {
        if (end - *pos <= digits)
            return fail(l, *pos, "incomplete \\x, \\u or \\U in a string");
        for (size_t i = 1; i <= digits; i++) {
            int d = hex_digit(l->s[*pos + i]);

            if (d < 0)
                return fail(l, *pos, "bad hexadecimal digit in a string escape");
            cp = cp << 4 | (uint32_t)d;
        }
        *pos += digits + 1;
    } else if (c >= '0' && c <= '7') {
        for (int i = 0; i < 3 && *pos < end && l->s[*pos] >= '0' && l->s[*pos] <= '7'; i++)
            cp = cp << 3 | (uint32_t)(l->s[(*pos)++] - '0');
    } else {
        *(*out)++ = '\\'; /* an unknown escape stands for itself */
        return TP_OK;
    }
    if (cp > 0x10FFFF || (cp >= 0xD800 && cp < 0xE000))
        return fail(l, *pos, "a string escape that is no Unicode character");
    *out += tp_utf8_encode(cp, *out);
    return TP_OK;
}

static tp_status lex_string(lexer *l)
{
    size_t begin = l->pos, pos = begin + 1, end = pos;
    char quote = l->s[begin], *buf, *out;

    while (end < l->n && l->s[end] != quote)
        end += l->s[end] == '\\' ? 2 : 1;
    if (end >= l->n)
        return fail(l, begin, "a string without its closing quote");
    /* no escape is shorter than the character it stands for: \xff is 4 bytes and becomes 2 */
    buf = out = tp_arena_alloc(l->arena, end - pos + TP_UTF8_MAX_BYTES);
    if (buf == NULL)
        return TP_REJECT(TP_ERR_NOMEM, "chat template: no memory");
    while (pos < end) {
        if (l->s[pos] != '\\') {
            *out++ = l->s[pos++];
            continue;
        }
        pos++;
        TP_TRY(unescape(l, &pos, end, &out));
    }
    l->pos = end + 1;
    return push(l, RT_TOK_STRING, begin, buf, (size_t)(out - buf));
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Digits with single underscores between them. */
static size_t digits_end(const lexer *l, size_t pos)
{
    while (pos < l->n &&
           (is_digit(l->s[pos]) || (l->s[pos] == '_' && pos + 1 < l->n && is_digit(l->s[pos + 1]))))
        pos++;
    return pos;
}

/* 0x1F, 0o17, 0b11: the end of the digits, or begin when it is none of them. */
static size_t prefixed_end(const lexer *l, size_t begin)
{
    char kind = begin + 2 < l->n && l->s[begin] == '0' ? (char)(l->s[begin + 1] | 32) : 0;
    int base = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 0;
    size_t end = begin + 2;

    while (base > 0 && end < l->n &&
           ((hex_digit(l->s[end]) >= 0 && hex_digit(l->s[end]) < base) || l->s[end] == '_'))
        end++;
    return base > 0 && end > begin + 2 ? end : begin;
}

/* Behind the integer part that ends at `end`: the end of a fraction and an exponent, or `end`. */
static size_t float_end(const lexer *l, size_t end)
{
    if (end + 1 < l->n && l->s[end] == '.' && is_digit(l->s[end + 1]))
        end = digits_end(l, end + 1);
    if (end < l->n && (l->s[end] == 'e' || l->s[end] == 'E')) {
        size_t p = end + 1;

        if (p < l->n && (l->s[p] == '+' || l->s[p] == '-'))
            p++;
        if (p < l->n && is_digit(l->s[p]))
            end = digits_end(l, p);
    }
    return end;
}

/* 0, 00 and 0_0 are numbers, 08 is not. */
static bool leading_zero(const lexer *l, size_t begin, size_t end)
{
    if (l->s[begin] != '0')
        return false;
    for (size_t i = begin; i < end; i++)
        if (l->s[i] != '0' && l->s[i] != '_')
            return true;
    return false;
}

static tp_status lex_number(lexer *l)
{
    size_t begin = l->pos, end = prefixed_end(l, begin), whole = digits_end(l, begin), n = 0;
    bool after_dot = begin > 0 && l->s[begin - 1] == '.', is_float = false;
    char *text;

    if (end == begin) {
        end = after_dot ? whole : float_end(l, whole);
        is_float = end > whole;
        if (!is_float && leading_zero(l, begin, end))
            return fail(l, begin, "a number with a leading zero");
    }
    text = tp_arena_alloc(l->arena, end - begin + 1);
    if (text == NULL)
        return TP_REJECT(TP_ERR_NOMEM, "chat template: no memory");
    for (size_t i = begin; i < end; i++)
        if (l->s[i] != '_')
            text[n++] = l->s[i];
    text[n] = 0;
    l->pos = end;
    return push(l, is_float ? RT_TOK_FLOAT : RT_TOK_INT, begin, text, n);
}

static bool name_byte(char c, bool first)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           (unsigned char)c >= 0x80 || (!first && is_digit(c));
}

/* ---- tags ---- */

static tp_status lex_operator(lexer *l, int *brackets)
{
    static const char *const twos[] = {"==", "!=", ">=", "<=", "//", "**"};
    size_t at = l->pos;
    char c = l->s[at];

    for (size_t i = 0; i < TP_ARRAY_LEN(twos); i++) {
        if (at_text(l, at, twos[i])) {
            l->pos += 2;
            return push_op(l, at, RT_OP2(twos[i][0], twos[i][1]));
        }
    }
    if (!rt_one_of(c, "+-/*%~[](){}><=.:|,;"))
        return fail(l, at, "an unexpected character");
    if (rt_one_of(c, "([{"))
        (*brackets)++;
    if (rt_one_of(c, ")]}") && --*brackets < 0)
        return fail(l, at, "a closing bracket without an opening one");
    l->pos++;
    return push_op(l, at, c);
}

/* The inside of a tag, up to and with its end. */
static tp_status lex_tag(lexer *l, const char *close, bool block)
{
    int brackets = 0;

    for (;;) {
        size_t next, at;

        l->pos = skip_space(l, l->pos);
        at = l->pos;
        if (at >= l->n)
            return fail(l, l->n,
                        block ? "a tag without its closing %}" : "a tag without its closing }}");
        if (brackets == 0 && end_of_tag(l, at, close, block, &next)) {
            l->pos = next;
            return push(l, block ? RT_TOK_BLOCK_END : RT_TOK_PRINT_END, at, NULL, 0);
        }
        if (is_digit(l->s[at])) {
            TP_TRY(lex_number(l));
        } else if (name_byte(l->s[at], true)) {
            while (l->pos < l->n && name_byte(l->s[l->pos], false))
                l->pos++;
            TP_TRY(push(l, RT_TOK_NAME, at, l->s + at, l->pos - at));
        } else if (l->s[at] == '\'' || l->s[at] == '"') {
            TP_TRY(lex_string(l));
        } else {
            TP_TRY(lex_operator(l, &brackets));
        }
    }
}

/* "{% WORD %}" at pos: sets *next behind it.  {% raw %} keeps the newline behind it, {% endraw %} does not. */
static bool word_tag(const lexer *l, size_t pos, const char *word, bool ending, size_t *next)
{
    if (!at_text(l, pos, "{%"))
        return false;
    pos += 2;
    if (pos < l->n && (l->s[pos] == '-' || l->s[pos] == '+'))
        pos++;
    pos = skip_space(l, pos);
    if (!at_text(l, pos, word))
        return false;
    pos = skip_space(l, pos + strlen(word));
    if (ending)
        return end_of_tag(l, pos, "%}", true, next);
    return end_of_tag(l, pos, "%}", false, next);
}

static tp_status lex_raw(lexer *l, size_t begin)
{
    for (size_t pos = begin; pos < l->n; pos++) {
        size_t next;

        if (l->s[pos] == '{' && word_tag(l, pos, "endraw", true, &next)) {
            TP_TRY(push_data(l, begin, pos, l->s[pos + 2], true));
            l->pos = next;
            return TP_OK;
        }
    }
    return fail(l, begin, "{% raw %} without {% endraw %}");
}

static tp_status lex_comment(lexer *l, size_t begin)
{
    for (size_t pos = begin + 2; pos < l->n; pos++) {
        size_t next;

        if (end_of_tag(l, pos, "#}", true, &next)) {
            l->pos = next;
            return TP_OK;
        }
    }
    return fail(l, begin, "a comment without its closing #}");
}

static size_t find_tag(const lexer *l, size_t pos)
{
    for (; pos + 1 < l->n; pos++) {
        char c = l->s[pos + 1];

        if (l->s[pos] == '{' && (c == '{' || c == '%' || c == '#'))
            return pos;
    }
    return l->n;
}

static tp_status lex_all(lexer *l)
{
    while (l->pos < l->n) {
        size_t begin = l->pos, tag = find_tag(l, begin), next;
        char kind, sign;

        if (tag == l->n) {
            TP_TRY(push(l, RT_TOK_DATA, begin, l->s + begin, l->n - begin));
            break;
        }
        kind = l->s[tag + 1];
        sign = tag + 2 < l->n ? l->s[tag + 2] : 0;
        TP_TRY(push_data(l, begin, tag, sign, kind != '{'));
        if (kind == '%' && word_tag(l, tag, "raw", false, &next)) {
            TP_TRY(lex_raw(l, next));
            continue;
        }
        l->pos = tag + (sign == '-' || sign == '+' ? 3 : 2);
        if (kind == '#') {
            TP_TRY(lex_comment(l, l->pos - 2));
            continue;
        }
        TP_TRY(push(l, kind == '%' ? RT_TOK_BLOCK_BEGIN : RT_TOK_PRINT_BEGIN, tag, NULL, 0));
        TP_TRY(lex_tag(l, kind == '%' ? "%}" : "}}", kind == '%'));
    }
    return push(l, RT_TOK_EOF, l->n, NULL, 0);
}

/* \r\n and \r become \n; one newline at the end goes. */
static char *normalise(tp_arena *arena, const char *src, size_t n, size_t *out_n)
{
    char *s = tp_arena_alloc(arena, n + 1);
    size_t k = 0;

    if (s == NULL)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        if (src[i] == '\r') {
            s[k++] = '\n';
            i += i + 1 < n && src[i + 1] == '\n';
        } else {
            s[k++] = src[i];
        }
    }
    if (k > 0 && s[k - 1] == '\n')
        k--;
    s[k] = 0;
    *out_n = k;
    return s;
}

tp_status rt_tmpl_lex(tp_arena *arena, const char *src, size_t n, rt_tokens *out)
{
    lexer l = {.arena = arena, .line = 1};

    if (!tp_utf8_valid(src, n))
        return TP_REJECT(TP_ERR_FORMAT, "the chat template is not UTF-8");
    l.s = normalise(arena, src, n, &l.n);
    if (l.s == NULL)
        return TP_REJECT(TP_ERR_NOMEM, "chat template: no memory for %zu bytes", n);
    TP_TRY(lex_all(&l));
    *out = (rt_tokens){l.items, l.n_items};
    return TP_OK;
}
