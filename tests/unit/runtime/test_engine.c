/* SPDX-License-Identifier: Apache-2.0 */
/* test_engine.c - a whole engine of one rank over a tiny checkpoint: what many requests get at once, under preemption
 * and cancellation, is what each gets alone; nothing is left behind.  Every case runs with a scheduler thread that plans
 * ahead, and without. */
#include "tests/unit/runtime/engine_testing.h"

#include <math.h>
#include <signal.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/fault.h"

#define MANY       8
#define TOKENS_MAX 64
#define SLEEP_US   200
#define CROWD      20 /* choices of one request that fill its box */

typedef struct fixture {
    test_engine e;
    bool sync;     /* no scheduler thread */
    bool uncached; /* no prefix cache */
    rt_speculation speculation;
    bool narrow; /* requests of submit_mixed() have few tokens to choose from */
} fixture;

static fixture g;

/* What a request has said so far. */
typedef struct answer {
    rt_request *r;
    int n[4]; /* tokens per choice */
    int32_t ids[4][TOKENS_MAX];
    char text[4][4096];
    rt_finish finish[4];
    double logprobs[4]; /* sum of all that came, tops included */
    int n_prompt, n_cached;
    char error[32];
} answer;

/* ---- the engine ---- */

#ifdef TEST_FAKE_DEVICE /* this text is a second test, whose backend's memory the host cannot touch */
#    include "tests/model/fake_device.h"
#    define BACKEND     fd_ops()
#    define BLOCK_BYTES 4096 /* of float32 */
#elif defined TEST_EMULATED  /* and a third one, whose backend runs when it is waited for */
#    include "kernels/module.h"
#    define BACKEND     emulated()
#    define BLOCK_BYTES 4096

static const kern_ops *emulated(void)
{
    const kern_ops *ops = NULL;
    const void *reducers;

    kern_module_search(TPSERVE_MODULES);
    assert_int_equal(kern_module_open("emu", &ops, &reducers), TP_OK);
    return ops;
}
#else
#    define BACKEND     kern_cpu_ops()
#    define BLOCK_BYTES 8192 /* heads are padded */
#endif

static void create_engine(int64_t kv_bytes, int queue)
{
    rt_engine_options opt = test_engine_options(&g.e, kv_bytes, queue);

    opt.sync_scheduling = g.sync;
    opt.no_prefix_caching = g.uncached;
    opt.speculation = g.speculation;
    create_test_engine(&g.e, BACKEND, &opt);
}

static void start_engine(int64_t kv_bytes, int queue)
{
    create_engine(kv_bytes, queue);
    run_test_engine(&g.e);
}

static void stop_engine(void)
{
    rt_engine_drain(g.e.engine, 0);
    join_test_engine(&g.e, TP_OK);
    close_test_engine(&g.e);
}

static int make_model(void **state)
{
    (void)state;
    make_test_model(&g.e);
    return 0;
}

static int remove_model(void **state)
{
    (void)state;
    remove_test_model(&g.e);
    return 0;
}

/* ---- requests ---- */

/* Request i: its own prompt, length and way of sampling. */
static rt_request_desc make_desc(int i, int32_t prompt[TOKENS_MAX])
{
    rt_request_desc d = {.prompt = prompt, .n = 1, .sampling = rt_sampling_default()};

    d.n_prompt = 5 + 7 * (i % 6);
    for (int k = 0; k < d.n_prompt; k++)
        prompt[k] = 3 + (i * 131 + k * 17) % 590;
    d.sampling.max_tokens = 30 + i;
    d.sampling.ignore_eos = true;
    d.sampling.seed = (uint64_t)i;
    if (i % 2 == 1)
        d.sampling.temperature = 1;
    if (i % 4 == 3)
        d.sampling.top_p = 0.8f;
    return d;
}

