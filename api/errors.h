/* SPDX-License-Identifier: Apache-2.0 */
/* errors.h - the one error body of the API. */
#ifndef API_ERRORS_H
#define API_ERRORS_H

#include "api/http.h"

/* {"error":{"message","type","param","code"}} with the type that belongs to the status.  param and code may be NULL.
 * Adds the headers that the status asks for (WWW-Authenticate, Retry-After, x-should-retry). */
void api_reply_error(api_exchange *x, int status, const char *code, const char *param,
                     const char *message);
/* The body of a 503 for which there was no memory. */
extern const char api_no_memory[];
/* 429 with the time after which the client should try again. */
void api_reply_busy(api_exchange *x, const char *code, const char *message, int retry_ms);
/* The same object alone, for streams: appends `{"error":{...}}`. */
void api_put_error(tp_buf *out, int status, const char *code, const char *param,
                   const char *message);

#endif
