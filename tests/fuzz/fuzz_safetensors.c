/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_safetensors.c - a checkpoint's files.
 *
 * Input: parts, each a first line and a header.  The first line is a file name, and maybe the number of bytes that follow the
 * header; the eight bytes in front of the header are put there.  "index" is model.safetensors.index.json; "raw" is
 * model.safetensors byte by byte.  What is accepted lies inside its file and can be read.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "runtime/model/safetensors.h"
#include "tests/fuzz/fuzz.h"

#define SINGLE     "model.safetensors"
#define INDEX      "model.safetensors.index.json"
#define DATA_MAX   (UINT64_C(1) << 40)
#define READ_BYTES 16

static const char *const k_names[] = {SINGLE, INDEX, "a", "b"};

static void put_file(const char *name, uint64_t n_data, const fuzz_part *header)
{
    char *file = tp_malloc(header->n + 8);

    TP_ASSERT(file != NULL);
    for (int i = 0; i < 8; i++)
        file[i] = (char)((uint64_t)header->n >> 8 * i);
    memcpy(file + 8, header->text, header->n);
    fuzz_sparse_file(name, file, header->n + 8, header->n + 8 + n_data);
    tp_free(file);
}

static void put_part(fuzz_part part)
{
    char line[64] = "", name[32] = "", *number;
    fuzz_part first;
    uint64_t n_data;

    if (!fuzz_next_line(&part, &first))
        return;
    memcpy(line, first.text, first.n < sizeof line ? first.n : sizeof line - 1);
    number = strchr(line, ' ');
    n_data = number != NULL ? strtoull(number, NULL, 10) : 0;
    n_data = n_data < DATA_MAX ? n_data : DATA_MAX;
    (void)snprintf(name, sizeof name, "%.*s", (int)strcspn(line, " "), line);
    if (strcmp(name, "index") == 0)
        fuzz_file(INDEX, part.text, part.n);
    else if (strcmp(name, "raw") == 0)
        fuzz_file(SINGLE, part.text, part.n);
    else if (strcmp(name, "a") == 0 || strcmp(name, "b") == 0)
        put_file(name, n_data, &part);
    else
        put_file(SINGLE, n_data, &part);
}

static void check(const rt_st *st)
{
    char bytes[READ_BYTES];

    for (size_t i = 0; i < st->n_tensors; i++) {
        const rt_st_tensor *t = &st->tensors[i];
        size_t n = t->bytes < READ_BYTES ? (size_t)t->bytes : READ_BYTES;

        TP_ASSERT(rt_st_find(st, t->name) == t);
        TP_ASSERT(t->file < (uint32_t)st->n_files && t->n_dims <= RT_ST_DIMS_MAX);
        TP_ASSERT(t->offset <= st->files[t->file].bytes &&
                  t->bytes <= st->files[t->file].bytes - t->offset);
        TP_ASSERT(rt_st_read(st, t->file, t->offset, bytes, n) == TP_OK);
        TP_ASSERT(rt_st_read(st, t->file, t->offset + t->bytes - n, bytes, n) == TP_OK);
    }
    TP_ASSERT(rt_st_find(st, "no such tensor") == NULL || st->n_tensors > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_part rest = {(const char *)data, size}, part;
    rt_st st;

    fuzz_init();
    for (size_t i = 0; i < TP_ARRAY_LEN(k_names); i++)
        fuzz_no_file(k_names[i]);
    while (fuzz_next_part(&rest, &part))
        put_part(part);
    if (rt_st_open(&st, fuzz_dir()) == TP_OK) {
        check(&st);
        rt_st_close(&st);
    } else {
        TP_ASSERT(tp_last_error()[0] != '\0');
    }
    return 0;
}
