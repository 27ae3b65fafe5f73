/* SPDX-License-Identifier: Apache-2.0 */
/* test_launch_paths.c - where models are found, what is said when they are not, and the API keys of a server. */
#include "tests/unit/base/base_testing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "launcher/keys.h"
#include "launcher/model_path.h"

static char g_root[64];

static void put_file(const char *name, const char *text)
{
    char path[256];
    FILE *f;

    (void)snprintf(path, sizeof path, "%s/%s", g_root, name);
    for (char *s = path + strlen(g_root) + 1; (s = strchr(s, '/')) != NULL; s++) {
        *s = '\0';
        (void)mkdir(path, 0700);
        *s = '/';
    }
    f = fopen(path, "w");
    assert_non_null(f);
    (void)fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static int make_tree(void **state)
{
    (void)state;
    (void)snprintf(g_root, sizeof g_root, "/tmp/tp-paths-XXXXXX");
    assert_non_null(mkdtemp(g_root));
    put_file("models/aliases.yaml", "72b: big-model\nsecond: 72b\nloop: loop\nhub: Org/Cached\n");
    put_file("models/big-model/config.json", "{}");
    put_file("models/plain/config.json", "{}");
    put_file("broken/aliases.yaml", "a: {\n");
    put_file("hub/models--Org--Cached/refs/main", "abc123\n");
    put_file("hub/models--Org--Cached/snapshots/abc123/config.json", "{}");
    put_file("keys", "# comment\n\nkey-one\r\nkey-two\n");
    put_file("no-keys", "# nothing\n");
    return setenv("HF_HUB_CACHE", "/nonexistent", 1);
}

static int remove_tree(void **state)
{
    static const char *const k_files[] = {"models/aliases.yaml",
                                          "models/big-model/config.json",
                                          "models/big-model",
                                          "models/plain/config.json",
                                          "models/plain",
                                          "models",
                                          "broken/aliases.yaml",
                                          "broken",
                                          "hub/models--Org--Cached/refs/main",
                                          "hub/models--Org--Cached/refs",
                                          "hub/models--Org--Cached/snapshots/abc123/config.json",
                                          "hub/models--Org--Cached/snapshots/abc123",
                                          "hub/models--Org--Cached/snapshots",
                                          "hub/models--Org--Cached",
                                          "hub",
                                          "keys",
                                          "no-keys",
                                          ""};
    char path[256];

    (void)state;
    for (size_t i = 0; i < TP_ARRAY_LEN(k_files); i++) {
        (void)snprintf(path, sizeof path, "%s/%s", g_root, k_files[i]);
        (void)remove(path);
    }
    return 0;
}

static tp_status find(const char *model, const char *model_path, char out[LAUNCH_PATH_MAX])
{
    static char dir[256];
    launch_options opt = {.model = model};

    if (model_path != NULL) {
        (void)snprintf(dir, sizeof dir, "%s/%s", g_root, model_path);
        opt.model_path.items[opt.model_path.n++] = dir;
    }
    return launch_find_model(out, &opt);
}

static void assert_found(const char *model, const char *model_path, const char *where)
{
    char out[LAUNCH_PATH_MAX], expected[256];

    assert_int_equal(find(model, model_path, out), TP_OK);
    (void)snprintf(expected, sizeof expected, "%s/%s", g_root, where);
    assert_string_equal(out, expected);
}

static void test_directory(void **state)
{
    char path[256];

    (void)state;
    (void)snprintf(path, sizeof path, "%s/models/plain", g_root);
    assert_found(path, NULL, "models/plain");
}

static void test_model_path(void **state)
{
    (void)state;
    assert_found("plain", "models", "models/plain");
    assert_found("72b", "models", "models/big-model");
    assert_found("second", "models", "models/big-model"); /* an alias of an alias */
}

static void test_cache(void **state)
{
    char cache[256];

    (void)state;
    (void)snprintf(cache, sizeof cache, "%s/hub", g_root);
    setenv("HF_HUB_CACHE", cache, 1);
    assert_found("Org/Cached", NULL, "hub/models--Org--Cached/snapshots/abc123");
    assert_found("hub", "models", "hub/models--Org--Cached/snapshots/abc123");
    setenv("HF_HUB_CACHE", "", 1);
    setenv("HF_HOME", g_root, 1);
    assert_found("Org/Cached", NULL, "hub/models--Org--Cached/snapshots/abc123");
    unsetenv("HF_HOME");
    setenv("HF_HUB_CACHE", "/nonexistent", 1);
}

static void test_every_place_is_listed(void **state)
{
    char out[LAUNCH_PATH_MAX];

    (void)state;
    assert_int_equal(find("Org/Missing", "models", out), TP_ERR_NOT_FOUND);
    assert_non_null(strstr(tp_last_error(), "Org/Missing/config.json"));
    assert_non_null(strstr(tp_last_error(), "models/aliases.yaml"));
    assert_non_null(strstr(tp_last_error(), "/nonexistent/models--Org--Missing/refs/main"));
    assert_non_null(strstr(tp_last_error(), "--model-path"));
    assert_int_equal(find("/no/such", NULL, out), TP_ERR_NOT_FOUND);
    assert_non_null(strstr(tp_last_error(), "looked for /no/such/config.json"));
    assert_null(strstr(tp_last_error(), "models--"));                /* a path is no Hub id */
    assert_int_equal(find("loop", "models", out), TP_ERR_NOT_FOUND); /* ends */
    assert_int_equal(find("a", "broken", out), TP_ERR_NOT_FOUND);
    assert_int_equal(find("../x/..", NULL, out), TP_ERR_NOT_FOUND);
    assert_int_equal(find("", NULL, out), TP_ERR_INVALID);
    assert_int_equal(find(NULL, NULL, out), TP_ERR_INVALID);
}

/* A directory that may not be read is not called missing.  In a child, which gives up being root. */
static void test_closed_directory(void **state)
{
    char out[LAUNCH_PATH_MAX], path[256];
    int status = -1;
    pid_t child;

    (void)state;
    (void)snprintf(path, sizeof path, "%s/models/plain", g_root);
    assert_int_equal(chmod(g_root, 0), 0);
    child = fork();
    if (child == 0) {
        bool told = (geteuid() != 0 || setuid(65534) == 0) && find(path, NULL, out) != TP_OK &&
                    strstr(tp_last_error(), "/plain/config.json (permission denied)") != NULL;

        _exit(told ? 0 : 1);
    }
    assert_true(child > 0 && waitpid(child, &status, 0) == child);
    assert_int_equal(chmod(g_root, 0700), 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void test_keys(void **state)
{
    char path[256];
    launch_options opt = {.host = "0.0.0.0", .api_key_file = path};
    launch_list keys;
    tp_arena arena;

    (void)state;
    tp_arena_init(&arena, 0);
    opt.api_key.items[opt.api_key.n++] = "given";
    (void)snprintf(path, sizeof path, "%s/keys", g_root);
    assert_int_equal(launch_settle_keys(&keys, &arena, &opt), TP_OK);
    assert_int_equal(keys.n, 3);
    assert_string_equal(keys.items[0], "given");
    assert_string_equal(keys.items[1], "key-one");
    assert_string_equal(keys.items[2], "key-two");
    (void)snprintf(path, sizeof path, "%s/no-keys", g_root);
    assert_int_equal(launch_settle_keys(&keys, &arena, &opt), TP_ERR_INVALID);
    (void)snprintf(path, sizeof path, "%s/missing", g_root);
    assert_int_not_equal(launch_settle_keys(&keys, &arena, &opt), TP_OK);
    tp_arena_release(&arena);
}

static void test_open_addresses_need_a_key(void **state)
{
    static const char *const k_local[] = {"127.0.0.1", "127.9.9.9", "::1", "localhost"};
    static const char *const k_open[] = {"0.0.0.0", "::", "10.0.0.1", "192.168.1.1", "host"};
    launch_options opt = {0};
    launch_list keys;
    tp_arena arena;

    (void)state;
    tp_arena_init(&arena, 0);
    for (size_t i = 0; i < TP_ARRAY_LEN(k_local); i++) {
        opt.host = k_local[i];
        assert_int_equal(launch_settle_keys(&keys, &arena, &opt), TP_OK);
    }
    for (size_t i = 0; i < TP_ARRAY_LEN(k_open); i++) {
        opt.host = k_open[i];
        opt.insecure = false;
        assert_int_equal(launch_settle_keys(&keys, &arena, &opt), TP_ERR_INVALID);
        assert_non_null(strstr(tp_last_error(), "--insecure"));
        opt.insecure = true;
        assert_int_equal(launch_settle_keys(&keys, &arena, &opt), TP_OK);
    }
    tp_arena_release(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_directory),
        cmocka_unit_test(test_model_path),
        cmocka_unit_test(test_cache),
        cmocka_unit_test(test_every_place_is_listed),
        cmocka_unit_test(test_closed_directory),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_open_addresses_need_a_key),
    };

    return cmocka_run_group_tests(tests, make_tree, remove_tree);
}
