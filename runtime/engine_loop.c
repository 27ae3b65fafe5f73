/* SPDX-License-Identifier: Apache-2.0 */
/* engine_loop.c - the threads that make steps and execute them.
 *
 * Engine thread of every rank: takes plans and executes them.  On rank 0 they come out of the pipe and go to the others
 * over the control channel first; the others receive them there.
 * Scheduler thread (rank 0): takes what the API threads left in the inbox, plans, puts the step into the pipe, turns the
 * results of the oldest step into events.  With two steps in the pipe it plans one while the other runs.  Without
 * overlap the engine thread does all this itself, and executes a step where it would push it.
 *
 * While no request is open nothing runs: the scheduler sleeps on the inbox, the engine thread on the pipe, the other
 * ranks in the control channel.
 * Between taking the inbox and the next one nothing is allocated; tp_mem_forbid() makes that an assertion.
 */
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "runtime/engine_impl.h"

#define PAUSED_WAIT_NS (2 * TP_NS_PER_MS) /* all readers are behind: look again */

/* ---- engine thread ---- */

/* Executes a plan under the eyes of the watchdog. */
static tp_status execute_plan(rt_engine *e, const uint8_t *plan, size_t bytes, bool *stop)
{
    rt_plan_header head = {0};
    tp_status st;

    memcpy(&head, plan, bytes < sizeof head ? bytes : sizeof head);
    rt_watchdog_begin(e->watchdog, head.step);
    st = rt_worker_execute(e->worker, plan, bytes, stop);
    rt_watchdog_end(e->watchdog);
    return st;
}

static tp_status execute(rt_engine *e, rt_step *s, bool *stop)
{
    const rt_step_result *results;
    int n;

    TP_TRY(comm_ctl_send(e->group, s->plan, s->plan_bytes));
    TP_TRY(execute_plan(e, s->plan, s->plan_bytes, stop));
    results = rt_worker_results(e->worker, &n);
    TP_ASSERT(n <= e->pipe.results_max);
    memcpy(s->results, results, sizeof *results * (size_t)n);
    s->n_results = n;
    return TP_OK;
}

static void wake_scheduler(rt_engine *e)
{
    /* The lock is for the moment between the scheduler's last look and its sleep. */
    pthread_mutex_lock(&e->inbox.lock);
    pthread_mutex_unlock(&e->inbox.lock);
    pthread_cond_signal(&e->inbox.wake);
}

/* The watchdog's thread: this step will not end, so no request may wait for it. */
void rt_engine_step_is_late(void *engine)
{
    rt_engine *e = engine;
    int ok = TP_OK;

    if (atomic_compare_exchange_strong(&e->failed, &ok, (int)TP_ERR_TIMEOUT) &&
        comm_rank(e->group) == 0)
        wake_scheduler(e);
}

/* Executes the next step of the pipe. */
static tp_status execute_next(rt_engine *e, bool *stop)
{
    tp_status st = execute(e, rt_pipe_next(&e->pipe), stop);

    if (st == TP_OK)
        rt_pipe_finish(&e->pipe);
    else
        atomic_store(&e->failed, (int)st);
    return st;
}

static tp_status execute_all(rt_engine *e)
{
    bool stop = false;

    while (!stop) {
        tp_status st;

        tp_mem_forbid(true);
        st = execute_next(e, &stop);
        tp_mem_forbid(false);
        wake_scheduler(e);
        TP_TRY(st);
    }
    return TP_OK;
}

static tp_status follow(rt_engine *e)
{
    bool stop = false;
    size_t bytes;

    while (!stop) {
        TP_TRY(comm_ctl_recv(e->group, e->plan_buf, e->plan_bytes_max, &bytes, 0));
        tp_mem_forbid(true);
        tp_status st = execute_plan(e, e->plan_buf, bytes, &stop);
        tp_mem_forbid(false);
        TP_TRY(st);
    }
    return TP_OK;
}

/* ---- scheduler thread: the inbox ---- */

static tp_status failure(const rt_engine *e)
{
    return (tp_status)atomic_load(&e->failed);
}

/* Under the inbox's lock.  Whether there is something to do but planning. */
static bool has_news(const rt_engine *e)
{
    const rt_inbox *box = &e->inbox;

    return box->head != NULL || box->cancelled != NULL || rt_pipe_done(&e->pipe) != NULL ||
           failure(e) != TP_OK;
}

