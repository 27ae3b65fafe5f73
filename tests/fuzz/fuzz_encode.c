/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_encode.c - any bytes through four tokenizers.  The first byte of the input chooses one ('0' to '3').
 *
 * Promises: ids are of the vocabulary; pushing them one by one yields the text of all of them; a limit on the number of ids is
 * kept exactly; where the pipeline changes nothing, the text comes back.
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "runtime/tokenizer/internal.h"
#include "tests/fuzz/fuzz.h"

#define DECODED_MAX ((size_t)64 << 20)

static const char *const k_kinds[] = {"gpt2", "llama3", "qwen2", "odd"};

static const rt_tokenizer *tokenizer(size_t kind)
{
    static rt_tokenizer *loaded[TP_ARRAY_LEN(k_kinds)]; /* until the end of the process */
    char dir[512];

    if (loaded[kind] == NULL) {
        (void)snprintf(dir, sizeof dir, TOKENIZER_DATA "/%s", k_kinds[kind]);
        TP_ASSERT(rt_tokenizer_load(&loaded[kind], dir) == TP_OK);
    }
    return loaded[kind];
}

static void check_streamed(const rt_tokenizer *t, const rt_tokens *ids, bool skip_special)
{
    size_t most = rt_detok_bytes_max(t);
    char *piece = tp_malloc(most + 3);
    tp_buf whole, streamed;
    rt_detok d = {0};
    size_t n;

    TP_ASSERT(piece != NULL);
    tp_buf_init(&whole, DECODED_MAX);
    tp_buf_init(&streamed, DECODED_MAX);
    TP_ASSERT(rt_tokenizer_decode(t, ids->ids, ids->n, skip_special, &whole) == TP_OK);
    for (size_t i = 0; i < ids->n; i++) {
        n = rt_detok_push(t, &d, ids->ids[i], skip_special, piece);
        TP_ASSERT(n <= most && tp_utf8_valid(piece, n));
        tp_buf_put(&streamed, piece, n);
    }
    n = rt_detok_finish(&d, piece);
    tp_buf_put(&streamed, piece, n);
    TP_ASSERT(whole.len == streamed.len &&
              memcmp(tp_buf_str(&whole), tp_buf_str(&streamed), whole.len) == 0);
    tp_buf_release(&whole);
    tp_buf_release(&streamed);
    tp_free(piece);
}

static void check_lossless(const rt_tokenizer *t, const rt_tokens *ids, const char *text, size_t n)
{
    tp_buf back;

    if (t->nfc || !tp_utf8_valid(text, n))
        return;
    tp_buf_init(&back, DECODED_MAX);
    TP_ASSERT(rt_tokenizer_decode(t, ids->ids, ids->n, false, &back) == TP_OK);
    TP_ASSERT(back.len == n && memcmp(tp_buf_str(&back), text, n) == 0);
    tp_buf_release(&back);
}

static void check_limit(const rt_tokenizer *t, const rt_tokens *ids, const char *text, size_t n)
{
    rt_tokens again = {0};

    if (ids->n == 0)
        return;
    TP_ASSERT(rt_tokenizer_encode(t, text, n, false, false, ids->n, &again) == TP_OK);
    TP_ASSERT(again.n == ids->n && memcmp(again.ids, ids->ids, ids->n * sizeof *ids->ids) == 0);
    again.n = 0;
    if (ids->n > 1)
        TP_ASSERT(rt_tokenizer_encode(t, text, n, false, false, ids->n - 1, &again) ==
                  TP_ERR_LIMIT);
    rt_tokens_release(&again);
}

/* A text that a user wrote from end to end holds no control token; one of which no span is marked may. */
static void check_marked(const rt_tokenizer *t, const rt_tokens *plain, const rt_tokens *parsed,
                         const char *text, size_t n)
{
    rt_span all = {0, n};
    rt_tokens marked = {0};

    TP_ASSERT(rt_tokenizer_encode_marked(t, text, n, false, &all, 1, 0, &marked) == TP_OK);
    TP_ASSERT(
        marked.n == plain->n &&
        (plain->n == 0 || memcmp(marked.ids, plain->ids, plain->n * sizeof *plain->ids) == 0));
    marked.n = 0;
    TP_ASSERT(rt_tokenizer_encode_marked(t, text, n, true, NULL, 0, 0, &marked) == TP_OK);
    TP_ASSERT(
        marked.n == parsed->n &&
        (parsed->n == 0 || memcmp(marked.ids, parsed->ids, parsed->n * sizeof *parsed->ids) == 0));
    all = (rt_span){n / 3, n / 2};
    marked.n = 0;
    TP_ASSERT(rt_tokenizer_encode_marked(t, text, n, false, &all, 1, 0, &marked) == TP_OK);
    rt_tokens_release(&marked);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data + 1;
    rt_tokens plain = {0}, parsed = {0};
    const rt_tokenizer *t;
    size_t kind;

    fuzz_init();
    if (size == 0)
        return 0;
    kind = data[0] % TP_ARRAY_LEN(k_kinds);
    t = tokenizer(kind);
    TP_ASSERT(rt_tokenizer_encode(t, text, size - 1, false, false, 0, &plain) == TP_OK);
    TP_ASSERT(rt_tokenizer_encode(t, text, size - 1, true, true, 0, &parsed) == TP_OK);
    for (size_t i = 0; i < parsed.n; i++)
        TP_ASSERT(parsed.ids[i] >= 0 && parsed.ids[i] < rt_tokenizer_size(t));
    check_streamed(t, &plain, false);
    check_streamed(t, &parsed, true);
    check_limit(t, &plain, text, size - 1);
    check_marked(t, &plain, &parsed, text, size - 1);
    if (strcmp(k_kinds[kind], "odd") != 0) /* it has an unknown token, and puts spaces in front */
        check_lossless(t, &plain, text, size - 1);
    rt_tokens_release(&plain);
    rt_tokens_release(&parsed);
    return 0;
}
