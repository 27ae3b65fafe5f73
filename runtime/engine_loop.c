/* SPDX-License-Identifier: Apache-2.0 */
/* engine_loop.c - the threads that make steps and execute them.
 *
 * Engine thread of every rank: takes plans and executes them.  On rank 0 they come out of the pipe and go to the others
 * over the control channel first; the others receive them there.
 * Scheduler thread (rank 0): takes what the API threads left in the inbox, turns the results of steps that are done into
 * events, plans until the pipe is full: one step while the other runs.
 *
 * That is one round, and whoever holds the plan lock may run it.  When the engine thread finds the pipe empty, it does not
 * wait for a scheduler that the machine has given no core yet: it runs the round itself.  So planning ahead is never
 * slower than planning in turn.  Without overlap there is no scheduler thread, and the engine thread runs every round.
 *
 * While no request is open nothing runs: the scheduler sleeps on the inbox, the engine thread on the pipe, the other
 * ranks in the control channel.
 * From the delivery of results to the end of planning, and in a step, nothing is allocated; tp_mem_forbid() makes that an
 * assertion.
 */
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "runtime/engine_impl.h"

#define PAUSED_WAIT_NS (2 * TP_NS_PER_MS) /* all readers are behind: look again */

/* ---- engine thread ---- */

/* Of a plan that nobody has checked yet. */
static rt_plan_header read_header(const uint8_t *plan, size_t bytes)
{
    rt_plan_header head = {0};

    memcpy(&head, plan, bytes < sizeof head ? bytes : sizeof head);
    return head;
}

/* Issues a plan.  The watchdog has its eyes on the oldest step under way. */
static tp_status issue(rt_engine *e, const uint8_t *plan, size_t bytes, bool *stop)
{
    rt_plan_header head = read_header(plan, bytes);
    tp_status st;

    if (rt_worker_under_way(e->worker) == 0)
        rt_watchdog_begin(e->watchdog, head.step);
    e->issued = head.step;
    st = rt_worker_issue(e->worker, plan, bytes, stop);
    if (st != TP_OK)
        rt_watchdog_end(e->watchdog);
    return st;
}

/* Collects the oldest step under way. */
static tp_status collect(rt_engine *e)
{
    tp_status st = rt_worker_collect(e->worker);

    if (st == TP_OK && rt_worker_under_way(e->worker) > 0)
        rt_watchdog_begin(e->watchdog, e->issued); /* which runs from now on */
    else
        rt_watchdog_end(e->watchdog);
    return st;
}

/* Wakes whoever sleeps on the inbox: there is something to do besides what lies in it. */
static void ring(rt_engine *e)
{
    pthread_mutex_lock(&e->inbox.lock);
    e->inbox.rung = true;
    pthread_mutex_unlock(&e->inbox.lock);
    pthread_cond_signal(&e->inbox.wake);
}

/* The first failure counts. */
static bool set_failure(rt_engine *e, tp_status st)
{
    int ok = TP_OK;

    return atomic_compare_exchange_strong(&e->failed, &ok, (int)st);
}

static tp_status failure(const rt_engine *e)
{
    return (tp_status)atomic_load(&e->failed);
}

/* What rank 0 has sent.  Steps are collected exactly where rank 0 collects them. */
static tp_status obey(rt_engine *e, size_t bytes, bool *stop)
{
    rt_plan_header head = read_header(e->plan_buf, bytes);
    rt_plan_reader order;

    if ((head.flags & RT_PLAN_COLLECT) == 0) {
        TP_TRY(issue(e, e->plan_buf, bytes, stop)); /* the worker checks the plan */
    } else {
        TP_TRY(rt_plan_open_reader(&order, e->plan_buf, bytes));
        if (rt_worker_under_way(e->worker) > 0)
            TP_TRY(collect(e));
    }
    while (!rt_worker_has_room(e->worker) || (*stop && rt_worker_under_way(e->worker) > 0))
        TP_TRY(collect(e));
    return TP_OK;
}

