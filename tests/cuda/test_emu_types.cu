/* SPDX-License-Identifier: Apache-2.0 */
/* test_emu_types.cu - conversions of the emulated device against arithmetic in double, and its small functions. */
#include <math.h>

#include "kernels/cuda/device.cuh"
#include "tests/cuda/emu_test.h"

/* What a 16-bit number is worth: sign, `e` bits of exponent, the rest mantissa. */
static double worth(uint16_t bits, int e)
{
    int m = 15 - e, bias = (1 << (e - 1)) - 1;
    int exponent = bits >> m & ((1 << e) - 1), mantissa = bits & ((1 << m) - 1);
    double magnitude = exponent == 0 ? ldexp(mantissa, 1 - bias - m)
                                     : ldexp(mantissa + (1 << m), exponent - bias - m);
    return bits & 0x8000 ? -magnitude : magnitude;
}

static bool is_special(uint16_t bits, int e)
{
    int all = (1 << e) - 1;
    return (bits >> (15 - e) & all) == all;
}

template <class T> static void check_decode(int e)
{
    for (uint32_t bits = 0; bits < 65536; bits++) {
        T x;
        x.bits = (uint16_t)bits;
        float f = (float)x;
        if (!is_special((uint16_t)bits, e))
            assert_true((double)f == worth((uint16_t)bits, e) && signbit(f) == (bits >> 15 != 0));
        else if (bits & ((1u << (15 - e)) - 1))
            assert_true(isnan(f));
        else
            assert_true(isinf(f) && signbit(f) == (bits >> 15 != 0));
    }
}

/* Between neighbours a < b: what lies below the middle becomes a, above it b, the middle the even one. */
template <class T> static void check_encode(int e)
{
    uint16_t largest = (uint16_t)(((1 << e) - 1) << (15 - e)) - 1;
    for (uint16_t bits = 0; bits <= largest; bits++) {
        float a = (float)worth(bits, e);
        double step = bits == largest ? worth(largest, e) - worth(largest - 1, e)
                                      : worth((uint16_t)(bits + 1), e) - (double)a;
        float middle = (float)((double)a + step / 2);
        uint16_t even = (uint16_t)(bits + (bits & 1));
        assert_int_equal(T(a).bits, bits);
        assert_int_equal(T(-a).bits, bits | 0x8000);
        assert_int_equal(T(middle).bits, even);
        assert_int_equal(T(nextafterf(middle, 0)).bits, bits);
        assert_int_equal(T(nextafterf(middle, INFINITY)).bits, bits + 1);
        assert_int_equal(T(-nextafterf(middle, INFINITY)).bits, (bits + 1) | 0x8000);
    }
    assert_int_equal(T(INFINITY).bits, largest + 1);
    assert_int_equal(T(-INFINITY).bits, (largest + 1) | 0x8000);
    assert_int_equal(T(3e38f).bits, e == 5 ? 0x7c00 : 0x7f62);
    assert_int_equal(T(NAN).bits, 0x7fff);
    assert_int_equal(T(-NAN).bits, 0x7fff);
    assert_int_equal(T(-0.0f).bits, 0x8000);
}

static void bfloat16(void **state)
{
    (void)state;
    check_decode<__nv_bfloat16>(8);
    check_encode<__nv_bfloat16>(8);
    __nv_bfloat162 v = __floats2bfloat162_rn(1.0f, -2.0f);
    assert_true(__low2float(v) == 1.0f && __high2float(v) == -2.0f);
    float2 f = __bfloat1622float2(__float22bfloat162_rn(make_float2(3.0f, 4.0f)));
    assert_true(f.x == 3.0f && f.y == 4.0f);
    assert_int_equal(sizeof(v), 4);
}

static void half_precision(void **state)
{
    (void)state;
    check_decode<__half>(5);
    check_encode<__half>(5);
    __half2 v = __floats2half2_rn(1.0f, -2.0f);
    assert_true(__low2float(v) == 1.0f && __high2float(v) == -2.0f);
    float2 f = __half22float2(v);
    assert_true(f.x == 1.0f && f.y == -2.0f);
    assert_int_equal(sizeof(v), 4);
}

static void vectors(void **state)
{
    (void)state;
    assert_true(alignof(float4) == 16 && alignof(uint4) == 16 && alignof(int4) == 16);
    assert_true(alignof(float2) == 8 && alignof(uint2) == 8 && alignof(float3) == 4);
    assert_true(sizeof(uint3) == 12 && sizeof(ushort4) == 8 && sizeof(uchar4) == 4);
    uint4 u = make_uint4(1, 2, 3, 4);
    assert_true(u.x == 1 && u.w == 4);
    dim3 d(7);
    assert_true(d.x == 7 && d.y == 1 && d.z == 1);
}

static void small_functions(void **state)
{
    (void)state;
    assert_int_equal(__popc(0xf0f0u), 8);
    assert_int_equal(__clz(0), 32);
    assert_int_equal(__clz(1), 31);
    assert_int_equal(__clz(-1), 0);
    assert_int_equal(__ffs(0), 0);
    assert_int_equal(__ffs(8), 4);
    assert_int_equal(__brev(1u), 0x80000000u);
    assert_int_equal(__umulhi(0xffffffffu, 0xffffffffu), 0xfffffffeu);
    assert_int_equal(__byte_perm(0x33221100u, 0x77665544u, 0x7531), 0x77553311u);
    assert_int_equal(__byte_perm(0x80u, 0, 0x8888), 0xffffffffu);
    assert_int_equal(__float_as_uint(1.0f), 0x3f800000u);
    assert_true(__uint_as_float(0x40000000u) == 2.0f);
    assert_int_equal(min(3, 4u), 3);
    assert_int_equal(max(-1, 2), 2);
    assert_true(rsqrtf(4.0f) == 0.5f && __fdividef(1, 4) == 0.25f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bfloat16),
        cmocka_unit_test(half_precision),
        cmocka_unit_test(vectors),
        cmocka_unit_test(small_functions),
    };
    return cmocka_run_group_tests_name("types of the emulated device", tests, NULL, NULL);
}
