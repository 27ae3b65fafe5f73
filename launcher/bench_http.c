/* SPDX-License-Identifier: Apache-2.0 */
/* bench_http.c - the load generator: an event loop of one thread over libcurl's multi interface and epoll.
 *
 * A slot holds one request after the other; there are as many as may be under way at a time, and connections stay open
 * between requests.  Requests start in the order of the load, each when its time has come and a slot is free.  Bytes
 * become events where they arrive (bench_sse.c), and every event that carries text is timed.
 *
 * A request is done when its stream has ended as it should ([DONE] or a finish_reason); whatever else happens is a
 * failure of some kind, is counted, and never ends the load.  No proxy is used, whatever the environment says.
 */
#include <curl/curl.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "launcher/bench.h"
#include "launcher/bench_sse.h"
#include "runtime/model/progress.h"

#define EVENTS            256
#define CONNECT_MS        10000L
#define ANSWER_MAX        ((size_t)64 << 20)
#define MODELS_MAX        ((size_t)4 << 20)
#define SAID_MAX          ((size_t)64 << 10) /* of an error answer */
#define URL_MAX           2048
#define FILES_BESIDE      64 /* open files that are no connections */
#define PROGRESS_EVERY_NS (100 * TP_NS_PER_MS)

typedef struct runner runner;

typedef struct slot {
    runner *run;
    CURL *easy; /* owned */
    launch_sse sse;
    tp_buf body, answer; /* what is sent; what comes when it is no stream */
    const launch_ask *ask;
    launch_done done;
    int64_t last_ns; /* of its last text */
    int pieces;      /* events with text */
    bool ended;      /* as it should */
    bool left;       /* by us */
    char error[64];  /* what the stream said or did wrong; "" = nothing */
    int next_free;   /* slot; -1 = none */
} slot;

struct runner {
    const launch_http_target *target;
    const launch_load *load;
    launch_result *result;
    char url[URL_MAX], model[256];
    bool chat;
    launch_ask *asks;           /* owned */
    struct curl_slist *headers; /* owned */
    CURLM *multi;               /* owned */
    int epoll;                  /* owned; -1 = none */
    int64_t timer_ns;           /* when curl wants to be called; INT64_MAX = never */
    slot *slots;                /* owned; [n_slots] */
    int n_slots, free;
    int next, in_flight; /* the request to start next; how many are under way */
    int64_t begin_ns;
    tp_status status; /* of the generator itself */
};

/* ---- addresses ---- */

static tp_status join_url(char out[URL_MAX], const char *base, const char *path)
{
    int len = snprintf(out, URL_MAX, "%s%s%s", base, *path == '/' ? "" : "/", path);

    return len < URL_MAX ? TP_OK : TP_FAIL(TP_ERR_INVALID, "--base-url: longer than %d", URL_MAX);
}

static tp_status add_header(struct curl_slist **list, const char *line)
{
    struct curl_slist *longer = curl_slist_append(*list, line);

    if (longer == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "out of memory for a header");
    *list = longer;
    return TP_OK;
}

static tp_status make_headers(struct curl_slist **list, const launch_http_target *t)
{
    tp_status st;
    tp_buf key;

    TP_TRY(add_header(list, "Content-Type: application/json"));
    TP_TRY(add_header(list, "Expect:"));
    if (t->api_key == NULL)
        return TP_OK;
    tp_buf_init(&key, SIZE_MAX);
    tp_buf_printf(&key, "Authorization: Bearer %s", t->api_key);
    st = key.failed ? TP_ERR_NOMEM : add_header(list, tp_buf_str(&key));
    tp_buf_release(&key);
    return st;
}

static size_t take_bytes(char *bytes, size_t size, size_t n, void *arg)
{
    tp_buf *b = arg;

    tp_buf_put(b, bytes, size * n);
    return b->failed ? 0 : size * n;
}

