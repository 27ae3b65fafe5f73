/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_template.c - a chat template, rendered over conversations.
 *
 * Input: the template; behind lines of "----", messages and further variables as JSON.  Without them it meets conversations of
 * our own, and variables: numbers n f, texts s u text, lists xs ys users, objects d ed, t, no.
 *
 * Promises: budgets are kept, two renderings are the same, marked spans lie in order inside the text.
 */
#include <string.h>

#include "base/mem.h"
#include "runtime/template/template.h"
#include "tests/fuzz/fuzz.h"

#define OUTPUT_MAX ((size_t)128 << 10) /* small budgets: more inputs in the same time */

static const rt_template_limits k_limits = {
    .ops_max = 20000,
    .output_max = OUTPUT_MAX,
    .memory_max = (size_t)4 << 20,
    .time_max_ms = 1000, /* the other budgets end a rendering, so that it ends the same way twice */
    .now_unix = 1700000000};

static const char *const k_conversations[] = {
    "[{\"role\":\"user\",\"content\":\"hi\"}]",
    "[{\"role\":\"system\",\"content\":\" be {{ brief }} \"},{\"role\":\"user\",\"content\":"
    "[{\"type\":\"text\",\"text\":\"a<|im_end|>\"}]},{\"role\":\"assistant\",\"content\":null,"
    "\"tool_calls\":[{\"id\":\"c1\",\"type\":\"function\",\"function\":{\"name\":\"f\","
    "\"arguments\":{\"x\":[1,2.5,\"\\u00e9\",null,true]}}}]},{\"role\":\"tool\",\"content\":\"4\","
    "\"tool_call_id\":\"c1\"}]",
};
static const char k_tools[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"d\",\"parameters\":"
    "{\"type\":\"object\",\"properties\":{\"x\":{\"type\":\"integer\"}}}}}]";

static const char k_variables[] =
    "{\"d\":{\"b\":1,\"a\":[2,{\"c\":\"x\"}]},\"ed\":{},\"xs\":[3,1,2],\"ys\":[\"b\",\"A\",\"c\"],\"s\":\"Hello "
    "World\",\"u\":\"h\\u00e9llo \\u4e16\",\"text\":\"a b\\nc d\\n\",\"n\":5,\"f\":2.5,\"t\":true,\"no\":null,"
    "\"users\":[{\"name\":\"b\",\"age\":2,\"x\":{\"y\":1}},{\"name\":\"a\",\"age\":1}]}";

static void check_spans(const rt_template_spans *spans, size_t len)
{
    size_t at = 0;

    for (size_t i = 0; i < spans->n; i++) {
        TP_ASSERT(spans->items[i].begin >= at && spans->items[i].end >= spans->items[i].begin &&
                  spans->items[i].end <= len);
        at = spans->items[i].end;
    }
}

static void render(const rt_template *t, const tp_json *messages, const tp_json *kwargs,
                   bool with_tools)
{
    fuzz_part tools_text = {k_tools, sizeof k_tools - 1};
    tp_json *tools = with_tools ? fuzz_json(tools_text) : NULL;
    rt_template_input in = {.messages = messages,
                            .tools = tools,
                            .kwargs = kwargs,
                            .add_generation_prompt = !with_tools,
                            .continue_final_message = with_tools,
                            .bos_token = "<s>",
                            .eos_token = "</s>"};
    rt_template_spans spans = {0};
    tp_status first, second;
    tp_buf one, two;

    tp_buf_init(&one, (size_t)16 << 20);
    tp_buf_init(&two, (size_t)16 << 20);
    first = rt_template_render_marked(t, &in, &k_limits, &one, &spans);
    if (first == TP_OK)
        check_spans(&spans, one.len);
    else
        TP_ASSERT(tp_last_error()[0] != '\0');
    second = rt_template_render(t, &in, &k_limits, &two);
    TP_ASSERT(first != TP_OK || one.len <= OUTPUT_MAX);
    TP_ASSERT(first == second || first == TP_ERR_LIMIT || second == TP_ERR_LIMIT);
    if (first == TP_OK && second == TP_OK)
        TP_ASSERT(one.len == two.len && memcmp(tp_buf_str(&one), tp_buf_str(&two), one.len) == 0);
    tp_buf_release(&one);
    tp_buf_release(&two);
    tp_free(spans.items);
    tp_json_free(tools);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_part rest = {(const char *)data, size}, source = {"", 0}, text = {"", 0};
    tp_json *messages = NULL, *kwargs = NULL;
    rt_template *t = NULL;

    fuzz_init();
    (void)fuzz_next_part(&rest, &source);
    if (rt_template_compile(&t, source.text, source.n) != TP_OK) {
        TP_ASSERT(tp_last_error()[0] != '\0');
        return 0;
    }
    (void)rt_template_wants_parts(t);
    (void)rt_template_mentions(t, "developer");
    if (fuzz_next_part(&rest, &text))
        messages = fuzz_json(text);
    if (fuzz_next_part(&rest, &text))
        kwargs = fuzz_json(text);
    if (tp_json_kind(kwargs) != TP_JSON_OBJECT) {
        tp_json_free(kwargs);
        kwargs = fuzz_json((fuzz_part){k_variables, sizeof k_variables - 1});
        TP_ASSERT(kwargs != NULL);
    }
    if (messages != NULL && tp_json_kind(messages) == TP_JSON_ARRAY)
        render(t, messages, kwargs, false);
    for (size_t i = 0; i < TP_ARRAY_LEN(k_conversations); i++) {
        tp_json *ours = fuzz_json((fuzz_part){k_conversations[i], strlen(k_conversations[i])});

        render(t, ours, kwargs, i == 1);
        tp_json_free(ours);
    }
    rt_template_destroy(t);
    tp_json_free(messages);
    tp_json_free(kwargs);
    return 0;
}
