/* SPDX-License-Identifier: Apache-2.0 */
/* model_files.h - a scratch model directory for unit tests. */
#ifndef TP_TESTS_MODEL_FILES_H
#define TP_TESTS_MODEL_FILES_H

#include <stddef.h>

extern const char
    *const mf_dir; /* between mf_setup and mf_teardown: an empty directory under TMPDIR */

/* For cmocka's groups. */
int mf_setup(void **state);
int mf_teardown(void **state);
/* Writes dir/name (replacing it). */
void mf_write(const char *name, const void *data, size_t n);
void mf_text(const char *name, const char *text);
/* A file of 8 bytes of header length, the header, and `n_data` zero bytes. */
void mf_safetensors(const char *name, const char *header, size_t n_data);
void mf_remove(const char *name);

#endif
