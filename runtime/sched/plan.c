/* SPDX-License-Identifier: Apache-2.0 */
/* plan.c - encoding and decoding of step plans; plan.h is the specification.
 *
 * The writer collects closes, copies, openings and sequences in buffers of fixed size, so that the scheduler may add
 * them in any order and no step allocates.  The reader trusts nothing: every count is checked against the bytes left.
 */
#include "runtime/sched/plan.h"

#include <stddef.h>
#include <string.h>

#include "base/mem.h"

_Static_assert(sizeof(rt_plan_header) == 40, "plan header layout");
_Static_assert(sizeof(rt_slot_params) == 48, "slot parameter layout");
_Static_assert(sizeof(rt_plan_open) == 72, "opening layout");
_Static_assert(sizeof(rt_plan_seq) == 32, "sequence layout");

static size_t pad8(size_t n)
{
    return (n + 7) & ~(size_t)7;
}

/* FNV-1a by words instead of bytes, as every plan is summed twice; the last one is filled up with zeros. */
static uint64_t hash_words(const void *data, size_t n)
{
    const uint8_t *p = data;
    uint64_t h = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < n; i += sizeof(uint64_t)) {
        uint64_t word = 0;

        memcpy(&word, p + i, n - i < sizeof word ? n - i : sizeof word);
        h = (h ^ word) * UINT64_C(0x100000001b3);
    }
    return h;
}

/* Of the header up to its last field and of the rest, folded together to 32 bits.  The hash is a chain of bijections, so
 * one changed byte always changes its 64 bits. */
static uint32_t checksum(const rt_plan_header *h, const uint8_t *rest, size_t n)
{
    uint64_t a = hash_words(h, offsetof(rt_plan_header, checksum)), b = hash_words(rest, n);
    uint64_t sum = ((a << 32) | (a >> 32)) * UINT64_C(0x9e3779b97f4a7c15) ^ b;

    return (uint32_t)(sum ^ (sum >> 32));
}

tp_status rt_plan_writer_init(rt_plan_writer *w, size_t cap, uint32_t list_cap)
{
    memset(w, 0, sizeof *w);
    w->cap = pad8(cap);
    w->list_cap = list_cap;
    w->data = tp_malloc(w->cap);
    w->tail = tp_malloc(w->cap);
    w->opens = tp_malloc(w->cap);
    w->copies = tp_calloc(list_cap, sizeof *w->copies);
    w->closes = tp_calloc(list_cap, sizeof *w->closes);
    if (w->data == NULL || w->tail == NULL || w->opens == NULL || w->copies == NULL ||
        w->closes == NULL) {
        rt_plan_writer_release(w);
        return TP_FAIL(TP_ERR_NOMEM, "step plan buffers of %zu bytes", cap);
    }
    return TP_OK;
}

void rt_plan_writer_release(rt_plan_writer *w)
{
    tp_free(w->data);
    tp_free(w->tail);
    tp_free(w->opens);
    tp_free(w->copies);
    tp_free(w->closes);
    memset(w, 0, sizeof *w);
}

void rt_plan_begin(rt_plan_writer *w, uint64_t step, uint16_t flags)
{
    w->len = w->tail_len = w->opens_len = 0;
    memset(&w->header, 0, sizeof w->header);
    w->header.magic = RT_PLAN_MAGIC;
    w->header.version = RT_PLAN_VERSION;
    w->header.flags = flags;
    w->header.step = step;
}

/* Bytes that the finished plan would have with `extra` more. */
static bool fits(const rt_plan_writer *w, size_t extra)
{
    size_t fixed =
        sizeof w->header + pad8(w->list_cap * sizeof *w->closes) + w->list_cap * sizeof *w->copies;

    return fixed + w->opens_len + w->tail_len + extra <= w->cap;
}

bool rt_plan_add_close(rt_plan_writer *w, int32_t slot)
{
    if (w->header.n_close >= w->list_cap)
        return false;
    w->closes[w->header.n_close++] = slot;
    return true;
}

