/* SPDX-License-Identifier: Apache-2.0 */
/* template_testing.h - renders a template over JSON texts in one call. */
#ifndef TEMPLATE_TESTING_H
#define TEMPLATE_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "runtime/template/template.h"

#define ONE_MESSAGE "[{\"role\": \"user\", \"content\": \"hi\"}]"

static inline tp_json *parsed(const char *text)
{
    tp_json *v = NULL;

    if (text != NULL)
        assert_int_equal(tp_json_parse(&v, text, strlen(text), NULL), TP_OK);
    return v;
}

/* Text of the rendering, or of the error, into out; the status. */
static inline tp_status render(const char *source, const char *messages, const char *kwargs,
                               const rt_template_limits *limits, tp_buf *out)
{
    tp_json *m = parsed(messages), *k = parsed(kwargs);
    rt_template_input in = {
        .messages = m, .kwargs = k, .add_generation_prompt = true, .bos_token = "<s>"};
    rt_template *t = NULL;
    tp_status st = rt_template_compile(&t, source, strlen(source));

    tp_buf_init(out, (size_t)32 << 20);
    if (st == TP_OK)
        st = rt_template_render(t, &in, limits, out);
    if (st != TP_OK) {
        tp_buf_reset(out);
        tp_buf_puts(out, tp_last_error());
    }
    rt_template_destroy(t);
    tp_json_free(m);
    tp_json_free(k);
    return st;
}

#endif
