/* SPDX-License-Identifier: Apache-2.0 */
/* test_device.c - groups whose data lie on devices, at the number of ranks that mpirun started: sums through the host,
 * a reducer that adds wrongly, the choice and its table, deadlines.  The device is ordinary memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "comm/device.h"
#include "comm/device/side.h"
#include "comm/reduce_bench.h"
#include "tests/comm/host_device.h"
#include "tests/harness/mpi_main.h"

#define COUNT_MAX 700000

static comm_world g_world;

static comm_group *make(const char *kind, int64_t timeout_ms)
{
    comm_options opt = {.kind = kind,
                        .window_bytes = COUNT_MAX * sizeof(float),
                        .plan_bytes_max = 4096,
                        .timeout_ms = timeout_ms};
    comm_group *g = NULL;

    assert_int_equal(comm_group_create(&g, &g_world, &opt), TP_OK);
    return g;
}

/* Magnitudes over 2^26: another order of additions shows. */
static float value(int rank, int64_t i)
{
    static const float scale[4] = {1e-3f, 1.0f, 100.0f, 1e5f};
    uint32_t h = (uint32_t)i * 0x9e3779b9u + (uint32_t)rank * 0x85ebca6bu;

    h ^= h >> 15;
    h *= 0x2c1b3c6du;
    h ^= h >> 13;
    return ((float)(h >> 8) - 8388608.0f) * (1.0f / 8388608.0f) * scale[h & 3];
}

/* Sums `count` elements; in the window or elsewhere, in place or not. */
static void check_sum(comm_group *g, int64_t count, bool in_window, bool in_place)
{
    float *mem = tp_aligned_alloc(64, COUNT_MAX * sizeof(float));
    float *other = tp_aligned_alloc(64, COUNT_MAX * sizeof(float));
    float *in = in_window ? comm_window(g) : mem, *out = in_place ? in : other;

    for (int64_t i = 0; i < count; i++)
        in[i] = value(g_world.rank, i);
    assert_int_equal(
        comm_reduce(g, &(comm_reduce_args){.n_seg = 8, .roots = in, .out = out, .count = count}),
        TP_OK);
    assert_int_equal(comm_device_poll(g), TP_OK);
    for (int64_t i = 0; i < count; i++) {
        float want = value(0, i);

        for (int r = 1; r < g_world.size; r++)
            want += value(r, i);
        if (memcmp(&want, &out[i], sizeof want) != 0)
            fail_msg("%s rank %d/%d count %lld: element %lld is %a, not %a", comm_kind(g),
                     g_world.rank, g_world.size, (long long)count, (long long)i, (double)out[i],
                     (double)want);
    }
    tp_free(mem);
    tp_free(other);
}

static void test_sums(void **state)
{
    static const int64_t counts[] = {1, 3, 16, 1000, 8192, 65537, COUNT_MAX};
    comm_device d = host_device();
    comm_group *g = make(*state, 60000);

    if (g_world.size == 1) {
        comm_group_destroy(g);
        skip();
    }
    assert_int_equal(comm_attach_device(g, &d, *state, NULL), TP_OK);
    assert_string_equal(comm_device_choice(g), "staged");
    assert_false(comm_device_captures(g));
    for (size_t i = 0; i < TP_ARRAY_LEN(counts); i++) {
        check_sum(g, counts[i], true, false);
        check_sum(g, counts[i], false, false);
        check_sum(g, counts[i], false, true);
    }
    comm_group_destroy(g);
}

static void test_one_rank(void **state)
{
    comm_device d = host_device();
    comm_group *g;
    float x = 1;

    (void)state;
    if (g_world.size != 1)
        skip();
    g = make("auto", 1000);
    assert_int_equal(comm_attach_device(g, &d, "auto", NULL), TP_OK);
    assert_string_equal(comm_device_choice(g), "");
    assert_int_equal(comm_device_poll(g), TP_OK);
    assert_int_equal(comm_reduce(g, &(comm_reduce_args){.roots = &x, .out = &x, .count = 1}),
                     TP_ERR_INVALID);
    comm_group_destroy(g);
}

static void test_words(void **state)
{
    comm_device d = host_device();
    comm_group *g = make("auto", 20000);

    (void)state;
    assert_int_equal(comm_attach_device(g, &d, "smoke", NULL), TP_ERR_INVALID);
    if (g_world.size > 1) {
        assert_int_equal(comm_attach_device(g, &d, "nccl", NULL), TP_ERR_UNSUPPORTED);
        assert_non_null(strstr(tp_last_error(), "--comm nccl"));
        assert_int_equal(comm_attach_device(g, &d, "auto", NULL),
                         TP_OK); /* nothing was left behind */
        check_sum(g, 1000, true, false);
    }
    assert_string_equal(comm_host_kind("p2p"), "auto");
    assert_string_equal(comm_host_kind("nccl"), "auto");
    assert_string_equal(comm_host_kind("shm"), "shm");
    comm_group_destroy(g);
}

