/* SPDX-License-Identifier: Apache-2.0 */
/* test_emu_block.cu - launches, indices, barriers, shared memory, atomics and spin loops of the emulated device.
 *
 * emu_stream_enqueue() is this file's own: it can keep a launch, as a graph does, and run it later, several times.
 */
#include <pthread.h>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/emu/emu_stream.h"
#include "tests/cuda/emu_test.h"

/* ---- a stream that is a list ---- */

enum { KEPT_MAX = 4 };
static struct {
    void (*run)(void *);
    void *closure;
    void (*drop)(void *);
} kept[KEPT_MAX];
static int n_kept, keep;

extern "C" int emu_stream_enqueue(void *stream, void (*run)(void *closure), void *closure,
                                  void (*drop)(void *closure))
{
    (void)stream;
    if (keep) {
        kept[n_kept].run = run;
        kept[n_kept].closure = closure;
        kept[n_kept++].drop = drop;
        return 0;
    }
    run(closure);
    drop(closure);
    return 0;
}

/* ---- indices ---- */

struct where {
    unsigned thread[3], block[3], block_dim[3], grid_dim[3];
};

TP_KERNEL(60) note_where(where *out)
{
    unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] = where{
        {threadIdx.x, threadIdx.y, threadIdx.z},
        {blockIdx.x, blockIdx.y, blockIdx.z},
        {blockDim.x, blockDim.y, blockDim.z},
        {gridDim.x, gridDim.y, gridDim.z},
    };
}

static void indices(void **state)
{
    (void)state;
    enum { GX = 3, GY = 2, GZ = 2, BX = 5, BY = 4, BZ = 3 };
    static where out[GX * GY * GZ * BX * BY * BZ];
    memset(out, 0xff, sizeof(out));
    TP_LAUNCH(note_where, dim3(GX, GY, GZ), dim3(BX, BY, BZ), 0, NULL, out);
    assert_int_equal(TP_LAUNCH_STATUS(), 0);
    const where *w = out;
    for (unsigned b = 0; b < GX * GY * GZ; b++)
        for (unsigned t = 0; t < BX * BY * BZ; t++, w++) {
            const where want = {{t % BX, t / BX % BY, t / BX / BY},
                                {b % GX, b / GX % GY, b / GX / GY},
                                {BX, BY, BZ},
                                {GX, GY, GZ}};
            assert_memory_equal(w, &want, sizeof(want));
        }
}

/* ---- barriers and shared memory ---- */

template <int THREADS> TP_KERNEL(THREADS) reverse_rounds(uint32_t *out, int rounds, int n_words)
{
    TP_SHARED(uint32_t, fixed, THREADS);
    TP_SHARED(unsigned char, bytes, 3);
    TP_DYN_SMEM(uint32_t, dyn);
    int t = (int)threadIdx.x;
    uint32_t fresh = dyn[t] & fixed[t] & bytes[t % 3];
    __syncthreads();
    dyn[t] = (uint32_t)t;
    for (int i = 0; i < rounds; i++) {
        __syncthreads();
        fixed[t] = dyn[THREADS - 1 - t] + 1;
        __syncthreads();
        dyn[t] = fixed[t];
    }
    if (t == 0)
        bytes[2] = 7;
    __syncthreads();
    uint32_t *row = out + (size_t)blockIdx.x * (THREADS + 2);
    row[t] = dyn[t];
    if (t == 0) {
        row[THREADS] = fresh;
        row[THREADS + 1] = bytes[2] + (dyn[n_words - 1] != 0);
    }
}

static void barriers(void **state)
{
    (void)state;
    enum { THREADS = 160, BLOCKS = 3, ROUNDS = 5 };
    static uint32_t out[BLOCKS * (THREADS + 2)];
    memset(out, 0, sizeof(out));
    TP_LAUNCH((reverse_rounds<THREADS>), BLOCKS, THREADS, THREADS * 4, NULL, out, ROUNDS, THREADS);
    assert_int_equal(TP_LAUNCH_STATUS(), 0);
    for (int b = 0; b < BLOCKS; b++) {
        const uint32_t *row = out + b * (THREADS + 2);
        for (int t = 0; t < THREADS; t++)
            assert_int_equal(row[t], THREADS - 1 - t + ROUNDS);
        assert_int_equal(row[THREADS], 0xff); /* every block finds NaN in its memory */
        assert_int_equal(row[THREADS + 1], 8);
    }
}

TP_KERNEL(64) leave_early(int *out)
{
    if (threadIdx.x >= 32)
        return; /* a whole warp: the others' barriers do not count it */
    __syncthreads();
    out[threadIdx.x] = 1;
}

