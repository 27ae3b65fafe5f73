/* SPDX-License-Identifier: Apache-2.0 */
/* test_emu_schedules.cu - a kernel without races gives the same bytes in every order of its threads and blocks.
 *
 * The kernel has all that ours have: a ring of cp.async tiles, ldmatrix, mma, shuffles, shared arrays, and a last block
 * that joins what the others left, by index.
 */
#include "kernels/cuda/ptx.cuh"
#include "tests/cuda/emu_test.h"

enum {
    M = 32,
    N = 16,
    K = 128,
    STEP = 32,
    STAGES = 3,
    WARPS = 4,
    BLOCKS = 5,
    THREADS = 32 * WARPS
};

/* One stage: a [M][STEP], b [STEP][N], rows padded to an odd number of 16 bytes. */
enum { LD_A = STEP + 8, LD_B = N + 8, STAGE = M * LD_A + STEP * LD_B };

TP_DEV void load_stage(__nv_bfloat16 *s, const __nv_bfloat16 *a, const __nv_bfloat16 *b, int k0)
{
    for (int i = (int)threadIdx.x; i < M * STEP / 8; i += THREADS) {
        int row = i / (STEP / 8), column = i % (STEP / 8) * 8;
        tp_cp_async16(s + row * LD_A + column, a + row * K + k0 + column, true);
    }
    __nv_bfloat16 *to = s + M * LD_A;
    for (int i = (int)threadIdx.x; i < STEP * N / 8; i += THREADS) {
        int row = i / (N / 8), column = i % (N / 8) * 8;
        tp_cp_async16(to + row * LD_B + column, b + (k0 + row) * N + column, k0 + row < K - 1);
    }
}

/* Warp w has the rows 16 (w / 2).. and columns 8 (w % 2)..; b's last row counts as zero. */
TP_KERNEL(THREADS)
multiply(float *parts, float *total, unsigned *done, const __nv_bfloat16 *a, const __nv_bfloat16 *b)
{
    TP_DYN_SMEM(__nv_bfloat16, ring);
    TP_SHARED(float, sum, WARPS);
    TP_SHARED(unsigned, is_last, 1);
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    a += (size_t)blockIdx.x * M * K;
    b += (size_t)blockIdx.x * K * N;

    float d[4] = {0, 0, 0, 0};
    for (int i = 0; i < STAGES - 1; i++) {
        load_stage(ring + i * STAGE, a, b, i * STEP);
        tp_cp_async_commit();
    }
    for (int i = 0; i < K / STEP; i++) {
        tp_cp_async_wait<STAGES - 2>();
        __syncthreads();
        int next = i + STAGES - 1;
        if (next < K / STEP)
            load_stage(ring + next % STAGES * STAGE, a, b, next * STEP);
        tp_cp_async_commit();
        const __nv_bfloat16 *s = ring + i % STAGES * STAGE, *sb = s + M * LD_A;
        uint32_t rb[4];
        tp_ldmatrix_x4_trans(rb, sb + lane * LD_B + warp % 2 * 8);
        for (int k = 0; k < STEP; k += 16) {
            uint32_t ra[4];
            tp_ldmatrix_x4(ra, s + (warp / 2 * 16 + lane % 16) * LD_A + k + lane / 16 * 8);
            tp_mma_bf16(d, ra, rb + k / 8);
        }
    }
    float v = d[0] + d[1] * 2 + d[2] * 3 + d[3] * 5;
    for (int o = 16; o > 0; o /= 2)
        v += __shfl_xor_sync(TP_WARP_ALL, v, o);
    if (lane == 0)
        sum[warp] = v;
    __syncthreads();
    if (threadIdx.x == 0) {
        parts[blockIdx.x] = sum[0] - sum[1] + sum[2] - sum[3];
        __threadfence();
        is_last[0] = atomicAdd(done, 1u) == gridDim.x - 1;
        __threadfence();
    }
    __syncthreads();
    if (is_last[0] && threadIdx.x == 0) {
        float t = 0;
        for (unsigned i = 0; i < gridDim.x; i++)
            t = t * 0.75f + parts[i];
        *total = t;
        *done = 0;
    }
}

