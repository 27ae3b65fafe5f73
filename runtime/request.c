/* SPDX-License-Identifier: Apache-2.0 */
/* request.c - life of a request handle and its outbox.
 *
 * Outbox record: record_head, then n_top logprobs, then the text.  Records are padded to 8 bytes and may wrap around
 * the end of the ring; the reader copies one out at a time, so its pointers stay valid until it asks for the next.
 *
 * The reader is notified when it has found the box empty before (`armed`); a batched reader also only when the box is
 * half full or a choice has ended.  notify runs under the lock: that is what lets rt_request_cancel promise silence.
 */
#include "runtime/request.h"

#include <string.h>

#include "base/clock.h"
#include "base/mem.h"

#define REQUEST_MAGIC 0x72657175u

typedef struct record_head {
    uint32_t bytes, text_len;
    uint8_t kind, finish, hidden, n_top;
    int32_t choice, token;
    float logprob;
    int32_t stop_token, stop_string, n_cached;
    const char *error_code; /* static string */
} record_head;

_Static_assert((RT_OUTBOX_BYTES & (RT_OUTBOX_BYTES - 1)) == 0, "the ring index is a mask");

rt_sampling rt_sampling_default(void)
{
    return (rt_sampling){.top_p = 1,
                         .repetition_penalty = 1,
                         .max_tokens = 16,
                         .n_logprobs = -1,
                         .n_prompt_logprobs = -1};
}

/* ---- creation ---- */

static const void *copy(tp_arena *a, const void *src, size_t n, size_t size, bool *ok)
{
    void *p;

    if (src == NULL || n == 0)
        return NULL;
    p = tp_arena_alloc(a, n * size);
    if (p == NULL) {
        *ok = false;
        return NULL;
    }
    memcpy(p, src, n * size);
    return p;
}

static bool copy_desc(tp_arena *a, rt_request *r, const rt_request_desc *d)
{
    bool ok = true;
    char **stop = NULL;

    r->desc = *d;
    r->desc.prompt = copy(a, d->prompt, (size_t)d->n_prompt, sizeof *d->prompt, &ok);
    r->desc.stop_ids = copy(a, d->stop_ids, (size_t)d->n_stop_ids, sizeof *d->stop_ids, &ok);
    r->desc.bias_ids = copy(a, d->bias_ids, (size_t)d->n_bias, sizeof *d->bias_ids, &ok);
    r->desc.bias = copy(a, d->bias, (size_t)d->n_bias, sizeof *d->bias, &ok);
    r->desc.allowed = copy(a, d->allowed, (size_t)d->n_allowed, sizeof *d->allowed, &ok);
    if (d->n_stop > 0) {
        stop = tp_arena_calloc(a, (size_t)d->n_stop, sizeof *stop);
        for (int i = 0; stop != NULL && i < d->n_stop; i++) {
            stop[i] = tp_arena_strndup(a, d->stop[i], strlen(d->stop[i]));
            ok = ok && stop[i] != NULL;
        }
        ok = ok && stop != NULL;
    }
    r->desc.stop = (const char *const *)stop;
    return ok;
}

static bool make_choices(tp_arena *a, rt_request *r, int32_t blocks_max)
{
    r->choices = tp_arena_calloc(a, (size_t)r->desc.n, sizeof *r->choices);
    if (r->choices == NULL)
        return false;
    for (int i = 0; i < r->desc.n; i++) {
        rt_choice *c = &r->choices[i];

        c->request = r;
        c->index = i;
        c->held = tp_arena_alloc(a, r->held_max);
        c->seq.blocks = tp_arena_alloc(a, (size_t)blocks_max * sizeof *c->seq.blocks);
        if (c->held == NULL || c->seq.blocks == NULL)
            return false;
    }
    return true;
}