/* ---- reducers that are not what they should be ---- */

typedef enum fault {
    FAULT_NONE,
    FAULT_ABSENT,
    FAULT_WRONG,
    FAULT_ONE_RANK_WRONG,
    FAULT_LATE
} fault;

static fault g_fault;
static int g_alive;

typedef struct odd {
    comm_reducer base;
    comm_reducer *staged;
    bool late;
} odd;

static tp_status odd_create(comm_reducer **out, comm_group *g, const comm_device *d,
                            size_t window_bytes, int64_t timeout_ms);

static void odd_destroy(comm_reducer *r)
{
    odd *o = (odd *)r;

    o->staged->ops->destroy(o->staged);
    tp_free(o);
    g_alive--;
}

static int64_t odd_bytes_max(const comm_reducer *r, int way)
{
    (void)r;
    return way == 0 ? 4096 : INT64_MAX;
}

static tp_status odd_reduce(comm_reducer *r, int way, const float *in, float *out, int64_t count)
{
    odd *o = (odd *)r;

    TP_TRY(o->staged->ops->reduce(o->staged, 0, in, out, count));
    if (way == 1 &&
        (g_fault == FAULT_WRONG || (g_fault == FAULT_ONE_RANK_WRONG && g_world.rank == 1)))
        out[count / 2] += 0.5f;
    o->late = g_fault == FAULT_LATE;
    return TP_OK;
}

static tp_status odd_poll(comm_reducer *r)
{
    return ((odd *)r)->late ? TP_REJECT(TP_ERR_TIMEOUT, "rank 0 waited for rank 1") : TP_OK;
}

static void odd_abort(comm_reducer *r)
{
    (void)r;
}

static const char *const odd_ways[] = {"p2p-1", "p2p-2", NULL};
static const comm_reducer_ops odd_ops = {.name = "p2p",
                                         .ways = odd_ways,
                                         .rank_order = true,
                                         .captures = true,
                                         .create = odd_create,
                                         .destroy = odd_destroy,
                                         .bytes_max = odd_bytes_max,
                                         .reduce = odd_reduce,
                                         .poll = odd_poll,
                                         .abort = odd_abort};
static const comm_reducer_ops *const odd_module[] = {&odd_ops, NULL};

static tp_status odd_create(comm_reducer **out, comm_group *g, const comm_device *d,
                            size_t window_bytes, int64_t timeout_ms)
{
    odd *o;
    tp_status st = g_fault == FAULT_ABSENT && comm_rank(g) == 1
                       ? TP_REJECT(TP_ERR_UNSUPPORTED, "no link here")
                       : TP_OK;

    TP_TRY(comm_device_agree(g, st));
    o = tp_calloc(1, sizeof *o);
    TP_TRY(comm_staged_ops.create(&o->staged, g, d, window_bytes, timeout_ms));
    o->base.ops = &odd_ops;
    g_alive++;
    *out = &o->base;
    return TP_OK;
}

static comm_group *attach_odd(fault f, const char *want, tp_status expected)
{
    comm_device d = host_device();
    comm_group *g = make("auto", 20000);

    g_fault = f;
    assert_int_equal(comm_attach_device(g, &d, want, odd_module), expected);
    return g;
}

static void test_choice(void **state)
{
    static const fault faults[] = {FAULT_ABSENT, FAULT_WRONG, FAULT_ONE_RANK_WRONG};
    comm_group *g;

    (void)state;
    if (g_world.size == 1)
        skip();
    g = attach_odd(FAULT_NONE, "auto", TP_OK);
    assert_string_equal(comm_device_choice(g), "p2p-1 to 4 KiB, p2p-2 above");
    assert_true(comm_device_captures(g));
    check_sum(g, 1024, true, false);
    check_sum(g, 1025, true, false);
    comm_group_destroy(g);
    assert_int_equal(g_alive, 0);
    for (size_t i = 0; i < TP_ARRAY_LEN(faults); i++) {
        g = attach_odd(faults[i], "auto", TP_OK);
        assert_string_equal(comm_device_choice(g), "staged");
        assert_int_equal(g_alive, 0);
        check_sum(g, 1000, true, false);
        comm_group_destroy(g);
        g = attach_odd(faults[i], "p2p",
                       faults[i] == FAULT_ABSENT ? TP_ERR_UNSUPPORTED : TP_ERR_DEVICE);
        assert_int_equal(g_alive, 0);
        comm_group_destroy(g);
    }
}

