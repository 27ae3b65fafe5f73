/* SPDX-License-Identifier: Apache-2.0 */
/* test_kern_numbers.c - conversions, Philox, the exponential, and selection: what the operations stand on. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kern_testing.h"
#include "kernels/convert.h"
#include "kernels/cpu/topk_keys.h"
#include "kernels/cpu/vec.h"
#include "kernels/philox.h"

/* ---- conversions ---- */
/* Value of a 16-bit float by its definition. */
static double value_of(uint16_t h, int exp_bits)
{
    int man_bits = 15 - exp_bits, bias = (1 << (exp_bits - 1)) - 1;
    int e = (h >> man_bits) & ((1 << exp_bits) - 1), m = h & ((1 << man_bits) - 1);
    double v =
        e == 0 ? ldexp(m, 1 - bias - man_bits) : ldexp((1 << man_bits) + m, e - bias - man_bits);

    if (e == (1 << exp_bits) - 1)
        v = m == 0 ? (double)INFINITY : (double)NAN;
    return (h & 0x8000) != 0 ? -v : v;
}

typedef uint16_t to_short(float f);
typedef float from_short(uint16_t h);

/* Every number goes there and back; between neighbours, the middle goes to the even one, its sides to the nearer. */
static void check_short(to_short *to, from_short *from, int exp_bits)
{
    for (int i = 0; i < 65536; i++) {
        uint16_t h = (uint16_t)i;
        double v = value_of(h, exp_bits), up = value_of((uint16_t)(h + 1), exp_bits);
        float middle;

        if (isnan(v)) {
            assert_true(isnan(from(h)) && isnan(from(to(from(h)))));
            continue;
        }
        assert_true((double)from(h) == v && to(from(h)) == h);
        if (isinf(v) || isinf(up) || isnan(up) || (h & 0x7fff) == 0x7fff)
            continue;
        middle = (float)((v + up) / 2.0);
        assert_true((double)middle == (v + up) / 2.0);
        assert_int_equal(to(middle), h % 2 == 0 ? h : h + 1);
        assert_int_equal(to(nextafterf(middle, (float)v)), h);
        assert_int_equal(to(nextafterf(middle, (float)up)), h + 1);
    }
    assert_int_equal(to(INFINITY), to(3.4028235e38f));
    assert_true(isnan(from(to(NAN))));
    assert_true(isnan(from(to(kern_bits_f32(0x7f800001u))))); /* a payload that is cut off */
}

static void test_convert(void **state)
{
    (void)state;
    check_short(kern_f32_to_bf16, kern_bf16_to_f32, 8);
    check_short(kern_f32_to_f16, kern_f16_to_f32, 5);
    assert_int_equal(kern_f32_to_f16(65519.0f), 0x7bff);
    assert_int_equal(kern_f32_to_f16(65520.0f), 0x7c00);
}

/* The vector conversions give the scalar ones' bits, for bodies and tails. */
static void test_vector_convert(void **state)
{
    enum { N = 4099 };
    kern_backend *be = kt_open(state, 1);
    const kern_cpu_vec *vec = kern_cpu_of(be)->vec;
    kt_rng rng = {30};
    float *x = kt_zeros(N * sizeof *x);
    uint16_t *h = kt_zeros(N * sizeof *h);

    for (int round = 0; round < 50; round++) {
        int n = N - round;

        for (int i = 0; i < n; i++) {
            x[i] = kern_bits_f32(kt_u32(&rng));
            if (i % 3 == 0) /* into the range of F16 and its subnormals */
                x[i] = ldexpf(kt_unit(&rng), kt_below(&rng, 44) - 27);
            if (fabsf(x[i]) < 0x1p-126f) /* vcvtneps2bf16 makes FP32 subnormals 0 */
                x[i] = 0.0f;
        }
        vec->to_bf16(h, x, n);
        for (int i = 0; i < n; i++)
            assert_true(isnan(x[i]) ? isnan(kern_bf16_to_f32(h[i]))
                                    : h[i] == kern_f32_to_bf16(x[i]));
        vec->to_f16(h, x, n);
        for (int i = 0; i < n; i++)
            assert_true(isnan(x[i]) ? isnan(kern_f16_to_f32(h[i])) : h[i] == kern_f32_to_f16(x[i]));
    }
    kt_free(x), kt_free(h);
    kt_close(be);
}

