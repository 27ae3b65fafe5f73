/* SPDX-License-Identifier: Apache-2.0 */
/* test_sched.c - the scheduler against a model of the ranks.
 *
 * Every plan is decoded and applied to `ranks`, which keeps what a rank keeps: open slots, block tables, and for each
 * place of each block the key that lies in it.  A key depends on the salt and on all tokens up to its own.  A plan that
 * reads a key that nobody has computed, or another than it should, or that computes over another sequence's block, is
 * caught there.
 *
 * A step's results come back when `ahead` further plans have been made, as in the engine: 0 without overlap, 1 with it.
 * A sequence may end before n_total_max; only the results tell.
 */
#include "tests/unit/base/base_testing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "runtime/sched/sched.h"

#define BLOCK      16
#define SLOTS      8
#define SEQS       24
#define LEN_MAX    160
#define BLOCKS_MAX (LEN_MAX / BLOCK)
#define POOL_MAX   64
#define AHEAD_MAX  3

typedef struct test_seq {
    rt_seq q;
    int32_t blocks[BLOCKS_MAX + 1];
    int32_t tokens[LEN_MAX + 1]; /* the prompt, and what will be drawn */
    uint64_t keys[LEN_MAX + 1];  /* of each */
    rt_block_name names[BLOCKS_MAX + 2];
    int32_t tail[BLOCK];
    int32_t prompt_seed, own, salt;
    int32_t stop_at; /* total tokens at which it ends: n_total_max, or before */
    int32_t n_seen;  /* tokens that the results have shown */
    bool over;       /* they have shown its end, or it was cancelled */
} test_seq;

/* A step under way. */
typedef struct test_step {
    rt_scheduled seqs[SLOTS];
    int32_t own[SLOTS]; /* of each: the test_seq may be in use again by then */
    int n;
} test_step;

typedef struct rank_slot {
    bool open;
    int32_t table[BLOCKS_MAX + 1];
    int32_t n_table;
} rank_slot;

typedef struct fixture {
    rt_sched *s;
    rt_sched_options opt;
    rt_plan_writer w;
    rank_slot slots[SLOTS];
    uint64_t cache[POOL_MAX][BLOCK];
    rt_block_namer namer;
    test_seq seqs[SEQS];
    int32_t next_own;
    int n_sampled; /* in the last plan */
    int ahead;
    test_step steps[AHEAD_MAX + 1];
    int64_t n_made, n_back; /* steps */
    int64_t n_wasted;       /* results that nobody waited for */
} fixture;

static fixture g;

static int g_ahead;  /* of the tests that begin */
static bool g_named; /* their sequences take part in the prefix cache */

static void start(int32_t n_blocks, int max_tokens, double watermark)
{
    memset(&g, 0, sizeof g);
    g.ahead = g_ahead;
    g.opt = (rt_sched_options){.n_slots = SLOTS,
                               .max_tokens = max_tokens,
                               .block_tokens = BLOCK,
                               .n_blocks = n_blocks,
                               .watermark = watermark,
                               .namer = g_named ? &g.namer : NULL};
    rt_block_namer_init(&g.namer, BLOCK);
    assert_int_equal(rt_sched_create(&g.s, &g.opt), TP_OK);
    assert_int_equal(rt_plan_writer_init(&g.w, 65536, SLOTS), TP_OK);
}

static void stop(void)
{
    rt_sched_destroy(g.s);
    rt_plan_writer_release(&g.w);
}

/* What its tokens and the salt make of a sequence: keys, and for the prompt names. */
static void derive(test_seq *t, int32_t n_prompt)
{
    uint64_t key = tp_hash_fnv(&t->salt, sizeof t->salt);
    rt_seq *q = &t->q;

    for (int32_t pos = 0; pos <= LEN_MAX; pos++) {
        key = (key ^ (uint32_t)t->tokens[pos]) * UINT64_C(0x100000001b3) + (uint64_t)pos;
        t->keys[pos] = key;
    }
    if (!g_named)
        return;
    q->names = t->names;
    q->tail = t->tail;
    q->n_named = n_prompt / BLOCK;
    q->n_tail = n_prompt % BLOCK;
    t->names[0] = rt_block_namer_root(&g.namer, &t->salt, sizeof t->salt);
    for (int32_t i = 0; i < q->n_named; i++)
        t->names[i + 1] =
            rt_block_namer_next(&g.namer, &t->names[i], t->tokens + (size_t)i * BLOCK);
    memcpy(t->tail, t->tokens + (size_t)q->n_named * BLOCK, sizeof *t->tail * (size_t)q->n_tail);
}

