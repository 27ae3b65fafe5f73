/* SPDX-License-Identifier: Apache-2.0 */
/* test_tokenizer.c - encoding, decoding and streaming of the tiny tokenizer; limits, threads, failing memory. */
#include "tests/unit/tokenizer/tok_testing.h"

#include <pthread.h>

#define N_THREADS 4

static void encodes_and_adds_specials(void **state)
{
    rt_tokenizer *t = tok_load("", "");

    (void)state;
    tok_expect_ids(t, "hello", false, true, TOK_IDS(259));
    tok_expect_ids(t, "hello", true, true, TOK_IDS(260, 259));
    tok_expect_ids(t, "he</s>hell", false, true, TOK_IDS(256, 261, 258));
    tok_expect_ids(t, "<s>", false, false, TOK_IDS('<', 's', '>'));
    tok_expect_ids(t, "<think", false, true, TOK_IDS('<', 't', 256 - 152, 'i', 'n', 'k'));
    tok_expect_ids(t, "", true, true, TOK_IDS(260));
    tok_expect_ids(t, "e\xcc\x81", false, true, TOK_IDS(0xc3, 0xa9)); /* NFC */
    tok_expect_ids(t, "\xff!", false, true, TOK_IDS(0xef, 0xbf, 0xbd, '!'));
    rt_tokenizer_destroy(t);
}

static void takes_nul_bytes(void **state)
{
    rt_tokenizer *t = tok_load("", "");
    rt_tokens got = {0};
    tp_buf text;

    (void)state;
    tp_buf_init(&text, 100);
    assert_int_equal(rt_tokenizer_encode(t, "a\0b", 3, false, true, 0, &got), TP_OK);
    assert_int_equal(got.n, 3);
    assert_int_equal(rt_tokenizer_decode(t, got.ids, got.n, true, &text), TP_OK);
    assert_int_equal(text.len, 3);
    assert_memory_equal(text.data, "a\0b", 3);
    tp_buf_release(&text);
    rt_tokens_release(&got);
    rt_tokenizer_destroy(t);
}

static void stops_at_the_limit_and_keeps_what_was_there(void **state)
{
    rt_tokenizer *t = tok_load("", "");
    rt_tokens got = {0};

    (void)state;
    assert_int_equal(rt_tokenizer_encode(t, "a b", 3, false, true, 3, &got), TP_OK);
    assert_int_equal(got.n, 3);
    assert_int_equal(rt_tokenizer_encode(t, "a b", 3, false, true, 2, &got), TP_ERR_LIMIT);
    assert_non_null(strstr(tp_last_error(), "more than 2 tokens"));
    assert_int_equal(got.n, 3);
    assert_int_equal(rt_tokenizer_encode(t, "a b", 3, true, true, 3, &got), TP_ERR_LIMIT);
    assert_int_equal(rt_tokenizer_encode(t, "a b", 3, true, true, 4, &got), TP_OK);
    assert_int_equal(got.n, 7); /* appended */
    rt_tokens_release(&got);
    rt_tokenizer_destroy(t);
}

static void decodes_whole_and_streamed(void **state)
{
    /* U+20AC split over tokens, a lone lead byte, unknown ids, special tokens between the bytes */
    static const int32_t ids[] = {259, 0xe2, 260, 0x82, 0xac, 999999, -1, 0xf0, 262, 0xe2, 0x82};
    rt_tokenizer *t = tok_load("", "");
    rt_detok d = {0};
    char *piece = tp_malloc(rt_detok_bytes_max(t));
    tp_buf whole, streamed;

    (void)state;
    tp_buf_init(&whole, 1000);
    tp_buf_init(&streamed, 1000);
    assert_int_equal(rt_tokenizer_decode(t, ids, TP_ARRAY_LEN(ids), true, &whole), TP_OK);
    assert_string_equal(whole.data, "hello\xe2\x82\xac\xef\xbf\xbd<think>\xef\xbf\xbd");
    for (size_t i = 0; i < TP_ARRAY_LEN(ids); i++)
        tp_buf_put(&streamed, piece, rt_detok_push(t, &d, ids[i], true, piece));
    tp_buf_put(&streamed, piece, rt_detok_finish(&d, piece));
    assert_string_equal(streamed.data, whole.data);
    tp_buf_reset(&whole);
    assert_int_equal(rt_tokenizer_decode(t, ids, 5, false, &whole), TP_OK);
    assert_string_equal(whole.data, "hello\xef\xbf\xbd<s>\xef\xbf\xbd\xef\xbf\xbd");
    tp_buf_release(&whole);
    tp_buf_init(&whole, 4);
    assert_int_equal(rt_tokenizer_decode(t, ids, 1, false, &whole), TP_ERR_LIMIT);
    assert_int_equal(whole.len, 0);
    tp_buf_release(&whole);
    tp_buf_release(&streamed);
    tp_free(piece);
    rt_tokenizer_destroy(t);
}

