/* SPDX-License-Identifier: Apache-2.0 */
/* test_kern_backend.c - finding and opening backends, and what they refuse. */
#include <string.h>

#include "base/mem.h"
#include "kern_testing.h"

static void test_find(void **state)
{
    (void)state;
    assert_ptr_equal(kern_find_ops("ref"), kern_ref_ops());
    assert_ptr_equal(kern_find_ops("cpu"), kern_cpu_ops());
    assert_null(kern_find_ops("abacus"));
    assert_int_equal(kern_find_ops("cpu")->abi, KERN_ABI);
    assert_ptr_equal(kern_find_ops("null"), kern_null_ops());
}

static void test_dtypes(void **state)
{
    const kern_backend plain = {.act_f16 = false}, half = {.act_f16 = true};

    (void)state;
    assert_int_equal(kern_dtype_bytes(KERN_DTYPE_F32), 4);
    assert_int_equal(kern_dtype_bytes(KERN_DTYPE_BF16), 2);
    assert_int_equal(kern_dtype_bytes(KERN_DTYPE_F16), 2);
    assert_string_equal(kern_dtype_name(KERN_DTYPE_BF16), "bfloat16");
    assert_int_equal(kern_act_dtype(&plain, KERN_DTYPE_BF16), KERN_DTYPE_BF16);
    assert_int_equal(kern_act_dtype(&plain, KERN_DTYPE_F16), KERN_DTYPE_F32);
    assert_int_equal(kern_act_dtype(&plain, KERN_DTYPE_F32), KERN_DTYPE_F32);
    assert_int_equal(kern_act_dtype(&half, KERN_DTYPE_F16), KERN_DTYPE_F16);
    assert_int_equal(kern_act_dtype(&half, KERN_DTYPE_BF16), KERN_DTYPE_BF16);
    assert_int_equal(kern_act_dtype(&half, KERN_DTYPE_F32), KERN_DTYPE_F32);
}

/* Without a name the best one is opened; each supported one opens under its name; others are refused. */
static void test_open(void **state)
{
    static const char *const names[] = {"generic", "avx2", "avx512", "amx"};
    const kern_ops *ops = kern_cpu_ops();
    const char *best = NULL;
    kern_backend *be = NULL;

    (void)state;
    for (size_t i = 0; i < TP_ARRAY_LEN(names); i++) {
        kern_open_args a = {.n_threads = 1, .isa = names[i]};

        be = NULL;
        if (!ops->isa_supported(names[i])) {
            print_message("this machine lacks %s\n", names[i]);
            assert_int_equal(ops->open(&be, &a), TP_ERR_UNSUPPORTED);
            assert_null(be);
            continue;
        }
        best = names[i];
        KT_OK(ops->open(&be, &a));
        assert_string_equal(be->isa, names[i]);
        kt_close(be);
    }
    KT_OK(ops->open(&be, &(kern_open_args){.n_threads = 3}));
    assert_string_equal(be->isa, best);
    assert_int_equal(be->n_threads, 3);
    kt_close(be);
    assert_false(ops->isa_supported("mmx"));
    be = NULL;
    assert_int_equal(ops->open(&be, &(kern_open_args){.n_threads = 1, .isa = "mmx"}),
                     TP_ERR_INVALID);
    assert_non_null(strstr(tp_last_error(), "avx512"));
    assert_int_equal(ops->open(&be, &(kern_open_args){.n_threads = 0}), TP_ERR_INVALID);
    assert_null(be);
    assert_int_equal(kern_ref_ops()->open(&be, &(kern_open_args){.n_threads = 1, .isa = "avx2"}),
                     TP_ERR_UNSUPPORTED);
}

