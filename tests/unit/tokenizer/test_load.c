/* SPDX-License-Identifier: Apache-2.0 */
/* test_load.c - damaged and foreign tokenizer files each end in one clear error; odd but sound ones work. */
#include "tests/unit/tokenizer/tok_testing.h"

#define N_MERGES_MANY 1000000
#define MEGABYTE      ((size_t)1 << 20)

typedef struct damage {
    const char *name, *from, *to; /* from NULL: `to` is the file */
    tp_status status;
    const char *text; /* part of the message */
} damage;

#define REGEX(p)                                                                                   \
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" p    \
    "\"},\"behavior\":\"Isolated\"}," TOK_PRE "]}"

static const damage DAMAGES[] = {
    {"empty file", NULL, "", TP_ERR_FORMAT, "tokenizer.json"},
    {"no JSON", NULL, "hello", TP_ERR_FORMAT, "tokenizer.json"},
    {"cut short", "\"merges\":[" TOK_MERGES "]}}", "\"merges\":[\"h e\"", TP_ERR_FORMAT, ""},
    {"not UTF-8", "\"hello\"", "\"hell\xff\"", TP_ERR_FORMAT, ""},
    {"not an object", NULL, "[1]", TP_ERR_FORMAT, "expected an object, found array"},
    {"no model", "\"model\":", "\"modul\":", TP_ERR_FORMAT, "no \"model\""},
    {"Unigram", "\"BPE\"", "\"Unigram\"", TP_ERR_UNSUPPORTED, "model \"Unigram\""},
    {"WordPiece", "\"BPE\"", "\"WordPiece\"", TP_ERR_UNSUPPORTED, "model \"WordPiece\""},
    {"no vocab", "\"vocab\":", "\"vocob\":", TP_ERR_FORMAT, "model.vocab is missing"},
    {"id as text", "\"he\":256", "\"he\":\"256\"", TP_ERR_FORMAT, "\"he\" has the id"},
    {"negative id", "\"he\":256", "\"he\":-1", TP_ERR_FORMAT, "has the id -1"},
    {"half an id", "\"he\":256", "\"he\":256.5", TP_ERR_FORMAT, "has the id 256.5"},
    {"absurd id", "\"he\":256", "\"he\":4000000000", TP_ERR_FORMAT, "has the id 4000000000"},
    {"endless id", "\"he\":256", "\"he\":99999999999999999999999", TP_ERR_FORMAT, "has the id 999"},
    {"shared id", "\"he\":256", "\"he\":257", TP_ERR_FORMAT, "share the id 257"},
    {"token twice", "\"he\":256", "\"he\":256,\"he\":300", TP_ERR_FORMAT, "listed twice"},
    {"no merges", "\"merges\":", "\"mergers\":", TP_ERR_FORMAT, "model.merges is missing"},
    {"merge of one", "\"h e\"", "\"he\"", TP_ERR_FORMAT, "merge 0 is he"},
    {"merge of three", "\"l l\"", "\"l l o\"", TP_ERR_FORMAT, "merge 1 is l l o"},
    {"merge of numbers", "\"h e\"", "[1,2]", TP_ERR_FORMAT, "merge 0 is no pair"},
    {"merge as triple", "\"h e\"", "[\"h\",\"e\",\"l\"]", TP_ERR_FORMAT, "merge 0 is no pair"},
    {"merge as null", "\"h e\"", "null", TP_ERR_FORMAT, "merge 0 is no pair"},
    {"merge of a stranger", "\"h e\"", "\"xyz e\"", TP_ERR_FORMAT, "merge 0 uses \"xyz\""},
    {"merge into a stranger", "\"h e\"", "\"h l\"", TP_ERR_FORMAT, "merge 0 uses \"hl\""},
    {"unknown unk", "\"unk_token\":null,\"vocab\":{\"\xc4\x80\":0,",
     "\"unk_token\":\"<unk>\",\"vocab\":{", TP_ERR_FORMAT, "model.unk_token \"<unk>\""},
    {"byte fallback", "\"unk_token\":null,\"vocab\":{\"\xc4\x80\":0,",
     "\"byte_fallback\":true,\"vocab\":{", TP_ERR_UNSUPPORTED, "byte_fallback"},
    {"suffix", "\"unk_token\":null", "\"end_of_word_suffix\":\"</w>\"", TP_ERR_UNSUPPORTED,
     "end_of_word_suffix"},
    {"normalizer", "\"NFC\"", "\"Lowercase\"", TP_ERR_UNSUPPORTED, "normalizer \"Lowercase\""},
    {"Metaspace", TOK_PRE, "{\"type\":\"Metaspace\"}", TP_ERR_UNSUPPORTED, "\"Metaspace\" (a Sent"},
    {"no pre-tokenizer", TOK_PRE, "null", TP_ERR_UNSUPPORTED, "no ByteLevel"},
    {"ByteLevel twice", TOK_PRE,
     "{\"type\":\"Sequence\",\"pretokenizers\":[" TOK_PRE "," TOK_PRE "]}", TP_ERR_UNSUPPORTED,
     "after ByteLevel"},
    {"Split without pattern", TOK_PRE, "{\"type\":\"Split\",\"behavior\":\"Isolated\"}",
     TP_ERR_FORMAT, "needs a pattern"},
    {"Split behavior", TOK_PRE,
     "{\"type\":\"Split\",\"pattern\":{\"String\":\" \"},\"behavior\":\"Odd\"}", TP_ERR_UNSUPPORTED,
     "behavior \"Odd\""},
    {"open group", TOK_PRE, REGEX("(a"), TP_ERR_FORMAT, "missing closing parenthesis"},
    {"open class", TOK_PRE, REGEX("[a"), TP_ERR_UNSUPPORTED, "the class is not closed"},
    {"open escape", TOK_PRE, REGEX("a\\\\"), TP_ERR_UNSUPPORTED, "ends inside an escape"},
    {"unknown property", TOK_PRE, REGEX("\\\\p{Nothing}"), TP_ERR_FORMAT, "property"},
    {"nested class", TOK_PRE, REGEX("[a[b]]"), TP_ERR_UNSUPPORTED, "nested classes"},
    {"intersection", TOK_PRE, REGEX("[a-z&&b]"), TP_ERR_UNSUPPORTED, "intersections"},
    {"repeat of a repeat", TOK_PRE, REGEX("a{1,3}+"), TP_ERR_UNSUPPORTED, "repeat of a repeat"},
    {"repeat without a bound", TOK_PRE, REGEX("a{,3}"), TP_ERR_UNSUPPORTED, "lower bound"},
    {"other escape", TOK_PRE, REGEX("\\\\w+"), TP_ERR_UNSUPPORTED, "no exact counterpart"},
    {"other group", TOK_PRE, REGEX("(?m:a)"), TP_ERR_UNSUPPORTED, "this kind of group"},
    {"verb", TOK_PRE, REGEX("(*SKIP)a"), TP_ERR_UNSUPPORTED, "control verbs"},
    {"no decoder", "{\"type\":\"ByteLevel\"},\"model\"", "null,\"model\"", TP_ERR_UNSUPPORTED,
     "decoder \"\""},
    {"WordPiece decoder", "{\"type\":\"ByteLevel\"},\"model\"",
     "{\"type\":\"WordPiece\"},\"model\"", TP_ERR_UNSUPPORTED, "decoder \"WordPiece\""},
    {"post-processor", TOK_POST, "{\"type\":\"BertProcessing\"}", TP_ERR_UNSUPPORTED,
     "post_processor \"BertProcessing\""},
    {"template token unexplained", "\"special_tokens\":{\"<s>\"", "\"special_tokens\":{\"<t>\"",
     TP_ERR_FORMAT, "does not say what \"<s>\" is"},
    {"template id", "\"ids\":[260]", "\"ids\":[999]", TP_ERR_FORMAT, "is 999, not a token"},
    {"template without text", ",{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}", "", TP_ERR_FORMAT,
     "leaves out the text"},
    {"template with a pair", "\"id\":\"A\"", "\"id\":\"B\"", TP_ERR_FORMAT, "something else"},
    {"added without content", "\"content\":\"<s>\"", "\"cuntent\":\"<s>\"", TP_ERR_FORMAT,
     "no content"},
    {"added id taken", "\"id\":260", "\"id\":5", TP_ERR_FORMAT, "has the id 5 of token"},
    {"added id missing", "\"id\":260", "\"ix\":260", TP_ERR_FORMAT, "has the id (not a number)"},
};