static tp_status submit(answer *a, int i, int n)
{
    int32_t prompt[TOKENS_MAX];
    rt_request_desc d = make_desc(i, prompt);

    memset(a, 0, sizeof *a);
    d.n = n;
    return rt_engine_submit(g.e.engine, &d, &a->r);
}

/* Takes what waits; true when the request is over. */
static bool poll(answer *a)
{
    rt_event ev;

    while (rt_request_next(a->r, &ev)) {
        int c = ev.choice;

        strncat(a->text[c], ev.text, ev.text_len);
        if (ev.kind == RT_EVENT_TOKEN)
            a->ids[c][a->n[c]++] = ev.token;
        a->n_prompt += ev.kind == RT_EVENT_PROMPT;
        a->n_cached = ev.n_cached;
        if (ev.kind != RT_EVENT_FINISH && !isnan(ev.logprob))
            a->logprobs[c] += (double)ev.logprob;
        for (int k = 0; k < ev.n_top; k++)
            a->logprobs[c] += (double)ev.top[k].logprob * (k + 1);
        if (ev.kind == RT_EVENT_FINISH)
            a->finish[c] = ev.finish;
        if (ev.error_code != NULL)
            (void)snprintf(a->error, sizeof a->error, "%s", ev.error_code);
    }
    return rt_request_done(a->r);
}

static void finish(answer *a)
{
    int64_t end = tp_now_ns() + 120 * TP_NS_PER_S;

    while (!poll(a)) {
        assert_true(tp_now_ns() < end);
        usleep(SLEEP_US);
    }
    rt_request_release(a->r);
}

static void assert_idle(void)
{
    int64_t end = tp_now_ns() + 60 * TP_NS_PER_S;
    rt_stats s;

    do {
        assert_true(tp_now_ns() < end);
        usleep(SLEEP_US);
        rt_engine_stats(g.e.engine, &s);
    } while (s.blocks_used > 0 || s.running > 0 || s.waiting > 0);
}

static void assert_same(const answer *a, int choice, const answer *alone, int of)
{
    assert_int_equal(a->n[choice], alone->n[of]);
    assert_memory_equal(a->ids[choice], alone->ids[of], sizeof a->ids[0][0] * (size_t)alone->n[of]);
    assert_string_equal(a->text[choice], alone->text[of]);
    assert_int_equal(a->finish[choice], alone->finish[of]);
}

static int64_t bytes_of_blocks(int n)
{
    return (int64_t)n * BLOCK_BYTES;
}

/* ---- cases ---- */

static void test_together_as_alone(void **state)
{
    static answer alone[MANY], together[MANY];
    rt_stats s;

    (void)state;
    start_engine(bytes_of_blocks(64), 0);
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(submit(&alone[i], i, 1), TP_OK);
        finish(&alone[i]);
        assert_int_equal(alone[i].n[0], 30 + i);
        assert_int_equal(alone[i].finish[0], RT_FINISH_LENGTH);
    }
    stop_engine();
    start_engine(bytes_of_blocks(9), 0); /* room for two or three of them */
    assert_int_equal(rt_engine_get_info(g.e.engine)->n_blocks, 9);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(submit(&together[i], i, 1), TP_OK);
    for (int i = 0; i < MANY; i++) {
        finish(&together[i]);
        assert_same(&together[i], 0, &alone[i], 0);
    }
    assert_idle();
    rt_engine_stats(g.e.engine, &s);
    print_message("    %llu preemptions in %llu steps\n", (unsigned long long)s.preemptions,
                  (unsigned long long)s.steps);
    assert_true(s.preemptions > 0);
    stop_engine();
}

