/* SPDX-License-Identifier: Apache-2.0 */
/* vec_attn_body.h - the attention micro-kernels, over vector primitives; included after vec_body.h.
 *
 * Storage of 16 tokens of one head (hd = head_dim padded to a multiple of 16):
 *        F32, F16            BF16
 *   K    [hd][16 tokens]     [hd / 2][16 tokens][2]
 *   V    [16 tokens][hd]     [8][hd][2 tokens]
 * so that a 32-bit word of BF16 holds two numbers that meet in a sum: a shift or a mask makes each of them an FP32
 * number, or one instruction multiplies both (V_DOTS: then rows come in BF16, too).
 * Lanes are tokens in qk and dimensions in pv: each score and each output element is one chain of additions in
 * ascending order, whatever the blocking.  QK_M x QK_G and PV_M x PV_D say how many chains run side by side.
 *
 * Besides the primitives of vec_body.h: v_load_f16(p) reads VL 16-bit numbers, v_word(p) VL words; with V_DOTS 1
 * v_dot(acc, a, b) adds both products of each pair of words.
 */
#define V_PER_GROUP (KERN_CPU_GROUP / VL)
#define ATTN_BLOCK  24 /* query vectors */
#ifndef V_DOTS
#    define V_DOTS 0
#endif

V_INLINE vf v_low(vu w)
{
    vu bits = w << 16;
    vf f;

    memcpy(&f, &bits, sizeof f);
    return f;
}

V_INLINE vf v_high(vu w)
{
    vu bits = w & 0xffff0000u;
    vf f;

    memcpy(&f, &bits, sizeof f);
    return f;
}

#if !V_DOTS
V_INLINE vf v_dot(vf acc, vu a, vu b)
{
    return v_fma(v_high(a), v_high(b), v_fma(v_low(a), v_low(b), acc));
}
#endif

/* Numbers c and c + 1 of row i, BF16, in all lanes. */
V_INLINE vu v_pair(kern_cpu_rows r, int i, int c)
{
    uint32_t w;

    memcpy(&w, (const uint16_t *)r.x + (ptrdiff_t)i * r.ld + c, sizeof w);
    return w - (vu){0};
}

/* Asks for n elements from element `at` on. */
V_INLINE void fetch(const void *p, int at, int n, const kern_dtype type)
{
    int size = type == KERN_DTYPE_F32 ? 4 : 2;

    for (int byte = 0; byte < n * size; byte += 64)
        __builtin_prefetch((const char *)p + at * size + byte);
}

/* Are the rows BF16? */
#define ROUNDS(type) (V_DOTS && (type) == KERN_DTYPE_BF16)

/* Rows from number i on. */
V_INLINE kern_cpu_rows rows_from(kern_cpu_rows r, int i, const kern_dtype type)
{
    r.x = (const char *)r.x + (ptrdiff_t)i * r.ld * (ROUNDS(type) ? 2 : 4);
    return r;
}

