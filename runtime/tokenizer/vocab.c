/* SPDX-License-Identifier: Apache-2.0 */
/* vocab.c - the tables of a vocabulary: tokens by id, by spelling, by bytes; merges by pair.
 *
 * Byte-level alphabet: bytes 21-7E, A1-AC and AE-FF are spelled as the character of the same number, the other 68
 * in rising order as U+0100, U+0101, ...  (space is U+0120, "Ġ").  A token whose characters are all in the
 * alphabet stands for those bytes; any other (an added token with a space or "｜") for its own UTF-8.
 *
 * All tables are open addressing with linear probing, at most half full.
 */
#include <string.h>

#include "base/mem.h"
#include "runtime/tokenizer/internal.h"

#define SPELLED_FIRST 0x100u
#define N_SPELLED     68u

static bool is_spelled_as_itself(uint32_t byte)
{
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) ||
           (byte >= 0xae && byte <= 0xff);
}

uint32_t rt_vocab_spell_byte(unsigned char byte)
{
    uint32_t n = 0;

    if (is_spelled_as_itself(byte))
        return byte;
    for (uint32_t b = 0; b < byte; b++)
        n += !is_spelled_as_itself(b);
    return SPELLED_FIRST + n;
}

/* The byte that a character of the alphabet stands for, or -1. */
static int unspell_char(uint32_t cp)
{
    uint32_t k = cp - SPELLED_FIRST;

    if (cp < SPELLED_FIRST)
        return is_spelled_as_itself(cp) ? (int)cp : -1;
    if (k >= N_SPELLED)
        return -1;
    if (k <= 0x20)
        return (int)k;                                          /* 00-20 */
    return k < N_SPELLED - 1 ? (int)(0x7f + (k - 0x21)) : 0xad; /* 7F-A0, AD */
}

/* Bytes that a spelling in the byte-level alphabet stands for: the count, or -1 when a character is no member.
 * out has room for strlen(piece) bytes. */
static int64_t unspell(const char *piece, char *out)
{
    size_t n = strlen(piece);
    int64_t n_out = 0;

    for (size_t i = 0; i < n;) {
        uint32_t cp = 0;
        int len = tp_utf8_decode(piece + i, n - i, &cp);
        int byte = len > 0 ? unspell_char(cp) : -1;

        if (byte < 0)
            return -1;
        out[n_out++] = (char)byte;
        i += (size_t)len;
    }
    return n_out;
}

uint64_t rt_vocab_hash(const char *p, size_t n)
{
    uint64_t h = n * UINT64_C(0x9e3779b97f4a7c15), word;

    for (; n >= 8; n -= 8, p += 8) {
        memcpy(&word, p, 8);
        h = (h ^ word) * UINT64_C(0xff51afd7ed558ccd);
        h ^= h >> 32;
    }
    word = 0;
    memcpy(&word, p, n);
    h = (h ^ word) * UINT64_C(0xff51afd7ed558ccd);
    return h ^ (h >> 29);
}

tp_status rt_vocab_init(rt_vocab *v, int32_t n_ids, size_t n_entries)
{
    size_t slots = 64;

    *v = (rt_vocab){.n_tokens = n_ids};
    tp_arena_init(&v->text, 0);
    for (int i = 0; i < 256; i++)
        v->byte_id[i] = -1;
    while (slots < n_entries * 2)
        slots *= 2;
    v->mask = (uint32_t)(slots - 1);
    v->tokens = tp_calloc((size_t)n_ids + 1, sizeof *v->tokens);
    v->by_piece = tp_malloc(slots * sizeof *v->by_piece);
    v->by_bytes = tp_malloc(slots * sizeof *v->by_bytes);
    if (v->tokens == NULL || v->by_piece == NULL || v->by_bytes == NULL) {
        rt_vocab_release(v);
        return TP_FAIL(TP_ERR_NOMEM, "vocabulary of %zu tokens", n_entries);
    }
    memset(v->by_piece, 0xff, slots * sizeof *v->by_piece);
    memset(v->by_bytes, 0xff, slots * sizeof *v->by_bytes);
    return TP_OK;
}

