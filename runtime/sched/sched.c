/* SPDX-License-Identifier: Apache-2.0 */
/* sched.c - two lists and a block pool; sched.h tells why counting ahead is safe.
 *
 * waiting: in order of arrival, preempted sequences in front.  running: in order of admission, so the tail is the
 * youngest and the first to be preempted.
 *
 * Invariants: a running sequence has a slot and blocks for its first n_computed tokens; a waiting one has no blocks; a
 * sequence that is part of the current plan is never preempted while that plan is made.  A block is in the prefix cache
 * exactly when the pool keeps it; nobody writes to such a block, because what a sequence computes lies behind the full
 * blocks that it has.
 */
#include "runtime/sched/sched.h"

#include <string.h>

#include "base/mem.h"

typedef struct seq_list {
    rt_seq *head, *tail;
    int n;
} seq_list;

struct rt_sched {
    rt_sched_options opt;
    rt_block_pool *pool;    /* owned */
    rt_prefix_cache *cache; /* owned; NULL = off */
    int32_t watermark;      /* blocks */
    seq_list waiting, running;
    rt_seq **slots;      /* owned; [n_slots], NULL = free */
    int32_t *free_slots; /* owned; stack */
    int n_free_slots;
    int32_t *closing; /* owned; slots that the next plan closes */
    int n_closing;
    rt_scheduled *scheduled; /* owned; [n_slots] */
    int n_scheduled;
    uint64_t preemptions;
    uint64_t prefix_queries, prefix_hits; /* tokens */
    int32_t draft_room; /* tokens that drafts may still add to the plan that is being made */
    double draft_share; /* of a step's time that its rows take */
    int n_unsettled;    /* drafts under way */
    rt_step_cost cost;
    rt_draft_counts drafts;
};

static void list_push_back(seq_list *l, rt_seq *q)
{
    q->prev = l->tail;
    q->next = NULL;
    *(l->tail != NULL ? &l->tail->next : &l->head) = q;
    l->tail = q;
    l->n++;
}

static void list_push_front(seq_list *l, rt_seq *q)
{
    q->prev = NULL;
    q->next = l->head;
    *(l->head != NULL ? &l->head->prev : &l->tail) = q;
    l->head = q;
    l->n++;
}

static void list_remove(seq_list *l, rt_seq *q)
{
    *(q->prev != NULL ? &q->prev->next : &l->head) = q->next;
    *(q->next != NULL ? &q->next->prev : &l->tail) = q->prev;
    q->prev = q->next = NULL;
    l->n--;
}

tp_status rt_sched_create(rt_sched **out, const rt_sched_options *o)
{
    rt_sched *s = tp_calloc(1, sizeof *s);
    size_t slots = (size_t)o->n_slots;
    tp_status st;

    if (s == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "scheduler");
    s->opt = *o;
    s->drafts.draft_max = o->draft != NULL ? o->draft_max : 0;
    s->watermark = (int32_t)(o->watermark * (double)o->n_blocks);
    TP_TRY_GOTO(st, rt_block_pool_create(&s->pool, o->n_blocks), fail);
    if (o->namer != NULL)
        TP_TRY_GOTO(st, rt_prefix_cache_create(&s->cache, o->n_blocks), fail);
    s->slots = tp_calloc(slots, sizeof *s->slots);
    s->free_slots = tp_calloc(slots, sizeof *s->free_slots);
    s->closing = tp_calloc(slots, sizeof *s->closing);
    s->scheduled = tp_calloc(slots, sizeof *s->scheduled);
    if (s->slots == NULL || s->free_slots == NULL || s->closing == NULL || s->scheduled == NULL) {
        st = TP_FAIL(TP_ERR_NOMEM, "scheduler of %d slots", o->n_slots);
        goto fail;
    }
    while (s->n_free_slots < o->n_slots) {
        s->free_slots[s->n_free_slots] = o->n_slots - 1 - s->n_free_slots;
        s->n_free_slots++;
    }
    *out = s;
    return TP_OK;
fail:
    rt_sched_destroy(s);
    return st;
}

void rt_sched_destroy(rt_sched *s)
{
    if (s == NULL)
        return;
    rt_block_pool_destroy(s->pool);
    rt_prefix_cache_destroy(s->cache);
    tp_free(s->slots);
    tp_free(s->free_slots);
    tp_free(s->closing);
    tp_free(s->scheduled);
    tp_free(s);
}

void rt_sched_add(rt_sched *s, rt_seq *q)
{
    TP_ASSERT(q->state == RT_SEQ_NEW);
    q->state = RT_SEQ_WAITING;
    q->slot = -1;
    q->n_total = q->n_known = q->n_prompt;
    q->guesses = rt_guess_record_new();
    list_push_back(&s->waiting, q);
}

