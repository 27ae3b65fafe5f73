/* SPDX-License-Identifier: Apache-2.0 */
/* dev_stream_emu.c - streams that run when somebody waits, events, and graphs.
 *
 * A stream is a queue of closures.  Copies, kernels and event marks all go in at the end; kern_dev_sync() runs it empty,
 * kern_dev_event_wait() runs it up to the mark and no further, so that work that nobody waited for really has not
 * happened.  A query with work left says "not done" once and runs everything when it is asked again: both answers are
 * exercised, and a polling loop ends.
 *
 * Between kern_dev_graph_begin() and _end() closures go to the graph instead; launching puts one entry in the queue that
 * runs them all again.  As in CUDA's thread-local mode, waiting and allocating meanwhile fails and spoils the recording;
 * a stream that waits for an event of the recording joins it, and must be waited for before the end.
 */
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/mem.h"
#include "base/pulse.h"
#include "kernels/cuda/emu/dev_emu.h"
#include "kernels/cuda/emu/emu_stream.h"

#define CHUNK_BYTES         ((size_t)256 << 10)
#define HANG_POLL_US        10000
#define ERROR_ILLEGAL       700 /* cudaErrorIllegalAddress: TP_LAUNCH_STATUS() of a dead device */
#define ERROR_OUT_OF_MEMORY 2

struct emu_stream {
    kern_dev *dev;
    emu_stream *next;
    emu_node *head, **tail;
    kern_dev_graph *graph; /* NULL, or work goes there */
    uint64_t n_recorded;   /* entries that went to a graph, ever */
    uint64_t n_joined;     /* n_recorded when the graph's first stream last waited for this one */
    bool asked;            /* a query said "not done" already */
};

typedef struct emu_event {
    kern_dev *dev;
    emu_stream *stream;    /* of the newest record */
    uint64_t marks, done;  /* records issued, and the newest that was reached */
    kern_dev_graph *graph; /* the newest record belongs to a recording */
    uint64_t at;           /* its stream's n_recorded then */
    int64_t ns;
} emu_event;

struct kern_dev_graph {
    kern_dev *dev;
    emu_stream *origin;
    emu_node *head, **tail;
    int refs; /* the owner, and every launch that has not run yet */
    bool spoilt;
};