bool rt_plan_add_copy(rt_plan_writer *w, int32_t dst, int32_t src)
{
    if (w->header.n_copy >= w->list_cap)
        return false;
    w->copies[w->header.n_copy++] = (rt_plan_copy){.dst = dst, .src = src};
    return true;
}

static uint8_t *append(uint8_t *at, const void *src, size_t n)
{
    if (n > 0)
        memcpy(at, src, n);
    return at + n;
}

static size_t open_bytes(const rt_plan_open *o)
{
    return sizeof *o + pad8(sizeof(int32_t) * ((size_t)o->n_prompt + 2 * (size_t)o->n_bias +
                                               (size_t)o->n_allowed + (size_t)o->n_forbidden));
}

bool rt_plan_add_open(rt_plan_writer *w, const rt_plan_open_view *o)
{
    size_t bytes = open_bytes(&o->head);
    uint8_t *at;

    if (!fits(w, bytes))
        return false;
    at = append(w->opens + w->opens_len, &o->head, sizeof o->head);
    at = append(at, o->prompt, sizeof(int32_t) * (size_t)o->head.n_prompt);
    at = append(at, o->bias_ids, sizeof(int32_t) * (size_t)o->head.n_bias);
    at = append(at, o->bias, sizeof(float) * (size_t)o->head.n_bias);
    at = append(at, o->allowed, sizeof(int32_t) * (size_t)o->head.n_allowed);
    at = append(at, o->forbidden, sizeof(int32_t) * (size_t)o->head.n_forbidden);
    memset(at, 0, (size_t)(w->opens + w->opens_len + bytes - at));
    w->opens_len += bytes;
    w->header.n_open++;
    return true;
}

bool rt_plan_add_seq(rt_plan_writer *w, const rt_plan_seq *s, const int32_t *blocks,
                     const int32_t *draft)
{
    size_t table = sizeof *blocks * (size_t)s->n_blocks, guess = sizeof *draft * (size_t)s->n_draft;
    size_t bytes = sizeof *s + pad8(table + guess);
    uint8_t *at;

    if (!fits(w, bytes))
        return false;
    at = append(w->tail + w->tail_len, s, sizeof *s);
    at = append(at, blocks, table);
    at = append(at, draft, guess);
    memset(at, 0, pad8(table + guess) - (table + guess));
    w->tail_len += bytes;
    w->header.n_seq++;
    return true;
}

bool rt_plan_is_empty(const rt_plan_writer *w)
{
    const rt_plan_header *h = &w->header;

    return h->flags == 0 && h->n_close == 0 && h->n_copy == 0 && h->n_open == 0 && h->n_seq == 0;
}

const uint8_t *rt_plan_finish(rt_plan_writer *w, size_t *bytes)
{
    size_t closes = sizeof *w->closes * w->header.n_close;
    uint8_t *at = w->data + sizeof w->header;

    at = append(at, w->closes, closes);
    memset(at, 0, pad8(closes) - closes);
    at += pad8(closes) - closes;
    at = append(at, w->copies, sizeof *w->copies * w->header.n_copy);
    at = append(at, w->opens, w->opens_len);
    at = append(at, w->tail, w->tail_len);
    w->len = (size_t)(at - w->data);
    TP_ASSERT(w->len <= w->cap);
    w->header.bytes = (uint32_t)w->len;
    w->header.checksum =
        checksum(&w->header, w->data + sizeof w->header, w->len - sizeof w->header);
    memcpy(w->data, &w->header, sizeof w->header);
    *bytes = w->len;
    return w->data;
}

/* `n` elements of `size` bytes at the cursor, which then moves on to the next multiple of 8. */
static const void *take(rt_plan_reader *r, uint64_t n, size_t size)
{
    const void *p = r->data + r->at;

    if (n > (r->len - r->at) / size || r->at + pad8((size_t)n * size) > r->len)
        return NULL;
    r->at += pad8((size_t)n * size);
    return p;
}

