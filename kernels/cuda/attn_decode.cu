/* SPDX-License-Identifier: Apache-2.0 */
/* attn_decode.cu - attention of single rows over the paged cache, BF16 or F16: the decode step.
 *
 * Work: the contexts of a batch, end to end, are one line of tiles of 64 keys (those before a row's window left out, an
 * empty place counted as one tile).  Per KV head the line is cut into equal chunks, one per block, so that every block
 * has the same work whatever the lengths are; each block finds its chunk from the lengths in device memory, and one
 * recorded launch serves all of them.  The part of a sequence inside one chunk is a piece.
 *
 * A piece: the query heads that read the KV head are the 16 rows of m16n8k16 (more than 16: again from the start, the
 * keys then come from L2).  Its groups of 16 keys go to the four warps in turn.  A warp has its own ring of cp.async
 * stages in shared memory (K and V of a group are stages of their own) and waits for nobody else; the four join their
 * results at the end.  A sequence in one piece is then done.  Else the piece's result goes to scratch; the last of
 * up to 16 neighbours joins them, the last of those joins the sequence: in order of index, not of arrival.
 *
 * q goes straight to fragments (through shared memory where head_dim is above 128), o stays in registers.  Bytes: K and
 * V once, and per partial result 4 * head_dim twice.  Limit: memory bandwidth; nothing of this has been measured.
 * grid (blocks, n_kv), block 4 warps; 48 to 96 KiB of shared memory, two blocks per SM.
 */
#include "kernels/cuda/attn_kernels.h"

#define TILE        KERN_ATTN_TILE /* of the line of work */
#define TILE_GROUPS (TILE / ATTN_GROUP)
#define MIN_TILES   4  /* a longer sequence is not cut finer */
#define ROWS        16 /* query heads at a time */
#define JOIN        16 /* partial results that are joined at a time */
#define JOIN_MAX    (KERN_ATTN_BLOCKS_MAX / JOIN)

/* q lies in registers, or in shared memory where o leaves no room. */
template <int D> struct decode_q {
    static constexpr bool shared = D > 128;
    static constexpr int bytes = shared ? attn_rows_bytes<D>(ROWS) : 0;
};

/* Results of one warp: ROWS rows of o, then maxima, then sums. */
template <int D> struct decode_result {
    static constexpr int stride = D + 8; /* floats; spreads the rows of a fragment over the banks */
    static constexpr int bytes = (ROWS * stride + 2 * ROWS) * 4;
};

/* The ring of one warp; its results take its place.  With q the block has at most the 99 KiB of sm_89. */
template <int D> struct decode_ring {
    static constexpr int stage = attn_rows_bytes<D>(ATTN_GROUP);
    static constexpr int fit = (98304 - decode_q<D>::bytes) / ATTN_WARPS / stage;
    static constexpr int stages = fit < 6 ? fit : 6;
    static constexpr int loads = stages * stage;
    static constexpr int bytes = loads > decode_result<D>::bytes ? loads : decode_result<D>::bytes;
    static constexpr int chunks = bytes / 16;
};
static_assert(ROWS * (JOIN_MAX + 2) * 4 <= decode_ring<64>::bytes,
              "room for the weights of a join");

/* ---- who does what ---- */
struct decode_piece {
    kern_attn_seq seq;
    int first_key;        /* that the row sees */
    int group, group_end; /* of the sequence */
    int head, n_heads;    /* query heads: up to ROWS */
    int split, n_splits;  /* of the sequence */
    int first_block;      /* of split 0 */
    bool ragged;          /* split 0 is not the first piece of its block */
};

TP_DEV int tiles_of(int ctx, int window)
{
    return ctx > 0 ? (ctx + TILE - 1) / TILE - attn_first_key(ctx - 1, window) / TILE : 1;
}

TP_DEV int warp_total(int x)
{
#pragma unroll
    for (int i = 16; i > 0; i /= 2)
        x += __shfl_xor_sync(TP_WARP_ALL, x, i);
    return x;
}

