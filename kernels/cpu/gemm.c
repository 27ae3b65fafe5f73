/* SPDX-License-Identifier: Apache-2.0 */
/* gemm.c - the matrix product of the CPU backend: one driver for every M, weight type and instruction set.
 *
 * Work is cut into units of one panel (64 output columns) and one block of rows, and a unit of many rows into parts;
 * a thread takes runs of consecutive parts, so that with few rows its weights are long streams from memory, with many it
 * walks whole panels, and only the last ones are shared out part by part.  Inside a unit the loops are
 *
 *   group of chunks of k        a part of the panel that stays in a cache
 *     tile of rows              as many as the registers hold
 *       chunk                   the micro-kernel; partial sums in slots (gemm_plan.h)
 *
 * With few rows the kernel is bound by memory: it prefetches a few KiB ahead in its own stream, and where several
 * tiles of rows pass, the first of them fetch the next group into L2, so that memory never rests.
 *
 * Threads: the backend's team; whoever is free takes the next run of units.  The scratch is cut per thread; the
 * activations in tile order (AMX) are shared.
 */
#include "base/pulse.h"
#include "kernels/cpu/gemm_plan.h"
#include "kernels/kern_check.h"

#define FETCH_AHEAD   4096          /* bytes ahead in the stream of weights */
#define ROWS_MIN      192           /* rows of a block, at least, when k is long */
#define BLOCK_A_BYTES (1024 * 1024) /* activations of a block of rows */
#define STIR_ROWS     16          /* of a unit that takes long enough to be worth a sign of life */
#define PART_TILES    8           /* tiles of a part of a block, at least */
#define PART_MACS     (2 << 20)   /* its multiplications, at least: about 10 us */
#define TEAM_WORK_MIN (64 * 1024) /* weight bytes times tiles from which a team repays itself */
#define REPAIR_BYTES  ((GEMM_REPAIR_K + GEMM_A_TILE_K) * GEMM_NR * 2)

/* What is common to all units of one product. */
typedef struct gemm_job {
    const kern_backend *be;
    const kern_gemm_args *args;
    const kern_weight *w;
    const gemm_kernels *kn;
    const uint8_t *a; /* activations, as the kernels want them */
    size_t a_stride;
    int64_t rows;      /* of a block */
    int64_t n_blocks;  /* of rows */
    int64_t part_rows; /* of a part of a block */
    int64_t n_parts;
    uint8_t *scratch; /* [threads][local_bytes] */
    uint8_t *packed;  /* activations in tile order */
    gemm_plan plan;
} gemm_job;

/* A thread's own memory. */
typedef struct gemm_local {
    float *acc; /* [tiles][slots][mr][64] */
    uint8_t *repair;
} gemm_local;

const gemm_kernels *kern_cpu_gemm_kernels(kern_cpu_isa isa, kern_dtype dtype)
{
    switch (isa) {
    case KERN_CPU_AMX:
        if (dtype == KERN_DTYPE_BF16)
            return &kern_cpu_gemm_amx_bf16;
        return &kern_cpu_gemm_avx512[dtype];
    case KERN_CPU_AVX512: return &kern_cpu_gemm_avx512[dtype];
    case KERN_CPU_AVX2: return &kern_cpu_gemm_avx2[dtype];
    case KERN_CPU_GENERIC: break;
    }
    return &kern_cpu_gemm_generic[dtype];
}

static int64_t round_up(int64_t x, int64_t to)
{
    return (x + to - 1) / to * to;
}

/* Rows whose partial sums one thread keeps at the same time, at most. */
static int64_t local_rows(int64_t m)
{
    return (m < ROWS_MIN ? m : ROWS_MIN) + GEMM_MR_MAX;
}

static size_t local_bytes(int64_t m)
{
    return (size_t)local_rows(m) * GEMM_SLOTS_MAX * GEMM_NR * sizeof(float) + REPAIR_BYTES;
}

size_t kern_cpu_gemm_scratch_bytes(const kern_backend *be, int m_max, int64_t n_max, int64_t k_max)
{
    bool tiles = ((const kern_cpu_backend *)be)->isa == KERN_CPU_AMX;

    (void)n_max;
    if (m_max <= 0)
        return 0;
    return 64 + (size_t)be->n_threads * local_bytes(m_max) +
           (tiles ? kern_cpu_gemm_packed_bytes(m_max, k_max) : 0);
}

/* How fast tile `t` of `n` fetches: alone, ahead of itself; else the first ones share the next group, so thinly that
 * their own loads are not held up. */
static gemm_fetch fetch_rate(int64_t t, int64_t n)
{
    if (n == 1)
        return GEMM_FETCH_FULL;
    if (n <= 3)
        return n == 2 || t == 1 ? GEMM_FETCH_HALF : GEMM_FETCH_QUARTER;
    if (n < 8)
        return t < 4 ? GEMM_FETCH_QUARTER : GEMM_FETCH_NONE;
    return t < 8 && t % 2 == 0 ? GEMM_FETCH_QUARTER : GEMM_FETCH_NONE;
}