static void damage_ends_in_a_clear_error(void **state)
{
    char dir[32];

    (void)state;
    tok_make_dir(dir);
    for (size_t i = 0; i < TP_ARRAY_LEN(DAMAGES); i++) {
        const damage *d = &DAMAGES[i];
        rt_tokenizer *t = NULL;
        tp_status st;

        tok_write_damaged(dir, d->from, d->to);
        st = rt_tokenizer_load(&t, dir);
        if (st != d->status || strstr(tp_last_error(), d->text) == NULL)
            fail_msg("%s: %s: %s", d->name, tp_status_name(st), tp_last_error());
        assert_null(t);
    }
    tok_remove(dir);
}

static void missing_files(void **state)
{
    rt_tokenizer *t = NULL;
    char dir[32];

    (void)state;
    tok_make_dir(dir);
    assert_int_equal(rt_tokenizer_load(&t, dir), TP_ERR_NOT_FOUND);
    assert_non_null(strstr(tp_last_error(), "tokenizer.json is missing"));
    assert_int_equal(rt_tokenizer_load(&t, "/nowhere/at/all"), TP_ERR_NOT_FOUND);
    tok_write_damaged(dir, "", "");
    tok_write(dir, "tokenizer_config.json", "{", 1);
    assert_int_equal(rt_tokenizer_load(&t, dir), TP_ERR_FORMAT);
    tok_write(dir, "tokenizer_config.json", "{\"added_tokens_decoder\":{\"x\":{}}}", 34);
    assert_int_equal(rt_tokenizer_load(&t, dir), TP_ERR_FORMAT);
    tok_write(dir, "tokenizer_config.json", "{\"added_tokens_decoder\":[1]}", 28);
    tok_write(dir, "chat_template.jinja", "\xff", 1);
    assert_int_equal(rt_tokenizer_load(&t, dir), TP_ERR_FORMAT);
    assert_null(t);
    tok_remove(dir);
}