struct results {
    float parts[BLOCKS], total;
};

static __nv_bfloat16 *a, *b;

static int make_inputs(void **state)
{
    (void)state;
    void *pa = NULL, *pb = NULL;
    assert_int_equal(posix_memalign(&pa, 16, BLOCKS * M * K * sizeof(*a)), 0);
    assert_int_equal(posix_memalign(&pb, 16, BLOCKS * K * N * sizeof(*b)), 0);
    a = (__nv_bfloat16 *)pa, b = (__nv_bfloat16 *)pb;
    uint32_t x = 12345;
    for (int i = 0; i < BLOCKS * M * K; i++)
        a[i] = (float)((x = x * 1664525u + 1013904223u) >> 8) * 0x1p-23f - 1.0f;
    for (int i = 0; i < BLOCKS * K * N; i++)
        b[i] = (float)((x = x * 1664525u + 1013904223u) >> 8) * 0x1p-23f - 1.0f;
    return 0;
}

static int free_inputs(void **state)
{
    (void)state;
    free(a);
    free(b);
    return 0;
}

static results run(emu_schedule schedule, uint64_t seed)
{
    results r;
    memset(&r, 0xff, sizeof(r));
    unsigned done = 0;
    emu_set_schedule(schedule, seed);
    TP_LAUNCH(multiply, BLOCKS, THREADS, STAGES * STAGE * 2, NULL, r.parts, &r.total, &done, a, b);
    assert_int_equal(TP_LAUNCH_STATUS(), 0);
    assert_int_equal(done, 0);
    return r;
}

static void same_bytes_in_every_order(void **state)
{
    (void)state;
    const results want = run(EMU_SCHED_FORWARD, 1);
    results r = run(EMU_SCHED_REVERSE, 1);
    assert_memory_equal(&r, &want, sizeof(r));
    for (uint64_t seed = 1; seed <= 5; seed++) {
        r = run(EMU_SCHED_RANDOM, seed);
        assert_memory_equal(&r, &want, sizeof(r));
    }
}

/* What the lanes of multiply() add to their sum, per element. */
static double weigh(int m, int n, double product)
{
    static const double weight[2][2] = {{1, 2}, {3, 5}};
    double w = weight[m % 16 / 8][n % 2];
    return (n / 8 ? -w : w) * product;
}

static void sums_are_right(void **state)
{
    (void)state;
    const results r = run(EMU_SCHED_FORWARD, 1);
    double total = 0;
    for (int block = 0; block < BLOCKS; block++) {
        double part = 0, size = 0;
        for (int i = 0; i < M * N; i++) {
            int m = i / N, n = i % N;
            double sum = 0;
            for (int k = 0; k < K - 1; k++)
                sum += (double)(float)a[(block * M + m) * K + k] *
                       (double)(float)b[(block * K + k) * N + n];
            part += weigh(m, n, sum);
            size += weigh(m, 0, sum < 0 ? -sum : sum);
        }
        double error = (double)r.parts[block] - part;
        assert_true((error < 0 ? -error : error) < 1e-5 * size);
        total = total * 0.75 + (double)r.parts[block];
    }
    double error = (double)r.total - total;
    assert_true((error < 0 ? -error : error) < 1e-3);
}

/* The kernel is laid out without conflicts in its reads of shared memory. */
static void no_bank_conflicts(void **state)
{
    (void)state;
    emu_counters n;
    emu_take_counters(&n);
    run(EMU_SCHED_FORWARD, 1);
    emu_take_counters(&n);
    assert_int_equal(n.mma, BLOCKS * WARPS * K / 16);
    assert_int_equal(n.ldmatrix, BLOCKS * WARPS * (K / 16 + K / STEP));
    assert_int_equal(n.ldmatrix_wavefronts, 4 * n.ldmatrix);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bytes_in_every_order),
        cmocka_unit_test(sums_are_right),
        cmocka_unit_test(no_bank_conflicts),
    };
    return cmocka_run_group_tests_name("schedules", tests, make_inputs, free_inputs);
}
