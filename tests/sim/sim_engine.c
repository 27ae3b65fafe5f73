/* SPDX-License-Identifier: Apache-2.0 */
/* sim_engine.c - the virtual clock and the engine's part in an episode.
 *
 * What runtime/engine_loop.c and engine_requests.c do with threads happens here one after the other, at times that chance
 * chooses: requests come and are cancelled, a step ends, a round of the scheduler looks at all that, maybe late, and plans
 * one or two steps.  Ranks execute the steps in order; their results must be the foretold texts.
 */
#include "tests/sim/sim.h"

#include <string.h>

#include "base/mem.h"

#define LOOK_AGAIN_US 2000 /* all readers are behind */

typedef enum ending { END_TOKEN, END_LENGTH, END_CANCEL, END_SLOW, END_SHUTDOWN, END_LOST } ending;

/* ---- the reader and its box ---- */

static void reader_reads(sim *m, sim_request *r)
{
    int64_t n;

    if (m->now >= r->stall_from && m->now < r->stall_to) {
        r->read_at = m->now;
        return;
    }
    n = (m->now - r->read_at) / r->read_every;
    r->read_at += n * r->read_every;
    r->used = n < r->used ? r->used - (int32_t)n : 0;
}

static void push_record(sim *m, sim_request *r)
{
    SIM_CHECK(m, ++r->used <= r->box, "request %lld: its box of %d records overflows",
              (long long)r->id, r->box);
}

/* As rows_for() of the engine: tokens per sequence that the next step may compute. */
static int32_t rows_for(const sim_request *r, int32_t room)
{
    int32_t reserve = 2 * r->n + 1;

    if (room < reserve)
        return 0;
    return r->prompt_rows ? room - reserve : INT32_MAX;
}

/* As draft_for(). */
static int32_t draft_for(const sim_request *r, int32_t room)
{
    int32_t reserve = 2 * r->n + 1;

    return room < reserve || r->prompt_rows ? 0 : (room - reserve) / r->n;
}

static int32_t records_of(const rt_scheduled *p)
{
    const sim_choice *c = p->seq->owner;

    return (p->sampled ? 1 + p->n_draft : 0) +
           (c->index == 0 && c->request->prompt_rows ? p->n_new : 0);
}

/* ---- requests come and go ---- */

static void accept(sim *m, sim_request *r)
{
    r->at = m->n_open;
    m->open[m->n_open++] = r;
    m->totals.requests++;
    m->totals.choices += r->n;
    for (int i = 0; i < r->n; i++) {
        const rt_seq *q = &r->choices[i].seq;

        sim_note(m, "request %lld.%d comes: prompt %d, at most %d, ends at %d, salt %llu%s",
                 (long long)r->id, i, q->n_prompt, q->n_total_max, r->choices[i].ends_at,
                 (unsigned long long)r->salt, r->prompt_rows && i == 0 ? ", rows" : "");
        rt_sched_add(m->sched, &r->choices[i].seq);
        sim_audit_added(m, &r->choices[i]);
    }
}

static void let_go(sim *m, sim_request *r)
{
    if (r->n_open == 0 && r->n_under_way == 0)
        sim_free_request(m, r);
}

static void close_request(sim *m, sim_request *r)
{
    m->open[r->at] = m->open[--m->n_open];
    m->open[r->at]->at = r->at;
    let_go(m, r);
}

static void count_ending(sim *m, const sim_choice *c, ending how)
{
    const rt_seq *q = &c->seq;
    sim_totals *t = &m->totals;

    if (how == END_TOKEN)
        t->ended_eos++;
    else if (how == END_LENGTH && q->n_total_max == q->n_prompt)
        t->ended_prefill++;
    else if (how == END_LENGTH)
        t->ended_length++;
    else if (how != END_CANCEL)
        return;
    else if (q->state == RT_SEQ_WAITING && q->n_preempted > 0)
        t->cancelled_preempted++;
    else if (q->state == RT_SEQ_WAITING)
        t->cancelled_waiting++;
    else if (q->state == RT_SEQ_FINISHED)
        t->cancelled_planned++;
    else if (q->n_total == q->n_prompt)
        t->cancelled_prefill++;
    else
        t->cancelled_decode++;
}