tp_status rt_request_create(rt_request **out, rt_engine *e, const rt_tokenizer *t,
                            const rt_request_desc *d, int32_t blocks_max)
{
    size_t push = rt_detok_bytes_max(t);
    rt_request *r = tp_calloc(1, sizeof *r);

    if (r == NULL)
        return TP_REJECT(TP_ERR_NOMEM, "out of memory for a request");
    tp_arena_init(&r->arena, 0);
    r->magic = REQUEST_MAGIC;
    r->engine = e;
    r->armed = true;
    r->held_max = RT_STOP_BYTES_MAX + push;
    r->record_max = sizeof(record_head) + RT_LOGPROBS_MAX * sizeof(rt_logprob) + r->held_max + 16;
    r->submitted_ns = tp_now_ns();
    atomic_init(&r->refs, 1);
    pthread_mutex_init(&r->lock, NULL);
    r->ring_bytes = RT_OUTBOX_BYTES;
    /* A request is held back while less than two records per choice fit beside what was promised; with nothing promised
     * any more, the box is then far beyond the half at which a batched reader is woken. */
    while (r->ring_bytes < 8 * (size_t)d->n * r->record_max)
        r->ring_bytes *= 2;
    r->ring = tp_pages_alloc(r->ring_bytes);
    r->record = tp_malloc(r->record_max);
    r->scratch = tp_arena_alloc(&r->arena, push);
    if (r->ring == NULL || r->record == NULL || r->scratch == NULL || !copy_desc(&r->arena, r, d) ||
        !make_choices(&r->arena, r, blocks_max)) {
        rt_request_unref(r);
        return TP_REJECT(TP_ERR_NOMEM, "out of memory for a request of %d tokens", d->n_prompt);
    }
    r->n_open = d->n;
    r->blocks_max = blocks_max;
    *out = r;
    return TP_OK;
}

/* Names of the prompt's full blocks; the tokens behind them are the tail. */
static void name_prompt(const rt_request_desc *d, const rt_block_namer *n, rt_seq *q)
{
    q->n_named = d->n_prompt / n->block_tokens;
    q->n_tail = d->n_prompt % n->block_tokens;
    q->names[0] = rt_block_namer_root(n, d->cache_salt, sizeof d->cache_salt);
    for (int32_t i = 0; i < q->n_named; i++)
        q->names[i + 1] =
            rt_block_namer_next(n, &q->names[i], d->prompt + (size_t)i * (size_t)n->block_tokens);
    memcpy(q->tail, d->prompt + (d->n_prompt - q->n_tail), sizeof *q->tail * (size_t)q->n_tail);
}

tp_status rt_request_name_blocks(rt_request *r, const rt_block_namer *n)
{
    const rt_request_desc *d = &r->desc;
    size_t tokens = (size_t)d->n_prompt + (size_t)d->sampling.max_tokens;
    size_t blocks = tokens / (size_t)n->block_tokens;

    blocks = blocks < (size_t)r->blocks_max ? blocks : (size_t)r->blocks_max;
    for (int i = 0; i < d->n; i++) {
        rt_seq *q = &r->choices[i].seq;

        q->names = tp_arena_alloc(&r->arena, (blocks + 1) * sizeof *q->names);
        q->tail = tp_arena_alloc(&r->arena, (size_t)n->block_tokens * sizeof *q->tail);
        if (q->names == NULL || q->tail == NULL)
            return TP_REJECT(TP_ERR_NOMEM, "out of memory for a request of %d tokens", d->n_prompt);
    }
    name_prompt(d, n, &r->choices[0].seq);
    for (int i = 1; i < d->n; i++) {
        const rt_seq *first = &r->choices[0].seq;
        rt_seq *q = &r->choices[i].seq;

        q->n_named = first->n_named;
        q->n_tail = first->n_tail;
        memcpy(q->names, first->names, sizeof *q->names * (size_t)(q->n_named + 1));
        memcpy(q->tail, first->tail, sizeof *q->tail * (size_t)q->n_tail);
    }
    return TP_OK;
}

tp_status rt_request_index_text(rt_request *r, const rt_ngram_options *o, int32_t n_total)
{
    const rt_request_desc *d = &r->desc;

    TP_TRY(rt_ngram_init(&r->choices[0].text, &r->arena, o, d->prompt, d->n_prompt, n_total));
    for (int i = 1; i < d->n; i++)
        TP_TRY(rt_ngram_fork(&r->choices[i].text, &r->arena, &r->choices[0].text));
    return TP_OK;
}

void rt_request_ref(rt_request *r)
{
    atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
}

void rt_request_unref(rt_request *r)
{
    TP_ASSERT(r->magic == REQUEST_MAGIC);
    if (atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) != 1)
        return;
    r->magic = 0;
    pthread_mutex_destroy(&r->lock);
    tp_arena_release(&r->arena);
    tp_pages_free(r->ring, r->ring_bytes);
    tp_free(r->record);
    tp_free(r);
}

/* ---- the ring ---- */