/* A sequence whose prompt is the beginning of the text `seed`; what is drawn is its own. */
static test_seq *add_prompt(int i, int32_t seed, int32_t salt, int32_t n_prompt, int32_t n_generate,
                            test_seq *fork_of)
{
    test_seq *t = &g.seqs[i];

    memset(t, 0, sizeof *t);
    t->own = ++g.next_own;
    t->prompt_seed = seed;
    t->salt = salt;
    for (int32_t pos = 0; pos <= LEN_MAX; pos++)
        t->tokens[pos] = pos < n_prompt ? seed * 1000 + pos : -(t->own * 1000 + pos);
    t->stop_at = n_prompt + n_generate;
    t->n_seen = n_prompt;
    t->q = (rt_seq){.open = {.head = {.n_prompt = n_prompt}, .prompt = t->tokens},
                    .n_prompt = n_prompt,
                    .lp_start = INT32_MAX,
                    .n_new_max = INT32_MAX,
                    .n_total_max = t->stop_at,
                    .fork_of = fork_of != NULL ? &fork_of->q : NULL,
                    .blocks = t->blocks,
                    .owner = t};
    derive(t, n_prompt);
    rt_sched_add(g.s, &t->q);
    return t;
}

/* One with a prompt that no other has, but for its forks. */
static test_seq *add(int i, int32_t n_prompt, int32_t n_generate, test_seq *fork_of)
{
    return add_prompt(i, fork_of != NULL ? fork_of->prompt_seed : 1000 + g.next_own,
                      fork_of != NULL ? fork_of->salt : 0, n_prompt, n_generate, fork_of);
}

/* One that could have gone on for `more` tokens. */
static test_seq *add_stopping(int i, int32_t n_prompt, int32_t n_generate, int32_t more)
{
    test_seq *t = add(i, n_prompt, n_generate, NULL);

    t->q.n_total_max += more;
    return t;
}

/* Plan and scheduler name the same sequences in the same order. */
static const rt_scheduled *scheduled_at(uint32_t i, const rt_plan_seq *p)
{
    int n;
    const rt_scheduled *all = rt_sched_scheduled(g.s, &n);

    assert_in_range(i, 0, n - 1);
    assert_int_equal(all[i].slot, p->slot);
    assert_int_equal(all[i].n_new, p->n_new);
    assert_int_equal(all[i].sampled, (p->flags & RT_SEQ_SAMPLE) != 0);
    return &all[i];
}

static void apply_seq(const test_seq *t, const rt_plan_seq *p, const int32_t *blocks)
{
    rank_slot *slot = &g.slots[p->slot];

    assert_true(slot->open && p->table_keep <= slot->n_table && p->n_new > 0);
    assert_true(p->table_keep + p->n_blocks <= BLOCKS_MAX + 1);
    memcpy(slot->table + p->table_keep, blocks, sizeof *blocks * (size_t)p->n_blocks);
    slot->n_table = p->table_keep + p->n_blocks;
    assert_true(p->start + p->n_new <= slot->n_table * BLOCK);
    for (int32_t pos = p->start; pos < p->start + p->n_new; pos++)
        g.cache[slot->table[pos / BLOCK]][pos % BLOCK] = t->keys[pos];
    g.n_sampled += (p->flags & RT_SEQ_SAMPLE) != 0;
}

/* Attention of a sequence reads all its positions: they must hold its own keys, after everybody has written. */
static void check_reads(const test_seq *t, const rt_plan_seq *p)
{
    const rank_slot *slot = &g.slots[p->slot];

    for (int32_t pos = 0; pos < p->start + p->n_new; pos++)
        if (g.cache[slot->table[pos / BLOCK]][pos % BLOCK] != t->keys[pos])
            fail_msg("sequence %d reads position %d of another", t->own, pos);
}

