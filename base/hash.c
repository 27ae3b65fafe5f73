/* SPDX-License-Identifier: Apache-2.0 */
/* hash.c - libsodium behind the names of hash.h. */
#include "base/hash.h"

#include <sodium.h>

_Static_assert(crypto_shorthash_BYTES == sizeof(uint64_t), "SipHash gives 64 bits");
_Static_assert(crypto_shorthash_KEYBYTES == 16, "SipHash takes a 128-bit key");
_Static_assert(crypto_hash_sha256_BYTES == TP_SHA256_BYTES, "SHA-256 gives 32 bytes");

tp_status tp_hash_init(void)
{
    if (sodium_init() < 0)
        return TP_FAIL(TP_ERR_IO, "libsodium: cannot start: no source of random numbers");
    return TP_OK;
}

void tp_random_bytes(void *out, size_t n)
{
    randombytes_buf(out, n);
}

uint64_t tp_hash64(const void *data, size_t n, const uint8_t key[16])
{
    unsigned char bytes[crypto_shorthash_BYTES];
    uint64_t h = 0;

    (void)crypto_shorthash(bytes, data, n, key);
    for (size_t i = sizeof bytes; i-- > 0;)
        h = h << 8 | bytes[i];
    return h;
}

void tp_hash128(uint8_t out[TP_HASH128_BYTES], const void *data, size_t n, const void *key,
                size_t key_len)
{
    int rc = crypto_generichash_blake2b(out, TP_HASH128_BYTES, data, n, key, key_len);

    TP_ASSERT(rc == 0); /* only fails when key_len > 64 */
}

void tp_sha256(uint8_t out[TP_SHA256_BYTES], const void *data, size_t n)
{
    (void)crypto_hash_sha256(out, data, n);
}

bool tp_equal_secret(const void *a, const void *b, size_t n)
{
    return sodium_memcmp(a, b, n) == 0;
}

void tp_wipe(void *p, size_t n)
{
    sodium_memzero(p, n);
}
