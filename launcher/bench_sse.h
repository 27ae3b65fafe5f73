/* SPDX-License-Identifier: Apache-2.0 */
/* bench_sse.h - reading a server's event stream: bytes to events, an event to what it says about a completion.
 *
 * Events follow the standard: lines end with LF or CRLF, "data:" lines of one event are joined by LF, an empty line ends
 * it, other fields and comments are skipped.  Threads: one per stream.
 */
#ifndef LAUNCH_BENCH_SSE_H
#define LAUNCH_BENCH_SSE_H

#include "base/buf.h"

#define LAUNCH_SSE_EVENT_MAX ((size_t)4 << 20)

typedef struct launch_sse {
    tp_buf line; /* the part of a line that has come */
    tp_buf data; /* the data of the event so far */
    bool has_data;
    bool failed; /* an event beyond the maximum, or no memory: nothing is read any more */
} launch_sse;

void launch_sse_init(launch_sse *s);
void launch_sse_release(launch_sse *s);
void launch_sse_reset(launch_sse *s);
/* Calls `event` for every event that these bytes complete; it may not touch s.  False when s has failed. */
bool launch_sse_feed(launch_sse *s, const char *bytes, size_t n,
                     void (*event)(void *arg, const char *data, size_t n), void *arg);

/* What one chunk of a completion says. */
typedef struct launch_chunk {
    bool done;                                /* data was [DONE] */
    bool text;                                /* some choice has text, reasoning or a tool call */
    bool finished;                            /* some choice has a finish_reason */
    int64_t prompt_tokens, completion_tokens; /* of its usage; -1 = none */
    char error[48];                           /* code or type of an error object; "" = none */
} launch_chunk;

/* Streamed chunks and whole answers, of /v1/completions and /v1/chat/completions.  FORMAT: no JSON object. */
TP_MUST_USE tp_status launch_read_chunk(launch_chunk *out, const char *data, size_t n);

#endif
