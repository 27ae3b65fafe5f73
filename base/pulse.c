/* SPDX-License-Identifier: Apache-2.0 */
/* pulse.c - see pulse.h. */
#include "base/pulse.h"

#include <stdatomic.h>

static atomic_ullong g_count, g_stirs;

void tp_pulse(void)
{
    atomic_fetch_add_explicit(&g_count, 1, memory_order_relaxed);
}

uint64_t tp_pulse_count(void)
{
    return atomic_load_explicit(&g_count, memory_order_relaxed);
}

void tp_stir(void)
{
    atomic_fetch_add_explicit(&g_stirs, 1, memory_order_relaxed);
}

uint64_t tp_stir_count(void)
{
    return atomic_load_explicit(&g_stirs, memory_order_relaxed);
}
