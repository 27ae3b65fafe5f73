/* SPDX-License-Identifier: Apache-2.0 */
/* bpe.c - byte-pair encoding of one piece.
 *
 * The symbols start as the tokens of single bytes; as long as adjacent symbols have a merge, the merge of the
 * lowest rank is made, the leftmost one where ranks are equal.  A byte without a token becomes the unknown token
 * (several in a row one of them with fuse_unk) or is dropped where the model has none.
 *
 * Short pieces keep symbols and ranks in two arrays and look for the lowest rank by a scan.  Long pieces keep a
 * linked list and a heap of (rank, position): n log n, whatever the text.  A heap entry is stale when the
 * symbol at its position is gone or now merges with another rank.
 */
#include <string.h>

#include "base/mem.h"
#include "runtime/tokenizer/internal.h"

#define SHORT_MAX 32
#define NO_RANK   UINT32_MAX
#define NO_NODE   UINT32_MAX

/* A symbol of a long piece. */
struct rt_bpe_node {
    int32_t id; /* -1: merged into the symbol before it */
    uint32_t prev, next;
    uint32_t rank;  /* of the merge with the next symbol, NO_RANK = none */
    int32_t merged; /* id of that merge */
};

void rt_bpe_scratch_release(rt_bpe_scratch *s)
{
    tp_free(s->nodes);
    tp_free(s->heap);
    *s = (rt_bpe_scratch){0};
}

/* The heap holds at most one entry per symbol at first, and one more per merge. */
static tp_status scratch_reserve(rt_bpe_scratch *s, size_t n)
{
    if (n <= s->cap)
        return TP_OK;
    rt_bpe_scratch_release(s);
    s->nodes = tp_malloc(n * sizeof *s->nodes);
    s->heap = tp_malloc(2 * n * sizeof *s->heap);
    if (s->nodes == NULL || s->heap == NULL) {
        rt_bpe_scratch_release(s);
        return TP_FAIL(TP_ERR_NOMEM, "tokenize a piece of %zu bytes", n);
    }
    s->cap = n;
    return TP_OK;
}

tp_status rt_tokens_reserve(rt_tokens *t, size_t n)
{
    size_t cap = t->cap < 64 ? 64 : t->cap;
    int32_t *ids;

    if (t->cap - t->n >= n)
        return TP_OK;
    while (cap - t->n < n)
        cap *= 2;
    ids = tp_realloc(t->ids, cap * sizeof *ids);
    if (ids == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "list of %zu token ids", cap);
    t->ids = ids;
    t->cap = cap;
    return TP_OK;
}

/* First symbols of a piece, into ids[n]; returns how many. */
static size_t first_symbols(const rt_bpe *b, const rt_vocab *v, const char *piece, size_t n,
                            int32_t *ids)
{
    size_t n_ids = 0;
    bool unknown = false;

    for (size_t i = 0; i < n; i++) {
        int32_t id = v->byte_id[(unsigned char)piece[i]];

        if (id < 0) {
            if (b->unk_id < 0 || (unknown && b->fuse_unk))
                continue;
            id = b->unk_id;
            unknown = true;
        } else {
            unknown = false;
        }
        ids[n_ids++] = id;
    }
    return n_ids;
}

/* ---- short pieces ---- */

static uint32_t pair_rank(const rt_bpe *b, int32_t left, int32_t right, int32_t *merged)
{
    const rt_merge *m = rt_merges_get(&b->merges, left, right);

    if (m == NULL)
        return NO_RANK;
    *merged = m->id;
    return m->rank;
}

/* Merges ids[0..n) in place; returns the number left. */
static size_t merge_short(const rt_bpe *b, int32_t *ids, size_t n)
{
    uint32_t ranks[SHORT_MAX];
    int32_t merged[SHORT_MAX];

    for (size_t i = 0; i + 1 < n; i++)
        ranks[i] = pair_rank(b, ids[i], ids[i + 1], &merged[i]);
    while (n > 1) {
        uint32_t best = NO_RANK;
        size_t at = 0;

        for (size_t i = 0; i + 1 < n; i++) {
            if (ranks[i] < best) {
                best = ranks[i];
                at = i;
            }
        }
        if (best == NO_RANK)
            break;
        ids[at] = merged[at];
        n--;
        memmove(ids + at + 1, ids + at + 2, (n - at - 1) * sizeof *ids);
        if (at + 2 < n) { /* ranks belong to pairs: there is one less of them */
            memmove(ranks + at + 1, ranks + at + 2, (n - at - 2) * sizeof *ranks);
            memmove(merged + at + 1, merged + at + 2, (n - at - 2) * sizeof *merged);
        }
        if (at + 1 < n)
            ranks[at] = pair_rank(b, ids[at], ids[at + 1], &merged[at]);
        if (at > 0)
            ranks[at - 1] = pair_rank(b, ids[at - 1], ids[at], &merged[at - 1]);
    }
    return n;
}