static tp_status follow(rt_engine *e)
{
    bool stop = false;
    size_t bytes;

    while (!stop) {
        TP_TRY(comm_ctl_recv(e->group, e->plan_buf, e->plan_bytes_max, &bytes, 0));
        tp_mem_forbid(true);
        tp_status st = obey(e, bytes, &stop);
        tp_mem_forbid(false);
        TP_TRY(st);
    }
    return TP_OK;
}

/* ---- a round of the scheduler: under the plan lock ---- */

/* Takes everything out of the inbox. */
static void take_inbox(rt_engine *e)
{
    rt_request *submitted, *cancelled;

    pthread_mutex_lock(&e->inbox.lock);
    submitted = e->inbox.head;
    cancelled = e->inbox.cancelled;
    e->inbox.head = e->inbox.tail = e->inbox.cancelled = NULL;
    e->draining = e->inbox.draining;
    e->drain_deadline_ns = e->inbox.drain_deadline_ns;
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
    while (e->draining && e->output.now_ns >= e->drain_deadline_ns && e->open != NULL)
        rt_engine_finish_all(e, e->open, RT_FINISH_ERROR, "shutdown");
}

static void deliver_done(rt_engine *e)
{
    const rt_step *s;

    while ((s = rt_pipe_done(&e->pipe)) != NULL) {
        e->stats.steps_ahead += s->ahead && s->n_tokens > 0;
        rt_engine_deliver(e, s);
        rt_pipe_pop(&e->pipe);
    }
}

/* Hands the plan that the writer holds to the engine thread, with what must be known when its results come. */
static void push_step(rt_engine *e, rt_step *s)
{
    const rt_scheduled *scheduled = rt_sched_scheduled(e->sched, &s->n_seqs);
    const uint8_t *plan = rt_plan_finish(&e->writer, &s->plan_bytes);

    if (e->writer.header.n_seq == 0)
        s->n_seqs = 0; /* the scheduler was not asked, or had nothing but slots to close */
    TP_ASSERT(s->plan_bytes <= e->pipe.plan_bytes_max);
    memcpy(s->plan, plan, s->plan_bytes);
    memcpy(s->seqs, scheduled, sizeof *scheduled * (size_t)s->n_seqs);
    rt_engine_name_in_step(e, s);
    e->step++;
    rt_pipe_push(&e->pipe);
}

/* Plans steps while there is something to do and the pipe has room; `most` of them. */
static void plan_steps(rt_engine *e, int most)
{
    rt_step *s;

    while (most-- > 0 && !rt_sched_must_wait(e->sched) && (s = rt_pipe_room(&e->pipe)) != NULL) {
        rt_engine_check_readers(e);
        rt_plan_begin(&e->writer, e->step, 0);
        s->n_tokens = rt_sched_plan(e->sched, &e->writer);
        if (rt_plan_is_empty(&e->writer))
            return;
        push_step(e, s);
    }
}

/* Drained: the last plan lets the ranks go. */
static void stop_when_over(rt_engine *e)
{
    rt_step *s = rt_pipe_room(&e->pipe);

    if (!e->draining || e->open != NULL || rt_pipe_under_way(&e->pipe) > 0 ||
        rt_sched_has_closes(e->sched))
        return;
    rt_plan_begin(&e->writer, e->step, RT_PLAN_STOP);
    s->n_tokens = 0;
    push_step(e, s);
    e->stopped = true;
}

static void publish_stats(rt_engine *e)
{
    const rt_block_pool *pool = rt_sched_pool(e->sched);

    e->stats.running = rt_sched_running(e->sched);
    e->stats.waiting = rt_sched_waiting(e->sched);
    e->stats.preemptions = rt_sched_preemptions(e->sched);
    rt_sched_prefix_counts(e->sched, &e->stats.prefix_queries, &e->stats.prefix_hits);
    e->stats.drafts = *rt_sched_draft_counts(e->sched);
    e->stats.blocks_used = rt_block_pool_total(pool) - rt_block_pool_free_count(pool);
    pthread_mutex_lock(&e->stats_lock);
    e->published = e->stats;
    pthread_mutex_unlock(&e->stats_lock);
}