/* ---- scores ---- */
/* M query vectors against G groups; `type` is a constant, so the loads are chosen by the compiler. */
V_INLINE void qk_block(float *s, int s_ld, kern_cpu_rows rows, const void *const *k,
                       const void *const *ahead, int hd, const int M, const int G,
                       const kern_dtype type)
{
    const float *q = rows.x;
    vf acc[QK_M][QK_G][V_PER_GROUP];

#pragma GCC unroll 8
    for (int i = 0; i < M; i++)
#pragma GCC unroll 8
        for (int g = 0; g < G; g++)
#pragma GCC unroll 8
            for (int v = 0; v < V_PER_GROUP; v++)
                acc[i][g][v] = (vf){0};

    for (int d = 0; d < hd; d += 2) {
#pragma GCC unroll 8
        for (int g = 0; g < G; g++) {
            if (ahead != NULL)
                fetch(ahead[g], d * KERN_CPU_GROUP, 2 * KERN_CPU_GROUP, type);
#pragma GCC unroll 8
            for (int v = 0; v < V_PER_GROUP; v++) {
                vf k0, k1;

                if (type == KERN_DTYPE_BF16) {
                    vu w = v_word((const uint16_t *)k[g] + d * KERN_CPU_GROUP + 2 * v * VL);

#pragma GCC unroll 8
                    for (int i = 0; ROUNDS(type) && i < M; i++)
                        acc[i][g][v] = v_dot(acc[i][g][v], w, v_pair(rows, i, d));
                    if (ROUNDS(type))
                        continue;
                    k0 = v_low(w);
                    k1 = v_high(w);
                } else if (type == KERN_DTYPE_F16) {
                    k0 = v_load_f16((const uint16_t *)k[g] + d * KERN_CPU_GROUP + v * VL);
                    k1 = v_load_f16((const uint16_t *)k[g] + (d + 1) * KERN_CPU_GROUP + v * VL);
                } else {
                    k0 = v_load((const float *)k[g] + d * KERN_CPU_GROUP + v * VL);
                    k1 = v_load((const float *)k[g] + (d + 1) * KERN_CPU_GROUP + v * VL);
                }
#pragma GCC unroll 8
                for (int i = 0; i < M; i++) {
                    acc[i][g][v] = v_fma(v_set1(q[i * rows.ld + d]), k0, acc[i][g][v]);
                    acc[i][g][v] = v_fma(v_set1(q[i * rows.ld + d + 1]), k1, acc[i][g][v]);
                }
            }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < M; i++)
#pragma GCC unroll 8
        for (int g = 0; g < G; g++)
#pragma GCC unroll 8
            for (int v = 0; v < V_PER_GROUP; v++)
                v_store(s + i * s_ld + g * KERN_CPU_GROUP + v * VL, acc[i][g][v]);
}

/* Rows in the next block of at most `most`, so that blocks are about equal. */
V_INLINE int block_of(int left, int most)
{
    int blocks = (left + most - 1) / most;

    return (left + blocks - 1) / blocks;
}

#define QK_CASE(m)                                                                                 \
    case m:                                                                                        \
        if (i == 0 && ahead != NULL)                                                               \
            qk_block(s, s_ld, q, k, ahead, hd, m, G, type);                                        \
        else                                                                                       \
            qk_block(s + i * s_ld, s_ld, rows_from(q, i, type), k, NULL, hd, m, G, type);          \
        break;

V_INLINE void qk_groups(float *s, int s_ld, kern_cpu_rows q, const void *const *k,
                        const void *const *ahead, int hd, const int G, const kern_dtype type)
{
    for (int i = 0, now; i < q.n; i += now) {
        now = block_of(q.n - i, QK_M);
        switch (now) {
            QK_CASE(1)
            QK_CASE(2)
#if QK_M > 2
            QK_CASE(3)
            QK_CASE(4)
#endif
#if QK_M > 4
            QK_CASE(5)
            QK_CASE(6)
#endif
        }
    }
}

V_INLINE void qk_all(float *s, int s_ld, kern_cpu_rows q, const void *const *k,
                     const void *const *ahead, int n, int hd, const kern_dtype type)
{
    int g = 0;

    for (; g + QK_G <= n; g += QK_G)
        qk_groups(s + g * KERN_CPU_GROUP, s_ld, q, k + g, ahead != NULL ? ahead + g : NULL, hd,
                  QK_G, type);
    for (; g < n; g++)
        qk_groups(s + g * KERN_CPU_GROUP, s_ld, q, k + g, ahead != NULL ? ahead + g : NULL, hd, 1,
                  type);
}

/* ---- values ---- */
/* acc += weights of token t times its values, F32 or F16. */
V_INLINE void pv_token(vf acc[PV_M][PV_D], kern_cpu_rows p, int t, const void *group, int64_t at,
                       const int M, const int D, const kern_dtype type)
{
    vf row[PV_D];

#pragma GCC unroll 8
    for (int d = 0; d < D; d++)
        row[d] = type == KERN_DTYPE_F16 ? v_load_f16((const uint16_t *)group + at + d * VL)
                                        : v_load((const float *)group + at + d * VL);
#pragma GCC unroll 8
    for (int i = 0; i < M; i++) {
        vf w = v_set1(((const float *)p.x)[i * p.ld + t]);

#pragma GCC unroll 8
        for (int d = 0; d < D; d++)
            acc[i][d] = v_fma(w, row[d], acc[i][d]);
    }
}

/* Words of the pair that begins with token t, from dimension d0 on. */
V_INLINE const uint16_t *v_at(const void *const *v, int t, int hd, int d0)
{
    return (const uint16_t *)v[t / KERN_CPU_GROUP] + (ptrdiff_t)(t % KERN_CPU_GROUP) * hd +
           (ptrdiff_t)2 * d0;
}

/* The same for tokens t and t + 1, BF16; `keep` masks the one that must not be looked at, whose weight is 0. */
V_INLINE void pv_pair(vf acc[PV_M][PV_D], kern_cpu_rows p, int t, const uint16_t *words,
                      uint32_t keep, const int M, const int D)
{
    vu row[PV_D];

#pragma GCC unroll 8
    for (int d = 0; d < D; d++)
        row[d] = v_word(words + 2 * d * VL) & keep;
#pragma GCC unroll 8
    for (int i = 0; i < M; i++) {
        const float *w = (const float *)p.x + (ptrdiff_t)i * p.ld + t;

#pragma GCC unroll 8
        for (int d = 0; d < D; d++)
            acc[i][d] = ROUNDS(KERN_DTYPE_BF16)
                            ? v_dot(acc[i][d], row[d], v_pair(p, i, t))
                            : v_fma(v_set1(w[1]), v_high(row[d]),
                                    v_fma(v_set1(w[0]), v_low(row[d]), acc[i][d]));
    }
}

/* M rows of weights times D vectors of dimensions at column d0. */
V_INLINE void pv_block(float *o, int hd, kern_cpu_rows p, const void *const *v,
                       const void *const *ahead, int begin, int end, int d0, const int M,
                       const int D, const kern_dtype type)
{
    const int step = type == KERN_DTYPE_BF16 ? 2 : 1;
    vf acc[PV_M][PV_D];
    int t;

#pragma GCC unroll 8
    for (int i = 0; i < M; i++)
#pragma GCC unroll 8
        for (int d = 0; d < D; d++)
            acc[i][d] = (vf){0};

    if (begin % step != 0)
        pv_pair(acc, p, begin - 1, v_at(v, begin - 1, hd, d0), 0xffff0000u, M, D);
    for (t = begin + begin % step; t + step <= end; t += step) {
        if (ahead != NULL)
            fetch(ahead[t / KERN_CPU_GROUP], t % KERN_CPU_GROUP * hd, step * hd, type);
        if (type == KERN_DTYPE_BF16)
            pv_pair(acc, p, t, v_at(v, t, hd, d0), ~0u, M, D);
        else
            pv_token(acc, p, t, v[t / KERN_CPU_GROUP], t % KERN_CPU_GROUP * hd + d0, M, D, type);
    }
    if (t < end)
        pv_pair(acc, p, t, v_at(v, t, hd, d0), 0xffffu, M, D);
#pragma GCC unroll 8
    for (int i = 0; i < M; i++)
#pragma GCC unroll 8
        for (int d = 0; d < D; d++)
            v_store(o + i * hd + d0 + d * VL, acc[i][d]);
}

#define PV_CASE(m)                                                                                 \
    case m:                                                                                        \
        if (i == 0 && d0 == 0 && ahead != NULL)                                                    \
            pv_block(o, hd, p, v, ahead, begin, end, 0, m, D, type);                               \
        else                                                                                       \
            pv_block(o + i * hd, hd, rows_from(p, i, type), v, NULL, begin, end, d0, m, D, type);  \
        break;

V_INLINE void pv_rows(float *o, int hd, kern_cpu_rows p, const void *const *v,
                      const void *const *ahead, int begin, int end, int d0, const int D,
                      const kern_dtype type)
{
    for (int i = 0, now; i < p.n; i += now) {
        now = block_of(p.n - i, PV_M);
        switch (now) {
            PV_CASE(1)
            PV_CASE(2)
#if PV_M > 2
            PV_CASE(3)
            PV_CASE(4)
#endif
#if PV_M > 4
            PV_CASE(5)
            PV_CASE(6)
#endif
        }
    }
}

V_INLINE void pv_all(float *o, int hd, kern_cpu_rows p, const void *const *v,
                     const void *const *ahead, int begin, int end, const kern_dtype type)
{
    int d0 = 0;

    for (; d0 + PV_D * VL <= hd; d0 += PV_D * VL)
        pv_rows(o, hd, p, v, ahead, begin, end, d0, PV_D, type);
    for (; d0 < hd; d0 += VL)
        pv_rows(o, hd, p, v, ahead, begin, end, d0, 1, type);
}

#define ATTN_FUNCTIONS(suffix, type)                                                               \
    static void qk_##suffix(float *s, int s_ld, kern_cpu_rows q, const void *const *k,             \
                            const void *const *ahead, int n, int hd)                               \
    {                                                                                              \
        qk_all(s, s_ld, q, k, ahead, n, hd, type);                                                 \
    }                                                                                              \
    static void pv_##suffix(float *o, int hd, kern_cpu_rows p, const void *const *v,               \
                            const void *const *ahead, int begin, int end)                          \
    {                                                                                              \
        pv_all(o, hd, p, v, ahead, begin, end, type);                                              \
    }

