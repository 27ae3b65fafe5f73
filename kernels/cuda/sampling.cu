/* SPDX-License-Identifier: Apache-2.0 */
/* sampling.cu - operations over a shard of the vocabulary: changes to logits, the k best, statistics of chunks.
 *
 * Which thread finds what never shows: counts are integers, lists are sorted by keys that are all different, and sums
 * have one order.  Limit: one row is read by one SM (topk), so long rows cost their bytes at the speed of one SM.
 */
#include <float.h>
#include <limits.h>
#include <math.h>

#include "kernels/cuda/keys.cuh"
#include "kernels/philox.h"

/* ---- adjust ----
 *
 * A block does a slice of one row's vocabulary and keeps the counts of its ids in shared memory; args.scratch stays as
 * it is.  Ids outside the slice are somebody else's. */
#define SLICE          8192
#define ADJUST_THREADS 512

typedef struct slice_at {
    float *logits;
    uint32_t first; /* global id of logits[0] */
    uint32_t n;
} slice_at;

/* Place of a global id in the slice; at least n when it is elsewhere. */
TP_DEV uint32_t place_of(const slice_at &s, int32_t id)
{
    return (uint32_t)id - s.first;
}

/* All counts 0 before and after; the caller synchronises after it. */
TP_DEV void apply_allowed(const slice_at &s, const kern_adjust_row &r, int32_t *count)
{
    for (int i = (int)threadIdx.x; i < r.n_allowed; i += ADJUST_THREADS) {
        uint32_t at = place_of(s, r.allowed[i]);

        if (at < s.n)
            atomicMax(&count[at], 1);
    }
    __syncthreads();
    for (uint32_t at = threadIdx.x; at < s.n; at += ADJUST_THREADS) {
        if (count[at] == 0)
            s.logits[at] = -INFINITY;
        count[at] = 0;
    }
}

/* Entries of one id are added in the order of the list, by the thread that has the first of them. */
TP_DEV void apply_bias(const slice_at &s, const kern_adjust_row &r)
{
    for (int i = (int)threadIdx.x; i < r.n_bias; i += ADJUST_THREADS) {
        uint32_t at = place_of(s, r.bias_ids[i]);
        bool first = at < s.n;

        for (int j = 0; j < i && first; j++)
            first = r.bias_ids[j] != r.bias_ids[i];
        if (first) {
            float l = s.logits[at];

            for (int j = i; j < r.n_bias; j++)
                if (r.bias_ids[j] == r.bias_ids[i])
                    l += r.bias[j];
            s.logits[at] = l;
        }
    }
}

/* count: 1 if in the prompt, plus 2 for each time in the output; 0 again afterwards. */
TP_DEV void apply_penalties(const slice_at &s, const kern_adjust_row &r, int32_t *count)
{
    for (int i = (int)threadIdx.x; i < r.n_prompt; i += ADJUST_THREADS) {
        uint32_t at = place_of(s, r.history[i]);

        if (at < s.n)
            atomicMax(&count[at], 1);
    }
    __syncthreads();
    for (int i = r.n_prompt + (int)threadIdx.x; i < r.n_history; i += ADJUST_THREADS) {
        uint32_t at = place_of(s, r.history[i]);

        if (at < s.n)
            atomicAdd(&count[at], 2);
    }
    __syncthreads();
    for (uint32_t at = threadIdx.x; at < s.n; at += ADJUST_THREADS) {
        int c = count[at];

        if (c != 0) {
            float l = s.logits[at];

            l = l > 0.0f ? l / r.repetition : l * r.repetition;
            if (c / 2 > 0) /* rounded product by product, as everywhere */
                l = l - __fmul_rn(r.frequency, (float)(c / 2)) - r.presence;
            s.logits[at] = l;
            count[at] = 0;
        }
    }
}

/* All counts 0 before.  An id may be in the list twice. */
TP_DEV void apply_forbidden(const slice_at &s, const kern_adjust_row &r, int32_t *count)
{
    for (int i = (int)threadIdx.x; i < r.n_forbidden; i += ADJUST_THREADS) {
        uint32_t at = place_of(s, r.forbidden[i]);

        if (at < s.n)
            atomicMax(&count[at], 1);
    }
    __syncthreads();
    for (uint32_t at = threadIdx.x; at < s.n; at += ADJUST_THREADS)
        if (count[at] != 0)
            s.logits[at] = -INFINITY;
}

