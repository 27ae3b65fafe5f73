/* SPDX-License-Identifier: Apache-2.0 */
/* test_dev.c - the device of kernels/cuda/dev.h, as the emulator plays it: queues that run when somebody waits, events,
 * graphs, memory that the host cannot reach and that others can, errors that stay.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/log.h"
#include "kernels/cuda/emu/dev_emu.h"
#include "kernels/cuda/emu/emu_stream.h"

#define N 1000

#define OK(expr) assert_int_equal((expr), TP_OK)

static kern_dev *g_dev;
static kern_stream g_stream;
static unsigned char *g_pinned; /* N bytes */

static int set_up(void **state)
{
    void *p;

    (void)state;
    OK(kern_dev_open(&g_dev, 0));
    OK(kern_dev_stream_create(g_dev, &g_stream));
    OK(kern_dev_alloc_pinned(g_dev, N, &p));
    g_pinned = p;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    kern_dev_free_pinned(g_dev, g_pinned);
    kern_dev_stream_destroy(g_dev, g_stream);
    kern_dev_close(g_dev);
    return 0;
}

static void *device_bytes(size_t n)
{
    void *p;

    OK(kern_dev_alloc(g_dev, n, &p));
    assert_int_equal((uintptr_t)p % 256, 0);
    return p;
}

/* Work of tests: adds to a number on the host, so that one can see when it ran. */
static void add_one(void *closure)
{
    ++*(int *)closure;
}

static void run_add(int *n, kern_stream s)
{
    assert_int_equal(emu_stream_enqueue(s, add_one, n, NULL), 0);
}

/* ---- memory ---- */
static void test_memory(void **state)
{
    int64_t total, before, after;
    void *p, *q;

    (void)state;
    OK(kern_dev_memory(g_dev, &total, &before));
    assert_int_equal(total, INT64_C(4) << 30);
    p = device_bytes(1000);
    OK(kern_dev_memory(g_dev, &total, &after));
    assert_int_equal(before - after, 1024);
    memset(g_pinned, 0xab, N);
    OK(kern_dev_copy_out(g_dev, g_pinned, p, N, g_stream));
    OK(kern_dev_sync(g_dev, g_stream));
    for (int i = 0; i < N; i++)
        assert_int_equal(g_pinned[i], 0);
    kern_dev_free(g_dev, p);
    OK(kern_dev_memory(g_dev, &total, &after));
    assert_int_equal(before, after);
    assert_int_equal(kern_dev_alloc(g_dev, (size_t)5 << 30, &q), TP_ERR_NOMEM);
    assert_int_equal(kern_dev_alloc(g_dev, SIZE_MAX, &q), TP_ERR_NOMEM);
    p = device_bytes(0);
    kern_dev_free(g_dev, p);
    kern_dev_free(g_dev, NULL);
}

/* Runs f in a child; the signal that ended it. */
static int signal_of(void (*f)(void *), void *arg)
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        static const int signals[] = {SIGSEGV, SIGBUS};

        for (size_t i = 0; i < TP_ARRAY_LEN(signals); i++) { /* also past a sanitizer's handler */
            struct sigaction sa = {.sa_handler = SIG_DFL};

            (void)sigaction(signals[i], &sa, NULL);
        }
        f(arg);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void touch(void *p)
{
    *(volatile unsigned char *)p = 1;
}

static void touch_on_device(void *p)
{
    if (emu_stream_enqueue(g_stream, touch, p, NULL) != 0 ||
        kern_dev_sync(g_dev, g_stream) != TP_OK)
        _exit(1);
}

/* The host cannot follow a device pointer, and the device cannot leave an allocation. */
static void test_guards(void **state)
{
    unsigned char *p = device_bytes(4096 - 256), *q = device_bytes(256);

    (void)state;
    assert_int_equal(signal_of(touch, p), SIGSEGV);
    assert_int_equal(signal_of(touch_on_device, p), 0);
    assert_int_equal(signal_of(touch_on_device, p + 4096 - 256), SIGSEGV);
    kern_dev_free(g_dev, q);
    assert_int_equal(signal_of(touch_on_device, q), SIGSEGV);
    kern_dev_free(g_dev, p);
}

static void test_wrong_memory(void **state)
{
    unsigned char *p = device_bytes(N), host[16];

    (void)state;
    tp_log_set_level(TP_LOG_ERROR);
    assert_int_equal(kern_dev_copy_in(g_dev, p, host, 16, g_stream), TP_ERR_DEVICE);
    assert_non_null(strstr(tp_last_error(), "pinned"));
    assert_int_equal(kern_dev_copy_in(g_dev, p + 1, g_pinned, N, g_stream), TP_ERR_DEVICE);
    assert_non_null(strstr(tp_last_error(), "cudaErrorInvalidValue"));
    assert_int_equal(kern_dev_copy_out(g_dev, p, p, 16, g_stream), TP_ERR_DEVICE);
    assert_int_equal(kern_dev_set(g_dev, g_pinned, 0, 16, g_stream), TP_ERR_DEVICE);
    OK(kern_dev_copy_in(g_dev, p, g_pinned, 0, g_stream));
    kern_dev_free(g_dev, p);
}

