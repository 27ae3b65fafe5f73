/* SPDX-License-Identifier: Apache-2.0 */
/* checks.c - see checks.h. */
#include "tests/comm/checks.h"

#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"

static _Thread_local char t_why[300];

#define WRONG(...) (snprintf(t_why, sizeof t_why, __VA_ARGS__), t_why)
#define TRY(expr)                                                                                  \
    do {                                                                                           \
        if ((expr) != TP_OK)                                                                       \
            return WRONG("%s: %s", #expr, tp_last_error());                                        \
    } while (0)

/* Element i of segment seg: both signs, magnitudes over 2^24, so that another order of additions shows. */
static float value(int seg, int64_t i, uint32_t salt)
{
    static const float scale[8] = {1e-3f, 1e-2f, 0.1f, 1.0f, 10.0f, 100.0f, 1e3f, 1e4f};
    uint32_t h = tp_mix32((uint32_t)seg * 0x9e3779b9u ^ (uint32_t)i ^ salt);

    return ((float)(h >> 8) - 8388608.0f) * (1.0f / 8388608.0f) * scale[h & 7];
}

/* Sum of the complete subtree over segments [first, first + len). */
static float node_sum(int first, int len, int64_t i, uint32_t salt)
{
    float left, right;

    if (len == 1)
        return value(first, i, salt);
    left = node_sum(first, len / 2, i, salt);
    right = node_sum(first + len / 2, len / 2, i, salt);
    return left + right;
}

size_t check_window_bytes(int n_ranks, int n_seg, int64_t count)
{
    int most = 0;

    for (int r = 0; r < n_ranks; r++) {
        tp_seg_node roots[TP_SEG_ROOTS_MAX];
        int first, n, n_roots;

        tp_seg_run(n_seg, n_ranks, r, &first, &n);
        n_roots = tp_seg_roots(first, n, roots);
        most = n_roots > most ? n_roots : most;
    }
    return (size_t)most * (size_t)(count > 0 ? count : 1) * sizeof(float);
}

static const char *compare_sum(const comm_group *g, const float *out, int n_seg, int64_t count,
                               uint32_t salt)
{
    for (int64_t i = 0; i < count; i++) {
        float want = node_sum(0, n_seg, i, salt);

        if (memcmp(&want, &out[i], sizeof want) != 0)
            return WRONG("%s rank %d/%d reduce n_seg %d count %lld: element %lld is %a, not %a",
                         comm_kind(g), comm_rank(g), comm_size(g), n_seg, (long long)count,
                         (long long)i, (double)out[i], (double)want);
    }
    return NULL;
}

const char *check_reduce(comm_group *g, int n_seg, int64_t count, bool in_window)
{
    tp_seg_node roots[TP_SEG_ROOTS_MAX];
    uint32_t salt = tp_mix32((uint32_t)count + (uint32_t)in_window);
    const char *why = NULL;
    float *mem = NULL, *mine, *out;
    int first, n, n_roots;

    tp_seg_run(n_seg, comm_size(g), comm_rank(g), &first, &n);
    n_roots = tp_seg_roots(first, n, roots);
    out = tp_malloc((size_t)count * sizeof *out);
    mine = in_window ? comm_window(g)
                     : (mem = tp_malloc((size_t)n_roots * (size_t)count * sizeof *mem));
    for (int r = 0; r < n_roots; r++) {
        for (int64_t i = 0; i < count; i++)
            mine[r * count + i] = node_sum(roots[r].first, roots[r].len, i, salt);
    }
    if (comm_reduce(g, &(comm_reduce_args){
                           .n_seg = n_seg, .roots = mine, .out = out, .count = count}) != TP_OK) {
        why = WRONG("comm_reduce: %s", tp_last_error());
    } else {
        if (in_window) /* must not disturb the slower ranks */
            memset(comm_window(g), 0xff, (size_t)n_roots * (size_t)count * sizeof *mine);
        why = compare_sum(g, out, n_seg, count, salt);
    }
    tp_free(out);
    tp_free(mem);
    return why;
}

static void fill(unsigned char *p, size_t bytes, uint32_t salt)
{
    for (size_t i = 0; i < bytes; i++)
        p[i] = (unsigned char)(tp_mix32((uint32_t)(i / 4) ^ salt) >> (i % 4 * 8));
}

static bool filled(const unsigned char *p, size_t bytes, uint32_t salt)
{
    for (size_t i = 0; i < bytes; i++) {
        if (p[i] != (unsigned char)(tp_mix32((uint32_t)(i / 4) ^ salt) >> (i % 4 * 8)))
            return false;
    }
    return true;
}

const char *check_allgather(comm_group *g, size_t bytes)
{
    size_t size = (size_t)comm_size(g);
    unsigned char *send = tp_malloc(bytes), *recv = tp_malloc(size * bytes);
    const char *why = NULL;

    fill(send, bytes, (uint32_t)comm_rank(g) + 77);
    if (comm_allgather(g, send, recv, bytes) != TP_OK)
        why = WRONG("comm_allgather: %s", tp_last_error());
    for (size_t r = 0; r < size && why == NULL; r++) {
        if (!filled(recv + r * bytes, bytes, (uint32_t)r + 77))
            why = WRONG("%s rank %d/%zu allgather of %zu bytes: part %zu is wrong", comm_kind(g),
                        comm_rank(g), size, bytes, r);
    }
    tp_free(send);
    tp_free(recv);
    return why;
}

const char *check_broadcast(comm_group *g, size_t bytes, int root)
{
    unsigned char *buf = tp_malloc(bytes);
    const char *why = NULL;

    fill(buf, bytes, comm_rank(g) == root ? 5 : 6);
    if (comm_broadcast(g, buf, bytes, root) != TP_OK)
        why = WRONG("comm_broadcast: %s", tp_last_error());
    else if (!filled(buf, bytes, 5))
        why = WRONG("%s rank %d/%d broadcast of %zu bytes from %d is wrong", comm_kind(g),
                    comm_rank(g), comm_size(g), bytes, root);
    tp_free(buf);
    return why;
}

static size_t ctl_size(int i)
{
    static const size_t sizes[] = {0, 1, 7, 64, 1000, 4096, CHECK_PLAN - 1, CHECK_PLAN};

    return sizes[tp_mix32((uint32_t)i) % TP_ARRAY_LEN(sizes)];
}

const char *check_ctl(comm_group *g, int n)
{
    unsigned char *msg = tp_malloc(CHECK_PLAN);
    const char *why = NULL;

    for (int i = 0; i < n && why == NULL; i++) {
        size_t want = ctl_size(i), bytes = 0;

        if (comm_rank(g) == 0) {
            fill(msg, want, (uint32_t)i);
            if (comm_ctl_send(g, msg, want) != TP_OK)
                why = WRONG("comm_ctl_send: %s", tp_last_error());
            memset(msg, 0xee, CHECK_PLAN); /* the message may be overwritten at once */
        } else if (comm_ctl_recv(g, msg, CHECK_PLAN, &bytes, 20000) != TP_OK) {
            why = WRONG("comm_ctl_recv: %s", tp_last_error());
        } else if (bytes != want || !filled(msg, bytes, (uint32_t)i)) {
            why = WRONG("%s rank %d: control message %d of %zu bytes came as %zu or damaged",
                        comm_kind(g), comm_rank(g), i, want, bytes);
        }
    }
    tp_free(msg);
    return why;
}

const char *check_mixed(comm_group *g, int n, uint64_t seed, int64_t count_max)
{
    for (int i = 0; i < n; i++) {
        uint32_t h = tp_mix32((uint32_t)seed + (uint32_t)i * 2654435761u), pick = tp_mix32(h + 1);
        int64_t count = (int64_t)(h % (i % 64 == 0 ? (uint32_t)count_max : 600u));
        const char *why = NULL;

        switch (pick % 6) {
        case 0: why = check_reduce(g, 8, count, false); break;
        case 1:
        case 2: why = check_reduce(g, 8, count, true); break;
        case 3: why = check_allgather(g, (size_t)count); break;
        case 4: why = check_broadcast(g, (size_t)count, (int)(h % (uint32_t)comm_size(g))); break;
        default: why = pick % 12 == 5 ? check_ctl(g, 2) : NULL; TRY(comm_barrier(g));
        }
        if (why != NULL)
            return why;
    }
    return NULL;
}