static void finish(sim *m, sim_choice *c, ending how)
{
    static const char *const names[] = {"token", "length", "cancel", "slow", "shutdown", "lost"};
    sim_request *r = c->request;

    sim_note(m, "request %lld.%d ends (%s) after %d tokens", (long long)r->id, c->index, names[how],
             c->n_seen);
    SIM_CHECK(m, !c->finished, "request %lld.%d ends twice", (long long)r->id, c->index);
    if (how == END_TOKEN || how == END_LENGTH) {
        SIM_CHECK(m, c->n_seen == c->ends_at, "request %lld.%d ends with %d tokens of %d",
                  (long long)r->id, c->index, c->n_seen, c->ends_at);
        SIM_CHECK(m, c->index > 0 || !r->prompt_rows || c->next_row == c->seq.n_prompt,
                  "request %lld: row %d of the prompt is the last that came", (long long)r->id,
                  c->next_row - 1);
        sim_remember_text(m, c);
    }
    count_ending(m, c, how);
    rt_sched_finish(m->sched, &c->seq);
    c->finished = true;
    push_record(m, r);
    if (--r->n_open == 0)
        close_request(m, r);
}

static void finish_all(sim *m, sim_request *r, ending how)
{
    int n = r->n;

    r->n_under_way++; /* its memory stays */
    for (int i = 0; i < n; i++)
        if (!r->choices[i].finished)
            finish(m, &r->choices[i], how);
    r->n_under_way--;
    let_go(m, r);
}

static void check_readers(sim *m)
{
    bool paused = false;

    for (int i = m->n_open - 1; i >= 0; i--) {
        sim_request *r = m->open[i];
        int32_t most, draft;

        reader_reads(m, r);
        most = rows_for(r, r->box - r->used - r->promised);
        draft = draft_for(r, r->box - r->used - r->promised);
        paused = paused || most == 0;
        for (int k = 0; k < r->n; k++) {
            r->choices[k].seq.n_new_max = most;
            r->choices[k].seq.n_draft_max = draft;
        }
        if (rows_for(r, r->box - r->used) > 0) {
            r->starved_at = SIM_NEVER;
        } else if (r->starved_at == SIM_NEVER) {
            r->starved_at = m->now;
        } else if (m->now - r->starved_at > m->cfg.cut_after) {
            m->totals.cut_off++;
            finish_all(m, r, END_SLOW);
        }
    }
    m->totals.paused += paused;
}

/* ---- steps ---- */

static void name_in_step(const rt_step *s)
{
    for (int i = 0; i < s->n_seqs; i++) {
        sim_choice *c = s->seqs[i].seq->owner;

        c->request->n_under_way++;
        c->request->promised += records_of(&s->seqs[i]);
    }
}

static void forget_step(sim *m, const rt_step *s)
{
    for (int i = 0; i < s->n_seqs; i++) {
        sim_request *r = ((sim_choice *)s->seqs[i].seq->owner)->request;

        r->promised -= records_of(&s->seqs[i]);
        r->n_under_way--;
        let_go(m, r);
    }
}

static void deliver_row(sim *m, sim_choice *c, int32_t token)
{
    SIM_CHECK(m, c->next_row < c->seq.n_prompt && token == c->text[c->next_row],
              "request %lld.%d: a row of the prompt that is not that of position %d",
              (long long)c->request->id, c->index, c->next_row);
    c->next_row++;
    m->totals.prompt_rows++;
    push_record(m, c->request);
}