static void apply_plan(const uint8_t *plan, size_t bytes)
{
    rt_plan_reader r, again;
    const int32_t *blocks;
    rt_plan_seq q;

    assert_int_equal(rt_plan_open_reader(&r, plan, bytes), TP_OK);
    for (uint32_t i = 0; i < r.header.n_close; i++) {
        assert_true(g.slots[r.closes[i]].open);
        g.slots[r.closes[i]].open = false;
    }
    for (uint32_t i = 0; i < r.header.n_copy; i++)
        memcpy(g.cache[r.copies[i].dst], g.cache[r.copies[i].src], sizeof g.cache[0]);
    for (uint32_t i = 0; i < r.header.n_open; i++) {
        rt_plan_open_view o;

        assert_int_equal(rt_plan_read_open(&r, &o), TP_OK);
        assert_false(g.slots[o.head.slot].open);
        g.slots[o.head.slot] = (rank_slot){.open = true};
    }
    again = r;
    for (uint32_t i = 0; i < r.header.n_seq; i++) {
        assert_int_equal(rt_plan_read_seq(&r, &q, &blocks), TP_OK);
        apply_seq(scheduled_at(i, &q)->seq->owner, &q, blocks);
    }
    for (uint32_t i = 0; i < r.header.n_seq; i++) {
        assert_int_equal(rt_plan_read_seq(&again, &q, &blocks), TP_OK);
        check_reads(scheduled_at(i, &q)->seq->owner, &q);
    }
}

/* The results of the oldest step. */
static void take_results(void)
{
    const test_step *st = &g.steps[g.n_back++ % (AHEAD_MAX + 1)];

    for (int i = 0; i < st->n; i++) {
        const rt_scheduled *p = &st->seqs[i];
        test_seq *t = p->seq->owner;

        if (t->own != st->own[i] || t->over) {
            g.n_wasted++;
            continue;
        }
        if (p->sampled)
            rt_sched_learn(g.s, p->seq, t->tokens[t->n_seen++]);
        t->over = p->sampled ? t->n_seen == t->stop_at : p->last;
        assert_true(t->over || !p->last);
        if (t->over)
            rt_sched_finish(g.s, p->seq);
    }
    rt_sched_check(g.s);
}

static void note_step(void)
{
    test_step *st = &g.steps[g.n_made++ % (AHEAD_MAX + 1)];
    const rt_scheduled *all = rt_sched_scheduled(g.s, &st->n);
    int n_sampled = 0;

    memcpy(st->seqs, all, sizeof *all * (size_t)st->n);
    for (int i = 0; i < st->n; i++) {
        st->own[i] = ((const test_seq *)all[i].seq->owner)->own;
        n_sampled += all[i].sampled;
    }
    assert_int_equal(n_sampled, g.n_sampled);
}

/* One step as the engine does it; returns the tokens planned. */
static int step(void)
{
    int n_tokens;
    size_t bytes;

    g.n_sampled = 0;
    rt_plan_begin(&g.w, 0, 0);
    n_tokens = rt_sched_plan(g.s, &g.w);
    assert_in_range(n_tokens, 0, g.opt.max_tokens);
    if (!rt_plan_is_empty(&g.w)) {
        const uint8_t *plan = rt_plan_finish(&g.w, &bytes);

        apply_plan(plan, bytes);
    }
    rt_sched_check(g.s);
    note_step();
    while (g.n_made - g.n_back > (n_tokens > 0 ? g.ahead : 0))
        take_results();
    return n_tokens;
}

static int32_t used_blocks(void)
{
    const rt_block_pool *p = rt_sched_pool(g.s);

    return rt_block_pool_total(p) - rt_block_pool_free_count(p);
}

/* ---- cases ---- */

static void test_prompt_is_cut_to_the_budget(void **state)
{
    (void)state;
    start(16, 32, 0);
    add(0, 70, 3, NULL);
    assert_int_equal(step(), 32);
    assert_int_equal(g.n_sampled, 0);
    assert_int_equal(step(), 32);
    assert_int_equal(step(), 6);
    assert_int_equal(g.n_sampled, 1);
    assert_int_equal(step(), 1);
    assert_int_equal(step(), 1); /* the third token ends it */
    assert_int_equal(g.seqs[0].q.state, RT_SEQ_FINISHED);
    assert_int_equal(used_blocks(), 0);
    assert_true(rt_sched_has_closes(g.s));
    assert_int_equal(step(), 0);
    assert_false(rt_sched_has_closes(g.s));
    stop();
}