static void test_choices_as_alone(void **state)
{
    static answer alone, many;

    (void)state;
    start_engine(bytes_of_blocks(64), 0);
    assert_int_equal(submit(&many, 5, 4), TP_OK);
    finish(&many);
    for (int c = 0; c < 4; c++) {
        int32_t prompt[TOKENS_MAX];
        rt_request_desc d = make_desc(5, prompt);

        d.sampling.seed += (uint64_t)c;
        memset(&alone, 0, sizeof alone);
        assert_int_equal(rt_engine_submit(g.e.engine, &d, &alone.r), TP_OK);
        finish(&alone);
        assert_same(&many, c, &alone, 0);
    }
    assert_idle();
    stop_engine();
}

static void test_cancel_at_random_moments(void **state)
{
    static answer a[MANY];
    uint64_t x = 3;
    rt_stats s;

    (void)state;
    start_engine(bytes_of_blocks(12), 0);
    for (int round = 0; round < 15; round++) {
        for (int i = 0; i < MANY; i++)
            assert_int_equal(submit(&a[i], i, 1 + (i + round) % 4), TP_OK);
        for (int i = 0; i < MANY; i++) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            for (int k = (int)(x >> 61); k > 0; k--) {
                (void)poll(&a[i]);
                usleep(SLEEP_US);
            }
            rt_request_release(a[i].r);
        }
    }
    assert_idle();
    rt_engine_stats(g.e.engine, &s);
    print_message("    %llu of %d requests were cancelled in time\n",
                  (unsigned long long)s.cancelled, 15 * MANY);
    assert_true(s.cancelled > 0);
    stop_engine();
}

static void test_queue_full(void **state)
{
    static answer a[10], more;

    (void)state;
    create_engine(bytes_of_blocks(64), 4); /* not running yet: nothing leaves the queue */
    for (int i = 0; i < 10; i++)
        assert_int_equal(submit(&a[i], i, 1), TP_OK); /* 6 + 4 */
    assert_int_equal(submit(&more, 0, 1), TP_ERR_FULL);
    run_test_engine(&g.e);
    for (int i = 0; i < 10; i++)
        finish(&a[i]);
    assert_idle();
    assert_int_equal(submit(&more, 0, 1), TP_OK);
    finish(&more);
    stop_engine();
}

static void test_drain(void **state)
{
    static answer a[MANY], late;

    (void)state;
    start_engine(bytes_of_blocks(16), 0);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(submit(&a[i], i, 2), TP_OK);
    rt_engine_drain(g.e.engine, 60000);
    assert_int_equal(submit(&late, 0, 1), TP_ERR_DRAINING);
    while (!poll(&a[0]))
        usleep(SLEEP_US);
    assert_int_equal(a[0].finish[0], RT_FINISH_LENGTH); /* what runs may finish */
    rt_engine_drain(g.e.engine, 0);
    join_test_engine(&g.e, TP_OK);
    for (int i = 0; i < MANY; i++) {
        assert_true(poll(&a[i]));
        if (a[i].finish[0] == RT_FINISH_ERROR)
            assert_string_equal(a[i].error, "shutdown");
        rt_request_release(a[i].r);
    }
    close_test_engine(&g.e);
}

/* Handles that are given back only after the loop has ended leave nothing behind (leak checkers look). */
static void test_release_after_the_end(void **state)
{
    static answer a;

    (void)state;
    start_engine(bytes_of_blocks(16), 0);
    assert_int_equal(submit(&a, 0, 2), TP_OK);
    rt_engine_drain(g.e.engine, 0);
    join_test_engine(&g.e, TP_OK);
    rt_request_release(a.r); /* unread: becomes a cancellation that nobody takes */
    close_test_engine(&g.e);
}