/* ---- streams ---- */
static void test_deferred(void **state)
{
    unsigned char *p = device_bytes(N);
    int n = 0;
    bool done;

    (void)state;
    run_add(&n, g_stream);
    memset(g_pinned, 1, N);
    OK(kern_dev_copy_in(g_dev, p, g_pinned, N, g_stream));
    memset(g_pinned, 2, N); /* too early: the copy has not happened */
    OK(kern_dev_copy_out(g_dev, g_pinned, p, N, g_stream));
    assert_int_equal(n, 0);
    OK(kern_dev_sync(g_dev, g_stream));
    assert_int_equal(n, 1);
    assert_int_equal(g_pinned[0], 2);

    run_add(&n, g_stream);
    OK(kern_dev_query(g_dev, g_stream, &done));
    assert_false(done);
    assert_int_equal(n, 1);
    OK(kern_dev_query(g_dev, g_stream, &done));
    assert_true(done);
    assert_int_equal(n, 2);
    OK(kern_dev_query(g_dev, g_stream, &done));
    assert_true(done);

    run_add(&n, NULL); /* no queue */
    assert_int_equal(n, 3);
    run_add(&n, g_stream);
    kern_dev_free(g_dev, p); /* waits, as cudaFree() does */
    assert_int_equal(n, 4);
}

static void test_events(void **state)
{
    kern_stream other;
    kern_event a, b;
    int n = 0, m = 0;
    bool done;
    float ms;

    (void)state;
    OK(kern_dev_stream_create(g_dev, &other));
    OK(kern_dev_event_create(g_dev, true, &a));
    OK(kern_dev_event_create(g_dev, true, &b));
    OK(kern_dev_event_wait(g_dev, a)); /* never recorded */
    assert_int_equal(kern_dev_event_ms(g_dev, a, b, &ms), TP_ERR_DEVICE);

    run_add(&n, g_stream);
    OK(kern_dev_event_record(g_dev, a, g_stream));
    run_add(&n, g_stream);
    OK(kern_dev_event_record(g_dev, b, g_stream));
    OK(kern_dev_event_query(g_dev, a, &done));
    assert_false(done);
    OK(kern_dev_event_wait(g_dev, a));
    assert_int_equal(n, 1); /* no further than the event */
    assert_int_equal(kern_dev_event_ms(g_dev, a, b, &ms), TP_ERR_DEVICE);
    OK(kern_dev_event_wait(g_dev, b));
    assert_int_equal(n, 2);
    OK(kern_dev_event_ms(g_dev, a, b, &ms));
    assert_true(ms >= 0.0f);

    /* A stream that waits runs the other one up to the event. */
    run_add(&n, g_stream);
    OK(kern_dev_event_record(g_dev, a, g_stream));
    run_add(&n, g_stream);
    OK(kern_dev_stream_wait(g_dev, other, a));
    run_add(&m, other);
    OK(kern_dev_sync(g_dev, other));
    assert_int_equal(m, 1);
    assert_int_equal(n, 3);
    OK(kern_dev_sync(g_dev, g_stream));
    assert_int_equal(n, 4);

    OK(kern_dev_event_record(g_dev, a, g_stream));
    kern_dev_event_destroy(g_dev, a);
    kern_dev_event_destroy(g_dev, b);
    kern_dev_event_destroy(g_dev, NULL);
    kern_dev_stream_destroy(g_dev, other);
}

/* ---- graphs ---- */
static int g_dropped;

static void count_drop(void *closure)
{
    (void)closure;
    g_dropped++;
}

static void test_graph(void **state)
{
    unsigned char *p = device_bytes(N);
    kern_dev_graph *g = NULL;
    int n = 0;

    (void)state;
    g_dropped = 0;
    OK(kern_dev_graph_begin(g_dev, g_stream));
    assert_int_equal(emu_stream_enqueue(g_stream, add_one, &n, count_drop), 0);
    OK(kern_dev_copy_in(g_dev, p, g_pinned, N, g_stream));
    OK(kern_dev_set(g_dev, p, 9, 1, g_stream));
    OK(kern_dev_graph_end(g_dev, g_stream, &g));
    OK(kern_dev_sync(g_dev, g_stream));
    assert_int_equal(n, 0); /* recorded, not executed */
    for (int i = 1; i <= 3; i++) {
        memset(g_pinned, i, N);
        OK(kern_dev_graph_launch(g_dev, g, g_stream));
        assert_int_equal(n, i - 1);
        OK(kern_dev_sync(g_dev, g_stream));
        OK(kern_dev_copy_out(g_dev, g_pinned, p, N, g_stream));
        OK(kern_dev_sync(g_dev, g_stream));
        assert_int_equal(n, i);
        assert_int_equal(g_pinned[0], 9);
        assert_int_equal(g_pinned[1], i);
    }
    OK(kern_dev_graph_launch(g_dev, g, g_stream));
    kern_dev_graph_destroy(g_dev, g); /* the launch that is queued keeps it */
    assert_int_equal(g_dropped, 0);
    OK(kern_dev_sync(g_dev, g_stream));
    assert_int_equal(n, 4);
    assert_int_equal(g_dropped, 1);
    kern_dev_free(g_dev, p);
}

