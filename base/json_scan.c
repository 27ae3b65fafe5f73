/* SPDX-License-Identifier: Apache-2.0 */
/* json_scan.c - single-pass JSON validator with an explicit stack.
 *
 * Repeated keys: the decoded key is hashed with SipHash under a key drawn per document, the number of the object
 * it stands in is mixed in, and the 64-bit result goes into one open-addressing set for the whole document.  Equal
 * values are taken for equal keys: among 10^6 keys a false alarm has a chance of 3 * 10^-8, and nobody can provoke
 * one without knowing the key.
 */
#include "base/json_scan.h"

#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/utf8.h"

#define SET_SLOTS_FIRST 64
#define OBJECT_MIX      UINT64_C(0x9e3779b97f4a7c15) /* odd: object numbers stay apart */
#define KEY_SHOWN_BYTES 48

typedef struct key_set {
    uint64_t *slots; /* first[] or owned; 0 = free */
    size_t n_slots;  /* power of two */
    size_t n_used;
    uint64_t first[SET_SLOTS_FIRST]; /* enough for a usual request */
} key_set;

typedef struct level {
    bool is_object;
    bool free;       /* keys may repeat here and below */
    bool value_free; /* and in the value of the member that was named last */
    uint64_t number; /* of the object, counted through the document */
} level;

typedef struct scanner {
    const char *text;
    size_t len, pos;
    const tp_json_limits *limits;
    tp_json_scan_result *out;
    int depth, depth_max;
    uint64_t n_objects;
    size_t n_values;
    key_set keys;
    tp_buf key_text; /* a key with its escapes resolved */
    uint8_t hash_key[16];
    level levels[TP_JSON_DEPTH_MAX];
} scanner;

/* ---- key set ---- */

static void set_insert(uint64_t *slots, size_t n_slots, uint64_t h)
{
    size_t i = h & (n_slots - 1);

    while (slots[i] != 0)
        i = (i + 1) & (n_slots - 1);
    slots[i] = h;
}

static bool set_has(const key_set *set, uint64_t h)
{
    size_t i = h & (set->n_slots - 1);

    while (set->slots[i] != 0 && set->slots[i] != h)
        i = (i + 1) & (set->n_slots - 1);
    return set->slots[i] == h;
}

static bool set_grow(key_set *set)
{
    size_t n_slots = set->n_slots * 4;
    uint64_t *slots = tp_calloc(n_slots, sizeof *slots);

    if (slots == NULL)
        return false;
    for (size_t i = 0; i < set->n_slots; i++)
        if (set->slots[i] != 0)
            set_insert(slots, n_slots, set->slots[i]);
    if (set->slots != set->first)
        tp_free(set->slots);
    set->slots = slots;
    set->n_slots = n_slots;
    return true;
}

/* ---- errors ---- */

static tp_status bad(const scanner *s, const char *expected)
{
    unsigned char c;

    if (s->pos >= s->len)
        return TP_REJECT(TP_ERR_FORMAT, "JSON ends at byte %zu: expected %s", s->pos, expected);
    c = (unsigned char)s->text[s->pos];
    if (c > 0x20 && c < 0x7f)
        return TP_REJECT(TP_ERR_FORMAT, "JSON at byte %zu: expected %s, found '%c'", s->pos,
                         expected, c);
    return TP_REJECT(TP_ERR_FORMAT, "JSON at byte %zu: expected %s, found byte 0x%02x", s->pos,
                     expected, c);
}

static tp_status no_memory(void)
{
    return TP_REJECT(TP_ERR_NOMEM, "JSON: out of memory");
}

static int peek(const scanner *s)
{
    return s->pos < s->len ? (unsigned char)s->text[s->pos] : -1;
}

static void skip_space(scanner *s)
{
    while (s->pos < s->len) {
        char c = s->text[s->pos];

        if (c != ' ' && c != '\n' && c != '\r' && c != '\t')
            return;
        s->pos++;
    }
}

/* ---- scalars ---- */

static size_t count_digits(const char *s, size_t n)
{
    size_t i = 0;

    while (i < n && s[i] >= '0' && s[i] <= '9')
        i++;
    return i;
}

