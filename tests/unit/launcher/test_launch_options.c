/* SPDX-License-Identifier: Apache-2.0 */
/* test_launch_options.c - values of every type, the order of the sources, and what errors say. */
#include "tests/unit/base/base_testing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/status.h"
#include "launcher/options.h"

#define ARGS_MAX 16

static launch_parser g;
static char g_args[ARGS_MAX][256]; /* as a process has them: writable */

/* Parses "tpserve" and the words up to NULL. */
static tp_status parse(const char *const *words)
{
    char *argv[ARGS_MAX + 1] = {g_args[0]};
    int argc = 1;

    launch_parser_release(&g);
    (void)snprintf(g_args[0], sizeof g_args[0], "tpserve");
    for (; *words != NULL; words++, argc++) {
        (void)snprintf(g_args[argc], sizeof g_args[argc], "%s", *words);
        argv[argc] = g_args[argc];
    }
    return launch_parse(&g, argc, argv);
}

#define PARSE(...) parse((const char *const[]){__VA_ARGS__, NULL})

static void assert_refused(tp_status st, const char *text)
{
    assert_int_not_equal(st, TP_OK);
    if (strstr(tp_last_error(), text) == NULL)
        fail_msg("\"%s\" is not in \"%s\"", text, tp_last_error());
}

static void test_defaults(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--model", "m"), TP_OK);
    assert_string_equal(g.opt.model, "m");
    assert_string_equal(g.opt.host, "127.0.0.1");
    assert_int_equal(g.opt.port, 8000);
    assert_int_equal(g.opt.max_body, 8 << 20);
    assert_int_equal(g.opt.command, LAUNCH_SERVE);
}

static void test_every_type(void **state)
{
    (void)state;
    assert_int_equal(PARSE("serve", "--port", "1", "--kv-cache-memory-bytes=4GiB", "--watermark",
                           "0.25", "--log-json", "--dtype", "half", "--api-key", "a", "--api-key=b",
                           "m"),
                     TP_OK);
    assert_int_equal(g.opt.port, 1);
    assert_true(g.opt.kv_cache_memory_bytes == INT64_C(4) << 30);
    assert_true(g.opt.watermark == 0.25);
    assert_true(g.opt.log_json);
    assert_string_equal(g.opt.dtype, "float16");
    assert_int_equal(g.opt.api_key.n, 2);
    assert_string_equal(g.opt.api_key.items[1], "b");
    assert_string_equal(g.opt.model, "m");
    assert_int_equal(PARSE("--log-json", "--no-log-json", "--max_model_len", "100", "-tp", "2"),
                     TP_OK);
    assert_false(g.opt.log_json);
    assert_int_equal(g.opt.max_model_len, 100);
    assert_int_equal(g.opt.tensor_parallel_size, 2);
    assert_int_equal(PARSE("inspect", "m"), TP_OK);
    assert_int_equal(g.opt.command, LAUNCH_INSPECT);
}

static void test_suffixes(void **state)
{
    static const struct {
        const char *text;
        int64_t value;
    } k_bytes[] = {{"512M", 512 << 20}, {"1G", 1 << 30}, {"1GB", 1000000000},
                   {"2KiB", 2048},      {"1000", 1000},  {"1.5K", 1536},
                   {"3b", 3},           {"1k", 1024},    {"1TiB", INT64_C(1) << 40}};
    static const char *const k_bad[] = {"1Q", "G", "-1", "0.3", "1KiBs", "", "nan", "1e99"};

    (void)state;
    for (size_t i = 0; i < TP_ARRAY_LEN(k_bytes); i++) {
        assert_int_equal(PARSE("--kv-cache-memory-bytes", k_bytes[i].text), TP_OK);
        assert_true(g.opt.kv_cache_memory_bytes == k_bytes[i].value);
    }
    for (size_t i = 0; i < TP_ARRAY_LEN(k_bad); i++)
        assert_refused(PARSE("--kv-cache-memory-bytes", k_bad[i]), "--kv-cache-memory-bytes");
    assert_int_equal(PARSE("--max-model-len", "8k"), TP_OK);
    assert_int_equal(g.opt.max_model_len, 8000);
    assert_int_equal(PARSE("--max-model-len", "8K"), TP_OK);
    assert_int_equal(g.opt.max_model_len, 8192);
    assert_int_equal(PARSE("--max-model-len", "-1"), TP_OK);
    assert_int_equal(g.opt.max_model_len, 0);
}

