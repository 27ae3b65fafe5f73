/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_agree.c - the cards by which ranks find out that they were started differently: rank 0's, and another's behind a line
 * of "----".  Equal cards agree; cards that differ behind the host do not, and the line about it ends. */
#include <string.h>

#include "base/mem.h"
#include "tests/fuzz/fuzz.h"
/* White box: cards have no header of their own. */
#include "launcher/agree.c"

/* A copy with no byte behind it. */
static char *card_of(fuzz_part part)
{
    size_t n = strnlen(part.text, part.n < CARD_BYTES ? part.n : CARD_BYTES - 1);
    char *card = tp_malloc(n + 1);

    TP_ASSERT(card != NULL);
    memcpy(card, part.text, n);
    card[n] = '\0';
    return card;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_part rest = {(const char *)data, size}, part = {"", 0};
    char *card0, *card, text[600];

    fuzz_init();
    (void)fuzz_next_part(&rest, &part);
    card0 = card_of(part);
    if (!fuzz_next_part(&rest, &part))
        part = (fuzz_part){"", 0};
    card = card_of(part);
    TP_ASSERT(check_card(1, card0, card0));
    TP_ASSERT(check_card(1, card, card0) == (strcmp(next_line(card), next_line(card0)) == 0));
    list_differences(text, sizeof text, next_line(next_line(card)), next_line(next_line(card0)));
    TP_ASSERT(strnlen(text, sizeof text) < sizeof text);
    tp_free(card0);
    tp_free(card);
    return 0;
}
