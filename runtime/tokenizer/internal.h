/* SPDX-License-Identifier: Apache-2.0 */
/* internal.h - how the files of the tokenizer see each other.
 *
 * load.c builds an rt_tokenizer from the files of a model; from then on it is read only.  One call of
 * rt_tokenizer_encode keeps what it needs in an rt_tok_scratch of its own.
 *
 *   text -> sanitise (well-formed UTF-8) -> added.c (cuts out added tokens) -> normalize.c (NFC)
 *        -> pretok.c (pieces) -> bpe.c (ids)
 */
#ifndef RT_TOKENIZER_INTERNAL_H
#define RT_TOKENIZER_INTERNAL_H

#include "base/arena.h"
#include "base/json.h"
#include "runtime/tokenizer/tokenizer.h"

#define RT_TOK_ID_MAX    (1 << 24) /* ids at or above this are taken for damage */
#define RT_TOK_COMPONENT "tokenizer"

/* ---- vocab.c: tokens by id, by spelling, by bytes; merges by pair ---- */

typedef enum rt_token_flags {
    RT_TOKEN_SPECIAL = 1, /* dropped by skip_special */
    RT_TOKEN_ADDED = 2    /* listed in added_tokens */
} rt_token_flags;

typedef struct rt_token {
    const char *piece; /* borrowed from the arena; NULL: no token has this id */
    const char *bytes; /* borrowed from the arena */
    uint32_t n_piece, n_bytes;
    uint32_t flags; /* rt_token_flags */
} rt_token;

typedef struct rt_vocab {
    tp_arena text;        /* owned; spellings and bytes */
    rt_token *tokens;     /* owned; [n_tokens] */
    int32_t n_tokens;     /* largest id + 1 */
    uint32_t bytes_max;   /* of the longest token */
    int32_t *by_piece;    /* owned; open addressing, [mask + 1] ids, -1 = empty */
    int32_t *by_bytes;    /* owned; the same, only model tokens spelled in the byte alphabet */
    uint32_t mask;        /* of both tables */
    int32_t byte_id[256]; /* token of a single byte, -1 = none */
} rt_vocab;

/* Room for ids 0 .. n_ids - 1 and n_entries tokens. */
TP_MUST_USE tp_status rt_vocab_init(rt_vocab *v, int32_t n_ids, size_t n_entries);
void rt_vocab_release(rt_vocab *v);
/* Adds a token.  `model`: byte-pair encoding may produce it.  The caller has checked that the id is free and the
 * spelling new. */
TP_MUST_USE tp_status rt_vocab_add(rt_vocab *v, int32_t id, const char *piece, uint32_t flags,
                                   bool model);
/* Eight bytes at a time; for keys that come from the model's files, and for caches. */
uint64_t rt_vocab_hash(const char *p, size_t n);
int32_t rt_vocab_find_piece(const rt_vocab *v, const char *piece, size_t n); /* -1 = none */
int32_t rt_vocab_find_bytes(const rt_vocab *v, const char *bytes, size_t n); /* -1 = none */
/* The character of the byte-level alphabet for a byte. */
uint32_t rt_vocab_spell_byte(unsigned char byte);

typedef struct rt_merge {
    uint64_t pair; /* left id << 32 | right id; RT_MERGE_NONE = empty slot */
    uint32_t rank;
    int32_t id;
} rt_merge;

#define RT_MERGE_NONE UINT64_MAX

typedef struct rt_merges {
    rt_merge *slots; /* owned; open addressing */
    uint64_t mask;
    uint32_t n;
} rt_merges;

TP_MUST_USE tp_status rt_merges_init(rt_merges *m, size_t n_merges);
void rt_merges_release(rt_merges *m);
/* The later entry for a pair wins, as in the reference. */
void rt_merges_put(rt_merges *m, int32_t left, int32_t right, uint32_t rank, int32_t id);

static inline uint64_t rt_merges_hash(uint64_t pair)
{
    pair *= UINT64_C(0x9e3779b97f4a7c15);
    return pair ^ (pair >> 32);
}

/* NULL when the two do not merge. */
static inline const rt_merge *rt_merges_get(const rt_merges *m, int32_t left, int32_t right)
{
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;

    for (uint64_t i = rt_merges_hash(pair) & m->mask;; i = (i + 1) & m->mask) {
        if (m->slots[i].pair == pair)
            return &m->slots[i];
        if (m->slots[i].pair == RT_MERGE_NONE)
            return NULL;
    }
}

/* ---- added.c: tokens that are cut out of the text before anything else ---- */

typedef struct rt_added_token {
    const char *content; /* borrowed from the vocabulary */
    int32_t id;
    bool single_word, lstrip, rstrip, normalized;
} rt_added_token;

typedef struct rt_added_node {
    int32_t token;           /* index of the added token that ends here, -1 = none */
    uint32_t child, sibling; /* 0 = none */
    unsigned char byte;
} rt_added_node;

