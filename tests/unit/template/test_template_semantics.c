/* SPDX-License-Identifier: Apache-2.0 */
/* test_template_semantics.c - a table of snippets and what Jinja2 makes of them; families of chat templates. */
#include "template_testing.h"

#define CONTEXT                                                                                            \
    "{\"s\": \"Hello\", \"u\": \"stra\\u00dfe\", \"i\": 7, \"f\": 1.0, \"big\": 12345678901234567890123, " \
    "\"nil\": null, \"yes\": true, \"xs\": [3, 1, 2], \"em\": [], \"d\": {\"b\": 1, \"A\": \"x\", "        \
    "\"items\": [1]}, \"rows\": [{\"n\": \"bo\", \"a\": 2}, {\"n\": \"Al\", \"a\": 1}]}"

static const struct {
    const char *source, *text;
} cases[] = {
    /* whitespace */
    {"a\n", "a"},
    {"a\n {% if true %}\n b\n {% endif %}\nc", "a\n b\nc"},
    {"a  {%- if true %} b {% endif -%}  c", "a b c"},
    {"  {%+ if true %}x{% endif %}\n", "  x"},
    {"{{ 1 }}\n{{ 2 -}}  \n 3", "1\n23"},
    {" {# c #}\nx", "x"},
    {"{% raw %}{{ x }}{% endraw %}", "{{ x }}"},
    {"{{ {'a': {'b': 1}} }}{{ '}}' }}", "{'a': {'b': 1}}}}"},
    /* printing */
    {"{{ true }} {{ none }} {{ 3/2 }} {{ f }} {{ big }} {{ missing }}",
     "True None 1.5 1.0 12345678901234567890123 "},
    {"{{ [1, 'a\\'b', \"c\", none, 1e16, 1e-5] }}{{ (1,) }}{{ {1: {}} }}",
     "[1, \"a'b\", 'c', None, 1e+16, 1e-05](1,){1: {}}"},
    {"{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 2 ** 10 }}", "3 -4 2 1024"},
    /* precedence */
    {"{{ 'a' + ' x '|trim + 'c' }} {{ not xs|length == 1 }} {{ -1|abs }} {{ 1 if false else 2 }}",
     "axc True 1 2"},
    {"{{ 1 < 2 < 3 }} {{ 2 not in xs }} {{ 'a' ~ (1 + 2) }} {{ em or 'none' }}",
     "True False a3 none"},
    /* undefined */
    {"{{ missing == none }}{{ missing|length }}{{ d.zz }}{{ xs[9] }}{{ nil.x }}{{ missing is defined }}",
     "False0False"},
    {"{{ missing|default('d') }}{{ nil|default('d') }}{{ nil|default('d', true) }}", "dNoned"},
    /* attributes and items */
    {"{{ d['items'] }}{{ d.items is callable }}{{ d.get('q', 5) }}{{ ''.__class__ }}{{ xs.append is defined }}",
     "[1]True5False"},
    {"{{ xs[-1] }}{{ xs[1:] }}{{ xs[::-1] }}{{ u[4] }}{{ u[4:] }}{{ u|length }}",
     "2[1, 2][2, 1, 3]\xC3\x9F\xC3\x9F"
     "e6"},
    /* scopes */
    {"{% set a = 0 %}{% for x in xs %}{% set a = a + x %}{{ a }}{% endfor %}{{ a }}", "3120"},
    {"{% set n = namespace(v=0) %}{% for x in xs %}{% set n.v = n.v + x %}{% endfor %}{{ n.v }}",
     "6"},
    {"{% if yes %}{% set q = 1 %}{% endif %}{{ q }}", "1"},
    {"{% generation %}{% set q = 1 %}{% endgeneration %}{{ q is defined }}", "False"},
    {"{% macro m(a, b=2) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(b=3, a=4) }}{{ m() }}",
     "12432"},
    {"{% macro m(n) %}{{ n }}{{ m(n - 1) if n else '' }}{% endmacro %}{{ m(3) }}", "3210"},
    {"{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}x{% endcall %}", "[x]"},
    {"{% set x %} a {% endset %}[{{ x }}]{% filter upper %}b{% endfilter %}", "[ a ]B"},
    /* loops */
    {"{% for x in xs if x > 1 %}{{ loop.index }}{{ loop.last }}{{ x }} {% endfor %}",
     "1False3 2True2 "},
    {"{% for x in xs %}{{ loop.previtem }}<{{ loop.nextitem }} {% endfor %}", "<1 3<2 1< "},
    {"{% for k, v in d.items() %}{{ k }}{% else %}-{% endfor %}{% for x in em %}{% else %}e{% endfor %}",
     "bAitemse"},
    {"{% for x in range(9) %}{% if x == 1 %}{% continue %}{% endif %}{% if x > 3 %}{% break %}{% endif %}{{ x }}{% endfor %}",
     "023"},
    /* strings */
    {"{{ ' a b '.split() }}{{ 'a,b,c'.split(',', 1)[1] }}{{ 'xax'.strip('x') }}{{ u.upper() }}",
     "['a', 'b']b,caSTRASSE"},
    {"{{ 'aXbX'.find('X') }}{{ 'ab'.startswith(('x', 'a')) }}{{ 'aa'.replace('a', 'b', 1) }}",
     "1Trueba"},
    {"{{ '%s-%03d' % ('a', 5) }}{{ '{}{x}'.format(1, x='y') }}{{ 'a\\n\\nb'|indent(2) }}",
     "a-0051ya\n\n  b"},
    /* filters */
    {"{{ d|tojson }}{{ [1, {}]|tojson(indent=1) }}{{ '</\\u00e9\\u0001'|tojson }}",
     "{\"b\": 1, \"A\": \"x\", \"items\": [1]}[\n 1,\n {}\n]\"</\xC3\xA9\\u0001\""},
    {"{{ ['b', 'A']|sort }}{{ rows|map(attribute='n')|join(',') }}{{ rows|selectattr('a', 'gt', 1)|list }}",
     "['A', 'b']bo,Al[{'n': 'bo', 'a': 2}]"},
    {"{{ '4.9'|int }}{{ 'x'|int(3) }}{{ 2.5|round }}{{ d|dictsort|first|first }}{{ xs|max }}",
     "432.0A3"},
    {"{{ ('<'|safe) + '<' }}{{ ('<'|safe) ~ '<' }}{{ '<'|e }}", "<&lt;<<&lt;"},
    /* tests */
    {"{{ 1 is true }}{{ 1 == true }}{{ 's' is sequence }}{{ d is mapping }}{{ missing is iterable }}{{ 4 is divisibleby 2 }}",
     "FalseTrueTrueTrueTrueTrue"},
};