static void answers_questions(void **state)
{
    rt_tokenizer *t = tok_load("", "");
    size_t n = 0;

    (void)state;
    assert_int_equal(rt_tokenizer_size(t), 263);
    assert_int_equal(rt_tokenizer_find(t, "hell"), 258);
    assert_int_equal(rt_tokenizer_find(t, "</s>"), 261);
    assert_int_equal(rt_tokenizer_find(t, "nothing"), -1);
    assert_int_equal(rt_tokenizer_find(t, ""), -1);
    assert_int_equal(rt_tokenizer_find(t, "\xc4\xa0"), ' ');
    assert_string_equal(rt_tokenizer_piece(t, ' '), "\xc4\xa0");
    assert_string_equal(rt_tokenizer_bytes(t, ' ', &n), " ");
    assert_int_equal(n, 1);
    assert_null(rt_tokenizer_piece(t, 263));
    assert_null(rt_tokenizer_piece(t, -1));
    assert_string_equal(rt_tokenizer_bytes(t, 263, &n), "");
    assert_int_equal(n, 0);
    assert_true(rt_tokenizer_is_special(t, 260));
    assert_false(rt_tokenizer_is_special(t, 262));
    assert_false(rt_tokenizer_is_special(t, -5));
    assert_null(rt_tokenizer_bos(t));
    assert_null(rt_tokenizer_chat_template(t));
    rt_tokenizer_destroy(t);
    rt_tokenizer_destroy(NULL);
}

/* Byte-pair encoding as the definition has it: the lowest rank anywhere, then the leftmost. */
static size_t slow_merge(const rt_tokenizer *t, int32_t *ids, size_t n)
{
    for (;;) {
        const rt_merge *best = NULL;
        size_t at = 0;

        for (size_t i = 0; i + 1 < n; i++) {
            const rt_merge *m = rt_merges_get(&t->bpe.merges, ids[i], ids[i + 1]);

            if (m != NULL && (best == NULL || m->rank < best->rank)) {
                best = m;
                at = i;
            }
        }
        if (best == NULL)
            return n;
        ids[at] = best->id;
        memmove(ids + at + 1, ids + at + 2, (n - at - 2) * sizeof *ids);
        n--;
    }
}

static void short_and_long_pieces_merge_alike(void **state)
{
    rt_tokenizer *t = NULL;
    rt_bpe_scratch scratch = {0};
    uint32_t seed = 12345;

    (void)state;
    assert_int_equal(rt_tokenizer_load(&t, TOKENIZER_DATA "/gpt2"), TP_OK);
    for (int round = 0; round < 4000; round++) {
        size_t n = 1 + (size_t)round % 97;
        char text[97];
        int32_t want[97];
        rt_tokens got = {0};

        for (size_t i = 0; i < n; i++) {
            seed = seed * 1664525u + 1013904223u;
            text[i] = " abeiklmnorst"[(seed >> 16) % 13];
            want[i] = t->vocab.byte_id[(unsigned char)text[i]];
        }
        assert_int_equal(rt_bpe_encode(&t->bpe, &t->vocab, &scratch, text, n, &got), TP_OK);
        n = slow_merge(t, want, n);
        assert_int_equal(got.n, n);
        assert_memory_equal(got.ids, want, n * sizeof *want);
        rt_tokens_release(&got);
    }
    rt_bpe_scratch_release(&scratch);
    rt_tokenizer_destroy(t);
}