static void test_kv_refusals(void **state)
{
    kern_backend *be = kt_open(state, 1);
    const kern_kv_desc good = {.n_layers = 2,
                               .n_kv = 2,
                               .head_dim = 64,
                               .block_tokens = 16,
                               .n_blocks = 10,
                               .dtype = KERN_DTYPE_BF16};
    kern_kv_desc d = good;
    kern_kv *kv = NULL;

    assert_int_equal(be->ops->kv_block_bytes(be, &good), 2 * 2 * 2 * 64 * 16 * 2);
    d.block_tokens = 8;
    assert_int_equal(be->ops->kv_create(be, &d, &kv), TP_ERR_INVALID);
    d = good;
    d.head_dim = 33;
    assert_int_equal(be->ops->kv_create(be, &d, &kv), TP_ERR_INVALID);
    d = good;
    d.n_blocks = 0;
    assert_int_equal(be->ops->kv_create(be, &d, &kv), TP_ERR_INVALID);
    d = good;
    d.n_blocks = 1 << 30;
    assert_int_equal(be->ops->kv_create(be, &d, &kv), TP_ERR_INVALID);
    assert_null(kv);
    d = good;
    d.n_kv = 0; /* a rank without heads */
    KT_OK(be->ops->kv_create(be, &d, &kv));
    be->ops->kv_destroy(be, kv);
    be->ops->kv_destroy(be, NULL);
    kt_close(be);
}

/* Each allocation that fails is reported, and nothing leaks (seen by the sanitizer). */
static void test_no_memory(void **state)
{
    kern_backend *be = kt_open(state, 1), *other = NULL;
    kern_kv_desc d = {.n_layers = 1, .n_kv = 1, .head_dim = 64, .block_tokens = 16, .n_blocks = 2};
    kern_kv *kv = NULL;
    void *p = NULL;

    for (int n = 0; n < 2; n++) {
        tp_mem_fail_after(n);
        assert_int_equal(be->ops->kv_create(be, &d, &kv), TP_ERR_NOMEM);
    }
    tp_mem_fail_after(0);
    assert_int_equal(be->ops->alloc(be, 100, &p), TP_ERR_NOMEM);
    assert_int_equal(be->ops->open(&other, &(kern_open_args){.n_threads = 1}), TP_ERR_NOMEM);
    tp_mem_fail_after(-1);
    assert_true(kv == NULL && p == NULL && other == NULL);
    KT_OK(be->ops->alloc(be, 100, &p));
    for (int i = 0; i < 100; i++)
        assert_int_equal(((char *)p)[i], 0);
    assert_int_equal((uintptr_t)p % 64, 0);
    be->ops->free(be, p);
    be->ops->free(be, NULL);
    kt_close(be);
}

/* The same wrong argument is refused by every backend. */
static void test_op_refusals(void **state)
{
    kern_backend *be = kt_open(state, 1);
    float x[4] = {0};

    assert_int_equal(kern_rmsnorm(be, &(kern_rmsnorm_args){.m = -1, .dim = 4}), TP_ERR_INVALID);
    assert_int_equal(kern_rmsnorm(be, &(kern_rmsnorm_args){.m = 1, .dim = 4}), TP_ERR_INVALID);
    assert_int_equal(kern_rmsnorm(be, &(kern_rmsnorm_args){.out = x,
                                                           .residual = x,
                                                           .weight = x,
                                                           .m = 1,
                                                           .dim = 4,
                                                           .out_dtype = (kern_dtype)3}),
                     TP_ERR_INVALID);
    assert_int_equal(kern_silu_mul(be, &(kern_silu_mul_args){.m = 1, .n = 4}), TP_ERR_INVALID);
    assert_int_equal(kern_gather(be, &(kern_gather_args){.n = 1, .dim = 4}), TP_ERR_INVALID);
    assert_int_equal(kern_rope_table(be, &(kern_rope_table_args){.m = 1, .n_freq = 4}),
                     TP_ERR_INVALID);
    kt_close(be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_find), cmocka_unit_test(test_dtypes), cmocka_unit_test(test_open),
        KT_EACH(test_kv_refusals),   KT_EACH(test_no_memory),       KT_EACH(test_op_refusals),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
