/* SPDX-License-Identifier: Apache-2.0 */
/* allreduce_checks.c - see allreduce_checks.h. */
#include "tests/comm/allreduce_checks.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "kernels/convert.h"
#include "kernels/module.h"

static _Thread_local char t_why[400];

#define LATE_DEADLINE_MS 60000 /* of the rank that comes late and must not wait for it */
#define WRONG(...)       (snprintf(t_why, sizeof t_why, __VA_ARGS__), t_why)
#define TRY(expr)                                                                                  \
    do {                                                                                           \
        if ((expr) != TP_OK)                                                                       \
            return WRONG("rank %d: %s: %s", comm_rank(s->g), #expr, tp_last_error());              \
    } while (0)

/* Both signs, magnitudes over 2^26: another order of additions shows. */
static float value(int rank, int64_t i, uint32_t salt)
{
    static const float scale[4] = {1e-3f, 1.0f, 100.0f, 1e5f};
    uint32_t h = tp_mix32((uint32_t)i * 0x9e3779b9u ^ (uint32_t)rank * 0x85ebca6bu ^ salt);

    return ((float)(h >> 8) - 8388608.0f) * (1.0f / 8388608.0f) * scale[h & 3];
}

static float sum_of(const sum_rank *s, int64_t i, uint32_t salt)
{
    float sum = value(0, i, salt);

    for (int r = 1; r < comm_size(s->g); r++)
        sum += value(r, i, salt);
    return sum;
}

/* ---- a device for tests ---- */

static tp_status dev_alloc(void *backend, size_t bytes, void **out)
{
    return kern_dev_alloc(((sum_rank *)backend)->dev, bytes, out);
}

static void dev_free(void *backend, void *p)
{
    kern_dev_free(((sum_rank *)backend)->dev, p);
}

static tp_status dev_copy(void *backend, void *dst, const void *src, size_t bytes, bool in)
{
    sum_rank *s = backend;
    void *pinned;
    tp_status st;

    TP_TRY(kern_dev_alloc_pinned(s->dev, bytes, &pinned));
    if (in)
        memcpy(pinned, src, bytes);
    st = in ? kern_dev_copy_in(s->dev, dst, pinned, bytes, s->stream)
            : kern_dev_copy_out(s->dev, pinned, src, bytes, s->stream);
    if (st == TP_OK)
        st = kern_dev_sync(s->dev, s->stream);
    if (st == TP_OK && !in)
        memcpy(dst, pinned, bytes);
    kern_dev_free_pinned(s->dev, pinned);
    return st;
}

static tp_status dev_put(void *backend, void *dst, const void *src, size_t bytes)
{
    return dev_copy(backend, dst, src, bytes, true);
}

static tp_status dev_get(void *backend, void *dst, const void *src, size_t bytes)
{
    return dev_copy(backend, dst, src, bytes, false);
}

const char *sum_rank_open(sum_rank *s, comm_group *g, bool p2p, int64_t timeout_ms)
{
    void *in, *out;

    *s = (sum_rank){.g = g};
    s->host = tp_malloc(SUM_WINDOW);
    s->want = tp_malloc(SUM_WINDOW);
    TRY(kern_dev_open(&s->dev, 0));
    TRY(kern_dev_stream_create(s->dev, &s->stream));
    TRY(kern_dev_alloc(s->dev, SUM_WINDOW, &in));
    s->in = in;
    TRY(kern_dev_alloc(s->dev, SUM_WINDOW, &out));
    s->out = out;
    s->d = (comm_device){.backend = s,
                         .dev = s->dev,
                         .stream = s->stream,
                         .alloc = dev_alloc,
                         .free = dev_free,
                         .put = dev_put,
                         .get = dev_get};
    if (p2p)
        TRY(comm_p2p_ops.create(&s->r, g, &s->d, SUM_WINDOW, timeout_ms));
    return NULL;
}

void sum_rank_close(sum_rank *s)
{
    if (s->r != NULL)
        comm_p2p_ops.destroy(s->r);
    comm_group_destroy(s->g);
    kern_dev_free(s->dev, s->in);
    kern_dev_free(s->dev, s->out);
    kern_dev_stream_destroy(s->dev, s->stream);
    kern_dev_close(s->dev);
    tp_free(s->host);
    tp_free(s->want);
}

/* ---- sums ---- */

static const char *compare(const sum_rank *s, const char *what, int64_t count, uint32_t salt)
{
    for (int64_t i = 0; i < count; i++) {
        float want = sum_of(s, i, salt);

        if (memcmp(&want, &s->host[i], sizeof want) != 0)
            return WRONG("rank %d/%d, %s of %lld: element %lld is %a, not %a", comm_rank(s->g),
                         comm_size(s->g), what, (long long)count, (long long)i, (double)s->host[i],
                         (double)want);
    }
    return NULL;
}

static const char *fill(sum_rank *s, int64_t count, uint32_t salt)
{
    for (int64_t i = 0; i < count; i++)
        s->host[i] = value(comm_rank(s->g), i, salt);
    TRY(dev_put(s, s->in, s->host, (size_t)count * sizeof(float)));
    return NULL;
}

const char *check_sums(sum_rank *s, int n, uint32_t seed, int64_t count_max)
{
    for (int i = 0; i < n; i++) {
        uint32_t h = tp_mix32(seed + (uint32_t)i * 2654435761u), pick = tp_mix32(h + 1);
        int64_t count = 1 + (int64_t)(h % (i % 8 == 0 ? (uint32_t)count_max : 3000u));
        int way = (int)(pick & 1), n_queued = 1 + (int)(pick >> 1 & 3);
        const char *why = fill(s, count, h);

        if (why != NULL)
            return why;
        /* All but the last are thrown away: they have other sizes, and stir up the areas. */
        for (int q = 1; q < n_queued; q++)
            TRY(comm_p2p_ops.reduce(
                s->r, (way + q) & 1, s->in, s->out,
                1 + (int64_t)(tp_mix32(h + (uint32_t)q) % (uint32_t)count_max)));
        if ((pick >> 3 & 3) == 0)
            tp_sleep_us((int64_t)(tp_mix32(h ^ (uint32_t)comm_rank(s->g)) % 300));
        TRY(comm_p2p_ops.reduce(s->r, way, s->in, pick & 32 ? s->in : s->out, count));
        TRY(dev_get(s, s->host, pick & 32 ? s->in : s->out, (size_t)count * sizeof(float)));
        TRY(comm_p2p_ops.poll(s->r));
        why = compare(s, way == 0 ? "one shot" : "two shots", count, h);
        if (why != NULL)
            return why;
    }
    return NULL;
}

const char *check_graph(sum_rank *s, int n_launches)
{
    static const int64_t counts[] = {1000, 70001, 17};
    kern_dev_graph *graph;
    const char *why = NULL;

    TRY(kern_dev_graph_begin(s->dev, s->stream));
    for (size_t i = 0; i < TP_ARRAY_LEN(counts); i++)
        TRY(comm_p2p_ops.reduce(s->r, (int)(i & 1), s->in, s->out, counts[i]));
    TRY(kern_dev_graph_end(s->dev, s->stream, &graph));
    for (int i = 0; i < n_launches && why == NULL; i++) {
        why = fill(s, counts[1], (uint32_t)i);
        if (why != NULL)
            break;
        if (i % 3 == 1) /* eager in between */
            TRY(comm_p2p_ops.reduce(s->r, 0, s->in, s->out, 1 + i));
        TRY(kern_dev_graph_launch(s->dev, graph, s->stream));
        if (i % 2 == 1)
            TRY(kern_dev_graph_launch(s->dev, graph, s->stream));
        TRY(dev_get(s, s->host, s->out, (size_t)counts[1] * sizeof(float)));
        TRY(comm_p2p_ops.poll(s->r));
        why = compare(s, "graph", counts[1], (uint32_t)i);
    }
    kern_dev_graph_destroy(s->dev, graph);
    return why;
}

/* ---- gathers ---- */

static const char *compare_gathered(sum_rank *s, int64_t count, uint32_t salt)
{
    int n = comm_size(s->g);

    TRY(dev_get(s, s->want, s->out, (size_t)(count * n) * sizeof(float)));
    TRY(comm_p2p_ops.poll(s->r));
    for (int64_t i = 0; i < count * n; i++) {
        float want = value((int)(i / count), i % count, salt);

        if (memcmp(&want, &s->want[i], sizeof want) != 0)
            return WRONG("rank %d/%d, gather of %lld: word %lld of rank %lld is %a, not %a",
                         comm_rank(s->g), n, (long long)count, (long long)(i % count),
                         (long long)(i / count), (double)s->want[i], (double)want);
    }
    return NULL;
}

static tp_status sum_and_gather(sum_rank *s, int64_t sum_count, int64_t count)
{
    TP_TRY(comm_p2p_ops.reduce(s->r, (int)(sum_count & 1), s->in, s->out, sum_count));
    return comm_p2p_ops.gather(s->r, s->in, s->out, (size_t)count * sizeof(float));
}

const char *check_gathers(sum_rank *s, int n, uint32_t seed, int64_t count_max)
{
    kern_dev_graph *graph;
    const char *why = NULL;

    for (int i = 0; i < n && why == NULL; i++) {
        uint32_t h = tp_mix32(seed + (uint32_t)i * 2654435761u);
        int64_t count = 4 * (1 + (int64_t)(h % (i % 4 == 0 ? (uint32_t)(count_max / 4) : 500u)));

        why = fill(s, count, h);
        if (why == NULL && (h >> 8 & 3) == 0)
            tp_sleep_us((int64_t)(tp_mix32(h ^ (uint32_t)comm_rank(s->g)) % 300));
        if (why == NULL)
            TRY(sum_and_gather(s, 1 + (int64_t)(tp_mix32(h) % 3000), count));
        if (why == NULL)
            why = compare_gathered(s, count, h);
    }
    if (why != NULL)
        return why;
    TRY(kern_dev_graph_begin(s->dev, s->stream));
    TRY(sum_and_gather(s, 301, 1000));
    TRY(kern_dev_graph_end(s->dev, s->stream, &graph));
    for (uint32_t i = 0; i < 5 && why == NULL; i++) {
        why = fill(s, 1000, i);
        if (why == NULL)
            TRY(kern_dev_graph_launch(s->dev, graph, s->stream));
        if (why == NULL)
            why = compare_gathered(s, 1000, i);
    }
    kern_dev_graph_destroy(s->dev, graph);
    return why;
}

/* ---- fused ---- */

static float read_out(const void *out, int64_t i, kern_dtype t)
{
    if (t == KERN_DTYPE_BF16)
        return kern_bf16_to_f32(((const uint16_t *)out)[i]);
    if (t == KERN_DTYPE_F16)
        return kern_f16_to_f32(((const uint16_t *)out)[i]);
    return ((const float *)out)[i];
}

static float weight_of(int64_t i)
{
    return 0.5f + (float)(i % 7) * 0.25f;
}

static const char *compare_norm(sum_rank *s, const void *out, const float *residual, int m, int dim,
                                kern_dtype t)
{
    double most = t == KERN_DTYPE_F32 ? 3e-6 : t == KERN_DTYPE_BF16 ? 5e-3 : 1e-3;

    for (int64_t row = 0; row < m; row++) {
        double squares = 0;

        for (int64_t i = row * dim; i < (row + 1) * dim; i++) {
            float want = value(100, i, 5) + sum_of(s, i, 9);

            if (memcmp(&want, &residual[i], sizeof want) != 0)
                return WRONG("rank %d: residual %lld is %a, not %a", comm_rank(s->g), (long long)i,
                             (double)residual[i], (double)want);
            squares += (double)want * (double)want;
        }
        for (int64_t i = row * dim; i < (row + 1) * dim; i++) {
            double want =
                (double)residual[i] / sqrt(squares / dim + 1e-5) * (double)weight_of(i % dim);
            double got = (double)read_out(out, i, t);

            if (!(fabs(got - want) <= most * fabs(want) + 1e-6))
                return WRONG("rank %d: norm of row %lld element %lld is %g, not %g",
                             comm_rank(s->g), (long long)row, (long long)(i % dim), got, want);
        }
    }
    return NULL;
}

/* By the kernel, or as the decoder asks for it: by the group. */
static const char *norm_by(sum_rank *s, bool group, int m, int dim, kern_dtype out_dtype)
{
    int64_t count = (int64_t)m * dim;
    size_t bytes = (size_t)count * sizeof(float);
    void *residual, *weight;
    const char *why = fill(s, count, 9);
    kern_rmsnorm_args a = {.out = s->out, .m = m, .dim = dim, .eps = 1e-5f, .out_dtype = out_dtype};

    if (why != NULL)
        return why;
    TRY(kern_dev_alloc(s->dev, bytes, &residual));
    TRY(kern_dev_alloc(s->dev, (size_t)dim * sizeof(float), &weight));
    for (int64_t i = 0; i < count; i++)
        s->host[i] = value(100, i, 5);
    TRY(dev_put(s, residual, s->host, bytes));
    for (int64_t i = 0; i < dim; i++)
        s->host[i] = weight_of(i);
    TRY(dev_put(s, weight, s->host, (size_t)dim * sizeof(float)));
    a.residual = residual;
    a.weight = weight;
    if (group)
        TRY(comm_device_reduce_norm(s->g, s->in, m, dim, &a));
    else
        TRY(comm_p2p_sum_norm(comm_p2p_get_team(s->r), s->in, &a, s->stream));
    TRY(dev_get(s, s->host, s->out, (size_t)count * kern_dtype_bytes(out_dtype)));
    TRY(dev_get(s, s->want, residual, bytes));
    TRY(group ? comm_device_poll(s->g) : comm_p2p_ops.poll(s->r));
    why = compare_norm(s, s->host, s->want, m, dim, out_dtype);
    kern_dev_free(s->dev, residual);
    kern_dev_free(s->dev, weight);
    return why;
}

const char *check_norm(sum_rank *s, int m, int dim, kern_dtype out_dtype)
{
    return norm_by(s, false, m, dim, out_dtype);
}

/* ---- failure ---- */

const char *check_late(sum_rank *s, int64_t timeout_ms)
{
    int n = comm_size(s->g);
    int64_t start;
    char name[32];
    tp_status st;

    s->r->timeout_ms = timeout_ms;
    TRY(comm_barrier(s->g));
    start = tp_now_ns();
    if (comm_rank(s->g) != n - 1) {
        for (int i = 0; i < 20; i++) /* only the first may take the deadline */
            TRY(comm_p2p_ops.reduce(s->r, i & 1, s->in, s->out, 5000));
        TRY(dev_get(s, s->host, s->out, 4));
        st = comm_p2p_ops.poll(s->r);
        snprintf(name, sizeof name, "for rank %d", n - 1);
        if (st != TP_ERR_COMM && (st != TP_ERR_TIMEOUT || strstr(tp_last_error(), name) == NULL))
            return WRONG("rank %d: status %d: %s", comm_rank(s->g), (int)st, tp_last_error());
        if (n == 2 && st != TP_ERR_TIMEOUT)
            return WRONG("two ranks: status %d, not a timeout", (int)st);
        /* Only who met the deadline waited for the whole of it: another one leaves when that one does. */
        if (st == TP_ERR_TIMEOUT && tp_now_ns() - start < timeout_ms * TP_NS_PER_MS)
            return WRONG("rank %d: gave up after %lld ms", comm_rank(s->g),
                         (long long)((tp_now_ns() - start) / TP_NS_PER_MS));
    }
    TRY(comm_barrier(s->g));        /* the host's group is well */
    if (comm_rank(s->g) == n - 1) { /* comes late: leaves at once */
        s->r->timeout_ms = LATE_DEADLINE_MS;
        start = tp_now_ns();
        TRY(comm_p2p_ops.reduce(s->r, 0, s->in, s->out, 5000));
        TRY(dev_get(s, s->host, s->out, 4));
        if (comm_p2p_ops.poll(s->r) != TP_ERR_COMM)
            return WRONG("the late rank was let in");
        if (tp_now_ns() - start > LATE_DEADLINE_MS / 2 * TP_NS_PER_MS)
            return WRONG("the late rank waited");
    }
    return NULL;
}

static void *abort_soon(void *arg)
{
    tp_sleep_us(200 * 1000);
    comm_p2p_ops.abort(arg);
    return NULL;
}

const char *check_abort(sum_rank *s)
{
    int n = comm_size(s->g);
    int64_t start = tp_now_ns();
    pthread_t thread;

    s->r->timeout_ms = 0;
    if (comm_rank(s->g) == 0 && pthread_create(&thread, NULL, abort_soon, s->r) != 0)
        return WRONG("no thread");
    if (comm_rank(s->g) == n - 1)
        TRY(comm_barrier(s->g)); /* stays away until the others have left */
    TRY(comm_p2p_ops.reduce(s->r, 0, s->in, s->out, 5000));
    TRY(dev_get(s, s->host, s->out, 4));
    if (comm_p2p_ops.poll(s->r) != TP_ERR_COMM)
        return WRONG("rank %d: the abort was not seen", comm_rank(s->g));
    if (tp_now_ns() - start > 20 * TP_NS_PER_S)
        return WRONG("rank %d: the abort was seen late", comm_rank(s->g));
    if (comm_rank(s->g) != n - 1)
        TRY(comm_barrier(s->g));
    if (comm_rank(s->g) == 0)
        (void)pthread_join(thread, NULL);
    return NULL;
}

/* ---- attached ---- */

const char *check_attached(sum_rank *s, const char *want)
{
    static const int64_t counts[] = {1, 1000, 65536, SUM_COUNT_MAX};

    TRY(comm_attach_device(s->g, &s->d, want, comm_module_reducers()));
    if (!comm_device_captures(s->g))
        return WRONG("cannot be recorded: %s", comm_device_choice(s->g));
    for (size_t i = 0; i < TP_ARRAY_LEN(counts); i++) {
        float *w = comm_window(s->g);
        const char *why;

        for (int64_t k = 0; k < counts[i]; k++)
            s->host[k] = value(comm_rank(s->g), k, 3);
        TRY(dev_put(s, w, s->host, (size_t)counts[i] * sizeof(float)));
        TRY(comm_reduce(s->g, &(comm_reduce_args){.roots = w, .out = s->out, .count = counts[i]}));
        TRY(dev_get(s, s->host, s->out, (size_t)counts[i] * sizeof(float)));
        TRY(comm_device_poll(s->g));
        why = compare(s, "attached", counts[i], 3);
        if (why != NULL)
            return why;
    }
    if (comm_device_allgather_max(s->g) < 256 * 1024)
        return WRONG("gathers of %zu bytes at most", comm_device_allgather_max(s->g));
    TRY(comm_device_allgather(s->g, s->in, s->out, 16));
    if (comm_device_allgather(s->g, s->in, s->out, 24) != TP_ERR_INVALID)
        return WRONG("a gather of 24 bytes was taken");
    if (comm_device_fuses_norm(s->g, 3, 66) || comm_device_fuses_norm(s->g, 1 << 20, 64))
        return WRONG("no kernel sums and norms rows of 66, or so many");
    if (!comm_device_fuses_norm(s->g, 3, 64))
        return WRONG("rows of 64 are not summed and normed at once");
    return norm_by(s, true, 3, 64, KERN_DTYPE_BF16);
}