static void *encode_often(void *arg)
{
    const rt_tokenizer *t = arg;
    rt_tokens first = {0}, again = {0};
    char text[2000];
    bool same = true;

    for (size_t i = 0; i < sizeof text; i++)
        text[i] = "hello <s> \xc3\xa9 "[i % 13];
    if (rt_tokenizer_encode(t, text, sizeof text, true, true, 0, &first) != TP_OK)
        return NULL;
    for (int i = 0; i < 200 && same; i++) {
        again.n = 0;
        same = rt_tokenizer_encode(t, text, sizeof text, true, true, 0, &again) == TP_OK &&
               again.n == first.n && memcmp(again.ids, first.ids, first.n * sizeof *first.ids) == 0;
    }
    rt_tokens_release(&first);
    rt_tokens_release(&again);
    return same ? arg : NULL;
}

static void threads_share_a_tokenizer(void **state)
{
    rt_tokenizer *t = tok_load("", "");
    pthread_t threads[N_THREADS];

    (void)state;
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, encode_often, t), 0);
    for (int i = 0; i < N_THREADS; i++) {
        void *result = NULL;

        assert_int_equal(pthread_join(threads[i], &result), 0);
        assert_ptr_equal(result, t);
    }
    rt_tokenizer_destroy(t);
}

static void load_survives_every_failing_allocation(void **state)
{
    static const char config[] =
        "{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"</s>\"},\"chat_template\":\"x\"}";
    tp_status st = TP_ERR_NOMEM;
    char dir[32];

    (void)state;
    tok_make_dir(dir);
    tok_write_damaged(dir, "", "");
    tok_write(dir, "tokenizer_config.json", config, strlen(config));
    for (int64_t n = 0; st != TP_OK; n++) {
        rt_tokenizer *t = NULL;

        tp_mem_fail_after(n);
        st = rt_tokenizer_load(&t, dir);
        tp_mem_fail_after(-1);
        if (st != TP_OK) {
            assert_int_equal(st, TP_ERR_NOMEM);
            assert_null(t);
        }
        rt_tokenizer_destroy(t);
        assert_true(n < 100000);
    }
    tok_remove(dir);
}

static void encode_survives_every_failing_allocation(void **state)
{
    rt_tokenizer *t = tok_load("", "");
    tp_status st = TP_ERR_NOMEM;
    tp_buf text;

    (void)state;
    tp_buf_init(&text, 100000);
    for (int i = 0; i < 100;
         i++) /* marks, ill-formed UTF-8, an added token, a long piece, a newer letter */
        tp_buf_puts(
            &text,
            "hello e\xcc\x81\xcc\x96 \xff <s>hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh\xea\x9f\x8b");
    for (int64_t n = 0; st != TP_OK; n++) {
        rt_tokens got = {0};

        tp_mem_fail_after(n);
        st = rt_tokenizer_encode(t, text.data, text.len, true, true, 0, &got);
        tp_mem_fail_after(-1);
        if (st != TP_OK) {
            assert_int_equal(st, TP_ERR_NOMEM);
            assert_int_equal(got.n, 0);
        }
        rt_tokens_release(&got);
        assert_true(n < 100000);
    }
    tp_buf_release(&text);
    rt_tokenizer_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encodes_and_adds_specials),
        cmocka_unit_test(takes_nul_bytes),
        cmocka_unit_test(stops_at_the_limit_and_keeps_what_was_there),
        cmocka_unit_test(decodes_whole_and_streamed),
        cmocka_unit_test(answers_questions),
        cmocka_unit_test(short_and_long_pieces_merge_alike),
        cmocka_unit_test(threads_share_a_tokenizer),
        cmocka_unit_test(load_survives_every_failing_allocation),
        cmocka_unit_test(encode_survives_every_failing_allocation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
