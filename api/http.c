/* SPDX-License-Identifier: Apache-2.0 */
/* http.c - the wrapper around libmicrohttpd.
 *
 * Life of an exchange: begin() on the first access call (guards, early refusal), body pieces, handle(), then one of
 *   reply   a response is queued at once
 *   defer   the connection is suspended; every wake pumps the source until it has called api_reply()
 *   stream  a chunked response whose reader pumps the source; nothing to send = suspended
 * and finally over(), which closes the source.
 *
 * Suspending: under the watcher's lock, either the wake has already come (then go on) or `suspended` is set and the
 * connection suspended; the watcher resumes under the same lock and clears it.  So a wake is never lost and nothing is
 * suspended or resumed twice.
 *
 * Refusals: a request that is refused by its headers is answered at once.  libmicrohttpd would then close the socket
 * with the body unread, and the reset that follows may destroy the answer; so a long body is let in, up to a bound,
 * behind an answer that was written to the socket directly.
 *
 * Guards: libmicrohttpd 0.9.75 lets several ways of request smuggling through (Transfer-Encoding beside Content-Length,
 * repeated Content-Length or Host, header names with blanks); every such request is refused and its connection closed.
 */
#include "api/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/errors.h"
#include "api/listen.h"
#include "api/watch.h"
#include "base/arena.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"

#define THREADS 2
/* Of one connection, for request line, headers and what is being sent.  libmicrohttpd writes zeros over all of it after
 * every request, so a connection that is kept costs as much. */
#define MEMORY_LIMIT      (20 * 1024)
#define HEADERS_MAX       100
#define PIECES_MAX        65536 /* of a body: each costs a call */
#define STREAM_BLOCK      (32 * 1024)
#define STREAM_BUFFER_MAX (4 * 1024 * 1024)
#define DRAIN_MAX         (1024 * 1024) /* of a body that was refused */
#define REQUEST_ID_MAX    128
#define CONNECTIONS_SPARE 256 /* beyond the limit: they get an answer that says so */

struct api_http {
    api_http_options opt;
    struct MHD_Daemon *daemon;
    api_watch *watch;
    int port;
    int connections_max; /* libmicrohttpd accepts no more */
    atomic_int n_connections, n_open;
    _Atomic int64_t warned_ns; /* that accepting pauses */
};

/* One client connection; exchanges on it follow one another. */
typedef struct connection {
    api_link link; /* first: the watcher hands it back */
    api_http *http;
    struct MHD_Connection *mhd;
    api_exchange *current; /* under the watcher's lock */
    char peer[64];
} connection;

typedef enum mode { MODE_NONE, MODE_REPLY, MODE_DEFER, MODE_STREAM } mode;

struct api_exchange {
    api_http *http;
    connection *conn;
    tp_arena arena; /* headers of the answer */
    char method[16], request_id[REQUEST_ID_MAX + 1];
    char *path; /* in the arena */
    tp_buf body, reply, out;
    size_t out_at; /* of out: handed to libmicrohttpd */
    size_t refused_bytes;
    int n_pieces, status;
    int64_t body_since_ns;
    bool refused; /* answered before the body was read */
    bool answered_raw;
    bool queued, ended, done_writing;
    mode how;
    const char *content_type; /* in the arena */
    struct extra_header {
        const char *name, *value;
        struct extra_header *next;
    } * headers;
    void *source_ctx, *user;
    /* under the watcher's lock */
    const api_source *source; /* written under it, by the thread of the exchange alone */
    bool suspended, woken, idle_due;
};

/* ---- request accessors ---- */

const char *api_method(const api_exchange *x)
{
    return x->method;
}

const char *api_path(const api_exchange *x)
{
    return x->path;
}

const char *api_header(const api_exchange *x, const char *name)
{
    return MHD_lookup_connection_value(x->conn->mhd, MHD_HEADER_KIND, name);
}

typedef struct header_count {
    const char *name;
    int n;
} header_count;

static enum MHD_Result count_header(void *cls, enum MHD_ValueKind kind, const char *key,
                                    const char *value)
{
    header_count *c = cls;

    (void)kind;
    (void)value;
    c->n += strcasecmp(key, c->name) == 0;
    return MHD_YES;
}

int api_header_count(const api_exchange *x, const char *name)
{
    header_count c = {.name = name};

    MHD_get_connection_values(x->conn->mhd, MHD_HEADER_KIND, count_header, &c);
    return c.n;
}

