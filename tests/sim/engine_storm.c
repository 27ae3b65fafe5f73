/* SPDX-License-Identifier: Apache-2.0 */
/* engine_storm.c - a whole engine with real threads over a tiny checkpoint: API threads submit, read fast or slowly, cancel,
 * and leave, all at once.
 *
 * What each kind of request answers alone is recorded first.  In a storm, with a cache of a few blocks and a short queue,
 * every request must end exactly once per choice, for the right reason, with the same tokens and text, or with a
 * beginning of them where it was left or shut down; nobody is notified after having cancelled; in the end every
 * block is free and every choice is counted once.  Seeds decide what threads do, not when: TPSERVE_TEST_SEED=n chooses
 * other ones.
 */
#include "tests/unit/runtime/engine_testing.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/clock.h"

#define THREADS     10
#define KINDS       24
#define CHOICES     3
#define PROMPT_MAX  90
#define ANSWER_MAX  32
#define TEXT_MAX    1024
#define BLOCK_BYTES 8192
#if defined __SANITIZE_THREAD__ || defined __SANITIZE_ADDRESS__ /* slow */
#    define REQUESTS 7                                          /* per thread and storm */
#else
#    define REQUESTS 60
#endif
#define PATIENCE_S 120 /* for one event, on a machine that does other things too */

/* ---- the engine ---- */

typedef struct fixture {
    test_engine e;
    uint64_t seed;
    atomic_bool failed;
    char failure[256]; /* of the first thread that fails */
} fixture;

static fixture g;

static int make_model(void **state)
{
    const char *seed = getenv("TPSERVE_TEST_SEED");

    (void)state;
    g.seed = seed != NULL ? strtoull(seed, NULL, 10) : 1;
    make_test_model(&g.e);
    return 0;
}

static int remove_model(void **state)
{
    (void)state;
    remove_test_model(&g.e);
    return 0;
}

static void start_engine(int n_blocks, int queue, bool sync, bool caching, bool guessing)
{
    rt_engine_options opt = test_engine_options(&g.e, (int64_t)n_blocks * BLOCK_BYTES, queue);

    opt.sync_scheduling = sync;
    opt.no_prefix_caching = !caching;
    opt.speculation = (rt_speculation){.max_tokens = guessing ? 5 : 0, .ngram = {1, 4}};
    create_test_engine(&g.e, kern_cpu_ops(), &opt);
    assert_int_equal(rt_engine_get_info(g.e.engine)->n_blocks, n_blocks);
    run_test_engine(&g.e);
}

/* ---- kinds of requests ---- */

typedef struct answer {
    int n[CHOICES], n_ends[CHOICES], n_rows;
    int32_t ids[CHOICES][ANSWER_MAX];
    char text[CHOICES][TEXT_MAX];
    rt_finish finish[CHOICES];
    bool shut_down[CHOICES];
} answer;

static answer g_alone[KINDS];

/* Three groups share a long beginning each; one of them under two salts. */
static rt_request_desc make_desc(int kind, int32_t prompt[PROMPT_MAX])
{
    static const char *const k_stops[] = {"e", "ab"};
    rt_request_desc d = {.prompt = prompt, .sampling = rt_sampling_default()};
    int group = kind % 3, common = 20 + 15 * group;

    d.n = kind % 5 == 4 ? CHOICES : 1;
    d.n_prompt = common + 1 + kind;
    for (int i = 0; i < d.n_prompt; i++)
        prompt[i] = 3 + (i < common ? group * 77 + i * 13 : kind * 131 + i * 17) % 590;
    d.sampling.max_tokens = kind % 7 == 6 ? 0 : 4 + kind * 5 % (ANSWER_MAX - 4);
    d.sampling.ignore_eos = kind % 2 == 0;
    d.sampling.seed = (uint64_t)kind * 100;
    d.sampling.temperature = kind % 3 == 1 ? 1.0f : 0.0f;
    d.sampling.n_prompt_logprobs = kind % 8 == 5 ? 1 : -1;
    d.cache_salt[0] = (uint8_t)(group == 2 && kind % 2 == 1);
    if (kind % 4 == 3) {
        d.stop = k_stops;
        d.n_stop = TP_ARRAY_LEN(k_stops);
    }
    return d;
}

/* ---- one thread's client ---- */

typedef struct client {
    pthread_t thread;
    uint64_t random;
    int n_requests; /* to make */
    bool may_be_shut_down;
    /* made */
    int n_accepted, n_refused, n_choices, n_complete, n_cut, n_left;
    /* the request that it waits for */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool notified, cancelled;
} client;

