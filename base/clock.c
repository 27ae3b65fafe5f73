/* SPDX-License-Identifier: Apache-2.0 */
/* clock.c - thin wrappers around the POSIX clocks. */
#include "base/clock.h"

#include <errno.h>
#include <time.h>

int64_t tp_now_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * TP_NS_PER_S + t.tv_nsec;
}

int64_t tp_unix_seconds(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec;
}

void tp_sleep_us(int64_t us)
{
    int64_t end;
    struct timespec until;

    if (us <= 0)
        return;
    /* An absolute end time: signals may interrupt the sleep, but not lengthen it. */
    end = tp_now_ns() + us * TP_NS_PER_US;
    until.tv_sec = (time_t)(end / TP_NS_PER_S);
    until.tv_nsec = (long)(end % TP_NS_PER_S);
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
        ;
}
