/* SPDX-License-Identifier: Apache-2.0 */
/* sim_audit.c - what a plan must be like, by sched.h and not by sched.c.
 *
 * Before a plan the visible state of every sequence is noted; afterwards plan and state are held against it: budgets,
 * order, fairness, watermark, who was preempted and whether that was needed, and who holds which block with what in it.
 * Rules that speak of all the room there is hold only in episodes whose plans are never full ("ample").
 */
#include "tests/sim/sim.h"

#include <string.h>

static int32_t smaller(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static int32_t blocks_for(const sim *m, int32_t n_tokens)
{
    return (n_tokens + m->cfg.sched.block_tokens - 1) / m->cfg.sched.block_tokens;
}

static bool samples(const rt_seq *q)
{
    return q->n_total_max > q->n_prompt;
}

static int32_t watermark(const sim *m)
{
    return (int32_t)(m->cfg.sched.watermark * (double)m->cfg.sched.n_blocks);
}

static int32_t free_blocks(const sim *m)
{
    return rt_block_pool_free_count(rt_sched_pool(m->sched));
}

#define NAME         "request %lld.%d "
#define NAME_OF(c)   (long long)(c)->request->id, (c)->index
#define WAS(c, s)    ((c)->before.state == RT_SEQ_##s)
#define IS(c, s)     ((c)->seq.state == RT_SEQ_##s)
#define PREEMPTED(c) (WAS(c, RUNNING) && IS(c, WAITING))
#define ADMITTED(c)  (WAS(c, WAITING) && !IS(c, WAITING))

/* ---- before ---- */

void sim_audit_added(sim *m, sim_choice *c)
{
    c->queue_key = ++m->last_queue_key;
}

/* A fork that has drawn nothing waits for its parent's prompt. */
static bool waits_for_parent(const rt_seq *q)
{
    const rt_seq *p = q->fork_of;

    if (p == NULL || q->n_total > q->n_prompt || p->state == RT_SEQ_FINISHED)
        return false;
    return p->state == RT_SEQ_WAITING || p->n_computed < q->n_prompt;
}

void sim_audit_before(sim *m)
{
    sim_cache_look(m);
    m->n_live = 0;
    for (int i = 0; i < m->n_open; i++)
        for (int k = 0; k < m->open[i]->n; k++) {
            sim_choice *c = &m->open[i]->choices[k];
            const rt_seq *q = &c->seq;

            if (q->state == RT_SEQ_FINISHED)
                continue;
            c->before = (sim_before){.look = m->n_looks,
                                     .state = q->state,
                                     .n_total = q->n_total,
                                     .n_computed = q->n_computed,
                                     .n_blocks = q->n_blocks,
                                     .n_new_max = q->n_new_max,
                                     .lp_start = q->lp_start,
                                     .slot = q->slot,
                                     .waits_for_parent = waits_for_parent(q)};
            m->live[m->n_live++] = c;
        }
    m->free_before = free_blocks(m);
}

/* ---- one sequence of the plan ---- */

/* What ranks are told of its blocks is what it has. */
static void check_table(sim *m, sim_choice *c, const rt_plan_seq *p, const int32_t *blocks)
{
    const rt_seq *q = &c->seq;

    SIM_CHECK(m, p->table_keep == c->n_table, NAME "keeps %d of %d blocks that ranks know",
              NAME_OF(c), p->table_keep, c->n_table);
    SIM_CHECK(m, p->n_blocks >= 0 && p->table_keep + p->n_blocks <= blocks_for(m, q->n_total_max),
              NAME "has %d + %d blocks for a text of %d tokens", NAME_OF(c), p->table_keep,
              p->n_blocks, q->n_total_max);
    memcpy(c->table + c->n_table, blocks, sizeof *blocks * (size_t)p->n_blocks);
    c->n_table += p->n_blocks;
    if (q->state == RT_SEQ_RUNNING)
        SIM_CHECK(m,
                  c->n_table == q->n_blocks &&
                      memcmp(c->table, q->blocks, sizeof *blocks * (size_t)c->n_table) == 0,
                  NAME "has other blocks than ranks were told", NAME_OF(c));
}

/* A draft stands behind a decode, within the text and the reader's room. */
static void check_draft(sim *m, const rt_scheduled *s, const rt_plan_seq *p)
{
    const sim_choice *c = s->seq->owner;
    const sim_before *b = &c->before;

    if (p->n_draft == 0)
        return;
    SIM_CHECK(m, p->n_draft > 0 && p->n_new == 1 + p->n_draft && s->sampled,
              NAME "has a draft of %d tokens behind %d", NAME_OF(c), p->n_draft,
              p->n_new - p->n_draft);
    SIM_CHECK(m, p->n_draft <= m->cfg.sched.draft_max && p->n_draft <= c->seq.n_draft_max,
              NAME "has a draft of %d tokens, at most %d or %d", NAME_OF(c), p->n_draft,
              m->cfg.sched.draft_max, c->seq.n_draft_max);
    SIM_CHECK(m, b->n_total + 1 + p->n_draft <= c->seq.n_total_max,
              NAME "has a draft of %d tokens behind %d of %d", NAME_OF(c), p->n_draft, b->n_total,
              c->seq.n_total_max);
    m->totals.drafts_ahead += b->n_total > c->n_seen;
}

static void check_seq(sim *m, const rt_scheduled *s, const rt_plan_seq *p, const int32_t *blocks)
{
    sim_choice *c = s->seq->owner;
    const rt_seq *q = s->seq;
    sim_before *b = &c->before;
    int32_t end = p->start + p->n_new - p->n_draft; /* of what is certain */

    SIM_CHECK(m,
              s->slot == p->slot && s->n_new == p->n_new && s->n_draft == p->n_draft &&
                  s->sampled == ((p->flags & RT_SEQ_SAMPLE) != 0),
              NAME "is in the plan other than the scheduler says", NAME_OF(c));
    SIM_CHECK(m, !b->scheduled, NAME "is twice in a plan", NAME_OF(c));
    b->scheduled = true;
    b->start = p->start;
    b->end = end;
    b->n_draft = p->n_draft;
    check_draft(m, s, p);
    SIM_CHECK(m, end > p->start && end - p->start <= b->n_new_max,
              NAME "computes %d tokens, at most %d", NAME_OF(c), end - p->start, b->n_new_max);
    SIM_CHECK(m, end <= b->n_total, NAME "computes %d tokens of %d", NAME_OF(c), end, b->n_total);
    SIM_CHECK(m, b->state != RT_SEQ_RUNNING || p->start == b->n_computed,
              NAME "goes on at %d after %d", NAME_OF(c), p->start, b->n_computed);
    SIM_CHECK(m, s->sampled == (samples(q) && end == b->n_total),
              NAME "draws a token at %d of %d: %d", NAME_OF(c), end, b->n_total, s->sampled);
    SIM_CHECK(m, q->n_computed == end || s->last, NAME "has %d tokens after %d", NAME_OF(c),
              q->n_computed, end);
    SIM_CHECK(m, q->n_total == b->n_total + s->sampled, NAME "has %d tokens after %d", NAME_OF(c),
              q->n_total, b->n_total);
    SIM_CHECK(m, s->last == (end == b->n_total && b->n_total + s->sampled == q->n_total_max),
              NAME "with %d of %d tokens: last = %d", NAME_OF(c), q->n_total, q->n_total_max,
              s->last);
    SIM_CHECK(m, s->last == (q->state == RT_SEQ_FINISHED), NAME "is let go, or is not", NAME_OF(c));
    SIM_CHECK(m,
              p->lp_start == b->lp_start && (b->lp_start == INT32_MAX || p->start <= b->lp_start),
              NAME "skips rows of its prompt: %d from %d", NAME_OF(c), p->start, b->lp_start);
    check_table(m, c, p, blocks);
}

static void check_seqs(sim *m, int n_tokens, const uint8_t *plan, size_t bytes)
{
    const rt_scheduled *s;
    const int32_t *blocks;
    rt_plan_reader r;
    rt_plan_open_view o;
    rt_plan_seq p;
    int n, sum = 0, drafts = 0, n_running = 0;

    s = rt_sched_scheduled(m->sched, &n);
    SIM_CHECK(m, rt_plan_open_reader(&r, plan, bytes) == TP_OK, "the plan cannot be read");
    SIM_CHECK(m, r.header.n_seq == (uint32_t)n && n <= m->cfg.sched.n_slots,
              "%u sequences in the plan, %d scheduled", r.header.n_seq, n);
    for (uint32_t i = 0; i < r.header.n_open; i++)
        SIM_CHECK(m, rt_plan_read_open(&r, &o) == TP_OK, "opening %u cannot be read", i);
    for (int i = 0; i < n; i++) {
        SIM_CHECK(m, rt_plan_read_seq(&r, &p, &blocks) == TP_OK, "sequence %d cannot be read", i);
        sim_note(m, "  slot %d: request %lld.%d %d..%d%s%s, blocks %d + %d", p.slot,
                 (long long)((const sim_choice *)s[i].seq->owner)->request->id,
                 ((const sim_choice *)s[i].seq->owner)->index, p.start, p.start + p.n_new,
                 s[i].sampled ? " sampled" : "", s[i].last ? " last" : "", p.table_keep,
                 p.n_blocks);
        check_seq(m, &s[i], &p, blocks);
        if (!WAS((sim_choice *)s[i].seq->owner, RUNNING))
            ((sim_choice *)s[i].seq->owner)->admit_no = ++m->last_admit_no;
        sum += p.n_new;
        drafts += p.n_draft;
    }
    for (int i = 0; i < m->n_live; i++)
        n_running += WAS(m->live[i], RUNNING);
    SIM_CHECK(m,
              drafts == 0 ||
                  (drafts <= RT_DRAFT_STEP_MAX && m->cfg.sched.draft != NULL &&
                   (m->cfg.sched.draft_seqs_max == 0 || n_running <= m->cfg.sched.draft_seqs_max)),
              "drafts of %d tokens beside %d sequences", drafts, n_running);
    SIM_CHECK(m, sum == n_tokens && sum <= m->cfg.sched.max_tokens,
              "%d tokens in the plan, %d returned, at most %d", sum, n_tokens,
              m->cfg.sched.max_tokens);
    m->totals.tokens += sum;
    m->totals.copies += r.header.n_copy;
}

/* ---- order among sequences ---- */

/* Sequences that were running: who was preempted, and was it needed. */
static int check_preemptions(sim *m)
{
    int64_t oldest = INT64_MAX;
    int32_t need = 0;
    int n = 0;

    for (int i = 0; i < m->n_live; i++) {
        sim_choice *c = m->live[i];
        const sim_before *b = &c->before;

        if (WAS(c, RUNNING) && b->n_total - b->n_computed == 1 && b->n_new_max > 0)
            need += blocks_for(m, b->n_total) > b->n_blocks;
        if (!PREEMPTED(c))
            continue;
        sim_note(m, "  request %lld.%d is preempted", NAME_OF(c));
        SIM_CHECK(m, !b->scheduled, NAME "is preempted in the plan that it is part of", NAME_OF(c));
        c->n_table = c->n_offered = 0;
        oldest = c->admit_no < oldest ? c->admit_no : oldest;
        n++;
    }
    if (n == 0)
        return 0;
    SIM_CHECK(m, need > m->free_before, "%d preempted for %d blocks, %d are free", n, need,
              m->free_before);
    for (int i = 0; i < m->n_live; i++)
        SIM_CHECK(
            m, !WAS(m->live[i], RUNNING) || PREEMPTED(m->live[i]) || m->live[i]->admit_no < oldest,
            NAME "runs on while an older one is preempted", NAME_OF(m->live[i]));
    m->totals.preemptions += n;
    return n;
}

/* Preempted sequences stand in front of all others, the oldest first. */
static void queue_preempted(sim *m)
{
    sim_choice *next;

    do {
        next = NULL;
        for (int i = 0; i < m->n_live; i++)
            if (PREEMPTED(m->live[i]) && m->live[i]->admit_no > 0 &&
                (next == NULL || m->live[i]->admit_no > next->admit_no))
                next = m->live[i];
        if (next != NULL) {
            next->queue_key = --m->first_queue_key;
            next->admit_no = 0;
        }
    } while (next != NULL);
}

/* The parent comes back in the same plan, and the prefix cache still has all of its prompt. */
static bool comes_with_its_parent(const sim_choice *c)
{
    const sim_choice *p = c->seq.fork_of != NULL ? c->seq.fork_of->owner : NULL;

    return p != NULL && ADMITTED(p) && p->before.scheduled && p->before.start >= c->seq.n_prompt;
}

static bool eligible(const sim_choice *c)
{
    return WAS(c, WAITING) && c->before.n_new_max > 0 &&
           (!c->before.waits_for_parent || comes_with_its_parent(c));
}

/* The first in the queue that could have been admitted and was not; NULL = none. */
static const sim_choice *check_admissions(sim *m, int n_preempted)
{
    const sim_choice *first = NULL;
    int64_t last = INT64_MIN;

    for (int i = 0; i < m->n_live; i++) {
        sim_choice *c = m->live[i];

        if (ADMITTED(c)) {
            SIM_CHECK(m, n_preempted == 0, NAME "is admitted beside a preemption", NAME_OF(c));
            SIM_CHECK(m, eligible(c) || comes_with_its_parent(c),
                      NAME "is admitted, paused or before its parent", NAME_OF(c));
            last = c->queue_key > last ? c->queue_key : last;
            m->totals.admissions++;
            if (!c->before.scheduled) /* the plan was full */
                c->admit_no = ++m->last_admit_no;
        } else if (eligible(c) && (first == NULL || c->queue_key < first->queue_key)) {
            first = c;
        }
    }
    SIM_CHECK(m, first == NULL || first->queue_key > last, NAME "is overtaken", NAME_OF(first));
    return first;
}

/* ---- blocks ---- */

/* Tokens in the cache when the plan is executed. */
static int32_t computed(const sim_choice *c)
{
    return c->before.scheduled ? c->before.end : c->seq.n_computed;
}

/* Both have it in the same place, and whatever both have computed in it is the same text. */
static void check_shared(sim *m, const sim_choice *a, const sim_choice *b, int32_t block, int32_t i,
                         int32_t index)
{
    int32_t tokens = m->cfg.sched.block_tokens;
    int32_t end = smaller(smaller(computed(a), computed(b)), (i + 1) * tokens);

    SIM_CHECK(m, i == index && a != b, "block %d is block %d of " NAME "and block %d of " NAME,
              block, i, NAME_OF(a), index, NAME_OF(b));
    SIM_CHECK(m, end > i * tokens && a->keys[end - 1] == b->keys[end - 1],
              "block %d is shared by " NAME "and " NAME "with different texts", block, NAME_OF(a),
              NAME_OF(b));
}

static int32_t hold(sim *m, const sim_choice *c, const int32_t *blocks, int32_t n)
{
    int32_t fresh = 0;

    for (int32_t i = 0; i < n; i++) {
        sim_holder *h;

        SIM_CHECK(m, blocks[i] >= 0 && blocks[i] < m->cfg.sched.n_blocks, NAME "has block %d of %d",
                  NAME_OF(c), blocks[i], m->cfg.sched.n_blocks);
        h = &m->holders[blocks[i]];
        if (h->plan != m->n_plans + 1) {
            *h = (sim_holder){.choice = c, .index = i, .n = 1, .plan = m->n_plans + 1};
            fresh++;
        } else {
            h->n++;
            check_shared(m, c, h->choice, blocks[i], i, h->index);
        }
    }
    return fresh;
}

/* A shared block is not written, unless with what it holds. */
static void check_writes(sim *m, const sim_choice *c, int32_t n_new)
{
    int32_t tokens = m->cfg.sched.block_tokens, end = c->before.end;

    for (int32_t p = c->before.start; p < c->before.start + n_new; p++) {
        const sim_holder *h = &m->holders[c->table[p / tokens]];

        SIM_CHECK(m, h->n == 1 || (p < end && h->choice->keys[p] == c->keys[p]),
                  NAME "writes at %d into block %d, which " NAME "has too", NAME_OF(c), p,
                  c->table[p / tokens], NAME_OF(h->choice));
    }
}

/* Returns the number of different blocks that the sequences of the plan hold, those that it lets go included. */
static int32_t check_blocks(sim *m)
{
    const rt_scheduled *s;
    int32_t held = 0, held_on = 0;
    int n;

    memset(m->holders, 0, sizeof *m->holders * (size_t)m->cfg.sched.n_blocks);
    for (int i = 0; i < m->n_live; i++) {
        const rt_seq *q = &m->live[i]->seq;

        SIM_CHECK(m, q->state == RT_SEQ_RUNNING || q->n_blocks == 0,
                  NAME "has %d blocks and does not run", NAME_OF(m->live[i]), q->n_blocks);
        SIM_CHECK(m,
                  q->n_blocks <=
                      blocks_for(m, smaller(q->n_total + m->cfg.sched.draft_max, q->n_total_max)),
                  NAME "has %d blocks for %d tokens", NAME_OF(m->live[i]), q->n_blocks, q->n_total);
        held_on += hold(m, m->live[i], q->blocks, q->n_blocks);
    }
    SIM_CHECK(m, held_on + free_blocks(m) == m->cfg.sched.n_blocks,
              "%d blocks are held, %d are free, of %d", held_on, free_blocks(m),
              m->cfg.sched.n_blocks);
    s = rt_sched_scheduled(m->sched, &n);
    held = held_on;
    for (int i = 0; i < n; i++) {
        const sim_choice *c = s[i].seq->owner;

        if (s[i].last)
            held += hold(m, c, c->table, c->n_table);
    }
    for (int i = 0; i < n; i++)
        check_writes(m, s[i].seq->owner, s[i].n_new);
    m->totals.cache_full += held == m->cfg.sched.n_blocks;
    return held;
}

static void count_shared(sim *m)
{
    for (int i = 0; i < m->n_live; i++) {
        const sim_choice *c = m->live[i];

        if (ADMITTED(c) && c->seq.fork_of != NULL && c->n_table > 0)
            m->totals.forks_shared += m->holders[c->table[0]].n > 1;
    }
}

/* ---- everybody gets on ---- */

/* Nothing that could have been computed was left out. */
static void check_use(sim *m, int n_tokens, const sim_choice *first, int32_t held, int n_preempted)
{
    int n_running = 0, n_slots = 0, n_admitted = 0;
    int32_t keep, need, left = m->cfg.sched.n_blocks - held;

    for (int i = 0; i < m->n_live; i++) {
        const sim_choice *c = m->live[i];
        const sim_before *b = &c->before;
        int32_t open = b->n_total - b->n_computed;
        bool decodes = WAS(c, RUNNING) && open == 1;

        n_running += !IS(c, WAITING);
        n_slots += !IS(c, WAITING) || b->slot >= 0 || c->seq.slot >= 0;
        n_admitted += ADMITTED(c);
        if (WAS(c, RUNNING) && !IS(c, WAITING) && b->n_new_max > 0)
            SIM_CHECK(m, b->scheduled || (n_tokens == m->cfg.sched.max_tokens && !decodes),
                      NAME "is left out of a plan of %d tokens", NAME_OF(c), n_tokens);
    }
    SIM_CHECK(m, n_admitted == 0 || n_running == 1 || left >= watermark(m),
              "admitted with %d blocks left, %d must be", left, watermark(m));
    if (first == NULL || n_preempted > 0 || n_tokens == m->cfg.sched.max_tokens)
        return;
    keep = n_running > 0 ? watermark(m) : 0;
    need = blocks_for(m, first->before.n_total + samples(&first->seq));
    SIM_CHECK(m, left - need < keep || (first->before.slot < 0 && n_slots == m->cfg.sched.n_slots),
              NAME "needs %d blocks, %d are left and %d must be: it could have been admitted",
              NAME_OF(first), need, left, keep);
}

/* With nobody paused there is always a next token, and it is everybody's turn some time. */
static void check_progress(sim *m, int n_tokens, bool opens)
{
    int64_t work = 0;
    bool paused = false;

    for (int i = 0; i < m->n_live; i++) {
        paused = paused || m->live[i]->before.n_new_max == 0;
        work += m->live[i]->seq.n_total_max;
        m->totals.slots_unopened += m->live[i]->seq.slot >= 0 && !m->live[i]->seq.opened;
    }
    if (paused || m->n_live == 0)
        return;
    SIM_CHECK(m, n_tokens > 0 || opens, "nobody is paused, %d sequences are open, and none gets on",
              m->n_live);
    for (int i = 0; i < m->n_live; i++) {
        sim_choice *c = m->live[i];

        if (c->before.scheduled || c->patience == 0) {
            c->patience = 4 * work + 64; /* those ahead of it, some of them computed again */
        }
        SIM_CHECK(m, --c->patience > 0, NAME "has got nothing for too long", NAME_OF(c));
    }
}

void sim_audit_plan(sim *m, int n_tokens, const uint8_t *plan, size_t bytes)
{
    const rt_plan_header *h = &m->writer.header;
    const sim_choice *first;
    int32_t held;
    int n_preempted;

    rt_sched_check(m->sched);
    if (plan != NULL)
        sim_note(m, "plan %lld: %d tokens, %u close, %u copies, %u open, %u seqs, %d free",
                 (long long)m->n_plans, n_tokens, h->n_close, h->n_copy, h->n_open, h->n_seq,
                 free_blocks(m));
    if (plan != NULL)
        check_seqs(m, n_tokens, plan, bytes);
    else
        SIM_CHECK(m, n_tokens == 0, "%d tokens in an empty plan", n_tokens);
    n_preempted = check_preemptions(m);
    first = check_admissions(m, n_preempted);
    queue_preempted(m);
    held = check_blocks(m);
    count_shared(m);
    sim_cache_check_plan(m, n_preempted);
    sim_cache_check_offers(m);
    sim_cache_look(m);
    if (m->cfg.ample)
        check_use(m, n_tokens, first, held, n_preempted);
    else
        m->totals.plans_full += n_tokens < m->cfg.sched.max_tokens && first != NULL;
    check_progress(m, n_tokens, h->n_open > 0);
}

void sim_audit_blocks(sim *m)
{
    int32_t held = 0;

    sim_cache_check_offers(m);
    rt_sched_check(m->sched);
    memset(m->holders, 0, sizeof *m->holders * (size_t)m->cfg.sched.n_blocks);
    for (int i = 0; i < m->n_open; i++)
        for (int k = 0; k < m->open[i]->n; k++)
            held += hold(m, &m->open[i]->choices[k], m->open[i]->choices[k].seq.blocks,
                         m->open[i]->choices[k].seq.n_blocks);
    SIM_CHECK(m, held + free_blocks(m) == m->cfg.sched.n_blocks,
              "%d blocks are held, %d are free, of %d", held, free_blocks(m),
              m->cfg.sched.n_blocks);
}
