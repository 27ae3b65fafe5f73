/* SPDX-License-Identifier: Apache-2.0 */
/* vec_body.h - the micro-kernels of vec.h but for attention, over vector primitives.
 *
 * Included once by each vec_<isa>.c after it has defined:
 *   VL                        lanes: 4, 8 or 16
 *   vf, vu                    GCC vectors of VL floats, VL uint32_t; + - * / are the language's
 *   v_fma(a, b, c)            a * b + c (one rounding where the machine has it)
 *   v_max(a, b), v_min(a, b)  b when either is NaN
 *   v_zero_below(x, a, lim)   x, but 0 where a < lim
 *   v_load_n, v_store_n       the first n < VL elements; absent ones read as 0
 *   v_store_bf16, v_store_f16 VL elements to 16-bit storage
 *   v_above(x, lim)           bit mask of lanes with x > lim
 *   VEC_TABLE, VEC_NAME       the name of the table, and in words
 * A row's order of additions depends on its length only.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#define V_INLINE static inline __attribute__((always_inline))

V_INLINE vf v_set1(float x)
{
    return x - (vf){0};
}

V_INLINE vf v_load(const float *p)
{
    vf v;

    memcpy(&v, p, sizeof v);
    return v;
}

V_INLINE void v_store(float *p, vf v)
{
    memcpy(p, &v, sizeof v);
}

V_INLINE void v_store_bf16_n(uint16_t *p, vf v, int n)
{
    uint16_t t[VL];

    v_store_bf16(t, v);
    memcpy(p, t, (size_t)n * sizeof *t);
}

V_INLINE void v_store_f16_n(uint16_t *p, vf v, int n)
{
    uint16_t t[VL];

    v_store_f16(t, v);
    memcpy(p, t, (size_t)n * sizeof *t);
}

/* Halves are added until one is left. */
V_INLINE float v_sum(vf v)
{
    float t[VL];

    v_store(t, v);
    for (int half = VL / 2; half >= 1; half /= 2)
        for (int i = 0; i < half; i++)
            t[i] += t[i + half];
    return t[0];
}

V_INLINE float v_top(vf v)
{
    float t[VL];

    v_store(t, v);
    for (int i = 1; i < VL; i++)
        t[0] = t[i] > t[0] ? t[i] : t[0];
    return t[0];
}

/* exp: x = n ln 2 + r, |r| <= ln 2 / 2; a polynomial of degree 6 (Cephes' coefficients) for e^r; n goes into the
 * exponent.  About 1 ulp.  Below -87.3 (where results would be subnormal) it is 0; above 88 it is exp(88); NaN stays. */
V_INLINE vf v_exp(vf x)
{
    const vf magic = v_set1(0x1.8p23f); /* adding it leaves round(x) in the low bits */
    vf xc = v_min(v_set1(88.0f), x);    /* this order keeps a NaN */
    vf t = v_fma(xc, v_set1(1.44269504088896341f), magic);
    vf n = t - magic;
    vf r = v_fma(n, v_set1(-0.693359375f), xc);
    vf p, scale;
    vu bits;

    r = v_fma(n, v_set1(2.12194440e-4f), r);
    p = v_set1(1.9875691500e-4f);
    p = v_fma(p, r, v_set1(1.3981999507e-3f));
    p = v_fma(p, r, v_set1(8.3334519073e-3f));
    p = v_fma(p, r, v_set1(4.1665795894e-2f));
    p = v_fma(p, r, v_set1(1.6666665459e-1f));
    p = v_fma(p, r, v_set1(5.0000001201e-1f));
    p = v_fma(p, r * r, r) + v_set1(1.0f);
    memcpy(&bits, &t, sizeof bits);
    bits = (bits << 23) + 0x3f800000u;
    memcpy(&scale, &bits, sizeof scale);
    return v_zero_below(p * scale, x, -87.33f);
}

/* ---- norms and elementwise ---- */
static float add_sumsq(float *x, const float *add, int n)
{
    vf acc[4] = {{0}};
    int i = 0;

    for (; i + 4 * VL <= n; i += 4 * VL) {
        for (int j = 0; j < 4; j++) {
            vf v = v_load(x + i + j * VL);

            if (add != NULL) {
                v += v_load(add + i + j * VL);
                v_store(x + i + j * VL, v);
            }
            acc[j] = v_fma(v, v, acc[j]);
        }
    }
    for (int j = 0; i < n; i += VL, j++) {
        int left = n - i < VL ? n - i : VL;
        vf v = v_load_n(x + i, left);

        if (add != NULL) {
            v += v_load_n(add + i, left);
            v_store_n(x + i, v, left);
        }
        acc[j] = v_fma(v, v, acc[j]);
    }
    return v_sum((acc[0] + acc[1]) + (acc[2] + acc[3]));
}

static void scale_f32(float *out, const float *x, const float *w, float scale, int n)
{
    int i = 0;

    for (; i + VL <= n; i += VL)
        v_store(out + i, v_load(x + i) * v_set1(scale) * v_load(w + i));
    if (i < n)
        v_store_n(out + i, v_load_n(x + i, n - i) * v_set1(scale) * v_load_n(w + i, n - i), n - i);
}