const char *api_body(const api_exchange *x, size_t *len)
{
    *len = x->body.len;
    return tp_buf_str(&x->body);
}

const char *api_request_id(const api_exchange *x)
{
    return x->request_id;
}

const char *api_peer(const api_exchange *x)
{
    return x->conn->peer;
}

void api_set_user(api_exchange *x, void *user)
{
    x->user = user;
}

void *api_user(const api_exchange *x)
{
    return x->user;
}

/* ---- answers ---- */

static const char *keep(api_exchange *x, const char *s)
{
    const char *copy = tp_arena_strndup(&x->arena, s, strlen(s));

    return copy != NULL ? copy : "";
}

void api_add_header(api_exchange *x, const char *name, const char *value)
{
    struct extra_header *h = tp_arena_calloc(&x->arena, 1, sizeof *h);

    if (h == NULL)
        return;
    h->name = keep(x, name);
    h->value = keep(x, value);
    h->next = x->headers;
    x->headers = h;
}

void api_reply(api_exchange *x, int status, const char *content_type, const void *body, size_t len)
{
    TP_ASSERT(x->how == MODE_NONE || x->how == MODE_DEFER);
    x->how = MODE_REPLY;
    x->status = status;
    x->content_type = keep(x, content_type);
    tp_buf_put(&x->reply, body, len);
}

static void set_source(api_exchange *x, const api_source *source, void *ctx)
{
    api_watch_lock(x->http->watch);
    x->source_ctx = ctx;
    x->source = source;
    api_watch_unlock(x->http->watch);
}

void api_defer(api_exchange *x, const api_source *source, void *ctx)
{
    TP_ASSERT(x->how == MODE_NONE);
    x->how = MODE_DEFER;
    set_source(x, source, ctx);
}

void api_stream(api_exchange *x, const char *content_type, const api_source *source, void *ctx)
{
    TP_ASSERT(x->how == MODE_NONE);
    x->how = MODE_STREAM;
    x->status = 200;
    x->content_type = keep(x, content_type);
    set_source(x, source, ctx);
}

void api_wake(api_exchange *x)
{
    api_watch_wake(x->http->watch, &x->conn->link);
}

/* ---- suspending and resuming ---- */

/* Watcher thread, its lock held. */
static void resume(api_link *l, bool idle)
{
    connection *c = (connection *)(void *)l;
    api_exchange *x = c->current;

    if (x == NULL)
        return;
    if (l->gone && x->source != NULL && x->source->left != NULL)
        x->source->left(x->source_ctx); /* before this connection's thread has its turn */
    x->woken = true;
    x->idle_due |= idle;
    if (x->suspended) {
        x->suspended = false;
        MHD_resume_connection(c->mhd);
    }
}

/* False when a wake has come meanwhile: pump again instead. */
static bool suspend(api_exchange *x)
{
    api_watch *w = x->http->watch;
    bool sleep;

    api_watch_lock(w);
    sleep = !x->woken && !x->conn->link.gone;
    if (sleep) {
        x->suspended = true;
        MHD_suspend_connection(x->conn->mhd);
    }
    api_watch_unlock(w);
    return sleep;
}

/* Forgets earlier wakes: the pump that follows sees everything that they announced.  False: the peer has gone. */
static bool clear_wake(api_exchange *x, bool *idle)
{
    api_watch *w = x->http->watch;
    bool gone;

    api_watch_lock(w);
    gone = x->conn->link.gone;
    x->woken = false;
    *idle = x->idle_due;
    x->idle_due = false;
    api_watch_unlock(w);
    return !gone;
}

/* Watcher thread, its lock held, while the answer is being sent: the source lives until current is NULL. */
static bool held_back(api_link *l)
{
    const connection *c = (connection *)(void *)l;
    const api_source *s = c->current != NULL ? c->current->source : NULL;

    return s != NULL && s->held_back != NULL && s->held_back(c->current->source_ctx);
}

static void close_source(api_exchange *x)
{
    const api_source *s = x->source;
    void *ctx = x->source_ctx;

    set_source(x, NULL, NULL); /* the watcher calls it no more */
    if (s != NULL)
        s->close(ctx);
}

/* ---- responses ---- */

