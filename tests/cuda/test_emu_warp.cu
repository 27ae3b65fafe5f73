/* SPDX-License-Identifier: Apache-2.0 */
/* test_emu_warp.cu - every warp operation of the emulated device against a scalar sentence about it. */
#include "kernels/cuda/ptx.cuh"
#include "tests/cuda/emu_test.h"

static uint32_t random_word()
{
    static uint64_t x = 88172645463325252u;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return (uint32_t)(x >> 16);
}

/* A number of few bits, so that sums of products are exact. */
static float small_number()
{
    return (float)((int)(random_word() % 33) - 16) / 8.0f;
}

/* ---- shuffles ---- */

template <class T> TP_KERNEL(32) shuffles(T *out, const T *in, int arg, int width)
{
    int lane = (int)threadIdx.x;
    T v = in[lane];
    out[lane] = __shfl_sync(TP_WARP_ALL, v, arg, width);
    out[32 + lane] = __shfl_up_sync(TP_WARP_ALL, v, (unsigned)arg, width);
    out[64 + lane] = __shfl_down_sync(TP_WARP_ALL, v, (unsigned)arg, width);
    out[96 + lane] = __shfl_xor_sync(TP_WARP_ALL, v, arg, width);
    out[128 + lane] = __shfl_sync(TP_WARP_ALL, v, lane * 7 + arg, width);
}

/* The warp is cut into segments of `width` lanes; who would read beyond its segment reads itself. */
static int source_of(int op, int lane, int arg, int width)
{
    int segment = lane / width, source;
    switch (op) {
    case 0: return segment * width + arg % width;
    case 1: source = lane - arg; return source >= segment * width ? source : lane;
    case 2: source = lane + arg; return source < (segment + 1) * width ? source : lane;
    case 3: source = lane ^ arg; return source < (segment + 1) * width ? source : lane;
    default: return segment * width + (lane * 7 + arg) % width;
    }
}

template <class T> static void check_shuffles()
{
    T in[32], out[160];
    for (int i = 0; i < 32; i++)
        in[i] = (T)(random_word() % 100000) / (T)2;
    for (int width = 1; width <= 32; width *= 2)
        for (int arg = 0; arg < 32; arg++) {
            TP_LAUNCH(shuffles<T>, 1, 32, 0, NULL, out, in, arg, width);
            for (int i = 0; i < 160; i++)
                assert_true(out[i] == in[source_of(i / 32, i % 32, arg, width)]);
        }
}

static void shuffles_of_all_types(void **state)
{
    (void)state;
    check_shuffles<float>();
    check_shuffles<int>();
    check_shuffles<unsigned>();
    check_shuffles<double>();
    check_shuffles<unsigned long long>();
}

/* ---- votes, parts of a warp ---- */

TP_KERNEL(64) votes(uint32_t *out, uint32_t bits)
{
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    int bit = bits >> lane & 1;
    uint32_t *mine = out + threadIdx.x * 6;
    mine[0] = __ballot_sync(TP_WARP_ALL, bit << 5);
    mine[1] = (uint32_t)__any_sync(TP_WARP_ALL, bit && warp);
    mine[2] = (uint32_t)__all_sync(TP_WARP_ALL, bit || warp);
    /* Odd and even lanes go separate ways, and meet again. */
    if (lane % 2) {
        mine[3] = __ballot_sync(0xaaaaaaaau, bit);
        mine[4] = __shfl_xor_sync(0xaaaaaaaau, (uint32_t)lane, 2);
    } else {
        mine[3] = __ballot_sync(0x55555555u, bit);
        __syncwarp(0x55555555u);
        mine[4] = __shfl_down_sync(0x55555555u, (uint32_t)lane, 2);
    }
    __syncwarp();
    mine[5] = __shfl_sync(TP_WARP_ALL, mine[3], 1);
}

static void votes_and_parts(void **state)
{
    (void)state;
    static uint32_t out[64 * 6];
    const uint32_t patterns[] = {0, ~0u, 1, 0x80000000u, random_word(), random_word()};
    for (uint32_t bits : patterns) {
        TP_LAUNCH(votes, 1, 64, 0, NULL, out, bits);
        for (uint32_t t = 0; t < 64; t++) {
            const uint32_t *mine = out + t * 6;
            uint32_t lane = t % 32, warp = t / 32;
            uint32_t part = lane % 2 ? 0xaaaaaaaau : 0x55555555u;
            assert_int_equal(mine[0], bits);
            assert_int_equal(mine[1], warp && bits);
            assert_int_equal(mine[2], warp || bits == ~0u);
            assert_int_equal(mine[3], bits & part);
            if (lane % 2)
                assert_int_equal(mine[4], lane ^ 2);
            else
                assert_int_equal(mine[4], lane + 2 < 32 ? lane + 2 : lane);
            assert_int_equal(mine[5], bits & 0xaaaaaaaau);
        }
    }
}

