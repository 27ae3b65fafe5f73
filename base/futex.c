/* SPDX-License-Identifier: Apache-2.0 */
/* futex.c - see futex.h.  Shared futexes (not FUTEX_PRIVATE_FLAG): the word may lie in another process's memory, too. */
#include "base/futex.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

void tp_futex_wait(_Atomic uint32_t *word, uint32_t seen, int64_t ns)
{
    struct timespec ts = {.tv_sec = ns / TP_NS_PER_S, .tv_nsec = ns % TP_NS_PER_S};

    (void)syscall(SYS_futex, word, FUTEX_WAIT, seen, ns > 0 ? &ts : NULL, NULL, 0);
}

void tp_futex_wake_all(_Atomic uint32_t *word)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}
