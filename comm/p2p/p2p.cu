/* SPDX-License-Identifier: Apache-2.0 */
/* p2p.cu - sums and gathers over ranks through peer memory; p2p.h has the protocol and why it is right.
 *
 * one shot   every rank pushes all to everybody, adds what came in rank order.  Bytes over the links per rank: (n - 1)
 *            times the sum, one flag exchange: best while that is short.
 * two shot   rank p finishes slice p, the others pull it: 2 (n - 1) / n times the sum, two flag exchanges.
 * gather     as one shot; what came in is put side by side.
 * sum_norm   one shot, then residual += sum and RMSNorm of the row in the same block: saves a launch and a pass.
 *
 * Grid: up to 36 blocks of up to 512 threads.  A thread moves 16 bytes at a time.  Expected limit: latency of the flags
 * (about 2 us per exchange over NVLink, predicted) up to some 100 KiB, then the links.
 */
#include "comm/p2p/p2p.h"

#include "kernels/cuda/num.cuh"

/* Tests plant a wrong comparison here. */
#ifndef COMM_P2P_ARRIVED
#    define COMM_P2P_ARRIVED(flag, epoch) ((int32_t)((flag) - (epoch)) >= 0)
#endif

/* IN_PLACE: a struct that kernels read where it is; copied to the stack it would be slow.
 * LOOK_EVERY: spins between two looks at clock and abort words, about a millisecond. */
#ifdef __CUDACC__
#    define IN_PLACE   const __grid_constant__
#    define LOOK_EVERY 1024
#else
#    define IN_PLACE   const
#    define LOOK_EVERY 16
#endif

#define VEC 4 /* floats moved at once */

TP_DEV comm_p2p_head *head_of(unsigned char *region)
{
    return reinterpret_cast<comm_p2p_head *>(region);
}

TP_DEV float *area_of(unsigned char *region, int block, uint32_t epoch)
{
    return reinterpret_cast<float *>(region + COMM_P2P_HEAD +
                                     ((size_t)block * 2 + (epoch & 1)) * COMM_P2P_AREA);
}

/* ---- a block's place in the exchange ---- */
struct place {
    int block;
    uint32_t epoch;
    bool quit;
};

/* Blocks of all ranks with one index wait for each other.  On a GPU all of a launch are resident; the emulator runs one
 * after another in any order, so there a block's index is the place at which it starts. */
TP_DEV int block_index(comm_p2p_head *h)
{
#ifdef __CUDACC__
    (void)h;
    return (int)blockIdx.x;
#else
    uint32_t n = atomicAdd(&h->ticket, 1u);

    if (n + 1 == gridDim.x)
        h->ticket = 0;
    return (int)n;
#endif
}

/* shared: [3]; the same answer for all threads. */
TP_DEV place enter(const comm_p2p_team &t, uint32_t *shared)
{
    comm_p2p_head *h = head_of(t.mine);
    place p;

    tp_grid_wait();
    if (threadIdx.x == 0) {
        int block = block_index(h);

        shared[0] = (uint32_t)block;
        shared[1] = h->epoch[block] + 1;
        shared[2] = tp_ld_acquire_sys(&h->quit);
        if (shared[2] != 0)
            tp_st_release_sys(&t.report->quit, 1u);
    }
    __syncthreads();
    p.block = (int)shared[0];
    p.epoch = shared[1];
    p.quit = shared[2] != 0;
    __syncthreads();
    return p;
}

/* After the last look at anything of this epoch by this thread. */
TP_DEV void leave(const comm_p2p_team &t, const place &p)
{
    if (threadIdx.x == 0)
        head_of(t.mine)->epoch[p.block] = p.epoch;
}

template <int R> TP_DEV void tell_all_to_quit(const comm_p2p_team &t)
{
    tp_st_release_sys(&head_of(t.mine)->quit, 1u);
    for (int k = 0; k < R - 1; k++)
        if (k < t.n_ranks - 1)
            tp_st_release_sys(&head_of(t.peer[k])->quit, 1u);
}