/* The sum of x over this and lower lanes. */
TP_DEV int warp_prefix(int x)
{
    int lane = threadIdx.x % 32;

#pragma unroll
    for (int i = 1; i < 32; i *= 2) {
        int below = __shfl_up_sync(TP_WARP_ALL, x, i);

        x += lane >= i ? below : 0;
    }
    return x;
}

/* Tiles of all n sequences. */
TP_DEV int line_tiles(const attn_view &a, int n)
{
    int sum = 0;

    for (int i = threadIdx.x % 32; i < n; i += 32)
        sum += tiles_of(a.seqs[i].ctx, a.window);
    return warp_total(sum);
}

/* The sequence that tile `at` of the line belongs to, and where on the line it starts. */
TP_DEV int line_find(const attn_view &a, int n, int at, int *start)
{
    int lane = threadIdx.x % 32, before = 0;

    for (int base = 0;; base += 32) {
        int i = base + lane;
        int tiles = i < n ? tiles_of(a.seqs[i].ctx, a.window) : 0;
        int end = before + warp_prefix(tiles);
        uint32_t past = __ballot_sync(TP_WARP_ALL, end > at);

        if (past != 0) {
            *start = __shfl_sync(TP_WARP_ALL, end - tiles, __ffs(past) - 1);
            return base + __ffs(past) - 1;
        }
        before = __shfl_sync(TP_WARP_ALL, end, 31);
    }
}

/* The run of query heads that read KV head kv. */
TP_DEV int find_heads(const attn_view &a, int kv, int *n)
{
    int lane = threadIdx.x % 32, first = 0, count = 0;

    for (int base = 0; base < a.n_q; base += 32) {
        bool mine = base + lane < a.n_q && a.kv_of_q[base + lane] == kv;
        uint32_t found = __ballot_sync(TP_WARP_ALL, mine);

        if (count == 0 && found != 0)
            first = base + __ffs(found) - 1;
        count += __popc(found);
    }
    *n = count;
    return first;
}

/* ---- the ring ---- */
template <typename T> struct decode_loader {
    const T *k; /* of the head */
    const int32_t *table;
    int group, n; /* this warp's: group, group + 4, ..: n of them */
    int first_key, ctx;
    int next;      /* stage to load: K of the first group, its V, K of the second.. */
    int slot;      /* where to */
    int32_t units; /* of 32 groups, one per lane */
    int32_t unit;  /* of the group under way */
};

/* Starts the next stage, or an empty one when there are no more. */
template <typename T, int D>
TP_DEV void load_stage(const attn_view &a, decode_loader<T> &l, uint4 *ring)
{
    int lane = threadIdx.x % 32, i = l.next / 2;

    if (i < l.n) {
        if (l.next % 2 == 0) {
            if (i % 32 == 0)
                l.units =
                    i + lane < l.n ? attn_unit(a, l.table, l.group + ATTN_WARPS * (i + lane)) : 0;
            l.unit = __shfl_sync(TP_WARP_ALL, l.units, i % 32);
        }
        const T *group =
            l.k + (l.next % 2 == 0 ? 0 : a.v_offset) + (int64_t)l.unit * (ATTN_GROUP * D);
        uint4 *stage = ring + l.slot * (decode_ring<D>::stage / 16);
        int key = (l.group + ATTN_WARPS * i) * ATTN_GROUP;

#pragma unroll
        for (int c = 0; c < D / 16; c++) {
            int chunk = c * 32 + lane, row = chunk / (D / 8);

            tp_cp_async16(attn_chunk<D>(stage, row, chunk % (D / 8)), group + chunk * 8,
                          key + row >= l.first_key && key + row < l.ctx);
        }
    }
    tp_cp_async_commit();
    l.next++;
    l.slot = l.slot + 1 == decode_ring<D>::stages ? 0 : l.slot + 1;
}

/* The next stage is there; the one before it is free and gets new data. */
template <typename T, int D>
TP_DEV uint4 *take_stage(const attn_view &a, decode_loader<T> &l, uint4 *ring, int &slot)
{
    uint4 *stage = ring + slot * (decode_ring<D>::stage / 16);

    tp_cp_async_wait<decode_ring<D>::stages - 2>();
    __syncwarp();
    load_stage<T, D>(a, l, ring);
    slot = slot + 1 == decode_ring<D>::stages ? 0 : slot + 1;
    return stage;
}

