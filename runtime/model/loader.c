/* SPDX-License-Identifier: Apache-2.0 */
/* loader.c - from a list of parameters to filled weights: check everything, then read in file order.
 *
 * 1. Every parameter is found and its shape and type checked before a byte of data is read.
 * 2. The kept parts are cut into blocks of up to BLOCK_BYTES and sorted by file and offset, so that the disk sees
 *    large ascending reads.
 * 3. A crew of threads takes the blocks in that order: each reads one into a buffer of its own, looks for NaN, and
 *    packs it.  So reading, packing and the clearing of fresh pages run side by side on all cores.
 * 4. The work is done in rounds; after each the ranks exchange their status.  So a rank that fails is noticed early, and
 *    no rank waits longer for another than one round.  Small models have one.
 *
 * Loading late: where nearly all that is needed is in the page cache (on every rank) and not too much, nobody waits for the
 * matrices.  Steps read what they need from the file (kern_ops.weight_late), and the crew packs meanwhile.  The crew
 * stands aside until a first step has had the machine for itself, or no step has come for a moment.  rt_load_step(),
 * at a step's border, is where the end of it, or a failure, is noticed.
 *
 * A column slice (o, down) is read row by row where that spares bytes and the pieces are not tiny; otherwise whole rows
 * are read and the columns picked while packing.
 * With dummy weights the reader makes noise instead of reading: a function of the name, the row and the column, so the
 * model is the same at every number of ranks.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "runtime/model/model_impl.h"
#include "runtime/model/progress.h"
#include "runtime/model/safetensors.h"

#define BLOCK_BYTES     (4u << 20)
#define BLOCK_ROWS      64 /* blocks hold a multiple of so many rows: packed tiles are not torn */
#define CREW_MAX        16 /* threads; one more than the backend has, so that a disk is kept busy */
#define ROUNDS_MAX      16
#define ROUND_PARAMS    (32 << 20) /* weights of the model per round, at least */
#define SLICE_BYTES_MIN 512        /* shorter column slices are read with their whole rows */
#define NOISE_LEN       (1u << 16)
#define VECTOR_PIECE    4096               /* elements of a vector that are converted at a time */
#define LATE_BYTES_MAX  (INT64_C(4) << 30) /* of a rank: what a first step may have to read */
#define LATE_MISSING    8                  /* one of so many blocks may still be on the disk */
#define LATE_IDLE_NS    (TP_NS_PER_S / 2)  /* so long the crew waits for a first step */
#define LATE_STEP_NS    TP_NS_PER_S        /* so long, at most, for the end of that step */
#define LATE_POLL_NS    TP_NS_PER_MS

/* Rows of one parameter that travel together. */
typedef struct block {
    const rt_param *param;
    const rt_st_tensor *tensor; /* NULL: noise */
    int64_t row, n_rows;        /* rows of the tensor (elements of a vector) */
    uint64_t offset;            /* in the file: for sorting */
} block;

/* What one thread has in hand: n_rows rows, `stride` bytes apart, the kept columns beginning at data + skip. */
typedef struct slot {
    const block *b;
    char *data; /* owned; BLOCK_BYTES */
    size_t stride, skip;
    kern_dtype dtype;
} slot;

struct rt_loader;

typedef struct worker {
    struct rt_loader *loader;
    pthread_t thread;
    slot slot;
    float piece[VECTOR_PIECE]; /* of a vector, on its way to the backend */
} worker;

/* Where the rows of a late matrix come from. */
typedef struct late_param {
    const struct rt_loader *loader;
    const rt_param *param;
    const rt_st_tensor *tensor;
} late_param;

typedef struct rt_loader {
    rt_model *m;
    rt_st st;
    const char *prefix; /* of tensor names: "model." */
    rt_param *params;   /* owned; [n_params] */
    int n_params;
    block *blocks; /* owned; in reading order */
    size_t n_blocks, cap_blocks;
    late_param *late; /* owned; [n_params]; late loading only */
    int64_t start_ns;
    float *noise;    /* owned; [NOISE_LEN]; dummy weights only */
    worker *workers; /* owned; [n_hired] */
    int n_hired, n_started;

    pthread_mutex_t put_lock; /* held for a put, where the backend takes one at a time */
    pthread_mutex_t lock;     /* protects the fields below */
    pthread_cond_t changed;
    size_t next, done; /* blocks that were given out, and that are packed */
    int64_t bytes_read;
    const rt_param *warned; /* the parameter that the last warning was about */
    bool stop;
    int64_t hold_ns;  /* nobody takes a block before this time */
    int64_t n_steps;  /* that the model has made meanwhile */
    tp_status status; /* of the first worker that failed */
    char error[512];  /* its text: last errors are per thread */
} rt_loader;

