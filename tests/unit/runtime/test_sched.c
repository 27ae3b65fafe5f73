/* SPDX-License-Identifier: Apache-2.0 */
/* test_sched.c - the scheduler against a model of the ranks.
 *
 * Every plan is decoded and applied to `ranks`, which keeps what a rank keeps: open slots, block tables, and for each
 * block the tokens whose keys lie in it.  A plan that reads a token nobody has computed, or that computes over another
 * sequence's block, is caught there.
 */
#include "tests/unit/base/base_testing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "runtime/sched/sched.h"

#define BLOCK      16
#define SLOTS      8
#define SEQS       24
#define LEN_MAX    160
#define BLOCKS_MAX (LEN_MAX / BLOCK)
#define POOL_MAX   64

/* The value at a position: prompts are equal for equal seeds, so forks may share blocks. */
typedef struct token {
    int32_t prompt, pos;
} token;

typedef struct test_seq {
    rt_seq q;
    int32_t blocks[BLOCKS_MAX + 1];
    int32_t prompt[LEN_MAX];
    int32_t prompt_seed, own;
    int32_t stop_at; /* total tokens at which it ends */
} test_seq;

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
    token cache[POOL_MAX][BLOCK];
    test_seq seqs[SEQS];
    int32_t next_own;
    int n_sampled; /* in the last plan */
} fixture;

static fixture g;

static void start(int32_t n_blocks, int max_tokens, double watermark)
{
    memset(&g, 0, sizeof g);
    g.opt = (rt_sched_options){.n_slots = SLOTS,
                               .max_tokens = max_tokens,
                               .block_tokens = BLOCK,
                               .n_blocks = n_blocks,
                               .watermark = watermark};
    assert_int_equal(rt_sched_create(&g.s, &g.opt), TP_OK);
    assert_int_equal(rt_plan_writer_init(&g.w, 65536, SLOTS), TP_OK);
}

static void stop(void)
{
    rt_sched_destroy(g.s);
    rt_plan_writer_release(&g.w);
}

static test_seq *add(int i, int32_t n_prompt, int32_t n_generate, test_seq *fork_of)
{
    test_seq *t = &g.seqs[i];

    memset(t, 0, sizeof *t);
    t->own = ++g.next_own;
    t->prompt_seed = fork_of != NULL ? fork_of->prompt_seed : t->own;
    t->stop_at = n_prompt + n_generate;
    t->q = (rt_seq){.open = {.head = {.n_prompt = n_prompt}, .prompt = t->prompt},
                    .n_prompt = n_prompt,
                    .lp_start = INT32_MAX,
                    .n_new_max = INT32_MAX,
                    .sample = n_generate > 0,
                    .fork_of = fork_of != NULL ? &fork_of->q : NULL,
                    .blocks = t->blocks,
                    .owner = t};
    rt_sched_add(g.s, &t->q);
    return t;
}

static token token_at(const test_seq *t, int32_t pos)
{
    return (token){.prompt = pos < t->q.n_prompt ? t->prompt_seed : -t->own, .pos = pos};
}

static bool same(token a, token b)
{
    return a.prompt == b.prompt && a.pos == b.pos;
}

static void apply_seq(const rt_plan_seq *p, const int32_t *blocks)
{
    rank_slot *slot = &g.slots[p->slot];
    const test_seq *t = rt_sched_slot(g.s, p->slot)->owner;

    assert_true(slot->open && p->table_keep <= slot->n_table && p->n_new > 0);
    assert_true(p->table_keep + p->n_blocks <= BLOCKS_MAX + 1);
    memcpy(slot->table + p->table_keep, blocks, sizeof *blocks * (size_t)p->n_blocks);
    slot->n_table = p->table_keep + p->n_blocks;
    assert_true(p->start + p->n_new <= slot->n_table * BLOCK);
    for (int32_t pos = p->start; pos < p->start + p->n_new; pos++)
        g.cache[slot->table[pos / BLOCK]][pos % BLOCK] = token_at(t, pos);
    g.n_sampled += (p->flags & RT_SEQ_SAMPLE) != 0;
}

/* Attention of a sequence reads all its positions: they must hold its own tokens, after everybody has written. */
static void check_reads(const rt_plan_seq *p)
{
    const rank_slot *slot = &g.slots[p->slot];
    const test_seq *t = rt_sched_slot(g.s, p->slot)->owner;

    for (int32_t pos = 0; pos < p->start + p->n_new; pos++)
        if (!same(g.cache[slot->table[pos / BLOCK]][pos % BLOCK], token_at(t, pos)))
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
        apply_seq(&q, blocks);
    }
    for (uint32_t i = 0; i < r.header.n_seq; i++) {
        assert_int_equal(rt_plan_read_seq(&again, &q, &blocks), TP_OK);
        check_reads(&q);
    }
}

/* One step as the engine does it; returns the tokens computed. */
static int step(void)
{
    rt_seq *const *scheduled;
    rt_seq *done[SLOTS];
    int n_tokens, n, n_done = 0, n_sampled = 0;
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
    scheduled = rt_sched_scheduled(g.s, &n);
    for (int i = 0; i < n; i++) {
        test_seq *t = scheduled[i]->owner;

        n_sampled += rt_sched_commit(g.s, scheduled[i]);
        if (t->q.sample ? t->q.n_total >= t->stop_at : t->q.n_computed == t->q.n_total)
            done[n_done++] = scheduled[i];
    }
    assert_int_equal(n_sampled, g.n_sampled);
    while (n_done > 0)
        rt_sched_finish(g.s, done[--n_done]);
    rt_sched_check(g.s);
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
            parent = add(i, n_prompt, n_gen, NULL);
        else
            add(i, n_prompt, n_gen, parent);
        choices--;
    }
}

static void disturb(void)
{
    rt_seq *q = &g.seqs[below(SEQS)].q;

    if (q->state != RT_SEQ_WAITING && q->state != RT_SEQ_RUNNING)
        return;
    switch (below(4)) {
    case 0: rt_sched_finish(g.s, q); break;
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
    print_message("    seed %llu: %d blocks, budget %d, %d steps, %lld tokens, %llu preemptions\n",
                  (unsigned long long)seed, g.opt.n_blocks, g.opt.max_tokens, steps,
                  (long long)computed, (unsigned long long)rt_sched_preemptions(g.s));
    stop();
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
    rt_sched_options o = {.n_slots = 2, .max_tokens = 16, .block_tokens = 16, .n_blocks = 4};
    rt_sched *s = NULL;
    int failures;

    (void)state;
    FAIL_EACH_ALLOCATION(failures, s != NULL, (void)!rt_sched_create(&s, &o));
    assert_int_equal(failures, 8);
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
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_create_fails_cleanly),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