static void put_headers(const api_exchange *x, struct MHD_Response *r)
{
    MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, x->content_type);
    MHD_add_response_header(r, "x-request-id", x->request_id);
    for (const struct extra_header *h = x->headers; h != NULL; h = h->next)
        MHD_add_response_header(r, h->name, h->value);
}

static enum MHD_Result queue_reply(api_exchange *x)
{
    enum MHD_Result ok;
    struct MHD_Response *r;

    if (x->reply.failed)
        x->status = MHD_HTTP_SERVICE_UNAVAILABLE;
    /* the exchange outlives the response */
    r = x->reply.failed
            ? MHD_create_response_from_buffer(
                  strlen(api_no_memory), (void *)(uintptr_t)api_no_memory, MHD_RESPMEM_PERSISTENT)
            : MHD_create_response_from_buffer(x->reply.len, x->reply.data, MHD_RESPMEM_PERSISTENT);
    if (r == NULL)
        return MHD_NO;
    put_headers(x, r);
    ok = MHD_queue_response(x->conn->mhd, (unsigned)x->status, r);
    MHD_destroy_response(r);
    x->queued = true;
    api_watch_set_sending(x->http->watch, &x->conn->link);
    return ok;
}

/* Fills x->out from the source until there is something to send or nothing to do.  END_OF_STREAM comes once out is
 * empty; WITH_ERROR when the peer has gone. */
static ssize_t fill(api_exchange *x)
{
    for (;;) {
        bool idle;

        if (!clear_wake(x, &idle))
            return MHD_CONTENT_READER_END_WITH_ERROR;
        if (x->source != NULL && idle && x->source->idle != NULL)
            x->source->idle(x->source_ctx, &x->out);
        switch (x->source->pump(x->source_ctx, x, &x->out)) {
        case API_END: x->ended = true; break;
        case API_ABORT: return MHD_CONTENT_READER_END_WITH_ERROR;
        case API_WAIT: break;
        }
        if (x->out.failed)
            return MHD_CONTENT_READER_END_WITH_ERROR;
        if (x->out.len > 0 || x->ended)
            return 1;
        if (suspend(x))
            return 0;
    }
}

static ssize_t read_stream(void *cls, uint64_t pos, char *buf, size_t max)
{
    api_exchange *x = cls;
    size_t n;

    (void)pos;
    if (x->out.len == 0) {
        ssize_t got = x->ended ? 1 : fill(x);

        if (got <= 0)
            return got;
        if (x->out.len == 0) {
            x->done_writing = true;
            return MHD_CONTENT_READER_END_OF_STREAM;
        }
    }
    n = x->out.len - x->out_at < max ? x->out.len - x->out_at : max;
    memcpy(buf, x->out.data + x->out_at, n);
    x->out_at += n;
    if (x->out_at == x->out.len) {
        tp_buf_reset(&x->out);
        x->out_at = 0;
    }
    api_watch_set_quiet(x->http->watch, &x->conn->link, tp_now_ns());
    return (ssize_t)n;
}

static enum MHD_Result queue_stream(api_exchange *x)
{
    enum MHD_Result ok;
    struct MHD_Response *r =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, read_stream, x, NULL);

    if (r == NULL)
        return MHD_NO;
    put_headers(x, r);
    MHD_add_response_header(r, "Cache-Control", "no-cache");
    MHD_add_response_header(r, "X-Accel-Buffering", "no");
    ok = MHD_queue_response(x->conn->mhd, MHD_HTTP_OK, r);
    MHD_destroy_response(r);
    x->queued = true;
    api_watch_set_sending(x->http->watch, &x->conn->link);
    api_watch_set_quiet(x->http->watch, &x->conn->link, tp_now_ns());
    return ok;
}

/* Answers on the socket, past libmicrohttpd, which takes no response while a body is on its way.  Nothing has been sent
 * on this exchange, so the few bytes fit the socket's buffer. */
static void answer_raw(api_exchange *x)
{
    tp_buf text;

    tp_buf_init(&text, 1 << 20);
    tp_buf_printf(&text,
                  "HTTP/1.1 %d Refused\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                  "x-request-id: %s\r\nConnection: close\r\n",
                  x->status, x->content_type, x->reply.len, x->request_id);
    for (const struct extra_header *h = x->headers; h != NULL; h = h->next)
        if (strcasecmp(h->name, "Connection") != 0)
            tp_buf_printf(&text, "%s: %s\r\n", h->name, h->value);
    tp_buf_puts(&text, "\r\n");
    if (strcmp(x->method, "HEAD") != 0)
        tp_buf_put(&text, x->reply.data, x->reply.len);
    if (!text.failed)
        (void)!send(x->conn->link.fd, text.data, text.len, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)shutdown(x->conn->link.fd, SHUT_WR);
    x->answered_raw = true;
    tp_buf_release(&text);
}

