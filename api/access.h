/* SPDX-License-Identifier: Apache-2.0 */
/* access.h - who may call: API keys, and origins of browsers.
 *
 * Keys are kept as SHA-256 digests; a candidate is compared with all of them in constant time.  An address that sends
 * wrong keys faster than 20 a second gets 429 for its wrong keys; a good key is never refused because of a neighbour.
 */
#ifndef API_ACCESS_H
#define API_ACCESS_H

#include <pthread.h>
#include <stdint.h>

#include "api/http.h"
#include "base/hash.h"

#define API_KEYS_MAX     64
#define API_SALT_MAX     256
#define API_FAIL_BUCKETS 1024
#define API_FAILS_PER_S  20

typedef struct api_access {
    uint8_t keys[API_KEYS_MAX][TP_SHA256_BYTES];
    int n_keys; /* 0: open to all */
    uint8_t seed[16];
    pthread_mutex_t lock;
    struct {
        uint64_t who;
        int64_t second;
        int n;
    } fails[API_FAIL_BUCKETS]; /* under lock */
} api_access;

void api_access_init(api_access *a, const char *const *keys, int n);
void api_access_release(api_access *a);
/* True when the exchange may go on; else it is answered (400, 401, 429). */
bool api_access_check(api_access *a, api_exchange *x);
/* What keeps the blocks of this exchange's client to itself in the prefix cache: depends on its key, when keys are asked
 * for, and on `text` (at most API_SALT_MAX bytes; NULL = none). */
void api_access_salt(const api_access *a, api_exchange *x, const char *text,
                     uint8_t out[TP_HASH128_BYTES]);

#endif
