/* SPDX-License-Identifier: Apache-2.0 */
/* tokenizer_driver.c - the tokenizer behind a pipe, for test_tokenizer.py.
 *
 *   tokenizer_driver MODEL_DIR               answers requests until the end of the input
 *   tokenizer_driver MODEL_DIR --time FILE   prints "load_s encode_s bytes ids" for one encoding of a file
 *
 * Request:  u32 flags, u32 n, n bytes of text (of ids with DECODE_ONLY); all numbers little-endian.
 * Answer:   i32 status; when it is 0: u32 n ids, the ids, u32 n, the decoded text, u32 n, the streamed text.
 */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "runtime/tokenizer/tokenizer.h"

#define ADD_SPECIAL   1u
#define PARSE_SPECIAL 2u
#define SKIP_SPECIAL  4u /* while decoding */
#define DECODE_ONLY   8u

#define TEXT_MAX ((size_t)1 << 30)

static bool read_all(void *out, size_t n)
{
    return fread(out, 1, n, stdin) == n;
}

static void write_all(const void *data, size_t n)
{
    if (n > 0)
        (void)fwrite(data, 1, n, stdout);
}

static void write_u32(size_t v)
{
    uint32_t n = (uint32_t)v;

    write_all(&n, sizeof n);
}

static tp_status stream(const rt_tokenizer *t, const rt_tokens *tokens, bool skip, tp_buf *out)
{
    char *text = tp_malloc(rt_detok_bytes_max(t));
    rt_detok d = {0};

    if (text == NULL)
        return TP_ERR_NOMEM;
    for (size_t i = 0; i < tokens->n; i++)
        tp_buf_put(out, text, rt_detok_push(t, &d, tokens->ids[i], skip, text));
    tp_buf_put(out, text, rt_detok_finish(&d, text));
    tp_free(text);
    return out->failed ? TP_ERR_NOMEM : TP_OK;
}

static tp_status work(const rt_tokenizer *t, uint32_t flags, tp_buf *in, rt_tokens *tokens,
                      tp_buf *decoded, tp_buf *streamed)
{
    bool skip = (flags & SKIP_SPECIAL) != 0;

    if ((flags & DECODE_ONLY) != 0) {
        tokens->n = in->len / sizeof *tokens->ids;
        tokens->cap = tokens->n + 1;
        tokens->ids = tp_malloc(tokens->cap * sizeof *tokens->ids);
        if (tokens->ids == NULL)
            return TP_ERR_NOMEM;
        memcpy(tokens->ids, tp_buf_str(in), tokens->n * sizeof *tokens->ids);
    } else {
        TP_TRY(rt_tokenizer_encode(t, tp_buf_str(in), in->len, (flags & ADD_SPECIAL) != 0,
                                   (flags & PARSE_SPECIAL) != 0, 0, tokens));
    }
    TP_TRY(rt_tokenizer_decode(t, tokens->ids, tokens->n, skip, decoded));
    return stream(t, tokens, skip, streamed);
}

static bool answer(const rt_tokenizer *t, tp_buf bufs[3])
{
    uint32_t head[2];
    rt_tokens tokens = {0};
    int32_t st;

    for (int i = 0; i < 3; i++)
        tp_buf_reset(&bufs[i]);
    if (!read_all(head, sizeof head) || !tp_buf_reserve(&bufs[0], head[1]) ||
        !read_all(bufs[0].data, head[1]))
        return false;
    bufs[0].len = head[1];
    st = work(t, head[0], &bufs[0], &tokens, &bufs[1], &bufs[2]);
    write_all(&st, sizeof st);
    if (st == TP_OK) {
        write_u32(tokens.n);
        write_all(tokens.ids, tokens.n * sizeof *tokens.ids);
        for (int i = 1; i < 3; i++) {
            write_u32(bufs[i].len);
            write_all(tp_buf_str(&bufs[i]), bufs[i].len);
        }
    }
    rt_tokens_release(&tokens);
    return fflush(stdout) == 0;
}

static int time_file(const rt_tokenizer *t, double load_s, const char *path)
{
    rt_tokens tokens = {0};
    tp_buf text;
    int64_t start;
    tp_status st;

    if (tp_buf_read_file(&text, path, TEXT_MAX) != TP_OK)
        return 1;
    start = tp_now_ns();
    st = rt_tokenizer_encode(t, tp_buf_str(&text), text.len, false, true, 0, &tokens);
    printf("%.4f %.4f %zu %zu\n", load_s, (double)(tp_now_ns() - start) / (double)TP_NS_PER_S,
           text.len, tokens.n);
    if (st != TP_OK)
        fprintf(stderr, "%s\n", tp_last_error());
    rt_tokens_release(&tokens);
    tp_buf_release(&text);
    return st == TP_OK ? 0 : 1;
}

int main(int argc, char **argv)
{
    int64_t start = tp_now_ns();
    rt_tokenizer *t = NULL;
    int rc = 0;

    if (argc < 2 || rt_tokenizer_load(&t, argv[1]) != TP_OK)
        return 2;
    if (argc == 4 && strcmp(argv[2], "--time") == 0) {
        rc = time_file(t, (double)(tp_now_ns() - start) / (double)TP_NS_PER_S, argv[3]);
    } else {
        tp_buf bufs[3];

        for (int i = 0; i < 3; i++)
            tp_buf_init(&bufs[i], TEXT_MAX);
        while (answer(t, bufs))
            continue;
        for (int i = 0; i < 3; i++)
            tp_buf_release(&bufs[i]);
    }
    rt_tokenizer_destroy(t);
    return rc;
}
