/* SPDX-License-Identifier: Apache-2.0 */
/* test_inject_load.c - memory that runs out and files that cannot be read while a model, a tokenizer, a template are loaded.
 *
 * usage: test_inject_load [all]
 */
#include "tests/unit/injection/injection.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "base/fault.h"

#define SAMPLE_ENGINE    160
#define SAMPLE_TOKENIZER 200
#define TEXT             "hello <s> w\xc3\xb6rld"

static const char *g_model;
static rt_tokens g_ids; /* of TEXT */

static inj_outcome polite(tp_status st)
{
    assert_int_not_equal(st, TP_OK);
    assert_string_not_equal(tp_last_error(), "");
    return INJ_FAILED;
}

/* ---- what is tried ---- */

static inj_outcome try_tokenizer(void *unused)
{
    rt_tokenizer *t = NULL;
    rt_tokens ids = {0};
    tp_status st = rt_tokenizer_load(&t, g_model);
    tp_buf text;

    (void)unused;
    if (st != TP_OK) {
        assert_null(t);
        return polite(st);
    }
    tp_buf_init(&text, 1 << 20);
    st = rt_tokenizer_encode(t, TEXT, strlen(TEXT), true, true, 0, &ids);
    if (st == TP_OK) {
        assert_int_equal(ids.n, g_ids.n);
        assert_memory_equal(ids.ids, g_ids.ids, ids.n * sizeof *ids.ids);
        st = rt_tokenizer_decode(t, ids.ids, ids.n, true, &text);
    }
    if (st == TP_OK)
        assert_string_equal(tp_buf_str(&text), "hello  w\xc3\xb6rld");
    tp_buf_release(&text);
    rt_tokens_release(&ids);
    rt_tokenizer_destroy(t);
    return st == TP_OK ? INJ_SAME : polite(st);
}

static tp_status render(const rt_template *t, const tp_json *messages, tp_buf *out,
                        rt_template_spans *spans)
{
    rt_template_input in = {.messages = messages,
                            .add_generation_prompt = true,
                            .bos_token = "<s>",
                            .eos_token = "</s>"};

    return rt_template_render_marked(t, &in, &(rt_template_limits){.time_max_ms = 10000}, out,
                                     spans);
}

/* Compiles the chat template and renders a conversation; the reference is what came out first. */
static inj_outcome try_template(void *reference)
{
    static const char k_messages[] =
        "[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"hello\"},"
        "{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":\"c\",\"type\":"
        "\"function\",\"function\":{\"name\":\"f\",\"arguments\":{\"x\":[1,2.5,\"a\"]}}}]}]";
    tp_buf *expected = reference, source, text;
    rt_template_spans spans = {0};
    rt_template *t = NULL;
    tp_json *messages = NULL;
    char path[128];
    tp_status st;

    inj_path("chat_template.jinja", path);
    tp_buf_init(&text, 1 << 20);
    st = tp_buf_read_file(&source, path, 1 << 20);
    if (st == TP_OK)
        st = tp_json_parse(&messages, k_messages, sizeof k_messages - 1, NULL);
    if (st == TP_OK)
        st = rt_template_compile(&t, tp_buf_str(&source), source.len);
    if (st == TP_OK)
        st = render(t, messages, &text, &spans);
    inj_disarm();
    if (st == TP_OK && expected->len == 0)
        tp_buf_put(expected, text.data, text.len);
    if (st == TP_OK)
        assert_string_equal(tp_buf_str(&text), tp_buf_str(expected));
    rt_template_destroy(t);
    tp_json_free(messages);
    tp_free(spans.items);
    tp_buf_release(&source);
    tp_buf_release(&text);
    return st == TP_OK ? INJ_SAME : polite(st);
}

