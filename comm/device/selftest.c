/* SPDX-License-Identifier: Apache-2.0 */
/* selftest.c - is a reducer right on this machine?  Known data of every rank, summed by every way, at several sizes; and
 * gathered.
 *
 * Each rank can compute all ranks' data, so the expected sum needs no other reducer.  Whole numbers must come out
 * exactly in any order; random floats must have the bits of rank order where the reducer promises them, else be close;
 * and all ranks must hold the same bits, which a hash shows.
 */
#include <math.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "comm/device/side.h"

#define COUNT_MAX 600000 /* 2.3 MiB: beyond one exchange everywhere */
#define CLOSE     1e-5f  /* of the sum of absolute values */

typedef struct trial {
    comm_group *g;
    comm_device_side *s;
    comm_reducer *r;
    float *in, *out; /* device; [COUNT_MAX] */
    float *host;     /* [COUNT_MAX] */
} trial;

static uint32_t mix(uint32_t x)
{
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    return x ^ x >> 16;
}

/* Element i of rank's data: whole numbers up to 2^12, or floats of both signs over five magnitudes. */
static float value(int rank, int64_t i, bool whole, uint32_t salt)
{
    static const float scale[4] = {1e-3f, 0.1f, 10.0f, 1e3f};
    uint32_t h = mix((uint32_t)i * 0x9e3779b9u ^ (uint32_t)rank * 0x85ebca6bu ^ salt);

    if (whole)
        return (float)((int)(h >> 19) - 4096);
    return ((float)(h >> 8) - 8388608.0f) * (1.0f / 8388608.0f) * scale[h & 3];
}

static uint64_t hash_of(const float *x, int64_t n)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);

    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;

        memcpy(&bits, &x[i], sizeof bits);
        h = (h ^ bits) * UINT64_C(0x100000001b3);
    }
    return h;
}

static tp_status compare(const trial *t, int way, int64_t count, bool whole)
{
    bool exact = whole || t->r->ops->rank_order;

    for (int64_t i = 0; i < count; i++) {
        float sum = value(0, i, whole, (uint32_t)count), most = fabsf(sum);
        bool right;

        for (int r = 1; r < t->g->size; r++) {
            float v = value(r, i, whole, (uint32_t)count);

            sum += v;
            most += fabsf(v);
        }
        right = exact ? t->host[i] == sum : fabsf(t->host[i] - sum) <= CLOSE * most;
        if (!right)
            return TP_REJECT(TP_ERR_DEVICE,
                             "self-test of %s on rank %d: element %lld of %lld is %a, expected %a",
                             t->r->ops->ways[way], t->g->rank, (long long)i, (long long)count,
                             (double)t->host[i], (double)sum);
    }
    return TP_OK;
}

/* One sum here; the status is this rank's own. */
static tp_status sum_once(const trial *t, int way, int64_t count, bool whole)
{
    const comm_device *d = &t->s->d;
    size_t bytes = (size_t)count * sizeof(float);

    for (int64_t i = 0; i < count; i++)
        t->host[i] = value(t->g->rank, i, whole, (uint32_t)count);
    TP_TRY(d->put(d->backend, t->in, t->host, bytes));
    TP_TRY(t->r->ops->reduce(t->r, way, t->in, t->out, count));
    if (t->r->ops->wait != NULL)
        TP_TRY(t->r->ops->wait(t->r, t->r->timeout_ms));
    TP_TRY(d->get(d->backend, t->host, t->out, bytes));
    TP_TRY(t->r->ops->poll(t->r));
    return compare(t, way, count, whole);
}

static tp_status same_bits(const trial *t, int way, int64_t count)
{
    uint64_t own = hash_of(t->host, count), all[COMM_RANKS_MAX];

    TP_TRY(comm_allgather(t->g, &own, all, sizeof own));
    for (int r = 0; r < t->g->size; r++) {
        if (all[r] != all[0])
            return TP_REJECT(TP_ERR_DEVICE, "self-test of %s: ranks 0 and %d hold different bits",
                             t->r->ops->ways[way], r);
    }
    return TP_OK;
}