/* True: stop waiting for `sender`; everybody knows then. */
template <int R> TP_DEV bool give_up(const comm_p2p_team &t, int sender, uint64_t since)
{
    if (t.timeout_ns > 0 && tp_global_ns() - since > t.timeout_ns)
        tp_st_release_sys(&t.report->late, (uint32_t)sender + 1);
    else if (tp_ld_acquire_sys(&t.report->abort) != 0 ||
             tp_ld_acquire_sys(&head_of(t.mine)->quit) != 0)
        tp_st_release_sys(&t.report->quit, 1u);
    else
        return false;
    tell_all_to_quit<R>(t);
    return true;
}

/* Everything that this block wrote before is visible to whoever sees the flags.  Then waits for the flags of all
 * others.  `second`: which of the two sets.  False: given up, by all threads.  shared: [2], a word for each exchange: a
 * slow thread may still read the first one's when the second begins. */
template <int R>
TP_DEV bool exchange(const comm_p2p_team &t, const place &p, bool second, uint32_t *shared)
{
    int k = (int)threadIdx.x, n = t.n_ranks;
    uint32_t *failed = shared + second;

    if (k == 0)
        *failed = 0;
    __syncthreads();
    for (int i = 0; i < R - 1; i++)
        if (k == i && i < n - 1) {
            comm_p2p_head *peer = head_of(t.peer[i]);

            tp_st_release_sys(
                second ? &peer->second[p.block][t.rank] : &peer->first[p.block][t.rank], p.epoch);
        }
    if (k < n - 1) {
        int sender = (t.rank + 1 + k) % n, spins = 0;
        comm_p2p_head *h = head_of(t.mine);
        const uint32_t *flag = second ? &h->second[p.block][sender] : &h->first[p.block][sender];
        uint64_t since = 0;

        while (!COMM_P2P_ARRIVED(tp_ld_acquire_sys(flag), p.epoch)) {
            TP_SPIN_PAUSE();
            if (since == 0)
                since = tp_global_ns();
            if (++spins % LOOK_EVERY == 0 && give_up<R>(t, sender, since)) {
                atomicMax(failed, 1u); /* several may */
                break;
            }
        }
    }
    __syncthreads();
    return *failed == 0;
}

/* ---- moving ---- */

/* Vector v of `count` floats; what lies beyond is zero. */
TP_DEV float4 load_vec(const float *from, int64_t v, int64_t count)
{
    float4 x = {0.0f, 0.0f, 0.0f, 0.0f};
    int64_t left = count - v * VEC;

    if (left >= VEC)
        return reinterpret_cast<const float4 *>(from)[v];
    if (left > 0)
        x.x = from[v * VEC];
    if (left > 1)
        x.y = from[v * VEC + 1];
    if (left > 2)
        x.z = from[v * VEC + 2];
    return x;
}

TP_DEV void store_vec(float *to, int64_t v, int64_t count, const float4 &x)
{
    int64_t left = count - v * VEC;

    if (left >= VEC) {
        reinterpret_cast<float4 *>(to)[v] = x;
        return;
    }
    if (left > 0)
        to[v * VEC] = x.x;
    if (left > 1)
        to[v * VEC + 1] = x.y;
    if (left > 2)
        to[v * VEC + 2] = x.z;
}

/* What a peer left in an area. */
TP_DEV float4 load_once(const float *area, int64_t v)
{
    uint4 bits = tp_ld_once(area + v * VEC);
    float4 x;

    x.x = __uint_as_float(bits.x);
    x.y = __uint_as_float(bits.y);
    x.z = __uint_as_float(bits.z);
    x.w = __uint_as_float(bits.w);
    return x;
}

/* Vectors [v0, v0 + n) of `in` to slot `rank` of every peer's area. */
template <int R>
TP_DEV void push_to_all(const comm_p2p_team &t, const place &p, const float *in, int64_t count,
                        int64_t v0, int64_t n, int64_t slot)
{
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
        float4 x = load_vec(in, v0 + i, count);

        for (int k = 0; k < R - 1; k++)
            if (k < t.n_ranks - 1)
                reinterpret_cast<float4 *>(
                    area_of(t.peer[k], p.block, p.epoch))[t.rank * slot + i] = x;
    }
}

