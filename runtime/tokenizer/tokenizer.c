/* SPDX-License-Identifier: Apache-2.0 */
/* tokenizer.c - encoding, and what callers may ask a tokenizer; see tokenizer.h.
 *
 * Encoding walks the text once: gaps between added tokens are normalised, cut into pieces, and every piece is
 * encoded by itself.  Words repeat, so a call on longer text remembers pieces that it has seen: an entry points at
 * the earlier piece in the text and at its ids in the output, and holds nothing of its own.
 */
#include "runtime/tokenizer/tokenizer.h"

#include <string.h>

#include "base/mem.h"
#include "runtime/tokenizer/internal.h"

#define TEXT_BYTES_MAX  ((size_t)1 << 30)
#define CACHE_ENTRIES   4096u
#define CACHE_TEXT_MIN  ((size_t)512) /* shorter texts repeat too little */
#define CACHE_PIECE_MIN 2u
#define CACHE_PIECE_MAX 64u

/* A piece that was encoded before: where it stands in the text, and its ids in the output. */
typedef struct seen {
    size_t at, ids_at;
    uint32_t n, n_ids; /* n == 0: empty */
} seen;

typedef struct encoder {
    const rt_tokenizer *t; /* borrowed */
    rt_pretok_run *run;    /* owned */
    rt_bpe_scratch bpe;    /* owned */
    seen *cache;           /* owned; [CACHE_ENTRIES]; NULL for short texts */
    tp_buf normalized;     /* all gaps normalised so far; unused without a normaliser */
    const char *base;      /* borrowed; the text that pieces point into: input or normalized */
    size_t n_base;
    rt_tokens *out; /* borrowed */
    size_t first;   /* out->n before the call */
    size_t n_max;   /* 0 = no limit */
    bool parse_special;
    const rt_span *spans; /* borrowed; where added tokens are ordinary text */
    size_t n_spans;
} encoder;

void rt_tokens_release(rt_tokens *t)
{
    tp_free(t->ids);
    *t = (rt_tokens){0};
}

void rt_tokenizer_destroy(rt_tokenizer *t)
{
    if (t == NULL)
        return;
    rt_vocab_release(&t->vocab);
    rt_added_release(&t->added);
    rt_pretok_destroy(t->pretok);
    rt_merges_release(&t->bpe.merges);
    tp_free(t->prefix);
    tp_free(t->suffix);
    rt_tok_config_release(&t->config);
    tp_free(t);
}

static tp_status check_count(const encoder *e)
{
    if (e->n_max != 0 && e->out->n - e->first > e->n_max)
        return TP_REJECT(TP_ERR_LIMIT, "the text has more than %zu tokens", e->n_max);
    return TP_OK;
}

static tp_status put_ids(encoder *e, const int32_t *ids, size_t n)
{
    TP_TRY(rt_tokens_reserve(e->out, n));
    if (n > 0)
        memcpy(e->out->ids + e->out->n, ids, n * sizeof *ids);
    e->out->n += n;
    return check_count(e);
}

/* Entry for a piece, or NULL when the piece is not to be remembered. */
static seen *cache_entry(const encoder *e, const char *piece, size_t n)
{
    bool in_base = piece >= e->base && piece < e->base + e->n_base;

    if (e->cache == NULL || !in_base || n < CACHE_PIECE_MIN || n > CACHE_PIECE_MAX)
        return NULL;
    return &e->cache[rt_vocab_hash(piece, n) % CACHE_ENTRIES];
}

static tp_status put_piece(void *ctx, const char *piece, size_t n)
{
    encoder *e = ctx;
    seen *entry = cache_entry(e, piece, n);
    size_t ids_at = e->out->n;

    if (entry != NULL && entry->n == n && memcmp(e->base + entry->at, piece, n) == 0) {
        TP_TRY(rt_tokens_reserve(e->out, entry->n_ids));
        return put_ids(e, e->out->ids + entry->ids_at, entry->n_ids);
    }
    TP_TRY(rt_bpe_encode(&e->t->bpe, &e->t->vocab, &e->bpe, piece, n, e->out));
    if (entry != NULL)
        *entry = (seen){.at = (size_t)(piece - e->base),
                        .ids_at = ids_at,
                        .n = (uint32_t)n,
                        .n_ids = (uint32_t)(e->out->n - ids_at)};
    return check_count(e);
}