/* which: of the step's results for the choice; with a draft, all of them are tokens. */
static void deliver_token(sim *m, sim_choice *c, const rt_scheduled *p, int32_t token, int which)
{
    SIM_CHECK(m, c->n_seen < c->ends_at && token == c->text[c->n_seen],
              "request %lld.%d: token %d at position %d, expected %d", (long long)c->request->id,
              c->index, token, c->n_seen, c->n_seen < c->ends_at ? c->text[c->n_seen] : -1);
    c->n_seen++;
    rt_sched_learn(m->sched, &c->seq, token);
    if (which > 0 && p->n_draft > 0)
        sim_cache_came_true(m, c);
    m->totals.drafts_over_the_end += which < p->n_draft && c->n_seen == c->ends_at;
    push_record(m, c->request);
    SIM_CHECK(m, c->n_seen == c->ends_at || !p->last,
              "request %lld.%d is let go with %d tokens of %d", (long long)c->request->id, c->index,
              c->n_seen, c->ends_at);
    if (c->n_seen == c->ends_at)
        finish(m, c, sim_ends_text(&m->cfg, token) ? END_TOKEN : END_LENGTH);
}

static void deliver_result(sim *m, const rt_scheduled *p, const rt_step_result *res, int which)
{
    sim_choice *c = p->seq->owner;

    if (c->finished)
        m->totals.rows_wasted++;
    else if (res->is_prompt)
        deliver_row(m, c, res->token);
    else
        deliver_token(m, c, p, res->token, which);
}

static void settle(sim *m, const rt_scheduled *p, int n_drawn)
{
    SIM_CHECK(m, n_drawn >= 1 && n_drawn <= 1 + p->n_draft, "%d tokens of a draft of %d", n_drawn,
              p->n_draft);
    rt_sched_settle(m->sched, p, n_drawn);
    m->totals.drafts++;
    m->totals.drafts_true += n_drawn == 1 + p->n_draft;
    m->totals.drafts_false += n_drawn == 1;
    m->totals.draft_tokens_true += n_drawn - 1;
}

static void deliver(sim *m, const rt_step *s)
{
    int at = 0;

    for (int i = 0; i < s->n_seqs; i++) {
        const rt_scheduled *p = &s->seqs[i];
        sim_choice *c = p->seq->owner;
        int first = at;

        for (; at < s->n_results && s->results[at].slot == p->slot; at++)
            deliver_result(m, p, &s->results[at], at - first);
        if (p->n_draft > 0)
            settle(m, p, at - first);
        if (p->last && !p->sampled && !c->finished)
            finish(m, c, END_LENGTH);
    }
    SIM_CHECK(m, at == s->n_results, "a result of slot %d, which the step does not name in order",
              s->results[at].slot);
    rt_sched_time(m->sched, s->n_tokens, m->now - s->begun_ns);
    forget_step(m, s);
}

static void push_step(sim *m, rt_step *s, const uint8_t *plan)
{
    const rt_scheduled *scheduled = rt_sched_scheduled(m->sched, &s->n_seqs);

    SIM_CHECK(m, s->plan_bytes <= m->pipe.plan_bytes_max, "a plan of %zu bytes", s->plan_bytes);
    if (m->writer.header.n_seq == 0)
        s->n_seqs = 0;
    memcpy(s->plan, plan, s->plan_bytes);
    memcpy(s->seqs, scheduled, sizeof *scheduled * (size_t)s->n_seqs);
    name_in_step(s);
    m->n_plans++;
    m->totals.plans++;
    rt_pipe_push(&m->pipe);
}

/* One plan; false when there was nothing to plan. */
static bool plan_step(sim *m, rt_step *s)
{
    const uint8_t *plan = NULL;

    check_readers(m);
    rt_plan_begin(&m->writer, (uint64_t)m->n_plans, 0);
    sim_audit_before(m);
    s->n_tokens = rt_sched_plan(m->sched, &m->writer);
    if (!rt_plan_is_empty(&m->writer))
        plan = rt_plan_finish(&m->writer, &s->plan_bytes);
    sim_audit_plan(m, s->n_tokens, plan, s->plan_bytes);
    if (plan == NULL)
        return false;
    m->totals.two_under_way += rt_pipe_under_way(&m->pipe) > 0;
    push_step(m, s, plan);
    return true;
}

