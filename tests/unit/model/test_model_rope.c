/* SPDX-License-Identifier: Apache-2.0 */
/* test_model_rope.c - frequencies against published values (double precision, nine digits). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "runtime/model/rope.h"

typedef struct value {
    int i;
    double freq;
} value;

static void check(const rt_config *c, double amplitude, const value *values, size_t n)
{
    double freq[256], a;

    rt_rope_freqs(c, freq, &a);
    if (fabs(a - amplitude) > 1e-8)
        fail_msg("amplitude %.10g, expected %.10g", a, amplitude);
    for (size_t k = 0; k < n; k++) {
        if (fabs(freq[values[k].i] / values[k].freq - 1) > 5e-9)
            fail_msg("frequency %d is %.10g, expected %.10g", values[k].i, freq[values[k].i],
                     values[k].freq);
    }
}

static rt_config config(rt_rope_kind kind, int head_dim, double theta, double factor,
                        int64_t original)
{
    return (rt_config){.head_dim = head_dim,
                       .max_position = original,
                       .rope = {.kind = kind,
                                .theta = theta,
                                .factor = factor,
                                .original_max_position = original,
                                .partial = 1,
                                .beta_fast = 32,
                                .beta_slow = 1,
                                .truncate = true}};
}

static void test_llama3(void **state)
{
    static const value values[] = {
        {28, 0.00321144599},  {29, 0.00216657076},  {30, 0.00137189357},
        {31, 0.000856751413}, {32, 0.000524846161}, {33, 0.00031269375},
        {34, 0.000178507813}, {35, 9.55621235e-05}, {63, 3.06892599e-07},
    };
    rt_config c = config(RT_ROPE_LLAMA3, 128, 5e5, 8, 8192);

    (void)state;
    c.rope.low_freq_factor = 1;
    c.rope.high_freq_factor = 4;
    check(&c, 1, values, TP_ARRAY_LEN(values));
}

static void test_yarn(void **state)
{
    static const value qwen[] = {
        {23, 0.00697830585},  {24, 0.00537532149},  {28, 0.00184827656},  {30, 0.00106436098},
        {36, 0.000179841156}, {39, 6.49039432e-05}, {40, 4.44569853e-05}, {63, 3.1023444e-07},
    };
    static const value untruncated[] = {{12, 0.00679495949}, {31, 3.02351143e-07}};
    rt_config c = config(RT_ROPE_YARN, 128, 1e6, 4, 32768);

    (void)state;
    check(&c, 1.13862944, qwen, TP_ARRAY_LEN(qwen));
    c.rope.attention_factor = 1.5;
    check(&c, 1.5, qwen, TP_ARRAY_LEN(qwen));
    c = config(RT_ROPE_YARN, 64, 150000, 32, 4096);
    c.rope.truncate = false;
    check(&c, 1.34657359, untruncated, TP_ARRAY_LEN(untruncated));
    c = config(RT_ROPE_YARN, 64, 1e4, 40, 4096);
    c.rope.mscale = c.rope.mscale_all_dim = 1;
    check(&c, 1, NULL, 0);
    c.rope.mscale_all_dim = 0; /* one alone does not count */
    check(&c, 1.36888795, NULL, 0);
}

static void test_simple(void **state)
{
    static const value plain[] = {{0, 1}, {16, 0.1}, {32, 0.01}};
    static const value halved[] = {{0, 0.5}, {16, 0.05}, {32, 0.005}};
    rt_config c = config(RT_ROPE_DEFAULT, 128, 1e4, 1, 4096);

    (void)state;
    check(&c, 1, plain, TP_ARRAY_LEN(plain));
    c = config(RT_ROPE_LINEAR, 128, 1e4, 2, 4096);
    check(&c, 1, halved, TP_ARRAY_LEN(halved));
    c = config(RT_ROPE_DYNAMIC, 128, 1e4, 2, 4096); /* within the trained length nothing changes */
    check(&c, 1, plain, TP_ARRAY_LEN(plain));
}

static void test_dynamic_stretched(void **state)
{
    rt_config c = config(RT_ROPE_DYNAMIC, 128, 1e4, 2, 4096);
    double theta = 1e4 * pow(3, 128.0 / 126.0); /* 2 * 8192 / 4096 - 1 = 3 */
    value values[] = {{1, pow(theta, -2.0 / 128)}, {63, pow(theta, -126.0 / 128)}};

    (void)state;
    c.max_position = 8192;
    check(&c, 1, values, TP_ARRAY_LEN(values));
}

static void test_partial(void **state)
{
    rt_config c = config(RT_ROPE_DEFAULT, 128, 1e4, 1, 4096);

    (void)state;
    c.rope.partial = 0.5;
    assert_int_equal(rt_rope_dims(&c), 64);
    c.rope.partial = 0.25;
    assert_int_equal(rt_rope_dims(&c), 32);
    c.rope.partial = 0.5;
    check(&c, 1, (value[]){{0, 1}, {16, 0.01}}, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llama3),  cmocka_unit_test(test_yarn),
        cmocka_unit_test(test_simple),  cmocka_unit_test(test_dynamic_stretched),
        cmocka_unit_test(test_partial),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