/* Vector i of the slots of all ranks, ours from `own`, in rank order. */
template <int R>
TP_DEV float4 add_ranks(const comm_p2p_team &t, const float *area, int64_t slot, int64_t i,
                        const float4 &own)
{
    float4 part[R], sum;

    for (int r = 0; r < R; r++) /* all loads under way before the first is used */
        if (r < t.n_ranks)
            part[r] = r == t.rank ? own : load_once(area, r * slot + i);
    sum = part[0];
    for (int r = 1; r < R; r++)
        if (r < t.n_ranks) {
            sum.x += part[r].x;
            sum.y += part[r].y;
            sum.z += part[r].z;
            sum.w += part[r].w;
        }
    return sum;
}

/* ---- kernels ---- */

/* per: vectors of one block, and of one slot of its area. */
template <int R>
TP_KERNEL(COMM_P2P_THREADS)
sum_one_shot(IN_PLACE comm_p2p_team t, const float *in, float *out, int64_t count, int64_t per)
{
    TP_SHARED(uint32_t, shared, 3);
    int64_t n_vec = (count + VEC - 1) / VEC, v0, n;
    const float *area;
    place p = enter(t, shared);

    if (p.quit)
        return;
    v0 = p.block * per;
    n = n_vec - v0 < per ? n_vec - v0 : per;
    push_to_all<R>(t, p, in, count, v0, n, per);
    if (!exchange<R>(t, p, false, shared))
        return;
    area = area_of(t.mine, p.block, p.epoch);
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x)
        store_vec(out, v0 + i, count, add_ranks<R>(t, area, per, i, load_vec(in, v0 + i, count)));
    leave(t, p);
}

/* As sum_one_shot: of n_vec vectors of every rank this block moves `per`. */
template <int R>
TP_KERNEL(COMM_P2P_THREADS)
gather_one_shot(IN_PLACE comm_p2p_team t, const float *in, float *out, int64_t n_vec, int64_t per)
{
    TP_SHARED(uint32_t, shared, 3);
    int64_t count = n_vec * VEC, v0, n;
    const float *area;
    place p = enter(t, shared);

    if (p.quit)
        return;
    v0 = p.block * per;
    n = n_vec - v0 < per ? n_vec - v0 : per;
    push_to_all<R>(t, p, in, count, v0, n, per);
    if (!exchange<R>(t, p, false, shared))
        return;
    area = area_of(t.mine, p.block, p.epoch);
    for (int r = 0; r < R; r++)
        if (r < t.n_ranks)
            for (int64_t i = threadIdx.x; i < n; i += blockDim.x)
                reinterpret_cast<float4 *>(out)[r * n_vec + v0 + i] =
                    r == t.rank ? reinterpret_cast<const float4 *>(in)[v0 + i]
                                : load_once(area, r * per + i);
    leave(t, p);
}

/* slice: vectors that one rank finishes; per: those of it that one block does, and of one slot.  The area of a block:
 * n_ranks slots for what comes in, then a slot for what this rank has finished. */
