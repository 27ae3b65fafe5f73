/* SPDX-License-Identifier: Apache-2.0 */
/* test_model_safetensors.c - the table of tensors: one file, several files, very many entries, ranges. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/clock.h"
#include "runtime/model/safetensors.h"
#include "tests/unit/model/model_files.h"

#define MANY 150000 /* entries of a large mixture of experts */

static void test_single(void **state)
{
    rt_st st;
    const rt_st_tensor *t;
    char bytes[8];

    (void)state;
    mf_safetensors(
        "model.safetensors",
        "{\"__metadata__\": {\"format\": \"pt\"},"
        " \"odd\": {\"dtype\": \"F8_E4M3\", \"shape\": [3], \"data_offsets\": [0, 3]},"
        " \"w\": {\"dtype\": \"BF16\", \"shape\": [2, 3], \"data_offsets\": [3, 15]},"
        " \"scalar\": {\"dtype\": \"F32\", \"shape\": [], \"data_offsets\": [15, 19]},"
        " \"empty\": {\"dtype\": \"F16\", \"shape\": [0, 5], \"data_offsets\": [19, 19]},"
        " \"nibbles\": {\"dtype\": \"F4\", \"shape\": [4], \"data_offsets\": [19, 21]}}   ",
        21);
    assert_int_equal(rt_st_open(&st, mf_dir), TP_OK);
    assert_int_equal(st.n_tensors, 5);
    t = rt_st_find(&st, "w");
    assert_non_null(t);
    assert_int_equal(t->dtype, RT_ST_BF16);
    assert_int_equal(t->n_dims, 2);
    assert_int_equal(t->shape[1], 3);
    assert_int_equal(t->bytes, 12);
    assert_int_equal(rt_st_find(&st, "odd")->dtype, RT_ST_OTHER);
    assert_int_equal(rt_st_find(&st, "scalar")->n_dims, 0);
    assert_null(rt_st_find(&st, "absent"));
    assert_int_equal(rt_st_read(&st, t->file, t->offset, bytes, 8), TP_OK);
    rt_st_close(&st);
}

/* Duplicates across files: the index decides; files that it does not name are not opened. */
static void test_sharded(void **state)
{
    rt_st st;

    (void)state;
    mf_remove("model.safetensors");
    mf_safetensors("a.safetensors",
                   "{\"x\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0, 4]},"
                   "\"both\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [4, 8]}}",
                   8);
    mf_safetensors("b.safetensors",
                   "{\"both\": {\"dtype\": \"F16\", \"shape\": [2], \"data_offsets\": [0, 4]}}", 4);
    mf_text("consolidated.safetensors", "not even a header");
    mf_text("model.safetensors.index.json",
            "{\"metadata\": {\"total_size\": 12}, \"weight_map\": {\"x\": \"a.safetensors\","
            " \"both\": \"b.safetensors\"}}");
    assert_int_equal(rt_st_open(&st, mf_dir), TP_OK);
    assert_int_equal(st.n_files, 2);
    assert_int_equal(st.n_tensors, 2);
    assert_int_equal(rt_st_find(&st, "both")->dtype, RT_ST_F16);
    rt_st_close(&st);
}

static void test_many(void **state)
{
    int64_t start;
    double seconds;
    tp_buf b;
    rt_st st;

    (void)state;
    tp_buf_init(&b, 64 << 20);
    tp_buf_putc(&b, '{');
    for (int i = 0; i < MANY; i++)
        tp_buf_printf(&b,
                      "%s\"model.layers.%d.mlp.experts.%d.up_proj.weight\":"
                      "{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%d,%d]}",
                      i == 0 ? "" : ",", i / 1000, i % 1000, i, i + 1);
    tp_buf_putc(&b, '}');
    assert_false(b.failed);
    mf_safetensors("model.safetensors", b.data, MANY);
    tp_buf_release(&b);
    start = tp_now_ns();
    assert_int_equal(rt_st_open(&st, mf_dir), TP_OK);
    seconds = (double)(tp_now_ns() - start) / (double)TP_NS_PER_S;
    assert_int_equal(st.n_tensors, MANY);
    assert_non_null(rt_st_find(&st, "model.layers.149.mlp.experts.999.up_proj.weight"));
    rt_st_close(&st);
    print_message("%d entries in %.2f s\n", MANY, seconds);
    assert_true(seconds < 20); /* quadratic code would need minutes, even instrumented */
    mf_remove("model.safetensors");
}

/* A file that shrinks while it is read is a message, not SIGBUS. */
static void test_shrinks(void **state)
{
    char path[512], bytes[64];
    rt_st st;

    (void)state;
    mf_safetensors("model.safetensors",
                   "{\"x\": {\"dtype\": \"U8\", \"shape\": [64], \"data_offsets\": [0, 64]}}", 64);
    assert_int_equal(rt_st_open(&st, mf_dir), TP_OK);
    (void)snprintf(path, sizeof path, "%s/model.safetensors", mf_dir);
    assert_int_equal(truncate(path, (off_t)st.tensors[0].offset + 10), 0);
    assert_int_equal(rt_st_read(&st, 0, st.tensors[0].offset, bytes, 64), TP_ERR_IO);
    assert_non_null(strstr(tp_last_error(), "became shorter"));
    rt_st_close(&st);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_single),
        cmocka_unit_test(test_sharded),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_shrinks),
    };

    return cmocka_run_group_tests(tests, mf_setup, mf_teardown);
}
