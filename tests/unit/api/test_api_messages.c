/* SPDX-License-Identifier: Apache-2.0 */
/* Messages as templates see them, and the text of errors. */
#include "api_testing.h"

#include "api/errors.h"
#include "api/messages.h"

static void check(const char *in, bool parts, bool developer, const char *expected)
{
    api_problem problem = {0};
    tp_json *doc, *out;
    tp_buf text;

    assert_int_equal(tp_json_parse(&doc, in, strlen(in), NULL), TP_OK);
    out = api_messages_normalise(doc, parts, developer, &problem);
    tp_buf_init(&text, 1 << 20);
    if (out != NULL)
        tp_json_put_value(&text, out);
    else
        tp_buf_puts(&text, problem.param);
    assert_string_equal(tp_buf_str(&text), expected);
    tp_buf_release(&text);
    tp_json_free(out);
    tp_json_free(doc);
}

static void test_normalise(void **state)
{
    (void)state;
    check("[{\"content\":\"hi\",\"role\":\"user\",\"x\":1}]", false, false,
          "[{\"role\":\"user\",\"content\":\"hi\"}]");
    check("[{\"role\":\"developer\",\"content\":\"a\"}]", false, false,
          "[{\"role\":\"system\",\"content\":\"a\"}]");
    check("[{\"role\":\"developer\",\"content\":\"a\"}]", false, true,
          "[{\"role\":\"developer\",\"content\":\"a\"}]");
    check("[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
          "{\"type\":\"text\",\"text\":\"b\"}]}]",
          false, false, "[{\"role\":\"user\",\"content\":\"a\\nb\"}]");
    check("[{\"role\":\"user\",\"content\":[{\"type\":\"refusal\",\"refusal\":\"a\"}]}]", true,
          false, "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"}]}]");
    check("[{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"c\",\"function\":"
          "{\"name\":\"f\",\"arguments\":\"{\\\"x\\\":1.50}\"}}]}]",
          false, false,
          "[{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"c\",\"type\":\"function\","
          "\"function\":{\"name\":\"f\",\"arguments\":{\"x\":1.50}}}]}]");
}

static void test_refusals(void **state)
{
    (void)state;
    check("[]", false, false, "messages");
    check("[5]", false, false, "messages[0]");
    check("[{\"role\":\"user\",\"content\":\"a\"},{\"content\":\"a\"}]", false, false,
          "messages[1].role");
    check("[{\"role\":\"<|im_start|>\",\"content\":\"a\"}]", false, false, "messages[0].role");
    check("[{\"role\":\"tool\",\"content\":\"a\"}]", false, false, "messages[0].tool_call_id");
    check("[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\","
          "\"arguments\":5}}]}]",
          false, false, "messages[0].tool_calls[0]");
    check("[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]", true, false,
          "messages[0].content[0]");
}

static void test_error_body(void **state)
{
    tp_buf out;

    (void)state;
    tp_buf_init(&out, 4096);
    api_put_error(&out, 400, "invalid_value", "n", "a \"b\"");
    assert_string_equal(
        tp_buf_str(&out),
        "{\"error\":{\"message\":\"a \\\"b\\\"\",\"type\":\"invalid_request_error\","
        "\"param\":\"n\",\"code\":\"invalid_value\"}}");
    tp_buf_reset(&out);
    api_put_error(&out, 503, "loading", NULL, "x");
    assert_string_equal(tp_buf_str(&out),
                        "{\"error\":{\"message\":\"x\",\"type\":\"service_unavailable\","
                        "\"param\":null,\"code\":\"loading\"}}");
    tp_buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_normalise),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_error_body),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
