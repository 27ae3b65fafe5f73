/* SPDX-License-Identifier: Apache-2.0 */
/* The table of parameters, row by row: what is refused how, and what the defaults are. */
#include "api_testing.h"

#include "api/params.h"

static const rt_engine_info k_info = {.max_model_len = 100,
                                      .vocab = 50,
                                      .gen_temperature = 0.5F,
                                      .gen_top_p = -1,
                                      .gen_min_p = -1,
                                      .gen_repetition_penalty = -1};
static api_params g_params;

/* Reads "{base,members}"; the problem's code, "" when it is accepted. */
static const char *read_members(bool chat, const char *members, api_problem *problem)
{
    char body[4096];
    tp_json *root;

    memset(problem, 0, sizeof *problem);
    (void)snprintf(body, sizeof body, "{%s%s%s}", chat ? "\"messages\":[]" : "\"prompt\":\"x\"",
                   *members != '\0' ? "," : "", members);
    root = api_parse_body(body, strlen(body), problem);
    if (root != NULL)
        (void)api_params_read(&g_params, root, chat, &k_info, problem);
    tp_json_free(root);
    return problem->status != 0 ? problem->code : "";
}

static void check(bool chat, const char *members, const char *code, const char *param)
{
    api_problem problem;
    const char *got = read_members(chat, members, &problem);

    if (strcmp(got, code) != 0 || (*code != '\0' && strcmp(problem.param, param) != 0))
        fail_msg("%s: expected \"%s\" at \"%s\", found \"%s\" at \"%s\": %s", members, code, param,
                 got, problem.param, problem.message);
}

static void test_refusals(void **state)
{
    static const struct {
        const char *members, *code, *param;
    } k_rows[] = {
        {"\"n\":0", "invalid_value", "n"},
        {"\"n\":129", "invalid_value", "n"},
        {"\"n\":1.5", "invalid_type", "n"},
        {"\"n\":\"1\"", "invalid_type", "n"},
        {"\"n\":1e999", "invalid_value", "n"},
        {"\"temperature\":2.01", "invalid_value", "temperature"},
        {"\"temperature\":1e999", "invalid_value", "temperature"},
        {"\"top_k\":-2", "invalid_value", "top_k"},
        {"\"top_k\":9223372036854775808", "invalid_value", "top_k"},
        {"\"repetition_penalty\":0", "invalid_value", "repetition_penalty"},
        {"\"seed\":9223372036854775808", "invalid_value", "seed"},
        {"\"seed\":-9223372036854775809", "invalid_value", "seed"},
        {"\"stop\":[]", "invalid_value", "stop"},
        {"\"stop\":[\"a\",\"\"]", "invalid_value", "stop[1]"},
        {"\"stop_token_ids\":[50]", "invalid_value", "stop_token_ids[0]"},
        {"\"allowed_token_ids\":[]", "invalid_value", "allowed_token_ids"},
        {"\"logit_bias\":{\"50\":1}", "invalid_value", "logit_bias.50"},
        {"\"logit_bias\":{\"a\":1}", "invalid_value", "logit_bias.a"},
        {"\"logit_bias\":{\"1\":101}", "invalid_value", "logit_bias.1"},
        {"\"stream_options\":{}", "invalid_value", "stream_options"},
        {"\"stream\":1", "invalid_type", "stream"},
        {"\"metadata\":[]", "invalid_type", "metadata"},
        {"\"guided_json\":{}", "unsupported_parameter", "guided_json"},
        {"\"min_tokens\":6,\"max_tokens\":5", "invalid_value", "min_tokens"},
        {"\"user\":\"a\",\"user\":\"b\"", "duplicate_key", ""},
        {"\"x\":01", "invalid_json", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof k_rows / sizeof *k_rows; i++) {
        check(false, k_rows[i].members, k_rows[i].code, k_rows[i].param);
        check(true, k_rows[i].members, k_rows[i].code, k_rows[i].param);
    }
    check(false, "\"min_tokens\":17", "invalid_value", "min_tokens");
    check(true, "\"min_tokens\":17", "", "");
    check(true, "\"top_logprobs\":2", "invalid_value", "top_logprobs");
    check(true, "\"tools\":[]", "unsupported_parameter", "tools");
    check(false, "\"tools\":[]", "", "");
    check(true, "\"chat_template_kwargs\":{\"tokenize\":1}", "invalid_value",
          "chat_template_kwargs.tokenize");
    check(true, "\"continue_final_message\":true,\"add_generation_prompt\":true", "invalid_value",
          "continue_final_message");
}

static void test_free_objects_may_repeat_keys(void **state)
{
    (void)state;
    check(true, "\"metadata\":{\"a\":1,\"a\":{\"b\":1,\"b\":2}}", "", "");
    check(true, "\"chat_template_kwargs\":{\"a\":1,\"a\":2}", "", "");
    check(true, "\"x\":{\"a\":1,\"a\":2}", "duplicate_key", "");
    check(true, "\"x\":[{\"metadata\":{\"a\":1,\"a\":2},\"b\":1,\"b\":2}]", "duplicate_key", "");
}

static void test_values(void **state)
{
    api_problem problem;

    (void)state;
    assert_string_equal(read_members(false, "", &problem), "");
    assert_int_equal(g_params.n, 1);
    assert_int_equal(g_params.max_tokens, -1);
    assert_int_equal(g_params.n_logprobs, -1);
    assert_true(g_params.sampling.temperature == 0.5F && g_params.sampling.top_p == 1.0F);
    assert_true(g_params.add_special_tokens && g_params.skip_special_tokens);
    assert_string_equal(read_members(true,
                                     "\"max_completion_tokens\":7,\"max_tokens\":9,\"seed\":-1,"
                                     "\"top_k\":1000,\"logprobs\":true,\"n\":null,\"zz\":[1]",
                                     &problem),
                        "");
    assert_int_equal(g_params.max_tokens, 7);
    assert_string_equal(g_params.max_tokens_name, "max_completion_tokens");
    assert_true(g_params.sampling.seed == UINT64_MAX && g_params.seed_given);
    assert_int_equal(g_params.sampling.top_k, 50);
    assert_int_equal(g_params.n_logprobs, 0);
    assert_false(g_params.add_special_tokens);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_free_objects_may_repeat_keys),
        cmocka_unit_test(test_values),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