/* ---- long pieces ---- */

static void sift_down(uint64_t *heap, size_t n, size_t i)
{
    uint64_t key = heap[i];

    for (;;) {
        size_t child = 4 * i + 1, last = child + 4 < n ? child + 4 : n, best = child;

        if (child >= n)
            break;
        for (size_t c = child + 1; c < last; c++)
            best = heap[c] < heap[best] ? c : best;
        if (heap[best] >= key)
            break;
        heap[i] = heap[best];
        i = best;
    }
    heap[i] = key;
}

static void heap_push(uint64_t *heap, size_t *n, uint64_t key)
{
    size_t i = (*n)++;

    while (i > 0 && heap[(i - 1) / 4] > key) {
        heap[i] = heap[(i - 1) / 4];
        i = (i - 1) / 4;
    }
    heap[i] = key;
}

static uint64_t heap_pop(uint64_t *heap, size_t *n)
{
    uint64_t top = heap[0];

    heap[0] = heap[--*n];
    if (*n > 0)
        sift_down(heap, *n, 0);
    return top;
}

static uint64_t heap_key(uint32_t rank, uint32_t at)
{
    return (uint64_t)rank << 32 | at;
}

/* Looks up the merge of a symbol with its successor again. */
static void renew_rank(const rt_bpe *b, rt_bpe_node *nodes, uint32_t at)
{
    rt_bpe_node *node = &nodes[at];

    node->rank = node->next == NO_NODE
                     ? NO_RANK
                     : pair_rank(b, node->id, nodes[node->next].id, &node->merged);
}

static void merge_at(const rt_bpe *b, rt_bpe_scratch *s, size_t *n_heap, uint32_t at)
{
    rt_bpe_node *nodes = s->nodes, *node = &nodes[at];
    uint32_t gone = node->next;

    node->id = node->merged;
    node->next = nodes[gone].next;
    nodes[gone].id = -1;
    nodes[gone].rank = NO_RANK;
    if (node->next != NO_NODE)
        nodes[node->next].prev = at;
    renew_rank(b, nodes, at);
    if (node->rank != NO_RANK)
        heap_push(s->heap, n_heap, heap_key(node->rank, at));
    if (node->prev == NO_NODE)
        return;
    renew_rank(b, nodes, node->prev);
    if (nodes[node->prev].rank != NO_RANK)
        heap_push(s->heap, n_heap, heap_key(nodes[node->prev].rank, node->prev));
}

static size_t merge_long(const rt_bpe *b, rt_bpe_scratch *s, int32_t *ids, size_t n)
{
    size_t n_heap = 0, n_out = 0;

    for (size_t i = 0; i < n; i++) {
        s->nodes[i] = (rt_bpe_node){.id = ids[i],
                                    .prev = i == 0 ? NO_NODE : (uint32_t)i - 1,
                                    .next = i + 1 == n ? NO_NODE : (uint32_t)i + 1,
                                    .rank = NO_RANK};
    }
    for (size_t i = 0; i + 1 < n; i++) {
        renew_rank(b, s->nodes, (uint32_t)i);
        if (s->nodes[i].rank != NO_RANK)
            s->heap[n_heap++] = heap_key(s->nodes[i].rank, (uint32_t)i);
    }
    for (size_t i = n_heap / 4 + 1; i-- > 0 && n_heap > 0;)
        sift_down(s->heap, n_heap, i);
    while (n_heap > 0) {
        uint64_t top = heap_pop(s->heap, &n_heap);
        uint32_t at = (uint32_t)top;

        if (s->nodes[at].rank == (uint32_t)(top >> 32))
            merge_at(b, s, &n_heap, at);
    }
    for (uint32_t i = 0; i != NO_NODE && n > 0; i = s->nodes[i].next)
        ids[n_out++] = s->nodes[i].id;
    return n_out;
}

tp_status rt_bpe_encode(const rt_bpe *b, const rt_vocab *v, rt_bpe_scratch *s, const char *piece,
                        size_t n, rt_tokens *out)
{
    size_t n_ids;

    TP_TRY(rt_tokens_reserve(out, n));
    if (b->ignore_merges) {
        int32_t id = rt_vocab_find_bytes(v, piece, n);

        if (id >= 0) {
            out->ids[out->n++] = id;
            return TP_OK;
        }
    }
    n_ids = first_symbols(b, v, piece, n, out->ids + out->n);
    if (n_ids > SHORT_MAX) {
        TP_TRY(scratch_reserve(s, n_ids));
        n_ids = merge_long(b, s, out->ids + out->n, n_ids);
    } else {
        n_ids = merge_short(b, out->ids + out->n, n_ids);
    }
    out->n += n_ids;
    return TP_OK;
}
