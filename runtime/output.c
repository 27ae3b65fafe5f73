/* SPDX-License-Identifier: Apache-2.0 */
/* output.c - detokenising, stop strings, and the events that go to the reader.
 *
 * Text is released as soon as it cannot be part of a stop string: the longest end of it that begins some stop string is
 * held back, nothing more.  The stop string whose match ends first wins, and among those the first in the list; text
 * from its start on is dropped.  Eos and stop ids end the text and add nothing to it.
 */
#include "runtime/output.h"

#include <math.h>
#include <string.h>

#include "base/clock.h"

static const rt_ending k_go_on = {.finish = RT_FINISH_NONE, .stop_token = -1, .stop_string = -1};

/* ---- stop strings ---- */

/* First byte behind the earliest-ending match in text, -1 when there is none; *which is the stop string. */
static int64_t find_stop(const rt_request_desc *d, const char *text, size_t n, int *which)
{
    int64_t best = -1;

    for (int i = 0; i < d->n_stop; i++) {
        size_t len = strlen(d->stop[i]);
        const char *at = len <= n ? memmem(text, n, d->stop[i], len) : NULL;
        int64_t end = at != NULL ? at - text + (int64_t)len : -1;

        if (end >= 0 && (best < 0 || end < best)) {
            best = end;
            *which = i;
        }
    }
    return best;
}

/* Length of the longest end of text that begins a stop string. */
static size_t held_back(const rt_request_desc *d, const char *text, size_t n)
{
    size_t longest = 0;

    for (int i = 0; i < d->n_stop; i++) {
        size_t len = strlen(d->stop[i]);
        size_t k = len - 1 < n ? len - 1 : n;

        for (; k > longest; k--) {
            if (memcmp(text + n - k, d->stop[i], k) == 0) {
                longest = k;
                break;
            }
        }
    }
    return longest;
}

/* ---- endings ---- */

static bool contains(const int32_t *ids, int n, int32_t id)
{
    for (int i = 0; i < n; i++)
        if (ids[i] == id)
            return true;
    return false;
}

static rt_ending token_ending(const rt_output *o, const rt_choice *c, int32_t token)
{
    const rt_request_desc *d = &c->request->desc;
    rt_ending end = k_go_on;

    if (token < 0) {
        end.finish = RT_FINISH_ERROR;
        end.error_code = "internal_error";
    } else if (contains(d->stop_ids, d->n_stop_ids, token)) {
        end.finish = RT_FINISH_STOP;
        end.stop_token = token;
    } else if (!d->sampling.ignore_eos && contains(o->config->eos, o->config->n_eos, token)) {
        end.finish = RT_FINISH_STOP;
    }
    return end;
}

static void count_token(rt_output *o, rt_choice *c)
{
    double since = (double)(o->now_ns - c->last_ns) * 1e-9;

    if (c->n_generated++ == 0) {
        c->first_ns = o->now_ns;
        rt_hist_add(&o->stats->ttft, (double)(o->now_ns - c->request->submitted_ns) * 1e-9);
    } else {
        rt_hist_add(&o->stats->inter_token, since);
    }
    c->last_ns = o->now_ns;
    o->stats->generation_tokens++;
}

static rt_event token_event(rt_event_kind kind, const rt_choice *c, const rt_step_result *res)
{
    return (rt_event){.kind = kind,
                      .choice = c->index,
                      .token = res->token,
                      .logprob = res->logprob,
                      .top = res->top,
                      .n_top = res->n_top,
                      .n_cached = c->request->choices[0].seq.n_cached,
                      .stop_token = -1,
                      .stop_string = -1};
}

/* Adds the token's text to what is held, and decides how much of it may go; *emit bytes of c->held. */
static void release_text(const rt_output *o, rt_choice *c, int32_t token, rt_ending *end,
                         size_t *emit)
{
    const rt_request_desc *d = &c->request->desc;
    size_t n =
        rt_detok_push(o->tokenizer, &c->detok, token, d->skip_special_tokens, c->request->scratch);
    int which = -1;
    int64_t match;

    TP_ASSERT(c->held_len + n <= c->request->held_max);
    memcpy(c->held + c->held_len, c->request->scratch, n);
    c->held_len += n;
    *emit = c->held_len;
    if (d->n_stop == 0 || c->n_generated <= d->sampling.min_tokens)
        return;
    match = find_stop(d, c->held, c->held_len, &which);
    if (match >= 0) {
        end->finish = RT_FINISH_STOP;
        end->stop_string = which;
        *emit = (size_t)match - (d->include_stop ? 0 : strlen(d->stop[which]));
        c->held_len = *emit;
        return;
    }
    *emit = c->held_len - held_back(d, c->held, c->held_len);
}

