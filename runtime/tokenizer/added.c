/* SPDX-License-Identifier: Apache-2.0 */
/* added.c - finds added tokens ("<|im_start|>") in text, leftmost first, the longest of those that start there.
 *
 * A trie holds the contents; the search walks it from every byte that starts some token.  That is one step for
 * most bytes, and at most ADDED_BYTES_MAX for any, so the time is linear whatever the text.
 *
 * single_word: the match counts only between characters that are no letters, digits or marks (a rejected match is
 * skipped as a whole, as in the reference).  lstrip, rstrip: the token takes the white space before or after it.
 */
#include <string.h>

#include "base/mem.h"
#include "runtime/tokenizer/internal.h"
#include "runtime/tokenizer/unicode.h"

#define ADDED_BYTES_MAX 1024

static uint32_t node_create(rt_added_trie *trie, unsigned char byte)
{
    uint32_t cap = trie->cap < 64 ? 64 : trie->cap * 2;
    rt_added_node *nodes;

    if (trie->n + 1 >= trie->cap) {
        nodes = tp_realloc(trie->nodes, cap * sizeof *nodes);
        if (nodes == NULL)
            return 0;
        trie->nodes = nodes;
        trie->cap = cap;
    }
    trie->n++;
    trie->nodes[trie->n] = (rt_added_node){.token = -1, .byte = byte};
    return trie->n;
}

static uint32_t find_child(const rt_added_trie *trie, uint32_t node, unsigned char byte)
{
    uint32_t child = trie->nodes[node].child;

    while (child != 0 && trie->nodes[child].byte != byte)
        child = trie->nodes[child].sibling;
    return child;
}

tp_status rt_added_insert(rt_added_trie *trie, const char *content, size_t n, int32_t token)
{
    uint32_t node = 0;

    if (n > ADDED_BYTES_MAX)
        return TP_FAIL(TP_ERR_UNSUPPORTED,
                       "added token \"%.40s...\" is %zu bytes long; the longest supported is %d",
                       content, n, ADDED_BYTES_MAX);
    for (size_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)content[i];
        uint32_t child = i == 0 ? trie->first[byte] : find_child(trie, node, byte);

        if (child == 0) {
            child = node_create(trie, byte);
            if (child == 0)
                return TP_FAIL(TP_ERR_NOMEM, "table of added tokens");
            if (i == 0) {
                trie->first[byte] = child;
            } else {
                trie->nodes[child].sibling = trie->nodes[node].child;
                trie->nodes[node].child = child;
            }
        }
        node = child;
    }
    if (node != 0)
        trie->nodes[node].token = token;
    return TP_OK;
}

void rt_added_release(rt_added *a)
{
    tp_free(a->tokens);
    tp_free(a->raw.nodes);
    tp_free(a->normalized.nodes);
    *a = (rt_added){0};
}

/* The longest token at text[0..n): its index, or -1; *len its length. */
static int32_t longest_at(const rt_added_trie *trie, const char *text, size_t n, size_t *len)
{
    uint32_t node = trie->first[(unsigned char)text[0]];
    int32_t found = -1;

    for (size_t i = 1; node != 0; i++) {
        if (trie->nodes[node].token >= 0) {
            found = trie->nodes[node].token;
            *len = i;
        }
        if (i >= n)
            break;
        node = find_child(trie, node, (unsigned char)text[i]);
    }
    return found;
}

/* Start of the character that ends at text[at] (at > 0). */
static size_t char_before(const char *text, size_t at)
{
    do
        at--;
    while (at > 0 && ((unsigned char)text[at] & 0xc0) == 0x80);
    return at;
}

static bool is_word_at(const char *text, size_t n, size_t at)
{
    uint32_t cp = 0;

    return tp_utf8_decode(text + at, n - at, &cp) > 0 && rt_unicode_is_word(cp);
}

static bool stands_alone(const char *text, size_t n, size_t start, size_t stop)
{
    if (start > 0 && is_word_at(text, n, char_before(text, start)))
        return false;
    return stop == n || !is_word_at(text, n, stop);
}

static size_t skip_space_before(const char *text, size_t n, size_t start, size_t taken)
{
    while (start > taken) {
        size_t before = char_before(text, start);
        uint32_t cp = 0;

        if (tp_utf8_decode(text + before, n - before, &cp) == 0 || !rt_unicode_is_space(cp))
            break;
        start = before;
    }
    return start;
}

static size_t skip_space_after(const char *text, size_t n, size_t stop)
{
    while (stop < n) {
        uint32_t cp = 0;
        int len = tp_utf8_decode(text + stop, n - stop, &cp);

        if (len == 0 || !rt_unicode_is_space(cp))
            break;
        stop += (size_t)len;
    }
    return stop;
}

bool rt_added_find(const rt_added *a, const rt_added_trie *trie, const char *text, size_t n,
                   size_t from, size_t taken, rt_added_match *out)
{
    if (trie->n == 0)
        return false;
    for (size_t i = from; i < n; i++) {
        const rt_added_token *token;
        size_t len = 0;
        int32_t index;

        if (trie->first[(unsigned char)text[i]] == 0)
            continue;
        index = longest_at(trie, text + i, n - i, &len);
        if (index < 0)
            continue;
        token = &a->tokens[index];
        if (token->single_word && !stands_alone(text, n, i, i + len)) {
            i += len - 1;
            continue;
        }
        *out = (rt_added_match){
            .start = i, .stop = i + len, .at = i, .next = i + len, .id = token->id};
        if (token->lstrip)
            out->start = skip_space_before(text, n, i, taken);
        if (token->rstrip)
            out->stop = skip_space_after(text, n, i + len);
        return true;
    }
    return false;
}