static void test_contract_is_checked(void **state)
{
    static const int32_t k_alien[] = {5, 600};
    static const char *const k_empty[] = {""};
    int32_t prompt[129] = {0};
    rt_request_desc d = {.prompt = prompt, .n_prompt = 4, .n = 1};
    rt_request *r = NULL;

    (void)state;
    create_engine(bytes_of_blocks(8), 0);
    d.sampling = rt_sampling_default();
#define REFUSED(change)                                                                            \
    do {                                                                                           \
        rt_request_desc saved = d;                                                                 \
        change;                                                                                    \
        assert_int_equal(rt_engine_submit(g.e.engine, &d, &r), TP_ERR_INVALID);                    \
        d = saved;                                                                                 \
    } while (0)
    REFUSED(d.n_prompt = 0);
    REFUSED(d.n_prompt = 129);
    REFUSED(d.n_prompt = 128); /* no place for the first token */
    REFUSED(d.n = 0);
    REFUSED(d.n = RT_CHOICES_MAX + 1);
    REFUSED((d.prompt = k_alien, d.n_prompt = 2));
    REFUSED((d.stop = k_empty, d.n_stop = 1));
    REFUSED((d.allowed = k_alien, d.n_allowed = 0));
    REFUSED(d.sampling.max_tokens = -1);
#undef REFUSED
    close_test_engine(&g.e);
}

/* A prompt that fills the cache to its last block, and only its logprobs are wanted. */
static void test_prefill_of_the_whole_context(void **state)
{
    int32_t prompt[128];
    rt_request_desc d = {.prompt = prompt, .n_prompt = 128, .n = 1};
    static answer a;

    (void)state;
    start_engine(bytes_of_blocks(8), 0);
    for (int i = 0; i < 128; i++)
        prompt[i] = 3 + i;
    d.sampling = rt_sampling_default();
    d.sampling.max_tokens = 0;
    memset(&a, 0, sizeof a);
    assert_int_equal(rt_engine_submit(g.e.engine, &d, &a.r), TP_OK);
    finish(&a);
    assert_int_equal(a.finish[0], RT_FINISH_LENGTH);
    assert_int_equal(a.n[0], 0);
    stop_engine();
}

static void test_submit_without_memory(void **state)
{
    static answer a;
    int failures;

    (void)state;
    start_engine(bytes_of_blocks(16), 0);
    FAIL_EACH_ALLOCATION(failures, a.r != NULL, (void)!submit(&a, 1, 4));
    assert_true(failures >= 3);
    finish(&a);
    assert_idle();
    stop_engine();
}

/* ---- planning ahead ---- */

/* A token that ends request i early: one that it says when nothing stops it. */
static int32_t g_stop_ids[MANY];
static char g_stop_text[MANY][8];

static void find_stops(void)
{
    static answer a;

    for (int i = 0; i < MANY; i++) {
        assert_int_equal(submit(&a, i, 1), TP_OK);
        finish(&a);
        g_stop_ids[i] = a.ids[0][a.n[0] / 2];
        (void)snprintf(g_stop_text[i], sizeof g_stop_text[i], "%.4s",
                       a.text[0] + strlen(a.text[0]) / 2);
    }
}

static const int32_t k_few[] = {77, 50, 401};

/* Request i with something of everything. */
static tp_status submit_mixed(answer *a, int i)
{
    int32_t prompt[TOKENS_MAX];
    rt_request_desc d = make_desc(i, prompt);
    const char *stop[] = {g_stop_text[i]};

    memset(a, 0, sizeof *a);
    d.n = i % 3 == 2 ? 2 : 1;
    if (i % 2 == 0)
        d.sampling.n_logprobs = i;
    if (i % 4 == 1)
        d.sampling.n_prompt_logprobs = 3;
    if (i % 3 == 0) {
        d.stop_ids = &g_stop_ids[i];
        d.n_stop_ids = 1;
        d.sampling.min_tokens = i % 2 == 0 ? 0 : 25;
    } else if (stop[0][0] != '\0') {
        d.stop = stop;
        d.n_stop = 1;
    }
    d.sampling.frequency_penalty = i >= 6 ? 0.5f : 0;
    if (g.narrow && i % 4 < 3) {
        d.allowed = k_few;
        d.n_allowed = i % 4 + 1;
    }
    return rt_engine_submit(g.e.engine, &d, &a->r);
}