TP_KERNEL(40) short_warp(uint32_t *out)
{
    out[threadIdx.x] = __ballot_sync(TP_WARP_ALL, 1);
    __syncthreads();
}

static void last_warp_may_be_short(void **state)
{
    (void)state;
    uint32_t out[40];
    TP_LAUNCH(short_warp, 1, 40, 0, NULL, out);
    assert_int_equal(out[0], 0xffffffffu);
    assert_int_equal(out[39], 0xffu);
}

/* ---- ldmatrix ---- */

TP_KERNEL(32) load_tiles(uint32_t *out, const uint16_t *in, const int *row_of_lane, int ld)
{
    TP_DYN_SMEM(uint16_t, s);
    int lane = (int)threadIdx.x;
    for (int i = lane; i < 64 * ld; i += 32)
        s[i] = in[i];
    __syncwarp();
    const uint16_t *row = s + row_of_lane[lane] * ld;
    tp_ldmatrix_x4(out + lane * 8, row);
    tp_ldmatrix_x4_trans(out + lane * 8 + 4, row);
}

static void ldmatrix_both_ways(void **state)
{
    (void)state;
    enum { LD = 24 };
    uint16_t in[64 * LD];
    int row[32];
    uint32_t out[32 * 8];
    for (uint16_t &x : in)
        x = (uint16_t)random_word();
    for (int &r : row)
        r = (int)(random_word() % 64);
    TP_LAUNCH(load_tiles, 1, 32, sizeof(in), NULL, out, in, row, (int)LD);
    assert_int_equal(TP_LAUNCH_STATUS(), 0);
    for (int lane = 0; lane < 32; lane++)
        for (int tile = 0; tile < 4; tile++)
            for (int half = 0; half < 2; half++) {
                int i = lane / 4, j = 2 * (lane % 4) + half; /* row, column of the fragment */
                uint32_t straight = in[row[8 * tile + i] * LD + j];
                uint32_t turned = in[row[8 * tile + j] * LD + i];
                assert_int_equal(out[lane * 8 + tile] >> (16 * half) & 0xffff, straight);
                assert_int_equal(out[lane * 8 + 4 + tile] >> (16 * half) & 0xffff, turned);
            }
}

static void ldmatrix_conflicts(void **state)
{
    (void)state;
    /* Row strides in numbers of 16 bits, and the passes that one x4 needs with them. */
    static const int cases[][2] = {{8, 4}, {16, 8}, {24, 4}, {32, 16}, {64, 32}, {72, 4}};
    static uint16_t in[64 * 72];
    uint32_t out[32 * 8];
    int row[32];
    for (int i = 0; i < 32; i++)
        row[i] = i;
    for (const int *c : cases) {
        emu_counters n;
        emu_take_counters(&n);
        TP_LAUNCH(load_tiles, 1, 32, sizeof(in), NULL, out, in, row, c[0]);
        emu_take_counters(&n);
        assert_int_equal(n.ldmatrix, 2);
        assert_int_equal(n.ldmatrix_wavefronts, 2 * c[1]);
    }
}

/* ---- mma ---- */

template <class T> TP_DEV uint32_t pair(const T *low, const T *high)
{
    return (uint32_t)low->bits | (uint32_t)high->bits << 16;
}

/* a [16][16], b [16][8], c [16][8], by the fragment tables of the PTX manual, not through ldmatrix. */
template <class T, bool BF16> TP_KERNEL(64) multiply(float *c, const T *a, const T *b)
{
    int lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4, warp = (int)threadIdx.x / 32;
    a += warp * 256, b += warp * 128, c += warp * 128;
    uint32_t ra[4], rb[2];
    for (int i = 0; i < 4; i++) {
        const T *p = a + (g + 8 * (i % 2)) * 16 + 2 * t + 8 * (i / 2);
        ra[i] = pair(p, p + 1);
    }
    for (int i = 0; i < 2; i++) {
        const T *p = b + (2 * t + 8 * i) * 8 + g;
        rb[i] = pair(p, p + 8);
    }
    float d[4];
    for (int i = 0; i < 4; i++)
        d[i] = c[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2];
    if (BF16)
        tp_mma_bf16(d, ra, rb);
    else
        tp_mma_f16(d, ra, rb);
    for (int i = 0; i < 4; i++)
        c[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2] = d[i];
}