/* When to look again although nobody calls. */
static int64_t next_look(const rt_engine *e)
{
    if (e->open != NULL && rt_pipe_under_way(&e->pipe) == 0)
        return tp_now_ns() + PAUSED_WAIT_NS;
    return e->open != NULL && e->draining ? e->drain_deadline_ns : INT64_MAX;
}

/* Returns the time of the next round unless the inbox calls before. */
static int64_t run_round(rt_engine *e, int most)
{
    if (e->stopped || failure(e) != TP_OK)
        return INT64_MAX;
    take_inbox(e);
    tp_mem_forbid(true);
    deliver_done(e);
    plan_steps(e, most);
    stop_when_over(e);
    e->stats.host_ns += tp_now_ns() - e->output.now_ns; /* that is when the round began */
    publish_stats(e);
    tp_mem_forbid(false);
    return next_look(e);
}

/* ---- between rounds ---- */

static void sleep_until_called(rt_engine *e, int64_t look_ns)
{
    rt_inbox *box = &e->inbox;
    struct timespec ts = {.tv_sec = look_ns / TP_NS_PER_S, .tv_nsec = look_ns % TP_NS_PER_S};

    pthread_mutex_lock(&box->lock);
    while (!box->rung && box->head == NULL && box->cancelled == NULL) {
        if (look_ns == INT64_MAX)
            pthread_cond_wait(&box->wake, &box->lock);
        else if (tp_now_ns() < look_ns)
            pthread_cond_timedwait(&box->wake, &box->lock, &ts);
        else
            break;
    }
    box->rung = false;
    pthread_mutex_unlock(&box->lock);
}

static int64_t lock_and_run_round(rt_engine *e, int most)
{
    int64_t look_ns;

    pthread_mutex_lock(&e->plan_lock);
    look_ns = run_round(e, most);
    pthread_mutex_unlock(&e->plan_lock);
    return look_ns;
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
    while (rt_pipe_under_way(&e->pipe) > 0) {
        rt_engine_forget_step(rt_pipe_oldest(&e->pipe));
        rt_pipe_pop(&e->pipe);
    }
    publish_stats(e);
}

/* The state after the end; on rank 0 nobody is left waiting after a failure. */
static void conclude(rt_engine *e, tp_status st)
{
    bool lost = st == TP_ERR_COMM || st == TP_ERR_TIMEOUT;

    rt_engine_set_state(e, st == TP_OK ? RT_ENGINE_DRAINING
                           : lost      ? RT_ENGINE_RANK_LOST
                                       : RT_ENGINE_DEAD);
    if (st != TP_OK && comm_rank(e->group) == 0) {
        pthread_mutex_lock(&e->plan_lock);
        fail_open_requests(e, lost ? "rank_lost" : "engine_dead");
        pthread_mutex_unlock(&e->plan_lock);
    }
}

/* The engine thread may hang, so clients are told by another: the scheduler thread, or where there is none, this one. */
void rt_engine_give_up(void *engine)
{
    rt_engine *e = engine;

    if (!set_failure(e, TP_ERR_COMM) || comm_rank(e->group) != 0)
        return;
    rt_pipe_close(&e->pipe);
    ring(e);
    if (!e->overlapped)
        conclude(e, TP_ERR_COMM);
}

static void *run_scheduler(void *engine)
{
    rt_engine *e = engine;
    int64_t look_ns = INT64_MAX;
    bool over = false;

    while (!over) {
        sleep_until_called(e, look_ns);
        pthread_mutex_lock(&e->plan_lock);
        look_ns = run_round(e, RT_PIPE_STEPS);
        over = e->stopped;
        pthread_mutex_unlock(&e->plan_lock);
        if (failure(e) != TP_OK) {
            /* the engine thread may still hang in the step: clients are told from here */
            conclude(e, failure(e));
            over = true;
        }
    }
    return NULL;
}

/* ---- the engine thread of rank 0 ---- */

static rt_step *next_step(rt_engine *e)
{
    rt_step *s = rt_pipe_next(&e->pipe, false);

    if (s != NULL)
        return s;
    if (pthread_mutex_trylock(&e->plan_lock) == 0) {
        (void)run_round(e, 1);
        pthread_mutex_unlock(&e->plan_lock);
        ring(e); /* the scheduler plans the step after, or when to look again */
    }
    return rt_pipe_next(&e->pipe, true);
}