static void run_mixed(answer all[MANY], bool sync, int blocks)
{
    bool saved = g.sync;
    rt_stats s;

    g.sync = sync;
    start_engine(bytes_of_blocks(blocks), 0);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(submit_mixed(&all[i], i), TP_OK);
    for (int i = 0; i < MANY; i++)
        finish(&all[i]);
    assert_idle();
    rt_engine_stats(g.e.engine, &s);
    print_message("    %s: %llu steps, %.0f tokens computed, %llu preemptions, %llu of %llu tokens "
                  "of drafts came true\n",
                  sync ? "after the step" : "ahead", (unsigned long long)s.steps,
                  s.iteration_tokens.sum, (unsigned long long)s.preemptions,
                  (unsigned long long)s.drafts.accepted, (unsigned long long)s.drafts.tokens);
    assert_int_equal(s.drafts.accepted > 0, g.speculation.max_tokens > 0);
    assert_true(blocks > 20 || s.preemptions > 0);
    assert_true(s.steps_ahead == 0 || (g.e.be->device && !sync));
    stop_engine();
    g.sync = saved;
}

static void test_same_text_ahead_and_not(void **state)
{
    static answer ahead[MANY], after[MANY];
    int stopped = 0;

    (void)state;
    start_engine(bytes_of_blocks(64), 0);
    find_stops();
    stop_engine();
    for (int blocks = 9; blocks < 100; blocks += 55) {
        run_mixed(ahead, false, blocks);
        run_mixed(after, true, blocks);
        for (int i = 0; i < MANY; i++) {
            for (int c = 0; c < (i % 3 == 2 ? 2 : 1); c++) {
                assert_same(&ahead[i], c, &after[i], c);
                assert_true(ahead[i].logprobs[c] == after[i].logprobs[c]);
                stopped += ahead[i].finish[c] == RT_FINISH_STOP;
            }
            assert_int_equal(ahead[i].n_prompt, after[i].n_prompt);
        }
    }
    assert_true(stopped > 4);
}

/* Where the device draws every token for certain, each step is issued before the one before it is collected; where it does
 * not, or nothing is planned ahead, none is. */
static void test_steps_issued_ahead(void **state)
{
    static answer a;
    int32_t prompt[TOKENS_MAX];

    (void)state;
    for (int i = 0; i < 4; i++) { /* greedy; temperature; top_k in a nucleus; the nucleus alone */
        rt_request_desc d = make_desc(i < 2 ? i : 3, prompt);
        rt_stats s;

        if (i == 2)
            d.sampling.top_k = 20;
        d.sampling.presence_penalty = 0.5f;
        start_engine(bytes_of_blocks(64), 0);
        memset(&a, 0, sizeof a);
        assert_int_equal(rt_engine_submit(g.e.engine, &d, &a.r), TP_OK);
        finish(&a);
        assert_idle();
        rt_engine_stats(g.e.engine, &s);
        assert_int_equal(s.steps, a.n[0]);
        assert_int_equal(s.steps_ahead, g.e.be->device && !g.sync && i < 3 ? a.n[0] - 1 : 0);
        stop_engine();
    }
}

/* Ends that are known cost no row; one that is not costs at most one. */
static void test_rows_for_nothing(void **state)
{
    static answer a;
    int32_t prompt[TOKENS_MAX], stop_id;
    rt_request_desc d = make_desc(2, prompt);
    rt_stats s;
    double rows;

    (void)state;
    start_engine(bytes_of_blocks(64), 0);
    assert_int_equal(submit(&a, 2, 1), TP_OK);
    finish(&a);
    assert_idle();
    rt_engine_stats(g.e.engine, &s);
    rows = s.iteration_tokens.sum;
    assert_true(rows == d.n_prompt + d.sampling.max_tokens - 1);
    stop_id = a.ids[0][10];
    d.stop_ids = &stop_id;
    d.n_stop_ids = 1;
    memset(&a, 0, sizeof a);
    assert_int_equal(rt_engine_submit(g.e.engine, &d, &a.r), TP_OK);
    finish(&a);
    assert_idle();
    rt_engine_drain(g.e.engine, 0); /* the last step is back when the engine has ended */
    join_test_engine(&g.e, TP_OK);
    rt_engine_stats(g.e.engine, &s);
    rows = s.iteration_tokens.sum - rows - (d.n_prompt - a.n_cached) - a.n[0] + 1;
    assert_true(rows == 0 || (rows == 1 && !g.sync));
    close_test_engine(&g.e);
}