static void test_decodes_go_first(void **state)
{
    (void)state;
    start(32, 20, 0);
    add(0, 4, 20, NULL);
    step();
    add(1, 100, 2, NULL);
    assert_int_equal(step(), 20);
    assert_int_equal(g.seqs[0].q.n_computed, 5); /* its decode, and */
    assert_int_equal(g.seqs[1].q.n_computed, 19);
    stop();
}

static void test_admission_leaves_the_watermark(void **state)
{
    (void)state;
    start(10, 256, 0.3);
    add(0, 60, 5, NULL); /* 4 blocks */
    add(1, 60, 5, NULL); /* 4 more would leave 2 of 3 */
    step();
    assert_int_equal(g.seqs[0].q.state, RT_SEQ_RUNNING);
    assert_int_equal(g.seqs[1].q.state, RT_SEQ_WAITING);
    while (g.seqs[0].q.state == RT_SEQ_RUNNING)
        step();
    step();
    assert_int_equal(g.seqs[1].q.state, RT_SEQ_RUNNING);
    stop();
}

static void test_whole_cache_for_one(void **state)
{
    (void)state;
    start(4, 256, 0.5);
    add(0, 64, 0, NULL); /* fills every block; samples nothing */
    assert_int_equal(step(), 64);
    assert_int_equal(g.seqs[0].q.state, RT_SEQ_FINISHED);
    add(1, 63, 1, NULL);
    assert_int_equal(step(), 63);
    assert_int_equal(g.seqs[1].q.state, RT_SEQ_FINISHED);
    stop();
}

static void test_youngest_is_preempted_and_computed_again(void **state)
{
    (void)state;
    start(6, 256, 0);
    add(0, 30, 60, NULL);
    add(1, 30, 60, NULL);
    while (rt_sched_preemptions(g.s) == 0)
        step();
    assert_int_equal(g.seqs[0].q.state, RT_SEQ_RUNNING);
    assert_int_equal(g.seqs[0].q.n_preempted, 0);
    assert_int_equal(g.seqs[1].q.state, RT_SEQ_WAITING);
    assert_true(g.seqs[1].q.slot >= 0); /* the ranks keep its tokens */
    for (int i = 0; i < 1000 && g.seqs[1].q.state != RT_SEQ_FINISHED; i++)
        step();
    assert_int_equal(g.seqs[1].q.state, RT_SEQ_FINISHED);
    assert_int_equal(g.seqs[1].q.n_total, 90);
    assert_int_equal(used_blocks(), 0);
    stop();
}

static void test_forks_share_whole_blocks(void **state)
{
    test_seq *parent;

    (void)state;
    start(20, 256, 0);
    parent = add(0, 40, 20, NULL);
    add(1, 40, 20, parent);
    add(2, 40, 20, parent);
    assert_int_equal(step(), 40); /* the parent alone */
    assert_int_equal(used_blocks(), 3);
    assert_int_equal(step(), 3); /* its decode, and the last prompt token of each fork */
    assert_int_equal(g.seqs[1].blocks[0], parent->blocks[0]);
    assert_int_equal(g.seqs[1].blocks[1], parent->blocks[1]);
    assert_int_not_equal(g.seqs[1].blocks[2], parent->blocks[2]);
    assert_int_equal(used_blocks(), 5);
    while (g.seqs[2].q.state != RT_SEQ_FINISHED)
        step();
    assert_int_equal(used_blocks(), 0);
    stop();
}

static void test_fork_of_a_parent_that_ended_starts_alone(void **state)
{
    test_seq *parent;

    (void)state;
    start(20, 256, 0);
    parent = add(0, 40, 1, NULL);
    add(1, 40, 5, parent);
    step();
    assert_int_equal(parent->q.state, RT_SEQ_FINISHED);
    assert_int_equal(step(), 40);
    stop();
}

static void test_finish_in_any_state(void **state)
{
    (void)state;
    start(6, 16, 0);
    add(0, 50, 5, NULL);
    add(1, 90, 5, NULL); /* waits */
    rt_sched_finish(g.s, &g.seqs[1].q);
    step();
    rt_sched_finish(g.s, &g.seqs[0].q); /* in the middle of its prompt */
    rt_sched_check(g.s);
    assert_int_equal(used_blocks(), 0);
    step();
    for (int i = 0; i < SLOTS; i++)
        assert_false(g.slots[i].open);
    stop();
}