static void test_refusals_name_the_cure(void **state)
{
    (void)state;
    assert_refused(PARSE("--frobnicate"), "unknown option --frobnicate");
    assert_refused(PARSE("--no-port"), "unknown option --no-port");
    assert_refused(PARSE("--modle", "m"), "unknown option --modle; did you mean --model?");
    assert_refused(PARSE("--max-num-sequences=4"), "did you mean --max-num-seqs?");
    assert_refused(PARSE("-np", "4"), "did you mean --tensor-parallel-size?");
    assert_refused(PARSE("-x"), "unknown option -x: tpserve --help lists them all");
    assert_refused(PARSE("--a-name-that-is-longer-than-that-of-any-option-of-the-table"),
                   "lists them all");
    assert_refused(PARSE("--port"), "--port needs a value");
    assert_refused(PARSE("--port", "70000"), "0 to 65535");
    assert_refused(PARSE("--port", "x"), "whole number");
    assert_refused(PARSE("--device", "gpu"), "auto|cuda|cpu|emu|ref");
    assert_refused(PARSE("--log-json=maybe"), "true or false");
    assert_refused(PARSE("--block-size", "17"), "multiple of 16");
    assert_refused(PARSE("--pp", "2"), "pipeline-parallel-size");
    assert_refused(PARSE("a", "b"), "unexpected argument \"b\"");
    assert_refused(PARSE("--model", "a", "--served-model-name", "x", "y"),
                   "unexpected argument \"y\": the model is --model a");
    assert_refused(PARSE("a", "--model", "b"), "unexpected argument \"a\": the model is --model b");
}

/* --comm and --host may stand alone: then they say what bench measures. */
static void test_kinds_of_bench(void **state)
{
    (void)state;
    assert_int_equal(PARSE("bench", "m", "--host"), TP_OK);
    assert_true(g.opt.command == LAUNCH_BENCH && g.opt.host_is_bare && !g.opt.comm_is_given);
    assert_int_equal(PARSE("bench", "--host", "--json"), TP_OK);
    assert_true(g.opt.host_is_bare && g.opt.json);
    assert_int_equal(PARSE("bench", "--host", "10.0.0.1", "--max-concurrency", "1,4"), TP_OK);
    assert_true(!g.opt.host_is_bare && strcmp(g.opt.host, "10.0.0.1") == 0);
    assert_string_equal(g.opt.max_concurrency, "1,4");
    assert_true(g.opt.stream && !g.opt.engine && g.opt.num_prompts == 1000);
    assert_int_equal(PARSE("bench", "--comm"), TP_OK);
    assert_true(g.opt.comm_is_given && strcmp(g.opt.comm, "auto") == 0);
    assert_refused(PARSE("m", "--host"), "--host needs a value");
    assert_refused(PARSE("m", "--num-prompts", "5"), "--num-prompts is an option of tpserve plan");
    assert_refused(PARSE("inspect", "m", "--json"), "not of inspect");
    assert_refused(PARSE("bench", "--disconnect-rate", "1.5"), "0 to 1");
    assert_refused(PARSE("bench", "--length-distribution", "flat"), "uniform|exponential");
}

static void test_speculation(void **state)
{
    (void)state;
    assert_int_equal(PARSE("m"), TP_OK);
    assert_int_equal(g.opt.speculation.max_tokens, 0);
    assert_int_equal(PARSE("m", "--speculative-config", "{\"method\": \"ngram\"}"), TP_OK);
    assert_int_equal(g.opt.speculation.max_tokens, 8);
    assert_int_equal(g.opt.speculation.ngram.min, 2);
    assert_int_equal(g.opt.speculation.ngram.max, 8);
    assert_int_equal(PARSE("m", "--speculative-config",
                           "{\"method\":\"ngram\",\"num_speculative_tokens\":5,"
                           "\"prompt_lookup_max\":4,\"disable_by_batch_size\":32}"),
                     TP_OK);
    assert_int_equal(g.opt.speculation.max_tokens, 5);
    assert_int_equal(g.opt.speculation.ngram.min, 4);
    assert_int_equal(g.opt.speculation.ngram.max, 4);
    assert_int_equal(g.opt.speculation.max_seqs, 32);
    assert_refused(PARSE("--speculative-config", "ngram"), "expected JSON such as");
    assert_refused(
        PARSE("--speculative-config", "{\"prompt_lookup_max\":4}"),
        "expected an object such as {\"method\": \"ngram\"}, found one without a method");
    assert_refused(PARSE("--speculative-config", "[1]"), "found array");
    assert_refused(PARSE("--speculative-config", "{\"method\":\"eagle\"}"),
                   "expected \"ngram\" (prompt lookup), found \"eagle\"");
    assert_refused(PARSE("--speculative-config", "{\"method\":3}"), "found a number");
    assert_refused(PARSE("--speculative-config", "{\"method\":\"ngram\",\"model\":\"x\"}"),
                   "unknown key \"model\"");
    assert_refused(
        PARSE("--speculative-config", "{\"method\":\"ngram\",\"num_speculative_tokens\":17}"),
        "num_speculative_tokens: expected a number from 1 to 16, found 17");
    assert_refused(PARSE("--speculative-config",
                         "{\"method\":\"ngram\",\"prompt_lookup_min\":5,\"prompt_lookup_max\":2}"),
                   "prompt_lookup_min 5 is above prompt_lookup_max 2");
}

