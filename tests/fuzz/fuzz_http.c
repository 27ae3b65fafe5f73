/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_http.c - requests as a client sends them, to two servers of this process over loopback: one with a key, CORS and an
 * engine that runs a tiny model, one without anything whose model is still being loaded.
 *
 * Input: '0' or '1' for the server on a line of its own, then the request: lines end with LF, which becomes CRLF up to the
 * first empty line; "Content-Length: *" gets the length of what follows that.  Every input is followed by a GET /ping that
 * closes, so that what is complete is answered and the connection ends.
 *
 * Promises: an answer has headers of ours only and without control characters; JSON and events are whole and well formed; an
 * error has a code and a text; when the client has sent its last byte, the connection ends.
 */
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/server.h"
#include "base/clock.h"
#include "base/mem.h"
#include "tests/fuzz/fuzz_engine.h"

#define ANSWER_MAX ((size_t)8 << 20)
#define QUIET_MS   50 /* nothing came for so long: the server waits for more of the request */
#define END_NS     (60 * TP_NS_PER_S)

static const char k_last[] = "GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/* ---- servers ---- */

static void *run_engine(void *engine)
{
    TP_ASSERT(rt_engine_run(engine) == TP_OK);
    return NULL;
}

static rt_engine *start_engine(void)
{
    rt_engine *e = fuzz_engine_create(false);
    pthread_t thread;

    TP_ASSERT(pthread_create(&thread, NULL, run_engine, e) == 0 && pthread_detach(thread) == 0);
    return e;
}

/* Both run until the end of the process. */
static int server_port(int which)
{
    static const char *const k_keys[] = {"secret"}, *const k_origins[] = {"http://a"};
    static const char *const k_names[] = {"tiny", "org/tiny"};
    static api_server *servers[2];
    api_options opt = {.host = "127.0.0.1",
                       .model_names = k_names,
                       .n_model_names = 2,
                       .model_root = "tiny",
                       .version = "1",
                       .max_body_bytes = which == 0 ? 200 : 1 << 20,
                       .max_output_tokens = 4,
                       .max_prompts_per_request = 4,
                       .max_seqs_per_request = 8,
                       .log_requests = true};

    if (servers[which] == NULL) {
        if (which == 1) {
            opt.api_keys = k_keys;
            opt.n_api_keys = 1;
            opt.allowed_origins = k_origins;
            opt.n_allowed_origins = 1;
        }
        TP_ASSERT(api_server_create(&servers[which], &opt) == TP_OK);
        if (which == 1)
            api_server_set_engine(servers[which], start_engine());
    }
    return api_server_port(servers[which]);
}

/* ---- the client ---- */

/* Where `what` begins; SIZE_MAX: nowhere. */
static size_t find(fuzz_part in, const char *what)
{
    size_t n = strlen(what);

    for (size_t at = 0; at + n <= in.n; at++)
        if (memcmp(in.text + at, what, n) == 0)
            return at;
    return SIZE_MAX;
}

/* What follows the first empty line. */
static size_t body_length(fuzz_part rest)
{
    size_t at = find(rest, "\n\n");

    if (rest.n > 0 && rest.text[0] == '\n')
        return rest.n - 1;
    return at != SIZE_MAX ? rest.n - at - 2 : 0;
}

static void put_request(tp_buf *out, fuzz_part rest)
{
    static const char k_any[] = "Content-Length: *";
    fuzz_part line;

    while (fuzz_next_line(&rest, &line)) {
        bool is_last = line.n == 0;

        if (line.n == sizeof k_any - 1 && memcmp(line.text, k_any, line.n) == 0) {
            tp_buf_printf(out, "Content-Length: %zu", body_length(rest));
        } else {
            tp_buf_put(out, line.text, line.n);
        }
        tp_buf_puts(out, "\r\n");
        if (is_last)
            break;
    }
    tp_buf_put(out, rest.text, rest.n);
    tp_buf_put(out, k_last, sizeof k_last - 1);
}