static void ring_write(rt_request *r, uint64_t at, const void *src, size_t n)
{
    size_t begin = (size_t)at & (r->ring_bytes - 1);
    size_t first = r->ring_bytes - begin < n ? r->ring_bytes - begin : n;

    if (n == 0)
        return;
    memcpy(r->ring + begin, src, first);
    memcpy(r->ring, (const uint8_t *)src + first, n - first);
}

static void ring_read(const rt_request *r, uint64_t at, void *dst, size_t n)
{
    size_t begin = (size_t)at & (r->ring_bytes - 1);
    size_t first = r->ring_bytes - begin < n ? r->ring_bytes - begin : n;

    memcpy(dst, r->ring + begin, first);
    memcpy((uint8_t *)dst + first, r->ring, n - first);
}

size_t rt_request_prompt_record_bytes(void)
{
    return sizeof(record_head) + RT_LOGPROBS_MAX * sizeof(rt_logprob) + 8;
}

size_t rt_request_room(const rt_request *r)
{
    return r->ring_bytes - atomic_load_explicit(&r->used, memory_order_acquire);
}

void rt_request_push(rt_request *r, const rt_event *ev)
{
    record_head h = {.text_len = (uint32_t)ev->text_len,
                     .kind = (uint8_t)ev->kind,
                     .finish = (uint8_t)ev->finish,
                     .hidden = ev->hidden,
                     .n_top = (uint8_t)ev->n_top,
                     .choice = ev->choice,
                     .token = ev->token,
                     .logprob = ev->logprob,
                     .stop_token = ev->stop_token,
                     .stop_string = ev->stop_string,
                     .n_cached = ev->n_cached,
                     .error_code = ev->error_code};
    size_t tops = (size_t)ev->n_top * sizeof *ev->top;
    size_t bytes = (sizeof h + tops + ev->text_len + 7) & ~(size_t)7;
    bool wake;

    h.bytes = (uint32_t)bytes;
    pthread_mutex_lock(&r->lock);
    TP_ASSERT(bytes <= r->record_max && r->head - r->tail + bytes <= r->ring_bytes);
    ring_write(r, r->head, &h, sizeof h);
    ring_write(r, r->head + sizeof h, ev->top, tops);
    ring_write(r, r->head + sizeof h + tops, ev->text, ev->text_len);
    r->head += bytes;
    atomic_store_explicit(&r->used, (size_t)(r->head - r->tail), memory_order_release);
    wake = r->armed && (!r->desc.batched || ev->kind == RT_EVENT_FINISH ||
                        r->head - r->tail > r->ring_bytes / 2);
    if (wake && r->desc.notify != NULL) {
        r->armed = false;
        r->desc.notify(r->desc.ctx);
    }
    pthread_mutex_unlock(&r->lock);
}

bool rt_request_next(rt_request *r, rt_event *ev)
{
    record_head h;
    const rt_logprob *top;

    TP_ASSERT(r->magic == REQUEST_MAGIC);
    pthread_mutex_lock(&r->lock);
    if (r->head == r->tail) {
        r->armed = true;
        pthread_mutex_unlock(&r->lock);
        return false;
    }
    ring_read(r, r->tail, &h, sizeof h);
    ring_read(r, r->tail, r->record, h.bytes);
    r->tail += h.bytes;
    r->n_delivered += h.kind == RT_EVENT_FINISH;
    atomic_store_explicit(&r->used, (size_t)(r->head - r->tail), memory_order_release);
    pthread_mutex_unlock(&r->lock);
    top = (const rt_logprob *)(const void *)(r->record + sizeof h);
    *ev = (rt_event){.kind = (rt_event_kind)h.kind,
                     .choice = h.choice,
                     .token = h.token,
                     .hidden = h.hidden != 0,
                     .logprob = h.logprob,
                     .top = top,
                     .n_top = h.n_top,
                     .text = (const char *)(top + h.n_top),
                     .text_len = h.text_len,
                     .finish = (rt_finish)h.finish,
                     .stop_token = h.stop_token,
                     .stop_string = h.stop_string,
                     .n_cached = h.n_cached,
                     .error_code = h.error_code};
    return true;
}

bool rt_request_held_back(const rt_request *r)
{
    return rt_request_room(r) <= r->ring_bytes / 4;
}

bool rt_request_done(const rt_request *r)
{
    return r->n_delivered == r->desc.n;
}