static void test_capture_sizes(void **state)
{
    static const int k_sizes[] = {1, 2, 4, 8};

    (void)state;
    assert_int_equal(
        PARSE("--cudagraph-capture-sizes", "[8, 2]", "--cudagraph-capture-sizes=4,1,2", "m"),
        TP_OK);
    assert_int_equal(g.opt.n_capture_sizes, 4);
    assert_memory_equal(g.opt.capture_sizes, k_sizes, sizeof k_sizes);
    assert_refused(PARSE("--cudagraph-capture-sizes", "1,x"), "found \"1,x\"");
    assert_refused(PARSE("--cudagraph-capture-sizes", "0"), "from 1 to 65536");
}

/* bench --comm alone: the value may be left out where nothing or another option follows. */
static void test_bare_options(void **state)
{
    (void)state;
    assert_int_equal(PARSE("bench", "--comm", "--output", "f"), TP_OK);
    assert_string_equal(g.opt.comm, "auto");
    assert_string_equal(g.opt.output, "f");
    assert_int_equal(PARSE("bench", "--output", "f", "--comm"), TP_OK);
    assert_int_equal(PARSE("bench", "--comm", "mpi"), TP_OK);
    assert_string_equal(g.opt.comm, "mpi");
    assert_int_equal(g.opt.command, LAUNCH_BENCH);
    assert_refused(PARSE("--comm", "m"), "expected auto|nccl|p2p");
    assert_refused(PARSE("--json", "--model", "m"), "--json is an option of tpserve plan");
    assert_int_equal(PARSE("doctor", "--json"), TP_OK);
    assert_int_equal(g.opt.command, LAUNCH_DOCTOR);
    assert_int_equal(PARSE("plan", "m", "--gpu", "h100"), TP_OK);
    assert_int_equal(g.opt.command, LAUNCH_PLAN);
}

static void write_config(char path[32], const char *text)
{
    int fd;

    (void)snprintf(path, 32, "/tmp/tp-config-XXXXXX");
    fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (int)strlen(text));
    close(fd);
}

static void test_precedence(void **state)
{
    char path[32];

    (void)state;
    write_config(path, "port: 1\nmax_num_seqs: 11\nblock-size: 32\nallowed-origins: [x, y]\n"
                       "model: from-file\nhost: null\nlog-json: true\n");
    setenv("TPSERVE_PORT", "2", 1);
    setenv("TPSERVE_MAX_NUM_SEQS", "22", 1);
    setenv("TPSERVE_ALLOWED_ORIGINS", "z", 1);
    assert_int_equal(PARSE("--port", "3", "--config", path), TP_OK);
    assert_int_equal(g.opt.port, 3);
    assert_int_equal(g.opt.max_num_seqs, 22);
    assert_int_equal(g.opt.block_size, 32);
    assert_int_equal(g.opt.allowed_origins.n, 1); /* a stronger source replaces a list */
    assert_string_equal(g.opt.allowed_origins.items[0], "z");
    assert_string_equal(g.opt.model, "from-file");
    assert_string_equal(g.opt.host, "127.0.0.1");
    assert_true(g.opt.log_json);
    unsetenv("TPSERVE_PORT");
    unsetenv("TPSERVE_MAX_NUM_SEQS");
    unsetenv("TPSERVE_ALLOWED_ORIGINS");
    setenv("TPSERVE_CONFIG", path, 1);
    assert_int_equal(PARSE("--no-log-json"), TP_OK);
    assert_int_equal(g.opt.port, 1);
    assert_int_equal(g.opt.allowed_origins.n, 2);
    assert_false(g.opt.log_json);
    unsetenv("TPSERVE_CONFIG");
    unlink(path);
}

