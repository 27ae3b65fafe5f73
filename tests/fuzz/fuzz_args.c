/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_args.c - command lines: one word per line; behind lines of "----" variables of the environment (NAME=VALUE, of TPSERVE_
 * names only) and a file "keys" for --api-key-file.  A word with a slash would name a file of this machine: such inputs are
 * not run.
 *
 * Promises: a refusal has a text; what is accepted can be printed, the loads of a benchmark are in range, keys are not empty.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "launcher/bench.h"
#include "launcher/keys.h"
#include "tests/fuzz/fuzz.h"

#define WORDS_MAX     32
#define VARIABLES_MAX 8
#define ASKS_MAX      64

typedef struct words {
    char *word[WORDS_MAX + 1];
    int n;
} words;

/* A word of its own; one that ends with "keys" leads to the file. */
static char *copy(fuzz_part part)
{
    bool file = part.n >= 4 && memcmp(part.text + part.n - 4, "keys", 4) == 0;
    size_t room = part.n + strlen(fuzz_dir()) + 2;
    char *text = tp_malloc(room);

    TP_ASSERT(text != NULL);
    (void)snprintf(text, room, "%.*s%s%s", (int)part.n - (file ? 4 : 0), part.text,
                   file ? fuzz_dir() : "", file ? "/keys" : "");
    return text;
}

static void read_words(words *w, fuzz_part part, int max)
{
    fuzz_part line;

    while (w->n < max && fuzz_next_line(&part, &line))
        w->word[w->n++] = copy(line);
}

static void release(words *w)
{
    for (int i = 0; i < w->n; i++)
        tp_free(w->word[i]);
}

static void set_variables(words *w, bool set)
{
    for (int i = 0; i < w->n; i++) {
        char *value = strchr(w->word[i], '=');

        if (value == NULL || strncmp(w->word[i], "TPSERVE_", 8) != 0)
            continue;
        *value = '\0';
        TP_ASSERT((set ? setenv(w->word[i], value + 1, 1) : unsetenv(w->word[i])) == 0);
        *value = '=';
    }
}

static void check_loads(const launch_options *opt)
{
    launch_load loads[LAUNCH_LOADS_MAX];
    launch_ask asks[ASKS_MAX];
    int n = 0;

    if (launch_read_loads(loads, &n, opt) != TP_OK)
        return;
    TP_ASSERT(n > 0 && n <= LAUNCH_LOADS_MAX);
    for (int i = 0; i < n; i++) {
        TP_ASSERT(loads[i].rate > 0 && loads[i].concurrency >= 0 && loads[i].n_requests > 0);
        if (loads[i].n_requests > ASKS_MAX)
            loads[i].n_requests = ASKS_MAX;
        launch_plan_asks(asks, &loads[i]);
        for (int k = 0; k < loads[i].n_requests; k++)
            TP_ASSERT(asks[k].input_len > 0 && asks[k].output_len > 0 && asks[k].start_s >= 0);
    }
}

static void check_accepted(launch_parser *p, FILE *nowhere)
{
    launch_list keys;

    launch_print_config(nowhere, p);
    check_loads(&p->opt);
    if (launch_settle_keys(&keys, &p->arena, &p->opt) == TP_OK)
        for (int i = 0; i < keys.n; i++)
            TP_ASSERT(keys.items[i] != NULL);
    else
        TP_ASSERT(tp_last_error()[0] != '\0');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static FILE *nowhere;
    fuzz_part rest = {(const char *)data, size}, part = {"", 0};
    words args = {.n = 0}, variables = {.n = 0};
    launch_parser p;

    fuzz_init();
    if (size == 0 || memchr(data, '/', size) != NULL)
        return 0;
    if (nowhere == NULL) {
        nowhere = fopen("/dev/null", "w");
        TP_ASSERT(nowhere != NULL);
    }
    args.word[args.n++] = copy((fuzz_part){"tpserve", 7});
    (void)fuzz_next_part(&rest, &part);
    read_words(&args, part, WORDS_MAX);
    if (fuzz_next_part(&rest, &part))
        read_words(&variables, part, VARIABLES_MAX);
    (void)fuzz_next_part(&rest, &part);
    fuzz_file("keys", part.text, part.n);
    set_variables(&variables, true);
    if (launch_parse(&p, args.n, args.word) == TP_OK)
        check_accepted(&p, nowhere);
    else
        TP_ASSERT(tp_last_error()[0] != '\0');
    launch_parser_release(&p);
    set_variables(&variables, false);
    release(&args);
    release(&variables);
    return 0;
}
