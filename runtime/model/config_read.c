/* SPDX-License-Identifier: Apache-2.0 */
/* config_read.c - see config_read.h. */
#include "runtime/model/config_read.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

const tp_json *rt_cfg_get(const rt_cfg *r, const char *key)
{
    const tp_json *v = tp_json_get(r->text, key);

    if (tp_json_is_null(v) && r->top != NULL)
        v = tp_json_get(r->top, key);
    return tp_json_is_null(v) ? NULL : v;
}

const char *rt_cfg_show(const tp_json *v, char text[RT_CFG_SHOW_BYTES])
{
    tp_buf b;

    if (v == NULL) {
        (void)snprintf(text, RT_CFG_SHOW_BYTES, "absent");
        return text;
    }
    tp_buf_init(&b, 1 << 16);
    tp_json_put_value(&b, v);
    if (b.failed || b.len >= RT_CFG_SHOW_BYTES)
        (void)snprintf(text, RT_CFG_SHOW_BYTES, "%.56s...",
                       b.data != NULL ? b.data : "a long value");
    else
        (void)snprintf(text, RT_CFG_SHOW_BYTES, "%s", tp_buf_str(&b));
    tp_buf_release(&b);
    return text;
}

/* 32768 and 32768.0 both count as integers: exporters write either. */
static bool integer_value(const tp_json *v, int64_t *out)
{
    double d;

    if (v == NULL || tp_json_kind(v) != TP_JSON_NUMBER)
        return false;
    if (tp_json_int64(v, out))
        return true;
    d = tp_json_double(v);
    if (!isfinite(d) || fabs(d) > 9007199254740992.0 || d != nearbyint(d))
        return false;
    *out = (int64_t)d;
    return true;
}

tp_status rt_cfg_int(const rt_cfg *r, const char *key, int64_t min, int64_t max, int64_t dflt,
                     int64_t *out)
{
    const tp_json *v = rt_cfg_get(r, key);
    char text[RT_CFG_SHOW_BYTES];
    int64_t n;

    if (v == NULL && dflt != RT_CFG_REQUIRED) {
        *out = dflt;
        return TP_OK;
    }
    if (!integer_value(v, &n) || n < min || n > max)
        return TP_FAIL(TP_ERR_INVALID,
                       "%s: \"%s%s\" is %s, expected an integer from %" PRId64 " to %" PRId64,
                       r->path, r->prefix, key, rt_cfg_show(v, text), min, max);
    *out = n;
    return TP_OK;
}

tp_status rt_cfg_double(const rt_cfg *r, const char *key, double min, double max, double dflt,
                        double *out)
{
    const tp_json *v = rt_cfg_get(r, key);
    char text[RT_CFG_SHOW_BYTES];
    double d = 0;

    if (v == NULL && !isnan(dflt)) {
        *out = dflt;
        return TP_OK;
    }
    if (v != NULL && tp_json_kind(v) == TP_JSON_NUMBER)
        d = tp_json_double(v);
    if (v == NULL || tp_json_kind(v) != TP_JSON_NUMBER || !(d >= min && d <= max))
        return TP_FAIL(TP_ERR_INVALID, "%s: \"%s%s\" is %s, expected a number from %g to %g",
                       r->path, r->prefix, key, rt_cfg_show(v, text), min, max);
    *out = d;
    return TP_OK;
}

tp_status rt_cfg_bool(const rt_cfg *r, const char *key, bool dflt, bool *out)
{
    const tp_json *v = rt_cfg_get(r, key);
    char text[RT_CFG_SHOW_BYTES];

    if (v != NULL && tp_json_kind(v) != TP_JSON_BOOL)
        return TP_FAIL(TP_ERR_INVALID, "%s: \"%s%s\" is %s, expected true or false", r->path,
                       r->prefix, key, rt_cfg_show(v, text));
    *out = v != NULL ? tp_json_bool(v) : dflt;
    return TP_OK;
}

tp_status rt_cfg_string(const rt_cfg *r, const char *key, const char *dflt, const char **out)
{
    const tp_json *v = rt_cfg_get(r, key);
    char text[RT_CFG_SHOW_BYTES];

    if (v != NULL && tp_json_kind(v) != TP_JSON_STRING)
        return TP_FAIL(TP_ERR_INVALID, "%s: \"%s%s\" is %s, expected a string", r->path, r->prefix,
                       key, rt_cfg_show(v, text));
    *out = v != NULL ? tp_json_string(v) : dflt;
    return TP_OK;
}
