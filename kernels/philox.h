/* SPDX-License-Identifier: Apache-2.0 */
/* philox.h - Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as
 * 1, 2, 3" (SC11): a random function of (key, counter), so any rank can make any number of any sequence.
 */
#ifndef KERN_PHILOX_H
#define KERN_PHILOX_H

#include <stdint.h>

#ifdef __CUDACC__
#    define KERN_HOST_DEVICE static __host__ __device__ inline
#else
#    define KERN_HOST_DEVICE static inline
#endif

KERN_HOST_DEVICE void kern_philox4x32(const uint32_t counter[4], const uint32_t key[2],
                                      uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];

    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;

        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* A number in [0, 1) with 53 random bits.  `stream` keeps uses of one (seed, counter, index) apart: 0 is the token
 * drawn inside vocabulary chunk `index` (kern_chunk_stats). */
KERN_HOST_DEVICE double kern_philox_uniform(uint64_t seed, uint64_t counter, uint32_t index,
                                            uint32_t stream)
{
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t ctr[4] = {(uint32_t)counter, (uint32_t)(counter >> 32), index, stream};
    uint32_t out[4];

    kern_philox4x32(ctr, key, out);
    return (double)((((uint64_t)out[0] << 32) | out[1]) >> 11) * 0x1p-53;
}

#endif
