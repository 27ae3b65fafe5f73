/* SPDX-License-Identifier: Apache-2.0 */
/* pulse.h - one number that grows while this process gets work done.
 *
 * Whoever watches for hangs cannot know how long a step may take; that nothing at all was finished for long, it can.
 * Collectives count themselves, and so does each operation of an emulated device.  Ranks that execute the same steps
 * count alike, so of ranks that stand still the one with the lowest count since the step began is the one that the
 * others wait for.
 * Threads: any.
 */
#ifndef TP_PULSE_H
#define TP_PULSE_H

#include <stdint.h>

void tp_pulse(void);
uint64_t tp_pulse_count(void);

/* Signs of life within one operation that may take long: they say that somebody is at work, not how far it is, for ranks
 * cut their work differently. */
void tp_stir(void);
uint64_t tp_stir_count(void);

#endif
