/* SPDX-License-Identifier: Apache-2.0 */
/* futex.h - a 32-bit word that threads sleep on, and the pause inside a loop that waits without sleeping.
 *
 * The words may lie in memory that processes share.  A sleep may end for no reason: the caller looks again.
 * Threads: any.
 */
#ifndef TP_FUTEX_H
#define TP_FUTEX_H

#include <stdatomic.h>
#include <stdint.h>

/* Tells the core that this is a waiting loop. */
static inline void tp_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Sleeps while *word == seen, at most ns nanoseconds (0: without end). */
void tp_futex_wait(_Atomic uint32_t *word, uint32_t seen, int64_t ns);
void tp_futex_wake_all(_Atomic uint32_t *word);

#endif
