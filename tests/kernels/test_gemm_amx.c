/* SPDX-License-Identifier: Apache-2.0 */
/* test_gemm_amx.c - the AMX kernel and the driver above it, over tiles emulated in plain C: gemm_amx.c and gemm.c
 * are compiled once more, here.  What this cannot show is the real instruction: test_gemm does, where there is one.
 *
 * Weights that are not BF16 take the AVX-512 kernels on an AMX machine; here the generic ones stand in for them.
 */
#define KERN_AMX_EMULATED
#include "kernels/cpu/gemm_amx.c"

#define kern_cpu_gemm_avx512 kern_cpu_gemm_generic
#include "kernels/cpu/gemm.c"
#undef kern_cpu_gemm_avx512

#include "test_gemm_cases.h"

static bool always(kern_cpu_isa isa)
{
    (void)isa;
    return true;
}

int main(void)
{
    static const isa_case isas[] = {{KERN_CPU_AMX, "amx_emulated"}};

    g_available = always;
    return run_cases(isas, TP_ARRAY_LEN(isas));
}