static void test_paused_sequences_wait(void **state)
{
    (void)state;
    start(20, 64, 0);
    add(0, 10, 10, NULL);
    add(1, 10, 10, NULL);
    step();
    g.seqs[0].q.n_new_max = 0;
    assert_int_equal(step(), 1);
    g.seqs[1].q.n_new_max = 0;
    assert_int_equal(step(), 0);
    g.seqs[0].q.n_new_max = g.seqs[1].q.n_new_max = 1;
    assert_int_equal(step(), 2);
    stop();
}

static void test_full_plan_continues_in_the_next(void **state)
{
    (void)state;
    start(40, 256, 0);
    rt_plan_writer_release(&g.w);
    assert_int_equal(rt_plan_writer_init(&g.w, 600, SLOTS), TP_OK);
    for (int i = 0; i < 6; i++)
        add(i, 40, 3, NULL); /* an opening takes 232 bytes: one per plan */
    for (int i = 0; i < 40; i++)
        step();
    for (int i = 0; i < 6; i++)
        assert_int_equal(g.seqs[i].q.state, RT_SEQ_FINISHED);
    stop();
}

/* ---- planning ahead ---- */

/* max_tokens is known when the last row is planned: not one row too many. */
static void test_known_end_costs_nothing(void **state)
{
    (void)state;
    g_ahead = 1;
    start(16, 64, 0);
    add(0, 10, 3, NULL);
    assert_int_equal(step(), 10);
    assert_int_equal(step(), 1);
    assert_int_equal(g.seqs[0].n_seen, 11); /* of the step before */
    assert_int_equal(step(), 1);
    assert_int_equal(g.seqs[0].q.state, RT_SEQ_FINISHED);
    assert_false(g.seqs[0].over);
    assert_int_equal(used_blocks(), 0);
    assert_int_equal(step(), 0);
    assert_true(g.seqs[0].over);
    assert_int_equal(g.n_wasted, 0);
    stop();
    g_ahead = 0;
}

static void test_unforeseen_end_costs_one_row(void **state)
{
    (void)state;
    g_ahead = 1;
    start(16, 64, 0);
    add_stopping(0, 10, 3, 50);
    for (int i = 0; i < 3; i++)
        step();
    assert_int_equal(g.seqs[0].n_seen, 12);
    assert_int_equal(step(), 1); /* the third token arrives when the fourth has been planned */
    assert_true(g.seqs[0].over);
    assert_int_equal(used_blocks(), 0);
    assert_int_equal(step(), 0);
    assert_int_equal(g.n_wasted, 1);
    assert_false(g.slots[0].open);
    stop();
    g_ahead = 0;
}

/* A prompt alone has its end in its last chunk. */
static void test_prefill_alone_ends_with_its_last_chunk(void **state)
{
    (void)state;
    g_ahead = 1;
    start(16, 32, 0);
    add(0, 40, 0, NULL);
    assert_int_equal(step(), 32);
    assert_int_equal(step(), 8);
    assert_false(g.seqs[0].over);
    assert_int_equal(step(), 0);
    assert_true(g.seqs[0].over);
    assert_int_equal(g.n_wasted, 0);
    stop();
    g_ahead = 0;
}

/* The results of a step name its own sequences, although another has got the slot and the blocks. */
static void test_slot_changes_hands_while_a_step_is_under_way(void **state)
{
    (void)state;
    g_ahead = 1;
    start(2, 64, 0);
    add(0, 30, 1, NULL);
    add(1, 30, 2, NULL); /* no block is left for it */
    assert_int_equal(step(), 30);
    assert_false(g.seqs[0].over);
    assert_int_equal(step(), 30);
    assert_int_equal(g.seqs[1].q.slot, 0);
    assert_true(g.seqs[0].over);
    assert_int_equal(g.seqs[1].n_seen, 30);
    step();
    step();
    assert_true(g.seqs[1].over);
    assert_int_equal(g.n_wasted, 0);
    stop();
    g_ahead = 0;
}