/* ---- one warp's share of a piece ---- */
TP_DEV void hide_keys(float s[2][4], int key, int first_key, int ctx)
{
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int at = key + n * 8 + (threadIdx.x & 3) * 2 + (i & 1);

            s[n][i] = at >= first_key && at < ctx ? s[n][i] : ATTN_HIDDEN;
        }
}

/* The piece's rows of q, to registers or to shared memory. */
template <typename T, int D>
TP_DEV void fetch_q(const attn_view &a, const decode_piece &p, uint32_t q[D / 16][4])
{
    const float *rows = a.q + p.seq.row * a.q_stride + p.head * D;
    int row = threadIdx.x % 32 / 4;

    attn_fetch_q<T, D>(q, row < p.n_heads ? rows + row * D : nullptr,
                       row + 8 < p.n_heads ? rows + (row + 8) * D : nullptr, a.scale * ATTN_LOG2_E,
                       a.q_even);
}

template <typename T, int D>
TP_DEV void share_q(const attn_view &a, const decode_piece &p, uint4 *tile)
{
    const float *rows = a.q + p.seq.row * a.q_stride + p.head * D;

#pragma unroll 1
    for (int e = threadIdx.x; e < ROWS * D / 8; e += ATTN_THREADS) {
        int row = e / (D / 8), chunk = e % (D / 8);

        *attn_chunk<D>(tile, row, chunk) =
            row < p.n_heads ? attn_q_chunk<T>(rows + e * 8, a.scale * ATTN_LOG2_E, a.q_even)
                            : make_uint4(0, 0, 0, 0);
    }
}

template <typename T, int D>
TP_DEV void attend(const attn_view &a, const decode_piece &p, decode_loader<T> &l, uint4 *ring,
                   uint4 *q_tile, float o[D / 8][4], attn_softmax &m)
{
    uint32_t q[decode_q<D>::shared ? 1 : D / 16][4];
    int slot = 0;

    if constexpr (!decode_q<D>::shared)
        fetch_q<T, D>(a, p, q);
    for (int i = 0; i < l.n; i++) {
        float s[2][4] = {};
        uint32_t b[4], w[4];
        int key = (l.group + ATTN_WARPS * i) * ATTN_GROUP;
        uint4 *stage = take_stage<T, D>(a, l, ring, slot);

#pragma unroll
        for (int kk = 0; kk < D / 16; kk++) {
            uint32_t *q_now = q[decode_q<D>::shared ? 0 : kk];

            if constexpr (decode_q<D>::shared)
                attn_load_q<D>(q_now, q_tile, 0, kk);
            attn_load_k<D>(b, stage, 0, kk);
            attn_mma<T>(s[0], q_now, b);
            attn_mma<T>(s[1], q_now, b + 2);
        }
        if (key < p.first_key || key + ATTN_GROUP > p.seq.ctx)
            hide_keys(s, key, p.first_key, p.seq.ctx);
        attn_softmax_step<2, D / 8>(m, s, o);
        attn_weights<T>(w, s[0], s[1]);
        stage = take_stage<T, D>(a, l, ring, slot);
#pragma unroll
        for (int jj = 0; jj < D / 16; jj++) {
            attn_load_v<D>(b, stage, 0, jj);
            attn_mma<T>(o[2 * jj], w, b);
            attn_mma<T>(o[2 * jj + 1], w, b + 2);
        }
    }
}

