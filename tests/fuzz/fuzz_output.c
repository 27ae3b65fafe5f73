/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_output.c - tokens become text, with stop strings across their borders.
 *
 * Input: up to four stop strings, one per line, a line of "----", then the text.  The text is cut into tokens by a fixed
 * tokenizer and also given byte by byte; what comes out must be what a search of the whole text would cut.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "runtime/output.h"
#include "tests/fuzz/fuzz.h"

#define TEXT_MAX 4096
#define EOS      0 /* of the config below; the texts' tokens are never it */

static const rt_tokenizer *tokenizer(void)
{
    static rt_tokenizer *t;

    if (t == NULL)
        TP_ASSERT(rt_tokenizer_load(&t, TOKENIZER_DATA "/qwen2") == TP_OK);
    return t;
}

typedef struct run {
    rt_request *request;
    rt_config config;
    rt_stats stats;
    rt_output output;
    tp_buf text;
    bool stopped;
} run;

static void drain(run *r)
{
    rt_event ev;

    while (rt_request_next(r->request, &ev)) {
        TP_ASSERT(tp_utf8_valid(ev.text, ev.text_len));
        tp_buf_put(&r->text, ev.text, ev.text_len);
    }
}

static void play(run *r, const rt_request_desc *d, const rt_tokens *ids)
{
    rt_ending end = {.finish = RT_FINISH_NONE};
    rt_choice *c;

    TP_ASSERT(rt_request_create(&r->request, NULL, tokenizer(), d, 4) == TP_OK);
    c = &r->request->choices[0];
    c->seq.n_total_max = INT32_MAX;
    for (size_t i = 0; i < ids->n && end.finish == RT_FINISH_NONE; i++) {
        end = rt_output_token(&r->output, c, &(rt_step_result){.token = ids->ids[i]});
        drain(r);
    }
    r->stopped = end.finish != RT_FINISH_NONE;
    if (!r->stopped)
        end = (rt_ending){.finish = RT_FINISH_LENGTH, .stop_token = -1, .stop_string = -1};
    rt_output_finish(&r->output, c, &end);
    drain(r);
    rt_request_unref(r->request);
}

/* Length of text up to the match that ends first, or of all of it. */
static size_t cut_at(const char *text, size_t n, const rt_request_desc *d)
{
    for (size_t end = 1; end <= n; end++) {
        for (int i = 0; i < d->n_stop; i++) {
            size_t len = strlen(d->stop[i]);

            if (len <= end && memcmp(text + end - len, d->stop[i], len) == 0)
                return d->include_stop ? end : end - len;
        }
    }
    return n;
}

static void check(const rt_request_desc *d, const rt_tokens *ids)
{
    run r = {.config = {.eos = {EOS}, .n_eos = 0}};
    tp_buf whole;

    tp_buf_init(&whole, 1 << 20);
    tp_buf_init(&r.text, 1 << 20);
    rt_stats_init(&r.stats, TEXT_MAX);
    r.output =
        (rt_output){.tokenizer = tokenizer(), .config = &r.config, .stats = &r.stats, .now_ns = 1};
    play(&r, d, ids);
    TP_ASSERT(rt_tokenizer_decode(tokenizer(), ids->ids, ids->n, false, &whole) == TP_OK);
    /* A replacement character at the very end is no match: it is only known when the text is over. */
    if (r.stopped || tp_utf8_valid(tp_buf_str(&whole), whole.len)) {
        size_t cut = cut_at(tp_buf_str(&whole), whole.len, d);

        TP_ASSERT(r.text.len == cut);
        TP_ASSERT(memcmp(tp_buf_str(&r.text), tp_buf_str(&whole), r.text.len) == 0);
    }
    tp_buf_release(&whole);
    tp_buf_release(&r.text);
}

/* The tokens of single bytes. */
static void split_bytes(const fuzz_part *text, rt_tokens *out)
{
    for (size_t i = 0; i < text->n; i++) {
        rt_tokens one = {0};

        if ((unsigned char)text->text[i] < 0x80 &&
            rt_tokenizer_encode(tokenizer(), text->text + i, 1, false, false, 0, &one) == TP_OK &&
            one.n == 1)
            out->ids[out->n++] = one.ids[0];
        rt_tokens_release(&one);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int32_t k_prompt[] = {1};
    fuzz_part rest = {(const char *)data, size}, head = {"", 0}, line;
    char strings[RT_STOP_STRINGS_MAX][RT_STOP_BYTES_MAX + 1];
    const char *stop[RT_STOP_STRINGS_MAX];
    rt_request_desc d = {
        .prompt = k_prompt, .n_prompt = 1, .n = 1, .sampling = rt_sampling_default(), .stop = stop};
    rt_tokens ids = {0};

    fuzz_init();
    (void)fuzz_next_part(&rest, &head);
    while (d.n_stop < RT_STOP_STRINGS_MAX && fuzz_next_line(&head, &line)) {
        size_t n = line.n <= RT_STOP_BYTES_MAX ? line.n : RT_STOP_BYTES_MAX;

        memcpy(strings[d.n_stop], line.text, n);
        strings[d.n_stop][n] = '\0';
        stop[d.n_stop] = strings[d.n_stop];
        if (strings[d.n_stop][0] != '\0' && tp_utf8_valid(stop[d.n_stop], strlen(stop[d.n_stop])))
            d.n_stop++;
    }
    rest.n = rest.n < TEXT_MAX ? rest.n : TEXT_MAX;
    d.sampling.max_tokens = TEXT_MAX;
    d.include_stop = rest.n % 2 == 1;
    if (rt_tokenizer_encode(tokenizer(), rest.text, rest.n, false, false, 0, &ids) == TP_OK)
        check(&d, &ids);
    rt_tokens_release(&ids);
    ids.ids = tp_calloc(rest.n + 1, sizeof *ids.ids);
    TP_ASSERT(ids.ids != NULL);
    split_bytes(&rest, &ids);
    check(&d, &ids);
    rt_tokens_release(&ids);
    return 0;
}
