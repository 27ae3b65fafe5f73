/* SPDX-License-Identifier: Apache-2.0 */
/* kern_testing.c - see kern_testing.h. */
#include "kern_testing.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/convert.h"

kern_backend *kt_open(void **state, int n_threads)
{
    const char *isa = *state;
    const kern_ops *ops = kern_find_ops(strcmp(isa, "scalar") == 0 ? "ref" : "cpu");
    kern_backend *be = NULL;

    assert_non_null(ops);
    if (!ops->isa_supported(isa)) {
        print_message("this machine lacks %s\n", isa);
        skip();
    }
    KT_OK(ops->open(&be, &(kern_open_args){.n_threads = n_threads, .isa = isa}));
    assert_string_equal(be->isa, isa);
    return be;
}

void kt_close(kern_backend *be)
{
    be->ops->close(be);
}

void kt_ok(tp_status st, const char *what, const char *file, int line)
{
    if (st != TP_OK) {
        print_error("%s: %s: %s\n", what, tp_status_name(st), tp_last_error());
        _fail(file, line);
    }
}

/* splitmix64 */
uint32_t kt_u32(kt_rng *r)
{
    uint64_t z = (r->state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ (z >> 31)) >> 32);
}

float kt_unit(kt_rng *r)
{
    return (float)(int32_t)kt_u32(r) * 0x1p-31f;
}

int kt_below(kt_rng *r, int n)
{
    return (int)(kt_u32(r) % (uint32_t)n);
}

void *kt_zeros(size_t bytes)
{
    void *p = tp_calloc(1, bytes > 0 ? bytes : 1);

    assert_non_null(p);
    return p;
}

float *kt_floats(kt_rng *r, size_t n, float scale)
{
    float *p = kt_zeros(n * sizeof *p);

    for (size_t i = 0; i < n; i++)
        p[i] = kt_unit(r) * scale;
    return p;
}

void kt_free(void *p)
{
    tp_free(p);
}

void kt_compare(const char *what, const void *got, kern_dtype t, const double *want, size_t n,
                double rel, double abs)
{
    double worst = 0.0;
    size_t at = 0;

    for (size_t i = 0; i < n; i++) {
        double g = (double)kern_load_f32((const char *)got + i * kern_dtype_bytes(t), t);
        double limit = rel * fabs(want[i]) + abs;
        double over = fabs(g - want[i]) / limit;

        if (g == want[i])
            continue;
        if (!(over <= worst)) { /* a NaN is worst of all */
            worst = over;
            at = i;
            if (isnan(over))
                break;
        }
    }
    if (!(worst <= 1.0)) {
        print_error("%s: element %zu of %zu is %.9g, expected %.9g (%.2f times the limit)\n", what,
                    at, n, (double)kern_load_f32((const char *)got + at * kern_dtype_bytes(t), t),
                    want[at], worst);
        fail();
    }
}

void kt_same_bits(const char *what, const void *a, const void *b, size_t bytes)
{
    const unsigned char *x = a, *y = b;

    for (size_t i = 0; i < bytes; i++) {
        if (x[i] != y[i]) {
            print_error("%s: byte %zu of %zu differs\n", what, i, bytes);
            fail();
        }
    }
}