tp_status rt_plan_open_reader(rt_plan_reader *r, const void *data, size_t len)
{
    memset(r, 0, sizeof *r);
    if (len < sizeof r->header)
        return TP_FAIL(TP_ERR_FORMAT, "step plan of %zu bytes: shorter than its header", len);
    memcpy(&r->header, data, sizeof r->header);
    r->data = data;
    r->len = len;
    r->at = sizeof r->header;
    if (r->header.magic != RT_PLAN_MAGIC || r->header.version != RT_PLAN_VERSION ||
        r->header.bytes != len)
        return TP_FAIL(TP_ERR_FORMAT,
                       "step plan: magic %08x version %u, %u of %zu bytes; expected version %d",
                       r->header.magic, r->header.version, r->header.bytes, len, RT_PLAN_VERSION);
    if (checksum(&r->header, r->data + r->at, len - r->at) != r->header.checksum)
        return TP_FAIL(TP_ERR_FORMAT, "step plan %llu: checksum differs",
                       (unsigned long long)r->header.step);
    r->closes = take(r, r->header.n_close, sizeof *r->closes);
    r->copies = r->closes == NULL ? NULL : take(r, r->header.n_copy, sizeof *r->copies);
    if (r->copies == NULL)
        return TP_FAIL(TP_ERR_FORMAT, "step plan %llu: lists overrun its end",
                       (unsigned long long)r->header.step);
    return TP_OK;
}

tp_status rt_plan_read_open(rt_plan_reader *r, rt_plan_open_view *out)
{
    const void *head = take(r, 1, sizeof out->head);
    uint64_t n;
    const int32_t *at;

    if (head == NULL)
        return TP_FAIL(TP_ERR_FORMAT, "step plan: opening cut off");
    memcpy(&out->head, head, sizeof out->head);
    if (out->head.n_prompt < 1 || out->head.n_bias < 0 || out->head.n_allowed < 0 ||
        out->head.n_forbidden < 0)
        return TP_FAIL(TP_ERR_FORMAT, "step plan: opening of slot %d with a negative count",
                       out->head.slot);
    n = (uint64_t)out->head.n_prompt + 2 * (uint64_t)out->head.n_bias +
        (uint64_t)out->head.n_allowed + (uint64_t)out->head.n_forbidden;
    at = take(r, n, sizeof *at);
    if (at == NULL)
        return TP_FAIL(TP_ERR_FORMAT, "step plan: prompt of slot %d cut off", out->head.slot);
    out->prompt = at;
    out->bias_ids = out->prompt + out->head.n_prompt;
    out->bias = (const float *)(const void *)(out->bias_ids + out->head.n_bias);
    out->allowed = out->bias_ids + 2 * (size_t)out->head.n_bias;
    out->forbidden = out->allowed + out->head.n_allowed;
    return TP_OK;
}

tp_status rt_plan_read_seq(rt_plan_reader *r, rt_plan_seq *out, const int32_t **blocks)
{
    const void *head = take(r, 1, sizeof *out);

    if (head == NULL)
        return TP_FAIL(TP_ERR_FORMAT, "step plan: sequence cut off");
    memcpy(out, head, sizeof *out);
    if (out->n_blocks < 0 || out->n_draft < 0 || out->n_draft > RT_DRAFT_MAX)
        return TP_FAIL(TP_ERR_FORMAT, "step plan: slot %d with %d blocks and a draft of %d tokens",
                       out->slot, out->n_blocks, out->n_draft);
    *blocks = take(r, (uint64_t)out->n_blocks + (uint64_t)out->n_draft, sizeof **blocks);
    if (*blocks == NULL)
        return TP_FAIL(TP_ERR_FORMAT, "step plan: block table of slot %d cut off", out->slot);
    return TP_OK;
}