/* A reducer that fails later kills the group; the others' waits end. */
static void test_poll(void **state)
{
    comm_group *g;
    float *w;

    (void)state;
    if (g_world.size == 1)
        skip();
    g = attach_odd(FAULT_NONE, "auto", TP_OK);
    w = comm_window(g);
    if (g_world.rank == 0) {
        g_fault = FAULT_LATE;
        assert_int_equal(comm_reduce(g, &(comm_reduce_args){.roots = w, .out = w, .count = 16}),
                         TP_OK);
        assert_int_equal(comm_device_poll(g), TP_ERR_TIMEOUT);
        assert_int_equal(comm_barrier(g), TP_ERR_COMM);
    } else {
        assert_int_equal(comm_reduce(g, &(comm_reduce_args){.roots = w, .out = w, .count = 16}),
                         TP_OK);
        assert_int_equal(comm_barrier(g), TP_ERR_COMM);
    }
    comm_group_destroy(g);
}

/* A rank that stays away: the others' sums fail at the deadline of the group. */
static void test_deadline(void **state)
{
    comm_device d = host_device();
    comm_group *g;
    float *w;

    (void)state;
    if (g_world.size == 1)
        skip();
    g = make("auto", 400);
    assert_int_equal(comm_attach_device(g, &d, "shm", NULL), TP_OK);
    w = comm_window(g);
    if (g_world.rank == 0) {
        tp_sleep_us(1500 * 1000);
    } else {
        tp_status st = comm_reduce(g, &(comm_reduce_args){.roots = w, .out = w, .count = 16});

        assert_true(st == TP_ERR_TIMEOUT || st == TP_ERR_COMM);
    }
    comm_group_destroy(g);
}

/* ---- measuring ---- */

static int g_rows;

static void see_row(void *arg, const comm_bench_row *row)
{
    (void)arg;
    assert_true(row->us > 0 && row->bus_gbps > 0 && row->bytes > 0);
    assert_true(strcmp(row->way, "p2p-1") == 0 || strcmp(row->way, "p2p-2") == 0 ||
                strcmp(row->way, "staged") == 0 || strcmp(row->way, "shm") == 0);
    g_rows++;
}

static void test_bench(void **state)
{
    char path[64] = "";
    comm_group *g;
    comm_bench_options o = {.bytes_min = 1024,
                            .bytes_max = 64 * 1024,
                            .seconds = 0.002,
                            .table_path = path,
                            .device_name = "Ordinary Memory"};

    (void)state;
    snprintf(path, sizeof path, "/tmp/tpserve-comm-table-%d", g_world.size);
    g_rows = 0;
    if (g_world.size == 1)
        skip();
    g = make("shm", 20000);
    assert_int_equal(
        comm_bench_reduce(
            g, &(comm_bench_options){.bytes_min = 1024, .bytes_max = 4096, .seconds = 0.002},
            see_row, NULL),
        TP_OK);
    assert_int_equal(g_rows, g_world.rank == 0 ? 3 : 0);
    comm_group_destroy(g);
    g_rows = 0;
    g = attach_odd(FAULT_NONE, "auto", TP_OK);
    assert_int_equal(comm_bench_reduce(g, &o, see_row, NULL), TP_OK);
    assert_int_equal(g_rows, g_world.rank == 0 ? 3 + 7 + 7 : 0); /* p2p-1 only to 4 KiB */
    assert_int_equal(comm_device_use_table(g, path, "Ordinary Memory"), TP_OK);
    check_sum(g, 1024, true, false);
    assert_int_equal(comm_device_use_table(g, path, "Another"), TP_OK); /* warns, changes nothing */
    assert_int_equal(comm_barrier(g), TP_OK);
    if (g_world.rank == 0)
        (void)remove(path);
    assert_int_equal(comm_barrier(g), TP_OK);
    assert_int_equal(comm_device_use_table(g, path, NULL), TP_ERR_NOT_FOUND);
    comm_group_destroy(g);
}

static int run(void)
{
    static char kind_shm[] = "shm", kind_mpi[] = "mpi";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_sums, kind_shm),
        cmocka_unit_test_prestate(test_sums, kind_mpi),
        cmocka_unit_test(test_one_rank),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_poll),
        cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_bench),
    };

    if (comm_init(&g_world) != TP_OK || g_world.size != tp_mpi_test_size())
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
    return tp_mpi_test_main(argc, argv, run);
}
