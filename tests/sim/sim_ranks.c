/* SPDX-License-Identifier: Apache-2.0 */
/* sim_ranks.c - what ranks do with a plan, from its bytes alone.
 *
 * A rank keeps slots (history, block table) and a cache.  Where a real one has keys and values of a token, computed from
 * all tokens before it, this one has a number made of all tokens before it: two places hold the same number exactly when
 * they may stand for each other.  Attention then is a comparison: every position before a row must hold the row's own
 * past.  So a block that was stolen, shared too early, not copied or forgotten is noticed by whoever reads it.
 */
#include "tests/sim/sim.h"

#include <string.h>

static sim_slot *slot_at(sim *m, int32_t slot, bool open)
{
    SIM_CHECK(m, slot >= 0 && slot < m->cfg.sched.n_slots && m->ranks.slots[slot].open == open,
              "step %llu names slot %d, which is not %s", (unsigned long long)m->ranks.step, slot,
              open ? "open" : "free");
    return &m->ranks.slots[slot];
}

static sim_cell *block_at(sim *m, int32_t block)
{
    SIM_CHECK(m, block >= 0 && block < m->cfg.sched.n_blocks, "step %llu names block %d of %d",
              (unsigned long long)m->ranks.step, block, m->cfg.sched.n_blocks);
    return &m->ranks.cells[block * SIM_BLOCK_TOKENS];
}

static sim_cell *cell_at(sim *m, const sim_slot *s, int32_t p)
{
    int32_t tokens = m->cfg.sched.block_tokens;

    return block_at(m, s->table[p / tokens]) + p % tokens;
}

static void append(sim *m, sim_slot *s, int32_t token)
{
    uint64_t before = s->n_history > 0 ? s->keys[s->n_history - 1] : sim_first_key(s->salt);

    SIM_CHECK(m, s->n_history < m->cfg.len_max, "a text grows beyond %d tokens", m->cfg.len_max);
    s->history[s->n_history] = token;
    s->keys[s->n_history++] = sim_next_key(before, token);
}

static void open_slot(sim *m, const rt_plan_open_view *o)
{
    sim_slot *s = slot_at(m, o->head.slot, false);

    s->open = true;
    s->seed = o->head.params.seed;
    s->salt = (uint64_t)o->head.params.top_k;
    s->n_prompt = o->head.n_prompt;
    s->n_rows_wanted = o->head.params.n_prompt_logprobs;
    s->n_history = s->n_table = s->n_draft = 0;
    s->step = UINT64_MAX;
    for (int32_t i = 0; i < s->n_prompt; i++)
        append(m, s, o->prompt[i]);
}

static void apply_slots(sim *m, rt_plan_reader *r)
{
    for (uint32_t i = 0; i < r->header.n_close; i++)
        slot_at(m, r->closes[i], true)->open = false;
    for (uint32_t i = 0; i < r->header.n_copy; i++) {
        sim_cell *dst = block_at(m, r->copies[i].dst);

        SIM_CHECK(m, r->copies[i].dst != r->copies[i].src, "block %d is copied to itself",
                  r->copies[i].dst);
        memcpy(dst, block_at(m, r->copies[i].src), sizeof *dst * (size_t)m->cfg.sched.block_tokens);
    }
    for (uint32_t i = 0; i < r->header.n_open; i++) {
        rt_plan_open_view o;

        SIM_CHECK(m, rt_plan_read_open(r, &o) == TP_OK, "opening %u cannot be read", i);
        open_slot(m, &o);
    }
}

/* ---- a sequence's part of the forward pass: first all write, then all read ---- */

/* Stands behind the history for this step; what is drawn takes its place. */
static void lay_out_draft(sim *m, sim_slot *s, const rt_plan_seq *q, const int32_t *draft)
{
    int32_t n_history = s->n_history;

    SIM_CHECK(m, q->n_draft == 0 || q->start == n_history - 1, "slot %d: a draft at %d of %d",
              q->slot, q->start, n_history);
    for (int32_t i = 0; i < q->n_draft; i++)
        append(m, s, draft[i]);
    s->n_history = n_history;
    s->n_draft = q->n_draft;
}