/* A deferred answer: pump until it has replied. */
static enum MHD_Result pump_deferred(api_exchange *x)
{
    for (;;) {
        bool idle;

        if (!clear_wake(x, &idle) || x->source->pump(x->source_ctx, x, &x->out) == API_ABORT)
            return MHD_NO;
        if (x->how == MODE_REPLY) {
            close_source(x); /* what the answer was made of need not wait for a slow reader */
            return queue_reply(x);
        }
        if (suspend(x))
            return MHD_YES;
    }
}

static enum MHD_Result advance(api_exchange *x)
{
    switch (x->how) {
    case MODE_REPLY: return queue_reply(x);
    case MODE_DEFER: return pump_deferred(x);
    case MODE_STREAM: return queue_stream(x);
    case MODE_NONE: break;
    }
    api_reply_error(x, 500, "internal_error", NULL, "The request was not answered.");
    return queue_reply(x);
}

/* ---- guards ---- */

typedef struct header_guard {
    int n, length, encoding, host;
    bool bad;
    const char *encoding_value;
} header_guard;

static bool is_token(const char *s)
{
    if (*s == '\0')
        return false;
    for (; *s != '\0'; s++)
        if (strchr("!#$%&'*+-.^_`|~", *s) == NULL && !(*s >= '0' && *s <= '9') &&
            !(*s >= 'A' && *s <= 'Z') && !(*s >= 'a' && *s <= 'z'))
            return false;
    return true;
}

static enum MHD_Result guard_header(void *cls, enum MHD_ValueKind kind, const char *key,
                                    size_t key_len, const char *value, size_t value_len)
{
    header_guard *g = cls;

    (void)kind;
    g->n++;
    if (strlen(key) != key_len || !is_token(key))
        g->bad = true;
    for (size_t i = 0; i < value_len; i++)
        if (((unsigned char)value[i] < 0x20 && value[i] != '\t') || value[i] == 0x7f)
            g->bad = true;
    g->length += strcasecmp(key, "Content-Length") == 0;
    g->host += strcasecmp(key, "Host") == 0;
    if (strcasecmp(key, "Transfer-Encoding") == 0) {
        g->encoding++;
        g->encoding_value = value;
    }
    return MHD_YES;
}

static bool loopback_name(const char *host)
{
    static const char *const k_names[] = {"localhost", "127.0.0.1", "[::1]"};
    size_t len = *host == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");

    for (size_t i = 0; i < TP_ARRAY_LEN(k_names); i++)
        if (strlen(k_names[i]) == len && strncasecmp(host, k_names[i], len) == 0)
            return true;
    return strncmp(host, "127.", 4) == 0 && strspn(host, "0123456789.") >= len;
}

/* True and answered when the request must not be served; the connection is then closed. */
static bool guarded(api_exchange *x, const char *version)
{
    header_guard g = {0};
    bool one_one = strcmp(version, MHD_HTTP_VERSION_1_1) == 0;
    const char *host = api_header(x, "Host");

    MHD_get_connection_values_n(x->conn->mhd, MHD_HEADER_KIND, guard_header, &g);
    if (!one_one && strcmp(version, MHD_HTTP_VERSION_1_0) != 0)
        api_reply_error(x, 505, "invalid_value", NULL, "Only HTTP/1.0 and HTTP/1.1 are served.");
    else if (g.n > HEADERS_MAX)
        api_reply_error(x, 431, "invalid_value", NULL, "The request has too many headers.");
    else if (g.bad || g.length > 1 || g.encoding > 1 || g.host > 1 || (one_one && g.host == 0) ||
             (g.encoding == 1 &&
              (g.length > 0 || !one_one || strcasecmp(g.encoding_value, "chunked") != 0)))
        api_reply_error(x, 400, "invalid_value", NULL,
                        "The request's headers are ambiguous or ill formed.");
    else if (x->path[0] != '/' && strcmp(x->path, "*") != 0)
        api_reply_error(x, 400, "invalid_value", NULL, "The request target must be a path.");
    else if (x->http->opt.loopback_host_check && host != NULL && !loopback_name(host))
        api_reply_error(
            x, 403, "host_not_allowed", NULL,
            "This server is bound to loopback and answers only to loopback host names.");
    else
        return false;
    api_add_header(x, "Connection", "close");
    return true;
}