/* It gives its blocks back while its newest token is not known, and ends by that token. */
static void test_preempted_with_its_last_token_under_way(void **state)
{
    (void)state;
    g_ahead = 1;
    start(4, 256, 0);
    add(0, 31, 20, NULL);
    add_stopping(1, 31, 2, 20);
    step();
    step(); /* position 31: both blocks are full */
    assert_int_equal(step(), 1);
    assert_int_equal(g.seqs[1].q.n_preempted, 1);
    assert_true(g.seqs[1].over);
    assert_int_equal(g.seqs[1].q.state, RT_SEQ_FINISHED);
    while (!g.seqs[0].over)
        step();
    assert_int_equal(used_blocks(), 0);
    stop();
    g_ahead = 0;
}

/* ---- prefix cache ---- */

static void run_until_over(const test_seq *t)
{
    for (int i = 0; !t->over; i++) {
        assert_true(i < 1000);
        step();
    }
}

static uint64_t hits(void)
{
    uint64_t queries, found;

    rt_sched_prefix_counts(g.s, &queries, &found);
    assert_true(found <= queries);
    return found;
}

static void test_second_prompt_begins_behind_the_first(void **state)
{
    (void)state;
    g_named = true;
    start(20, 256, 0);
    add_prompt(0, 7, 0, 70, 3, NULL);
    run_until_over(&g.seqs[0]);
    assert_int_equal(used_blocks(), 0);
    add_prompt(1, 7, 0, 90, 3, NULL);
    assert_int_equal(step(), 90 - 64); /* four blocks of 16 */
    assert_int_equal(g.seqs[1].q.n_cached, 64);
    assert_int_equal(hits(), 64);
    add_prompt(2, 7, 0, 80, 3, NULL); /* five blocks are there, and the last token is computed */
    assert_int_equal(step(), 1 + 16);
    assert_int_equal(g.seqs[2].q.n_cached, 64);
    assert_int_equal(g.seqs[2].blocks[3], g.seqs[1].blocks[3]);
    run_until_over(&g.seqs[2]);
    assert_int_equal(used_blocks(), 0);
    stop();
    g_named = false;
}

static void test_salts_do_not_meet(void **state)
{
    (void)state;
    g_named = true;
    start(20, 256, 0);
    for (int i = 0; i < 3; i++) {
        add_prompt(i, 7, i, 70, 3, NULL);
        assert_int_equal(step(), 70);
        run_until_over(&g.seqs[i]);
    }
    add_prompt(3, 7, 1, 70, 3, NULL);
    assert_int_equal(step(), 70 - 64);
    stop();
    g_named = false;
}

/* A conversation: the next prompt begins with this one and its answer. */
static void test_answers_are_found_too(void **state)
{
    (void)state;
    g_named = true;
    for (int ahead = 0; ahead < 2; ahead++) {
        g_ahead = ahead;
        start(20, 256, 0);
        add_stopping(0, 40, 30, 20);
        run_until_over(&g.seqs[0]);
        add_prompt(1, 7, 0, 100, 3, NULL);
        for (int32_t pos = 0; pos < 70; pos++)
            g.seqs[1].tokens[pos] = g.seqs[0].tokens[pos];
        derive(&g.seqs[1], 100);
        assert_int_equal(step(), 100 - 64);
        stop();
    }
    g_ahead = 0;
    g_named = false;
}

static void test_oldest_blocks_are_given_up(void **state)
{
    (void)state;
    g_named = true;
    start(8, 256, 0);
    add_prompt(0, 1, 0, 49, 1, NULL); /* keeps three blocks */
    run_until_over(&g.seqs[0]);
    add_prompt(1, 2, 0, 49, 1, NULL);
    run_until_over(&g.seqs[1]);
    assert_int_equal(used_blocks(), 0);
    add_prompt(2, 3, 0, 49, 1, NULL); /* two blocks were free: the end of the first prompt goes */
    run_until_over(&g.seqs[2]);
    add_prompt(3, 2, 0, 49, 1, NULL);
    assert_int_equal(step(), 1);
    run_until_over(&g.seqs[3]);
    add_prompt(4, 1, 0, 49, 1, NULL);
    assert_int_equal(step(), 49 - 16);
    stop();
    g_named = false;
}