template <int D> TP_DEV void put_result(float *to, const float o[D / 8][4], const attn_softmax &m)
{
    int lane = threadIdx.x % 32, row = lane / 4;

#pragma unroll
    for (int j = 0; j < D / 8; j++)
#pragma unroll
        for (int r = 0; r < 2; r++)
            *reinterpret_cast<float2 *>(to + (row + 8 * r) * decode_result<D>::stride + j * 8 +
                                        (lane & 3) * 2) = make_float2(o[j][2 * r], o[j][2 * r + 1]);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float sum = attn_quad_sum(m.sum[r]);

        if ((lane & 3) == 0) {
            to[ROWS * decode_result<D>::stride + row + 8 * r] = m.max[r];
            to[ROWS * decode_result<D>::stride + ROWS + row + 8 * r] = sum;
        }
    }
}

/* ---- joining ---- */
/* Partial result `slot` of a query head: D floats, then maximum and sum. */
template <int D> TP_DEV float *part_of(const attn_view &a, int slot, int head)
{
    return a.parts + ((int64_t)slot * a.n_q + head) * (D + 4);
}

TP_DEV int slot_of(const decode_piece &p, int split)
{
    return 2 * (p.first_block + split) + (split == 0 && p.ragged ? 1 : 0);
}

/* A quarter vector of a finished or partial row. */
template <int D>
TP_DEV void put_row(const attn_view &a, const decode_piece &p, int row, int col, const float o[4],
                    float max, float sum, int slot)
{
    int head = p.head + row;

    if (slot < 0) {
        float scale = sum > 0.0f ? 1.0f / sum : 0.0f;
        float v[4] = {o[0] * scale, o[1] * scale, o[2] * scale, o[3] * scale};

        attn_store<4>(a, ((int64_t)p.seq.row * a.n_q + head) * D + col, v);
        return;
    }
    float *part = part_of<D>(a, slot, head);

    *reinterpret_cast<float4 *>(part + col) = make_float4(o[0], o[1], o[2], o[3]);
    if (col == 0)
        *reinterpret_cast<float2 *>(part + D) = make_float2(max, sum);
}

/* The four warps' results, in their rings, to out (slot -1) or to scratch. */
template <int D>
TP_DEV void join_warps(const attn_view &a, const decode_piece &p, const uint4 *smem, int slot)
{
    const float *result = reinterpret_cast<const float *>(smem);

    for (int e = threadIdx.x; e < p.n_heads * (D / 4); e += ATTN_THREADS) {
        int row = e / (D / 4), col = e % (D / 4) * 4;
        float max = ATTN_HIDDEN, sum = 0.0f, o[4] = {0.0f, 0.0f, 0.0f, 0.0f};

#pragma unroll
        for (int w = 0; w < ATTN_WARPS; w++)
            max = fmaxf(
                max,
                result[w * decode_ring<D>::chunks * 4 + ROWS * decode_result<D>::stride + row]);
#pragma unroll
        for (int w = 0; w < ATTN_WARPS; w++) {
            const float *r = result + w * decode_ring<D>::chunks * 4;
            const float *stats = r + ROWS * decode_result<D>::stride + row;
            float4 v = *reinterpret_cast<const float4 *>(r + row * decode_result<D>::stride + col);
            float weight = stats[0] == ATTN_HIDDEN ? 0.0f : tp_exp2(stats[0] - max);

            sum += weight * stats[ROWS];
            o[0] += weight * v.x;
            o[1] += weight * v.y;
            o[2] += weight * v.z;
            o[3] += weight * v.w;
        }
        put_row<D>(a, p, row, col, o, max, sum, slot);
    }
}