void rt_vocab_release(rt_vocab *v)
{
    tp_arena_release(&v->text);
    tp_free(v->tokens);
    tp_free(v->by_piece);
    tp_free(v->by_bytes);
    *v = (rt_vocab){0};
}

/* An empty table finds nothing: the state of a vocabulary that is not built yet. */
int32_t rt_vocab_find_piece(const rt_vocab *v, const char *piece, size_t n)
{
    for (uint64_t i = rt_vocab_hash(piece, n) & v->mask; v->by_piece != NULL;
         i = (i + 1) & v->mask) {
        int32_t id = v->by_piece[i];

        if (id < 0)
            break;
        if (v->tokens[id].n_piece == n && memcmp(v->tokens[id].piece, piece, n) == 0)
            return id;
    }
    return -1;
}

int32_t rt_vocab_find_bytes(const rt_vocab *v, const char *bytes, size_t n)
{
    for (uint64_t i = rt_vocab_hash(bytes, n) & v->mask;; i = (i + 1) & v->mask) {
        int32_t id = v->by_bytes[i];

        if (id < 0)
            return -1;
        if (v->tokens[id].n_bytes == n && memcmp(v->tokens[id].bytes, bytes, n) == 0)
            return id;
    }
}

static void put(int32_t *table, uint32_t mask, const char *key, size_t n, int32_t id)
{
    uint64_t i = rt_vocab_hash(key, n) & mask;

    while (table[i] >= 0)
        i = (i + 1) & mask;
    table[i] = id;
}

tp_status rt_vocab_add(rt_vocab *v, int32_t id, const char *piece, uint32_t flags, bool model)
{
    size_t n = strlen(piece);
    rt_token *t = &v->tokens[id];
    char *copy, *bytes;
    int64_t n_bytes;

    TP_ASSERT(id >= 0 && id < v->n_tokens && t->piece == NULL);
    if (n > UINT32_MAX / 2)
        return TP_FAIL(TP_ERR_LIMIT, "token %d is %zu bytes long", id, n);
    copy = tp_arena_strndup(&v->text, piece, n);
    bytes = tp_arena_alloc(&v->text, n + 1);
    if (copy == NULL || bytes == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "vocabulary of %d tokens", v->n_tokens);
    n_bytes = unspell(copy, bytes);
    *t = (rt_token){.piece = copy,
                    .bytes = bytes,
                    .n_piece = (uint32_t)n,
                    .n_bytes = (uint32_t)n_bytes,
                    .flags = flags};
    bytes[n_bytes > 0 ? n_bytes : 0] = '\0';
    if (n_bytes < 0) {
        t->bytes = copy;
        t->n_bytes = (uint32_t)n;
    } else if (model) {
        put(v->by_bytes, v->mask, bytes, t->n_bytes, id);
        if (n_bytes == 1)
            v->byte_id[(unsigned char)bytes[0]] = id;
    }
    if (t->n_bytes > v->bytes_max)
        v->bytes_max = t->n_bytes;
    put(v->by_piece, v->mask, copy, n, id);
    return TP_OK;
}

tp_status rt_merges_init(rt_merges *m, size_t n_merges)
{
    uint64_t slots = 64;

    while (slots < (uint64_t)n_merges * 2)
        slots *= 2;
    *m = (rt_merges){.mask = slots - 1};
    m->slots = tp_malloc(slots * sizeof *m->slots);
    if (m->slots == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "table of %zu merges", n_merges);
    memset(m->slots, 0xff, slots * sizeof *m->slots);
    return TP_OK;
}

void rt_merges_release(rt_merges *m)
{
    tp_free(m->slots);
    *m = (rt_merges){0};
}

void rt_merges_put(rt_merges *m, int32_t left, int32_t right, uint32_t rank, int32_t id)
{
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    uint64_t i = rt_merges_hash(pair) & m->mask;

    while (m->slots[i].pair != RT_MERGE_NONE && m->slots[i].pair != pair)
        i = (i + 1) & m->mask;
    m->n += m->slots[i].pair == RT_MERGE_NONE;
    m->slots[i] = (rt_merge){.pair = pair, .rank = rank, .id = id};
}