/* A text of n copies of what. */
static void put_times(tp_buf *b, const char *what, size_t n)
{
    for (size_t i = 0; i < n; i++)
        tp_buf_puts(b, what);
}

static void a_million_merges(void **state)
{
    rt_tokenizer *t;
    tp_buf merges;

    (void)state;
    tp_buf_init(&merges, 32 * MEGABYTE);
    put_times(&merges, "\"l l\",", N_MERGES_MANY);
    tp_buf_puts(&merges, TOK_MERGES);
    t = tok_load(TOK_MERGES, merges.data);
    tok_expect_ids(t, "hello", false, true, TOK_IDS(259));
    rt_tokenizer_destroy(t);
    tp_buf_release(&merges);
}

static void a_megabyte_token(void **state)
{
    rt_tokenizer *t = NULL;
    tp_buf text;
    size_t n = 0;
    char dir[32];

    (void)state;
    tp_buf_init(&text, 4 * MEGABYTE);
    tp_buf_puts(&text, "\"he\":256,\"");
    put_times(&text, "x", MEGABYTE);
    tp_buf_puts(&text, "\":400");
    t = tok_load("\"he\":256", text.data);
    (void)rt_tokenizer_bytes(t, 400, &n);
    assert_int_equal(n, MEGABYTE);
    assert_true(rt_detok_bytes_max(t) >= 3 * MEGABYTE);
    rt_tokenizer_destroy(t);

    t = NULL;
    tp_buf_reset(&text); /* as an added token, it would make the search slow */
    tp_buf_puts(&text, "{\"id\":300,\"content\":\"");
    put_times(&text, "x", MEGABYTE);
    tp_buf_puts(&text, "\"}," TOK_ADDED);
    tok_make_dir(dir);
    tok_write_damaged(dir, TOK_ADDED, text.data);
    assert_int_equal(rt_tokenizer_load(&t, dir), TP_ERR_UNSUPPORTED);
    tok_remove(dir);
    tp_buf_release(&text);
}