/* ---- the exchange ---- */

static void choose_request_id(api_exchange *x)
{
    const char *given = api_header(x, "x-request-id");
    uint8_t random[16];
    size_t len = given != NULL ? strlen(given) : 0;

    if (len > 0 && len <= REQUEST_ID_MAX &&
        strspn(given, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-") ==
            len) {
        memcpy(x->request_id, given, len + 1);
        return;
    }
    tp_random_bytes(random, sizeof random);
    for (size_t i = 0; i < sizeof random; i++)
        snprintf(x->request_id + 2 * i, 3, "%02x", random[i]);
}

/* Ten seconds, and one for each KiB that has come; a minute in all. */
static void set_body_deadline(api_exchange *x)
{
    int64_t rated = API_RATE_WINDOW_NS + (int64_t)x->body.len * (TP_NS_PER_S / 1024);

    api_watch_set_deadline(x->http->watch, &x->conn->link, API_PHASE_BODY,
                           x->body_since_ns +
                               (rated < API_BODY_DEADLINE_NS ? rated : API_BODY_DEADLINE_NS));
}

static api_exchange *begin(api_http *h, struct MHD_Connection *mhd, const char *url,
                           const char *method)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    api_exchange *x = tp_calloc(1, sizeof *x);

    if (x == NULL || info == NULL || info->socket_context == NULL) {
        tp_free(x);
        return NULL;
    }
    tp_arena_init(&x->arena, 1 << 20);
    x->path = tp_arena_strndup(&x->arena, url, strlen(url));
    if (x->path == NULL) {
        tp_arena_release(&x->arena);
        tp_free(x);
        return NULL;
    }
    x->http = h;
    x->conn = info->socket_context;
    x->conn->mhd = mhd;
    tp_buf_init(&x->body, h->opt.max_body);
    tp_buf_init(&x->reply, SIZE_MAX);
    tp_buf_init(&x->out, STREAM_BUFFER_MAX);
    snprintf(x->method, sizeof x->method, "%s", method);
    choose_request_id(x);
    x->body_since_ns = tp_now_ns();
    api_watch_lock(h->watch);
    x->conn->current = x;
    api_watch_unlock(h->watch);
    set_body_deadline(x);
    atomic_fetch_add(&h->n_open, 1);
    return x;
}

static void refuse_now(api_exchange *x)
{
    x->refused = true;
    tp_buf_reset(&x->body);
}

/* First call: headers only.  A refusal is answered after a short body was drained, or before a long one. */
static enum MHD_Result first_call(api_exchange *x, const char *version)
{
    const char *length = api_header(x, "Content-Length");
    unsigned long long announced = 0;

    if (length != NULL && sscanf(length, "%llu", &announced) != 1)
        announced = 0;
    if (guarded(x, version)) {
        refuse_now(x);
        return queue_reply(x);
    }
    if (announced > x->http->opt.max_body) {
        api_reply_error(x, 413, "request_too_large", NULL,
                        "The request body is larger than this server accepts (--max-body).");
        api_add_header(x, "Connection", "close");
        refuse_now(x);
    } else if (x->http->opt.refuse(x->http->opt.ctx, x)) {
        refuse_now(x);
    }
    if (x->refused && announced > DRAIN_MAX) {
        if (api_header(x, "Expect") != NULL)
            return queue_reply(x); /* the client waits for leave to send the body */
        answer_raw(x);
    }
    return MHD_YES;
}

static enum MHD_Result take_body(api_exchange *x, const char *data, size_t *size)
{
    size_t n = *size;

    *size = 0;
    if (x->refused) {
        x->refused_bytes += n;
        return x->refused_bytes <= DRAIN_MAX ? MHD_YES : MHD_NO;
    }
    if (++x->n_pieces > PIECES_MAX || x->body.len + n > x->http->opt.max_body) {
        api_reply_error(x, 413, "request_too_large", NULL,
                        "The request body is larger than this server accepts (--max-body).");
        api_add_header(x, "Connection", "close");
        refuse_now(x);
        answer_raw(x);
        return MHD_YES;
    }
    tp_buf_put(&x->body, data, n);
    set_body_deadline(x);
    return MHD_YES;
}