static void test_environment_lists(void **state)
{
    (void)state;
    setenv("TPSERVE_API_KEY", "one\ntwo\n", 1);
    setenv("TPSERVE_MODELS", "/a:/b::", 1);
    assert_int_equal(PARSE("m"), TP_OK);
    assert_int_equal(g.opt.api_key.n, 2);
    assert_string_equal(g.opt.api_key.items[1], "two");
    assert_int_equal(g.opt.model_path.n, 2);
    assert_string_equal(g.opt.model_path.items[1], "/b");
    unsetenv("TPSERVE_API_KEY");
    unsetenv("TPSERVE_MODELS");
}

/* A Kubernetes Service called tpserve sets TPSERVE_PORT for every pod of its namespace. */
static void test_service_links_are_not_options(void **state)
{
    (void)state;
    setenv("TPSERVE_PORT", "tcp://10.0.0.7:8000", 1);
    assert_int_equal(PARSE("m"), TP_OK);
    assert_int_equal(g.opt.port, 8000);
    unsetenv("TPSERVE_PORT");
}

/* What is a JSON object on the command line may be a mapping here. */
static void test_yaml_mapping(void **state)
{
    char path[32];

    (void)state;
    for (int i = 0; i < 3; i++) {
        write_config(
            path, i == 0   ? "speculative-config: {\"method\": \"ngram\", "
                             "\"num_speculative_tokens\": 5}\n"
                  : i == 1 ? "speculative_config:\n  method: ngram\n  num_speculative_tokens: 5\n"
                           : "speculative-config: '{\"method\": \"ngram\", "
                             "\"num_speculative_tokens\": 5}'\n");
        assert_int_equal(PARSE("m", "--config", path), TP_OK);
        assert_int_equal(g.opt.speculation.max_tokens, 5);
        unlink(path);
    }
    write_config(path, "speculative-config: {method: ngram, prompt_lookup_max: \"4\"}\n");
    assert_refused(PARSE("--config", path), "found a string"); /* quoted is text */
    unlink(path);
}

static void test_yaml_errors_have_a_line(void **state)
{
    static const struct {
        const char *text, *error;
    } k_cases[] = {
        {"port: 1\nfrob: 2\n", ":2: unknown option \"frob\""},
        {"block_sise: 32\n", ":1: unknown option \"block_sise\"; did you mean \"block-size\"?"},
        {"\n\nport: x\n", ":3: --port: expected a whole number"},
        {"port: [1, 2]\n", ":1: port: expected a single value"},
        {"model: {a: 1}\n", ":1: model: expected a single value"},
        {"speculative-config: {method: [1]}\n", ":1: speculative-config: expected plain values"},
        {"api-key:\n  - [a]\n", ":2: api-key: expected a list of plain values"},
        {"- a\n- b\n", "expected a mapping"},
        {"port: 1\n  host: {\n", ":2: "},
        {"[a]: 1\n", ":1: expected an option name"},
    };

    (void)state;
    for (size_t i = 0; i < TP_ARRAY_LEN(k_cases); i++) {
        char path[32];

        write_config(path, k_cases[i].text);
        assert_refused(PARSE("--config", path), k_cases[i].error);
        assert_refused(PARSE("--config", path), path);
        unlink(path);
    }
    assert_refused(PARSE("--config", "/nonexistent/c.yaml"), "No such file");
}

static void test_secrets_are_wiped_and_never_printed(void **state)
{
    char *text = NULL;
    size_t n;
    FILE *f;

    (void)state;
    assert_int_equal(PARSE("--api-key", "sk-secret", "--api-key=sk-other"), TP_OK);
    assert_string_equal(g_args[2], "*********");
    assert_string_equal(g_args[3], "--api-key=********");
    assert_string_equal(g.opt.api_key.items[0], "sk-secret");
    f = open_memstream(&text, &n);
    launch_print_config(f, &g);
    assert_int_equal(fclose(f), 0);
    assert_null(strstr(text, "sk-"));
    assert_non_null(strstr(text, "port: 8000  # default"));
    free(text);
}

