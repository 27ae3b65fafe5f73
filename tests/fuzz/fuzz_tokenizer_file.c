/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_tokenizer_file.c - tokenizer.json, and tokenizer_config.json and chat_template.jinja behind lines of "----".  What is
 * accepted turns a text into ids of its vocabulary and back. */
#include <string.h>

#include "base/mem.h"
#include "runtime/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz.h"

#define DECODED_MAX ((size_t)64 << 20)

static const char k_text[] =
    "Hello <s>hello</s> 123  \n\n don't caf\xc3\xa9 e\xcc\x81 \xf0\x9f\x99\x82 a \x80";

static void use(const rt_tokenizer *t)
{
    rt_tokens ids = {0};
    rt_detok d = {0};
    tp_buf text;

    tp_buf_init(&text, DECODED_MAX);
    for (int special = 0; special < 2; special++) {
        ids.n = 0;
        if (rt_tokenizer_encode(t, k_text, sizeof k_text - 1, special, special, 4096, &ids) !=
            TP_OK)
            continue;
        TP_ASSERT(ids.n <= 4096);
        for (size_t i = 0; i < ids.n; i++)
            TP_ASSERT(ids.ids[i] >= 0 && ids.ids[i] < rt_tokenizer_size(t) &&
                      rt_tokenizer_piece(t, ids.ids[i]) != NULL);
        tp_buf_reset(&text);
        TP_ASSERT(rt_tokenizer_decode(t, ids.ids, ids.n, special, &text) == TP_OK);
    }
    if (ids.n > 0) {
        char *out = tp_malloc(rt_detok_bytes_max(t));

        TP_ASSERT(out != NULL);
        TP_ASSERT(rt_detok_push(t, &d, ids.ids[0], false, out) <= rt_detok_bytes_max(t));
        tp_free(out);
    }
    TP_ASSERT(rt_tokenizer_piece(t, rt_tokenizer_size(t)) == NULL);
    TP_ASSERT(rt_tokenizer_piece(t, -1) == NULL);
    TP_ASSERT(rt_tokenizer_model_max_length(t) >= 0);
    tp_buf_release(&text);
    rt_tokens_release(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const k_files[] = {"tokenizer.json", "tokenizer_config.json",
                                          "chat_template.jinja"};
    fuzz_part rest = {(const char *)data, size}, part;
    rt_tokenizer *t;

    fuzz_init();
    for (size_t i = 0; i < TP_ARRAY_LEN(k_files); i++) {
        if (fuzz_next_part(&rest, &part))
            fuzz_file(k_files[i], part.text, part.n);
        else
            fuzz_no_file(k_files[i]);
    }
    if (rt_tokenizer_load(&t, fuzz_dir()) == TP_OK) {
        use(t);
        rt_tokenizer_destroy(t);
    } else {
        TP_ASSERT(tp_last_error()[0] != '\0');
    }
    return 0;
}
