/* SPDX-License-Identifier: Apache-2.0 */
/* test_inject_request.c - memory that runs out while requests are parsed, submitted, run and answered, from the body's text to
 * the bytes on the wire; the server goes on serving.
 *
 * usage: test_inject_request [all]
 */
#include "tests/unit/injection/injection.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>

#include "api/server.h"
#include "base/clock.h"
/* White box: the reading of prompts has no header of its own. */
#include "api/openai_completions.c"

#define SAMPLE     150
#define WAIT_S     120
#define ANSWER_MAX (1 << 20)

static struct {
    kern_backend *be;
    rt_engine *engine;
    api_server *server;
    pthread_t thread;
    tp_status run_status;
} g;

/* ---- parsing ---- */

static const char k_chat[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":[{\"type\":\"text\",\"text\":\"hell\"},"
    "{\"type\":\"text\",\"text\":\"o\"}]},{\"role\":\"user\",\"content\":\"hello <s> hello\"},"
    "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"c\",\"type\":\"function\","
    "\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"x\\\":[1,2.5]}\"}}]},{\"role\":\"tool\","
    "\"content\":\"7\",\"tool_call_id\":\"c\"}],\"max_tokens\":4,\"stop\":[\"zzz\"],\"temperature\":0,"
    "\"logit_bias\":{\"5\":1.5},\"stop_token_ids\":[3],\"chat_template_kwargs\":{\"a\":\"b\"}}";
static const char k_text[] =
    "{\"prompt\":[\"hello hello\",[1,2,3],\"he<s>\\ud83d\\ude42\"],\"max_tokens\":3,\"echo\":true,"
    "\"logprobs\":2,\"temperature\":0}";

typedef struct body_case {
    const char *text;
    bool chat;
    rt_tokens expected[4]; /* of each prompt */
} body_case;

static bool read_body(api_gen *gen, const body_case *c, api_problem *problem)
{
    gen->body = api_parse_body(c->text, strlen(c->text), problem);
    if (gen->body == NULL || !api_params_read(&gen->params, gen->body, c->chat,
                                              rt_engine_get_info(gen->engine), problem))
        return false;
    if (!c->chat)
        return read_prompts(gen, problem);
    return api_gen_alloc_prompts(gen, 1, problem) &&
           api_chat_prompt(gen->engine, &gen->params, false, gen, &gen->prompts[0].tokens, problem);
}

/* What came out now is what came out first. */
static void compare_prompts(body_case *c, const api_gen *gen)
{
    for (int i = 0; i < gen->n_prompts; i++) {
        const rt_tokens *got = &gen->prompts[i].tokens;
        rt_tokens *want = &c->expected[i];

        if (want->ids == NULL) {
            want->ids = tp_calloc(got->n, sizeof *want->ids);
            assert_non_null(want->ids);
            memcpy(want->ids, got->ids, got->n * sizeof *got->ids);
            want->n = got->n;
        }
        assert_int_equal(got->n, want->n);
        assert_memory_equal(got->ids, want->ids, want->n * sizeof *want->ids);
        if (gen->params.echo && c->text == k_text && i == 0)
            assert_string_equal(tp_buf_str(&gen->prompts[i].text), "hello hello");
    }
}

static inj_outcome try_body(void *ctx)
{
    static api_server server = {.opt = {.max_prompts_per_request = 8, .max_seqs_per_request = 16}};
    static api_gen gen;
    body_case *c = ctx;
    api_problem problem = {0};
    bool ok;

    memset(&gen, 0, sizeof gen);
    gen.engine = g.engine;
    gen.server = &server;
    gen.tokenizer = rt_engine_tokenizer(g.engine);
    ok = read_body(&gen, c, &problem);
    inj_disarm();
    if (ok) {
        compare_prompts(c, &gen);
    } else if (problem.status != 503 || strcmp(problem.code, "out_of_memory") != 0) {
        fail_msg("%d %s: %s", problem.status, problem.code, problem.message);
    }
    for (int i = 0; i < gen.n_prompts; i++) {
        rt_tokens_release(&gen.prompts[i].tokens);
        tp_buf_release(&gen.prompts[i].text);
    }
    tp_free(gen.prompts);
    tp_free(gen.choices);
    tp_json_free(gen.body);
    return ok ? INJ_SAME : INJ_FAILED;
}

static void parse_both(void **state)
{
    body_case cases[] = {{.text = k_chat, .chat = true}, {.text = k_text}};

    (void)state;
    for (size_t i = 0; i < TP_ARRAY_LEN(cases); i++) {
        inj_every_allocation(cases[i].chat ? "body of a chat" : "body of completions", try_body,
                             &cases[i], 1000);
        for (size_t k = 0; k < TP_ARRAY_LEN(cases[i].expected); k++)
            rt_tokens_release(&cases[i].expected[k]);
    }
}

/* ---- the engine ---- */

static int32_t g_first[8]; /* tokens of the request that nothing disturbed */
static int g_n_first;

static inj_outcome try_request(void *unused)
{
    static const char *const k_stop[] = {"never", "seen"};
    static const int32_t k_prompt[] = {5, 6, 7, 8, 9};
    rt_request_desc d = {.prompt = k_prompt,
                         .n_prompt = TP_ARRAY_LEN(k_prompt),
                         .n = 2,
                         .sampling = rt_sampling_default(),
                         .stop = k_stop,
                         .n_stop = 2};
    int64_t deadline = tp_now_ns() + WAIT_S * TP_NS_PER_S;
    int32_t tokens[8];
    rt_request *r = NULL;
    tp_status st;
    rt_event ev;
    int n = 0;

    (void)unused;
    d.sampling.max_tokens = 4;
    d.sampling.ignore_eos = true;
    st = rt_engine_submit(g.engine, &d, &r);
    if (st != TP_OK) {
        assert_int_equal(st, TP_ERR_NOMEM);
        assert_null(r);
        return INJ_FAILED;
    }
    while (!rt_request_done(r)) {
        while (rt_request_next(r, &ev))
            if (ev.kind == RT_EVENT_TOKEN && ev.choice == 0 && n < 8)
                tokens[n++] = ev.token;
        assert_true(tp_now_ns() < deadline);
        usleep(100);
    }
    rt_request_release(r);
    if (g_n_first == 0)
        memcpy(g_first, tokens, sizeof tokens[0] * (size_t)(g_n_first = n));
    assert_int_equal(n, 4);
    assert_memory_equal(tokens, g_first, sizeof tokens[0] * (size_t)n);
    return INJ_SAME;
}

static void submit_and_run(void **state)
{
    (void)state;
    inj_every_allocation("request in the engine", try_request, NULL, 1000);
}

/* ---- over the wire ---- */

static char g_answer[ANSWER_MAX], g_reference[ANSWER_MAX];

static int connect_to_server(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons((uint16_t)api_server_port(g.server))};
    struct timeval wait = {.tv_sec = WAIT_S};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

/* Sends a request and reads until the server closes; the answer without what differs every time. */
static void exchange(const char *path, const char *body)
{
    int fd = connect_to_server(), n;
    static char request[8192];
    size_t len = 0;
    ssize_t got;

    n = snprintf(request, sizeof request,
                 "POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: "
                 "application/json\r\nContent-Length: %zu\r\n\r\n%s",
                 path, strlen(body), body);
    assert_int_equal(send(fd, request, (size_t)n, MSG_NOSIGNAL), n);
    while ((got = recv(fd, g_answer + len, sizeof g_answer - 1 - len, 0)) > 0)
        len += (size_t)got;
    assert_true(got == 0 || errno == ECONNRESET); /* else: nothing came for WAIT_S */
    g_answer[len] = '\0';
    assert_int_equal(close(fd), 0);
}

/* Blanks the value behind every `key`, up to `end`. */
static void blank(char *text, const char *key, char end)
{
    for (char *at = strstr(text, key); at != NULL; at = strstr(at, key))
        for (at += strlen(key); *at != '\0' && *at != end; at++)
            *at = '#';
}

/* The text of an answer: what stands behind "text": or "content":, all pieces of a stream together. */
static void collect(char *out, const char *key)
{
    size_t len = 0;

    for (const char *at = strstr(g_answer, key); at != NULL; at = strstr(at, key))
        for (at += strlen(key); *at != '\0' && (*at != '"' || at[-1] == '\\'); at++)
            out[len++] = *at;
    out[len] = '\0';
}

typedef struct wire_case {
    const char *name, *path, *body, *key;
    bool stream;
    bool known; /* g_reference holds its text */
    int n_cut;
} wire_case;

static inj_outcome try_wire(void *ctx)
{
    static char text[ANSWER_MAX];
    wire_case *c = ctx;
    bool good, whole;

    exchange(c->path, c->body);
    inj_disarm();
    blank(g_answer, "\"id\":\"", '"');
    good = strncmp(g_answer, "HTTP/1.1 200", 12) == 0;
    whole = strstr(g_answer, c->stream ? "[DONE]" : "\"usage\"") != NULL;
    if (!good || strstr(g_answer, "\"error\":{") != NULL) {
        c->n_cut += g_answer[0] == '\0';
        if (g_answer[0] != '\0' && strstr(g_answer, "\"message\":") == NULL)
            fail_msg("no message in: %.600s", g_answer);
        return INJ_FAILED;
    }
    if (!whole) { /* it must be seen that something is missing: no last chunk, or less than announced */
        assert_null(strstr(g_answer, "\r\n0\r\n\r\n"));
        c->n_cut++;
        return INJ_FAILED;
    }
    collect(text, c->key);
    if (!c->known)
        memcpy(g_reference, text, strlen(text) + 1);
    c->known = true;
    assert_string_equal(text, g_reference);
    return INJ_SAME;
}

static void over_the_wire(void **state)
{
#define CHAT                                                                                       \
    "{\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}],\"max_tokens\":5,\"seed\":1,\"temperature\":0"
#define TEXT "{\"prompt\":\"hello\",\"max_tokens\":5,\"seed\":1,\"logprobs\":1,\"temperature\":0"
    wire_case cases[] = {
        {.name = "chat", .path = "/v1/chat/completions", .body = CHAT "}", .key = "\"content\":\""},
        {.name = "chat, streamed",
         .path = "/v1/chat/completions",
         .body = CHAT ",\"stream\":true}",
         .key = "\"content\":\"",
         .stream = true},
        {.name = "completion", .path = "/v1/completions", .body = TEXT "}", .key = "\"text\":\""},
        {.name = "completion, streamed",
         .path = "/v1/completions",
         .body = TEXT ",\"stream\":true}",
         .key = "\"text\":\"",
         .stream = true},
    };

    (void)state;
    for (size_t i = 0; i < TP_ARRAY_LEN(cases); i++) {
        inj_every_allocation(cases[i].name, try_wire, &cases[i], SAMPLE);
        print_message("    of these, %d were cut off without an answer\n", cases[i].n_cut);
    }
}

/* ---- the server ---- */

static void *run_engine(void *unused)
{
    (void)unused;
    g.run_status = rt_engine_run(g.engine);
    return NULL;
}

static int start(void **state)
{
    static const char *const k_names[] = {"m"};
    comm_world world = {.rank = 0, .size = 1, .local_rank = 0, .local_size = 1, .n_hosts = 1};
    rt_engine_options opt = {.max_num_seqs = 8,
                             .max_num_batched_tokens = 64,
                             .max_model_len = 512,
                             .kv_cache_memory_bytes = 1 << 22,
                             .watermark = -1,
                             .dtype = "float32",
                             .comm = "self"};
    api_options ao = {.host = "127.0.0.1", .model_names = k_names, .n_model_names = 1};

    (void)state;
    opt.model_dir = inj_make_model();
    assert_int_equal(kern_cpu_ops()->open(&g.be, &(kern_open_args){.n_threads = 1}), TP_OK);
    assert_int_equal(rt_engine_create(&g.engine, &opt, g.be, &world), TP_OK);
    assert_int_equal(api_server_create(&g.server, &ao), TP_OK);
    api_server_set_engine(g.server, g.engine);
    assert_int_equal(pthread_create(&g.thread, NULL, run_engine, NULL), 0);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    rt_engine_drain(g.engine, 0);
    assert_int_equal(pthread_join(g.thread, NULL), 0);
    assert_int_equal(g.run_status, TP_OK);
    api_server_stop(g.server, 1000);
    api_server_destroy(g.server);
    rt_engine_destroy(g.engine);
    g.be->ops->close(g.be);
    inj_remove_model();
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parse_both),
        cmocka_unit_test(submit_and_run),
        cmocka_unit_test(over_the_wire),
    };

    inj_set_all(argc > 1 && strcmp(argv[1], "all") == 0);
    return cmocka_run_group_tests(tests, start, stop);
}
