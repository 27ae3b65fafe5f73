/* SPDX-License-Identifier: Apache-2.0 */
/* test_model_inspect.c - the two 70B-class models from config.json alone, against independently computed sizes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/model/model_inspect.h"
#include "tests/unit/model/model_files.h"

#define QWEN_72B                                                                                       \
    "{\"architectures\": [\"Qwen2ForCausalLM\"], \"hidden_size\": 8192, \"intermediate_size\": 29568," \
    "\"num_hidden_layers\": 80, \"num_attention_heads\": 64, \"num_key_value_heads\": 8,"              \
    "\"vocab_size\": 152064, \"max_position_embeddings\": 32768, \"rope_theta\": 1000000.0,"           \
    "\"torch_dtype\": \"bfloat16\"}"
#define LLAMA_70B                                                                                      \
    "{\"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": 8192, \"intermediate_size\": 28672," \
    "\"num_hidden_layers\": 80, \"num_attention_heads\": 64, \"num_key_value_heads\": 8,"              \
    "\"head_dim\": 128, \"vocab_size\": 128256, \"max_position_embeddings\": 131072,"                  \
    "\"torch_dtype\": \"bfloat16\", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0,"    \
    "\"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 8192}}"

/* GB as published with one decimal; an uneven split may give one rank up to 0.5 % more. */
static void near_gb(int64_t bytes, double gb, const char *what, int n_ranks)
{
    double got = (double)bytes / 1e9;

    if (fabs(got - gb) > 0.05 + 0.005 * gb)
        fail_msg("%s at %d ranks: %.3f GB, expected %.1f", what, n_ranks, got, gb);
}

static void check_sizes(const char *json, const double resident[4], const double streamed[4])
{
    static const int ranks[] = {1, 2, 4, 8};

    mf_text("config.json", json);
    for (int i = 0; i < 4; i++) {
        int64_t most = 0, most_streamed = 0, sum = 0;
        rt_inspect x;

        assert_int_equal(rt_inspect_load(&x, mf_dir, ranks[i], -1, -1), TP_OK);
        for (int r = 0; r < ranks[i]; r++) {
            most = x.ranks[r].weight_bytes > most ? x.ranks[r].weight_bytes : most;
            if (rt_inspect_streamed_bytes(&x, r) > most_streamed)
                most_streamed = rt_inspect_streamed_bytes(&x, r);
            sum += x.ranks[r].weight_bytes;
            assert_int_equal(x.ranks[r].kv_bytes_per_token, 327680 / ranks[i]);
        }
        near_gb(most, resident[i], "resident", ranks[i]);
        near_gb(most_streamed, streamed[i], "streamed", ranks[i]);
        near_gb(sum, resident[0], "sum", ranks[i]);
    }
}

static void test_qwen_72b(void **state)
{
    rt_inspect x;

    (void)state;
    check_sizes(QWEN_72B, (const double[]){145.4, 72.7, 36.4, 18.2},
                (const double[]){142.9, 71.5, 35.7, 17.9});
    assert_int_equal(rt_inspect_load(&x, mf_dir, 3, -1, -1), TP_OK);
    assert_true(fabs((double)x.params / 1e9 - 72.71) < 0.005);
    assert_true(fabs((double)x.linear_params / 1e9 - 70.213) < 0.0005);
    assert_true(fabs((double)x.embed_params / 1e9 - 1.246) < 0.0005);
    assert_true(fabs((double)x.flops_per_token / 1e9 - 142.9) < 0.05);
    assert_int_equal(x.kv_bytes_per_token, 327680);
    assert_false(x.has_weights);
    assert_non_null(strstr(x.weights_note, "model.safetensors"));
}

static void test_llama_70b(void **state)
{
    char text[RT_INSPECT_ROPE_BYTES];
    rt_inspect x;

    (void)state;
    check_sizes(LLAMA_70B, (const double[]){141.1, 70.6, 35.3, 17.6},
                (const double[]){139.0, 69.5, 34.8, 17.4});
    assert_int_equal(rt_inspect_load(&x, mf_dir, 1, -1, -1), TP_OK);
    assert_true(fabs((double)x.params / 1e9 - 70.55) < 0.005);
    assert_true(fabs((double)x.flops_per_token / 1e9 - 139.0) < 0.05);
    rt_inspect_rope_text(&x.config, text);
    assert_string_equal(text, "llama3, factor 8, original 8192, theta 10000");
}

static void test_weights(void **state)
{
    rt_inspect x;

    (void)state;
    mf_text("config.json", LLAMA_70B);
    mf_safetensors("model.safetensors",
                   "{\"a\": {\"dtype\": \"BF16\", \"shape\": [4], \"data_offsets\": [0, 8]},"
                   "\"b\": {\"dtype\": \"F32\", \"shape\": [4], \"data_offsets\": [8, 24]}}",
                   24);
    assert_int_equal(rt_inspect_load(&x, mf_dir, 2, KERN_DTYPE_F32, -1), TP_OK);
    assert_true(x.has_weights);
    assert_int_equal(x.n_dtypes, 2);
    assert_string_equal(x.dtypes[0].name, "F32");
    assert_int_equal(x.dtypes[0].bytes, 16);
    assert_int_equal(x.disk_bytes, 24);
    assert_int_equal(x.kv_bytes_per_token, 2 * 327680);
    mf_safetensors("model.safetensors", "{", 0);
    assert_int_equal(rt_inspect_load(&x, mf_dir, 2, -1, -1), TP_ERR_FORMAT);
    mf_remove("model.safetensors");
    assert_int_equal(rt_inspect_load(&x, mf_dir, 0, -1, -1), TP_ERR_INVALID);
    assert_int_equal(rt_inspect_load(&x, mf_dir, 65, -1, -1), TP_ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_qwen_72b),
        cmocka_unit_test(test_llama_70b),
        cmocka_unit_test(test_weights),
    };

    return cmocka_run_group_tests(tests, mf_setup, mf_teardown);
}
