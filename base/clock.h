/* SPDX-License-Identifier: Apache-2.0 */
/* clock.h - monotonic time for deadlines, wall time for people.  Threads: any. */
#ifndef TP_CLOCK_H
#define TP_CLOCK_H

#include <stdint.h>

#define TP_NS_PER_US INT64_C(1000)
#define TP_NS_PER_MS INT64_C(1000000)
#define TP_NS_PER_S  INT64_C(1000000000)

int64_t tp_now_ns(void);       /* CLOCK_MONOTONIC */
int64_t tp_unix_seconds(void); /* wall clock */
void tp_sleep_us(int64_t us);

#endif
