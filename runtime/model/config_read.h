/* SPDX-License-Identifier: Apache-2.0 */
/* config_read.h - typed, range-checked reads from config.json; every refusal names file, key, found and expected.
 *
 * A key is looked up in "text_config" first (multimodal wrappers nest the decoder there), then at the top.
 * JSON null counts as absent.  Failures are logged.  Private to runtime/model.
 */
#ifndef RT_CONFIG_READ_H
#define RT_CONFIG_READ_H

#include "base/json.h"
#include "base/status.h"

/* As default: the key must be there. */
#define RT_CFG_REQUIRED INT64_MIN

typedef struct rt_cfg {
    const char *path;    /* borrowed; for messages */
    const char *prefix;  /* "" or "rope_scaling.": put before the key in messages */
    const tp_json *text; /* object looked at first */
    const tp_json *top;  /* then this one; may be NULL */
} rt_cfg;

/* The value, or NULL when absent or null. */
const tp_json *rt_cfg_get(const rt_cfg *r, const char *key);

TP_MUST_USE tp_status rt_cfg_int(const rt_cfg *r, const char *key, int64_t min, int64_t max,
                                 int64_t dflt, int64_t *out);
/* dflt NAN: required. */
TP_MUST_USE tp_status rt_cfg_double(const rt_cfg *r, const char *key, double min, double max,
                                    double dflt, double *out);
TP_MUST_USE tp_status rt_cfg_bool(const rt_cfg *r, const char *key, bool dflt, bool *out);
/* Borrowed from the document; dflt when absent. */
TP_MUST_USE tp_status rt_cfg_string(const rt_cfg *r, const char *key, const char *dflt,
                                    const char **out);

/* Short JSON text of a value for messages, cut at 60 bytes; "absent" for NULL. */
#define RT_CFG_SHOW_BYTES 64
const char *rt_cfg_show(const tp_json *v, char text[RT_CFG_SHOW_BYTES]);

#endif
