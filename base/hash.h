/* SPDX-License-Identifier: Apache-2.0 */
/* hash.h - hashing, secrets and random bytes (libsodium behind it).  Threads: any after tp_hash_init(). */
#ifndef TP_HASH_H
#define TP_HASH_H

#include <stdint.h>

#include "base/status.h"

#define TP_HASH128_BYTES 16
#define TP_SHA256_BYTES  32

/* Once per process before any other call. */
TP_MUST_USE tp_status tp_hash_init(void);

void tp_random_bytes(void *out, size_t n);
/* SipHash-2-4; for hash tables that hold keys chosen by clients. */
uint64_t tp_hash64(const void *data, size_t n, const uint8_t key[16]);
/* BLAKE2b keyed with `key_len` bytes (0..64), 16 bytes out. */
void tp_hash128(uint8_t out[TP_HASH128_BYTES], const void *data, size_t n, const void *key,
                size_t key_len);
void tp_sha256(uint8_t out[TP_SHA256_BYTES], const void *data, size_t n);
bool tp_equal_secret(const void *a, const void *b, size_t n); /* constant time */
void tp_wipe(void *p, size_t n);                              /* not optimised away */

/* FNV-1a; for tables whose keys we trust. */
static inline uint64_t tp_hash_fnv(const void *data, size_t n)
{
    const unsigned char *p = data;
    uint64_t h = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * UINT64_C(0x100000001b3);
    return h;
}

/* Every bit of x changes about half of the bits of the result: for numbers that look random and are the same again. */
static inline uint32_t tp_mix32(uint32_t x)
{
    x = (x ^ x >> 16) * 0x7feb352dU;
    x = (x ^ x >> 15) * 0x846ca68bU;
    return x ^ x >> 16;
}

#endif