/* Two streams in one recording, forked and joined by events. */
static void test_graph_streams(void **state)
{
    kern_dev_graph *g = NULL;
    kern_stream other;
    kern_event fork_event, join_event;
    int n = 0;

    (void)state;
    OK(kern_dev_stream_create(g_dev, &other));
    OK(kern_dev_event_create(g_dev, false, &fork_event));
    OK(kern_dev_event_create(g_dev, false, &join_event));
    OK(kern_dev_graph_begin(g_dev, g_stream));
    OK(kern_dev_event_record(g_dev, fork_event, g_stream));
    OK(kern_dev_stream_wait(g_dev, other, fork_event));
    run_add(&n, other);
    OK(kern_dev_event_record(g_dev, join_event, other));
    OK(kern_dev_stream_wait(g_dev, g_stream, join_event));
    OK(kern_dev_graph_end(g_dev, g_stream, &g));
    OK(kern_dev_sync(g_dev, other));
    assert_int_equal(n, 0);
    OK(kern_dev_graph_launch(g_dev, g, g_stream));
    OK(kern_dev_sync(g_dev, g_stream));
    assert_int_equal(n, 1);
    kern_dev_graph_destroy(g_dev, g);

    /* Not joined. */
    OK(kern_dev_graph_begin(g_dev, g_stream));
    OK(kern_dev_event_record(g_dev, fork_event, g_stream));
    OK(kern_dev_stream_wait(g_dev, other, fork_event));
    run_add(&n, other);
    assert_int_equal(kern_dev_graph_end(g_dev, g_stream, &g), TP_ERR_DEVICE);
    assert_non_null(strstr(tp_last_error(), "Unjoined"));
    /* A captured event means nothing outside. */
    assert_int_equal(kern_dev_event_wait(g_dev, fork_event), TP_ERR_DEVICE);
    assert_int_equal(kern_dev_stream_wait(g_dev, other, fork_event), TP_ERR_DEVICE);
    OK(kern_dev_sync(g_dev, other));
    assert_int_equal(n, 1);
    kern_dev_event_destroy(g_dev, fork_event);
    kern_dev_event_destroy(g_dev, join_event);
    kern_dev_stream_destroy(g_dev, other);
}

static void test_graph_spoilt(void **state)
{
    kern_dev_graph *g = NULL;
    kern_event e;
    void *p;
    bool done;

    (void)state;
    OK(kern_dev_event_create(g_dev, false, &e));
    for (int way = 0; way < 6; way++) {
        tp_status st = TP_OK;

        OK(kern_dev_graph_begin(g_dev, g_stream));
        switch (way) {
        case 0: st = kern_dev_sync(g_dev, g_stream); break;
        case 1: st = kern_dev_query(g_dev, g_stream, &done); break;
        case 2: st = kern_dev_event_wait(g_dev, e); break;
        case 3: st = kern_dev_alloc(g_dev, 16, &p); break;
        case 4: st = kern_dev_alloc_pinned(g_dev, 16, &p); break;
        default: st = kern_dev_event_query(g_dev, e, &done); break;
        }
        assert_int_equal(st, TP_ERR_DEVICE);
        assert_non_null(strstr(tp_last_error(), "cudaErrorStreamCaptureUnsupported"));
        assert_int_equal(kern_dev_graph_end(g_dev, g_stream, &g), TP_ERR_DEVICE);
        assert_non_null(strstr(tp_last_error(), "cudaErrorStreamCaptureInvalidated"));
        assert_null(g);
    }
    assert_int_equal(kern_dev_graph_begin(g_dev, NULL), TP_ERR_DEVICE);
    assert_int_equal(kern_dev_graph_end(g_dev, g_stream, &g), TP_ERR_DEVICE);
    kern_dev_event_destroy(g_dev, e);
}

/* ---- other processes ---- */
#define SHARED 5000