static enum MHD_Result access_call(void *cls, struct MHD_Connection *mhd, const char *url,
                                   const char *method, const char *version, const char *data,
                                   size_t *size, void **state)
{
    api_http *h = cls;
    api_exchange *x = *state;

    if (x == NULL) {
        x = begin(h, mhd, url, method);
        if (x == NULL)
            return MHD_NO;
        *state = x;
        return first_call(x, version);
    }
    if (x->queued)
        return MHD_YES;
    if (*size == 0 && x->answered_raw)
        return MHD_NO;
    if (*size > 0)
        return take_body(x, data, size);
    if (x->how == MODE_NONE && !x->refused) {
        api_watch_set_deadline(h->watch, &x->conn->link, API_PHASE_ANSWER, 0);
        if (x->body.failed)
            api_reply_error(x, 503, "out_of_memory", NULL, "Out of memory for the request body.");
        else
            h->opt.handle(h->opt.ctx, x);
    }
    return advance(x);
}

static void over(void *cls, struct MHD_Connection *mhd, void **state,
                 enum MHD_RequestTerminationCode why)
{
    api_http *h = cls;
    api_exchange *x = *state;

    (void)mhd;
    (void)why;
    if (x == NULL)
        return;
    if (h->opt.done != NULL)
        h->opt.done(h->opt.ctx, x, x->status);
    api_watch_lock(h->watch);
    x->conn->current = NULL;
    x->conn->link.quiet_ns = 0;
    x->conn->link.sending = false;
    x->conn->link.phase = API_PHASE_IDLE;
    x->conn->link.deadline_ns = tp_now_ns() + API_IDLE_DEADLINE_NS;
    api_watch_unlock(h->watch);
    close_source(x);
    tp_buf_release(&x->body);
    tp_buf_release(&x->reply);
    tp_buf_release(&x->out);
    tp_arena_release(&x->arena);
    tp_free(x);
    *state = NULL;
    atomic_fetch_sub(&h->n_open, 1);
}

/* ---- connections ---- */

static void release_connection(api_link *l)
{
    tp_free((connection *)(void *)l);
}

static void describe_peer(struct MHD_Connection *mhd, char out[64])
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    const struct sockaddr *sa = info != NULL ? info->client_addr : NULL;

    out[0] = '\0';
    if (sa != NULL && sa->sa_family == AF_INET)
        inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)sa)->sin_addr, out, 64);
    else if (sa != NULL && sa->sa_family == AF_INET6)
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr, out, 64);
}

/* A line in the log now, unless the last one is less than a second old. */
static bool may_warn(api_http *h)
{
    int64_t now = tp_now_ns(), last = atomic_load(&h->warned_ns);

    return now - last >= TP_NS_PER_S && atomic_compare_exchange_strong(&h->warned_ns, &last, now);
}

/* Beyond the limit idle connections have to go, and at the end of the reserve accepting pauses. */
static void make_room(api_http *h, int n)
{
    api_watch_set_excess(h->watch, n - h->opt.max_connections);
    if (n >= h->connections_max && may_warn(h))
        tp_warn("http", "%d connections: no more are accepted until some have gone", n);
}

static void on_connection(void *cls, struct MHD_Connection *mhd, void **state,
                          enum MHD_ConnectionNotificationCode what)
{
    api_http *h = cls;
    connection *c = *state;

    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);

        c = tp_calloc(1, sizeof *c);
        if (c == NULL || info == NULL) {
            tp_free(c);
            return; /* begin() refuses requests of a connection without context */
        }
        c->http = h;
        c->mhd = mhd;
        c->link.fd = info->connect_fd;
        c->link.resume = resume;
        c->link.held_back = held_back;
        c->link.release = release_connection;
        c->link.phase = API_PHASE_HEADER;
        c->link.deadline_ns = tp_now_ns() + API_HEADER_DEADLINE_NS;
        describe_peer(mhd, c->peer);
        api_watch_add(h->watch, &c->link);
        make_room(h, atomic_fetch_add(&h->n_connections, 1) + 1);
        *state = c;
    } else if (c != NULL) {
        api_watch_remove(h->watch, &c->link);
        make_room(h, atomic_fetch_sub(&h->n_connections, 1) - 1);
        *state = NULL;
    }
}

