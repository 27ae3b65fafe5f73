/* SPDX-License-Identifier: Apache-2.0 */
/* test_model_load.c - loading when things go wrong on one rank: reads that fail, memory that is short; and dummy weights.
 * Ranks are threads; all of them must come back, with an error on each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <pthread.h>

#include "base/fault.h"
#include "base/mem.h"
#include "tests/model/model_testing.h"

#define RANKS_MAX 4
#define N_IDS     40

typedef struct rank_arg {
    comm_group *group;
    const char *dir;
    kern_dtype dtype;
    bool dummy, lazy;
    int n_threads;
    float *logits; /* [N_IDS, vocab] or NULL */
    tp_status status;
} rank_arg;

static comm_options group_options(void)
{
    return (comm_options){
        .kind = "shm", .window_bytes = 4 << 20, .plan_bytes_max = 64, .timeout_ms = 30000};
}

static void *rank_main(void *p)
{
    rank_arg *a = p;
    tm_options o = {.dir = a->dir,
                    .dtype = a->dtype,
                    .ops = kern_cpu_ops(),
                    .group = a->group,
                    .n_threads = a->n_threads,
                    .dummy = a->dummy,
                    .lazy = a->lazy};
    int32_t ids[N_IDS];
    tm_model m;

    a->status = tm_open(&m, &o);
    if (a->status != TP_OK)
        return NULL;
    for (int i = 0; i < N_IDS; i++)
        ids[i] = i * 37 % m.config.vocab;
    if (a->logits != NULL)
        a->status = tm_logits(&m, ids, N_IDS, N_IDS, a->logits);
    tm_close(&m);
    return NULL;
}

/* Loads on n ranks as `how` says; logits [n, N_IDS, 256] or NULL, statuses [n]. */
static void load_as(int n, const rank_arg *how, float *logits, tp_status *statuses)
{
    comm_options opt = group_options();
    comm_group *groups[RANKS_MAX];
    pthread_t threads[RANKS_MAX];
    rank_arg args[RANKS_MAX];

    assert_int_equal(comm_group_create_threads(groups, n, &opt), TP_OK);
    for (int i = 0; i < n; i++) {
        args[i] = *how;
        args[i].group = groups[i];
        args[i].logits = logits != NULL ? logits + (ptrdiff_t)i * N_IDS * 256 : NULL;
        assert_int_equal(pthread_create(&threads[i], NULL, rank_main, &args[i]), 0);
    }
    for (int i = 0; i < n; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < n; i++) {
        statuses[i] = args[i].status;
        comm_group_destroy(groups[i]);
    }
}

static void load_on(int n, const char *dir, bool dummy, float *logits, tp_status *statuses)
{
    load_as(n, &(rank_arg){.dir = dir, .dtype = KERN_DTYPE_F32, .dummy = dummy}, logits, statuses);
}

/* The k-th read fails on whichever rank makes it: header, first block, last block. */
static void test_read_fails(void **state)
{
    char dir[512];
    int failed = 0;

    (void)state;
    (void)snprintf(dir, sizeof dir, "%s/qwen2", TPSERVE_GOLDENS);
    for (int n = 1; n <= RANKS_MAX; n++) {
        for (int k = 1; k < 4096; k += k < 12 ? 1 : 9) {
            tp_status st[RANKS_MAX];

            assert_true(tp_fault_arm("load.read", k));
            load_on(n, dir, false, NULL, st);
            assert_true(tp_fault_arm("load.read", 0));
            if (st[0] == TP_OK) { /* fewer than k reads: all of them went well */
                for (int i = 0; i < n; i++)
                    assert_int_equal(st[i], TP_OK);
                break;
            }
            for (int i = 0; i < n; i++)
                assert_true(st[i] == TP_ERR_IO || st[i] == TP_ERR_COMM);
            failed++;
        }
    }
    print_message("%d injected failures\n", failed);
    assert_true(failed > 40);
}

