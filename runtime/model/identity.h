/* SPDX-License-Identifier: Apache-2.0 */
/* identity.h - whether two ranks look at the same checkpoint. */
#ifndef RT_MODEL_IDENTITY_H
#define RT_MODEL_IDENTITY_H

#include <stdint.h>

#include "base/hash.h"

/* Digest of what tells one checkpoint from another without reading it whole: config.json, and of each *.safetensors file
 * its name, size, first MiB (where the header is) and two samples of the data.  Zeroes when there is no config.json. */
void rt_model_identity(uint8_t out[TP_HASH128_BYTES], const char *dir);

#endif
