/* SPDX-License-Identifier: Apache-2.0 */
/* pipe.c - four counters over a ring: pushed >= taken >= finished >= popped, at most n_steps apart.
 *
 * The executor sleeps under the lock; in a busy engine it finds its next step there before it has finished the last.
 */
#include "runtime/sched/pipe.h"

#include <string.h>

#include "base/mem.h"

static tp_status init_step(rt_step *s, size_t plan_bytes_max, int n_slots, int results_max)
{
    s->plan = tp_malloc(plan_bytes_max);
    s->seqs = tp_calloc((size_t)n_slots, sizeof *s->seqs);
    s->results = tp_calloc((size_t)results_max, sizeof *s->results);
    if (s->plan == NULL || s->seqs == NULL || s->results == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "step of %zu bytes and %d results", plan_bytes_max,
                       results_max);
    return TP_OK;
}

tp_status rt_pipe_init(rt_pipe *p, int n_steps, size_t plan_bytes_max, int n_slots, int results_max)
{
    TP_ASSERT(n_steps >= 1 && n_steps <= RT_PIPE_STEPS);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    p->n_steps = n_steps;
    p->plan_bytes_max = plan_bytes_max;
    p->results_max = results_max;
    for (int i = 0; i < n_steps; i++)
        TP_TRY(init_step(&p->steps[i], plan_bytes_max, n_slots, results_max));
    return TP_OK;
}

void rt_pipe_release(rt_pipe *p)
{
    if (p->n_steps == 0)
        return;
    for (int i = 0; i < p->n_steps; i++) {
        tp_free(p->steps[i].plan);
        tp_free(p->steps[i].seqs);
        tp_free(p->steps[i].results);
    }
    pthread_cond_destroy(&p->work);
    pthread_mutex_destroy(&p->lock);
    memset(p, 0, sizeof *p);
}

static uint64_t finished(const rt_pipe *p)
{
    return atomic_load_explicit(&p->n_finished, memory_order_acquire);
}

int rt_pipe_under_way(const rt_pipe *p)
{
    return (int)(p->n_pushed - p->n_popped);
}

rt_step *rt_pipe_room(rt_pipe *p)
{
    return rt_pipe_under_way(p) < p->n_steps ? &p->steps[p->n_pushed % (uint64_t)p->n_steps] : NULL;
}

void rt_pipe_push(rt_pipe *p)
{
    TP_ASSERT(rt_pipe_under_way(p) < p->n_steps);
    pthread_mutex_lock(&p->lock);
    p->n_pushed++;
    pthread_mutex_unlock(&p->lock);
    pthread_cond_signal(&p->work);
}

const rt_step *rt_pipe_oldest(const rt_pipe *p)
{
    TP_ASSERT(rt_pipe_under_way(p) > 0);
    return &p->steps[p->n_popped % (uint64_t)p->n_steps];
}

const rt_step *rt_pipe_done(const rt_pipe *p)
{
    return finished(p) > p->n_popped ? rt_pipe_oldest(p) : NULL;
}

void rt_pipe_pop(rt_pipe *p)
{
    TP_ASSERT(rt_pipe_under_way(p) > 0);
    p->n_popped++;
}

rt_step *rt_pipe_next(rt_pipe *p, bool wait)
{
    uint64_t at = p->n_taken;
    bool there;

    pthread_mutex_lock(&p->lock);
    while (wait && p->n_pushed == at && !p->closed)
        pthread_cond_wait(&p->work, &p->lock);
    there = p->n_pushed > at && !p->closed;
    pthread_mutex_unlock(&p->lock);
    p->n_taken += there;
    return there ? &p->steps[at % (uint64_t)p->n_steps] : NULL;
}

void rt_pipe_close(rt_pipe *p)
{
    pthread_mutex_lock(&p->lock);
    p->closed = true;
    pthread_mutex_unlock(&p->lock);
    pthread_cond_signal(&p->work);
}

rt_step *rt_pipe_taken(rt_pipe *p)
{
    uint64_t at = finished(p);

    TP_ASSERT(p->n_taken > at);
    return &p->steps[at % (uint64_t)p->n_steps];
}

void rt_pipe_finish(rt_pipe *p)
{
    TP_ASSERT(p->n_taken > finished(p));
    atomic_fetch_add_explicit(&p->n_finished, 1, memory_order_release);
}
