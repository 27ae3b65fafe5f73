/* SPDX-License-Identifier: Apache-2.0 */
/* sim_cache.c - the prefix cache from outside: a shadow of each block, by the texts that plans compute into it.
 *
 * The shadow knows contents, not names: a block is found when it holds the same tokens behind the same past under the same
 * salt.  What is found must be that, must be all of it that is there, and must not save a row that is wanted.  A full
 * block whose tokens are known can be found by others.  A block without references keeps its contents until no other
 * free block is left, and the one goes that was left alone for longest.
 */
#include "tests/sim/sim.h"

#define NAME       "request %lld.%d "
#define NAME_OF(c) (long long)(c)->request->id, (c)->index

static int32_t smaller(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static const rt_block_pool *pool_of(const sim *m)
{
    return rt_sched_pool(m->sched);
}

void sim_cache_look(sim *m)
{
    const rt_block_pool *pool = pool_of(m);

    m->n_looks++;
    m->idle_before = 0;
    for (int32_t id = 0; m->cfg.caching && id < m->cfg.sched.n_blocks; id++) {
        sim_shadow *s = &m->shadow[id];
        bool idle = rt_block_pool_is_idle(pool, id);

        if (idle && !s->idle)
            s->idle_since = m->n_looks;
        s->idle = idle;
        s->kept = rt_block_pool_is_kept(pool, id);
        m->idle_before += idle;
        SIM_CHECK(m, !s->kept || s->key != 0, "block %d can be found and is not full", id);
    }
}

/* A block that has held this text since before the plan and could be found all the time; -1 = none. */
static int32_t find(const sim *m, uint64_t key)
{
    for (int32_t id = 0; id < m->cfg.sched.n_blocks; id++)
        if (m->shadow[id].kept && m->shadow[id].key == key && !m->shadow[id].taken)
            return id;
    return -1;
}

static bool admitted(const sim_choice *c)
{
    return c->before.state == RT_SEQ_WAITING && c->seq.state != RT_SEQ_WAITING;
}

static int32_t first_position(const sim_choice *c)
{
    return c->before.scheduled ? c->before.start : c->seq.n_computed;
}

/* Forks take the blocks of a parent that has all of its prompt in the cache. */
static bool shares(const sim *m, const sim_choice *c)
{
    const sim_choice *p = c->seq.fork_of != NULL ? c->seq.fork_of->owner : NULL;

    if (p == NULL || c->before.n_total > c->seq.n_prompt || c->before.lp_start != INT32_MAX ||
        p->before.look != m->n_looks)
        return false;
    if (p->before.state == RT_SEQ_RUNNING)
        return p->before.n_computed >= c->seq.n_prompt;
    return admitted(p) && first_position(p) >= c->seq.n_prompt; /* in this very plan */
}

/* The blocks of a sequence after the plan; `last` ones have given them back already. */
static const int32_t *blocks_of(const sim_choice *c, int32_t *n)
{
    bool running = c->seq.state == RT_SEQ_RUNNING;

    *n = running ? c->seq.n_blocks : c->n_table;
    return running ? c->seq.blocks : c->table;
}

/* Blocks that a sequence has got from the pool in this plan. */
static int32_t mark_taken(sim *m, const sim_choice *c)
{
    int32_t n, tokens = m->cfg.sched.block_tokens;
    const int32_t *blocks = blocks_of(c, &n);
    int32_t first = admitted(c) ? first_position(c) / tokens : c->before.n_blocks;

    for (int32_t i = first; i < n; i++)
        m->shadow[blocks[i]].taken = true;
    return n - first;
}

static int32_t mark_all_taken(sim *m)
{
    int32_t n = 0;

    for (int32_t id = 0; id < m->cfg.sched.n_blocks; id++)
        m->shadow[id].taken = false;
    for (int i = 0; i < m->n_live; i++)
        if (m->live[i]->seq.state != RT_SEQ_WAITING)
            n += mark_taken(m, m->live[i]);
    return n;
}

/* What a sequence has found at its admission. */
static void check_found(sim *m, const sim_choice *c)
{
    int32_t tokens = m->cfg.sched.block_tokens, start = first_position(c), n;
    const int32_t *blocks = blocks_of(c, &n);
    int32_t most = smaller(c->n_seen, smaller(c->before.n_total - 1, c->before.lp_start)) / tokens;
    int32_t found = start / tokens;

    SIM_CHECK(m, start % tokens == 0 && found <= most, NAME "begins at %d, at most %d blocks of %d",
              NAME_OF(c), start, most, tokens);
    for (int32_t i = 0; i < found; i++) {
        const sim_shadow *s = &m->shadow[blocks[i]];

        SIM_CHECK(m, s->kept && s->key == c->keys[(i + 1) * tokens - 1],
                  NAME "finds block %d for its block %d, which is something else", NAME_OF(c),
                  blocks[i], i);
        m->totals.cached_answers += s->drawn && i == found - 1;
    }
    if (found < most)
        SIM_CHECK(m, find(m, c->keys[(found + 1) * tokens - 1]) < 0,
                  NAME "does not find block %d for its block %d", NAME_OF(c),
                  find(m, c->keys[(found + 1) * tokens - 1]), found);
    m->totals.cached_admissions += found > 0;
    m->totals.cached_again += found > 0 && c->seq.n_preempted > 0;
    m->totals.cached_tokens += start;
    if (c->seq.n_preempted > 0 || c->before.lp_start < c->seq.n_prompt)
        return;
    SIM_CHECK(m, c->seq.n_cached == start, NAME "says that %d tokens were found, %d were",
              NAME_OF(c), c->seq.n_cached, start);
    m->cache_queries += (uint64_t)c->seq.n_prompt;
    m->cache_hits += (uint64_t)start;
}

/* ---- what was thrown out ---- */

/* Whether b should have been thrown out before a: it was idle before a, or with it, from the same sequence, behind it. */
static bool should_go_first(const sim_shadow *b, const sim_shadow *a)
{
    if (!b->idle)
        return false;
    return b->idle_since < a->idle_since ||
           (b->idle_since == a->idle_since && b->holder == a->holder && a->holder > 0 &&
            b->holder_index > a->holder_index);
}

static void check_thrown_out(sim *m, int32_t n_taken, int n_preempted)
{
    int32_t unkept = m->free_before - m->idle_before, n_out = 0;

    for (int32_t id = 0; id < m->cfg.sched.n_blocks && n_taken > 0; id++) {
        sim_shadow *a = &m->shadow[id];

        if (!a->taken)
            continue;
        a->key = 0;
        if (!a->idle)
            continue;
        n_out++;
        for (int32_t other = 0; other < m->cfg.sched.n_blocks; other++)
            SIM_CHECK(
                m, m->holders[other].n > 0 || !should_go_first(&m->shadow[other], a),
                "block %d (idle since %lld, block %d of %lld) is thrown out, and block %d (%lld, %d "
                "of %lld) should have been first",
                id, (long long)a->idle_since, a->holder_index, (long long)a->holder, other,
                (long long)m->shadow[other].idle_since, m->shadow[other].holder_index,
                (long long)m->shadow[other].holder);
    }
    for (int32_t id = 0; id < m->cfg.sched.n_blocks; id++)
        if (m->shadow[id].taken)
            m->shadow[id].kept = false;
    m->totals.evictions += n_out;
    if (n_preempted == 0)
        SIM_CHECK(m, n_out == (n_taken > unkept ? n_taken - unkept : 0),
                  "%d blocks are taken, %d were free without contents, and %d are thrown out",
                  n_taken, unkept, n_out);
}

/* Who has a block alone, to know later from whom it came. */
static void note_holders(sim *m)
{
    for (int32_t id = 0; id < m->cfg.sched.n_blocks; id++) {
        const sim_holder *h = &m->holders[id];

        if (h->n == 0)
            continue;
        m->shadow[id].idle = false; /* if it is, then anew */
        m->shadow[id].holder =
            h->n > 1 ? 0 : h->choice->request->id * SIM_CHOICES_MAX + h->choice->index + 1;
        m->shadow[id].holder_index = h->index;
    }
}

/* ---- what is computed, and can be found ---- */

static void note_computed(sim *m, const sim_choice *c)
{
    int32_t tokens = m->cfg.sched.block_tokens;

    for (int32_t i = c->before.start / tokens; (i + 1) * tokens <= c->before.end; i++) {
        sim_shadow *s = &m->shadow[c->table[i]];

        s->key = c->keys[(i + 1) * tokens - 1];
        s->drawn = (i + 1) * tokens > c->seq.n_prompt;
    }
}

void sim_cache_came_true(sim *m, sim_choice *c)
{
    c->before.end++;
    if (m->cfg.caching)
        note_computed(m, c);
}

void sim_cache_check_plan(sim *m, int n_preempted)
{
    int32_t n_taken;

    if (!m->cfg.caching)
        return;
    n_taken = mark_all_taken(m);
    for (int i = 0; i < m->n_live; i++)
        if (admitted(m->live[i]) && !shares(m, m->live[i]))
            check_found(m, m->live[i]);
    check_thrown_out(m, n_taken, n_preempted);
    for (int i = 0; i < m->n_live; i++)
        if (m->live[i]->before.scheduled)
            note_computed(m, m->live[i]);
    note_holders(m);
}

static bool can_be_found(const sim *m, int32_t block, uint64_t key)
{
    if (rt_block_pool_is_kept(pool_of(m), block))
        return true;
    for (int32_t id = 0; id < m->cfg.sched.n_blocks; id++)
        if (m->shadow[id].key == key && rt_block_pool_is_kept(pool_of(m), id))
            return true;
    return false;
}

/* Once per block, of those who have been in a plan: it may lose its name later, when another with the same text had it. */
void sim_cache_check_offers(sim *m)
{
    for (int i = 0; i < m->n_open && m->cfg.caching; i++)
        for (int k = 0; k < m->open[i]->n; k++) {
            sim_choice *c = &m->open[i]->choices[k];
            int32_t tokens = m->cfg.sched.block_tokens;
            int32_t full = smaller(c->n_seen, c->seq.n_computed) / tokens;

            for (; c->n_table > 0 && c->seq.state == RT_SEQ_RUNNING && c->n_offered < full;
                 c->n_offered++)
                SIM_CHECK(m,
                          can_be_found(m, c->seq.blocks[c->n_offered],
                                       c->keys[(c->n_offered + 1) * tokens - 1]),
                          "nobody can find block %d of " NAME, c->n_offered, NAME_OF(c));
        }
}

void sim_cache_check_counts(sim *m)
{
    uint64_t queries, hits;

    rt_sched_prefix_counts(m->sched, &queries, &hits);
    SIM_CHECK(m, queries == m->cache_queries && hits == m->cache_hits,
              "%llu of %llu tokens were found by the counters, %llu of %llu by ours",
              (unsigned long long)hits, (unsigned long long)queries,
              (unsigned long long)m->cache_hits, (unsigned long long)m->cache_queries);
}