/* Every allocation of a load fails once; under the address sanitizer this also shows that nothing leaks. */
static void test_memory_is_short(void **state)
{
    char dir[512];
    int64_t n = 0;
    tp_status st = TP_ERR_NOMEM;

    (void)state;
    (void)snprintf(dir, sizeof dir, "%s/shards", TPSERVE_GOLDENS);
    for (n = 0; st != TP_OK && n < 100000; n += n < 200 ? 1 : 23) {
        comm_options opt = group_options();
        comm_group *group;
        rank_arg a = {.dir = dir};

        assert_int_equal(comm_group_create_threads(&group, 1, &opt), TP_OK);
        a.group = group;
        tp_mem_fail_after(n);
        (void)rank_main(&a);
        tp_mem_fail_after(-1);
        comm_group_destroy(group);
        st = a.status;
    }
    print_message("%lld allocations\n", (long long)n);
    assert_int_equal(st, TP_OK);
}

static void test_dummy(void **state)
{
    static float logits[RANKS_MAX + 1][RANKS_MAX][N_IDS][256];
    char dir[512];

    (void)state;
    (void)snprintf(dir, sizeof dir, "%s/qwen2", TPSERVE_GOLDENS);
    for (int n = 1; n <= RANKS_MAX; n++) {
        tp_status st[RANKS_MAX];

        load_on(n, dir, true, &logits[n][0][0][0], st);
        for (int i = 0; i < n; i++) {
            assert_int_equal(st[i], TP_OK);
            assert_memory_equal(logits[1][0], logits[n][i], sizeof logits[1][0]);
        }
    }
    assert_true(memcmp(logits[1][0][0], logits[1][0][1], sizeof logits[1][0][0]) != 0);
}

/* Weights that come in while the model is used: the first steps find none of them, the last ones all; every bit of the
 * logits is that of a model that was loaded first. */
static void test_lazy(void **state)
{
    static const char *const traits[] = {"qwen2", "shards", "llama_bias"};
    static float want[N_IDS * 256], got[RANKS_MAX][N_IDS * 256];
    char dir[512];
    tp_status st[RANKS_MAX];

    (void)state;
    for (int i = 0; i < (int)TP_ARRAY_LEN(traits) * 3; i++) {
        rank_arg how = {.dir = dir, .dtype = (kern_dtype)(i % 3), .n_threads = 1 + i % 2};

        (void)snprintf(dir, sizeof dir, "%s/%s", TPSERVE_GOLDENS, traits[i / 3]);
        load_as(1, &how, want, st);
        assert_int_equal(st[0], TP_OK);
        how.lazy = true;
        for (int n = 1; n <= RANKS_MAX; n++) {
            memset(got, 0xff, sizeof got);
            assert_true(tp_fault_arm("load.late", n % 2)); /* 1: nothing is loaded */
            load_as(n, &how, got[0], st);
            assert_true(tp_fault_arm("load.late", 0));
            for (int rank = 0; rank < n; rank++) {
                assert_int_equal(st[rank], TP_OK);
                assert_memory_equal(want, got[rank], sizeof want);
            }
        }
    }
}

