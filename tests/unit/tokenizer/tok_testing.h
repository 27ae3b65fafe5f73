/* SPDX-License-Identifier: Apache-2.0 */
/* tok_testing.h - a tiny tokenizer in a temporary directory, to be damaged by tests.
 *
 * Ids 0-255 are the bytes; 256 "he", 257 "ll", 258 "hell", 259 "hello"; added: 260 "<s>", 261 "</s>" (special),
 * 262 "<think>".
 */
#ifndef TESTS_UNIT_TOK_TESTING_H
#define TESTS_UNIT_TOK_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/mem.h"
#include "runtime/tokenizer/internal.h"

#define TOK_MERGES "\"h e\",\"l l\",\"he ll\",\"hell o\""
#define TOK_ADDED                                                                                  \
    "{\"id\":260,\"content\":\"<s>\",\"special\":true,\"normalized\":false},"                      \
    "{\"id\":261,\"content\":\"</s>\",\"special\":true,\"normalized\":false},"                     \
    "{\"id\":262,\"content\":\"<think>\",\"special\":false,\"normalized\":false}"
#define TOK_PRE                                                                                    \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":true}"
#define TOK_POST                                                                                      \
    "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}}," \
    "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"special_tokens\":{\"<s>\":{\"id\":\"<s>\","       \
    "\"ids\":[260],\"tokens\":[\"<s>\"]}}}"

/* Appends the tiny tokenizer.json. */
static inline void tok_put_document(tp_buf *b)
{
    tp_buf_puts(b, "{\"added_tokens\":[" TOK_ADDED "],\"normalizer\":{\"type\":\"NFC\"},"
                   "\"pre_tokenizer\":" TOK_PRE ",\"post_processor\":" TOK_POST ","
                   "\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\","
                   "\"unk_token\":null,\"vocab\":{");
    for (int i = 0; i < 256; i++) {
        char spelling[TP_UTF8_MAX_BYTES];
        int n = tp_utf8_encode(rt_vocab_spell_byte((unsigned char)i), spelling);

        tp_json_put_string(b, spelling, (size_t)n);
        tp_buf_printf(b, ":%d,", i);
    }
    tp_buf_puts(b,
                "\"he\":256,\"ll\":257,\"hell\":258,\"hello\":259},\"merges\":[" TOK_MERGES "]}}");
    assert_false(b->failed);
}

/* A new directory below /tmp. */
static inline void tok_make_dir(char out[32])
{
    (void)snprintf(out, 32, "/tmp/tp-tok-XXXXXX");
    assert_non_null(mkdtemp(out));
}

static inline void tok_write(const char *dir, const char *name, const char *data, size_t n)
{
    char path[256];
    FILE *f;

    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static inline void tok_remove(const char *dir)
{
    static const char *const NAMES[] = {"tokenizer.json", "tokenizer_config.json",
                                        "chat_template.jinja"};

    for (size_t i = 0; i < TP_ARRAY_LEN(NAMES); i++) {
        char path[256];

        (void)snprintf(path, sizeof path, "%s/%s", dir, NAMES[i]);
        (void)unlink(path);
    }
    assert_int_equal(rmdir(dir), 0);
}

/* Writes tokenizer.json with the first `from` replaced by `to` (from NULL: `to` is the whole file). */
static inline void tok_write_damaged(const char *dir, const char *from, const char *to)
{
    tp_buf b, damaged;
    const char *at;

    tp_buf_init(&b, (size_t)64 << 20);
    tp_buf_init(&damaged, (size_t)64 << 20);
    tok_put_document(&b);
    if (from == NULL) {
        tp_buf_puts(&damaged, to);
    } else {
        at = strstr(b.data, from);
        assert_non_null(at);
        tp_buf_put(&damaged, b.data, (size_t)(at - b.data));
        tp_buf_puts(&damaged, to);
        tp_buf_puts(&damaged, at + strlen(from));
    }
    assert_false(damaged.failed);
    tok_write(dir, "tokenizer.json", tp_buf_str(&damaged), damaged.len);
    tp_buf_release(&b);
    tp_buf_release(&damaged);
}

/* Loads the tiny tokenizer with one replacement ("" for none). */
static inline rt_tokenizer *tok_load(const char *from, const char *to)
{
    rt_tokenizer *t = NULL;
    char dir[32];

    tok_make_dir(dir);
    tok_write_damaged(dir, from, to);
    assert_int_equal(rt_tokenizer_load(&t, dir), TP_OK);
    tok_remove(dir);
    return t;
}

static inline void tok_expect_ids(const rt_tokenizer *t, const char *text, bool add_special,
                                  bool parse_special, const int32_t *want, size_t n)
{
    rt_tokens got = {0};

    assert_int_equal(
        rt_tokenizer_encode(t, text, strlen(text), add_special, parse_special, 0, &got), TP_OK);
    assert_int_equal(got.n, n);
    assert_memory_equal(got.ids, want, n * sizeof *want);
    rt_tokens_release(&got);
}

#define TOK_IDS(...)                                                                               \
    (const int32_t[]){__VA_ARGS__}, sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t)

#endif