static TP_KERNEL(ADJUST_THREADS) adjust_slice(kern_adjust_args a, unsigned n_slices)
{
    TP_SHARED(int32_t, count, SLICE);
    uint32_t begin = blockIdx.x % n_slices * SLICE;
    kern_adjust_row r;
    slice_at s;

    tp_grid_wait();
    tp_grid_trigger();
    r = a.rows[blockIdx.x / n_slices];
    s.logits = a.logits + r.row * a.ld + begin;
    s.first = (uint32_t)a.vocab_first + begin;
    s.n = (uint32_t)a.n_local - begin < SLICE ? (uint32_t)a.n_local - begin : SLICE;
    for (uint32_t at = threadIdx.x; at < s.n; at += ADJUST_THREADS)
        count[at] = 0;
    __syncthreads();
    if (r.allowed != NULL)
        apply_allowed(s, r, count);
    __syncthreads();
    apply_bias(s, r);
    __syncthreads();
    if (r.repetition != 1.0f || r.frequency != 0.0f || r.presence != 0.0f)
        apply_penalties(s, r, count);
    __syncthreads();
    if (r.n_forbidden > 0)
        apply_forbidden(s, r, count);
}

extern "C" tp_status kern_cuda_adjust(const kern_adjust_args *a, kern_stream s)
{
    unsigned n_slices = tp_blocks_of(a->n_local, SLICE);

    if (a->n_rows == 0 || a->n_local == 0)
        return TP_OK;
    TP_LAUNCH(adjust_slice, n_slices * (unsigned)a->n_rows, ADJUST_THREADS, 0, s, *a, n_slices);
    return tp_launched("adjust");
}

/* ---- topk ----
 *
 * On keys (keys.cuh) of value and index.  k = 1: the greatest key of the row.  Else:
 *   1. Each thread takes the best of its share of the row.  The k-th best of these is a floor: k tokens reach it.
 *   2. Tokens at or above the floor are collected, a few more than k, if the best are spread over the threads.
 *   3. If there are more than LIST of them, a radix select raises the floor, 8 bits per pass.
 *   4. The list is sorted, all keys whole. */
#define TOPK_THREADS 1024
#define LIST         2048
#define BINS         256

typedef struct logit_row {
    const float *l;
    int n;
    bool vec; /* l is aligned to 16 bytes */
} logit_row;

/* f(key) for this thread's share of the row. */
template <typename F> TP_DEV void each_key(const logit_row &r, F f)
{
    int done = 0;

    if (r.vec) {
        for (int i = (int)threadIdx.x; i < r.n / 4; i += (int)blockDim.x) {
            tp_vec<float, 4> v = tp_vec_load<float, 4>(r.l + 4 * i);

            for (int j = 0; j < 4; j++)
                f(tp_key_of(v.x[j], 4 * i + j));
        }
        done = r.n / 4 * 4;
    }
    for (int i = done + (int)threadIdx.x; i < r.n; i += (int)blockDim.x)
        f(tp_key_of(r.l[i], i));
}

TP_DEV uint64_t best_of_share(const logit_row &r)
{
    uint64_t best = 0;

    each_key(r, [&](uint64_t key) { best = key > best ? key : best; });
    return best;
}

TP_DEV logit_row row_of(const kern_topk_args &a)
{
    logit_row r = {a.logits + a.rows[blockIdx.x] * a.ld, a.n_local, false};

    r.vec = (uintptr_t)r.l % 16 == 0;
    return r;
}

TP_DEV void list_token(const kern_topk_args &a, const logit_row &r, int place, uint64_t key)
{
    int64_t at = (int64_t)blockIdx.x * a.k + place;

    a.val[at] = key != 0 ? r.l[tp_key_id(key)] : -INFINITY;
    a.id[at] = key != 0 ? a.vocab_first + tp_key_id(key) : -1;
}

static TP_KERNEL(TOPK_THREADS) topk_one(kern_topk_args a)
{
    TP_SHARED(uint64_t, part, 32);
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    logit_row r;
    uint64_t best;

    tp_grid_wait();
    tp_grid_trigger();
    r = row_of(a);
    best = tp_warp_max(best_of_share(r));
    if (lane == 0)
        part[warp] = best;
    __syncthreads();
    best = tp_warp_max(lane < (int)blockDim.x / 32 ? part[lane] : 0);
    if (threadIdx.x == 0)
        list_token(a, r, 0, best);
}

