/* SPDX-License-Identifier: Apache-2.0 */
/* emu_types.h - the types of CUDA that our kernels use, for a host compiler: vectors and 16-bit numbers.
 *
 * Vectors are aligned as on the device (uint4 to 16 bytes), so that -fsanitize=alignment sees what would trap there, and
 * may alias: the device compiler lets kernels read any memory through them.  Conversions to 16 bits round to the nearest,
 * ties to even; NaN becomes 0x7fff; both as the device does.
 */
#ifndef KERN_EMU_TYPES_H
#define KERN_EMU_TYPES_H

#include <stdint.h>
#include <string.h>

#define EMU_VECTOR(n) __attribute__((aligned(n), may_alias))

#define EMU_VECTOR_TYPES(T, name, bytes)                                                           \
    struct EMU_VECTOR(2 * bytes) name##2                                                           \
    {                                                                                              \
        T x, y;                                                                                    \
    };                                                                                             \
    struct name##3                                                                                 \
    {                                                                                              \
        T x, y, z;                                                                                 \
    };                                                                                             \
    struct EMU_VECTOR(4 * bytes) name##4                                                           \
    {                                                                                              \
        T x, y, z, w;                                                                              \
    };                                                                                             \
    static inline name##2 make_##name##2(T x, T y)                                                 \
    {                                                                                              \
        return name##2 {x, y};                                                                     \
    }                                                                                              \
    static inline name##3 make_##name##3(T x, T y, T z)                                            \
    {                                                                                              \
        return name##3 {x, y, z};                                                                  \
    }                                                                                              \
    static inline name##4 make_##name##4(T x, T y, T z, T w)                                       \
    {                                                                                              \
        return name##4 {x, y, z, w};                                                               \
    }

EMU_VECTOR_TYPES(float, float, 4)
EMU_VECTOR_TYPES(int, int, 4)
EMU_VECTOR_TYPES(unsigned, uint, 4)
EMU_VECTOR_TYPES(unsigned short, ushort, 2)
EMU_VECTOR_TYPES(unsigned char, uchar, 1)

struct EMU_VECTOR(16) ulonglong2 {
    unsigned long long x, y;
};
struct EMU_VECTOR(16) longlong2 {
    long long x, y;
};
struct EMU_VECTOR(16) double2 {
    double x, y;
};

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

/* ---- bits ---- */
static inline unsigned __float_as_uint(float f)
{
    unsigned u;
    memcpy(&u, &f, 4);
    return u;
}
static inline float __uint_as_float(unsigned u)
{
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline int __float_as_int(float f)
{
    return (int)__float_as_uint(f);
}
static inline float __int_as_float(int i)
{
    return __uint_as_float((unsigned)i);
}

static inline float emu_bf16_decode(uint16_t bits)
{
    return __uint_as_float((unsigned)bits << 16);
}
static inline uint16_t emu_bf16_encode(float f)
{
    unsigned u = __float_as_uint(f);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return 0x7fff;
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

static inline float emu_half_decode(uint16_t bits)
{
    /* The exponents of both formats differ by 112; the product also normalises subnormal numbers. */
    unsigned magnitude = (unsigned)(bits & 0x7fffu) << 13;
    unsigned u = __float_as_uint(__uint_as_float(magnitude) * 0x1p112f);
    if ((bits & 0x7c00u) == 0x7c00u)
        u |= 0x7f800000u;
    return __uint_as_float(u | (unsigned)(bits & 0x8000u) << 16);
}
static inline uint16_t emu_half_encode(float f)
{
    unsigned u = __float_as_uint(f), sign = (u >> 16) & 0x8000u;
    unsigned magnitude = u & 0x7fffffffu;
    if (magnitude > 0x7f800000u)
        return 0x7fff;
    if (magnitude >= 0x477ff000u) /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (magnitude < 0x38800000u) { /* subnormal: the adder of 0.5 rounds at 2^-24 */
        unsigned sum = __float_as_uint(__uint_as_float(magnitude) + 0.5f);
        return (uint16_t)(sign | (sum - 0x3f000000u));
    }
    unsigned rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
    return (uint16_t)(sign | ((rounded - 0x38000000u) >> 13));
}

/* ---- bfloat16 ---- */
struct __nv_bfloat16 {
    uint16_t bits;
    __nv_bfloat16() = default;
    __nv_bfloat16(float f) : bits(emu_bf16_encode(f)) {}
    operator float() const { return emu_bf16_decode(bits); }
};
struct __attribute__((aligned(4))) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};

static inline __nv_bfloat16 __float2bfloat16(float f)
{
    return __nv_bfloat16(f);
}
static inline __nv_bfloat16 __float2bfloat16_rn(float f)
{
    return __nv_bfloat16(f);
}
static inline float __bfloat162float(__nv_bfloat16 b)
{
    return emu_bf16_decode(b.bits);
}
static inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y)
{
    return __nv_bfloat162{x, y};
}
static inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y)
{
    return __nv_bfloat162{__nv_bfloat16(x), __nv_bfloat16(y)};
}
static inline __nv_bfloat162 __float22bfloat162_rn(float2 f)
{
    return __floats2bfloat162_rn(f.x, f.y);
}
static inline float2 __bfloat1622float2(__nv_bfloat162 v)
{
    return float2{emu_bf16_decode(v.x.bits), emu_bf16_decode(v.y.bits)};
}
static inline float __low2float(__nv_bfloat162 v)
{
    return emu_bf16_decode(v.x.bits);
}
static inline float __high2float(__nv_bfloat162 v)
{
    return emu_bf16_decode(v.y.bits);
}
static inline __nv_bfloat16 __low2bfloat16(__nv_bfloat162 v)
{
    return v.x;
}
static inline __nv_bfloat16 __high2bfloat16(__nv_bfloat162 v)
{
    return v.y;
}
static inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 b)
{
    return b.bits;
}
static inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits)
{
    __nv_bfloat16 b;
    b.bits = bits;
    return b;
}

/* ---- half ---- */
struct __half {
    uint16_t bits;
    __half() = default;
    __half(float f) : bits(emu_half_encode(f)) {}
    operator float() const { return emu_half_decode(bits); }
};
struct __attribute__((aligned(4))) __half2 {
    __half x, y;
};

static inline __half __float2half(float f)
{
    return __half(f);
}
static inline __half __float2half_rn(float f)
{
    return __half(f);
}
static inline float __half2float(__half h)
{
    return emu_half_decode(h.bits);
}
static inline __half2 __halves2half2(__half x, __half y)
{
    return __half2{x, y};
}
static inline __half2 __floats2half2_rn(float x, float y)
{
    return __half2{__half(x), __half(y)};
}
static inline __half2 __float22half2_rn(float2 f)
{
    return __floats2half2_rn(f.x, f.y);
}
static inline float2 __half22float2(__half2 v)
{
    return float2{emu_half_decode(v.x.bits), emu_half_decode(v.y.bits)};
}
static inline float __low2float(__half2 v)
{
    return emu_half_decode(v.x.bits);
}
static inline float __high2float(__half2 v)
{
    return emu_half_decode(v.y.bits);
}
static inline __half __low2half(__half2 v)
{
    return v.x;
}
static inline __half __high2half(__half2 v)
{
    return v.y;
}
static inline unsigned short __half_as_ushort(__half h)
{
    return h.bits;
}
static inline __half __ushort_as_half(unsigned short bits)
{
    __half h;
    h.bits = bits;
    return h;
}

#endif
