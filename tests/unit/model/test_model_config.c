/* SPDX-License-Identifier: Apache-2.0 */
/* test_model_config.c - config.json of both generations; what is refused, and how the message reads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/model/model.h"
#include "tests/unit/model/model_files.h"

#define DIMS                                                                                       \
    "\"hidden_size\": 64, \"intermediate_size\": 176, \"num_hidden_layers\": 4,"                   \
    " \"num_attention_heads\": 8, \"vocab_size\": 320"

static rt_config load(const char *json)
{
    rt_config c = {0};

    mf_text("config.json", json);
    assert_int_equal(rt_config_load(&c, mf_dir), TP_OK);
    return c;
}

static void refuse(const char *json, tp_status expected, const char *part)
{
    rt_config c = {.n_layers = -7};

    mf_text("config.json", json);
    assert_int_equal(rt_config_load(&c, mf_dir), expected);
    assert_int_equal(c.n_layers, -7); /* written only on success */
    if (strstr(tp_last_error(), part) == NULL || strstr(tp_last_error(), "config.json") == NULL)
        fail_msg("message \"%s\" does not say \"%s\"", tp_last_error(), part);
}

static void test_v4(void **state)
{
    rt_config c =
        load("{\"architectures\": [\"Qwen2ForCausalLM\"], \"model_type\": \"qwen2\", " DIMS ","
             "\"num_key_value_heads\": 2, \"rms_norm_eps\": 1e-05, \"rope_theta\": 1000000.0,"
             "\"max_position_embeddings\": 32768, \"torch_dtype\": \"bfloat16\","
             "\"tie_word_embeddings\": true, \"eos_token_id\": 151645, \"bos_token_id\": 151643,"
             "\"sliding_window\": 32768, \"max_window_layers\": 2, \"use_sliding_window\": false,"
             "\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0,"
             "\"original_max_position_embeddings\": 32768}}");

    (void)state;
    assert_int_equal(c.arch, RT_ARCH_QWEN2);
    assert_string_equal(c.architecture, "Qwen2ForCausalLM");
    assert_int_equal(c.head_dim, 8);
    assert_int_equal(c.n_kv_heads, 2);
    assert_true(c.qkv_bias && !c.o_bias && !c.mlp_bias && !c.qk_norm && c.tied);
    assert_int_equal(c.sliding_window, 0);
    assert_int_equal(c.rope.kind, RT_ROPE_YARN);
    assert_int_equal(c.max_position, 131072);
    assert_true(c.rope.truncate);
    assert_int_equal(c.dtype, KERN_DTYPE_BF16);
    assert_int_equal(c.n_eos, 1);
    assert_int_equal(c.bos_id, 151643);
    assert_true(c.gen_temperature < 0 && c.gen_top_k < 0);
}

static void test_v5(void **state)
{
    rt_config c = load(
        "{\"architectures\": [\"Qwen3ForCausalLM\"], " DIMS ", \"dtype\": \"float16\","
        "\"torch_dtype\": \"bfloat16\", \"num_key_value_heads\": 4, \"rope_theta\": 5.0,"
        "\"use_sliding_window\": true, \"sliding_window\": 16, \"layer_types\":"
        "[\"full_attention\", \"sliding_attention\", \"full_attention\", \"sliding_attention\"],"
        "\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 5000000}}");

    (void)state;
    assert_int_equal(c.head_dim, 128); /* Qwen3's own default */
    assert_true(c.qk_norm && !c.qkv_bias);
    assert_int_equal(c.dtype, KERN_DTYPE_F16);
    assert_true(c.rope.theta == 5e6);
    assert_false(rt_config_layer_sliding(&c, 0));
    assert_true(rt_config_layer_sliding(&c, 1));
    assert_true(rt_config_layer_sliding(&c, 3));
}

static void test_nested(void **state)
{
    rt_config c =
        load("{\"architectures\": [\"MistralForCausalLM\"], \"eos_token_id\": [2, 3, 2],"
             "\"text_config\": {" DIMS ", \"num_key_value_heads\": 8, \"sliding_window\": null,"
             "\"rope_parameters\": {\"full_attention\": {\"rope_theta\": 7.0}}}}");

    (void)state;
    assert_int_equal(c.hidden, 64);
    assert_int_equal(c.n_eos, 2);
    assert_int_equal(c.sliding_window, 0);
    assert_true(c.rope.theta == 7);
}