/* ---- speculation ---- */

/* A device computes the rows of a draft with another kernel than a single one. */
#ifdef TEST_EMULATED
#    define LOGPROBS_NEAR 1e-2
#else
#    define LOGPROBS_NEAR 0
#endif

static void test_same_text_with_speculation(void **state)
{
    static answer plain[MANY], guessed[MANY];

    (void)state;
    g.narrow = true; /* a model that has learned nothing does not repeat itself by itself */
    for (int blocks = 9; blocks < 100; blocks += 55) {
        run_mixed(plain, g.sync, blocks);
        g.speculation = (rt_speculation){.max_tokens = 6, .ngram = {1, 4}};
        run_mixed(guessed, g.sync, blocks);
        g.speculation = (rt_speculation){0};
        for (int i = 0; i < MANY; i++)
            for (int c = 0; c < (i % 3 == 2 ? 2 : 1); c++) {
                assert_same(&guessed[i], c, &plain[i], c);
                assert_true(fabs(guessed[i].logprobs[c] - plain[i].logprobs[c]) <= LOGPROBS_NEAR);
            }
    }
    g.narrow = false;
}

/* ---- prefix cache ---- */

/* Each request, and then one whose prompt begins with that one and its answer. */
static void run_turns(answer first[MANY], answer second[MANY], int blocks)
{
    rt_stats s;

    start_engine(bytes_of_blocks(blocks), 0);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(submit_mixed(&first[i], i), TP_OK);
    for (int i = 0; i < MANY; i++)
        finish(&first[i]);
    for (int i = MANY - 1; i >= 0; i--) { /* a small cache holds what came last */
        int32_t prompt[TOKENS_MAX];
        rt_request_desc d = make_desc(i, prompt);

        memcpy(prompt + d.n_prompt, first[i].ids[0], sizeof *prompt * (size_t)first[i].n[0]);
        d.n_prompt += first[i].n[0];
        d.sampling.max_tokens = 10;
        d.sampling.n_logprobs = 2;
        if (i % 4 == 2)
            d.sampling.n_prompt_logprobs = 2;
        d.n = 1 + i % 2;
        memset(&second[i], 0, sizeof second[i]);
        assert_int_equal(rt_engine_submit(g.e.engine, &d, &second[i].r), TP_OK);
    }
    for (int i = 0; i < MANY; i++)
        finish(&second[i]);
    assert_idle();
    rt_engine_stats(g.e.engine, &s);
    print_message("    %s: %.0f tokens computed, %llu of %llu tokens of prompts found, %llu "
                  "preemptions\n",
                  g.uncached ? "without" : "with", s.iteration_tokens.sum,
                  (unsigned long long)s.prefix_hits, (unsigned long long)s.prefix_queries,
                  (unsigned long long)s.preemptions);
    assert_true(!g.uncached || s.prefix_hits == 0);
    stop_engine();
}

