/* SPDX-License-Identifier: Apache-2.0 */
/* test_worker.c - the same plans on several backends: sequences that come, grow and go, each with a way of sampling of its
 * own.  A device draws the tokens that the CPU draws; decode steps as graphs give the bits that they give one by one; and
 * where the device itself decides, steps are issued before the ones before them are collected.  With drafts, good ones and
 * bad ones, every sequence yields what it yields without. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "base/mem.h"
#include "comm/device.h"
#include "kernels/module.h"
#include "runtime/sched/worker.h"
#include "runtime/startup.h"
#include "tests/harness/mpi_main.h"
#include "tests/model/fake_device.h"
#include "tests/model/model_testing.h"

#define TRAIT       "llama3"
#define SLOTS       10
#define LEN         128
#define BLOCK       16
#define SEQ_BLOCKS  (LEN / BLOCK)
#define STEP_TOKENS 96
#define STEPS       30
#define CLOSE_STEP  14 /* slot 2 goes to another sequence, in one plan */
#define CLOSED_AHEAD                                                                               \
    17 /* of a closed cast: steps 1 and 2, which slot 2 then holds up to CLOSE_STEP; 16 and on */
#define RESULTS_MAX  (STEPS * (SLOTS + 24))
#define LOGPROB_NEAR 1e-3

static comm_world g_world;
static tm_golden g_golden;

/* What came of all steps. */
typedef struct transcript {
    rt_step_result results[RESULTS_MAX];
    int n;
} transcript;

/* The scheduler's view of a slot. */
typedef struct seq {
    bool open;
    int n_prompt, total, computed, blocks;
    int draft; /* tokens under way */
    int32_t prompt[LEN];
    rt_slot_params params;
} seq;

typedef struct play {
    const transcript *drafts; /* from what it says, with mistakes; NULL = none */
    bool steady;              /* nobody closes */
    int n_accepted;
    tm_model m;
    rt_worker *worker;
    rt_plan_writer writer;
    seq seqs[SLOTS];
    transcript *out;
    bool closed;
    int n_ahead; /* steps issued before the one before was collected */
} play;

typedef struct how {
    const kern_ops *ops;
    const void *reducers;
    const char *comm;
    bool graphs, ahead;
    bool closed; /* nobody but slot 2's first sequence needs the host to draw */
    bool steady;
    const transcript *drafts;
} how;

/* ---- sequences ---- */

static const int32_t k_bias_ids[] = {7, 100, 599}, k_forbidden[] = {1, 2, 3},
                     k_allowed[] = {5, 50, 77, 78, 79, 200, 201, 599};
static const float k_bias[] = {2.0f, -100.0f, 1.0f};

static rt_slot_params params_of(int kind)
{
    rt_slot_params p = {.top_p = 1,
                        .repetition = 1,
                        .n_logprobs = -1,
                        .n_prompt_logprobs = -1,
                        .seed = 1000 + (uint64_t)kind};

    p.temperature = kind % 3 == 0 ? 0.0f : 0.9f;
    p.top_k = kind % 4 == 1 ? 20 : 0;
    p.top_p = kind % 4 == 2 ? 0.8f : 1.0f;
    p.min_p = kind == 5 ? 0.05f : 0.0f;
    p.n_logprobs = kind % 2 == 0 ? 3 : -1;
    p.n_prompt_logprobs = kind == 4 ? 2 : -1;
    if (kind >= 6) {
        p.repetition = 1.2f;
        p.frequency = 0.4f;
        p.presence = 0.2f;
        p.min_tokens = 5;
    }
    return p;
}

/* The same without what only the host can do; filters are bounded by top_k. */
static void close_params(rt_slot_params *p)
{
    p->n_logprobs = p->n_prompt_logprobs = -1;
    if (p->temperature > 0 && p->top_k == 0 && (p->top_p < 1 || p->min_p > 0))
        p->top_k = 64;
}