static const char *const prefixes[] = {"model.", "language_model.model.", "model.language_model."};

/* ---- finding and checking ---- */

static tp_status find_prefix(rt_loader *ld)
{
    char name[128];

    for (size_t i = 0; i < TP_ARRAY_LEN(prefixes); i++) {
        (void)snprintf(name, sizeof name, "%sembed_tokens.weight", prefixes[i]);
        if (rt_st_find(&ld->st, name) != NULL) {
            ld->prefix = prefixes[i];
            return TP_OK;
        }
    }
    return TP_REJECT(TP_ERR_NOT_FOUND,
                     "%s: tensor model.embed_tokens.weight is missing (%zu tensors)", ld->st.dir,
                     ld->st.n_tensors);
}

static void shape_text(char *text, size_t size, const int64_t *shape, int n)
{
    size_t at = 0;

    text[0] = '\0';
    for (int i = 0; i < n && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, "%s%" PRId64, i == 0 ? "" : ", ", shape[i]);
}

static tp_status find_tensor(const rt_loader *ld, const rt_param *p, const rt_st_tensor **out)
{
    int64_t shape[2] = {p->rows, p->cols};
    int n_dims = p->cols == 0 ? 1 : 2;
    bool head = strcmp(p->name, "lm_head.weight") == 0;
    const rt_st_tensor *t;
    char name[128], found[128], expected[64];

    (void)snprintf(name, sizeof name, "%s%s", head ? "" : ld->prefix, p->name);
    t = rt_st_find(&ld->st, name);
    if (t == NULL && head) {
        (void)snprintf(name, sizeof name, "language_model.lm_head.weight");
        t = rt_st_find(&ld->st, name);
    }
    if (t == NULL)
        return TP_REJECT(TP_ERR_NOT_FOUND, "%s: tensor %s%s is missing", ld->st.dir,
                         head ? "" : ld->prefix, p->name);
    if (t->n_dims != n_dims || memcmp(t->shape, shape, (size_t)n_dims * sizeof *shape) != 0) {
        shape_text(found, sizeof found, t->shape, t->n_dims);
        shape_text(expected, sizeof expected, shape, n_dims);
        return TP_REJECT(TP_ERR_FORMAT,
                         "%s/%s: tensor %s has shape [%s], config.json asks for [%s]", ld->st.dir,
                         ld->st.files[t->file].name, t->name, found, expected);
    }
    if (t->dtype == RT_ST_OTHER)
        return TP_REJECT(TP_ERR_UNSUPPORTED,
                         "%s/%s: tensor %s is stored as %s; supported: F32, BF16, F16", ld->st.dir,
                         ld->st.files[t->file].name, t->name, t->dtype_name);
    *out = t;
    return TP_OK;
}

/* ---- blocks ---- */

static size_t element_bytes(const rt_st_tensor *t)
{
    return t == NULL || t->dtype == RT_ST_F32 ? 4 : 2;
}

/* Elements from row to row of the tensor. */
static int64_t row_len(const rt_param *p)
{
    return p->cols == 0 ? 1 : p->cols;
}

/* True when only the kept columns of each row are read. */
static bool reads_slices(const rt_param *p, size_t element)
{
    size_t kept = (size_t)p->n_cols * element, row = (size_t)p->cols * element;

    return p->cols != 0 && kept >= SLICE_BYTES_MIN && kept * 4 < row * 3;
}

static tp_status push_block(rt_loader *ld, const block *b)
{
    if (ld->n_blocks == ld->cap_blocks) {
        size_t cap = ld->cap_blocks != 0 ? 2 * ld->cap_blocks : 1024;
        block *blocks = tp_realloc(ld->blocks, cap * sizeof *blocks);

        if (blocks == NULL)
            return TP_REJECT(TP_ERR_NOMEM, "no memory for the list of reads");
        ld->blocks = blocks;
        ld->cap_blocks = cap;
    }
    ld->blocks[ld->n_blocks++] = *b;
    return TP_OK;
}