static void scale_bf16(uint16_t *out, const float *x, const float *w, float scale, int n)
{
    int i = 0;

    for (; i + VL <= n; i += VL)
        v_store_bf16(out + i, v_load(x + i) * v_set1(scale) * v_load(w + i));
    if (i < n)
        v_store_bf16_n(out + i, v_load_n(x + i, n - i) * v_set1(scale) * v_load_n(w + i, n - i),
                       n - i);
}

V_INLINE vf silu(vf gate, vf up)
{
    return gate / (v_set1(1.0f) + v_exp(-gate)) * up;
}

static void silu_f32(float *out, const float *gate, const float *up, int n)
{
    int i = 0;

    for (; i + VL <= n; i += VL)
        v_store(out + i, silu(v_load(gate + i), v_load(up + i)));
    if (i < n)
        v_store_n(out + i, silu(v_load_n(gate + i, n - i), v_load_n(up + i, n - i)), n - i);
}

static void silu_bf16(uint16_t *out, const float *gate, const float *up, int n)
{
    int i = 0;

    for (; i + VL <= n; i += VL)
        v_store_bf16(out + i, silu(v_load(gate + i), v_load(up + i)));
    if (i < n)
        v_store_bf16_n(out + i, silu(v_load_n(gate + i, n - i), v_load_n(up + i, n - i)), n - i);
}

static void rope(float *x, const float *cos_sin, int n)
{
    float *restrict lo = x, *restrict hi = x + n;

    for (int i = 0; i < n; i++) {
        float c = cos_sin[2 * i], s = cos_sin[2 * i + 1], a = lo[i], b = hi[i];

        lo[i] = a * c - b * s;
        hi[i] = b * c + a * s;
    }
}

static void to_bf16(uint16_t *out, const float *x, int n)
{
    int i = 0;

    for (; i + VL <= n; i += VL)
        v_store_bf16(out + i, v_load(x + i));
    if (i < n)
        v_store_bf16_n(out + i, v_load_n(x + i, n - i), n - i);
}

static void to_f16(uint16_t *out, const float *x, int n)
{
    int i = 0;

    for (; i + VL <= n; i += VL)
        v_store_f16(out + i, v_load(x + i));
    if (i < n)
        v_store_f16_n(out + i, v_load_n(x + i, n - i), n - i);
}

/* ---- sampling ---- */
V_INLINE vf clean(vf l)
{
    return v_min(v_max(l, v_set1(-INFINITY)), v_set1(FLT_MAX));
}

static float max_clean(const float *l, int n)
{
    vf top[4];
    int i = 0;

    for (int j = 0; j < 4; j++)
        top[j] = v_set1(-INFINITY);
    for (; i + 4 * VL <= n; i += 4 * VL)
        for (int j = 0; j < 4; j++)
            top[j] = v_max(v_load(l + i + j * VL), top[j]); /* this order drops a NaN */
    for (; i + VL <= n; i += VL)
        top[0] = v_max(v_load(l + i), top[0]);
    for (; i < n; i++)
        top[0] = v_max(v_set1(l[i]), top[0]);
    return v_top(clean(v_max(v_max(top[0], top[1]), v_max(top[2], top[3]))));
}

#define V_PER_BLOCK (KERN_CPU_SUM_BLOCK / VL)

V_INLINE float join_block(const vf *part)
{
    vf sum = part[0];

    for (int j = 1; j < V_PER_BLOCK; j++)
        sum += part[j];
    return v_sum(sum);
}

static float block_sum(const float *e, int n)
{
    vf part[V_PER_BLOCK];

    for (int j = 0; j < V_PER_BLOCK; j++) {
        int left = n - j * VL;

        part[j] = left >= VL ? v_load(e + j * VL) : left > 0 ? v_load_n(e + j * VL, left) : (vf){0};
    }
    return join_block(part);
}

static double exp_chunk(float *e, const float *l, int n, float max, float scale)
{
    double sum = 0.0;
    int i = 0;

    for (; i + KERN_CPU_SUM_BLOCK <= n; i += KERN_CPU_SUM_BLOCK) {
        vf part[V_PER_BLOCK];

        for (int j = 0; j < V_PER_BLOCK; j++) {
            part[j] = v_exp((clean(v_load(l + i + j * VL)) - v_set1(max)) * v_set1(scale));
            v_store(e + i + j * VL, part[j]);
        }
        sum += (double)join_block(part);
    }
    if (i == n)
        return sum;
    for (int j = i; j < n; j += VL) {
        int left = n - j < VL ? n - j : VL;
        vf v = v_exp((clean(v_load_n(l + j, left)) - v_set1(max)) * v_set1(scale));

        v_store_n(e + j, v, left);
    }
    return sum + (double)block_sum(e + i, n - i);
}

static int next_above(const float *x, int begin, int n, float limit, uint64_t *mask)
{
    int i = begin;

    for (; i + 64 <= n; i += 64) {
        uint64_t hit = 0;

        for (int j = 0; j < 64 / VL; j++)
            hit |= (uint64_t)v_above(v_load(x + i + j * VL), limit) << (j * VL);
        if (hit != 0) {
            *mask = hit;
            return i;
        }
    }
    if (i < n) {
        uint64_t hit = 0;

        for (int j = i; j < n; j++)
            hit |= (uint64_t)(x[j] > limit) << (j - i);
        *mask = hit;
        if (hit != 0)
            return i;
    }
    return n;
}