static tp_status read_model(char *out, size_t cap, const tp_buf *answer, const char *url)
{
    tp_json *root = NULL;
    const char *id;
    bool fits;

    if (tp_json_parse(&root, tp_buf_str(answer), answer->len, NULL) != TP_OK)
        return TP_FAIL(TP_ERR_FORMAT, "%s: expected JSON, found %s", url, tp_last_error());
    id = tp_json_string(tp_json_get(tp_json_first(tp_json_get(root, "data")), "id"));
    fits = id != NULL && (size_t)snprintf(out, cap, "%s", id) < cap;
    tp_json_free(root);
    return fits ? TP_OK : TP_FAIL(TP_ERR_FORMAT, "%s names no model: give --model", url);
}

/* The answer of a GET; *status stays 0 when there is none. */
static CURLcode get(tp_buf *answer, long *status, const char *url, struct curl_slist *headers)
{
    CURL *easy = curl_easy_init();
    CURLcode code;

    *status = 0;
    if (easy == NULL)
        return CURLE_FAILED_INIT;
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, 2 * CONNECT_MS);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_bytes);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, answer);
    code = curl_easy_perform(easy);
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, status);
    curl_easy_cleanup(easy);
    return code;
}

static tp_status ask_model(char *out, size_t cap, const char *url, struct curl_slist *headers,
                           tp_buf *answer)
{
    long status;
    CURLcode code = get(answer, &status, url, headers);

    if (code != CURLE_OK)
        return TP_FAIL(TP_ERR_IO, "%s: %s; --base-url says which server to ask", url,
                       curl_easy_strerror(code));
    if (status != 200)
        return TP_FAIL(TP_ERR_IO, "%s answered %ld%s", url, status,
                       status == 401 || status == 403 ? ": give --api-key or TPSERVE_API_KEY" : "");
    return read_model(out, cap, answer, url);
}

tp_status launch_http_model(char *out, size_t cap, const launch_http_target *t)
{
    struct curl_slist *headers = NULL;
    char url[URL_MAX];
    tp_buf answer;
    tp_status st;

    tp_buf_init(&answer, MODELS_MAX);
    st = join_url(url, t->base_url, "/v1/models");
    if (st == TP_OK)
        st = make_headers(&headers, t);
    if (st == TP_OK)
        st = ask_model(out, cap, url, headers, &answer);
    curl_slist_free_all(headers);
    tp_buf_release(&answer);
    return st;
}

bool launch_http_answers(const char *url)
{
    tp_buf answer;
    long status;
    CURLcode code;

    tp_buf_init(&answer, MODELS_MAX);
    code = get(&answer, &status, url, NULL);
    tp_buf_release(&answer);
    return code == CURLE_OK && status == 200;
}

/* ---- one request ---- */

static void put_prompt(const runner *run, int index, tp_buf *b)
{
    const launch_ask *a = &run->asks[index];

    if (run->target->words || run->chat) {
        tp_buf_puts(b, run->chat ? "\"messages\":[{\"role\":\"user\",\"content\":\""
                                 : "\"prompt\":\"");
        for (int i = 0; i < a->input_len; i++) {
            tp_buf_puts(b, i > 0 ? " " : "");
            tp_buf_puts(b, launch_prompt_word(run->load, index, i));
        }
        tp_buf_puts(b, run->chat ? "\"}]" : "\"");
        return;
    }
    tp_buf_puts(b, "\"prompt\":[");
    for (int i = 0; i < a->input_len; i++)
        tp_buf_printf(b, "%s%d", i > 0 ? "," : "", launch_prompt_id(run->load, index, i));
    tp_buf_putc(b, ']');
}

static void put_body(const runner *run, int index, tp_buf *b)
{
    const launch_http_target *t = run->target;

    tp_buf_reset(b);
    tp_buf_puts(b, "{\"model\":");
    tp_json_put_cstring(b, run->model);
    tp_buf_putc(b, ',');
    put_prompt(run, index, b);
    tp_buf_printf(b, ",\"%s\":%d", run->chat ? "max_completion_tokens" : "max_tokens",
                  run->asks[index].output_len);
    tp_buf_puts(b, ",\"temperature\":");
    tp_json_put_double(b, t->temperature);
    if (t->ignore_eos)
        tp_buf_puts(b, ",\"ignore_eos\":true");
    if (t->stream)
        tp_buf_puts(b, ",\"stream\":true,\"stream_options\":{\"include_usage\":true}");
    tp_buf_putc(b, '}');
}