static void test_windows(void **state)
{
    rt_config c = load("{\"architectures\": [\"MistralForCausalLM\"], " DIMS "}");

    (void)state;
    assert_int_equal(c.sliding_window, 4096); /* absent is not null */
    assert_int_equal(c.n_kv_heads, 8);
    assert_true(rt_config_layer_sliding(&c, 0) && rt_config_layer_sliding(&c, 3));
    c = load("{\"model_type\": \"qwen2\", " DIMS
             ", \"num_key_value_heads\": 8, \"use_sliding_window\": true,"
             "\"sliding_window\": 20, \"max_window_layers\": 3}");
    assert_false(rt_config_layer_sliding(&c, 2));
    assert_true(rt_config_layer_sliding(&c, 3));
    c = load("{\"architectures\": [\"LlamaForCausalLM\"], " DIMS ", \"sliding_window\": 12}");
    assert_int_equal(c.sliding_window, 0); /* Llama has none */
}

static void test_llama(void **state)
{
    rt_config c = load(
        "{\"architectures\": [\"LlamaForCausalLM\"], " DIMS ", \"num_key_value_heads\": null,"
        "\"attention_bias\": true, \"mlp_bias\": true, \"max_position_embeddings\": 131072,"
        "\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": 1.0,"
        "\"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 8192}}");

    (void)state;
    assert_int_equal(c.n_kv_heads, 8);
    assert_true(c.qkv_bias && c.o_bias && c.mlp_bias);
    assert_int_equal(c.max_position, 131072);
    /* 4 layers of (q, k, v, o: 64*64 + 64 each; gate, up: 64*176 + 176; down: 64*176 + 64; 2 norms), 2 tables, a norm */
    assert_int_equal(rt_config_params(&c),
                     4 * (4 * (64 * 64 + 64) + 3 * 64 * 176 + 2 * 176 + 64 + 2 * 64) +
                         2 * 320 * 64 + 64);
}

static void test_generation(void **state)
{
    rt_config c;

    (void)state;
    mf_text("generation_config.json",
            "{\"eos_token_id\": [9, 7], \"temperature\": 0.6, \"top_p\": 0.9,"
            "\"top_k\": 20, \"repetition_penalty\": 1.05, \"do_sample\": true}");
    c = load("{\"architectures\": [\"LlamaForCausalLM\"], " DIMS ", \"eos_token_id\": 7}");
    assert_int_equal(c.n_eos, 2);
    assert_int_equal(c.eos[0], 7);
    assert_int_equal(c.eos[1], 9);
    assert_true(c.gen_temperature == 0.6F && c.gen_top_p == 0.9F && c.gen_top_k == 20);
    assert_true(c.gen_min_p < 0);
    mf_text("generation_config.json", "{\"top_p\": 1.5}");
    assert_int_equal(rt_config_load(&c, mf_dir), TP_ERR_INVALID);
    assert_non_null(strstr(tp_last_error(), "\"top_p\" is 1.5"));
    mf_text("generation_config.json", "[]");
    assert_int_equal(rt_config_load(&c, mf_dir), TP_ERR_FORMAT);
    mf_remove("generation_config.json");
}

#define LLAMA(...) "{\"architectures\": [\"LlamaForCausalLM\"], " DIMS ", " __VA_ARGS__ "}"