size_t tp_json_number_len(const char *s, size_t n)
{
    size_t i = n > 0 && s[0] == '-' ? 1 : 0;
    size_t whole = count_digits(s + i, n - i);
    size_t more;

    if (whole == 0)
        return 0;
    i += s[i] == '0' ? 1 : whole; /* a leading zero stands alone */
    if (i < n && s[i] == '.') {
        more = count_digits(s + i + 1, n - i - 1);
        if (more == 0)
            return 0;
        i += 1 + more;
    }
    if (i < n && (s[i] == 'e' || s[i] == 'E')) {
        size_t sign = i + 1 < n && (s[i + 1] == '+' || s[i + 1] == '-') ? 1 : 0;

        more = count_digits(s + i + 1 + sign, n - i - 1 - sign);
        if (more == 0)
            return 0;
        i += 1 + sign + more;
    }
    return i;
}

static tp_status scan_number(scanner *s)
{
    size_t n = tp_json_number_len(s->text + s->pos, s->len - s->pos);

    if (n == 0)
        return bad(s, "a number like -1.5e3");
    tp_buf_put(&s->out->digits, s->text + s->pos, n);
    tp_buf_putc(&s->out->digits, '\0');
    if (s->out->digits.failed)
        return no_memory();
    if (n > TP_JSON_CJSON_DIGITS)
        s->out->long_numbers = true;
    s->pos += n;
    return TP_OK;
}

static tp_status scan_word(scanner *s, const char *word)
{
    size_t n = strlen(word);

    if (s->len - s->pos < n || memcmp(s->text + s->pos, word, n) != 0)
        return bad(s, "true, false or null");
    s->pos += n;
    return TP_OK;
}

/* Four hexadecimal digits at pos; -1 when they are not there. */
static int32_t hex4(const scanner *s, size_t pos)
{
    int32_t value = 0;

    if (s->len < 4 || pos > s->len - 4)
        return -1;
    for (size_t i = 0; i < 4; i++) {
        char c = s->text[pos + i];
        int digit;

        if (c >= '0' && c <= '9')
            digit = c - '0';
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            digit = (c | 0x20) - 'a' + 10;
        else
            return -1;
        value = value << 4 | digit;
    }
    return value;
}

/* After "\u"; pos at the digits.  Appends the code point to `decoded` when given. */
static tp_status scan_unicode_escape(scanner *s, tp_buf *decoded)
{
    int32_t high = hex4(s, s->pos), low;
    uint32_t cp;
    char bytes[TP_UTF8_MAX_BYTES];

    if (high < 0)
        return bad(s, "four hexadecimal digits after \\u");
    cp = (uint32_t)high;
    if (cp == 0 && !s->limits->allow_nul)
        return TP_REJECT(TP_ERR_FORMAT, "JSON at byte %zu: \\u0000 is not allowed", s->pos - 2);
    s->pos += 4;
    if (cp >= 0xd800 && cp <= 0xdfff) {
        low = s->pos + 1 < s->len && s->text[s->pos] == '\\' && s->text[s->pos + 1] == 'u'
                  ? hex4(s, s->pos + 2)
                  : -1;
        if (cp >= 0xdc00 || low < 0xdc00 || low > 0xdfff)
            return TP_REJECT(TP_ERR_FORMAT, "JSON at byte %zu: lone surrogate \\u%04x", s->pos - 6,
                             (unsigned)cp);
        cp = 0x10000 + ((cp - 0xd800) << 10) + ((uint32_t)low - 0xdc00);
        s->pos += 6;
    }
    if (decoded != NULL)
        tp_buf_put(decoded, bytes, (size_t)tp_utf8_encode(cp, bytes));
    return TP_OK;
}

/* pos at the backslash. */
static tp_status scan_escape(scanner *s, tp_buf *decoded)
{
    static const char FROM[] = "\"\\/bfnrt", TO[] = "\"\\/\b\f\n\r\t";
    const char *at;

    s->pos++;
    if (peek(s) == 'u') {
        s->pos++;
        return scan_unicode_escape(s, decoded);
    }
    at = peek(s) > 0 ? strchr(FROM, peek(s)) : NULL;
    if (at == NULL)
        return bad(s, "one of \" \\ / b f n r t u after a backslash");
    if (decoded != NULL)
        tp_buf_putc(decoded, TO[at - FROM]);
    s->pos++;
    return TP_OK;
}

