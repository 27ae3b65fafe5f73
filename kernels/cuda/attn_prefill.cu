/* SPDX-License-Identifier: Apache-2.0 */
/* attn_prefill.cu - attention of many rows of a sequence over the paged cache, BF16 or F16: whole prompts and chunks.
 *
 * A block has one query head and a tile of 128 (64 for large heads) rows of one sequence; a warp has 32 (16) of them.
 * q lies in shared memory, already scaled and rounded.  Tiles of 64 (32) keys go by from the first that any row sees to
 * the last; K and V of a tile are stages of one ring that the whole block fills with cp.async.  Scores, weights and
 * results stay in registers, the softmax is carried along.  Tiles that a warp's rows do not see cost it two barriers.
 *
 * Blocks of the query heads of one KV head are neighbours in the grid, so keys and values come from L2 for all but the
 * first of them.  Tiles of rows start with the last ones, which have the most to do.  Limit: tensor cores through
 * mma.sync, closely followed by shared memory: a warp's 32 rows read a K or V fragment once.  Not measured yet.
 * grid (n_q, tiles of max_rows, sequences), block 4 warps; 48 to 96 KiB of shared memory.
 */
#include "kernels/cuda/attn_kernels.h"

/* The shape of a block: registers for o and scores, and the 99 KiB of sm_89 for q and the ring, decide. */
template <int D> struct prefill_shape {
    static constexpr int m_tiles = D <= 128 ? 2 : 1; /* of 16 rows per warp */
    static constexpr int rows = 16 * m_tiles * ATTN_WARPS;
    static constexpr int keys = D == 128 || D == 256 ? 32 : 64;
    static constexpr int groups = keys / ATTN_GROUP;
    static constexpr int q_chunks = attn_rows_bytes<D>(rows) / 16;
    static constexpr int stage_chunks = attn_rows_bytes<D>(keys) / 16;
    static constexpr int stages = D == 192 ? 3 : D == 128 ? 6 : 4;
    static constexpr int smem = (q_chunks + stages * stage_chunks) * 16;
    static constexpr int loads = keys * (D / 8) / ATTN_THREADS; /* chunks of a stage per thread */
    static_assert(loads * ATTN_THREADS == keys * (D / 8), "every thread loads as much");
};

struct prefill_tile {
    kern_attn_seq seq;
    int head, row, n_past;  /* first row of the tile; position = n_past + row */
    int first_key, end_key; /* that some row sees */
    int first_tile, n_tiles;
};

template <typename T> struct prefill_loader {
    const T *k; /* of the head */
    const int32_t *table;
    int next;      /* stage to load: K of the first tile, its V, K of the second.. */
    int slot;      /* where to */
    int32_t units; /* of 32 groups, one per lane */
};

/* Starts the next stage, or an empty one when there are no more. */
template <typename T, int D>
TP_DEV void load_stage(const attn_view &a, const prefill_tile &p, prefill_loader<T> &l, uint4 *ring)
{
    typedef prefill_shape<D> shape;
    int i = l.next / 2, lane = threadIdx.x % 32, in_units = i * shape::groups % 32;

    if (i < p.n_tiles) {
        if (l.next % 2 == 0 && in_units == 0) {
            int group = (p.first_tile + i) * shape::groups + lane;

            l.units = group * ATTN_GROUP < p.end_key && (group + 1) * ATTN_GROUP > p.first_key
                          ? attn_unit(a, l.table, group)
                          : 0;
        }
        const T *from = l.k + (l.next % 2 == 0 ? 0 : a.v_offset);
        uint4 *stage = ring + l.slot * shape::stage_chunks;
        int key = (p.first_tile + i) * shape::keys;

#pragma unroll
        for (int c = 0; c < shape::loads; c++) {
            int chunk = c * ATTN_THREADS + threadIdx.x;
            int row = chunk / (D / 8), col = chunk % (D / 8);
            int64_t unit = __shfl_sync(TP_WARP_ALL, l.units, in_units + row / ATTN_GROUP);

            tp_cp_async16(attn_chunk<D>(stage, row, col),
                          from + (unit * ATTN_GROUP + row % ATTN_GROUP) * D + col * 8,
                          key + row >= p.first_key && key + row < p.end_key);
        }
    }
    tp_cp_async_commit();
    l.next++;
    l.slot = l.slot + 1 == shape::stages ? 0 : l.slot + 1;
}

/* The next stage is there; the one before it is free and gets new data. */
template <typename T, int D>
TP_DEV uint4 *take_stage(const attn_view &a, const prefill_tile &p, prefill_loader<T> &l,
                         uint4 *ring, int &slot)
{
    uint4 *stage = ring + slot * prefill_shape<D>::stage_chunks;

    tp_cp_async_wait<prefill_shape<D>::stages - 2>();
    __syncthreads();
    load_stage<T, D>(a, p, l, ring);
    slot = slot + 1 == prefill_shape<D>::stages ? 0 : slot + 1;
    return stage;
}