/* Whether bytes [begin, end) of the input touch text that a user wrote. */
static bool is_marked(const encoder *e, size_t begin, size_t end)
{
    size_t lo = 0, hi = e->n_spans;

    while (lo < hi) {
        size_t mid = (lo + hi) / 2;

        if (e->spans[mid].end <= begin)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < e->n_spans && e->spans[lo].begin < end;
}

/* Encodes normalised text in which the added tokens with "normalized" are still to be found. */
static tp_status put_normalized(encoder *e, const char *text, size_t n, bool find_added)
{
    const rt_added *added = &e->t->added;
    rt_added_match m = {0};
    size_t taken = 0;

    while (find_added && rt_added_find(added, &added->normalized, text, n, m.next, taken, &m)) {
        if (m.start > taken)
            TP_TRY(rt_pretok_split(e->run, text + taken, m.start - taken, put_piece, e));
        TP_TRY(put_ids(e, &m.id, 1));
        taken = m.stop;
    }
    if (taken >= n)
        return TP_OK;
    return rt_pretok_split(e->run, text + taken, n - taken, put_piece, e);
}

/* Encodes raw text between added tokens, which starts at byte `offset` of the input. */
static tp_status put_gap(encoder *e, const char *text, size_t n, size_t offset)
{
    size_t at = e->normalized.len;
    bool find_added = e->parse_special && !is_marked(e, offset, offset + n);

    if (!e->t->nfc)
        return put_normalized(e, text, n, find_added);
    TP_TRY(rt_normalize_nfc(&e->normalized, text, n));
    e->base = tp_buf_str(&e->normalized);
    e->n_base = e->normalized.len;
    return put_normalized(e, e->base + at, e->n_base - at, find_added);
}

static tp_status put_text(encoder *e, const char *text, size_t n)
{
    const rt_added *added = &e->t->added;
    rt_added_match m = {0};
    size_t taken = 0;

    e->base = text;
    e->n_base = n;
    while (e->parse_special && rt_added_find(added, &added->raw, text, n, m.next, taken, &m)) {
        if (is_marked(e, m.at, m.next)) { /* white space around it may be anyone's */
            m.next = m.at + 1;
            continue;
        }
        if (m.start > taken)
            TP_TRY(put_gap(e, text + taken, m.start - taken, taken));
        TP_TRY(put_ids(e, &m.id, 1));
        taken = m.stop;
    }
    return taken < n ? put_gap(e, text + taken, n - taken, taken) : TP_OK;
}

/* The post-processor, and add_bos_token where that adds none; text that starts with BOS gets no second one. */
static tp_status put_with_specials(encoder *e, const char *text, size_t n)
{
    const rt_tokenizer *t = e->t;
    rt_tokens *out = e->out;

    TP_TRY(put_ids(e, t->prefix, t->n_prefix));
    TP_TRY(put_text(e, text, n));
    TP_TRY(put_ids(e, t->suffix, t->n_suffix));
    if (t->bos_id < 0 || (out->n > e->first && out->ids[e->first] == t->bos_id))
        return TP_OK;
    TP_TRY(rt_tokens_reserve(out, 1));
    memmove(out->ids + e->first + 1, out->ids + e->first, (out->n - e->first) * sizeof *out->ids);
    out->ids[e->first] = t->bos_id;
    out->n++;
    return check_count(e);
}

/* Well-formed UTF-8: the text itself, or a copy in `copy` with U+FFFD for what is ill formed. */
static tp_status sanitise(const char **text, size_t *n, tp_buf *copy)
{
    tp_utf8_stream u = {0};

    if (tp_utf8_valid(*text, *n))
        return TP_OK;
    if (!tp_buf_reserve(copy, 3 * (*n + 3)))
        return TP_FAIL(TP_ERR_NOMEM, "tokenize %zu bytes", *n);
    copy->len = tp_utf8_stream_push(&u, *text, *n, copy->data);
    copy->len += tp_utf8_stream_finish(&u, copy->data + copy->len);
    *text = copy->data;
    *n = copy->len;
    return TP_OK;
}

/* `e` says what is wanted. */
static tp_status encode(encoder e, const char *text, size_t n, bool add_special)
{
    const rt_tokenizer *t = e.t;
    rt_tokens *out = e.out;
    rt_span all;
    tp_buf copy;
    tp_status st;

    if (n > TEXT_BYTES_MAX)
        return TP_REJECT(TP_ERR_LIMIT, "text of %zu bytes; at most %zu can be tokenized", n,
                         TEXT_BYTES_MAX);
    tp_buf_init(&copy, SIZE_MAX - 1);
    tp_buf_init(&e.normalized, SIZE_MAX - 1);
    TP_TRY_GOTO(st, sanitise(&text, &n, &copy), done);
    if (copy.len > 0 && e.n_spans > 0) { /* the spans' places are no longer those of the text */
        all = (rt_span){0, n};
        e.spans = &all;
        e.n_spans = 1;
    }
    TP_TRY_GOTO(st, rt_pretok_run_create(&e.run, t->pretok, n), done);
    if (n >= CACHE_TEXT_MIN) /* without memory for it, encoding is only slower */
        e.cache = tp_calloc(CACHE_ENTRIES, sizeof *e.cache);
    st = add_special ? put_with_specials(&e, text, n) : put_text(&e, text, n);
done:
    if (st != TP_OK)
        out->n = e.first;
    tp_free(e.cache);
    rt_bpe_scratch_release(&e.bpe);
    rt_pretok_run_destroy(e.run);
    tp_buf_release(&e.normalized);
    tp_buf_release(&copy);
    return st;
}

tp_status rt_tokenizer_encode(const rt_tokenizer *t, const char *text, size_t n, bool add_special,
                              bool parse_special, size_t n_max, rt_tokens *out)
{
    encoder e = {
        .t = t, .out = out, .first = out->n, .n_max = n_max, .parse_special = parse_special};

    return encode(e, text, n, add_special);
}

tp_status rt_tokenizer_encode_marked(const rt_tokenizer *t, const char *text, size_t n,
                                     bool add_special, const rt_span *spans, size_t n_spans,
                                     size_t n_max, rt_tokens *out)
{
    encoder e = {.t = t,
                 .out = out,
                 .first = out->n,
                 .n_max = n_max,
                 .parse_special = true,
                 .spans = spans,
                 .n_spans = n_spans};

    return encode(e, text, n, add_special);
}

/* ---- questions ---- */

const char *rt_tokenizer_piece(const rt_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->vocab.n_tokens ? t->vocab.tokens[id].piece : NULL;
}

bool rt_tokenizer_is_special(const rt_tokenizer *t, int32_t id)
{
    return rt_tokenizer_piece(t, id) != NULL && (t->vocab.tokens[id].flags & RT_TOKEN_SPECIAL) != 0;
}

int32_t rt_tokenizer_find(const rt_tokenizer *t, const char *piece)
{
    return rt_vocab_find_piece(&t->vocab, piece, strlen(piece));
}

int32_t rt_tokenizer_size(const rt_tokenizer *t)
{
    return t->vocab.n_tokens;
}

const char *rt_tokenizer_bos(const rt_tokenizer *t)
{
    return t->config.bos;
}

const char *rt_tokenizer_eos(const rt_tokenizer *t)
{
    return t->config.eos;
}

const char *rt_tokenizer_pad(const rt_tokenizer *t)
{
    return t->config.pad;
}

const char *rt_tokenizer_unk(const rt_tokenizer *t)
{
    return t->config.unk;
}

const char *rt_tokenizer_chat_template(const rt_tokenizer *t)
{
    return t->config.chat_template;
}

int64_t rt_tokenizer_model_max_length(const rt_tokenizer *t)
{
    return t->config.model_max_length;
}