static void test_same_text_with_prefix_cache(void **state)
{
    static answer first[2][MANY], second[2][MANY];

    (void)state;
    for (int blocks = 9; blocks < 100; blocks += 55) {
        int found = 0;

        for (int way = 0; way < 2; way++) {
            g.uncached = way == 0;
            run_turns(first[way], second[way], blocks);
        }
        for (int i = 0; i < MANY; i++) {
            for (int c = 0; c < (i % 3 == 2 ? 2 : 1); c++) {
                assert_same(&first[1][i], c, &first[0][i], c);
                assert_true(first[1][i].logprobs[c] == first[0][i].logprobs[c]);
            }
            for (int c = 0; c < 1 + i % 2; c++) {
                assert_same(&second[1][i], c, &second[0][i], c);
                assert_true(second[1][i].logprobs[c] == second[0][i].logprobs[c]);
            }
            assert_int_equal(second[1][i].n_prompt, second[0][i].n_prompt);
            assert_int_equal(second[0][i].n_cached, 0);
            found += second[1][i].n_cached > 0;
        }
        assert_true(found > 0 || blocks < 20);
    }
}

static void test_salts_do_not_meet(void **state)
{
    static answer a;
    int32_t prompt[TOKENS_MAX];
    rt_request_desc d = make_desc(4, prompt); /* 33 tokens */

    (void)state;
    start_engine(bytes_of_blocks(64), 0);
    for (int i = 0; i < 4; i++) {
        d.cache_salt[RT_CACHE_SALT_BYTES - 1] = (uint8_t)(i / 2);
        memset(&a, 0, sizeof a);
        assert_int_equal(rt_engine_submit(g.e.engine, &d, &a.r), TP_OK);
        finish(&a);
        assert_int_equal(a.n_cached, i % 2 == 0 ? 0 : 32);
    }
    stop_engine();
}

/* A row from which no token can be drawn ends its own choice, not the engine, whose next step is already planned. */
static void test_no_token_ends_one_choice(void **state)
{
    static answer good, alone, bad;
    int32_t prompt[TOKENS_MAX], id = 7;
    rt_request_desc d = make_desc(1, prompt);

    (void)state;
    start_engine(bytes_of_blocks(64), 0);
    assert_int_equal(submit(&alone, 0, 1), TP_OK);
    finish(&alone);
    assert_int_equal(submit(&good, 0, 1), TP_OK);
    d.allowed = d.stop_ids = &id; /* the only token is one that may not come yet */
    d.n_allowed = d.n_stop_ids = 1;
    d.sampling.min_tokens = 5;
    for (int i = 0; i < 5; i++) {
        memset(&bad, 0, sizeof bad);
        assert_int_equal(rt_engine_submit(g.e.engine, &d, &bad.r), TP_OK);
        finish(&bad);
        assert_int_equal(bad.finish[0], RT_FINISH_ERROR);
        assert_string_equal(bad.error, "internal_error");
    }
    finish(&good);
    assert_same(&good, 0, &alone, 0);
    assert_idle();
    stop_engine();
}

static int count_tokens(rt_request *r, int n_finished[1])
{
    rt_event ev;
    int n = 0;

    while (rt_request_next(r, &ev)) {
        n += ev.kind == RT_EVENT_TOKEN;
        *n_finished += ev.kind == RT_EVENT_FINISH && ev.finish == RT_FINISH_LENGTH;
    }
    return n;
}

/* A box that nobody reads holds its request back, with what the steps under way bring still fitting in. */
static void test_full_box_holds_back(void **state)
{
    int32_t prompt[TOKENS_MAX];
    rt_request_desc d = make_desc(0, prompt);
    int n = 0, n_finished = 0;
    uint64_t steps = 0;
    rt_request *r;
    rt_stats s;

    (void)state;
    start_engine(bytes_of_blocks(64), 0);
    d.n = CROWD;
    d.sampling.max_tokens = 100;
    d.sampling.n_logprobs = RT_LOGPROBS_MAX;
    d.sampling.n_prompt_logprobs = RT_LOGPROBS_MAX;
    assert_int_equal(rt_engine_submit(g.e.engine, &d, &r), TP_OK);
    do {
        steps = s.steps = 0;
        rt_engine_stats(g.e.engine, &s);
        steps = s.steps;
        usleep(300000);
        rt_engine_stats(g.e.engine, &s);
    } while (s.steps != steps || s.steps == 0);
    assert_true(s.running + s.waiting > 0); /* it stands, and is not done */
    while (!rt_request_done(r)) {
        n += count_tokens(r, &n_finished);
        usleep(SLEEP_US);
    }
    assert_int_equal(n, CROWD * 100);
    assert_int_equal(n_finished, CROWD);
    rt_request_release(r);
    assert_idle();
    stop_engine();
}