/* One tile of rows in one group of chunks. */
typedef struct gemm_step {
    int64_t r0;
    int rows;
    int c0, c1; /* chunks [c0, c1) */
    float *acc;
    gemm_fetch rate;
} gemm_step;

/* *fetch walks through the next group. */
static void run_tile(const gemm_job *job, const gemm_local *lc, const uint8_t *panel,
                     const gemm_step *s, const uint8_t **fetch)
{
    kern_dtype t = job->w->desc.dtype;
    size_t slot_step = (size_t)job->kn->mr * GEMM_NR;

    for (int c = s->c0; c < s->c1; c++) {
        const gemm_chunk *ch = &job->plan.chunks[c];
        size_t bytes = (size_t)(ch->k / gemm_line_k(t)) * gemm_line_bytes(t);
        gemm_tile tile = {
            .w = panel + (size_t)(ch->k0 / gemm_line_k(t)) * gemm_line_bytes(t),
            .a = job->a + (size_t)s->r0 * job->a_stride + ch->a_off,
            .a_stride = job->a_stride,
            .k = ch->k,
            .acc = s->acc + (size_t)ch->slot * slot_step,
            .slot_step = slot_step,
            .joins = ch->joins,
            .resume = ch->resume,
        };

        tile.prefetch = s->rate == GEMM_FETCH_FULL ? tile.w + FETCH_AHEAD : *fetch;
        if (ch->repair) {
            kern_cpu_gemm_repair(lc->repair, panel, ch);
            tile.w = lc->repair;
        }
        job->kn->tile[s->rows - 1][s->rate](&tile);
        if (s->rate == GEMM_FETCH_HALF)
            *fetch += bytes / 2;
        else if (s->rate == GEMM_FETCH_QUARTER)
            *fetch += bytes / 4;
    }
}

static void store_tile(const gemm_job *job, int64_t panel, int64_t r0, int rows, const float *acc)
{
    const kern_gemm_args *a = job->args;
    int64_t n = job->w->desc.n, c0 = panel * GEMM_NR;

    for (int root = 0; root < job->plan.n_roots; root++) {
        gemm_store s = {
            .acc = acc + (size_t)root * (size_t)job->kn->mr * GEMM_NR,
            .out = a->out + ((int64_t)root * a->m + r0) * n + c0,
            .out_stride = n,
            .bias = a->bias != NULL ? a->bias + c0 : NULL,
            .rows = rows,
            .cols = n - c0 < GEMM_NR ? (int)(n - c0) : GEMM_NR,
        };

        job->kn->store(&s);
    }
}

/* How `rows` rows are cut into tiles: n of them, the first n_more one row_step larger than the others. */
typedef struct gemm_cut {
    int64_t n, n_more, rows;
} gemm_cut;

/* As equal as can be: a tile of two rows takes as long as one of three. */
static gemm_cut cut_tiles(const gemm_kernels *kn, int64_t rows)
{
    int64_t steps = (rows + kn->row_step - 1) / kn->row_step;
    int64_t n = (rows + kn->mr - 1) / kn->mr;

    return (gemm_cut){.n = n, .n_more = steps % n, .rows = steps / n * kn->row_step};
}

/* Rows [r_begin, r_end) of one panel, which begins at w. */
static void run_unit(const gemm_job *job, const gemm_local *lc, const uint8_t *w, int64_t panel,
                     int64_t r_begin, int64_t r_end)
{
    const gemm_plan *p = &job->plan;
    gemm_cut cut = cut_tiles(job->kn, r_end - r_begin);
    size_t tile_floats = (size_t)p->n_slots * (size_t)job->kn->mr * GEMM_NR;
    int c0 = 0;

    for (int g = 0; g < p->n_groups; g++) {
        int c1 = p->group_end[g];
        const gemm_chunk *last = &p->chunks[c1 - 1];
        const uint8_t *fetch =
            w + (size_t)((last->k0 + last->k) / gemm_line_k(job->w->desc.dtype)) *
                    gemm_line_bytes(job->w->desc.dtype);
        int64_t r0 = r_begin;

        for (int64_t t = 0; t < cut.n; t++) {
            int64_t rows = cut.rows + (t < cut.n_more ? job->kn->row_step : 0);
            gemm_step step = {
                .r0 = r0,
                .rows = (int)(r_end - r0 < rows ? r_end - r0 : rows),
                .c0 = c0,
                .c1 = c1,
                .acc = lc->acc + (p->n_groups > 1 ? (size_t)t * tile_floats : 0),
                .rate = fetch_rate(t, cut.n),
            };

            run_tile(job, lc, w, &step, &fetch);
            if (g == p->n_groups - 1)
                store_tile(job, panel, step.r0, step.rows, step.acc);
            r0 += rows;
        }
        c0 = c1;
    }
}

/* Rows of a block: their activations stay in cache; fewer when there are too few units to occupy the team.
 * Rows of a part: so many that their work is worth being taken alone. */
