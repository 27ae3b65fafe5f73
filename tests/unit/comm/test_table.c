/* SPDX-License-Identifier: Apache-2.0 */
/* test_table.c - selection tables: reading, refusing, and what remains where ways are missing; the order of ranks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "comm/device/side.h"

#define KIB 1024

static void test_read(void **state)
{
    comm_table t;

    (void)state;
    assert_int_equal(comm_table_parse(&t,
                                      "tpserve-comm 1\n# measured\n\nranks 4 # four\r\n"
                                      "device NVIDIA X 80GB\nupto 4096 p2p-1\nupto max nccl",
                                      4, "NVIDIA X 80GB"),
                     TP_OK);
    assert_int_equal(t.n_lines, 2);
    assert_true(t.line[0].upto == 4096 && t.line[1].upto == INT64_MAX);
    assert_string_equal(t.line[1].way, "nccl");
}

static void test_refuse(void **state)
{
    static const char *const bad[] = {
        "",
        "ranks 2\n",
        "tpserve-comm 2\nranks 2\nupto max nccl\n",
        "ranks 2\nupto 10 p2p-1\nupto 10 nccl\n",
        "ranks 2\nupto ten p2p-1\n",
        "ranks 2\nupto -1 p2p-1\n",
        "ranks 2\nupto 10\n",
        "ranks 2\nupto 10 p2p-1 more\n",
        "ranks 2\nfaster please\n",
    };
    comm_table t;

    (void)state;
    for (size_t i = 0; i < TP_ARRAY_LEN(bad); i++)
        assert_int_equal(comm_table_parse(&t, bad[i], 2, NULL), TP_ERR_FORMAT);
    assert_int_equal(comm_table_parse(&t, "ranks 4\nupto max nccl\n", 2, NULL), TP_ERR_UNSUPPORTED);
    assert_int_equal(comm_table_parse(&t, "ranks 2\ndevice A\nupto max nccl\n", 2, "B"),
                     TP_ERR_UNSUPPORTED);
    assert_int_equal(comm_table_parse(&t, "ranks 2\ndevice A\nupto max nccl\n", 2, NULL), TP_OK);
}

/* ---- applying ---- */

static const char *const p2p_ways[] = {"p2p-1", "p2p-2", NULL};
static const char *const nccl_ways[] = {"nccl", "nccl-symm", NULL};
static int64_t g_symm;

static int64_t p2p_bytes_max(const comm_reducer *r, int way)
{
    (void)r;
    return way == 0 ? 2048 * KIB : INT64_MAX;
}

static int64_t nccl_bytes_max(const comm_reducer *r, int way)
{
    (void)r;
    return way == 0 ? INT64_MAX : g_symm;
}

static const comm_reducer_ops p2p_ops = {.name = "p2p",
                                         .ways = p2p_ways,
                                         .bytes_max = p2p_bytes_max};
static const comm_reducer_ops nccl_ops = {.name = "nccl",
                                          .ways = nccl_ways,
                                          .bytes_max = nccl_bytes_max};

static void expect(const comm_device_side *s, int i, int64_t upto, const char *way)
{
    assert_true(i < s->n_choices);
    assert_true(s->choice[i].upto == upto);
    assert_string_equal(s->choice[i].r->ops->ways[s->choice[i].way], way);
    if (upto == INT64_MAX)
        assert_int_equal(s->n_choices, i + 1);
}

static void test_apply(void **state)
{
    comm_reducer p2p = {.ops = &p2p_ops}, nccl = {.ops = &nccl_ops};
    comm_device_side s = {.r = {&p2p, &nccl}, .n_reducers = 2};
    comm_table t;

    (void)state;
    comm_table_default(&t, 8);
    g_symm = INT64_MAX;
    comm_table_apply(&s, &t);
    expect(&s, 0, 256 * KIB, "p2p-1");
    expect(&s, 1, 8192 * KIB, "p2p-2");
    expect(&s, 2, INT64_MAX, "nccl-symm");
    g_symm = 0; /* the self-test of registered memory failed */
    comm_table_apply(&s, &t);
    expect(&s, 2, INT64_MAX, "nccl");
    s.n_reducers = 1; /* no NCCL */
    comm_table_apply(&s, &t);
    expect(&s, 0, 256 * KIB, "p2p-1");
    expect(&s, 1, INT64_MAX, "p2p-2");
    s.r[0] = &nccl; /* no peer access */
    comm_table_apply(&s, &t);
    expect(&s, 0, INT64_MAX, "nccl");
    s.r[0] = &p2p; /* a table that asks too much of one exchange */
    assert_int_equal(comm_table_parse(&t, "ranks 2\nupto max p2p-1\n", 2, NULL), TP_OK);
    comm_table_apply(&s, &t);
    expect(&s, 0, 2048 * KIB, "p2p-1");
    expect(&s, 1, INT64_MAX, "p2p-2");
}

static void test_order_of_ranks(void **state)
{
    float part[TP_SEG_MAX], out;
    const float *leaf[TP_SEG_MAX];
    comm_join j;

    (void)state;
    for (int n = 1; n <= TP_SEG_MAX; n++) {
        float want = 0;

        for (int r = 0; r < n; r++) {
            part[r] = 1.0f / (float)(3 * r + 1) * (r % 5 == 0 ? 1e6f : 1.0f);
            leaf[r] = &part[r];
            want = r == 0 ? part[0] : want + part[r];
        }
        comm_join_init_ranks(&j, n);
        comm_join_run(&j, leaf, 1, &out);
        assert_memory_equal(&want, &out, sizeof want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_refuse),
        cmocka_unit_test(test_apply),
        cmocka_unit_test(test_order_of_ranks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
