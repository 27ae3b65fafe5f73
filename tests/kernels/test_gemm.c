/* SPDX-License-Identifier: Apache-2.0 */
/* test_gemm.c - the matrix product on every instruction set; what this machine lacks is skipped, and says so. */
#include "test_gemm_cases.h"

int main(void)
{
    static const isa_case isas[] = {{KERN_CPU_GENERIC, "generic"},
                                    {KERN_CPU_AVX2, "avx2"},
                                    {KERN_CPU_AVX512, "avx512"},
                                    {KERN_CPU_AMX, "amx"}};

    g_available = kern_cpu_isa_available;
    return run_cases(isas, TP_ARRAY_LEN(isas));
}