static void open_seq(play *p, int slot, int kind)
{
    seq *q = &p->seqs[slot];
    rt_plan_open_view v = {.prompt = q->prompt,
                           .bias_ids = k_bias_ids,
                           .bias = k_bias,
                           .allowed = k_allowed,
                           .forbidden = k_forbidden};

    *q = (seq){.open = true, .n_prompt = 3 + kind * 5, .params = params_of(kind)};
    if (p->closed && kind != 2)
        close_params(&q->params);
    for (int i = 0; i < q->n_prompt; i++)
        q->prompt[i] = (g_golden.ids[i % g_golden.n_ids] + kind * 17 + i) % g_golden.vocab;
    q->total = q->n_prompt;
    v.head = (rt_plan_open){.slot = slot,
                            .n_prompt = q->n_prompt,
                            .n_bias = kind >= 6 ? 3 : 0,
                            .n_forbidden = 3,
                            .has_allowed = kind == 9,
                            .n_allowed = kind == 9 ? (int32_t)TP_ARRAY_LEN(k_allowed) : 0,
                            .params = q->params};
    assert_true(rt_plan_add_open(&p->writer, &v));
}

/* The n-th token that a slot has drawn; -1: there are not so many. */
static int32_t nth_token(const transcript *t, int slot, int n)
{
    for (int i = 0; i < t->n; i++)
        if (t->results[i].slot == slot && !t->results[i].is_prompt && n-- == 0)
            return t->results[i].token;
    return -1;
}

/* A draft of 0 to 4 tokens behind a decode; some of them are wrong, at changing places. */
static int draft_for(const play *p, int slot, int step, int32_t draft[4])
{
    const seq *q = &p->seqs[slot];
    int n = 0, most = (slot + step) % 5, mistake = (slot + 3 * step) % 7;

    for (; p->drafts != NULL && q->total - q->computed == 1 && n < most; n++) {
        draft[n] = nth_token(p->drafts, slot, q->total - q->n_prompt + n);
        if (draft[n] < 0)
            break;
        draft[n] = (draft[n] + (n == mistake)) % g_golden.vocab;
    }
    return n;
}

static void plan_seq(play *p, int slot, int step)
{
    seq *q = &p->seqs[slot];
    int32_t blocks[SEQ_BLOCKS], draft[4];
    int n_draft = draft_for(p, slot, step, draft);
    int need = (q->total + n_draft + BLOCK - 1) / BLOCK;
    rt_plan_seq s = {.slot = slot,
                     .start = q->computed,
                     .n_new = q->total - q->computed + n_draft,
                     .n_draft = n_draft,
                     .table_keep = q->blocks,
                     .n_blocks = need > q->blocks ? need - q->blocks : 0,
                     .lp_start = q->params.n_prompt_logprobs >= 0 ? 0 : INT32_MAX,
                     .flags = RT_SEQ_SAMPLE};

    for (int i = q->blocks; i < need; i++)
        blocks[i - q->blocks] = (i * SLOTS + slot) % (SLOTS * SEQ_BLOCKS);
    assert_true(rt_plan_add_seq(&p->writer, &s, blocks, draft));
    q->computed = q->total;
    q->blocks += s.n_blocks;
    q->total++;
    q->draft = n_draft;
}

/* ---- playing ---- */

static void collect(play *p)
{
    const rt_step_result *results;
    int n;

    assert_int_equal(rt_worker_collect(p->worker), TP_OK);
    results = rt_worker_results(p->worker, &n);
    assert_in_range(p->out->n + n, 0, RESULTS_MAX);
    memcpy(p->out->results + p->out->n, results, (size_t)n * sizeof *results);
    p->out->n += n;
    for (int i = 1; i < n;
         i++) { /* a sequence's second token and those behind it: drafts that came true */
        seq *q = &p->seqs[results[i].slot];
        bool came_true = results[i].slot == results[i - 1].slot && !results[i - 1].is_prompt;

        q->total += came_true;
        q->computed += came_true;
        p->n_accepted += came_true;
        assert_true(!came_true || q->draft-- > 0);
    }
}

/* With drafts a sequence is through sooner. */
static bool is_at_the_end(const play *p, int slot)
{
    const seq *q = &p->seqs[slot];

    return p->drafts != NULL && nth_token(p->drafts, slot, q->total - q->n_prompt) < 0;
}

static void play_step(play *p, int step)
{
    const uint8_t *plan;
    size_t bytes;
    bool stop;

    rt_plan_begin(&p->writer, (uint64_t)step, 0);
    if (step == CLOSE_STEP && !p->steady)
        assert_true(rt_plan_add_close(&p->writer, 2));
    if (step < SLOTS)
        open_seq(p, step, step);
    if (step == CLOSE_STEP && !p->steady)
        open_seq(p, 2, 8);
    /* the newest first: a prompt stands before decodes in the plan */
    for (int s = SLOTS - 1; s >= 0; s--)
        if (p->seqs[s].open && !is_at_the_end(p, s))
            plan_seq(p, s, step);
    plan = rt_plan_finish(&p->writer, &bytes);
    tp_mem_forbid(true);
    p->n_ahead += rt_worker_under_way(p->worker) > 0;
    assert_int_equal(rt_worker_issue(p->worker, plan, bytes, &stop), TP_OK);
    while (!rt_worker_has_room(p->worker))
        collect(p);
    tp_mem_forbid(false);
}

