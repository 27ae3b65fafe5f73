/* SPDX-License-Identifier: Apache-2.0 */
/* json_echo.c - the JSON reader and writer as a filter, for json_differential.py.
 *
 * Input: records of a 4-byte little-endian length and as many bytes.  Output: one line per record, either
 * "ok " and the compact text, or "<status name> <message>".
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"

static void answer(const char *text, size_t len, tp_buf *out)
{
    tp_json *root = NULL;
    tp_status st = tp_json_parse(&root, text, len, NULL);

    tp_buf_reset(out);
    if (st == TP_OK) {
        tp_json_put_value(out, root);
        (void)printf("ok %s\n", tp_buf_str(out));
        tp_json_free(root);
    } else {
        (void)printf("%s %s\n", tp_status_name(st), tp_last_error());
    }
}

int main(void)
{
    unsigned char head[4];
    tp_buf out;

    tp_buf_init(&out, (size_t)64 << 20);
    while (fread(head, 1, 4, stdin) == 4) {
        uint32_t len =
            head[0] | (uint32_t)head[1] << 8 | (uint32_t)head[2] << 16 | (uint32_t)head[3] << 24;
        char *text = tp_malloc(len); /* exactly this long: a sanitizer sees one byte too far */

        if (text == NULL || fread(text, 1, len, stdin) != len) {
            tp_free(text);
            break;
        }
        answer(text, len, &out);
        tp_free(text);
    }
    tp_buf_release(&out);
    return 0;
}