typedef struct rt_added_trie {
    rt_added_node *nodes; /* owned; nodes[0] is unused */
    uint32_t n, cap;
    uint32_t first[256]; /* node of a first byte, 0 = none */
} rt_added_trie;

typedef struct rt_added {
    rt_added_token *tokens; /* owned */
    size_t n;
    rt_added_trie raw;        /* of the text as it came */
    rt_added_trie normalized; /* of normalised text */
} rt_added;

typedef struct rt_added_match {
    size_t start, stop; /* bytes that the token takes, stripped white space included */
    size_t at, next;    /* the token itself; the search goes on behind it */
    int32_t id;
} rt_added_match;

TP_MUST_USE tp_status rt_added_insert(rt_added_trie *trie, const char *content, size_t n,
                                      int32_t token);
void rt_added_release(rt_added *a);
/* First match at or after `from`; text before `taken` belongs to earlier matches.  False when there is none. */
bool rt_added_find(const rt_added *a, const rt_added_trie *trie, const char *text, size_t n,
                   size_t from, size_t taken, rt_added_match *out);

/* ---- normalize.c ---- */

/* Appends NFC of n bytes of well-formed UTF-8, by the tables of Unicode 9.  NOMEM, LIMIT. */
TP_MUST_USE tp_status rt_normalize_nfc(tp_buf *out, const char *text, size_t n);

/* ---- pretok.c: the pre-tokeniser ---- */

typedef struct rt_pretok rt_pretok;
typedef struct rt_pretok_run rt_pretok_run; /* scratch of one thread */

/* Called for every piece in order; a failure ends the run. */
typedef tp_status (*rt_piece_fn)(void *ctx, const char *piece, size_t n);

/* Reads the "pre_tokenizer" of tokenizer.json; `path` is for messages.  FORMAT, UNSUPPORTED, NOMEM. */
TP_MUST_USE tp_status rt_pretok_create(rt_pretok **out, const tp_json *json, const char *path);
void rt_pretok_destroy(rt_pretok *p);

TP_MUST_USE tp_status rt_pretok_run_create(rt_pretok_run **out, const rt_pretok *p, size_t n_text);
void rt_pretok_run_destroy(rt_pretok_run *run);
/* Splits well-formed UTF-8.  LIMIT when a pattern needs more steps or time than a sane one would. */
TP_MUST_USE tp_status rt_pretok_split(rt_pretok_run *run, const char *text, size_t n,
                                      rt_piece_fn fn, void *ctx);

/* Refuses what PCRE2 reads otherwise than Oniguruma (pretok_syntax.c); `what` names the pattern. */
TP_MUST_USE tp_status rt_pretok_check_syntax(const char *pattern, const char *what);

/* ---- bpe.c ---- */

typedef struct rt_bpe_node rt_bpe_node;

typedef struct rt_bpe {
    rt_merges merges;
    int32_t unk_id; /* -1: bytes without a token are dropped */
    bool fuse_unk;
    bool ignore_merges;
} rt_bpe;

/* Memory that long pieces need; grows, is never shrunk. */
typedef struct rt_bpe_scratch {
    rt_bpe_node *nodes; /* owned */
    uint64_t *heap;     /* owned */
    size_t cap;         /* symbols that fit */
} rt_bpe_scratch;

void rt_bpe_scratch_release(rt_bpe_scratch *s);
/* Appends the ids of one piece. */
TP_MUST_USE tp_status rt_bpe_encode(const rt_bpe *b, const rt_vocab *v, rt_bpe_scratch *s,
                                    const char *piece, size_t n, rt_tokens *out);

/* Room for n more ids. */
TP_MUST_USE tp_status rt_tokens_reserve(rt_tokens *t, size_t n);

/* ---- tokenizer_config.c: tokenizer_config.json and chat_template.jinja ---- */

typedef struct rt_tok_config {
    char *bos, *eos, *pad, *unk; /* owned; NULL = not given */
    char *chat_template;         /* owned; NULL = none */
    int64_t model_max_length;
    bool add_bos;
    tp_json *json; /* owned; while loading only: added_tokens_decoder is read later */
} rt_tok_config;

TP_MUST_USE tp_status rt_tok_config_load(rt_tok_config *out, const char *model_dir);
void rt_tok_config_release(rt_tok_config *c);

/* ---- the whole ---- */

struct rt_tokenizer {
    rt_vocab vocab;
    rt_added added;
    bool nfc;
    rt_pretok *pretok; /* owned */
    rt_bpe bpe;
    int32_t *prefix, *suffix; /* owned; ids that the post-processor puts around the text */
    size_t n_prefix, n_suffix;
    int32_t
        bos_id; /* put in front by add_bos_token where the post-processor adds nothing; -1 = no */
    rt_tok_config config;
};

#endif
