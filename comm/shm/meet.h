/* SPDX-License-Identifier: Apache-2.0 */
/* meet.h - waiting for other ranks through shared words: spin, then sleep in a futex, with deadline and abort.
 *
 * A word only grows (modulo 2^32).  Its writer stores the new value and calls comm_bell_ring(); a waiter calls
 * comm_bell_wait() for the value it needs.
 *
 * No wake-up is lost.  Writer: store word; load sleepers.  Waiter: add to sleepers; let the kernel compare the word.
 * All four are sequentially consistent, so not both can see the old value: either the writer sees the sleeper and
 * wakes it, or the kernel sees the new word and does not sleep.
 * Whoever sees the new word (acquire) sees all that its writer did before (release).
 */
#ifndef COMM_SHM_MEET_H
#define COMM_SHM_MEET_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/status.h"

/* Cache line plus the neighbour that prefetchers pull along. */
#define COMM_LINE 128

typedef struct comm_bell {
    _Alignas(COMM_LINE) _Atomic uint32_t word;
    _Atomic uint32_t sleepers;
} comm_bell;

typedef struct comm_patience {
    const _Atomic uint32_t *abort; /* non-zero: give up */
    int64_t spin_ns;    /* look this long before sleeping; 0 = ranks share cores: yield instead */
    int64_t timeout_ms; /* 0 = none */
} comm_patience;

/* word >= target in the order of sequence numbers. */
static inline bool comm_bell_reached(const comm_bell *b, uint32_t target)
{
    return (int32_t)(atomic_load_explicit(&b->word, memory_order_acquire) - target) >= 0;
}

void comm_bell_ring(comm_bell *b, uint32_t value);
/* OK, TP_ERR_TIMEOUT or TP_ERR_COMM (aborted), without text: the caller knows whom it waited for. */
TP_MUST_USE tp_status comm_bell_wait(comm_bell *b, uint32_t target, const comm_patience *p);
/* Wakes the sleepers although nothing came: they look at the abort word. */
void comm_bell_alarm(comm_bell *b);

#endif