static void test_preempted_finds_its_own_blocks(void **state)
{
    rt_seq *q;

    (void)state;
    g_named = true;
    start(6, 256, 0);
    add(0, 30, 40, NULL);
    q = &add(1, 30, 40, NULL)->q;
    while (rt_sched_preemptions(g.s) == 0)
        step();
    assert_int_equal(q->state, RT_SEQ_WAITING);
    rt_sched_finish(g.s, &g.seqs[0].q); /* it had taken one of the three */
    step();
    assert_int_equal(q->state, RT_SEQ_RUNNING);
    assert_int_equal(q->n_computed, q->n_total - 1); /* its row has yielded one more */
    assert_int_equal(q->n_cached, 0);                /* of the prompt, when it came */
    assert_int_equal(q->n_offered, 3);
    run_until_over(&g.seqs[1]);
    assert_int_equal(used_blocks(), 0);
    stop();
    g_named = false;
}

static void test_prompt_logprobs_are_computed(void **state)
{
    (void)state;
    g_named = true;
    start(20, 256, 0);
    add_prompt(0, 7, 0, 70, 3, NULL);
    run_until_over(&g.seqs[0]);
    add_prompt(1, 7, 0, 70, 3, NULL)->q.lp_start = 0;
    assert_int_equal(step(), 70);
    assert_int_equal(hits(), 0);
    run_until_over(&g.seqs[1]);
    add_prompt(2, 7, 0, 70, 3, NULL)->q.lp_start = 40; /* rows before it are not wanted any more */
    assert_int_equal(step(), 70 - 32);
    stop();
    g_named = false;
}

static void test_full_cache_admits_by_what_is_missing(void **state)
{
    (void)state;
    g_named = true;
    start(8, 256, 0);
    add_prompt(0, 7, 0, 65, 40, NULL); /* five blocks */
    step();
    add_prompt(1, 7, 0, 66, 10, NULL); /* one of its five is missing */
    assert_int_equal(step(), 1 + 2);
    add_prompt(2, 8, 0, 66, 10, NULL);
    assert_int_equal(step(), 2);
    assert_int_equal(g.seqs[2].q.state, RT_SEQ_WAITING);
    stop();
    g_named = false;
}

/* ---- random ---- */

static uint64_t g_random;

static uint32_t below(uint32_t n)
{
    g_random ^= g_random << 13;
    g_random ^= g_random >> 7;
    g_random ^= g_random << 17;
    return (uint32_t)((g_random >> 11) % n);
}

static bool is_free(int i)
{
    rt_seq_state st = g.seqs[i].q.state;

    if (st != RT_SEQ_NEW && st != RT_SEQ_FINISHED)
        return false;
    for (int j = 0; j < SEQS; j++) /* a parent outlives its forks, as choices of one request do */
        if (g.seqs[j].q.fork_of == &g.seqs[i].q && g.seqs[j].q.state != RT_SEQ_FINISHED)
            return false;
    return true;
}

static void arrive(void)
{
    int32_t pool = g.opt.n_blocks * BLOCK, most = pool < LEN_MAX ? pool : LEN_MAX;
    int32_t n_prompt = 1 + (int32_t)below((uint32_t)most - 1);
    int32_t n_gen = (int32_t)below((uint32_t)(most - n_prompt) + 1),
            choices = 1 + (int32_t)below(4);
    test_seq *parent = NULL;

    for (int i = 0; i < SEQS && choices > 0; i++) {
        if (!is_free(i))
            continue;
        if (parent == NULL)
            parent = add_prompt(i, 1 + (int32_t)below(4), (int32_t)below(2), n_prompt, n_gen, NULL);
        else
            add(i, n_prompt, n_gen, parent);
        if (n_gen > 1 && below(2) == 0) /* it stops before */
            g.seqs[i].stop_at -= (int32_t)below((uint32_t)n_gen);
        choices--;
    }
}

static void disturb(void)
{
    test_seq *t = &g.seqs[below(SEQS)];
    rt_seq *q = &t->q;

    if (q->state != RT_SEQ_WAITING && q->state != RT_SEQ_RUNNING)
        return;
    switch (below(4)) {
    case 0:
        rt_sched_finish(g.s, q);
        t->over = true;
        break;
    case 1: q->n_new_max = 0; break;
    case 2: q->n_new_max = 1 + (int32_t)below(20); break;
    default: q->n_new_max = INT32_MAX; break;
    }
}