static void print_whole_help(FILE *out)
{
    launch_print_help(out, LAUNCH_FOR_ALL);
}

/* The texts come from the table, so every row that is not hidden is in each of them. */
static void test_generated_texts(void **state)
{
    void (*const print[])(FILE *) = {print_whole_help, launch_print_man, launch_print_completion};

    (void)state;
    for (size_t p = 0; p < TP_ARRAY_LEN(print); p++) {
        char *text = NULL;
        size_t n, column = 0;
        FILE *f = open_memstream(&text, &n);

        print[p](f);
        assert_int_equal(fclose(f), 0);
        for (int i = 0; i < launch_n_rows; i++) {
            char name[96], *to = name;

            for (const char *s = launch_rows[i].name; *s != '\0'; s++) {
                if (*s == '-' && print[p] == launch_print_man)
                    *to++ = '\\';
                *to++ = *s;
            }
            *to = '\0';
            if ((launch_rows[i].flags & LAUNCH_HIDDEN) == 0 && strstr(text, name) == NULL)
                fail_msg("%s is not in text %zu", name, p);
        }
        for (const char *s = text; print[p] == print_whole_help && *s != '\0'; s++) {
            column = *s == '\n' ? 0 : column + 1;
            assert_true(column <= 100);
        }
        free(text);
    }
}

/* Whether `text` has a line that begins with this option. */
static bool lists(const char *text, const char *name)
{
    char line[96];
    size_t len = (size_t)snprintf(line, sizeof line, "\n  --%s", name);

    for (const char *at = text; (at = strstr(at, line)) != NULL; at += len)
        if (strchr(" ,\n", at[len]) != NULL)
            return true;
    return false;
}

/* The help of one command: the options that it looks at, and its own ones first. */
static void test_help_of_one_command(void **state)
{
    (void)state;
    for (launch_command c = LAUNCH_SERVE; c <= LAUNCH_BENCH; c++) {
        char *text = NULL;
        size_t n;
        FILE *f = open_memstream(&text, &n);

        launch_print_help(f, LAUNCH_FOR(c));
        assert_int_equal(fclose(f), 0);
        for (int i = 0; i < launch_n_rows; i++) {
            const launch_row *r = &launch_rows[i];
            bool wanted = (r->flags & LAUNCH_HIDDEN) == 0 && (r->flags & LAUNCH_FOR(c)) != 0;

            if (lists(text, r->name) != wanted)
                fail_msg("--%s in the help of command %d: %d", r->name, (int)c, !wanted);
        }
        if (c == LAUNCH_PLAN)
            assert_true(strstr(text, "--gpu NAME") < strstr(text, "--dtype"));
        free(text);
    }
}

static void test_rows_are_sound(void **state)
{
    (void)state;
    for (int i = 0; i < launch_n_rows; i++) {
        const launch_row *r = &launch_rows[i];

        assert_ptr_equal(launch_find(r->name, strlen(r->name)), r); /* no name twice */
        if (r->alias != NULL)
            assert_ptr_equal(launch_find(r->alias, strlen(r->alias)), r);
        assert_true(r->doc != NULL && strlen(r->doc) > 10);
        assert_true((r->type == LAUNCH_TYPE_WORD) == (r->words != NULL));
        assert_int_not_equal(r->flags & LAUNCH_FOR_ALL, 0); /* somebody looks at it */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_every_type),
        cmocka_unit_test(test_suffixes),
        cmocka_unit_test(test_kinds_of_bench),
        cmocka_unit_test(test_capture_sizes),
        cmocka_unit_test(test_speculation),
        cmocka_unit_test(test_bare_options),
        cmocka_unit_test(test_refusals_name_the_cure),
        cmocka_unit_test(test_precedence),
        cmocka_unit_test(test_environment_lists),
        cmocka_unit_test(test_service_links_are_not_options),
        cmocka_unit_test(test_yaml_mapping),
        cmocka_unit_test(test_yaml_errors_have_a_line),
        cmocka_unit_test(test_secrets_are_wiped_and_never_printed),
        cmocka_unit_test(test_generated_texts),
        cmocka_unit_test(test_help_of_one_command),
        cmocka_unit_test(test_rows_are_sound),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    launch_parser_release(&g);
    return failed;
}