static void fail_client(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static void fail_client(const char *fmt, ...)
{
    va_list ap;

    if (atomic_exchange(&g.failed, true))
        return;
    va_start(ap, fmt);
    (void)vsnprintf(g.failure, sizeof g.failure, fmt, ap);
    va_end(ap);
}

#define CHECK(ok, ...)                                                                             \
    do {                                                                                           \
        if (!(ok))                                                                                 \
            fail_client(__VA_ARGS__);                                                              \
    } while (0)

static uint32_t below(client *c, uint32_t n)
{
    c->random = c->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((c->random >> 33) % n);
}

static void notify(void *client_)
{
    client *c = client_;

    pthread_mutex_lock(&c->lock);
    CHECK(!c->cancelled, "a reader is notified after it has cancelled");
    c->notified = true;
    pthread_mutex_unlock(&c->lock);
    pthread_cond_signal(&c->wake);
}

/* False after a long time without a word. */
static bool wait_for_notice(client *c)
{
    struct timespec until;
    bool there;

    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_S;
    pthread_mutex_lock(&c->lock);
    while (!c->notified && pthread_cond_timedwait(&c->wake, &c->lock, &until) == 0)
        ;
    there = c->notified;
    c->notified = false;
    pthread_mutex_unlock(&c->lock);
    return there;
}

static void take_event(answer *a, const rt_event *ev, int n)
{
    int i = ev->choice;

    if (i < 0 || i >= n || a->n_ends[i] > 0) {
        fail_client("an event of choice %d, which has ended or is none", i);
        return;
    }
    if (strlen(a->text[i]) + ev->text_len < TEXT_MAX)
        strncat(a->text[i], ev->text, ev->text_len);
    a->n_rows += ev->kind == RT_EVENT_PROMPT;
    if (ev->kind == RT_EVENT_TOKEN && a->n[i] < ANSWER_MAX)
        a->ids[i][a->n[i]++] = ev->token;
    if (ev->kind != RT_EVENT_FINISH)
        return;
    a->n_ends[i]++;
    a->finish[i] = ev->finish;
    a->shut_down[i] = ev->error_code != NULL && strcmp(ev->error_code, "shutdown") == 0;
}

/* Whether what came of a choice is what comes of it alone, or a beginning where it was cut short. */
static void compare(const client *c, int kind, int i, const answer *a, bool left)
{
    const answer *alone = &g_alone[kind];
    bool cut = a->n_ends[i] == 0 || a->finish[i] == RT_FINISH_ERROR;

    CHECK(a->n_ends[i] == 1 || left, "kind %d.%d has ended %d times", kind, i, a->n_ends[i]);
    CHECK(a->finish[i] != RT_FINISH_ABORT, "kind %d.%d is aborted", kind, i);
    CHECK(a->finish[i] != RT_FINISH_ERROR || (a->shut_down[i] && c->may_be_shut_down),
          "kind %d.%d ends with an error", kind, i);
    CHECK(a->n[i] <= alone->n[i] &&
              memcmp(a->ids[i], alone->ids[i], sizeof(int32_t) * (size_t)a->n[i]) == 0,
          "kind %d.%d has other tokens than alone", kind, i);
    /* an end that comes early may let out the beginning of a character, as U+FFFD */
    CHECK(a->n_ends[i] == 1 || strncmp(a->text[i], alone->text[i], strlen(a->text[i])) == 0,
          "kind %d.%d begins with \"%s\", and alone says \"%s\"", kind, i, a->text[i],
          alone->text[i]);
    if (cut)
        return;
    CHECK(a->n[i] == alone->n[i] && a->finish[i] == alone->finish[i] &&
              strcmp(a->text[i], alone->text[i]) == 0,
          "kind %d.%d says \"%s\" (%d), and alone \"%s\" (%d)", kind, i, a->text[i],
          (int)a->finish[i], alone->text[i], (int)alone->finish[i]);
    CHECK(i > 0 || a->n_rows == alone->n_rows, "kind %d has %d rows of its prompt, alone %d", kind,
          a->n_rows, alone->n_rows);
}

typedef enum manner { READS, READS_SLOWLY, CANCELS, LEAVES, LEAVES_AT_ONCE, MANNERS } manner;

/* Some events may still come of what was under way; an end is not promised any more. */
static void cancel(client *c, rt_request *r, int n, answer *a)
{
    rt_event ev;

    if (below(c, 2) == 0) {
        pthread_mutex_lock(&c->lock); /* which notify() takes */
        rt_request_abandon(r);
        pthread_mutex_unlock(&c->lock);
    }
    rt_request_cancel(r);
    pthread_mutex_lock(&c->lock);
    c->cancelled = true;
    pthread_mutex_unlock(&c->lock);
    for (int i = (int)below(c, 10); i > 0; i--) {
        while (rt_request_next(r, &ev))
            take_event(a, &ev, n);
        tp_sleep_us(below(c, 300));
    }
}

/* Reads until the end, or until it does not want to any more; false: has left before the end. */
static bool read_events(client *c, rt_request *r, int n, manner how, answer *a)
{
    int until = how == CANCELS || how == LEAVES ? (int)below(c, 20) : -1;
    rt_event ev;

    if (how == LEAVES_AT_ONCE)
        return false;
    while (!rt_request_done(r) && !atomic_load(&g.failed)) {
        if (until-- == 0) {
            if (how == CANCELS)
                cancel(c, r, n, a);
            return false;
        }
        if (how == READS_SLOWLY)
            tp_sleep_us(below(c, 1500));
        if (rt_request_next(r, &ev))
            take_event(a, &ev, n);
        else
            CHECK(wait_for_notice(c), "nothing comes of a request");
    }
    CHECK(!rt_request_next(r, &ev), "an event after the last");
    return true;
}

/* One request from its submission to its release; false: none will be taken any more. */
static bool make_request(client *c, int kind, manner how, bool batched, answer *a)
{
    int32_t prompt[PROMPT_MAX];
    rt_request_desc d = make_desc(kind, prompt);
    rt_request *r;
    tp_status st;
    bool left;

    memset(a, 0, sizeof *a);
    c->notified = c->cancelled = false;
    d.notify = notify;
    d.ctx = c;
    d.batched = batched;
    while ((st = rt_engine_submit(g.e.engine, &d, &r)) == TP_ERR_FULL) {
        c->n_refused++;
        tp_sleep_us(2000 + below(c, 4000));
    }
    if (st == TP_ERR_DRAINING && c->may_be_shut_down)
        return false;
    CHECK(st == TP_OK, "a request is refused: %s", tp_status_name(st));
    if (st != TP_OK)
        return false;
    c->n_accepted++;
    c->n_choices += d.n;
    left = !read_events(c, r, d.n, how, a);
    c->n_left += left;
    for (int i = 0; i < d.n && how != MANNERS && !atomic_load(&g.failed); i++) {
        compare(c, kind, i, a, left);
        c->n_complete += a->n_ends[i] == 1 && a->finish[i] != RT_FINISH_ERROR;
        c->n_cut += a->n_ends[i] == 1 && a->finish[i] == RT_FINISH_ERROR;
    }
    rt_request_release(r);
    return true;
}

static void init_client(client *c, int i, int n_requests, bool may_be_shut_down)
{
    *c = (client){.random = g.seed * 1000 + (uint64_t)i,
                  .n_requests = n_requests,
                  .may_be_shut_down = may_be_shut_down};
    assert_int_equal(pthread_mutex_init(&c->lock, NULL), 0);
    assert_int_equal(pthread_cond_init(&c->wake, NULL), 0);
}

static void release_client(client *c)
{
    (void)pthread_cond_destroy(&c->wake);
    (void)pthread_mutex_destroy(&c->lock);
}

static void *run_client(void *client_)
{
    static const manner k_manners[] = {READS,   READS,  READS,  READS_SLOWLY,
                                       CANCELS, LEAVES, LEAVES, LEAVES_AT_ONCE};
    client *c = client_;
    answer a;

    for (int i = 0; i < c->n_requests && !atomic_load(&g.failed); i++) {
        int kind = (int)below(c, KINDS);
        manner how = k_manners[below(c, TP_ARRAY_LEN(k_manners))];

        if (!make_request(c, kind, how, below(c, 3) == 0, &a))
            break;
    }
    return NULL;
}

/* ---- storms ---- */

static void record_alone(void)
{
    client c;

    init_client(&c, 0, 0, false);
    start_engine(48, 0, true, false, false);
    for (int kind = 0; kind < KINDS; kind++)
        assert_true(make_request(&c, kind, MANNERS, false, &g_alone[kind]));
    rt_engine_drain(g.e.engine, 0);
    join_test_engine(&g.e, TP_OK);
    close_test_engine(&g.e);
    release_client(&c);
}

static void start_clients(client *clients, int n_requests, bool may_be_shut_down)
{
    for (int i = 0; i < THREADS; i++) {
        init_client(&clients[i], i + 1, n_requests, may_be_shut_down);
        assert_int_equal(pthread_create(&clients[i].thread, NULL, run_client, &clients[i]), 0);
    }
}

/* Adds up in the first what all have done. */
static void join_clients(client *clients)
{
    client *sum = &clients[0];

    for (int i = 0; i < THREADS; i++) {
        const client *c = &clients[i];

        assert_int_equal(pthread_join(c->thread, NULL), 0);
        release_client(&clients[i]);
        if (i == 0)
            continue;
        sum->n_accepted += c->n_accepted;
        sum->n_refused += c->n_refused;
        sum->n_choices += c->n_choices;
        sum->n_complete += c->n_complete;
        sum->n_cut += c->n_cut;
        sum->n_left += c->n_left;
    }
}

static uint64_t n_ended(const rt_stats *s)
{
    return s->finished_stop + s->finished_length + s->finished_abort + s->finished_error;
}

/* Every choice is counted once, and no block is used. */
static void check_stats(const client *sum, const rt_stats *s)
{
    print_message("    %d requests, %d choices: %d complete, %d shut down, %d requests left; "
                  "%d times a full queue; %llu steps, %llu preemptions, %llu tokens found\n",
                  sum->n_accepted, sum->n_choices, sum->n_complete, sum->n_cut, sum->n_left,
                  sum->n_refused, (unsigned long long)s->steps, (unsigned long long)s->preemptions,
                  (unsigned long long)s->prefix_hits);
    if (atomic_load(&g.failed))
        fail_msg("%s (TPSERVE_TEST_SEED=%llu)", g.failure, (unsigned long long)g.seed);
    assert_int_equal(n_ended(s), sum->n_choices);
    assert_int_equal(s->blocks_used, 0);
    assert_int_equal(s->running + s->waiting, 0);
}

/* Those whose readers have left may still be on their way to the scheduler. */
static void wait_until_idle(const client *sum, rt_stats *s)
{
    int64_t end = tp_now_ns() + PATIENCE_S * TP_NS_PER_S;

    do {
        tp_sleep_us(500);
        rt_engine_stats(g.e.engine, s);
    } while ((s->blocks_used > 0 || s->running > 0 || s->waiting > 0 ||
              n_ended(s) < (uint64_t)sum->n_choices) &&
             tp_now_ns() < end);
}

static void storm(int n_blocks, bool sync, bool caching, bool guessing)
{
    static client clients[THREADS];
    rt_stats s;

    start_engine(n_blocks, 2, sync, caching, guessing);
    start_clients(clients, REQUESTS, false);
    join_clients(clients);
    wait_until_idle(&clients[0], &s);
    check_stats(&clients[0], &s);
    assert_true(clients[0].n_complete > 0 && clients[0].n_left > 0);
    assert_int_equal(s.prefix_hits > 0, caching);
    assert_int_equal(s.drafts.tokens > 0, guessing);
    rt_engine_drain(g.e.engine, 0);
    join_test_engine(&g.e, TP_OK);
    close_test_engine(&g.e);
}

static void test_alone(void **state)
{
    (void)state;
    record_alone();
    if (atomic_load(&g.failed))
        fail_msg("%s", g.failure);
    for (int kind = 0; kind < KINDS; kind++)
        assert_int_equal(g_alone[kind].n_ends[0], 1);
}

static void test_storm(void **state)
{
    (void)state;
    storm(9, false, true, false);
}

static void test_storm_without_cache(void **state)
{
    (void)state;
    storm(8, false, false, false);
}

static void test_storm_in_turn(void **state)
{
    (void)state;
    storm(9, true, true, false);
}

static void test_storm_with_guesses(void **state)
{
    (void)state;
    storm(9, false, true, true);
    storm(40, false, false, true);
}

/* The drain comes into the middle of a storm, twice: with time for some, and then with none. */
static void test_drain_in_a_storm(void **state)
{
    static client clients[THREADS];
    rt_stats s;

    (void)state;
    for (int round = 0; round < 4; round++) {
        g.seed += 100;
        start_engine(9, 2, round % 2 == 1, true, round % 2 == 0);
        start_clients(clients, INT32_MAX, true);
        do {
            tp_sleep_us(1000);
            rt_engine_stats(g.e.engine, &s);
        } while (s.steps < 50 && !atomic_load(&g.failed));
        rt_engine_drain(g.e.engine, round < 2 ? 0 : 20);
        join_test_engine(&g.e, TP_OK);
        join_clients(clients);
        rt_engine_stats(g.e.engine, &s);
        check_stats(&clients[0], &s);
        close_test_engine(&g.e);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_storm),
        cmocka_unit_test(test_storm_without_cache),
        cmocka_unit_test(test_storm_in_turn),
        cmocka_unit_test(test_storm_with_guesses),
        cmocka_unit_test(test_drain_in_a_storm),
    };

    return cmocka_run_group_tests(tests, make_model, remove_model);
}