/* The first prompt token has no logprob: nothing comes before it. */
static void push_first_prompt(rt_choice *c)
{
    rt_event ev = {.kind = RT_EVENT_PROMPT,
                   .choice = c->index,
                   .token = c->request->desc.prompt[0],
                   .logprob = NAN,
                   .stop_token = -1,
                   .stop_string = -1};

    rt_request_push(c->request, &ev);
    c->next_prompt = 1;
}

/* Prompts of one token yield no result rows, but their one entry is due all the same. */
static void complete_prompt(rt_choice *c)
{
    if (c->index == 0 && c->next_prompt == 0 && c->request->desc.sampling.n_prompt_logprobs >= 0)
        push_first_prompt(c);
}

void rt_output_prompt(rt_output *o, rt_choice *c, const rt_step_result *res)
{
    rt_event ev = token_event(RT_EVENT_PROMPT, c, res);

    (void)o;
    complete_prompt(c);
    rt_request_push(c->request, &ev);
    c->next_prompt++;
}

rt_ending rt_output_token(rt_output *o, rt_choice *c, const rt_step_result *res)
{
    rt_event ev = token_event(RT_EVENT_TOKEN, c, res);
    rt_ending end = token_ending(o, c, res->token);
    size_t emit = 0;

    if (end.finish == RT_FINISH_ERROR)
        return end;
    complete_prompt(c);
    count_token(o, c);
    ev.hidden = end.finish == RT_FINISH_STOP;
    if (!ev.hidden)
        release_text(o, c, res->token, &end, &emit);
    ev.text = c->held;
    ev.text_len = emit;
    rt_request_push(c->request, &ev);
    memmove(c->held, c->held + emit, c->held_len - emit);
    c->held_len -= emit;
    if (end.finish == RT_FINISH_NONE &&
        c->request->desc.n_prompt + c->n_generated >= c->seq.n_total_max)
        end.finish = RT_FINISH_LENGTH;
    return end;
}

static void count_finish(rt_output *o, const rt_choice *c, rt_finish finish)
{
    rt_stats *s = o->stats;
    const rt_request *r = c->request;
    double first = (double)(c->first_ns - c->started_ns) * 1e-9;
    double decode = (double)(c->last_ns - c->first_ns) * 1e-9;

    s->finished_stop += finish == RT_FINISH_STOP;
    s->finished_length += finish == RT_FINISH_LENGTH;
    s->finished_abort += finish == RT_FINISH_ABORT;
    s->finished_error += finish == RT_FINISH_ERROR;
    rt_hist_add(&s->e2e, (double)(o->now_ns - r->submitted_ns) * 1e-9);
    rt_hist_add(&s->prompt_len, (double)r->desc.n_prompt);
    rt_hist_add(&s->generation_len, (double)c->n_generated);
    if (c->n_generated == 0)
        return;
    rt_hist_add(&s->queue, (double)(c->started_ns - r->submitted_ns) * 1e-9);
    rt_hist_add(&s->prefill, first);
    rt_hist_add(&s->decode, decode);
    rt_hist_add(&s->inference, first + decode);
    if (c->n_generated > 1)
        rt_hist_add(&s->per_output_token, decode / (double)(c->n_generated - 1));
}

void rt_output_finish(rt_output *o, rt_choice *c, const rt_ending *end)
{
    rt_event ev = {.kind = RT_EVENT_FINISH,
                   .choice = c->index,
                   .token = -1,
                   .finish = end->finish,
                   .n_cached = c->request->choices[0].seq.n_cached,
                   .stop_token = end->stop_token,
                   .stop_string = end->stop_string,
                   .error_code = end->error_code};

    TP_ASSERT(!c->finished);
    c->finished = true;
    if (end->finish == RT_FINISH_LENGTH)
        complete_prompt(c);
    if (end->stop_string < 0)
        c->held_len += rt_detok_finish(&c->detok, c->held + c->held_len);
    ev.text = c->held;
    ev.text_len = c->held_len;
    count_finish(o, c, end->finish);
    if (end->finish != RT_FINISH_ABORT)
        rt_request_push(c->request, &ev);
}
