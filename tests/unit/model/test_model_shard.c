/* SPDX-License-Identifier: Apache-2.0 */
/* test_model_shard.c - every shape of model over every number of ranks: parts tile the whole, and fit the segment tree. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/model/model.h"

static const rt_config shapes[] = {
    {.n_layers = 80,
     .hidden = 8192,
     .intermediate = 29568,
     .n_heads = 64,
     .n_kv_heads = 8,
     .head_dim = 128,
     .vocab = 152064,
     .qkv_bias = true},
    {.n_layers = 80,
     .hidden = 8192,
     .intermediate = 28672,
     .n_heads = 64,
     .n_kv_heads = 8,
     .head_dim = 128,
     .vocab = 128256},
    {.n_layers = 24,
     .hidden = 896,
     .intermediate = 4864,
     .n_heads = 14,
     .n_kv_heads = 2,
     .head_dim = 64,
     .vocab = 151936,
     .qkv_bias = true,
     .tied = true},
    {.n_layers = 28,
     .hidden = 3072,
     .intermediate = 8192,
     .n_heads = 24,
     .n_kv_heads = 8,
     .head_dim = 128,
     .vocab = 128256,
     .tied = true},
    {.n_layers = 2,
     .hidden = 64,
     .intermediate = 13,
     .n_heads = 1,
     .n_kv_heads = 1,
     .head_dim = 64,
     .vocab = 65},
    {.n_layers = 1,
     .hidden = 64,
     .intermediate = 1,
     .n_heads = 5,
     .n_kv_heads = 5,
     .head_dim = 12,
     .vocab = 1},
};

/* What must hold for one shard whose left neighbours end at the given places. */
static void check_shard(const rt_config *c, const rt_shard *s, int head, int inter, int32_t vocab)
{
    int group = c->n_heads / c->n_kv_heads;

    assert_int_equal(s->head_first, head);
    assert_int_equal(s->inter_first, inter);
    assert_true(s->n_vocab_local == 0 || s->vocab_first == vocab);
    assert_int_equal(s->vocab_first % s->vocab_chunk, 0);
    assert_int_equal(s->vocab_chunk % RT_VOCAB_UNIT, 0);
    assert_int_equal(s->split_o.n_seg, s->split_down.n_seg);
    assert_int_equal(s->split_o.k_end[s->split_o.n_seg - 1], s->n_heads_local * c->head_dim);
    assert_int_equal(s->split_down.k_end[s->split_down.n_seg - 1], s->n_inter_local);
    if (s->n_heads_local == 0) {
        assert_int_equal(s->n_kv_local, 0);
        return;
    }
    assert_int_equal(s->kv_first, s->head_first / group);
    assert_int_equal(s->kv_first + s->n_kv_local - 1,
                     (s->head_first + s->n_heads_local - 1) / group);
}

static void test_tiling(void **state)
{
    (void)state;
    for (size_t i = 0; i < TP_ARRAY_LEN(shapes); i++) {
        const rt_config *c = &shapes[i];

        for (int n = 1; n <= TP_SEG_MAX; n++) {
            int head = 0, inter = 0, seg = 0;
            int32_t vocab = 0;

            for (int rank = 0; rank < n; rank++) {
                rt_shard s;

                assert_int_equal(rt_shard_plan(&s, c, n, rank, KERN_DTYPE_BF16, KERN_DTYPE_BF16),
                                 TP_OK);
                check_shard(c, &s, head, inter, vocab);
                assert_int_equal(s.split_o.seg_first, seg);
                seg += s.split_o.n_seg;
                head += s.n_heads_local;
                inter += s.n_inter_local;
                vocab += s.n_vocab_local;
            }
            assert_int_equal(seg, tp_seg_count(n));
            assert_int_equal(head, c->n_heads);
            assert_int_equal(inter, c->intermediate);
            assert_int_equal(vocab, c->vocab);
        }
    }
}

/* Borders of segments are the same at every number of ranks up to 8: that is why the bits are. */
static void test_same_segments(void **state)
{
    (void)state;
    for (size_t i = 0; i < TP_ARRAY_LEN(shapes); i++) {
        int32_t o[TP_SEG_DEFAULT], down[TP_SEG_DEFAULT];

        for (int n = 1; n <= 8; n++) {
            for (int rank = 0; rank < n; rank++) {
                rt_shard s;

                assert_int_equal(
                    rt_shard_plan(&s, &shapes[i], n, rank, KERN_DTYPE_F32, KERN_DTYPE_F32), TP_OK);
                for (int k = 0; k < s.split_o.n_seg; k++) {
                    int seg = s.split_o.seg_first + k;
                    int32_t o_end = s.head_first * shapes[i].head_dim + s.split_o.k_end[k];
                    int32_t down_end = s.inter_first + s.split_down.k_end[k];

                    if (n == 1) {
                        o[seg] = o_end;
                        down[seg] = down_end;
                    }
                    assert_int_equal(o[seg], o_end);
                    assert_int_equal(down[seg], down_end);
                }
            }
        }
    }
}

static void test_group_aligned(void **state)
{
    static const int expected[] = {29, 29, 29, 29, 29, 29, 29, 28}; /* of 231 groups of 128 */

    (void)state;
    for (int rank = 0; rank < 8; rank++) {
        rt_shard s;

        assert_int_equal(rt_shard_plan(&s, &shapes[0], 8, rank, KERN_DTYPE_BF16, KERN_DTYPE_BF16),
                         TP_OK);
        assert_int_equal(s.n_inter_local, expected[rank] * 128);
        assert_int_equal(s.n_heads_local, 8);
        assert_int_equal(s.n_kv_local, 1);
        assert_int_equal(s.kv_bytes_per_token, 327680 / 8);
    }
}

static void test_refused(void **state)
{
    rt_shard s;

    (void)state;
    assert_int_equal(rt_shard_plan(&s, &shapes[0], 65, 0, KERN_DTYPE_BF16, KERN_DTYPE_BF16),
                     TP_ERR_INVALID);
    assert_non_null(strstr(tp_last_error(), "65 ranks"));
    assert_int_equal(rt_shard_plan(&s, &shapes[0], 0, 0, KERN_DTYPE_BF16, KERN_DTYPE_BF16),
                     TP_ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiling),
        cmocka_unit_test(test_same_segments),
        cmocka_unit_test(test_group_aligned),
        cmocka_unit_test(test_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