static void run_random(uint64_t seed, int steps)
{
    int64_t computed = 0;
    int idle = 0;

    g_random = seed * 2654435761u + 1;
    g_ahead = (int)(seed % (AHEAD_MAX + 1));
    g_named = seed % 3 != 0;
    start(4 + (int32_t)below(POOL_MAX - 4), SLOTS + (int)below(200), below(2) * 0.1);
    for (int i = 0; i < steps; i++) {
        int n;

        if (below(3) == 0)
            arrive();
        if (below(4) == 0)
            disturb();
        n = step();
        computed += n;
        idle = n == 0 ? idle + 1 : 0;
        if (idle > 20) /* everyone is paused: readers come back */
            for (int j = 0; j < SEQS; j++)
                g.seqs[j].q.n_new_max = INT32_MAX;
        assert_true(idle < 40);
    }
    for (int j = 0; j < SEQS; j++)
        g.seqs[j].q.n_new_max = INT32_MAX;
    for (int i = 0; rt_sched_running(g.s) + rt_sched_waiting(g.s) > 0; i++) {
        assert_true(i < 100000);
        step();
    }
    assert_int_equal(used_blocks(), 0);
    while (step() > 0 || g.n_back < g.n_made)
        ;
    assert_int_equal(used_blocks(), 0);
    for (int i = 0; i < SLOTS; i++)
        assert_false(g.slots[i].open);
    print_message(
        "    seed %llu: %d ahead, %d blocks, budget %d, %d steps, %lld tokens, %llu found in the "
        "cache, %lld parts of steps for nothing, %llu preemptions\n",
        (unsigned long long)seed, g.ahead, g.opt.n_blocks, g.opt.max_tokens, steps,
        (long long)computed, (unsigned long long)hits(), (long long)g.n_wasted,
        (unsigned long long)rt_sched_preemptions(g.s));
    assert_int_equal(hits() > 0, g_named);
    stop();
    g_ahead = 0;
    g_named = false;
}

/* TPSERVE_TEST_SEED repeats one run. */
static void test_random(void **state)
{
    const char *given = getenv("TPSERVE_TEST_SEED");

    (void)state;
    if (given != NULL) {
        run_random(strtoull(given, NULL, 10), 100000);
        return;
    }
    for (uint64_t seed = 1; seed <= 20; seed++) {
        print_message("    seed %llu\n", (unsigned long long)seed);
        run_random(seed, 5000);
    }
}

static void test_create_fails_cleanly(void **state)
{
    rt_block_namer namer;
    rt_sched_options o = {
        .n_slots = 2, .max_tokens = 16, .block_tokens = 16, .n_blocks = 4, .namer = &namer};
    rt_sched *s = NULL;
    int failures;

    (void)state;
    FAIL_EACH_ALLOCATION(failures, s != NULL, (void)!rt_sched_create(&s, &o));
    assert_int_equal(failures, 11);
    rt_sched_destroy(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompt_is_cut_to_the_budget),
        cmocka_unit_test(test_decodes_go_first),
        cmocka_unit_test(test_admission_leaves_the_watermark),
        cmocka_unit_test(test_whole_cache_for_one),
        cmocka_unit_test(test_youngest_is_preempted_and_computed_again),
        cmocka_unit_test(test_forks_share_whole_blocks),
        cmocka_unit_test(test_fork_of_a_parent_that_ended_starts_alone),
        cmocka_unit_test(test_finish_in_any_state),
        cmocka_unit_test(test_paused_sequences_wait),
        cmocka_unit_test(test_full_plan_continues_in_the_next),
        cmocka_unit_test(test_known_end_costs_nothing),
        cmocka_unit_test(test_unforeseen_end_costs_one_row),
        cmocka_unit_test(test_prefill_alone_ends_with_its_last_chunk),
        cmocka_unit_test(test_slot_changes_hands_while_a_step_is_under_way),
        cmocka_unit_test(test_preempted_with_its_last_token_under_way),
        cmocka_unit_test(test_second_prompt_begins_behind_the_first),
        cmocka_unit_test(test_salts_do_not_meet),
        cmocka_unit_test(test_answers_are_found_too),
        cmocka_unit_test(test_oldest_blocks_are_given_up),
        cmocka_unit_test(test_preempted_finds_its_own_blocks),
        cmocka_unit_test(test_prompt_logprobs_are_computed),
        cmocka_unit_test(test_full_cache_admits_by_what_is_missing),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_create_fails_cleanly),
    };

    return tp_hash_init() == TP_OK ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
