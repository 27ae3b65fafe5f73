/* SPDX-License-Identifier: Apache-2.0 */
/* draw.cu - one token per row from what all ranks know, so that tokens need not go to the host and back.
 *
 * One block per row.  Threads share the exponentials and the sorting; one thread adds and compares, in the order of the
 * scalar backend.  Limit: latency, a few thousand dependent FP64 additions at worst.
 */
#include "kernels/cuda/keys.cuh"
#include "kernels/draw.h"

#define DRAW_THREADS 512

typedef struct drawn {
    int32_t token;
    float logit;
} drawn;

TP_DEV const unsigned char *message_of(const kern_draw_args &a, int rank)
{
    return static_cast<const unsigned char *>(a.gathered) + rank * a.message_bytes;
}

TP_DEV const kern_chunk_stat *stats_of(const kern_draw_args &a, const kern_draw_row &r, int rank)
{
    return reinterpret_cast<const kern_chunk_stat *>(message_of(a, rank) + r.stats) +
           (int64_t)r.stats_row * a.ranks[rank].n_chunks;
}

/* ---- masses of chunks ---- */

/* Shared state of a walk over all chunks in the order of the vocabulary. */
typedef struct chunk_walk {
    double inv_temp;               /* of the row; infinite for a greedy one, which does not walk */
    double sum;                    /* of masses so far */
    const kern_chunk_stat *chosen; /* the last one added; NULL: no chunk has a token */
    bool over;                     /* the sum exceeds the target: the walk stands still */
} chunk_walk;

/* Adds masses relative to exp(top * inv_temp) until the sum exceeds the target.  weight: shared, [KERN_DRAW_LIST]. */
TP_DEV void walk_chunks(const kern_draw_args &a, const kern_draw_row &r, double top,
                        double inv_temp, double target, double *weight, chunk_walk *walk)
{
    __syncthreads(); /* whoever still reads the last walk */
    if (threadIdx.x == 0) {
        walk->sum = 0;
        walk->chosen = NULL;
        walk->over = false;
    }
    for (int rank = 0; rank < a.n_ranks; rank++) {
        const kern_chunk_stat *c = stats_of(a, r, rank);
        int n_chunks = a.ranks[rank].n_chunks;

        for (int base = 0; base < n_chunks; base += KERN_DRAW_LIST) {
            int n = n_chunks - base < KERN_DRAW_LIST ? n_chunks - base : KERN_DRAW_LIST;

            for (int i = (int)threadIdx.x; i < n; i += DRAW_THREADS) {
                const kern_chunk_stat &s = c[base + i];

                weight[i] =
                    s.pick >= 0 ? exp(((double)s.max - top) * inv_temp) * (double)s.sum : -1.0;
            }
            __syncthreads();
            for (int i = 0; i < n && threadIdx.x == 0 && !walk->over; i++) {
                if (weight[i] < 0)
                    continue;
                walk->sum += weight[i];
                walk->chosen = &c[base + i];
                walk->over = walk->sum > target;
            }
            __syncthreads();
        }
    }
}

/* part: shared, [32]. */
TP_DEV float best_chunk(const kern_draw_args &a, const kern_draw_row &r, float *part)
{
    float top = -INFINITY;

    for (int rank = 0; rank < a.n_ranks; rank++) {
        const kern_chunk_stat *c = stats_of(a, r, rank);

        for (int i = (int)threadIdx.x; i < a.ranks[rank].n_chunks; i += DRAW_THREADS)
            if (c[i].pick >= 0)
                top = fmaxf(top, c[i].max);
    }
    return tp_block_max(top, part);
}

TP_DEV drawn draw_plain(const kern_draw_args &a, const kern_draw_row &r, double *weight,
                        chunk_walk *walk, float *part)
{
    double inv_temp = walk->inv_temp, target;
    float top = best_chunk(a, r, part);

    if (!isfinite(top))
        return {KERN_DRAW_NONE, -INFINITY};
    walk_chunks(a, r, (double)top, inv_temp, INFINITY, weight, walk);
    target = kern_philox_uniform(r.seed, r.counter, 0, KERN_STREAM_CHUNK) * walk->sum;
    walk_chunks(a, r, (double)top, inv_temp, target, weight, walk);
    return {walk->chosen->pick, walk->chosen->pick_logit};
}

/* ---- candidates ---- */
typedef struct candidates {
    uint64_t cutoff; /* the best of the last keys of lists that were cut; 0: none was */
    int n;           /* keys in front that are the best of the whole vocabulary */
} candidates;

