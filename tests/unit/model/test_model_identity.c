/* SPDX-License-Identifier: Apache-2.0 */
/* test_model_identity.c - checkpoints that differ in anything have different digests; copies have the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/hash.h"
#include "runtime/model/identity.h"

#define DATA_BYTES (3 << 20)

static char g_dir[2][64];

static void write_file(int which, const char *name, int64_t bytes, int64_t changed_at)
{
    char path[160];
    FILE *f;

    (void)snprintf(path, sizeof path, "%s/%s", g_dir[which], name);
    f = fopen(path, "w");
    assert_non_null(f);
    for (int64_t i = 0; i < bytes; i++)
        (void)fputc((int)(i == changed_at ? 1 : i / 7 % 250), f);
    assert_int_equal(fclose(f), 0);
}

static void remove_file(int which, const char *name)
{
    char path[160];

    (void)snprintf(path, sizeof path, "%s/%s", g_dir[which], name);
    (void)unlink(path);
}

static bool are_equal(void)
{
    uint8_t id[2][TP_HASH128_BYTES];

    for (int i = 0; i < 2; i++)
        rt_model_identity(id[i], g_dir[i]);
    return memcmp(id[0], id[1], sizeof id[0]) == 0;
}

static void write_same(void)
{
    write_file(0, "config.json", 300, -1);
    write_file(1, "config.json", 300, -1);
    write_file(0, "a.safetensors", DATA_BYTES, -1);
    write_file(0, "b.safetensors", 1000, -1);
    write_file(1, "b.safetensors", 1000, -1); /* made in another order */
    write_file(1, "a.safetensors", DATA_BYTES, -1);
}

static void test_copies(void **state)
{
    (void)state;
    write_same();
    assert_true(are_equal());
    write_file(1, "notes.txt", 10, -1); /* nobody computes with it */
    assert_true(are_equal());
    remove_file(1, "notes.txt");
}

static void test_differences(void **state)
{
    (void)state;
    write_same();
    write_file(1, "config.json", 300, 200);
    assert_false(are_equal());
    write_same();
    write_file(1, "a.safetensors", DATA_BYTES + 1, -1);
    assert_false(are_equal());
    write_same();
    write_file(1, "a.safetensors", DATA_BYTES, 5000); /* in the header */
    assert_false(are_equal());
    write_same();
    write_file(1, "a.safetensors", DATA_BYTES, DATA_BYTES - 5); /* in the data */
    assert_false(are_equal());
    write_same();
    remove_file(1, "b.safetensors");
    assert_false(are_equal());
    write_file(1, "c.safetensors", 1000, -1); /* the same bytes under another name */
    assert_false(are_equal());
    remove_file(1, "c.safetensors");
    write_same();
    assert_true(are_equal());
}

static void test_no_model(void **state)
{
    static const uint8_t none[TP_HASH128_BYTES];
    uint8_t id[TP_HASH128_BYTES];

    (void)state;
    rt_model_identity(id, "/nowhere");
    assert_memory_equal(id, none, sizeof none);
    write_same();
    remove_file(0, "config.json");
    rt_model_identity(id, g_dir[0]);
    assert_memory_equal(id, none, sizeof none);
}

static int make_directories(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        (void)snprintf(g_dir[i], sizeof g_dir[i], "/tmp/tps-identity-XXXXXX");
        if (mkdtemp(g_dir[i]) == NULL)
            return -1;
    }
    return tp_hash_init() == TP_OK ? 0 : -1;
}

static int remove_directories(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        remove_file(i, "config.json");
        remove_file(i, "a.safetensors");
        remove_file(i, "b.safetensors");
        (void)rmdir(g_dir[i]);
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_differences),
        cmocka_unit_test(test_no_model),
    };

    return cmocka_run_group_tests(tests, make_directories, remove_directories);
}
