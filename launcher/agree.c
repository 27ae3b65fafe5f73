/* SPDX-License-Identifier: Apache-2.0 */
/* agree.c - see agree.h.
 *
 * Each rank reads its own command line, environment and files.  Where mpirun was given several programs, or a host has
 * another environment or version, ranks would compute different things or wait for each other for ever.
 *
 * A rank's card is text in CARD_BYTES bytes, a size that never changes, so that different versions can read each
 * other's: a line with the host, a line with the version, and a line "name=value" for every option that all must share.
 */
#include "launcher/agree.h"

#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/mem.h"
#include "runtime/sched/plan.h"

#define CARD_BYTES 4096
#define NAMED_MAX  3 /* differences that a line lists */

/* Options that a rank may have for itself: its cores and its words; and those that only rank 0 uses. */
static bool is_own(const launch_row *r, const char *group)
{
    static const char *const k_own[] = {"model-path", "served-model-name", "threads",
                                        "bind",       "comm-table",        "host",
                                        "port",       "api-key",           "api-key-file"};

    if (strcmp(group, "Log and self-help") == 0 || (r->flags & LAUNCH_FOR(LAUNCH_SERVE)) == 0 ||
        (r->flags & (LAUNCH_HIDDEN | LAUNCH_SECRET)) != 0)
        return true;
    for (size_t i = 0; i < TP_ARRAY_LEN(k_own); i++)
        if (strcmp(r->name, k_own[i]) == 0)
            return true;
    return false;
}

static void write_card(char *card, const launch_options *opt, const comm_world *world)
{
    const char *group = "";
    FILE *f = fmemopen(card, CARD_BYTES, "w"); /* what does not fit is cut, on all ranks alike */

    if (f == NULL)
        return;
    fprintf(f, "%s\n%s%s, plan %d\n", world->host, TPSERVE_VERSION,
            tp_fault_hit("launch.version") ? ".other" : "", RT_PLAN_VERSION);
    for (int i = 0; i < launch_n_rows; i++) {
        const launch_row *r = &launch_rows[i];

        group = r->group != NULL ? r->group : group;
        if (is_own(r, group))
            continue;
        fprintf(f, "%s=", r->name);
        launch_print_value(f, r, opt);
        fputc('\n', f);
    }
    fclose(f);
    card[CARD_BYTES - 1] = '\0';
}

static const char *next_line(const char *line)
{
    const char *end = strchr(line, '\n');

    return end != NULL ? end + 1 : line + strlen(line);
}

static int line_len(const char *line)
{
    return (int)strcspn(line, "\n");
}

static bool same_line(const char *a, const char *b)
{
    return line_len(a) == line_len(b) && strncmp(a, b, (size_t)line_len(a)) == 0;
}

/* The bytes of a line behind the first `skip`; a line that is shorter has none. */
static int rest_of(const char *line, int skip, const char **rest)
{
    int len = line_len(line);

    *rest = line + (skip < len ? skip : len);
    return len - (int)(*rest - line);
}

/* "--dtype is float32 there and auto on rank 0, ..." */
static void list_differences(char *text, size_t cap, const char *theirs, const char *mine)
{
    size_t len = 0;
    int n = 0;

    text[0] = '\0';
    for (; *theirs != '\0' && *mine != '\0'; theirs = next_line(theirs), mine = next_line(mine)) {
        int name = (int)strcspn(mine, "=\n"), n_there, n_here;
        const char *there, *here;

        if (same_line(theirs, mine) || n++ >= NAMED_MAX || len >= cap - 1)
            continue;
        n_there = rest_of(theirs, name + 1, &there);
        n_here = rest_of(mine, name + 1, &here);
        len += (size_t)snprintf(text + len, cap - len, "%s--%.*s is %.*s there and %.*s on rank 0",
                                n > 1 ? ", " : "", name, mine, n_there, there, n_here, here);
    }
    if (n > NAMED_MAX && len < cap - 1)
        (void)snprintf(text + len, cap - len, ", and %d more", n - NAMED_MAX);
}

/* False, with a line, when rank r differs from rank 0. */
static bool check_card(int r, const char *card, const char *card0)
{
    const char *version = next_line(card), *version0 = next_line(card0);
    char text[600];

    if (!same_line(version, version0)) {
        tp_error("launcher",
                 "rank %d on %.*s is tpserve %.*s, rank 0 is %.*s: all must be the same", r,
                 line_len(card), card, line_len(version), version, line_len(version0), version0);
        return false;
    }
    if (strcmp(version, version0) == 0)
        return true;
    list_differences(text, sizeof text, next_line(version), next_line(version0));
    tp_error("launcher", "rank %d on %.*s was started with other options: %s", r, line_len(card),
             card, text);
    return false;
}

tp_status launch_agree(const launch_options *opt, const comm_world *world)
{
    char *cards = tp_calloc((size_t)world->size + 1, CARD_BYTES);
    char *mine = cards != NULL ? cards + (size_t)world->size * CARD_BYTES : NULL;
    bool same = true;
    tp_status st;

    if (cards == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "comparing options");
    write_card(mine, opt, world);
    st = comm_world_gather(world, cards, mine, CARD_BYTES);
    for (int r = 1; r < world->size && st == TP_OK; r++) {
        char *card = cards + (size_t)r * CARD_BYTES;

        card[CARD_BYTES - 1] = '\0';
        if (world->rank == 0)
            same = check_card(r, card, cards) && same;
        else
            same = strcmp(next_line(card), next_line(cards)) == 0 && same;
    }
    tp_free(cards);
    if (st == TP_OK && !same)
        st = TP_REJECT(TP_ERR_INVALID, "the ranks were started differently");
    return st;
}
