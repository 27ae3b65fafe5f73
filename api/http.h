/* SPDX-License-Identifier: Apache-2.0 */
/* http.h - HTTP as the routes see it: one exchange per request, answered at once, later, or as a stream.
 *
 * Behind it: libmicrohttpd (http.c, the only file that includes it) and a watcher thread (watch.c) that notices clients
 * that leave, enforces deadlines, and wakes exchanges that wait for the engine.
 *
 * Threads: a handler and a source's pump run on a libmicrohttpd thread, one at a time per exchange.  api_wake() may be
 * called by any thread and never blocks for long.
 */
#ifndef API_HTTP_H
#define API_HTTP_H

#include <stdint.h>

#include "api/watch.h"
#include "base/buf.h"
#include "base/status.h"

typedef struct api_http api_http;
typedef struct api_exchange api_exchange;

/* What an exchange waits for.  pump is called when the exchange may go on: first at once, then after api_wake(). */
typedef enum api_progress {
    API_WAIT, /* nothing (more) now: sleep until api_wake() */
    API_END,  /* finished: api_reply() was called, or the stream's last bytes are in out */
    API_ABORT /* close the connection: the client cannot be told in any better way */
} api_progress;

typedef struct api_source {
    /* Streams append to `out` (bytes go to the client as they are); deferred answers call api_reply() instead. */
    api_progress (*pump)(void *ctx, api_exchange *x, tp_buf *out);
    /* For streams that are silent for 15 s: append a comment; NULL = none. */
    void (*idle)(void *ctx, tp_buf *out);
    /* Any thread: the engine computes nothing for this request, as so much waits to be read; NULL = never. */
    bool (*held_back)(const void *ctx);
    /* Watcher thread, under its lock: the client has gone, close will follow; NULL = it is soon enough then. */
    void (*left)(void *ctx);
    /* The exchange is over, for whatever reason; after it no call is made.  Must stop calls of api_wake(). */
    void (*close)(void *ctx);
} api_source;

typedef struct api_http_options {
    const char *host;
    int port;
    size_t max_body;
    int max_connections;                        /* a few more are accepted, to be told so */
    bool loopback_host_check;                   /* answer 403 to a Host that is no loopback name */
    void (*handle)(void *ctx, api_exchange *x); /* the whole request is there */
    /* Before the body is read: true and a reply set = refuse now (wrong path, key, type). */
    bool (*refuse)(void *ctx, api_exchange *x);
    /* The exchange is over; status 0 = it ended without an answer.  For the log; NULL = nothing. */
    void (*done)(void *ctx, const api_exchange *x, int status);
    void *ctx;
} api_http_options;

TP_MUST_USE tp_status api_http_create(api_http **out, const api_http_options *opt);
int api_http_port(const api_http *h);
/* More connections than max_connections: refuse what need not be answered. */
bool api_http_crowded(const api_http *h);
/* Connections cut off so far, by what they were doing. */
void api_http_cuts(const api_http *h, uint64_t out[API_N_PHASES]);
/* Exchanges that are not yet answered in full. */
int api_http_open(const api_http *h);
/* Stops listening and ends all connections. */
void api_http_destroy(api_http *h);

/* ---- the request ---- */
const char *api_method(const api_exchange *x);
const char *api_path(const api_exchange *x); /* as sent, not decoded, without the query */
/* First value of a header, NULL when absent; case-insensitive. */
const char *api_header(const api_exchange *x, const char *name);
int api_header_count(const api_exchange *x, const char *name);
const char *api_body(const api_exchange *x, size_t *len);
const char *api_request_id(const api_exchange *x);
/* Peer address as text. */
const char *api_peer(const api_exchange *x);
/* A pointer of the routes', kept with the exchange; freed by nobody. */
void api_set_user(api_exchange *x, void *user);
void *api_user(const api_exchange *x);

/* ---- the answer: exactly one of these ---- */
/* Adds a header to the answer that follows; name and value are copied. */
void api_add_header(api_exchange *x, const char *name, const char *value);
/* Answers with a copy of body. */
void api_reply(api_exchange *x, int status, const char *content_type, const void *body, size_t len);
/* Answers when the source ends. */
void api_defer(api_exchange *x, const api_source *source, void *ctx);
/* 200 with a chunked body that the source writes. */
void api_stream(api_exchange *x, const char *content_type, const api_source *source, void *ctx);
/* The source may go on.  Safe from the engine's notify. */
void api_wake(api_exchange *x);

#endif