static void snippets(void **state)
{
    (void)state;
    for (size_t i = 0; i < TP_ARRAY_LEN(cases); i++) {
        tp_buf out;

        if (render(cases[i].source, ONE_MESSAGE, CONTEXT, NULL, &out) != TP_OK ||
            strcmp(tp_buf_str(&out), cases[i].text) != 0)
            fail_msg("%s\n expected %s\n found    %s", cases[i].source, cases[i].text,
                     tp_buf_str(&out));
        tp_buf_release(&out);
    }
}

static const struct {
    const char *source, *words;
    tp_status st;
} failures[] = {
    {"{{ missing.x }}", "line 1: 'missing' is undefined", TP_ERR_INVALID},
    {"\n{{ d.zz.y }}", "line 2: 'dict object' has no attribute 'zz'", TP_ERR_INVALID},
    {"{{ 'a' + 1 }}", "'str' and 'int'", TP_ERR_INVALID},
    {"{{ raise_exception('only ' ~ i) }}", "only 7", TP_ERR_INVALID},
    {"{{ xs.append(1) }}", "is unsafe", TP_ERR_INVALID},
    {"{{ ''.__class__.__mro__ }}", "is unsafe", TP_ERR_INVALID},
    {"{% for x in none %}{% endfor %}", "cannot be iterated over", TP_ERR_INVALID},
    {"{% set n = namespace(_a=1) %}", "underscore", TP_ERR_INVALID},
    {"{{ s|items }}", "mapping", TP_ERR_INVALID},
    {"{{ 1 / 0 }}", "division by zero", TP_ERR_INVALID},
    {"{{ 9223372036854775807 + 1 }}", "beyond 64 bits", TP_ERR_INVALID},
    {"{{ s|nofilter }}", "no filter named 'nofilter'", TP_ERR_UNSUPPORTED},
    {"{% if yes %}{{ s|nofilter }}{% endif %}", "no filter named 'nofilter'", TP_ERR_INVALID},
    {"{% include 'x' %}", "include", TP_ERR_UNSUPPORTED},
    {"a\n{% if %}{% endif %}", "line 2", TP_ERR_FORMAT},
    {"{{ 'abc }}", "closing quote", TP_ERR_FORMAT},
    {"{% endfor %}", "endfor", TP_ERR_FORMAT},
    {"{% for x in xs %}", "endfor", TP_ERR_FORMAT},
    {"\xff", "UTF-8", TP_ERR_FORMAT},
};