/* Keys that reach the floor go to the list, in no order; returns how many there are, of which LIST are kept. */
TP_DEV int collect(const logit_row &r, uint64_t floor, uint64_t *list, int32_t *n)
{
    __syncthreads(); /* whoever still reads the list or *n */
    if (threadIdx.x == 0)
        *n = 0;
    __syncthreads();
    each_key(r, [&](uint64_t key) {
        if (key >= floor) {
            int at = atomicAdd(n, 1);

            if (at < LIST)
                list[at] = key;
        }
    });
    __syncthreads();
    return *n;
}

/* A floor that at least k and at most LIST keys reach, where more than LIST reach this one. */
TP_DEV uint64_t raise_floor(const logit_row &r, uint64_t floor, int k, int32_t *bins)
{
    uint64_t prefix = 0; /* of the k-th best key: what is above `shift` */
    int above = 0;       /* keys that are greater than all with this prefix */

    for (int shift = 56; shift >= 0; shift -= 8) {
        int digit = BINS - 1, n = above;

        __syncthreads();
        for (int i = (int)threadIdx.x; i < BINS; i += (int)blockDim.x)
            bins[i] = 0;
        __syncthreads();
        each_key(r, [&](uint64_t key) {
            if (key >= floor && (shift == 56 || key >> (shift + 8) == prefix))
                atomicAdd(&bins[key >> shift & (BINS - 1)], 1);
        });
        __syncthreads();
        while (n + bins[digit] < k)
            n += bins[digit--];
        prefix = prefix << 8 | (uint64_t)digit;
        if (n + bins[digit] <= LIST)
            return prefix << shift > floor ? prefix << shift : floor;
        above = n;
    }
    return prefix;
}

static TP_KERNEL(TOPK_THREADS) topk_many(kern_topk_args a)
{
    TP_SHARED(uint64_t, list, LIST);
    TP_SHARED(int32_t, bins, BINS);
    TP_SHARED(int32_t, count, 1);
    uint64_t floor = 1;
    logit_row r;
    int n, padded;

    tp_grid_wait();
    tp_grid_trigger();
    r = row_of(a);
    if (r.n > LIST) { /* then there are TOPK_THREADS, at least k */
        list[threadIdx.x] = best_of_share(r);
        tp_sort_keys(list, (int)blockDim.x);
        floor = list[a.k - 1] > 0 ? list[a.k - 1] : 1;
    }
    n = collect(r, floor, list, count);
    if (n > LIST) {
        floor = raise_floor(r, floor, a.k, bins);
        n = collect(r, floor, list, count);
    }
    padded = tp_power_of_two(n);
    for (int i = n + (int)threadIdx.x; i < padded; i += (int)blockDim.x)
        list[i] = 0;
    tp_sort_keys(list, padded);
    for (int i = (int)threadIdx.x; i < a.k; i += (int)blockDim.x)
        list_token(a, r, i, i < n ? list[i] : 0);
}

/* A power of two. */
static int topk_threads(int n)
{
    int threads = 128;

    while (threads < TOPK_THREADS && threads * 4 < n)
        threads *= 2;
    return threads;
}

extern "C" tp_status kern_cuda_topk(const kern_topk_args *a, kern_stream s)
{
    if (a->n_rows == 0 || a->k == 0)
        return TP_OK;
    if (a->k < 0 || a->k > KERN_TOPK_MAX)
        return TP_FAIL(TP_ERR_INVALID, "topk: k is %d, expected up to %d", a->k, KERN_TOPK_MAX);
    if (a->k == 1)
        TP_LAUNCH(topk_one, (unsigned)a->n_rows, topk_threads(a->n_local), 0, s, *a);
    else
        TP_LAUNCH(topk_many, (unsigned)a->n_rows, topk_threads(a->n_local), 0, s, *a);
    return tp_launched("topk");
}

/* ---- chunk_stats ----
 *
 * One block per row and chunk.  A chunk is cut into one run of neighbouring tokens per warp; a run is summed by lanes,
 * lanes by butterfly, runs in order, all in FP64.  The token drawn lies in the run where the running sum passes
 * u * sum; only that run's warp looks for it.  Cuts depend on the size of the chunk alone. */
#define CHUNK_WARPS 4

TP_DEV float cleaned(float l)
{
    return l > -INFINITY ? fminf(l, FLT_MAX) : -INFINITY; /* a NaN compares false */
}

/* A warp's run of a chunk. */
typedef struct chunk_run {
    const float *l;
    int begin, end;
    float max, inv_temp;
} chunk_run;

TP_DEV float weight_of(const chunk_run &c, int i)
{
    return i < c.end ? expf((cleaned(c.l[i]) - c.max) * c.inv_temp) : 0.0f;
}