/* The child maps the memory, doubles what it finds, and leaves. */
static int child_main(int from_parent)
{
    kern_dev *d;
    kern_stream s;
    kern_dev_ipc handle;
    void *mine, *pinned;
    unsigned char *bytes;

    if (read(from_parent, &handle, sizeof handle) != (ssize_t)sizeof handle ||
        kern_dev_open(&d, 1) != TP_OK || kern_dev_stream_create(d, &s) != TP_OK ||
        kern_dev_ipc_open(d, &handle, &mine) != TP_OK ||
        kern_dev_alloc_pinned(d, SHARED, &pinned) != TP_OK ||
        kern_dev_copy_out(d, pinned, mine, SHARED, s) != TP_OK || kern_dev_sync(d, s) != TP_OK)
        return 1;
    bytes = pinned;
    for (int i = 0; i < SHARED; i++)
        bytes[i] = (unsigned char)(2 * bytes[i]);
    if (kern_dev_copy_in(d, mine, pinned, SHARED, s) != TP_OK || kern_dev_sync(d, s) != TP_OK)
        return 1;
    kern_dev_ipc_close(d, mine);
    kern_dev_free_pinned(d, pinned);
    kern_dev_close(d);
    return 0;
}

static void test_ipc(void **state)
{
    kern_dev_ipc handle, wrong;
    void *shared, *pinned, *again;
    unsigned char *bytes;
    int fds[2], status;
    pid_t pid;

    (void)state;
    assert_int_equal(pipe(fds), 0);
    pid = fork(); /* before the memory: it must come by the handle */
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(child_main(fds[0]));
    OK(kern_dev_alloc_shared(g_dev, SHARED, &shared, &handle));
    OK(kern_dev_alloc_pinned(g_dev, SHARED, &pinned));
    bytes = pinned;
    for (int i = 0; i < SHARED; i++)
        bytes[i] = (unsigned char)(i % 100);
    OK(kern_dev_copy_in(g_dev, shared, pinned, SHARED, g_stream));
    OK(kern_dev_sync(g_dev, g_stream));
    assert_int_equal(write(fds[1], &handle, sizeof handle), sizeof handle);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    OK(kern_dev_copy_out(g_dev, pinned, shared, SHARED, g_stream));
    OK(kern_dev_sync(g_dev, g_stream));
    for (int i = 0; i < SHARED; i++)
        assert_int_equal(bytes[i], 2 * (i % 100));
    /* The process that made it gets its own pointer. */
    OK(kern_dev_ipc_open(g_dev, &handle, &again));
    assert_ptr_equal(again, shared);
    kern_dev_ipc_close(g_dev, again);
    memset(&wrong, 1, sizeof wrong);
    assert_int_equal(kern_dev_ipc_open(g_dev, &wrong, &again), TP_ERR_DEVICE);
    kern_dev_free_shared(g_dev, shared);
    assert_int_equal(kern_dev_ipc_open(g_dev, &handle, &again), TP_ERR_DEVICE);
    kern_dev_free_pinned(g_dev, pinned);
    (void)close(fds[0]);
    (void)close(fds[1]);
}

/* ---- errors ---- */
static void test_sticky(void **state)
{
    kern_dev *d;
    kern_stream s;
    char first[256];
    void *p;
    int n = 0;

    (void)state;
    assert_int_equal(kern_dev_open(&d, 8), TP_ERR_DEVICE);
    OK(kern_dev_open(&d, 3));
    OK(kern_dev_stream_create(d, &s));
    OK(kern_dev_query_error(d));
    assert_true(tp_fault_arm("dev.sticky", 2));
    run_add(&n, s);
    run_add(&n, s);
    run_add(&n, s);
    assert_int_equal(kern_dev_sync(d, s), TP_ERR_DEVICE);
    assert_int_equal(n, 1);
    (void)snprintf(first, sizeof first, "%s", tp_last_error());
    assert_non_null(strstr(first, "device 3: cudaErrorIllegalAddress"));
    assert_int_equal(kern_dev_alloc(d, 16, &p), TP_ERR_DEVICE);
    assert_string_equal(tp_last_error(), first);
    assert_int_equal(kern_dev_query_error(d), TP_ERR_DEVICE);
    assert_true(emu_stream_enqueue(s, add_one, &n, NULL) != 0);
    assert_int_equal(kern_dev_sync(d, s), TP_ERR_DEVICE);
    assert_string_equal(tp_last_error(), first);
    kern_dev_stream_destroy(d, s);
    kern_dev_close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory),        cmocka_unit_test(test_guards),
        cmocka_unit_test(test_wrong_memory),  cmocka_unit_test(test_deferred),
        cmocka_unit_test(test_events),        cmocka_unit_test(test_graph),
        cmocka_unit_test(test_graph_streams), cmocka_unit_test(test_graph_spoilt),
        cmocka_unit_test(test_ipc),           cmocka_unit_test(test_sticky),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
