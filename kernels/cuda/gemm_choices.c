/* SPDX-License-Identifier: Apache-2.0 */
/* gemm_choices.c - see gemm_choices.h. */
#include "kernels/cuda/gemm_choices.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"

#define TABLE_SIZE     4096
#define PROBES         8
#define FILE_BYTES_MAX ((size_t)4 << 20)
#define FLAG_BIASED    1
#define FLAG_ALIGNED   2
#define FLAG_SPREAD    4
#define FLAGS_ALL      7

struct kern_gemm_choices {
    char *file; /* owned; NULL: none */
    char depends_on[KERN_GEMM_DEPENDS_MAX];
    uint64_t clock;
    kern_gemm_choice table[TABLE_SIZE];
};

/* ---- the table ---- */
static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * UINT64_C(0x9e3779b97f4a7c15);
    return h ^ (h >> 29);
}

/* Field by field: a struct has bytes between them. */
static uint64_t hash_shape(const kern_gemm_shape *s)
{
    uint64_t h = mix(1, (uint64_t)s->m);

    h = mix(h, (uint64_t)s->n);
    h = mix(h, (uint64_t)s->k);
    h = mix(h, (uint64_t)s->ldw);
    return mix(h, (uint64_t)s->dtype + 16 * (uint64_t)s->out_dtype + 256 * (uint64_t)s->biased +
                      512 * (uint64_t)s->aligned);
}

bool kern_gemm_choice_holds(const kern_gemm_choice *e, const kern_gemm_shape *s)
{
    return e->used && e->shape.m == s->m && e->shape.n == s->n && e->shape.k == s->k &&
           e->shape.ldw == s->ldw && e->shape.dtype == s->dtype &&
           e->shape.out_dtype == s->out_dtype && e->shape.biased == s->biased &&
           e->shape.aligned == s->aligned;
}

/* Should a go before b when one must? */
static bool worth_less(const kern_gemm_choice *a, const kern_gemm_choice *b)
{
    return a->tuned != b->tuned ? !a->tuned : a->age < b->age;
}

kern_gemm_choice *kern_gemm_choices_place(kern_gemm_choices *c, const kern_gemm_shape *shape)
{
    uint64_t hash = hash_shape(shape);
    kern_gemm_choice *least = NULL;

    for (uint64_t i = 0; i < PROBES; i++) {
        kern_gemm_choice *e = &c->table[(hash + i) % TABLE_SIZE];

        if (kern_gemm_choice_holds(e, shape))
            return e;
        if (least == NULL || (least->used && (!e->used || worth_less(e, least))))
            least = e;
    }
    return least;
}

void kern_gemm_choices_touch(kern_gemm_choices *c, kern_gemm_choice *e)
{
    e->age = ++c->clock;
}

/* ---- the file ---- */
static uint32_t checksum(const char *text, size_t n)
{
    return (uint32_t)(tp_hash_fnv(text, n) >> 32);
}

static void put_choice(tp_buf *b, const kern_gemm_choice *e)
{
    const kern_gemm_shape *s = &e->shape;
    int flags = (s->biased ? FLAG_BIASED : 0) | (s->aligned ? FLAG_ALIGNED : 0) |
                (e->spread_bias ? FLAG_SPREAD : 0);

    size_t start = b->len;

    tp_buf_printf(b, "%d %d %d %" PRId64 " %d %d %d %.2f ", s->m, s->n, s->k, s->ldw, s->dtype,
                  s->out_dtype, flags, (double)e->us);
    for (size_t i = 0; i < sizeof e->algorithm; i++)
        tp_buf_printf(b, "%02x", e->algorithm[i]);
    if (!b->failed)
        tp_buf_printf(b, " %08x\n", checksum(b->data + start, b->len - start));
}

/* Under another name first, then moved: readers see the old file or the new one. */
static bool replace_file(const char *path, const tp_buf *b)
{
    char temporary[4096];
    int n = snprintf(temporary, sizeof temporary, "%s.%ld", path, (long)getpid()), fd;
    bool whole;

    if (b->failed || n < 0 || (size_t)n >= sizeof temporary)
        return false;
    fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return false;
    whole = write(fd, b->data, b->len) == (ssize_t)b->len;
    if (close(fd) == 0 && whole && rename(temporary, path) == 0)
        return true;
    (void)unlink(temporary);
    return false;
}