static void test_refused_numbers(void **state)
{
    static const struct {
        const char *key, *value, *found;
    } cases[] = {
        {"hidden_size", "-1", "\"hidden_size\" is -1, expected an integer from 1 to 65536"},
        {"hidden_size", "0", "is 0"},
        {"hidden_size", "1e30", "is 1e30"},
        {"hidden_size", "99999999999999999999", "is 99999999999999999999"},
        {"hidden_size", "64.5", "is 64.5"},
        {"hidden_size", "\"64\"", "is \"64\""},
        {"hidden_size", "[64]", "is [64]"},
        {"hidden_size", "60",
         "\"hidden_size\" is 60, expected a multiple of \"num_attention_heads\" (8)"},
        {"num_hidden_layers", "257", "expected an integer from 1 to 256"},
        {"num_hidden_layers", "null", "\"num_hidden_layers\" is absent"},
        {"intermediate_size", "1048577", "from 1 to 1048576"},
        {"num_attention_heads", "0", "is 0"},
        {"num_key_value_heads", "3", "expected a multiple of \"num_key_value_heads\" (3)"},
        {"num_key_value_heads", "16", "expected a multiple"},
        {"head_dim", "7", "\"head_dim\" is 7, expected an even number"},
        {"head_dim", "1024", "from 1 to 512"},
        {"vocab_size", "-320", "is -320"},
        {"rms_norm_eps", "\"small\"", "expected a number"},
        {"rms_norm_eps", "-1", "expected a number from 0 to 1"},
        {"max_position_embeddings", "0", "is 0"},
        {"rope_theta", "0", "\"rope_theta\" is 0"},
        {"rope_theta", "1e999", "expected a number"},
        {"attention_bias", "1", "expected true or false"},
        {"tie_word_embeddings", "\"yes\"", "expected true or false"},
        {"rope_scaling", "8", "\"rope_scaling\" is 8, expected an object"},
        {"rope_scaling", "{\"type\": \"linear\"}", "\"rope_scaling.factor\" is absent"},
        {"rope_scaling", "{\"type\": \"linear\", \"factor\": -2}", "\"rope_scaling.factor\" is -2"},
        {"rope_scaling",
         "{\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4,"
         "\"high_freq_factor\": 4}",
         "expected more than low_freq_factor"},
        {"partial_rotary_factor", "0.1", "\"partial_rotary_factor\" is 0.1"},
        {"eos_token_id", "-3", "\"eos_token_id\" is -3"},
        {"eos_token_id", "[1, \"two\"]", "expected token ids"},
    };

    (void)state;
    for (size_t i = 0; i < TP_ARRAY_LEN(cases); i++) {
        char json[1024], dims[512] = "";
        static const char *const keys[] = {"hidden_size", "intermediate_size", "num_hidden_layers",
                                           "num_attention_heads", "vocab_size"};
        static const char *const values[] = {"64", "176", "4", "8", "320"};

        for (size_t k = 0; k < TP_ARRAY_LEN(keys); k++) {
            if (strcmp(keys[k], cases[i].key) != 0)
                (void)snprintf(dims + strlen(dims), sizeof dims - strlen(dims), "\"%s\": %s, ",
                               keys[k], values[k]);
        }
        (void)snprintf(json, sizeof json,
                       "{\"architectures\": [\"LlamaForCausalLM\"], %s\"%s\": %s}", dims,
                       cases[i].key, cases[i].value);
        refuse(json, TP_ERR_INVALID, cases[i].found);
    }
}

static void test_refused_kinds(void **state)
{
    (void)state;
    refuse(
        "{\"architectures\": [\"GPT2LMHeadModel\"], \"model_type\": \"gpt2\"}", TP_ERR_UNSUPPORTED,
        "architecture \"GPT2LMHeadModel\" (model_type \"gpt2\") is not supported; supported: LlamaForCausalLM");
    refuse("{\"model_type\": \"mamba\"}", TP_ERR_UNSUPPORTED, "mamba");
    refuse("{}", TP_ERR_UNSUPPORTED, "absent");
    refuse(LLAMA("\"quantization_config\": {\"quant_method\": \"awq\"}"), TP_ERR_UNSUPPORTED,
           "quant_method \"awq\"");
    refuse(LLAMA("\"hidden_act\": \"gelu\""), TP_ERR_UNSUPPORTED, "\"hidden_act\" is \"gelu\"");
    refuse(LLAMA("\"torch_dtype\": \"float8\""), TP_ERR_UNSUPPORTED, "\"dtype\" is \"float8\"");
    refuse(LLAMA("\"rope_scaling\": {\"type\": \"su\"}"), TP_ERR_UNSUPPORTED,
           "is \"su\"; supported: default");
    refuse(LLAMA("\"rope_parameters\": {\"full_attention\": {\"rope_theta\": 1.0},"
                 "\"sliding_attention\": {\"rope_theta\": 2.0}}"),
           TP_ERR_UNSUPPORTED, "differ between");
    refuse("{\"architectures\": [\"MistralForCausalLM\"], " DIMS
           ", \"layer_types\": [\"full_attention\"]}",
           TP_ERR_INVALID, "\"layer_types\" has 1 entries, expected 4");
    refuse("{\"architectures\": [\"MistralForCausalLM\"], " DIMS
           ", \"layer_types\": [\"full_attention\", \"linear_attention\"]}",
           TP_ERR_UNSUPPORTED, "\"layer_types\"[1] is \"linear_attention\"");
}

static void test_refused_files(void **state)
{
    rt_config c;

    (void)state;
    refuse("", TP_ERR_FORMAT, "");
    refuse("[1, 2]", TP_ERR_FORMAT, "holds array, expected an object");
    refuse("{\"hidden_size\": 64", TP_ERR_FORMAT, "");
    mf_remove("config.json");
    assert_int_equal(rt_config_load(&c, mf_dir), TP_ERR_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_v4),
        cmocka_unit_test(test_v5),
        cmocka_unit_test(test_nested),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_llama),
        cmocka_unit_test(test_generation),
        cmocka_unit_test(test_refused_numbers),
        cmocka_unit_test(test_refused_kinds),
        cmocka_unit_test(test_refused_files),
    };

    return cmocka_run_group_tests(tests, mf_setup, mf_teardown);
}