/* While a step is under way there is time for a round, be it somebody else's.  NULL: nothing can be planned. */
static rt_step *next_step_ahead(rt_engine *e)
{
    rt_step *s = rt_pipe_next(&e->pipe, false);

    if (s != NULL)
        return s;
    (void)lock_and_run_round(e, 1);
    ring(e);
    return rt_pipe_next(&e->pipe, false);
}

static rt_step *next_step_in_turn(rt_engine *e)
{
    int64_t look_ns = lock_and_run_round(e, 1);
    rt_step *s;

    while ((s = rt_pipe_next(&e->pipe, false)) == NULL && failure(e) == TP_OK) {
        sleep_until_called(e, look_ns);
        look_ns = lock_and_run_round(e, 1);
    }
    return s;
}

static tp_status issue_step(rt_engine *e, rt_step *s, bool *stop)
{
    TP_TRY(comm_ctl_send(e->group, s->plan, s->plan_bytes));
    s->ahead = rt_worker_under_way(e->worker) > 0;
    s->begun_ns = tp_now_ns();
    return issue(e, s->plan, s->plan_bytes, stop);
}

static tp_status collect_step(rt_engine *e)
{
    rt_step *s = rt_pipe_taken(&e->pipe);
    const rt_step_result *results;
    int n;

    TP_TRY(collect(e));
    s->ns = tp_now_ns() - s->begun_ns;
    results = rt_worker_results(e->worker, &n);
    TP_ASSERT(n <= e->pipe.results_max);
    memcpy(s->results, results, sizeof *results * (size_t)n);
    s->n_results = n;
    rt_pipe_finish(&e->pipe);
    return TP_OK;
}

/* The others hold back the step under way, since another might follow.  None does. */
static tp_status tell_to_collect(rt_engine *e)
{
    const uint8_t *order;
    size_t bytes;

    rt_plan_begin(&e->order, e->issued, RT_PLAN_COLLECT);
    order = rt_plan_finish(&e->order, &bytes);
    return comm_ctl_send(e->group, order, bytes);
}

/* s: the step to issue; NULL: the one under way is to be collected. */
static tp_status execute(rt_engine *e, rt_step *s, bool *stop)
{
    if (s != NULL) {
        TP_TRY(issue_step(e, s, stop));
    } else {
        TP_TRY(tell_to_collect(e));
        TP_TRY(collect_step(e));
    }
    while (!rt_worker_has_room(e->worker) || (*stop && rt_worker_under_way(e->worker) > 0))
        TP_TRY(collect_step(e));
    return TP_OK;
}

static tp_status execute_all(rt_engine *e)
{
    bool stop = false;

    while (!stop) {
        rt_step *s = rt_worker_under_way(e->worker) > 0 ? next_step_ahead(e)
                     : e->overlapped                    ? next_step(e)
                                                        : next_step_in_turn(e);
        tp_status st;

        if (s == NULL && (failure(e) != TP_OK || rt_worker_under_way(e->worker) == 0))
            return failure(e);
        tp_mem_forbid(true);
        st = execute(e, s, &stop);
        tp_mem_forbid(false);
        if (st != TP_OK)
            set_failure(e, st);
        if (e->overlapped)
            ring(e);
        /* who gave up stands by it, even when the step did end after all */
        TP_TRY(failure(e));
    }
    return TP_OK;
}

static tp_status lead(rt_engine *e)
{
    pthread_t scheduler;
    tp_status st;

    if (e->overlapped && pthread_create(&scheduler, NULL, run_scheduler, e) != 0) {
        st = TP_FAIL(TP_ERR_NOMEM, "cannot start the scheduler thread");
        conclude(e, st);
        return st;
    }
    st = execute_all(e);
    if (e->overlapped)
        pthread_join(scheduler, NULL);
    conclude(e, st);
    return st;
}

tp_status rt_engine_run(rt_engine *e)
{
    tp_status st;

    if (comm_rank(e->group) == 0)
        return lead(e);
    st = follow(e);
    conclude(e, st);
    return st;
}
