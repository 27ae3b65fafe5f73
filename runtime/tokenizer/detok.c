/* SPDX-License-Identifier: Apache-2.0 */
/* detok.c - ids back to text: all at once, or token by token.
 *
 * The text of a list of ids is the bytes of its tokens, one after the other, read as UTF-8 with U+FFFD for every
 * maximal ill-formed part (what Rust's from_utf8_lossy does).  A token may end inside a character; the streaming
 * form keeps those up to three bytes back until the character is whole or cannot become so.
 */
#include "runtime/tokenizer/internal.h"

#define CHUNK_BYTES ((size_t)64)

/* Room that the text of n bytes may need: each may become U+FFFD, and so may three pending ones. */
#define TEXT_ROOM(n) (3 * ((n) + 3))

static const rt_token *token_at(const rt_tokenizer *t, int32_t id)
{
    static const rt_token none = {.bytes = ""};

    return id >= 0 && id < t->vocab.n_tokens && t->vocab.tokens[id].piece != NULL
               ? &t->vocab.tokens[id]
               : &none;
}

static void put_bytes(tp_utf8_stream *u, const rt_token *token, tp_buf *out)
{
    for (size_t i = 0; i < token->n_bytes; i += CHUNK_BYTES) {
        size_t n = token->n_bytes - i < CHUNK_BYTES ? token->n_bytes - i : CHUNK_BYTES;
        char text[TEXT_ROOM(CHUNK_BYTES)];

        tp_buf_put(out, text, tp_utf8_stream_push(u, token->bytes + i, n, text));
    }
}

tp_status rt_tokenizer_decode(const rt_tokenizer *t, const int32_t *ids, size_t n,
                              bool skip_special, tp_buf *out)
{
    tp_utf8_stream u = {0};
    size_t len = out->len;
    char rest[TEXT_ROOM(0)];

    for (size_t i = 0; i < n; i++) {
        const rt_token *token = token_at(t, ids[i]);

        if (!skip_special || (token->flags & RT_TOKEN_SPECIAL) == 0)
            put_bytes(&u, token, out);
    }
    tp_buf_put(out, rest, tp_utf8_stream_finish(&u, rest));
    if (!out->failed)
        return TP_OK;
    out->len = len;
    if (out->data != NULL)
        out->data[len] = '\0';
    return TP_REJECT(TP_ERR_LIMIT, "the text of %zu tokens does not fit into %zu bytes", n,
                     out->max);
}

const char *rt_tokenizer_bytes(const rt_tokenizer *t, int32_t id, size_t *n)
{
    const rt_token *token = token_at(t, id);

    *n = token->n_bytes;
    return token->bytes;
}

size_t rt_detok_bytes_max(const rt_tokenizer *t)
{
    return TEXT_ROOM((size_t)t->vocab.bytes_max);
}

size_t rt_detok_push(const rt_tokenizer *t, rt_detok *d, int32_t id, bool skip_special, char *out)
{
    const rt_token *token = token_at(t, id);

    if (skip_special && (token->flags & RT_TOKEN_SPECIAL) != 0)
        return 0;
    return tp_utf8_stream_push(&d->utf8, token->bytes, token->n_bytes, out);
}

size_t rt_detok_finish(rt_detok *d, char *out)
{
    return tp_utf8_stream_finish(&d->utf8, out);
}