/* ---- a round ---- */

/* Requests that have come since the last round; refused, too, when there are too many. */
static void take_arrivals(sim *m)
{
    int burst;

    if (m->draining || m->now < m->next_arrival)
        return;
    m->next_arrival = m->now + 1 + sim_below(m, (uint32_t)(2 * m->cfg.arrive_every));
    burst = 1 + (int)sim_below(m, (uint32_t)m->cfg.burst_max);
    while (burst-- > 0) {
        if (m->n_open >= m->cfg.sched.n_slots + m->cfg.queue_max) {
            m->totals.refused++;
            return;
        }
        accept(m, sim_make_request(m));
    }
}

static void take_cancels(sim *m)
{
    for (int i = m->n_open - 1; i >= 0; i--)
        if (m->open[i]->cancel_at <= m->now)
            finish_all(m, m->open[i], END_CANCEL);
    if (!m->draining || m->now < m->drain_at)
        return;
    while (m->n_open > 0) {
        m->totals.shut_down++;
        finish_all(m, m->open[0], END_SHUTDOWN);
    }
}

/* The last plan lets the ranks go. */
static void stop_when_over(sim *m)
{
    rt_step *s = rt_pipe_room(&m->pipe);
    const uint8_t *plan;

    if (!m->draining || m->n_open > 0 || rt_pipe_under_way(&m->pipe) > 0 ||
        rt_sched_has_closes(m->sched))
        return;
    rt_plan_begin(&m->writer, (uint64_t)m->n_plans, RT_PLAN_STOP);
    s->n_tokens = 0;
    plan = rt_plan_finish(&m->writer, &s->plan_bytes);
    push_step(m, s, plan);
    m->stopped = true;
}

static void run_round(sim *m)
{
    int most = 1 + (int)sim_below(m, RT_PIPE_STEPS);
    const rt_step *done;
    rt_step *s;

    take_arrivals(m);
    take_cancels(m);
    while ((done = rt_pipe_done(&m->pipe)) != NULL) {
        deliver(m, done);
        rt_pipe_pop(&m->pipe);
    }
    sim_audit_blocks(m);
    SIM_CHECK(m, !rt_sched_must_wait(m->sched) || rt_pipe_under_way(&m->pipe) > 0,
              "the scheduler waits for drafts, and no step is under way");
    m->totals.waits += rt_sched_must_wait(m->sched);
    while (most-- > 0 && !rt_sched_must_wait(m->sched) && (s = rt_pipe_room(&m->pipe)) != NULL)
        if (!plan_step(m, s))
            break;
    stop_when_over(m);
    m->wake_at = SIM_NEVER;
    if (rt_pipe_under_way(&m->pipe) == 0 && m->n_open > 0)
        m->wake_at = m->now + LOOK_AGAIN_US;
    if (!m->draining && m->n_plans >= m->cfg.n_plans) {
        sim_note(m, "drain");
        m->draining = true;
        m->wake_at = m->now;
        m->drain_at = m->cfg.drain_after == SIM_NEVER ? SIM_NEVER : m->now + m->cfg.drain_after;
    }
}

/* ---- the clock ---- */

static void begin_step(sim *m)
{
    rt_step *s = m->executing ? NULL : rt_pipe_next(&m->pipe, false);
    int64_t us;

    if (s == NULL)
        return;
    if (m->n_plans > m->cfg.lost_at) {
        m->lost = true;
        return;
    }
    s->begun_ns = m->now;
    sim_ranks_execute(m, s);
    us = 100 + 10 * s->n_tokens + sim_below(m, 400);
    if (sim_percent(m, 1)) /* stopped for a while */
        us *= 50;
    m->executing = true;
    m->step_ends_at = m->now + us;
}

