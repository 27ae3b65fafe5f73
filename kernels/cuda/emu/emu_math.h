/* SPDX-License-Identifier: Apache-2.0 */
/* emu_math.h - functions of the device that need no other thread: bits, fast mathematics, atomics, fences.
 *
 * Names that glibc declares too (__expf, rsqrtf in newer ones) are macros.  The fast functions are exact here: kernels are
 * compared with a tolerance.
 */
#ifndef KERN_EMU_MATH_H
#define KERN_EMU_MATH_H

#include <limits.h>
#include <math.h>
#include <stdint.h>

#define __expf(x)          expf(x)
#define __exp10f(x)        exp10f(x)
#define __logf(x)          logf(x)
#define __log2f(x)         log2f(x)
#define __sinf(x)          sinf(x)
#define __cosf(x)          cosf(x)
#define __powf(x, y)       powf(x, y)
#define __fdividef(x, y)   ((float)(x) / (float)(y))
#define __frcp_rn(x)       (1.0f / (float)(x))
#define __fsqrt_rn(x)      sqrtf(x)
#define __fmaf_rn(x, y, z) fmaf(x, y, z)
#define __fadd_rn(x, y)    ((float)(x) + (float)(y))
#define __fmul_rn(x, y)    ((float)(x) * (float)(y))
#define __saturatef(x)     fminf(fmaxf(x, 0.0f), 1.0f)
#define rsqrtf(x)          emu_rsqrt(x)
#define __frsqrt_rn(x)     emu_rsqrt(x)

static inline float emu_rsqrt(float x)
{
    return 1.0f / sqrtf(x);
}

template <class T, class U> static inline auto min(T a, U b) -> decltype(a + b)
{
    typedef decltype(a + b) C;
    return (C)b < (C)a ? (C)b : (C)a;
}
template <class T, class U> static inline auto max(T a, U b) -> decltype(a + b)
{
    typedef decltype(a + b) C;
    return (C)a < (C)b ? (C)b : (C)a;
}

static inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
static inline int __popcll(unsigned long long x)
{
    return __builtin_popcountll(x);
}
static inline int __clz(int x)
{
    return x ? __builtin_clz((unsigned)x) : 32;
}
static inline int __clzll(long long x)
{
    return x ? __builtin_clzll((unsigned long long)x) : 64;
}
static inline int __ffs(int x)
{
    return __builtin_ffs(x);
}
static inline int __ffsll(long long x)
{
    return __builtin_ffsll(x);
}
static inline unsigned __brev(unsigned x)
{
    unsigned r = 0;
    for (int i = 0; i < 32; i++)
        r |= ((x >> i) & 1u) << (31 - i);
    return r;
}
static inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)(((uint64_t)a * b) >> 32);
}
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector)
{
    uint64_t both = (uint64_t)b << 32 | a;
    unsigned r = 0;
    for (int i = 0; i < 4; i++) {
        unsigned s = selector >> (4 * i) & 15u, byte = (unsigned)(both >> (8 * (s & 7u))) & 0xffu;
        if (s & 8u) /* the sign, replicated */
            byte = byte & 0x80u ? 0xffu : 0u;
        r |= byte << (8 * i);
    }
    return r;
}
template <class T> static inline T __ldg(const T *p)
{
    return *p;
}

/* ---- atomics on integers: relaxed, as on the device; the old value comes back ---- */
template <class T, class U> static inline T atomicAdd(T *p, U v)
{
    static_assert(sizeof(T) >= 4 && T(1) / T(2) == T(0), "atomics of floats have no fixed order");
    return __atomic_fetch_add(p, (T)v, __ATOMIC_RELAXED);
}
template <class T, class U> static inline T atomicSub(T *p, U v)
{
    return __atomic_fetch_sub(p, (T)v, __ATOMIC_RELAXED);
}
template <class T, class U> static inline T atomicOr(T *p, U v)
{
    return __atomic_fetch_or(p, (T)v, __ATOMIC_RELAXED);
}
template <class T, class U> static inline T atomicAnd(T *p, U v)
{
    return __atomic_fetch_and(p, (T)v, __ATOMIC_RELAXED);
}
template <class T, class U> static inline T atomicExch(T *p, U v)
{
    return __atomic_exchange_n(p, (T)v, __ATOMIC_RELAXED);
}
template <class T, class U, class V> static inline T atomicCAS(T *p, U expected, V v)
{
    T old = (T)expected;
    __atomic_compare_exchange_n(p, &old, (T)v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return old;
}
template <class T, class U> static inline T atomicMax(T *p, U v)
{
    T old = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (old < (T)v &&
           !__atomic_compare_exchange_n(p, &old, (T)v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return old;
}
template <class T, class U> static inline T atomicMin(T *p, U v)
{
    T old = __atomic_load_n(p, __ATOMIC_RELAXED);
    while ((T)v < old &&
           !__atomic_compare_exchange_n(p, &old, (T)v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return old;
}
/* Counts up to a limit, then starts again at 0. */
static inline unsigned atomicInc(unsigned *p, unsigned limit)
{
    unsigned old = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(p, &old, old >= limit ? 0u : old + 1u, true,
                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return old;
}

#endif
