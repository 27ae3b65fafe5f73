/* SPDX-License-Identifier: Apache-2.0 */
/* rope.c - RoPE variants as data: one frequency per pair of elements, one amplitude.
 *
 * With d rotating elements, pair i turns by pos * f_i, f_i = theta^(-2i/d), before scaling:
 *   linear    f / factor
 *   dynamic   theta grows by (factor * L / L0 - (factor - 1))^(d / (d - 2)), fixed at load: cached keys are never
 *             rotated anew, so a frequency that moved with the sequence would not fit them
 *   llama3    long waves / factor, short waves unchanged, linear in between ("low_freq_factor", "high_freq_factor")
 *   yarn      ramp between f / factor and f over pair numbers, from beta_fast and beta_slow turns in L0 positions;
 *             cos and sin grow by 0.1 ln(factor) + 1 (arXiv 2309.00071)
 * All in double; kernels get float.
 */
#include "runtime/model/rope.h"

#include <math.h>
#include <string.h>

#define POSITIONS_MAX (INT64_C(1) << 31)

static const struct {
    const char *name;
    rt_rope_kind kind;
} kinds[] = {
    {"default", RT_ROPE_DEFAULT}, {"linear", RT_ROPE_LINEAR}, {"dynamic", RT_ROPE_DYNAMIC},
    {"llama3", RT_ROPE_LLAMA3},   {"yarn", RT_ROPE_YARN},
};

static tp_status read_kind(const rt_cfg *rope, rt_rope_kind *out)
{
    const char *name;

    TP_TRY(rt_cfg_string(rope, "type", "default", &name)); /* the older spelling of rope_type */
    TP_TRY(rt_cfg_string(rope, "rope_type", name, &name));
    for (size_t i = 0; i < TP_ARRAY_LEN(kinds); i++) {
        if (strcmp(kinds[i].name, name) == 0) {
            *out = kinds[i].kind;
            return TP_OK;
        }
    }
    return TP_FAIL(
        TP_ERR_UNSUPPORTED,
        "%s: \"%srope_type\" is \"%s\"; supported: default, linear, dynamic, llama3, yarn",
        rope->path, rope->prefix, name);
}

/* v5 may hold one object per layer type; all our decoders use one table, so they must agree. */
static tp_status unnest(const rt_cfg *r, const tp_json **rope)
{
    const tp_json *full = tp_json_get(*rope, "full_attention");
    const tp_json *sliding = tp_json_get(*rope, "sliding_attention");
    tp_buf a, b;
    bool same;

    if (full == NULL && sliding == NULL)
        return TP_OK;
    *rope = full != NULL ? full : sliding;
    if (full == NULL || sliding == NULL)
        return TP_OK;
    tp_buf_init(&a, 1 << 16);
    tp_buf_init(&b, 1 << 16);
    tp_json_put_value(&a, full);
    tp_json_put_value(&b, sliding);
    same = !a.failed && !b.failed && strcmp(tp_buf_str(&a), tp_buf_str(&b)) == 0;
    tp_buf_release(&a);
    tp_buf_release(&b);
    if (!same)
        return TP_FAIL(
            TP_ERR_UNSUPPORTED,
            "%s: \"rope_parameters\" differ between full_attention and sliding_attention;"
            " supported: one set for all layers",
            r->path);
    return TP_OK;
}

static tp_status read_scaling(rt_config *out, const rt_cfg *rope, const rt_cfg *r, int64_t longest)
{
    rt_rope *p = &out->rope;
    bool scaled = p->kind != RT_ROPE_DEFAULT;
    double factor_default = p->kind == RT_ROPE_YARN ? 0 : NAN;

    TP_TRY(rt_cfg_int(rope, "original_max_position_embeddings", 1, POSITIONS_MAX, longest,
                      &p->original_max_position));
    TP_TRY(rt_cfg_int(r, "original_max_position_embeddings", 1, POSITIONS_MAX,
                      p->original_max_position, &p->original_max_position));
    p->factor = 1;
    if (scaled && (p->kind != RT_ROPE_YARN || rt_cfg_get(rope, "factor") != NULL))
        TP_TRY(rt_cfg_double(rope, "factor", 1, 1e6, factor_default, &p->factor));
    else if (scaled)
        p->factor = (double)longest / (double)p->original_max_position;
    if (p->kind == RT_ROPE_LLAMA3) {
        TP_TRY(rt_cfg_double(rope, "low_freq_factor", 1e-6, 1e6, NAN, &p->low_freq_factor));
        TP_TRY(rt_cfg_double(rope, "high_freq_factor", 1e-6, 1e6, NAN, &p->high_freq_factor));
        if (p->high_freq_factor <= p->low_freq_factor)
            return TP_FAIL(
                TP_ERR_INVALID,
                "%s: \"%shigh_freq_factor\" is %g, expected more than low_freq_factor (%g)",
                rope->path, rope->prefix, p->high_freq_factor, p->low_freq_factor);
    }
    if (p->kind == RT_ROPE_YARN) {
        TP_TRY(rt_cfg_double(rope, "beta_fast", 1e-6, 1e6, 32, &p->beta_fast));
        TP_TRY(rt_cfg_double(rope, "beta_slow", 1e-6, 1e6, 1, &p->beta_slow));
        TP_TRY(rt_cfg_double(rope, "attention_factor", 0, 1e3, 0, &p->attention_factor));
        TP_TRY(rt_cfg_double(rope, "mscale", 0, 1e3, 0, &p->mscale));
        TP_TRY(rt_cfg_double(rope, "mscale_all_dim", 0, 1e3, 0, &p->mscale_all_dim));
        TP_TRY(rt_cfg_bool(rope, "truncate", true, &p->truncate));
    }
    return TP_OK;
}