static void write_seq(sim *m, const rt_plan_seq *q, const int32_t *blocks)
{
    sim_slot *s = slot_at(m, q->slot, true);
    int32_t end = q->start + q->n_new;

    SIM_CHECK(m, s->step != m->ranks.step, "slot %d is twice in a plan", q->slot);
    s->step = m->ranks.step;
    SIM_CHECK(m,
              q->table_keep >= 0 && q->table_keep <= s->n_table && q->n_blocks >= 0 &&
                  q->n_blocks <= m->cfg.len_max - q->table_keep,
              "slot %d: %d blocks behind %d of %d", q->slot, q->n_blocks, q->table_keep,
              s->n_table);
    memcpy(s->table + q->table_keep, blocks, sizeof *blocks * (size_t)q->n_blocks);
    s->n_table = q->table_keep + q->n_blocks;
    lay_out_draft(m, s, q, blocks + q->n_blocks);
    SIM_CHECK(m,
              q->start >= 0 && q->n_new > 0 && end <= s->n_history + s->n_draft &&
                  end <= s->n_table * m->cfg.sched.block_tokens,
              "slot %d: positions %d..%d of %d tokens in %d blocks", q->slot, q->start, end,
              s->n_history, s->n_table);
    for (int32_t p = q->start; p < end; p++) {
        sim_cell *c = cell_at(m, s, p);

        SIM_CHECK(m, c->step != m->ranks.step + 1 || c->key == s->keys[p],
                  "slot %d at position %d and another write block %d in one step", q->slot, p,
                  s->table[p / m->cfg.sched.block_tokens]);
        *c = (sim_cell){.key = s->keys[p], .step = m->ranks.step + 1, .writer = s->seed};
    }
}

static void read_seq(sim *m, const rt_plan_seq *q)
{
    const sim_slot *s = &m->ranks.slots[q->slot];

    for (int32_t p = 0; p < q->start + q->n_new; p++) {
        const sim_cell *c = cell_at(m, s, p);

        SIM_CHECK(m, c->key == s->keys[p],
                  "slot %d computes position %d and finds something else at position %d: block %d, "
                  "written in step %llu by a sequence of seed %llx",
                  q->slot, q->start, p, s->table[p / m->cfg.sched.block_tokens],
                  (unsigned long long)c->step - 1, (unsigned long long)c->writer);
    }
}

static void add_result(sim *m, rt_step *s, int32_t slot, int32_t token, bool is_prompt)
{
    SIM_CHECK(m, s->n_results < m->pipe.results_max, "more than %d results", m->pipe.results_max);
    s->results[s->n_results++] =
        (rt_step_result){.slot = slot, .token = token, .is_prompt = is_prompt};
}

static void sample_seq(sim *m, rt_step *step, const rt_plan_seq *q, const int32_t *draft)
{
    sim_slot *s = &m->ranks.slots[q->slot];
    int32_t end = q->start + q->n_new - q->n_draft;
    int i = 0;

    for (int32_t p = q->start; p < end; p++)
        if (p >= q->lp_start && p + 1 < s->n_prompt && s->n_rows_wanted >= 0)
            add_result(m, step, q->slot, s->history[p + 1], true);
    if ((q->flags & RT_SEQ_SAMPLE) == 0)
        return;
    SIM_CHECK(m, end == s->n_history, "slot %d draws a token at %d of %d", q->slot, end,
              s->n_history);
    do {
        append(m, s, sim_draw(cell_at(m, s, end + i - 1)->key, s->seed));
        add_result(m, step, q->slot, s->history[end + i], false);
    } while (i < q->n_draft && s->history[end + i] == draft[i] && ++i > 0);
}

void sim_ranks_execute(sim *m, rt_step *s)
{
    rt_plan_reader r, again;
    const int32_t *blocks;
    rt_plan_seq q;
    int n_tokens = 0;

    s->n_results = 0;
    SIM_CHECK(m, rt_plan_open_reader(&r, s->plan, s->plan_bytes) == TP_OK, "a plan is damaged");
    SIM_CHECK(m, r.header.step == m->ranks.step, "step %llu comes after step %llu",
              (unsigned long long)r.header.step, (unsigned long long)m->ranks.step - 1);
    apply_slots(m, &r);
    again = r;
    for (uint32_t i = 0; i < r.header.n_seq; i++) {
        SIM_CHECK(m, rt_plan_read_seq(&r, &q, &blocks) == TP_OK, "sequence %u is damaged", i);
        write_seq(m, &q, blocks);
        n_tokens += q.n_new;
    }
    SIM_CHECK(m, r.at == r.len, "%zu bytes behind the plan's end", r.len - r.at);
    SIM_CHECK(m, n_tokens == s->n_tokens && n_tokens <= m->cfg.sched.max_tokens,
              "a step of %d tokens, %d were planned", n_tokens, s->n_tokens);
    for (int pass = 0; pass < 2; pass++) {
        rt_plan_reader seqs = again;

        for (uint32_t i = 0; i < r.header.n_seq; i++) {
            SIM_CHECK(m, rt_plan_read_seq(&seqs, &q, &blocks) == TP_OK, "sequence %u", i);
            if (pass == 0)
                read_seq(m, &q);
            else
                sample_seq(m, s, &q, blocks + q.n_blocks);
        }
    }
    m->ranks.step++;
    m->ranks.stopped = (r.header.flags & RT_PLAN_STOP) != 0;
}
