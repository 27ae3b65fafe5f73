/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_table.c - the file that says which way sums of which size go (--comm-table).  What is accepted ascends, has ways with
 * names, and was measured for the ranks and the device that asked. */
#include <string.h>

#include "base/mem.h"
#include "comm/device/side.h"
#include "tests/fuzz/fuzz.h"

static void check(const comm_table *t)
{
    TP_ASSERT(t->n_lines > 0 && t->n_lines <= COMM_TABLE_MAX);
    for (int i = 0; i < t->n_lines; i++) {
        TP_ASSERT(t->line[i].upto > (i > 0 ? t->line[i - 1].upto : 0));
        TP_ASSERT(t->line[i].way[0] != '\0' &&
                  strnlen(t->line[i].way, sizeof t->line[i].way) < sizeof t->line[i].way);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const k_devices[] = {NULL, "NVIDIA H100 80GB HBM3"};
    char *text;

    fuzz_init();
    text = tp_malloc(size + 1);
    TP_ASSERT(text != NULL);
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    for (size_t i = 0; i < TP_ARRAY_LEN(k_devices); i++) {
        comm_table t = {.n_lines = -1};

        if (comm_table_parse(&t, text, 4, k_devices[i]) == TP_OK)
            check(&t);
        else
            TP_ASSERT(t.n_lines == -1 && tp_last_error()[0] != '\0');
    }
    tp_free(text);
    return 0;
}
