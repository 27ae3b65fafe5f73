/* SPDX-License-Identifier: Apache-2.0 */
/* input.h - from a request's JSON to template variables (input.c). */
#ifndef RT_TEMPLATE_INPUT_H
#define RT_TEMPLATE_INPUT_H

#include "runtime/template/interp.h"

/* Where to cut the rendered text when the final message is continued. */
typedef struct rt_continuation {
    bool active;
    const rt_str *final; /* text of the field, without the mark that was appended to it */
} rt_continuation;

/* Sets the variables of r->top.  source: text of the template. */
tp_status rt_input_bind(rt_render *r, const rt_template_input *in, const char *source,
                        size_t n_source, rt_continuation *cont);
/* New length of the rendered text. */
tp_status rt_input_cut(const rt_continuation *cont, const char *text, size_t n, size_t *out);

#endif
