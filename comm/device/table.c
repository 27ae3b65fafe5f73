/* SPDX-License-Identifier: Apache-2.0 */
/* table.c - which way sums of which size go: the built-in thresholds, the file, and what remains of either.
 *
 * The built-in lines are what others have published for H100 with NVSwitch (one exchange wins while its n - 1 copies
 * are short; NCCL where bandwidth decides), not measured by us: `tpserve bench --comm` writes a file of this machine.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/device/side.h"

#define KIB 1024
#define MIB (1024 * 1024)

static void add_line(comm_table *t, int64_t upto, const char *way)
{
    comm_table_line *l = &t->line[t->n_lines++];

    l->upto = upto;
    snprintf(l->way, sizeof l->way, "%s", way);
}

void comm_table_default(comm_table *out, int n_ranks)
{
    *out = (comm_table){0};
    if (n_ranks <= 2) {
        add_line(out, 2 * MIB, "p2p-1");
    } else if (n_ranks <= 4) {
        add_line(out, 1 * MIB, "p2p-1");
    } else {
        add_line(out, 256 * KIB, "p2p-1");
        add_line(out, 8 * MIB, "p2p-2");
    }
    add_line(out, INT64_MAX, "nccl-symm");
}

/* ---- the file ---- */

typedef struct reading {
    comm_table *t;
    int line, ranks;
    char device[128];
} reading;

static tp_status bad(const reading *rd, const char *what)
{
    return TP_FAIL(TP_ERR_FORMAT, "selection table, line %d: %s", rd->line, what);
}

/* "upto 524288 p2p-1", "upto max nccl" */
static tp_status read_upto(reading *rd, const char *rest)
{
    comm_table *t = rd->t;
    char number[32], way[COMM_WAY_LEN], more[2], *end;
    int64_t upto = INT64_MAX;

    if (sscanf(rest, "%31s %15s %1s", number, way, more) != 2)
        return bad(rd, "expected: upto BYTES|max WAY");
    if (strcmp(number, "max") != 0) {
        upto = strtoll(number, &end, 10);
        if (*end != '\0' || upto <= 0)
            return bad(rd, "expected a number of bytes or max after upto");
    }
    if (t->n_lines == COMM_TABLE_MAX)
        return bad(rd, "too many upto lines");
    if (t->n_lines > 0 && t->line[t->n_lines - 1].upto >= upto)
        return bad(rd, "sizes must ascend");
    add_line(t, upto, way);
    return TP_OK;
}

static tp_status read_line(reading *rd, const char *line)
{
    char word[16];
    int at = 0;

    if (sscanf(line, "%15s %n", word, &at) < 1)
        return TP_OK; /* blank */
    if (strcmp(word, "tpserve-comm") == 0)
        return strcmp(line + at, "1") == 0 ? TP_OK
                                           : bad(rd, "written by another version: expected 1");
    if (strcmp(word, "ranks") == 0) {
        rd->ranks = (int)strtol(line + at, NULL, 10);
        return TP_OK;
    }
    if (strcmp(word, "device") == 0) {
        snprintf(rd->device, sizeof rd->device, "%s", line + at);
        return TP_OK;
    }
    if (strcmp(word, "upto") == 0)
        return read_upto(rd, line + at);
    return bad(rd, "expected tpserve-comm, ranks, device or upto");
}

/* Without the comment and the blanks at its end. */
static void trim(char *line)
{
    size_t n = strcspn(line, "#");

    while (n > 0 && strchr(" \t\r", line[n - 1]) != NULL)
        n--;
    line[n] = '\0';
}

tp_status comm_table_parse(comm_table *out, const char *text, int n_ranks, const char *device)
{
    comm_table t = {0};
    reading rd = {.t = &t};

    while (*text != '\0') {
        char line[256];
        size_t n = strcspn(text, "\n");

        rd.line++;
        if (n >= sizeof line)
            return bad(&rd, "too long");
        memcpy(line, text, n);
        line[n] = '\0';
        trim(line);
        TP_TRY(read_line(&rd, line));
        text += n + (text[n] == '\n');
    }
    if (t.n_lines == 0)
        return bad(&rd, "no upto line before the end");
    if (rd.ranks != n_ranks)
        return TP_REJECT(TP_ERR_UNSUPPORTED, "it was measured with %d ranks, these are %d",
                         rd.ranks, n_ranks);
    if (device != NULL && strcmp(rd.device, device) != 0)
        return TP_REJECT(TP_ERR_UNSUPPORTED, "it was measured on %s, this is %s",
                         rd.device[0] != '\0' ? rd.device : "an unnamed device", device);
    *out = t;
    return TP_OK;
}

/* ---- what is there ---- */

static bool find_way(const comm_device_side *s, const char *name, comm_choice *out)
{
    for (int i = 0; i < s->n_reducers; i++) {
        const comm_reducer_ops *ops = s->r[i]->ops;

        for (int w = 0; ops->ways[w] != NULL; w++) {
            int64_t most = strcmp(ops->ways[w], name) == 0 ? ops->bytes_max(s->r[i], w) : 0;

            if (most > 0) {
                *out = (comm_choice){most, s->r[i], w};
                return true;
            }
        }
    }
    return false;
}

static void append(comm_device_side *s, const comm_choice *c)
{
    comm_choice *last = s->n_choices > 0 ? &s->choice[s->n_choices - 1] : NULL;

    if (last != NULL && last->upto >= c->upto)
        return;
    if (last != NULL && last->r == c->r && last->way == c->way)
        last->upto = c->upto;
    else if (s->n_choices < (int)TP_ARRAY_LEN(s->choice))
        s->choice[s->n_choices++] = *c;
}

void comm_table_apply(comm_device_side *s, const comm_table *t)
{
    /* When the wanted one is missing; the first that is there takes all sizes. */
    static const char *const next_best[] = {"nccl-symm", "nccl", "p2p-2", "p2p-1", "staged"};
    comm_choice c;

    s->n_choices = 0;
    for (int i = 0; i < t->n_lines; i++) {
        bool found = find_way(s, t->line[i].way, &c);

        for (size_t k = 0; k < TP_ARRAY_LEN(next_best) && !found; k++)
            found = find_way(s, next_best[k], &c);
        if (found) {
            c.upto = t->line[i].upto < c.upto ? t->line[i].upto : c.upto;
            append(s, &c);
        }
    }
    for (size_t k = 0; k < TP_ARRAY_LEN(next_best); k++) { /* sizes above the last line */
        if (find_way(s, next_best[k], &c))
            append(s, &c);
    }
    TP_ASSERT(s->n_choices > 0);
    s->choice[s->n_choices - 1].upto = INT64_MAX;
}