/* The first token of the run where `before` plus the run's sum up to it exceeds the target; the last with any weight
 * if none does.  All lanes of a warp; -1 when none has weight. */
TP_DEV int pick_in_run(const chunk_run &c, double before, double target)
{
    int lane = (int)threadIdx.x % 32, last = -1;

    for (int at = c.begin; at < c.end; at += 32) {
        float e = weight_of(c, at + lane);
        double sum = (double)e;
        uint32_t some, over;

        for (int o = 1; o < 32; o *= 2) { /* up to and with this lane */
            double left = __shfl_sync(TP_WARP_ALL, sum, lane >= o ? lane - o : lane);

            sum += lane >= o ? left : 0.0;
        }
        some = __ballot_sync(TP_WARP_ALL, e > 0.0f);
        over = __ballot_sync(TP_WARP_ALL, e > 0.0f && before + sum > target);
        if (over != 0)
            return at + __ffs((int)over) - 1;
        if (some != 0)
            last = at + 31 - __clz((int)some);
        before += __shfl_sync(TP_WARP_ALL, sum, 31);
    }
    return last;
}

static TP_KERNEL(32 * CHUNK_WARPS) chunk_stats_one(kern_chunk_args a, int n_chunks)
{
    TP_SHARED(float, part, 32);
    TP_SHARED(double, sums, CHUNK_WARPS);
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    int chunk = (int)(blockIdx.x % (unsigned)n_chunks),
        row = (int)(blockIdx.x / (unsigned)n_chunks);
    int first = chunk * a.chunk_tokens, n = a.n_local - first, each, chosen = -1;
    float max = -INFINITY;
    double sum = 0.0, target, before = 0.0, chosen_before = 0.0;
    chunk_run c;
    kern_chunk_row r;

    tp_grid_wait();
    tp_grid_trigger();
    r = a.rows[row];
    n = n < a.chunk_tokens ? n : a.chunk_tokens;
    each = (n + 32 * CHUNK_WARPS - 1) / (32 * CHUNK_WARPS) * 32;
    c.l = a.logits + r.row * a.ld + first;
    c.inv_temp = r.inv_temp;
    c.begin = warp * each < n ? warp * each : n;
    c.end = c.begin + each < n ? c.begin + each : n;
    for (int i = c.begin + lane; i < c.end; i += 32)
        max = fmaxf(max, cleaned(c.l[i]));
    c.max = tp_block_max(max, part);
    if (c.max == -INFINITY) { /* all threads of the block */
        if (threadIdx.x == 0)
            a.out[blockIdx.x] = {-INFINITY, 0.0f, -1, -INFINITY};
        return;
    }
    for (int i = c.begin + lane; i < c.end; i += 32)
        sum += (double)weight_of(c, i);
    sum = tp_warp_sum(sum);
    if (lane == 0)
        sums[warp] = sum;
    __syncthreads();
    sum = 0.0;
    for (int w = 0; w < CHUNK_WARPS; w++)
        sum += sums[w];
    target = kern_philox_uniform(r.seed, r.counter,
                                 (uint32_t)(a.vocab_first / a.chunk_tokens + chunk), 0) *
             sum;
    for (int w = 0; w < CHUNK_WARPS && before <= target; w++) {
        if (sums[w] > 0.0) {
            chosen = w;
            chosen_before = before;
        }
        before += sums[w];
    }
    if (warp == chosen) {
        int at = pick_in_run(c, chosen_before, target);

        if (lane == 0)
            a.out[blockIdx.x] = {c.max, (float)sum, a.vocab_first + first + at, c.l[at]};
    } else if (chosen < 0 && threadIdx.x == 0) { /* 1 / temperature is infinite */
        a.out[blockIdx.x] = {c.max, (float)sum, -1, -INFINITY};
    }
}

extern "C" tp_status kern_cuda_chunk_stats(const kern_chunk_args *a, kern_stream s)
{
    int64_t n_chunks = ((int64_t)a->n_local + a->chunk_tokens - 1) / a->chunk_tokens;

    if (a->n_rows == 0 || n_chunks == 0)
        return TP_OK;
    if (n_chunks * a->n_rows > INT_MAX)
        return TP_FAIL(TP_ERR_INVALID,
                       "chunk_stats: %d rows of %lld chunks are more than one launch can do",
                       a->n_rows, (long long)n_chunks);
    TP_LAUNCH(chunk_stats_one, (unsigned)(n_chunks * a->n_rows), 32 * CHUNK_WARPS, 0, s, *a,
              (int)n_chunks);
    return tp_launched("chunk_stats");
}
