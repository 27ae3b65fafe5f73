/* SPDX-License-Identifier: Apache-2.0 */
/* test_plan.c - what is written is read; nothing that is damaged is, and no reader leaves its bytes. */
#include "tests/unit/base/base_testing.h"

#include <string.h>

#include "base/mem.h"
#include "runtime/sched/plan.h"

#define CAP 65536

static const int32_t k_prompt[] = {5, 6, 7}, k_bias_ids[] = {1, 2}, k_allowed[] = {9},
                     k_forbidden[] = {2, 3};
static const float k_bias[] = {0.5f, -100};
static const int32_t k_blocks[] = {11, 12, 13};
static const int32_t k_draft[] = {70, 71, 72};

static const rt_plan_open_view k_open = {
    .head = {.slot = 3,
             .n_prompt = 3,
             .n_bias = 2,
             .n_allowed = 1,
             .n_forbidden = 2,
             .has_allowed = 1,
             .params = {.temperature = 0.7f, .top_p = 0.9f, .top_k = 40, .seed = UINT64_MAX}},
    .prompt = k_prompt,
    .bias_ids = k_bias_ids,
    .bias = k_bias,
    .allowed = k_allowed,
    .forbidden = k_forbidden};

/* Sequences are added before the opening: order of calls is free. */
static const uint8_t *write_plan(rt_plan_writer *w, size_t *bytes)
{
    rt_plan_seq q = {.slot = 3, .start = 0, .n_new = 3, .n_blocks = 3, .lp_start = INT32_MAX};

    rt_plan_begin(w, 42, 0);
    assert_true(rt_plan_is_empty(w));
    assert_true(rt_plan_add_close(w, 1));
    assert_true(rt_plan_add_seq(w, &q, k_blocks, NULL));
    assert_true(rt_plan_add_open(w, &k_open));
    q.slot = 4;
    q.n_blocks = 0;
    q.flags = RT_SEQ_SAMPLE;
    q.n_draft = 3;
    assert_true(rt_plan_add_seq(w, &q, NULL, k_draft));
    assert_true(rt_plan_add_copy(w, 8, 9));
    assert_false(rt_plan_is_empty(w));
    return rt_plan_finish(w, bytes);
}

/* Reads everything as the worker does; the first error. */
static tp_status read_plan(const void *data, size_t n)
{
    rt_plan_reader r;
    const int32_t *blocks;

    TP_TRY(rt_plan_open_reader(&r, data, n));
    for (uint32_t i = 0; i < r.header.n_open; i++) {
        rt_plan_open_view o;

        TP_TRY(rt_plan_read_open(&r, &o));
    }
    for (uint32_t i = 0; i < r.header.n_seq; i++) {
        rt_plan_seq q;

        TP_TRY(rt_plan_read_seq(&r, &q, &blocks));
    }
    return TP_OK;
}

static void test_round_trip(void **state)
{
    rt_plan_writer w;
    rt_plan_reader r;
    rt_plan_open_view o;
    rt_plan_seq q;
    const int32_t *blocks;
    size_t bytes;
    const uint8_t *plan;

    (void)state;
    assert_int_equal(rt_plan_writer_init(&w, CAP, 8), TP_OK);
    plan = write_plan(&w, &bytes);
    assert_int_equal(rt_plan_open_reader(&r, plan, bytes), TP_OK);
    assert_int_equal(r.header.step, 42);
    assert_int_equal(r.header.n_close, 1);
    assert_int_equal(r.closes[0], 1);
    assert_int_equal(r.header.n_copy, 1);
    assert_int_equal(r.copies[0].dst, 8);
    assert_int_equal(r.copies[0].src, 9);
    assert_int_equal(rt_plan_read_open(&r, &o), TP_OK);
    assert_memory_equal(&o.head, &k_open.head, sizeof o.head);
    assert_memory_equal(o.prompt, k_prompt, sizeof k_prompt);
    assert_memory_equal(o.bias_ids, k_bias_ids, sizeof k_bias_ids);
    assert_memory_equal(o.bias, k_bias, sizeof k_bias);
    assert_memory_equal(o.allowed, k_allowed, sizeof k_allowed);
    assert_memory_equal(o.forbidden, k_forbidden, sizeof k_forbidden);
    assert_int_equal(rt_plan_read_seq(&r, &q, &blocks), TP_OK);
    assert_int_equal(q.slot, 3);
    assert_memory_equal(blocks, k_blocks, sizeof k_blocks);
    assert_int_equal(rt_plan_read_seq(&r, &q, &blocks), TP_OK);
    assert_int_equal(q.slot, 4);
    assert_int_equal(q.flags, RT_SEQ_SAMPLE);
    assert_int_equal(q.n_draft, 3);
    assert_memory_equal(blocks + q.n_blocks, k_draft, sizeof k_draft);
    assert_int_not_equal(rt_plan_read_seq(&r, &q, &blocks), TP_OK);
    rt_plan_writer_release(&w);
}