/* ---- Philox: the known answers of Random123 1.14 ---- */
static void test_philox(void **state)
{
    static const struct {
        uint32_t counter[4], key[2], want[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    double sum = 0.0, square = 0.0;
    const int n = 100000;

    (void)state;
    for (size_t i = 0; i < TP_ARRAY_LEN(known); i++) {
        uint32_t out[4];

        kern_philox4x32(known[i].counter, known[i].key, out);
        assert_memory_equal(out, known[i].want, sizeof out);
    }
    for (int i = 0; i < n; i++) {
        double u = kern_philox_uniform(7, (uint64_t)i, 3, 0);

        assert_true(u >= 0.0 && u < 1.0);
        sum += u;
        square += u * u;
    }
    assert_true(fabs(sum / n - 0.5) < 0.004 && fabs(square / n - 1.0 / 3.0) < 0.004);
    assert_true(kern_philox_uniform(7, 1, 3, 0) != kern_philox_uniform(7, 1, 3, 1));
    assert_true(kern_philox_uniform(7, 1, 3, 0) != kern_philox_uniform(8, 1, 3, 0));
    assert_true(kern_philox_uniform(7, 1ull << 32, 3, 0) != kern_philox_uniform(7, 0, 3, 0));
}

/* ---- exponential: 2 units in the last place over its whole range, the same bits in body and tail ---- */
static void test_exp(void **state)
{
    enum { N = 64 };
    kern_backend *be = kt_open(state, 1);
    const kern_cpu_vec *vec = kern_cpu_of(be)->vec;
    float in[N], out[N], worst = 0.0f;

    for (float x = -87.3f; x < 88.0f; x += 0.00037f) {
        double exact = exp((double)x);
        float near = (float)exact, ulp = nextafterf(near, INFINITY) - near;
        float error = (float)(fabs((double)vec->exp1(x) - exact) / (double)ulp);

        worst = error > worst ? error : worst;
    }
    print_message("exp: largest error %.2f ulp\n", (double)worst);
    assert_true(worst <= 2.0f);
    assert_true(vec->exp1(0.0f) == 1.0f && vec->exp1(-INFINITY) == 0.0f);
    assert_true(vec->exp1(-88.0f) == 0.0f && isnan(vec->exp1(NAN)));
    assert_true(vec->exp1(1e30f) == vec->exp1(88.0f) && vec->exp1(88.0f) > 1e38f);
    for (int i = 0; i < N; i++)
        in[i] = -0.31f * (float)i;
    for (int n = 1; n <= N; n++) {
        vec->exp_chunk(out, in, n, 0.0f, 1.0f);
        for (int i = 0; i < n; i++)
            assert_true(kern_f32_bits(out[i]) == kern_f32_bits(vec->exp1(in[i])));
    }
    kt_close(be);
}

/* ---- keys ---- */
static int greater(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x > y ? -1 : x < y;
}

static void test_keys(void **state)
{
    enum { N = 5000 };
    kt_rng rng = {31};
    uint64_t *keys = kt_zeros(N * sizeof *keys), *want = kt_zeros(N * sizeof *want);

    (void)state;
    assert_true(kern_key_make(1.0f, 5) > kern_key_make(1.0f, 6));
    assert_true(kern_key_make(-1.0f, 9) > kern_key_make(-2.0f, 1));
    assert_true(kern_key_make(0.5f, 9) > kern_key_make(-2.0f, 1));
    assert_true(kern_key_value(kern_key_make(-3.5f, 77)) == -3.5f);
    assert_int_equal(kern_key_index(kern_key_make(-3.5f, 77)), 77);
    for (int n = 1; n <= N; n = n * 2 + 1) {
        for (int pattern = 0; pattern < 4; pattern++) {
            int k = 1 + kt_below(&rng, n);

            for (int i = 0; i < n; i++) {
                float v = pattern == 0   ? kt_unit(&rng)
                          : pattern == 1 ? (float)i
                          : pattern == 2 ? (float)-i
                                         : (float)kt_below(&rng, 3);

                want[i] = kern_key_make(v, (uint32_t)i);
            }
            memcpy(keys, want, (size_t)n * sizeof *keys);
            qsort(want, (size_t)n, sizeof *want, greater);
            kern_key_select(keys, n, k);
            assert_true(keys[k - 1] == want[k - 1]);
            for (int i = 0; i < n; i++)
                assert_true(i < k ? keys[i] >= want[k - 1] : keys[i] < want[k - 1]);
            kern_key_sort(keys, n);
            kt_same_bits("sorted keys", keys, want, (size_t)n * sizeof *keys);
        }
    }
    kt_free(keys), kt_free(want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_convert), cmocka_unit_test(test_philox),
        cmocka_unit_test(test_keys),    KT_EACH_CPU(test_vector_convert),
        KT_EACH_CPU(test_exp),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