/* ---- queue entries ---- */
static tp_status refill(kern_dev *d)
{
    void **chunk =
        mmap(NULL, CHUNK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    emu_node *nodes;

    if (chunk == MAP_FAILED)
        return TP_FAIL(TP_ERR_NOMEM, "device %d: no host memory for its queue", d->props.ordinal);
    *chunk = d->node_chunks;
    d->node_chunks = chunk;
    nodes = (emu_node *)(void *)((char *)chunk + 64);
    for (size_t i = 0; i < (CHUNK_BYTES - 64) / sizeof *nodes; i++) {
        nodes[i].next = d->free_nodes;
        d->free_nodes = &nodes[i];
    }
    return TP_OK;
}

static tp_status new_node(kern_dev *d, emu_node **out)
{
    if (d->free_nodes == NULL)
        TP_TRY(refill(d));
    *out = d->free_nodes;
    d->free_nodes = (*out)->next;
    (*out)->next = NULL;
    return TP_OK;
}

static void drop_node(kern_dev *d, emu_node *n)
{
    if (n->drop != NULL)
        n->drop(n->closure);
    n->next = d->free_nodes;
    d->free_nodes = n;
}

static void append(emu_stream *s, emu_node *n)
{
    if (s->graph != NULL) {
        *s->graph->tail = n;
        s->graph->tail = &n->next;
        s->n_recorded++;
        return;
    }
    *s->tail = n;
    s->tail = &n->next;
    s->asked = false;
}

tp_status emu_enqueue(kern_dev *d, kern_stream stream, emu_fn run, const void *payload,
                      size_t bytes)
{
    emu_node *n;

    TP_ASSERT(bytes <= sizeof n->payload);
    TP_TRY(emu_usable(d));
    TP_TRY(new_node(d, &n));
    memcpy(n->payload, payload, bytes);
    n->run = run;
    n->drop = NULL;
    n->closure = n->payload;
    if (stream != NULL) {
        append(stream, n);
        return TP_OK;
    }
    emu_memory_open();
    run(n->closure);
    emu_memory_close();
    drop_node(d, n);
    return TP_OK;
}

int emu_stream_enqueue(void *stream, emu_fn run, void *closure, emu_fn drop)
{
    emu_stream *s = stream;
    emu_node *n;
    int code = 0;

    if (s == NULL) {
        emu_memory_open();
        run(closure);
        emu_memory_close();
    } else if (emu_usable(s->dev) != TP_OK) {
        code = ERROR_ILLEGAL;
    } else if (new_node(s->dev, &n) != TP_OK) {
        code = ERROR_OUT_OF_MEMORY;
    } else {
        n->run = run;
        n->drop = drop;
        n->closure = closure;
        append(s, n);
        return 0;
    }
    if (drop != NULL)
        drop(closure);
    return code;
}

/* ---- running ---- */
static void run_node(kern_dev *d, const emu_node *n)
{
    if (emu_usable(d) != TP_OK)
        return;
    if (tp_fault_hit("dev.sticky")) {
        emu_fail_for_good(d, "cudaErrorIllegalAddress", "an illegal memory access was encountered");
        return;
    }
    tp_pulse();
    while (tp_fault_hit("dev.hang"))
        for (;;)
            tp_sleep_us(HANG_POLL_US);
    n->run(n->closure);
}

/* Runs the queue empty, or until `e` has reached mark `mark`.  A stream's wait runs another stream; never this one again,
 * since what it waits for was issued before and so lies ahead in its queue. */
static void run_stream(emu_stream *s, const emu_event *e, uint64_t mark)
{
    emu_memory_open();
    while (s->head != NULL && (e == NULL || e->done < mark)) {
        emu_node *n = s->head;

        s->head = n->next;
        if (s->head == NULL)
            s->tail = &s->head;
        run_node(s->dev, n);
        drop_node(s->dev, n);
    }
    emu_memory_close();
}

tp_status emu_not_recording(kern_dev *d, const char *what)
{
    if (TP_LIKELY(d->recording == NULL))
        return TP_OK;
    d->recording->spoilt = true;
    return TP_FAIL(TP_ERR_DEVICE,
                   "device %d: cudaErrorStreamCaptureUnsupported: %s while a graph is recorded",
                   d->props.ordinal, what);
}

void emu_run_all(kern_dev *d)
{
    if (emu_not_recording(d, "the device was waited for") != TP_OK)
        return;
    for (emu_stream *s = d->streams; s != NULL; s = s->next)
        run_stream(s, NULL, 0);
}

tp_status kern_dev_sync(kern_dev *d, kern_stream s)
{
    TP_TRY(emu_usable(d));
    TP_TRY(emu_not_recording(d, "a stream was waited for"));
    if (s != NULL)
        run_stream(s, NULL, 0);
    return emu_usable(d);
}

tp_status kern_dev_query(kern_dev *d, kern_stream stream, bool *done)
{
    emu_stream *s = stream;

    TP_TRY(emu_usable(d));
    TP_TRY(emu_not_recording(d, "a stream was asked"));
    if (s != NULL && s->head != NULL && !s->asked) {
        s->asked = true;
        *done = false;
        return TP_OK;
    }
    if (s != NULL)
        run_stream(s, NULL, 0);
    TP_TRY(emu_usable(d));
    *done = true;
    return TP_OK;
}

/* ---- streams ---- */
tp_status kern_dev_stream_create(kern_dev *d, kern_stream *out)
{
    emu_stream *s = tp_calloc(1, sizeof *s);

    if (s == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "device %d: no host memory for a stream", d->props.ordinal);
    s->dev = d;
    s->tail = &s->head;
    s->next = d->streams;
    d->streams = s;
    *out = s;
    return TP_OK;
}

void kern_dev_stream_destroy(kern_dev *d, kern_stream stream)
{
    emu_stream *s = stream;

    if (s == NULL)
        return;
    TP_ASSERT(s->graph == NULL);
    run_stream(s, NULL, 0);
    for (emu_stream **link = &d->streams; *link != NULL; link = &(*link)->next)
        if (*link == s) {
            *link = s->next;
            break;
        }
    tp_free(s);
}

void emu_streams_destroy(kern_dev *d)
{
    while (d->streams != NULL)
        kern_dev_stream_destroy(d, d->streams);
    while (d->node_chunks != NULL) {
        void *next = *(void **)d->node_chunks;

        (void)munmap(d->node_chunks, CHUNK_BYTES);
        d->node_chunks = next;
    }
    d->free_nodes = NULL;
}

/* ---- copies ---- */
typedef struct copy_work {
    void *dst;
    const void *src;
    size_t bytes;
    int byte;
} copy_work;

static void run_copy(void *closure)
{
    const copy_work *w = closure;

    memmove(w->dst, w->src, w->bytes);
}

static void run_set(void *closure)
{
    const copy_work *w = closure;

    memset(w->dst, w->byte, w->bytes);
}

static tp_status copy(kern_dev *d, const copy_work *w, kern_stream s)
{
    return w->bytes == 0 ? TP_OK : emu_enqueue(d, s, run_copy, w, sizeof *w);
}

tp_status kern_dev_copy_in(kern_dev *d, void *dst, const void *src, size_t bytes, kern_stream s)
{
    if (bytes > 0 && !emu_is_device(dst, bytes))
        return emu_fail(d, "cudaErrorInvalidValue", "copy in: the target is no device memory");
    if (bytes > 0 && !emu_is_pinned(src, bytes))
        return emu_fail(d, "cudaErrorInvalidValue", "copy in: the source is no pinned memory");
    return copy(d, &(copy_work){.dst = dst, .src = src, .bytes = bytes}, s);
}

tp_status kern_dev_copy_out(kern_dev *d, void *dst, const void *src, size_t bytes, kern_stream s)
{
    if (bytes > 0 && !emu_is_device(src, bytes))
        return emu_fail(d, "cudaErrorInvalidValue", "copy out: the source is no device memory");
    if (bytes > 0 && !emu_is_pinned(dst, bytes))
        return emu_fail(d, "cudaErrorInvalidValue", "copy out: the target is no pinned memory");
    return copy(d, &(copy_work){.dst = dst, .src = src, .bytes = bytes}, s);
}

tp_status kern_dev_copy(kern_dev *d, void *dst, const void *src, size_t bytes, kern_stream s)
{
    if (bytes > 0 && (!emu_is_device(dst, bytes) || !emu_is_device(src, bytes)))
        return emu_fail(d, "cudaErrorInvalidValue", "copy: this is no device memory");
    return copy(d, &(copy_work){.dst = dst, .src = src, .bytes = bytes}, s);
}

tp_status kern_dev_set(kern_dev *d, void *dst, int byte, size_t bytes, kern_stream s)
{
    copy_work w = {.dst = dst, .bytes = bytes, .byte = byte};

    if (bytes == 0)
        return TP_OK;
    if (!emu_is_device(dst, bytes))
        return emu_fail(d, "cudaErrorInvalidValue", "set: this is no device memory");
    return emu_enqueue(d, s, run_set, &w, sizeof w);
}

/* ---- events ---- */
typedef struct mark_work {
    emu_event *event;
    uint64_t mark;
} mark_work;

tp_status kern_dev_event_create(kern_dev *d, bool timing, kern_event *out)
{
    emu_event *e = tp_calloc(1, sizeof *e);

    (void)timing;
    if (e == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "device %d: no host memory for an event", d->props.ordinal);
    e->dev = d;
    *out = e;
    return TP_OK;
}

/* Marks of it that are still queued run first: they point to it. */
void kern_dev_event_destroy(kern_dev *d, kern_event event)
{
    emu_event *e = event;

    (void)d;
    if (e == NULL)
        return;
    if (e->done < e->marks)
        run_stream(e->stream, e, e->marks);
    tp_free(e);
}

static void run_mark(void *closure)
{
    const mark_work *w = closure;

    w->event->done = w->mark;
    w->event->ns = tp_now_ns();
}

static void run_wait(void *closure)
{
    const mark_work *w = closure;

    if (w->event->done < w->mark)
        run_stream(w->event->stream, w->event, w->mark);
}

/* Moving an event to another stream while a mark of it is queued: that mark is reached first. */
tp_status kern_dev_event_record(kern_dev *d, kern_event event, kern_stream stream)
{
    emu_event *e = event;
    emu_stream *s = stream;
    mark_work w = {.event = e, .mark = e->marks + 1};

    TP_TRY(emu_usable(d));
    e->graph = s != NULL ? s->graph : NULL;
    if (e->graph != NULL) {
        e->stream = s;
        e->at = s->n_recorded;
        return TP_OK;
    }
    if (e->done < e->marks && e->stream != s)
        run_stream(e->stream, e, e->marks);
    TP_TRY(emu_enqueue(d, s, run_mark, &w, sizeof w));
    e->stream = s;
    e->marks = w.mark;
    return TP_OK;
}

static tp_status check_waitable(kern_dev *d, const emu_event *e)
{
    TP_TRY(emu_usable(d));
    TP_TRY(emu_not_recording(d, "an event was waited for"));
    if (e->graph != NULL)
        return emu_fail(d, "cudaErrorCapturedEvent", "the event belongs to a graph");
    return TP_OK;
}

tp_status kern_dev_event_wait(kern_dev *d, kern_event event)
{
    emu_event *e = event;

    TP_TRY(check_waitable(d, e));
    if (e->done < e->marks)
        run_stream(e->stream, e, e->marks);
    return emu_usable(d);
}

tp_status kern_dev_event_query(kern_dev *d, kern_event event, bool *done)
{
    emu_event *e = event;

    TP_TRY(check_waitable(d, e));
    if (e->done < e->marks && !e->stream->asked) {
        e->stream->asked = true;
        *done = false;
        return TP_OK;
    }
    if (e->done < e->marks)
        run_stream(e->stream, e, e->marks);
    TP_TRY(emu_usable(d));
    *done = true;
    return TP_OK;
}

/* A stream waits for an event of a recording: it joins it, or (the first stream) joins the other back. */
static tp_status wait_recorded(kern_dev *d, emu_stream *s, const emu_event *e)
{
    if (e->graph == NULL || e->graph != d->recording || (s->graph != NULL && s->graph != e->graph))
        return emu_fail(d, "cudaErrorStreamCaptureIsolation",
                        "a recorded stream and one that is not wait for each other");
    s->graph = e->graph;
    if (s == e->graph->origin && e->at == e->stream->n_recorded)
        e->stream->n_joined = e->at;
    return TP_OK;
}

tp_status kern_dev_stream_wait(kern_dev *d, kern_stream stream, kern_event event)
{
    emu_stream *s = stream;
    emu_event *e = event;
    mark_work w = {.event = e, .mark = e->marks};

    TP_TRY(emu_usable(d));
    if (s != NULL && (e->graph != NULL || s->graph != NULL))
        return wait_recorded(d, s, e);
    return e->done < e->marks ? emu_enqueue(d, s, run_wait, &w, sizeof w) : TP_OK;
}

tp_status kern_dev_event_ms(kern_dev *d, kern_event from, kern_event to, float *ms)
{
    const emu_event *a = from, *b = to;

    TP_TRY(emu_usable(d));
    if (a->marks == 0 || b->marks == 0)
        return emu_fail(d, "cudaErrorInvalidResourceHandle", "the event was never recorded");
    if (a->done < a->marks || b->done < b->marks)
        return emu_fail(d, "cudaErrorNotReady", "the event was not waited for");
    *ms = (float)(b->ns - a->ns) * 1e-6f;
    return TP_OK;
}

/* ---- graphs ---- */
static void unref_graph(void *closure)
{
    kern_dev_graph *g = *(kern_dev_graph **)closure;

    if (--g->refs > 0)
        return;
    for (emu_node *n = g->head, *next; n != NULL; n = next) {
        next = n->next;
        drop_node(g->dev, n);
    }
    tp_free(g);
}

static void run_graph(void *closure)
{
    const kern_dev_graph *g = *(kern_dev_graph **)closure;

    for (const emu_node *n = g->head; n != NULL; n = n->next)
        run_node(g->dev, n);
}

tp_status kern_dev_graph_begin(kern_dev *d, kern_stream stream)
{
    emu_stream *s = stream;
    kern_dev_graph *g;

    TP_TRY(emu_usable(d));
    if (s == NULL || d->recording != NULL)
        return emu_fail(d, "cudaErrorStreamCaptureUnsupported",
                        s == NULL ? "the default stream cannot be recorded"
                                  : "another graph is being recorded");
    g = tp_calloc(1, sizeof *g);
    if (g == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "device %d: no host memory for a graph", d->props.ordinal);
    *g = (kern_dev_graph){.dev = d, .origin = s, .refs = 1};
    g->tail = &g->head;
    d->recording = g;
    s->graph = g;
    return TP_OK;
}

tp_status kern_dev_graph_end(kern_dev *d, kern_stream stream, kern_dev_graph **out)
{
    emu_stream *s = stream;
    kern_dev_graph *g = s != NULL ? s->graph : NULL;
    bool joined = true;
    tp_status st;

    if (g == NULL || g->origin != s)
        return emu_fail(d, "cudaErrorIllegalState", "no graph is being recorded on this stream");
    for (emu_stream *other = d->streams; other != NULL; other = other->next)
        if (other->graph == g) {
            joined = joined && (other == s || other->n_joined == other->n_recorded);
            other->graph = NULL;
        }
    d->recording = NULL;
    st = emu_usable(d);
    if (st == TP_OK && g->spoilt)
        st = emu_fail(d, "cudaErrorStreamCaptureInvalidated",
                      "something that cannot be recorded spoilt the graph");
    else if (st == TP_OK && !joined)
        st = emu_fail(d, "cudaErrorStreamCaptureUnjoined",
                      "a stream that joined the recording was not waited for");
    if (st != TP_OK) {
        unref_graph(&g);
        return st;
    }
    *out = g;
    return TP_OK;
}

tp_status kern_dev_graph_launch(kern_dev *d, kern_dev_graph *g, kern_stream stream)
{
    emu_stream *s = stream;
    emu_node *n;

    TP_TRY(emu_usable(d));
    TP_TRY(emu_not_recording(d, "a graph was launched"));
    TP_TRY(new_node(d, &n));
    memcpy(n->payload, &g, sizeof g);
    n->run = run_graph;
    n->drop = unref_graph;
    n->closure = n->payload;
    g->refs++;
    if (s != NULL) {
        append(s, n);
        return TP_OK;
    }
    emu_memory_open();
    run_graph(n->closure);
    emu_memory_close();
    drop_node(d, n);
    return TP_OK;
}

void kern_dev_graph_destroy(kern_dev *d, kern_dev_graph *g)
{
    (void)d;
    if (g != NULL)
        unref_graph(&g);
}