static void take_text(slot *s, int64_t now_ns)
{
    launch_result *r = s->run->result;

    if (s->pieces++ == 0)
        s->done.first_ns = now_ns;
    else
        launch_samples_add(&r->itl_ms, (double)(now_ns - s->last_ns) / (double)TP_NS_PER_MS);
    s->last_ns = now_ns;
}

static void take_event(void *arg, const char *data, size_t n)
{
    slot *s = arg;
    launch_chunk c;

    if (s->error[0] != '\0')
        return;
    if (launch_read_chunk(&c, data, n) != TP_OK) {
        (void)snprintf(s->error, sizeof s->error, "event that is no JSON object");
        return;
    }
    if (c.text)
        take_text(s, tp_now_ns());
    s->ended |= c.done || c.finished;
    if (c.prompt_tokens >= 0)
        s->done.input_tokens = c.prompt_tokens;
    if (c.completion_tokens >= 0)
        s->done.output_tokens = c.completion_tokens;
    if (c.error[0] != '\0')
        (void)snprintf(s->error, sizeof s->error, "error event: %s", c.error);
}

/* The body as it comes in.  Answering another number than n ends the transfer. */
static size_t take_body(char *bytes, size_t size, size_t n, void *arg)
{
    slot *s = arg;
    long status = 0;

    n *= size;
    curl_easy_getinfo(s->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status != 200) {
        if (s->answer.len + n <= SAID_MAX)
            tp_buf_put(&s->answer, bytes, n);
        return n;
    }
    if (!s->run->target->stream) {
        tp_buf_put(&s->answer, bytes, n);
        return s->answer.failed ? 0 : n;
    }
    if (!launch_sse_feed(&s->sse, bytes, n, take_event, s)) {
        (void)snprintf(s->error, sizeof s->error, "event that is too long");
        return 0;
    }
    s->left = s->ask->leave_after >= 0 && s->pieces >= s->ask->leave_after && !s->ended;
    return s->left ? 0 : n;
}