static void failures_say_what_is_wrong(void **state)
{
    (void)state;
    for (size_t i = 0; i < TP_ARRAY_LEN(failures); i++) {
        tp_buf out;
        tp_status st = render(failures[i].source, ONE_MESSAGE, CONTEXT, NULL, &out);

        if (st != failures[i].st || strstr(tp_buf_str(&out), failures[i].words) == NULL)
            fail_msg("%s\n expected %s: %s\n found    %s: %s", failures[i].source,
                     tp_status_name(failures[i].st), failures[i].words, tp_status_name(st),
                     tp_buf_str(&out));
        tp_buf_release(&out);
    }
}

static void a_refusal_keeps_the_words_exactly(void **state)
{
    tp_buf out;

    (void)state;
    assert_int_equal(render("{{ raise_exception('No way!') }}", ONE_MESSAGE, NULL, NULL, &out),
                     TP_ERR_INVALID);
    assert_string_equal(tp_buf_str(&out), "No way!");
    tp_buf_release(&out);
}

static void messages_are_prepared(void **state)
{
    static const char messages[] =
        "[{\"role\": \"user\", \"content\": null, \"reasoning\": \"r\"}]";
    tp_buf out;

    (void)state;
    assert_int_equal(render("{{ messages[0] }}{{ tools is none }}", messages, NULL, NULL, &out),
                     TP_OK);
    assert_string_equal(
        tp_buf_str(&out),
        "{'thinking': 'r', 'role': 'user', 'reasoning': 'r', 'reasoning_content': 'r'}True");
    tp_buf_release(&out);
    assert_int_equal(render("x", "[]", NULL, NULL, &out), TP_ERR_INVALID);
    tp_buf_release(&out);
    assert_int_equal(render("x", "[1]", NULL, NULL, &out), TP_ERR_INVALID);
    tp_buf_release(&out);
}

static tp_status continued(const char *source, const char *messages, const char *field, tp_buf *out)
{
    tp_json *m = parsed(messages);
    rt_template_input in = {.messages = m, .continue_final_message = true, .continue_field = field};
    rt_template *t = NULL;
    tp_status st;

    assert_int_equal(rt_template_compile(&t, source, strlen(source)), TP_OK);
    tp_buf_init(out, 4096);
    st = rt_template_render(t, &in, NULL, out);
    rt_template_destroy(t);
    tp_json_free(m);
    return st;
}