static tp_status cut_param(rt_loader *ld, const rt_param *p, const rt_st_tensor *t)
{
    size_t element = element_bytes(t);
    size_t row = (size_t)(reads_slices(p, element) ? p->n_cols : row_len(p)) * element;
    int64_t most = (int64_t)(BLOCK_BYTES / row);

    if (p->n_rows == 0 || (p->cols != 0 && p->n_cols == 0))
        return TP_OK;
    if (most > BLOCK_ROWS)
        most -= most % BLOCK_ROWS;
    for (int64_t done = 0; done < p->n_rows; done += most) {
        block b = {.param = p, .tensor = t, .row = p->row_first + done};

        b.n_rows = p->n_rows - done < most ? p->n_rows - done : most;
        if (t != NULL)
            b.offset = t->offset + (uint64_t)(b.row * row_len(p) + p->col_first) * element;
        TP_TRY(push_block(ld, &b));
    }
    return TP_OK;
}

static int in_file_order(const void *a, const void *b)
{
    const block *x = a, *y = b;

    if (x->tensor->file != y->tensor->file)
        return x->tensor->file < y->tensor->file ? -1 : 1;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static tp_status plan_blocks(rt_loader *ld)
{
    bool dummy = ld->m->options.dummy_weights;

    for (int i = 0; i < ld->n_params; i++) {
        const rt_st_tensor *t = NULL;

        if (!dummy)
            TP_TRY(find_tensor(ld, &ld->params[i], &t));
        TP_TRY(cut_param(ld, &ld->params[i], t));
    }
    if (!dummy && ld->n_blocks != 0)
        qsort(ld->blocks, ld->n_blocks, sizeof *ld->blocks, in_file_order);
    return TP_OK;
}

/* ---- reading ---- */

static tp_status read_block(const rt_loader *ld, slot *s)
{
    const rt_param *p = s->b->param;
    const rt_st_tensor *t = s->b->tensor;
    size_t element = element_bytes(t), row = (size_t)row_len(p) * element;
    uint64_t at = t->offset + (uint64_t)s->b->row * row;

    s->dtype = (kern_dtype)t->dtype;
    if (!reads_slices(p, element)) {
        s->stride = row;
        s->skip = (size_t)p->col_first * element;
        return rt_st_read(&ld->st, t->file, at, s->data, (size_t)s->b->n_rows * row);
    }
    s->stride = (size_t)p->n_cols * element;
    s->skip = 0;
    for (int64_t i = 0; i < s->b->n_rows; i++)
        TP_TRY(rt_st_read(&ld->st, t->file,
                          at + (uint64_t)i * row + (uint64_t)p->col_first * element,
                          s->data + (size_t)i * s->stride, s->stride));
    return TP_OK;
}

/* Norm weights 1, biases 0, matrices uniform with a variance of 1 / columns. */
static void make_noise(const rt_loader *ld, slot *s)
{
    const rt_param *p = s->b->param;
    float *out = (float *)(void *)s->data;
    float constant = strstr(p->name, "norm") != NULL ? 1 : 0;
    float scale = (float)sqrt(3.0 / (double)row_len(p));
    uint32_t seed = (uint32_t)tp_hash_fnv(p->name, strlen(p->name));
    int64_t n_cols = p->cols == 0 ? 1 : p->n_cols;

    s->dtype = KERN_DTYPE_F32;
    s->stride = (size_t)n_cols * sizeof *out;
    s->skip = 0;
    for (int64_t i = 0; i < s->b->n_rows; i++) {
        uint32_t at = tp_mix32(seed ^ (uint32_t)(s->b->row + i)) + (uint32_t)p->col_first;

        for (int64_t j = 0; j < n_cols; j++)
            out[i * n_cols + j] =
                p->cols == 0 ? constant : scale * ld->noise[(at + (uint32_t)j) & (NOISE_LEN - 1)];
    }
}

/* An exponent of all ones is NaN or infinity in every format: adding its lowest bit carries into the sign's place, and
 * nowhere else.  Eight bytes at a time; the block was just written, so this runs in cache. */
static bool has_not_finite(const slot *s)
{
    static const uint64_t ones[] = {0x7f8000007f800000U, 0x7f807f807f807f80U, 0x7c007c007c007c00U};
    static const uint64_t lowest[] = {0x0080000000800000U, 0x0080008000800080U,
                                      0x0400040004000400U};
    static const uint64_t sign[] = {0x8000000080000000U, 0x8000800080008000U, 0x8000800080008000U};
    size_t n = (size_t)s->b->n_rows * s->stride;
    uint64_t mask = ones[s->dtype], one = lowest[s->dtype], v, bad = 0;

    for (size_t i = 0; i + sizeof v <= n; i += sizeof v) {
        memcpy(&v, s->data + i, sizeof v);
        bad |= (v & mask) + one;
    }
    v = 0;
    memcpy(&v, s->data + n / sizeof v * sizeof v, n % sizeof v);
    bad |= (v & mask) + one;
    return (bad & sign[s->dtype]) != 0;
}

/* ---- packing ---- */

static float f16_value(uint16_t h)
{
    uint32_t exponent = (h >> 10) & 31, fraction = h & 1023;
    float v = exponent == 0 ? ldexpf((float)fraction, -24)
                            : ldexpf((float)(fraction + 1024), (int)exponent - 25);

    if (exponent == 31)
        v = fraction == 0 ? INFINITY : NAN;
    return (h & 0x8000) != 0 ? -v : v;
}

static float bf16_value(uint16_t h)
{
    uint32_t bits = (uint32_t)h << 16;
    float v;

    memcpy(&v, &bits, sizeof v);
    return v;
}

/* Elements [from, from + n) of a vector's block. */
static void unpack_vector(float *out, const slot *s, int64_t from, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint16_t half;

        if (s->dtype == KERN_DTYPE_F32) {
            memcpy(&out[i], s->data + 4 * (from + i), 4);
            continue;
        }
        memcpy(&half, s->data + 2 * (from + i), 2);
        out[i] = s->dtype == KERN_DTYPE_BF16 ? bf16_value(half) : f16_value(half);
    }
}