static void whole_warps_may_leave(void **state)
{
    (void)state;
    int out[32] = {0};
    TP_LAUNCH(leave_early, 1, 64, 0, NULL, out);
    for (int i = 0; i < 32; i++)
        assert_int_equal(out[i], 1);
}

/* ---- atomics ---- */

struct tallies {
    unsigned sum, inc, cas, lowest, highest_at;
    int highest, swapped;
    unsigned long long wide;
    unsigned bits;
    unsigned last; /* of the block that came last */
};

TP_KERNEL(64) tally(tallies *a)
{
    unsigned id = blockIdx.x * blockDim.x + threadIdx.x;
    atomicAdd(&a->sum, id);
    atomicAdd(&a->wide, (unsigned long long)id << 32);
    atomicInc(&a->inc, 9);
    atomicMax(&a->highest, (int)id - 100);
    atomicMin(&a->lowest, 1000 - id);
    atomicOr(&a->bits, 1u << (id % 32));
    unsigned old = atomicAdd(&a->cas, 0u), seen;
    do {
        seen = old;
        old = atomicCAS(&a->cas, seen, seen + 2);
    } while (old != seen);
    TP_SHARED(unsigned, is_last, 1);
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0)
        is_last[0] = atomicAdd(&a->last, 1u) == gridDim.x - 1;
    __syncthreads();
    if (is_last[0] && threadIdx.x == 0)
        atomicExch(&a->swapped, (int)a->sum);
}

static void atomics(void **state)
{
    (void)state;
    tallies a = {};
    a.highest = -1000;
    a.lowest = 5000;
    TP_LAUNCH(tally, 4, 64, 0, NULL, &a);
    assert_int_equal(a.sum, 255 * 256 / 2);
    assert_true(a.wide == (unsigned long long)(255 * 256 / 2) << 32);
    assert_int_equal(a.inc, 256 % 10);
    assert_int_equal(a.highest, 155);
    assert_int_equal(a.lowest, 745);
    assert_int_equal(a.bits, 0xffffffffu);
    assert_int_equal(a.cas, 512);
    assert_int_equal(a.swapped, 255 * 256 / 2);
}

/* ---- launches that CUDA refuses ---- */

TP_KERNEL(1024) nothing(int *p)
{
    if (p && threadIdx.x == 0)
        *p = 1;
}
template <int THREADS> TP_KERNEL(THREADS) bounded(int *p)
{
    if (p && threadIdx.x == 0)
        *p = THREADS;
}
TP_KERNEL(1024) much_memory(unsigned char *out, int at)
{
    TP_DYN_SMEM(unsigned char, s);
    if (threadIdx.x == 0) {
        s[at] = 5;
        *out = s[at];
    }
}

static void expect_launch(dim3 grid, dim3 block, size_t smem, int want)
{
    TP_LAUNCH(nothing, grid, block, smem, NULL, (int *)NULL);
    assert_int_equal(TP_LAUNCH_STATUS(), want);
    assert_int_equal(TP_LAUNCH_STATUS(), 0);
}

template <int BOUND> static void expect_bound()
{
    for (int threads = 32; threads <= 1024; threads += 32) {
        int ran = 0;
        TP_LAUNCH(bounded<BOUND>, 1, threads, 0, NULL, &ran);
        assert_int_equal(TP_LAUNCH_STATUS(), threads > BOUND ? EMU_ERROR_RESOURCES : EMU_OK);
        assert_int_equal(ran, threads > BOUND ? 0 : BOUND);
    }
}

/* More threads than the kernel was compiled for. */
static void launch_bounds(void **state)
{
    (void)state;
#ifdef __clang__
    skip();
#endif
    expect_bound<32>();
    expect_bound<96>();
    expect_bound<256>();
    expect_bound<1024>();
}