static void the_final_message_is_continued(void **state)
{
    static const char two[] =
        "[{\"role\": \"u\", \"content\": \"a\"}, {\"role\": \"b\", \"content\": \"End. \"}]";
    static const char parts[] =
        "[{\"role\": \"b\", \"content\": [{\"text\": \"x\"}, {\"image\": 1}]}]";
    static const char plain[] = "{% for m in messages %}[{{ m.content }}]{% endfor %}";
    tp_buf out;

    (void)state;
    assert_int_equal(continued(plain, two, NULL, &out), TP_OK);
    assert_string_equal(tp_buf_str(&out), "[a][End. ");
    tp_buf_release(&out);
    assert_int_equal(
        continued("{% for m in messages %}[{{ m.content|trim }}]{% endfor %}", two, NULL, &out),
        TP_OK);
    assert_string_equal(tp_buf_str(&out), "[a][End.");
    tp_buf_release(&out);
    assert_int_equal(continued("{% for p in messages[0].content %}<{{ p.text }}>{% endfor %}",
                               parts, NULL, &out),
                     TP_OK);
    assert_string_equal(tp_buf_str(&out), "<x");
    tp_buf_release(&out);
    assert_int_equal(continued("{{ messages[0].content }}", two, NULL, &out), TP_ERR_INVALID);
    tp_buf_release(&out);
    assert_int_equal(continued(plain, two, "reasoning", &out), TP_ERR_INVALID);
    tp_buf_release(&out);
    assert_int_equal(continued("x", two, NULL, &out), TP_ERR_INVALID);
    tp_buf_release(&out);
}

static void user_text_is_marked(void **state)
{
    static const char source[] =
        "{{ bos_token }}{% for m in messages %}<{{ 'im' + m.content|trim|replace('-', '+') }}>{{ [m.content]|tojson }}{% endfor %}!";
    tp_json *m = parsed("[{\"role\": \"user\", \"content\": \" a-b\\n\"}]");
    rt_template_input in = {.messages = m, .bos_token = "<s>"};
    rt_template_spans spans = {0};
    rt_template *t = NULL;
    tp_buf out;

    (void)state;
    tp_buf_init(&out, 4096);
    tp_buf_puts(&out, "#"); /* appended to: offsets count from the start of the buffer */
    assert_int_equal(rt_template_compile(&t, source, strlen(source)), TP_OK);
    assert_int_equal(rt_template_render_marked(t, &in, NULL, &out, &spans), TP_OK);
    assert_string_equal(tp_buf_str(&out), "#<s><ima+b>[\" a-b\\n\"]!");
    assert_int_equal(spans.n,
                     3); /* "a", "b" around the template's plus; the JSON text between the quotes */
    assert_int_equal(spans.items[0].begin, 7);
    assert_int_equal(spans.items[0].end, 8);
    assert_int_equal(spans.items[1].begin, 9);
    assert_int_equal(spans.items[2].begin, 13);
    assert_int_equal(spans.items[2].end, 19);
    tp_free(spans.items);
    rt_template_destroy(t);
    tp_buf_release(&out);
    tp_json_free(m);
}

static bool wants(const char *source)
{
    rt_template *t = NULL;
    bool yes;

    assert_int_equal(rt_template_compile(&t, source, strlen(source)), TP_OK);
    yes = rt_template_wants_parts(t);
    assert_true(rt_template_mentions(t, "messages") == (strstr(source, "messages") != NULL));
    rt_template_destroy(t);
    return yes;
}

static void lists_of_parts_are_recognised(void **state)
{
    (void)state;
    assert_true(
        wants("{% for m in messages %}{% for p in m['content'] %}{% endfor %}{% endfor %}"));
    assert_true(wants(
        "{% for m in messages %}{% if m.content is string %}x{% else %}{% for p in m.content %}{% endfor %}{% endif %}{% endfor %}"));
    assert_true(wants(
        "{% for m in messages %}{% set c = m.content %}{% for p in c|list %}{% endfor %}{% endfor %}"));
    assert_true(wants("{% macro r(content) %}{% for p in content %}{% endfor %}{% endmacro %}"));
    assert_false(wants(
        "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls %}{% endfor %}{% endfor %}"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(snippets),
        cmocka_unit_test(failures_say_what_is_wrong),
        cmocka_unit_test(a_refusal_keeps_the_words_exactly),
        cmocka_unit_test(messages_are_prepared),
        cmocka_unit_test(the_final_message_is_continued),
        cmocka_unit_test(user_text_is_marked),
        cmocka_unit_test(lists_of_parts_are_recognised),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