static tp_status put_vector(worker *w, float *dst)
{
    kern_backend *be = w->loader->m->be;
    const slot *s = &w->slot;

    for (int64_t at = 0; at < s->b->n_rows; at += VECTOR_PIECE) {
        int64_t n = s->b->n_rows - at < VECTOR_PIECE ? s->b->n_rows - at : VECTOR_PIECE;

        unpack_vector(w->piece, s, at, n);
        TP_TRY(be->ops->put(be, dst + at, w->piece, (size_t)n * sizeof *w->piece));
    }
    return TP_OK;
}

static tp_status put(worker *w)
{
    const slot *s = &w->slot;
    const rt_param *p = s->b->param;
    kern_backend *be = w->loader->m->be;
    int64_t done = s->b->row - p->row_first;

    if (p->vector != NULL)
        return put_vector(w, p->vector + done);
    return be->ops->weight_put(be, p->weight,
                               &(kern_weight_rows){.row = p->dst_row + done,
                                                   .n_rows = s->b->n_rows,
                                                   .src = s->data + s->skip,
                                                   .src_stride = s->stride,
                                                   .src_dtype = s->dtype});
}

/* ---- the crew ---- */

static void warn_not_finite(rt_loader *ld, const rt_param *p)
{
    bool told;

    pthread_mutex_lock(&ld->lock);
    told = ld->warned == p;
    ld->warned = p;
    pthread_mutex_unlock(&ld->lock);
    if (!told)
        tp_warn("model", "tensor %s holds NaN or infinity", p->name);
}

static tp_status load_block(worker *w, const block *b)
{
    rt_loader *ld = w->loader;
    tp_status st;

    w->slot.b = b;
    if (b->tensor == NULL)
        make_noise(ld, &w->slot);
    else
        TP_TRY(read_block(ld, &w->slot));
    if (has_not_finite(&w->slot))
        warn_not_finite(ld, b->param);
    if (ld->m->be->parallel_put)
        return put(w);
    pthread_mutex_lock(&ld->put_lock);
    st = put(w);
    pthread_mutex_unlock(&ld->put_lock);
    return st;
}

