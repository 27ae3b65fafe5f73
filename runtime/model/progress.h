/* SPDX-License-Identifier: Apache-2.0 */
/* progress.h - a bar on the terminal; nothing at all when stderr is none. */
#ifndef RT_PROGRESS_H
#define RT_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct rt_progress {
    bool on;
    const char *what; /* borrowed */
    int64_t start_ns;
} rt_progress;

void rt_progress_init(rt_progress *p, bool wanted, const char *what);
void rt_progress_show(rt_progress *p, double share); /* 0 .. 1 */
void rt_progress_end(rt_progress *p);                /* clears the line */

#endif