/* Bytes from pos that stand for themselves: no quote, backslash, control or ill-formed UTF-8. */
static tp_status scan_plain(scanner *s)
{
    while (s->pos < s->len) {
        unsigned char c = (unsigned char)s->text[s->pos];
        uint32_t cp;
        int n = 1;

        if (c == '"' || c == '\\')
            return TP_OK;
        if (c < 0x20)
            return TP_REJECT(TP_ERR_FORMAT,
                             "JSON at byte %zu: control byte 0x%02x in a string: escape it", s->pos,
                             c);
        if (c >= 0x80) {
            n = tp_utf8_decode(s->text + s->pos, s->len - s->pos, &cp);
            if (n == 0)
                return TP_REJECT(TP_ERR_FORMAT, "JSON at byte %zu: not valid UTF-8 (0x%02x)",
                                 s->pos, c);
        }
        s->pos += (size_t)n;
    }
    return bad(s, "the end of a string");
}

/* pos at the opening quote.  With decoded != NULL the text without escapes is appended to it. */
static tp_status scan_string(scanner *s, tp_buf *decoded)
{
    s->pos++;
    for (;;) {
        size_t start = s->pos;

        TP_TRY(scan_plain(s));
        if (decoded != NULL)
            tp_buf_put(decoded, s->text + start, s->pos - start);
        if (s->text[s->pos] == '"') {
            s->pos++;
            return TP_OK;
        }
        TP_TRY(scan_escape(s, decoded));
    }
}

/* ---- containers ---- */

/* Shows the key as it was sent (without raw control bytes), cut between code points. */
static tp_status duplicate_key(const char *sent, size_t n)
{
    size_t shown = n < KEY_SHOWN_BYTES ? n : KEY_SHOWN_BYTES;

    while (shown < n && shown > 0 && ((unsigned char)sent[shown] & 0xc0) == 0x80)
        shown--;
    return TP_REJECT(TP_ERR_INVALID, "duplicate key \"%.*s%s\"", (int)shown, sent,
                     shown < n ? "..." : "");
}

/* Notes a key of the innermost object; *known tells that it was there already. */
static tp_status note_key(scanner *s, const char *key, size_t n, bool *known)
{
    const level *top = &s->levels[s->depth - 1];
    uint64_t h = tp_hash64(key, n, s->hash_key) + top->number * OBJECT_MIX;

    if (h == 0)
        h = 1; /* 0 marks a free slot */
    *known = set_has(&s->keys, h);
    if (*known)
        return TP_OK;
    if (s->keys.n_used * 2 >= s->keys.n_slots && !set_grow(&s->keys))
        return no_memory();
    set_insert(s->keys.slots, s->keys.n_slots, h);
    s->keys.n_used++;
    return TP_OK;
}

/* The key between the quotes at `start` and before pos must be new in its object. */
static tp_status check_key(scanner *s, size_t start)
{
    size_t end = s->pos, n = end - 1 - start;
    const char *key = s->text + start;
    bool known;

    if (memchr(key, '\\', n) != NULL) { /* once more, now resolving the escapes */
        tp_buf_reset(&s->key_text);
        s->pos = start - 1;
        TP_TRY(scan_string(s, &s->key_text));
        if (s->key_text.failed)
            return no_memory();
        TP_TRY(note_key(s, tp_buf_str(&s->key_text), s->key_text.len, &known));
    } else {
        TP_TRY(note_key(s, key, n, &known));
    }
    return known ? duplicate_key(key, n) : TP_OK;
}

static bool is_free_member(const scanner *s, const char *key, size_t n)
{
    for (const char *const *name = s->limits->free_members; name != NULL && *name != NULL; name++)
        if (strlen(*name) == n && memcmp(*name, key, n) == 0)
            return true;
    return false;
}

/* A member's name and colon. */
static tp_status scan_key(scanner *s)
{
    level *top = &s->levels[s->depth - 1];
    size_t start = s->pos + 1;

    if (peek(s) != '"')
        return bad(s, "a name in double quotes");
    TP_TRY(scan_string(s, NULL));
    if (!s->limits->allow_duplicate_keys && !top->free)
        TP_TRY(check_key(s, start));
    top->value_free = top->free || is_free_member(s, s->text + start, s->pos - 1 - start);
    skip_space(s);
    if (peek(s) != ':')
        return bad(s, "':'");
    s->pos++;
    skip_space(s);
    return TP_OK;
}