/* Until hold_ns, or for as long as a test wants to see steps without weights.  ld->lock is held. */
static void stand_aside(rt_loader *ld)
{
    while (ld->late != NULL && !ld->stop && ld->next < ld->n_blocks) {
        bool told = tp_fault_armed("load.late");
        int64_t until = told ? tp_now_ns() + LATE_POLL_NS : ld->hold_ns;
        struct timespec t = {.tv_sec = until / TP_NS_PER_S, .tv_nsec = until % TP_NS_PER_S};

        if (tp_now_ns() >= until)
            break;
        (void)pthread_cond_timedwait(&ld->changed, &ld->lock, &t);
    }
}

/* The next block of this worker; NULL when there is none or somebody failed. */
static const block *take_block(rt_loader *ld)
{
    const block *b = NULL;

    pthread_mutex_lock(&ld->lock);
    stand_aside(ld);
    if (!ld->stop && ld->status == TP_OK && ld->next < ld->n_blocks)
        b = &ld->blocks[ld->next++];
    pthread_mutex_unlock(&ld->lock);
    return b;
}

/* The last block of a late load is packed. */
static void tell_late(rt_loader *ld)
{
    double seconds = (double)(tp_now_ns() - ld->start_ns) / (double)TP_NS_PER_S;

    ld->m->load_seconds = seconds;
    tp_info("model", "all weights are in memory after %.2f s", seconds);
}

static void *worker_main(void *arg)
{
    worker *w = arg;
    rt_loader *ld = w->loader;

    for (const block *b; (b = take_block(ld)) != NULL;) {
        tp_status st = load_block(w, b);

        pthread_mutex_lock(&ld->lock);
        if (st == TP_OK) {
            if (++ld->done == ld->n_blocks && ld->late != NULL)
                tell_late(ld);
            ld->bytes_read += b->tensor == NULL ? 0 : b->n_rows * (int64_t)w->slot.stride;
        } else if (ld->status == TP_OK) {
            ld->status = st;
            (void)snprintf(ld->error, sizeof ld->error, "%s", tp_last_error());
        }
        pthread_cond_broadcast(&ld->changed);
        pthread_mutex_unlock(&ld->lock);
    }
    return NULL;
}

static tp_status start_crew(rt_loader *ld)
{
    for (int i = 0; i < ld->n_hired; i++, ld->n_started++)
        if (pthread_create(&ld->workers[i].thread, NULL, worker_main, &ld->workers[i]) != 0)
            return TP_REJECT(TP_ERR_NOMEM, "cannot start a thread that reads weights");
    return TP_OK;
}

static void end_crew(rt_loader *ld)
{
    pthread_mutex_lock(&ld->lock);
    ld->stop = true;
    pthread_cond_broadcast(&ld->changed);
    pthread_mutex_unlock(&ld->lock);
    for (int i = 0; i < ld->n_started; i++)
        (void)pthread_join(ld->workers[i].thread, NULL);
}

/* Waits until `n` blocks are packed. */
static tp_status wait_for_blocks(rt_loader *ld, size_t n)
{
    tp_status st;

    pthread_mutex_lock(&ld->lock);
    while (ld->done < n && ld->status == TP_OK)
        pthread_cond_wait(&ld->changed, &ld->lock);
    st = ld->status;
    pthread_mutex_unlock(&ld->lock);
    return st == TP_OK ? TP_OK : TP_REJECT(st, "%s", ld->error);
}

/* ---- all together ---- */

static tp_status hire_crew(rt_loader *ld)
{
    int n = ld->m->be->n_threads + 1;

    ld->n_hired = n < CREW_MAX ? n : CREW_MAX;
    ld->workers = tp_calloc((size_t)ld->n_hired, sizeof *ld->workers);
    if (ld->workers == NULL)
        return TP_REJECT(TP_ERR_NOMEM, "no memory for threads that read weights");
    for (int i = 0; i < ld->n_hired; i++) {
        ld->workers[i].loader = ld;
        ld->workers[i].slot.data = tp_aligned_alloc(64, BLOCK_BYTES);
        if (ld->workers[i].slot.data == NULL)
            return TP_REJECT(TP_ERR_NOMEM, "no memory for read buffers");
    }
    return TP_OK;
}