/* Splits first, first + step, ..: `count` of them, up to JOIN_MAX, from scratch to out (slot -1) or to scratch. */
template <int D>
TP_DEV void join_splits(const attn_view &a, const decode_piece &p, float *smem, int first, int step,
                        int count, int slot)
{
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float *weights = smem, *stats = smem + ROWS * JOIN_MAX; /* [ROWS, JOIN_MAX], [2, ROWS] */

    for (int row = warp; row < p.n_heads; row += ATTN_WARPS) {
        float2 mine = make_float2(ATTN_HIDDEN, 0.0f);

        if (lane < count)
            mine = *reinterpret_cast<const float2 *>(
                part_of<D>(a, slot_of(p, first + lane * step), p.head + row) + D);
        float max = tp_warp_max(mine.x);
        float weight = mine.x == ATTN_HIDDEN ? 0.0f : tp_exp2(mine.x - max);
        float sum = tp_warp_sum(weight * mine.y);

        weights[row * JOIN_MAX + lane] = weight;
        if (lane == 0) {
            stats[row] = max;
            stats[ROWS + row] = sum;
        }
    }
    __syncthreads();
    for (int e = threadIdx.x; e < p.n_heads * (D / 4); e += ATTN_THREADS) {
        int row = e / (D / 4), col = e % (D / 4) * 4;
        float o[4] = {0.0f, 0.0f, 0.0f, 0.0f};

#pragma unroll 4
        for (int k = 0; k < count; k++) {
            float weight = weights[row * JOIN_MAX + k];
            float4 v = *reinterpret_cast<const float4 *>(
                part_of<D>(a, slot_of(p, first + k * step), p.head + row) + col);

            o[0] += weight * v.x;
            o[1] += weight * v.y;
            o[2] += weight * v.z;
            o[3] += weight * v.w;
        }
        put_row<D>(a, p, row, col, o, stats[row], stats[ROWS + row], slot);
    }
}

/* True in the last of `count` blocks that come here; what the others wrote before is then visible.  The counter is 0
 * again afterwards. */
TP_DEV bool last_of(uint32_t *counter, int count, int *shared)
{
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        uint32_t before = atomicAdd(counter, 1u);

        *shared = before == (uint32_t)count - 1;
        if (*shared)
            *counter = 0;
    }
    __syncthreads();
    __threadfence();
    return *shared != 0;
}

/* After the piece's own result is in scratch: the joins that fall to this block. */
template <int D>
TP_DEV void join_sequence(const attn_view &a, const decode_piece &p, uint4 *smem, int *shared)
{
    float *space = reinterpret_cast<float *>(smem);
    int n_joins = (p.n_splits + JOIN - 1) / JOIN, join = p.split / JOIN, first = join * JOIN;
    int count = p.n_splits - first < JOIN ? p.n_splits - first : JOIN;
    int leader = slot_of(p, first);
    uint32_t *counter = a.counters + (int64_t)leader * a.n_q + p.head;

    if (!last_of(counter, count, shared))
        return;
    join_splits<D>(a, p, space, first, 1, count, n_joins == 1 ? -1 : leader);
    if (n_joins == 1)
        return;
    counter = a.counters + (int64_t)(2 * gridDim.x + slot_of(p, 0)) * a.n_q + p.head;
    if (last_of(counter, n_joins, shared))
        join_splits<D>(a, p, space, 0, JOIN, n_joins, -1);
}

/* ---- the kernel ---- */
template <typename T, int D>
TP_DEV void do_piece(const attn_view &a, const decode_piece &p, const T *k, uint4 *smem,
                     int *shared)
{
    int warp = threadIdx.x / 32;
    uint4 *ring = smem + warp * decode_ring<D>::chunks;
    uint4 *q_tile = smem + ATTN_WARPS * decode_ring<D>::chunks;
    int n = (p.group_end - p.group - warp + ATTN_WARPS - 1) / ATTN_WARPS;
    decode_loader<T> l = {};
    float o[D / 8][4] = {};
    attn_softmax m = {{ATTN_HIDDEN, ATTN_HIDDEN}, {0.0f, 0.0f}};

    l.k = k;
    l.table = a.block_tables + p.seq.table;
    l.group = p.group + warp;
    l.n = n > 0 ? n : 0;
    l.first_key = p.first_key;
    l.ctx = p.seq.ctx;
    __syncthreads(); /* the piece before is through with shared memory */
#pragma unroll 1
    for (int i = 0; i < decode_ring<D>::stages - 1; i++)
        load_stage<T, D>(a, l, ring);
    if constexpr (decode_q<D>::shared) {
        share_q<T, D>(a, p, q_tile);
        __syncthreads();
    }
    attend<T, D>(a, p, l, ring, q_tile, o, m);
    __syncwarp();
    put_result<D>(reinterpret_cast<float *>(ring), o, m);
    __syncthreads();
    join_warps<D>(a, p, smem, p.n_splits == 1 ? -1 : slot_of(p, p.split));
    if (p.n_splits > 1)
        join_sequence<D>(a, p, smem, shared);
}

