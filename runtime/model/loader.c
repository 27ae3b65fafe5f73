/* SPDX-License-Identifier: Apache-2.0 */
/* loader.c - from a list of parameters to filled weights: check everything, then read in file order.
 *
 * 1. Every parameter is found and its shape and type checked before a byte of data is read.
 * 2. The kept parts are cut into blocks of up to RT_LOAD_BLOCK_BYTES and sorted by file and offset, so that the disk sees
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
#include <stdio.h>
#include <time.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "runtime/model/loader_impl.h"
#include "runtime/model/progress.h"

#define CREW_MAX     16 /* threads; one more than the backend has, so that a disk is kept busy */
#define ROUNDS_MAX   16
#define ROUND_PARAMS (32 << 20)  /* weights of the model per round, at least */
#define LATE_STEP_NS TP_NS_PER_S /* so long the crew waits, at most, for the end of a first step */
#define LATE_POLL_NS TP_NS_PER_MS

/* ---- the crew ---- */

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
static const rt_load_block *take_block(rt_loader *ld)
{
    const rt_load_block *b = NULL;

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
    rt_load_worker *w = arg;
    rt_loader *ld = w->loader;

    for (const rt_load_block *b; (b = take_block(ld)) != NULL;) {
        tp_status st = rt_load_one_block(w, b);

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

tp_status rt_load_start_crew(rt_loader *ld)
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
        ld->workers[i].slot.data = tp_aligned_alloc(64, RT_LOAD_BLOCK_BYTES);
        if (ld->workers[i].slot.data == NULL)
            return TP_REJECT(TP_ERR_NOMEM, "no memory for read buffers");
    }
    return TP_OK;
}

static tp_status prepare(rt_loader *ld, const char *dir)
{
    uint32_t state = 1;

    if (ld->m->options.dummy_weights) {
        ld->noise = tp_malloc(RT_LOAD_NOISE_LEN * sizeof *ld->noise);
        if (ld->noise == NULL)
            return TP_REJECT(TP_ERR_NOMEM, "no memory for noise");
        for (size_t i = 0; i < RT_LOAD_NOISE_LEN; i++) {
            state = tp_mix32(state + 0x9e3779b9U);
            ld->noise[i] = (float)(int32_t)state * 0x1p-31F;
        }
    } else {
        TP_TRY(rt_st_open(&ld->st, dir));
        TP_TRY(rt_load_find_prefix(ld));
    }
    TP_TRY(rt_load_plan(ld));
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

/* ---- from outside ---- */

static void release(rt_loader *ld)
{
    end_crew(ld);
    ld->m->load_bytes = ld->bytes_read;
    rt_load_settle(ld);
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

    TP_TRY(rt_load_agree_late(ld, late));
    if (*late)
        return rt_agree(g, rt_load_begin_late(ld), false);
    TP_TRY(rt_agree(g, rt_load_start_crew(ld), false));
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
    release(ld);
}