static tp_status prepare(rt_loader *ld, const char *dir)
{
    uint32_t state = 1;

    if (ld->m->options.dummy_weights) {
        ld->noise = tp_malloc(NOISE_LEN * sizeof *ld->noise);
        if (ld->noise == NULL)
            return TP_REJECT(TP_ERR_NOMEM, "no memory for noise");
        for (size_t i = 0; i < NOISE_LEN; i++) {
            state = tp_mix32(state + 0x9e3779b9U);
            ld->noise[i] = (float)(int32_t)state * 0x1p-31F;
        }
    } else {
        TP_TRY(rt_st_open(&ld->st, dir));
        TP_TRY(find_prefix(ld));
    }
    TP_TRY(plan_blocks(ld));
    TP_TRY(hire_crew(ld));
    for (int i = 0; i < ld->st.n_files; i++)
        (void)posix_fadvise(ld->st.files[i].fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    return TP_OK;
}

static tp_status run_rounds(rt_loader *ld)
{
    int64_t want = rt_config_params(&ld->m->config) / ROUND_PARAMS + 1; /* the same on every rank */
    size_t rounds = want < ROUNDS_MAX ? (size_t)want : ROUNDS_MAX;
    rt_progress bar;
    tp_status st = TP_OK;

    rt_progress_init(&bar, ld->m->options.progress, "loading weights");
    for (size_t round = 1; round <= rounds && st == TP_OK; round++) {
        st = wait_for_blocks(ld, ld->n_blocks * round / rounds);
        st = rt_agree(ld->m->group, st, false);
        rt_progress_show(&bar, (double)round / (double)rounds);
    }
    rt_progress_end(&bar);
    return st;
}

static void init_locks(rt_loader *ld)
{
    pthread_condattr_t monotonic;

    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_mutex_init(&ld->put_lock, NULL);
    (void)pthread_mutex_init(&ld->lock, NULL);
    (void)pthread_cond_init(&ld->changed, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
}

/* ---- late ---- */

/* kern_weight_source.read: whole rows at once, slices of columns one by one. */
static tp_status read_late(const void *owner, int64_t first, int64_t n, void *dst)
{
    const late_param *l = owner;
    const rt_param *p = l->param;
    size_t element = element_bytes(l->tensor), kept = (size_t)p->n_cols * element;
    uint64_t row = (uint64_t)p->cols * element;
    uint64_t at = l->tensor->offset + (uint64_t)(p->row_first + first) * row +
                  (uint64_t)p->col_first * element;

    if (p->n_cols == p->cols)
        return rt_st_read(&l->loader->st, l->tensor->file, at, dst, (size_t)n * kept);
    for (int64_t i = 0; i < n; i++)
        TP_TRY(rt_st_read(&l->loader->st, l->tensor->file, at + (uint64_t)i * row,
                          (char *)dst + (size_t)i * kept, kept));
    return TP_OK;
}

/* Nearly every block begins in the page cache, and together they are not too much for a step. */
static bool can_be_late(const rt_loader *ld)
{
    const rt_model *m = ld->m;
    size_t missing = 0;
    int64_t all = 0;

    if (!m->options.lazy_weights || m->options.dummy_weights || m->be->ops->weight_late == NULL)
        return false;
    if (tp_fault_armed("load.late"))
        return true;
    for (size_t i = 0; i < ld->n_blocks; i++) {
        const block *b = &ld->blocks[i];
        int64_t bytes = b->n_rows * row_len(b->param) * (int64_t)element_bytes(b->tensor);

        all += bytes;
        if (!rt_st_cached(&ld->st, b->tensor->file, b->offset)) {
            rt_st_fetch(&ld->st, b->tensor->file, b->offset, (uint64_t)bytes);
            missing++;
        }
    }
    return all <= LATE_BYTES_MAX && missing <= ld->n_blocks / LATE_MISSING;
}

/* The same answer on every rank: true when all of them can. */
static tp_status agree_late(const rt_loader *ld, bool *late)
{
    int32_t mine = can_be_late(ld), all[TP_SEG_MAX] = {0};

    *late = false;
    if (!ld->m->options.lazy_weights)
        return TP_OK;
    TP_TRY(comm_allgather(ld->m->group, &mine, all, sizeof mine));
    for (int rank = 0; rank < comm_size(ld->m->group); rank++)
        if (all[rank] == 0)
            return TP_OK;
    *late = true;
    return TP_OK;
}

/* Vectors are loaded now; what is left is the crew's. */
static tp_status load_vectors(rt_loader *ld)
{
    size_t kept = 0;

    for (size_t i = 0; i < ld->n_blocks; i++) {
        const block b = ld->blocks[i];

        if (b.param->vector == NULL) {
            ld->blocks[kept++] = b;
            continue;
        }
        TP_TRY(load_block(&ld->workers[0], &b));
        ld->bytes_read += b.n_rows * (int64_t)ld->workers[0].slot.stride;
    }
    ld->n_blocks = kept;
    return TP_OK;
}

static tp_status name_sources(rt_loader *ld)
{
    kern_backend *be = ld->m->be;

    ld->late = tp_calloc((size_t)ld->n_params, sizeof *ld->late);
    if (ld->late == NULL)
        return TP_REJECT(TP_ERR_NOMEM, "no memory for the sources of weights");
    for (int i = 0; i < ld->n_params; i++) {
        const rt_param *p = &ld->params[i];
        late_param *l = &ld->late[i];

        if (p->weight == NULL || p->n_rows == 0 || p->n_cols == 0)
            continue;
        *l = (late_param){.loader = ld, .param = p};
        TP_TRY(find_tensor(ld, p, &l->tensor));
        TP_TRY(be->ops->weight_late(be, p->weight,
                                    &(kern_weight_source){.row = p->dst_row,
                                                          .n_rows = p->n_rows,
                                                          .dtype = (kern_dtype)l->tensor->dtype,
                                                          .read = read_late,
                                                          .owner = l}));
    }
    return TP_OK;
}

static tp_status begin_late(rt_loader *ld)
{
    TP_TRY(load_vectors(ld));
    TP_TRY(name_sources(ld));
    ld->hold_ns = tp_now_ns() + LATE_IDLE_NS;
    return start_crew(ld);
}

static void settle_weights(rt_loader *ld)
{
    kern_backend *be = ld->m->be;

    for (int i = 0; ld->late != NULL && i < ld->n_params; i++)
        if (ld->params[i].weight != NULL)
            be->ops->weight_settle(be, ld->params[i].weight);
}

/* ---- from outside ---- */

static void release(rt_loader *ld)
{
    end_crew(ld);
    settle_weights(ld);
    for (int i = 0; ld->workers != NULL && i < ld->n_hired; i++)
        tp_free(ld->workers[i].slot.data);
    tp_free(ld->workers);
    tp_free(ld->blocks);
    tp_free(ld->params);
    tp_free(ld->late);
    tp_free(ld->noise);
    rt_st_close(&ld->st);
    tp_free(ld);
}

static tp_status load_now_or_late(rt_loader *ld, bool *late)
{
    comm_group *g = ld->m->group;

    TP_TRY(agree_late(ld, late));
    if (*late)
        return rt_agree(g, begin_late(ld), false);
    TP_TRY(rt_agree(g, start_crew(ld), false));
    return run_rounds(ld);
}

tp_status rt_load_params(rt_model *m, const char *dir, rt_param *params, int n)
{
    rt_loader *ld = tp_calloc(1, sizeof *ld);
    bool late = false;
    tp_status st;

    if (ld == NULL) {
        tp_free(params);
        return rt_agree(m->group, TP_REJECT(TP_ERR_NOMEM, "no memory for the loader"), false);
    }
    ld->m = m;
    ld->params = params;
    ld->n_params = n;
    ld->start_ns = tp_now_ns();
    init_locks(ld);
    st = rt_agree(m->group, prepare(ld, dir), false);
    if (st == TP_OK)
        st = load_now_or_late(ld, &late);
    if (st == TP_OK && late) {
        m->late = ld;
        return TP_OK;
    }
    m->load_bytes = ld->bytes_read;
    release(ld);
    return st;
}

tp_status rt_load_step(rt_model *m)
{
    rt_loader *ld = m->late;
    tp_status st;
    bool done;

    pthread_mutex_lock(&ld->lock);
    ld->hold_ns = ld->n_steps++ == 0 ? tp_now_ns() + LATE_STEP_NS : 0;
    st = ld->status;
    done = ld->done == ld->n_blocks;
    pthread_cond_broadcast(&ld->changed);
    pthread_mutex_unlock(&ld->lock);
    if (st != TP_OK)
        return TP_FAIL(st, "%s", ld->error);
    if (done)
        rt_load_stop(m);
    return TP_OK;
}

void rt_load_stop(rt_model *m)
{
    rt_loader *ld = m->late;

    if (ld == NULL)
        return;
    m->late = NULL;
    m->load_bytes = ld->bytes_read;
    release(ld);
}