template <typename T, int D> TP_KERNEL_MIN(ATTN_THREADS, 2) kern_attn_decode(attn_view a, int n)
{
    TP_DYN_SMEM(uint4, smem);
    TP_SHARED(int, shared, 1);
    int block = blockIdx.x, n_heads, total, chunk, at, end, i, start;

    tp_grid_wait();
    tp_grid_trigger();
    total = line_tiles(a, n);
    chunk = max((total + (int)gridDim.x - 1) / (int)gridDim.x, min(MIN_TILES, total / n));
    at = block * chunk;
    end = min(at + chunk, total);
    if (at >= total)
        return;
    int head = find_heads(a, blockIdx.y, &n_heads); /* without any the loops below do nothing */

    i = line_find(a, n, at, &start);
    for (; at < end; i++) {
        decode_piece p = {};

        p.seq = a.seqs[i];
        p.first_key = attn_first_key(p.seq.ctx - 1, a.window);
        int tiles = tiles_of(p.seq.ctx, a.window), stop = min(end, start + tiles);
        int tile = p.first_key / TILE - start; /* of the sequence, from one on the line */

        p.group = max((tile + at) * TILE_GROUPS, p.first_key / ATTN_GROUP);
        p.group_end = min((tile + stop) * TILE_GROUPS, (p.seq.ctx + ATTN_GROUP - 1) / ATTN_GROUP);
        p.first_block = start / chunk;
        p.ragged = start % chunk != 0;
        p.n_splits = (start + tiles - 1) / chunk - p.first_block + 1;
        p.split = block - p.first_block;
        for (int h = 0; h < n_heads; h += ROWS) {
            p.head = head + h;
            p.n_heads = min(ROWS, n_heads - h);
            do_piece<T, D>(a, p, static_cast<const T *>(a.cache) + blockIdx.y * a.head_stride, smem,
                           shared);
        }
        at = stop;
        start += tiles;
    }
}

/* ---- launch ---- */
template <int D> constexpr int decode_smem()
{
    return ATTN_WARPS * decode_ring<D>::bytes + decode_q<D>::bytes;
}

template <int D>
static void launch(const attn_view *a, kern_dtype kv, int n, dim3 grid, kern_stream s)
{
    if (kv == KERN_DTYPE_BF16)
        TP_LAUNCH((kern_attn_decode<__nv_bfloat16, D>), grid, ATTN_THREADS, decode_smem<D>(), s, *a,
                  n);
    else
        TP_LAUNCH((kern_attn_decode<__half, D>), grid, ATTN_THREADS, decode_smem<D>(), s, *a, n);
}

void kern_attn_decode_launch(const attn_view *a, kern_dtype kv, int n, int n_kv, int n_blocks,
                             kern_stream s)
{
    dim3 grid(n_blocks, n_kv);

    switch (a->head_dim) {
#define CASE(D)                                                                                    \
    case D: launch<D>(a, kv, n, grid, s); break;
        KERN_ATTN_EACH_DIM(CASE)
#undef CASE
    }
}

int64_t kern_attn_decode_parts(int n_q, int head_dim, int n_blocks)
{
    return (int64_t)2 * n_blocks * n_q * (head_dim + 4);
}

int64_t kern_attn_decode_counters(int n_q, int n_blocks)
{
    return (int64_t)4 * n_blocks * n_q;
}

int kern_attn_decode_prepare(void)
{
    int e = 0;

#define ALLOW(D)                                                                                   \
    e = e != 0 ? e : TP_ALLOW_SMEM((kern_attn_decode<__nv_bfloat16, D>), decode_smem<D>());        \
    e = e != 0 ? e : TP_ALLOW_SMEM((kern_attn_decode<__half, D>), decode_smem<D>());
    KERN_ATTN_EACH_DIM(ALLOW)
#undef ALLOW
    return e;
}