ATTN_FUNCTIONS(f32, KERN_DTYPE_F32)
ATTN_FUNCTIONS(bf16, KERN_DTYPE_BF16)
ATTN_FUNCTIONS(f16, KERN_DTYPE_F16)

/* ---- softmax ---- */
static float softmax(float *s, int n, float *max)
{
    vf top = v_set1(-INFINITY), sum = {0};
    float m;

    for (int i = 0; i < n; i += VL)
        top = v_max(v_load(s + i), top);
    m = v_top(top);
    *max = m;
    if (m == -INFINITY) {
        memset(s, 0, (size_t)n * sizeof *s);
        return 0.0f;
    }
    for (int i = 0; i < n; i += VL) {
        vf e = v_exp(v_load(s + i) - v_set1(m));

        v_store(s + i, e);
        sum += e;
    }
    return v_sum(sum);
}

static void merge(float *o, float a, const float *p, float b, int n)
{
    for (int i = 0; i < n; i += VL)
        v_store(o + i, v_fma(v_load(p + i), v_set1(b), v_load(o + i) * v_set1(a)));
}

static float exp1(float x)
{
    vf e = v_exp(v_set1(x));

    return e[0];
}

const kern_cpu_vec VEC_TABLE = {
    .name = VEC_NAME,
    .add_sumsq = add_sumsq,
    .scale_f32 = scale_f32,
    .scale_bf16 = scale_bf16,
    .silu_f32 = silu_f32,
    .silu_bf16 = silu_bf16,
    .rope = rope,
    .to_bf16 = to_bf16,
    .to_f16 = to_f16,
    .attn =
        {[KERN_DTYPE_F32] = {.qk = qk_f32, .pv = pv_f32, .block = ATTN_BLOCK},
         [KERN_DTYPE_BF16] = {.qk = qk_bf16, .pv = pv_bf16, .rounds = V_DOTS, .block = ATTN_BLOCK},
         [KERN_DTYPE_F16] = {.qk = qk_f16, .pv = pv_f16, .block = ATTN_BLOCK}},
    .softmax = softmax,
    .merge = merge,
    .exp1 = exp1,
    .max_clean = max_clean,
    .exp_chunk = exp_chunk,
    .block_sum = block_sum,
    .next_above = next_above,
};