/* Returns how many steps were issued ahead; with drafts, how many of their tokens came true. */
static int run_plans(const how *h, transcript *out)
{
    comm_options opt = {.kind = comm_host_kind(h->comm),
                        .window_bytes = 4 << 20,
                        .plan_bytes_max = 64,
                        .timeout_ms = 120000};
    rt_worker_options wo = {.n_slots = SLOTS,
                            .max_model_len = LEN,
                            .max_tokens = STEP_TOKENS,
                            .block_tokens = BLOCK,
                            .n_blocks = SLOTS * SEQ_BLOCKS,
                            .ahead = h->ahead,
                            .draft_max = 4,
                            .n_capture = h->graphs ? 4 : 0,
                            .capture = {1, 2, 4, SLOTS}};
    kern_backend *be;
    comm_group *g;
    play p = {.out = out, .closed = h->closed, .steady = h->steady, .drafts = h->drafts};

    out->n = 0;
    assert_int_equal(h->ops->open(&be, &(kern_open_args){.n_threads = 1}), TP_OK);
    assert_int_equal(comm_group_create(&g, &g_world, &opt), TP_OK);
    assert_int_equal(rt_attach_device(g, be, h->comm, h->reducers), TP_OK);
    assert_int_equal(
        tm_open(&p.m,
                &(tm_options){.dir = g_golden.dir, .dtype = KERN_DTYPE_F32, .be = be, .group = g}),
        TP_OK);
    assert_int_equal(
        rt_worker_create(&p.worker, &wo, &p.m.config, &p.m.shard, p.m.model, be, p.m.kv, g), TP_OK);
    assert_int_equal(rt_worker_capture(p.worker), TP_OK);
    assert_int_equal(rt_plan_writer_init(&p.writer, 1 << 20, SLOTS), TP_OK);
    for (int step = 0; step < STEPS; step++)
        play_step(&p, step);
    while (rt_worker_under_way(p.worker) > 0)
        collect(&p);
    rt_plan_writer_release(&p.writer);
    rt_worker_destroy(p.worker);
    tm_close(&p.m);
    comm_group_destroy(g);
    be->ops->close(be);
    return h->drafts != NULL ? p.n_accepted : p.n_ahead;
}

/* ---- comparing ---- */

static bool near(float a, float b, bool exact)
{
    return exact ? memcmp(&a, &b, sizeof a) == 0 : fabs((double)a - (double)b) <= LOGPROB_NEAR;
}

static void compare(const transcript *a, const transcript *b, bool exact, const char *what)
{
    assert_int_equal(a->n, b->n);
    for (int i = 0; i < a->n; i++) {
        const rt_step_result *x = &a->results[i], *y = &b->results[i];
        bool same = x->slot == y->slot && x->is_prompt == y->is_prompt && x->token == y->token &&
                    near(x->logprob, y->logprob, exact) && x->n_top == y->n_top;

        for (int j = 0; same && j < x->n_top; j++)
            same = near(x->top[j].logprob, y->top[j].logprob, exact);
        if (same)
            continue;
        fail_msg("%s: result %d: slot %d token %d %.9g, slot %d token %d %.9g", what, i, x->slot,
                 x->token, (double)x->logprob, y->slot, y->token, (double)y->logprob);
    }
}

static const rt_step_result *nth_result(const transcript *t, int slot, int n)
{
    for (int i = 0; i < t->n; i++)
        if (t->results[i].slot == slot && n-- == 0)
            return &t->results[i];
    return NULL;
}

/* Slot by slot: with drafts the same comes in fewer steps, and the last one may yield one more. */
static void compare_slots(const transcript *a, const transcript *b, bool exact, const char *what)
{
    assert_in_range(b->n, a->n, a->n + SLOTS);
    for (int slot = 0; slot < SLOTS; slot++) {
        const rt_step_result *x, *y;

        for (int n = 0; (x = nth_result(a, slot, n)) != NULL; n++) {
            y = nth_result(b, slot, n);
            if (y == NULL || x->token != y->token || x->is_prompt != y->is_prompt ||
                !near(x->logprob, y->logprob, exact))
                fail_msg("%s: result %d of slot %d differs", what, n, slot);
        }
    }
}