template <int R>
TP_KERNEL(COMM_P2P_THREADS)
sum_two_shot(IN_PLACE comm_p2p_team t, const float *in, float *out, int64_t count, int64_t slice,
             int64_t per)
{
    TP_SHARED(uint32_t, shared, 3);
    int64_t n_vec = (count + VEC - 1) / VEC, at, v0, n;
    float *area;
    place p = enter(t, shared);

    if (p.quit)
        return;
    at = p.block * per;
    n = slice - at < per ? slice - at
                         : per; /* beyond n_vec loads are zeros and stores do nothing */
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x)
        for (int k = 0; k < R - 1; k++)
            if (k < t.n_ranks - 1) {
                v0 = (t.rank + 1 + k) % t.n_ranks * slice + at;
                reinterpret_cast<float4 *>(area_of(t.peer[k], p.block, p.epoch))[t.rank * per + i] =
                    load_vec(in, v0 + i, count);
            }
    if (!exchange<R>(t, p, false, shared))
        return;
    area = area_of(t.mine, p.block, p.epoch);
    v0 = t.rank * slice + at;
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
        float4 sum = add_ranks<R>(t, area, per, i, load_vec(in, v0 + i, count));

        reinterpret_cast<float4 *>(area)[t.n_ranks * per + i] = sum;
        if (v0 + i < n_vec)
            store_vec(out, v0 + i, count, sum);
    }
    if (!exchange<R>(t, p, true, shared))
        return;
    for (int k = 0; k < R - 1; k++)
        if (k < t.n_ranks - 1) {
            const float *theirs = area_of(t.peer[k], p.block, p.epoch);

            v0 = (t.rank + 1 + k) % t.n_ranks * slice + at;
            for (int64_t i = threadIdx.x; i < n; i += blockDim.x)
                if (v0 + i < n_vec)
                    store_vec(out, v0 + i, count, load_once(theirs, t.n_ranks * per + i));
        }
    leave(t, p);
}

/* Block b does rows b, b + grid, ...; their vectors stand in its slots one row after another. */
template <int R, typename T>
TP_KERNEL(COMM_P2P_THREADS)
sum_norm(IN_PLACE comm_p2p_team t, const float *in, kern_rmsnorm_args a)
{
    TP_SHARED(uint32_t, shared, 3);
    TP_SHARED(float, partial, 32);
    int64_t n_vec = a.dim / VEC, slot;
    int n_rows;
    const float *area;
    place p = enter(t, shared);

    if (p.quit)
        return;
    n_rows = (a.m - p.block + (int)gridDim.x - 1) / (int)gridDim.x;
    slot = (a.m + (int)gridDim.x - 1) / (int)gridDim.x * n_vec;
    for (int j = 0; j < n_rows; j++) {
        int64_t row = p.block + (int64_t)j * gridDim.x;

        for (int64_t i = threadIdx.x; i < n_vec; i += blockDim.x) {
            float4 x = reinterpret_cast<const float4 *>(in)[row * n_vec + i];

            for (int k = 0; k < R - 1; k++)
                if (k < t.n_ranks - 1)
                    reinterpret_cast<float4 *>(
                        area_of(t.peer[k], p.block, p.epoch))[t.rank * slot + j * n_vec + i] = x;
        }
    }
    if (!exchange<R>(t, p, false, shared))
        return;
    area = area_of(t.mine, p.block, p.epoch);
    for (int j = 0; j < n_rows; j++) {
        int64_t row = p.block + (int64_t)j * gridDim.x;
        float4 *residual = reinterpret_cast<float4 *>(a.residual) + row * n_vec;
        float squares = 0.0f, scale;

        for (int64_t i = threadIdx.x; i < n_vec; i += blockDim.x) {
            float4 sum = add_ranks<R>(t, area, slot, j * n_vec + i,
                                      reinterpret_cast<const float4 *>(in)[row * n_vec + i]);
            float4 x = residual[i];

            x.x += sum.x;
            x.y += sum.y;
            x.z += sum.z;
            x.w += sum.w;
            residual[i] = x; /* this thread reads it again below */
            squares += x.x * x.x + x.y * x.y + x.z * x.z + x.w * x.w;
        }
        squares = tp_block_sum(squares, partial);
        __syncthreads(); /* partial is free again */
        scale = 1.0f / sqrtf(squares / (float)a.dim + a.eps);
        for (int64_t i = threadIdx.x; i < n_vec; i += blockDim.x) {
            float w[VEC], x[VEC];

            tp_read<VEC>(w, a.weight + i * VEC);
            tp_read<VEC>(x, a.residual + (row * n_vec + i) * VEC);
            for (int c = 0; c < VEC; c++)
                x[c] = x[c] * scale * w[c];
            tp_write<VEC>(static_cast<T *>(a.out) + (row * n_vec + i) * VEC, x);
        }
    }
    leave(t, p);
}