TP_DEV uint64_t candidate(const kern_draw_args &a, const kern_draw_row &r, int rank, int place)
{
    float v = reinterpret_cast<const float *>(message_of(a, rank) + r.val)[place];
    int32_t id = reinterpret_cast<const int32_t *>(message_of(a, rank) + r.id)[place];

    return id >= 0 ? tp_key_of(v, id) : 0;
}

/* Merges the ranks' lists.  keys: shared, [KERN_DRAW_LIST]; all threads may read it and *c afterwards. */
TP_DEV void merge(const kern_draw_args &a, const kern_draw_row &r, uint64_t *keys, candidates *c)
{
    int depth = kern_draw_depth(&r, a.n_ranks), n = a.n_ranks * depth, padded = tp_power_of_two(n);
    uint64_t cutoff = 0;

    for (int i = (int)threadIdx.x; i < padded; i += DRAW_THREADS)
        keys[i] = i < n ? candidate(a, r, i / depth, i % depth) : 0;
    if (threadIdx.x < 32) {
        for (int rank = (int)threadIdx.x; rank < a.n_ranks; rank += 32) {
            uint64_t last = a.ranks[rank].n_local > depth ? candidate(a, r, rank, depth - 1) : 0;

            cutoff = last > cutoff ? last : cutoff;
        }
        cutoff = tp_warp_max(cutoff);
        if (threadIdx.x == 0) {
            c->cutoff = cutoff;
            c->n = 0;
        }
    }
    tp_sort_keys(keys, padded);
    cutoff = c->cutoff > 0 ? c->cutoff : 1;
    for (int i = (int)threadIdx.x; i < padded; i += DRAW_THREADS)
        if (keys[i] >= cutoff && (i + 1 == padded || keys[i + 1] < cutoff))
            c->n = i + 1;
    __syncthreads();
}

TP_DEV drawn draw_filtered(const kern_draw_args &a, const kern_draw_row &r, const uint64_t *keys,
                           const candidates *c, double *weight, chunk_walk *walk)
{
    const double best = (double)tp_key_value(keys[0]), inv_temp = walk->inv_temp;
    kern_draw_list list = {};
    int at = -1;

    if (r.stats >= 0)
        walk_chunks(a, r, best, inv_temp, INFINITY, weight, walk);
    for (int i = (int)threadIdx.x; i < c->n; i += DRAW_THREADS)
        weight[i] = exp(((double)tp_key_value(keys[i]) - best) * inv_temp);
    __syncthreads();
    if (threadIdx.x == 0) {
        list.weight = weight;
        list.n = c->n;
        list.complete = c->cutoff == 0;
        list.total = r.stats >= 0 ? walk->sum : 0.0;
        list.top_p = (double)r.top_p;
        list.min_p = (double)r.min_p;
        list.top_k = r.top_k;
        list.u = kern_philox_uniform(r.seed, r.counter, 0, KERN_STREAM_LIST);
        at = kern_draw_choose(&list);
    }
    if (at < 0)
        return {KERN_DRAW_OPEN, -INFINITY};
    return {tp_key_id(keys[at]), tp_key_value(keys[at])};
}

static TP_KERNEL(DRAW_THREADS) draw_row(kern_draw_args a)
{
    TP_SHARED(uint64_t, keys, KERN_DRAW_LIST);
    TP_SHARED(double, weight, KERN_DRAW_LIST);
    TP_SHARED(chunk_walk, walk, 1);
    TP_SHARED(candidates, found, 1);
    TP_SHARED(float, part, 32);
    const kern_draw_row &r = a.rows[blockIdx.x];
    drawn d = {KERN_DRAW_NONE, -INFINITY};

    tp_grid_wait();
    tp_grid_trigger();
    if (threadIdx.x == 0)
        walk->inv_temp = 1.0 / (double)r.temperature;
    __syncthreads();
    if (r.kind == KERN_DRAW_PLAIN) {
        d = draw_plain(a, r, weight, walk, part);
    } else {
        merge(a, r, keys, found);
        if (found->n > 0 && isfinite(tp_key_value(keys[0]))) {
            d.token = tp_key_id(keys[0]);
            d.logit = tp_key_value(keys[0]);
            if (r.kind == KERN_DRAW_FILTERED)
                d = draw_filtered(a, r, keys, found, weight, walk);
        }
    }
    if (threadIdx.x == 0) {
        a.token[blockIdx.x] = d.token;
        a.logit[blockIdx.x] = d.logit;
    }
}

extern "C" tp_status kern_cuda_draw(const kern_draw_args *a, kern_stream s)
{
    if (a->n_rows == 0)
        return TP_OK;
    TP_LAUNCH(draw_row, (unsigned)a->n_rows, DRAW_THREADS, 0, s, *a);
    return tp_launched("draw");
}
