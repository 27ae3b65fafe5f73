/* SPDX-License-Identifier: Apache-2.0 */
/* cpuid.c - which instruction sets the machine has and the operating system saves on a context switch. */
#include "kernels/cpu/cpu_internal.h"

const char *kern_cpu_isa_name(kern_cpu_isa isa)
{
    static const char *const names[KERN_CPU_ISA_COUNT] = {"generic", "avx2", "avx512", "amx"};

    return names[isa];
}

#if defined(__x86_64__)

#    include <cpuid.h>
#    include <sys/syscall.h>
#    include <unistd.h>

#    define BIT(word, n) (((word) >> (n)) & 1u)

/* Register state that the operating system keeps (XCR0); 0 when it keeps nothing beyond SSE. */
static uint64_t os_state(void)
{
    unsigned a, b, c, d, lo, hi;

    if (!__get_cpuid(1, &a, &b, &c, &d) || !BIT(c, 27)) /* OSXSAVE */
        return 0;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return ((uint64_t)hi << 32) | lo;
}

static bool has_avx2(void)
{
    unsigned a, b, c, d, b7, c7, d7;

    return (os_state() & 0x6u) == 0x6u && __get_cpuid(1, &a, &b, &c, &d) && BIT(c, 28) &&
           BIT(c, 12) && BIT(c, 29) && /* AVX, FMA, F16C */
           __get_cpuid_count(7, 0, &a, &b7, &c7, &d7) && BIT(b7, 5);
}

static bool has_avx512(void)
{
    unsigned a, b, c, d, a1, b1, c1, d1;

    return has_avx2() && (os_state() & 0xe6u) == 0xe6u && __get_cpuid_count(7, 0, &a, &b, &c, &d) &&
           BIT(b, 16) && BIT(b, 17) && BIT(b, 30) && BIT(b, 31) &&
           BIT(c, 11) &&                                              /* F DQ BW VL VNNI */
           __get_cpuid_count(7, 1, &a1, &b1, &c1, &d1) && BIT(a1, 5); /* BF16 */
}

#    ifdef KERN_AMX_EMULATED /* tiles_amx.h; what else an AMX machine runs is AVX-512 */

static bool has_amx(void)
{
    return has_avx512();
}

#    else

/* The tile registers are 8 KiB of state: Linux gives them to a process that asks (arch_prctl(2)). */
static bool has_amx(void)
{
    enum { REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18 };
    unsigned a, b, c, d;

    return has_avx512() && (os_state() & 0x60000u) == 0x60000u &&
           __get_cpuid_count(7, 0, &a, &b, &c, &d) && BIT(d, 22) && BIT(d, 24) && BIT(d, 25) &&
           syscall(SYS_arch_prctl, REQ_XCOMP_PERM, XTILEDATA) == 0;
}

#    endif

bool kern_cpu_isa_available(kern_cpu_isa isa)
{
    switch (isa) {
    case KERN_CPU_GENERIC: return true;
    case KERN_CPU_AVX2: return has_avx2();
    case KERN_CPU_AVX512: return has_avx512();
    case KERN_CPU_AMX: return has_amx();
    }
    return false;
}

#else

bool kern_cpu_isa_available(kern_cpu_isa isa)
{
    return isa == KERN_CPU_GENERIC;
}

#endif