/* ---- launchers ---- */

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static unsigned threads_for(int64_t n_vec)
{
    return n_vec >= COMM_P2P_THREADS ? COMM_P2P_THREADS : (unsigned)(ceil_div(n_vec, 32) * 32);
}

/* Vectors of a block for n_vec in all, so that few blocks are used while they are not full. */
static int64_t per_block(int64_t n_vec)
{
    int64_t per = ceil_div(n_vec, COMM_P2P_BLOCKS);

    if (per >= COMM_P2P_THREADS)
        return per;
    return n_vec < COMM_P2P_THREADS ? n_vec : COMM_P2P_THREADS;
}

static tp_status check(const comm_p2p_team *t, const float *in, const float *out, int64_t count,
                       int64_t most)
{
    if (t->n_ranks < 2 || t->n_ranks > COMM_P2P_RANKS_MAX || count < 1 || count > most ||
        !tp_aligned(in, 16) || !tp_aligned(out, 16))
        return TP_FAIL(TP_ERR_INVALID,
                       "p2p sum of %lld floats over %d ranks; 1 to %lld at 16-byte addresses, 2 to "
                       "%d ranks",
                       (long long)count, t->n_ranks, (long long)most, COMM_P2P_RANKS_MAX);
    return TP_OK;
}

extern "C" int64_t comm_p2p_one_shot_max(int n_ranks)
{
    return (int64_t)COMM_P2P_BLOCKS * (COMM_P2P_AREA / 16 / n_ranks) * VEC;
}

extern "C" int64_t comm_p2p_two_shot_max(int n_ranks)
{
    return (int64_t)COMM_P2P_BLOCKS * (COMM_P2P_AREA / 16 / (n_ranks + 1)) * n_ranks * VEC;
}

extern "C" tp_status comm_p2p_one_shot(const comm_p2p_team *t, const float *in, float *out,
                                       int64_t count, kern_stream s)
{
    int64_t n_vec = ceil_div(count, VEC), per = per_block(n_vec);
    unsigned grid = (unsigned)ceil_div(n_vec, per), threads = threads_for(per);

    TP_TRY(check(t, in, out, count, comm_p2p_one_shot_max(t->n_ranks)));
    if (t->n_ranks == 2)
        TP_LAUNCH(sum_one_shot<2>, grid, threads, 0, s, *t, in, out, count, per);
    else if (t->n_ranks <= 4)
        TP_LAUNCH(sum_one_shot<4>, grid, threads, 0, s, *t, in, out, count, per);
    else
        TP_LAUNCH(sum_one_shot<8>, grid, threads, 0, s, *t, in, out, count, per);
    return tp_launched("p2p one shot");
}

extern "C" tp_status comm_p2p_two_shot(const comm_p2p_team *t, const float *in, float *out,
                                       int64_t count, kern_stream s)
{
    int64_t slice = ceil_div(ceil_div(count, VEC), t->n_ranks), per = per_block(slice);
    unsigned grid = (unsigned)ceil_div(slice, per), threads = threads_for(per);

    TP_TRY(check(t, in, out, count, comm_p2p_two_shot_max(t->n_ranks)));
    if (t->n_ranks == 2)
        TP_LAUNCH(sum_two_shot<2>, grid, threads, 0, s, *t, in, out, count, slice, per);
    else if (t->n_ranks <= 4)
        TP_LAUNCH(sum_two_shot<4>, grid, threads, 0, s, *t, in, out, count, slice, per);
    else
        TP_LAUNCH(sum_two_shot<8>, grid, threads, 0, s, *t, in, out, count, slice, per);
    return tp_launched("p2p two shot");
}