static bool is_over(const rt_engine *e, bool draining)
{
    return draining && e->open == NULL && rt_pipe_under_way(&e->pipe) == 0 &&
           !rt_sched_has_closes(e->sched);
}

static void wait_inbox(rt_engine *e, int64_t until_ns)
{
    struct timespec ts = {.tv_sec = until_ns / TP_NS_PER_S, .tv_nsec = until_ns % TP_NS_PER_S};

    if (until_ns == INT64_MAX)
        pthread_cond_wait(&e->inbox.wake, &e->inbox.lock);
    else
        pthread_cond_timedwait(&e->inbox.wake, &e->inbox.lock, &ts);
}

/* Under the inbox's lock: sleeps while there is nothing to do.  planned: a further step may be had at once. */
static void await_news(rt_engine *e, bool planned)
{
    rt_inbox *box = &e->inbox;
    int under_way = rt_pipe_under_way(&e->pipe);
    bool paused = !planned && under_way == 0 && e->open != NULL;
    int64_t until = paused ? tp_now_ns() + PAUSED_WAIT_NS : INT64_MAX;

    if (planned && rt_pipe_room(&e->pipe) != NULL)
        return;
    while (!has_news(e) && !is_over(e, box->draining)) {
        int64_t end = until;

        if (box->draining && e->open != NULL && box->drain_deadline_ns < end)
            end = box->drain_deadline_ns;
        if (end != INT64_MAX && tp_now_ns() >= end)
            return;
        wait_inbox(e, end);
    }
}

/* Takes everything out of the inbox; sleeps first while there is nothing to do. */
static void take_inbox(rt_engine *e, bool planned)
{
    rt_request *submitted, *cancelled;
    bool late;

    pthread_mutex_lock(&e->inbox.lock);
    await_news(e, planned);
    submitted = e->inbox.head;
    cancelled = e->inbox.cancelled;
    e->inbox.head = e->inbox.tail = e->inbox.cancelled = NULL;
    e->draining = e->inbox.draining;
    late = e->draining && tp_now_ns() >= e->inbox.drain_deadline_ns;
    pthread_mutex_unlock(&e->inbox.lock);

    e->output.now_ns = tp_now_ns();
    for (rt_request *r = submitted, *next; r != NULL; r = next) {
        next = r->inbox_next;
        rt_engine_accept(e, r);
    }
    for (rt_request *r = cancelled, *next; r != NULL; r = next) {
        next = r->cancel_next;
        rt_engine_cancelled(e, r);
    }
    while (late && e->open != NULL)
        rt_engine_finish_all(e, e->open, RT_FINISH_ERROR, "shutdown");
}

/* ---- scheduler thread: steps ---- */

static void publish_stats(rt_engine *e)
{
    const rt_block_pool *pool = rt_sched_pool(e->sched);

    e->stats.running = rt_sched_running(e->sched);
    e->stats.waiting = rt_sched_waiting(e->sched);
    e->stats.preemptions = rt_sched_preemptions(e->sched);
    e->stats.blocks_used = rt_block_pool_total(pool) - rt_block_pool_free_count(pool);
    pthread_mutex_lock(&e->stats_lock);
    e->published = e->stats;
    pthread_mutex_unlock(&e->stats_lock);
}

/* Hands the plan that the writer holds to the engine thread, with what must be known when its results come. */
static tp_status push_step(rt_engine *e, rt_step *s)
{
    const rt_scheduled *scheduled = rt_sched_scheduled(e->sched, &s->n_seqs);
    const uint8_t *plan = rt_plan_finish(&e->writer, &s->plan_bytes);
    bool stop;

    if (e->writer.header.n_seq == 0)
        s->n_seqs = 0; /* the scheduler was not asked, or had nothing but slots to close */
    TP_ASSERT(s->plan_bytes <= e->pipe.plan_bytes_max);
    memcpy(s->plan, plan, s->plan_bytes);
    memcpy(s->seqs, scheduled, sizeof *scheduled * (size_t)s->n_seqs);
    rt_engine_name_in_step(e, s);
    e->step++;
    rt_pipe_push(&e->pipe);
    return e->overlapped ? TP_OK : execute_next(e, &stop);
}

