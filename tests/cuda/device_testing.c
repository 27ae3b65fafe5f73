/* SPDX-License-Identifier: Apache-2.0 */
/* device_testing.c - see device_testing.h. */
#include "device_testing.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/convert.h"

#define GUARD       256
#define GUARD_BYTE  0x5a
#define BUFFERS_MAX 64
#define OPS_MAX     32

typedef struct buffer {
    unsigned char *base;
    size_t offset, bytes; /* of the data, behind the first guard */
} buffer;

typedef struct op_line {
    const char *op;
    int n_checks;
    double worst, bound; /* of the check that came closest to its bound */
} op_line;

static kern_dev *g_dev;
static kern_stream g_stream;
static buffer g_buffers[BUFFERS_MAX];
static int g_n_buffers;
static op_line g_ops[OPS_MAX];
static int g_n_ops;

void dt_open(void)
{
    int n = 0;

    KT_OK(kern_dev_count(&n));
    assert_true(n > 0);
    KT_OK(kern_dev_open(&g_dev, 0));
    KT_OK(kern_cuda_prepare(kern_dev_get_props(g_dev)));
    KT_OK(kern_dev_stream_create(g_dev, &g_stream));
}

void dt_close(void)
{
    dt_release();
    kern_dev_stream_destroy(g_dev, g_stream);
    kern_dev_close(g_dev);
    g_dev = NULL;
}

kern_backend *dt_ref;

int dt_setup(void **state)
{
    (void)state;
    dt_open();
    KT_OK(kern_ref_ops()->open(&dt_ref, &(kern_open_args){.n_threads = 1}));
    return 0;
}

int dt_teardown(void **state)
{
    (void)state;
    dt_print_table();
    kt_close(dt_ref);
    dt_close();
    return 0;
}

kern_stream dt_stream(void)
{
    return g_stream;
}

/* ---- memory ---- */
static size_t room(const buffer *b)
{
    return GUARD + b->offset + b->bytes + GUARD;
}

static void *new_buffer(const void *host, size_t bytes, size_t offset)
{
    buffer b = {.offset = offset, .bytes = bytes};
    unsigned char *pinned;
    void *p;

    assert_true(g_n_buffers < BUFFERS_MAX);
    KT_OK(kern_dev_alloc(g_dev, room(&b), &p));
    b.base = p;
    KT_OK(kern_dev_alloc_pinned(g_dev, room(&b), &p));
    pinned = p;
    memset(pinned, GUARD_BYTE, room(&b));
    if (host == NULL)
        memset(pinned + GUARD + offset, 0xff, bytes);
    else if (bytes > 0)
        memcpy(pinned + GUARD + offset, host, bytes);
    KT_OK(kern_dev_copy_in(g_dev, b.base, pinned, room(&b), g_stream));
    KT_OK(kern_dev_sync(g_dev, g_stream));
    kern_dev_free_pinned(g_dev, pinned);
    g_buffers[g_n_buffers++] = b;
    return b.base + GUARD + offset;
}

void *dt_in(const void *host, size_t bytes, size_t offset)
{
    return new_buffer(host, bytes, offset);
}

void *dt_out(size_t bytes, size_t offset)
{
    return new_buffer(NULL, bytes, offset);
}

void dt_read(void *host, const void *dev, size_t bytes)
{
    void *pinned;

    if (bytes == 0)
        return;
    KT_OK(kern_dev_alloc_pinned(g_dev, bytes, &pinned));
    KT_OK(kern_dev_copy_out(g_dev, pinned, dev, bytes, g_stream));
    KT_OK(kern_dev_sync(g_dev, g_stream));
    memcpy(host, pinned, bytes);
    kern_dev_free_pinned(g_dev, pinned);
}

void dt_release(void)
{
    for (int i = 0; i < g_n_buffers; i++) {
        const buffer *b = &g_buffers[i];
        unsigned char *all = kt_zeros(room(b));

        dt_read(all, b->base, room(b));
        for (size_t j = 0; j < room(b); j++) {
            bool data = j >= GUARD + b->offset && j < GUARD + b->offset + b->bytes;

            if (!data && all[j] != GUARD_BYTE) {
                print_error("a kernel wrote %zd bytes away from the start of %zu bytes\n",
                            (ptrdiff_t)j - (ptrdiff_t)(GUARD + b->offset), b->bytes);
                fail();
            }
        }
        kt_free(all);
        kern_dev_free(g_dev, b->base);
    }
    g_n_buffers = 0;
}

/* ---- checks ---- */
static void note(const char *op, double error, double bound)
{
    op_line *l = g_ops;

    while (l < g_ops + g_n_ops && strcmp(l->op, op) != 0)
        l++;
    if (l == g_ops + g_n_ops) {
        assert_true(g_n_ops < OPS_MAX);
        g_n_ops++;
        *l = (op_line){.op = op, .worst = error, .bound = bound};
    }
    l->n_checks++;
    if (bound > 0 && (l->bound == 0 || error / bound > l->worst / l->bound)) {
        l->worst = error;
        l->bound = bound;
    }
}

void dt_print_table(void)
{
    print_message("%-26s %7s %12s %12s\n", "operation", "checks", "max error", "bound");
    for (int i = 0; i < g_n_ops; i++) {
        const op_line *l = &g_ops[i];

        if (l->bound == 0)
            print_message("%-26s %7d %12s %12s\n", l->op, l->n_checks, "0", "equal bits");
        else
            print_message("%-26s %7d %12.3g %12.3g\n", l->op, l->n_checks, l->worst, l->bound);
    }
    g_n_ops = 0;
}

void dt_same_bits(const char *op, const char *what, const void *got, const void *want, size_t bytes)
{
    kt_same_bits(what, got, want, bytes);
    note(op, 0, 0);
}

void dt_close_to(const char *op, const char *what, const void *got, const void *want, kern_dtype t,
                 size_t n, double bound, double floor)
{
    size_t eb = kern_dtype_bytes(t);
    double worst = 0;

    for (size_t i = 0; i < n; i++) {
        double g = (double)kern_load_f32((const char *)got + i * eb, t);
        double w = (double)kern_load_f32((const char *)want + i * eb, t);
        double error = fabs(g - w) / fmax(fabs(w), floor);

        if (g == w || (isnan(g) && isnan(w)))
            continue;
        if (!(error <= bound)) {
            print_error(
                "%s %s: element %zu of %zu is %.9g, expected %.9g: error %.3g, bound %.3g\n", op,
                what, i, n, g, w, error, bound);
            fail();
        }
        worst = fmax(worst, error);
    }
    note(op, worst, bound);
}

const char *dt_case(const char *format, ...)
{
    static char text[160];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return text;
}

double dt_rounding(kern_dtype t)
{
    return t == KERN_DTYPE_F32 ? 0x1p-24 : t == KERN_DTYPE_BF16 ? 0x1p-8 : 0x1p-11;
}