static void odd_but_sound_files(void **state)
{
    rt_tokenizer *t;

    (void)state;
    t = tok_load("\"h e\"", "[\"h\",\"e\"]"); /* pairs and strings mixed */
    tok_expect_ids(t, "hello", false, true, TOK_IDS(259));
    rt_tokenizer_destroy(t);
    t = tok_load("\"type\":\"BPE\",", ""); /* files of 2019 do not name the type */
    rt_tokenizer_destroy(t);
    t = tok_load("\"h e\"", "\"#version: 0.2\",\"h e\"");
    tok_expect_ids(t, "he", false, true, TOK_IDS(256));
    rt_tokenizer_destroy(t);
    t = tok_load("\"he\":256", "\"\":300,\"he\":256"); /* an empty token merges with nothing */
    tok_expect_ids(t, "he", false, true, TOK_IDS(256));
    rt_tokenizer_destroy(t);
    t = tok_load("\"id\":262", "\"id\":70000"); /* holes between ids */
    assert_int_equal(rt_tokenizer_size(t), 70001);
    assert_null(rt_tokenizer_piece(t, 5000));
    tok_expect_ids(t, "<think>", false, true, TOK_IDS(70000));
    rt_tokenizer_destroy(t);
    t = tok_load("\"unk_token\":null", "\"unk_token\":\"<gone>\""); /* every byte has a token */
    rt_tokenizer_destroy(t);
    t = tok_load(TOK_POST, "null");
    tok_expect_ids(t, "he", true, true, TOK_IDS(256));
    rt_tokenizer_destroy(t);
}

/* Loads the tiny tokenizer without a post-processor beside a tokenizer_config.json. */
static rt_tokenizer *load_with_config(const char *config, const char *jinja)
{
    rt_tokenizer *t = NULL;
    char dir[32];

    tok_make_dir(dir);
    tok_write_damaged(dir, TOK_POST, "null");
    tok_write(dir, "tokenizer_config.json", config, strlen(config));
    if (jinja != NULL)
        tok_write(dir, "chat_template.jinja", jinja, strlen(jinja));
    assert_int_equal(rt_tokenizer_load(&t, dir), TP_OK);
    tok_remove(dir);
    return t;
}

static void reads_the_config(void **state)
{
    rt_tokenizer *t = load_with_config(
        "{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"</s>\"},\"pad_token\":null,"
        "\"model_max_length\":131072,\"chat_template\":[{\"name\":\"tool_use\",\"template\":\"T\"},"
        "{\"name\":\"default\",\"template\":\"D\"}],\"added_tokens_decoder\":{\"260\":{\"content\":"
        "\"<s>\"},\"300\":{\"content\":\"<new>\",\"special\":true}}}",
        NULL);

    (void)state;
    assert_string_equal(rt_tokenizer_bos(t), "<s>");
    assert_string_equal(rt_tokenizer_eos(t), "</s>");
    assert_null(rt_tokenizer_pad(t));
    assert_null(rt_tokenizer_unk(t));
    assert_int_equal(rt_tokenizer_model_max_length(t), 131072);
    assert_string_equal(rt_tokenizer_chat_template(t), "D");
    tok_expect_ids(t, "he<new>", true, true, TOK_IDS(256, 300));
    assert_true(rt_tokenizer_is_special(t, 300));
    rt_tokenizer_destroy(t);
    t = load_with_config("{\"model_max_length\":1000000000000000019884624838656,"
                         "\"chat_template\":\"C\"}",
                         "J\n");
    assert_int_equal(rt_tokenizer_model_max_length(t), 0);
    assert_string_equal(rt_tokenizer_chat_template(t), "J\n");
    rt_tokenizer_destroy(t);
}

static void add_bos_token_counts_without_a_template(void **state)
{
    rt_tokenizer *t = load_with_config("{\"bos_token\":\"<s>\",\"add_bos_token\":true}", NULL);

    (void)state;
    tok_expect_ids(t, "he", true, true, TOK_IDS(260, 256));
    tok_expect_ids(t, "<s>he", true, true, TOK_IDS(260, 256)); /* no second one */
    tok_expect_ids(t, "", true, true, TOK_IDS(260));
    tok_expect_ids(t, "he", false, true, TOK_IDS(256));
    rt_tokenizer_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damage_ends_in_a_clear_error),
        cmocka_unit_test(missing_files),
        cmocka_unit_test(a_million_merges),
        cmocka_unit_test(a_megabyte_token),
        cmocka_unit_test(odd_but_sound_files),
        cmocka_unit_test(reads_the_config),
        cmocka_unit_test(add_bos_token_counts_without_a_template),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