template <class T, bool BF16> static void check_products()
{
    for (int round = 0; round < 20; round++) {
        T a[2 * 256], b[2 * 128];
        float c[2 * 128], want[2 * 128];
        for (T &x : a)
            x = small_number();
        for (T &x : b)
            x = small_number();
        for (float &x : c)
            x = small_number();
        for (int i = 0; i < 256; i++) {
            int w = i / 128, m = i / 8 % 16, n = i % 8;
            want[i] = c[i];
            for (int k = 0; k < 16; k++)
                want[i] += (float)a[w * 256 + m * 16 + k] * (float)b[w * 128 + k * 8 + n];
        }
        TP_LAUNCH((multiply<T, BF16>), 1, 64, 0, NULL, c, a, b);
        assert_memory_equal(c, want, sizeof(c)); /* exact: few bits */
    }
}

static void products(void **state)
{
    (void)state;
    check_products<__nv_bfloat16, true>();
    check_products<__half, false>();
}

/* Values at the edges of the formats go through mma as they are: 1 * x, everything else 0. */
static void products_of_special_values(void **state)
{
    (void)state;
    static const uint16_t halves[] = {0x0001, 0x03ff, 0x0400, 0x7bff,
                                      0x8001, 0xfbff, 0x3c01, 0x8000};
    for (uint16_t bits : halves) {
        __half a[2 * 256], b[2 * 128];
        float c[2 * 128];
        memset(c, 0, sizeof(c));
        for (__half &x : a)
            x = 0.0f;
        for (__half &x : b)
            x = 0.0f;
        for (int i = 0; i < 16; i++)
            a[i * 16 + i] = 1.0f;
        for (int i = 0; i < 128; i++)
            b[i] = __ushort_as_half(bits);
        TP_LAUNCH((multiply<__half, false>), 1, 64, 0, NULL, c, a, b);
        for (int i = 0; i < 128; i++)
            assert_true(c[i] == __half2float(__ushort_as_half(bits)));
    }
}

/* ---- cp.async ---- */

TP_KERNEL(32) copy_groups(uint32_t *out, const uint32_t *in)
{
    TP_DYN_SMEM(uint32_t, s);
    int lane = (int)threadIdx.x;
    uint32_t *mine = s + lane * 16;
    for (int i = 0; i < 3; i++) {
        tp_cp_async16(mine + 4 * i, in + lane * 16 + 4 * i, i != 1 || lane % 2);
        tp_cp_async_commit();
    }
    tp_cp_async_commit(); /* an empty group counts too */
    tp_cp_async_wait<2>();
    for (int i = 0; i < 8; i++)
        out[lane * 16 + i] = mine[i];
#ifndef __SANITIZE_ADDRESS__
    out[lane * 16 + 12] = mine[8]; /* too soon */
#endif
    tp_cp_async16(mine + 12, in + lane * 16 + 12, true); /* in no group yet */
    tp_cp_async_wait<0>();
    for (int i = 8; i < 12; i++)
        out[lane * 16 + i] = mine[i];
#ifndef __SANITIZE_ADDRESS__
    out[lane * 16 + 13] = mine[12];
#endif
    tp_cp_async_commit();
    tp_cp_async_wait<0>();
    out[lane * 16 + 14] = mine[15];
}

static void copies_land_at_their_wait(void **state)
{
    (void)state;
    alignas(16) uint32_t in[512];
    uint32_t out[512];
    for (uint32_t &x : in)
        x = random_word();
    memset(out, 0xff, sizeof(out));
    TP_LAUNCH(copy_groups, 1, 32, 32 * 64, NULL, out, in);
    for (int i = 0; i < 512; i++) {
        int lane = i / 16, word = i % 16;
        bool invalid = word / 4 == 1 && lane % 2 == 0;
        if (word < 12)
            assert_int_equal(out[i], invalid ? 0 : in[i]);
        else if (word < 14)
            assert_int_equal(out[i], 0xffffffffu);
        else if (word == 14)
            assert_int_equal(out[i], in[i + 1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shuffles_of_all_types),      cmocka_unit_test(votes_and_parts),
        cmocka_unit_test(last_warp_may_be_short),     cmocka_unit_test(ldmatrix_both_ways),
        cmocka_unit_test(ldmatrix_conflicts),         cmocka_unit_test(products),
        cmocka_unit_test(products_of_special_values), cmocka_unit_test(copies_land_at_their_wait),
    };
    return cmocka_run_group_tests_name("emulated warps", tests, NULL, NULL);
}