template <typename T, int D>
TP_DEV void share_q(const attn_view &a, const prefill_tile &p, uint4 *tile)
{
    const float *rows = a.q + (int64_t)(p.seq.row + p.row) * a.q_stride + p.head * D;

#pragma unroll 2
    for (int e = threadIdx.x; e < prefill_shape<D>::rows * (D / 8); e += ATTN_THREADS) {
        int row = e / (D / 8), col = e % (D / 8);

        *attn_chunk<D>(tile, row, col) = p.row + row < p.seq.n_rows
                                             ? attn_q_chunk<T>(rows + row * a.q_stride + col * 8,
                                                               a.scale * ATTN_LOG2_E, a.q_even)
                                             : make_uint4(0, 0, 0, 0);
    }
}

/* s of 16 rows, the first at position pos: hides what comes later, or before the window. */
template <int NT> TP_DEV void hide_keys(float s[NT][4], int pos, int key, int window)
{
    int lane = threadIdx.x % 32;

#pragma unroll
    for (int r = 0; r < 2; r++) {
        int last =
            pos + lane / 4 + 8 * r - (key + (lane & 3) * 2); /* relative to this lane's first */
        int first = window > 0 ? last - window + 1 : -1;

#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int i = 0; i < 2; i++)
                if (n * 8 + i > last || n * 8 + i < first)
                    s[n][2 * r + i] = ATTN_HIDDEN;
    }
}

template <typename T, int D>
TP_DEV void scores(uint4 *q_tile, uint4 *stage,
                   float s[prefill_shape<D>::m_tiles][prefill_shape<D>::keys / 8][4])
{
    constexpr int m_tiles = prefill_shape<D>::m_tiles;
    int row = threadIdx.x / 32 * 16 * m_tiles;

#pragma unroll
    for (int kk = 0; kk < D / 16; kk++) {
        uint32_t q[m_tiles][4], b[4];

#pragma unroll
        for (int m = 0; m < m_tiles; m++)
            attn_load_q<D>(q[m], q_tile, row + 16 * m, kk);
#pragma unroll
        for (int n = 0; n < prefill_shape<D>::groups; n++) {
            attn_load_k<D>(b, stage, n * ATTN_GROUP, kk);
#pragma unroll
            for (int m = 0; m < m_tiles; m++) {
                attn_mma<T>(s[m][2 * n], q[m], b);
                attn_mma<T>(s[m][2 * n + 1], q[m], b + 2);
            }
        }
    }
}

template <typename T, int D>
TP_DEV void add_values(uint4 *stage,
                       const uint32_t w[prefill_shape<D>::m_tiles][prefill_shape<D>::groups][4],
                       float o[prefill_shape<D>::m_tiles][D / 8][4])
{
#pragma unroll
    for (int n = 0; n < prefill_shape<D>::groups; n++)
#pragma unroll
        for (int jj = 0; jj < D / 16; jj++) {
            uint32_t b[4];

            attn_load_v<D>(b, stage, n * ATTN_GROUP, jj);
#pragma unroll
            for (int m = 0; m < prefill_shape<D>::m_tiles; m++) {
                attn_mma<T>(o[m][2 * jj], w[m][n], b);
                attn_mma<T>(o[m][2 * jj + 1], w[m][n], b + 2);
            }
        }
}

template <int D>
TP_DEV void put_rows(const attn_view &a, const prefill_tile &p, int row, const float o[D / 8][4],
                     const attn_softmax &m)
{
    int lane = threadIdx.x % 32;

#pragma unroll
    for (int r = 0; r < 2; r++) {
        float sum = attn_quad_sum(m.sum[r]), scale = sum > 0.0f ? 1.0f / sum : 0.0f;
        int at = row + lane / 4 + 8 * r;
        int64_t to = ((int64_t)(p.seq.row + at) * a.n_q + p.head) * D + (lane & 3) * 2;

        if (at < p.seq.n_rows)
#pragma unroll
            for (int j = 0; j < D / 8; j++) {
                float v[2] = {o[j][2 * r] * scale, o[j][2 * r + 1] * scale};

                attn_store<2>(a, to + j * 8, v);
            }
    }
}