/* Copies of exact size on the heap, so that a sanitizer sees any read behind their end. */
static void test_truncations_are_refused(void **state)
{
    rt_plan_writer w;
    size_t bytes;
    const uint8_t *plan;

    (void)state;
    assert_int_equal(rt_plan_writer_init(&w, CAP, 8), TP_OK);
    plan = write_plan(&w, &bytes);
    for (size_t n = 0; n < bytes; n++) {
        uint8_t *part = tp_malloc(n > 0 ? n : 1);

        memcpy(part, plan, n);
        assert_int_equal(read_plan(part, n), TP_ERR_FORMAT);
        tp_free(part);
    }
    rt_plan_writer_release(&w);
}

static void test_bit_flips_are_refused(void **state)
{
    rt_plan_writer w;
    size_t bytes;
    const uint8_t *plan;
    uint8_t *damaged;

    (void)state;
    assert_int_equal(rt_plan_writer_init(&w, CAP, 8), TP_OK);
    plan = write_plan(&w, &bytes);
    damaged = tp_malloc(bytes);
    memcpy(damaged, plan, bytes);
    assert_int_equal(read_plan(damaged, bytes), TP_OK);
    for (size_t bit = 0; bit < 8 * bytes; bit++) {
        damaged[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        assert_int_equal(read_plan(damaged, bytes), TP_ERR_FORMAT);
        damaged[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    tp_free(damaged);
    rt_plan_writer_release(&w);
}

/* A writer with a right checksum and wrong counts: the sizes alone must stop the reader. */
static void test_lying_counts_are_refused(void **state)
{
    static const int32_t k_lies[] = {-1, INT32_MIN, INT32_MAX, 1 << 28};
    rt_plan_writer w;

    (void)state;
    assert_int_equal(rt_plan_writer_init(&w, CAP, 8), TP_OK);
    for (size_t i = 0; i < TP_ARRAY_LEN(k_lies); i++) {
        size_t bytes;
        const uint8_t *plan;

        for (int part = 0; part < 7; part++) {
            rt_plan_begin(&w, 1, 0);
            assert_true(rt_plan_add_open(&w, &k_open));
            assert_true(rt_plan_add_seq(&w, &(rt_plan_seq){.n_blocks = 3}, k_blocks, NULL));
            if (part < 4)
                memcpy(w.opens + sizeof(int32_t) * (size_t)(part + 1), &k_lies[i], sizeof *k_lies);
            else if (part == 4)
                memcpy(w.tail + offsetof(rt_plan_seq, n_blocks), &k_lies[i], sizeof *k_lies);
            else if (part == 5)
                memcpy(w.tail + offsetof(rt_plan_seq, n_draft), &k_lies[i], sizeof *k_lies);
            else
                w.header.n_seq = (uint32_t)k_lies[i];
            plan = rt_plan_finish(&w, &bytes);
            assert_int_equal(read_plan(plan, bytes), TP_ERR_FORMAT);
        }
    }
    rt_plan_writer_release(&w);
}

static void test_full_plan_says_so(void **state)
{
    rt_plan_writer w;
    const uint8_t *plan;
    size_t bytes;
    int n = 0;

    (void)state;
    assert_int_equal(rt_plan_writer_init(&w, 1024, 4), TP_OK);
    rt_plan_begin(&w, 1, 0);
    while (rt_plan_add_open(&w, &k_open))
        n++;
    assert_in_range(n, 5, 10);
    assert_false(rt_plan_add_open(&w, &k_open));
    for (int i = 0; i < 4; i++)
        assert_true(rt_plan_add_close(&w, i) && rt_plan_add_copy(&w, i, i));
    assert_false(rt_plan_add_close(&w, 4));
    assert_false(rt_plan_add_copy(&w, 4, 4));
    plan = rt_plan_finish(&w, &bytes);
    assert_int_equal(read_plan(plan, bytes), TP_OK);
    assert_in_range(bytes, 900, 1024);
    rt_plan_writer_release(&w);
}

static void test_init_fails_cleanly(void **state)
{
    rt_plan_writer w;
    bool ok = false;
    int failures;

    (void)state;
    FAIL_EACH_ALLOCATION(failures, ok, ok = rt_plan_writer_init(&w, 256, 2) == TP_OK);
    assert_int_equal(failures, 5);
    rt_plan_writer_release(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_truncations_are_refused),
        cmocka_unit_test(test_bit_flips_are_refused),
        cmocka_unit_test(test_lying_counts_are_refused),
        cmocka_unit_test(test_full_plan_says_so),
        cmocka_unit_test(test_init_fails_cleanly),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