extern "C" tp_status comm_p2p_gather(const comm_p2p_team *t, const void *in, void *out,
                                     size_t bytes, kern_stream s)
{
    const float *from = static_cast<const float *>(in);
    float *to = static_cast<float *>(out);
    int64_t count = (int64_t)(bytes / sizeof(float)), n_vec = count / VEC, per;
    unsigned grid, threads;

    if (bytes == 0 || bytes % 16 != 0)
        return TP_FAIL(TP_ERR_INVALID, "p2p gather of %zu bytes; a multiple of 16 is needed",
                       bytes);
    TP_TRY(check(t, from, to, count, comm_p2p_one_shot_max(t->n_ranks)));
    per = per_block(n_vec);
    grid = (unsigned)ceil_div(n_vec, per);
    threads = threads_for(per);
    if (t->n_ranks == 2)
        TP_LAUNCH(gather_one_shot<2>, grid, threads, 0, s, *t, from, to, n_vec, per);
    else if (t->n_ranks <= 4)
        TP_LAUNCH(gather_one_shot<4>, grid, threads, 0, s, *t, from, to, n_vec, per);
    else
        TP_LAUNCH(gather_one_shot<8>, grid, threads, 0, s, *t, from, to, n_vec, per);
    return tp_launched("p2p gather");
}

template <typename T>
static void launch_sum_norm(const comm_p2p_team *t, const float *in, const kern_rmsnorm_args *a,
                            unsigned grid, kern_stream s)
{
    unsigned threads = threads_for(a->dim / VEC);

    if (t->n_ranks == 2)
        TP_LAUNCH((sum_norm<2, T>), grid, threads, 0, s, *t, in, *a);
    else if (t->n_ranks <= 4)
        TP_LAUNCH((sum_norm<4, T>), grid, threads, 0, s, *t, in, *a);
    else
        TP_LAUNCH((sum_norm<8, T>), grid, threads, 0, s, *t, in, *a);
}

static tp_status check_norm(const comm_p2p_team *t, const float *in, const kern_rmsnorm_args *a)
{
    int64_t most = COMM_P2P_AREA / (int64_t)sizeof(float) / t->n_ranks;

    TP_TRY(check(t, in, a->residual, a->dim, most));
    if (a->dim % VEC != 0 || !tp_aligned(a->out, 16) || !tp_aligned(a->weight, 16))
        return TP_FAIL(TP_ERR_INVALID,
                       "p2p sum and norm of rows of %d; a multiple of %d at 16-byte addresses is "
                       "needed",
                       a->dim, VEC);
    return TP_OK;
}

extern "C" tp_status comm_p2p_sum_norm(const comm_p2p_team *t, const float *in,
                                       const kern_rmsnorm_args *a, kern_stream s)
{
    kern_rmsnorm_args part = *a;
    int rows_max; /* of one launch */

    if (a->m == 0)
        return TP_OK;
    TP_TRY(check_norm(t, in, a));
    rows_max = COMM_P2P_BLOCKS * (COMM_P2P_AREA / (int)sizeof(float) / t->n_ranks / a->dim);
    for (int at = 0; at < a->m; at += rows_max) {
        unsigned grid;
        size_t skip = (size_t)at * (size_t)a->dim;

        part.m = a->m - at < rows_max ? a->m - at : rows_max;
        part.residual = a->residual + skip;
        part.out = static_cast<unsigned char *>(a->out) + skip * kern_dtype_bytes(a->out_dtype);
        grid = part.m < COMM_P2P_BLOCKS ? (unsigned)part.m : COMM_P2P_BLOCKS;
        switch (a->out_dtype) {
        case KERN_DTYPE_F32: launch_sum_norm<float>(t, in + skip, &part, grid, s); break;
        case KERN_DTYPE_BF16: launch_sum_norm<__nv_bfloat16>(t, in + skip, &part, grid, s); break;
        case KERN_DTYPE_F16: launch_sum_norm<__half>(t, in + skip, &part, grid, s); break;
        default: return tp_no_dtype("p2p sum and norm", a->out_dtype);
        }
        TP_TRY(tp_launched("p2p sum and norm"));
    }
    return TP_OK;
}
