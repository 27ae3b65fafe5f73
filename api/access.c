/* SPDX-License-Identifier: Apache-2.0 */
/* access.c - see access.h. */
#include "api/access.h"

#include <string.h>
#include <strings.h>

#include "api/errors.h"
#include "base/clock.h"

void api_access_init(api_access *a, const char *const *keys, int n)
{
    memset(a, 0, sizeof *a);
    pthread_mutex_init(&a->lock, NULL);
    tp_random_bytes(a->seed, sizeof a->seed);
    for (int i = 0; i < n && i < API_KEYS_MAX; i++)
        tp_sha256(a->keys[a->n_keys++], keys[i], strlen(keys[i]));
}

void api_access_release(api_access *a)
{
    tp_wipe(a->keys, sizeof a->keys);
    pthread_mutex_destroy(&a->lock);
}

static bool known(const api_access *a, const char *key)
{
    uint8_t digest[TP_SHA256_BYTES];
    unsigned hits = 0;

    tp_sha256(digest, key, strlen(key));
    for (int i = 0; i < a->n_keys; i++)
        hits |= tp_equal_secret(digest, a->keys[i], sizeof digest);
    return hits != 0;
}

/* Counts a wrong key; true while the address stays below the limit. */
static bool may_fail(api_access *a, const char *peer)
{
    uint64_t who = tp_hash64(peer, strlen(peer), a->seed);
    int64_t second = tp_now_ns() / TP_NS_PER_S;
    size_t slot = who % API_FAIL_BUCKETS;
    bool ok;

    pthread_mutex_lock(&a->lock);
    if (a->fails[slot].who != who || a->fails[slot].second != second) {
        a->fails[slot].who = who;
        a->fails[slot].second = second;
        a->fails[slot].n = 0;
    }
    ok = ++a->fails[slot].n <= API_FAILS_PER_S;
    pthread_mutex_unlock(&a->lock);
    return ok;
}

/* The key that an Authorization header carries; NULL when it carries none. */
static const char *bearer(const char *given)
{
    if (given == NULL || strncasecmp(given, "Bearer ", 7) != 0)
        return NULL;
    return given + 7 + strspn(given + 7, " ");
}

void api_access_salt(const api_access *a, api_exchange *x, const char *text,
                     uint8_t out[TP_HASH128_BYTES])
{
    uint8_t in[TP_SHA256_BYTES + API_SALT_MAX] = {0};
    const char *key = a->n_keys > 0 ? bearer(api_header(x, "Authorization")) : NULL;
    size_t len = text != NULL ? strlen(text) : 0;

    TP_ASSERT(len <= API_SALT_MAX);
    if (key != NULL)
        tp_sha256(in, key, strlen(key));
    if (len > 0)
        memcpy(in + TP_SHA256_BYTES, text, len);
    tp_hash128(out, in, TP_SHA256_BYTES + len, a->seed, sizeof a->seed);
    tp_wipe(in, sizeof in);
}

bool api_access_check(api_access *a, api_exchange *x)
{
    const char *key = bearer(api_header(x, "Authorization"));

    if (a->n_keys == 0)
        return true;
    if (api_header_count(x, "Authorization") > 1) {
        api_reply_error(x, 400, "invalid_value", NULL,
                        "The request carries more than one Authorization header.");
        return false;
    }
    if (key != NULL) {
        if (known(a, key))
            return true;
        if (may_fail(a, api_peer(x)))
            api_reply_error(x, 401, "invalid_api_key", NULL, "Incorrect API key provided.");
        else
            api_reply_error(x, 429, "per_key_limit", NULL, "Too many requests with wrong keys.");
        return false;
    }
    api_reply_error(x, 401, "missing_api_key", NULL,
                    "No API key provided. Send it as \"Authorization: Bearer KEY\".");
    return false;
}
