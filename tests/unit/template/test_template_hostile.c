/* SPDX-License-Identifier: Apache-2.0 */
/* test_template_hostile.c - templates and requests that try to run for ever, take all memory or break out; every
 * allocation that can fail; several threads on one template. */
#include "template_testing.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"

static const struct {
    const char *source;
    tp_status st; /* TP_OK: any error but a bug's */
} hostile[] = {
    {"{% for i in range(10**9) %}x{% endfor %}", TP_ERR_INVALID},
    {"{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
     TP_ERR_LIMIT},
    {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", TP_ERR_LIMIT},
    {"{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
     TP_ERR_LIMIT},
    {"{{ 'x' * 100000000 }}", TP_ERR_LIMIT},
    {"{{ [1] * 100000000 }}", TP_ERR_LIMIT},
    {"{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
     TP_ERR_LIMIT},
    {"{% set n = namespace(s=['x']) %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
     TP_ERR_LIMIT},
    {"{% set n = namespace(s=[1]) %}{% for i in range(60) %}{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s }}",
     TP_ERR_LIMIT},
    {"{% set n = namespace(s=[1]) %}{% for i in range(60) %}{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s == [n.s] }}{{ n.s|tojson }}",
     TP_ERR_LIMIT},
    {"{% set n = namespace(s=[1], t=[1]) %}{% for i in range(60) %}{% set n.s = [n.s, n.s] %}{% set n.t = [n.t, n.t] %}{% endfor %}{{ n.s == n.t }}",
     TP_ERR_LIMIT},
    {"{% set n = namespace(s=[]) %}{% for i in range(5000) %}{% set n.s = [n.s] %}{% endfor %}{{ n.s }}",
     TP_ERR_INVALID},
    {"{% set n = namespace(s=[]) %}{% for i in range(5000) %}{% set n.s = [n.s] %}{% endfor %}{{ n.s|tojson }}",
     TP_ERR_INVALID},
    {"{% set n = namespace() %}{% set n.n = n %}{{ n }}", TP_ERR_INVALID},
    {"{{ ''.__class__.__mro__ }}", TP_ERR_INVALID},
    {"{{ ''['__class__']['__mro__'] }}", TP_ERR_INVALID},
    {"{{ '{0.__class__.__mro__}'.format(1) }}", TP_ERR_INVALID},
    {"{{ messages.append(1) }}", TP_ERR_INVALID},
    {"{% include '/etc/passwd' %}", TP_ERR_UNSUPPORTED},
    {"{% import 'os' as os %}", TP_ERR_UNSUPPORTED},
    {"{{ 1|nosuch }}", TP_ERR_UNSUPPORTED},
    {"{{ '%999999999d' % 1 }}", TP_ERR_LIMIT},
    {"{{ '{:999999999}'.format(1) }}", TP_ERR_LIMIT},
    {"{{ '%.999999999f' % 1 }}", TP_ERR_LIMIT},
    {"{{ 'a'.ljust(9999999999) }}", TP_ERR_LIMIT},
    {"{{ 'a'|center(9999999999) }}", TP_ERR_LIMIT},
    {"{{ 'a\\nb'|indent(9999999999) }}", TP_ERR_LIMIT},
    {"{{ [1]|tojson(indent=999999999) }}", TP_ERR_INVALID},
    {"{{ [1]|batch(100000, 1)|list|tojson|length }}{% for i in range(1000) %}{{ [1]|batch(100000, 1)|list|length }}{% endfor %}",
     TP_ERR_LIMIT},
    {"{{ 10 ** 1000 }}", TP_ERR_INVALID},
    {"{{ (-9223372036854775807 - 1) // -1 }}", TP_ERR_INVALID},
    {"{{ (-9223372036854775807 - 1)|abs }}", TP_ERR_INVALID},
    {"{{ range(-9223372036854775807, 9223372036854775807) }}", TP_ERR_INVALID},
    {"{% set x = 'ab' * 100000 %}{% for i in range(100000) %}{{ x.replace('a', 'bb')|length }}{% endfor %}",
     TP_ERR_LIMIT},
    {"{% set x = 'ab' * 1000000 %}{% for i in range(100000) %}{% set y = 'zz' in x %}{% endfor %}",
     TP_ERR_LIMIT},
    {"{% set x = ('ab' * 100000)|list %}{% for i in range(100000) %}{% set y = x|sort %}{% endfor %}",
     TP_ERR_LIMIT},
    {"{{ strftime_now('%c' * 1000) }}", TP_ERR_INVALID},
    {"{{ raise_exception('x' * 100000) }}", TP_ERR_INVALID},
    {"{{ 'x'[99999999999999999999] }}", TP_OK},
    {"{{ ('a' * 5000000)[::-1][::-1][::-1][::-1][::-1] }}", TP_ERR_LIMIT},
};

static void hostile_templates_end_in_time(void **state)
{
    (void)state;
    for (size_t i = 0; i < TP_ARRAY_LEN(hostile); i++) {
        int64_t begin = tp_now_ns();
        tp_buf out;
        tp_status st = render(hostile[i].source, ONE_MESSAGE, NULL, NULL, &out);
        double ms = (double)(tp_now_ns() - begin) / 1e6;

        if (hostile[i].st != TP_OK && st != hostile[i].st)
            fail_msg("%s\n expected %s, found %s: %.200s", hostile[i].source,
                     tp_status_name(hostile[i].st), tp_status_name(st), tp_buf_str(&out));
        if (ms >
            5000.0) /* the budget is 100 ms of processor time; sanitizers and a busy machine stretch it */
            fail_msg("%s: %.0f ms", hostile[i].source, ms);
        tp_buf_release(&out);
    }
}

/* open... inside close... with n repetitions, compiled and rendered. */
static tp_status nested(const char *open, const char *inside, const char *close, int n)
{
    tp_buf source, out;
    tp_status st;

    tp_buf_init(&source, (size_t)8 << 20);
    for (int i = 0; i < n; i++)
        tp_buf_puts(&source, open);
    tp_buf_puts(&source, inside);
    for (int i = 0; i < n; i++)
        tp_buf_puts(&source, close);
    assert_false(source.failed);
    st = render(tp_buf_str(&source), ONE_MESSAGE, NULL, NULL, &out);
    tp_buf_release(&out);
    tp_buf_release(&source);
    return st;
}

static void deep_sources_are_refused(void **state)
{
    (void)state;
    assert_int_equal(nested("{% if true %}", "x", "{% endif %}", 50), TP_OK);
    assert_int_equal(nested("{% if true %}", "x", "{% endif %}", 20000), TP_ERR_LIMIT);
    assert_int_equal(nested("{% for x in [1] %}", "x", "{% endfor %}", 20000), TP_ERR_LIMIT);
    assert_int_equal(nested("{{ (", "1", "", 20000), TP_ERR_FORMAT);
    assert_int_not_equal(nested("(", "1", ")", 3), TP_ERR_LIMIT); /* plain text */
    assert_int_equal(nested("{{ '", "x", "' }}", 20000), TP_ERR_FORMAT);
}

static tp_status chained(const char *first, const char *link, const char *last, int n)
{
    tp_buf source, out;
    tp_status st;

    tp_buf_init(&source, (size_t)8 << 20);
    tp_buf_puts(&source, first);
    for (int i = 0; i < n; i++)
        tp_buf_puts(&source, link);
    tp_buf_puts(&source, last);
    st = render(tp_buf_str(&source), ONE_MESSAGE, NULL, NULL, &out);
    tp_buf_release(&out);
    tp_buf_release(&source);
    return st;
}

static void long_chains_are_refused_or_work(void **state)
{
    (void)state;
    assert_int_equal(chained("{{ 1", " + 1", " }}", 500), TP_OK);
    assert_int_equal(chained("{{ 1", " + 1", " }}", 100000), TP_ERR_LIMIT);
    assert_int_equal(chained("{{ ", "(", "1", 20000), TP_ERR_FORMAT);
    assert_int_equal(chained("{{ ", "- ", "1 }}", 20000), TP_ERR_LIMIT);
    assert_int_equal(chained("{{ ", "not ", "1 }}", 20000), TP_ERR_LIMIT);
    assert_int_equal(chained("{{ 1", "|string", " }}", 100000), TP_ERR_LIMIT);
    assert_int_equal(chained("{{ x", ".x", " }}", 100000), TP_ERR_LIMIT);
    assert_int_equal(chained("{{ 1", " if 1 else 1", " }}", 20000), TP_ERR_LIMIT);
    assert_int_equal(chained("{% if 0 %}", "{% elif 0 %}x", "{% endif %}", 100000), TP_ERR_LIMIT);
    assert_int_equal(chained("{{ [", "1,", "1]|length }}", 100000), TP_OK);
    assert_int_equal(chained("", "{{ 1 }}", "", 10000), TP_OK);
    assert_int_equal(chained("", "{{ 1 }}", "", 200000), TP_ERR_LIMIT);
}

/* Any cut of a real template must end in success or a clean error. */
static void every_prefix_of_a_template_is_handled(void **state)
{
    static const char source[] =
        "{%- macro m(a, b='\\u00e9') -%}{{ a|default(b)|upper }}{%- endmacro %}{# c #}{% raw %}{{{% endraw %}"
        "{% for k, v in {'a': [1, 2.5]}.items() if v %}{{ loop.index ~ m(k, b=v[::-1]) }}{% else %}-{% endfor %}"
        "{% set n = namespace(x=1) %}{% set n.x = 0x1f if 1 < 2 <= 3 else none %}{{ n.x is not none and 'a' not in 'b' }}";

    (void)state;
    for (size_t n = 0; n <= strlen(source); n++) {
        char cut[sizeof source];
        tp_buf out;

        memcpy(cut, source, n);
        cut[n] = 0;
        (void)render(cut, ONE_MESSAGE, NULL, NULL, &out);
        tp_buf_release(&out);
    }
}

static void budgets_are_the_callers(void **state)
{
    const rt_template_limits ops = {.ops_max = 100}, output = {.output_max = 10},
                             memory = {.memory_max = 20000}, depth = {.depth_max = 3};
    tp_buf out;

    (void)state;
    assert_int_equal(
        render("{% for i in range(99) %}{{ i }}{% endfor %}", ONE_MESSAGE, NULL, &ops, &out),
        TP_ERR_LIMIT);
    tp_buf_release(&out);
    assert_int_equal(render("{{ 'x' * 11 }}", ONE_MESSAGE, NULL, &output, &out), TP_ERR_LIMIT);
    tp_buf_release(&out);
    assert_int_equal(render("{{ range(9999)|list|length }}", ONE_MESSAGE, NULL, &memory, &out),
                     TP_ERR_LIMIT);
    tp_buf_release(&out);
    assert_int_equal(render("{% macro m(n) %}{{ m(n-1) if n }}{% endmacro %}{{ m(2) }}",
                            ONE_MESSAGE, NULL, &depth, &out),
                     TP_OK);
    tp_buf_release(&out);
    assert_int_equal(render("{% macro m(n) %}{{ m(n-1) if n }}{% endmacro %}{{ m(3) }}",
                            ONE_MESSAGE, NULL, &depth, &out),
                     TP_ERR_LIMIT);
    tp_buf_release(&out);
}

static const char chat[] =
    "{%- macro head(role) %}<|{{ role }}|>{% endmacro %}{%- set ns = namespace(n=0) %}"
    "{%- for m in messages %}{{ head(m.role) + '\\n' + (m.content or '')|trim + '\\n' }}{%- set ns.n = ns.n + 1 %}{% endfor %}"
    "{{ messages|map(attribute='role')|unique|sort|join(',') }}{{ messages|tojson(indent=2) }}{{ ns.n }}"
    "{{ '%s' % 'a'.split('x')[0] ~ {'a': [1, (2,)]} }}{% set t %}{{ 'q'.upper() }}{% endset %}{{ t }}";
static const char chat_messages[] =
    "[{\"role\": \"system\", \"content\": \" s \"}, {\"role\": \"user\", \"content\": \"u\", \"a\": 1, \"b\": 2, \"c\": "
    "3, \"d\": 4, \"e\": 5, \"f\": 6, \"g\": 7, \"h\": 8, \"i\": 9, \"j\": 10, \"k\": 11, \"l\": 12, \"m\": 13.5}]";

static void every_failed_allocation_is_an_error(void **state)
{
    tp_json *m = parsed(chat_messages);
    rt_template_input in = {.messages = m};
    tp_status st = TP_ERR_NOMEM;
    int n = 0;

    (void)state;
    for (; st != TP_OK && n < 10000; n++) {
        rt_template_spans spans = {0};
        rt_template *t = NULL;
        tp_buf out;

        tp_buf_init(&out, 1 << 20);
        tp_mem_fail_after(n);
        st = rt_template_compile(&t, chat, sizeof chat - 1);
        if (st == TP_OK)
            st = rt_template_render_marked(t, &in, NULL, &out, &spans);
        tp_mem_fail_after(-1);
        if (st != TP_OK)
            assert_int_equal(st, TP_ERR_NOMEM);
        rt_template_destroy(t);
        tp_free(spans.items);
        tp_buf_release(&out);
    }
    assert_int_equal(st, TP_OK);
    assert_true(n > 8);
    tp_json_free(m);
}

typedef struct shared {
    const rt_template *t;
    const tp_json *messages;
    const char *expected;
    bool same;
} shared;

static void *render_often(void *arg)
{
    shared *s = arg;
    const rt_template_input in = {.messages = s->messages};

    s->same = true;
    for (int i = 0; i < 200; i++) {
        tp_buf out;

        tp_buf_init(&out, 1 << 20);
        s->same = s->same && rt_template_render(s->t, &in, NULL, &out) == TP_OK &&
                  strcmp(tp_buf_str(&out), s->expected) == 0;
        tp_buf_release(&out);
    }
    return NULL;
}

static void threads_share_a_template(void **state)
{
    tp_json *m = parsed(chat_messages);
    const rt_template_input in = {.messages = m};
    rt_template *t = NULL;
    pthread_t threads[4];
    shared s[4];
    tp_buf out;

    (void)state;
    tp_buf_init(&out, 1 << 20);
    assert_int_equal(rt_template_compile(&t, chat, sizeof chat - 1), TP_OK);
    assert_int_equal(rt_template_render(t, &in, NULL, &out), TP_OK);
    for (int i = 0; i < 4; i++) {
        s[i] = (shared){t, m, tp_buf_str(&out), false};
        assert_int_equal(pthread_create(&threads[i], NULL, render_often, &s[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_true(s[i].same);
    }
    rt_template_destroy(t);
    tp_buf_release(&out);
    tp_json_free(m);
}

/* A conversation of 100 messages; the time is printed, not judged. */
static void a_hundred_messages(void **state)
{
    static const char source[] =
        "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
        "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";
    int64_t best = INT64_MAX;
    rt_template *t = NULL;
    tp_buf text, out;
    tp_json *m;

    (void)state;
    tp_buf_init(&text, 1 << 20);
    for (int i = 0; i < 100; i++)
        tp_buf_printf(&text, "%s{\"role\": \"%s\", \"content\": \"%0200d\"}", i > 0 ? "," : "[",
                      i % 2 ? "assistant" : "user", i);
    tp_buf_puts(&text, "]");
    m = parsed(tp_buf_str(&text));
    assert_int_equal(rt_template_compile(&t, source, sizeof source - 1), TP_OK);
    for (int i = 0; i < 20; i++) {
        const rt_template_input in = {.messages = m, .add_generation_prompt = true};
        int64_t begin = tp_now_ns(), took;

        tp_buf_init(&out, 1 << 20);
        assert_int_equal(rt_template_render(t, &in, NULL, &out), TP_OK);
        took = tp_now_ns() - begin;
        best = took < best ? took : best;
        tp_buf_release(&out);
    }
    print_message("100 messages of 200 bytes: %.0f us\n", (double)best / 1000.0);
    rt_template_destroy(t);
    tp_buf_release(&text);
    tp_json_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hostile_templates_end_in_time),
        cmocka_unit_test(deep_sources_are_refused),
        cmocka_unit_test(long_chains_are_refused_or_work),
        cmocka_unit_test(every_prefix_of_a_template_is_handled),
        cmocka_unit_test(budgets_are_the_callers),
        cmocka_unit_test(every_failed_allocation_is_an_error),
        cmocka_unit_test(threads_share_a_template),
        cmocka_unit_test(a_hundred_messages),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
