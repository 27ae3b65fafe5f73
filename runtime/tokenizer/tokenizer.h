/* SPDX-License-Identifier: Apache-2.0 */
/* tokenizer.h - text to token ids and back, exactly as Hugging Face `tokenizers` does it for tokenizer.json.
 *
 * Byte-level BPE (Qwen2, Llama-3, GPT-2 kinds): added tokens are cut out first, then the normaliser (NFC), the
 * pre-tokeniser's regular expressions, and the merges.  Other pipelines are refused by name at load.
 * The tokenizer is immutable after load: any thread may use it at the same time.
 */
#ifndef RT_TOKENIZER_H
#define RT_TOKENIZER_H

#include <stdint.h>

#include "base/buf.h"
#include "base/status.h"
#include "base/utf8.h"
#include "runtime/span.h"

typedef struct rt_tokenizer rt_tokenizer;

typedef struct rt_tokens {
    int32_t *ids; /* owned; tp_free via rt_tokens_release */
    size_t n, cap;
} rt_tokens;

void rt_tokens_release(rt_tokens *t);

/* Reads tokenizer.json and, where present, tokenizer_config.json of a model directory.
 * Errors (logged): NOT_FOUND, FORMAT, UNSUPPORTED (names the component), IO, NOMEM. */
TP_MUST_USE tp_status rt_tokenizer_load(rt_tokenizer **out, const char *model_dir);
void rt_tokenizer_destroy(rt_tokenizer *t);

/* Appends the ids of n bytes of UTF-8 text to out.  Ill-formed UTF-8 is read as U+FFFD.
 * add_special: apply the post-processor (BOS).  parse_special: added tokens written in the text become their
 * ids; false: they are encoded as ordinary text (for text that a user typed).
 * n_max: stop with LIMIT (text kept) when more ids than this would result; 0 = no limit. */
TP_MUST_USE tp_status rt_tokenizer_encode(const rt_tokenizer *t, const char *text, size_t n,
                                          bool add_special, bool parse_special, size_t n_max,
                                          rt_tokens *out);

/* As encode with parse_special, except inside the spans (sorted, in bytes of text): an added token that overlaps one
 * is ordinary text, because a user wrote it.  Ill-formed text with any span is taken for a user's from end to end. */
TP_MUST_USE tp_status rt_tokenizer_encode_marked(const rt_tokenizer *t, const char *text, size_t n,
                                                 bool add_special, const rt_span *spans,
                                                 size_t n_spans, size_t n_max, rt_tokens *out);

/* Appends the text of the ids to out, ill-formed UTF-8 replaced.  Ids outside the vocabulary decode to "". */
TP_MUST_USE tp_status rt_tokenizer_decode(const rt_tokenizer *t, const int32_t *ids, size_t n,
                                          bool skip_special, tp_buf *out);

/* Raw bytes of one token ("" for an unknown id), a NUL behind them; lives as long as the tokenizer. */
const char *rt_tokenizer_bytes(const rt_tokenizer *t, int32_t id, size_t *n);
/* The token as the vocabulary spells it ("Ġthe"); NULL for an unknown id. */
const char *rt_tokenizer_piece(const rt_tokenizer *t, int32_t id);
bool rt_tokenizer_is_special(const rt_tokenizer *t, int32_t id);
/* Id of a token spelled exactly so in the vocabulary or among the added tokens; -1 when there is none. */
int32_t rt_tokenizer_find(const rt_tokenizer *t, const char *piece);
/* Largest id + 1. */
int32_t rt_tokenizer_size(const rt_tokenizer *t);

/* From tokenizer_config.json; NULL when the file does not say. */
const char *rt_tokenizer_bos(const rt_tokenizer *t);
const char *rt_tokenizer_eos(const rt_tokenizer *t);
const char *rt_tokenizer_pad(const rt_tokenizer *t);
const char *rt_tokenizer_unk(const rt_tokenizer *t);
/* The template text of the model directory (chat_template.jinja, else tokenizer_config.json's "default"); NULL
 * when the model has none. */
const char *rt_tokenizer_chat_template(const rt_tokenizer *t);
/* model_max_length of tokenizer_config.json; 0 when absent or absurd. */
int64_t rt_tokenizer_model_max_length(const rt_tokenizer *t);

/* ---- streaming: one token at a time, only whole code points come out ----
 * The concatenation of everything pushed and finished equals rt_tokenizer_decode of all ids. */
typedef struct rt_detok {
    tp_utf8_stream utf8;
} rt_detok;

/* Bytes that one push may write for this tokenizer (longest token, every byte replaced, plus pending). */
size_t rt_detok_bytes_max(const rt_tokenizer *t);
/* Appends the text that `id` completes to out; returns its length.  skip_special: special tokens add nothing. */
size_t rt_detok_push(const rt_tokenizer *t, rt_detok *d, int32_t id, bool skip_special, char *out);
size_t rt_detok_finish(rt_detok *d, char *out); /* 0 or 3 bytes */

#endif