/* From the last block on: of those that are kept, it is the first to go, being of no use without the others. */
static void release_blocks(rt_sched *s, rt_seq *q)
{
    for (int32_t i = q->n_blocks - 1; i >= 0; i--)
        rt_block_pool_unref(s->pool, q->blocks[i]);
    q->n_blocks = q->n_blocks_sent = q->n_computed = q->n_offered = 0;
}

void rt_sched_finish(rt_sched *s, rt_seq *q)
{
    if (q->state == RT_SEQ_WAITING)
        list_remove(&s->waiting, q);
    else if (q->state == RT_SEQ_RUNNING)
        list_remove(&s->running, q);
    release_blocks(s, q);
    if (q->slot >= 0) {
        s->slots[q->slot] = NULL;
        if (q->opened)
            s->closing[s->n_closing++] = q->slot;
        else
            s->free_slots[s->n_free_slots++] = q->slot;
        q->slot = -1;
    }
    q->state = RT_SEQ_FINISHED;
}

static int32_t smaller(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

/* Whether tokens are drawn for it; else only its prompt is computed. */
static bool samples(const rt_seq *q)
{
    return q->n_total_max > q->n_prompt;
}

/* ---- blocks ---- */

static int32_t blocks_for(const rt_sched *s, int32_t n_tokens)
{
    return (n_tokens + s->opt.block_tokens - 1) / s->opt.block_tokens;
}

static bool take_blocks(rt_sched *s, rt_seq *q, int32_t n_tokens)
{
    while (q->n_blocks < blocks_for(s, n_tokens)) {
        if (rt_block_pool_take(s->pool, &q->blocks[q->n_blocks]) != TP_OK)
            return false;
        if (s->cache != NULL)
            rt_prefix_cache_forget(s->cache, q->blocks[q->n_blocks]);
        q->n_blocks++;
    }
    return true;
}

static void preempt(rt_sched *s, rt_seq *q)
{
    list_remove(&s->running, q);
    release_blocks(s, q);
    q->state = RT_SEQ_WAITING;
    q->n_preempted++;
    list_push_front(&s->waiting, q);
    s->preemptions++;
}

/* Room for one decode: from the pool, else from the youngest sequences that are not in this plan.  False: that was q. */
static bool make_room(rt_sched *s, rt_seq *q, int32_t n_tokens)
{
    while (!take_blocks(s, q, n_tokens)) {
        rt_seq *victim = s->running.tail;

        while (victim != NULL && victim->n_scheduled > 0)
            victim = victim->prev;
        if (victim == NULL)
            return false;
        preempt(s, victim);
        if (victim == q)
            return false;
    }
    return true;
}

/* ---- prefix cache ---- */

/* Blocks that are full, computed and named can be found by others from now on. */
static void offer_blocks(rt_sched *s, rt_seq *q)
{
    int32_t full = smaller(q->n_named, q->n_computed / s->opt.block_tokens);

    if (s->cache == NULL)
        return;
    for (; q->n_offered < full; q->n_offered++) {
        int32_t id = q->blocks[q->n_offered];

        if (rt_prefix_cache_add(s->cache, &q->names[q->n_offered + 1], id))
            rt_block_pool_keep(s->pool, id);
    }
}

/* One more known token, and the name of the block that it fills. */
static void name_token(rt_sched *s, rt_seq *q, int32_t token)
{
    q->tail[q->n_tail++] = token;
    if (q->n_tail < s->opt.block_tokens)
        return;
    q->names[q->n_named + 1] = rt_block_namer_next(s->opt.namer, &q->names[q->n_named], q->tail);
    q->n_named++;
    q->n_tail = 0;
}

void rt_sched_learn(rt_sched *s, rt_seq *q, int32_t token)
{
    if (q->state == RT_SEQ_FINISHED)
        return;
    if (q->n_known == q->n_total) { /* drawn behind a token of a draft, which so came true */
        q->n_total++;
        q->n_computed++;
    }
    q->n_known++;
    if (s->cache == NULL || q->names == NULL)
        return;
    name_token(s, q, token);
    offer_blocks(s, q);
}

/* Number of blocks, from its first on, that hold a sequence's tokens already; their ids go to q->blocks, without a
 * reference yet.  The last token is always computed, for its row; so are rows of prompt logprobs. */
static int32_t find_prefix(const rt_sched *s, rt_seq *q, int32_t *n_idle)
{
    int32_t most = smaller(q->n_named, smaller(q->n_total - 1, q->lp_start) / s->opt.block_tokens);
    int32_t n = 0;

    *n_idle = 0;
    if (s->cache == NULL)
        return 0;
    for (; n < most; n++) {
        q->blocks[n] = rt_prefix_cache_find(s->cache, &q->names[n + 1]);
        if (q->blocks[n] < 0)
            break;
        *n_idle += rt_block_pool_is_idle(s->pool, q->blocks[n]);
    }
    return n;
}

static void use_prefix(rt_sched *s, rt_seq *q, int32_t n)
{
    for (; q->n_blocks < n; q->n_blocks++)
        rt_block_pool_ref(s->pool, q->blocks[q->n_blocks]);
    q->n_computed = n * s->opt.block_tokens;
    q->n_offered = n;
    if (s->cache == NULL || q->n_preempted > 0 || q->lp_start < q->n_prompt)
        return;
    q->n_cached = q->n_computed;
    s->prefix_queries += (uint64_t)q->n_prompt;
    s->prefix_hits += (uint64_t)q->n_computed;
}

/* ---- speculation ---- */

/* Tokens that all drafts of a plan may have: the others' decodes have their places in it. */
static int32_t draft_room(const rt_sched *s)
{
    if (s->opt.draft == NULL || (s->opt.draft_seqs_max > 0 && s->running.n > s->opt.draft_seqs_max))
        return 0;
    return smaller(RT_DRAFT_STEP_MAX, s->opt.max_tokens - s->running.n);
}

/* Places for n more tokens: as many as its blocks have, or with new ones while each running sequence could take one. */
static int32_t places_for(rt_sched *s, rt_seq *q, int32_t n)
{
    int32_t first = q->n_computed + 1;

    if (rt_block_pool_free_count(s->pool) >= s->running.n + blocks_for(s, first + n) - q->n_blocks)
        (void)take_blocks(s, q, first + n);
    return smaller(n, q->n_blocks * s->opt.block_tokens - first);
}

/* A draft behind the one token that a sequence has to compute: out [RT_DRAFT_MAX].  Returns its length. */
static int32_t guess(rt_sched *s, rt_seq *q, int32_t *out)
{
    int32_t most = smaller(smaller(s->opt.draft_max, q->n_draft_max), s->draft_room);
    int32_t n;

    most = smaller(most, q->n_total_max - q->n_total - 1);
    if (most <= 0 || !samples(q))
        return 0;
    n = s->opt.draft(q, q->n_total - q->n_known, most, out);
    if (n > 0)
        n = rt_guess_length(&q->guesses, s->draft_share, n);
    return n > 0 ? places_for(s, q, n) : 0;
}

void rt_sched_settle(rt_sched *s, const rt_scheduled *p, int n_drawn)
{
    int n_true = n_drawn > 0 ? n_drawn - 1 : 0;

    TP_ASSERT(p->n_draft >= n_true && s->n_unsettled > 0);
    s->n_unsettled--;
    rt_guess_learn(&p->seq->guesses, p->n_draft, n_true);
    s->drafts.drafts++;
    s->drafts.tokens += (uint64_t)p->n_draft;
    s->drafts.accepted += (uint64_t)n_true;
    for (int i = 0; i < n_true; i++)
        s->drafts.accepted_at[i]++;
}

bool rt_sched_must_wait(const rt_sched *s)
{
    return s->n_unsettled > 0;
}

void rt_sched_time(rt_sched *s, int n_tokens, int64_t ns)
{
    rt_step_cost_add(&s->cost, n_tokens, ns);
}

/* ---- one plan ---- */

/* Puts n tokens of a running sequence into the plan, and a draft behind them; false when the plan is full. */
static bool schedule(rt_sched *s, rt_plan_writer *w, rt_seq *q, int32_t n, const int32_t *draft,
                     int32_t n_draft)
{
    bool sampled = samples(q) && q->n_computed + n == q->n_total;
    rt_plan_seq p = {.slot = q->slot,
                     .start = q->n_computed,
                     .n_new = n + n_draft,
                     .table_keep = q->n_blocks_sent,
                     .n_blocks = q->n_blocks - q->n_blocks_sent,
                     .lp_start = q->lp_start,
                     .flags = sampled ? RT_SEQ_SAMPLE : 0,
                     .n_draft = n_draft};

    if (!rt_plan_add_seq(w, &p, q->blocks + q->n_blocks_sent, draft))
        return false;
    q->n_blocks_sent = q->n_blocks;
    q->n_scheduled = p.n_new;
    s->draft_room -= n_draft;
    s->n_unsettled += n_draft > 0;
    s->scheduled[s->n_scheduled++] = (rt_scheduled){
        .seq = q, .slot = q->slot, .n_new = p.n_new, .n_draft = n_draft, .sampled = sampled};
    return true;
}

/* Decodes have one token left to compute; the others are prompts, or preempted texts, on their way. */
typedef enum run_kind { DECODES, PROMPTS } run_kind;

static int32_t plan_running(rt_sched *s, rt_plan_writer *w, int32_t budget, run_kind kind)
{
    int32_t draft[RT_DRAFT_MAX], n_draft;

    for (rt_seq *q = s->running.head, *next; q != NULL && budget > 0; q = next) {
        int32_t open = q->n_total - q->n_computed;
        int32_t n = smaller(smaller(open, budget), q->n_new_max);

        next = q->next;
        if (n <= 0 || (open == 1) != (kind == DECODES) || q->n_scheduled > 0)
            continue;
        if (!make_room(s, q, q->n_computed + n))
            break;      /* it was itself the youngest left */
        next = q->next; /* preemption may have removed the neighbour */
        n_draft = kind == DECODES ? guess(s, q, draft) : 0;
        if (!schedule(s, w, q, n, draft, n_draft))
            break;
        budget -= n + n_draft;
    }
    return budget;
}

/* Blocks of the parent's prompt that a fork can use, all but the block of its last token. */
static void share_prompt(rt_sched *s, rt_plan_writer *w, rt_seq *q)
{
    const rt_seq *p = q->fork_of;
    int32_t common = q->n_prompt - 1, full = common / s->opt.block_tokens;

    for (int32_t i = 0; i < full; i++) {
        q->blocks[q->n_blocks++] = p->blocks[i];
        rt_block_pool_ref(s->pool, p->blocks[i]);
    }
    q->n_computed = full * s->opt.block_tokens;
    if (common > q->n_computed && take_blocks(s, q, q->n_computed + 1) &&
        rt_plan_add_copy(w, q->blocks[full], p->blocks[full]))
        q->n_computed = common;
}

/* A fork waits until its parent's prompt is in the cache; it starts from scratch when the parent has lost it. */
static bool fork_must_wait(const rt_seq *q)
{
    const rt_seq *p = q->fork_of;

    return p != NULL && q->n_total == q->n_prompt &&
           (p->state == RT_SEQ_WAITING ||
            (p->state == RT_SEQ_RUNNING && p->n_computed < q->n_prompt));
}

static bool can_share(const rt_seq *q)
{
    const rt_seq *p = q->fork_of;

    return p != NULL && q->n_total == q->n_prompt && p->state == RT_SEQ_RUNNING &&
           p->n_computed >= q->n_prompt && q->lp_start == INT32_MAX;
}

/* Moves one waiting sequence to running with its slot and blocks; false when it does not fit now. */
static bool admit(rt_sched *s, rt_plan_writer *w, rt_seq *q)
{
    int32_t need = blocks_for(s, q->n_total + (samples(q) ? 1 : 0));
    int32_t keep = s->running.n > 0 ? s->watermark : 0;
    bool share = can_share(q);
    int32_t n_idle = 0, n_found;

    if (q->slot < 0 && s->n_free_slots == 0)
        return false;
    n_found = share ? 0 : find_prefix(s, q, &n_idle);
    if (rt_block_pool_free_count(s->pool) - (need - n_found + n_idle) < keep)
        return false;
    if (q->slot < 0) {
        q->slot = s->free_slots[--s->n_free_slots];
        s->slots[q->slot] = q;
    }
    q->open.head.slot = q->slot;
    if (!q->opened && !rt_plan_add_open(w, &q->open))
        return false; /* keeps the slot for the next step */
    q->opened = true;
    list_remove(&s->waiting, q);
    list_push_back(&s->running, q);
    q->state = RT_SEQ_RUNNING;
    if (share)
        share_prompt(s, w, q);
    else
        use_prefix(s, q, n_found);
    if (!take_blocks(s, q, q->n_total))
        TP_ASSERT(!"the pool had room for the sequence");
    return true;
}

static int32_t plan_admissions(rt_sched *s, rt_plan_writer *w, int32_t budget)
{
    for (rt_seq *q = s->waiting.head, *next; q != NULL && budget > 0; q = next) {
        int32_t n;

        next = q->next;
        if (fork_must_wait(q) || q->n_new_max == 0)
            continue;
        if (!admit(s, w, q))
            break;
        n = smaller(smaller(q->n_total - q->n_computed, budget), q->n_new_max);
        if (!schedule(s, w, q, n, NULL, 0))
            break;
        budget -= n;
    }
    return budget;
}

/* Counts what is planned as done, and lets go of the sequences for which that was all. */
static void advance(rt_sched *s)
{
    for (int i = 0; i < s->n_scheduled; i++) {
        rt_scheduled *p = &s->scheduled[i];
        rt_seq *q = p->seq;

        q->n_computed += p->n_new - p->n_draft;
        q->n_total += p->sampled;
        q->n_scheduled = 0;
        offer_blocks(s, q);
        if (q->lp_start != INT32_MAX && q->n_computed > q->lp_start)
            q->lp_start = q->n_computed;
        p->last = samples(q) ? q->n_total == q->n_total_max : q->n_computed == q->n_total;
        if (p->last)
            rt_sched_finish(s, q);
    }
}

int rt_sched_plan(rt_sched *s, rt_plan_writer *w)
{
    uint64_t preemptions = s->preemptions;
    int32_t budget = s->opt.max_tokens;

    TP_ASSERT(!rt_sched_must_wait(s));
    s->n_scheduled = 0;
    s->draft_room = draft_room(s);
    s->draft_share = rt_step_cost_share(&s->cost, s->running.n);
    while (s->n_closing > 0 && rt_plan_add_close(w, s->closing[s->n_closing - 1]))
        s->free_slots[s->n_free_slots++] = s->closing[--s->n_closing];
    budget = plan_running(s, w, budget, DECODES);
    budget = plan_running(s, w, budget, PROMPTS);
    if (s->preemptions == preemptions)
        budget = plan_admissions(s, w, budget);
    advance(s);
    return s->opt.max_tokens - budget;
}

bool rt_sched_has_closes(const rt_sched *s)
{
    return s->n_closing > 0;
}

const rt_scheduled *rt_sched_scheduled(const rt_sched *s, int *n)
{
    *n = s->n_scheduled;
    return s->scheduled;
}

int rt_sched_running(const rt_sched *s)
{
    return s->running.n;
}

int rt_sched_waiting(const rt_sched *s)
{
    return s->waiting.n;
}

uint64_t rt_sched_preemptions(const rt_sched *s)
{
    return s->preemptions;
}

void rt_sched_prefix_counts(const rt_sched *s, uint64_t *queries, uint64_t *hits)
{
    *queries = s->prefix_queries;
    *hits = s->prefix_hits;
}

const rt_draft_counts *rt_sched_draft_counts(const rt_sched *s)
{
    return &s->drafts;
}

const rt_block_pool *rt_sched_pool(const rt_sched *s)
{
    return s->pool;
}

/* What is kept is what can be found. */
static void check_cache(const rt_sched *s)
{
    rt_block_pool_check(s->pool);
    if (s->cache == NULL)
        return;
    rt_prefix_cache_check(s->cache);
    for (int32_t id = 0; id < s->opt.n_blocks; id++)
        TP_ASSERT(rt_block_pool_is_kept(s->pool, id) == rt_prefix_cache_holds(s->cache, id));
}

void rt_sched_check(const rt_sched *s)
{
    int n_slots = 0, n_running = 0, n_waiting = 0;
    int64_t owned = 0;
    int32_t used = rt_block_pool_total(s->pool) - rt_block_pool_free_count(s->pool);

    for (const rt_seq *q = s->running.head; q != NULL; q = q->next, n_running++) {
        TP_ASSERT(q->state == RT_SEQ_RUNNING && q->slot >= 0 && s->slots[q->slot] == q);
        TP_ASSERT(q->n_blocks >= blocks_for(s, q->n_computed));
        TP_ASSERT(q->n_computed <= q->n_total && q->n_blocks_sent <= q->n_blocks);
        TP_ASSERT(q->n_known <= q->n_total);
        TP_ASSERT(q->n_named * s->opt.block_tokens + q->n_tail <= q->n_known);
        TP_ASSERT(q->n_scheduled == 0 && (q->n_total < q->n_total_max || !samples(q)));
        owned += q->n_blocks;
    }
    for (const rt_seq *q = s->waiting.head; q != NULL; q = q->next, n_waiting++)
        TP_ASSERT(q->state == RT_SEQ_WAITING && q->n_blocks == 0 && q->n_computed == 0);
    for (int i = 0; i < s->opt.n_slots; i++)
        n_slots += s->slots[i] != NULL;
    TP_ASSERT(n_running == s->running.n && n_waiting == s->waiting.n);
    TP_ASSERT(n_slots + s->n_free_slots + s->n_closing == s->opt.n_slots);
    TP_ASSERT(owned >= used); /* forks share blocks, so owners may outnumber blocks */
    TP_ASSERT(n_running > 0 || used == 0);
    check_cache(s);
}