/* One model from its first step, when nothing is loaded, to those after all is. */
static void test_lazy_to_the_end(void **state)
{
    static float first[N_IDS * 256], later[N_IDS * 256];
    tm_options o = {.dtype = KERN_DTYPE_BF16, .ops = kern_cpu_ops(), .lazy = true};
    comm_options opt = group_options();
    int32_t ids[N_IDS];
    char dir[512];
    int64_t bytes = 0;
    double seconds;
    tm_model m;

    (void)state;
    (void)snprintf(dir, sizeof dir, "%s/qwen2", TPSERVE_GOLDENS);
    o.dir = dir;
    assert_int_equal(comm_group_create_threads(&o.group, 1, &opt), TP_OK);
    assert_true(tp_fault_arm("load.late", 1));
    assert_int_equal(tm_open(&m, &o), TP_OK);
    for (int i = 0; i < N_IDS; i++)
        ids[i] = i * 37 % m.config.vocab;
    assert_int_equal(tm_logits(&m, ids, N_IDS, N_IDS, first), TP_OK);
    assert_true(tp_fault_arm("load.late", 0));
    for (int step = 0; step < 20000 && bytes == 0; step++) {
        assert_int_equal(tm_logits(&m, ids, N_IDS, N_IDS, later), TP_OK);
        assert_memory_equal(first, later, sizeof first);
        rt_model_load_stats(m.model, &bytes, &seconds); /* known when all is there */
    }
    assert_true(bytes > 0);
    assert_int_equal(tm_logits(&m, ids, N_IDS, N_IDS, later), TP_OK);
    assert_memory_equal(first, later, sizeof first);
    tm_close(&m);
    comm_group_destroy(o.group);
}

/* A read that fails when the model is in use already: the step that needs it fails, or the one after the crew met it. */
static void test_lazy_read_fails(void **state)
{
    static float logits[N_IDS * 256];
    char dir[512];
    int failed = 0;

    (void)state;
    (void)snprintf(dir, sizeof dir, "%s/qwen2", TPSERVE_GOLDENS);
    for (int k = 1; k < 4096; k += 7) {
        rank_arg how = {.dir = dir, .dtype = KERN_DTYPE_F32, .lazy = true};
        tp_status st;

        assert_true(tp_fault_arm("load.late", 1));
        assert_true(tp_fault_arm("load.read", k));
        load_as(1, &how, logits, &st);
        assert_true(tp_fault_arm("load.late", 0));
        if (tp_fault_armed("load.read"))
            break;
        assert_int_equal(st, TP_ERR_IO);
        failed++;
    }
    assert_true(tp_fault_arm("load.read", 0));
    print_message("%d injected failures\n", failed);
    assert_true(failed > 10);
}

/* A NaN in a weight is a warning, not a failure: answers tell the client. */
static void test_nan(void **state)
{
    char from[512], dir[] = "/tmp/tpserve-nan-XXXXXX", to[600], buf[4096];
    static const char *const names[] = {"config.json", "model.safetensors"};
    tp_status st;
    FILE *f;

    (void)state;
    assert_non_null(mkdtemp(dir));
    for (size_t i = 0; i < TP_ARRAY_LEN(names); i++) {
        FILE *in, *out;
        size_t n;

        (void)snprintf(from, sizeof from, "%s/llama_bias/%s", TPSERVE_GOLDENS, names[i]);
        (void)snprintf(to, sizeof to, "%s/%s", dir, names[i]);
        in = fopen(from, "rb");
        out = fopen(to, "wb");
        assert_true(in != NULL && out != NULL);
        while ((n = fread(buf, 1, sizeof buf, in)) > 0)
            assert_int_equal(fwrite(buf, 1, n, out), n);
        (void)fclose(in);
        (void)fclose(out);
    }
    f = fopen(to, "r+b"); /* the last four bytes are one float of the last tensor */
    assert_non_null(f);
    assert_int_equal(fseek(f, -4, SEEK_END), 0);
    assert_int_equal(fwrite("\x00\x00\xc0\x7f", 1, 4, f), 4);
    (void)fclose(f);
    load_on(1, dir, false, NULL, &st);
    assert_int_equal(st, TP_OK);
    for (size_t i = 0; i < TP_ARRAY_LEN(names); i++) {
        (void)snprintf(to, sizeof to, "%s/%s", dir, names[i]);
        (void)unlink(to);
    }
    (void)rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_fails),
        cmocka_unit_test(test_memory_is_short),
        cmocka_unit_test(test_dummy),
        cmocka_unit_test(test_lazy),
        cmocka_unit_test(test_lazy_to_the_end),
        cmocka_unit_test(test_lazy_read_fails),
        cmocka_unit_test(test_nan),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
