/* SPDX-License-Identifier: Apache-2.0 */
/* test_hash.c - published vectors of SipHash-2-4, BLAKE2b, SHA-256 and FNV-1a. */
#include "tests/unit/base/base_testing.h"

#include <string.h>

#include "base/hash.h"

static void siphash_vector(void **state)
{
    uint8_t key[16], data[15];

    (void)state;
    for (uint8_t i = 0; i < 16; i++)
        key[i] = i;
    for (uint8_t i = 0; i < 15; i++)
        data[i] = i;
    /* Aumasson and Bernstein, "SipHash", appendix A. */
    assert_true(tp_hash64(data, sizeof data, key) == UINT64_C(0xa129ca6149be45e5));
}

static void sha256_vector(void **state)
{
    static const uint8_t WANT[TP_SHA256_BYTES] = {0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea,
                                                  0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23,
                                                  0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c,
                                                  0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad};
    uint8_t got[TP_SHA256_BYTES];

    (void)state;
    tp_sha256(got, "abc", 3); /* FIPS 180-4 */
    assert_memory_equal(got, WANT, sizeof got);
}

static void blake2b_vector(void **state)
{
    /* hashlib.blake2b(b"abc", digest_size=16) and the same with key=b"key". */
    static const uint8_t PLAIN[TP_HASH128_BYTES] = {0xcf, 0x4a, 0xb7, 0x91, 0xc6, 0x2b, 0x8d, 0x2b,
                                                    0x21, 0x09, 0xc9, 0x02, 0x75, 0x28, 0x78, 0x16};
    static const uint8_t KEYED[TP_HASH128_BYTES] = {0x2c, 0xf0, 0x2a, 0xe1, 0x6a, 0xc2, 0x25, 0xee,
                                                    0x73, 0x1f, 0x9d, 0x35, 0x9d, 0x8a, 0x1c, 0x38};
    uint8_t got[TP_HASH128_BYTES];

    (void)state;
    tp_hash128(got, "abc", 3, NULL, 0);
    assert_memory_equal(got, PLAIN, sizeof got);
    tp_hash128(got, "abc", 3, "key", 3);
    assert_memory_equal(got, KEYED, sizeof got);
}

static void fnv_vector(void **state)
{
    (void)state;
    assert_true(tp_hash_fnv("", 0) == UINT64_C(0xcbf29ce484222325));
    assert_true(tp_hash_fnv("a", 1) == UINT64_C(0xaf63dc4c8601ec8c));
}

static void secrets_compare_and_vanish(void **state)
{
    char a[8] = "secret", b[8] = "secret";

    (void)state;
    assert_true(tp_equal_secret(a, b, 7));
    assert_false(tp_equal_secret(a, "secreT", 7));
    tp_wipe(a, sizeof a);
    assert_int_equal(a[0] | a[5], 0);
}

static void random_bytes_differ(void **state)
{
    uint8_t a[16], b[16];

    (void)state;
    tp_random_bytes(a, sizeof a);
    tp_random_bytes(b, sizeof b);
    assert_memory_not_equal(a, b, sizeof a);
}

static int start(void **state)
{
    (void)state;
    return tp_hash_init();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(siphash_vector),
        cmocka_unit_test(sha256_vector),
        cmocka_unit_test(blake2b_vector),
        cmocka_unit_test(fnv_vector),
        cmocka_unit_test(secrets_compare_and_vanish),
        cmocka_unit_test(random_bytes_differ),
    };

    return cmocka_run_group_tests(tests, start, NULL);
}