/* Reads until the server has closed. */
static void talk(tp_buf *answer, int port, const tp_buf *request)
{
    struct sockaddr_in sa = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct linger at_once = {.l_onoff = 1}; /* no port stays behind */
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int64_t deadline = tp_now_ns() + END_NS;
    bool told = false;
    char bytes[4096];
    ssize_t n;

    TP_ASSERT(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) == 0);
    TP_ASSERT(connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0);
    (void)!send(fd, request->data, request->len, MSG_NOSIGNAL); /* it may be refused half-way */
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};

        if (poll(&p, 1, QUIET_MS) == 1) {
            n = recv(fd, bytes, sizeof bytes, 0);
            if (n <= 0)
                break;
            tp_buf_put(answer, bytes, (size_t)n);
        } else if (!told) {
            (void)shutdown(fd, SHUT_WR);
            told = true;
        }
        TP_ASSERT(tp_now_ns() < deadline);
    }
    close(fd);
}

/* ---- the answers ---- */

static bool is_ours(const char *name, size_t n)
{
    static const char *const k_names[] = {"Date",
                                          "Connection",
                                          "Content-Type",
                                          "Content-Length",
                                          "Transfer-Encoding",
                                          "Cache-Control",
                                          "X-Accel-Buffering",
                                          "x-request-id",
                                          "Retry-After",
                                          "retry-after-ms",
                                          "x-should-retry",
                                          "Allow",
                                          "Vary",
                                          "WWW-Authenticate",
                                          "Access-Control-Allow-Origin",
                                          "Access-Control-Allow-Methods",
                                          "Access-Control-Allow-Headers",
                                          "Access-Control-Expose-Headers",
                                          "Access-Control-Max-Age"};

    for (size_t i = 0; i < TP_ARRAY_LEN(k_names); i++)
        if (strlen(k_names[i]) == n && strncasecmp(k_names[i], name, n) == 0)
            return true;
    return false;
}

typedef struct head {
    int status;
    size_t length; /* SIZE_MAX: chunked or none */
    bool json, events, chunked;
} head;

static void read_header(head *h, fuzz_part line)
{
    const char *colon = memchr(line.text, ':', line.n);
    char text[256] = "";

    TP_ASSERT(colon != NULL && is_ours(line.text, (size_t)(colon - line.text)));
    for (size_t i = 0; i < line.n; i++)
        TP_ASSERT((unsigned char)line.text[i] >= ' ' && line.text[i] != 0x7f);
    memcpy(text, line.text, line.n < sizeof text ? line.n : sizeof text - 1);
    if (strncasecmp(text, "Content-Length:", 15) == 0)
        h->length = strtoull(text + 15, NULL, 10);
    h->chunked |= strcasecmp(text, "Transfer-Encoding: chunked") == 0;
    h->json |= strncasecmp(text, "Content-Type: application/json", 30) == 0;
    h->events |= strncasecmp(text, "Content-Type: text/event-stream", 31) == 0;
}

/* False: cut short. */
static bool read_head(head *h, fuzz_part *rest)
{
    size_t end = find(*rest, "\r\n\r\n");
    fuzz_part lines = {rest->text, end + 2}, line;

    if (end == SIZE_MAX)
        return false;
    *h = (head){.length = SIZE_MAX};
    TP_ASSERT(fuzz_next_line(&lines, &line) && line.n > 12 && memcmp(line.text, "HTTP/1.", 7) == 0);
    h->status = atoi(line.text + 9);
    TP_ASSERT(h->status >= 100 && h->status < 600);
    while (fuzz_next_line(&lines, &line)) {
        TP_ASSERT(line.n > 0 && line.text[line.n - 1] == '\r');
        if (h->status != 100)
            read_header(h, (fuzz_part){line.text, line.n - 1});
    }
    rest->n -= end + 4;
    rest->text += end + 4;
    return true;
}