/* Plans one step when the pipe has room; *planned: false when there was nothing to do in it. */
static tp_status plan_step(rt_engine *e, bool *planned)
{
    rt_step *s = rt_pipe_room(&e->pipe);

    *planned = true;
    if (s == NULL)
        return TP_OK;
    rt_engine_check_readers(e);
    rt_plan_begin(&e->writer, e->step, 0);
    s->n_tokens = rt_sched_plan(e->sched, &e->writer);
    *planned = !rt_plan_is_empty(&e->writer);
    return *planned ? push_step(e, s) : TP_OK;
}

static tp_status push_stop(rt_engine *e)
{
    rt_step *s = rt_pipe_room(&e->pipe);

    rt_plan_begin(&e->writer, e->step, RT_PLAN_STOP);
    s->n_tokens = 0;
    return push_step(e, s);
}

static void deliver_done(rt_engine *e)
{
    const rt_step *s;

    while ((s = rt_pipe_done(&e->pipe)) != NULL) {
        rt_engine_deliver(e, s);
        rt_pipe_pop(&e->pipe);
    }
}

static tp_status schedule_steps(rt_engine *e)
{
    bool planned = false;

    do {
        tp_status st;

        take_inbox(e, planned);
        tp_mem_forbid(true);
        deliver_done(e);
        st = failure(e);
        if (st == TP_OK)
            st = plan_step(e, &planned);
        publish_stats(e);
        tp_mem_forbid(false);
        TP_TRY(st);
    } while (!is_over(e, e->draining));
    return push_stop(e);
}

/* No step will be executed any more: no request may wait for one. */
static void fail_open_requests(rt_engine *e, const char *code)
{
    rt_request *submitted;

    pthread_mutex_lock(&e->inbox.lock);
    e->inbox.draining = true;
    submitted = e->inbox.head;
    e->inbox.head = e->inbox.tail = NULL;
    pthread_mutex_unlock(&e->inbox.lock);
    e->output.now_ns = tp_now_ns();
    for (rt_request *r = submitted, *next; r != NULL; r = next) {
        next = r->inbox_next;
        rt_engine_accept(e, r);
    }
    while (e->open != NULL)
        rt_engine_finish_all(e, e->open, RT_FINISH_ERROR, code);
    for (int i = 0; i < rt_pipe_under_way(&e->pipe); i++)
        rt_engine_forget_step(rt_pipe_step(&e->pipe, i));
    publish_stats(e);
}

static void set_final_state(rt_engine *e, tp_status st)
{
    bool lost = st == TP_ERR_COMM || st == TP_ERR_TIMEOUT;

    rt_engine_set_state(e, st == TP_OK ? RT_ENGINE_DRAINING
                           : lost      ? RT_ENGINE_RANK_LOST
                                       : RT_ENGINE_DEAD);
}

static tp_status schedule(rt_engine *e)
{
    tp_status st = schedule_steps(e);

    set_final_state(e, st);
    if (st != TP_OK)
        fail_open_requests(e, rt_engine_get_state(e) == RT_ENGINE_RANK_LOST ? "rank_lost"
                                                                            : "engine_dead");
    return st;
}

static void *schedule_thread(void *engine)
{
    (void)schedule(engine); /* a failure came from the engine thread, which knows it */
    return NULL;
}

/* ---- all ranks ---- */

static tp_status lead(rt_engine *e)
{
    pthread_t scheduler;
    tp_status st;

    if (!e->overlapped)
        return schedule(e);
    if (pthread_create(&scheduler, NULL, schedule_thread, e) != 0) {
        st = TP_FAIL(TP_ERR_NOMEM, "cannot start the scheduler thread");
        set_final_state(e, st);
        fail_open_requests(e, "engine_dead");
        return st;
    }
    st = execute_all(e);
    pthread_join(scheduler, NULL);
    if (st != TP_OK)
        set_final_state(
            e, st); /* again, for a failure of the last step: the scheduler did not wait for it */
    return st;
}

tp_status rt_engine_run(rt_engine *e)
{
    tp_status st;

    if (comm_rank(e->group) == 0)
        return lead(e);
    st = follow(e);
    set_final_state(e, st);
    return st;
}
