/* SPDX-License-Identifier: Apache-2.0 */
/* text_ops.h - string operations that exist both as a method and as a filter (text_ops.c). */
#ifndef RT_TEMPLATE_TEXT_OPS_H
#define RT_TEMPLATE_TEXT_OPS_H

#include "runtime/template/interp.h"

typedef enum rt_case {
    RT_CASE_UPPER,
    RT_CASE_LOWER,
    RT_CASE_CAPITALIZE,
    RT_CASE_TITLE,
    RT_CASE_SWAP
} rt_case;

/* str.upper() and its kin. */
tp_status rt_text_case(rt_render *r, const rt_str *s, rt_case how, rt_val *out);
/* The filter: every word begins with a capital, words being cut at blanks, hyphens and opening brackets. */
tp_status rt_text_title_words(rt_render *r, const rt_str *s, rt_val *out);
tp_status rt_text_strip(rt_render *r, const rt_str *s, rt_val chars, bool left, bool right,
                        rt_val *out);
/* Up to `count` occurrences; count < 0: all. */
tp_status rt_text_replace(rt_render *r, const rt_str *s, const rt_str *from, const rt_str *to,
                          int64_t count, rt_val *out);
/* sep MISSING or none: runs of whitespace; max < 0: no limit. */
tp_status rt_text_split(rt_render *r, const rt_str *s, rt_val sep, int64_t max, bool from_right,
                        rt_val *out);
tp_status rt_text_lines(rt_render *r, const rt_str *s, bool keep_ends, rt_val *out);
tp_status rt_text_join(rt_render *r, const rt_str *sep, const rt_val *items, size_t n, bool strict,
                       rt_val *out);
/* Padding to `width` code points: align < > or ^ as Python's ljust, rjust, center. */
tp_status rt_text_pad(rt_render *r, rt_str *s, int64_t width, const rt_str *fill, char align,
                      rt_val *out);

/* Arguments of builtins.  The defaults apply when the argument was not given. */
tp_status rt_arg_int(rt_render *r, rt_val v, int64_t dflt, int64_t *out);
tp_status rt_arg_str(rt_render *r, rt_val v, rt_str **out);

#endif