static void set_options(slot *s)
{
    runner *run = s->run;

    curl_easy_setopt(s->easy, CURLOPT_URL, run->url);
    curl_easy_setopt(s->easy, CURLOPT_PROXY, "");
    curl_easy_setopt(s->easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(s->easy, CURLOPT_POST, 1L);
    curl_easy_setopt(s->easy, CURLOPT_HTTPHEADER, run->headers);
    curl_easy_setopt(s->easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(s->easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
    curl_easy_setopt(s->easy, CURLOPT_TIMEOUT_MS, (long)(run->target->timeout_s * 1000));
    curl_easy_setopt(s->easy, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(s->easy, CURLOPT_WRITEDATA, s);
    curl_easy_setopt(s->easy, CURLOPT_PRIVATE, s);
}

/* Request `next` into the slot; out of memory is a failure of the request. */
static void start_request(runner *run, slot *s)
{
    int index = run->next++;

    launch_sse_reset(&s->sse);
    tp_buf_reset(&s->answer);
    put_body(run, index, &s->body);
    s->ask = &run->asks[index];
    s->done = (launch_done){.start_ns = tp_now_ns(), .input_tokens = -1, .output_tokens = -1};
    s->pieces = 0;
    s->ended = s->left = false;
    s->error[0] = '\0';
    curl_easy_setopt(s->easy, CURLOPT_POSTFIELDS, tp_buf_str(&s->body));
    curl_easy_setopt(s->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)s->body.len);
    if (s->body.failed || curl_multi_add_handle(run->multi, s->easy) != CURLM_OK) {
        launch_count_failure(run->result, "out of memory");
        return;
    }
    run->free = s->next_free;
    run->in_flight++;
    if (run->in_flight > run->result->in_flight_max)
        run->result->in_flight_max = run->in_flight;
}

static int64_t start_time(const runner *run, int index)
{
    return run->begin_ns + (int64_t)(run->asks[index].start_s * (double)TP_NS_PER_S);
}

/* Starts what is due and returns when the next is; INT64_MAX: when a slot gets free. */
static int64_t start_due(runner *run)
{
    while (run->next < run->load->n_requests && !launch_interrupted()) {
        if (run->free < 0)
            return INT64_MAX;
        if (start_time(run, run->next) > tp_now_ns())
            return start_time(run, run->next);
        start_request(run, &run->slots[run->free]);
    }
    return INT64_MAX;
}

/* ---- its end ---- */

/* A whole answer that is no stream. */
static void read_answer(slot *s)
{
    launch_chunk c;

    if (launch_read_chunk(&c, tp_buf_str(&s->answer), s->answer.len) != TP_OK) {
        (void)snprintf(s->error, sizeof s->error, "answer that is no JSON object");
        return;
    }
    s->ended = c.finished;
    s->done.input_tokens = c.prompt_tokens;
    s->done.output_tokens = c.completion_tokens;
}

static void name_status(slot *s, long status)
{
    curl_off_t wait = 0;

    curl_easy_getinfo(s->easy, CURLINFO_RETRY_AFTER, &wait);
    (void)snprintf(s->error, sizeof s->error, "http %ld%s", status,
                   wait > 0 ? " with Retry-After" : "");
}

static const char *name_code(CURLcode code)
{
    if (code == CURLE_COULDNT_CONNECT)
        return "connection refused";
    if (code == CURLE_COULDNT_RESOLVE_HOST)
        return "host not found";
    if (code == CURLE_OPERATION_TIMEDOUT)
        return "timeout";
    if (code == CURLE_RECV_ERROR || code == CURLE_SEND_ERROR || code == CURLE_GOT_NOTHING ||
        code == CURLE_PARTIAL_FILE)
        return "connection lost";
    return curl_easy_strerror(code);
}

/* In one line; what is no UTF-8 becomes blank. */
static void copy_text(char *out, size_t cap, const char *text)
{
    size_t left = strlen(text), n = 0;
    uint32_t cp;

    while (left > 0) {
        int length = tp_utf8_decode(text, left, &cp);
        size_t take = length > 0 ? (size_t)length : 1;

        if (n + take >= cap)
            break;
        memcpy(out + n, text, take);
        if (length == 0 || cp < ' ' || cp == 0x7f)
            out[n] = ' ';
        n += take;
        text += take;
        left -= take;
    }
    out[n] = '\0';
}

/* The message of an error answer, or as much of another answer as there is room for. */
static void quote_answer(launch_kind *k, const tp_buf *answer)
{
    const tp_json *error;
    const char *said = NULL;
    tp_json *root = NULL;

    if (answer->len == 0 || answer->failed)
        return;
    if (tp_json_parse(&root, tp_buf_str(answer), answer->len, NULL) == TP_OK) {
        error = tp_json_get(root, "error");
        said = tp_json_get_string(error, "message", tp_json_string(error));
        said = said != NULL ? said : tp_json_get_string(root, "message", NULL);
    }
    copy_text(k->said, sizeof k->said, said != NULL ? said : tp_buf_str(answer));
    tp_json_free(root);
}

static void conclude(runner *run, slot *s, CURLcode code)
{
    launch_result *r = run->result;
    long status = 0;

    s->done.end_ns = tp_now_ns();
    curl_easy_getinfo(s->easy, CURLINFO_RESPONSE_CODE, &status);
    if (s->left) {
        r->left++;
        return;
    }
    if (s->error[0] == '\0' && code == CURLE_OK && status != 200)
        name_status(s, status);
    if (s->error[0] == '\0' && code != CURLE_OK)
        (void)snprintf(s->error, sizeof s->error, "%s", name_code(code));
    if (s->error[0] == '\0' && !run->target->stream)
        read_answer(s);
    if (s->error[0] == '\0' && !s->ended)
        (void)snprintf(s->error, sizeof s->error, "stream without an end");
    if (s->error[0] != '\0') {
        launch_kind *k = launch_count_failure(r, s->error);

        if (k->n == 1 && status != 200)
            quote_answer(k, &s->answer);
        return;
    }
    if (s->done.input_tokens < 0 || s->done.output_tokens < 0) {
        r->counted_by_server = false;
        s->done.input_tokens = s->ask->input_len;
        s->done.output_tokens = s->pieces;
    }
    launch_count_done(r, &s->done);
}

static void reap(runner *run)
{
    CURLMsg *m;
    int left;

    while ((m = curl_multi_info_read(run->multi, &left)) != NULL) {
        slot *s = NULL;
        CURLcode code = m->data.result;

        if (m->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&s);
        conclude(run, s, code);
        (void)curl_multi_remove_handle(run->multi, s->easy);
        s->next_free = run->free;
        run->free = (int)(s - run->slots);
        run->in_flight--;
    }
}

/* ---- the loop ---- */

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
    runner *run = arg;
    struct epoll_event ev = {.data.fd = fd};

    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        (void)epoll_ctl(run->epoll, EPOLL_CTL_DEL, fd, &ev); /* it may be closed already */
        (void)curl_multi_assign(run->multi, fd, NULL);
        return 0;
    }
    ev.events = ((what & CURL_POLL_IN) != 0 ? (uint32_t)EPOLLIN : 0) |
                ((what & CURL_POLL_OUT) != 0 ? (uint32_t)EPOLLOUT : 0);
    if (epoll_ctl(run->epoll, known != NULL ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &ev) != 0 &&
        run->status == TP_OK)
        run->status = TP_FAIL(TP_ERR_IO, "epoll_ctl: %m");
    (void)curl_multi_assign(run->multi, fd, run);
    return 0;
}

static int on_timer(CURLM *multi, long ms, void *arg)
{
    runner *run = arg;

    (void)multi;
    run->timer_ns = ms < 0 ? INT64_MAX : tp_now_ns() + ms * TP_NS_PER_MS;
    return 0;
}

static void act(runner *run, curl_socket_t fd, int mask)
{
    int running;
    CURLMcode code = curl_multi_socket_action(run->multi, fd, mask, &running);

    if (code != CURLM_OK && run->status == TP_OK)
        run->status = TP_FAIL(TP_ERR_IO, "libcurl: %s", curl_multi_strerror(code));
}

static int wait_ms(int64_t until_ns)
{
    int64_t left_ns = until_ns - tp_now_ns();

    if (until_ns == INT64_MAX || left_ns > 1000 * TP_NS_PER_MS)
        return 1000;
    return left_ns <= 0 ? 0 : (int)((left_ns + TP_NS_PER_MS - 1) / TP_NS_PER_MS);
}

static void turn(runner *run, int64_t next_start_ns)
{
    struct epoll_event events[EVENTS];
    int n = epoll_wait(run->epoll, events, EVENTS,
                       wait_ms(next_start_ns < run->timer_ns ? next_start_ns : run->timer_ns));

    if (n < 0 && errno != EINTR)
        run->status = TP_FAIL(TP_ERR_IO, "epoll_wait: %m");
    for (int i = 0; i < n; i++) {
        uint32_t e = events[i].events;

        act(run, events[i].data.fd,
            ((e & EPOLLIN) != 0 ? CURL_CSELECT_IN : 0) |
                ((e & EPOLLOUT) != 0 ? CURL_CSELECT_OUT : 0) |
                ((e & (EPOLLERR | EPOLLHUP)) != 0 ? CURL_CSELECT_ERR : 0));
    }
    if (run->timer_ns <= tp_now_ns()) {
        run->timer_ns = INT64_MAX;
        act(run, CURL_SOCKET_TIMEOUT, 0);
    }
    reap(run);
}

static void run_all(runner *run)
{
    int64_t shown_ns = 0, next_start_ns;
    rt_progress bar;

    rt_progress_init(&bar, run->target->progress, "requests");
    run->begin_ns = tp_now_ns();
    next_start_ns = start_due(run);
    while ((run->in_flight > 0 || run->next < run->load->n_requests) && run->status == TP_OK &&
           !launch_interrupted()) {
        turn(run, next_start_ns);
        next_start_ns = start_due(run);
        if (tp_now_ns() - shown_ns > PROGRESS_EVERY_NS) {
            shown_ns = tp_now_ns();
            rt_progress_show(&bar, (double)(run->next - run->in_flight) / run->load->n_requests);
        }
    }
    run->result->duration_s = (double)(tp_now_ns() - run->begin_ns) / (double)TP_NS_PER_S;
    rt_progress_end(&bar);
    if (launch_interrupted())
        tp_warn("bench", "interrupted: %d of %d requests were started, %d of them had not ended",
                run->next, run->load->n_requests, run->in_flight);
}

/* ---- a load ---- */

static void release(runner *run)
{
    for (int i = 0; run->slots != NULL && i < run->n_slots; i++) {
        slot *s = &run->slots[i];

        if (s->easy != NULL && run->multi != NULL)
            (void)curl_multi_remove_handle(run->multi, s->easy);
        curl_easy_cleanup(s->easy);
        launch_sse_release(&s->sse);
        tp_buf_release(&s->body);
        tp_buf_release(&s->answer);
    }
    tp_free(run->slots);
    tp_free(run->asks);
    curl_multi_cleanup(run->multi);
    curl_slist_free_all(run->headers);
    if (run->epoll >= 0)
        (void)close(run->epoll);
}

static tp_status make_slots(runner *run)
{
    run->slots = tp_calloc((size_t)run->n_slots, sizeof *run->slots);
    if (run->slots == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "out of memory for %d requests", run->n_slots);
    for (int i = 0; i < run->n_slots; i++) {
        slot *s = &run->slots[i];

        s->run = run;
        s->next_free = i + 1 < run->n_slots ? i + 1 : -1;
        launch_sse_init(&s->sse);
        tp_buf_init(&s->body, SIZE_MAX);
        tp_buf_init(&s->answer, ANSWER_MAX);
        s->easy = curl_easy_init();
        if (s->easy == NULL)
            return TP_FAIL(TP_ERR_NOMEM, "out of memory for %d connections", run->n_slots);
        set_options(s);
    }
    return TP_OK;
}

/* Every request under way needs a file. */
static tp_status raise_files(int n)
{
    struct rlimit limit;
    rlim_t need = (rlim_t)n + FILES_BESIDE;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= need)
        return TP_OK;
    limit.rlim_cur = need < limit.rlim_max ? need : limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur >= need
               ? TP_OK
               : TP_FAIL(TP_ERR_LIMIT,
                         "%d requests at a time need %d open files, %lld are allowed: ulimit -n, "
                         "or a lower --max-concurrency",
                         n, n + FILES_BESIDE, (long long)limit.rlim_max);
}