static void refused_launches(void **state)
{
    (void)state;
    const int configuration = EMU_ERROR_INVALID_CONFIGURATION, value = EMU_ERROR_INVALID_VALUE;
    expect_launch(1, 1, 0, 0);
    expect_launch(1, 1024, 48 << 10, 0);
    expect_launch(0, 32, 0, configuration);
    expect_launch(1, 0, 0, configuration);
    expect_launch(1, 1025, 0, configuration);
    expect_launch(1, dim3(32, 33), 0, configuration);
    expect_launch(1, dim3(1, 1, 65), 0, configuration);
    expect_launch(dim3(1, 65536), 1, 0, configuration);
    expect_launch(dim3(0x80000000u), 1, 0, configuration);
    expect_launch(1, 32, (48 << 10) + 1, value);
    assert_string_equal(TP_LAUNCH_ERROR_NAME(value), "cudaErrorInvalidValue");

    unsigned char out = 0;
    const int most = 227 << 10;
    assert_int_equal(TP_ALLOW_SMEM(much_memory, most + 1), value);
    assert_int_equal(TP_ALLOW_SMEM(much_memory, most - 16), 0);
    TP_LAUNCH(much_memory, 1, 32, most - 16, NULL, &out, most - 17);
    assert_int_equal(TP_LAUNCH_STATUS(), 0);
    assert_int_equal(out, 5);
    TP_LAUNCH(much_memory, 1, 32, most, NULL, &out, 0);
    assert_int_equal(TP_LAUNCH_STATUS(), value);
    emu_set_smem_limit(99 << 10); /* as sm_89 */
    assert_int_equal(TP_ALLOW_SMEM(much_memory, 100 << 10), value);
    TP_LAUNCH(much_memory, 1, 32, 100 << 10, NULL, &out, 0);
    assert_int_equal(TP_LAUNCH_STATUS(), value);
    emu_set_smem_limit(most);
}

/* ---- launches that are kept ---- */

struct plain {
    int a[20];
};
TP_KERNEL(32) add_field(int *sum, const plain p, int which, int64_t times)
{
    if (threadIdx.x == 0)
        *sum += p.a[which] * (int)times;
}

static void kept_launches_hold_copies(void **state)
{
    (void)state;
    int sum = 0;
    plain p = {{10, 20, 30}};
    keep = 1;
    TP_LAUNCH(add_field, 1, 32, 0, NULL, &sum, p, 2, 2);
    keep = 0;
    p.a[2] = 0;
    assert_int_equal(sum, 0);
    for (int i = 1; i <= 3; i++) {
        kept[0].run(kept[0].closure);
        assert_int_equal(sum, i * 60);
    }
    kept[0].drop(kept[0].closure);
    n_kept = 0;
}

/* ---- spin loops ---- */

TP_KERNEL(64) ping_pong(uint32_t *flag, uint32_t rounds)
{
    uint32_t me = threadIdx.x / 32;
    for (uint32_t i = 0; i < rounds; i++) {
        while (__atomic_load_n(flag, __ATOMIC_ACQUIRE) < 2 * i + me)
            TP_SPIN_PAUSE();
        __syncwarp();
        if (threadIdx.x % 32 == 0)
            __atomic_store_n(flag, 2 * i + me + 1, __ATOMIC_RELEASE);
        __syncwarp();
    }
}

static void warps_wait_for_each_other(void **state)
{
    (void)state;
    uint32_t flag = 0;
    TP_LAUNCH(ping_pong, 1, 64, 0, NULL, &flag, 20u);
    assert_int_equal(flag, 40);
}

/* Two OS threads, each a rank with blocks of its own, meet in every block. */
struct meeting {
    uint32_t arrived[2][4];
};
TP_KERNEL(32) meet(meeting *m, int rank, uint32_t epoch)
{
    if (threadIdx.x == 0) {
        __atomic_store_n(&m->arrived[rank][blockIdx.x], epoch, __ATOMIC_RELEASE);
        while (__atomic_load_n(&m->arrived[1 - rank][blockIdx.x], __ATOMIC_ACQUIRE) < epoch)
            TP_SPIN_PAUSE();
    }
    __syncthreads();
}

static meeting place;

static void *run_rank(void *rank)
{
    for (uint32_t epoch = 1; epoch <= 25; epoch++)
        TP_LAUNCH(meet, 4, 32, 0, NULL, &place, *(int *)rank, epoch);
    return NULL;
}

static void ranks_on_threads(void **state)
{
    (void)state;
    pthread_t thread[2];
    int rank[2] = {0, 1};
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, run_rank, &rank[i]), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_join(thread[i], NULL), 0);
    assert_int_equal(place.arrived[0][3], 25);
    assert_int_equal(place.arrived[1][0], 25);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(indices),
        cmocka_unit_test(barriers),
        cmocka_unit_test(whole_warps_may_leave),
        cmocka_unit_test(atomics),
        cmocka_unit_test(launch_bounds),
        cmocka_unit_test(refused_launches),
        cmocka_unit_test(kept_launches_hold_copies),
        cmocka_unit_test(warps_wait_for_each_other),
        cmocka_unit_test(ranks_on_threads),
    };
    return cmocka_run_group_tests_name("emulated blocks", tests, NULL, NULL);
}