template <typename T, int D>
TP_DEV void do_tile(const attn_view &a, const prefill_tile &p, const T *k, uint4 *smem)
{
    typedef prefill_shape<D> shape;
    constexpr int m_tiles = shape::m_tiles;
    uint4 *q_tile = smem, *ring = smem + shape::q_chunks;
    int row = p.row + threadIdx.x / 32 * 16 * m_tiles; /* of the warp */
    int low = p.n_past + row, high = low + 16 * m_tiles - 1, slot = 0;
    prefill_loader<T> l = {k, a.block_tables + p.seq.table, 0, 0, 0};
    float o[m_tiles][D / 8][4] = {};
    attn_softmax m[m_tiles];

#pragma unroll
    for (int i = 0; i < m_tiles; i++)
        m[i] = {{ATTN_HIDDEN, ATTN_HIDDEN}, {0.0f, 0.0f}};
#pragma unroll 1
    for (int i = 0; i < shape::stages - 1; i++)
        load_stage<T, D>(a, p, l, ring);
    share_q<T, D>(a, p, q_tile);
    for (int i = 0; i < p.n_tiles; i++) {
        int key = (p.first_tile + i) * shape::keys;
        bool seen =
            row < p.seq.n_rows && key <= high && key + shape::keys > attn_first_key(low, a.window);
        uint32_t w[m_tiles][shape::groups][4];
        uint4 *stage = take_stage<T, D>(a, p, l, ring, slot);

        if (seen) {
            float s[m_tiles][shape::keys / 8][4] = {};

            scores<T, D>(q_tile, stage, s);
#pragma unroll
            for (int t = 0; t < m_tiles; t++) {
                if (key + shape::keys > low + 1 || key < attn_first_key(high, a.window))
                    hide_keys<shape::keys / 8>(s[t], low + 16 * t, key, a.window);
                attn_softmax_step<shape::keys / 8, D / 8>(m[t], s[t], o[t]);
#pragma unroll
                for (int n = 0; n < shape::groups; n++)
                    attn_weights<T>(w[t][n], s[t][2 * n], s[t][2 * n + 1]);
            }
        }
        stage = take_stage<T, D>(a, p, l, ring, slot);
        if (seen)
            add_values<T, D>(stage, w, o);
    }
#pragma unroll
    for (int t = 0; t < m_tiles; t++)
        put_rows<D>(a, p, row + 16 * t, o[t], m[t]);
}

template <typename T, int D> TP_KERNEL(ATTN_THREADS) kern_attn_prefill(attn_view a)
{
    TP_DYN_SMEM(uint4, smem);
    prefill_tile p;

    tp_grid_wait();
    tp_grid_trigger();
    p.seq = a.seqs[blockIdx.z];
    p.head = blockIdx.x;
    p.row = (gridDim.y - 1 - blockIdx.y) * prefill_shape<D>::rows;
    if (p.row >= p.seq.n_rows)
        return;
    p.n_past = p.seq.ctx - p.seq.n_rows;
    p.first_key = attn_first_key(p.n_past + p.row, a.window);
    p.end_key = p.n_past + min(p.row + prefill_shape<D>::rows, p.seq.n_rows);
    p.first_tile = p.first_key / prefill_shape<D>::keys;
    p.n_tiles = (p.end_key - 1) / prefill_shape<D>::keys - p.first_tile + 1;
    do_tile<T, D>(a, p, static_cast<const T *>(a.cache) + a.kv_of_q[p.head] * a.head_stride, smem);
}

/* ---- launch ---- */
template <int D>
static void launch(const attn_view *a, kern_dtype kv, int n, int max_rows, kern_stream s)
{
    dim3 grid(a->n_q, tp_blocks_of(max_rows, prefill_shape<D>::rows), n);

    if (kv == KERN_DTYPE_BF16)
        TP_LAUNCH((kern_attn_prefill<__nv_bfloat16, D>), grid, ATTN_THREADS, prefill_shape<D>::smem,
                  s, *a);
    else
        TP_LAUNCH((kern_attn_prefill<__half, D>), grid, ATTN_THREADS, prefill_shape<D>::smem, s,
                  *a);
}

void kern_attn_prefill_launch(const attn_view *a, kern_dtype kv, int n, int max_rows, kern_stream s)
{
    switch (a->head_dim) {
#define CASE(D)                                                                                    \
    case D: launch<D>(a, kv, n, max_rows, s); break;
        KERN_ATTN_EACH_DIM(CASE)
#undef CASE
    }
}

int kern_attn_prefill_prepare(void)
{
    int e = 0;

#define ALLOW(D)                                                                                   \
    e = e != 0 ? e : TP_ALLOW_SMEM((kern_attn_prefill<__nv_bfloat16, D>), prefill_shape<D>::smem); \
    e = e != 0 ? e : TP_ALLOW_SMEM((kern_attn_prefill<__half, D>), prefill_shape<D>::smem);
    KERN_ATTN_EACH_DIM(ALLOW)
#undef ALLOW
    return e;
}