static transcript g_cpu, g_closed, g_other, g_graphs;

static void check_drafts(how h, bool exact, const char *what)
{
    static transcript with, without;
    int n_accepted;

    h.steady = true;
    run_plans(&h, &without);
    h.drafts = &without;
    n_accepted = run_plans(&h, &with);
    compare_slots(&without, &with, exact, what);
    if (g_world.rank == 0)
        printf("%s: %d tokens of drafts came true, %d results\n", what, n_accepted, with.n);
    assert_in_range(n_accepted, 30, without.n);
}

static void test_drafts(void **state)
{
    how h = {.ops = kern_cpu_ops(), .comm = "auto"};

    (void)state;
    check_drafts(h, true, "drafts, CPU");
    h = (how){.ops = fd_ops(), .comm = "auto", .ahead = true, .closed = true};
    check_drafts(h, false, "drafts, fake device");
    kern_module_search(TPSERVE_MODULES);
    assert_int_equal(kern_module_open("emu", &h.ops, &h.reducers), TP_OK);
    h.graphs = true;
    check_drafts(h, false, "drafts, emulated device");
}

static void test_fake(void **state)
{
    how h = {.ops = fd_ops(), .comm = "auto", .closed = true};

    (void)state;
    run_plans(&(how){.ops = fd_ops(), .comm = "auto"}, &g_other);
    compare(&g_cpu, &g_other, false, "fake device");
    h.ahead = true; /* sums through the host: several ranks have nothing to gather with */
    assert_int_equal(run_plans(&h, &g_other), g_world.size == 1 ? CLOSED_AHEAD : 0);
    compare(&g_closed, &g_other, false, "fake device, ahead");
    h.ahead = false;
    assert_int_equal(run_plans(&h, &g_other), 0);
    compare(&g_closed, &g_other, false, "fake device, in turn");
}

static void test_emulated(void **state)
{
    how h = {.comm = "auto"};

    (void)state;
    kern_module_search(TPSERVE_MODULES);
    assert_int_equal(kern_module_open("emu", &h.ops, &h.reducers), TP_OK);
    run_plans(&h, &g_other);
    compare(&g_cpu, &g_other, false, "emulated device");
    h.graphs = true;
    run_plans(&h, &g_graphs);
    compare(&g_other, &g_graphs, true, "graphs");
    h.ahead = true;
    run_plans(&h, &g_graphs); /* every step but the first has somebody for the host */
    compare(&g_other, &g_graphs, true, "graphs, ahead");
}

static void test_emulated_ahead(void **state)
{
    how h = {.comm = "auto", .closed = true};

    (void)state;
    kern_module_search(TPSERVE_MODULES);
    assert_int_equal(kern_module_open("emu", &h.ops, &h.reducers), TP_OK);
    assert_int_equal(run_plans(&h, &g_other), 0);
    compare(&g_closed, &g_other, false, "drawn there");
    h.ahead = true;
    assert_int_equal(run_plans(&h, &g_graphs), CLOSED_AHEAD);
    compare(&g_other, &g_graphs, true, "ahead");
    h.graphs = true;
    assert_int_equal(run_plans(&h, &g_graphs), CLOSED_AHEAD);
    compare(&g_other, &g_graphs, true, "graphs, ahead");
    if (g_world.size == 1)
        return;
    h.comm = "mpi"; /* the host sums, and draws */
    h.graphs = false;
    assert_int_equal(run_plans(&h, &g_graphs), 0);
    compare(&g_closed, &g_graphs, false, "through the host");
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fake),
        cmocka_unit_test(test_emulated),
        cmocka_unit_test(test_emulated_ahead),
        cmocka_unit_test(test_drafts),
    };
    int failed;

    if (comm_init(&g_world) != TP_OK)
        return 1;
    tm_golden_read(&g_golden, TRAIT);
    run_plans(&(how){.ops = kern_cpu_ops(), .comm = "auto"}, &g_cpu);
    run_plans(&(how){.ops = kern_cpu_ops(), .comm = "auto", .closed = true, .ahead = true},
              &g_closed);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    tm_golden_free(&g_golden);
    return failed;
}

int main(int argc, char **argv)
{
    return tp_mpi_test_main(argc, argv, run);
}