static void cut_rows(gemm_job *job, int n_threads)
{
    int64_t m = job->args->m, mr = job->kn->mr, k = job->w->desc.k;
    int64_t a_row = k * (int64_t)kern_dtype_bytes(gemm_act_dtype(job->w->desc.dtype));
    int64_t rows = BLOCK_A_BYTES / (a_row > 0 ? a_row : 1);

    if (job->plan.n_groups > 1 || rows < ROWS_MIN)
        rows = ROWS_MIN;
    rows = rows < m ? rows : m;
    for (;;) {
        int64_t units = (m + rows - 1) / rows * job->w->n_panels;
        int64_t rounds = (units + n_threads - 1) / n_threads;

        if (units * 10 >= rounds * n_threads * 9 || rows <= 2 * mr)
            break;
        rows = round_up(rows / 2, mr);
    }
    job->n_blocks = (m + rows - 1) / rows;
    rows = (m + job->n_blocks - 1) / job->n_blocks; /* as equal as whole tiles allow */
    job->rows = job->n_blocks > 1 ? round_up(rows, mr) : rows;
    job->n_blocks = (m + job->rows - 1) / job->rows;
    job->part_rows = round_up(PART_MACS / (k * GEMM_NR + 1), mr);
    if (job->part_rows < PART_TILES * mr)
        job->part_rows = PART_TILES * mr;
    job->n_parts = (job->rows + job->part_rows - 1) / job->part_rows;
}

static void run_units(const void *args, int64_t begin, int64_t end, int thread)
{
    const gemm_job *job = args;
    uint8_t *mine = job->scratch + (size_t)thread * local_bytes(job->args->m);
    gemm_local lc = {.acc = (float *)(void *)(mine + REPAIR_BYTES), .repair = mine};

    while (begin < end) {
        int64_t part = begin % job->n_parts, unit = begin / job->n_parts;
        int64_t parts = job->n_parts - part < end - begin ? job->n_parts - part : end - begin;
        int64_t r_block = unit / job->w->n_panels * job->rows;
        int64_t r_last = job->args->m - r_block < job->rows ? job->args->m : r_block + job->rows;
        int64_t r0 = r_block + part * job->part_rows;
        int64_t r1 = r0 + parts * job->part_rows < r_last ? r0 + parts * job->part_rows : r_last;
        int64_t panel = unit % job->w->n_panels;
        const uint8_t *w = r0 < r1 ? gemm_panel(job->be, job->w, panel, thread) : NULL;

        if (w != NULL)
            run_unit(job, &lc, w, panel, r0, r1);
        begin += parts;
        if (job->rows >= STIR_ROWS || job->w->late != NULL)
            tp_stir();
    }
}

static void pack_row_tiles(const void *args, int64_t begin, int64_t end, int thread)
{
    const gemm_job *job = args;

    (void)thread;
    for (int64_t t = begin; t < end; t++)
        kern_cpu_gemm_pack_rows(job->packed, &job->plan, job->args, t);
}

static void run_job(gemm_job *job, kern_backend *be)
{
    int64_t m = job->args->m, tiles = (m + job->kn->mr - 1) / job->kn->mr;
    int64_t work = (int64_t)job->w->bytes * tiles;

    if (job->kn->pack_a) {
        kern_team_work pack = {.run = pack_row_tiles,
                               .args = job,
                               .n = (m + GEMM_A_TILE_ROWS - 1) / GEMM_A_TILE_ROWS,
                               .step = 1};

        job->a = job->packed;
        job->a_stride = (size_t)job->plan.k_tiles * (GEMM_A_TILE_BYTES / GEMM_A_TILE_ROWS);
        kern_cpu_share(be, &pack, work, TEAM_WORK_MIN);
    }
    kern_cpu_share(be,
                   &(kern_team_work){.run = run_units,
                                     .args = job,
                                     .n = job->n_blocks * job->w->n_panels * job->n_parts,
                                     .step = 1,
                                     .begin = job->kn->thread_begin,
                                     .end = job->kn->thread_end},
                   work, TEAM_WORK_MIN);
}

tp_status kern_cpu_gemm(kern_backend *be, const kern_gemm_args *a)
{
    const kern_weight *w = a->w;
    gemm_job job; /* some KiB: not cleared */
    uintptr_t scratch = ((uintptr_t)a->scratch + 63) / 64 * 64;

    TP_TRY(kern_check_gemm(a, &w->desc));
    if (a->m == 0 || w->desc.n == 0)
        return TP_OK;
    if (a->scratch == NULL)
        return TP_FAIL(TP_ERR_INVALID, "gemm: scratch is NULL, expected %zu bytes",
                       kern_cpu_gemm_scratch_bytes(be, a->m, w->desc.n, w->desc.k));
    job.be = be;
    job.args = a;
    job.w = w;
    job.a = a->in;
    job.kn = kern_cpu_gemm_kernels(kern_cpu_of(be)->isa, w->desc.dtype);
    job.a_stride = (size_t)w->desc.k * kern_dtype_bytes(gemm_act_dtype(w->desc.dtype));
    job.scratch = (uint8_t *)scratch;
    job.packed = job.scratch + (size_t)be->n_threads * local_bytes(a->m);
    kern_cpu_gemm_plan(&job.plan, a, job.kn);
    cut_rows(&job, be->n_threads);
    run_job(&job, be);
    return w->late == NULL ? TP_OK : kern_cpu_late_status(w);
}