/* Enters an array or object; *empty tells that it was closed at once. */
static tp_status open_level(scanner *s, bool *empty)
{
    bool is_object = s->text[s->pos] == '{';
    const level *outer = s->depth > 0 ? &s->levels[s->depth - 1] : NULL;
    bool free = outer != NULL && (outer->is_object ? outer->value_free : outer->free);

    if (s->depth == s->depth_max)
        return TP_REJECT(TP_ERR_LIMIT, "JSON at byte %zu: nested deeper than %d levels", s->pos,
                         s->depth_max);
    s->pos++;
    s->levels[s->depth++] =
        (level){.is_object = is_object, .free = free, .number = is_object ? ++s->n_objects : 0};
    skip_space(s);
    *empty = peek(s) == (is_object ? '}' : ']');
    if (*empty) {
        s->pos++;
        s->depth--;
    } else if (is_object) {
        TP_TRY(scan_key(s));
    }
    return TP_OK;
}

/* After a value: closes what ends here.  *more tells that another value follows. */
static tp_status close_levels(scanner *s, bool *more)
{
    *more = false;
    while (s->depth > 0) {
        bool is_object = s->levels[s->depth - 1].is_object;
        int c;

        skip_space(s);
        c = peek(s);
        if (c == ',') {
            s->pos++;
            skip_space(s);
            *more = true;
            return is_object ? scan_key(s) : TP_OK;
        }
        if (c != (is_object ? '}' : ']'))
            return bad(s, is_object ? "',' or '}'" : "',' or ']'");
        s->pos++;
        s->depth--;
    }
    return TP_OK;
}

/* One scalar, or the opening of a container; *opened tells which. */
static tp_status scan_value(scanner *s, bool *opened)
{
    bool empty = false;

    *opened = false;
    if (++s->n_values > s->limits->values_max && s->limits->values_max > 0)
        return TP_REJECT(TP_ERR_LIMIT, "JSON at byte %zu: more than %zu values", s->pos,
                         s->limits->values_max);
    switch (peek(s)) {
    case '{':
    case '[':
        TP_TRY(open_level(s, &empty));
        *opened = !empty;
        return TP_OK;
    case '"': return scan_string(s, NULL);
    case 't': return scan_word(s, "true");
    case 'f': return scan_word(s, "false");
    case 'n': return scan_word(s, "null");
    default: break;
    }
    if (peek(s) == '-' || (peek(s) >= '0' && peek(s) <= '9'))
        return scan_number(s);
    return bad(s, "a value");
}

static tp_status scan_document(scanner *s)
{
    bool opened, more = true;

    skip_space(s);
    while (more) {
        TP_TRY(scan_value(s, &opened));
        if (!opened)
            TP_TRY(close_levels(s, &more));
    }
    skip_space(s);
    if (s->pos < s->len)
        return bad(s, "the end of the text");
    return TP_OK;
}

tp_status tp_json_scan(tp_json_scan_result *out, const char *text, size_t len,
                       const tp_json_limits *limits)
{
    scanner *s = tp_malloc(sizeof *s);
    tp_status st;

    if (s == NULL)
        return no_memory();
    *s = (scanner){.text = text, .len = len, .limits = limits, .out = out};
    s->depth_max = limits->depth_max > 0 ? limits->depth_max : TP_JSON_DEPTH_DEFAULT;
    if (s->depth_max > TP_JSON_DEPTH_MAX)
        s->depth_max = TP_JSON_DEPTH_MAX;
    s->keys.slots = s->keys.first;
    s->keys.n_slots = SET_SLOTS_FIRST;
    tp_buf_init(&s->key_text, len);
    tp_buf_init(&out->digits, 2 * len + 1);
    out->long_numbers = false;
    tp_random_bytes(s->hash_key, sizeof s->hash_key);

    st = scan_document(s);

    if (st != TP_OK)
        tp_buf_release(&out->digits);
    if (s->keys.slots != s->keys.first)
        tp_free(s->keys.slots);
    tp_buf_release(&s->key_text);
    tp_free(s);
    return st;
}