void kern_gemm_choices_write(const kern_gemm_choices *c)
{
    tp_buf b;

    if (c->file == NULL)
        return;
    tp_buf_init(&b, FILE_BYTES_MAX);
    tp_buf_printf(&b, "tpserve-gemm 1 %s\n", c->depends_on);
    for (int i = 0; i < TABLE_SIZE; i++)
        if (c->table[i].used && c->table[i].tuned)
            put_choice(&b, &c->table[i]);
    if (!replace_file(c->file, &b))
        tp_debug("gemm", "cannot write %s: %m; the next start measures again", c->file);
    tp_buf_release(&b);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Exactly n bytes, then a blank. */
static bool read_hex(const char *s, unsigned char *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int high = hex_digit(s[2 * i]), low = high < 0 ? -1 : hex_digit(s[2 * i + 1]);

        if (low < 0)
            return false;
        out[i] = (unsigned char)(16 * high + low);
    }
    return s[2 * n] == ' ';
}

/* Is the line whole?  An algorithm with one wrong bit may be another algorithm. */
static bool is_whole(const char *line)
{
    size_t n = strcspn(line, "\n");
    char sum[16];

    if (n < 10 || line[n] != '\n')
        return false;
    (void)snprintf(sum, sizeof sum, " %08x\n", checksum(line, n - 9));
    return memcmp(line + n - 9, sum, 10) == 0;
}

static void read_line(kern_gemm_choices *c, const char *line)
{
    kern_gemm_choice e = {.used = true, .tuned = true}, *place;
    kern_gemm_shape *s = &e.shape;
    int flags, at = 0;

    if (!is_whole(line) ||
        sscanf(line, "%" SCNd32 " %" SCNd32 " %" SCNd32 " %" SCNd64 " %hd %hd %d %f %n", &s->m,
               &s->n, &s->k, &s->ldw, &s->dtype, &s->out_dtype, &flags, &e.us, &at) != 8 ||
        at == 0 || flags < 0 || flags > FLAGS_ALL ||
        !read_hex(line + at, e.algorithm, sizeof e.algorithm))
        return;
    s->biased = (flags & FLAG_BIASED) != 0;
    s->aligned = (flags & FLAG_ALIGNED) != 0;
    e.spread_bias = (flags & FLAG_SPREAD) != 0;
    place = kern_gemm_choices_place(c, s);
    *place = e;
    kern_gemm_choices_touch(c, place);
}

static void read_file(kern_gemm_choices *c)
{
    char head[KERN_GEMM_DEPENDS_MAX + 32];
    tp_buf b;
    int n = snprintf(head, sizeof head, "tpserve-gemm 1 %s\n", c->depends_on);

    if (access(c->file, R_OK) != 0)
        return;
    if (tp_buf_read_file(&b, c->file, FILE_BYTES_MAX) == TP_OK && b.len > (size_t)n &&
        memcmp(b.data, head, (size_t)n) == 0)
        for (const char *line = strchr(b.data, '\n'); line != NULL && line[1] != '\0';
             line = strchr(line + 1, '\n'))
            read_line(c, line + 1);
    tp_buf_release(&b);
}

/* ---- life ---- */
tp_status kern_gemm_choices_create(kern_gemm_choices **out, const char *file,
                                   const char *depends_on)
{
    kern_gemm_choices *c = tp_calloc(1, sizeof *c);

    if (c != NULL && file != NULL)
        c->file = tp_strdup(file);
    if (c == NULL || (file != NULL && c->file == NULL)) {
        kern_gemm_choices_destroy(c);
        return TP_FAIL(TP_ERR_NOMEM, "gemm: no memory for its table of algorithms");
    }
    (void)snprintf(c->depends_on, sizeof c->depends_on, "%s", depends_on);
    if (file != NULL)
        read_file(c);
    *out = c;
    return TP_OK;
}

void kern_gemm_choices_destroy(kern_gemm_choices *c)
{
    if (c == NULL)
        return;
    tp_free(c->file);
    tp_free(c);
}