/* The device and the whole engine on one rank. */
static inj_outcome try_engine(void *unused)
{
    comm_world world = {.rank = 0, .size = 1, .local_rank = 0, .local_size = 1, .n_hosts = 1};
    rt_engine_options opt = {.model_dir = g_model,
                             .max_num_seqs = 4,
                             .max_num_batched_tokens = 32,
                             .max_model_len = 64,
                             .kv_cache_memory_bytes = 1 << 20,
                             .watermark = -1,
                             .dtype = "float32",
                             .comm = "self"};
    kern_backend *be = NULL;
    rt_engine *e = NULL;
    tp_status st = kern_cpu_ops()->open(&be, &(kern_open_args){.n_threads = 1});

    (void)unused;
    if (st == TP_OK)
        st = rt_engine_create(&e, &opt, be, &world);
    inj_disarm();
    if (st != TP_OK)
        assert_null(e);
    else
        assert_int_equal(rt_engine_get_info(e)->vocab, 600);
    rt_engine_destroy(e);
    if (be != NULL)
        be->ops->close(be);
    return st == TP_OK ? INJ_SAME : polite(st);
}

/* ---- cases ---- */

static void test_tokenizer(void **state)
{
    (void)state;
    inj_every_allocation("tokenizer", try_tokenizer, NULL, SAMPLE_TOKENIZER);
    inj_every_pass("buf.read", "tokenizer", try_tokenizer, NULL);
    inj_every_pass("buf.short", "tokenizer", try_tokenizer, NULL);
}

static void test_template(void **state)
{
    tp_buf expected;

    (void)state;
    tp_buf_init(&expected, 1 << 20);
    inj_every_allocation("template", try_template, &expected, SAMPLE_TOKENIZER);
    tp_buf_release(&expected);
}

static void test_engine_memory(void **state)
{
    (void)state;
    inj_every_allocation("engine", try_engine, NULL, SAMPLE_ENGINE);
}

static void test_engine_files(void **state)
{
    (void)state;
    inj_every_pass("load.read", "engine", try_engine, NULL);
    inj_every_pass("load.short", "engine", try_engine, NULL);
    inj_every_pass("load.shrink", "engine", try_engine, NULL);
    inj_every_pass("buf.read", "engine", try_engine, NULL);
    inj_every_pass("buf.short", "engine", try_engine, NULL);
}

/* A copy of a file of the model takes its place, cut to `keep` bytes. */
static void cut_file(const char *name, const tp_buf *whole, size_t keep)
{
    char path[128];

    inj_path(name, path);
    (void)unlink(path);
    tok_write(g_model, name, tp_buf_str(whole), keep);
}

/* Every file cut short at many places: an error with a text, or (the last white space is gone) a model. */
static void test_truncated(void **state)
{
    static const char *const k_names[] = {"config.json", "tokenizer.json", "chat_template.jinja",
                                          "model.safetensors"};
    int n = 0, failed = 0;

    (void)state;
    for (size_t i = 0; i < TP_ARRAY_LEN(k_names); i++) {
        size_t cuts = inj_all() ? 400 : 24;
        char path[128];
        tp_buf whole;

        inj_path(k_names[i], path);
        assert_int_equal(tp_buf_read_file(&whole, path, 1 << 24), TP_OK);
        for (size_t c = 0; c < cuts; c++, n++) {
            cut_file(k_names[i], &whole, whole.len * c / cuts);
            failed += try_engine(NULL) == INJ_FAILED;
        }
        cut_file(k_names[i], &whole, whole.len - 1);
        failed += try_engine(NULL) == INJ_FAILED;
        cut_file(k_names[i], &whole, whole.len);
        assert_int_equal(try_engine(NULL), INJ_SAME);
        tp_buf_release(&whole);
    }
    print_message("    %d truncated files; %d attempts failed\n", n, failed);
    assert_true(failed > n / 2);
}

static int make_model(void **state)
{
    rt_tokenizer *t;

    (void)state;
    g_model = inj_make_model();
    assert_int_equal(rt_tokenizer_load(&t, g_model), TP_OK);
    assert_int_equal(rt_tokenizer_encode(t, TEXT, strlen(TEXT), true, true, 0, &g_ids), TP_OK);
    rt_tokenizer_destroy(t);
    return 0;
}

static int remove_model(void **state)
{
    (void)state;
    rt_tokens_release(&g_ids);
    inj_remove_model();
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokenizer),     cmocka_unit_test(test_template),
        cmocka_unit_test(test_engine_memory), cmocka_unit_test(test_engine_files),
        cmocka_unit_test(test_truncated),
    };

    inj_set_all(argc > 1 && strcmp(argv[1], "all") == 0);
    return cmocka_run_group_tests(tests, make_model, remove_model);
}