tp_status rt_rope_read(rt_config *out, const rt_cfg *r, int64_t max_position_embeddings)
{
    const tp_json *v = rt_cfg_get(r, "rope_parameters");
    rt_cfg rope = {.path = r->path, .prefix = "rope_parameters."};
    rt_rope *p = &out->rope;
    double theta_default, partial_default;
    char text[RT_CFG_SHOW_BYTES];

    if (v == NULL) {
        v = rt_cfg_get(r, "rope_scaling");
        rope.prefix = "rope_scaling.";
    }
    if (v != NULL && tp_json_kind(v) != TP_JSON_OBJECT)
        return TP_FAIL(TP_ERR_INVALID, "%s: \"%.*s\" is %s, expected an object", r->path,
                       (int)strlen(rope.prefix) - 1, rope.prefix, rt_cfg_show(v, text));
    if (v != NULL)
        TP_TRY(unnest(r, &v));
    rope.text = v;
    TP_TRY(read_kind(&rope, &p->kind));
    TP_TRY(rt_cfg_double(r, "rope_theta", 1, 1e12, 10000, &theta_default));
    TP_TRY(rt_cfg_double(&rope, "rope_theta", 1, 1e12, theta_default, &p->theta));
    TP_TRY(rt_cfg_double(r, "partial_rotary_factor", 0, 1, 1, &partial_default));
    TP_TRY(rt_cfg_double(&rope, "partial_rotary_factor", 0, 1, partial_default, &p->partial));
    TP_TRY(read_scaling(out, &rope, r, max_position_embeddings));
    if (rt_rope_dims(out) < 4)
        return TP_FAIL(
            TP_ERR_INVALID,
            "%s: \"partial_rotary_factor\" is %g: fewer than 4 of %d head elements rotate", r->path,
            p->partial, out->head_dim);
    out->max_position = max_position_embeddings;
    if (p->kind == RT_ROPE_YARN)
        out->max_position = (int64_t)((double)p->original_max_position * p->factor);
    else if (p->kind == RT_ROPE_LINEAR)
        out->max_position = (int64_t)((double)max_position_embeddings * p->factor);
    return TP_OK;
}

int rt_rope_dims(const rt_config *c)
{
    return (int)((double)c->head_dim * c->rope.partial) / 2 * 2;
}

/* "mscale" of the yarn paper's code: how much attention is sharpened for a factor. */
static double yarn_mscale(double factor, double k)
{
    return factor <= 1 ? 1 : 0.1 * k * log(factor) + 1;
}

static double yarn_amplitude(const rt_rope *p)
{
    if (p->attention_factor > 0)
        return p->attention_factor;
    if (p->mscale > 0 && p->mscale_all_dim > 0)
        return yarn_mscale(p->factor, p->mscale) / yarn_mscale(p->factor, p->mscale_all_dim);
    return yarn_mscale(p->factor, 1);
}

/* Pair number that makes `turns` full turns within the original context. */
static double yarn_pair(const rt_rope *p, int d, double turns)
{
    return d * log((double)p->original_max_position / (2 * M_PI * turns)) / (2 * log(p->theta));
}

static void scale_yarn(const rt_rope *p, int d, double *f)
{
    double low = yarn_pair(p, d, p->beta_fast), high = yarn_pair(p, d, p->beta_slow);

    if (p->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, d - 1);
    if (low == high)
        high += 0.001;
    for (int i = 0; i < d / 2; i++) {
        double ramp = fmin(fmax((i - low) / (high - low), 0), 1);

        f[i] = f[i] / p->factor * ramp + f[i] * (1 - ramp);
    }
}

static void scale_llama3(const rt_rope *p, int d, double *f)
{
    double context = (double)p->original_max_position;

    for (int i = 0; i < d / 2; i++) {
        double wave = 2 * M_PI / f[i];

        if (wave > context / p->low_freq_factor) {
            f[i] /= p->factor;
        } else if (wave >= context / p->high_freq_factor) {
            double t =
                (context / wave - p->low_freq_factor) / (p->high_freq_factor - p->low_freq_factor);

            f[i] = (1 - t) * f[i] / p->factor + t * f[i];
        }
    }
}

void rt_rope_freqs(const rt_config *c, double *inv_freq, double *amplitude)
{
    const rt_rope *p = &c->rope;
    int d = rt_rope_dims(c);
    double theta = p->theta;

    if (p->kind == RT_ROPE_DYNAMIC) {
        double stretch = p->factor * (double)c->max_position / (double)p->original_max_position;

        theta *= pow(stretch - (p->factor - 1), (double)d / (d - 2));
    }
    for (int i = 0; i < d / 2; i++)
        inv_freq[i] = pow(theta, -2.0 * i / d);
    *amplitude = 1;
    if (p->kind == RT_ROPE_LINEAR) {
        for (int i = 0; i < d / 2; i++)
            inv_freq[i] /= p->factor;
    } else if (p->kind == RT_ROPE_LLAMA3) {
        scale_llama3(p, d, inv_freq);
    } else if (p->kind == RT_ROPE_YARN) {
        scale_yarn(p, d, inv_freq);
        *amplitude = yarn_amplitude(p);
    }
}
