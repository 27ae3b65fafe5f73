/* SPDX-License-Identifier: Apache-2.0 */
/* json_out.h - JSON objects and arrays, member by member, for --json.  A key of NULL is an array's element.
 * Threads: one per writer. */
#ifndef LAUNCH_JSON_OUT_H
#define LAUNCH_JSON_OUT_H

#include <stdio.h>

#include "base/buf.h"

typedef struct launch_json {
    tp_buf text;
    bool comma; /* before the next member */
} launch_json;

void launch_json_init(launch_json *j);
/* `kind` is '{' or '['; closed with '}' or ']'. */
void launch_json_open(launch_json *j, const char *key, char kind);
void launch_json_close(launch_json *j, char kind);
void launch_json_text(launch_json *j, const char *key, const char *value); /* NULL: null */
void launch_json_int(launch_json *j, const char *key, int64_t value);
void launch_json_real(launch_json *j, const char *key,
                      double value); /* six digits; not finite: null */
void launch_json_bool(launch_json *j, const char *key, bool value);
/* Prints one line and frees the text; false when memory was short. */
bool launch_json_print(launch_json *j, FILE *out);

#endif
