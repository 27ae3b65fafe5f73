/* SPDX-License-Identifier: Apache-2.0 */
/* runtime_testing.h - the tiny tokenizer of tests/unit/tokenizer, loaded, and requests that need no engine. */
#ifndef TESTS_UNIT_RUNTIME_TESTING_H
#define TESTS_UNIT_RUNTIME_TESTING_H

#include "tests/unit/tokenizer/tok_testing.h"

#include "runtime/request.h"
#include "tests/unit/base/base_testing.h"

/* Ids 0-255 are bytes, so any text can be fed byte by byte. */
static inline rt_tokenizer *load_tokenizer(void)
{
    rt_tokenizer *t = NULL;
    char dir[32];
    tp_buf b;

    tok_make_dir(dir);
    tp_buf_init(&b, 1 << 20);
    tok_put_document(&b);
    tok_write(dir, "tokenizer.json", b.data, b.len);
    tp_buf_release(&b);
    assert_int_equal(rt_tokenizer_load(&t, dir), TP_OK);
    tok_remove(dir);
    return t;
}

static const int32_t k_test_prompt[] = {'a', 'b', 'c', 'd'};

static inline rt_request_desc test_desc(void)
{
    return (rt_request_desc){.prompt = k_test_prompt,
                             .n_prompt = TP_ARRAY_LEN(k_test_prompt),
                             .n = 1,
                             .sampling = rt_sampling_default()};
}

#endif