/* The chunks that have come; false: the last one is not among them. */
static bool read_chunks(tp_buf *out, fuzz_part *rest)
{
    fuzz_part line;

    while (fuzz_next_line(rest, &line)) {
        size_t n = strtoull(line.text, NULL, 16);

        if (line.n == 0 || line.text[line.n] != '\n' || rest->n < n + 2)
            return false;
        tp_buf_put(out, rest->text, n);
        rest->text += n + 2;
        rest->n -= n + 2;
        if (n == 0)
            return true;
    }
    return false;
}

/* NULs are no mistake here: models may say them. */
static tp_json *parse(fuzz_part text)
{
    static const tp_json_limits k_limits = {.allow_nul = true};
    tp_json *root = NULL;

    return tp_json_parse(&root, text.text, text.n, &k_limits) == TP_OK ? root : NULL;
}

static void check_json(const head *h, fuzz_part text)
{
    tp_json *root = parse(text);
    const tp_json *error = tp_json_get(root, "error");

    TP_ASSERT(root != NULL);
    if (h->status >= 400 && tp_json_string(tp_json_get(root, "status")) == NULL) { /* no health */
        TP_ASSERT(tp_json_string(tp_json_get(error, "message")) != NULL);
        TP_ASSERT(tp_json_string(tp_json_get(error, "type")) != NULL);
    }
    tp_json_free(root);
}

static void check_events(fuzz_part text)
{
    fuzz_part line, last = {"", 0};

    while (fuzz_next_line(&text, &line)) {
        if (line.n == 0 || line.text[0] == ':')
            continue;
        TP_ASSERT(line.n > 6 && memcmp(line.text, "data: ", 6) == 0);
        last = (fuzz_part){line.text + 6, line.n - 6};
        if (last.n != 6 || memcmp(last.text, "[DONE]", 6) != 0) {
            tp_json *root = parse(last);

            TP_ASSERT(tp_json_kind(root) == TP_JSON_OBJECT);
            tp_json_free(root);
        }
    }
    TP_ASSERT(last.n == 6 && memcmp(last.text, "[DONE]", 6) == 0);
}

/* One answer; false when what follows cannot be told. */
static bool check_answer(fuzz_part *rest)
{
    fuzz_part body;
    tp_buf chunks;
    bool whole;
    head h;

    if (!read_head(&h, rest))
        return false;
    if (h.chunked) {
        tp_buf_init(&chunks, ANSWER_MAX);
        whole = read_chunks(&chunks, rest);
        body = (fuzz_part){tp_buf_str(&chunks), chunks.len};
        if (whole && h.events)
            check_events(body);
        else if (whole && h.json)
            check_json(&h, body);
        tp_buf_release(&chunks);
        return whole;
    }
    if (h.length == SIZE_MAX || (rest->n > 7 && memcmp(rest->text, "HTTP/1.", 7) == 0))
        return true; /* an answer to HEAD, or one that has no body */
    if (rest->n < h.length)
        return false;
    if (h.json)
        check_json(&h, (fuzz_part){rest->text, h.length});
    rest->text += h.length;
    rest->n -= h.length;
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_part rest = {(const char *)data, size}, which = {"", 0};
    tp_buf request, answer;

    fuzz_init();
    (void)fuzz_next_line(&rest, &which);
    tp_buf_init(&request, ANSWER_MAX);
    tp_buf_init(&answer, ANSWER_MAX);
    put_request(&request, rest);
    talk(&answer, server_port(which.n == 1 && which.text[0] == '0' ? 0 : 1), &request);
    TP_ASSERT(!answer.failed);
    rest = (fuzz_part){tp_buf_str(&answer), answer.len};
    while (rest.n > 0 && check_answer(&rest))
        continue;
    tp_buf_release(&request);
    tp_buf_release(&answer);
    return 0;
}