/* ---- libmicrohttpd's other calls ---- */

/* libmicrohttpd must not decode the path: routes compare what was sent. */
static size_t keep_escapes(void *cls, struct MHD_Connection *mhd, char *s)
{
    (void)cls;
    (void)mhd;
    return strlen(s);
}

/* The request line has come: its headers have ten seconds.  The result is the exchange's first state: none. */
static void *begin_request(void *cls, const char *uri, struct MHD_Connection *mhd)
{
    api_http *h = cls;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    connection *c = info != NULL ? info->socket_context : NULL;

    (void)uri;
    if (c != NULL)
        api_watch_set_deadline(h->watch, &c->link, API_PHASE_HEADER,
                               tp_now_ns() + API_HEADER_DEADLINE_NS);
    return NULL;
}

static void log_mhd(void *cls, const char *fmt, va_list ap)
{
    char line[512];

    if (fmt == NULL) /* never; the compiler of sanitized builds asks */
        return;
    vsnprintf(line, sizeof line, fmt, ap);
    if (strstr(line, "resource limit") == NULL)
        tp_debug("http", "%s", line);
    else if (may_warn(cls)) /* somebody else has taken the files that were left for us */
        tp_warn("http", "no more connections are accepted for a while: %s", line);
}

/* Connections that libmicrohttpd may accept; max_connections becomes less where files are few. */
static void settle_connections(api_http *h)
{
    int files = api_listen_files_left();
    int spare = files / 4 < CONNECTIONS_SPARE ? files / 4 : CONNECTIONS_SPARE;

    if (h->opt.max_connections > files - spare) {
        tp_info("http", "the limit of open files (ulimit -n) leaves room for %d connections",
                files - spare);
        h->opt.max_connections = files - spare;
    }
    h->connections_max = h->opt.max_connections + spare;
}

tp_status api_http_create(api_http **out, const api_http_options *opt)
{
    api_http *h = tp_calloc(1, sizeof *h);
    int fd = -1;
    tp_status st;

    if (h == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "HTTP server");
    h->opt = *opt;
    TP_TRY_GOTO(st, api_listen_open(opt->host, opt->port, &fd, &h->port), fail);
    TP_TRY_GOTO(st, api_watch_create(&h->watch), fail);
    settle_connections(h);
    h->daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL,
        access_call, h, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_THREAD_POOL_SIZE,
        (unsigned)THREADS, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MEMORY_LIMIT,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)h->connections_max, MHD_OPTION_URI_LOG_CALLBACK,
        begin_request, h, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)(API_IDLE_DEADLINE_NS / TP_NS_PER_S), MHD_OPTION_NOTIFY_COMPLETED, over, h,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, h, MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes,
        NULL, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_EXTERNAL_LOGGER, log_mhd, h,
        MHD_OPTION_END);
    if (h->daemon == NULL) {
        st = TP_FAIL(TP_ERR_IO, "libmicrohttpd did not start: %s", strerror(errno));
        close(fd);
        goto fail;
    }
    *out = h;
    return TP_OK;
fail:
    api_http_destroy(h);
    return st;
}

int api_http_port(const api_http *h)
{
    return h->port;
}

bool api_http_crowded(const api_http *h)
{
    return atomic_load(&h->n_connections) > h->opt.max_connections;
}

void api_http_cuts(const api_http *h, uint64_t out[API_N_PHASES])
{
    api_watch_cuts(h->watch, out);
}

int api_http_open(const api_http *h)
{
    return atomic_load(&h->n_open);
}

/* Suspended connections must be resumed before libmicrohttpd can stop: their sources then see that they are gone. */
static void resume_all(api_http *h)
{
    for (int tries = 0; tries < 100 && atomic_load(&h->n_open) > 0; tries++) {
        api_watch_end_all(h->watch);
        tp_sleep_us(10000);
    }
}

void api_http_destroy(api_http *h)
{
    if (h == NULL)
        return;
    if (h->daemon != NULL) {
        int fd = MHD_quiesce_daemon(h->daemon);

        if (fd >= 0)
            close(fd);
        resume_all(h);
        MHD_stop_daemon(h->daemon);
    }
    api_watch_destroy(h->watch);
    tp_free(h);
}