static void end_step(sim *m)
{
    rt_pipe_finish(&m->pipe);
    m->executing = false;
    m->step_ends_at = SIM_NEVER;
    m->wake_at = m->now;
    if (sim_percent(m, m->cfg.percent_late))
        m->wake_at += sim_below(m, 3000);
}

static int64_t earliest_cancel(const sim *m)
{
    int64_t at = SIM_NEVER;

    for (int i = 0; i < m->n_open; i++)
        at = m->open[i]->cancel_at < at ? m->open[i]->cancel_at : at;
    return at;
}

/* The next moment at which something happens. */
static void advance_clock(sim *m)
{
    int64_t at = m->draining ? SIM_NEVER : m->next_arrival, cancel = earliest_cancel(m);

    at = cancel < at ? cancel : at;
    at = m->wake_at < at ? m->wake_at : at;
    at = m->step_ends_at < at ? m->step_ends_at : at;
    at = m->draining && m->n_open > 0 && m->drain_at < at ? m->drain_at : at;
    SIM_CHECK(m, at != SIM_NEVER, "nothing will happen any more, with %d requests open", m->n_open);
    m->now = at > m->now ? at : m->now;
    if (m->step_ends_at <= m->now) {
        end_step(m);
        if (m->wake_at > m->now)
            return;
    }
    run_round(m);
}

/* ---- an episode ---- */

/* No step will be executed any more: nobody may wait for one. */
static void lose_ranks(sim *m)
{
    m->totals.ranks_lost++;
    while (m->n_open > 0)
        finish_all(m, m->open[0], END_LOST);
    while (rt_pipe_under_way(&m->pipe) > 0) {
        forget_step(m, rt_pipe_oldest(&m->pipe));
        rt_pipe_pop(&m->pipe);
    }
}

static void start(sim *m)
{
    const sim_config *c = &m->cfg;
    const rt_sched_options *o = &c->sched;

    sim_configure(m);
    sim_note(m,
             "%d slots, %d tokens per step, %d blocks of %d, watermark %.2f, texts of %d, plans of "
             "%zu bytes, %d steps under way%s",
             o->n_slots, o->max_tokens, o->n_blocks, o->block_tokens, o->watermark, c->len_max,
             c->plan_bytes, c->pipe_steps, c->caching ? ", prefix cache" : "");
    m->step_ends_at = m->wake_at = m->drain_at = SIM_NEVER;
    m->cfg.sched.namer = c->caching ? &m->namer : NULL;
    if (rt_sched_create(&m->sched, o) != TP_OK ||
        rt_plan_writer_init(&m->writer, c->plan_bytes, c->list_cap) != TP_OK ||
        rt_pipe_init(&m->pipe, c->pipe_steps, m->writer.cap, o->n_slots,
                     o->max_tokens + o->n_slots) != TP_OK)
        sim_fail(m, "out of memory");
}

/* Nothing is left behind. */
static void end(sim *m)
{
    int n;

    sim_audit_blocks(m);
    sim_cache_check_counts(m);
    SIM_CHECK(m, m->n_held == 0, "%d requests are never let go", m->n_held);
    SIM_CHECK(m, rt_sched_running(m->sched) == 0 && rt_sched_waiting(m->sched) == 0,
              "%d sequences run and %d wait at the end", rt_sched_running(m->sched),
              rt_sched_waiting(m->sched));
    for (n = 0; n < m->cfg.sched.n_slots && !m->lost; n++)
        SIM_CHECK(m, !m->ranks.slots[n].open, "slot %d is open at the end", n);
    rt_pipe_release(&m->pipe);
    rt_plan_writer_release(&m->writer);
    rt_sched_destroy(m->sched);
}

void sim_run_episode(sim *m)
{
    start(m);
    while (!m->ranks.stopped && !m->lost) {
        begin_step(m);
        if (!m->ranks.stopped && !m->lost)
            advance_clock(m);
    }
    if (m->lost)
        lose_ranks(m);
    end(m);
}
