/* SPDX-License-Identifier: Apache-2.0 */
/* span.h - a range of bytes of a text; template and tokenizer use it for text that a user wrote. */
#ifndef RT_SPAN_H
#define RT_SPAN_H

#include <stddef.h>

typedef struct rt_span {
    size_t begin, end; /* [begin, end) */
} rt_span;

#endif