/* The engine thread fails in the middle: whoever is open learns it, with steps planned that nobody will execute. */
static void test_failure_of_a_step(void **state)
{
    static answer a[MANY], late;

    (void)state;
    for (int at = 1; at < 30; at += 7) {
        create_engine(bytes_of_blocks(16), 0);
        assert_true(tp_fault_arm("comm.ctl_send", at));
        for (int i = 0; i < MANY; i++)
            assert_int_equal(submit(&a[i], i, 2), TP_OK);
        run_test_engine(&g.e);
        for (int i = 0; i < MANY; i++)
            while (!poll(&a[i]))
                usleep(SLEEP_US);
        join_test_engine(&g.e, TP_ERR_COMM);
        assert_int_equal(rt_engine_get_state(g.e.engine), RT_ENGINE_RANK_LOST);
        assert_int_equal(a[0].finish[0], RT_FINISH_ERROR);
        assert_string_equal(a[0].error, "rank_lost");
        assert_int_equal(submit(&late, 0, 1), TP_ERR_COMM);
        for (int i = 0; i < MANY; i++)
            rt_request_release(a[i].r);
        close_test_engine(&g.e);
    }
}

static void allocate(void *unused)
{
    (void)unused;
    tp_free(tp_malloc(1));
}

/* notify is called inside the step: an allocation there must end the process. */
static void test_step_may_not_allocate(void **state)
{
    pid_t child = fork();
    int status;

    (void)state;
    if (child == 0) {
        int32_t prompt[TOKENS_MAX];
        rt_request_desc d = make_desc(0, prompt);
        rt_request *r;

        (void)!freopen("/dev/null", "w", stderr);
        signal(SIGABRT, SIG_DFL);
        create_engine(bytes_of_blocks(16), 0);
        d.notify = allocate;
        if (rt_engine_submit(g.e.engine, &d, &r) == TP_OK)
            (void)test_engine_thread(&g.e);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_step_may_not_allocate), /* forks: before any thread */
        cmocka_unit_test(test_together_as_alone),
        cmocka_unit_test(test_choices_as_alone),
        cmocka_unit_test(test_cancel_at_random_moments),
        cmocka_unit_test(test_queue_full),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_release_after_the_end),
        cmocka_unit_test(test_contract_is_checked),
        cmocka_unit_test(test_prefill_of_the_whole_context),
        cmocka_unit_test(test_submit_without_memory),
        cmocka_unit_test(test_same_text_ahead_and_not),
        cmocka_unit_test(test_steps_issued_ahead),
        cmocka_unit_test(test_rows_for_nothing),
        cmocka_unit_test(test_same_text_with_speculation),
        cmocka_unit_test(test_same_text_with_prefix_cache),
        cmocka_unit_test(test_salts_do_not_meet),
        cmocka_unit_test(test_no_token_ends_one_choice),
        cmocka_unit_test(test_full_box_holds_back),
        cmocka_unit_test(test_failure_of_a_step),
    };
    int failed;

    g.sync = false;
    failed = cmocka_run_group_tests_name("planned ahead", tests, make_model, remove_model);
#ifndef TEST_EMULATED /* it takes its time */
    g.sync = true;
    failed += cmocka_run_group_tests_name("planned after", tests, make_model, remove_model);
#endif
    return failed;
}