static tp_status try_way(const trial *t, int way)
{
    static const int64_t counts[] = {4, 1023, 65536, COUNT_MAX};

    for (size_t i = 0; i < 2 * TP_ARRAY_LEN(counts); i++) {
        int64_t count = counts[i / 2], bytes = count * (int64_t)sizeof(float);

        if (bytes > t->r->ops->bytes_max(t->r, way) || (size_t)bytes > t->g->window_bytes)
            continue;
        TP_TRY(comm_device_agree(t->g, sum_once(t, way, count, i % 2 == 0)));
        TP_TRY(same_bits(t, way, count));
    }
    return TP_OK;
}

/* The first way must be right; others may be dropped, as long as the reducer itself is well. */
static tp_status run(const trial *t)
{
    const comm_reducer_ops *ops = t->r->ops;

    for (int way = 0; ops->ways[way] != NULL; way++) {
        tp_status st = try_way(t, way);

        if (st == TP_OK)
            continue;
        if (way == 0 || ops->drop == NULL)
            return st;
        if (t->g->rank == 0)
            tp_warn("comm", "%s is not used: %s", ops->ways[way], tp_last_error());
        ops->drop(t->r, way);
        TP_TRY(comm_device_agree(t->g, ops->poll(t->r)));
    }
    return TP_OK;
}

/* One gather here of `count` words from each; the status is this rank's own. */
static tp_status gather_once(const trial *t, int64_t count)
{
    const comm_device *d = &t->s->d;
    size_t bytes = (size_t)count * sizeof(float);

    for (int64_t i = 0; i < count; i++)
        t->host[i] = value(t->g->rank, i, false, (uint32_t)count);
    TP_TRY(d->put(d->backend, t->in, t->host, bytes));
    TP_TRY(t->r->ops->gather(t->r, t->in, t->out, bytes));
    if (t->r->ops->wait != NULL)
        TP_TRY(t->r->ops->wait(t->r, t->r->timeout_ms));
    TP_TRY(d->get(d->backend, t->host, t->out, bytes * (size_t)t->g->size));
    TP_TRY(t->r->ops->poll(t->r));
    for (int64_t i = 0; i < count * t->g->size; i++) {
        float want = value((int)(i / count), i % count, false, (uint32_t)count);

        if (t->host[i] != want)
            return TP_REJECT(TP_ERR_DEVICE,
                             "self-test of %s on rank %d: word %lld of a gather of %lld is %a, "
                             "expected %a",
                             t->r->ops->name, t->g->rank, (long long)i, (long long)count,
                             (double)t->host[i], (double)want);
    }
    return TP_OK;
}

static tp_status try_gather(const trial *t)
{
    static const int64_t counts[] = {4, 1020, 65536};

    for (size_t i = 0; i < 2 * TP_ARRAY_LEN(counts); i++) { /* in turn: another size each time */
        int64_t count = counts[i % TP_ARRAY_LEN(counts)];

        if ((size_t)count * sizeof(float) > t->r->ops->gather_max(t->r) ||
            count * t->g->size > COUNT_MAX)
            continue;
        TP_TRY(comm_device_agree(t->g, gather_once(t, count)));
    }
    return TP_OK;
}

static tp_status with_memory(comm_group *g, comm_device_side *s, comm_reducer *r,
                             tp_status (*body)(const trial *t))
{
    size_t bytes = sizeof(float) * COUNT_MAX;
    trial t = {.g = g, .s = s, .r = r, .host = tp_malloc(bytes)};
    void *in = NULL, *out = NULL;
    tp_status st = t.host != NULL ? TP_OK : TP_FAIL(TP_ERR_NOMEM, "self-test of %zu bytes", bytes);

    if (st == TP_OK)
        st = s->d.alloc(s->d.backend, bytes, &in);
    if (st == TP_OK)
        st = s->d.alloc(s->d.backend, bytes, &out);
    st = comm_device_agree(g, st);
    if (st == TP_OK) {
        t.in = in;
        t.out = out;
        st = body(&t);
    }
    if (in != NULL)
        s->d.free(s->d.backend, in);
    if (out != NULL)
        s->d.free(s->d.backend, out);
    tp_free(t.host);
    return st;
}

tp_status comm_selftest(comm_group *g, comm_device_side *s, comm_reducer *r)
{
    return with_memory(g, s, r, run);
}

tp_status comm_selftest_gather(comm_group *g, comm_device_side *s, comm_reducer *r)
{
    return with_memory(g, s, r, try_gather);
}