static tp_status prepare(runner *run)
{
    const launch_load *l = run->load;
    const launch_http_target *t = run->target;

    TP_TRY(join_url(run->url, t->base_url, t->endpoint));
    run->chat = strstr(t->endpoint, "chat/completions") != NULL;
    (void)snprintf(run->model, sizeof run->model, "%s", t->model);
    run->n_slots =
        l->concurrency > 0 && l->concurrency < l->n_requests ? l->concurrency : l->n_requests;
    TP_TRY(raise_files(run->n_slots));
    run->asks = tp_calloc((size_t)l->n_requests, sizeof *run->asks);
    if (run->asks == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "out of memory for %d requests", l->n_requests);
    launch_plan_asks(run->asks, l);
    TP_TRY(make_headers(&run->headers, t));
    run->multi = curl_multi_init();
    run->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (run->multi == NULL || run->epoll < 0)
        return TP_FAIL(TP_ERR_NOMEM, "cannot start an event loop: %m");
    curl_multi_setopt(run->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(run->multi, CURLMOPT_SOCKETDATA, run);
    curl_multi_setopt(run->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(run->multi, CURLMOPT_TIMERDATA, run);
    curl_multi_setopt(run->multi, CURLMOPT_MAXCONNECTS, (long)run->n_slots);
    return make_slots(run);
}

tp_status launch_http_load(launch_result *out, const launch_http_target *t, const launch_load *load)
{
    runner run = {.target = t, .load = load, .result = out, .epoll = -1, .timer_ns = INT64_MAX};
    tp_status st;

    launch_result_init(out, load);
    st = prepare(&run);
    if (st == TP_OK) {
        run_all(&run);
        st = run.status;
    }
    release(&run);
    return st;
}
