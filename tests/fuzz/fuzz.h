/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz.h - what every fuzz target has: its one function, files that cost no disk, and pieces of its input.
 *
 * A target is one file with LLVMFuzzerTestOneInput().  Under clang it is linked with libFuzzer (tests/fuzz/fuzz.sh); in every
 * build it is also linked with replay.c, which feeds it the files of its corpus.  A broken promise is a TP_ASSERT.
 * Inputs are text wherever that is possible: a corpus that people can read and write.
 */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Once per process, from the target at its first input: no log lines, keys for hashes. */
void fuzz_init(void);

/* A directory for files that the code under test opens by name; removed at exit. */
const char *fuzz_dir(void);
/* Gives dir/name the contents; the name is a link to memory. */
void fuzz_file(const char *name, const void *data, size_t n);
/* The same, of n bytes of which only the first n_data are not zero. */
void fuzz_sparse_file(const char *name, const void *data, size_t n_data, uint64_t n);
/* dir/name is no longer there. */
void fuzz_no_file(const char *name);
/* dir/name leads to a file of the source tree. */
void fuzz_link(const char *name, const char *path);

/* One part of an input whose parts are separated by lines of "----". */
typedef struct fuzz_part {
    const char *text; /* not NUL-terminated */
    size_t n;
} fuzz_part;

/* The next part of what `rest` holds; false when nothing is left. */
bool fuzz_next_part(fuzz_part *rest, fuzz_part *out);
/* The same for lines. */
bool fuzz_next_line(fuzz_part *rest, fuzz_part *out);
/* Parses a part; NULL when it is no JSON. */
tp_json *fuzz_json(fuzz_part part);

#endif
